//! Retained messages: the latest message of each topic, kept for later subscribers.
//!
//! Every core keeps all of them. The message with the highest stamp wins, so that all cores end up with
//! the same messages in whatever order they hear of them; a removed message leaves a tombstone until no
//! older message can arrive. New subscriptions receive retained messages by cursor, see `replay`.

mod clock;
mod expiry;
mod replay;
mod tombstones;

use std::cmp::Ordering;

use shards::{Cursor, RetainedIndex, ScanState, ScanStep};

use clock::StampClock;
pub(in crate::engine) use clock::{clock_of, core_of};
use expiry::Expiries;
use tombstones::Tombstones;

use crate::base::clock::Now;
use crate::base::ids::{CoreId, SessionId};
use crate::base::limits;
use crate::base::metrics::{Drop as DropCause, Metrics};
use crate::config::Protection;
use crate::engine::config::Config;
use crate::engine::mesh::Mesh;
use crate::engine::timers::{Timer, Timers};
use crate::engine::{Engine, sys_topics};
use crate::message::{Content, Message};
use crate::resources::accounted::Accounted;
use crate::resources::gauges::{Ledger, Place};
use crate::resources::users::{Membership, QuotaExceeded, Users};

/// A message is not retained: the store, or its user, holds as much as it may.
#[derive(Debug)]
pub(super) struct RetainedFull(pub DropCause);

/// The retained message of a topic, as every core keeps it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// When it was published, by a clock that all cores agree on, and on which core: unique within a process.
    pub stamp: u64,
    /// `None` removes the message before it: a tombstone.
    pub message: Option<Message>,
}

impl Stored {
    /// Whether it takes the place of another one of its topic. Two nodes may give equal stamps; then a tombstone does, and
    /// of two messages the content decides, so that all nodes keep the same one.
    fn replaces(&self, other: &Self) -> bool {
        match self.stamp.cmp(&other.stamp) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => self.rank() >= other.rank(),
        }
    }

    fn rank(&self) -> impl Ord {
        let content = self.message.as_ref().map(Message::content);
        let of_message = content.map(|of| (of.payload, of.passed_on, u8::from(of.qos)));
        (of_message.is_none(), of_message)
    }
}

/// The retained messages of one core.
#[derive(Debug)]
pub(in crate::engine) struct RetainedStore {
    by_topic: Accounted<RetainedIndex<Stored>>,
    expiries: Expiries,
    tombstones: Tombstones,
    clock: StampClock,
    /// Messages of clients, their bytes, and how many of them have expired.
    messages: u64,
    bytes: u64,
    expired: u64,
    messages_max: u64,
    bytes_max: u64,
    protection: Protection,
    /// Whether messages may have been counted for users: their number was limited at some time.
    counts_users: bool,
    users: Users,
    ledger: Ledger,
}

impl RetainedStore {
    /// An empty store. `seed` is the same for all cores.
    pub(in crate::engine) fn new(place: &Place, config: &Config, seed: u64) -> Self {
        let ledger = place.ledger();
        Self {
            by_topic: Accounted::new(RetainedIndex::new(seed), ledger.clone()),
            expiries: Expiries::new(ledger.clone()),
            tombstones: Tombstones::new(ledger.clone()),
            clock: StampClock::new(place),
            messages: 0,
            bytes: 0,
            expired: 0,
            messages_max: config.limits.retained_messages_max.into(),
            bytes_max: config.limits.retained_bytes_max,
            protection: config.protection.clone(),
            counts_users: config.protection.bounds_retained(),
            users: place.users().clone(),
            ledger: ledger.clone(),
        }
    }

    /// Other limits hold for the next message.
    pub(in crate::engine) fn set_limits(&mut self, config: &Config) {
        self.messages_max = config.limits.retained_messages_max.into();
        self.bytes_max = config.limits.retained_bytes_max;
        self.counts_users |= config.protection.bounds_retained();
        self.protection.clone_from(&config.protection);
    }

    /// Whether no topic has a message or a tombstone.
    #[inline]
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Topics with a message or a tombstone.
    pub(in crate::engine) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// The stamp of a topic's message or tombstone.
    pub(in crate::engine) fn stamp(&self, topic: &str) -> Option<u64> {
        self.by_topic.get(topic).map(|stored| stored.stamp)
    }

