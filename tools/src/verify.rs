//! Verifies that every message is delivered once and in order: one `Stream` per publisher and
//! subscriber, one `Tally` per run. Only uses sequence numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::GAPS_MAX;

/// The kind of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The expected message.
    InOrder,
    /// A later message: this many before it have not arrived yet.
    AfterGap(u64),
    /// A message that had been missing: it was overtaken.
    Late,
    /// A message that had arrived before.
    Duplicate,
    /// A new message, but its receiver already has a later one.
    Overtaken,
}

/// The messages of one publisher as received by one subscriber.
#[derive(Debug, Default)]
pub struct Stream {
    next: u64,
    /// Absent until an anomaly occurs, so that a stream takes 16 bytes.
    gaps: Option<Box<Gaps>>,
}

#[derive(Debug, Default)]
struct Gaps {
    /// Start and end (exclusive) of missing ranges, at most `GAPS_MAX` of them.
    ranges: BTreeMap<u64, u64>,
}

impl Stream {
    /// Records the arrival of message `sequence`.
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

    /// How many of the publisher's `sent` messages are beyond the last one received.
    pub fn tail(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.next)
    }
}

impl Gaps {
    /// Removes `sequence` from the gaps; returns whether it was in one.
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

/// The messages of a group: each must reach one member, and be in order among those of that member.
#[derive(Debug)]
pub struct Group {
    publishers: usize,
    /// For each publisher, over all members.
    streams: Vec<Stream>,
    /// Messages of each publisher received.
    came: Vec<u64>,
    /// The sequence number after the last one, for each member and publisher.
    next: Vec<u64>,
}

impl Group {
    /// A group with this many members.
    pub fn new(publishers: u32, members: u32) -> Self {
        let publishers = publishers as usize;
        Self {
            publishers,
            streams: (0..publishers).map(|_| Stream::default()).collect(),
            came: vec![0; publishers],
            next: vec![0; publishers * members as usize],
        }
    }

    /// Records the arrival of a publisher's message at a member; `None` if there is no such
    /// publisher.
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

    /// Messages that reached no member, given how many each publisher sent.
    pub fn lost(&self, sent_by: impl Fn(u32) -> u64) -> u64 {
        let publishers = 0..;
        let pairs = self.came.iter().zip(publishers);
        pairs.map(|(&came, publisher)| sent_by(publisher).saturating_sub(came)).sum()
    }
}

/// The violations of a run; all zero if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Deliveries that never arrived.
    pub lost: u64,
    /// Repeated deliveries.
    pub duplicated: u64,
    /// Deliveries that were overtaken by a later message of the same publisher.
    pub reordered: u64,
    /// Deliveries to a client without a subscription to that topic, or from another run.
    pub misdelivered: u64,
    /// Payloads that differ from the published ones.
    pub corrupted: u64,
    /// Deliveries at another QoS than published and subscribed.
    pub wrong_qos: u64,
    /// Acknowledgements out of order, for nothing, or with an error.
    pub wrong_acknowledgements: u64,
    /// Messages the broker never acknowledged.
    pub unacknowledged: u64,
}

impl Tally {
    /// Counts an arrival.
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

    /// Adds the counts of another process.
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

    /// Whether there are no violations.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Each kind of violation with its count.
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
    fn messages_received_once_and_in_order_are_no_violation() {
        assert!(tally_of(&[0, 1, 2, 3], 4).is_clean());
        assert_eq!(size_of::<Stream>(), 16);
    }

    #[test]
    fn a_loss_is_detected_in_the_middle_and_at_the_end() {
        assert_eq!(tally_of(&[0, 1, 4, 5], 6), Tally { lost: 2, ..Tally::default() });
        assert_eq!(tally_of(&[0, 1], 4), Tally { lost: 2, ..Tally::default() });
        assert_eq!(tally_of(&[], 3), Tally { lost: 3, ..Tally::default() });
    }

    #[test]
    fn a_duplicate_is_detected() {
        assert_eq!(tally_of(&[0, 1, 1, 2, 0], 3), Tally { duplicated: 2, ..Tally::default() });
        assert_eq!(
            tally_of(&[0, 3, 1, 1], 4),
            Tally { lost: 1, reordered: 1, duplicated: 1, ..Tally::default() }
        );
    }

    #[test]
    fn disorder_is_neither_loss_nor_duplicate() {
        assert_eq!(tally_of(&[0, 2, 1, 3], 4), Tally { reordered: 1, ..Tally::default() });
        assert_eq!(tally_of(&[3, 1, 0, 2], 4), Tally { reordered: 3, ..Tally::default() });
    }

    #[test]
    fn messages_that_reach_no_member_of_a_group_are_lost() {
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
