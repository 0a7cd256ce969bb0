//! PUBLISH. Knows no subscriber, and of a Topic Alias only its number.

use std::fmt;

use crate::wire::violation::Violation;

use super::passed_on::Gatherer;
use super::property::{
    MESSAGE_EXPIRY_INTERVAL, Place, Property, PropertyReader, SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS,
};
use super::reader::{Reader, has_wildcard};
use super::writer::{length, put_counted, put_text, put_two, put_variable, variable, variable_len};
use super::{PacketIdentifier, PacketType, PassedOn, Qos, UserProperties, Version};

/// A packet that carries an Application Message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish<'a> {
    /// DUP flag: the packet may have been sent before; never set with QoS 0.
    pub dup: bool,
    /// Quality of Service.
    pub qos: Qos,
    /// RETAIN flag: the message is to be retained, or was retained.
    pub retain: bool,
    /// Topic Name: no wildcards; empty only if a Topic Alias replaces it.
    pub topic: &'a str,
    /// Present exactly when the QoS is not 0.
    pub packet_identifier: Option<PacketIdentifier>,
    /// Default values before 5.0.
    pub properties: PublishProperties<'a>,
    /// Application Message.
    pub payload: &'a [u8],
}

/// Flags of the fixed header.
mod flag {
    pub(super) const RETAIN: u8 = 0x01;
    pub(super) const QOS_PLACE: u8 = 1;
    pub(super) const DUP: u8 = 0x08;
}

impl<'a> Publish<'a> {
    pub(super) fn decode(
        first: u8,
        body: &'a [u8],
        version: Version,
    ) -> Result<Publish<'a>, Violation> {
        let mut reader = Reader::new(body);
        let qos = Qos::try_from(first >> flag::QOS_PLACE & 3);
        let qos = qos.map_err(|_| Violation::PublishQosInvalid)?; // [MQTT-3.3.1-4]
        let mut dup = first & flag::DUP != 0;
        if dup && qos == Qos::AtMostOnce {
            // [MQTT-3.3.1-2]. In 3.1 the flag has no meaning with QoS 0. (3.1, section 2.1)
            dup = false;
            if version != Version::V31 {
                return Err(Violation::DupWithQos0);
            }
        }
        let topic = reader.text()?;
        if has_wildcard(topic) {
            return Err(Violation::TopicNameHasWildcard);
        }
        let packet_identifier = match qos {
            Qos::AtMostOnce => None,
            _ => Some(PacketIdentifier::read(&mut reader)?),
        };
        let properties = match version {
            Version::V5 => PublishProperties::decode(&mut reader)?,
            _ => PublishProperties::default(),
        };
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(Violation::TopicNameEmpty);
        }
        let retain = first & flag::RETAIN != 0;
        let payload = reader.rest();
        Ok(Publish { dup, qos, retain, topic, packet_identifier, properties, payload })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.push(first_byte(self.dup, self.qos, self.retain));
        put_counted(out, |out| {
            put_text(out, self.topic);
            if let Some(packet_identifier) = self.packet_identifier {
                put_two(out, packet_identifier.get());
            }
            if version == Version::V5 {
                put_counted(out, |out| self.properties.write(out));
            }
            out.extend_from_slice(self.payload);
        });
    }
}

fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    PacketType::Publish.first_byte()
        | if dup { flag::DUP } else { 0 }
        | (qos as u8) << flag::QOS_PLACE
        | if retain { flag::RETAIN } else { 0 }
}

/// PUBLISH properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// 1 when the payload is UTF-8 text.
    pub payload_format_indicator: Option<u8>,
    /// Remaining lifetime of the message in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias that replaces the Topic Name; never 0.
    pub topic_alias: Option<u16>,
    /// Topic for a response: not empty, no wildcards.
    pub response_topic: Option<&'a str>,
    /// Correlation Data that a response repeats.
    pub correlation_data: Option<&'a [u8]>,
    /// Identifiers of the matching subscriptions; only from servers.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Content type of the payload.
    pub content_type: Option<&'a str>,
    /// The properties above that are forwarded to subscribers unaltered; the encoder ignores this
    /// field.
    pub passed_on: PassedOn<'a>,
}

