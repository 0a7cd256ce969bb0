//! Stamps of retained messages: a hybrid logical clock (Kulkarni et al., 2014), later than every stamp
//! seen and close to the time of day that all cores share.

use crate::base::clock::Now;
use crate::base::ids::CoreId;
use crate::resources::gauges::Place;

/// Bits of a stamp that name the core; the bits above them are the clock, in microseconds.
const CORE_BITS: u32 = 10;

/// The core on which the message with this stamp was published.
pub(in crate::engine) fn core_of(stamp: u64) -> u64 {
    stamp & ((1 << CORE_BITS) - 1)
}

/// The clock in a stamp.
pub(in crate::engine) fn clock_of(stamp: u64) -> u64 {
    stamp >> CORE_BITS
}

/// The clock of one core, and what is known of the other cores' clocks.
#[derive(Debug)]
pub(super) struct StampClock {
    core: CoreId,
    /// The stamp's time of the core's beginning.
    begin_us: u64,
    /// The highest clock in any stamp seen.
    latest: u64,
    /// By core and node, a clock that all its later stamps exceed; the maximum for a node that is not there.
    heard: Vec<u64>,
}

impl StampClock {
    pub(super) fn new(place: &Place) -> Self {
        debug_assert!(u32::from(place.cores()) <= 1 << CORE_BITS);
        let mut heard = vec![0; usize::from(place.cores())];
        heard.resize(usize::from(place.addresses()), u64::MAX);
        Self { core: place.core(), begin_us: place.stamps_begin_us(), latest: 0, heard }
    }

    /// A node has joined the cluster, or has left it.
    #[cfg(feature = "cluster")]
    pub(super) fn set_member(&mut self, node: CoreId, is_member: bool) {
        self.heard[usize::from(node.0)] = if is_member { 0 } else { u64::MAX };
    }

    /// Whether there are no other cores.
    pub(super) fn is_alone(&self) -> bool {
        self.heard.len() == 1
    }

    /// A stamp later than all stamps seen.
    pub(super) fn next_stamp(&mut self, now: Now) -> u64 {
        self.latest = (self.begin_us + now.0).max(self.latest + 1);
        self.latest << CORE_BITS | u64::from(self.core.0)
    }

    /// A stamp that no stamp so far exceeds, and every later one does.
    pub(super) fn latest_stamp(&self) -> u64 {
        self.latest << CORE_BITS | ((1 << CORE_BITS) - 1)
    }

    /// Later stamps of this core exceed `clock`.
    #[inline]
    pub(super) fn advance(&mut self, clock: u64) -> u64 {
        self.latest = self.latest.max(clock);
        self.latest
    }

    /// The clock now: later stamps of this core exceed it.
    #[inline]
    pub(super) fn read(&mut self, now: Now) -> u64 {
        self.advance(self.begin_us + now.0)
    }

    /// Later stamps of another core exceed `clock`.
    #[inline]
    pub(super) fn hear(&mut self, core: CoreId, clock: u64) {
        self.heard[usize::from(core.0)] = clock;
    }

    /// A clock that the later stamps of all other cores exceed.
    pub(super) fn heard_from_all(&self) -> u64 {
        let own = usize::from(self.core.0);
        let others = self.heard.iter().enumerate().filter(|&(core, _)| core != own);
        others.map(|(_, &clock)| clock).min().unwrap_or(u64::MAX)
    }
}
