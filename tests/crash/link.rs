//! A connection to a broker that may be killed at any moment.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringmq::wire::{self, Connect, ConnectProperties, Packet, Qos, Version, Will};

use crate::PATIENCE;
use crate::next_packet::next_packet;

/// A connection; any error ends it.
pub struct Link {
    pub stream: TcpStream,
    bytes: Vec<u8>,
}

/// The connection is closed.
pub struct Gone;

impl Link {
    /// Connects with a persistent session; returns whether it existed.
    pub fn open(address: SocketAddr, name: &str) -> Result<(Self, bool), Gone> {
        let properties = ConnectProperties {
            session_expiry_interval: Some(86_400),
            ..ConnectProperties::default()
        };
        Self::open_as(address, &Connect { properties, ..connect(name) })
    }

    /// Connects with a session that ends with the connection, and a retained Will whose payload is
    /// a number.
    pub fn open_with_will(
        address: SocketAddr,
        name: &str,
        topic: &str,
        number: u64,
    ) -> Result<Self, Gone> {
        let payload = &number.to_be_bytes();
        let qos = Qos::AtLeastOnce;
        let will = Some(Will { qos, retain: true, topic, payload, ..Will::default() });
        let (link, _) = Self::open_as(address, &Connect { will, ..connect(name) })?;
        Ok(link)
    }

    fn open_as(address: SocketAddr, connect: &Connect<'_>) -> Result<(Self, bool), Gone> {
        let stream = TcpStream::connect(address).map_err(|_| Gone)?;
        stream.set_read_timeout(Some(Duration::from_millis(2))).map_err(|_| Gone)?;
        stream.set_nodelay(true).map_err(|_| Gone)?;
        let mut link = Self { stream, bytes: Vec::new() };
        link.send(&Packet::Connect(connect.clone()))?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(packet) = link.next()? {
                match wire::decode(&packet, Version::V5).expect("the broker sends valid packets") {
                    Packet::Connack(connack) => return Ok((link, connack.session_present)),
                    other => panic!("{other:?} before CONNACK"),
                }
            }
        }
        panic!("no CONNACK within {PATIENCE:?}");
    }

    pub fn send(&mut self, packet: &Packet<'_>) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.stream.write_all(&bytes).map_err(|_| Gone)
    }

    /// The next packet, if one arrives within a short time.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        next_packet(&mut self.stream, &mut self.bytes).map_err(|_| Gone)
    }
}

fn connect(client_identifier: &str) -> Connect<'_> {
    Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: false,
        keep_alive_s: 0,
        client_identifier,
        username: None,
        password: None,
        will: None,
        properties: ConnectProperties::default(),
    }
}

/// Fails if a session that existed is gone.
pub fn check_session(name: &str, was_there: &mut bool, is_there: bool) {
    assert!(is_there || !*was_there, "the session of {name} is lost");
    *was_there = true;
}
