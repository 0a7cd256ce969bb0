//! What the engine and the store say to each other: batches of records, and which are on disk.

/// How the engine keeps things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// The time of day at which the engine's clock stood at zero, in microseconds since 1970.
    pub wall_at_zero_us: u64,
    /// Whether what is acknowledged is on disk before.
    pub waits: bool,
}

/// What the store says to a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// The last batch of this core that is kept.
    pub up_to: u64,
    /// It is at its bound: what would add to it is to wait.
    pub is_full: bool,
    /// It cannot write for the moment.
    pub is_failing: bool,
    /// Counts how often everything was to be told anew.
    pub checkpoint: u64,
    /// Bytes it takes.
    pub bytes: u64,
    /// Synchronisations of the disk.
    pub syncs: u64,
    /// The time of day at which the engine's clock stood at zero, in microseconds since 1970, where that
    /// is known better by now than at the start; else 0.
    pub wall_at_zero_us: u64,
}

/// Records of some turns, to be stored whole or not at all.
#[derive(Debug)]
pub struct RecordBatch {
    /// Counts the batches of this core, from 1.
    pub number: u64,
    /// Records, one after the other.
    pub bytes: Vec<u8>,
    /// Up to here everything has been told anew, for that checkpoint.
    pub checkpoint: u64,
}

/// The record of a delivery, so that its end can be told, or the record taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRef {
    /// Its number; 0 when it is not kept.
    pub number: u64,
    /// The batch it is in, and its place there.
    pub(crate) batch: u32,
    pub(crate) place: u32,
}

impl RecordRef {
    /// Of one told before the process began.
    pub(crate) fn of_before(number: u64) -> Self {
        Self { number, batch: 0, place: 0 }
    }

    /// More was told of it since: its first record cannot be taken back any more.
    pub fn settle(&mut self) {
        self.batch = 0;
    }
}
