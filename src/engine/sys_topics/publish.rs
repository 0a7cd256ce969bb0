//! Rounds of reports: the counters of all cores are collected and published.

use crate::base::ids::CoreId;
use crate::base::metrics::Metrics;
use crate::engine::draft::Origin;
use crate::engine::{Engine, Timer};
use crate::message::Content;
use crate::wire::Qos;

impl Engine {
    /// Begins rounds at the configured interval, or ends them and removes the topics. The first core does this for all.
    pub(in crate::engine) fn schedule_sys_topics(&mut self) {
        if self.mesh.core() != CoreId(0) {
            return;
        }
        if self.config.mqtt.sys_interval_s > 0 {
            return self.begin_sys_topics_after(0);
        }
        for topic in self.sys_topics.end() {
            self.publish_sys_topic(&topic, &[]);
        }
    }

    /// Publishes a topic of the broker's own, retained. An empty payload removes it.
    pub(in crate::engine) fn publish_sys_topic(&mut self, topic: &str, payload: &[u8]) {
        let (passed_on, expires, qos) = (&[][..], None, Qos::AtMostOnce);
        let content = Content { topic, payload, passed_on, expires, qos };
        // The server's own topics are a fixed few and not subject to the bound.
        let stored = self.retain(&content, None).ok();
        self.route(&content, &Origin::default(), true, stored.as_ref());
    }

    fn begin_sys_topics_after(&mut self, seconds: u64) {
        let due = self.now.after_s(seconds);
        self.sys_topics.set_due(due);
        self.timers.arm(due, Timer::SysTopics);
    }

    /// A timer has fired: asks the other cores for their counters if a round is due. The topics are published once all
    /// have answered.
    pub(in crate::engine) fn begin_sys_topics(&mut self) {
        if !self.sys_topics.is_due(self.now) {
            return;
        }
        self.begin_sys_topics_after(u64::from(self.config.mqtt.sys_interval_s));
        self.sys_topics.begin_round(self.mesh.cores());
        self.mesh.ask_metrics();
        let own = self.report();
        self.take_metrics(self.mesh.core(), own);
    }

    /// Takes the counters of a core; those of the last one publish what has changed.
    pub(in crate::engine) fn take_metrics(&mut self, from: CoreId, metrics: Metrics) {
        let Some(reports) = self.sys_topics.add_report(from, metrics) else { return };
        for (topic, value) in self.sys_topics.changes(self.mesh.core(), &reports, self.now) {
            self.publish_sys_topic(&topic, value.as_bytes());
        }
    }
}
