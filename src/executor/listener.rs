//! Listening sockets: TCP, or Unix sockets in the file system.

use std::io;
use std::net::{Shutdown, TcpListener};
#[cfg(unix)]
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
#[cfg(unix)]
use std::os::unix::net::UnixListener;

use socket2::SockRef;

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
