//! Applies records to an image.

use std::collections::HashMap;

use crate::storage::image::{
    Delivery, HeldWill, Image, OwnedContent, Part, Retained, Session, SharedContent, Subscription,
    Will,
};
use crate::storage::record::{
    CHECKPOINT_CONTENTS, Content, DeliveryNumber, Exchange, NoRecord, Record, SessionNumber,
};

/// What later records of the same batch refer to.
#[derive(Default)]
struct Batch<'a> {
    /// Contents by number, shared from the first delivery on.
    contents: HashMap<u64, (Content<'a>, Option<SharedContent>)>,
    /// By session, the contents that its deliveries had before a checkpoint in this batch.
    before: HashMap<SessionNumber, HashMap<DeliveryNumber, SharedContent>>,
}

impl Image {
    /// Applies the records of a batch.
    pub fn apply(&mut self, mut bytes: &[u8], part: &impl Part) -> Result<(), NoRecord> {
        let mut batch = Batch::default();
        while let Some(record) = Record::decode(&mut bytes)? {
            self.records += 1;
            match record {
                Record::Content { number, content } if number >= CHECKPOINT_CONTENTS => {
                    // A content that nothing awaits belongs to sessions of another part.
                    if let Some(awaited) = self.awaited.remove(&number) {
                        awaited.set(content.into());
                    }
                }
                Record::Content { number, content } => {
                    batch.contents.insert(number, (content, None));
                }
                Record::Queued { .. } => self.queue(&record, &mut batch)?,
                Record::Retained { stamp, content } if part.has_topic(content.topic) => {
                    self.retain(content.topic, stamp, Some(content));
                }
                Record::Cleared { stamp, topic } if part.has_topic(topic) => {
                    self.retain(topic, stamp, None);
                }
                Record::Session { .. } => self.begin_session(&record, &mut batch, part),
                Record::Rewrite { .. } => self.begin_rewrite(&record, part),
                Record::Requeued { .. } => self.requeue(&record)?,
                Record::Rewritten { session } => self.end_rewrite(session),
                Record::Ended { session } => {
                    self.sessions.remove(&session);
                    self.rewrites.remove(&session);
                }
                Record::Taken { session, publisher, packet_identifier } => {
                    // The record of the session may follow, in a checkpoint.
                    let exchange = Exchange { publisher, packet_identifier };
                    self.taken.entry(exchange).or_default().insert(session);
                }
                Record::TakenByGroup { publisher, packet_identifier, filter } => {
                    let exchange = Exchange { publisher, packet_identifier };
                    self.taken_by_groups.entry(exchange).or_default().insert(filter.into());
                }
                Record::WillHeld { .. } => self.hold_will(&record, part),
                Record::WillOver { session } => {
                    self.wills.remove(&session);
                }
                Record::Arrived { session, delivery } => {
                    // The number is used up even if the delivery was never logged.
                    self.delivery_max = self.delivery_max.max(delivery);
                    self.arrived.insert((session, delivery));
                    self.change(&Record::Done { session, delivery });
                }
                other => self.change(&other),
            }
        }
        Ok(())
    }

    fn queue(&mut self, record: &Record<'_>, batch: &mut Batch<'_>) -> Result<(), NoRecord> {
        let &Record::Queued { session, delivery, content, .. } = record else { return Ok(()) };
        self.delivery_max = self.delivery_max.max(delivery);
        let (state, rewrite) = (self.sessions.get_mut(&session), self.rewrites.get_mut(&session));
        if state.is_none() && rewrite.is_none() {
            return Ok(());
        }
        if !self.arrived.is_empty() && self.arrived.contains(&(session, delivery)) {
            return Ok(());
        }
        let shared = if content >= CHECKPOINT_CONTENTS {
            let known = batch.before.get(&session).and_then(|of| of.get(&delivery));
            match known {
                Some(known) => known.clone(),
                None => self.awaited.entry(content).or_default().clone(),
            }
        } else {
            let (content, shared) = batch.contents.get_mut(&content).ok_or(NoRecord)?;
            let new = || SharedContent::new(OwnedContent::from(*content));
            shared.get_or_insert_with(new).clone()
        };
        if let Some(rewrite) = rewrite {
            rewrite.queue(record, shared.clone());
        }
        if let Some(state) = state {
            state.queue(record, shared);
        }
        Ok(())
    }

