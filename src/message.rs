//! An Application Message once it must outlive the packet it came in: queued, in flight, or retained.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Deadline, Now};
use crate::gauges::Ledger;
use crate::wire::{PublishHeader, Qos, Version};

/// What every copy of a message has in common; borrowed from the packet or from a [`Message`].
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Encoded properties that are forwarded unaltered, in order.
    pub passed_on: &'a [u8],
    /// When the message expires, if ever.
    pub expires: Option<Deadline>,
    /// QoS it was published with.
    pub qos: Qos,
}

impl Content<'_> {
    /// The header of one copy of it.
    pub fn header<'b>(
        &'b self,
        version: Version,
        now: Now,
        copy: &'b Copy<'_>,
    ) -> PublishHeader<'b> {
        PublishHeader {
            version,
            dup: copy.dup,
            qos: copy.qos,
            retain: copy.retain,
            topic: if copy.topic_alias_known { "" } else { self.topic },
            packet_identifier: copy.packet_identifier,
            // [MQTT-3.3.2-6]: the received value less the time waited here.
            message_expiry_interval: self.expires.map(|deadline| deadline.seconds_left(now)),
            topic_alias: copy.topic_alias,
            subscription_identifiers: copy.subscription_identifiers,
            passed_on: self.passed_on,
            payload_len: self.payload.len(),
        }
    }

    /// Bytes it takes in memory, near enough for the bounds.
    pub fn bytes(&self) -> usize {
        size_of::<Message>() + self.topic.len() + self.payload.len() + self.passed_on.len()
    }

    /// The same as a value of its own, counted in `ledger` while it lives.
    pub fn to_message(&self, ledger: &Ledger) -> Arc<Message> {
        ledger.charge(self.bytes());
        Arc::new(Message {
            bytes: [self.topic.as_bytes(), self.passed_on, self.payload].concat().into(),
            topic_bytes: self.topic.len(),
            passed_on_bytes: self.passed_on.len(),
            expires: self.expires,
            qos: self.qos,
            ledger: ledger.clone(),
        })
    }
}

/// What differs from subscriber to subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Copy<'a> {
    /// Effective QoS.
    pub qos: Qos,
    /// RETAIN flag of this copy.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Packet Identifier; 0 for QoS 0.
    pub packet_identifier: u16,
    /// Subscription Identifiers of all matching subscriptions.
    pub subscription_identifiers: &'a [u32],
    /// Topic Alias to set or use.
    pub topic_alias: Option<u16>,
    /// The client knows the alias already, the Topic Name stays away.
    pub topic_alias_known: bool,
}

/// An Application Message that is kept.
#[derive(Debug)]
pub struct Message {
    /// Topic Name, passed-on properties and payload, one after the other: one allocation.
    bytes: Box<[u8]>,
    topic_bytes: usize,
    passed_on_bytes: usize,
    expires: Option<Deadline>,
    qos: Qos,
    ledger: Ledger,
}

impl Message {
    /// What its copies have in common.
    pub fn content(&self) -> Content<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_bytes);
        let (passed_on, payload) = rest.split_at(self.passed_on_bytes);
        Content {
            topic: std::str::from_utf8(topic).expect("it was a string"),
            payload,
            passed_on,
            expires: self.expires,
            qos: self.qos,
        }
    }

    /// The payload by reference, for those worth not copying.
    pub fn shared_payload(self: &Arc<Self>) -> Bytes {
        let whole = Bytes::from_owner(Whole(Arc::clone(self)));
        whole.slice(self.topic_bytes + self.passed_on_bytes..)
    }

    /// Whether its Message Expiry Interval has passed.
    pub fn is_expired(&self, now: Now) -> bool {
        self.expires.is_some_and(|deadline| deadline.is_due(now))
    }
}

/// A message as the bytes it holds.
struct Whole(Arc<Message>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.ledger.release(size_of::<Self>() + self.bytes.len());
    }
}