    /// Writes what the store counts.
    pub(in crate::engine) fn count_into(&self, metrics: &mut Metrics) {
        metrics.retained_messages = self.messages;
        metrics.retained_bytes = self.bytes;
        metrics.retained_expired = self.expired;
        metrics.retained_topic_bytes = self.by_topic.charged() as u64;
    }

    /// Retains a message that was published on this core, in place of the one before [MQTT-3.3.1-5]; an
    /// empty payload removes it [MQTT-3.3.1-6], [MQTT-3.3.1-7]. The message counts for `user`.
    /// `memory_bytes_max` is what this core may hold in all.
    pub(in crate::engine) fn retain(
        &mut self,
        content: &Content<'_>,
        user: Option<&Membership>,
        memory_bytes_max: u64,
        now: Now,
        timers: &mut Timers,
    ) -> Result<Stored, RetainedFull> {
        let is_set = !content.payload.is_empty();
        if is_set
            && !sys_topics::is_ours(content.topic)
            && !self.has_room(content, memory_bytes_max)
        {
            // An expired message that is not removed yet keeps no other message out.
            self.remove_expired(now, timers);
            if !self.has_room(content, memory_bytes_max) {
                return Err(RetainedFull(DropCause::RetainedFull));
            }
        }
        let stamp = self.clock.next_stamp(now);
        if is_set && let Some(user) = user {
            self.count_for_user(content, stamp, user)?;
        }
        let message = is_set.then(|| content.to_message(&self.ledger));
        let stored = Stored { stamp, message };
        self.store(content.topic, &stored, now, timers);
        Ok(stored)
    }

    fn has_room(&self, content: &Content<'_>, memory_bytes_max: u64) -> bool {
        let old = self.by_topic.get(content.topic).and_then(|old| old.message.as_ref());
        let old_bytes = old.map_or(0, |old| old.content().bytes() as u64);
        let messages = self.messages - u64::from(old.is_some()) + 1;
        let bytes = self.bytes - old_bytes + content.bytes() as u64;
        messages <= self.messages_max
            && bytes <= self.bytes_max
            && self.ledger.bytes() < memory_bytes_max
    }

    fn count_for_user(
        &self,
        content: &Content<'_>,
        stamp: u64,
        user: &Membership,
    ) -> Result<(), RetainedFull> {
        if !self.protection.bounds_retained() {
            return Ok(());
        }
        let counted = (stamp, content.bytes() as u64);
        let replaced = self.stamp(content.topic);
        self.users
            .retain(user, counted, replaced, &self.protection, &self.ledger)
            .map_err(|QuotaExceeded| RetainedFull(DropCause::UserRetainedFull))
    }

    /// The message with this stamp no longer counts for its user.
    fn forget_user_of(&self, stamp: u64) {
        if self.counts_users {
            self.users.remove_retained(stamp);
        }
    }

    /// Stores a message, or a tombstone, of whatever core, unless a later one is stored.
    pub(in crate::engine) fn store(
        &mut self,
        topic: &str,
        stored: &Stored,
        now: Now,
        timers: &mut Timers,
    ) {
        self.clock.advance(clock_of(stored.stamp));
        if let Some(kept) = self.by_topic.get(topic).filter(|kept| !stored.replaces(kept)) {
            if kept.stamp != stored.stamp {
                self.forget_user_of(stored.stamp);
            }
            return;
        }
        if let Some(message) = &stored.message {
            self.count(topic, message, 1);
            self.expiries.add(message);
        }
        let is_alone = self.clock.is_alone();
        let old = match (&stored.message, is_alone) {
            (None, true) => self.by_topic.edit().remove(topic),
            _ => self.by_topic.edit().insert(topic, stored.clone()),
        };
        if let Some(Stored { stamp, message: Some(old) }) = old {
            self.count(topic, &old, -1);
            if stored.message.as_ref().is_none_or(|new| !new.is_same(&old)) {
                self.expiries.remove(&old);
                self.forget_user_of(stamp);
            }
        }
        self.expiries.arm(now, timers);
        if stored.message.is_none() && !is_alone {
            self.tombstones.add(topic, stored.stamp);
            self.arm_tombstones(now, timers);
        }
    }

