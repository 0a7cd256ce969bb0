//! Restores the state from the store: each core restores its own sessions and its share of the retained
//! messages, and then learns what it has to know of the others, before the first client connects.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;

use shards::{Fingerprint, GroupAt, SubscriptionOptions, TopicFilter};

use crate::base::clock::Now;
use crate::base::ids::{CoreId, SessionId};
use crate::base::limits;
use crate::engine::durability::Durability;
use crate::engine::retained::{Stored, clock_of};
use crate::engine::routing::Router;
use crate::engine::{Engine, sys_topics};
use crate::message::{self, Message};
use crate::resources::gauges::Ledger;
use crate::session::inbound::Inbound;
use crate::session::outbound::{Delivery, Identifiers, Outbound};
use crate::session::state::Will;
use crate::session::table::SessionTable;
use crate::storage::commit::RecordRef;
use crate::storage::image::{self, Image, OwnedContent, Part, SharedContent};
use crate::storage::record::{NoRecord, Record, SessionNumber};
use crate::wire::{PacketIdentifier, Qos};

/// State restored by one core that the other cores have to know.
#[derive(Debug)]
pub struct Restored {
    core: CoreId,
    /// The number of sessions.
    pub sessions: usize,
    /// The number of messages that are queued or in flight.
    pub messages: usize,
    /// The number of Wills of clients that were connected when the last process ended.
    pub wills: usize,
    exact: Vec<Fingerprint>,
    wildcards: Vec<String>,
    groups: Vec<(String, u32)>,
    retained: Vec<(Box<str>, Stored)>,
    clock: u64,
}

/// The part of the state that one core restores: the sessions at home there, and a share of the topics.
struct OwnPart<'a> {
    engine: &'a Engine,
}

impl OwnPart<'_> {
    fn is_home(&self, name: &str) -> bool {
        let Engine { mesh, router, .. } = self.engine;
        mesh.home(name, router.replica()) == mesh.core()
    }
}

impl Part for OwnPart<'_> {
    fn has_session(&self, client_identifier: &str) -> bool {
        self.is_home(client_identifier)
    }

    fn has_topic(&self, topic: &str) -> bool {
        self.is_home(topic)
    }
}

/// Messages with several deliveries: restored deliveries share their message too.
#[derive(Default)]
struct Messages {
    /// By the address of the content.
    of_contents: HashMap<usize, (SharedContent, Option<Message>)>,
    /// Large messages by the hash of the content. Sessions have other home cores in each process: a core may
    /// restore deliveries of a message that several cores have logged.
    equal: HashMap<u64, Message>,
}

impl Messages {
    /// The message of a delivery, unless it has expired.
    fn take(
        &mut self,
        content: &SharedContent,
        durability: &Durability,
        now: Now,
        ledger: &Ledger,
    ) -> Option<Message> {
        if content.sharers() == 1 {
            return self.restore(content.get()?, durability, now, ledger);
        }
        let address = content.address();
        let message = match self.of_contents.get(&address) {
            Some((_, message)) => message.clone(),
            None => {
                let message =
                    content.get().and_then(|of| self.restore(of, durability, now, ledger));
                self.of_contents.insert(address, (content.clone(), message.clone()));
                message
            }
        };
        // The last delivery: the other reference is that of the table.
        if content.sharers() == 2 {
            self.of_contents.remove(&address);
        }
        message
    }

    /// A message with this content: the one that has been restored before, if there is one.
    fn restore(
        &mut self,
        content: &OwnedContent,
        durability: &Durability,
        now: Now,
        ledger: &Ledger,
    ) -> Option<Message> {
        if content.payload.len() < limits::SHARED_BYTES_MIN {
            return durability.restore_message(content, now, ledger);
        }
        let hash = self.equal.hasher().hash_one(content);
        let known = self.equal.get(&hash);
        if let Some(known) = known.filter(|of| of.content() == durability.content_of(content)) {
            return Some(known.clone());
        }
        let message = durability.restore_message(content, now, ledger)?;
        self.equal.insert(hash, message.clone());
        Some(message)
    }
}

