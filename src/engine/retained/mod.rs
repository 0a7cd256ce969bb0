//! Retained messages: kept by topic, streamed to new subscriptions by cursor, never as a flood.

pub(in crate::engine) mod expiry;

use std::collections::VecDeque;

use shards::{Cursor, ScanState, ScanStep};

use crate::base::ids::SessionId;
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::routing::deliver::Draft;
use crate::engine::routing::recipients::{Own, Target};
use crate::engine::{Engine, Timer, sys_topics};
use crate::message::{Content, Message};
use crate::resources::users::HoldsTooMuch;
use crate::wire::Qos;

/// A message is not retained: the store, or its user, has as much as it may.
#[derive(Debug)]
pub(super) struct RetainedFull(pub DropCause);

/// A retained message as every core keeps it. Whichever core it was published on, the one with the
/// highest stamp stays, so that all stores come to hold the same.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// When it was published, by a clock that all cores agree on, and where: no two are equal.
    pub stamp: u64,
    /// None takes the one before away. That is remembered until no older one can come any more.
    pub message: Option<Message>,
}

/// Retained messages taken away, remembered so that no older one comes back.
#[derive(Debug, Default)]
pub(super) struct Graves {
    /// By stamp, with their topics.
    buried: VecDeque<(u64, Box<str>)>,
    /// A timer looks at them.
    is_timed: bool,
    /// More could be forgotten than are at a time.
    pub has_more: bool,
}

/// Bits of a stamp that name the core; those above are the clock, in microseconds.
pub(super) const STAMP_CORE_BITS: u32 = 10;
/// Those bits.
pub(super) const STAMP_CORE_MASK: u64 = (1 << STAMP_CORE_BITS) - 1;

/// Messages taken from the store at a time.
const BATCH: usize = 64;

impl Engine {
    /// Keeps a message for later subscribers, in place of the one before [MQTT-3.3.1-5]; an empty
    /// payload takes it away [MQTT-3.3.1-6], [MQTT-3.3.1-7]. The other cores are to be told.
    /// `publisher` is the session for whose user it counts.
    pub(super) fn retain(
        &mut self,
        content: &Content<'_>,
        publisher: Option<SessionId>,
    ) -> Result<Stored, RetainedFull> {
        let is_set = !content.payload.is_empty();
        if is_set && !sys_topics::is_ours(content.topic) && !self.has_room_to_retain(content) {
            return Err(RetainedFull(DropCause::RetainedFull));
        }
        let stamp = self.next_stamp();
        if is_set {
            self.count_for_user(content, stamp, publisher)?;
        }
        let message = is_set.then(|| content.to_message(&self.links.ledger));
        let stored = Stored { stamp, message };
        self.store(content.topic, &stored);
        if !sys_topics::is_ours(content.topic) {
            self.tell_retained(content, stored.stamp);
        }
        Ok(stored)
    }

    fn has_room_to_retain(&mut self, content: &Content<'_>) -> bool {
        if self.has_free_room_to_retain(content) {
            return true;
        }
        // What has expired keeps nothing out, though there was no time to take it away yet.
        self.expire_some();
        self.has_free_room_to_retain(content)
    }

    fn has_free_room_to_retain(&self, content: &Content<'_>) -> bool {
        let (metrics, limits) = (&self.metrics, &self.settings.limits);
        let old = self.retained.get(content.topic).and_then(|old| old.message.as_ref());
        let old_bytes = old.map_or(0, |old| old.content().bytes() as u64);
        let messages = metrics.retained_messages - u64::from(old.is_some()) + 1;
        let bytes = metrics.retained_bytes - old_bytes + content.bytes() as u64;
        messages <= limits.retained_messages_max.into()
            && bytes <= limits.retained_bytes_max
            && !self.memory_is_full()
    }

    /// Counts a message that is to be retained for the user of the session that published it.
    fn count_for_user(
        &self,
        content: &Content<'_>,
        stamp: u64,
        publisher: Option<SessionId>,
    ) -> Result<(), RetainedFull> {
        let bounds = &self.settings.protection;
        if !bounds.bounds_retained() {
            return Ok(());
        }
        let session = publisher.and_then(|session| self.sessions.get(session));
        let Some(user) = session.and_then(|session| session.membership()) else { return Ok(()) };
        let replaced = self.retained.get(content.topic).map(|kept| kept.stamp);
        let counted = (stamp, content.bytes() as u64);
        let users = self.place.users();
        users
            .retain(user, counted, replaced, bounds, &self.links.ledger)
            .map_err(|HoldsTooMuch| RetainedFull(DropCause::UserRetainedFull))
    }

