//! What has happened since a run's start, and in its measured span: counts, times, and how many
//! came in each tenth of a second. Knows nothing of what it counts.

use crate::{distribution::Distribution, verify::Tally};

/// The steps of the timeline.
pub const TIMELINE_STEP_NS: u64 = 100_000_000;

/// Counts of a run.
#[derive(Debug, Default)]
pub struct Recorder {
    /// What was begun: messages published, connections, subscriptions.
    pub begun: u64,
    /// What was done: deliveries, or what else the scenario is about.
    pub done: u64,
    /// What was wrong.
    pub tally: Tally,
    span: Span,
}

/// The measured span.
#[derive(Debug, Default)]
struct Span {
    recording: bool,
    distribution: Distribution,
    timeline: Vec<u64>,
    /// When the timeline's last step is over.
    step_end_ns: u64,
}

impl Recorder {
    /// The measured span begins.
    pub fn start(&mut self, now_ns: u64) {
        self.span.distribution.clear();
        self.span.timeline = vec![0];
        self.span.step_end_ns = now_ns + TIMELINE_STEP_NS;
        self.span.recording = true;
    }

    /// It ends; what was recorded in it: times, and how many in each tenth of a second.
    pub fn stop(&mut self) -> (Distribution, Vec<u64>) {
        let span = std::mem::take(&mut self.span);
        (span.distribution, span.timeline)
    }

    /// One more is done, having taken so long.
    #[inline]
    pub fn done(&mut self, now_ns: u64, took_ns: u64) {
        self.done_without_time(now_ns);
        if self.span.recording {
            self.span.distribution.record(took_ns);
        }
    }

    /// One more is done as a part of what is timed as a whole.
    #[inline]
    pub fn done_without_time(&mut self, now_ns: u64) {
        self.done += 1;
        let span = &mut self.span;
        if span.recording {
            while now_ns >= span.step_end_ns {
                span.timeline.push(0);
                span.step_end_ns += TIMELINE_STEP_NS;
            }
            *span.timeline.last_mut().expect("it begins with a step") += 1;
        }
    }

    /// A whole took so long; its parts are counted apart.
    pub fn took(&mut self, took_ns: u64) {
        if self.span.recording {
            self.span.distribution.record(took_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_span_is_recorded_each_in_its_step() {
        let mut recorder = Recorder::default();
        recorder.done(5, 1_000);
        recorder.start(1_000_000);
        recorder.done(1_000_000, 2_000);
        recorder.done(1_000_000 + 2 * TIMELINE_STEP_NS, 2_000);
        let (distribution, timeline) = recorder.stop();
        recorder.done(9, 1_000);
        assert_eq!((recorder.done, distribution.count()), (4, 2));
        assert_eq!(timeline, [1, 0, 1]);
    }
}
