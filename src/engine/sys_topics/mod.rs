//! `$SYS/broker/…`: the counters of the broker, published as retained messages, and the states of connections that
//! bridges publish.

mod loads;
mod log;
mod publish;

use std::collections::HashMap;

use loads::Loads;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::CoreId;
use crate::base::metrics::{DROPS, Metrics};

/// The root of the topics that clients may read and not write.
const ROOT: &str = "$SYS";

/// Clients publish below this topic, each the state of its connection at `ID/state`: what the bridges of Mosquitto
/// do (`notifications`).
const CONNECTIONS: &str = "$SYS/broker/connection/";

/// Bytes of the payload that such a state has at most.
const STATE_BYTES_MAX: usize = 256;

/// Whether a topic is below `$SYS`.
#[inline]
pub(super) fn is_below_root(topic: &str) -> bool {
    topic.strip_prefix(ROOT).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Whether only the broker publishes to this topic.
#[inline]
pub(super) fn is_ours(topic: &str) -> bool {
    is_below_root(topic) && !topic.starts_with(CONNECTIONS)
}

/// Who may publish a message below `$SYS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// The client in question: the message is the state of its own connection.
    Client,
    /// Clients that an access rule allows it to.
    ByRule,
    /// The broker alone.
    Broker,
}

/// Who may publish a message with so many bytes of payload to a topic below `$SYS`, where the client is the one with
/// this identifier.
#[cold]
pub(super) fn writer_of(topic: &str, client_identifier: &str, payload_bytes: usize) -> Writer {
    let Some(below) = topic.strip_prefix(CONNECTIONS) else { return Writer::Broker };
    if payload_bytes > STATE_BYTES_MAX {
        return Writer::Broker;
    }
    match below.strip_suffix("/state") == Some(client_identifier) {
        true => Writer::Client,
        false => Writer::ByRule,
    }
}

/// The state of the `$SYS` topics: the reports of the cores while they come in, and the last values
/// published.
pub(super) struct SysTopics {
    /// The counters of each core that has reported in the current round.
    reports: Vec<Option<Metrics>>,
    /// When the core started.
    started: Now,
    /// The time of the last report of this core, and its microseconds of busy time by then.
    reported: (Now, u64),
    /// The highest number of clients connected to all cores at once, as seen by the reports.
    clients_maximum: u64,
    /// The most bytes of memory held by all cores at once, as seen by the reports.
    memory_maximum: u64,
    /// What the broker does in a minute.
    loads: Loads,
    /// The last value published to each topic.
    values: HashMap<String, String>,
    /// When the next round is due; none without rounds. Timers for another time mean nothing.
    due: Option<Deadline>,
}

impl SysTopics {
    pub(super) fn new(now: Now) -> Self {
        Self {
            reports: Vec::new(),
            started: now,
            reported: (now, 0),
            clients_maximum: 0,
            memory_maximum: 0,
            loads: Loads::default(),
            values: HashMap::new(),
            due: None,
        }
    }

    /// When the next round is due. Timers for another time mean nothing.
    fn set_due(&mut self, due: Deadline) {
        self.due = Some(due);
    }

    /// Whether a round is due.
    fn is_due(&self, now: Now) -> bool {
        self.due.is_some_and(|due| due.is_due(now))
    }

    /// Ends the rounds; returns the topics that have values.
    fn end(&mut self) -> impl Iterator<Item = String> + use<> {
        self.due = None;
        self.reports.clear();
        self.loads = Loads::default();
        std::mem::take(&mut self.values).into_keys()
    }

    /// Sets how busy the core was since its last report.
    pub(super) fn note_busy(&mut self, now: Now, metrics: &mut Metrics) {
        let (reported, busy_us) = self.reported;
        let elapsed_us = now.since_us(reported).max(1);
        metrics.busy_percent = ((metrics.busy_us - busy_us) * 100 / elapsed_us).min(100);
        self.reported = (now, metrics.busy_us);
    }

    /// Starts a round of reports.
    fn begin_round(&mut self, cores: u16) {
        self.reports.clear();
        self.reports.resize(usize::from(cores), None);
    }

