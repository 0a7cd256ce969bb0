//! Listening sockets: TCP, or Unix sockets in the file system; and which of them are open.

use std::io;
use std::net::{Shutdown, TcpListener};
#[cfg(unix)]
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
#[cfg(unix)]
use std::os::unix::net::UnixListener;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use socket2::SockRef;

use crate::config::{Bind, Transport};
use crate::transport::ListenerPolicy;

/// A listening socket, and its number among the broker's listeners.
#[derive(Debug)]
pub struct Listener {
    /// The number by which the engine knows the listener.
    pub number: u16,
    /// The socket.
    pub socket: ListenerSocket,
    /// Whether the broker has opened the socket. A socket of the service manager keeps listening when the broker ends.
    pub is_ours: bool,
}

/// A listening socket.
#[derive(Debug)]
pub enum ListenerSocket {
    /// At an address.
    Tcp(TcpListener),
    /// In the file system.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    /// A second handle of the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            ListenerSocket::Tcp(listener) => ListenerSocket::Tcp(listener.try_clone()?),
            #[cfg(unix)]
            ListenerSocket::Unix(listener) => ListenerSocket::Unix(listener.try_clone()?),
        };
        Ok(Self { number: self.number, socket, is_ours: self.is_ours })
    }

    /// Stops listening, even while others hold the socket: an io_uring instance holds it for a moment after the
    /// process has ended, and connections that arrive in that time would be reset.
    pub fn shut(&self) {
        if !self.is_ours {
            return;
        }
        let shut = match &self.socket {
            ListenerSocket::Tcp(listener) => SockRef::from(listener).shutdown(Shutdown::Both),
            #[cfg(unix)]
            ListenerSocket::Unix(listener) => SockRef::from(listener).shutdown(Shutdown::Both),
        };
        // Where the system does not support this, the socket is closed a moment later.
        let _ = shut;
    }
}

#[cfg(unix)]
impl AsRawFd for ListenerSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

#[cfg(unix)]
impl From<ListenerSocket> for OwnedFd {
    fn from(listener: ListenerSocket) -> Self {
        match listener {
            ListenerSocket::Tcp(listener) => listener.into(),
            ListenerSocket::Unix(listener) => listener.into(),
        }
    }
}

/// A change of the listeners of one core, which its executor makes.
#[derive(Debug, Default)]
pub struct ListenerChange {
    /// Sockets on which the core accepts connections from now on.
    pub open: Vec<Listener>,
    /// Numbers of listeners on which the core accepts none any more.
    pub close: Vec<u16>,
}

/// A change on its way to a core, which takes it. Clones are the same change.
#[derive(Clone, Debug)]
pub struct Handed(Arc<Mutex<Option<ListenerChange>>>);

impl Handed {
    /// A change that can be sent repeatedly, and is taken once.
    pub fn new(change: ListenerChange) -> Self {
        Self(Arc::new(Mutex::new(Some(change))))
    }

    /// Takes the change.
    pub fn take(&self) -> Option<ListenerChange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An address or path that clients connect to, or did.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Number.
    pub number: u16,
    /// Address or path, with the port that the system chose.
    pub bind: Bind,
    /// Transport.
    pub transport: Transport,
    /// The policy, which counts the connections.
    pub policy: Arc<ListenerPolicy>,
    /// Whether connections are accepted.
    pub is_open: bool,
}

/// All listeners since the start, in the order of their numbers; clones show the same ones.
#[derive(Clone, Debug, Default)]
pub struct ListenerTable(Arc<ArcSwap<Vec<Listening>>>);

impl ListenerTable {
    /// The listeners as they are now.
    pub fn now(&self) -> Arc<Vec<Listening>> {
        self.0.load_full()
    }

    /// Replaces the listeners.
    pub fn set(&self, mut all: Vec<Listening>) {
        all.sort_by_key(|listening| listening.number);
        self.0.store(Arc::new(all));
    }

    /// The numbers of the listeners that accept connections.
    pub fn open(&self) -> Vec<u16> {
        self.now().iter().filter(|of| of.is_open).map(|of| of.number).collect()
    }
}
