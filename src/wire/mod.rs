//! Codec for MQTT 3.1, 3.1.1 and 5.0. Decoded packets borrow from the input; only the output buffer
//! of an encoder allocates. Knows no session.
//!
//! [`frame`] finds the first packet in a stream. [`decode`] reads it and rejects what the
//! specification calls malformed or a protocol error, as far as a single packet shows it.
//! [`Packet::encode`] writes any packet; [`PublishHeader::encode`] is the fast path for PUBLISH and
//! leaves the payload to the caller.

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
pub mod violation;
mod writer;

use std::num::NonZeroU16;

use crate::wire::violation::Violation;

use reader::Reader;

pub use ack::Ack;
pub use auth::Auth;
pub use connack::{Connack, ConnackProperties};
pub use connect::{
    Connect, ConnectProperties, Will, connect_level, connect_renamed, connect_with_will_topic,
};
pub use disconnect::Disconnect;
pub use passed_on::{ForwardedProperties, PassedOn};
pub use publish::{
    Publish, PublishHeader, PublishProperties, SubscriptionIdentifiers, SubscriptionIdentifiersIter,
};
pub use reason_code::ReasonCode;
pub use suback::{Suback, Unsuback};
pub use subscribe::{Subscribe, SubscribeFilters, SubscribeFiltersIter, SubscribeOptions};
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters, UnsubscribeFiltersIter};
pub use user_property::{UserProperties, UserPropertiesIter};

/// The largest value of a Variable Byte Integer, and so of the Remaining Length.
pub const VARIABLE_BYTE_INTEGER_MAX: usize = 268_435_455;

/// The size of the largest packet: one byte of type and flags, four of Remaining Length, and the
/// rest.
pub const PACKET_BYTES_MAX: usize = 5 + VARIABLE_BYTE_INTEGER_MAX;

/// Whether the first bytes of a connection can be the start of a CONNECT packet.
pub fn may_begin_connect(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| first >> 4 == PacketType::Connect as u8)
}

/// A protocol version, by its Protocol Level.
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

impl Version {
    /// The number of the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
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

