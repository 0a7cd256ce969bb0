//! A client of MQTT 5.0.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringmq::wire::{
    self, Connect, ConnectProperties, Frame, Packet, PacketIdentifier, Publish, PublishProperties,
    Qos, Version,
};

use crate::packets;
use crate::support::{Broker, PATIENCE};
use crate::uninterrupted::uninterrupted;

/// A client of MQTT 5.0.
pub struct Mqtt {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Mqtt {
    /// Connects; the client and its CONNACK.
    pub fn connect(broker: &Broker, name: &str, user: Option<&str>) -> (Self, String) {
        Self::connect_to(&broker.mqtt, name, user)
    }

    /// Connects to an address.
    pub fn connect_to(address: &str, name: &str, user: Option<&str>) -> (Self, String) {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let mut client = Self { stream, buffer: Vec::new() };
        let connect = Connect {
            version: Version::V5,
            is_bridge: false,
            clean_start: true,
            keep_alive_s: 0,
            client_identifier: name,
            username: user,
            password: user.map(str::as_bytes),
            will: None,
            properties: ConnectProperties::default(),
        };
        client.send(&packets::encoded(&Packet::Connect(connect), Version::V5));
        let connack = client.next().unwrap_or_default();
        (client, connack)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The server may have closed the connection.
        let _ = self.stream.write_all(bytes);
    }

    pub fn publish(&mut self, topic: &str, qos: Qos, number: u16, retain: bool) {
        self.publish_with(topic, b"x", qos, number, retain);
    }

    pub fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        number: u16,
        retain: bool,
    ) {
        let publish = Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_identifier: PacketIdentifier::new(number).filter(|_| qos != Qos::AtMostOnce),
            properties: PublishProperties::default(),
            payload,
        };
        self.send(&packets::encoded(&Packet::Publish(publish), Version::V5));
    }

    /// The next packet as text; none at the end of the connection.
    pub fn next(&mut self) -> Option<String> {
        loop {
            if let Ok(Frame::Complete { total, .. }) = wire::frame(&self.buffer, usize::MAX) {
                let packet = wire::decode(&self.buffer[..total], Version::V5).expect("valid");
                let text = format!("{packet:?}");
                self.buffer.drain(..total);
                return Some(text);
            }
            let mut part = [0; 65_536];
            match uninterrupted(|| self.stream.read(&mut part)) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing in time: {error}"),
            }
        }
    }

    #[track_caller]
    pub fn expect(&mut self, beginning: &str, within: &str) {
        let packet = self.next().unwrap_or_else(|| "the end".to_owned());
        assert!(packet.starts_with(beginning) && packet.contains(within), "{packet}");
    }
}
