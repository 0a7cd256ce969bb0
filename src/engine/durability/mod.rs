//! State that outlives the process: records for the store, restoring from them, and Wills.
//!
//! | file | content |
//! | --- | --- |
//! | `journal` | collects records into batches, and knows who waits for which batch |
//! | `record_writer` | appends a record for each change of a session or of a retained message |
//! | `checkpoint` | appends the complete state, so that the store can drop older records |
//! | `qos2_dedup` | QoS 2 messages from before a crash that must not be delivered twice |
//! | `in_transit` | messages between cores that no client would send again |
//! | `wills` | Wills, from CONNECT until they are published or cancelled |
//! | `restore` | rebuilds sessions and retained messages from the records |

pub(in crate::engine) mod checkpoint;
pub(in crate::engine) mod in_transit;
pub(in crate::engine) mod journal;
pub(in crate::engine) mod qos2_dedup;
pub(in crate::engine) mod record_writer;
pub(in crate::engine) mod restore;
pub(in crate::engine) mod wills;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, CoreId};
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::engine::connections::Connections;
use crate::engine::durability::checkpoint::Checkpoint;
use crate::engine::durability::in_transit::InTransit;
use crate::engine::durability::journal::Journal;
use crate::engine::durability::qos2_dedup::Qos2Dedup;
use crate::engine::durability::wills::LeftWills;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::lanes::Awaited;
use crate::engine::{Engine, Timer};
use crate::storage::commit::{JournalConfig, RecordBatch, StoreState};
use crate::storage::record::SessionNumber;

/// The journal of one core, and the state that only the journal and restarts are about.
#[derive(Debug)]
pub(in crate::engine) struct Durability {
    core: CoreId,
    /// None when nothing outlives the process.
    journal: Option<Box<Journal>>,
    /// Whether a timer runs that hands over records which are not urgent.
    has_flush_timer: bool,
    dedup: Qos2Dedup,
    in_transit: InTransit,
    left_wills: LeftWills,
    /// The checkpoint being written, and the number of the last one that began.
    checkpoint: Option<Checkpoint>,
    checkpoints_begun: u64,
}

impl Durability {
    /// Leaves a publisher unread until the journal has room.
    fn await_store(&mut self, publisher: ConnectionId, connections: &mut Connections) {
        if connections.get(publisher).is_none_or(|connection| connection.holders > 0) {
            return;
        }
        connections.pause_reading(publisher);
        if let Some(journal) = &mut self.journal {
            journal.await_room(publisher);
        }
    }

    /// Without a journal: nothing outlives the process.
    pub(in crate::engine) fn new(core: CoreId) -> Self {
        Self {
            core,
            journal: None,
            has_flush_timer: false,
            dedup: Qos2Dedup::default(),
            in_transit: InTransit::default(),
            left_wills: LeftWills::default(),
            checkpoint: None,
            checkpoints_begun: 0,
        }
    }

    /// The number of a session of this core, by its round of generations and its generation.
    fn session_number(&self, round: u32, generation: u32) -> SessionNumber {
        SessionNumber::new(round, self.core.0, generation)
    }

    /// Whether there is a journal.
    #[inline]
    pub(in crate::engine) fn has_journal(&self) -> bool {
        self.journal.is_some()
    }

