//! Listening sockets of each core that accepts connections.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::ServerError;
use crate::config::listener::{Transport, UnixSocket};
use crate::config::{self, Bind, Settings};
use crate::executor::{Listener, ListenerSocket, Listeners};
use crate::platform::plan::Placement;
use crate::service::HandedOver;

/// Connections that may wait in the kernel while the broker is busy.
const BACKLOG: i32 = 4_096;

/// Time for a port or path that is in use to become free: when a process with a listener in an io_uring is
/// killed, the kernel closes the listener shortly after the process has ended.
const PATIENCE: Duration = Duration::from_secs(1);
/// First interval between attempts, doubled each time, because another listener at a path notices attempts.
const RETRY: Duration = Duration::from_millis(5);
/// Longest interval between attempts.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Idle time after which TCP keepalive probes the peer.
const PROBE_AFTER: Duration = Duration::from_secs(120);

/// Remedy for an address that cannot be listened on; `with` is what configures it.
pub(super) fn hint(error: &io::Error, bind: &Bind, with: &str) -> String {
    let address = match bind {
        Bind::Address(address) => address,
        Bind::Path(_) if error.kind() == io::ErrorKind::AddrInUse => {
            return "another program listens there, or the path is not a socket; \
                    stop the program or choose another path"
                .to_owned();
        }
        Bind::Path(_) => {
            return "name a path in a folder that the broker's user may write to, and an owner and \
                    group that this user may assign"
                .to_owned();
        }
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has the port (`ss -ltnp 'sport = :{}'` shows which); stop it or \
             choose another port with {with}",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "this machine has no such address; choose one of its addresses with {with}, or set bind_wait_s \
             or free_bind in the configuration for an address that appears later"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE); choose a higher port with \
             {with}"
        ),
        _ => format!("choose another address with {with}"),
    }
}

/// Duplicates the listeners.
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
pub(super) fn try_clone(listeners: &[Listeners]) -> io::Result<Vec<Listeners>> {
    listeners.iter().map(|of_core| of_core.iter().map(Listener::try_clone).collect()).collect()
}

/// How many cores accept connections of one address.
pub(super) fn accepting(settings: &Settings) -> u16 {
    let spreads = cfg!(target_os = "linux") && settings.cores.count() > 1;
    if spreads { settings.cores.count() } else { 1 }
}

/// Opens the listeners of each core, and returns their addresses. If the kernel distributes connections over
/// several sockets of one port, each core accepts its own connections; otherwise the first core accepts all, and
/// connections move to their home cores. The first core also accepts for sockets that the service manager
/// handed over.
pub(super) fn open_listeners(
    settings: &Settings,
    handed_over: &mut HandedOver,
) -> Result<Opened, ServerError> {
    let accepting = accepting(settings);
    let mut of_cores: Vec<Listeners> = (0..accepting).map(|_| Vec::new()).collect();
    let mut open = Vec::new();
    for (number, listener) in settings.numbered_listeners() {
        let (opened, is_ours) = match (handed_over.take(&listener.bind), &listener.bind) {
            (Some(socket), _) => (take(socket), false),
            (None, Bind::Address(address)) => {
                let listen =
                    || listen_for_each(*address, accepting, BindOptions::of(settings, &listener));
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
                open.push(Open { number, bind, transport: listener.transport, is_ours });
            }
            Err(error) if may_be_absent(settings, &listener) && is_without_ipv6(&error) => {
                tracing::info!(address = %listener.bind, "this machine has no IPv6; not listening on this address");
            }
            Err(error) => return Err(ServerError::Listen(listener.bind, error)),
        }
    }
    Ok((of_cores, open))
}

/// Listens on a Unix socket. The first core accepts all connections, which move to their home cores.
pub(super) fn listen_at(path: &Path, rights: &UnixSocket) -> Listening {
    bind_at(path, rights)?.listen()
}

