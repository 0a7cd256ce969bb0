//! TCP from one of the machine's loopback addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use mio::{Interest, Registry, Token, net::TcpStream};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{address::LoopbackAddress, limits::CLIENTS_PER_SOURCE};

/// Source addresses: this many from 127.1.0.1 on, used in turn. A pair of addresses has ports for a
/// few tens of thousands of connections; more need more pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// `None` lets the system choose.
    count: Option<u32>,
}

impl Sources {
    /// This many addresses, or, with 0, as many as are necessary for this many ports.
    pub fn new(count: u32, ports: u32) -> Self {
        let needed = ports.div_ceil(CLIENTS_PER_SOURCE);
        let count = if count == 0 { needed } else { count };
        Self { count: (count > 1).then_some(count) }
    }

    fn of(self, client: u32) -> Option<Ipv4Addr> {
        const FIRST: u32 = Ipv4Addr::new(127, 1, 0, 1).to_bits();
        self.count.map(|count| Ipv4Addr::from(FIRST + client % count))
    }
}

/// Starts to connect client `client`, registered under `token`.
pub fn connect(
    address: LoopbackAddress,
    sources: Sources,
    client: u32,
    registry: &Registry,
    token: Token,
) -> io::Result<TcpStream> {
    let mut socket = match sources.of(client) {
        None => TcpStream::connect(address.socket_address())?,
        Some(source) => connect_from(source, address)?,
    };
    registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(socket)
}

/// Whether the connection is established; an error if it failed.
pub fn is_connected(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
        outcome => outcome?,
    };
    // This program batches writes itself; Nagle's algorithm would add 40 ms together with delayed
    // acknowledgements.
    socket.set_nodelay(true)?;
    Ok(true)
}

#[cfg(unix)]
fn connect_from(source: Ipv4Addr, address: LoopbackAddress) -> io::Result<TcpStream> {
    const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    bind(&socket, source)?;
    match socket.connect(&address.socket_address().into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Binds to the next free port. The kernel would search from a random position, which takes longer
/// the more ports are in use; in sequence, the next port is nearly always free. The ports are below
/// the kernel's own range (ip_local_port_range), as the kernel skips a port that is bound at any
/// address, and for a minute after.
#[cfg(unix)]
fn bind(socket: &Socket, source: Ipv4Addr) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 32_768 - FIRST;
    // Processes that start at different positions rarely collide.
    let offset = std::process::id().wrapping_mul(7_919);
    for _ in 0..COUNT {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(offset);
        let port = (FIRST + number % COUNT) as u16;
        match socket.bind(&SocketAddr::new(IpAddr::V4(source), port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no port of {source} is free")))
}

#[cfg(not(unix))]
fn connect_from(_source: Ipv4Addr, _address: LoopbackAddress) -> io::Result<TcpStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "there is only one source address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_distributed_over_the_necessary_addresses() {
        assert_eq!(Sources::new(0, CLIENTS_PER_SOURCE).of(7), None);
        let sources = Sources::new(0, CLIENTS_PER_SOURCE + 1);
        assert_eq!(sources.of(0), Some(Ipv4Addr::new(127, 1, 0, 1)));
        assert_eq!(sources.of(3), Some(Ipv4Addr::new(127, 1, 0, 2)));
        assert_eq!(Sources::new(300, 1).of(299), Some(Ipv4Addr::new(127, 1, 1, 44)));
    }

    #[test]
    #[cfg(unix)]
    fn bound_ports_are_outside_the_range_of_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a local address").to_string();
        let poll = mio::Poll::new().expect("a poll");
        for client in 0..3 {
            let address = address.parse().expect("loopback");
            let socket = connect(address, Sources::new(3, 1), client, poll.registry(), Token(0));
            let from = socket.expect("a connection").local_addr().expect("a local address");
            assert!((10_000..32_768).contains(&from.port()), "{from}");
        }
    }
}
