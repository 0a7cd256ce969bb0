//! What one node tells another, as bytes.
//!
//! An [`Item`] is a kind and its fields. Numbers that are mostly small are LEB128 (seven bits a byte, the lowest first);
//! hashes, stamps and connections have a fixed size, in little-endian order. Decoding borrows from the frame and allocates
//! nothing; every length is checked against what is there.
//!
//! **Versions.** Each frame begins with the [version](VERSION) of its items: the highest that both nodes speak, as the list
//! of members says. A version never changes: new kinds belong to a new version, and are an error in a frame of an older one.

mod reader;
pub mod session;
#[cfg(test)]
mod tests;

use std::fmt;

use reader::Reader;
use session::SessionItem;

/// The version that this program writes if the other node understands it.
pub const VERSION: u8 = 2;

/// The first version with offers of sessions without a client, by which a node is emptied, and with answers that name nodes
/// that are away.
pub const VERSION_WITH_OFFERS: u8 = 2;

/// The oldest version that this program understands and can write.
pub const VERSION_OLDEST: u8 = 1;

/// Maximum size of a topic or a filter.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// Maximum size of the name of a QoS 2 exchange.
pub const EXCHANGE_BYTES_MAX: usize = 32;

/// The highest [class](Item::Announce).
pub const CLASS_MAX: u8 = 2;

/// Kinds of items. Numbers from 32 on are those of [`session`]; those that are missing are free.
mod kind {
    pub const ANNOUNCE: u8 = 3;
    pub const WITHDRAW: u8 = 4;
    pub const GROUP: u8 = 5;
    pub const PUBLISH: u8 = 6;
    pub const PAUSE: u8 = 7;
    pub const RESUME: u8 = 8;
    pub const EXCHANGE_OVER: u8 = 9;
    pub const CLOCK: u8 = 10;
    pub const RETAINED: u8 = 13;
    pub const HELLO_DONE: u8 = 15;
    pub const CLOCK_ASK: u8 = 16;
    pub const SOURCE: u8 = 17;
}

/// The bits of a publication's second byte.
mod bits {
    pub const QOS: u8 = 0b0000_0011;
    pub const RETAIN: u8 = 0b0000_0100;
    pub const EXPIRES: u8 = 0b0000_1000;
    pub const PUBLISHER: u8 = 0b0001_0000;
    pub const EXCHANGE: u8 = 0b0010_0000;
    pub const TO: u8 = 0b1100_0000;
    pub const TO_STORE: u8 = 0b0100_0000;
    pub const TO_GROUP: u8 = 0b1000_0000;
}

