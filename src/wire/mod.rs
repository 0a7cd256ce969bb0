//! MQTT 3.1, 3.1.1 and 5.0: bytes to packets and back. Borrows from what it is given, allocates
//! nothing but the room an encoder's output needs, and knows no session.
//!
//! [`frame`] cuts one packet out of a stream, [`decode`] reads it and refuses whatever the
//! specification calls malformed or a protocol error, as far as one packet alone shows it.
//! [`Packet::encode`] writes any packet; [`PublishHeader::encode`] is the same for the one that is
//! written most, without its payload.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod passed_on;
mod ping;
mod property;
mod publish;
mod reader;
mod reason_code;
mod suback;
mod subscribe;
mod unsubscribe;
mod user_property;
mod writer;

use std::num::NonZeroU16;

use crate::violation::Violation;

pub use ack::Ack;
pub use auth::Auth;
pub use connack::{Connack, ConnackProperties};
pub use connect::{Connect, ConnectProperties, Will, connect_level};
pub use disconnect::Disconnect;
pub use passed_on::PassedOn;
pub use publish::{Publish, PublishHeader, PublishProperties, SubscriptionIdentifiers};
pub use reason_code::ReasonCode;
pub use suback::{Suback, Unsuback};
pub use subscribe::{Subscribe, SubscribeFilters, SubscribeOptions};
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters};
pub use user_property::UserProperties;

/// The largest value of a Variable Byte Integer, and so of the Remaining Length.
pub const VARIABLE_BYTE_INTEGER_MAX: usize = 268_435_455;

/// The largest packet: a byte of type and flags, four of Remaining Length, and what they count.
pub const PACKET_BYTES_MAX: usize = 5 + VARIABLE_BYTE_INTEGER_MAX;

/// A version of the protocol, by its Protocol Level.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1, whose Protocol Name is `MQIsdp`.
    V31 = 3,
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

/// Quality of Service.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl TryFrom<u8> for Qos {
    type Error = u8;

    /// Fails with the value itself, which no QoS has.
    fn try_from(value: u8) -> Result<Qos, u8> {
        match value {
            0 => Ok(Qos::AtMostOnce),
            1 => Ok(Qos::AtLeastOnce),
            2 => Ok(Qos::ExactlyOnce),
            _ => Err(value),
        }
    }
}

impl From<Qos> for u8 {
    fn from(qos: Qos) -> u8 {
        qos as u8
    }
}

/// A Packet Identifier, which is never 0 [MQTT-2.2.1-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketIdentifier(NonZeroU16);

impl PacketIdentifier {
    /// None for 0.
    pub const fn new(value: u16) -> Option<PacketIdentifier> {
        match NonZeroU16::new(value) {
            Some(value) => Some(PacketIdentifier(value)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// The types of MQTT Control Packet, by their numbers in the fixed header.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// Its place in a set of packet types.
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// An MQTT Control Packet of any version and direction.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// What [`frame`] found at the start of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The packet is not whole yet.
    Incomplete {
        /// Bytes that the packet has, or 0 while its Remaining Length is not whole.
        need: usize,
    },
    /// The packet is there.
    Complete {
        /// Bytes of its fixed header.
        header: usize,
        /// Bytes of all of it.
        total: usize,
    },
}

/// Cuts the first packet out of a stream.
pub fn frame(bytes: &[u8], packet_bytes_max: usize) -> Result<Frame, Violation> {
    let _ = (bytes, packet_bytes_max);
    unimplemented!()
}

/// Reads the one packet that `bytes` hold. The version of a CONNECT packet is its own.
pub fn decode(bytes: &[u8], version: Version) -> Result<Packet<'_>, Violation> {
    let _ = (bytes, version);
    unimplemented!()
}

impl Packet<'_> {
    /// Appends the packet to `out`. A CONNECT packet goes out in its own version.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let _ = (version, out);
        unimplemented!()
    }
}
