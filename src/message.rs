//! An Application Message once it must outlive the packet it came in: queued, in flight, or retained.

use bytes::Bytes;
use triomphe::{Arc, ThinArc};

use crate::base::clock::{Deadline, Now};
use crate::resources::gauges::Ledger;
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
        HEADER_BYTES + self.topic.len() + self.payload.len() + self.passed_on.len()
    }

    /// The same as a value of its own, counted in `ledger` while it lives.
    pub fn to_message(&self, ledger: &Ledger) -> Message {
        ledger.charge(self.bytes());
        let parts = [self.topic.as_bytes(), self.passed_on, self.payload];
        let header = Header {
            ledger: ledger.clone(),
            expires: self.expires,
            charged: self.bytes(),
            passed_on_bytes: self.passed_on.len() as u32,
            topic_bytes: self.topic.len() as u16,
            qos: self.qos,
        };
        Message(joined(header, parts))
    }
}

/// All of it in one allocation, and what is large in it copied but once.
fn joined(header: Header, parts: [&[u8]; 3]) -> ThinArc<Header, u8> {
    let len = parts.iter().map(|part| part.len()).sum();
    if len <= SHORT_BYTES_MAX {
        let mut bytes = [0; SHORT_BYTES_MAX];
        lay(parts, &mut bytes[..len]);
        return ThinArc::from_header_and_slice(header, &bytes[..len]);
    }
    let mut whole = ThinArc::from_header_and_iter(header, std::iter::repeat_n(0, len));
    whole.with_arc_mut(|whole| {
        lay(parts, Arc::get_mut(whole).expect("nobody else has it yet").slice_mut());
    });
    whole
}

/// One after the other into what is as long as they are together.
fn lay(parts: [&[u8]; 3], mut rest: &mut [u8]) {
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
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

/// An Application Message that is kept; clones are the same one. A message in flight is memory that
/// was out of the processor's caches meanwhile: it is one allocation, behind a thin pointer.
#[derive(Clone, Debug)]
pub struct Message(ThinArc<Header, u8>);

/// What stands before a message's Topic Name, passed-on properties and payload, which follow it one
/// after the other.
#[derive(Debug)]
struct Header {
    ledger: Ledger,
    expires: Option<Deadline>,
    /// What it is counted with in the ledger.
    charged: usize,
    passed_on_bytes: u32,
    topic_bytes: u16,
    qos: Qos,
}

/// The header with the count of references and the length before it.
const HEADER_BYTES: usize = size_of::<Header>() + 2 * size_of::<usize>();

/// Bytes of a message that are put together on the stack.
const SHORT_BYTES_MAX: usize = 512;

const _: () = assert!(HEADER_BYTES <= 48 && shards::TOPIC_BYTES_MAX <= u16::MAX as usize);

impl Message {
    /// What its copies have in common.
    pub fn content(&self) -> Content<'_> {
        let header = &self.0.header.header;
        let (topic, rest) = self.0.slice.split_at(usize::from(header.topic_bytes));
        let (passed_on, payload) = rest.split_at(header.passed_on_bytes as usize);
        Content {
            topic: std::str::from_utf8(topic).expect("it was a string"),
            payload,
            passed_on,
            expires: header.expires,
            qos: header.qos,
        }
    }

    /// The payload by reference, for those worth not copying.
    pub fn shared_payload(&self) -> Bytes {
        let header = &self.0.header.header;
        let before = usize::from(header.topic_bytes) + header.passed_on_bytes as usize;
        Bytes::from_owner(Whole(self.clone())).slice(before..)
    }

    /// Whether its Message Expiry Interval has passed.
    pub fn is_expired(&self, now: Now) -> bool {
        self.expires().is_some_and(|deadline| deadline.is_due(now))
    }

    /// When it expires, if ever.
    #[inline]
    pub fn expires(&self) -> Option<Deadline> {
        self.0.header.header.expires
    }

    /// Whether it is none: it has no topic.
    #[inline]
    pub fn is_hollow(&self) -> bool {
        self.0.header.header.topic_bytes == 0
    }

    /// Where it is in memory: as long as it lives, no other message is there.
    pub fn address(&self) -> usize {
        self.0.slice.as_ptr() as usize
    }

    /// Whether both are one message.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.slice.as_ptr(), other.0.slice.as_ptr())
    }
}

/// A message as the bytes it holds.
struct Whole(Message);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0.0.slice
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        self.ledger.release(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_what_was_published_whatever_its_size() {
        let ledger = Ledger::default();
        for bytes in [0, 1, SHORT_BYTES_MAX - 9, SHORT_BYTES_MAX - 8, 100_000] {
            let payload: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
            let (topic, passed_on) = ("topic", [1, 2, 3].as_slice());
            let expires = None;
            let content =
                Content { topic, payload: &payload, passed_on, expires, qos: Qos::AtLeastOnce };
            let message = content.to_message(&ledger);
            let kept = message.content();
            assert_eq!((kept.topic, kept.passed_on, kept.payload), (topic, passed_on, &*payload));
            assert_eq!(message.shared_payload(), payload);
            assert_eq!(ledger.bytes(), content.bytes() as u64);
            drop(message);
            assert_eq!(ledger.bytes(), 0);
        }
    }
}
