//! Encodes a client's packets, valid or deliberately invalid.

use super::packet::{Ack, Auth, Disconnect, Property, Publish};
use super::{V5, V31, Version};

/// A packet as bytes, in a version.
pub trait Encode {
    fn encode(&self, version: Version) -> Vec<u8>;
}

/// Bytes as they are.
pub struct Bytes(pub Vec<u8>);

impl Encode for Bytes {
    fn encode(&self, _: Version) -> Vec<u8> {
        self.0.clone()
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, version: Version) -> Vec<u8> {
        (**self).encode(version)
    }
}

/// A Variable Byte Integer.
fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A string, or Binary Data, with its length.
pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).expect("at most 65,535 bytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// A whole packet from its first byte and the rest.
pub fn frame(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first], &varint(rest.len())[..], rest].concat()
}

/// A property section with its length; empty before 5.0.
fn properties(version: Version, properties: &[Property]) -> Vec<u8> {
    if version != V5 {
        return Vec::new();
    }
    let bytes: Vec<u8> = properties.iter().flat_map(property).collect();
    [varint(bytes.len()), bytes].concat()
}

fn property(property: &Property) -> Vec<u8> {
    let byte = |id: u8, value: u8| vec![id, value];
    let two = |id: u8, value: u16| [&[id], &value.to_be_bytes()[..]].concat();
    let four = |id: u8, value: u32| [&[id], &value.to_be_bytes()[..]].concat();
    let text = |id: u8, value: &[u8]| [vec![id], string(value)].concat();
    match property {
        Property::PayloadFormatIndicator(v) => byte(0x01, *v),
        Property::MessageExpiryInterval(v) => four(0x02, *v),
        Property::ContentType(v) => text(0x03, v.as_bytes()),
        Property::ResponseTopic(v) => text(0x08, v.as_bytes()),
        Property::CorrelationData(v) => text(0x09, v),
        Property::SubscriptionIdentifier(v) => [vec![0x0B], varint(*v as usize)].concat(),
        Property::SessionExpiryInterval(v) => four(0x11, *v),
        Property::AssignedClientIdentifier(v) => text(0x12, v.as_bytes()),
        Property::ServerKeepAlive(v) => two(0x13, *v),
        Property::AuthenticationMethod(v) => text(0x15, v.as_bytes()),
        Property::AuthenticationData(v) => text(0x16, v),
        Property::RequestProblemInformation(v) => byte(0x17, *v),
        Property::WillDelayInterval(v) => four(0x18, *v),
        Property::RequestResponseInformation(v) => byte(0x19, *v),
        Property::ResponseInformation(v) => text(0x1A, v.as_bytes()),
        Property::ServerReference(v) => text(0x1C, v.as_bytes()),
        Property::ReasonString(v) => text(0x1F, v.as_bytes()),
        Property::ReceiveMaximum(v) => two(0x21, *v),
        Property::TopicAliasMaximum(v) => two(0x22, *v),
        Property::TopicAlias(v) => two(0x23, *v),
        Property::MaximumQos(v) => byte(0x24, *v),
        Property::RetainAvailable(v) => byte(0x25, *v),
        Property::UserProperty(name, value) => [vec![0x26], string(name), string(value)].concat(),
        Property::MaximumPacketSize(v) => four(0x27, *v),
        Property::WildcardSubscriptionAvailable(v) => byte(0x28, *v),
        Property::SubscriptionIdentifierAvailable(v) => byte(0x29, *v),
        Property::SharedSubscriptionAvailable(v) => byte(0x2A, *v),
        Property::Raw(bytes) => bytes.clone(),
    }
}

/// CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    pub version: Version,
    pub protocol_name: Vec<u8>,
    pub protocol_level: u8,
    pub clean_start: bool,
    pub keep_alive_s: u16,
    pub client_identifier: Vec<u8>,
    pub will: Option<Will>,
    pub username: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    pub properties: Vec<Property>,
    /// Exclusive-or mask for the Connect Flags that follow from the fields.
    pub flags_flipped: u8,
}

impl Connect {
    /// Clean Start, Keep Alive 60.
    pub fn new(version: Version, client_identifier: &str) -> Self {
        Self {
            version,
            protocol_name: if version == V31 { b"MQIsdp".to_vec() } else { b"MQTT".to_vec() },
            protocol_level: version as u8,
            clean_start: true,
            keep_alive_s: 60,
            client_identifier: client_identifier.into(),
            will: None,
            username: None,
            password: None,
            properties: Vec::new(),
            flags_flipped: 0,
        }
    }

    pub fn v5(client_identifier: &str) -> Self {
        Self::new(V5, client_identifier)
    }

    pub fn v311(client_identifier: &str) -> Self {
        Self::new(super::V311, client_identifier)
    }

    /// Sets Clean Start, or Clean Session, to 0.
    pub fn resume(self) -> Self {
        Self { clean_start: false, ..self }
    }

    /// A session that outlives its connection, in every version: Clean Start 0, and in 5.0 a
    /// Session Expiry Interval.
    pub fn durable(self) -> Self {
        self.resume().expiry(300)
    }

    /// Session Expiry Interval, in 5.0 only.
    pub fn expiry(self, seconds: u32) -> Self {
        if self.version == V5 {
            self.property(Property::SessionExpiryInterval(seconds))
        } else {
            self
        }
    }

    pub fn keep_alive(self, seconds: u16) -> Self {
        Self { keep_alive_s: seconds, ..self }
    }

    pub fn will(self, will: Will) -> Self {
        Self { will: Some(will), ..self }
    }

    pub fn username(self, username: impl AsRef<[u8]>) -> Self {
        Self { username: Some(username.as_ref().to_vec()), ..self }
    }

