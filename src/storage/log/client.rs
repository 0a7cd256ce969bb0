//! What a core has of the writer thread: it hands batches over, and reads the state of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed};

use crate::base::atomic::AtomicU64;
use crate::storage::commit::{RecordBatch, StoreState};

/// The state of the store, which the writer thread publishes and the cores read.
#[derive(Debug)]
pub(super) struct Status {
    /// By core, the last batch that is stored.
    pub up_to: Vec<AtomicU64>,
    pub is_full: AtomicBool,
    pub is_failing: AtomicBool,
    pub checkpoint: AtomicU64,
    pub bytes: AtomicU64,
    pub syncs: AtomicU64,
    /// The time of day at the start, corrected when the system's clock is set.
    pub started_us: AtomicU64,
    /// Changes when any other field than `up_to` does.
    pub version: AtomicU64,
}

/// What the writer thread is told.
#[derive(Debug)]
pub(super) enum Inbox {
    /// A core hands records over.
    Batch(Handover),
    /// The replica has made progress, or its state has changed.
    Progress,
}

pub(super) struct Handover {
    pub core: usize,
    pub records: RecordBatch,
}

/// The client of one core: hands records over, and reads the state of the store.
#[derive(Debug)]
pub struct StoreClient {
    core: usize,
    status: Arc<Status>,
    outbox: flume::Sender<Inbox>,
    /// The last batch and version that were read.
    pub(super) seen: (u64, u64),
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batch {} of core {}", self.records.number, self.core)
    }
}

impl StoreClient {
    pub(super) fn new(core: usize, status: Arc<Status>, outbox: flume::Sender<Inbox>) -> Self {
        Self { core, status, outbox, seen: (0, 0) }
    }

    /// Hands records over. The channel has room for more batches than all cores together have in transit.
    pub fn hand_over(&self, records: RecordBatch) {
        // The thread ends after all clients; if it has failed, nothing is acknowledged any more.
        let _ = self.outbox.send(Inbox::Batch(Handover { core: self.core, records }));
    }

    /// The state of the store, if it has changed since the last call.
    pub fn changed_state(&mut self) -> Option<StoreState> {
        // Acquire: everything written before the batch was published as stored is visible.
        let status = &self.status;
        let now = (status.up_to[self.core].load(Acquire), status.version.load(Acquire));
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(StoreState {
            up_to: now.0,
            is_full: status.is_full.load(Relaxed),
            is_failing: status.is_failing.load(Relaxed),
            checkpoint: status.checkpoint.load(Relaxed),
            bytes: status.bytes.load(Relaxed),
            syncs: status.syncs.load(Relaxed),
            wall_at_zero_us: status.started_us.load(Relaxed),
        })
    }
}
