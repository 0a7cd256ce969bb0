//! `$SYS/broker/…`: the counters of the broker as retained messages, for whoever subscribes.

use crate::engine::{Engine, Timer};
use crate::message::Content;
use crate::metrics::DROPS;
use crate::wire::Qos;

/// Clients may read these topics, not write them.
pub(super) const PREFIX: &str = "$SYS/";

impl Engine {
    /// Publishes what has changed since the last time.
    pub(super) fn publish_sys_topics(&mut self) {
        let metrics = self.metrics().clone();
        let uptime_s = self.now.since_us(self.started) / 1_000_000;
        let text = |name: &str, value: String| (format!("{PREFIX}broker/{name}"), value);
        let mut values = vec![
            text("version", format!("ringmq version {}", env!("CARGO_PKG_VERSION"))),
            text("uptime", format!("{uptime_s} seconds")),
            text("clients/total", self.sessions.len().to_string()),
            text("publish/messages/dropped", metrics.drops.total().to_string()),
        ];
        values.extend(metrics.topics().map(|(name, value)| text(name, value.to_string())));
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
            let _ = self.retain(&content);
            self.route(&content, None, true);
            self.sys_values.insert(topic, value);
        }
        let interval_s = u64::from(self.settings.mqtt.sys_interval_s);
        self.timers.arm(self.now.after_s(interval_s), Timer::SysTopics);
    }
}
