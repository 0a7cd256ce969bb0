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
    prepare(&socket, Duration::from_secs(bridge.keep_alive_s.into()))?;
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
fn prepare(socket: &TcpStream, keep_alive: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let of = SockRef::from(socket);
    let _ = of.set_tcp_keepalive(&TcpKeepalive::new().with_time(keep_alive));
    #[cfg(target_os = "linux")]
    of.set_tcp_user_timeout(Some(keep_alive))?;
    socket.set_nonblocking(true)
}
