//! `$SYS/broker/…`: the counters of the broker, published as retained messages.

use std::collections::HashMap;

use crate::base::clock::Now;
use crate::base::ids::CoreId;
use crate::base::metrics::{DROPS, Metrics};
use crate::engine::routing::deliver::Origin;
use crate::engine::{Engine, Timer};
use crate::message::Content;
use crate::wire::Qos;

/// The root of the topics that clients may read and not write.
const ROOT: &str = "$SYS";

/// Whether only the broker publishes to this topic.
#[inline]
pub(super) fn is_ours(topic: &str) -> bool {
    topic.strip_prefix(ROOT).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// The state of the `$SYS` topics: the reports of the cores while they come in, and the last values
/// published.
pub(super) struct SysTopics {
    /// The counters of each core that has reported in the current round.
    reports: Vec<Option<Metrics>>,
    /// The time of the last report of this core, and its microseconds of busy time by then.
    reported: (Now, u64),
    /// The highest number of clients connected to all cores at once, as seen by the reports.
    clients_maximum: u64,
    /// The last value published to each topic.
    values: HashMap<String, String>,
}

impl SysTopics {
    pub(super) fn new(now: Now) -> Self {
        let (reports, values) = (Vec::new(), HashMap::new());
        Self { reports, reported: (now, 0), clients_maximum: 0, values }
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
        self.reports[usize::from(from.0)] = Some(metrics);
        let is_complete = self.reports.iter().all(Option::is_some);
        is_complete.then(|| self.reports.drain(..).flatten().collect())
    }

    /// The topics whose values have changed since the last round, with their new values.
    fn changes(&mut self, own: CoreId, reports: &[Metrics], uptime_s: u64) -> Changes {
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
        let mut values = values_of(&metrics, reports, uptime_s);
        values.retain(|(topic, value)| self.values.get(topic) != Some(value));
        self.values.extend(values.iter().cloned());
        values
    }
}

/// Topics with their values.
type Changes = Vec<(String, String)>;

/// All topics, from the sum of the counters of all cores and the reports of each.
fn values_of(metrics: &Metrics, reports: &[Metrics], uptime_s: u64) -> Changes {
    let text = |name: &str, value: String| (format!("{ROOT}/broker/{name}"), value);
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

impl Engine {
    /// Asks the other cores for their counters; the topics are published once all have answered.
    pub(super) fn begin_sys_topics(&mut self) {
        let interval_s = u64::from(self.config.mqtt.sys_interval_s);
        self.timers.arm(self.now.after_s(interval_s), Timer::SysTopics);
        self.sys_topics.begin_round(self.place.cores());
        self.mesh.ask_metrics();
        let own = self.report();
        self.take_metrics(self.core(), own);
    }

    /// Takes the counters of a core; those of the last one publish what has changed.
    pub(super) fn take_metrics(&mut self, from: CoreId, metrics: Metrics) {
        let Some(reports) = self.sys_topics.add_report(from, metrics) else { return };
        let uptime_s = self.now.since_us(self.started) / 1_000_000;
        for (topic, value) in self.sys_topics.changes(self.core(), &reports, uptime_s) {
            let content = Content {
                topic: &topic,
                payload: value.as_bytes(),
                passed_on: &[],
                expires: None,
                qos: Qos::AtMostOnce,
            };
            // The server's own topics are a fixed few and not subject to the bound.
            let stored = self.retain(&content, None).ok();
            self.route(&content, &Origin::default(), true, stored.as_ref());
        }
    }
}