/// Binds a Unix socket to a path.
#[cfg(unix)]
fn bind_at(path: &Path, rights: &UnixSocket) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = socket_address(path)?;
    rights.ids().map_err(io::Error::other)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        outcome => outcome?,
    }
    let bound = Bound {
        sockets: vec![socket],
        bind: Bind::Path(path.to_owned()),
        path: Some(BoundPath(Some(path.to_owned()))),
    };
    // Permissions are set before the socket listens, so that nobody can connect earlier.
    set_rights_of(path, rights)?;
    Ok(bound)
}

#[cfg(not(unix))]
fn bind_at(_path: &Path, _rights: &UnixSocket) -> io::Result<Bound> {
    unreachable!("the configuration does not permit it")
}

/// Sets the permissions of a Unix socket.
#[cfg(unix)]
fn set_rights_of(path: &Path, rights: &UnixSocket) -> io::Result<()> {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let (owner, group) = rights.ids().map_err(io::Error::other)?;
    if owner.or(group).is_some() {
        chown(path, owner, group).map_err(|error| {
            let what =
                format!("unix.owner, unix.group: cannot change the owner of the socket: {error}");
            io::Error::new(error.kind(), what)
        })?;
    }
    match rights.mode {
        Some(mode) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Sets the permissions of the socket of a listener at a path.
pub(super) fn set_rights(listener: &config::Listener) -> io::Result<()> {
    match &listener.bind {
        #[cfg(unix)]
        Bind::Path(path) => set_rights_of(path, &listener.unix),
        _ => Ok(()),
    }
}

/// Checks that the owner and the group of the socket of a listener exist.
pub(super) fn check_rights(listener: &config::Listener) -> io::Result<()> {
    #[cfg(unix)]
    listener.unix.ids().map_err(io::Error::other)?;
    let _ = listener;
    Ok(())
}

/// Binds the sockets of a listener that a reload opens; none if the listener may be absent, and is.
pub(super) fn bind_again(
    settings: &Settings,
    listener: &config::Listener,
    accepting: u16,
) -> io::Result<Option<Bound>> {
    let bound = match &listener.bind {
        Bind::Address(address) => {
            bind_for_each(*address, accepting, BindOptions::of(settings, listener))
        }
        Bind::Path(path) => bind_at(path, &listener.unix),
    };
    match bound {
        Err(error) if may_be_absent(settings, listener) && is_without_ipv6(&error) => Ok(None),
        bound => bound.map(Some),
    }
}

/// Whether a path is the socket of a broker that was killed: connections are refused.
#[cfg(unix)]
fn is_left_over(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    use std::os::unix::net::UnixStream;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|at| at.file_type().is_socket());
    let answer = UnixStream::connect(path);
    is_socket && answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Sets the options of a socket that already listens.
fn take((bind, socket): (Bind, ListenerSocket)) -> Listening {
    if let ListenerSocket::Tcp(listener) = &socket {
        set_options(&SockRef::from(listener))?;
    }
    Ok((vec![socket], bind))
}

/// Removes a Unix socket that the broker created.
pub(super) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
    }
}