impl Durability {
    /// Numbers deliveries after those in the store.
    fn continue_deliveries(&mut self, delivery_max: u64) {
        if let Some(journal) = &mut self.journal {
            journal.begin_deliveries_at(delivery_max + 1);
        }
    }

    /// A message of the store, unless it has expired, or has a topic that no client can publish to.
    pub(super) fn restore_message(
        &self,
        content: &OwnedContent,
        now: Now,
        ledger: &Ledger,
    ) -> Option<Message> {
        shards::check_topic_name(&content.topic, usize::MAX).ok()?;
        let content = self.content_of(content);
        let has_expired = content.expires.is_some_and(|at| at.is_due(now));
        (!has_expired).then(|| content.to_message(ledger))
    }

    /// The content of a stored message, with its deadline in this process.
    fn content_of<'a>(&self, content: &'a OwnedContent) -> message::Content<'a> {
        let journal = self.journal.as_ref().expect("restoring needs a journal");
        message::Content {
            topic: &content.topic,
            payload: &content.payload,
            passed_on: &content.passed_on,
            expires: content.expires_us.map(|at| journal.deadline(at)),
            qos: Qos::try_from(content.qos).unwrap_or(Qos::AtLeastOnce),
        }
    }
}

impl Engine {
    /// Reads this core's part of a batch of records into `image`.
    pub fn read_records(&self, image: &mut Image, batch: &[u8]) -> Result<(), NoRecord> {
        image.apply(batch, &OwnPart { engine: self })
    }

    /// Restores the state in `image`; sessions and messages that have expired end with the first turn.
    /// The outcome goes to the other cores by [`Self::learn_restored`], and [`Self::end_restore`] follows.
    pub fn restore(&mut self, image: Image) -> Restored {
        let (session_max, delivery_max) = (image.session_max, image.delivery_max);
        let Image { mut sessions, wills, mut retained, taken, taken_by_groups, .. } = image;
        self.durability.dedup.restore(taken, taken_by_groups, &sessions);
        self.durability.continue_deliveries(delivery_max);
        self.connections.resume_generations(session_max);
        let mut restored = Restored {
            core: self.mesh.core(),
            sessions: 0,
            messages: 0,
            wills: wills.len(),
            exact: Vec::new(),
            wildcards: Vec::new(),
            groups: Vec::new(),
            retained: Vec::new(),
            clock: 0,
        };
        self.sessions.reserve(sessions.len());
        // In an order that does not change from run to run, later sessions first; each leaves the image
        // as it is restored.
        let mut numbers: Vec<SessionNumber> = sessions.keys().copied().collect();
        numbers.sort_unstable_by_key(|number| Reverse((number.serial(), *number)));
        let mut messages = Messages::default();
        for number in numbers {
            let session = sessions.remove(&number).expect("just seen");
            restored.sessions += usize::from(!session.client_identifier.is_empty());
            restored.messages += session.inflight.len() + session.queue.len();
            self.restore_session(number, session, &mut messages);
        }
        let (grace_min_s, ledger) = (self.config.will_grace_s, self.memory.ledger());
        let is_assigned = |name: &str| self.config.is_assigned(name);
        let known = (&self.listeners, ledger);
        self.durability.restore_wills(wills, &self.sessions, is_assigned, grace_min_s, known);
        let mut topics: Vec<Box<str>> = retained.keys().cloned().collect();
        topics.sort_unstable();
        for topic in topics {
            let newest = retained.remove(&topic).expect("just seen");
            restored.clock = restored.clock.max(clock_of(newest.stamp));
            let (durability, now, ledger) = (&self.durability, self.now, self.memory.ledger());
            let restore = |content| durability.restore_message(&content, now, ledger);
            let message = newest.content.and_then(restore);
            if message.is_some() && !sys_topics::is_ours(&topic) {
                restored.retained.push((topic, Stored { stamp: newest.stamp, message }));
            }
        }
        for (topic, stored) in &restored.retained {
            self.retained.store(topic, stored, self.now, &mut self.timers);
        }
        self.retained.advance_clock(restored.clock);
        if !self.mesh.is_alone() {
            announce_restored(&mut restored, &self.sessions, &self.router);
        }
        restored
    }

