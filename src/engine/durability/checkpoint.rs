//! Checkpoints: the complete state of this core is logged again, a part in each turn, so that the store
//! can drop all older records. The work of a part is bounded, and a large session takes several.

use shards::{Cursor, ScanStep, SubscriptionIndex};

use crate::base::ids::{CoreId, SessionId};
use crate::engine::Engine;
use crate::engine::durability::Durability;
use crate::engine::durability::checkpoint_part::CheckpointPart;
use crate::engine::durability::checkpoint_session::{Context, SessionRewrite};
use crate::engine::durability::in_transit::TransitRewrite;
use crate::engine::durability::journal::Journal;
use crate::engine::durability::qos2_dedup::LoggedExchanges;
use crate::engine::durability::wills;
use crate::engine::mesh::Mesh;
use crate::engine::retained::RetainedStore;
use crate::engine::{retained, sys_topics};
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
    /// The place of the next session, and how far it has been logged.
    session: usize,
    rewrite: Option<SessionRewrite>,
    /// How far the messages in transit have been logged; none after the last.
    in_transit: Option<TransitRewrite>,
    /// The position in the retained messages.
    retained: Cursor,
    /// The next of the Wills left by a broker's end; none after the last.
    wills: Option<usize>,
    /// How far the open QoS 2 exchanges have been logged.
    exchanges: LoggedExchanges,
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
            self.checkpoint = Some(Checkpoint {
                number,
                barriers: mesh.barriers_of_cores(),
                session: 0,
                rewrite: None,
                in_transit: Some(TransitRewrite::default()),
                retained: Cursor::default(),
                wills: Some(0),
                exchanges: LoggedExchanges::default(),
            });
        }
    }

    /// Whether a part of a checkpoint can be written at once.
    pub(super) fn may_write_checkpoint(&self, mesh: &Mesh) -> bool {
        let may_begin = |checkpoint: &Checkpoint| mesh.are_receipted(&checkpoint.barriers);
        self.checkpoint.as_ref().is_some_and(may_begin)
            && self.journal.as_ref().is_some_and(|j| j.bytes() == 0)
    }

    /// Logs the next part of the state; how many steps that took.
    pub(super) fn write_checkpoint(&mut self, state: State<'_>) -> usize {
        let (Some(checkpoint), Some(journal)) = (&mut self.checkpoint, &mut self.journal) else {
            return 0;
        };
        let mut part = CheckpointPart::new(self.checkpoint_bytes, journal);
        // No part is added while the records of current events fill the batch.
        if part.is_full(journal) || !state.mesh.are_receipted(&checkpoint.barriers) {
            return 0;
        }
        journal.share_contents(true);
        let mut is_done = checkpoint.log_sessions(journal, state.sessions, state.index, &mut part);
        if is_done && let Some(up_to) = &mut checkpoint.in_transit {
            is_done = self.in_transit.log(journal, up_to, &mut part);
        }
        journal.share_contents(false);
        if is_done {
            checkpoint.in_transit = None;
            is_done = journal.write_shared_contents(&mut part)
                && checkpoint.log_retained(journal, &state, self.core, &part);
        }
        if is_done && let Some(from) = checkpoint.wills {
            checkpoint.wills = self.left_wills.log(journal, from, &mut part);
            is_done = checkpoint.wills.is_none();
        }
        if is_done && self.dedup.log(journal, &mut checkpoint.exchanges, &mut part) {
            journal.end_checkpoint(checkpoint.number);
            self.checkpoint = None;
        }
        self.journal.as_ref().map_or(0, |journal| part.steps(journal))
    }
}

impl Engine {
    /// For tests: a part of a checkpoint ends when its batch has so many bytes.
    #[doc(hidden)]
    pub fn cut_checkpoints(&mut self, bytes: usize) {
        self.durability.checkpoint_bytes = bytes;
    }
}

impl Checkpoint {
    /// Logs sessions; whether that was all.
    fn log_sessions(
        &mut self,
        journal: &mut Journal,
        sessions: &mut SessionTable,
        index: &SubscriptionIndex,
        part: &mut CheckpointPart,
    ) -> bool {
        while self.session < sessions.end() {
            if part.is_full(journal) {
                return false;
            }
            part.look_at(1);
            let id = SessionId::new(self.session);
            let context = Context { index, subscriber: id.into(), checkpoint: self.number };
            if let Some(state) = sessions.get_mut(id)
                && !self.log_session(journal, state, &context, part)
            {
                return false;
            }
            self.rewrite = None;
            journal.abandon_rewrite();
            self.session += 1;
        }
        true
    }

    /// Logs a session; whether that was all.
    fn log_session(
        &mut self,
        journal: &mut Journal,
        state: &mut Session,
        context: &Context<'_>,
        part: &mut CheckpointPart,
    ) -> bool {
        if state.is_over() && state.number().is_some() {
            // Messages of its shared subscriptions are on their way to other members, in this turn and the next ones.
            return false;
        }
        if self.rewrite.is_none() {
            wills::log_held(journal, state);
            let Some(session) = state.number() else { return true };
            self.rewrite = Some(SessionRewrite::begin(journal, state, session));
        }
        // The records of a later session in its place are younger than the checkpoint.
        let rewrite = self.rewrite.as_mut().filter(|rewrite| rewrite.is_of(state));
        rewrite.is_none_or(|rewrite| rewrite.log(journal, state, context, part))
    }

    /// Logs the retained messages that were published on this core; whether that was all.
    fn log_retained(
        &mut self,
        journal: &mut Journal,
        state: &State<'_>,
        own: CoreId,
        part: &CheckpointPart,
    ) -> bool {
        let mut is_done = true;
        // A scan of "#" would leave out "$" topics, which clients may have too.
        state.retained.scan_all(&mut self.retained, &mut |topic, stored| {
            if part.is_full(journal) {
                is_done = false;
                return ScanStep::StopBefore;
            }
            // Every core has each message sooner or later; the core on which it was published is the
            // one sure to have it already.
            let logged_by = retained::core_of(stored.stamp) % u64::from(state.cores);
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
