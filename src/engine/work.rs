//! How much a core does in one turn, counted in steps, so that whatever one client sends, everybody
//! else is served meanwhile. Knows no client and no clock: the same input always takes the same turns.
//!
//! A step is about what a PUBLISH costs that nobody subscribed to: some 1,000 instructions, 0.15 to 0.4
//! microseconds. A node of the subscription index, a queue entry, a filter that is parsed or a copy
//! delivered is charged where it is processed ([`Work::spend`]); bytes that are copied as a whole
//! count [`BYTES_PER_STEP`] to a step.
//!
//! A turn has two parts with a budget each. The first serves what arrives: batches of other cores,
//! bytes of clients, timers. The second, the turn's end, continues deferred work. So neither
//! can starve the other, and a turn takes no more than [`TURN_STEPS`] and, in each part, the last piece
//! of it, as pieces are not cut.
//!
//! The budgets are as small as the batching of output allows: input that arrives during a turn waits for
//! its end, 2 to 4 ms at most. Smaller budgets make smaller batches of output, whose sends cost more:
//! with 2,048 steps, a fan-out at QoS 1 cost up to 1.8 times as much CPU time a delivery.

/// Steps for what arrives in a turn.
pub const ARRIVAL_STEPS: i64 = 8_192;

/// Steps for going on with what was deferred.
pub const DEFERRED_STEPS: i64 = 8_192;

/// Steps of one turn, besides a piece that cannot be cut in each of its parts.
pub const TURN_STEPS: u32 = (ARRIVAL_STEPS + DEFERRED_STEPS) as u32;

/// The smallest share of the second part that a client gets while others wait.
const SHARE_STEPS_MIN: i64 = DEFERRED_STEPS / 16;

/// Bytes that are copied, or looked at one after the other, for a step.
pub const BYTES_PER_STEP: usize = 512;

/// The budget of the turn.
#[derive(Debug)]
pub struct Work {
    /// Steps left for the one who is served now; below zero after a piece that could not be cut.
    left: i64,
    /// Steps of this part of the turn that are kept for those who come after.
    kept: i64,
    /// The budget of this part at its beginning.
    began_with: i64,
    /// The part for what was deferred has begun.
    is_deferred: bool,
    /// Steps of the first part.
    arrival: i64,
    /// Steps since the start.
    total: i64,
    /// The most steps of any turn.
    turn_max: i64,
    /// Since [`Self::take_turn_max`].
    #[cfg(test)]
    recent_max: i64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            left: ARRIVAL_STEPS,
            kept: 0,
            began_with: ARRIVAL_STEPS,
            is_deferred: false,
            arrival: 0,
            total: 0,
            turn_max: 0,
            #[cfg(test)]
            recent_max: 0,
        }
    }
}

impl Work {
    /// Takes steps off the budget.
    #[inline]
    pub fn spend(&mut self, steps: usize) {
        self.left -= steps as i64;
    }

    /// Takes the steps for bytes that were copied or checked off the budget.
    #[inline]
    pub fn spend_bytes(&mut self, bytes: usize) {
        self.spend(bytes / BYTES_PER_STEP);
    }

    /// Whether the client that is served now has to stop, and continue in a later turn.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.left <= 0
    }

    /// Begins the part for deferred work, once what arrived in this turn has been served; returns false when
    /// it has begun already.
    #[inline]
    pub fn begin_deferred(&mut self) -> bool {
        if self.is_deferred {
            return false;
        }
        self.arrival = self.spent();
        self.is_deferred = true;
        (self.left, self.kept, self.began_with) = (DEFERRED_STEPS, 0, DEFERRED_STEPS);
        true
    }

    /// Serves the next client of so many that wait: it gets its share of what is left.
    pub fn begin_share(&mut self, waiting: usize) {
        self.end_share();
        let share = (self.left / waiting.max(1) as i64).max(SHARE_STEPS_MIN);
        self.kept = (self.left - share).max(0);
        self.left -= self.kept;
    }

    /// Ends the share of a client: what is left is for the others again.
    #[inline]
    pub fn end_share(&mut self) {
        self.left += std::mem::take(&mut self.kept);
    }

    /// The turn is over.
    #[inline]
    pub fn end_turn(&mut self) {
        self.begin_deferred();
        let steps = self.arrival + self.spent();
        self.total += steps;
        self.turn_max = self.turn_max.max(steps);
        #[cfg(test)]
        {
            self.recent_max = self.recent_max.max(steps);
        }
        self.is_deferred = false;
        (self.left, self.kept, self.began_with) = (ARRIVAL_STEPS, 0, ARRIVAL_STEPS);
    }

    #[inline]
    fn spent(&self) -> i64 {
        self.began_with - self.left - self.kept
    }

    /// Steps since the start, up to the last turn.
    pub fn total(&self) -> u64 {
        self.total as u64
    }

    /// The most steps that any turn took.
    pub fn turn_max(&self) -> u64 {
        self.turn_max as u64
    }

    /// The most steps of any turn since this was asked last.
    #[cfg(test)]
    pub fn take_turn_max(&mut self) -> u32 {
        std::mem::take(&mut self.recent_max) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_and_what_was_deferred_have_a_budget_each() {
        let mut work = Work::default();
        work.spend(ARRIVAL_STEPS as usize);
        assert!(work.is_spent());
        work.begin_deferred();
        assert!(!work.is_spent());
        work.spend(DEFERRED_STEPS as usize);
        assert!(work.is_spent());
        work.end_turn();
        assert!(!work.is_spent());
        assert_eq!((work.turn_max(), work.total()), (TURN_STEPS.into(), TURN_STEPS.into()));
    }

    #[test]
    fn one_of_many_gets_a_share_and_the_others_theirs() {
        let mut work = Work::default();
        work.begin_deferred();
        let mut served = 0;
        for waiting in (1..=1_000).rev() {
            if work.is_spent() {
                break;
            }
            work.begin_share(waiting);
            while !work.is_spent() {
                work.spend(10);
            }
            work.end_share();
            served += 1;
        }
        assert!(served >= 15, "{served}");
        // A single client gets all of it.
        work.end_turn();
        work.begin_deferred();
        work.begin_share(1);
        work.spend(DEFERRED_STEPS as usize - 1);
        assert!(!work.is_spent());
    }

    #[test]
    fn a_piece_that_cannot_be_cut_counts_whole() {
        let mut work = Work::default();
        work.spend(1 << 30);
        work.end_turn();
        assert_eq!(work.turn_max(), 1 << 30);
    }
}