    /// Another core has restored its part.
    pub fn learn_restored(&mut self, of: &Restored) {
        if of.core == self.mesh.core() {
            return;
        }
        let core = of.core.0;
        of.exact.iter().for_each(|&filter| self.router.edit_replica().announce_exact(core, filter));
        for text in &of.wildcards {
            self.router.edit_replica().announce_wildcard(core, &filter_of(text));
        }
        for (text, members) in &of.groups {
            let at = GroupAt { core, online: 0, members: *members };
            self.router.edit_replica().set_group(&filter_of(text), at);
        }
        for (topic, stored) in &of.retained {
            self.retained.store(topic, stored, self.now, &mut self.timers);
        }
        self.retained.advance_clock(of.clock);
    }

    /// All cores have restored their parts: publishes the Wills that wait for no client to reconnect, before a client
    /// can publish, and waits for the clients of the others. A timer would fire up to a tick later.
    pub fn end_restore(&mut self) {
        if self.durability.left_wills() > 0 {
            self.publish_left_wills();
        }
    }

    fn restore_session(
        &mut self,
        number: SessionNumber,
        kept: image::Session,
        messages: &mut Messages,
    ) {
        if kept.client_identifier.is_empty() {
            return self.restore_forwards(number, &kept);
        }
        if self.sessions.find(&kept.client_identifier).is_some() {
            // A later session of the same client exists: this one was ending. Messages of shared
            // subscriptions that wait in it go to other members.
            return self.restore_ending(number, kept);
        }
        if kept.expiry_interval_s == 0 {
            // The session ended with its connection.
            return self.durability.append(&Record::Ended { session: number });
        }
        let generation = self.connections.next_generation();
        let index = self.sessions.create(&kept.client_identifier, generation);
        self.metrics.clients_disconnected += 1;
        let [low, middle, high, _] = ((number.0 >> 32) as u32).to_le_bytes();
        let is_new_absence = kept.away_since_us.is_none();
        let state = &mut self.sessions[index];
        (state.generation, state.era) = (number.0 as u32, [low, middle, high]);
        state.expiry_interval_s = kept.expiry_interval_s;
        if self.access.has_rules() {
            // The store does not know which access rules applied when messages were queued.
            state.note_new_rules();
        }
        self.sessions.make_owner(index, kept.owner.as_deref());
        self.sessions.count_restored(index, &self.config.protection);
        for (filter, subscription) in &kept.subscriptions {
            self.restore_subscription(index, filter, subscription);
        }
        self.restore_bridge(index, kept.far_subscriptions);
        if !kept.received.is_empty() {
            let mut inbound = Box::<Inbound>::default();
            let identifiers = kept.received.iter().filter_map(|&id| PacketIdentifier::new(id));
            identifiers.for_each(|identifier| assert!(inbound.receive(identifier), "a set"));
            self.sessions[index].inbound = Some(inbound);
        }
        self.restore_deliveries(index, kept.inflight, kept.queue, messages);
        self.restore_times(index, kept.away_since_us, kept.will);
        if is_new_absence {
            self.durability.append_away(&self.sessions[index], self.now);
        }
    }

    fn restore_ending(&mut self, number: SessionNumber, mut kept: image::Session) {
        let mut shared = kept.inflight;
        shared.extend(std::mem::take(&mut kept.queue));
        shared.retain(|delivery| delivery.shared.is_some());
        self.restore_forwards(
            number,
            &image::Session { inflight: Vec::new(), queue: shared.into(), ..kept },
        );
    }

    fn restore_subscription(&mut self, index: SessionId, text: &str, of: &image::Subscription) {
        let Ok(filter) = TopicFilter::parse(text, usize::MAX) else { return };
        self.add_subscription(index, &filter, stored_subscription(index, of));
    }

