//! A connection to a node that may end at any moment.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringmq::wire::{self, Connect, ConnectProperties, Packet, ReasonCode, Version};

use crate::next_packet::next_packet;

/// How long a node has for CONNACK: longer than it takes to take out a node that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds for which a session of MQTT 5.0 outlives its connection.
const EXPIRY_S: u32 = 86_400;

/// A connection; any error ends it.
pub struct Link {
    stream: TcpStream,
    bytes: Vec<u8>,
    version: Version,
}

/// The connection is closed, or was refused.
#[derive(Debug)]
pub struct Gone;

impl Link {
    /// Connects with a stored session; returns whether it existed.
    pub fn open(address: SocketAddr, name: &str, version: Version) -> Result<(Self, bool), Gone> {
        let stream = TcpStream::connect(address).map_err(|_| Gone)?;
        stream.set_read_timeout(Some(Duration::from_millis(2))).map_err(|_| Gone)?;
        stream.set_nodelay(true).map_err(|_| Gone)?;
        let mut link = Self { stream, bytes: Vec::new(), version };
        let session_expiry_interval = (version == Version::V5).then_some(EXPIRY_S);
        link.send(&Packet::Connect(Connect {
            version,
            is_bridge: false,
            clean_start: false,
            keep_alive_s: 0,
            client_identifier: name,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties { session_expiry_interval, ..Default::default() },
        }))?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let Some(packet) = link.next()? else { continue };
            match wire::decode(&packet, version).expect("the broker sends valid packets") {
                Packet::Connack(connack) if connack.reason == ReasonCode::Success => {
                    return Ok((link, connack.session_present));
                }
                Packet::Connack(_) | Packet::Disconnect(_) => return Err(Gone),
                other => panic!("{other:?} before CONNACK"),
            }
        }
        panic!("{name} has no CONNACK within {PATIENCE:?}");
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn send(&mut self, packet: &Packet<'_>) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.send_bytes(&bytes)
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(bytes).map_err(|_| Gone)
    }

    /// Sends DISCONNECT, after which the session stays.
    pub fn disconnect(mut self) {
        let _ = self.send_bytes(&[0xE0, 0]);
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next packet, if one arrives within a short time.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        next_packet(&mut self.stream, &mut self.bytes).map_err(|_| Gone)
    }
}
