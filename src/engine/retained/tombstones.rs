//! Tombstones: topics whose retained message was removed, remembered until no older message for them
//! can arrive from another core.

use std::collections::VecDeque;

use crate::base::limits;
use crate::engine::retained::clock::clock_of;
use crate::resources::gauges::Ledger;

/// The tombstones of one core, oldest first.
#[derive(Debug)]
pub(super) struct Tombstones {
    by_stamp: VecDeque<(u64, Box<str>)>,
    /// A timer is set that checks them.
    pub(super) is_timed: bool,
    /// More of them could be removed than were in one turn.
    pub(super) has_more: bool,
    ledger: Ledger,
}

impl Tombstones {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { by_stamp: VecDeque::new(), is_timed: false, has_more: false, ledger }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_stamp.is_empty()
    }

    pub(super) fn add(&mut self, topic: &str, stamp: u64) {
        self.ledger.charge(limits::TOMBSTONE_BYTES + topic.len());
        self.by_stamp.push_back((stamp, topic.into()));
    }

    /// Removes the oldest tombstone, if the clocks of all other cores have passed its stamp.
    pub(super) fn pop_passed(&mut self, heard_from_all: u64) -> Option<(u64, Box<str>)> {
        let is_passed = |&mut (stamp, _): &mut (u64, _)| clock_of(stamp) <= heard_from_all;
        let (stamp, topic) = self.by_stamp.pop_front_if(is_passed)?;
        self.ledger.release(limits::TOMBSTONE_BYTES + topic.len());
        Some((stamp, topic))
    }
}
