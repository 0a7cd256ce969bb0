//! A hierarchical timer wheel (Varghese and Lauck, 1987): arming and firing cost O(1), whatever the
//! number of timers.
//!
//! Timers are never cancelled. When a timer fires, its owner checks whether it still applies, so
//! that Keep Alive costs one entry per connection and nothing per packet.

use crate::base::clock::{Deadline, Now};

/// 2^14 µs: about 16 ms, fine enough for the protocol, whose timers count seconds.
const TICK_SHIFT: u32 = 14;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 4;

/// A timer wheel whose timers have a key of type `K`.
#[derive(Debug)]
pub struct Wheel<K> {
    levels: [Vec<Vec<(u64, K)>>; LEVELS],
    /// Number of entries per level, so that empty levels are skipped.
    counts: [usize; LEVELS],
    /// The tick up to which, inclusive, everything has fired.
    tick: u64,
    /// When the next slot has to be processed.
    nearest: Option<Deadline>,
    scratch: Vec<(u64, K)>,
}

impl<K: Copy> Wheel<K> {
    /// A wheel at the time `now`.
    pub fn new(now: Now) -> Self {
        Self {
            levels: std::array::from_fn(|_| (0..SLOTS).map(|_| Vec::new()).collect()),
            counts: [0; LEVELS],
            tick: now.0 >> TICK_SHIFT,
            nearest: None,
            scratch: Vec::new(),
        }
    }

    /// Fires `key` at `deadline` or up to one tick later, never earlier.
    pub fn arm(&mut self, deadline: Deadline, key: K) {
        // Rounded up: a timer must not fire early.
        let due = (deadline.us() >> TICK_SHIFT).saturating_add(1).max(self.tick + 1);
        self.place(due, key);
        let (level, _) = self.position(due);
        // The slot of a higher level is cascaded before the timer is due.
        let shift = SLOT_BITS * level as u32;
        let wake = Deadline::at_us(((due >> shift) << shift).max(self.tick + 1) << TICK_SHIFT);
        self.nearest = Some(self.nearest.map_or(wake, |nearest| nearest.min(wake)));
    }

    fn place(&mut self, due: u64, key: K) {
        let (level, slot) = self.position(due);
        self.levels[level][slot].push((due, key));
        self.counts[level] += 1;
    }

    /// A timer beyond the last level waits in the farthest slot and is placed again from there.
    fn position(&self, due: u64) -> (usize, usize) {
        let distance = due - self.tick;
        for level in 0..LEVELS {
            if distance < 1 << (SLOT_BITS * (level as u32 + 1)) {
                return (level, slot_of(due, level));
            }
        }
        let farthest = self.tick + (1 << (SLOT_BITS * LEVELS as u32)) - 1;
        (LEVELS - 1, slot_of(farthest, LEVELS - 1))
    }

    /// Advances to `now` and appends the keys of due timers to `fired`.
    pub fn advance(&mut self, now: Now, fired: &mut impl Extend<K>) {
        let target = now.0 >> TICK_SHIFT;
        loop {
            match self.nearest.map(|nearest| nearest.us() >> TICK_SHIFT) {
                Some(tick) if tick <= target => self.tick = tick.max(self.tick),
                _ => {
                    self.tick = self.tick.max(target);
                    return;
                }
            }
            self.cascade();
            let slot = &mut self.levels[0][slot_of(self.tick, 0)];
            self.counts[0] -= slot.len();
            fired.extend(slot.drain(..).map(|(_, key)| key));
            shrink(slot);
            self.nearest = self.find_nearest();
        }
    }

    /// When a level wraps around, distributes the next slot of the level above over it.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            if slot_of(self.tick, level - 1) != 0 {
                return;
            }
            let slot = slot_of(self.tick, level);
            let mut entries = std::mem::take(&mut self.scratch);
            entries.append(&mut self.levels[level][slot]);
            shrink(&mut self.levels[level][slot]);
            self.counts[level] -= entries.len();
            for (due, key) in entries.drain(..) {
                self.place(due, key);
            }
            shrink(&mut entries);
            self.scratch = entries;
        }
    }

    /// Number of armed timers.
    pub fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latest time for the next call of [`Self::advance`]; `None` if no timer is armed.
    pub fn next(&self) -> Option<Deadline> {
        self.nearest
    }

    /// The first occupied slot, or the first time a higher level has to be cascaded.
    fn find_nearest(&self) -> Option<Deadline> {
        if self.counts[0] > 0 {
            for ahead in 1..=SLOTS as u64 {
                let tick = self.tick + ahead;
                if !self.levels[0][slot_of(tick, 0)].is_empty() {
                    return Some(Deadline::at_us(tick << TICK_SHIFT));
                }
                if slot_of(tick, 0) == 0 && self.counts[1..].iter().any(|&count| count > 0) {
                    return Some(Deadline::at_us(tick << TICK_SHIFT));
                }
            }
        }
        // The nearest occupied slot of a higher level.
        (1..LEVELS)
            .filter(|&level| self.counts[level] > 0)
            .filter_map(|level| {
                let shift = SLOT_BITS * level as u32;
                let base = self.tick >> shift;
                (1..=SLOTS as u64)
                    .find(|ahead| {
                        !self.levels[level][((base + ahead) as usize) & (SLOTS - 1)].is_empty()
                    })
                    .map(|ahead| Deadline::at_us(((base + ahead) << shift) << TICK_SHIFT))
            })
            .min()
    }
}

fn slot_of(tick: u64, level: usize) -> usize {
    ((tick >> (SLOT_BITS * level as u32)) as usize) & (SLOTS - 1)
}

/// Releases the memory of a burst.
fn shrink<T>(entries: &mut Vec<T>) {
    if entries.capacity() > 1024 {
        entries.shrink_to(64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK_US: u64 = 1 << TICK_SHIFT;

    proptest! {
        #[test]
        fn every_timer_fires_once_not_early_and_at_most_two_ticks_late(
            start in 0u64..1 << 50,
            delays in proptest::collection::vec(prop_oneof![0u64..200_000, 0u64..20_000_000_000, 0u64..40_000_000_000_000], 1..60),
        ) {
            let mut wheel = Wheel::new(Now(start));
            for (key, delay) in delays.iter().enumerate() {
                wheel.arm(Deadline::at_us(start + delay), key);
            }
            let mut seen = vec![0; delays.len()];
            let mut fired = Vec::new();
            while let Some(next) = wheel.next() {
                wheel.advance(Now(next.us()), &mut fired);
                for key in fired.drain(..) {
                    seen[key] += 1;
                    let due = start + delays[key];
                    prop_assert!(next.us() >= due, "early");
                    prop_assert!(next.us() <= due + 2 * TICK_US, "late");
                }
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
        }
    }

    #[test]
    fn a_long_sleep_fires_all_timers_that_became_due() {
        let mut wheel = Wheel::new(Now(0));
        for second in 1..=1000u64 {
            wheel.arm(Deadline::at_us(second * 1_000_000), second);
        }
        let mut fired = Vec::new();
        wheel.advance(Now(600_500_000), &mut fired);
        assert_eq!(fired.len(), 600);
        assert!(wheel.next().is_some());
    }
}
