//! SUBACK and UNSUBACK, which share one format. Knows no subscription.

use crate::wire::violation::Violation;

use super::property::{Place, Property, PropertyReader};
use super::reader::Reader;
use super::writer::{put_counted, put_two};
use super::{PacketIdentifier, PacketType, ReasonCode, UserProperties, Version};

/// The acknowledgement of SUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Suback<'a> {
    /// Packet Identifier of the SUBSCRIBE packet.
    pub packet_identifier: PacketIdentifier,
    /// One Reason Code for each Topic Filter, in order.
    pub reasons: &'a [u8],
    /// Reason String, for humans and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// The acknowledgement of UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsuback<'a> {
    /// Packet Identifier of the UNSUBSCRIBE packet.
    pub packet_identifier: PacketIdentifier,
    /// One Reason Code for each Topic Filter, in order; empty before 5.0.
    pub reasons: &'a [u8],
    /// Reason String, for humans and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// Failure, the only error code in a SUBACK packet of 3.1.1. The 3.1 specification has none, but
/// its clients understand this one.
const FAILURE: u8 = 0x80;

impl<'a> Suback<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Suback<'a>, Violation> {
        let (packet_identifier, properties, reader) = read_head(body, PacketType::Suback, version)?;
        let reasons = reader.rest();
        if reasons.is_empty() {
            return Err(Violation::SubackEmpty);
        }
        // [MQTT-3.9.3-2]
        let is_known = |reason: &u8| match version {
            Version::V5 => ReasonCode::checked(*reason, PacketType::Suback).is_some(),
            Version::V311 | Version::V31 => matches!(*reason, 0..=2 | FAILURE),
        };
        if !reasons.iter().all(is_known) {
            return Err(Violation::SubackReasonCodeInvalid);
        }
        let Properties { reason_string, user_properties } = properties;
        Ok(Suback { packet_identifier, reasons, reason_string, user_properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let properties =
            Properties { reason_string: self.reason_string, user_properties: self.user_properties };
        out.push(PacketType::Suback.first_byte());
        put_counted(out, |out| {
            put_two(out, self.packet_identifier.get());
            if version == Version::V5 {
                put_counted(out, |out| properties.write(out));
                out.extend_from_slice(self.reasons);
            } else {
                out.extend(self.reasons.iter().map(|&reason| reason.min(FAILURE)));
            }
        });
    }
}

impl<'a> Unsuback<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Unsuback<'a>, Violation> {
        let (packet_identifier, properties, reader) =
            read_head(body, PacketType::Unsuback, version)?;
        let reasons = reader.rest();
        if version < Version::V5 {
            reader.finish()?;
        } else if reasons.is_empty() {
            return Err(Violation::UnsubackEmpty);
        }
        // [MQTT-3.11.3-2]
        let is_known = |&reason| ReasonCode::checked(reason, PacketType::Unsuback).is_some();
        if !reasons.iter().all(is_known) {
            return Err(Violation::UnsubackReasonCodeInvalid);
        }
        let Properties { reason_string, user_properties } = properties;
        Ok(Unsuback { packet_identifier, reasons, reason_string, user_properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let properties =
            Properties { reason_string: self.reason_string, user_properties: self.user_properties };
        out.push(PacketType::Unsuback.first_byte());
        put_counted(out, |out| {
            put_two(out, self.packet_identifier.get());
            if version == Version::V5 {
                put_counted(out, |out| properties.write(out));
                out.extend_from_slice(self.reasons);
            }
        });
    }
}

#[derive(Default)]
struct Properties<'a> {
    reason_string: Option<&'a str>,
    user_properties: UserProperties<'a>,
}

impl Properties<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        Property::write_some(self.reason_string.map(Property::ReasonString), out);
        self.user_properties.write(out);
    }
}