    /// Adds the report of a core; the reports of all cores once the last one is there.
    fn add_report(&mut self, from: CoreId, metrics: Metrics) -> Option<Vec<Metrics>> {
        // None where the round has ended: a change of the interval may begin another one before all have reported.
        *self.reports.get_mut(usize::from(from.0))? = Some(metrics);
        let is_complete = self.reports.iter().all(Option::is_some);
        is_complete.then(|| self.reports.drain(..).flatten().collect())
    }

    /// The topics whose values have changed since the last round, with their new values.
    fn changes(&mut self, own: CoreId, reports: &[Metrics], now: Now) -> Changes {
        let uptime_s = now.since_us(self.started) / 1_000_000;
        let own = usize::from(own.0);
        let mut metrics = reports[own].clone();
        for (_, other) in reports.iter().enumerate().filter(|&(core, _)| core != own) {
            metrics.add(other);
        }
        self.clients_maximum = self.clients_maximum.max(metrics.clients_connected);
        if reports.len() > 1 {
            // The maxima of the cores were not reached at the same time.
            metrics.clients_maximum = self.clients_maximum;
        }
        self.memory_maximum = self.memory_maximum.max(metrics.memory_bytes);
        self.loads.update(&metrics, now);
        let mut values = values_of(&metrics, reports, uptime_s);
        let others = self.loads.topics().chain(names_of_mosquitto(&metrics, self.memory_maximum));
        values.extend(others.map(|(name, value)| (topic(&name), value)));
        values.retain(|(topic, value)| self.values.get(topic) != Some(value));
        self.values.extend(values.iter().cloned());
        values
    }
}

/// Topics with their values.
type Changes = Vec<(String, String)>;

/// The topic of a name.
fn topic(name: &str) -> String {
    format!("{ROOT}/broker/{name}")
}

/// Values under further names, by which exporters and dashboards for Mosquitto look for them.
fn names_of_mosquitto(
    metrics: &Metrics,
    memory_maximum: u64,
) -> impl Iterator<Item = (String, String)> + use<> {
    let stored = metrics.retained_messages + metrics.messages_queued;
    [
        ("clients/active", metrics.clients_connected),
        ("clients/inactive", metrics.clients_disconnected),
        ("connections/socket/count", metrics.connections_accepted),
        ("heap/current", metrics.memory_bytes),
        ("heap/maximum", memory_maximum),
        ("messages/stored", stored),
        ("packet/out/count", packets_waiting(metrics)),
        ("store/messages/bytes", metrics.retained_bytes + metrics.queue_bytes),
        ("store/messages/count", stored),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_string()))
}

/// The packets that wait to be taken by clients, estimated from their bytes and the mean size of all packets: those that
/// wait are counted in bytes only.
fn packets_waiting(metrics: &Metrics) -> u64 {
    let bytes = metrics.bytes_sent + metrics.output_bytes;
    let packets = u128::from(metrics.output_bytes) * u128::from(metrics.packets_sent);
    // Less than `packets_sent`, as the part that waits is less than the whole.
    packets.div_ceil(u128::from(bytes.max(1))) as u64
}

/// All topics that are ringmq's own, from the sum of the counters of all cores and the reports of each.
fn values_of(metrics: &Metrics, reports: &[Metrics], uptime_s: u64) -> Changes {
    let text = |name: &str, value: String| (topic(name), value);
    let clients = metrics.clients_connected + metrics.clients_disconnected;
    let mut values = vec![
        text("version", format!("ringmq version {}", env!("CARGO_PKG_VERSION"))),
        text("uptime", format!("{uptime_s} seconds")),
        text("clients/total", clients.to_string()),
        text("publish/messages/dropped", metrics.drops.total().to_string()),
    ];
    values.extend(metrics.topics().map(|(name, value)| text(name, value.to_string())));
    for (core, report) in reports.iter().enumerate() {
        let topics = report.core_topics();
        values.extend(
            topics.map(|(name, value)| text(&format!("cores/{core}/{name}"), value.to_string())),
        );
    }
    values.extend(DROPS.iter().map(|&(cause, name)| {
        text(&format!("publish/messages/dropped/{name}"), metrics.drops.of(cause).to_string())
    }));
    values
}

#[cfg(test)]
mod tests;