/// What one node tells another. A node is a sender for its own cores only: nothing that came from a node is sent on to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The sender has subscribers to a filter. Announced with another class, it has that one too, until the one before is
    /// withdrawn.
    Announce {
        /// The Topic Filter.
        filter: &'a str,
        /// The most that its subscribers need, at most [`CLASS_MAX`]: 0 messages at QoS 0, 1 at a higher one, 2 at a higher one
        /// for a session that is kept.
        class: u8,
    },
    /// It has the filter no more with this class.
    Withdraw {
        /// The Topic Filter.
        filter: &'a str,
        /// At most [`CLASS_MAX`].
        class: u8,
    },
    /// The members that a shared subscription has on the sender.
    Group {
        /// The subscription as it is written: `$share/NAME/FILTER`.
        filter: &'a str,
        /// Connected members.
        online: u32,
        /// All members.
        members: u32,
    },
    /// An application message.
    Publish(Publish<'a>),
    /// Subscribers of the sender are behind: the receiver must not read this publisher, which is connected to it.
    Pause {
        /// The publisher's core.
        core: u16,
        /// Its connection on that core.
        connection: u64,
    },
    /// They have caught up.
    Resume {
        /// The publisher's core.
        core: u16,
        /// Its connection on that core.
        connection: u64,
    },
    /// The publisher of a QoS 2 message knows that it was received.
    ExchangeOver(&'a [u8]),
    /// The sender's clock for retained messages, in microseconds: all of its later stamps exceed it.
    Clock(u64),
    /// The sender wants to know the receiver's clock, after what was sent so far.
    ClockAsk,
    /// A retained message, or with an empty payload one that was removed, with its stamp.
    Retained(Publish<'a>),
    /// The sender has announced everything that it had when the lane began.
    HelloDone,
    /// What follows was published on this core of the sender.
    Source(u16),
    /// Which node has the session of a Client Identifier, or a part of a session.
    Session(SessionItem<'a>),
}

/// An application message on its way to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The Topic Name.
    pub topic: &'a str,
    /// Properties of MQTT 5 that are passed on to subscribers unaltered, encoded.
    pub passed_on: &'a [u8],
    /// The Application Message.
    pub payload: &'a [u8],
    /// 0 to 2.
    pub qos: u8,
    /// RETAIN flag of the PUBLISH packet.
    pub retain: bool,
    /// Time left until it expires, in milliseconds, at the time when the item was pushed: nodes share no clock. The
    /// receiver subtracts the age of the frame.
    pub expires_in_ms: Option<u64>,
    /// Core and connection of the publisher, which may have to be paused.
    pub publisher: Option<(u16, u64)>,
    /// Its QoS 2 exchange, at most [`EXCHANGE_BYTES_MAX`] bytes, as the sender knows it.
    pub exchange: Option<&'a [u8]>,
    /// Who gets it.
    pub to: To<'a>,
}

/// The recipients of an application message on the receiving node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// All subscribers.
    Subscribers,
    /// All subscribers, and the retained messages.
    SubscribersAndStore {
        /// Orders the retained messages of a topic.
        stamp: u128,
    },
    /// One member of a shared subscription.
    Group {
        /// The subscription as it is written: `$share/NAME/FILTER`.
        filter: &'a str,
        /// Number of cores and nodes that the message went to before.
        hops: u16,
    },
}

impl<'a> Item<'a> {
    /// Appends the encoded item.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let tail = self.encode_head(out);
        out.extend_from_slice(tail);
    }

    /// An upper bound of the encoded size: its texts and bytes, and the most that all other fields take.
    #[inline]
    pub fn bytes_max(&self) -> usize {
        /// Kind, bits, publisher, stamp, expiry, and the lengths of five fields.
        const FIELDS: usize = 96;
        FIELDS
            + match self {
                Self::Publish(publish) | Self::Retained(publish) => publish.bytes(),
                Self::Session(session) => session.bytes(),
                Self::Announce { filter, .. }
                | Self::Withdraw { filter, .. }
                | Self::Group { filter, .. } => filter.len(),
                Self::ExchangeOver(bytes) => bytes.len(),
                _ => 0,
            }
    }

    /// Appends the encoded item without its last bytes, which are returned: the payload of a message. A large payload
    /// then is copied once, into its frames.
    #[inline]
    pub(super) fn encode_head(&self, out: &mut Vec<u8>) -> &'a [u8] {
        match *self {
            Self::Publish(ref publish) => return publish.encode_head(kind::PUBLISH, out),
            Self::Retained(ref publish) => return publish.encode_head(kind::RETAINED, out),
            Self::Session(ref session) => return session.encode_head(out),
            Self::Announce { filter, class } => {
                out.extend_from_slice(&[kind::ANNOUNCE, class]);
                put_bytes(filter.as_bytes(), out);
            }
            Self::Withdraw { filter, class } => {
                out.extend_from_slice(&[kind::WITHDRAW, class]);
                put_bytes(filter.as_bytes(), out);
            }
            Self::Group { filter, online, members } => {
                out.push(kind::GROUP);
                put_bytes(filter.as_bytes(), out);
                put_number(online.into(), out);
                put_number(members.into(), out);
            }
            Self::Pause { core, connection } => {
                encode_connection(kind::PAUSE, core, connection, out)
            }
            Self::Resume { core, connection } => {
                encode_connection(kind::RESUME, core, connection, out)
            }
            Self::ExchangeOver(exchange) => encode_bytes(kind::EXCHANGE_OVER, exchange, out),
            Self::Clock(clock) => {
                out.push(kind::CLOCK);
                put_number(clock, out);
            }
            Self::HelloDone => out.push(kind::HELLO_DONE),
            Self::ClockAsk => out.push(kind::CLOCK_ASK),
            Self::Source(core) => {
                out.push(kind::SOURCE);
                put_number(core.into(), out);
            }
        }
        &[]
    }

    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let kind = reader.byte()?;
        Ok(match kind {
            kind::PUBLISH => Self::Publish(Publish::decode(reader)?),
            kind::RETAINED => Self::Retained(Publish::decode(reader)?),
            kind::ANNOUNCE => {
                Self::Announce { class: reader.class()?, filter: reader.text("filter")? }
            }
            kind::WITHDRAW => {
                Self::Withdraw { class: reader.class()?, filter: reader.text("filter")? }
            }
            kind::GROUP => Self::Group {
                filter: reader.text("filter")?,
                online: reader.number_up_to(u32::MAX.into(), "online members")? as u32,
                members: reader.number_up_to(u32::MAX.into(), "members")? as u32,
            },
            kind::PAUSE => {
                Self::Pause { core: reader.fixed_u16()?, connection: reader.fixed_u64()? }
            }
            kind::RESUME => {
                Self::Resume { core: reader.fixed_u16()?, connection: reader.fixed_u64()? }
            }
            kind::EXCHANGE_OVER => {
                Self::ExchangeOver(reader.bytes_up_to(EXCHANGE_BYTES_MAX, "exchange")?)
            }
            kind::CLOCK => Self::Clock(reader.number()?),
            kind::HELLO_DONE => Self::HelloDone,
            kind::CLOCK_ASK => Self::ClockAsk,
            kind::SOURCE => Self::Source(reader.number_up_to(u16::MAX.into(), "core")? as u16),
            other => match SessionItem::decode(other, reader)? {
                Some(session) => Self::Session(session),
                None => return Err(Fault::Kind(other)),
            },
        })
    }
}

