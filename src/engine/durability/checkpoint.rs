//! Checkpoints: the complete state of this core is logged again, a part in each turn, so that the store
//! can drop all older records.

use shards::{Cursor, ScanStep, SubscriberId, SubscriptionIndex};

use crate::base::ids::{CoreId, SessionId};
use crate::base::limits;
use crate::engine::durability::Durability;
use crate::engine::durability::journal::Journal;
use crate::engine::durability::record_writer::subscribed;
use crate::engine::durability::wills;
use crate::engine::mesh::Mesh;
use crate::engine::retained::RetainedStore;
use crate::engine::{retained, sys_topics};
use crate::session::outbound::Logged;
use crate::session::state::Session;
use crate::session::table::SessionTable;
use crate::storage::record::Record;

/// How far a checkpoint has got.
#[derive(Debug)]
pub(in crate::engine) struct Checkpoint {
    number: u64,
    /// Batches that the other cores must have stored before the checkpoint: for QoS 2 messages that came
    /// earlier, the store may then forget which sessions have them, as the messages count as received.
    barriers: Vec<(CoreId, u64)>,
    /// The place of the next session.
    session: usize,
    /// The position in the retained messages.
    retained: Cursor,
    /// The next of the Wills left by a broker's end; none after the last.
    wills: Option<usize>,
}

/// The state that a checkpoint logs.
pub(super) struct State<'a> {
    pub sessions: &'a mut SessionTable,
    pub index: &'a SubscriptionIndex,
    pub retained: &'a RetainedStore,
    pub mesh: &'a Mesh,
    pub cores: u16,
}

impl Durability {
    /// Begins a checkpoint if the store has asked for one.
    pub(super) fn begin_checkpoint(&mut self, mesh: &mut Mesh) {
        if self.checkpoint.is_none()
            && let Some(number) = self.journal.as_ref().and_then(|j| j.checkpoint_due())
        {
            self.checkpoints_begun = number;
            let (barriers, retained, wills) = (mesh.barriers(), Cursor::default(), Some(0));
            self.checkpoint = Some(Checkpoint { number, barriers, session: 0, retained, wills });
        }
    }

    /// Whether a part of a checkpoint can be written at once.
    pub(super) fn may_write_checkpoint(&self, mesh: &Mesh) -> bool {
        let may_begin = |checkpoint: &Checkpoint| mesh.are_receipted(&checkpoint.barriers);
        self.checkpoint.as_ref().is_some_and(may_begin)
            && self.journal.as_ref().is_some_and(|j| j.bytes() == 0)
    }

    /// Logs the next part of the state.
    pub(super) fn write_checkpoint(&mut self, state: State<'_>) {
        let (Some(checkpoint), Some(journal)) = (&mut self.checkpoint, &mut self.journal) else {
            return;
        };
        // No part is added while the records of current events fill the batch.
        if journal.bytes() >= limits::CHECKPOINT_BYTES
            || !state.mesh.are_receipted(&checkpoint.barriers)
            || !checkpoint.log_sessions(journal, state.sessions, state.index)
            || !checkpoint.log_retained(journal, state.retained, self.core, state.cores)
        {
            return;
        }
        checkpoint.wills = checkpoint.wills.and_then(|from| self.left_wills.log(journal, from));
        if checkpoint.wills.is_none() {
            self.dedup.log(journal);
            self.in_transit.log(journal);
            journal.end_checkpoint(checkpoint.number);
            self.checkpoint = None;
        }
    }
}

impl Checkpoint {
    /// Logs sessions, and then the messages of their deliveries; whether that was all.
    fn log_sessions(
        &mut self,
        journal: &mut Journal,
        sessions: &mut SessionTable,
        index: &SubscriptionIndex,
    ) -> bool {
        let end = sessions.end();
        journal.share_contents(true);
        while self.session < end && journal.bytes() < limits::CHECKPOINT_BYTES {
            let id = SessionId::new(self.session);
            if let Some(session) = sessions.get_mut(id) {
                log_session(journal, session, index, id.into(), self.number);
            }
            self.session += 1;
        }
        journal.share_contents(false);
        self.session >= end && journal.write_shared_contents(limits::CHECKPOINT_BYTES)
    }

    /// Logs the retained messages that were published on this core; whether that was all.
    fn log_retained(
        &mut self,
        journal: &mut Journal,
        retained: &RetainedStore,
        own: CoreId,
        cores: u16,
    ) -> bool {
        let mut is_done = true;
        // A scan of "#" would leave out "$" topics, which clients may have too.
        retained.scan_all(&mut self.retained, &mut |topic, stored| {
            if journal.bytes() >= limits::CHECKPOINT_BYTES {
                is_done = false;
                return ScanStep::StopBefore;
            }
            // Every core has each message sooner or later; the core on which it was published is the
            // one sure to have it already.
            let logged_by = retained::core_of(stored.stamp) % u64::from(cores);
            if logged_by == u64::from(own.0) && !sys_topics::is_ours(topic) {
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
        is_done && self.retained.is_at_end()
    }
}

/// Logs a session completely.
fn log_session(
    journal: &mut Journal,
    state: &mut Session,
    index: &SubscriptionIndex,
    subscriber: SubscriberId,
    checkpoint: u64,
) {
    wills::log_held(journal, state);
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
        for packet_identifier in inbound.log_to_checkpoint(checkpoint) {
            journal.write(&Record::Received { session, packet_identifier });
        }
    }
    if let Some(outbound) = &mut state.outbound {
        outbound.log_to_checkpoint(|logged| match logged {
            Logged::Delivery(delivery, packet_identifier) => {
                let shared = delivery.shared.map(|filter| index.text(filter));
                delivery.kept =
                    journal.write_delivery(session, delivery, packet_identifier, shared.as_deref());
            }
            Logged::Released(kept, packet_identifier) => {
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
        wills::log_delayed(journal, session, state);
    }
}
