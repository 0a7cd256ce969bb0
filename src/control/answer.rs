//! Answers to the questions of an operator.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use bytes::{Bytes, BytesMut};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use crate::control::question::ListingPlace;
use crate::wire::Version;

/// Bytes of the memory that texts of an answer share.
const TEXTS_BYTES: usize = 4 * 1024;

/// A name or topic in an answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made from a str")
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        str::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        str::json_schema(generator)
    }
}

/// Makes the texts of an answer, which share memory. A thousand small allocations that another thread frees would
/// lengthen a later turn of the core by up to half a millisecond: glibc's allocator joins them again when it is asked
/// for something large.
#[derive(Debug, Default)]
pub struct Texts(BytesMut);

impl Texts {
    /// A copy of this text.
    pub fn copy(&mut self, text: &str) -> Text {
        let Self(free) = self;
        if free.capacity() < text.len() {
            *free = BytesMut::with_capacity(text.len().max(TEXTS_BYTES));
        }
        free.extend_from_slice(text.as_bytes());
        Text(free.split().freeze())
    }
}

/// A page of a listing of one core.
#[derive(Debug)]
pub struct Page<T> {
    /// The entries. There may be fewer than the limit although there is a next page: large entries fill a page
    /// earlier, and a page does not take longer than 10 s.
    pub entries: Vec<T>,
    /// Where the next page begins; none if nothing is left on this core.
    pub next: Option<ListingPlace>,
    /// Sessions of all cores, with and without a connection.
    pub sessions: u64,
}

/// The clients of one core with the highest values.
#[derive(Debug)]
pub struct TopClients {
    /// Values and clients, the highest value first; clients whose value is 0 are left out.
    pub clients: Vec<(u64, ClientSummary)>,
    /// How many sessions were looked at.
    pub looked_at: u64,
    /// Whether these were all sessions; false if 10 s did not suffice.
    pub is_complete: bool,
}

/// A client in a listing.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct ClientSummary {
    /// The Client Identifier.
    pub client_id: Text,
    /// The user that owns the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// `connected` or `disconnected`.
    pub state: &'static str,
    /// The core of the client.
    pub core: u16,
    /// The protocol version, of a connected client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    /// The client's address, if the transport has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The number of the listener that accepted the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<u16>,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages in the queue.
    pub queued: u64,
    /// Messages in flight.
    pub inflight: u64,
    /// Messages dropped since the session began.
    pub dropped: u64,
    /// Bytes that wait for the client to read them.
    pub outbox_bytes: u64,
    /// Bytes received on the connection.
    pub bytes_in: u64,
    /// Bytes sent on the connection.
    pub bytes_out: u64,
}

impl ClientSummary {
    /// Approximate bytes of the entry in an answer.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.client_id.len() + self.user.as_ref().map_or(0, |user| user.len())
    }
}

/// Everything about one client.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct ClientDetail {
    /// What a listing shows as well.
    #[serde(flatten)]
    pub summary: ClientSummary,
    /// The connection, if the client is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionDetail>,
    /// Session Expiry Interval in seconds; none if the session never expires.
    pub session_expiry_interval_s: Option<u32>,
    /// Seconds until the session of a disconnected client ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u32>,
    /// Messages in flight, by stage.
    pub inflight_by_stage: InflightByStage,
    /// QoS 2 messages of the client that await PUBREL.
    pub received_unreleased: u64,
    /// Bytes of the messages in the queue.
    pub queue_bytes: u64,
    /// The message that has waited longest in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_oldest: Option<QueuedMessage>,
    /// Whether retained messages wait to be sent for new subscriptions.
    pub has_retained_waiting: bool,
    /// Messages dropped since the session began, by cause; causes with a count of 0 are left out.
    pub dropped_by_cause: BTreeMap<&'static str, u64>,
    /// The Will.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub will: Option<WillDetail>,
    /// Whether the session is in the store.
    pub is_stored: bool,
}

/// The connection of a client.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct ConnectionDetail {
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// Keep Alive in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// Milliseconds since the last packet.
    pub last_packet_ms: u64,
    /// Messages of QoS 1 and 2 that may be in flight.
    pub window: u16,
    /// The client's Maximum Packet Size, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_packet_size: Option<u32>,
    /// Bytes received that are not processed yet.
    pub input_bytes: u64,
    /// Why the socket is not read; empty if it is.
    pub paused_by: Vec<&'static str>,
    /// Whether the client does not keep up with its messages.
    pub is_behind: bool,
    /// Whether the client takes nothing, so that no publisher waits for it.
    pub is_stuck: bool,
    /// Publishers whose sockets are not read until the client has caught up.
    pub publishers_waiting: u64,
}

/// Numbers of messages in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct InflightByStage {
    /// Sent on an earlier connection, to be sent again.
    pub unsent: u64,
    /// Sent, awaiting PUBACK or PUBREC.
    pub sent: u64,
    /// Waiting for the store before they are sent.
    pub held: u64,
    /// Released, awaiting PUBCOMP.
    pub released: u64,
}

/// A Will, without its payload.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct WillDetail {
    /// The Topic Name.
    pub topic: String,
    /// QoS.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// Will Delay Interval in seconds.
    pub delay_interval_s: u32,
    /// Seconds until it is published, once the connection is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_in_s: Option<u32>,
}

