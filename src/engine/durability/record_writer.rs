//! What is told to the store, and what follows when it has it. Everything of sessions that outlive
//! their connection is told, and what is retained; each core tells of its own sessions, and of the
//! messages that were published on it to be retained.

use crate::session::outbound::{Delivery, Outbound, Telling};
use shards::{Cursor, ScanStep, SubscriberId, Subscription};

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, CoreId, SessionId};
use crate::base::limits;
use crate::engine::durability::journal::Journal;
use crate::engine::durability::wills;
use crate::engine::mesh::batch::Once;
use crate::engine::mesh::lanes::Awaited;
use crate::engine::routing::recipients::Sharing;
use crate::engine::{Engine, Timer, retained, sys_topics};
use crate::message;
use crate::storage::commit::{Keeping, RecordBatch, RecordRef, StoreState};
use crate::storage::record::{Exchange, Record, SessionNumber};
use crate::wire::PacketIdentifier;

/// Where telling everything anew has got to.
#[derive(Debug)]
pub(in crate::engine) struct Checkpoint {
    number: u64,
    /// What the other cores have to have stored before it begins: of QoS 2 messages that came before
    /// it, the store may forget then which sessions have them, as they count as received.
    barriers: Vec<(CoreId, u64)>,
    /// The next session, by its place.
    session: usize,
    /// The retained messages that follow.
    retained: Cursor,
    /// The next of the Wills that a broker's end left; none when they are told.
    wills: Option<usize>,
}

impl Engine {
    /// Begins to tell what is to be kept. To be called before the first client is there.
    pub fn keep(&mut self, keeping: Keeping) {
        self.journal = Some(Box::new(Journal::new(keeping, self.core())));
    }

    /// The store has gone on: acknowledgements that waited for it leave.
    pub fn handle_stored(&mut self, now: Now, stored: StoreState) {
        self.set_now(now);
        let Some(journal) = &mut self.journal else { return };
        let is_more = journal.note_stored(stored);
        self.metrics.store_bytes = stored.bytes;
        self.metrics.store_syncs = stored.syncs;
        self.metrics.store_failing = u64::from(stored.is_failing);
        self.metrics.store_full = u64::from(stored.is_full);
        if is_more {
            self.mesh.note_stored(stored.up_to);
            while let Some(awaited) = self.journal.as_mut().and_then(|j| j.next_answer()) {
                self.note_awaited(awaited);
            }
            while let Some(id) = self.journal.as_mut().and_then(|j| j.next_connection()) {
                self.go_on_stored(id);
            }
        }
        self.release_waiting_for_store();
        if self.checkpoint.is_none()
            && let Some(number) = self.journal.as_ref().and_then(|j| j.checkpoint_due())
        {
            self.checkpoints = number;
            let barriers = self.mesh.barriers();
            let retained = Cursor::default();
            let wills = Some(0);
            self.checkpoint = Some(Checkpoint { number, barriers, session: 0, retained, wills });
        }
    }

    fn release_waiting_for_store(&mut self) {
        while let Some(journal) = &mut self.journal
            && !journal.is_loaded()
            && let Some(publisher) = journal.waiting.pop_front()
        {
            self.connections.resume_reading(publisher, self.now);
        }
    }

    /// A connection that waited until something was stored goes on.
    fn go_on_stored(&mut self, id: ConnectionId) {
        self.connections.open_gate(id);
        self.connections.go_on_to_end(id);
        if self.connections.get_mut(id).is_some_and(|connection| connection.session().is_some()) {
            self.after_progress(id);
        }
    }

    /// What is to be stored, if it is time to hand it over. Called at the end of a turn until there
    /// is none.
    pub fn poll_records(&mut self) -> Option<RecordBatch> {
        self.go_on_with_checkpoint();
        let journal = self.journal.as_mut()?;
        if journal.is_resting() && !self.records_rest {
            self.records_rest = true;
            self.timers.arm(self.now.after_s(limits::RECORDS_REST_S), Timer::Records);
        }
        journal.has_batch().then(|| journal.seal())
    }

    /// Ends of deliveries have waited for other records long enough.
    pub(in crate::engine) fn end_rest_of_records(&mut self) {
        self.records_rest = false;
        if let Some(journal) = &mut self.journal {
            journal.hurry();
        }
    }

    /// Whether [`Self::poll_records`] has more to tell though nothing happens.
    pub fn has_records(&self) -> bool {
        let goes_on = |checkpoint: &Checkpoint| self.mesh.are_receipted(&checkpoint.barriers);
        self.checkpoint.as_ref().is_some_and(goes_on)
            && self.journal.as_ref().is_some_and(|j| j.bytes() == 0)
    }

