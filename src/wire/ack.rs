//! PUBACK, PUBREC, PUBREL and PUBCOMP, which share one format. Knows no message.

use crate::wire::violation::Violation;

use super::property::{Place, Property, PropertyReader};
use super::reader::Reader;
use super::writer::{put_counted, put_two};
use super::{PacketIdentifier, PacketType, ReasonCode, UserProperties, Version};

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    /// Packet Identifier of the PUBLISH packet.
    pub packet_identifier: PacketIdentifier,
    /// Success before 5.0, and in a packet without a Reason Code.
    pub reason: ReasonCode,
    /// Reason String, for humans and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without properties.
    pub fn new(packet_identifier: PacketIdentifier, reason: ReasonCode) -> Ack<'static> {
        Ack {
            packet_identifier,
            reason,
            reason_string: None,
            user_properties: UserProperties::none(),
        }
    }

    #[inline]
    pub(super) fn decode(
        packet_type: PacketType,
        body: &'a [u8],
        version: Version,
    ) -> Result<Ack<'a>, Violation> {
        let mut reader = Reader::new(body);
        let mut ack = Ack::new(PacketIdentifier::read(&mut reader)?, ReasonCode::Success);
        if version < Version::V5 || reader.is_empty() {
            reader.finish()?;
            return Ok(ack);
        }
        ack.reason = ReasonCode::read(&mut reader, packet_type)?;
        // A packet without a Property Length has no properties. (section 3.4.2.2.1)
        if !reader.is_empty() {
            ack.read_properties(PropertyReader::new(&mut reader, Place::Packet(packet_type))?)?;
        }
        reader.finish()?;
        Ok(ack)
    }

    fn read_properties(&mut self, mut properties: PropertyReader<'a>) -> Result<(), Violation> {
        while let Some(property) = properties.read()? {
            match property {
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::UserProperty(_) => {}
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    pub(super) fn encode(&self, packet_type: PacketType, version: Version, out: &mut Vec<u8>) {
        debug_assert!(self.reason.allowed_in(packet_type), "{:?} in {packet_type:?}", self.reason);
        let [high, low] = self.packet_identifier.get().to_be_bytes();
        let first = packet_type.first_byte();
        let has_properties = self.reason_string.is_some() || !self.user_properties.is_empty();
        if version < Version::V5 || !has_properties && self.reason == ReasonCode::Success {
            out.extend_from_slice(&[first, 2, high, low]);
        } else if !has_properties {
            out.extend_from_slice(&[first, 3, high, low, self.reason as u8]);
        } else {
            out.push(first);
            put_counted(out, |out| {
                put_two(out, self.packet_identifier.get());
                out.push(self.reason as u8);
                put_counted(out, |out| {
                    Property::write_some(self.reason_string.map(Property::ReasonString), out);
                    self.user_properties.write(out);
                });
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    const SEVEN: PacketIdentifier = PacketIdentifier::new(7).unwrap();

    #[test]
    fn the_short_forms_are_read_and_written() {
        let mut properties = Vec::new();
        UserProperties::push(&mut properties, "k", "v");
        let not_authorized = ReasonCode::NotAuthorized;
        let full = Ack {
            reason_string: Some("no"),
            user_properties: UserProperties::encoded(&properties),
            ..Ack::new(SEVEN, not_authorized)
        };
        let cases: &[(Packet<'_>, &[u8])] = &[
            (Packet::Puback(Ack::new(SEVEN, ReasonCode::Success)), &[0x40, 2, 0, 7]),
            (Packet::Puback(Ack::new(SEVEN, not_authorized)), &[0x40, 3, 0, 7, 0x87]),
            (Packet::Pubrec(full), b"\x50\x10\0\x07\x87\x0C\x1F\0\x02no\x26\0\x01k\0\x01v"),
            (Packet::Pubrel(Ack::new(SEVEN, ReasonCode::Success)), &[0x62, 2, 0, 7]),
            (
                Packet::Pubcomp(Ack::new(SEVEN, ReasonCode::PacketIdentifierNotFound)),
                &[0x70, 3, 0, 7, 0x92],
            ),
        ];
        for (packet, bytes) in cases {
            let mut out = Vec::new();
            packet.encode(Version::V5, &mut out);
            assert_eq!(out, *bytes);
            assert_eq!(decode(bytes, Version::V5).as_ref(), Ok(packet));
        }
    }

    #[test]
    fn a_reason_and_a_property_length_may_be_spelled_out() {
        let success = Packet::Puback(Ack::new(SEVEN, ReasonCode::Success));
        assert_eq!(decode(&[0x40, 3, 0, 7, 0], Version::V5), Ok(success.clone()));
        assert_eq!(decode(&[0x40, 4, 0, 7, 0, 0], Version::V5), Ok(success));
    }

    #[test]
    fn before_5_there_is_nothing_but_the_packet_identifier() {
        for version in [Version::V31, Version::V311] {
            let mut out = Vec::new();
            Packet::Puback(Ack::new(SEVEN, ReasonCode::QuotaExceeded)).encode(version, &mut out);
            assert_eq!(out, [0x40, 2, 0, 7]);
            assert_eq!(decode(&[0x40, 3, 0, 7, 0], version), Err(Violation::TrailingBytes));
        }
    }

    #[test]
    fn invalid_packets_are_rejected() {
        let cases: &[(&[u8], Violation)] = &[
            (&[0x40, 0], Violation::PacketTooShort),
            (&[0x40, 1, 0], Violation::PacketTooShort),
            (&[0x40, 2, 0, 0], Violation::PacketIdentifierZero),
            (&[0x40, 3, 0, 7, 0x92], Violation::PubackReasonCodeInvalid),
            (&[0x40, 3, 0, 7, 0x7F], Violation::PubackReasonCodeInvalid),
            (&[0x50, 3, 0, 7, 0x01], Violation::PubrecReasonCodeInvalid),
            (&[0x62, 3, 0, 7, 0x10], Violation::PubrelReasonCodeInvalid),
            (&[0x70, 3, 0, 7, 0x97], Violation::PubcompReasonCodeInvalid),
            (&[0x40, 4, 0, 7, 0, 1], Violation::PacketTooShort),
            (&[0x40, 5, 0, 7, 0, 0, 0], Violation::TrailingBytes),
            (&[0x40, 6, 0, 7, 0, 2, 0x01, 0], Violation::PropertyNotAllowed),
            (&[0x40, 10, 0, 7, 0, 6, 0x1F, 0, 0, 0x1F, 0, 0], Violation::PropertyRepeated),
            (&[0x60, 2, 0, 7], Violation::FixedHeaderFlagsInvalid),
            (&[0x42, 2, 0, 7], Violation::FixedHeaderFlagsInvalid),
        ];
        for &(bytes, violation) in cases {
            assert_eq!(decode(bytes, Version::V5), Err(violation), "{bytes:02X?}");
        }
    }
}
