//! State that outlives the process: records for the store, restoring from them, and Wills.
//!
//! | file | content |
//! | --- | --- |
//! | `journal` | collects records into batches, and knows who waits for which batch |
//! | `record_writer` | appends a record for each change of a session or of a retained message |
//! | `commit` | hands batches to the store, and continues what waited for them |
//! | `checkpoint` | appends the complete state, so that the store can drop older records |
//! | `checkpoint_part`, `checkpoint_session` | the work of one turn for it, and a session in several turns |
//! | `qos2_dedup` | QoS 2 messages from before a crash that must not be delivered twice |
//! | `in_transit`, `departures` | messages between cores that no client would send again |
//! | `moved` | logs a session that has come from another node of a cluster |
//! | `wills` | Wills, from CONNECT until they are published or cancelled |
//! | `restore` | rebuilds sessions and retained messages from the records |

pub(in crate::engine) mod checkpoint;
mod checkpoint_part;
mod checkpoint_session;
mod commit;
mod departures;
pub(in crate::engine) mod in_transit;
pub(in crate::engine) mod journal;
#[cfg(feature = "cluster")]
mod moved;
pub(in crate::engine) mod qos2_dedup;
pub(in crate::engine) mod record_writer;
pub(in crate::engine) mod restore;
pub(in crate::engine) mod wills;

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
use crate::storage::commit::StoreState;
use crate::storage::record::SessionNumber;

/// The journal of one core, and the state that only the journal and restarts are about.
#[derive(Debug)]
pub(in crate::engine) struct Durability {
    core: CoreId,
    /// None when nothing outlives the process.
    journal: Option<Box<Journal>>,
    /// Whether a timer runs that hands over records which are not urgent.
    has_flush_timer: bool,
    /// The budget of a turn was spent before everything had continued whose records are stored.
    has_stored: bool,
    dedup: Qos2Dedup,
    in_transit: InTransit,
    left_wills: LeftWills,
    /// The checkpoint being written, and the number of the last one that began.
    checkpoint: Option<Checkpoint>,
    checkpoints_begun: u64,
    /// The size of a batch from which a part of a checkpoint ends: [`limits::CHECKPOINT_BYTES`], except in tests.
    checkpoint_bytes: usize,
}

impl Durability {
    /// Leaves a publisher unread until the journal has room.
    fn await_store(&mut self, publisher: ConnectionId, connections: &mut Connections) {
        if connections.get(publisher).is_none_or(|connection| connection.read_holds > 0) {
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
            has_stored: false,
            dedup: Qos2Dedup::default(),
            in_transit: InTransit::default(),
            left_wills: LeftWills::default(),
            checkpoint: None,
            checkpoints_begun: 0,
            checkpoint_bytes: limits::CHECKPOINT_BYTES,
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

    /// The number of the batch that is open.
    fn open_batch(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.number())
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

    /// Whether the backlog of the store is so large that publishers wait.
    #[cfg(feature = "admin")]
    pub(in crate::engine) fn is_loaded(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_loaded())
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

    /// Whether something waits for a turn though its records are stored.
    #[inline]
    pub(in crate::engine) fn has_stored(&self) -> bool {
        self.has_stored
    }

    /// Takes the store's state; returns false without a journal.
    fn note_stored(&mut self, stored: StoreState, mesh: &mut Mesh, metrics: &mut Metrics) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        let is_more = journal.note_stored(stored);
        metrics.store_bytes = stored.bytes;
        metrics.store_syncs = stored.syncs;
        metrics.store_failing = u64::from(stored.is_failing);
        metrics.store_full = u64::from(stored.is_full);
        if is_more {
            mesh.note_stored(stored.up_to);
        }
        true
    }
}
