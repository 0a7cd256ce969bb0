//! Packets as the tests compare them.

/// A property, with its value.
#[allow(clippy::enum_variant_names)] // the specification's names
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(String),
    ServerKeepAlive(u16),
    AuthenticationMethod(String),
    AuthenticationData(Vec<u8>),
    RequestProblemInformation(u8),
    WillDelayInterval(u32),
    RequestResponseInformation(u8),
    ResponseInformation(String),
    ServerReference(String),
    ReasonString(String),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    UserProperty(String, String),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(u8),
    SubscriptionIdentifierAvailable(u8),
    SharedSubscriptionAvailable(u8),
    /// Raw bytes, for values that the other variants cannot express.
    Raw(Vec<u8>),
}

impl Property {
    /// A User Property.
    pub fn user(name: &str, value: &str) -> Self {
        Self::UserProperty(name.to_owned(), value.to_owned())
    }
}

/// A packet from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connack(Connack),
    Publish(Publish),
    Ack(Ack),
    Suback(Suback),
    Unsuback(Unsuback),
    Pingresp,
    Disconnect(Disconnect),
    Auth(Auth),
}

/// CONNACK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connack {
    pub session_present: bool,
    /// Reason Code, or the return code of 3.1.1.
    pub reason: u8,
    pub properties: Vec<Property>,
}

/// PUBLISH, sent by either side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    pub packet_identifier: Option<u16>,
    pub properties: Vec<Property>,
    pub payload: Vec<u8>,
}

impl Publish {
    /// At QoS 0.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self { topic: topic.to_owned(), payload, ..Self::default() }
    }

    /// At `qos`, with a Packet Identifier.
    pub fn qos(self, qos: u8, packet_identifier: u16) -> Self {
        Self { qos, packet_identifier: Some(packet_identifier), ..self }
    }

    pub fn retain(self) -> Self {
        Self { retain: true, ..self }
    }

    pub fn dup(self) -> Self {
        Self { dup: true, ..self }
    }

    pub fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }

    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload of text")
    }

    /// The Packet Identifier of a PUBLISH that has one.
    #[track_caller]
    pub fn id(&self) -> u16 {
        self.packet_identifier.expect("a Packet Identifier")
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, sent by either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The packet type, 4 to 7.
    pub kind: u8,
    pub packet_identifier: u16,
    pub reason: u8,
    pub properties: Vec<Property>,
}

impl Ack {
    fn new(kind: u8, packet_identifier: u16) -> Self {
        Self { kind, packet_identifier, reason: 0, properties: Vec::new() }
    }

    pub fn puback(packet_identifier: u16) -> Self {
        Self::new(4, packet_identifier)
    }

    pub fn pubrec(packet_identifier: u16) -> Self {
        Self::new(5, packet_identifier)
    }

    pub fn pubrel(packet_identifier: u16) -> Self {
        Self::new(6, packet_identifier)
    }

    pub fn pubcomp(packet_identifier: u16) -> Self {
        Self::new(7, packet_identifier)
    }

    pub fn reason(self, reason: u8) -> Self {
        Self { reason, ..self }
    }

    pub fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }
}

/// SUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suback {
    pub packet_identifier: u16,
    pub reasons: Vec<u8>,
    pub properties: Vec<Property>,
}

impl Suback {
    pub fn new(packet_identifier: u16, reasons: &[u8]) -> Self {
        Self { packet_identifier, reasons: reasons.to_vec(), properties: Vec::new() }
    }
}

/// UNSUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuback {
    pub packet_identifier: u16,
    /// Empty in 3.1.1.
    pub reasons: Vec<u8>,
    pub properties: Vec<Property>,
}

impl Unsuback {
    pub fn new(packet_identifier: u16, reasons: &[u8]) -> Self {
        Self { packet_identifier, reasons: reasons.to_vec(), properties: Vec::new() }
    }
}

/// DISCONNECT, sent by either side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disconnect {
    pub reason: u8,
    pub properties: Vec<Property>,
}

impl Disconnect {
    /// Normal disconnection.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn reason(self, reason: u8) -> Self {
        Self { reason, ..self }
    }

    pub fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }
}

/// AUTH, sent by either side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    pub reason: u8,
    pub properties: Vec<Property>,
}

impl Auth {
    pub fn new(reason: u8) -> Self {
        Self { reason, properties: Vec::new() }
    }

    pub fn property(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }
}

macro_rules! into_packet {
    ($($name:ident)*) => {$(
        impl From<$name> for Packet {
            fn from(packet: $name) -> Self {
                Self::$name(packet)
            }
        }
    )*};
}

into_packet!(Connack Publish Ack Suback Unsuback Disconnect Auth);
