//! `$SYS/broker/…`: the counters of the broker as retained messages, for whoever subscribes.

use crate::base::ids::CoreId;
use crate::base::metrics::{DROPS, Metrics};
use crate::engine::mesh::batch::Parcel;
use crate::engine::routing::deliver::Origin;
use crate::engine::{Engine, Timer};
use crate::message::Content;
use crate::wire::Qos;

/// Clients may read topics below this one, and write neither them nor itself.
const ROOT: &str = "$SYS";

/// Whether the broker alone writes this topic.
#[inline]
pub(super) fn is_ours(topic: &str) -> bool {
    topic.strip_prefix(ROOT).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

impl Engine {
    /// Asks the other cores for their counters; when all have told, they are published.
    pub(super) fn begin_sys_topics(&mut self) {
        let interval_s = u64::from(self.settings.mqtt.sys_interval_s);
        self.timers.arm(self.now.after_s(interval_s), Timer::SysTopics);
        self.sys_reports.clear();
        self.sys_reports.resize(usize::from(self.place.cores()), None);
        for core in self.place.others() {
            self.lanes.to(core).push(Parcel::AskMetrics);
        }
        let own = self.report();
        self.take_metrics(self.core(), own);
    }

    pub(super) fn take_metrics(&mut self, from: CoreId, metrics: Metrics) {
        self.sys_reports[usize::from(from.0)] = Some(metrics);
        if self.sys_reports.iter().all(Option::is_some) {
            let reports: Vec<Metrics> = self.sys_reports.drain(..).flatten().collect();
            self.publish_sys_topics(&reports);
        }
    }

    /// Publishes what has changed since the last time.
    fn publish_sys_topics(&mut self, reports: &[Metrics]) {
        let own = usize::from(self.core().0);
        let mut metrics = reports[own].clone();
        for (_, other) in reports.iter().enumerate().filter(|&(core, _)| core != own) {
            metrics.add(other);
        }
        self.clients_maximum = self.clients_maximum.max(metrics.clients_connected);
        if reports.len() > 1 {
            // The cores' own maxima were not reached at the same time.
            metrics.clients_maximum = self.clients_maximum;
        }
        let uptime_s = self.now.since_us(self.started) / 1_000_000;
        let text = |name: &str, value: String| (format!("{ROOT}/broker/{name}"), value);
        let mut values = vec![
            text("version", format!("ringmq version {}", env!("CARGO_PKG_VERSION"))),
            text("uptime", format!("{uptime_s} seconds")),
            text(
                "clients/total",
                (metrics.clients_connected + metrics.clients_disconnected).to_string(),
            ),
            text("publish/messages/dropped", metrics.drops.total().to_string()),
        ];
        values.extend(metrics.topics().map(|(name, value)| text(name, value.to_string())));
        for (core, report) in reports.iter().enumerate() {
            let topics = report.core_topics();
            values.extend(
                topics
                    .map(|(name, value)| text(&format!("cores/{core}/{name}"), value.to_string())),
            );
        }
        values.extend(DROPS.iter().map(|&(cause, name)| {
            text(&format!("publish/messages/dropped/{name}"), metrics.drops.of(cause).to_string())
        }));
        for (topic, value) in values {
            if self.sys_values.get(&topic) == Some(&value) {
                continue;
            }
            let content = Content {
                topic: &topic,
                payload: value.as_bytes(),
                passed_on: &[],
                expires: None,
                qos: Qos::AtMostOnce,
            };
            // The broker's own topics are a fixed few and not subject to the bound.
            let stored = self.retain(&content, None).ok();
            self.route(&content, &Origin::default(), true, stored.as_ref());
            self.sys_values.insert(topic, value);
        }
    }
}