    /// Everything that waits to be stored, whether or not the store has taken the last of it: the
    /// broker stops.
    pub fn drain_records(&mut self) -> Option<RecordBatch> {
        self.journal.as_mut().filter(|journal| journal.bytes() > 0).map(|journal| journal.seal())
    }

    /// Whether anything is kept, and waited for.
    pub(in crate::engine) fn journal_waits(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.waits())
    }

    /// How much has been told, for [`Self::batch_since`].
    #[inline]
    pub(in crate::engine) fn mark(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.written())
    }

    /// The batch that has to be stored when something was told since `mark`.
    #[inline]
    pub(in crate::engine) fn batch_since(&self, mark: u64) -> Option<u64> {
        self.journal.as_ref()?.batch_since(mark)
    }

    /// The batch that has to be stored for all that was told so far.
    pub(in crate::engine) fn batch_of_all(&self) -> Option<u64> {
        self.journal.as_ref()?.batch_of_all()
    }

    pub(in crate::engine) fn is_stored(&self, batch: u64) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.has(batch))
    }

    pub(in crate::engine) fn stored_up_to(&self) -> u64 {
        self.journal.as_ref().map_or(u64::MAX, |journal| journal.stored_up_to())
    }

    pub(in crate::engine) fn await_stored(&mut self, batch: u64, awaited: Awaited) {
        if let Some(journal) = &mut self.journal {
            journal.await_batch(batch, awaited);
        }
    }

    /// Whether so much waits for the store that nobody new is let in: each CONNECT may add to it.
    pub(in crate::engine) fn store_is_far_behind(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_far_behind())
    }

    /// Whether the store cannot write for the moment. Clients whose sessions it has nothing to do with
    /// are let in all the same, also with Wills.
    pub(in crate::engine) fn store_is_failing(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_failing())
    }

    /// Lets nothing leave on a new connection until what CONNACK promises is stored.
    pub(in crate::engine) fn gate(&mut self, id: ConnectionId, session: SessionId, mark: u64) {
        let Some(journal) = &mut self.journal else { return };
        let is_kept = self.sessions[session].number().is_some();
        let batch = match is_kept {
            true => journal.batch_of_all(),
            false => journal.batch_since(mark),
        };
        let Some(batch) = batch else { return };
        journal.wait(batch, id);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_gated = true;
        }
    }

    /// What a connection holds is sent once this turn's records are stored.
    pub(in crate::engine) fn hold_until_stored(
        &mut self,
        session: SessionId,
        id: ConnectionId,
        kept: RecordRef,
    ) {
        let Some(journal) = &mut self.journal else { return };
        let batch = journal.number();
        journal.wait(batch, id);
        if let Some(outbound) = &mut self.sessions[session].outbound {
            outbound.hold_until(batch, kept);
        }
    }

    /// Leaves a publisher unread while the store has too much to do, or no room.
    #[inline]
    pub(in crate::engine) fn rest_for_store(&mut self, publisher: ConnectionId, mark: u64) {
        if self.journal.is_some() {
            self.rest_while_loaded(publisher, mark);
        }
    }

    fn rest_while_loaded(&mut self, publisher: ConnectionId, mark: u64) {
        let Some(journal) = &self.journal else { return };
        if !journal.is_loaded() || journal.written() == mark {
            return;
        }
        if self.connections.get_mut(publisher).is_none_or(|connection| connection.holders > 0) {
            return;
        }
        self.connections.pause_reading(publisher);
        self.journal.as_mut().expect("just there").waiting.push_back(publisher);
    }

    fn tell(&mut self, record: &Record<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.write(record);
        }
    }

    /// A client is let in: its session is kept from here on, if it is to outlive the connection. True
    /// when the store knew nothing of it before.
    pub(in crate::engine) fn tell_connected(&mut self, index: SessionId) -> bool {
        let own = self.core();
        let Some(journal) = &mut self.journal else { return false };
        let state = &mut self.sessions[index];
        let expiry_interval_s = state.expiry_interval_s;
        match (state.number(), state.is_persistent()) {
            (None, true) => {
                let number = SessionNumber::new(self.connections.round(), own.0, state.generation);
                let [low, middle, high, _] = ((number.0 >> 32) as u32).to_le_bytes();
                state.era = [low, middle, high];
                let session = state.number().expect("it has an era");
                let client_identifier = state.client_identifier.as_str();
                journal.write(&Record::Session { session, client_identifier, expiry_interval_s });
                return true;
            }
            // One that is to end with its connection is kept as long: what is under way in it keeps its
            // order, and its place in exchanges from before a crash.
            (Some(session), _) => {
                journal.write(&Record::Connected { session, expiry_interval_s });
            }
            (None, false) => {}
        }
        false
    }

    /// The session has another owner than before.
    pub(in crate::engine) fn tell_owner(&mut self, index: SessionId) {
        let (Some(journal), state) = (&mut self.journal, &self.sessions[index]) else {
            return;
        };
        if let (Some(session), Some(owner)) = (state.number(), state.owner()) {
            journal.write(&Record::Owned { session, owner });
        }
    }

    pub(in crate::engine) fn tell_ended(&mut self, index: SessionId) {
        let state = &mut self.sessions[index];
        if let Some(session) = state.number() {
            state.era = [0; 3];
            self.open_exchanges.remove(&session);
            self.tell(&Record::Ended { session });
        }
    }

    fn number(&self, index: SessionId) -> Option<SessionNumber> {
        self.journal.as_ref()?;
        self.sessions[index].number()
    }

    pub(in crate::engine) fn tell_away(&mut self, index: SessionId) {
        let Some(session) = self.number(index) else { return };
        let expiry_interval_s = self.sessions[index].expiry_interval_s;
        let since_us = self.journal.as_ref().map_or(0, |journal| journal.now_us(self.now));
        self.tell(&Record::Away { session, expiry_interval_s, since_us });
    }

    pub(in crate::engine) fn tell_subscribed(
        &mut self,
        index: SessionId,
        filter: &str,
        of: &Subscription,
    ) {
        if let Some(session) = self.number(index) {
            self.tell(&subscribed(session, filter, of));
        }
    }

    pub(in crate::engine) fn tell_unsubscribed(&mut self, index: SessionId, filter: &str) {
        if let Some(session) = self.number(index) {
            self.tell(&Record::Unsubscribed { session, filter });
        }
    }

    /// A message for a client is told; its record is for the delivery to remember.
    pub(in crate::engine) fn tell_delivery(
        &mut self,
        session: SessionNumber,
        delivery: &Delivery,
        packet_identifier: u16,
        once: Option<Once>,
    ) -> RecordRef {
        let Some(journal) = &mut self.journal else { return RecordRef::default() };
        let shared = delivery.shared.map(|filter| self.router.index().text(filter));
        match (once, &shared) {
            (Some(once), Some(filter)) => journal.write(&taken_by_group(once.exchange, filter)),
            (Some(Once { exchange: Exchange { publisher, packet_identifier }, .. }), None) => {
                journal.write(&Record::Taken { session, publisher, packet_identifier });
            }
            (None, _) => {}
        }
        journal.write_delivery(session, delivery, packet_identifier, shared.as_deref())
    }

    /// Whether a session has a message from before a crash that its publisher sends again now.
    #[inline]
    pub(in crate::engine) fn has_taken(&self, index: SessionId, once: Option<Once>) -> bool {
        once.is_some_and(|once| once.dup && !self.taken.is_empty() && self.is_taken(index, once))
    }

    fn is_taken(&self, index: SessionId, once: Once) -> bool {
        let number = self.sessions[index].number();
        let taken = self.taken.get(&once.exchange);
        number.is_some_and(|number| taken.is_some_and(|taken| taken.contains(&number)))
    }

    /// A message that is not sent again is another one, whoever has one of that Packet Identifier.
    #[inline]
    pub(in crate::engine) fn forget_taken(&mut self, once: Option<Once>) {
        if let Some(once) = once.filter(|once| !once.dup) {
            self.end_exchange(once.exchange);
        }
    }

    /// The publisher knows, or is about to hear, that its message from before a crash was received: the
    /// Packet Identifier means another message from then on. The other cores hear of it before they
    /// can get that one.
    #[inline]
    fn end_exchange(&mut self, exchange: Exchange) {
        if self.taken.is_empty()
            && self.open_exchanges.is_empty()
            && self.taken_by_groups.is_empty()
        {
            return;
        }
        self.taken.remove(&exchange);
        let mut by_sessions = false;
        if let Some(of_publisher) = self.open_exchanges.get_mut(&exchange.publisher) {
            by_sessions = of_publisher.remove(&exchange.packet_identifier).is_some();
            if of_publisher.is_empty() {
                self.open_exchanges.remove(&exchange.publisher);
            }
        }
        let by_groups = self.taken_by_groups.remove(&exchange).is_some();
        if by_sessions || by_groups {
            self.mesh.send_exchange_over(exchange);
        }
    }

    /// The same, as the publisher's core says.
    pub(in crate::engine) fn take_exchange_over(&mut self, exchange: Exchange) {
        self.taken.remove(&exchange);
    }

    /// Whether a member of a shared subscription has a message from before a crash that its publisher
    /// sends again now.
    pub(in crate::engine) fn has_been_taken_by(
        &self,
        sharing: &Sharing,
        once: Option<Once>,
    ) -> bool {
        let Some(once) = once.filter(|once| once.dup) else { return false };
        let Some(groups) = self.taken_by_groups.get(&once.exchange) else { return false };
        match sharing.here {
            Some(here) => groups.contains(&*self.router.index().text(here)),
            None => groups.contains(&*sharing.text),
        }
    }

    /// A shared subscription has a message, whichever core it is still to go to.
    pub(in crate::engine) fn tell_taken_by_group(&mut self, once: Option<Once>, filter: &str) {
        if let Some(once) = once {
            self.tell(&taken_by_group(once.exchange, filter));
        }
    }

    pub(in crate::engine) fn tell_sent(
        &mut self,
        index: SessionId,
        kept: RecordRef,
        identifier: PacketIdentifier,
    ) {
        if let Some(session) = self.number(index)
            && kept.number != 0
        {
            let (delivery, packet_identifier) = (kept.number, identifier.get());
            self.tell(&Record::Sent { session, delivery, packet_identifier });
        }
    }

    pub(in crate::engine) fn tell_released(
        &mut self,
        index: SessionId,
        identifier: PacketIdentifier,
        kept: RecordRef,
    ) {
        if let Some(session) = self.number(index)
            && kept.number != 0
        {
            let (delivery, packet_identifier) = (kept.number, identifier.get());
            self.tell(&Record::Released { session, delivery, packet_identifier });
        }
    }

    /// The deliveries of a session that ended meanwhile.
    #[inline]
    pub(in crate::engine) fn tell_gone(&mut self, index: SessionId) {
        if self.journal.is_some() {
            self.tell_all_gone(index);
        }
    }

    fn tell_all_gone(&mut self, index: SessionId) {
        let state = &mut self.sessions[index];
        let (number, Some(outbound)) = (state.number(), &mut state.outbound) else { return };
        if let Some(journal) = &mut self.journal {
            journal.end_deliveries(number, outbound);
        }
    }

    /// The same of what has been taken from its session already.
    pub(in crate::engine) fn tell_gone_of(
        &mut self,
        number: Option<SessionNumber>,
        outbound: &mut Outbound,
    ) {
        if let Some(journal) = &mut self.journal {
            journal.end_deliveries(number, outbound);
        }
    }

    /// A client's QoS 2 message counts as received; the batch that has to be stored, if one has.
    pub(in crate::engine) fn tell_received(
        &mut self,
        id: ConnectionId,
        identifier: PacketIdentifier,
    ) -> Option<u64> {
        let index = self.connections.get_mut(id)?.session()?;
        let session = self.number(index)?;
        if let Some(inbound) = &mut self.sessions[index].inbound {
            inbound.note_told(identifier);
        }
        let mark = self.mark();
        let packet_identifier = identifier.get();
        self.tell(&Record::Received { session, packet_identifier });
        self.end_exchange(Exchange { publisher: session, packet_identifier });
        self.batch_since(mark)
    }

    pub(in crate::engine) fn tell_completed(
        &mut self,
        index: SessionId,
        identifier: PacketIdentifier,
    ) {
        if let Some(session) = self.number(index) {
            self.tell(&Record::Completed { session, packet_identifier: identifier.get() });
        }
    }

    pub(in crate::engine) fn tell_retained(&mut self, content: &message::Content<'_>, stamp: u64) {
        let Some(journal) = &mut self.journal else { return };
        if content.payload.is_empty() {
            return journal.write(&Record::Cleared { stamp, topic: content.topic });
        }
        let content = journal.content(content);
        journal.write(&Record::Retained { stamp, content });
    }

    /// Tells a part of everything anew, so that the store can forget what it was told before.
    fn go_on_with_checkpoint(&mut self) {
        let sessions_end = self.sessions.end();
        let (Some(checkpoint), Some(journal)) = (&mut self.checkpoint, &mut self.journal) else {
            return;
        };
        // A part of it at a time, and none while what happens now fills the batch.
        if journal.bytes() >= limits::CHECKPOINT_BYTES
            || !self.mesh.are_receipted(&checkpoint.barriers)
        {
            return;
        }
        journal.tell_anew(true);
        while checkpoint.session < sessions_end && journal.bytes() < limits::CHECKPOINT_BYTES {
            let id = SessionId::new(checkpoint.session);
            if let Some(state) = self.sessions.get_mut(id) {
                tell_anew(journal, state, self.router.index(), id.into(), checkpoint.number);
            }
            checkpoint.session += 1;
        }
        journal.tell_anew(false);
        if checkpoint.session < sessions_end || !journal.tell_contents(limits::CHECKPOINT_BYTES) {
            return;
        }
        let (cores, own) = (u64::from(self.place.cores()), u64::from(self.place.core().0));
        let mut is_done = true;
        // "$" topics are no match for "#": clients may have their own.
        self.retained.scan_all(&mut checkpoint.retained, &mut |topic, stored| {
            if journal.bytes() >= limits::CHECKPOINT_BYTES {
                is_done = false;
                return ScanStep::StopBefore;
            }
            // Every core has them all, or will: that on which a message was published is sure to
            // have it already.
            let told_by = retained::core_of(stored.stamp) % cores;
            if told_by == own && !sys_topics::is_ours(topic) {
                match &stored.message {
                    Some(message) => {
                        let content = journal.content(&message.content());
                        journal.write(&Record::Retained { stamp: stored.stamp, content });
                    }
                    None => journal.write(&Record::Cleared { stamp: stored.stamp, topic }),
                }
            }
            ScanStep::Next
        });
        if !is_done || !checkpoint.retained.is_at_end() {
            return;
        }
        checkpoint.wills =
            checkpoint.wills.and_then(|from| self.left_wills.tell_anew(journal, from));
        if checkpoint.wills.is_none() {
            for (&publisher, exchanges) in &self.open_exchanges {
                for (&packet_identifier, sessions) in exchanges {
                    for &session in sessions {
                        journal.write(&Record::Taken { session, publisher, packet_identifier });
                    }
                }
            }
            for (&exchange, groups) in &self.taken_by_groups {
                groups.iter().for_each(|filter| journal.write(&taken_by_group(exchange, filter)));
            }
            self.transit.tell_anew(journal);
            journal.end_checkpoint(checkpoint.number);
            self.checkpoint = None;
        }
    }
}

