//! Statistics: how long messages take through the broker, and what was counted meanwhile.
//!
//! Each core records into histograms of its own ([`Recorder`]), once a turn: its executor says when
//! the turn began and ended, the engine how many messages it took in it. Nothing is shared and
//! nothing locked. When the [`Reporter`] wants to know, it sends each core an empty
//! [`Recording`] and wakes it; at the end of its turn the core sends back the full one and goes on
//! with the empty one, so that nothing is copied on the data path ([`desk`]). All that follows,
//! adding up, tables, files, is the reporter's.
//!
//! Off, a core has no recorder, and a turn asks once whether it has.

mod desk;
mod histogram_log;
mod json;
mod percentiles;
mod recorder;
mod report;
mod reporter;
mod table;
#[cfg(test)]
mod tests;

pub use desk::{Desk, desk};
pub use histogram_log::HistogramLog;
pub use recorder::{Recorder, Recording, Stamps};
pub use report::{Part, Report, Why};
pub use reporter::{Prepared, Prompt, Reporter};

/// What is timed.
///
/// A turn receives all that came at once, and hands everything it has for a connection to the
/// kernel at once. So what is timed begins and ends with turns: a message counts from the beginning
/// of the turn that received its last byte to the end of the turn that handed its copies over, which
/// includes waiting for the others of the turn. It does not include:
///
/// * what the kernel does before. What it does to send lies within the turn under `poll`, where each
///   send is a system call, and after it on io_uring, where the turn ends by submitting all sends;
/// * the time for which the broker leaves a publisher unread, nor what came meanwhile has waited;
/// * the time for which a consumer leaves its copies waiting: away, with its window used up, or with an
///   outbox it does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A PUBLISH of QoS 0 from a client: received, until what it caused here is handed to the kernel
    /// and to the lanes to other cores.
    PublishQos0,
    /// The same for QoS 1.
    PublishQos1,
    /// The same for QoS 2.
    PublishQos2,
    /// A PUBLISH of QoS 0 from a client of another core: received there, until its copies for this
    /// core's clients are handed to the kernel. It includes the hop. A message that finds no member
    /// of a shared subscription here and goes on to a third core is not timed there.
    ForwardedQos0,
    /// The same for QoS 1.
    ForwardedQos1,
    /// The same for QoS 2.
    ForwardedQos2,
    /// A batch between two cores: sealed on one, until the other begins with it.
    Hop,
    /// CONNECT received, on whatever core, until CONNACK is handed to the kernel.
    Connect,
    /// Records handed to storage, until they are on disk.
    StorageCommit,
    /// A turn of a core's loop, without the waiting.
    Turn,
}

/// All kinds, with their names for programs and for people.
pub const KINDS: [(Kind, &str, &str); 10] = [
    (Kind::PublishQos0, "publish-qos0", "PUBLISH, QoS 0"),
    (Kind::PublishQos1, "publish-qos1", "PUBLISH, QoS 1"),
    (Kind::PublishQos2, "publish-qos2", "PUBLISH, QoS 2"),
    (Kind::ForwardedQos0, "forwarded-qos0", "from other core, QoS 0"),
    (Kind::ForwardedQos1, "forwarded-qos1", "from other core, QoS 1"),
    (Kind::ForwardedQos2, "forwarded-qos2", "from other core, QoS 2"),
    (Kind::Hop, "hop", "hop between cores"),
    (Kind::Connect, "connect", "CONNECT to CONNACK"),
    (Kind::StorageCommit, "storage-commit", "storage commit"),
    (Kind::Turn, "turn", "turn of the loop"),
];

const PUBLISH: [Kind; 3] = [Kind::PublishQos0, Kind::PublishQos1, Kind::PublishQos2];
const FORWARDED: [Kind; 3] = [Kind::ForwardedQos0, Kind::ForwardedQos1, Kind::ForwardedQos2];

/// Quantiles that are shown, with their names.
pub const QUANTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];
