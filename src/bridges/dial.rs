//! Connections to far brokers.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::config::bridge::Server;

/// How long an address may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Connects to the first address of a server that answers. Blocks.
pub(super) fn connect(server: &Server, keep_alive: Duration) -> io::Result<TcpStream> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in (server.host.as_str(), server.port).to_socket_addrs()? {
        outcome = TcpStream::connect_timeout(&address, ANSWER);
        if outcome.is_ok() {
            break;
        }
    }
    let socket = outcome?;
    prepare(&socket, keep_alive)?;
    Ok(socket)
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
