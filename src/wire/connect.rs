//! CONNECT. Knows no policy for Client Identifiers or credentials.

use crate::wire::violation::Violation;

use super::passed_on::Gatherer;
use super::property::{Place, Property, PropertyReader};
use super::reader::{Reader, has_wildcard};
use super::writer::{put_counted, put_data, put_text, put_two};
use super::{PacketType, PassedOn, Qos, UserProperties, Version};

/// The first packet of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// From Protocol Name and Protocol Version.
    pub version: Version,
    /// Clean Start; Clean Session before 5.0.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// Client Identifier; may be empty in any version.
    pub client_identifier: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// The Will Message.
    pub will: Option<Will<'a>>,
    /// Default values before 5.0.
    pub properties: ConnectProperties<'a>,
}

/// CONNECT properties.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval in seconds; absent means 0.
    pub session_expiry_interval: Option<u32>,
    /// Number of QoS 1 and 2 messages that the client accepts concurrently; absent means 65535,
    /// never 0.
    pub receive_maximum: Option<u16>,
    /// Size in bytes of the largest packet that the client accepts; never 0.
    pub maximum_packet_size: Option<u32>,
    /// The highest Topic Alias that the client accepts; 0 when absent.
    pub topic_alias_maximum: u16,
    /// Whether the client requests Response Information.
    pub request_response_information: bool,
    /// Whether the client accepts Reason Strings and User Properties; true when absent.
    pub request_problem_information: bool,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Authentication Method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data, whose format the method defines.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        ConnectProperties {
            session_expiry_interval: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::none(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// The Will Message, which the server publishes when the connection ends without a DISCONNECT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic: not empty, no wildcards.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
    /// Will Delay Interval: seconds between the end of the connection and the publication.
    pub delay_interval_s: u32,
    /// Lifetime of the published message in seconds.
    pub message_expiry_interval: Option<u32>,
    /// 1 when the payload is UTF-8 text.
    pub payload_format_indicator: Option<u8>,
    /// Topic for a response.
    pub response_topic: Option<&'a str>,
    /// Correlation Data that a response repeats.
    pub correlation_data: Option<&'a [u8]>,
    /// Content type of the payload.
    pub content_type: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// The properties above that are forwarded to subscribers unaltered; the encoder ignores this
    /// field.
    pub passed_on: PassedOn<'a>,
}

/// Connect Flags (section 3.1.2.3).
mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS_PLACE: u8 = 3;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

/// The Protocol Level of a CONNECT packet that [`decode`](super::decode) rejected. It decides the
/// form of the answer: 3.1.1 if below 5. `None` if the packet has no Protocol Level or belongs to
/// another protocol.
pub fn connect_level(frame: &[u8]) -> Option<u8> {
    let (&first, rest) = frame.split_first()?;
    if first >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let header = rest.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let mut reader = Reader::new(&rest[header..]);
    let name = reader.data().ok()?;
    (name == b"MQTT" || name == b"MQIsdp").then(|| reader.byte().ok())?
}

/// Reads Protocol Name and Protocol Version, which decide how the rest is decoded.
pub(super) fn read_version(reader: &mut Reader<'_>) -> Result<Version, Violation> {
    let too_short = |_| Violation::ConnectBeforeVersionTooShort;
    let name = reader.data().map_err(too_short)?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Violation::UnsupportedProtocolName);
    }
    match (name, reader.byte().map_err(too_short)?) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(Violation::UnsupportedProtocolVersion),
    }
}

