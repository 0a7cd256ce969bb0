//! Whether every message came once and in order: one `Stream` for each publisher and subscriber,
//! one `Tally` for the run. Knows sequence numbers only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// A new one, but its receiver had a later one already.
    Overtaken,
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

/// The messages that a group of subscribers share out among them: each has to come to one member,
/// and in order as far as one member sees.
#[derive(Debug)]
pub struct Group {
    publishers: usize,
    /// For each publisher, over all members.
    streams: Vec<Stream>,
    /// Messages of each publisher that came.
    came: Vec<u64>,
    /// The sequence number after the last one, for each member and publisher.
    next: Vec<u64>,
}

impl Group {
    /// A group of so many members.
    pub fn new(publishers: u32, members: u32) -> Self {
        let publishers = publishers as usize;
        Self {
            publishers,
            streams: (0..publishers).map(|_| Stream::default()).collect(),
            came: vec![0; publishers],
            next: vec![0; publishers * members as usize],
        }
    }

    /// Note the arrival of a publisher's message at a member; None if there is no such publisher.
    #[inline]
    pub fn accept(&mut self, member: usize, publisher: u32, sequence: u64) -> Option<Arrival> {
        let publisher = publisher as usize;
        let stream = self.streams.get_mut(publisher)?;
        if stream.accept(sequence) == Arrival::Duplicate {
            return Some(Arrival::Duplicate);
        }
        self.came[publisher] += 1;
        let next = &mut self.next[member * self.publishers + publisher];
        if sequence < *next {
            return Some(Arrival::Overtaken);
        }
        *next = sequence + 1;
        Some(Arrival::InOrder)
    }

    /// Messages that came to no member, given how many each publisher sent.
    pub fn lost(&self, sent_by: impl Fn(u32) -> u64) -> u64 {
        let publishers = 0..;
        let pairs = self.came.iter().zip(publishers);
        pairs.map(|(&came, publisher)| sent_by(publisher).saturating_sub(came)).sum()
    }
}

/// What was wrong in a run; all zero when nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
            Arrival::Overtaken => self.reordered += 1,
            Arrival::Duplicate => self.duplicated += 1,
        }
    }

    /// Add what another process found.
    pub fn add(&mut self, other: &Self) {
        let Self {
            lost,
            duplicated,
            reordered,
            misdelivered,
            corrupted,
            wrong_qos,
            wrong_acknowledgements,
            unacknowledged,
        } = other;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.misdelivered += misdelivered;
        self.corrupted += corrupted;
        self.wrong_qos += wrong_qos;
        self.wrong_acknowledgements += wrong_acknowledgements;
        self.unacknowledged += unacknowledged;
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
    fn a_group_takes_turns_and_what_none_of_it_got_is_lost() {
        let (mut group, mut tally) = (Group::new(1, 2), Tally::default());
        let arrivals = [(0, 0), (1, 2), (0, 1), (0, 4), (1, 3), (0, 3), (1, 6), (1, 5)];
        for (member, sequence) in arrivals {
            tally.note(group.accept(member, 0, sequence).expect("there is a publisher 0"));
        }
        tally.lost += group.lost(|_| 9);
        assert_eq!(
            tally,
            Tally { lost: 2, duplicated: 1, reordered: 1, ..Tally::default() },
            "7 and 8 never came, 3 came twice, and the second member saw 6 before 5"
        );
        assert_eq!(group.accept(0, 1, 0), None);
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
