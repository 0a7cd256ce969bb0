//! Decodes packets from the broker; packets borrow their bytes.

use std::fmt;

use super::{Qos, Version};
use crate::limits::PACKET_BYTES_MAX;

/// A packet from a broker.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// CONNACK.
    Connack {
        /// 0 if the connection was accepted.
        reason: u8,
        /// Session Present.
        session_present: bool,
        /// Receive Maximum of the broker; 65,535 by default.
        receive_maximum: u16,
    },
    /// PUBLISH.
    Publish {
        /// QoS of the delivery.
        qos: Qos,
        /// RETAIN.
        retain: bool,
        /// 0 at QoS 0.
        packet_identifier: u16,
        /// The payload.
        payload: &'a [u8],
    },
    /// PUBACK: Packet Identifier, Reason Code.
    Puback(u16, u8),
    /// PUBREC.
    Pubrec(u16, u8),
    /// PUBREL.
    Pubrel(u16, u8),
    /// PUBCOMP.
    Pubcomp(u16, u8),
    /// SUBACK.
    Suback {
        /// Packet Identifier of the SUBSCRIBE.
        packet_identifier: u16,
        /// One Reason Code per filter.
        reasons: &'a [u8],
    },
    /// UNSUBACK: Packet Identifier.
    Unsuback(u16),
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT with its Reason Code.
    Disconnect(u8),
}

/// Bytes that a broker must not send, with the reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The end of the first packet of `bytes`: the length of its header and its total length, or `None`
/// if it is incomplete.
#[inline]
pub fn frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut remaining = 0;
    for at in 1..=4 {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        remaining |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let total = at + 1 + remaining;
            if total > PACKET_BYTES_MAX {
                return Err(Malformed("a packet larger than every published one"));
            }
            return Ok((bytes.len() >= total).then_some((at + 1, total)));
        }
    }
    Err(Malformed("a Remaining Length of more than four bytes"))
}

/// Decodes the packet with the first byte `first_byte` and the bytes `body` after its header.
#[inline]
pub fn decode(version: Version, first_byte: u8, body: &[u8]) -> Result<Inbound<'_>, Malformed> {
    if first_byte >> 4 == 3 {
        return decode_publish(version, first_byte, body);
    }
    match first_byte {
        0x20 => decode_connack(version, body),
        0x40 => acknowledgement(body).map(|(id, reason)| Inbound::Puback(id, reason)),
        0x50 => acknowledgement(body).map(|(id, reason)| Inbound::Pubrec(id, reason)),
        0x62 => acknowledgement(body).map(|(id, reason)| Inbound::Pubrel(id, reason)),
        0x70 => acknowledgement(body).map(|(id, reason)| Inbound::Pubcomp(id, reason)),
        0x90 => decode_suback(version, body),
        0xB0 => take_u16(body).map(|(id, _)| Inbound::Unsuback(id)),
        0xD0 if body.is_empty() => Ok(Inbound::Pingresp),
        0xE0 => Ok(Inbound::Disconnect(body.first().copied().unwrap_or(0))),
        _ => Err(Malformed("a packet type or flags that a broker never sends")),
    }
}

#[inline]
fn decode_publish(version: Version, first_byte: u8, body: &[u8]) -> Result<Inbound<'_>, Malformed> {
    let qos = match first_byte >> 1 & 0b11 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        2 => Qos::ExactlyOnce,
        _ => return Err(Malformed("a PUBLISH with QoS 3")),
    };
    let (topic_len, rest) = take_u16(body)?;
    if topic_len == 0 {
        return Err(Malformed("a PUBLISH without a Topic Name, although no alias was allowed"));
    }
    let mut rest = rest.get(usize::from(topic_len)..).ok_or(SHORT)?;
    let mut packet_identifier = 0;
    if qos > Qos::AtMostOnce {
        (packet_identifier, rest) = take_u16(rest)?;
        if packet_identifier == 0 {
            return Err(Malformed("a PUBLISH with Packet Identifier 0"));
        }
    }
    if version == Version::V5 {
        (_, rest) = take_properties(rest)?;
    }
    let retain = first_byte & 1 == 1;
    Ok(Inbound::Publish { qos, retain, packet_identifier, payload: rest })
}

fn decode_connack(version: Version, body: &[u8]) -> Result<Inbound<'_>, Malformed> {
    let [flags, reason, rest @ ..] = body else { return Err(SHORT) };
    let session_present = flags & 1 == 1;
    let mut receive_maximum = u16::MAX;
    if version == Version::V5 && !rest.is_empty() {
        let (properties, _) = take_properties(rest)?;
        receive_maximum = find_receive_maximum(properties)?.unwrap_or(u16::MAX);
    }
    Ok(Inbound::Connack { reason: *reason, session_present, receive_maximum })
}

fn decode_suback(version: Version, body: &[u8]) -> Result<Inbound<'_>, Malformed> {
    let (packet_identifier, mut reasons) = take_u16(body)?;
    if version == Version::V5 {
        (_, reasons) = take_properties(reasons)?;
    }
    if reasons.is_empty() {
        return Err(SHORT);
    }
    Ok(Inbound::Suback { packet_identifier, reasons })
}

/// Receive Maximum in the properties of a CONNACK.
fn find_receive_maximum(mut properties: &[u8]) -> Result<Option<u16>, Malformed> {
    while let [identifier, rest @ ..] = properties {
        let len = match identifier {
            0x21 => return take_u16(rest).map(|(value, _)| Some(value)),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x22 | 0x13 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => 2 + usize::from(take_u16(rest)?.0),
            0x26 => {
                let name = 2 + usize::from(take_u16(rest)?.0);
                name + 2 + usize::from(take_u16(rest.get(name..).ok_or(SHORT)?)?.0)
            }
            _ => return Err(Malformed("a property that a CONNACK does not have")),
        };
        properties = rest.get(len..).ok_or(SHORT)?;
    }
    Ok(None)
}

const SHORT: Malformed = Malformed("a packet that ends before its last field");

#[inline]
fn acknowledgement(body: &[u8]) -> Result<(u16, u8), Malformed> {
    let (packet_identifier, rest) = take_u16(body)?;
    Ok((packet_identifier, rest.first().copied().unwrap_or(0)))
}

#[inline]
fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    match bytes {
        [high, low, rest @ ..] => Ok((u16::from_be_bytes([*high, *low]), rest)),
        _ => Err(SHORT),
    }
}

/// The property section at the start of `bytes`, and the rest.
#[inline]
fn take_properties(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut len = 0;
    for at in 0..4 {
        let byte = *bytes.get(at).ok_or(SHORT)?;
        len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let rest = &bytes[at + 1..];
            return rest.split_at_checked(len).ok_or(SHORT);
        }
    }
    Err(Malformed("a Property Length of more than four bytes"))
}
