//! The data a client sends before it ends its stream, and the expected outcome.

use ringmq::wire::{
    self, Ack, Connect, ConnectProperties, Disconnect, Frame, Packet, PacketIdentifier, Qos,
    ReasonCode, Subscribe, SubscribeFilters, SubscribeOptions, UserProperties, Version, Will,
};

use crate::packets;
use crate::random::Random;

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The client shuts down its sending direction, and reads to the end.
    Half { is_said: bool },
    /// The client closes the connection.
    Closed,
    /// The client resets the connection.
    Reset,
}

/// A client that connects, sends data and disconnects.
pub struct Script {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Offsets where the data is split into separate writes.
    pub cuts: Vec<usize>,
    /// Whether the client pauses between writes.
    pub pauses: bool,
    pub ends: Ends,
    pub expected: Expected,
}

/// The expected outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The payloads that subscribers receive, in order.
    pub payloads: Vec<Vec<u8>>,
    /// Whether the Will is published.
    pub has_will: bool,
    /// Type and Packet Identifier of each response; those of one type are in this order.
    pub answers: Vec<(u8, u16)>,
    /// The last bytes are invalid: the broker closes the connection, without waiting for other
    /// cores before it sends responses.
    pub is_broken: bool,
}

/// The topic of a client's messages.
pub fn topic(name: &str) -> String {
    format!("s/{name}")
}

/// The topic of its Will.
pub fn will_topic(name: &str) -> String {
    format!("w/{name}")
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    packets::encoded(packet, Version::V311)
}

/// CONNECT, with a Will, and optionally with a password, so that it waits for authentication.
pub fn connect(name: &str, has_will: bool, user: Option<&str>) -> Vec<u8> {
    let (topic, password) = (will_topic(name), user.map(|user| format!("{user}{user}")));
    let will = Will { topic: &topic, payload: b"will", ..Will::default() };
    encoded(&Packet::Connect(Connect {
        version: Version::V311,
        is_bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        client_identifier: name,
        username: user,
        password: password.as_ref().map(|password| password.as_bytes()),
        will: has_will.then_some(will),
        properties: ConnectProperties::default(),
    }))
}

/// CONNECT of a client with a persistent session.
pub fn connect_kept(name: &str) -> Vec<u8> {
    packets::connect_kept(name, Version::V311)
}

/// PUBLISH.
pub fn publish(topic: &str, qos: Qos, identifier: u16, payload: &[u8]) -> Vec<u8> {
    packets::publish_bytes(topic, qos, identifier, Version::V311, payload)
}

/// PUBREL.
fn pubrel(identifier: u16) -> Vec<u8> {
    let identifier = PacketIdentifier::new(identifier).expect("from 1");
    encoded(&Packet::Pubrel(Ack::new(identifier, ReasonCode::Success)))
}

/// SUBSCRIBE.
pub fn subscribe(identifier: u16, filter: &str, qos: Qos) -> Vec<u8> {
    let options =
        SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling: 0 };
    encoded(&Packet::Subscribe(Subscribe {
        packet_identifier: PacketIdentifier::new(identifier).expect("from 1"),
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&[(filter, options)]),
    }))
}

/// DISCONNECT.
pub fn disconnect() -> Vec<u8> {
    encoded(&Packet::Disconnect(Disconnect::default()))
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, cuts, pauses, ends, expected, .. } = self;
        let Expected { payloads, has_will, answers, .. } = expected;
        write!(
            f,
            "{} bytes, cut at {cuts:?}, pauses: {pauses}, {ends:?}: {} messages, {} answers, Will: {has_will}",
            bytes.len(),
            payloads.len(),
            answers.len(),
        )
    }
}

impl Script {
    /// A random script with at most `messages` messages; `user` may be required to authenticate.
    pub fn draw(random: &mut Random, name: &str, messages: usize, user: &str) -> Self {
        let user = random.percent(50).then_some(user);
        let mut bytes = connect(name, random.percent(70), user);
        let topic = topic(name);
        let mut identifier = 0;
        for number in 0..random.below(messages) {
            let payload = [number.to_string().as_bytes(), &vec![b'.'; random.below(100)]].concat();
            identifier += 1;
            match random.below(20) {
                0 => bytes.extend(b"\xC0\x00"),
                1 => bytes.extend(subscribe(identifier, "nothing/+", Qos::AtMostOnce)),
                2..12 => bytes.extend(publish(&topic, Qos::AtMostOnce, 0, &payload)),
                12..17 => bytes.extend(publish(&topic, Qos::AtLeastOnce, identifier, &payload)),
                _ => {
                    bytes.extend(publish(&topic, Qos::ExactlyOnce, identifier, &payload));
                    bytes.extend(pubrel(identifier));
                }
            }
        }
        match random.below(10) {
            0..6 => bytes.extend(disconnect()),
            6 => bytes.extend(b"\x00\x00"), // not a valid packet type
            _ => {}
        }
        if random.percent(30) {
            bytes.truncate(random.below(bytes.len() + 1));
        }
        let ends = match random.below(10) {
            0..6 => Ends::Half { is_said: random.percent(50) },
            6..9 => Ends::Closed,
            _ => Ends::Reset,
        };
        let pieces = random.pick(&[0, 0, 1, 3, 10]);
        let mut cuts: Vec<usize> = (0..pieces).map(|_| random.below(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let expected = Expected::of(&bytes);
        let (name, pauses) = (name.to_owned(), random.percent(30));
        Self { name, bytes, cuts, pauses, ends, expected }
    }

    /// The separate writes.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        begins.zip(ends).map(|(begin, end)| &self.bytes[begin..end])
    }
}

impl Expected {
    /// The expected outcome of these bytes and their end.
    pub fn of(bytes: &[u8]) -> Self {
        let mut expected = Self::default();
        let mut rest = bytes;
        loop {
            let total = match wire::frame(rest, usize::MAX) {
                Ok(Frame::Complete { total, .. }) => total,
                Ok(Frame::Incomplete { .. }) => break,
                Err(_) => {
                    expected.is_broken = true;
                    break;
                }
            };
            let (packet, after) = rest.split_at(total);
            rest = after;
            let packet = wire::decode(packet, Version::V311).expect("whole packets are right");
            match packet {
                Packet::Connect(connect) => {
                    expected.has_will = connect.will.is_some();
                    expected.answers.push((0x20, 0));
                }
                Packet::Publish(publish) => {
                    expected.payloads.push(publish.payload.to_vec());
                    let identifier = publish.packet_identifier.map_or(0, PacketIdentifier::get);
                    match publish.qos {
                        Qos::AtMostOnce => {}
                        Qos::AtLeastOnce => expected.answers.push((0x40, identifier)),
                        Qos::ExactlyOnce => expected.answers.push((0x50, identifier)),
                    }
                }
                Packet::Pubrel(ack) => expected.answers.push((0x70, ack.packet_identifier.get())),
                Packet::Subscribe(of) => expected.answers.push((0x90, of.packet_identifier.get())),
                Packet::Pingreq => expected.answers.push((0xD0, 0)),
                Packet::Disconnect(_) => {
                    expected.has_will = false;
                    break;
                }
                other => unreachable!("{other:?}"),
            }
        }
        expected.answers.sort_by_key(|(kind, _)| *kind);
        expected
    }
}
