//! A session as records, a part at a time, for its way to another node.
//!
//! Nodes share no clock: times in these records count from [`NOW_US`], the time at which the part is written or read.

use crate::base::clock::{Deadline, Now};
use crate::engine::durability::record_writer::subscribed;
use crate::message;
use crate::session::outbound::Delivery;
use crate::session::state::{Session, Will};
use crate::storage::image::{self, Image, Whole};
use crate::storage::record::{Content, NoRecord, Record, SessionNumber};
use shards::{SubscriberId, SubscriptionIndex};

/// Size from which a part ends.
const PART_BYTES: usize = 64 * 1024;

/// The present in the times of records.
const NOW_US: u64 = 1 << 52;

/// The number of the session in its records: a part has one.
const NUMBER: SessionNumber = SessionNumber(1 << 42);

/// A part of a session.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Vec<u8>,
    now: Now,
    /// Deliveries so far.
    deliveries: u64,
}

impl Part {
    /// Begins a part of this session.
    pub fn new(session: &Session, now: Now) -> Self {
        let mut part = Self { bytes: Vec::new(), now, deliveries: 0 };
        let (client_identifier, expiry_interval_s) =
            (session.client_identifier.as_str(), session.expiry_interval_s);
        part.add(&Record::Session { session: NUMBER, client_identifier, expiry_interval_s });
        part
    }

    fn add(&mut self, record: &Record<'_>) {
        record.encode(&mut self.bytes);
    }

    /// Whether the part has its size.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PART_BYTES
    }

    /// The records.
    pub fn into_records(self) -> Vec<u8> {
        self.bytes
    }

    pub fn add_owner(&mut self, owner: &str) {
        self.add(&Record::Owned { session: NUMBER, owner });
    }

    /// Adds subscriptions until the part is full, from the last of the first `left` on; how many are left.
    pub fn add_subscriptions(
        &mut self,
        session: &Session,
        subscriber: SubscriberId,
        index: &SubscriptionIndex,
        left: usize,
    ) -> usize {
        let mut left = left.min(session.subscriptions.len());
        while left > 0 && !self.is_full() {
            left -= 1;
            let filter = session.subscriptions[left];
            if let Some(subscription) = index.get(filter, subscriber) {
                self.add(&subscribed(NUMBER, &index.text(filter), &subscription));
            }
        }
        left
    }

    /// Adds a QoS 2 message between PUBREC and PUBREL.
    pub fn add_received(&mut self, packet_identifier: u16) {
        self.add(&Record::Received { session: NUMBER, packet_identifier });
    }

    /// Adds a message; `packet_identifier` is 0 for one that waits.
    pub fn add_delivery(
        &mut self,
        delivery: &Delivery,
        packet_identifier: u16,
        index: &SubscriptionIndex,
    ) {
        self.deliveries += 1;
        let number = self.deliveries;
        let content = self.content(&delivery.message.content());
        self.add(&Record::Content { number, content });
        let shared = delivery.shared.map(|filter| index.text(filter));
        self.add(&Record::Queued {
            session: NUMBER,
            delivery: number,
            content: number,
            qos: delivery.qos.into(),
            retain: delivery.retain,
            packet_identifier,
            shared: shared.as_deref(),
            identifiers: delivery.subscription_identifiers.as_slice().into(),
        });
    }

    /// Adds a message of which only PUBREL is left.
    pub fn add_released(&mut self, packet_identifier: u16) {
        self.deliveries += 1;
        let delivery = self.deliveries;
        self.add(&Record::Released { session: NUMBER, delivery, packet_identifier });
    }

    /// Adds the Will of a client that is away.
    pub fn add_will(&mut self, will: &Will) {
        let Some(due) = will.due else { return };
        self.add(&Record::Will {
            session: NUMBER,
            due_us: self.time(due),
            content: will.content(),
            retain: will.retain,
            message_expiry_interval_s: will.message_expiry_interval_s,
        });
        if let Some(listener) = &will.listener_name {
            self.add(&Record::WillThrough { session: NUMBER, listener });
        }
    }

    /// Adds when the session ends.
    pub fn add_end(&mut self, session: &Session) {
        let expiry_interval_s = session.expiry_interval_s;
        let expires_us = session.expires.map(|at| self.time(at));
        let interval_us = u64::from(expiry_interval_s) * 1_000_000;
        let since_us = expires_us.map_or(NOW_US, |at| at.saturating_sub(interval_us));
        self.add(&Record::Away { session: NUMBER, expiry_interval_s, since_us });
    }

    fn content<'a>(&self, content: &message::Content<'a>) -> Content<'a> {
        Content {
            topic: content.topic,
            payload: content.payload,
            passed_on: content.passed_on,
            expires_us: content.expires.map(|at| self.time(at)),
            qos: content.qos.into(),
        }
    }

    fn time(&self, at: Deadline) -> u64 {
        NOW_US + at.us().min(NOW_US) - self.now.0.min(at.us())
    }
}

/// The session of a part.
pub(super) fn read(records: &[u8]) -> Result<image::Session, NoRecord> {
    let mut image = Image::default();
    image.apply(records, &Whole)?;
    image.sessions.remove(&NUMBER).ok_or(NoRecord)
}

/// The deadline of a time in a part.
pub(super) fn deadline(at_us: u64, now: Now) -> Deadline {
    Deadline::at_us((now.0 + at_us).saturating_sub(NOW_US))
}
