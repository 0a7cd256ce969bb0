//! Application Messages that outlive the packet they arrived in: queued, in flight, or retained.

pub mod incoming_aliases;

use bytes::Bytes;
use triomphe::{Arc, ThinArc};

use crate::base::clock::{Deadline, Now};
use crate::resources::gauges::Ledger;
use crate::wire::{PublishHeader, Qos, Version};

/// The part that all copies of a message share; borrowed from the packet or from a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The PUBLISH header of one copy of the message.
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
            // [MQTT-3.3.2-6]: the received value minus the time the message has waited here.
            message_expiry_interval: self.expires.map(|deadline| deadline.seconds_left(now)),
            topic_alias: copy.topic_alias,
            subscription_identifiers: copy.subscription_identifiers,
            passed_on: self.passed_on,
            payload_len: self.payload.len(),
        }
    }

    /// Approximate memory of the message, for the memory bounds.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.topic.len() + self.payload.len() + self.passed_on.len()
    }

    /// Copies the content into a message, which is accounted in `ledger` while it lives.
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

/// Puts the header and the parts into one allocation and copies large parts only once.
fn joined(header: Header, parts: [&[u8]; 3]) -> ThinArc<Header, u8> {
    let len = parts.iter().map(|part| part.len()).sum();
    if len <= SHORT_BYTES_MAX {
        let mut bytes = [0; SHORT_BYTES_MAX];
        lay(parts, &mut bytes[..len]);
        return ThinArc::from_header_and_slice(header, &bytes[..len]);
    }
    let mut whole = ThinArc::from_header_and_iter(header, std::iter::repeat_n(0, len));
    whole.with_arc_mut(|whole| {
        lay(parts, Arc::get_mut(whole).expect("a new message is not shared").slice_mut());
    });
    whole
}

/// Copies the parts one after the other into `rest`, which has their total length.
fn lay(parts: [&[u8]; 3], mut rest: &mut [u8]) {
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
}

/// The part that differs between subscribers.
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
    /// The client already knows the alias, so the Topic Name is left out.
    pub topic_alias_known: bool,
}

impl Copy<'_> {
    /// A copy without properties of its recipient.
    pub fn plain(qos: Qos, retain: bool) -> Self {
        Self {
            qos,
            retain,
            dup: false,
            packet_identifier: 0,
            subscription_identifiers: &[],
            topic_alias: None,
            topic_alias_known: false,
        }
    }
}

/// A stored Application Message; clones share it. Messages in flight have usually left the
/// processor's caches, so a message is a single allocation behind a thin pointer.
#[derive(Clone, Debug)]
pub struct Message(ThinArc<Header, u8>);

/// The header of a message, followed by Topic Name, forwarded properties and payload.
#[derive(Debug)]
struct Header {
    ledger: Ledger,
    expires: Option<Deadline>,
    /// Bytes charged to the ledger.
    charged: usize,
    passed_on_bytes: u32,
    topic_bytes: u16,
    qos: Qos,
}

/// Size of the header with the reference count and the length before it.
const HEADER_BYTES: usize = size_of::<Header>() + 2 * size_of::<usize>();

/// Messages up to this size are assembled on the stack.
const SHORT_BYTES_MAX: usize = 512;

const _: () = assert!(HEADER_BYTES <= 48 && shards::TOPIC_BYTES_MAX <= u16::MAX as usize);

impl Message {
    /// The part that all copies share.
    pub fn content(&self) -> Content<'_> {
        let header = &self.0.header.header;
        let (topic, rest) = self.0.slice.split_at(usize::from(header.topic_bytes));
        let (passed_on, payload) = rest.split_at(header.passed_on_bytes as usize);
        Content {
            topic: std::str::from_utf8(topic).expect("encoded from a string"),
            payload,
            passed_on,
            expires: header.expires,
            qos: header.qos,
        }
    }

    /// The payload by reference, for payloads too large to copy.
    pub fn shared_payload(&self) -> Bytes {
        let header = &self.0.header.header;
        let before = usize::from(header.topic_bytes) + header.passed_on_bytes as usize;
        Bytes::from_owner(Whole(self.clone())).slice(before..)
    }

    /// Whether its Message Expiry Interval has passed.
    pub fn is_expired(&self, now: Now) -> bool {
        self.expires().is_some_and(|deadline| deadline.is_due(now))
    }

    /// When the message expires, if ever.
    #[inline]
    pub fn expires(&self) -> Option<Deadline> {
        self.0.header.header.expires
    }

    /// Whether this is a placeholder without a topic.
    #[inline]
    pub fn is_hollow(&self) -> bool {
        self.0.header.header.topic_bytes == 0
    }

    /// The address in memory, which is unique while the message lives.
    pub fn address(&self) -> usize {
        self.0.slice.as_ptr() as usize
    }

    /// Whether both refer to the same message.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.slice.as_ptr(), other.0.slice.as_ptr())
    }
}

/// The bytes of a message, as an owner for `Bytes`.
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
    fn a_message_of_any_size_holds_its_content() {
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
