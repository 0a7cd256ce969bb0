//! CONNACK. Knows no reason for a refusal except its code.

use crate::wire::violation::Violation;

use super::property::{Place, Property, PropertyReader};
use super::reader::Reader;
use super::writer::put_counted;
use super::{PacketType, ReasonCode, UserProperties, Version};

/// The acknowledgement of CONNECT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connack<'a> {
    /// The server has Session State for the client. Encoded as 0 together with an error, and for
    /// 3.1.
    pub session_present: bool,
    /// Encoded as the nearest return code for 3.1 and 3.1.1.
    pub reason: ReasonCode,
    /// Default values before 5.0.
    pub properties: ConnackProperties<'a>,
}

/// CONNACK properties; `None` means absent from the packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnackProperties<'a> {
    /// Session Expiry Interval in seconds that the server uses instead of the client's.
    pub session_expiry_interval: Option<u32>,
    /// Number of QoS 1 and 2 messages that the server accepts concurrently; not 0.
    pub receive_maximum: Option<u16>,
    /// 0 or 1; absent means 2.
    pub maximum_qos: Option<u8>,
    /// Whether retained messages are supported; absent means true.
    pub retain_available: Option<bool>,
    /// Size in bytes of the largest packet that the server accepts; not 0.
    pub maximum_packet_size: Option<u32>,
    /// Client Identifier for a client that sent an empty one.
    pub assigned_client_identifier: Option<&'a str>,
    /// The highest Topic Alias that the server accepts.
    pub topic_alias_maximum: Option<u16>,
    /// Reason String, for humans and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Whether wildcards in Topic Filters are supported; absent means true.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether Subscription Identifiers are supported; absent means true.
    pub subscription_identifiers_available: Option<bool>,
    /// Whether Shared Subscriptions are supported; absent means true.
    pub shared_subscription_available: Option<bool>,
    /// Keep Alive in seconds that the client has to use.
    pub server_keep_alive: Option<u16>,
    /// The base from which the client builds Response Topics.
    pub response_information: Option<&'a str>,
    /// Other servers to use.
    pub server_reference: Option<&'a str>,
    /// Same as in CONNECT.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data, whose format the method defines.
    pub authentication_data: Option<&'a [u8]>,
}

/// The return code for clients before 5.0 when no other return code fits the refusal.
const SERVER_UNAVAILABLE: u8 = 3;

impl<'a> Connack<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Connack<'a>, Violation> {
        let mut reader = Reader::new(body);
        let flags = reader.byte()?;
        if flags & !1 != 0 && version != Version::V31 {
            return Err(Violation::ConnackFlagsReserved);
        }
        let mut connack = Connack { session_present: flags & 1 != 0, ..Connack::default() };
        if version == Version::V5 {
            connack.reason = ReasonCode::read(&mut reader, PacketType::Connack)?;
            let place = Place::Packet(PacketType::Connack);
            connack.properties.read(PropertyReader::new(&mut reader, place)?)?;
        } else {
            connack.reason = ReasonCode::from_return_code(reader.byte()?)
                .ok_or(Violation::ConnackReasonCodeInvalid)?;
        }
        reader.finish()?;
        if version == Version::V31 {
            connack.session_present = false; // The byte is unused in 3.1.
        }
        if connack.session_present && connack.reason != ReasonCode::Success {
            return Err(Violation::SessionPresentWithRefusal);
        }
        Ok(connack)
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert!(self.reason.allowed_in(PacketType::Connack), "{:?}", self.reason);
        // [MQTT-3.2.2-6]
        let session_present = self.session_present && self.reason == ReasonCode::Success;
        let flags = u8::from(session_present && version != Version::V31);
        let first = PacketType::Connack.first_byte();
        if version < Version::V5 {
            let code = self.reason.return_code().unwrap_or(SERVER_UNAVAILABLE);
            return out.extend_from_slice(&[first, 2, flags, code]);
        }
        out.push(first);
        put_counted(out, |out| {
            out.extend_from_slice(&[flags, self.reason as u8]);
            put_counted(out, |out| self.properties.write(out));
        });
    }
}