impl<'a> PublishProperties<'a> {
    /// Decodes properties that were stored outside of a packet: the Property Length and as many bytes. No bytes are no
    /// properties.
    pub fn decode_section(section: &'a [u8]) -> Result<Self, Violation> {
        if section.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(section);
        let properties = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(properties)
    }

    #[inline(always)]
    fn decode(reader: &mut Reader<'a>) -> Result<PublishProperties<'a>, Violation> {
        let properties = PropertyReader::new(reader, Place::Packet(PacketType::Publish))?;
        if properties.section().is_empty() {
            return Ok(PublishProperties::default());
        }
        PublishProperties::read(properties)
    }

    // Inlined, as `decode` is: with two callers, a call and its outcome cost each PUBLISH 58 instructions.
    #[inline(always)]
    fn read(mut properties: PropertyReader<'a>) -> Result<PublishProperties<'a>, Violation> {
        let mut read = PublishProperties::default();
        let mut gatherer = Gatherer::new();
        let mut start = 0;
        while let Some(property) = properties.read()? {
            let end = properties.position();
            gatherer.note(&property, start, end);
            start = end;
            match property {
                Property::PayloadFormatIndicator(is_text) => {
                    read.payload_format_indicator = Some(is_text.into());
                }
                Property::MessageExpiryInterval(s) => read.message_expiry_interval = Some(s),
                Property::TopicAlias(alias) => read.topic_alias = Some(alias),
                Property::ResponseTopic(topic) => read.response_topic = Some(topic),
                Property::CorrelationData(data) => read.correlation_data = Some(data),
                Property::SubscriptionIdentifier(_) => {
                    let section = Source::Section(Reader::new(properties.section()));
                    read.subscription_identifiers = SubscriptionIdentifiers(section);
                }
                Property::UserProperty(_) => {}
                Property::ContentType(text) => read.content_type = Some(text),
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        read.user_properties = properties.user_properties();
        read.passed_on = gatherer.gathered(properties.section());
        Ok(read)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let format = self.payload_format_indicator;
        let properties = [
            format.map(|format| Property::PayloadFormatIndicator(format != 0)),
            self.message_expiry_interval.map(Property::MessageExpiryInterval),
            self.topic_alias.map(Property::TopicAlias),
            self.response_topic.map(Property::ResponseTopic),
            self.correlation_data.map(Property::CorrelationData),
            self.content_type.map(Property::ContentType),
        ];
        for property in properties.into_iter().flatten() {
            property.write(out);
        }
        for identifier in self.subscription_identifiers {
            Property::SubscriptionIdentifier(identifier).write(out);
        }
        self.user_properties.write(out);
    }
}

/// The Subscription Identifiers of a PUBLISH packet, in order.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIdentifiers<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// A property section that was checked before.
    Section(Reader<'a>),
    List(&'a [u32]),
}

impl Default for Source<'_> {
    fn default() -> Self {
        Source::List(&[])
    }
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// A list of identifiers, each from 1 to
    /// [`VARIABLE_BYTE_INTEGER_MAX`](super::VARIABLE_BYTE_INTEGER_MAX).
    pub fn list(identifiers: &'a [u32]) -> Self {
        SubscriptionIdentifiers(Source::List(identifiers))
    }

    /// Whether the packet has no Subscription Identifier.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Iterates over the identifiers.
    pub fn iter(&self) -> SubscriptionIdentifiersIter<'a> {
        SubscriptionIdentifiersIter(self.0)
    }
}

/// Iterator over [`SubscriptionIdentifiers`].
#[derive(Clone, Debug)]
pub struct SubscriptionIdentifiersIter<'a>(Source<'a>);

impl Iterator for SubscriptionIdentifiersIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            Source::Section(reader) => loop {
                if let Property::SubscriptionIdentifier(id) = Property::read_checked(reader)? {
                    return Some(id);
                }
            },
            Source::List(list) => {
                let (&first, rest) = list.split_first()?;
                *list = rest;
                Some(first)
            }
        }
    }
}