/// Decodes the fields before the Reason Codes; the returned reader is at the first Reason Code.
fn read_head(
    body: &[u8],
    packet_type: PacketType,
    version: Version,
) -> Result<(PacketIdentifier, Properties<'_>, Reader<'_>), Violation> {
    let mut reader = Reader::new(body);
    let packet_identifier = PacketIdentifier::read(&mut reader)?;
    let mut head = Properties::default();
    if version == Version::V5 {
        let mut properties = PropertyReader::new(&mut reader, Place::Packet(packet_type))?;
        while let Some(property) = properties.read()? {
            match property {
                Property::ReasonString(text) => head.reason_string = Some(text),
                Property::UserProperty(_) => {}
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        head.user_properties = properties.user_properties();
    }
    Ok((packet_identifier, head, reader))
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    const SEVEN: PacketIdentifier = PacketIdentifier::new(7).unwrap();

    fn suback<'a>(reasons: &'a [u8], reason_string: Option<&'a str>) -> Packet<'a> {
        let user_properties = UserProperties::none();
        let packet_identifier = SEVEN;
        Packet::Suback(Suback { packet_identifier, reasons, reason_string, user_properties })
    }

    fn unsuback(reasons: &[u8]) -> Packet<'_> {
        Packet::Unsuback(Unsuback {
            packet_identifier: SEVEN,
            reasons,
            reason_string: None,
            user_properties: UserProperties::none(),
        })
    }

    fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        packet.encode(version, &mut out);
        out
    }

    #[test]
    fn both_are_read_and_written() {
        let cases: &[(Packet<'_>, Version, &[u8])] = &[
            (suback(&[0, 1, 2, 0x9E], None), Version::V5, b"\x90\x07\0\x07\0\0\x01\x02\x9E"),
            (suback(&[0x80], Some("x")), Version::V5, b"\x90\x08\0\x07\x04\x1F\0\x01x\x80"),
            (suback(&[0, 1, 2, 0x80], None), Version::V311, &[0x90, 6, 0, 7, 0, 1, 2, 0x80]),
            (unsuback(&[0, 0x11, 0x87]), Version::V5, &[0xB0, 6, 0, 7, 0, 0, 0x11, 0x87]),
            (unsuback(&[]), Version::V311, &[0xB0, 2, 0, 7]),
            (unsuback(&[]), Version::V31, &[0xB0, 2, 0, 7]),
        ];
        for (packet, version, bytes) in cases {
            assert_eq!(encode(packet, *version), *bytes);
            assert_eq!(decode(bytes, *version).as_ref(), Ok(packet));
        }
    }

    #[test]
    fn mqtt_3_9_3_2_before_5_every_error_is_failure() {
        let packet = suback(&[1, 0x87, 0x97, 0xA2], None);
        assert_eq!(encode(&packet, Version::V311), [0x90, 6, 0, 7, 1, 0x80, 0x80, 0x80]);
    }

    #[test]
    fn invalid_packets_are_rejected() {
        use Version::{V5, V31, V311};
        let cases: &[(&[u8], Version, Violation)] = &[
            (&[0x90, 2, 0, 7], V311, Violation::SubackEmpty),
            (&[0x90, 3, 0, 7, 0], V5, Violation::SubackEmpty),
            (&[0x90, 3, 0, 0, 0], V311, Violation::PacketIdentifierZero),
            (&[0x90, 3, 0, 7, 3], V31, Violation::SubackReasonCodeInvalid),
            (&[0x90, 3, 0, 7, 0x87], V311, Violation::SubackReasonCodeInvalid),
            (&[0x90, 5, 0, 7, 0, 0, 0x11], V5, Violation::SubackReasonCodeInvalid),
            (&[0xB0, 3, 0, 7, 0], V5, Violation::UnsubackEmpty),
            (&[0xB0, 3, 0, 7, 0], V311, Violation::TrailingBytes),
            (&[0xB0, 4, 0, 7, 0, 0x01], V5, Violation::UnsubackReasonCodeInvalid),
            (&[0xB0, 6, 0, 7, 2, 0x0B, 1, 0], V5, Violation::PropertyNotAllowed),
        ];
        for &(bytes, version, violation) in cases {
            assert_eq!(decode(bytes, version), Err(violation), "{bytes:02X?}");
        }
    }
}