    /// A message does not count for its user any more.
    fn forget_user_of(&self, stamp: u64) {
        if self.settings.protection.bounds_retained() {
            self.place.users().forget_retained(stamp);
        }
    }

    /// A stamp that all later ones exceed, and none so far.
    pub(super) fn latest_stamp(&self) -> u64 {
        self.clock << STAMP_CORE_BITS | STAMP_CORE_MASK
    }

    /// A hybrid logical clock (Kulkarni et al., 2014): later than everything seen, and near the
    /// time of day that all cores share.
    fn next_stamp(&mut self) -> u64 {
        self.clock = self.now.0.max(self.clock + 1);
        self.clock << STAMP_CORE_BITS | u64::from(self.core().0)
    }

    /// Puts a message into the store, unless a younger one is there.
    pub(super) fn store(&mut self, topic: &str, stored: &Stored) {
        self.clock = self.clock.max(stored.stamp >> STAMP_CORE_BITS);
        if self.retained.get(topic).is_some_and(|kept| kept.stamp > stored.stamp) {
            return self.forget_user_of(stored.stamp);
        }
        if let Some(message) = &stored.message {
            self.count_retained(topic, message, 1);
            self.expiries.add(message);
        }
        let is_alone = self.mesh.is_alone();
        let old = match (&stored.message, is_alone) {
            (None, true) => self.retained.edit().remove(topic),
            _ => self.retained.edit().insert(topic, stored.clone()),
        };
        if let Some(Stored { stamp, message: Some(old) }) = old {
            self.count_retained(topic, &old, -1);
            if stored.message.as_ref().is_none_or(|new| !new.is_same(&old)) {
                self.expiries.remove(&old);
                self.forget_user_of(stamp);
            }
        }
        self.arm_expiry();
        if stored.message.is_none() && !is_alone {
            self.bury(topic, stored.stamp);
        }
    }

    /// The broker's own topics are few, and take nothing from the clients' bounds.
    pub(super) fn count_retained(&mut self, topic: &str, message: &Message, messages: i64) {
        if !sys_topics::is_ours(topic) {
            let bytes = message.content().bytes() as i64 * messages;
            let metrics = &mut self.metrics;
            metrics.retained_messages = metrics.retained_messages.saturating_add_signed(messages);
            metrics.retained_bytes = metrics.retained_bytes.saturating_add_signed(bytes);
        }
    }

    /// Remembers that a topic has no message, until every core was heard to be past that time.
    fn bury(&mut self, topic: &str, stamp: u64) {
        self.links.ledger.charge(limits::GRAVE_BYTES + topic.len());
        self.graves.buried.push_back((stamp, topic.into()));
        self.look_at_graves_later();
    }

    fn look_at_graves_later(&mut self) {
        if !self.graves.is_timed && !self.graves.buried.is_empty() {
            self.graves.is_timed = true;
            self.timers.arm(self.now.after_s(limits::GRAVES_LOOK_S), Timer::Graves);
        }
    }

    /// Forgets what all other cores are past, and asks them what time it is there: some may not
    /// remember the same, as they have a younger message.
    pub(super) fn look_at_graves(&mut self) {
        self.graves.is_timed = false;
        self.forget_graves();
        debug_assert!(self.core().0 < 1 << STAMP_CORE_BITS);
        self.mesh.ask_time();
        self.look_at_graves_later();
    }

    /// Goes on with those for which there was no time in the turn before.
    pub(super) fn go_on_with_graves(&mut self) {
        if self.graves.has_more {
            self.forget_graves();
        }
    }

    fn forget_graves(&mut self) {
        let heard = self.place.others().map(|core| self.heard[usize::from(core.0)]).min();
        let heard = heard.unwrap_or(u64::MAX);
        let is_past = |&mut (stamp, _): &mut (u64, _)| stamp >> STAMP_CORE_BITS <= heard;
        let mut steps = limits::RETAINED_TAKEN_STEPS;
        while steps > 0
            && let Some((stamp, topic)) = self.graves.buried.pop_front_if(is_past)
        {
            steps = steps.saturating_sub(steps_to_take(&topic));
            self.links.ledger.release(limits::GRAVE_BYTES + topic.len());
            if self.retained.get(&topic).is_some_and(|kept| kept.stamp == stamp) {
                self.retained.edit().remove(&topic);
            }
        }
        self.graves.has_more = steps == 0;
    }