impl<'a> IntoIterator for SubscriptionIdentifiers<'a> {
    type Item = u32;
    type IntoIter = SubscriptionIdentifiersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// An outgoing PUBLISH packet without its payload.
#[derive(Clone, Copy, Debug)]
pub struct PublishHeader<'a> {
    /// Before 5.0 no property is written, whatever the fields below contain.
    pub version: Version,
    /// DUP flag.
    pub dup: bool,
    /// Quality of Service.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic Name, or empty if the receiver knows the Topic Alias.
    pub topic: &'a str,
    /// 0 for QoS 0, in which case no Packet Identifier is written.
    pub packet_identifier: u16,
    /// Remaining lifetime of the message in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias that is set or used.
    pub topic_alias: Option<u16>,
    /// Identifiers of the matching subscriptions.
    pub subscription_identifiers: &'a [u32],
    /// Forwarded properties of the publisher, encoded.
    pub passed_on: &'a [u8],
    /// Size of the payload in bytes, which the caller appends.
    pub payload_len: usize,
}

impl PublishHeader<'_> {
    /// Size of the whole packet in bytes, including the payload.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        let remaining = self.remaining_len(self.properties_len());
        1 + variable_len(remaining) + remaining
    }

    /// Appends the header to `out` and returns the offset of the Packet Identifier in `out`, or the
    /// offset it would have with a QoS above 0. The caller appends the payload.
    ///
    /// # Panics
    /// If the packet is larger than [`PACKET_BYTES_MAX`](super::PACKET_BYTES_MAX), the upper bound
    /// of every receiver's Maximum Packet Size.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        debug_assert_eq!(self.packet_identifier == 0, self.qos == Qos::AtMostOnce);
        let properties_len = self.properties_len();
        let remaining = self.remaining_len(properties_len);
        out.reserve(5 + remaining - self.payload_len);
        // Small fields are collected in an array first: appending each one separately would check
        // the capacity of the buffer each time.
        let mut head = Few::new();
        head.put([first_byte(self.dup, self.qos, self.retain)]);
        head.put_variable(remaining);
        head.put(length(self.topic.as_bytes()).to_be_bytes());
        out.extend_from_slice(head.bytes());
        out.extend_from_slice(self.topic.as_bytes());
        let packet_identifier_at = out.len();
        if self.qos != Qos::AtMostOnce {
            out.extend_from_slice(&self.packet_identifier.to_be_bytes());
        }
        if self.version == Version::V5 {
            if properties_len == 0 {
                out.push(0);
            } else {
                self.encode_properties(properties_len, out);
            }
        }
        packet_identifier_at
    }

    /// Appends the Property Length, which is not 0, and the properties.
    fn encode_properties(&self, properties_len: usize, out: &mut Vec<u8>) {
        let mut few = Few::new();
        few.put_variable(properties_len);
        if let Some(interval) = self.message_expiry_interval {
            let [a, b, c, d] = interval.to_be_bytes();
            few.put([MESSAGE_EXPIRY_INTERVAL, a, b, c, d]);
        }
        if let Some(alias) = self.topic_alias {
            let [high, low] = alias.to_be_bytes();
            few.put([TOPIC_ALIAS, high, low]);
        }
        out.extend_from_slice(few.bytes());
        for &identifier in self.subscription_identifiers {
            out.push(SUBSCRIPTION_IDENTIFIER);
            put_variable(out, identifier);
        }
        out.extend_from_slice(self.passed_on);
    }

    #[inline]
    fn properties_len(&self) -> usize {
        if self.version < Version::V5 {
            return 0;
        }
        let identifiers = self.subscription_identifiers.iter();
        let identifiers_len: usize =
            identifiers.map(|&identifier| 1 + variable_len(identifier as usize)).sum();
        (if self.message_expiry_interval.is_some() { 5 } else { 0 })
            + (if self.topic_alias.is_some() { 3 } else { 0 })
            + identifiers_len
            + self.passed_on.len()
    }

    #[inline]
    fn remaining_len(&self, properties_len: usize) -> usize {
        let packet_identifier_len = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties_len = match self.version {
            Version::V5 => variable_len(properties_len) + properties_len,
            _ => 0,
        };
        2 + self.topic.len() + packet_identifier_len + properties_len + self.payload_len
    }
}

/// Up to sixteen bytes: the largest contiguous group of fixed-size fields in a header.
struct Few {
    bytes: [u8; 16],
    len: usize,
}

