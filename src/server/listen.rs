//! Listening sockets, with their options, for each core that accepts.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::ServerError;
use crate::config::listener::{Transport, UnixSocket};
use crate::config::{self, Bind, Settings};
use crate::executor::{Listener, ListenerSocket, Listeners};
use crate::platform::plan::Seat;
use crate::service::HandedOver;

/// Connections that wait in the kernel while the broker is busy.
const BACKLOG: i32 = 4_096;

/// How long a port or path that is in use may take to come free. When a process that has a listener in an
/// io_uring is killed, the kernel lets the listener go a moment after the process is gone.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon it is tried again; each time twice as much later, as whoever listens at a path notices it.
const RETRY: Duration = Duration::from_millis(5);
/// And no later than that.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Silence after which TCP asks whether the peer is still there.
const PROBE_AFTER: Duration = Duration::from_secs(120);

/// What to do about an address that cannot be listened on.
pub(super) fn hint(error: &io::Error, bind: &Bind) -> String {
    let address = match bind {
        Bind::Address(address) => address,
        Bind::Path(_) if error.kind() == io::ErrorKind::AddrInUse => {
            return "another program listens there, or something else than a socket has the path; \
                    stop it or choose another path"
                .to_owned();
        }
        Bind::Path(_) => {
            return "name a path in a folder that the broker's user may write to, and owner and group \
                    that it may give it to"
                .to_owned();
        }
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has the port (`ss -ltnp 'sport = :{}'` shows which); stop it or \
             choose another port with --listen",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose one of its own with --listen, or say bind_wait_s \
             or free_bind in the configuration for one that comes later"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE); choose a higher port with \
             --listen"
                .to_owned()
        }
        _ => "choose another address with --listen".to_owned(),
    }
}

/// A second handle of each.
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
pub(super) fn try_clone(listeners: &[Listeners]) -> io::Result<Vec<Listeners>> {
    listeners.iter().map(|of_core| of_core.iter().map(Listener::try_clone).collect()).collect()
}

/// The listeners of each core, and the addresses. Where the kernel spreads connections over
/// several sockets of one port, each core accepts for itself; elsewhere the first core does, and
/// connections reach the others by going home.
/// What the service manager handed over is taken as it is; there the first core accepts for all.
pub(super) fn open_listeners(
    settings: &Settings,
    handed_over: &mut HandedOver,
) -> Result<Opened, ServerError> {
    let spreads = cfg!(target_os = "linux") && settings.cores.count() > 1;
    let accepting = if spreads { settings.cores.count() } else { 1 };
    let mut of_cores: Vec<Listeners> = (0..accepting).map(|_| Vec::new()).collect();
    let mut open = Vec::new();
    for (number, listener) in settings.every_listener().enumerate() {
        let number = number as u16;
        let (opened, is_ours) = match (handed_over.take(&listener.bind), &listener.bind) {
            (Some(socket), _) => (take(socket), false),
            (None, Bind::Address(address)) => {
                let listen = || listen_for_each(*address, accepting, settings.free_bind);
                let wait_s =
                    if may_be_absent(settings, &listener) { 0 } else { settings.bind_wait_s };
                (patiently(&listener.bind, wait_s, listen), true)
            }
            (None, Bind::Path(path)) => {
                (patiently(&listener.bind, 0, || listen_at(path, &listener.unix)), true)
            }
        };
        match opened {
            Ok((sockets, bind)) => {
                for (of_core, socket) in of_cores.iter_mut().zip(sockets) {
                    of_core.push(Listener { number, socket, is_ours });
                }
                open.push(Open { bind, transport: listener.transport, is_ours });
            }
            Err(error) if may_be_absent(settings, &listener) && is_without_ipv6(&error) => {
                tracing::info!(address = %listener.bind, "this machine has no IPv6; not listening there");
            }
            Err(error) => return Err(ServerError::Listen(listener.bind, error)),
        }
    }
    Ok((of_cores, open))
}

