//! For how long the oldest message of a bridge's queue has waited. Messages have no time of their own: the length of the
//! queue is looked at once a second, which tells the age to a second.

use std::collections::VecDeque;

use crate::base::clock::Now;

/// Looks that are kept at most: of more, every second one is forgotten.
const LOOKS_MAX: usize = 64;

/// What was seen of one queue. Its messages are numbered in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Ages(VecDeque<(Now, u64)>);

impl Ages {
    /// The queue has the messages from `first` on, before `end`.
    pub fn look(&mut self, now: Now, first: u64, end: u64) {
        self.forget(first, end);
        if first < end && self.0.back().is_none_or(|(_, before)| *before < end) {
            self.0.push_back((now, end));
        }
        if self.0.len() > LOOKS_MAX {
            // The first one is that of the oldest message.
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
    }

    /// Messages before `first` have left; others may have, from within the queue.
    fn forget(&mut self, first: u64, end: u64) {
        while self.0.front().is_some_and(|(_, before)| *before <= first) {
            self.0.pop_front();
        }
        self.0.iter_mut().for_each(|(_, before)| *before = end.min(*before));
    }

    /// For how many seconds the oldest message has waited.
    pub fn oldest_s(&mut self, now: Now, first: u64, end: u64) -> u64 {
        self.forget(first, end);
        self.0.front().map_or(0, |(came, _)| now.since_us(*came) / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now(second * 1_000_000)
    }

    #[test]
    fn the_age_of_a_queue_is_that_of_its_oldest_message() {
        let mut of = Ages::default();
        assert_eq!(of.oldest_s(at(1), 0, 0), 0);
        of.look(at(10), 0, 5);
        of.look(at(11), 0, 5);
        of.look(at(20), 0, 9);
        assert_eq!(of.oldest_s(at(30), 0, 9), 20);
        assert_eq!(of.oldest_s(at(30), 4, 9), 20, "one of the first five is left");
        assert_eq!(of.oldest_s(at(30), 5, 9), 10);
        assert_eq!(of.oldest_s(at(30), 9, 9), 0);
    }

    #[test]
    fn the_memory_of_looks_is_bounded_and_the_oldest_one_stays() {
        let mut of = Ages::default();
        for second in 1..10_000 {
            of.look(at(second), 0, second);
        }
        assert!(of.0.len() <= LOOKS_MAX);
        assert_eq!(of.oldest_s(at(10_000), 0, 9_999), 9_999);
    }
}
