//! The part of a checkpoint that is logged in one turn, with its bounds.

use crate::base::limits;
use crate::engine::durability::journal::Journal;
use crate::engine::work::BYTES_PER_STEP;

/// Places that are looked at, and records that are written, for a step of the turn's budget.
const PLACES_PER_STEP: usize = 16;
const RECORDS_PER_STEP: u64 = 2;

/// A part of a checkpoint.
#[derive(Debug)]
pub(super) struct CheckpointPart {
    /// The size of the open batch from which nothing is added.
    bytes_max: usize,
    /// Places of sessions, queues and windows that may still be looked at.
    places: usize,
    /// The size of the open batch, and the number of records, when the part began.
    bytes: usize,
    records: u64,
}

impl CheckpointPart {
    /// Begins a part that ends when the open batch has `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize, journal: &Journal) -> Self {
        Self {
            bytes_max,
            places: limits::CHECKPOINT_PLACES,
            bytes: journal.bytes(),
            records: journal.written(),
        }
    }

    /// Whether the rest follows in a later part.
    pub(super) fn is_full(&self, journal: &Journal) -> bool {
        self.places == 0 || journal.bytes() >= self.bytes_max
    }

    /// Counts places that were looked at.
    pub(super) fn look_at(&mut self, places: usize) {
        self.places = self.places.saturating_sub(places);
    }

    /// The steps that the part has taken.
    pub(super) fn steps(&self, journal: &Journal) -> usize {
        let places = limits::CHECKPOINT_PLACES - self.places;
        let records = (journal.written() - self.records) / RECORDS_PER_STEP;
        let bytes = journal.bytes().saturating_sub(self.bytes) / BYTES_PER_STEP;
        places / PLACES_PER_STEP + records as usize + bytes
    }
}
