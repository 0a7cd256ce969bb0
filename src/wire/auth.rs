//! AUTH, in 5.0 only. Knows no authentication method.

use crate::wire::violation::Violation;

use super::property::{Place, Property, PropertyReader};
use super::reader::Reader;
use super::writer::put_counted;
use super::{PacketType, ReasonCode, UserProperties, Version};

/// One step of an enhanced authentication exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// Always present, except in the short form, which means Success.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data, whose format the method defines.
    pub authentication_data: Option<&'a [u8]>,
    /// Reason String, for humans and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Auth<'a>, Violation> {
        let mut auth = Auth::default();
        let mut reader = Reader::new(body);
        if reader.is_empty() {
            return Ok(auth); // section 3.15.2.1
        }
        auth.reason = ReasonCode::read(&mut reader, PacketType::Auth)?;
        auth.read_properties(PropertyReader::new(&mut reader, Place::Packet(PacketType::Auth))?)?;
        reader.finish()?;
        if auth.authentication_method.is_none() {
            return Err(Violation::AuthenticationMethodMissing);
        }
        Ok(auth)
    }

    fn read_properties(&mut self, mut properties: PropertyReader<'a>) -> Result<(), Violation> {
        while let Some(property) = properties.read()? {
            match property {
                Property::AuthenticationMethod(text) => self.authentication_method = Some(text),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::UserProperty(_) => {}
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        assert_eq!(version, Version::V5, "there is no AUTH packet before 5.0");
        debug_assert!(self.reason.allowed_in(PacketType::Auth), "{:?} in AUTH", self.reason);
        out.push(PacketType::Auth.first_byte());
        put_counted(out, |out| {
            if *self != Auth::default() {
                out.push(self.reason as u8);
                put_counted(out, |out| self.write_properties(out));
            }
        });
    }

    fn write_properties(&self, out: &mut Vec<u8>) {
        let method = self.authentication_method.map(Property::AuthenticationMethod);
        Property::write_some(method, out);
        Property::write_some(self.authentication_data.map(Property::AuthenticationData), out);
        Property::write_some(self.reason_string.map(Property::ReasonString), out);
        self.user_properties.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    #[test]
    fn an_exchange_is_read_and_written() {
        let auth = Auth {
            reason: ReasonCode::ContinueAuthentication,
            authentication_method: Some("M"),
            authentication_data: Some(&[1, 2]),
            ..Auth::default()
        };
        let cases: &[(Packet<'_>, &[u8])] = &[
            (Packet::Auth(Auth::default()), &[0xF0, 0]),
            (Packet::Auth(auth), b"\xF0\x0B\x18\x09\x15\0\x01M\x16\0\x02\x01\x02"),
        ];
        for (packet, bytes) in cases {
            let mut out = Vec::new();
            packet.encode(Version::V5, &mut out);
            assert_eq!(out, *bytes);
            assert_eq!(decode(bytes, Version::V5).as_ref(), Ok(packet));
        }
    }

    #[test]
    fn invalid_packets_are_rejected() {
        let cases: &[(&[u8], Violation)] = &[
            (&[0xF1, 0], Violation::FixedHeaderFlagsInvalid),
            (&[0xF0, 1, 0x18], Violation::PacketTooShort),
            (&[0xF0, 2, 0x18, 0], Violation::AuthenticationMethodMissing),
            (&[0xF0, 5, 0x18, 3, 0x16, 0, 0], Violation::AuthenticationMethodMissing),
            (&[0xF0, 1, 0x01], Violation::AuthReasonCodeInvalid),
            (&[0xF0, 8, 0x18, 6, 0x15, 0, 0, 0x15, 0, 0], Violation::PropertyRepeated),
            (&[0xF0, 4, 0x18, 2, 0x17, 0], Violation::PropertyNotAllowed),
            (&[0xF0, 6, 0x18, 3, 0x15, 0, 0, 0], Violation::TrailingBytes),
        ];
        for &(bytes, violation) in cases {
            assert_eq!(decode(bytes, Version::V5), Err(violation), "{bytes:02X?}");
        }
    }

    #[test]
    fn before_5_the_packet_type_is_reserved() {
        for version in [Version::V31, Version::V311] {
            assert_eq!(decode(&[0xF0, 0], version), Err(Violation::PacketTypeReserved));
        }
    }
}