/// Makes each core accept the connections that the kernel receives on that core's processor, whose caches hold
/// their state (`SO_INCOMING_CPU`, socket(7)). Before Linux 6.2, and for processors without a listener, the
/// kernel distributes connections by a hash.
#[cfg(target_os = "linux")]
pub(super) fn steer(of_cores: &[Listeners], placements: &[Placement]) {
    for (listeners, placement) in of_cores.iter().zip(placements) {
        for listener in listeners {
            let ListenerSocket::Tcp(listener) = &listener.socket else { continue };
            let socket = SockRef::from(listener);
            if let Err(error) = socket.set_cpu_affinity(usize::from(placement.processor)) {
                tracing::debug!(%error, "connections are distributed by a hash");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn steer(_of_cores: &[Listeners], _placements: &[Placement]) {}

/// Whether a listener is optional: an IPv6 address beside the same IPv4 address, as in the default configuration
/// or for a port alone, so that the broker starts on machines without IPv6.
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

/// Checks without listening whether a start could listen. An address in use is accepted: the user may be the
/// broker that runs with this configuration.
pub(super) fn check(settings: &Settings, listener: &config::Listener) -> io::Result<()> {
    let options = BindOptions::of(settings, listener);
    match &listener.bind {
        Bind::Address(address) => match bind(*address, false, options) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            Err(error) if may_be_absent(settings, listener) && is_without_ipv6(&error) => Ok(()),
            Err(error) if settings.bind_wait_s > 0 && is_absent(&error) => Ok(()),
            outcome => outcome.map(drop),
        },
        Bind::Path(path) => check_path(path, &listener.unix),
    }
}

#[cfg(unix)]
pub(super) fn check_path(path: &Path, rights: &UnixSocket) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    rights.ids().map_err(io::Error::other)?;
    socket_address(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let what = "the path exists and is not a socket";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        _ => {}
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    super::check::may_write_in(folder.unwrap_or(Path::new(".")))
}

#[cfg(not(unix))]
pub(super) fn check_path(_path: &Path, _rights: &UnixSocket) -> io::Result<()> {
    unreachable!("the configuration does not permit it")
}

#[cfg(unix)]
fn socket_address(path: &Path) -> io::Result<socket2::SockAddr> {
    socket2::SockAddr::unix(path).map_err(|error| {
        let what = format!("the path is too long for a socket, or empty: {error}");
        io::Error::new(error.kind(), what)
    })
}

/// Retries while the port or path is in use, for a moment, and while the machine does not have the address, for
/// `wait_s` seconds.
pub(super) fn patiently(
    bind: &Bind,
    wait_s: u32,
    mut listen: impl FnMut() -> Listening,
) -> Listening {
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

/// Whether the machine does not have the address, or the interface in it.
pub(super) fn is_absent(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    if error.raw_os_error() == Some(libc::ENODEV) {
        return true;
    }
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// An address or path that the broker listens on.
#[derive(Clone, Debug)]
pub struct Open {
    /// The number of the listener.
    pub(super) number: u16,
    /// The address or path, with the port that the system chose.
    pub bind: Bind,
    /// Transport.
    pub transport: Transport,
    /// Whether the broker opened the socket; sockets that were handed over stay when the broker ends.
    pub(super) is_ours: bool,
}

/// The listeners of each core, and their addresses.
type Opened = (Vec<Listeners>, Vec<Open>);

/// The sockets of a listener, one for each core that accepts, and their address.
pub(super) type Listening = io::Result<(Vec<ListenerSocket>, Bind)>;

/// Sockets that are bound and do not listen yet: nobody can connect to them.
pub(super) struct Bound {
    sockets: Vec<Socket>,
    bind: Bind,
    path: Option<BoundPath>,
}

/// The path of a socket, which is removed unless the socket listens.
struct BoundPath(Option<PathBuf>);

impl BoundPath {
    /// The socket listens: its path stays.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove(path);
        }
    }
}

impl Bound {
    /// Listens.
    pub fn listen(self) -> Listening {
        self.sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
        let socket = |socket: Socket| match self.bind {
            Bind::Address(_) => ListenerSocket::Tcp(socket.into()),
            #[cfg(unix)]
            Bind::Path(_) => ListenerSocket::Unix(std::os::fd::OwnedFd::from(socket).into()),
            #[cfg(not(unix))]
            Bind::Path(_) => unreachable!("the configuration does not permit it"),
        };
        let sockets = self.sockets.into_iter().map(socket).collect();
        self.path.into_iter().for_each(BoundPath::keep);
        Ok((sockets, self.bind))
    }
}

pub(super) fn listen_for_each(
    address: SocketAddr,
    accepting: u16,
    options: BindOptions<'_>,
) -> Listening {
    bind_for_each(address, accepting, options)?.listen()
}

/// Binds the sockets of an address, one for each core that accepts.
fn bind_for_each(
    address: SocketAddr,
    accepting: u16,
    options: BindOptions<'_>,
) -> io::Result<Bound> {
    let first = match accepting {
        1 => bind(address, false, options)?,
        _ => detect_others(address, options)?,
    };
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let sockets = match accepting {
        1 => vec![first],
        _ => {
            drop(first);
            (0..accepting).map(|_| bind(address, true, options)).collect::<io::Result<_>>()?
        }
    };
    Ok(Bound { sockets, bind: Bind::Address(address), path: None })
}

/// With SO_REUSEPORT, sockets of another process of this user could share the port unnoticed. A socket without the
/// option detects them. It never listens, because its connections would be reset.
fn detect_others(address: SocketAddr, options: BindOptions<'_>) -> io::Result<Socket> {
    bind(address, false, options)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.to_string().contains("Address family not supported")
}

/// How a socket is bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BindOptions<'a> {
    /// The machine need not have the address yet.
    is_free: bool,
    /// Only connections of this network interface come.
    interface: Option<&'a str>,
}

impl<'a> BindOptions<'a> {
    /// Of a listener.
    pub fn of(settings: &Settings, listener: &'a config::Listener) -> Self {
        Self { interface: listener.interface.as_deref(), ..Self::of_any(settings) }
    }

    /// Of a socket for all interfaces.
    pub fn of_any(settings: &Settings) -> Self {
        Self { is_free: settings.free_bind, interface: None }
    }
}

/// Binds a socket to a network interface.
#[cfg(target_os = "linux")]
fn bind_to(socket: &Socket, interface: &str) -> io::Result<()> {
    socket.bind_device(Some(interface.as_bytes())).map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "interface {interface:?}: before Linux 5.7 this needs CAP_NET_RAW ({error}); remove interface, and bind \
                 to the address that `ip address show dev {interface}` shows"
            ),
            _ => format!("interface {interface:?}: {error}; `ip link` shows those of this machine"),
        };
        io::Error::other(what)
    })
}

