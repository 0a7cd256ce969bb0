//! A scripted client that records what it receives.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::encode::{Connect, Encode, Subscribe, frame};
use super::packet::{Ack, Connack, Disconnect, Packet, Property, Publish, Suback};
use super::{Broker, V5, Version, decode, reason, settle};

/// Timeout for expected packets.
const PATIENCE: Duration = Duration::from_secs(5);

/// The Packet Identifier of a SUBSCRIBE if the test does not choose one.
const SUBSCRIBE_ID: u16 = 0x5B00;
/// How long a test waits to verify that no packet arrives.
pub const SILENCE: Duration = Duration::from_millis(200);

/// A connection to the broker.
pub struct Client {
    stream: TcpStream,
    version: Version,
    /// Whether to check this project's promises beyond the specification: the presence and value of
    /// Reason Codes in DISCONNECT and CONNACK where the specification leaves both to the server.
    is_strict: bool,
    buffer: Vec<u8>,
    /// Packets received while the test waited for another one.
    set_aside: VecDeque<Packet>,
    /// The CONNACK of a client made by `connect`.
    pub connack: Connack,
}

#[derive(Debug)]
enum Event {
    Packet(Packet),
    Closed,
    Nothing,
}

impl Client {
    /// Opens a network connection without sending CONNECT.
    pub fn open(broker: &Broker, version: Version) -> Self {
        Self::open_at(broker, broker.address(), version)
    }

    /// Like [`open`](Self::open), through another listener of the broker.
    pub fn open_at(broker: &Broker, address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("a socket");
        let is_strict = broker.is_ours();
        Self {
            stream,
            version,
            is_strict,
            buffer: Vec::new(),
            set_aside: VecDeque::new(),
            connack: Connack::default(),
        }
    }

    /// Connects, and expects success.
    #[track_caller]
    pub fn connect(broker: &Broker, connect: Connect) -> Self {
        let mut client = Self::open(broker, connect.version);
        client.send(&connect);
        client.connack = client.expect_connack();
        assert_eq!(client.connack.reason, reason::SUCCESS, "{:?} to {connect:?}", client.connack);
        client
    }

    /// Connects, and expects CONNACK with `reason` and the end of the connection.
    #[track_caller]
    pub fn refused(broker: &Broker, connect: Connect, reason: u8) -> Connack {
        let mut client = Self::open(broker, connect.version);
        client.send(&connect);
        client.expect_refusal(reason)
    }

    pub fn send(&mut self, packet: impl Encode) {
        self.raw(&packet.encode(self.version));
    }

