//! The memory of a core, and the bound on the memory of all cores together.

use crate::base::limits;
use crate::config::Limits;
use crate::resources::gauges::{Ledger, Place};

/// What this core may hold, given what the other cores held when the time last advanced.
pub(super) struct Memory {
    place: Place,
    /// The bound of all cores together.
    bytes_max: u64,
    /// Bytes on the ledgers of the other cores.
    bytes_elsewhere: u64,
}

impl Memory {
    pub(super) fn new(place: Place, limits: &Limits) -> Self {
        Self { place, bytes_max: limits.memory_bytes_max, bytes_elsewhere: 0 }
    }

    /// What this core holds.
    #[inline]
    pub(super) fn ledger(&self) -> &Ledger {
        self.place.ledger()
    }

    /// Another limit holds from now on.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.bytes_max = limits.memory_bytes_max;
    }

    /// For tests: changes the bound.
    #[cfg(test)]
    pub(super) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Reads what the other cores hold.
    pub(super) fn measure_others(&mut self) {
        self.bytes_elsewhere = self.place.memory_bytes_elsewhere();
    }

    /// What this core may hold: its memory is full from there on.
    #[inline]
    pub(super) fn bytes_max_here(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes_elsewhere)
    }

    /// Whether this core holds as much as it may.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.place.ledger().bytes() >= self.bytes_max_here()
    }

    /// Whether memory is full beyond what it takes to send "server busy" to new clients.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.bytes_everywhere() >= self.bytes_max + self.bytes_max / limits::OVERDRAFT_SHARE
    }

    /// Whether cached matches have to give way to other data.
    pub(super) fn is_short(&self) -> bool {
        let free = self.bytes_max / limits::TOPIC_CACHE_FREE_SHARE;
        self.bytes_everywhere() + free >= self.bytes_max
    }

    fn bytes_everywhere(&self) -> u64 {
        self.place.ledger().bytes() + self.bytes_elsewhere
    }

    /// Bytes of input that may wait on all cores together.
    pub(super) fn input_bytes_max(&self) -> u64 {
        let share = self.bytes_max / limits::INPUT_SHARE;
        share.max(limits::INPUT_BYTES_MIN)
    }

    /// Whether a connection may hold `held` bytes of input, `more` of which are not on the ledger yet.
    /// With `is_whole`, the input waits for the server, and not for the rest of a packet.
    pub(super) fn has_room_for_input(&self, held: usize, more: usize, is_whole: bool) -> bool {
        let elsewhere = self.place.input_bytes_elsewhere();
        let waiting = self.place.ledger().input_bytes() + elsewhere + more as u64;
        let most = self.input_bytes_max();
        if is_whole || held <= limits::INPUT_SMALL_BYTES {
            return waiting <= most;
        }
        // The rest is for clients that hold little: each of them is in the middle of a packet now and then.
        let share = match self.is_full() {
            true => limits::INPUT_SHARE_OF_SMALL_WHEN_FULL,
            false => limits::INPUT_SHARE_OF_SMALL,
        };
        waiting <= most - most / share
    }
}
