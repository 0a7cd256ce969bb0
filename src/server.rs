//! From settings to a serving broker: listeners, engine, executor.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::config::{ExecutorKind as Kind, Mode, Settings};
use crate::engine::Access;
use crate::executor::threads::{self, Plan, Running};
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use crate::executor::uring;
use crate::executor::{Executor, Listeners, Stop, placement, poll, sockets_max};
use crate::platform::plan::{Impossible, Seat};
use crate::platform::{self, Descriptors};
use crate::stats::{Prepared, Prompt, Reporter};
#[cfg(feature = "store")]
use crate::storage::log::{Store, StoreError};

/// Connections that wait in the kernel while the broker is busy.
const BACKLOG: i32 = 4_096;

/// How long a port that is in use may take to come free. When a process that has a listener in an
/// io_uring is killed, the kernel lets the port go a moment after the process is gone.
const PORT_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is tried meanwhile.
const PORT_RETRY: Duration = Duration::from_millis(10);

/// Silence after which TCP asks whether the peer is still there.
const PROBE_AFTER: Duration = Duration::from_secs(120);

/// Why a broker does not start, or ended.
#[derive(Debug)]
pub enum ServerError {
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The descriptor limit is too low.
    Descriptors(platform::TooFewDescriptors),
    /// What it is told to run on is not there, and why.
    Mode(String),
    /// The processors it is told to run on are not there.
    Seats(Impossible),
    /// The file for statistics cannot be written.
    Stats(PathBuf, io::Error),
    /// What is to be kept cannot be.
    #[cfg(feature = "store")]
    Store(StoreError),
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
            Self::Mode(why) => {
                write!(f, "--mode uring: {why}; or let --mode auto choose what there is")
            }
            Self::Seats(impossible) => write!(f, "--cores: {impossible}"),
            Self::Stats(path, error) => write!(
                f,
                "--stats-log {}: {error}; name a file in a folder that this user may write to",
                path.display()
            ),
            #[cfg(feature = "store")]
            Self::Store(error) => error.fmt(f),
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

fn descriptors(kind: Kind, cores: u16) -> Descriptors {
    match kind {
        Kind::Uring => Descriptors::OfRings(cores),
        _ => Descriptors::OfTheProcess,
    }
}

/// A broker that listens and does not serve yet.
pub struct Server<'a> {
    settings: Settings,
    access: &'a dyn Fn() -> Box<dyn Access>,
    seed: u64,
    stop: Stop,
    kind: Kind,
    seats: Vec<Seat>,
    listeners: Vec<Listeners>,
    addresses: Vec<SocketAddr>,
    reporter: Option<Prepared>,
    #[cfg(feature = "store")]
    store: std::cell::RefCell<Option<Store>>,
}

impl<'a> Server<'a> {
    /// Chooses what to run on and opens the listeners. `access` makes each core its access
    /// control; `seed` feeds names the broker makes up.
    pub fn open(
        mut settings: Settings,
        access: &'a dyn Fn() -> Box<dyn Access>,
        seed: u64,
        stop: Stop,
    ) -> Result<Self, ServerError> {
        let asked = settings.limits.connections_max;
        platform::raise_descriptors(asked);
        settings.mode = platform::report::resolve(settings.mode);
        let kind = choose(&settings)?;
        let descriptors = descriptors(kind, settings.cores.count());
        settings.limits.connections_max =
            platform::connections_max(asked, descriptors).map_err(ServerError::Descriptors)?;
        if settings.limits.memory_bytes_max == 0 {
            settings.limits.memory_bytes_max = platform::memory_bytes() / 4 * 3;
        }
        let seats = placement::seats(&settings.cores, settings.numa).map_err(ServerError::Seats)?;
        let reporter = prepare_reporter(&settings)?;
        let (listeners, addresses) = open_listeners(&settings)?;
        steer(&listeners, &seats);
        #[cfg(feature = "store")]
        let store = std::cell::RefCell::new(open_store(&settings)?);
        Ok(Self {
            settings,
            access,
            seed,
            stop,
            kind,
            seats,
            listeners,
            addresses,
            reporter,
            #[cfg(feature = "store")]
            store,
        })
    }

    /// The addresses listened on, with the ports the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections it takes at a time.
    pub fn connections_max(&self) -> u32 {
        self.settings.limits.connections_max
    }

