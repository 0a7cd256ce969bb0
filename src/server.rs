//! From settings to a serving broker: listeners, engine, executor.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::clock::Now;
use crate::config::Settings;
use crate::engine::{Access, Engine, Place};
use crate::executor::{Stop, poll};
use crate::platform;

/// Connections that wait in the kernel while the broker is busy.
const BACKLOG: i32 = 4_096;

/// Silence after which TCP asks whether the peer is still there.
const PROBE_AFTER: Duration = Duration::from_secs(120);

/// Why a broker does not start, or ended.
#[derive(Debug)]
pub enum ServerError {
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The descriptor limit is too low.
    Descriptors(platform::TooFewDescriptors),
    /// The executor failed.
    Executor(io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}; {}", hint(error, *address))
            }
            Self::Descriptors(error) => error.fmt(f),
            Self::Executor(error) => write!(f, "the executor failed: {error}"),
        }
    }
}

impl std::error::Error for ServerError {}

fn hint(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has the port (`ss -ltnp 'sport = :{}'` shows which); stop it or \
             choose another port with --listen",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose one of its own with --listen".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE); choose a higher port with \
             --listen"
                .to_owned()
        }
        _ => "choose another address with --listen".to_owned(),
    }
}

/// A broker that listens and does not serve yet.
pub struct Server {
    executor: poll::Executor,
    addresses: Vec<SocketAddr>,
    connections_max: u32,
}

impl Server {
    /// Opens the listeners. `seed` feeds names the broker makes up.
    pub fn open(
        mut settings: Settings,
        access: Box<dyn Access>,
        seed: u64,
        stop: Stop,
    ) -> Result<Self, ServerError> {
        let limits = &mut settings.limits;
        limits.connections_max =
            platform::connections_max(limits.connections_max).map_err(ServerError::Descriptors)?;
        if limits.memory_bytes_max == 0 {
            limits.memory_bytes_max = platform::memory_bytes() / 4 * 3;
        }
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for &address in &settings.listen {
            match listen(address) {
                Ok((listener, address)) => {
                    listeners.push(listener);
                    addresses.push(address);
                }
                // The default configuration listens on ::1 too; a machine without IPv6 is served
                // on what it has.
                Err(error)
                    if settings.listen == Settings::default().listen
                        && address.is_ipv6()
                        && is_without_ipv6(&error) =>
                {
                    tracing::info!(%address, "this machine has no IPv6; not listening there");
                }
                Err(error) => return Err(ServerError::Listen(address, error)),
            }
        }
        let connections_max = settings.limits.connections_max;
        let engine = Engine::new(Place::alone(), settings, access, seed, Now(0));
        let executor =
            poll::Executor::new(engine, listeners, stop).map_err(ServerError::Executor)?;
        Ok(Self { executor, addresses, connections_max })
    }

    /// The addresses listened on, with the ports the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections it takes at a time.
    pub fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Serves until asked to stop.
    pub fn serve(self) -> Result<(), ServerError> {
        self.executor.run().map_err(ServerError::Executor)
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.to_string().contains("Address family not supported")
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Elsewhere than on Unix this option would let another program take the port from under us.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it: a client without Keep Alive that vanishes is found out by TCP.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn tcp_looks_after_peers_that_say_nothing() {
        let (listener, address) = listen("127.0.0.1:0".parse().expect("an address")).expect("free");
        let _peer = TcpStream::connect(address).expect("it listens");
        let (accepted, _) = listener.accept().expect("it waits");
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), PROBE_AFTER);
    }
}
