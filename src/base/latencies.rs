//! Latency histograms of one core, in nanoseconds, and what is timed in them.

use hdrhistogram::Histogram;

/// What is timed.
///
/// A turn receives everything that has arrived, and hands everything it has for a connection to the
/// kernel at once. So a latency begins and ends with turns: a message counts from the beginning of the
/// turn that received its last byte to the end of the turn that handed over its copies, which includes
/// the work for the other messages of the turn. A latency does not include:
///
/// * the kernel's work before. The kernel's work to send lies within the turn under `poll`, where each
///   send is a system call, and after it on io_uring, where the turn ends by submitting all sends;
/// * the time for which the broker does not read from a publisher, nor the waiting of what arrives
///   meanwhile;
/// * the time for which a consumer leaves its copies waiting: disconnected, with its window used up, or
///   not reading from its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A PUBLISH of QoS 0 from a client: received, until its effects here are handed to the kernel and
    /// to the lanes to other cores.
    PublishQos0,
    /// A PUBLISH of QoS 1 from a client, as for QoS 0.
    PublishQos1,
    /// A PUBLISH of QoS 2 from a client, as for QoS 0.
    PublishQos2,
    /// A PUBLISH of QoS 0 from a client of another core: received there, until its copies for this
    /// core's clients are handed to the kernel. The hop is included. A message that finds no member of a
    /// shared subscription here and is forwarded to a third core is not timed there.
    ForwardedQos0,
    /// A PUBLISH of QoS 1 from another core, as for QoS 0.
    ForwardedQos1,
    /// A PUBLISH of QoS 2 from another core, as for QoS 0.
    ForwardedQos2,
    /// A batch between two cores: sealed on one, until the other begins to process it.
    Hop,
    /// CONNECT received, on whatever core, until CONNACK is handed to the kernel.
    Connect,
    /// Records handed to the store, until they are on disk.
    StorageCommit,
    /// A turn of a core's loop, without the waiting.
    Turn,
}

/// All kinds, with their names in JSON and in tables.
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

/// Significant decimal digits of a histogram: values are off by at most a thousandth.
const DIGITS: u8 = 3;

/// The longest latency that is told apart, an hour, so that a histogram has at most 32 times 1,024 counts.
const NS_MAX: u64 = 3_600_000_000_000;

/// Histograms of nanoseconds, one for each kind. They grow with the latencies that are recorded.
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

    /// The kinds that have been recorded, with their names in JSON and in tables.
    pub fn each(&self) -> impl Iterator<Item = (Kind, &'static str, &'static str)> + '_ {
        KINDS.into_iter().filter(|&(kind, ..)| !self.of(kind).is_empty())
    }

    /// Records a latency, `times` times.
    pub fn record(&mut self, kind: Kind, ns: u64, times: u64) {
        if times > 0 {
            let histogram = &mut self.0[kind as usize];
            histogram.record_n(ns.min(NS_MAX), times).expect("it grows up to an hour");
        }
    }

    /// Adds another recording to this one.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(&other.0).filter(|(_, from)| !from.is_empty()) {
            to.add(from).expect("it grows");
        }
    }

    /// Empties the histograms, their maxima included, without freeing their memory.
    pub fn clear(&mut self) {
        self.0.iter_mut().filter(|histogram| !histogram.is_empty()).for_each(Histogram::reset);
    }
}