/// A subscription.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct SubscriptionEntry {
    /// The Client Identifier.
    pub client_id: Text,
    /// The Topic Filter, with `$share/NAME/` if it is shared.
    pub filter: Text,
    /// The granted QoS.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identifier: Option<u32>,
    /// Whether the client is connected.
    pub is_connected: bool,
}

impl SubscriptionEntry {
    /// Approximate bytes of the entry in an answer.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.client_id.len() + self.filter.len()
    }
}

/// A message in a queue, in flight, or retained.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct QueuedMessage {
    /// The Topic Name.
    pub topic: Text,
    /// QoS.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// The beginning of the payload, if it was asked for.
    #[serde(skip)]
    pub payload: Option<Vec<u8>>,
    /// Seconds until the message expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u32>,
}

impl QueuedMessage {
    /// Approximate bytes of the entry in an answer.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.as_ref().map_or(0, Vec::len)
    }
}

/// Messages of a queue.
#[derive(Debug)]
pub struct QueuePage {
    /// Numbers and messages, the oldest first.
    pub messages: Vec<(u64, QueuedMessage)>,
    /// The number of the message with which the next page begins; none at the end.
    pub next: Option<u64>,
    /// Messages in the queue.
    pub queued: u64,
    /// Their bytes.
    pub queue_bytes: u64,
}

/// Messages in flight to a client.
#[derive(Debug)]
pub struct InflightPage {
    /// Packet Identifier, stage and message, in the order in which they were sent; a released message is gone.
    pub messages: Vec<(u16, &'static str, Option<QueuedMessage>)>,
    /// Messages in flight.
    pub inflight: u64,
}

/// The clients of one core that a message would reach.
#[derive(Debug, Default)]
pub struct RecipientsOfTopic {
    /// Subscriptions that match. Of the members of a shared subscription one receives the message.
    pub subscriptions: Vec<SubscriptionEntry>,
    /// How many there are, with those that are not shown.
    pub subscriptions_total: u64,
    /// Filters that match.
    pub filters_total: u64,
}

/// Retained messages, without their payloads.
#[derive(Debug)]
pub struct RetainedPage {
    /// The messages, in the order of their topics' levels.
    pub messages: Vec<QueuedMessage>,
    /// The topic with which the next page begins; none at the end.
    pub next: Option<Box<str>>,
    /// Retained messages in all, without the broker's own.
    pub retained: u64,
}

/// A retained message.
#[derive(Clone, Debug)]
pub struct RetainedMessage {
    /// The message with its whole payload.
    pub message: QueuedMessage,
    /// The core on which it was published.
    pub core: u16,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// User Properties, in order.
    pub user_properties: Vec<(String, String)>,
}

/// The result of `Question::ClearRetained`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Messages that were removed.
    pub messages: u64,
    /// Whether no matching message is left: false at the maximum, and if 10 s did not suffice.
    pub is_complete: bool,
}

/// A message has been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Clients of the core that took the message, and shared subscriptions on all cores.
    pub recipients: u64,
    /// The core that took the message.
    pub core: u16,
    /// Whether all cores with subscribers and the store have the message; false if they did not answer within 10 s.
    pub is_acknowledged: bool,
}

/// Why a message has not been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// The Topic Name is empty, has a wildcard or a null character, or is too long or too deep.
    TopicInvalid,
    /// Only the broker publishes below `$SYS/`.
    TopicReserved,
    /// The QoS is above `maximum_qos`.
    QosNotSupported,
    /// `retain_available` is off.
    RetainNotSupported,
    /// The message is larger than `packet_bytes_max`.
    TooLarge,
    /// There are as many retained messages as there may be, or too many bytes of them.
    RetainedFull,
    /// The broker's memory is in use up to `memory_bytes_max`.
    MemoryFull,
}

impl fmt::Display for NotPublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TopicInvalid => {
                "the topic is no valid Topic Name: it is empty, has a wildcard or a null character, or exceeds \
                 topic_bytes_max or topic_levels_max"
            }
            Self::TopicReserved => "only the broker publishes below $SYS/",
            Self::QosNotSupported => "the QoS is above maximum_qos",
            Self::RetainNotSupported => "retained messages are turned off by retain_available",
            Self::TooLarge => "the message is larger than packet_bytes_max",
            Self::RetainedFull => {
                "the retained messages are at retained_messages_max or retained_bytes_max"
            }
            Self::MemoryFull => "the broker's memory is in use up to memory_bytes_max",
        })
    }
}

/// The name of a protocol version.
pub fn version_name(version: Version) -> &'static str {
    match version {
        Version::V31 => "3.1",
        Version::V311 => "3.1.1",
        Version::V5 => "5.0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_an_answer_share_memory_whatever_their_length() {
        let long = "x".repeat(3 * TEXTS_BYTES);
        let mut texts = Texts::default();
        let first: Vec<Text> =
            ["a", "", "tempér/ature", &long, "b"].map(|of| texts.copy(of)).into();
        assert_eq!(
            first.iter().map(|text| &**text).collect::<Vec<_>>(),
            ["a", "", "tempér/ature", &long, "b"]
        );
        let place = |text: &Text| text.as_ptr() as usize;
        assert_eq!(place(&first[2]), place(&first[0]) + 1, "one behind the other");
        let json = serde_json::to_string(&first[2]).expect("it is a text");
        assert_eq!(json, "\"tempér/ature\"");
    }
}