    /// Fails with the value itself if it is no QoS.
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

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<PacketIdentifier, Violation> {
        PacketIdentifier::new(reader.two()?).ok_or(Violation::PacketIdentifierZero)
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
    /// The name in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }

    /// The bit of this packet type in a set of packet types.
    const fn bit(self) -> u16 {
        1 << self as u16
    }

    pub(crate) const fn from_first_byte(first: u8) -> Option<PacketType> {
        Some(match first >> 4 {
            1 => PacketType::Connect,
            2 => PacketType::Connack,
            3 => PacketType::Publish,
            4 => PacketType::Puback,
            5 => PacketType::Pubrec,
            6 => PacketType::Pubrel,
            7 => PacketType::Pubcomp,
            8 => PacketType::Subscribe,
            9 => PacketType::Suback,
            10 => PacketType::Unsubscribe,
            11 => PacketType::Unsuback,
            12 => PacketType::Pingreq,
            13 => PacketType::Pingresp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// The first byte of the fixed header: type and reserved flags. PUBLISH adds its own flags.
    const fn first_byte(self) -> u8 {
        let flags = match self {
            PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// [MQTT-2.1.3-1] In 3.1, unused flags have no meaning, and SUBSCRIBE, UNSUBSCRIBE and PUBREL
    /// packets have a DUP flag.
    fn check_flags(self, first: u8, version: Version) -> Result<(), Violation> {
        if version != Version::V31 && first != self.first_byte() {
            return Err(Violation::FixedHeaderFlagsInvalid);
        }
        Ok(())
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

/// The result of [`frame`] for the start of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The packet is incomplete.
    Incomplete {
        /// Size of the packet in bytes, or 0 while its Remaining Length is incomplete.
        need: usize,
    },
    /// The packet is complete.
    Complete {
        /// Size of the fixed header in bytes.
        header: usize,
        /// Size of the whole packet in bytes.
        total: usize,
    },
}

/// Finds the first packet in a stream. A packet that is too large, or whose type no version
/// defines, is rejected as soon as its first bytes show it.
#[inline]
pub fn frame(bytes: &[u8], packet_bytes_max: usize) -> Result<Frame, Violation> {
    if bytes.first().is_some_and(|first| first >> 4 == 0) {
        return Err(Violation::PacketTypeReserved);
    }
    let mut remaining = 0;
    for place in 0..4 {
        let Some(&byte) = bytes.get(1 + place) else { return Ok(Frame::Incomplete { need: 0 }) };
        remaining |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 != 0 {
            continue;
        }
        let header = 2 + place;
        let total = header + remaining;
        if total > packet_bytes_max {
            return Err(Violation::PacketTooLarge); // [MQTT-3.2.2-15]
        }
        if bytes.len() < total {
            return Ok(Frame::Incomplete { need: total });
        }
        return Ok(Frame::Complete { header, total });
    }
    Err(Violation::VariableByteIntegerTooLong)
}

/// The Property Length of an MQTT 5 packet other than CONNECT that [`frame`] has found; `None` if
/// the packet ends before its Property Length.
pub fn properties_bytes(bytes: &[u8], header: usize) -> Option<usize> {
    let (first, mut reader) = (*bytes.first()?, Reader::new(bytes.get(header..)?));
    match PacketType::from_first_byte(first)? {
        PacketType::Publish => {
            reader.data().ok()?;
            if first >> 1 & 0b11 != 0 {
                reader.two().ok()?;
            }
        }
        PacketType::Subscribe | PacketType::Unsubscribe => drop(reader.two().ok()?),
        PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
            reader.take(3).ok()?;
        }
        PacketType::Disconnect | PacketType::Auth => drop(reader.byte().ok()?),
        _ => return None,
    }
    reader.variable().ok().map(|bytes| bytes as usize)
}

/// Decodes the single packet in `bytes`. A CONNECT packet is decoded in its own version.
#[inline]
pub fn decode(bytes: &[u8], version: Version) -> Result<Packet<'_>, Violation> {
    let Frame::Complete { header, total } = frame(bytes, PACKET_BYTES_MAX)? else {
        return Err(Violation::PacketTooShort);
    };
    if bytes.len() > total {
        return Err(Violation::TrailingBytes);
    }
    match PacketType::from_first_byte(bytes[0]) {
        Some(PacketType::Subscribe | PacketType::Unsubscribe) => {
            decode_with_filters(bytes, header, version)
        }
        _ => decode_framed(bytes, header, version),
    }
}

/// Decodes a packet and checks its Topic Filters.
fn decode_with_filters(
    bytes: &[u8],
    header: usize,
    version: Version,
) -> Result<Packet<'_>, Violation> {
    let packet = decode_framed(bytes, header, version)?;
    match &packet {
        Packet::Subscribe(subscribe) => subscribe.filters.check()?,
        Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.check()?,
        _ => {}
    }
    Ok(packet)
}

/// Decodes a packet that [`frame`] has found, with a fixed header of `header` bytes. The Topic
/// Filters of SUBSCRIBE and UNSUBSCRIBE are not checked: there may be millions, and the caller
/// checks them one by one.
#[inline]
pub fn decode_framed(
    bytes: &[u8],
    header: usize,
    version: Version,
) -> Result<Packet<'_>, Violation> {
    let first = bytes[0];
    let (head, body) = bytes.split_at(header);
    let packet_type = PacketType::from_first_byte(first).ok_or(Violation::PacketTypeReserved)?;
    match packet_type {
        PacketType::Publish => {
            check_remaining_length(head, version)?;
            Ok(Packet::Publish(Publish::decode(first, body, version)?))
        }
        PacketType::Connect => {
            let mut reader = Reader::new(body);
            let (version, is_bridge) = connect::read_version(&mut reader)?;
            check_remaining_length(head, version)?;
            packet_type.check_flags(first, version)?;
            Ok(Packet::Connect(Connect::decode(reader, version, is_bridge)?))
        }
        _ => {
            check_remaining_length(head, version)?;
            packet_type.check_flags(first, version)?;
            decode_other(packet_type, body, version)
        }
    }
}

/// The packet type of a non-empty packet, unless it is reserved.
#[inline]
pub fn packet_type(bytes: &[u8]) -> Option<PacketType> {
    PacketType::from_first_byte(bytes[0])
}

/// A PINGREQ packet; no other encoding of it exists.
pub const PINGREQ: [u8; 2] = [(PacketType::Pingreq as u8) << 4, 0];

/// A PINGRESP packet; no other encoding of it exists.
pub const PINGRESP: [u8; 2] = [(PacketType::Pingresp as u8) << 4, 0];

/// Like [`decode_framed`], for an acknowledgement of this packet type.
#[inline]
pub fn decode_ack(
    packet_type: PacketType,
    bytes: &[u8],
    header: usize,
    version: Version,
) -> Result<Ack<'_>, Violation> {
    let (head, body) = bytes.split_at(header);
    check_remaining_length(head, version)?;
    packet_type.check_flags(bytes[0], version)?;
    Ack::decode(packet_type, body, version)
}

/// Like [`decode_framed`], for PUBLISH.
#[inline]
pub fn decode_publish(
    bytes: &[u8],
    header: usize,
    version: Version,
) -> Result<Publish<'_>, Violation> {
    let (head, body) = bytes.split_at(header);
    check_remaining_length(head, version)?;
    Publish::decode(bytes[0], body, version)
}

/// Decodes the packet types whose fixed header holds no further information.
#[inline]
fn decode_other(
    packet_type: PacketType,
    body: &[u8],
    version: Version,
) -> Result<Packet<'_>, Violation> {
    let ack = || Ack::decode(packet_type, body, version);
    Ok(match packet_type {
        PacketType::Connack => Packet::Connack(Connack::decode(body, version)?),
        PacketType::Puback => Packet::Puback(ack()?),
        PacketType::Pubrec => Packet::Pubrec(ack()?),
        PacketType::Pubrel => Packet::Pubrel(ack()?),
        PacketType::Pubcomp => Packet::Pubcomp(ack()?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
        PacketType::Suback => Packet::Suback(Suback::decode(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
        PacketType::Unsuback => Packet::Unsuback(Unsuback::decode(body, version)?),
        PacketType::Pingreq => ping::decode(body).map(|()| Packet::Pingreq)?,
        PacketType::Pingresp => ping::decode(body).map(|()| Packet::Pingresp)?,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(body, version)?),
        PacketType::Auth if version == Version::V5 => Packet::Auth(Auth::decode(body)?),
        // AUTH does not exist before 5.0; the caller handles the other two.
        PacketType::Auth | PacketType::Connect | PacketType::Publish => {
            return Err(Violation::PacketTypeReserved);
        }
    })
}

/// Only 5.0 requires the shortest encoding. [MQTT-1.5.5-1]
#[inline]
fn check_remaining_length(head: &[u8], version: Version) -> Result<(), Violation> {
    if version == Version::V5 && head.len() > 2 && head.last() == Some(&0) {
        return Err(Violation::VariableByteIntegerNotMinimal);
    }
    Ok(())
}

impl Packet<'_> {
    /// Appends the packet to `out`. A CONNECT packet is encoded in its own version.
    ///
    /// # Panics
    /// If the packet has no encoding: a string or binary data longer than 65,535 bytes, a packet
    /// larger than [`PACKET_BYTES_MAX`], or AUTH before 5.0. The caller has to rule these out.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Packet::Connect(connect) => connect.encode(out),
            Packet::Connack(connack) => connack.encode(version, out),
            Packet::Publish(publish) => publish.encode(version, out),
            Packet::Puback(ack) => ack.encode(PacketType::Puback, version, out),
            Packet::Pubrec(ack) => ack.encode(PacketType::Pubrec, version, out),
            Packet::Pubrel(ack) => ack.encode(PacketType::Pubrel, version, out),
            Packet::Pubcomp(ack) => ack.encode(PacketType::Pubcomp, version, out),
            Packet::Subscribe(subscribe) => subscribe.encode(version, out),
            Packet::Suback(suback) => suback.encode(version, out),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Packet::Unsuback(unsuback) => unsuback.encode(version, out),
            Packet::Pingreq => ping::encode(PacketType::Pingreq, out),
            Packet::Pingresp => ping::encode(PacketType::Pingresp, out),
            Packet::Disconnect(disconnect) => disconnect.encode(version, out),
            Packet::Auth(auth) => auth.encode(version, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_complete_or_has_the_size_it_needs() {
        let incomplete = |need| Ok(Frame::Incomplete { need });
        let cases: &[(&[u8], Result<Frame, Violation>)] = &[
            (&[], incomplete(0)),
            (&[0xC0], incomplete(0)),
            (&[0xC0, 0x00], Ok(Frame::Complete { header: 2, total: 2 })),
            (&[0xC0, 0x00, 0xC0], Ok(Frame::Complete { header: 2, total: 2 })),
            (&[0x30, 0x05, 0, 1], incomplete(7)),
            (&[0x30, 0x80], incomplete(0)),
            (&[0x30, 0x80, 0x01], incomplete(131)),
            (&[0x30, 0x80, 0x80, 0x01], incomplete(16_388)),
            (&[0x30, 0x80, 0x80, 0x80, 0x01], incomplete(2_097_157)),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], incomplete(PACKET_BYTES_MAX)),
            (&[0x30, 0xFF, 0xFF, 0xFF], incomplete(0)),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], Err(Violation::VariableByteIntegerTooLong)),
            (&[0x00], Err(Violation::PacketTypeReserved)),
            (&[0x0F, 0x00], Err(Violation::PacketTypeReserved)),
        ];
        for &(bytes, expected) in cases {
            assert_eq!(frame(bytes, PACKET_BYTES_MAX), expected, "{bytes:02X?}");
        }
    }

    #[test]
    fn mqtt_3_2_2_15_a_packet_counts_with_its_fixed_header() {
        let bytes = [0x30, 0x03, 0, 1, b'a'];
        assert_eq!(frame(&bytes, 5), Ok(Frame::Complete { header: 2, total: 5 }));
        assert_eq!(frame(&bytes, 4), Err(Violation::PacketTooLarge));
        assert_eq!(frame(&bytes[..2], 4), Err(Violation::PacketTooLarge));
    }

    #[test]
    fn the_input_must_be_exactly_one_frame() {
        assert_eq!(decode(&[], Version::V5), Err(Violation::PacketTooShort));
        assert_eq!(decode(&[0x40, 2, 0], Version::V5), Err(Violation::PacketTooShort));
        assert_eq!(decode(&[0xC0, 0, 0xC0, 0], Version::V5), Err(Violation::TrailingBytes));
        // Nor after a PUBLISH packet, whose payload has no length of its own.
        let too_long = b"\x30\x03\0\x01a!";
        assert_eq!(decode(too_long, Version::V311), Err(Violation::TrailingBytes));
    }

    #[test]
    fn only_5_asks_for_a_minimal_remaining_length() {
        let padded = [0xC0, 0x80, 0x80, 0x00];
        assert_eq!(decode(&padded, Version::V31), Ok(Packet::Pingreq));
        assert_eq!(decode(&padded, Version::V311), Ok(Packet::Pingreq));
        assert_eq!(decode(&padded, Version::V5), Err(Violation::VariableByteIntegerNotMinimal));
    }

    #[test]
    fn mqtt_2_1_3_1_reserved_flags_have_their_values() {
        for packet_type in 1..=15_u8 {
            let expected = match packet_type {
                1 | 3 => continue, // tested in their own modules
                6 | 8 | 10 => 0b0010,
                _ => 0,
            };
            for flags in 0..16 {
                let first = packet_type << 4 | flags;
                for version in [Version::V311, Version::V5] {
                    let is_refused =
                        decode(&[first, 0], version) == Err(Violation::FixedHeaderFlagsInvalid);
                    assert_eq!(is_refused, flags != expected, "{first:02X}");
                }
                // Flags were unused in 3.1.
                let bytes = [first, 0];
                let refused = Err(Violation::FixedHeaderFlagsInvalid);
                assert_ne!(decode(&bytes, Version::V31), refused, "{first:02X}");
            }
        }
    }
}
