//! The interface between engine and store: batches of records, and which of them are on disk.

/// How the engine uses the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The time of day at which the engine's clock stood at zero, in microseconds since 1970.
    pub wall_at_zero_us: u64,
    /// Whether acknowledgements wait until records are on disk.
    pub waits: bool,
}

/// The state of the store, for one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// The last batch of this core that is stored.
    pub up_to: u64,
    /// The store has reached its size limit: publishers that would add to it have to wait.
    pub is_full: bool,
    /// The store cannot write at present.
    pub is_failing: bool,
    /// The number of checkpoints that the store has asked for.
    pub checkpoint: u64,
    /// Size of the store in bytes.
    pub bytes: u64,
    /// Number of synchronisations of the disk.
    pub syncs: u64,
    /// The time of day at which the engine's clock stood at zero, in microseconds since 1970, if the
    /// system's clock was set since the start; otherwise 0.
    pub wall_at_zero_us: u64,
}

/// Records that are stored completely or not at all.
#[derive(Debug)]
pub struct RecordBatch {
    /// Counts the batches of this core, from 1.
    pub number: u64,
    /// Encoded records.
    pub bytes: Vec<u8>,
    /// The last checkpoint that this core has logged completely, with this batch or before.
    pub checkpoint: u64,
}

/// Refers to the record of a delivery, so that its end can be logged, or the record removed from the open
/// batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRef {
    /// Number of the delivery; 0 when it is not stored.
    pub number: u64,
    /// Its batch, and its place there.
    pub(crate) batch: u32,
    pub(crate) place: u32,
}

impl RecordRef {
    /// Whether the record was written between a position in the journal and the batch that is open now.
    pub(crate) fn is_since(&self, begin: RecordMark, open: u32) -> bool {
        let batches = self.batch.wrapping_sub(begin.batch);
        batches <= open.wrapping_sub(begin.batch) && (batches > 0 || self.place >= begin.place)
    }

    /// Refers to a record of an earlier process.
    pub(crate) fn of_before(number: u64) -> Self {
        Self { number, batch: 0, place: 0 }
    }

    /// Other records of the delivery follow: its first record can no longer be removed.
    pub fn settle(&mut self) {
        self.batch = 0;
    }
}

/// A position in the journal.
#[derive(Clone, Copy, Debug)]
pub struct RecordMark {
    pub(crate) batch: u32,
    pub(crate) place: u32,
}
