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
    /// Whether the client is a bridge before 5.0: bit 7 of its Protocol Version is set, a convention of Mosquitto
    /// (`try_private`) that no specification has.
    pub is_bridge: bool,
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

/// The frame of a CONNECT with another Client Identifier.
pub fn connect_renamed(frame: &[u8], connect: &Connect<'_>, client_identifier: &str) -> Vec<u8> {
    with_text(frame, connect.client_identifier, client_identifier)
}

/// The frame of a CONNECT with another topic, of 65,535 bytes at most, of the Will that it has.
pub fn connect_with_will_topic(frame: &[u8], will: &Will<'_>, topic: &str) -> Vec<u8> {
    with_text(frame, will.topic, topic)
}

/// The frame with another text in the place of one that lies in it, behind its length.
fn with_text(frame: &[u8], text: &str, other: &str) -> Vec<u8> {
    let start = text.as_ptr().addr() - frame.as_ptr().addr() - 2;
    let end = start + 2 + text.len();
    let body = 1 + frame[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let bytes = frame.len() - body - text.len() + other.len();
    let mut changed = vec![frame[0]];
    let mut rest = bytes;
    while rest >= 0x80 {
        changed.push(rest as u8 & 0x7F | 0x80);
        rest >>= 7;
    }
    changed.push(rest as u8);
    changed.extend_from_slice(&frame[body..start]);
    put_text(&mut changed, other);
    changed.extend_from_slice(&frame[end..]);
    changed
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

/// The bit of the Protocol Version that bridges before 5.0 set. In 5.0, No Local and Retain As Published say the same.
const BRIDGE: u8 = 0x80;
const BRIDGE_V31: u8 = BRIDGE | Version::V31 as u8;
const BRIDGE_V311: u8 = BRIDGE | Version::V311 as u8;

/// The Protocol Level, without the bit of bridges, of a CONNECT packet that [`decode`](super::decode) rejected. The
/// level decides the form of the answer: 3.1.1 if below 5. `None` if the packet has no Protocol Level or belongs to
/// another protocol.
pub fn connect_level(frame: &[u8]) -> Option<u8> {
    let (&first, rest) = frame.split_first()?;
    if first >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let header = rest.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let mut reader = Reader::new(&rest[header..]);
    let name = reader.data().ok()?;
    let level = (name == b"MQTT" || name == b"MQIsdp").then(|| reader.byte().ok())?;
    level.map(|level| level & !BRIDGE)
}

/// Reads Protocol Name and Protocol Version, which decide how the rest is decoded, and whether the client is a
/// bridge.
pub(super) fn read_version(reader: &mut Reader<'_>) -> Result<(Version, bool), Violation> {
    let too_short = |_| Violation::ConnectBeforeVersionTooShort;
    let name = reader.data().map_err(too_short)?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Violation::UnsupportedProtocolName);
    }
    let level = reader.byte().map_err(too_short)?;
    let version = match (name, level) {
        (b"MQTT", 5) => Version::V5,
        (b"MQTT", 4 | BRIDGE_V311) => Version::V311,
        (b"MQIsdp", 3 | BRIDGE_V31) => Version::V31,
        _ => return Err(Violation::UnsupportedProtocolVersion),
    };
    Ok((version, level & BRIDGE != 0))
}

impl<'a> Connect<'a> {
    /// Decodes the rest of the packet after the Protocol Version.
    pub(super) fn decode(
        mut reader: Reader<'a>,
        version: Version,
        is_bridge: bool,
    ) -> Result<Self, Violation> {
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
            is_bridge,
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
            let level = self.version as u8 | if self.is_bridge { BRIDGE } else { 0 };
            out.extend_from_slice(&[level, self.flags()]);
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
mod tests;