#[cfg(not(target_os = "linux"))]
fn bind_to(_socket: &Socket, _interface: &str) -> io::Result<()> {
    unreachable!("the configuration does not permit it")
}

/// Binds a socket.
pub(super) fn bind(
    address: SocketAddr,
    shares: bool,
    options: BindOptions<'_>,
) -> io::Result<Socket> {
    let BindOptions { is_free, interface } = options;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On other systems than Unix, this option would let another program take over the port.
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
    assert!(!shares && !is_free, "other systems support neither option");
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_options(&SockRef::from(&socket))?;
    interface.map_or(Ok(()), |interface| bind_to(&socket, interface))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sets options that accepted sockets inherit.
fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    // Detects vanished clients without Keep Alive.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER))?;
    // The broker batches packets per turn itself.
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
        let Ok(placements) = placement::placements(&settings.cores, false) else { return };
        let [first, second] = placements[..] else { return };
        let (listeners, open) =
            open_listeners(&settings, &mut HandedOver::default()).expect("free");
        let Bind::Address(address) = open[0].bind else { panic!("it is TCP") };
        steer(&listeners, &placements);
        let sockets: Vec<_> = listeners
            .iter()
            .map(|of_core| {
                let ListenerSocket::Tcp(listener) = &of_core[0].socket else { panic!("it is TCP") };
                listener.set_nonblocking(true).expect("an option");
                listener
            })
            .collect();
        for (core, placement) in [(0, first), (1, second), (0, first)] {
            let id = core_affinity::CoreId { id: usize::from(placement.processor) };
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
    fn the_socket_that_detects_another_listener_of_this_user_never_listens() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let detector = detect_others(address, BindOptions::default()).expect("a free port");
        assert!(!detector.is_listener().expect("an option"));
        drop(detector);
        let (_others, at) =
            listen_for_each(address, 2, BindOptions::default()).expect("a free port");
        let Bind::Address(taken) = at else { panic!("it is TCP") };
        let error = detect_others(taken, BindOptions::default())
            .expect_err("another process may listen there");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn tcp_looks_after_peers_that_say_nothing() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let (sockets, bind) =
            listen_for_each(address, 1, BindOptions::default()).expect("a free port");
        let (ListenerSocket::Tcp(listener), Bind::Address(address)) = (&sockets[0], bind) else {
            panic!("it is TCP")
        };
        let _peer = TcpStream::connect(address).expect("it listens");
        let (accepted, _) = listener.accept().expect("it waits");
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), PROBE_AFTER);
    }
}
