//! What one core records: histograms, written by that core alone. Knows no clock.

use std::sync::mpsc;

use hdrhistogram::Histogram;

use crate::base::clock::{Now, Tick};
use crate::base::metrics::{Metrics, subtract_each};
use crate::stats::{FORWARDED, KINDS, Kind, PUBLISH};

/// Significant decimal digits that a histogram keeps: it is off by at most a thousandth.
const DIGITS: u8 = 3;

/// Longer ones count as this long, an hour, so that a histogram has at most 32 times 1,024 counts.
const NS_MAX: u64 = 3_600_000_000_000;

/// Histograms of nanoseconds, one for each kind. They grow as longer times come up.
#[derive(Clone, Debug)]
pub struct Recording([Histogram<u64>; KINDS.len()]);

impl Default for Recording {
    fn default() -> Self {
        let empty = Histogram::new(DIGITS).expect("from 0 to 5 digits");
        Self(std::array::from_fn(|_| empty.clone()))
    }
}

impl Recording {
    /// The histogram of a kind.
    pub fn of(&self, kind: Kind) -> &Histogram<u64> {
        &self.0[kind as usize]
    }

    /// The kinds of which there is something, with their names for programs and for people.
    pub fn each(&self) -> impl Iterator<Item = (Kind, &'static str, &'static str)> + '_ {
        KINDS.into_iter().filter(|&(kind, ..)| !self.of(kind).is_empty())
    }

    /// Records that something took so long, so many times.
    pub fn record(&mut self, kind: Kind, ns: u64, times: u64) {
        if times > 0 {
            let histogram = &mut self.0[kind as usize];
            histogram.record_n(ns.min(NS_MAX), times).expect("it grows up to an hour");
        }
    }

    /// Adds what another one holds.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(&other.0).filter(|(_, from)| !from.is_empty()) {
            to.add(from).expect("it grows");
        }
    }

    /// Forgets everything, and keeps its memory.
    pub fn clear(&mut self) {
        self.0.iter_mut().filter(|histogram| !histogram.is_empty()).for_each(Histogram::clear);
    }
}

/// When a batch set off. All zero where no statistics are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    /// The beginning of the first turn of which it holds something.
    pub began: Tick,
    /// When it was sealed.
    pub sealed: Tick,
}

/// What a core says when it is asked, and once more at its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub core: usize,
    /// All since the answer before.
    pub recording: Box<Recording>,
    /// Counters since the start.
    pub metrics: Metrics,
}

/// The records of one core.
#[derive(Debug)]
pub struct Recorder {
    core: usize,
    recording: Box<Recording>,
    /// PUBLISH packets taken up to the last turn, by QoS.
    published: [u64; 3],
    /// Batches taken in this turn: since when their messages are in the broker, and how many of
    /// them there are of each QoS.
    arrived: Vec<(Tick, [u64; 3])>,
    /// Empty recordings to go on with: each asks for the one there is.
    asks: mpsc::Receiver<Box<Recording>>,
    answers: mpsc::Sender<Answer>,
}

impl Recorder {
    pub(super) fn new(
        core: usize,
        asks: mpsc::Receiver<Box<Recording>>,
        answers: mpsc::Sender<Answer>,
    ) -> Self {
        let (published, arrived) = ([0; 3], Vec::new());
        Self { core, recording: Box::default(), published, arrived, asks, answers }
    }

    /// A batch has come. `forwarded_before` and `forwarded` are how many messages the core had taken
    /// from others, by QoS, before it and with it.
    pub fn note_batch(
        &mut self,
        stamps: Stamps,
        handled: Tick,
        forwarded_before: [u64; 3],
        forwarded: [u64; 3],
    ) {
        self.recording.record(Kind::Hop, handled.since_ns(stamps.sealed), 1);
        let messages = subtract_each(forwarded, forwarded_before);
        if messages != [0; 3] {
            self.arrived.push((stamps.began, messages));
        }
    }

    /// A turn has ended. `published` is how many PUBLISH packets the core has received since the
    /// start, by QoS; `connects` when the CONNECTs came that it has answered in this turn.
    pub fn note_turn(
        &mut self,
        began: Tick,
        ended: Tick,
        published: [u64; 3],
        connects: impl Iterator<Item = Now>,
    ) {
        let busy_ns = ended.since_ns(began);
        self.recording.record(Kind::Turn, busy_ns, 1);
        let messages = subtract_each(published, self.published);
        self.published = published;
        record_each(&mut self.recording, PUBLISH, busy_ns, messages);
        for (since, messages) in self.arrived.drain(..) {
            record_each(&mut self.recording, FORWARDED, ended.since_ns(since), messages);
        }
        for received in connects {
            self.recording.record(Kind::Connect, ended.since_ns(received.into()), 1);
        }
    }

    /// Records what nobody else does.
    pub fn record(&mut self, kind: Kind, ns: u64) {
        self.recording.record(kind, ns, 1);
    }

    /// Answers when it is asked. It waits for nobody.
    pub fn answer_if_asked(&mut self, metrics: impl FnOnce() -> Metrics) {
        if let Ok(empty) = self.asks.try_recv() {
            let recording = std::mem::replace(&mut self.recording, empty);
            self.say(recording, metrics());
        }
    }

    /// The core has stopped.
    pub fn finish(mut self, metrics: Metrics) {
        let recording = std::mem::take(&mut self.recording);
        self.say(recording, metrics);
    }

    fn say(&self, recording: Box<Recording>, metrics: Metrics) {
        // A reporter that is gone asks for nothing.
        let _ = self.answers.send(Answer { core: self.core, recording, metrics });
    }
}

fn record_each(recording: &mut Recording, kinds: [Kind; 3], ns: u64, messages: [u64; 3]) {
    for (kind, messages) in kinds.into_iter().zip(messages) {
        recording.record(kind, ns, messages);
    }
}