    /// Sends retained messages that new subscriptions are owed, as far as the client's window and
    /// outbox allow; it is called again when they allow more.
    pub(super) fn pump_feeds(&mut self, slot: u32) {
        let session = self.links.connections[slot as usize].session().expect("open");
        loop {
            if self.work.is_spent() {
                let id = self.links.id(slot);
                return self.mark_ready(id);
            }
            let room = self.room_for_retained(slot, session);
            let state = &mut self.sessions[session];
            let Some(feed) = state.feeds.first_mut().filter(|_| room.messages > 0) else { return };
            let mut batch = Batch::default();
            let (target, scan) = (feed.target(session), &mut feed.cursor);
            let filter = self.index.text(feed.subscription);
            self.work.spend(match shards::has_wildcard(&filter) {
                true => limits::RETAINED_STEPS_MAX.min(self.retained.len()) / 8 + 2,
                false => 2 + filter.len() / 64,
            });
            let scanned = batch.take(&self.retained, &filter, scan, &room);
            let is_done = scanned == ScanState::Done;
            let is_resting = batch.messages.is_empty() && !is_done;
            if is_done {
                state.feeds.end_first();
            }
            for message in batch.messages {
                self.send_retained(&target, &message);
            }
            if is_resting {
                if !batch.is_full {
                    // Many topics were walked in vain: others have their turn first.
                    let id = self.links.id(slot);
                    self.mark_ready(id);
                }
                return;
            }
        }
    }

    /// What the client can take now at once. None of it may have to queue, where a live message
    /// that is newer could overtake it.
    fn room_for_retained(&self, slot: u32, session: SessionId) -> Room {
        let connection = &self.links.connections[slot as usize];
        let pending = connection.pending_bytes();
        let state = &self.sessions[session];
        let messages = match (&state.outbound, state.feeds.first()) {
            _ if pending > self.outbox_behind_bytes() => 0,
            (None, _) => BATCH.min(connection.window.into()),
            (Some(outbound), Some(feed)) if feed.qos != Qos::AtMostOnce => {
                outbound.room().min(BATCH)
            }
            _ => BATCH,
        };
        let bytes = self.outbox_behind_bytes().saturating_sub(pending);
        Room { messages, bytes, is_all_taken: pending == 0 }
    }

    fn send_retained(&mut self, target: &Target, message: &Message) {
        if message.is_expired(self.now) {
            return; // it is about to be taken away
        }
        self.template.begin(1);
        // [MQTT-3.3.1-8]: sent for a new subscription, hence with the RETAIN flag.
        let mut draft = Draft::of(message, message.content(), true);
        self.deliver(target, &mut draft, None);
    }
}

/// About what it costs to take a topic out of the store: its levels are, one by one.
pub(super) fn steps_to_take(topic: &str) -> usize {
    8 + topic.len() / 8
}

/// How much a client can take.
struct Room {
    messages: usize,
    bytes: usize,
    /// Nothing waits for it: one message fits, however large.
    is_all_taken: bool,
}

/// Messages taken from the store for a client.
#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    bytes: usize,
    /// There was one more, for which there was no room.
    is_full: bool,
}

impl Batch {
    fn take(
        &mut self,
        retained: &shards::RetainedIndex<Stored>,
        filter: &str,
        cursor: &mut Cursor,
        room: &Room,
    ) -> ScanState {
        retained.scan(filter, cursor, limits::RETAINED_STEPS_MAX, &mut |_topic, stored| {
            let Some(message) = &stored.message else { return ScanStep::Next };
            let bytes = message.content().bytes();
            let is_first = self.messages.is_empty() && room.is_all_taken;
            self.is_full = self.messages.len() >= room.messages
                || (self.bytes + bytes > room.bytes && !is_first);
            if self.is_full {
                return ScanStep::StopBefore;
            }
            self.bytes += bytes;
            self.messages.push(message.clone());
            ScanStep::Next
        })
    }
}

impl crate::session::state::RetainedFeed {
    fn target(&self, session: SessionId) -> Target {
        Target {
            session,
            qos: self.qos,
            retain_as_published: true,
            own: Own::Deliver,
            subscription_identifiers: self.subscription_identifiers.clone(),
        }
    }
}