    /// Sends bytes. If the connection is already closed, `expect_closed` detects that.
    pub fn raw(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// The next packet.
    #[track_caller]
    pub fn receive(&mut self) -> Packet {
        match self.next(PATIENCE) {
            Event::Packet(packet) => packet,
            Event::Closed => panic!("the connection was closed; expected a packet"),
            Event::Nothing => panic!("no packet received in {PATIENCE:?}"),
        }
    }

    /// The next packet, if one arrives within `patience`.
    #[track_caller]
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn receive_within(&mut self, patience: Duration) -> Option<Packet> {
        match self.next(patience) {
            Event::Packet(packet) => Some(packet),
            Event::Closed => panic!("the connection was closed; expected a packet"),
            Event::Nothing => None,
        }
    }

    /// Whether a packet arrives before the connection ends.
    #[track_caller]
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn is_answered(&mut self) -> bool {
        match self.next(PATIENCE) {
            Event::Packet(_) => true,
            Event::Closed => false,
            Event::Nothing => {
                panic!("neither a packet nor the end of the connection in {PATIENCE:?}")
            }
        }
    }

    /// Expects the next packet to be this one, including its properties.
    #[track_caller]
    pub fn expect(&mut self, packet: impl Into<Packet>) {
        assert_eq!(self.receive(), packet.into());
    }

    #[track_caller]
    pub fn expect_connack(&mut self) -> Connack {
        match self.receive() {
            Packet::Connack(connack) => connack,
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// Expects CONNACK with `reason`, and then the end of the connection.
    #[track_caller]
    pub fn expect_refusal(&mut self, reason: u8) -> Connack {
        let connack = match self.next(PATIENCE) {
            Event::Packet(Packet::Connack(connack)) => connack,
            Event::Closed if !self.is_strict => return Connack::default(),
            Event::Closed => panic!("closed without CONNACK {reason:#04x}"),
            other => panic!("{other:?} instead of CONNACK {reason:#04x}"),
        };
        assert_ne!(connack.reason, reason::SUCCESS, "expected a refusal with {reason:#04x}");
        if !self.is_strict {
            self.expect_closed();
            return connack;
        }
        assert_eq!(connack.reason, reason, "{:#04x} is not {reason:#04x}", connack.reason);
        assert!(!connack.session_present, "[MQTT-3.2.2-6] Session Present in a refusal");
        self.expect_closed();
        connack
    }

    /// Expects the end of the connection, optionally after CONNACK with `reason`.
    #[track_caller]
    pub fn expect_closed_or_refused(&mut self, reason: u8) {
        match self.next(PATIENCE) {
            Event::Closed => {}
            Event::Packet(Packet::Connack(connack)) => {
                assert_eq!(connack.reason, reason, "{connack:?}");
                self.expect_closed();
            }
            other => panic!("{other:?} instead of the end of the connection"),
        }
    }

    /// Expects the end of the connection after at most `bytes_max` bytes.
    #[track_caller]
    pub fn expect_end_within_bytes(&mut self, bytes_max: usize) {
        let mut bytes = Vec::new();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        if let Err(error) = self.stream.read_to_end(&mut bytes) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{bytes:02x?}");
        }
        assert!(bytes.len() <= bytes_max, "{} bytes: {bytes:02x?}", bytes.len());
    }

    #[track_caller]
    pub fn expect_publish(&mut self) -> Publish {
        match self.receive() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// Expects a PUBLISH with this payload, and completes its exchange.
    #[track_caller]
    pub fn expect_message(&mut self, payload: &str) -> Publish {
        let publish = self.expect_publish();
        assert_eq!(publish.text(), payload, "{publish:?}");
        self.acknowledge(&publish);
        publish
    }

    /// Answers a PUBLISH as its QoS requires, up to the end of the exchange.
    #[track_caller]
    pub fn acknowledge(&mut self, publish: &Publish) {
        match publish.qos {
            0 => {}
            1 => self.send(Ack::puback(publish.id())),
            _ => {
                self.send(Ack::pubrec(publish.id()));
                let pubrel = self.expect_ack_among_others(6, publish.id());
                assert_eq!(pubrel, Ack::pubrel(publish.id()));
                self.send(Ack::pubcomp(publish.id()));
            }
        }
    }

    /// Expects an acknowledgement of this type with this Packet Identifier. Other packets before it
    /// are queued.
    #[track_caller]
    fn expect_ack_among_others(&mut self, kind: u8, packet_identifier: u16) -> Ack {
        self.receive_first(|packet| match packet {
            Packet::Ack(ack) if (ack.kind, ack.packet_identifier) == (kind, packet_identifier) => {
                Ok(ack)
            }
            other => Err(other),
        })
    }

    /// The first packet that `choose` accepts. Packets that it returns are queued in order.
    #[track_caller]
    fn receive_first<T>(&mut self, choose: impl Fn(Packet) -> Result<T, Packet>) -> T {
        let mut came = std::mem::take(&mut self.set_aside).into_iter();
        let mut others = VecDeque::new();
        loop {
            match choose(came.next().unwrap_or_else(|| self.receive())) {
                Ok(chosen) => {
                    others.extend(came);
                    self.set_aside = others;
                    return chosen;
                }
                Err(other) => others.push_back(other),
            }
        }
    }

    /// Expects PUBACK, PUBREC, PUBREL or PUBCOMP with this Packet Identifier and any Reason Code.
    #[track_caller]
    pub fn expect_ack(&mut self) -> Ack {
        match self.receive() {
            Packet::Ack(ack) => ack,
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }

    #[track_caller]
    pub fn expect_suback(&mut self) -> Suback {
        match self.receive() {
            Packet::Suback(suback) => suback,
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// Expects DISCONNECT with `reason`, and then the end of the connection. 5.0 only.
    #[track_caller]
    pub fn expect_disconnect(&mut self, reason: u8) -> Disconnect {
        match self.next(PATIENCE) {
            Event::Packet(Packet::Disconnect(disconnect)) => {
                let got = disconnect.reason;
                let is_right = got == reason || !self.is_strict && got >= 0x80;
                assert!(is_right, "{got:#04x} is not {reason:#04x}: {disconnect:?}");
                self.expect_closed();
                disconnect
            }
            Event::Closed if !self.is_strict => Disconnect::default(),
            other => panic!("{other:?} instead of DISCONNECT {reason:#04x}"),
        }
    }

    /// Expects the response to a violation: DISCONNECT with `reason` in 5.0, and the end of the
    /// connection.
    #[track_caller]
    pub fn expect_violation(&mut self, reason: u8) {
        if self.version == V5 {
            self.expect_disconnect(reason);
        } else {
            self.expect_closed();
        }
    }

    /// Expects the server to close the connection without sending anything.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        self.expect_closed_within(PATIENCE);
    }

    /// Like [`expect_closed`](Self::expect_closed), with another timeout, for connections that end
    /// after a time.
    #[track_caller]
    pub fn expect_closed_within(&mut self, patience: Duration) {
        match self.next(patience) {
            Event::Closed => {}
            Event::Packet(packet) => panic!("{packet:?} instead of the end of the connection"),
            Event::Nothing => panic!("the connection is still open after {patience:?}"),
        }
    }

    /// Expects that nothing arrives for `duration`, including the end of the connection.
    #[track_caller]
    pub fn expect_silence(&mut self, duration: Duration) {
        match self.next(duration) {
            Event::Nothing => {}
            Event::Packet(packet) => panic!("{packet:?} instead of silence"),
            Event::Closed => panic!("the connection is closed"),
        }
    }

    /// Expects the connection to be open and PINGRESP to be the next packet, so that no other
    /// packet is in transit.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.raw(&[0xC0, 0x00]);
        self.expect(Packet::Pingresp);
    }

    /// Subscribes to one filter, and expects the QoS in `options` to be granted. Retained messages
    /// follow.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        self.send(Subscribe::new(SUBSCRIBE_ID, filter, options));
        expect_granted(&self.expect_suback(), options);
    }

    /// Like [`subscribe`](Self::subscribe), for a filter with messages in transit, which the server
    /// may send before SUBACK (section 3.8.4). They are queued.
    #[track_caller]
    pub fn subscribe_to_what_comes(&mut self, filter: &str, options: u8) {
        self.send(Subscribe::new(SUBSCRIBE_ID, filter, options));
        let suback = self.receive_first(|packet| match packet {
            Packet::Suback(suback) => Ok(suback),
            other => Err(other),
        });
        expect_granted(&suback, options);
    }

    /// Publishes and completes the exchange, with any successful Reason Code. Other packets
    /// received meanwhile are queued.
    #[track_caller]
    pub fn publish(&mut self, publish: Publish) {
        self.send(&publish);
        if publish.qos == 0 {
            return settle();
        }
        let id = publish.id();
        let ack = self.expect_ack_among_others(3 + publish.qos, id);
        assert!(ack.reason < 0x80, "{ack:?}");
        if publish.qos == 2 {
            self.send(Ack::pubrel(id));
            assert_eq!(self.expect_ack_among_others(7, id), Ack::pubcomp(id));
        }
    }

    /// Sends DISCONNECT, and waits until the server has closed the connection.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.raw(&frame(0xE0, &[]));
        self.expect_closed();
    }

    /// Sends DISCONNECT with a Reason Code and properties, and waits until the server has closed
    /// the connection.
    #[track_caller]
    pub fn disconnect_with(mut self, disconnect: Disconnect) {
        self.send(disconnect);
        self.expect_closed();
    }

    /// Closes the network connection without DISCONNECT, and waits until the server has closed its
    /// side.
    pub fn vanish(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let give_up = Instant::now() + PATIENCE;
        while !matches!(self.next(PATIENCE), Event::Closed) {
            assert!(Instant::now() < give_up, "the server does not close");
        }
    }

    fn next(&mut self, patience: Duration) -> Event {
        if let Some(packet) = self.set_aside.pop_front() {
            return Event::Packet(packet);
        }
        let give_up = Instant::now() + patience;
        loop {
            if let Some((packet, length)) = decode::packet(&self.buffer, self.version) {
                self.buffer.drain(..length);
                return Event::Packet(packet);
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).expect("a socket");
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    assert!(self.buffer.is_empty(), "an incomplete packet: {:02x?}", self.buffer);
                    return Event::Closed;
                }
                Ok(count) => self.buffer.extend(&bytes[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Event::Closed,
                    _ => panic!("cannot receive: {error}"),
                },
            }
        }
    }
}

/// The value of a property in a list: `property!(connack.properties, ServerKeepAlive)` is an
/// `Option`.
macro_rules! property {
    ($properties:expr, $name:ident) => {
        $properties.iter().find_map(|property| match property {
            $crate::support::Property::$name(value) => Some(value.clone()),
            _ => None,
        })
    };
}
pub(crate) use property;

/// The User Properties of a list, in order.
pub fn user_properties(properties: &[Property]) -> Vec<(&str, &str)> {
    let pairs = properties.iter().filter_map(|property| match property {
        Property::UserProperty(name, value) => Some((name.as_str(), value.as_str())),
        _ => None,
    });
    pairs.collect()
}

/// Whether one filter is granted with the QoS in these Subscription Options.
#[track_caller]
fn expect_granted(suback: &Suback, options: u8) {
    let granted = (suback.packet_identifier, &suback.reasons[..]);
    assert_eq!(granted, (SUBSCRIBE_ID, &[options & 3][..]));
}