impl<'a> ConnackProperties<'a> {
    fn read(&mut self, mut properties: PropertyReader<'a>) -> Result<(), Violation> {
        while let Some(property) = properties.read()? {
            match property {
                Property::SessionExpiryInterval(s) => self.session_expiry_interval = Some(s),
                Property::ReceiveMaximum(count) => self.receive_maximum = Some(count),
                Property::MaximumQos(qos) => self.maximum_qos = Some(qos.into()),
                Property::RetainAvailable(yes) => self.retain_available = Some(yes),
                Property::MaximumPacketSize(bytes) => self.maximum_packet_size = Some(bytes),
                Property::AssignedClientIdentifier(text) => {
                    self.assigned_client_identifier = Some(text);
                }
                Property::TopicAliasMaximum(alias) => self.topic_alias_maximum = Some(alias),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::UserProperty(_) => {}
                Property::WildcardSubscriptionAvailable(yes) => {
                    self.wildcard_subscription_available = Some(yes);
                }
                Property::SubscriptionIdentifiersAvailable(yes) => {
                    self.subscription_identifiers_available = Some(yes);
                }
                Property::SharedSubscriptionAvailable(yes) => {
                    self.shared_subscription_available = Some(yes);
                }
                Property::ServerKeepAlive(s) => self.server_keep_alive = Some(s),
                Property::ResponseInformation(text) => self.response_information = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                Property::AuthenticationMethod(text) => self.authentication_method = Some(text),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        let properties = [
            self.session_expiry_interval.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.maximum_qos.map(|qos| Property::MaximumQos(qos != 0)),
            self.retain_available.map(Property::RetainAvailable),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            self.assigned_client_identifier.map(Property::AssignedClientIdentifier),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.reason_string.map(Property::ReasonString),
            self.wildcard_subscription_available.map(Property::WildcardSubscriptionAvailable),
            self.subscription_identifiers_available.map(Property::SubscriptionIdentifiersAvailable),
            self.shared_subscription_available.map(Property::SharedSubscriptionAvailable),
            self.server_keep_alive.map(Property::ServerKeepAlive),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ];
        for property in properties.into_iter().flatten() {
            property.write(out);
        }
        self.user_properties.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    fn encode(connack: &Connack<'_>, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        Packet::Connack(connack.clone()).encode(version, &mut out);
        out
    }

    #[test]
    fn every_property_is_read_and_written() {
        let mut user_properties = Vec::new();
        UserProperties::push(&mut user_properties, "k", "v");
        let connack = Connack {
            session_present: true,
            reason: ReasonCode::Success,
            properties: ConnackProperties {
                session_expiry_interval: Some(1),
                receive_maximum: Some(2),
                maximum_qos: Some(1),
                retain_available: Some(false),
                maximum_packet_size: Some(3),
                assigned_client_identifier: Some("a"),
                topic_alias_maximum: Some(4),
                reason_string: Some("b"),
                user_properties: UserProperties::encoded(&user_properties),
                wildcard_subscription_available: Some(true),
                subscription_identifiers_available: Some(false),
                shared_subscription_available: Some(true),
                server_keep_alive: Some(5),
                response_information: Some("c"),
                server_reference: Some("d"),
                authentication_method: Some("e"),
                authentication_data: Some(b"f"),
            },
        };
        let bytes = [
            &b"\x20\x3F\x01\x00\x3C"[..],
            b"\x11\0\0\0\x01\x21\0\x02\x24\x01\x25\x00\x27\0\0\0\x03\x12\0\x01a\x22\0\x04",
            b"\x1F\0\x01b\x28\x01\x29\x00\x2A\x01\x13\0\x05\x1A\0\x01c\x1C\0\x01d",
            b"\x15\0\x01e\x16\0\x01f\x26\0\x01k\0\x01v",
        ]
        .concat();
        assert_eq!(encode(&connack, Version::V5), bytes);
        assert_eq!(decode(&bytes, Version::V5), Ok(Packet::Connack(connack)));
    }

    #[test]
    fn before_5_the_nearest_return_code_is_written() {
        let cases = [
            (true, ReasonCode::Success, [0x20, 2, 1, 0], [0x20, 2, 0, 0]),
            (true, ReasonCode::NotAuthorized, [0x20, 2, 0, 5], [0x20, 2, 0, 5]),
            (false, ReasonCode::ServerBusy, [0x20, 2, 0, 3], [0x20, 2, 0, 3]),
            (false, ReasonCode::MalformedPacket, [0x20, 2, 0, 3], [0x20, 2, 0, 3]),
        ];
        for (session_present, reason, v311, v31) in cases {
            let connack = Connack { session_present, reason, ..Connack::default() };
            assert_eq!(encode(&connack, Version::V311), v311);
            assert_eq!(encode(&connack, Version::V31), v31);
        }
    }

    #[test]
    fn mqtt_3_2_2_6_session_present_is_0_in_a_refusal() {
        let connack = Connack {
            session_present: true,
            reason: ReasonCode::ServerBusy,
            properties: ConnackProperties::default(),
        };
        assert_eq!(encode(&connack, Version::V5), [0x20, 3, 0, 0x89, 0]);
    }

    #[test]
    fn invalid_packets_are_rejected() {
        use Version::{V5, V31, V311};
        let cases: &[(&[u8], Version, Violation)] = &[
            (&[0x20, 2, 2, 0], V311, Violation::ConnackFlagsReserved),
            (&[0x20, 2, 1, 5], V311, Violation::SessionPresentWithRefusal),
            (&[0x20, 2, 0, 6], V311, Violation::ConnackReasonCodeInvalid),
            (&[0x20, 3, 0, 0, 0], V31, Violation::TrailingBytes),
            (&[0x20, 2, 0, 0], V5, Violation::PacketTooShort),
            (&[0x20, 3, 0, 0x18, 0], V5, Violation::ConnackReasonCodeInvalid),
            (&[0x20, 3, 1, 0x87, 0], V5, Violation::SessionPresentWithRefusal),
            (&[0x20, 5, 0, 0, 2, 0x24, 2], V5, Violation::PropertyNotBoolean),
            (&[0x20, 5, 0, 0, 2, 0x17, 1], V5, Violation::PropertyNotAllowed),
            (&[0x20, 6, 0, 0, 3, 0x21, 0, 0], V5, Violation::ReceiveMaximumZero),
        ];
        for &(bytes, version, violation) in cases {
            assert_eq!(decode(bytes, version), Err(violation), "{bytes:02X?}");
        }
        assert_eq!(decode(&[0x20, 2, 0xFF, 0], V31), Ok(Packet::Connack(Connack::default())));
    }
}
