//! Batches of records on their way to the store, and what continues once they are stored.

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::Engine;
use crate::engine::durability::checkpoint;
use crate::engine::durability::journal::{Journal, ToContinue};
use crate::engine::timers::Timer;
use crate::storage::commit::{JournalConfig, RecordBatch, StoreState};

impl Engine {
    /// Opens the journal. To be called before the first client connects.
    pub fn open_journal(&mut self, config: JournalConfig) {
        self.durability.journal = Some(Box::new(Journal::new(config, self.mesh.core())));
    }

    /// The store has made progress: answers that waited for their records are sent, as far as the budget of this turn
    /// goes.
    pub fn handle_stored(&mut self, now: Now, stored: StoreState) {
        self.set_now(now);
        let Self { durability, mesh, metrics, .. } = self;
        if !durability.note_stored(stored, mesh, metrics) {
            return;
        }
        self.continue_stored();
        self.durability.begin_checkpoint(&mut self.mesh);
    }

    /// Continues what waited for records that are stored; returns false when there is nothing, or no budget for it.
    pub(in crate::engine) fn continue_stored(&mut self) -> bool {
        let mut has_continued = self.send_stored_forwards();
        while !self.work.is_spent() {
            let journal = self.durability.journal.as_mut();
            let Some(next) = journal.and_then(|journal| journal.next_to_continue()) else {
                self.durability.has_stored = false;
                return has_continued;
            };
            has_continued = true;
            self.work.spend(1);
            match next {
                ToContinue::Answer(awaited) => self.note_awaited(awaited),
                ToContinue::Connection(id) => self.resume_stored(id),
                ToContinue::Publisher(id) => self.connections.resume_reading(id, self.now),
            }
        }
        self.durability.has_stored = true;
        has_continued
    }

    /// The records for which a connection waited are stored: its output is sent.
    fn resume_stored(&mut self, id: ConnectionId) {
        self.connections.release_output(id);
        self.connections.continue_to_end(id);
        if self.connections.get(id).is_some_and(|connection| connection.session().is_some()) {
            self.after_progress(id);
        }
    }

    /// The next batch of records for the store, if it is time to hand one over. Called at the end of a
    /// turn until there is none.
    pub fn poll_records(&mut self) -> Option<RecordBatch> {
        let Self { durability, sessions, router, retained, mesh, work, .. } = self;
        if durability.checkpoint.is_some() {
            let (index, cores) = (router.index(), mesh.cores());
            let state = checkpoint::State { sessions, index, retained, mesh, cores };
            // The turn has ended: the next one has so much less.
            work.spend(durability.write_checkpoint(state));
        }
        let journal = durability.journal.as_mut()?;
        if journal.is_resting() && !durability.has_flush_timer {
            durability.has_flush_timer = true;
            self.timers.arm(self.now.after_s(limits::RECORDS_REST_S), Timer::Records);
        }
        journal.has_batch().then(|| journal.seal())
    }

    /// Whether [`Self::poll_records`] has work though no event arrives.
    pub fn has_records(&self) -> bool {
        self.durability.may_write_checkpoint(&self.mesh)
    }

    /// All records that wait to be stored, whether or not the store has taken the batch before: the
    /// broker stops.
    pub fn drain_records(&mut self) -> Option<RecordBatch> {
        let journal = self.durability.journal.as_mut().filter(|journal| journal.bytes() > 0);
        journal.map(|journal| journal.seal())
    }

    /// Leaves a publisher unread while the store has too large a backlog, or no space.
    #[inline]
    pub(in crate::engine) fn pause_for_store(&mut self, publisher: ConnectionId, mark: u64) {
        if self.durability.is_overloaded(mark) {
            self.durability.await_store(publisher, &mut self.connections);
        }
    }
}
