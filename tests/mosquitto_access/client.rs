//! The few packets of MQTT 5.0 that a comparison needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT: u8 = 0x10;
const PUBLISH_QOS_0: u8 = 0x30;
const PUBLISH_QOS_1: u8 = 0x32;
const SUBSCRIBE: u8 = 0x82;
const UNSUBSCRIBE: u8 = 0xA2;
const PINGREQ: u8 = 0xC0;
const CONNACK: u8 = 0x20;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;
const DISCONNECT: u8 = 0xE0;
const PINGRESP: u8 = 0xD0;

/// A client of either broker.
pub struct Client(TcpStream);

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

impl Client {
    /// Connects with a user name, if it is not empty.
    pub fn connect(address: SocketAddr, user: &str, client_identifier: &str) -> Self {
        let client = Self::connect_with(address, user, "", client_identifier);
        client.unwrap_or_else(|reason| panic!("CONNACK for {user:?}: {reason:#x}"))
    }

    /// Connects with a user name and a password, if they are not empty; or the Reason Code of CONNACK.
    pub fn connect_with(
        address: SocketAddr,
        user: &str,
        password: &str,
        client_identifier: &str,
    ) -> Result<Self, u8> {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let mut client = Self(stream);
        let has_user = !user.is_empty();
        // Clean Start, Keep Alive of 600 s, no properties.
        let flags = if has_user { 0x82 } else { 0x02 };
        let flags = if password.is_empty() { flags } else { flags | 0x40 };
        let mut body = [&string("MQTT")[..], &[5, flags, 2, 88, 0]].concat();
        body.extend(string(client_identifier));
        if has_user {
            body.extend(string(user));
        }
        if !password.is_empty() {
            body.extend(string(password));
        }
        client.send(CONNECT, &body);
        let connack = client.expect(CONNACK, &mut Vec::new());
        if connack[1] == 0 { Ok(client) } else { Err(connack[1]) }
    }

    /// Unsubscribes; the Reason Code.
    #[cfg(feature = "dynamic-security")]
    pub fn unsubscribe(&mut self, filter: &str) -> u8 {
        let body = [&[0, 1, 0][..], &string(filter)].concat();
        self.send(UNSUBSCRIBE, &body);
        *self.expect(UNSUBACK, &mut Vec::new()).last().expect("a Reason Code")
    }

    /// Publishes a message at QoS 0, and waits for the next one.
    #[cfg(feature = "dynamic-security")]
    pub fn request(&mut self, topic: &str, payload: &str) -> String {
        let body = [&string(topic)[..], &[0], payload.as_bytes()].concat();
        self.send(PUBLISH_QOS_0, &body);
        let (kind, body) = self.receive();
        assert_eq!(kind & 0xF0, PUBLISH_QOS_0, "packet {kind:#x} instead of an answer");
        let topic_bytes = usize::from(u16::from_be_bytes([body[0], body[1]]));
        // Properties follow, which are short.
        let properties_bytes = usize::from(body[2 + topic_bytes]);
        let payload = &body[3 + topic_bytes + properties_bytes..];
        String::from_utf8(payload.to_vec()).expect("UTF-8")
    }

    /// Waits until the broker ends the connection; the Reason Code of DISCONNECT.
    #[cfg(feature = "dynamic-security")]
    pub fn ended(mut self) -> u8 {
        let body = self.expect(DISCONNECT, &mut Vec::new());
        body.first().copied().unwrap_or(0)
    }

    /// Subscribes at QoS 0; the Reason Code. The topics of messages that arrive before it are added to `delivered`.
    pub fn subscribe(&mut self, filter: &str, delivered: &mut Vec<String>) -> u8 {
        let body = [&[0, 1, 0][..], &string(filter), &[0]].concat();
        self.send(SUBSCRIBE, &body);
        *self.expect(SUBACK, delivered).last().expect("a Reason Code")
    }

    /// Publishes at QoS 1; the Reason Code. Messages that arrive meanwhile are ignored.
    pub fn publish(&mut self, topic: &str, retain: bool) -> u8 {
        let body = [&string(topic)[..], &[0, 1, 0], b"m"].concat();
        self.send(PUBLISH_QOS_1 | u8::from(retain), &body);
        self.expect(PUBACK, &mut Vec::new()).get(2).copied().unwrap_or(0)
    }

    /// The topics of all messages that were delivered before PINGRESP.
    pub fn delivered(&mut self) -> Vec<String> {
        let mut topics = Vec::new();
        self.send(PINGREQ, &[]);
        self.expect(PINGRESP, &mut topics);
        topics
    }

    /// Waits for a packet; the topics of messages that arrive before it are added to `delivered`.
    fn expect(&mut self, expected: u8, delivered: &mut Vec<String>) -> Vec<u8> {
        loop {
            let (kind, body) = self.receive();
            if kind == expected {
                return body;
            }
            assert_eq!(kind & 0xF0, PUBLISH_QOS_0, "packet {kind:#x} instead of {expected:#x}");
            let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
            delivered.push(String::from_utf8(body[2..2 + length].to_vec()).expect("UTF-8"));
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut packet = vec![kind];
        let mut length = body.len();
        while length >= 128 {
            packet.push(0x80 | (length % 128) as u8);
            length /= 128;
        }
        packet.push(length as u8);
        packet.extend(body);
        self.0.write_all(&packet).expect("the broker reads");
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let [kind] = self.take();
        let (mut length, mut shift) = (0, 0);
        loop {
            let [byte] = self.take();
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a whole packet");
        (kind, body)
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("a packet before the connection ends");
        bytes
    }
}