    fn begin_session(&mut self, record: &Record<'_>, batch: &mut Batch<'_>, part: &impl Part) {
        let &Record::Session { session, client_identifier, expiry_interval_s } = record else {
            return;
        };
        self.session_max = self.session_max.max(session.serial());
        if part.has_session(client_identifier) {
            let client_identifier = client_identifier.into();
            let state = Session { client_identifier, expiry_interval_s, ..Session::default() };
            self.rewrites.remove(&session);
            if let Some(old) = self.sessions.insert(session, state) {
                batch.before.insert(session, old.contents());
            }
        }
    }

    fn hold_will(&mut self, record: &Record<'_>, part: &impl Part) {
        let &Record::WillHeld {
            session,
            client_identifier,
            delay_interval_s,
            content,
            retain,
            message_expiry_interval_s,
        } = record
        else {
            return;
        };
        self.session_max = self.session_max.max(session.serial());
        if part.has_session(client_identifier) {
            let will = HeldWill {
                client_identifier: client_identifier.into(),
                owner: None,
                delay_interval_s,
                content: content.into(),
                retain,
                message_expiry_interval_s,
                listener: None,
            };
            self.wills.insert(session, will);
        }
    }

    fn retain(&mut self, topic: &str, stamp: u64, content: Option<Content<'_>>) {
        let content = content.map(OwnedContent::from);
        match self.retained.get_mut(topic) {
            Some(kept) if kept.stamp > stamp => {}
            Some(kept) => *kept = Retained { stamp, content },
            None => {
                self.retained.insert(topic.into(), Retained { stamp, content });
            }
        }
    }

    fn change(&mut self, record: &Record<'_>) {
        let (Record::Connected { session, .. }
        | Record::Away { session, .. }
        | Record::Subscribed { session, .. }
        | Record::Unsubscribed { session, .. }
        | Record::Sent { session, .. }
        | Record::Released { session, .. }
        | Record::Done { session, .. }
        | Record::Received { session, .. }
        | Record::Completed { session, .. }
        | Record::Will { session, .. }
        | Record::WillSent { session }
        | Record::FarSubscribed { session, .. }
        | Record::FarUnsubscribed { session, .. }
        | Record::WillThrough { session, .. }
        | Record::Owned { session, .. }) = record
        else {
            return;
        };
        if let Record::Received { packet_identifier, .. }
        | Record::Completed { packet_identifier, .. } = record
        {
            let (publisher, packet_identifier) = (*session, *packet_identifier);
            let exchange = Exchange { publisher, packet_identifier };
            self.taken.remove(&exchange);
            self.taken_by_groups.remove(&exchange);
        }
        if let Some(rewrite) = self.rewrites.get_mut(session) {
            rewrite.change(record);
        }
        if let Record::WillThrough { listener, .. } = record
            && let Some(will) = self.wills.get_mut(session)
        {
            will.listener = Some((*listener).into());
        }
        if let Some(session) = self.sessions.get_mut(session) {
            session.change(record);
        } else if let Record::Owned { session, owner } = record
            && let Some(will) = self.wills.get_mut(session)
        {
            will.owner = Some((*owner).into());
        }
    }
}

impl Session {
    /// The contents of its deliveries, by number of the delivery.
    pub(super) fn contents(&self) -> HashMap<DeliveryNumber, SharedContent> {
        let all = self.inflight.iter().chain(&self.queue);
        all.filter_map(|of| Some((of.number, of.content.clone()?))).collect()
    }

    fn queue(&mut self, record: &Record<'_>, content: SharedContent) {
        let Some(delivery) = Delivery::new(record, content) else { return };
        match delivery.packet_identifier {
            0 => self.queue.push_back(delivery),
            _ => self.inflight.push(delivery),
        }
    }

