//! What one core records: histograms that this core alone writes. The recorder reads no clock.

use crate::base::clock::{Now, Tick};
use crate::base::latencies::{Kind, Recording};
use crate::base::metrics::{Metrics, subtract_each};
use crate::control::{Reply, Statistics};
use crate::stats::{FORWARDED, PUBLISH};

/// When a batch was sent. All zero where no statistics are collected.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    /// The beginning of the first turn of which the batch holds something.
    pub began: Tick,
    /// When the batch was sealed.
    pub sealed: Tick,
}

/// The records of one core.
#[derive(Debug)]
pub struct Recorder {
    recording: Box<Recording>,
    /// PUBLISH packets received up to the last turn, by QoS.
    published: [u64; 3],
    /// Batches received in this turn: since when their messages are in the broker, and the number of messages of
    /// each QoS.
    arrived: Vec<(Tick, [u64; 3])>,
    /// The way back for the statistics at the core's end.
    at_end: Reply<Statistics>,
}

impl Recorder {
    pub(super) fn new(at_end: Reply<Statistics>) -> Self {
        Self { recording: Box::default(), published: [0; 3], arrived: Vec::new(), at_end }
    }

    /// A batch has arrived. `forwarded_before` and `forwarded` count the messages that the core had received from
    /// other cores, by QoS, before the batch and with it.
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

    /// A turn has ended. `published` counts the PUBLISH packets that the core has received since the start, by
    /// QoS; `connects` says when the CONNECT packets arrived that were answered in this turn.
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

    /// Records one latency that neither a turn nor a batch has.
    pub fn record(&mut self, kind: Kind, ns: u64) {
        self.recording.record(kind, ns, 1);
    }

    /// Takes what was recorded since the last time, and continues with an empty recording.
    pub fn take(&mut self, empty: Box<Recording>) -> Box<Recording> {
        std::mem::replace(&mut self.recording, empty)
    }

    /// The core has stopped: sends the last statistics.
    pub fn finish(self, metrics: Metrics) {
        let Self { recording, at_end, .. } = self;
        at_end.send(Statistics { recording, metrics });
    }
}

fn record_each(recording: &mut Recording, kinds: [Kind; 3], ns: u64, messages: [u64; 3]) {
    for (kind, messages) in kinds.into_iter().zip(messages) {
        recording.record(kind, ns, messages);
    }
}