/// Listens at a path. Sockets in the file system are not spread over cores: the first core accepts,
/// and connections reach the others by going home.
#[cfg(unix)]
fn listen_at(path: &Path, rights: &UnixSocket) -> Listening {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let (owner, group) = rights.ids().map_err(io::Error::other)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = socket_address(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        outcome => outcome?,
    }
    let listen = || {
        // Nobody can connect before it listens, and by then it is for those it is to be for.
        if owner.or(group).is_some() {
            chown(path, owner, group).map_err(|error| {
                let what =
                    format!("unix.owner, unix.group: the socket cannot be given away: {error}");
                io::Error::new(error.kind(), what)
            })?;
        }
        if let Some(mode) = rights.mode {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        socket.listen(BACKLOG)
    };
    listen().inspect_err(|_| drop(std::fs::remove_file(path)))?;
    let listener = std::os::fd::OwnedFd::from(socket);
    Ok((vec![ListenerSocket::Unix(listener.into())], Bind::Path(path.to_owned())))
}

/// A broker that was killed leaves its socket: nobody answers there.
#[cfg(unix)]
fn is_left_over(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    use std::os::unix::net::UnixStream;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|at| at.file_type().is_socket());
    let answer = UnixStream::connect(path);
    is_socket && answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(not(unix))]
fn listen_at(_path: &Path, _rights: &UnixSocket) -> Listening {
    unreachable!("the configuration refuses it")
}

/// A socket that listens already, with the options of those opened here.
fn take((bind, socket): (Bind, ListenerSocket)) -> Listening {
    if let ListenerSocket::Tcp(listener) = &socket {
        set_options(&SockRef::from(listener))?;
    }
    Ok((vec![socket], bind))
}

