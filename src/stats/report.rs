//! A report: what was recorded and counted over a span of time, by core and in all.

use std::time::{Duration, SystemTime};

use crate::base::metrics::Metrics;
use crate::stats::Recording;

/// Why a report is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An interval has passed, and it is about that.
    Interval,
    /// Somebody asked. It is about all since the start, as is the next.
    Asked,
    /// The broker has stopped.
    Exit,
}

impl Why {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Asked => "asked",
            Self::Exit => "exit",
        }
    }
}

/// What one core, or all of them, recorded and counted.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// How long things took.
    pub recording: Recording,
    /// What was counted in the span, and gauges as they stood at its end.
    pub metrics: Metrics,
}

/// All there is to say about a span of time.
#[derive(Debug)]
pub struct Report {
    /// Why it is made.
    pub why: Why,
    /// When.
    pub at: SystemTime,
    /// How long the broker had been running by then.
    pub uptime: Duration,
    /// How long the span is that it is about; it ends now.
    pub span: Duration,
    /// By core.
    pub cores: Vec<Part>,
    /// Taken together.
    pub all: Part,
}

impl Report {
    /// From what each core recorded and counted.
    pub fn new(
        why: Why,
        at: SystemTime,
        (uptime, span): (Duration, Duration),
        cores: Vec<Part>,
    ) -> Self {
        let mut all = cores.first().cloned().unwrap_or_default();
        for part in cores.iter().skip(1) {
            all.recording.add(&part.recording);
            all.metrics.add(&part.metrics);
        }
        Self { why, at, uptime, span, cores, all }
    }

    /// How many a second `count` are over the span.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.span.as_secs_f64().max(1e-6)
    }

    /// For how much of the span a core was busy, from 0 to 1.
    pub fn busy(&self, core: &Part) -> f64 {
        (core.metrics.busy_us as f64 / self.span.as_micros().max(1) as f64).min(1.0)
    }
}
