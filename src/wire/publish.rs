//! PUBLISH. Knows no subscriber and no Topic Alias but the number.

use std::fmt;

use super::{PacketIdentifier, PassedOn, Qos, UserProperties, Version};

/// An Application Message on its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish<'a> {
    /// Sent before, perhaps; never with QoS 0.
    pub dup: bool,
    /// Quality of Service.
    pub qos: Qos,
    /// To be retained, or was retained.
    pub retain: bool,
    /// Topic Name: no wildcards; empty only when a Topic Alias stands for it.
    pub topic: &'a str,
    /// There exactly when the QoS is not 0.
    pub packet_identifier: Option<PacketIdentifier>,
    /// At their defaults before 5.0.
    pub properties: PublishProperties<'a>,
    /// The message itself.
    pub payload: &'a [u8],
}

/// PUBLISH properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// 1 when the payload is UTF-8 text.
    pub payload_format_indicator: Option<u8>,
    /// Seconds that the message still lives.
    pub message_expiry_interval: Option<u32>,
    /// Stands for the Topic Name; never 0.
    pub topic_alias: Option<u16>,
    /// Where to answer: not empty, no wildcards.
    pub response_topic: Option<&'a str>,
    /// What the answer is to repeat.
    pub correlation_data: Option<&'a [u8]>,
    /// Of the subscriptions that matched; from servers only.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// What the payload is.
    pub content_type: Option<&'a str>,
    /// The properties above that go to subscribers as they came; the encoder does not look here.
    pub passed_on: PassedOn<'a>,
}

/// The Subscription Identifiers of a PUBLISH packet, in order.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIdentifiers<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A whole property section, checked.
    Section(&'a [u8]),
    List(&'a [u32]),
}

impl Default for Source<'_> {
    fn default() -> Self {
        Source::List(&[])
    }
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// These, each from 1 to [`VARIABLE_BYTE_INTEGER_MAX`](super::VARIABLE_BYTE_INTEGER_MAX).
    pub fn list(identifiers: &'a [u32]) -> Self {
        SubscriptionIdentifiers(Source::List(identifiers))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Each in turn.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        match self.0 {
            Source::Section(_) => [].iter().copied(),
            Source::List(list) => list.iter().copied(),
        }
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

/// All of an outgoing PUBLISH packet but its payload.
#[derive(Clone, Copy, Debug)]
pub struct PublishHeader<'a> {
    /// Before 5.0 no property is written, whatever the fields below say.
    pub version: Version,
    /// DUP flag.
    pub dup: bool,
    /// Quality of Service.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic Name, or empty where the Topic Alias is known to the receiver.
    pub topic: &'a str,
    /// 0 for QoS 0, where none is written.
    pub packet_identifier: u16,
    /// Seconds that the message still lives.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias to set or use.
    pub topic_alias: Option<u16>,
    /// Of the subscriptions that matched.
    pub subscription_identifiers: &'a [u32],
    /// Properties from the publisher, encoded.
    pub passed_on: &'a [u8],
    /// Bytes of the payload, which the caller appends.
    pub payload_len: usize,
}

impl PublishHeader<'_> {
    /// Bytes of the whole packet, payload included.
    pub fn encoded_len(&self) -> usize {
        unimplemented!()
    }

    /// Appends the header to `out` and returns where in `out` its Packet Identifier stands, or
    /// would stand for QoS 0. The payload is the caller's to append.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        let _ = out;
        unimplemented!()
    }
}
