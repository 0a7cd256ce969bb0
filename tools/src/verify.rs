//! Whether every message came once and in order: one `Stream` for each publisher and subscriber,
//! one `Tally` for the run. Knows sequence numbers only.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::limits::GAPS_MAX;

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one.
    InOrder,
    /// A later one: so many before it have not come yet.
    AfterGap(u64),
    /// One that had been missing: it was overtaken.
    Late,
    /// One that had come before.
    Duplicate,
}

/// The messages of one publisher as one subscriber sees them.
#[derive(Debug, Default)]
pub struct Stream {
    next: u64,
    /// Absent until something goes wrong, so that a stream is 16 bytes.
    gaps: Option<Box<Gaps>>,
}

#[derive(Debug, Default)]
struct Gaps {
    /// Start to end (exclusive) of what has not come, at most `GAPS_MAX` of them.
    ranges: BTreeMap<u64, u64>,
}

impl Stream {
    /// Note the arrival of message `sequence`.
    #[inline]
    pub fn accept(&mut self, sequence: u64) -> Arrival {
        if sequence == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        self.accept_out_of_order(sequence)
    }

    #[cold]
    fn accept_out_of_order(&mut self, sequence: u64) -> Arrival {
        let gaps = self.gaps.get_or_insert_default();
        if sequence > self.next {
            let skipped = sequence - self.next;
            if gaps.ranges.len() < GAPS_MAX {
                gaps.ranges.insert(self.next, sequence);
            }
            self.next = sequence + 1;
            return Arrival::AfterGap(skipped);
        }
        if gaps.fill(sequence) { Arrival::Late } else { Arrival::Duplicate }
    }

    /// How many of the `sent` messages of the publisher are beyond the last one that came.
    pub fn tail(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.next)
    }
}

impl Gaps {
    /// Take `sequence` out of the gaps; whether it was in one.
    fn fill(&mut self, sequence: u64) -> bool {
        let Some((&start, &end)) = self.ranges.range(..=sequence).next_back() else { return false };
        if sequence >= end {
            return false;
        }
        self.ranges.remove(&start);
        if start < sequence {
            self.ranges.insert(start, sequence);
        }
        if sequence + 1 < end {
            self.ranges.insert(sequence + 1, end);
        }
        true
    }
}

/// What was wrong in a run; all zero when nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries that were overtaken by a later message of the same publisher.
    pub reordered: u64,
    /// Deliveries to a client that had not subscribed to that topic, or from another run.
    pub misdelivered: u64,
    /// Payloads that were not what was published.
    pub corrupted: u64,
    /// Deliveries at another QoS than was published and subscribed.
    pub wrong_qos: u64,
    /// Acknowledgements out of order, for nothing, or with an error.
    pub wrong_acknowledgements: u64,
    /// Messages the broker never acknowledged.
    pub unacknowledged: u64,
}

impl Tally {
    /// Count an arrival.
    #[inline]
    pub fn note(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::InOrder => {}
            Arrival::AfterGap(skipped) => self.lost += skipped,
            Arrival::Late => {
                self.lost -= 1;
                self.reordered += 1;
            }
            Arrival::Duplicate => self.duplicated += 1,
        }
    }

    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Each kind of violation with its count, in words.
    pub fn kinds(&self) -> [(&'static str, u64); 8] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("misdelivered", self.misdelivered),
            ("corrupted", self.corrupted),
            ("at another QoS", self.wrong_qos),
            ("acknowledged wrongly", self.wrong_acknowledgements),
            ("never acknowledged", self.unacknowledged),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(arrivals: &[u64], sent: u64) -> Tally {
        let (mut stream, mut tally) = (Stream::default(), Tally::default());
        for &sequence in arrivals {
            tally.note(stream.accept(sequence));
        }
        tally.lost += stream.tail(sent);
        tally
    }

    #[test]
    fn what_comes_once_and_in_order_is_clean() {
        assert!(tally_of(&[0, 1, 2, 3], 4).is_clean());
        assert_eq!(size_of::<Stream>(), 16);
    }

    #[test]
    fn a_planted_loss_is_found_in_the_middle_and_at_the_end() {
        assert_eq!(tally_of(&[0, 1, 4, 5], 6), Tally { lost: 2, ..Tally::default() });
        assert_eq!(tally_of(&[0, 1], 4), Tally { lost: 2, ..Tally::default() });
        assert_eq!(tally_of(&[], 3), Tally { lost: 3, ..Tally::default() });
    }

    #[test]
    fn a_planted_duplicate_is_found() {
        assert_eq!(tally_of(&[0, 1, 1, 2, 0], 3), Tally { duplicated: 2, ..Tally::default() });
        assert_eq!(
            tally_of(&[0, 3, 1, 1], 4),
            Tally { lost: 1, reordered: 1, duplicated: 1, ..Tally::default() }
        );
    }

    #[test]
    fn a_planted_disorder_is_neither_loss_nor_duplicate() {
        assert_eq!(tally_of(&[0, 2, 1, 3], 4), Tally { reordered: 1, ..Tally::default() });
        assert_eq!(tally_of(&[3, 1, 0, 2], 4), Tally { reordered: 3, ..Tally::default() });
    }

    #[test]
    fn gaps_are_bounded() {
        let mut stream = Stream::default();
        for sequence in 0..4 * GAPS_MAX as u64 {
            stream.accept(sequence * 2 + 1);
        }
        assert_eq!(stream.gaps.as_ref().map(|gaps| gaps.ranges.len()), Some(GAPS_MAX));
    }
}
