//! Connections to far brokers.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::config::bridge::{Bridge, Server};

/// How long an address may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Connects to the first address of a server that answers. Blocks.
pub(super) fn connect(server: &Server, bridge: &Bridge) -> io::Result<TcpStream> {
    if let Some(path) = server.unix_path() {
        return connect_unix(path);
    }
    let from = bridge.bind.parse::<IpAddr>().ok();
    let mut outcome = Err(io::Error::new(
        io::ErrorKind::NotFound,
        match from {
            Some(_) => "the name has no address of the kind of `bind`",
            None => "the name has no address",
        },
    ));
    let can_reach =
        |address: &SocketAddr| from.is_none_or(|from| from.is_ipv6() == address.is_ipv6());
    let addresses = (server.host.as_str(), server.port).to_socket_addrs()?;
    for address in addresses.filter(can_reach) {
        outcome = match from {
            Some(from) => connect_from(from, address),
            None => TcpStream::connect_timeout(&address, ANSWER),
        };
        if outcome.is_ok() {
            break;
        }
    }
    let socket = outcome?;
    prepare(&socket, bridge)?;
    Ok(socket)
}

/// Connects from an address of this machine.
fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket
        .bind(&SocketAddr::new(from, 0).into())
        .map_err(|error| io::Error::new(error.kind(), format!("bind {from}: {error}")))?;
    socket.connect_timeout(&to.into(), ANSWER)?;
    Ok(socket.into())
}

/// Connects to a Unix socket. The type is that of TCP: reading, writing and shutting down are alike.
#[cfg(unix)]
fn connect_unix(path: &Path) -> io::Result<TcpStream> {
    let socket = std::os::unix::net::UnixStream::connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}

/// The configuration refuses it.
#[cfg(not(unix))]
fn connect_unix(_path: &Path) -> io::Result<TcpStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Both ends of a connection of this broker with itself.
pub(super) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let address = ours.local_addr()?;
    // Other programs of this machine may connect to the port, too.
    loop {
        let (theirs, from) = listener.accept()?;
        if from == address {
            theirs.set_nonblocking(true)?;
            return Ok((ours, theirs));
        }
    }
}

/// A silent network ends the connection, as far as the system supports that.
fn prepare(socket: &TcpStream, bridge: &Bridge) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let of = SockRef::from(socket);
    let (tcp, keep_alive) = (&bridge.tcp, Duration::from_secs(bridge.keep_alive_s.into()));
    let idle = match tcp.keep_alive_idle_s {
        0 => keep_alive,
        own => Duration::from_secs(own.into()),
    };
    #[cfg_attr(target_os = "openbsd", expect(unused_mut, reason = "nothing else is set"))]
    let mut probes = TcpKeepalive::new().with_time(idle);
    // OpenBSD has them for the whole system only.
    #[cfg(not(target_os = "openbsd"))]
    {
        if tcp.keep_alive_interval_s > 0 {
            probes = probes.with_interval(Duration::from_secs(tcp.keep_alive_interval_s.into()));
        }
        if tcp.keep_alive_probes > 0 {
            probes = probes.with_retries(tcp.keep_alive_probes.into());
        }
    }
    let _ = of.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    of.set_tcp_user_timeout(Some(match tcp.user_timeout_ms {
        0 => keep_alive,
        own => Duration::from_millis(own.into()),
    }))?;
    socket.set_nonblocking(true)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::config::Settings;

    /// The socket of a connection of a bridge with these keys.
    fn connected(keys: &str) -> TcpStream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("an address");
        let server = format!("mqtt://{}", listener.local_addr().expect("bound"));
        let text = format!(
            "[[bridges]]\nname = \"a\"\nservers = [{server:?}]\n{keys}\n[[bridges.out]]\nfilter = \"#\"\n"
        );
        let bridge = Settings::from_toml(&text).expect("valid").bridges.remove(0);
        connect(&bridge.servers[0], &bridge).expect("somebody listens")
    }

    #[test]
    fn a_silent_network_ends_a_connection_as_the_configuration_says() {
        let socket = connected("keep_alive_s = 30");
        let of = SockRef::from(&socket);
        let keep_alive = Duration::from_secs(30);
        assert_eq!(of.tcp_keepalive_time().expect("an option"), keep_alive);
        assert_eq!(of.tcp_user_timeout().expect("an option"), Some(keep_alive));
        let socket = connected(
            "tcp = { keep_alive_idle_s = 7, keep_alive_interval_s = 3, keep_alive_probes = 5, user_timeout_ms = 9500 }",
        );
        let of = SockRef::from(&socket);
        assert_eq!(of.tcp_keepalive_time().expect("an option"), Duration::from_secs(7));
        assert_eq!(of.tcp_keepalive_interval().expect("an option"), Duration::from_secs(3));
        assert_eq!(of.tcp_keepalive_retries().expect("an option"), 5);
        assert_eq!(of.tcp_user_timeout().expect("an option"), Some(Duration::from_millis(9_500)));
    }
}
