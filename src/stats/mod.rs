//! Statistics: the latency of messages through the broker, and what was counted meanwhile.
//!
//! Each core records into histograms of its own ([`Recorder`]), once a turn: its executor says when
//! the turn began and ended, the engine how many messages it received in the turn. Nothing is shared
//! and nothing locked. For a report the [`Reporter`] sends each core a command with an empty
//! [`Recording`] (`control`); at the end of its turn the core replies with the full one and continues
//! with the empty one, so that nothing is copied on the data path. The reporter's thread adds up,
//! prints tables and writes files. Metrics for monitoring systems come from the same collections
//! ([`SharedStatistics`]): what one reader collects, the other receives as well.
//!
//! Without statistics a core has no recorder, and a turn asks once whether there is one.

mod buckets;
mod collector;
mod histogram_log;
mod json;
mod percentiles;
mod recorder;
mod report;
mod reporter;
mod shared;
mod table;
#[cfg(test)]
mod tests;

pub use crate::base::latencies::{KINDS, Kind, Recording};
pub use buckets::Buckets;
pub use collector::{Collector, PATIENCE, collector};
pub use histogram_log::HistogramLog;
pub use recorder::{Recorder, Stamps};
pub use report::{Part, Report, Why};
pub use reporter::{Prepared, Prompt, Reporter};
pub use shared::{SharedStatistics, Snapshot};

const PUBLISH: [Kind; 3] = [Kind::PublishQos0, Kind::PublishQos1, Kind::PublishQos2];
const FORWARDED: [Kind; 3] = [Kind::ForwardedQos0, Kind::ForwardedQos1, Kind::ForwardedQos2];

/// Quantiles that are shown, with their names.
pub const QUANTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];
