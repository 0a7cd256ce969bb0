//! Reports a core that does not finish its turn. Everyone who needs something from that core waits as well, for
//! example a client of another core for its SUBACK.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::control::stop::Stop;

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive checks that find a core in the same turn, after which the core is reported.
const CHECKS: u32 = 5;

/// Turns of one core: odd during a turn. The core alone writes the counter, twice a turn, so the counter has a
/// cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Turns(AtomicU32);

impl Turns {
    /// A turn begins, unless one has begun already.
    pub fn begin(&self) {
        // Relaxed: no other memory is published by it.
        self.0.store(self.0.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
    }

    /// The turn ends.
    pub fn end(&self) {
        self.0.store((self.0.load(Ordering::Relaxed) | 1).wrapping_add(1), Ordering::Relaxed);
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The state of one core as of the last check.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turns: u32,
    /// Checks since, that found the core in the same turn.
    checks: u32,
}

/// What a check finds worth reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// The core has been in the same turn for [`CHECKS`].
    Hangs,
    /// The core had hung, and has finished that turn after so many checks.
    Continues(u32),
}

impl Seen {
    fn check(&mut self, turns: u32) -> Option<Finding> {
        let is_same_turn = turns == self.turns && turns % 2 == 1;
        let checks = std::mem::replace(self, Self { turns, checks: 0 }).checks;
        if is_same_turn {
            self.checks = checks.saturating_add(1);
            return (self.checks == CHECKS).then_some(Finding::Hangs);
        }
        (checks >= CHECKS).then_some(Finding::Continues(checks))
    }
}

/// Watches the cores of a broker until it stops, on a thread of its own.
pub fn watch(stop: Stop) {
    let run = move || {
        let mut seen: Vec<Seen> = Vec::new();
        while !stop.is_requested() {
            std::thread::sleep(CHECK_INTERVAL);
            let turns = stop.cores().map_or(&[][..], |cores| cores.turns());
            seen.resize(turns.len(), Seen::default());
            for (core, (seen, turns)) in seen.iter_mut().zip(turns).enumerate() {
                match seen.check(turns.count()) {
                    Some(Finding::Hangs) => {
                        let seconds = CHECKS;
                        tracing::error!(core, seconds, "a core does not finish its turn");
                    }
                    Some(Finding::Continues(seconds)) => {
                        tracing::warn!(core, seconds, "the core has finished its turn");
                    }
                    None => {}
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(run) {
        tracing::warn!(%error, "cannot start the thread that reports cores that hang");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is reported while `turns` goes through these steps.
    fn found(turns: &Turns, step: impl Fn(&Turns, u32), checks: u32) -> Vec<(u32, Finding)> {
        let mut seen = Seen::default();
        (0..checks)
            .filter_map(|check| {
                step(turns, check);
                Some((check, seen.check(turns.count())?))
            })
            .collect()
    }

    #[test]
    fn a_core_that_does_not_finish_its_turn_is_reported_once_and_again_when_it_continues() {
        let step = |turns: &Turns, check| match check {
            3 => turns.begin(),
            20 => turns.end(),
            _ => {}
        };
        let found = found(&Turns::default(), step, 40);
        assert_eq!(found, [(3 + CHECKS, Finding::Hangs), (20, Finding::Continues(16))]);
    }

    #[test]
    fn a_core_that_sleeps_or_takes_one_turn_after_the_other_is_not_reported() {
        let busy = |turns: &Turns, _| {
            turns.end();
            turns.begin();
        };
        assert_eq!(found(&Turns::default(), busy, 40), []);
        let asleep = |turns: &Turns, check| {
            if check == 0 {
                turns.begin();
                turns.end();
            }
        };
        assert_eq!(found(&Turns::default(), asleep, 40), []);
    }
}