    pub fn password(self, password: impl AsRef<[u8]>) -> Self {
        Self { password: Some(password.as_ref().to_vec()), ..self }
    }

    pub fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }

    pub fn protocol(self, name: impl AsRef<[u8]>, level: u8) -> Self {
        Self { protocol_name: name.as_ref().to_vec(), protocol_level: level, ..self }
    }

    pub fn flip_flags(self, flags_flipped: u8) -> Self {
        Self { flags_flipped, ..self }
    }

    fn flags(&self) -> u8 {
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| 0x04 | u8::from(will.publish.retain) << 5 | will.publish.qos << 3);
        (u8::from(self.clean_start) << 1
            | will
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.username.is_some()) << 7)
            ^ self.flags_flipped
    }

    /// The packet, in the version that it states.
    pub fn bytes(&self) -> Vec<u8> {
        let mut rest = string(&self.protocol_name);
        rest.extend([self.protocol_level, self.flags()]);
        rest.extend(self.keep_alive_s.to_be_bytes());
        rest.extend(properties(self.version, &self.properties));
        rest.extend(string(&self.client_identifier));
        if let Some(will) = &self.will {
            rest.extend(properties(self.version, &will.publish.properties));
            rest.extend(string(&will.publish.topic));
            rest.extend(string(&will.publish.payload));
        }
        rest.extend(self.username.iter().flat_map(string));
        rest.extend(self.password.iter().flat_map(string));
        frame(0x10, &rest)
    }
}

impl Encode for Connect {
    fn encode(&self, _: Version) -> Vec<u8> {
        self.bytes()
    }
}

/// The Will in CONNECT: the message to publish, with its properties.
#[derive(Clone, Debug)]
pub struct Will {
    pub publish: Publish,
}

impl Will {
    /// At QoS 0.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self { publish: Publish::new(topic, payload) }
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.publish.qos = qos;
        self
    }

    pub fn retain(mut self) -> Self {
        self.publish.retain = true;
        self
    }

    pub fn property(mut self, property: Property) -> Self {
        self.publish.properties.push(property);
        self
    }

    pub fn delay(self, seconds: u32) -> Self {
        self.property(Property::WillDelayInterval(seconds))
    }
}

impl Encode for Publish {
    fn encode(&self, version: Version) -> Vec<u8> {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut rest = string(&self.topic);
        rest.extend(self.packet_identifier.iter().flat_map(|id| id.to_be_bytes()));
        rest.extend(properties(version, &self.properties));
        rest.extend(&self.payload);
        frame(first, &rest)
    }
}

impl Encode for Ack {
    fn encode(&self, version: Version) -> Vec<u8> {
        let first = self.kind << 4 | if self.kind == 6 { 0x02 } else { 0 };
        let mut rest = self.packet_identifier.to_be_bytes().to_vec();
        rest.extend(reason_and_properties(version, self.reason, &self.properties));
        frame(first, &rest)
    }
}

impl Encode for Disconnect {
    fn encode(&self, version: Version) -> Vec<u8> {
        frame(0xE0, &reason_and_properties(version, self.reason, &self.properties))
    }
}

impl Encode for Auth {
    fn encode(&self, version: Version) -> Vec<u8> {
        frame(0xF0, &reason_and_properties(version, self.reason, &self.properties))
    }
}

/// Both are omitted if they have default values, and before 5.0.
fn reason_and_properties(version: Version, reason: u8, list: &[Property]) -> Vec<u8> {
    match (version, reason, list) {
        (V5, 0, []) => Vec::new(),
        (V5, reason, []) => vec![reason],
        (V5, reason, list) => [vec![reason], properties(version, list)].concat(),
        _ => Vec::new(),
    }
}

/// SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Subscribe {
    pub packet_identifier: u16,
    pub properties: Vec<Property>,
    /// Topic Filter and the whole Subscription Options byte.
    pub filters: Vec<(Vec<u8>, u8)>,
}

impl Subscribe {
    /// One filter with its options byte: the QoS, 0x04 for No Local, 0x08 for Retain As Published,
    /// 0x10 or 0x20 for Retain Handling.
    pub fn new(packet_identifier: u16, filter: impl AsRef<[u8]>, options: u8) -> Self {
        Self { packet_identifier, properties: Vec::new(), filters: Vec::new() }.and(filter, options)
    }

    /// One more filter.
    pub fn and(mut self, filter: impl AsRef<[u8]>, options: u8) -> Self {
        self.filters.push((filter.as_ref().to_vec(), options));
        self
    }

    pub fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }
}

impl Encode for Subscribe {
    fn encode(&self, version: Version) -> Vec<u8> {
        let mut rest = self.packet_identifier.to_be_bytes().to_vec();
        rest.extend(properties(version, &self.properties));
        for (filter, options) in &self.filters {
            rest.extend(string(filter));
            rest.push(*options);
        }
        frame(0x82, &rest)
    }
}

/// UNSUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Unsubscribe {
    pub packet_identifier: u16,
    pub properties: Vec<Property>,
    pub filters: Vec<Vec<u8>>,
}

impl Unsubscribe {
    /// One filter.
    pub fn new(packet_identifier: u16, filter: impl AsRef<[u8]>) -> Self {
        Self { packet_identifier, properties: Vec::new(), filters: Vec::new() }.and(filter)
    }

    /// One more filter.
    pub fn and(mut self, filter: impl AsRef<[u8]>) -> Self {
        self.filters.push(filter.as_ref().to_vec());
        self
    }

    pub fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }
}

impl Encode for Unsubscribe {
    fn encode(&self, version: Version) -> Vec<u8> {
        let mut rest = self.packet_identifier.to_be_bytes().to_vec();
        rest.extend(properties(version, &self.properties));
        rest.extend(self.filters.iter().flat_map(string));
        frame(0xA2, &rest)
    }
}