    /// What it runs on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// By what it is asked for statistics while it serves, where it takes them.
    pub fn prompt(&self) -> Option<Prompt> {
        self.reporter.as_ref().map(Prepared::prompt)
    }

    /// Serves until asked to stop. When one core fails, all stop.
    pub fn serve(mut self) -> Result<(), ServerError> {
        let listeners = std::mem::take(&mut self.listeners);
        let mut running = match self.kind {
            Kind::Poll => self.start::<poll::Executor>(listeners)?,
            #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
            Kind::Uring if !is_forced(&self.settings) => {
                let copies = try_clone(&listeners).map_err(ServerError::Executor)?;
                match self.start::<uring::Executor>(copies) {
                    Ok(running) => running,
                    #[cfg(feature = "store")]
                    Err(error @ ServerError::Store(_)) => return Err(error),
                    // One ring could be had, but not one for each core.
                    Err(error) => {
                        tracing::warn!(%error, "cannot run on io_uring; running on poll instead");
                        let connections_max = &mut self.settings.limits.connections_max;
                        *connections_max = platform::connections_max(0, Descriptors::OfTheProcess)
                            .map_or(*connections_max, |fit| fit.min(*connections_max));
                        self.start::<poll::Executor>(listeners)?
                    }
                }
            }
            #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
            Kind::Uring => self.start::<uring::Executor>(listeners)?,
            #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
            Kind::Uring => unreachable!("it is not chosen here"),
            #[cfg(all(feature = "monoio", target_os = "linux", target_pointer_width = "64"))]
            Kind::Monoio => self.start::<crate::executor::monoio::Executor>(listeners)?,
            #[cfg(all(feature = "glommio", target_os = "linux", target_pointer_width = "64"))]
            Kind::Glommio => self.start::<crate::executor::glommio::Executor>(listeners)?,
            #[allow(unreachable_patterns, reason = "it depends on what this was built with")]
            Kind::Auto | Kind::Monoio | Kind::Glommio => unreachable!("it is not chosen"),
        };
        let reporter = match (self.reporter.take(), running.desk.take()) {
            (Some(reporter), Some(desk)) => Some(reporter.start(desk)),
            _ => None,
        };
        let reporter = reporter.transpose().map_err(ServerError::Executor)?;
        let outcome = running.join().map_err(ServerError::Executor);
        if let Some(reporter) = reporter {
            reporter.end();
        }
        #[cfg(feature = "store")]
        if let Some(store) = &mut *self.store.borrow_mut() {
            store.finish();
        }
        outcome
    }

    fn start<E: Executor>(&self, listeners: Vec<Listeners>) -> Result<Running, ServerError> {
        let plan = Plan {
            settings: &self.settings,
            access: self.access,
            seed: self.seed,
            seats: &self.seats,
            #[cfg(feature = "store")]
            store: &self.store,
            stop: self.stop.clone(),
        };
        let started = match self.settings.mode {
            Mode::Sync => threads::start_here::<E>(&plan, listeners),
            _ => threads::start::<E>(&plan, listeners),
        };
        started.map_err(|error| {
            #[cfg(feature = "store")]
            let error = match error.downcast::<StoreError>() {
                Ok(error) => return ServerError::Store(error),
                Err(error) => error,
            };
            ServerError::Executor(error)
        })
    }
}

fn prepare_reporter(settings: &Settings) -> Result<Option<Prepared>, ServerError> {
    if !settings.stats.enabled {
        return Ok(None);
    }
    let prepared = Reporter::prepare(&settings.stats);
    prepared.map(Some).map_err(|error| ServerError::Stats(settings.stats.log.clone(), error))
}

/// Opens what is to be kept in, and says where that is.
#[cfg(feature = "store")]
fn open_store(settings: &Settings) -> Result<Option<Store>, ServerError> {
    let folder = match settings.data_folder() {
        Ok(folder) => folder,
        Err(because) => {
            tracing::info!(because, "keeping sessions and retained messages in memory alone");
            return Ok(None);
        }
    };
    let store = Store::open(&folder, settings.storage.clone()).map_err(ServerError::Store)?;
    tracing::info!(
        folder = %folder.display(),
        bytes = store.scan().bytes(),
        sync = ?settings.storage.sync,
        "keeping sessions and retained messages"
    );
    Ok(Some(store))
}