impl Few {
    #[inline]
    fn new() -> Few {
        Few { bytes: [0; 16], len: 0 }
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.len..][..N].copy_from_slice(&bytes);
        self.len += N;
    }

    #[inline]
    fn put_variable(&mut self, value: usize) {
        let (bytes, count) = variable(value);
        self.bytes[self.len..][..4].copy_from_slice(&bytes);
        self.len += count;
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    const SEVEN: Option<PacketIdentifier> = PacketIdentifier::new(7);

    fn encode(packet: &Publish<'_>, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        Packet::Publish(packet.clone()).encode(version, &mut out);
        out
    }

    #[test]
    fn flags_topic_and_payload_are_read_and_written() {
        let publish = Publish {
            dup: true,
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "a/b",
            packet_identifier: SEVEN,
            payload: b"hi",
            ..Publish::default()
        };
        let cases: &[(Version, &[u8])] = &[
            (Version::V31, b"\x3B\x09\0\x03a/b\0\x07hi"),
            (Version::V311, b"\x3B\x09\0\x03a/b\0\x07hi"),
            (Version::V5, b"\x3B\x0A\0\x03a/b\0\x07\0hi"),
        ];
        for &(version, bytes) in cases {
            assert_eq!(encode(&publish, version), bytes);
            assert_eq!(decode(bytes, version), Ok(Packet::Publish(publish.clone())));
        }
        let smallest = Publish { topic: "a", ..Publish::default() };
        assert_eq!(encode(&smallest, Version::V311), b"\x30\x03\0\x01a");
        assert_eq!(decode(b"\x30\x03\0\x01a", Version::V311), Ok(Packet::Publish(smallest)));
    }

    #[test]
    fn every_property_is_read_and_written() {
        let mut passed_on = Vec::new();
        UserProperties::push(&mut passed_on, "k", "v");
        let publish = Publish {
            topic: "",
            properties: PublishProperties {
                payload_format_indicator: Some(1),
                message_expiry_interval: Some(2),
                topic_alias: Some(3),
                response_topic: Some("r"),
                correlation_data: Some(b"d"),
                subscription_identifiers: SubscriptionIdentifiers::list(&[1, 128]),
                user_properties: UserProperties::encoded(&passed_on),
                content_type: Some("c"),
                passed_on: PassedOn::default(),
            },
            payload: b"p",
            ..Publish::default()
        };
        let bytes = [
            &b"\x30\x26\0\0\x22"[..],
            b"\x01\x01\x02\0\0\0\x02\x23\0\x03\x08\0\x01r\x09\0\x01d\x03\0\x01c",
            b"\x0B\x01\x0B\x80\x01\x26\0\x01k\0\x01vp",
        ]
        .concat();
        assert_eq!(encode(&publish, Version::V5), bytes);
        let Ok(Packet::Publish(mut decoded)) = decode(&bytes, Version::V5) else { panic!() };
        let mut passed_on = Vec::new();
        decoded.properties.passed_on.write(&mut passed_on);
        assert_eq!(passed_on, b"\x01\x01\x08\0\x01r\x09\0\x01d\x03\0\x01c\x26\0\x01k\0\x01v");
        decoded.properties.passed_on = PassedOn::default();
        assert_eq!(decoded, publish);
    }

    #[test]
    fn in_3_1_dup_means_nothing_with_qos_0() {
        let publish = Publish { topic: "a", ..Publish::default() };
        assert_eq!(decode(b"\x38\x03\0\x01a", Version::V31), Ok(Packet::Publish(publish)));
    }

    #[test]
    fn invalid_packets_are_rejected() {
        use Version::{V5, V31, V311};
        let cases: &[(&[u8], Version, Violation)] = &[
            (b"\x36\x05\0\x01a\0\x07", V311, Violation::PublishQosInvalid),
            (b"\x36\x05\0\x01a\0\x07", V31, Violation::PublishQosInvalid),
            (b"\x38\x03\0\x01a", V311, Violation::DupWithQos0),
            (b"\x38\x04\0\x01a\0", V5, Violation::DupWithQos0),
            (b"\x30\x00", V311, Violation::PacketTooShort),
            (b"\x30\x02\0\x01", V311, Violation::PacketTooShort),
            (b"\x30\x02\0\0", V311, Violation::TopicNameEmpty),
            (b"\x30\x03\0\0\0", V5, Violation::TopicNameEmpty),
            (b"\x30\x03\0\x01+", V311, Violation::TopicNameHasWildcard),
            (b"\x30\x05\0\x03a/#", V311, Violation::TopicNameHasWildcard),
            (b"\x30\x03\0\x01\0", V311, Violation::StringHasNull),
            (b"\x30\x05\0\x03\xED\xA0\x80", V311, Violation::StringNotUtf8),
            (b"\x32\x03\0\x01a", V311, Violation::PacketTooShort),
            (b"\x32\x05\0\x01a\0\0", V311, Violation::PacketIdentifierZero),
            (b"\x30\x03\0\x01a", V5, Violation::PacketTooShort),
            (b"\x30\x04\0\x01a\x01", V5, Violation::PacketTooShort),
            (b"\x30\x05\0\x01a\x80\0", V5, Violation::VariableByteIntegerNotMinimal),
            (b"\x30\x06\0\x01a\x02\x7F\0", V5, Violation::PropertyUnknown),
            (b"\x30\x06\0\x01a\x02\x04\0", V5, Violation::PropertyUnknown),
            (b"\x30\x06\0\x01a\x02\x24\0", V5, Violation::PropertyNotAllowed),
            (b"\x30\x06\0\x01a\x02\x01\x02", V5, Violation::PropertyNotBoolean),
            (b"\x30\x08\0\x01a\x04\x01\x01\x01\x01", V5, Violation::PropertyRepeated),
            (b"\x30\x07\0\x01a\x03\x23\0\0", V5, Violation::TopicAliasZero),
            (b"\x30\x06\0\x01a\x02\x0B\0", V5, Violation::SubscriptionIdentifierZero),
            (b"\x30\x08\0\x01a\x04\x08\0\x01#", V5, Violation::ResponseTopicHasWildcard),
            (b"\x30\x07\0\x01a\x03\x08\0\0", V5, Violation::ResponseTopicEmpty),
            (b"\x30\x06\0\x01a\x02\x02\0", V5, Violation::PacketTooShort),
        ];
        for &(bytes, version, violation) in cases {
            assert_eq!(decode(bytes, version), Err(violation), "{bytes:02X?}");
        }
    }

    fn header(version: Version) -> PublishHeader<'static> {
        PublishHeader {
            version,
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: "a/b",
            packet_identifier: 0x0102,
            message_expiry_interval: None,
            topic_alias: None,
            subscription_identifiers: &[],
            passed_on: &[],
            payload_len: 2,
        }
    }

    #[test]
    fn a_header_and_its_payload_are_the_packet() {
        let cases: &[(PublishHeader<'_>, &[u8], usize)] = &[
            (header(Version::V311), b"\x32\x09\0\x03a/b\x01\x02", 7),
            (header(Version::V5), b"\x32\x0A\0\x03a/b\x01\x02\0", 7),
            (
                PublishHeader { payload_len: 200, ..header(Version::V311) },
                b"\x32\xCF\x01\0\x03a/b\x01\x02",
                8,
            ),
            (
                PublishHeader {
                    dup: true,
                    retain: true,
                    topic: "",
                    message_expiry_interval: Some(9),
                    topic_alias: Some(4),
                    subscription_identifiers: &[5, 300],
                    passed_on: &[1, 1],
                    ..header(Version::V5)
                },
                b"\x3B\x16\0\0\x01\x02\x0F\x02\0\0\0\x09\x23\0\x04\x0B\x05\x0B\xAC\x02\x01\x01",
                4,
            ),
            (
                PublishHeader {
                    qos: Qos::AtMostOnce,
                    packet_identifier: 0,
                    topic_alias: Some(4),
                    passed_on: &[1, 1],
                    ..header(Version::V311)
                },
                b"\x30\x07\0\x03a/b",
                7,
            ),
        ];
        for (header, bytes, packet_identifier_at) in cases {
            let mut out = vec![0xAA; 3];
            assert_eq!(header.encode(&mut out), 3 + packet_identifier_at, "{header:?}");
            assert_eq!(&out[3..], *bytes, "{header:?}");
            assert_eq!(header.encoded_len(), bytes.len() + header.payload_len);
        }
    }
}
