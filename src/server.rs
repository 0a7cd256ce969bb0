//! From settings to a serving broker: listeners, engine, executor.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::clock::Now;
use crate::config::{Cores, Settings};
use crate::engine::{Access, Engine, Place};
use crate::executor::mesh::Mesh;
use crate::executor::{Stop, placement, poll};
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
    executors: Vec<poll::Executor>,
    cores: Cores,
    addresses: Vec<SocketAddr>,
    connections_max: u32,
    stop: Stop,
}

impl Server {
    /// Opens the listeners. `access` makes each core its access control; `seed` feeds names the
    /// broker makes up.
    pub fn open(
        mut settings: Settings,
        access: &dyn Fn() -> Box<dyn Access>,
        seed: u64,
        stop: Stop,
    ) -> Result<Self, ServerError> {
        let limits = &mut settings.limits;
        limits.connections_max =
            platform::connections_max(limits.connections_max).map_err(ServerError::Descriptors)?;
        if limits.memory_bytes_max == 0 {
            limits.memory_bytes_max = platform::memory_bytes() / 4 * 3;
        }
        let cores = settings.cores.clone();
        let (mut listeners, addresses) = open_listeners(&settings)?;
        let connections_max = settings.limits.connections_max;
        let (polls, wakers) = open_polls(cores.count()).map_err(ServerError::Executor)?;
        stop.attach(Arc::clone(&wakers)).map_err(ServerError::Executor)?;
        let (started, mut executors) = (Instant::now(), Vec::new());
        let places = Place::each(cores.count());
        for ((place, poll), mesh) in places.into_iter().zip(polls).zip(Mesh::each(&wakers)) {
            let engine = Engine::new(place, settings.clone(), access(), seed, Now(0));
            let listeners = listeners.pop_front().unwrap_or_default();
            let parts = poll::Parts { poll, mesh, engine, listeners };
            let executor = poll::Executor::new(parts, started, stop.clone());
            executors.push(executor.map_err(ServerError::Executor)?);
        }
        Ok(Self { executors, cores, addresses, connections_max, stop })
    }

    /// The addresses listened on, with the ports the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections it takes at a time.
    pub fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Serves until asked to stop. When one core fails, all stop.
    pub fn serve(self) -> Result<(), ServerError> {
        let numbers = placement::numbers(&self.cores);
        let mut threads = Vec::new();
        for (core, executor) in self.executors.into_iter().enumerate() {
            let (number, stop) = (numbers.get(core).copied(), self.stop.clone());
            let run = move || {
                if let Some(number) = number {
                    placement::pin(core, number);
                }
                let _stops_all = StopAtEnd(stop);
                executor.run()
            };
            let thread = std::thread::Builder::new().name(format!("core {core}"));
            threads.push(thread.spawn(run).map_err(ServerError::Executor)?);
        }
        let mut outcome = Ok(());
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(ended.map_err(ServerError::Executor));
        }
        outcome
    }
}

/// A core that ends, for whatever reason, ends the others.
struct StopAtEnd(Stop);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.ask();
    }
}

fn open_polls(cores: u16) -> io::Result<(Vec<mio::Poll>, Arc<[mio::Waker]>)> {
    let mut polls = Vec::new();
    let mut wakers = Vec::new();
    for _ in 0..cores {
        let (poll, waker) = poll::poll()?;
        polls.push(poll);
        wakers.push(waker);
    }
    Ok((polls, wakers.into()))
}

/// The listeners of each core, and the addresses. Where the kernel spreads connections over
/// several sockets of one port, each core accepts for itself; elsewhere the first core does, and
/// connections reach the others by going home.
fn open_listeners(
    settings: &Settings,
) -> Result<(VecDeque<Vec<TcpListener>>, Vec<SocketAddr>), ServerError> {
    let spreads = cfg!(target_os = "linux") && settings.cores.count() > 1;
    let accepting = if spreads { settings.cores.count() } else { 1 };
    let mut of_cores: VecDeque<Vec<TcpListener>> = (0..accepting).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for &address in &settings.listen {
        let opened = listen_for_each(address, accepting);
        match opened {
            Ok((listeners, address)) => {
                for (of_core, listener) in of_cores.iter_mut().zip(listeners) {
                    of_core.push(listener);
                }
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
    Ok((of_cores, addresses))
}

fn listen_for_each(
    address: SocketAddr,
    accepting: u16,
) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    if accepting == 1 {
        let (listener, address) = listen(address, false)?;
        return Ok((vec![listener], address));
    }
    // Sockets that share a port share it with those of any other process of this user. Whether
    // one is there shows to a socket that does not share.
    drop(listen(address, false)?);
    let (first, address) = listen(address, true)?;
    let mut listeners = vec![first];
    for _ in 1..accepting {
        listeners.push(listen(address, true)?.0);
    }
    Ok((listeners, address))
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.to_string().contains("Address family not supported")
}

fn listen(address: SocketAddr, shares: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Elsewhere than on Unix this option would let another program take the port from under us.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(shares)?;
    #[cfg(not(target_os = "linux"))]
    assert!(!shares, "elsewhere one core accepts for all");
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
        let (listener, address) =
            listen("127.0.0.1:0".parse().expect("an address"), false).expect("free");
        let _peer = TcpStream::connect(address).expect("it listens");
        let (accepted, _) = listener.accept().expect("it waits");
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), PROBE_AFTER);
    }
}
