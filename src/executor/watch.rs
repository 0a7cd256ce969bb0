//! Cores that do not finish their turn: whoever waits for an answer of theirs, such as a SUBACK of another
//! core's client, waits too. It is said which core that is, with a service manager or without.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::executor::Stop;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks in a row that find a core in the same turn, after which that is said.
const LOOKS: u32 = 5;

/// Turns of one core: odd while one goes on. It is written by that core alone, twice a turn, and so has
/// a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Turns(AtomicU32);

impl Turns {
    /// A turn begins, if none goes on.
    pub fn begin(&self) {
        // Relaxed: nothing else is told by it.
        self.0.store(self.0.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
    }

    /// It ends.
    pub fn end(&self) {
        self.0.store((self.0.load(Ordering::Relaxed) | 1).wrapping_add(1), Ordering::Relaxed);
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is known of one core.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turns: u32,
    /// Looks since, that found it in the same turn.
    looks: u32,
}

/// What there is to say of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It has been in the same turn for so many looks.
    Hangs,
    /// It had, and has finished it, after so many looks.
    GoesOn(u32),
}

impl Seen {
    fn look(&mut self, turns: u32) -> Option<Said> {
        let is_same_turn = turns == self.turns && turns % 2 == 1;
        let looks = std::mem::replace(self, Self { turns, looks: 0 }).looks;
        if is_same_turn {
            self.looks = looks.saturating_add(1);
            return (self.looks == LOOKS).then_some(Said::Hangs);
        }
        (looks >= LOOKS).then_some(Said::GoesOn(looks))
    }
}

/// Watches the cores of a broker until it stops, on a thread of its own.
pub fn start(stop: Stop) {
    let run = move || {
        let mut seen: Vec<Seen> = Vec::new();
        while !stop.is_asked() {
            std::thread::sleep(LOOK_EVERY);
            let turns = stop.turns();
            seen.resize(turns.len(), Seen::default());
            for (core, (seen, turns)) in seen.iter_mut().zip(turns).enumerate() {
                match seen.look(turns.count()) {
                    Some(Said::Hangs) => {
                        let seconds = LOOKS;
                        tracing::error!(core, seconds, "a core does not finish its turn");
                    }
                    Some(Said::GoesOn(seconds)) => {
                        tracing::warn!(core, seconds, "the core has finished its turn and goes on");
                    }
                    None => {}
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(run) {
        tracing::warn!(%error, "cannot watch the cores: one that hangs is not named");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said while `turns` goes through this.
    fn said(turns: &Turns, step: impl Fn(&Turns, u32), looks: u32) -> Vec<(u32, Said)> {
        let mut seen = Seen::default();
        (0..looks)
            .filter_map(|look| {
                step(turns, look);
                Some((look, seen.look(turns.count())?))
            })
            .collect()
    }

    #[test]
    fn a_core_that_does_not_finish_its_turn_is_named_once_and_again_when_it_goes_on() {
        let step = |turns: &Turns, look| match look {
            3 => turns.begin(),
            20 => turns.end(),
            _ => {}
        };
        let said = said(&Turns::default(), step, 40);
        assert_eq!(said, [(3 + LOOKS, Said::Hangs), (20, Said::GoesOn(16))]);
    }

    #[test]
    fn a_core_that_sleeps_or_is_busy_with_one_turn_after_the_other_is_not_named() {
        let busy = |turns: &Turns, _| {
            turns.end();
            turns.begin();
        };
        assert_eq!(said(&Turns::default(), busy, 40), []);
        let asleep = |turns: &Turns, look| {
            if look == 0 {
                turns.begin();
                turns.end();
            }
        };
        assert_eq!(said(&Turns::default(), asleep, 40), []);
    }
}