    /// The broker's own topics are few, and do not count against the clients' limits.
    fn count(&mut self, topic: &str, message: &Message, messages: i64) {
        if !sys_topics::is_ours(topic) {
            let bytes = message.content().bytes() as i64 * messages;
            self.messages = self.messages.saturating_add_signed(messages);
            self.bytes = self.bytes.saturating_add_signed(bytes);
        }
    }

    /// A stamp that no stamp so far exceeds, and every later one does.
    pub(in crate::engine) fn latest_stamp(&self) -> u64 {
        self.clock.latest_stamp()
    }

    /// The clock to tell another core: all later stamps of this core exceed it.
    #[inline]
    pub(in crate::engine) fn read_clock(&mut self, now: Now) -> u64 {
        self.clock.read(now)
    }

    /// Later stamps of this core exceed `clock`.
    pub(in crate::engine) fn advance_clock(&mut self, clock: u64) {
        self.clock.advance(clock);
    }

    /// Notes the clock of another core.
    #[inline]
    pub(in crate::engine) fn hear_clock(&mut self, core: CoreId, clock: u64) {
        self.clock.hear(core, clock);
    }

    /// A node has joined the cluster, or has left it.
    #[cfg(feature = "cluster")]
    pub(in crate::engine) fn set_member(&mut self, node: CoreId, is_member: bool) {
        self.clock.set_member(node, is_member);
    }

    /// Messages and tombstones of all topics, from `cursor` on, and the steps that this took.
    #[cfg(feature = "cluster")]
    pub(in crate::engine) fn scan_stored(
        &self,
        cursor: &mut Cursor,
        visit: &mut dyn FnMut(&str, &Stored) -> ScanStep,
    ) -> (ScanState, usize) {
        let mut seen = 0;
        let state =
            self.by_topic.scan_all(cursor, limits::RETAINED_STEPS_MAX, &mut |topic, stored| {
                seen += 1;
                visit(topic, stored)
            });
        (state, seen)
    }

    /// Messages that match a filter, from `cursor` on.
    fn scan(
        &self,
        filter: &str,
        cursor: &mut Cursor,
        visit: &mut dyn FnMut(&Message) -> ScanStep,
    ) -> ScanState {
        self.by_topic.scan(filter, cursor, limits::RETAINED_STEPS_MAX, &mut |_topic, stored| {
            stored.message.as_ref().map_or(ScanStep::Next, &mut *visit)
        })
    }

    /// The message or tombstone of a topic.
    #[cfg(feature = "admin")]
    pub(in crate::engine) fn stored(&self, topic: &str) -> Option<&Stored> {
        self.by_topic.get(topic)
    }

    /// The number of messages, without the broker's own.
    #[cfg(feature = "admin")]
    pub(in crate::engine) fn messages(&self) -> u64 {
        self.messages
    }

    /// Messages and tombstones that match a filter, with their topics, from `cursor` on; at most `levels_max`
    /// levels are visited.
    #[cfg(feature = "admin")]
    pub(in crate::engine) fn list(
        &self,
        filter: &str,
        cursor: &mut Cursor,
        levels_max: usize,
        visit: &mut dyn FnMut(&str, &Stored) -> ScanStep,
    ) -> ScanState {
        self.by_topic.scan(filter, cursor, levels_max, visit)
    }

    /// All messages and tombstones, from `cursor` on.
    pub(in crate::engine) fn scan_all(
        &self,
        cursor: &mut Cursor,
        visit: &mut dyn FnMut(&str, &Stored) -> ScanStep,
    ) -> ScanState {
        self.by_topic.scan_all(cursor, limits::RETAINED_STEPS_MAX, visit)
    }

    /// Whether expired messages or old tombstones are left for the next turn.
    pub(in crate::engine) fn has_more_to_remove(&self) -> bool {
        self.expiries.has_more || self.tombstones.has_more
    }