    #[cfg(test)]
    pub(in crate::engine) fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("a test with a journal")
    }

    /// Whether acknowledgements wait until records are on disk.
    #[inline]
    pub(in crate::engine) fn waits(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.waits())
    }

    /// The number of records so far, for [`Self::batch_since`].
    #[inline]
    pub(in crate::engine) fn mark(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.written())
    }

    /// The batch that must be stored if there are records since `mark`.
    #[inline]
    pub(in crate::engine) fn batch_since(&self, mark: u64) -> Option<u64> {
        self.journal.as_ref()?.batch_since(mark)
    }

    /// The batch that must be stored for all records so far.
    pub(in crate::engine) fn batch_of_all(&self) -> Option<u64> {
        self.journal.as_ref()?.batch_of_all()
    }

    /// Whether a batch is stored.
    pub(in crate::engine) fn is_stored(&self, batch: u64) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.has(batch))
    }

    /// The last batch that is stored; the highest number when nothing waits for the store.
    #[inline]
    pub(in crate::engine) fn stored_up_to(&self) -> u64 {
        self.journal.as_ref().map_or(u64::MAX, |journal| journal.stored_up_to())
    }

    /// Lets an answer wait until a batch is stored.
    pub(in crate::engine) fn await_stored(&mut self, batch: u64, awaited: Awaited) {
        if let Some(journal) = &mut self.journal {
            journal.await_batch(batch, awaited);
        }
    }

    /// Hands the open batch over as soon as possible.
    pub(in crate::engine) fn flush_soon(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.hurry();
        }
    }

    /// The timer for records that are not urgent has fired.
    pub(in crate::engine) fn end_flush_timer(&mut self) {
        self.has_flush_timer = false;
        self.flush_soon();
    }

    /// Whether the backlog of the store is so large that new clients are refused: each CONNECT may add
    /// to the backlog.
    pub(in crate::engine) fn is_far_behind(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_far_behind())
    }

    /// Whether the store cannot write at present. Clients without a stored session are accepted all the
    /// same, also with Wills.
    pub(in crate::engine) fn is_failing(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_failing())
    }

    /// Whether a publisher that caused records since `mark` has to wait, as the store has too large a
    /// backlog or no space.
    #[inline]
    fn is_overloaded(&self, mark: u64) -> bool {
        self.journal.as_ref().is_some_and(|j| j.is_loaded() && j.written() != mark)
    }

    /// Takes the store's state. True when more batches of this core are stored; none without a journal.
    fn note_stored(
        &mut self,
        stored: StoreState,
        mesh: &mut Mesh,
        metrics: &mut Metrics,
    ) -> Option<bool> {
        let is_more = self.journal.as_mut()?.note_stored(stored);
        metrics.store_bytes = stored.bytes;
        metrics.store_syncs = stored.syncs;
        metrics.store_failing = u64::from(stored.is_failing);
        metrics.store_full = u64::from(stored.is_full);
        if is_more {
            mesh.note_stored(stored.up_to);
        }
        Some(is_more)
    }
}

impl Engine {
    /// Opens the journal. To be called before the first client connects.
    pub fn open_journal(&mut self, config: JournalConfig) {
        self.durability.journal = Some(Box::new(Journal::new(config, self.core())));
    }

    /// The store has made progress: answers that waited for their records are sent.
    pub fn handle_stored(&mut self, now: Now, stored: StoreState) {
        self.set_now(now);
        let Self { durability, mesh, metrics, .. } = self;
        let Some(is_more) = durability.note_stored(stored, mesh, metrics) else { return };
        if is_more {
            while let Some(awaited) = self.next_of_journal(Journal::next_answer) {
                self.note_awaited(awaited);
            }
            while let Some(id) = self.next_of_journal(Journal::next_connection) {
                self.resume_stored(id);
            }
        }
        while let Some(publisher) = self.next_of_journal(Journal::next_publisher) {
            self.connections.resume_reading(publisher, self.now);
        }
        self.durability.begin_checkpoint(&mut self.mesh);
    }

    fn next_of_journal<T>(&mut self, next: fn(&mut Journal) -> Option<T>) -> Option<T> {
        self.durability.journal.as_mut().and_then(|journal| next(journal))
    }

    /// The records for which a connection waited are stored: its output is sent.
    fn resume_stored(&mut self, id: ConnectionId) {
        self.connections.open_gate(id);
        self.connections.continue_to_end(id);
        if self.connections.get(id).is_some_and(|connection| connection.session().is_some()) {
            self.after_progress(id);
        }
    }

    /// The next batch of records for the store, if it is time to hand one over. Called at the end of a
    /// turn until there is none.
    pub fn poll_records(&mut self) -> Option<RecordBatch> {
        let Self { durability, sessions, router, retained, mesh, .. } = self;
        if durability.checkpoint.is_some() {
            let (index, cores) = (router.index(), self.place.cores());
            durability.write_checkpoint(checkpoint::State {
                sessions,
                index,
                retained,
                mesh,
                cores,
            });
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
