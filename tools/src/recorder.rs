//! Counts and times since a run's start and in its measured span, with a timeline of tenths of a
//! second. Independent of what is counted.

use crate::{distribution::Distribution, verify::Tally};

/// The step of the timeline.
pub const TIMELINE_STEP_NS: u64 = 100_000_000;

/// The counts of a run.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Operations started: messages published, connections, subscriptions.
    pub begun: u64,
    /// Operations completed: deliveries, or what the scenario counts.
    pub done: u64,
    /// Violations.
    pub tally: Tally,
    span: Span,
}

/// The measured span.
#[derive(Debug, Default)]
struct Span {
    recording: bool,
    distribution: Distribution,
    timeline: Vec<u64>,
    /// The end of the timeline's last step.
    step_end_ns: u64,
}

impl Recorder {
    /// Starts the measured span.
    pub fn start(&mut self, now_ns: u64) {
        self.span.distribution.clear();
        self.span.timeline = vec![0];
        self.span.step_end_ns = now_ns + TIMELINE_STEP_NS;
        self.span.recording = true;
    }

    /// Ends it; returns the recorded times, and the number of operations in each tenth of a second.
    pub fn stop(&mut self) -> (Distribution, Vec<u64>) {
        let span = std::mem::take(&mut self.span);
        (span.distribution, span.timeline)
    }

    /// Records a completed operation with its duration.
    #[inline]
    pub fn done(&mut self, now_ns: u64, took_ns: u64) {
        self.done_without_time(now_ns);
        if self.span.recording {
            self.span.distribution.record(took_ns);
        }
    }

    /// Records a completed part of an operation that is timed as a whole.
    #[inline]
    pub fn done_without_time(&mut self, now_ns: u64) {
        self.done += 1;
        let span = &mut self.span;
        if span.recording {
            while now_ns >= span.step_end_ns {
                span.timeline.push(0);
                span.step_end_ns += TIMELINE_STEP_NS;
            }
            *span.timeline.last_mut().expect("at least one step") += 1;
        }
    }

    /// Records the duration of a whole operation whose parts are counted separately.
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
    fn only_operations_in_the_span_are_recorded_in_their_steps() {
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