/// Takes away the sockets in the file system that were opened here.
pub(super) fn remove_paths(open: &[Open]) {
    for listener in open {
        if let (Bind::Path(path), true) = (&listener.bind, listener.is_ours)
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Lets each core accept what the kernel receives on that core's processor: what the handshake left
/// in its caches is used there. Where a processor has no listener, and before Linux 6.2, the kernel
/// spreads connections by a hash as if nothing had been said (`SO_INCOMING_CPU`, socket(7)).
#[cfg(target_os = "linux")]
pub(super) fn steer(of_cores: &[Listeners], seats: &[Seat]) {
    for (listeners, seat) in of_cores.iter().zip(seats) {
        for listener in listeners {
            let ListenerSocket::Tcp(listener) = &listener.socket else { continue };
            let socket = SockRef::from(listener);
            if let Err(error) = socket.set_cpu_affinity(usize::from(seat.processor)) {
                tracing::debug!(%error, "connections are spread by a hash");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn steer(_of_cores: &[Listeners], _seats: &[Seat]) {}

/// The default configuration listens on ::1 too, and a port alone is for all addresses: a machine without
/// IPv6 is served on what it has.
fn may_be_absent(settings: &Settings, listener: &config::Listener) -> bool {
    let Bind::Address(SocketAddr::V6(address)) = listener.bind else { return false };
    let beside = match *address.ip() {
        Ipv6Addr::LOCALHOST => Ipv4Addr::LOCALHOST,
        Ipv6Addr::UNSPECIFIED => Ipv4Addr::UNSPECIFIED,
        _ => return false,
    };
    let beside = Bind::Address(SocketAddr::from((beside, address.port())));
    settings.every_listener().any(|other| other.bind == beside)
}

/// Whether a start could listen there, as far as that shows without listening: whoever has it now may be
/// the broker that runs with this configuration.
pub(super) fn check(settings: &Settings, listener: &config::Listener) -> io::Result<()> {
    match &listener.bind {
        Bind::Address(address) => match bind(*address, false, settings.free_bind) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            Err(error) if may_be_absent(settings, listener) && is_without_ipv6(&error) => Ok(()),
            Err(error) if settings.bind_wait_s > 0 && is_absent(&error) => Ok(()),
            outcome => outcome.map(drop),
        },
        Bind::Path(path) => check_path(path, &listener.unix),
    }
}

#[cfg(unix)]
fn check_path(path: &Path, rights: &UnixSocket) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    rights.ids().map_err(io::Error::other)?;
    socket_address(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let what = "there is something at this path that is no socket";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        _ => {}
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    super::check::may_write_in(folder.unwrap_or(Path::new(".")))
}

#[cfg(not(unix))]
fn check_path(_path: &Path, _rights: &UnixSocket) -> io::Result<()> {
    unreachable!("the configuration refuses it")
}

#[cfg(unix)]
fn socket_address(path: &Path) -> io::Result<socket2::SockAddr> {
    socket2::SockAddr::unix(path).map_err(|error| {
        let what = format!("the path is too long for a socket, or empty: {error}");
        io::Error::new(error.kind(), what)
    })
}

/// Tries again while the port or path is in use, for a moment, and while the machine does not have the
/// address, for so many seconds.
fn patiently(bind: &Bind, wait_s: u32, mut listen: impl FnMut() -> Listening) -> Listening {
    let (begun, mut rest, mut is_said) = (Instant::now(), RETRY, false);
    loop {
        let outcome = listen();
        let Err(error) = &outcome else { return outcome };
        let is_absent = is_absent(error);
        let patience = match error.kind() {
            io::ErrorKind::AddrInUse => PATIENCE,
            _ if is_absent => Duration::from_secs(u64::from(wait_s)),
            _ => Duration::ZERO,
        };
        let left = patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return outcome;
        }
        if is_absent && !is_said {
            tracing::warn!(address = %bind, bind_wait_s = wait_s, "waiting for an address that this machine does not have yet");
            is_said = true;
        }
        std::thread::sleep(rest.min(left));
        rest = (rest * 2).min(RETRY_MAX);
    }
}

/// Whether the machine has no such address, or not the interface that it names.
fn is_absent(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    if error.raw_os_error() == Some(libc::ENODEV) {
        return true;
    }
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Where the broker listens, for what.
#[derive(Clone, Debug)]
pub struct Open {
    /// The address or path, with the port that the system chose.
    pub bind: Bind,
    /// What is spoken there.
    pub transport: Transport,
    /// Whether the broker opened it; what was handed over stays when it ends.
    is_ours: bool,
}

/// The listeners of each core, and where they listen for what.
type Opened = (Vec<Listeners>, Vec<Open>);

/// A listener for each core that accepts, and their address.
type Listening = io::Result<(Vec<ListenerSocket>, Bind)>;

fn listen_for_each(address: SocketAddr, accepting: u16, is_free: bool) -> Listening {
    if accepting == 1 {
        let (listener, address) = listen(bind(address, false, is_free)?)?;
        return Ok((vec![ListenerSocket::Tcp(listener)], Bind::Address(address)));
    }
    // Sockets that share a port share it with those of any other process of this user. Whether
    // one is there shows to a socket that does not share. It never listens: who connected to it would
    // be reset when it goes.
    let alone = bind(address, false, is_free)?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    let mut listeners = Vec::new();
    for _ in 0..accepting {
        listeners.push(ListenerSocket::Tcp(listen(bind(address, true, is_free)?)?.0));
    }
    Ok((listeners, Bind::Address(address)))
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.to_string().contains("Address family not supported")
}

fn listen(socket: Socket) -> io::Result<(TcpListener, SocketAddr)> {
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// `is_free` where the machine need not have the address yet.
fn bind(address: SocketAddr, shares: bool, is_free: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Elsewhere than on Unix this option would let another program take the port from under us.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(shares)?;
    #[cfg(target_os = "linux")]
    match address {
        _ if !is_free => {}
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    #[cfg(not(target_os = "linux"))]
    assert!(!shares && !is_free, "elsewhere one core accepts for all, on addresses that are there");
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_options(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What accepted sockets inherit.
fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    // A client without Keep Alive that vanishes is found out by TCP.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER))?;
    // Frames leave when the turn says so, not when Nagle's algorithm does.
    socket.set_tcp_nodelay(true)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::config::Cores;
    use crate::executor::placement;
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
        let (listeners, open) =
            open_listeners(&settings, &mut HandedOver::default()).expect("free");
        let Bind::Address(address) = open[0].bind else { panic!("it is TCP") };
        steer(&listeners, &seats);
        let sockets: Vec<_> = listeners
            .iter()
            .map(|of_core| {
                let ListenerSocket::Tcp(listener) = &of_core[0].socket else { panic!("it is TCP") };
                listener.set_nonblocking(true).expect("an option");
                listener
            })
            .collect();
        for (core, seat) in [(0, first), (1, second), (0, first)] {
            let id = core_affinity::CoreId { id: usize::from(seat.processor) };
            assert!(core_affinity::set_for_current(id));
            // On loopback whoever connects receives for both.
            let peers: Vec<_> =
                (0..20).map(|_| TcpStream::connect(address).expect("it listens")).collect();
            let here = (0..20).filter(|_| sockets[core].accept().is_ok()).count();
            let elsewhere = (0..20).filter(|_| sockets[1 - core].accept().is_ok()).count();
            assert_eq!((here, elsewhere), (peers.len(), 0), "core {core}");
        }
    }

    #[test]
    fn tcp_looks_after_peers_that_say_nothing() {
        let (listener, address) =
            listen(bind("127.0.0.1:0".parse().expect("an address"), false, false).expect("free"))
                .expect("it listens");
        let _peer = TcpStream::connect(address).expect("it listens");
        let (accepted, _) = listener.accept().expect("it waits");
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), PROBE_AFTER);
    }
}