impl<'a> Publish<'a> {
    fn bytes(&self) -> usize {
        let filter = if let To::Group { filter, .. } = self.to { filter.len() } else { 0 };
        self.topic.len()
            + self.passed_on.len()
            + self.payload.len()
            + self.exchange.map_or(0, <[u8]>::len)
            + filter
    }

    #[inline]
    fn encode_head(&self, kind: u8, out: &mut Vec<u8>) -> &'a [u8] {
        let to = match self.to {
            To::Subscribers => 0,
            To::SubscribersAndStore { .. } => bits::TO_STORE,
            To::Group { .. } => bits::TO_GROUP,
        };
        let if_some = |is_some, bit| if is_some { bit } else { 0 };
        let bits = self.qos & bits::QOS
            | if_some(self.retain, bits::RETAIN)
            | if_some(self.expires_in_ms.is_some(), bits::EXPIRES)
            | if_some(self.publisher.is_some(), bits::PUBLISHER)
            | if_some(self.exchange.is_some(), bits::EXCHANGE)
            | to;
        out.extend_from_slice(&[kind, bits]);
        put_bytes(self.topic.as_bytes(), out);
        if let Some(ms) = self.expires_in_ms {
            put_number(ms, out);
        }
        if let Some((core, connection)) = self.publisher {
            out.extend_from_slice(&core.to_le_bytes());
            out.extend_from_slice(&connection.to_le_bytes());
        }
        if let Some(exchange) = self.exchange {
            put_bytes(exchange, out);
        }
        match self.to {
            To::Subscribers => {}
            To::SubscribersAndStore { stamp } => out.extend_from_slice(&stamp.to_le_bytes()),
            To::Group { filter, hops } => {
                put_bytes(filter.as_bytes(), out);
                put_number(hops.into(), out);
            }
        }
        put_bytes(self.passed_on, out);
        put_number(self.payload.len() as u64, out);
        self.payload
    }

    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let bits = reader.byte()?;
        let qos = bits & bits::QOS;
        if qos > 2 {
            return Err(Fault::Value("QoS"));
        }
        let topic = reader.text("topic")?;
        let expires_in_ms = if bits & bits::EXPIRES != 0 { Some(reader.number()?) } else { None };
        let publisher = if bits & bits::PUBLISHER != 0 {
            Some((reader.fixed_u16()?, reader.fixed_u64()?))
        } else {
            None
        };
        let exchange = if bits & bits::EXCHANGE != 0 {
            Some(reader.bytes_up_to(EXCHANGE_BYTES_MAX, "exchange")?)
        } else {
            None
        };
        let to = match bits & bits::TO {
            0 => To::Subscribers,
            bits::TO_STORE => To::SubscribersAndStore { stamp: reader.fixed_u128()? },
            bits::TO_GROUP => To::Group {
                filter: reader.text("filter")?,
                hops: reader.number_up_to(u16::MAX.into(), "hops")? as u16,
            },
            _ => return Err(Fault::Value("recipients")),
        };
        let passed_on = reader.bytes()?;
        let payload = reader.bytes()?;
        let retain = bits & bits::RETAIN != 0;
        Ok(Self { topic, passed_on, payload, qos, retain, expires_in_ms, publisher, exchange, to })
    }
}

fn encode_connection(kind: u8, core: u16, connection: u64, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&core.to_le_bytes());
    out.extend_from_slice(&connection.to_le_bytes());
}

fn encode_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    put_bytes(bytes, out);
}

#[inline]
fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[inline]
fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The items of a frame, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
    bytes: usize,
}

impl<'a> Items<'a> {
    /// The items that these bytes consist of.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), bytes: bytes.len() }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let at = self.bytes - self.reader.len();
        Some(Item::decode(&mut self.reader).map_err(|fault| {
            self.reader = Reader::new(&[]);
            DecodeError { at, fault }
        }))
    }
}

/// An item that cannot be read. As the frame's checksum was right, the sender encodes it differently: the frame's version
/// is not what it says, and the lane cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where the item begins, in bytes from the first.
    pub at: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A kind that this version does not have.
    Kind(u8),
    /// It ends in a field.
    Short,
    /// A number with more than 64 bits.
    Number,
    /// A text that is not UTF-8.
    Text(&'static str),
    /// A field with a value that it cannot have.
    Value(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the item at byte {} ", self.at)?;
        match self.fault {
            Fault::Kind(kind) => write!(
                f,
                "is of kind {kind}, which version {VERSION} of lanes does not have: the other node sends a later one"
            ),
            Fault::Short => f.write_str("is incomplete"),
            Fault::Number => f.write_str("has a number of more than 64 bits"),
            Fault::Text(field) => write!(f, "has a {field} that is not UTF-8"),
            Fault::Value(field) => write!(f, "has a value out of range: {field}"),
        }
    }
}

impl std::error::Error for DecodeError {}