impl<'a> Connect<'a> {
    /// Decodes the rest of the packet after the Protocol Version.
    pub(super) fn decode(mut reader: Reader<'a>, version: Version) -> Result<Self, Violation> {
        let reader = &mut reader;
        let flags = reader.byte()?;
        check_flags(flags, version)?;
        let keep_alive_s = reader.two()?;
        let mut properties = ConnectProperties::default();
        if version == Version::V5 {
            let place = Place::Packet(PacketType::Connect);
            properties.read(PropertyReader::new(reader, place)?)?;
        }
        let client_identifier = reader.text()?;
        let will =
            (flags & flag::WILL != 0).then(|| Will::decode(reader, flags, version)).transpose()?;
        // In 3.1 a flag may be set although the packet ends before the string. (3.1, section 3.1)
        let may_lack = version == Version::V31;
        let has_username = flags & flag::USER_NAME != 0 && !(may_lack && reader.is_empty());
        let username = has_username.then(|| reader.text()).transpose()?;
        let has_password = flags & flag::PASSWORD != 0 && !(may_lack && reader.is_empty());
        let password = has_password.then(|| reader.data()).transpose()?;
        reader.finish()?;
        Ok(Connect {
            version,
            clean_start: flags & flag::CLEAN_START != 0,
            keep_alive_s,
            client_identifier,
            username,
            password,
            will,
            properties,
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= flag::CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= flag::WILL | (will.qos as u8) << flag::WILL_QOS_PLACE;
            if will.retain {
                flags |= flag::WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= flag::PASSWORD;
        }
        if self.username.is_some() {
            flags |= flag::USER_NAME;
        }
        flags
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(PacketType::Connect.first_byte());
        put_counted(out, |out| {
            put_text(out, if self.version == Version::V31 { "MQIsdp" } else { "MQTT" });
            out.extend_from_slice(&[self.version as u8, self.flags()]);
            put_two(out, self.keep_alive_s);
            if self.version == Version::V5 {
                put_counted(out, |out| self.properties.write(out));
            }
            put_text(out, self.client_identifier);
            if let Some(will) = &self.will {
                will.encode(self.version, out);
            }
            if let Some(username) = self.username {
                put_text(out, username);
            }
            if let Some(password) = self.password {
                put_data(out, password);
            }
        });
    }
}

/// Rejects contradicting flags. In 3.1 the Will flags have no meaning without a Will.
fn check_flags(flags: u8, version: Version) -> Result<(), Violation> {
    let has_will = flags & flag::WILL != 0;
    let will_qos = flags >> flag::WILL_QOS_PLACE & 3;
    if version < Version::V5 && flags & (flag::USER_NAME | flag::PASSWORD) == flag::PASSWORD {
        return Err(Violation::PasswordWithoutUserName);
    }
    if version == Version::V31 {
        return Ok(());
    }
    if flags & flag::RESERVED != 0 {
        return Err(Violation::ConnectFlagReserved);
    }
    if !has_will && will_qos != 0 {
        return Err(Violation::WillQosWithoutWill);
    }
    if !has_will && flags & flag::WILL_RETAIN != 0 {
        return Err(Violation::WillRetainWithoutWill);
    }
    Ok(())
}

impl<'a> ConnectProperties<'a> {
    fn read(&mut self, mut properties: PropertyReader<'a>) -> Result<(), Violation> {
        while let Some(property) = properties.read()? {
            match property {
                Property::SessionExpiryInterval(s) => self.session_expiry_interval = Some(s),
                Property::ReceiveMaximum(count) => self.receive_maximum = Some(count),
                Property::MaximumPacketSize(bytes) => self.maximum_packet_size = Some(bytes),
                Property::TopicAliasMaximum(alias) => self.topic_alias_maximum = alias,
                Property::RequestResponseInformation(yes) => {
                    self.request_response_information = yes;
                }
                Property::RequestProblemInformation(yes) => {
                    self.request_problem_information = yes;
                }
                Property::UserProperty(_) => {}
                Property::AuthenticationMethod(text) => self.authentication_method = Some(text),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(Violation::AuthenticationDataWithoutMethod);
        }
        Ok(())
    }

    /// Writes the properties that differ from their default.
    fn write(&self, out: &mut Vec<u8>) {
        let alias_maximum = Some(self.topic_alias_maximum).filter(|&maximum| maximum != 0);
        let response = Some(true).filter(|_| self.request_response_information);
        let problem = Some(false).filter(|_| !self.request_problem_information);
        let properties = [
            self.session_expiry_interval.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            alias_maximum.map(Property::TopicAliasMaximum),
            response.map(Property::RequestResponseInformation),
            problem.map(Property::RequestProblemInformation),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ];
        for property in properties.into_iter().flatten() {
            property.write(out);
        }
        self.user_properties.write(out);
    }
}

impl<'a> Will<'a> {
    fn decode(reader: &mut Reader<'a>, flags: u8, version: Version) -> Result<Self, Violation> {
        let qos = Qos::try_from(flags >> flag::WILL_QOS_PLACE & 3);
        let mut will = Will {
            qos: qos.map_err(|_| Violation::WillQosInvalid)?,
            retain: flags & flag::WILL_RETAIN != 0,
            ..Will::default()
        };
        if version == Version::V5 {
            will.read_properties(PropertyReader::new(reader, Place::Will)?)?;
        }
        will.topic = reader.text()?;
        if will.topic.is_empty() {
            return Err(Violation::WillTopicEmpty);
        }
        if has_wildcard(will.topic) {
            return Err(Violation::WillTopicHasWildcard);
        }
        will.payload = reader.data()?;
        Ok(will)
    }

    fn read_properties(&mut self, mut properties: PropertyReader<'a>) -> Result<(), Violation> {
        let mut gatherer = Gatherer::new();
        let mut start = 0;
        while let Some(property) = properties.read()? {
            let end = properties.position();
            gatherer.note(&property, start, end);
            start = end;
            match property {
                Property::WillDelayInterval(s) => self.delay_interval_s = s,
                Property::PayloadFormatIndicator(is_text) => {
                    self.payload_format_indicator = Some(is_text.into());
                }
                Property::MessageExpiryInterval(s) => self.message_expiry_interval = Some(s),
                Property::ContentType(text) => self.content_type = Some(text),
                Property::ResponseTopic(topic) => self.response_topic = Some(topic),
                Property::CorrelationData(data) => self.correlation_data = Some(data),
                Property::UserProperty(_) => {}
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        self.passed_on = gatherer.gathered(properties.section());
        Ok(())
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version == Version::V5 {
            put_counted(out, |out| self.write_properties(out));
        }
        put_text(out, self.topic);
        put_data(out, self.payload);
    }

    fn write_properties(&self, out: &mut Vec<u8>) {
        let delay = Some(self.delay_interval_s).filter(|&delay| delay != 0);
        let format = self.payload_format_indicator;
        let properties = [
            delay.map(Property::WillDelayInterval),
            format.map(|format| Property::PayloadFormatIndicator(format != 0)),
            self.message_expiry_interval.map(Property::MessageExpiryInterval),
            self.content_type.map(Property::ContentType),
            self.response_topic.map(Property::ResponseTopic),
            self.correlation_data.map(Property::CorrelationData),
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

    fn encode(connect: &Connect<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        Packet::Connect(connect.clone()).encode(connect.version, &mut out);
        out
    }

    /// Decodes a CONNECT packet in its own version, whatever version the caller passes.
    fn read(bytes: &[u8]) -> Result<Packet<'_>, Violation> {
        decode(bytes, Version::V311)
    }

    fn minimal(version: Version) -> Connect<'static> {
        Connect {
            version,
            clean_start: true,
            keep_alive_s: 60,
            client_identifier: "c",
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
        }
    }

    #[test]
    fn the_smallest_is_read_and_written_in_each_version() {
        let cases: &[(Version, &[u8])] = &[
            (Version::V31, b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01c"),
            (Version::V311, b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c"),
            (Version::V5, b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01c"),
        ];
        for &(version, bytes) in cases {
            assert_eq!(encode(&minimal(version)), bytes);
            assert_eq!(read(bytes), Ok(Packet::Connect(minimal(version))));
        }
    }

    #[test]
    fn a_3_1_1_will_and_credentials_are_read_and_written() {
        let connect = Connect {
            clean_start: false,
            username: Some("u"),
            password: Some(&[0xFF]),
            will: Some(Will {
                qos: Qos::AtLeastOnce,
                retain: true,
                topic: "w",
                payload: b"gone",
                ..Will::default()
            }),
            ..minimal(Version::V311)
        };
        let bytes = b"\x10\x1C\0\x04MQTT\x04\xEC\0\x3C\0\x01c\0\x01w\0\x04gone\0\x01u\0\x01\xFF";
        assert_eq!(encode(&connect), bytes);
        assert_eq!(read(bytes), Ok(Packet::Connect(connect)));
    }

    #[test]
    fn every_property_is_read_and_written() {
        let mut user_properties = Vec::new();
        UserProperties::push(&mut user_properties, "k", "v");
        let user_properties = UserProperties::encoded(&user_properties);
        let connect = Connect {
            // A Password without a User Name is allowed only in 5.0.
            password: Some(b"p"),
            will: Some(Will {
                qos: Qos::ExactlyOnce,
                retain: false,
                topic: "w",
                payload: b"",
                delay_interval_s: 1,
                message_expiry_interval: Some(2),
                payload_format_indicator: Some(1),
                response_topic: Some("r"),
                correlation_data: Some(b"d"),
                content_type: Some("t"),
                user_properties,
                passed_on: PassedOn::default(),
            }),
            properties: ConnectProperties {
                session_expiry_interval: Some(3),
                receive_maximum: Some(4),
                maximum_packet_size: Some(5),
                topic_alias_maximum: 6,
                request_response_information: true,
                request_problem_information: false,
                user_properties,
                authentication_method: Some("m"),
                authentication_data: Some(b"a"),
            },
            ..minimal(Version::V5)
        };
        let bytes = [
            &b"\x10\x59\0\x04MQTT\x05\x56\0\x3C"[..],
            b"\x23\x11\0\0\0\x03\x21\0\x04\x27\0\0\0\x05\x22\0\x06\x19\x01\x17\x00",
            b"\x15\0\x01m\x16\0\x01a\x26\0\x01k\0\x01v\0\x01c",
            b"\x1F\x18\0\0\0\x01\x01\x01\x02\0\0\0\x02\x03\0\x01t\x08\0\x01r\x09\0\x01d",
            b"\x26\0\x01k\0\x01v\0\x01w\0\0\0\x01p",
        ]
        .concat();
        assert_eq!(encode(&connect), bytes);
        let Ok(Packet::Connect(mut decoded)) = read(&bytes) else { panic!("{:?}", read(&bytes)) };
        let will = decoded.will.as_mut().unwrap();
        let mut passed_on = Vec::new();
        will.passed_on.write(&mut passed_on);
        let expected = b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x01d\x26\0\x01k\0\x01v";
        assert_eq!(passed_on, expected);
        will.passed_on = PassedOn::default();
        assert_eq!(decoded, connect);
    }

    #[test]
    fn in_3_1_unused_flags_and_missing_strings_are_accepted() {
        let expected = Ok(Packet::Connect(minimal(Version::V31)));
        // Reserved bit, Will QoS 3 and Will Retain without a Will.
        let bytes = b"\x10\x0F\0\x06MQIsdp\x03\x3B\0\x3C\0\x01c";
        assert_eq!(read(bytes), expected);
        // User Name and Password flags, but neither string.
        let bytes = b"\x1F\x0F\0\x06MQIsdp\x03\xC2\0\x3C\0\x01c";
        assert_eq!(read(bytes), expected);
        // The Password is missing.
        let bytes = b"\x10\x12\0\x06MQIsdp\x03\xC2\0\x3C\0\x01c\0\x01u";
        let with_username = Connect { username: Some("u"), ..minimal(Version::V31) };
        assert_eq!(read(bytes), Ok(Packet::Connect(with_username)));
    }

    /// A CONNECT packet of 3.1.1 with these flags and payload.
    fn v311(flags: u8, payload: &[u8]) -> Vec<u8> {
        packet(&[&b"\0\x04MQTT\x04"[..], &[flags], b"\0\0", payload].concat())
    }

    /// A CONNECT packet of 5.0 with these flags, properties and payload.
    fn v5(flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = [properties.len() as u8];
        packet(&[&b"\0\x04MQTT\x05"[..], &[flags], b"\0\0", &length, properties, payload].concat())
    }

    fn packet(body: &[u8]) -> Vec<u8> {
        [&[0x10, body.len() as u8], body].concat()
    }

    #[test]
    fn invalid_packets_are_rejected() {
        use Violation::*;
        let cases: &[(Vec<u8>, Violation)] = &[
            (packet(b""), ConnectBeforeVersionTooShort),
            (packet(b"\0\x04MQT"), ConnectBeforeVersionTooShort),
            (packet(b"\0\x04MQTT"), ConnectBeforeVersionTooShort),
            (packet(b"\0\x04MQTt\x04\x02\0\0\0\0"), UnsupportedProtocolName),
            (packet(b"\0\0\x04\x02\0\0\0\0"), UnsupportedProtocolName),
            (packet(b"\0\x04\xFFQTT\x04\x02\0\0\0\0"), UnsupportedProtocolName),
            (packet(b"\0\x04MQTT\x03\x02\0\0\0\0"), UnsupportedProtocolVersion),
            (packet(b"\0\x04MQTT\x06\x02\0\0\0\0\0"), UnsupportedProtocolVersion),
            (packet(b"\0\x04MQTT\x84\x02\0\0\0\0"), UnsupportedProtocolVersion),
            (packet(b"\0\x06MQIsdp\x04\x02\0\0\0\0"), UnsupportedProtocolVersion),
            (packet(b"\0\x04MQTT\x04"), PacketTooShort),
            (packet(b"\0\x04MQTT\x04\x02\0"), PacketTooShort),
            (packet(b"\0\x04MQTT\x05\x02\0\0"), PacketTooShort),
            (v311(0x02, b""), PacketTooShort),
            (v311(0x02, b"\0\0\0"), TrailingBytes),
            (v311(0x03, b"\0\0"), ConnectFlagReserved),
            (v311(0x0A, b"\0\0"), WillQosWithoutWill),
            (v311(0x1A, b"\0\0"), WillQosWithoutWill),
            (v311(0x22, b"\0\0"), WillRetainWithoutWill),
            (v311(0x1E, b"\0\0\0\x01w\0\0"), WillQosInvalid),
            (v311(0x42, b"\0\0\0\x01p"), PasswordWithoutUserName),
            (v311(0x82, b"\0\0"), PacketTooShort),
            (v311(0xC2, b"\0\0\0\x01u"), PacketTooShort),
            (v311(0x06, b"\0\0\0\0\0\0"), WillTopicEmpty),
            (v311(0x06, b"\0\0\0\x01#\0\0"), WillTopicHasWildcard),
            (v311(0x06, b"\0\0\0\x01w"), PacketTooShort),
            (v311(0x02, b"\0\x01\0"), StringHasNull),
            (v311(0x02, b"\0\x02\xC3\x28"), StringNotUtf8),
            (v311(0x82, b"\0\0\0\x01\xFF"), StringNotUtf8),
            (v5(0x03, b"", b"\0\0"), ConnectFlagReserved),
            (v5(0x02, b"\x21\0\0", b"\0\0"), ReceiveMaximumZero),
            (v5(0x02, b"\x27\0\0\0\0", b"\0\0"), MaximumPacketSizeZero),
            (v5(0x02, b"\x17\x02", b"\0\0"), PropertyNotBoolean),
            (v5(0x02, b"\x19\xFF", b"\0\0"), PropertyNotBoolean),
            (v5(0x02, b"\x17\x01\x17\x01", b"\0\0"), PropertyRepeated),
            (v5(0x02, b"\x16\0\0", b"\0\0"), AuthenticationDataWithoutMethod),
            (v5(0x02, b"\x18\0\0\0\0", b"\0\0"), PropertyNotAllowed),
            (v5(0x02, b"\x21\0", b"\0\0"), PacketTooShort),
            (v5(0x06, b"", b"\0\0\x05\x11\0\0\0\0\0\x01w\0\0"), PropertyNotAllowed),
            (v5(0x06, b"", b"\0\0\x0A\x18\0\0\0\0\x18\0\0\0\0"), PropertyRepeated),
            (v5(0x06, b"", b"\0\0\x04\x08\0\x01+\0\x01w\0\0"), ResponseTopicHasWildcard),
            ([&[0x11], &v311(0x02, b"\0\0")[1..]].concat(), FixedHeaderFlagsInvalid),
        ];
        for (bytes, violation) in cases {
            assert_eq!(read(bytes), Err(*violation), "{bytes:02X?}");
            let has_level = matches!(connect_level(bytes), Some(4 | 5));
            assert!(has_level || violation.is_before_version(), "{bytes:02X?}");
        }
    }

    #[test]
    fn only_5_asks_for_a_minimal_remaining_length() {
        let padded = |bytes: &[u8]| [&[0x10, bytes[1] | 0x80, 0], &bytes[2..]].concat();
        assert!(read(&padded(&v311(0x02, b"\0\0"))).is_ok());
        let refused = Err(Violation::VariableByteIntegerNotMinimal);
        assert_eq!(read(&padded(&v5(0x02, b"", b"\0\0"))), refused);
    }

    #[test]
    fn the_level_of_a_rejected_packet_is_found() {
        assert_eq!(connect_level(&packet(b"\0\x04MQTT\x07")), Some(7));
        assert_eq!(connect_level(&packet(b"\0\x06MQIsdp\x03")), Some(3));
        assert_eq!(connect_level(&packet(b"\0\x01?\x02")), None, "another protocol");
        assert_eq!(connect_level(b"\x10\x87\0\0\x04MQTT\x05"), Some(5));
        for bytes in [&b""[..], b"\x10", b"\x10\x80", b"\x10\x06\0\x04MQTT", b"\xC0\0"] {
            assert_eq!(connect_level(bytes), None, "{bytes:02X?}");
        }
    }
}