/// What to run on: what the settings say, or the best there is.
fn choose(settings: &Settings) -> Result<Kind, ServerError> {
    if settings.mode == Mode::Poll || settings.executor == Kind::Poll {
        return Ok(Kind::Poll);
    }
    let io_uring = platform::availability(&settings.uring, sockets_max(settings));
    match io_uring.why_not() {
        None if settings.executor == Kind::Auto => Ok(Kind::Uring),
        None => Ok(settings.executor),
        Some(why) if is_forced(settings) => Err(ServerError::Mode(why.to_string())),
        Some(why) => {
            tracing::warn!(because = why.word(), "running on poll, the slower way: {why}");
            Ok(Kind::Poll)
        }
    }
}

/// Whether it must be io_uring or nothing.
fn is_forced(settings: &Settings) -> bool {
    settings.mode == Mode::Uring || settings.executor != Kind::Auto
}

fn try_clone(listeners: &[Listeners]) -> io::Result<Vec<Listeners>> {
    listeners.iter().map(|of_core| of_core.iter().map(TcpListener::try_clone).collect()).collect()
}

/// The listeners of each core, and the addresses. Where the kernel spreads connections over
/// several sockets of one port, each core accepts for itself; elsewhere the first core does, and
/// connections reach the others by going home.
fn open_listeners(settings: &Settings) -> Result<(Vec<Listeners>, Vec<SocketAddr>), ServerError> {
    let spreads = cfg!(target_os = "linux") && settings.cores.count() > 1;
    let accepting = if spreads { settings.cores.count() } else { 1 };
    let mut of_cores: Vec<Listeners> = (0..accepting).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for &address in &settings.listen {
        let opened = listen_patiently(address, accepting);
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

/// Lets each core accept what the kernel receives on that core's processor: what the handshake left
/// in its caches is used there. Where a processor has no listener, and before Linux 6.2, the kernel
/// spreads connections by a hash as if nothing had been said (`SO_INCOMING_CPU`, socket(7)).
#[cfg(target_os = "linux")]
fn steer(of_cores: &[Listeners], seats: &[Seat]) {
    for (listeners, seat) in of_cores.iter().zip(seats) {
        for listener in listeners {
            let socket = socket2::SockRef::from(listener);
            if let Err(error) = socket.set_cpu_affinity(usize::from(seat.processor)) {
                tracing::debug!(%error, "connections are spread by a hash");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn steer(_of_cores: &[Listeners], _seats: &[Seat]) {}

fn listen_patiently(address: SocketAddr, accepting: u16) -> Listening {
    let until = Instant::now() + PORT_PATIENCE;
    loop {
        match listen_for_each(address, accepting) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(PORT_RETRY);
            }
            outcome => return outcome,
        }
    }
}

/// A listener for each core that accepts, and their address.
type Listening = io::Result<(Vec<TcpListener>, SocketAddr)>;

fn listen_for_each(address: SocketAddr, accepting: u16) -> Listening {
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
    // As do they this: frames leave when the turn says so, not when Nagle's algorithm does.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::config::Cores;
    use std::net::TcpStream;

    /// Before Linux 6.2 a hash alone chooses among the sockets of a port.
    fn knows_no_steering() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("its version");
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) < (Some(6), Some(2))
    }

    #[test]
    fn a_connection_is_accepted_on_the_processor_that_received_it() {
        let settings = Settings {
            cores: Cores::Count(2),
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            ..Settings::default()
        };
        if knows_no_steering() {
            return;
        }
        let Ok(seats) = placement::seats(&settings.cores, false) else { return };
        let [first, second] = seats[..] else { return };
        let (listeners, addresses) = open_listeners(&settings).expect("free");
        steer(&listeners, &seats);
        listeners.iter().flatten().for_each(|listener| {
            listener.set_nonblocking(true).expect("an option");
        });
        for (core, seat) in [(0, first), (1, second), (0, first)] {
            let id = core_affinity::CoreId { id: usize::from(seat.processor) };
            assert!(core_affinity::set_for_current(id));
            // On loopback whoever connects receives for both.
            let peers: Vec<_> =
                (0..20).map(|_| TcpStream::connect(addresses[0]).expect("it listens")).collect();
            let here = (0..20).filter(|_| listeners[core][0].accept().is_ok()).count();
            let elsewhere = (0..20).filter(|_| listeners[1 - core][0].accept().is_ok()).count();
            assert_eq!((here, elsewhere), (peers.len(), 0), "core {core}");
        }
    }

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
