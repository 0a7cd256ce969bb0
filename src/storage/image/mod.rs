//! The state that a sequence of records adds up to: sessions, Wills and retained messages, as they are
//! restored. Knows no file and no engine.
//!
//! Records of one core come in its order, those of different cores in any order: one core at a time logs a
//! session, and of the retained messages of a topic the highest stamp counts.

pub mod add;
mod apply;
mod content;
mod rewrite;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::storage::image::content::shared;
use crate::storage::image::rewrite::Rewrite;
use crate::storage::record::{DeliveryNumber, Exchange, SessionNumber};

pub use content::{OwnedContent, SharedContent};

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// QoS granted.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier; 0 for none.
    pub identifier: u32,
}

/// A message that is queued for a client or in flight to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Its number.
    pub number: DeliveryNumber,
    /// The message; none after PUBREC.
    #[serde(with = "shared")]
    pub content: Option<SharedContent>,
    /// Effective QoS.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Packet Identifier; 0 while the message is queued.
    pub packet_identifier: u16,
    /// The shared subscription of which this client was chosen to get the message.
    pub shared: Option<Box<str>>,
    /// Subscription Identifiers.
    pub identifiers: Vec<u32>,
}

/// A Will during its delay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Will {
    /// When the Will is published, in microseconds since 1970.
    pub due_us: u64,
    /// The message.
    pub content: OwnedContent,
    /// RETAIN flag.
    pub retain: bool,
    /// Message Expiry Interval in seconds, from publication.
    pub message_expiry_interval_s: Option<u32>,
    /// The listener that the client came through: its address or path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Box<str>>,
}

/// The Will of a client that was connected when the broker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldWill {
    /// The client.
    pub client_identifier: Box<str>,
    /// The user name of the client, unless its session has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    /// Will Delay Interval in seconds.
    pub delay_interval_s: u32,
    /// The message.
    pub content: OwnedContent,
    /// RETAIN flag.
    pub retain: bool,
    /// Message Expiry Interval in seconds, from publication.
    pub message_expiry_interval_s: Option<u32>,
    /// The listener that the client came through: its address or path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Box<str>>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Its client.
    pub client_identifier: Box<str>,
    /// The user that the session belongs to, if any.
    pub owner: Option<Box<str>>,
    /// Session Expiry Interval in seconds.
    pub expiry_interval_s: u32,
    /// When its connection ended, in microseconds since 1970; none when the client was connected when the
    /// broker ended.
    pub away_since_us: Option<u64>,
    /// By Topic Filter.
    pub subscriptions: BTreeMap<Box<str>, Subscription>,
    /// In flight, in the order of their Packet Identifiers.
    pub inflight: Vec<Delivery>,
    /// Queued messages, in order.
    pub queue: VecDeque<Delivery>,
    /// QoS 2 messages from the client between PUBREC and PUBREL, by Packet Identifier.
    pub received: BTreeSet<u16>,
    /// Its Will, during the delay.
    pub will: Option<Will>,
    /// Of a bridge: Topic Filters that it may have subscribed to at its far broker.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub far_subscriptions: BTreeSet<Box<str>>,
}

/// The retained message of a topic, or the record that it was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The highest stamp of a topic counts.
    pub stamp: u64,
    /// None after the removal.
    pub content: Option<OwnedContent>,
}

/// The stored state, or the part of it that was asked for.
#[derive(Debug, Default)]
pub struct Image {
    /// By number.
    pub sessions: HashMap<SessionNumber, Session>,
    /// Wills of clients that were connected when the broker ended, by the number of the session, which
    /// need not be stored.
    pub wills: HashMap<SessionNumber, HeldWill>,
    /// By topic.
    pub retained: HashMap<Box<str>, Retained>,
    /// Sessions, of any part, that have a QoS 2 message whose publisher cannot know yet that it was
    /// received.
    pub taken: HashMap<Exchange, HashSet<SessionNumber>>,
    /// Shared subscriptions of which a member has such a message.
    pub taken_by_groups: HashMap<Exchange, HashSet<Box<str>>>,
    /// Contents of deliveries in a checkpoint whose records have not been read yet, by number.
    awaited: HashMap<u64, SharedContent>,
    /// Sessions of which a checkpoint has logged a part. If it ended there, what was logged before counts.
    rewrites: HashMap<SessionNumber, Rewrite>,
    /// Forwards between cores that have arrived: the records of their deliveries may follow.
    arrived: HashSet<(SessionNumber, DeliveryNumber)>,
    /// The highest serial number of any session, of any part.
    pub session_max: u64,
    /// The highest number of any delivery.
    pub delivery_max: u64,
    /// Records read.
    pub records: u64,
}

/// The part of the state that is of interest.
pub trait Part {
    /// Whether the session of a client is part of it.
    fn has_session(&self, client_identifier: &str) -> bool;
    /// Whether the retained message of a topic is.
    fn has_topic(&self, topic: &str) -> bool;
}

/// The complete state.
pub struct Whole;

impl Part for Whole {
    fn has_session(&self, _client_identifier: &str) -> bool {
        true
    }

    fn has_topic(&self, _topic: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::record::Record;

    /// Otherwise the next delivery of that session could have the number, and count as arrived.
    #[test]
    fn the_number_of_an_arrived_forward_is_used_up_though_its_delivery_was_never_logged() {
        let mut batch = Vec::new();
        Record::Arrived { session: SessionNumber(1), delivery: 9 }.encode(&mut batch);
        let mut image = Image::default();
        image.apply(&batch, &Whole).expect("a record");
        assert_eq!(image.delivery_max, 9);
    }

    #[test]
    fn what_a_bridge_has_subscribed_to_at_its_far_broker_outlasts_checkpoints_until_it_is_given_up()
    {
        let session = SessionNumber(1 << 42);
        let (client_identifier, expiry_interval_s) = ("$bridge/far", u32::MAX);
        let far = |filter| Record::FarSubscribed { session, filter };
        let mut image = Image::default();
        let apply = |image: &mut Image, records: &[Record<'_>]| {
            let mut batch = Vec::new();
            records.iter().for_each(|record| record.encode(&mut batch));
            image.apply(&batch, &Whole).expect("records");
        };
        let begin = Record::Session { session, client_identifier, expiry_interval_s };
        apply(&mut image, &[begin, far("old"), far("a/#")]);
        // A checkpoint, during which filters are given up and added.
        let rewrite = Record::Rewrite { session, client_identifier, expiry_interval_s };
        apply(&mut image, &[rewrite, far("old"), far("a/#")]);
        apply(&mut image, &[Record::FarUnsubscribed { session, filter: "old" }, far("b")]);
        apply(&mut image, &[Record::Rewritten { session }]);
        let mut again = Image::default();
        again.apply(&image.write(|_| {}), &Whole).expect("records");
        for image in [image, again] {
            let found: Vec<&str> =
                image.sessions[&session].far_subscriptions.iter().map(|of| &**of).collect();
            assert_eq!(found, ["a/#", "b"]);
        }
    }
}