    pub(super) fn change(&mut self, record: &Record<'_>) {
        match record {
            Record::Connected { expiry_interval_s, .. } => {
                self.expiry_interval_s = *expiry_interval_s;
                (self.away_since_us, self.will) = (None, None);
            }
            Record::Away { expiry_interval_s, since_us, .. } => {
                self.expiry_interval_s = *expiry_interval_s;
                self.away_since_us = Some(*since_us);
            }
            Record::Subscribed {
                filter, qos, no_local, retain_as_published, identifier, ..
            } => {
                let subscription = Subscription {
                    qos: *qos,
                    no_local: *no_local,
                    retain_as_published: *retain_as_published,
                    identifier: *identifier,
                };
                self.subscriptions.insert((*filter).into(), subscription);
            }
            Record::Unsubscribed { filter, .. } => {
                self.subscriptions.remove(*filter);
            }
            Record::Sent { delivery, packet_identifier, .. } => {
                // Nearly always the first in the queue.
                let place = self.queue.iter().position(|queued| queued.number == *delivery);
                if let Some(mut sent) = place.and_then(|place| self.queue.remove(place)) {
                    sent.packet_identifier = *packet_identifier;
                    self.inflight.push(sent);
                }
            }
            Record::Released { delivery, packet_identifier, .. } => {
                self.release(*delivery, *packet_identifier);
            }
            Record::Done { delivery, .. } => {
                let is_it = |of: &Delivery| of.number == *delivery;
                if let Some(place) = self.inflight.iter().position(is_it) {
                    self.inflight.remove(place);
                } else if let Some(place) = self.queue.iter().position(is_it) {
                    self.queue.remove(place);
                }
            }
            Record::Received { packet_identifier, .. } => {
                self.received.insert(*packet_identifier);
            }
            Record::Completed { packet_identifier, .. } => {
                self.received.remove(packet_identifier);
            }
            Record::Will { due_us, content, retain, message_expiry_interval_s, .. } => {
                self.will = Some(Will {
                    due_us: *due_us,
                    content: OwnedContent::from(*content),
                    retain: *retain,
                    message_expiry_interval_s: *message_expiry_interval_s,
                    listener: None,
                });
            }
            Record::WillThrough { listener, .. } => {
                if let Some(will) = &mut self.will {
                    will.listener = Some((*listener).into());
                }
            }
            Record::WillSent { .. } => self.will = None,
            Record::Owned { owner, .. } => self.owner = Some((*owner).into()),
            Record::FarSubscribed { filter, .. } => {
                self.far_subscriptions.insert((*filter).into());
            }
            Record::FarUnsubscribed { filter, .. } => {
                self.far_subscriptions.remove(*filter);
            }
            _ => {}
        }
    }

    fn release(&mut self, number: DeliveryNumber, packet_identifier: u16) {
        if let Some(of) = self.inflight.iter_mut().find(|of| of.number == number) {
            (of.content, of.packet_identifier) = (None, packet_identifier);
            return;
        }
        self.inflight.push(Delivery {
            number,
            content: None,
            qos: 2,
            retain: false,
            packet_identifier,
            shared: None,
            identifiers: Vec::new(),
        });
    }
}

impl Delivery {
    /// The delivery of a record.
    pub(super) fn new(record: &Record<'_>, content: SharedContent) -> Option<Self> {
        let (Record::Queued {
            delivery, qos, retain, packet_identifier, shared, identifiers, ..
        }
        | Record::Requeued {
            delivery,
            qos,
            retain,
            packet_identifier,
            shared,
            identifiers,
            ..
        }) = record
        else {
            return None;
        };
        Some(Self {
            number: *delivery,
            content: Some(content),
            qos: *qos,
            retain: *retain,
            packet_identifier: *packet_identifier,
            shared: shared.map(Into::into),
            identifiers: identifiers.to_vec(),
        })
    }
}
