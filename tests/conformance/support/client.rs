//! A client that sends what it is told, and says what came.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::encode::{Connect, Encode, Subscribe, frame};
use super::packet::{Ack, Connack, Disconnect, Packet, Property, Publish, Suback};
use super::{Broker, V5, Version, decode, reason, settle};

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The Packet Identifier of a SUBSCRIBE whose test says nothing of it.
const SUBSCRIBE_ID: u16 = 0x5B00;
/// How long to wait for what must not come.
pub const SILENCE: Duration = Duration::from_millis(200);

/// A connection to the broker.
pub struct Client {
    stream: TcpStream,
    version: Version,
    /// Whether this project's promises hold beyond what the specification asks: a reason in
    /// DISCONNECT or CONNACK, and which, where it leaves both to the server.
    is_strict: bool,
    buffer: Vec<u8>,
    /// Packets that came while another was waited for.
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
    /// A network connection, no CONNECT sent yet.
    pub fn open(broker: &Broker, version: Version) -> Self {
        Self::open_at(broker, broker.address(), version)
    }

    /// The same through another of its listeners.
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

    /// Connects, and expects to be accepted.
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

    /// Sends bytes as they are. A connection that is closed already is for `expect_closed` to find.
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
            Event::Closed => panic!("the connection is closed; a packet was expected"),
            Event::Nothing => panic!("nothing came in {PATIENCE:?}; a packet was expected"),
        }
    }

    /// The next packet, if one comes within `patience`.
    #[track_caller]
    #[allow(dead_code, reason = "not all tests that share this wait for what may not come")]
    pub fn receive_within(&mut self, patience: Duration) -> Option<Packet> {
        match self.next(patience) {
            Event::Packet(packet) => Some(packet),
            Event::Closed => panic!("the connection is closed; a packet was expected"),
            Event::Nothing => None,
        }
    }

    /// Whether a packet comes before the connection ends.
    #[track_caller]
    #[allow(dead_code, reason = "not all tests that share this meet connections that may end")]
    pub fn is_answered(&mut self) -> bool {
        match self.next(PATIENCE) {
            Event::Packet(_) => true,
            Event::Closed => false,
            Event::Nothing => panic!("neither an answer nor an end in {PATIENCE:?}"),
        }
    }

    /// The next packet is this one, to the last property.
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

    /// CONNACK with `reason`, and then the end of the connection.
    #[track_caller]
    pub fn expect_refusal(&mut self, reason: u8) -> Connack {
        let connack = match self.next(PATIENCE) {
            Event::Packet(Packet::Connack(connack)) => connack,
            Event::Closed if !self.is_strict => return Connack::default(),
            Event::Closed => panic!("closed without CONNACK {reason:#04x}"),
            other => panic!("{other:?} instead of CONNACK {reason:#04x}"),
        };
        assert_ne!(connack.reason, reason::SUCCESS, "it should be refused with {reason:#04x}");
        if !self.is_strict {
            self.expect_closed();
            return connack;
        }
        assert_eq!(connack.reason, reason, "{:#04x} is not {reason:#04x}", connack.reason);
        assert!(!connack.session_present, "[MQTT-3.2.2-6] Session Present in a refusal");
        self.expect_closed();
        connack
    }

    /// The end of the connection, after CONNACK with `reason` or without.
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

    /// The end of the connection, after at most `bytes_max` bytes.
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

    /// A PUBLISH with this payload; answers it as its QoS asks, to the end.
    #[track_caller]
    pub fn expect_message(&mut self, payload: &str) -> Publish {
        let publish = self.expect_publish();
        assert_eq!(publish.text(), payload, "{publish:?}");
        self.acknowledge(&publish);
        publish
    }

    /// Answers a PUBLISH as its QoS asks, to the end.
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

    /// An acknowledgement of this type for this Packet Identifier comes, maybe after other packets,
    /// which are kept for later.
    #[track_caller]
    fn expect_ack_among_others(&mut self, kind: u8, packet_identifier: u16) -> Ack {
        self.receive_first(|packet| match packet {
            Packet::Ack(ack) if (ack.kind, ack.packet_identifier) == (kind, packet_identifier) => {
                Ok(ack)
            }
            other => Err(other),
        })
    }

    /// The first packet that `choose` takes. Those that it gives back are kept for later, in the
    /// order in which they came.
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

    /// PUBACK, PUBREC, PUBREL or PUBCOMP for this Packet Identifier, with whatever reason.
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

    /// DISCONNECT with `reason`, and then the end of the connection. 5.0 only.
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

    /// What follows a violation: DISCONNECT with `reason` in 5.0, and the end of the connection.
    #[track_caller]
    pub fn expect_violation(&mut self, reason: u8) {
        if self.version == V5 {
            self.expect_disconnect(reason);
        } else {
            self.expect_closed();
        }
    }

    /// The server closes, and sends nothing before.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        self.expect_closed_within(PATIENCE);
    }

    /// The same with another patience, for connections that end by a time.
    #[track_caller]
    pub fn expect_closed_within(&mut self, patience: Duration) {
        match self.next(patience) {
            Event::Closed => {}
            Event::Packet(packet) => panic!("{packet:?} instead of the end of the connection"),
            Event::Nothing => panic!("the connection is still open after {patience:?}"),
        }
    }

    /// Nothing comes for `duration`, the end of the connection included.
    #[track_caller]
    pub fn expect_silence(&mut self, duration: Duration) {
        match self.next(duration) {
            Event::Nothing => {}
            Event::Packet(packet) => panic!("{packet:?} instead of silence"),
            Event::Closed => panic!("the connection is closed"),
        }
    }

    /// The connection lives, and PINGRESP is the next that comes: nothing else was under way.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.raw(&[0xC0, 0x00]);
        self.expect(Packet::Pingresp);
    }

    /// Subscribes to one filter, and expects it to be granted with the QoS in `options`. Retained
    /// messages come after.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        self.send(Subscribe::new(SUBSCRIBE_ID, filter, options));
        expect_granted(&self.expect_suback(), options);
    }

    /// The same for a filter with messages under way, which a server may send before SUBACK (3.8.4
    /// SUBSCRIBE Actions). They are kept for later.
    #[track_caller]
    pub fn subscribe_to_what_comes(&mut self, filter: &str, options: u8) {
        self.send(Subscribe::new(SUBSCRIBE_ID, filter, options));
        let suback = self.receive_first(|packet| match packet {
            Packet::Suback(suback) => Ok(suback),
            other => Err(other),
        });
        expect_granted(&suback, options);
    }

    /// Publishes as its QoS asks, to the end, with whatever success the acknowledgements name.
    /// What else comes meanwhile is kept for later.
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

    /// DISCONNECT, and waits until the server has closed.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.raw(&frame(0xE0, &[]));
        self.expect_closed();
    }

    /// DISCONNECT with a reason and properties, and waits until the server has closed.
    #[track_caller]
    pub fn disconnect_with(mut self, disconnect: Disconnect) {
        self.send(disconnect);
        self.expect_closed();
    }

    /// Ends the network connection without DISCONNECT, and waits until the server has closed its
    /// side too.
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
                    assert!(self.buffer.is_empty(), "half a packet: {:02x?}", self.buffer);
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

/// One filter is granted, with the QoS in these subscription options.
#[track_caller]
fn expect_granted(suback: &Suback, options: u8) {
    let granted = (suback.packet_identifier, &suback.reasons[..]);
    assert_eq!(granted, (SUBSCRIBE_ID, &[options & 3][..]));
}