    fn restore_deliveries(
        &mut self,
        index: SessionId,
        inflight: Vec<image::Delivery>,
        queue: VecDeque<image::Delivery>,
        messages: &mut Messages,
    ) {
        if inflight.is_empty() && queue.is_empty() {
            return;
        }
        let mut outbound = Box::new(Outbound::new(self.memory.ledger()));
        let number = self.sessions[index].number();
        for of in inflight {
            let Some(identifier) = PacketIdentifier::new(of.packet_identifier) else { continue };
            let record = RecordRef::of_before(of.number);
            match self.restore_delivery(&of, messages) {
                Some(delivery) => outbound.restore_inflight(identifier, Ok(delivery)),
                None if of.content.is_none() => outbound.restore_inflight(identifier, Err(record)),
                // The message expired while the broker was down.
                None => self.durability.append_end_of_delivery(number, record),
            }
        }
        for of in queue {
            match self.restore_delivery(&of, messages) {
                Some(delivery) => outbound.restore_queued(delivery),
                None => {
                    let record = RecordRef::of_before(of.number);
                    self.durability.append_end_of_delivery(number, record);
                }
            }
        }
        outbound.end_restore(self.config.queue_limits.policy);
        if !outbound.is_idle() {
            let state = &mut self.sessions[index];
            if let Some(membership) = state.membership() {
                outbound.assign_to_user(membership);
            }
            state.outbound = Some(outbound);
        }
    }

    fn restore_delivery(&self, of: &image::Delivery, messages: &mut Messages) -> Option<Delivery> {
        let ledger = self.memory.ledger();
        let message = messages.take(of.content.as_ref()?, &self.durability, self.now, ledger)?;
        Some(Delivery {
            message,
            qos: Qos::try_from(of.qos).unwrap_or(Qos::AtLeastOnce),
            retain: of.retain,
            subscription_identifiers: Identifiers::new(&of.identifiers),
            shared: of.shared.as_deref().and_then(|text| self.router.index().find(text)),
            record: RecordRef::of_before(of.number),
        })
    }

    /// Restores when the session ends and its Will is due, by the time of day: the time in which the
    /// broker was down counts. For a client that was connected when the last process ended, the time
    /// begins now.
    fn restore_times(
        &mut self,
        index: SessionId,
        since_us: Option<u64>,
        will: Option<image::Will>,
    ) {
        let journal = self.durability.journal.as_ref().expect("restoring needs a journal");
        let state = &mut self.sessions[index];
        let expiry_us = u64::from(state.expiry_interval_s) * 1_000_000;
        let now_us = journal.now_us(self.now);
        let expires = (state.expiry_interval_s < u32::MAX).then(|| {
            // If the clock was set back, a session lasts no longer than its interval from now on.
            let since_us = since_us.unwrap_or(now_us).min(now_us);
            journal.deadline(since_us.saturating_add(expiry_us))
        });
        let latest_us = now_us.saturating_add(u64::from(u32::MAX) * 1_000_000);
        let due = will.as_ref().map(|will| journal.deadline(will.due_us.min(latest_us)));
        state.expires = expires;
        let will = will.and_then(|of| {
            let will = Will::restored(of.content, of.retain, of.message_expiry_interval_s)?;
            Some(will.came_through(of.listener, &self.listeners))
        });
        if let Some(will) = will {
            state.set_will(Will { due, ..will }, self.memory.ledger());
        }
        let due = due.filter(|_| state.will.is_some());
        if let Some(first) = expires.into_iter().chain(due).min() {
            self.timers.arm_session(self.now, index, &mut self.sessions, first);
        }
    }
}

/// A subscription of a session as the store has it.
pub(in crate::engine) fn stored_subscription(
    session: SessionId,
    of: &image::Subscription,
) -> shards::Subscription {
    shards::Subscription {
        subscriber: session.into(),
        options: SubscriptionOptions::new(of.qos.min(2), of.no_local, of.retain_as_published),
        identifier: of.identifier,
    }
}

fn filter_of(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, usize::MAX).expect("it was parsed where it was restored")
}

/// Collects what the other cores have to know of the sessions on this core.
fn announce_restored(restored: &mut Restored, sessions: &SessionTable, router: &Router) {
    let mut seen = std::collections::HashSet::new();
    for (_, session) in sessions.iter() {
        for &filter in &session.subscriptions {
            if !seen.insert(filter) {
                continue;
            }
            let text = router.index().text(filter);
            if filter.is_shared() {
                let members = router.index().members(filter).len() as u32;
                restored.groups.push((text, members));
            } else if shards::has_wildcard(&text) {
                restored.wildcards.push(text);
            } else {
                restored.exact.push(router.replica().fingerprint(&text));
            }
        }
    }
}
