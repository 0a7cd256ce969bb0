//! What a subscriber got, against what it was to get.

use std::collections::{BTreeMap, BTreeSet};

use ringmq::wire::Qos;

/// Findings that are kept, and how many of them may be messages that came again.
const FINDINGS_MAX: usize = 20;
const DOUBLED_MAX: usize = 3;

/// The deliveries of one topic, which has messages of one publisher with one quality of service.
#[derive(Debug, Default)]
struct Track {
    /// The highest number that came.
    highest: u64,
    /// Lower numbers that have not come.
    missing: BTreeSet<u64>,
}

/// The sums of the last line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    /// Messages that came, each counted once for each of its subscribers.
    pub delivered: u64,
    /// Acknowledged messages that did not come.
    pub lost: u64,
    /// Messages of QoS 2 that came again.
    pub doubled: u64,
    /// Messages that came for the first time after a later one.
    pub reordered: u64,
    /// Messages of QoS 1 that came again with DUP, as MQTT allows.
    pub repeated: u64,
    /// Messages of QoS 1 that came again without DUP: in the moment of a move.
    pub repeated_without_dup: u64,
}

impl Verdict {
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.repeated += other.repeated;
        self.repeated_without_dup += other.repeated_without_dup;
    }

    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered == 0
    }

    /// The last line of a run.
    pub fn line(&self) -> String {
        let Self { delivered, lost, doubled, reordered, .. } = self;
        format!("delivered {delivered} lost {lost} doubled {doubled} reordered {reordered}")
    }
}

/// Counts what comes, by topic. Numbers of a topic begin with 1.
#[derive(Debug, Default)]
pub struct Ledger {
    tracks: BTreeMap<String, Track>,
    verdict: Verdict,
    /// The first findings, as text.
    pub findings: Vec<String>,
}

impl Ledger {
    /// Notes a message, and returns whether it is the first with its number.
    pub fn note(&mut self, topic: &str, number: u64, qos: Qos, dup: bool) -> bool {
        let track = self.tracks.entry(topic.to_owned()).or_default();
        let highest = track.highest;
        if number > highest {
            track.missing.extend(highest + 1..number);
            track.highest = number;
        } else if track.missing.remove(&number) {
            self.verdict.reordered += 1;
            self.findings.push(format!("{topic} {number} came after {highest}"));
            self.findings.truncate(FINDINGS_MAX);
        } else {
            match (qos, dup) {
                (Qos::ExactlyOnce, _) => {
                    self.verdict.doubled += 1;
                    self.find(format!("{topic} {number} came again, after {highest}, DUP {dup}"));
                }
                (_, true) => self.verdict.repeated += 1,
                (_, false) => self.verdict.repeated_without_dup += 1,
            }
            return false;
        }
        self.verdict.delivered += 1;
        true
    }

    /// A message that a client takes for another one: the Packet Identifier is in use, so that it is lost.
    pub fn note_reused(
        &mut self,
        identifier: u16,
        former: &(String, u64),
        message: &(String, u64),
    ) {
        let (topic, number) = message;
        self.findings.push(format!(
            "{topic} {number} came with the Packet Identifier {identifier} of {} {}, which was not released",
            former.0, former.1
        ));
        self.findings.truncate(FINDINGS_MAX);
    }

    fn find(&mut self, text: String) {
        if self.findings.len() < DOUBLED_MAX {
            self.findings.push(text);
        }
    }

    /// How many of the numbers up to `last` of a topic have not come.
    pub fn lacking(&self, topic: &str, last: u64) -> u64 {
        let Some(track) = self.tracks.get(topic) else { return last };
        let among = track.missing.range(..=last).count() as u64;
        among + last.saturating_sub(track.highest)
    }

    /// The end: what of `expected`, the last number of each topic, has not come is lost.
    pub fn close(mut self, expected: &[(String, u64)]) -> (Verdict, Vec<String>) {
        for (topic, last) in expected {
            let lacking = self.lacking(topic, *last);
            self.verdict.lost += lacking;
            if lacking > 0 {
                let first = self
                    .tracks
                    .get(topic)
                    .map(|track| track.missing.first().copied().unwrap_or(track.highest + 1));
                let first = first.unwrap_or(1);
                let highest = self.tracks.get(topic).map_or(0, |track| track.highest);
                self.findings.push(format!(
                    "{topic}: {lacking} of {last} did not come, first {first}; the highest was {highest}"
                ));
            }
        }
        (self.verdict, self.findings)
    }
}

#[test]
fn lost_doubled_and_reordered_messages_are_told_apart() {
    let mut ledger = Ledger::default();
    let mut note = |number, qos, dup| ledger.note("t", number, qos, dup);
    for number in [1, 2, 4, 3, 7] {
        assert!(note(number, Qos::ExactlyOnce, false));
    }
    assert!(!note(2, Qos::ExactlyOnce, true));
    assert!(!note(1, Qos::AtLeastOnce, true));
    assert!(!note(1, Qos::AtLeastOnce, false));
    assert_eq!((ledger.lacking("t", 8), ledger.lacking("other", 2)), (3, 2));
    let (verdict, findings) = ledger.close(&[("t".to_owned(), 8), ("other".to_owned(), 2)]);
    assert_eq!(verdict.line(), "delivered 5 lost 5 doubled 1 reordered 1");
    assert_eq!((verdict.repeated, verdict.repeated_without_dup), (1, 1));
    assert!(findings[0].contains("t 3 came after 4"), "{findings:?}");
}
