//! DISCONNECT. Knows no Will.

use crate::wire::violation::Violation;

use super::property::{Place, Property, PropertyReader};
use super::reader::Reader;
use super::writer::put_counted;
use super::{PacketType, ReasonCode, UserProperties, Version};

/// The last packet of a connection. Before 5.0 it has no fields, and only clients send it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disconnect<'a> {
    /// Success means Normal disconnection.
    pub reason: ReasonCode,
    /// Session Expiry Interval in seconds that replaces the one of CONNECT; only from clients.
    pub session_expiry_interval: Option<u32>,
    /// Reason String, for humans and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Other servers to use.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Disconnect<'a>, Violation> {
        let mut disconnect = Disconnect::default();
        let mut reader = Reader::new(body);
        if version < Version::V5 || reader.is_empty() {
            reader.finish()?;
            return Ok(disconnect);
        }
        disconnect.reason = ReasonCode::read(&mut reader, PacketType::Disconnect)?;
        // A packet without a Property Length has no properties. (section 3.14.2.2.1)
        if !reader.is_empty() {
            let place = Place::Packet(PacketType::Disconnect);
            disconnect.read_properties(PropertyReader::new(&mut reader, place)?)?;
        }
        reader.finish()?;
        Ok(disconnect)
    }

    fn read_properties(&mut self, mut properties: PropertyReader<'a>) -> Result<(), Violation> {
        while let Some(property) = properties.read()? {
            match property {
                Property::SessionExpiryInterval(s) => self.session_expiry_interval = Some(s),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                Property::UserProperty(_) => {}
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert!(self.reason.allowed_in(PacketType::Disconnect), "{:?}", self.reason);
        let first = PacketType::Disconnect.first_byte();
        if version < Version::V5 || *self == Disconnect::default() {
            return out.extend_from_slice(&[first, 0]);
        }
        if *self == (Disconnect { reason: self.reason, ..Disconnect::default() }) {
            return out.extend_from_slice(&[first, 1, self.reason as u8]);
        }
        out.push(first);
        put_counted(out, |out| {
            out.push(self.reason as u8);
            put_counted(out, |out| self.write_properties(out));
        });
    }

    fn write_properties(&self, out: &mut Vec<u8>) {
        let expiry = self.session_expiry_interval.map(Property::SessionExpiryInterval);
        Property::write_some(expiry, out);
        Property::write_some(self.reason_string.map(Property::ReasonString), out);
        self.user_properties.write(out);
        Property::write_some(self.server_reference.map(Property::ServerReference), out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    #[test]
    fn every_form_is_read_and_written() {
        let moved = Disconnect {
            reason: ReasonCode::ServerMoved,
            server_reference: Some("b"),
            ..Disconnect::default()
        };
        let expiring = Disconnect { session_expiry_interval: Some(1), ..Disconnect::default() };
        let with_will =
            Disconnect { reason: ReasonCode::DisconnectWithWillMessage, ..Disconnect::default() };
        let cases: &[(Disconnect<'_>, &[u8])] = &[
            (Disconnect::default(), &[0xE0, 0]),
            (with_will, &[0xE0, 1, 4]),
            (moved, b"\xE0\x06\x9D\x04\x1C\0\x01b"),
            (expiring, &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1]),
        ];
        for (disconnect, bytes) in cases {
            let packet = Packet::Disconnect(disconnect.clone());
            let mut out = Vec::new();
            packet.encode(Version::V5, &mut out);
            assert_eq!(out, *bytes);
            assert_eq!(decode(bytes, Version::V5), Ok(packet));
        }
    }

    #[test]
    fn a_reason_and_a_property_length_may_be_spelled_out() {
        for bytes in [&[0xE0, 1, 0][..], &[0xE0, 2, 0, 0]] {
            let normal = Packet::Disconnect(Disconnect::default());
            assert_eq!(decode(bytes, Version::V5), Ok(normal));
        }
    }

    #[test]
    fn before_5_there_is_nothing_in_it() {
        for version in [Version::V31, Version::V311] {
            let mut out = Vec::new();
            let reason = ReasonCode::ServerShuttingDown;
            Packet::Disconnect(Disconnect { reason, ..Disconnect::default() })
                .encode(version, &mut out);
            assert_eq!(out, [0xE0, 0]);
            assert_eq!(decode(&[0xE0, 1, 0], version), Err(Violation::TrailingBytes));
        }
    }

    #[test]
    fn invalid_packets_are_rejected() {
        let cases: &[(&[u8], Violation)] = &[
            (&[0xE2, 0], Violation::FixedHeaderFlagsInvalid),
            (&[0xE0, 1, 0x01], Violation::DisconnectReasonCodeInvalid),
            (&[0xE0, 1, 0x84], Violation::DisconnectReasonCodeInvalid),
            (&[0xE0, 2, 0, 1], Violation::PacketTooShort),
            (&[0xE0, 3, 0, 0, 0], Violation::TrailingBytes),
            (&[0xE0, 5, 0, 3, 0x11, 0, 0], Violation::PacketTooShort),
            (&[0xE0, 4, 0, 2, 0x24, 0], Violation::PropertyNotAllowed),
        ];
        for &(bytes, violation) in cases {
            assert_eq!(decode(bytes, Version::V5), Err(violation), "{bytes:02X?}");
        }
    }
}