fn taken_by_group(exchange: Exchange, filter: &str) -> Record<'_> {
    let Exchange { publisher, packet_identifier } = exchange;
    Record::TakenByGroup { publisher, packet_identifier, filter }
}

fn subscribed<'a>(session: SessionNumber, filter: &'a str, of: &Subscription) -> Record<'a> {
    Record::Subscribed {
        session,
        filter,
        qos: of.options.qos(),
        no_local: of.options.no_local(),
        retain_as_published: of.options.retain_as_published(),
        identifier: of.identifier,
    }
}

/// All of a session.
fn tell_anew(
    journal: &mut Journal,
    state: &mut crate::session::state::Session,
    index: &shards::SubscriptionIndex,
    subscriber: SubscriberId,
    checkpoint: u64,
) {
    wills::tell_held(journal, state);
    let Some(session) = state.number() else { return };
    let expiry_interval_s = state.expiry_interval_s;
    let client_identifier = state.client_identifier.as_str();
    journal.write(&Record::Session { session, client_identifier, expiry_interval_s });
    if let Some(owner) = state.owner() {
        journal.write(&Record::Owned { session, owner });
    }
    for &filter in &state.subscriptions {
        if let Some(subscription) = index.get(filter, subscriber) {
            journal.write(&subscribed(session, &index.text(filter), &subscription));
        }
    }
    if let Some(inbound) = &mut state.inbound {
        for packet_identifier in inbound.tell_anew(checkpoint) {
            journal.write(&Record::Received { session, packet_identifier });
        }
    }
    if let Some(outbound) = &mut state.outbound {
        outbound.tell_anew(|telling| match telling {
            Telling::Delivery(delivery, packet_identifier) => {
                let shared = delivery.shared.map(|filter| index.text(filter));
                delivery.kept =
                    journal.write_delivery(session, delivery, packet_identifier, shared.as_deref());
            }
            Telling::Released(kept, packet_identifier) => {
                let delivery = kept.number;
                journal.write(&Record::Released { session, delivery, packet_identifier });
            }
        });
    }
    if state.connection.is_none() {
        let expires = state.expires.map(|at| journal.wall_us(at));
        let since_us = expires
            .map_or(u64::MAX, |at| at.saturating_sub(u64::from(expiry_interval_s) * 1_000_000));
        journal.write(&Record::Away { session, expiry_interval_s, since_us });
        wills::write_waiting(journal, session, state);
    }
}