    /// Continues with expired messages and old tombstones that the turn before had no time for.
    pub(in crate::engine) fn continue_removing(&mut self, now: Now, timers: &mut Timers) {
        if self.expiries.has_more {
            self.remove_due(now, timers);
        }
        if self.tombstones.has_more {
            self.remove_tombstones();
        }
    }

    /// The timer for expired messages fired.
    pub(in crate::engine) fn handle_expiry_timer(&mut self, now: Now, timers: &mut Timers) {
        if self.expiries.take_timer(now) {
            self.remove_due(now, timers);
        }
    }

    fn remove_due(&mut self, now: Now, timers: &mut Timers) {
        self.expiries.has_more = self.remove_expired(now, timers);
        self.expiries.arm(now, timers);
    }

    /// Removes expired messages, a limited number; returns whether there may be more.
    fn remove_expired(&mut self, now: Now, timers: &mut Timers) -> bool {
        let mut steps = limits::RETAINED_TAKEN_STEPS;
        while steps > 0 {
            let Some(message) = self.expiries.first_due(now) else { return false };
            steps = steps.saturating_sub(steps_to_remove(message.content().topic));
            self.expire(&message, now, timers);
        }
        true
    }

    /// Removes an expired message. Each core notices the expiry by itself, and so does the journal,
    /// which has the message's deadline.
    fn expire(&mut self, message: &Message, now: Now, timers: &mut Timers) {
        let topic = message.content().topic;
        let is_it = |kept: &&Stored| kept.message.as_ref().is_some_and(|m| m.is_same(message));
        let Some(stamp) = self.by_topic.get(topic).filter(is_it).map(|kept| kept.stamp) else {
            debug_assert!(false, "a message that is not retained has no expiry");
            self.expiries.remove(message);
            return;
        };
        self.expired += 1;
        // A tombstone, as an older message may still be on its way here.
        self.store(topic, &Stored { stamp, message: None }, now, timers);
    }

    /// The timer for tombstones fired: removes tombstones, and asks all other cores for their clocks. A core
    /// that has a younger message has no tombstone, and would not send its clock otherwise.
    pub(in crate::engine) fn handle_tombstone_timer(
        &mut self,
        now: Now,
        timers: &mut Timers,
        mesh: &mut Mesh,
    ) {
        self.tombstones.is_timed = false;
        self.remove_tombstones();
        self.arm_tombstones(now, timers);
        mesh.ask_time();
    }

    fn arm_tombstones(&mut self, now: Now, timers: &mut Timers) {
        if !self.tombstones.is_timed && !self.tombstones.is_empty() {
            self.tombstones.is_timed = true;
            timers.arm(now.after_s(limits::TOMBSTONES_CHECK_S), Timer::Tombstones);
        }
    }

    /// Removes the tombstones that all other cores' clocks have passed, a limited number.
    fn remove_tombstones(&mut self) {
        let heard = self.clock.heard_from_all();
        let mut steps = limits::RETAINED_TAKEN_STEPS;
        while steps > 0
            && let Some((stamp, topic)) = self.tombstones.pop_passed(heard)
        {
            steps = steps.saturating_sub(steps_to_remove(&topic));
            if self.stamp(&topic) == Some(stamp) {
                self.by_topic.edit().remove(&topic);
            }
        }
        self.tombstones.has_more = steps == 0;
    }
}

/// Roughly what it costs to remove a topic from the index, level by level.
fn steps_to_remove(topic: &str) -> usize {
    8 + topic.len() / 8
}

impl Engine {
    /// Retains a message that was published on this core, and logs it. The caller forwards it to the
    /// other cores. The message counts for the user of the session `publisher`.
    pub(super) fn retain(
        &mut self,
        content: &Content<'_>,
        publisher: Option<SessionId>,
    ) -> Result<Stored, RetainedFull> {
        let session = publisher.and_then(|session| self.sessions.get(session));
        let user = session.and_then(|session| session.membership());
        let memory_bytes_max = self.memory.bytes_max_here();
        let (now, timers) = (self.now, &mut self.timers);
        let stored = self.retained.retain(content, user, memory_bytes_max, now, timers)?;
        if !sys_topics::is_ours(content.topic) {
            self.durability.append_retained(content, stored.stamp);
        }
        Ok(stored)
    }
}
