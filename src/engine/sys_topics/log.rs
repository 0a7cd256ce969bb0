//! `$SYS/broker/log/…`: the lines of the log as messages.

use crate::base::ids::CoreId;
use crate::base::log_topics::{self, LogMessage};
use crate::engine::draft::Origin;
use crate::engine::{Engine, Timer};
use crate::message::Content;
use crate::wire::Qos;

/// Lines that are published at a time.
const LINES_MAX: usize = 64;

impl Engine {
    /// Begins to publish lines every second, if the log goes to topics. The first core does this for all.
    pub(in crate::engine) fn schedule_log_topics(&mut self) {
        if self.config.has_log_topics && self.mesh.core() == CoreId(0) {
            self.timers.arm(self.now.after_s(1), Timer::LogTopics);
        }
    }

    /// A second has passed: publishes the lines that wait.
    pub(in crate::engine) fn publish_log(&mut self) {
        self.schedule_log_topics();
        self.publish_log_lines(&log_topics::take(LINES_MAX));
    }

    /// Publishes lines to the clients that are subscribed to them. They are not retained.
    pub(in crate::engine) fn publish_log_lines(&mut self, lines: &[LogMessage]) {
        for line in lines {
            let topic = format!("{}/broker/log/{}", super::ROOT, line.kind);
            let content = Content {
                topic: &topic,
                payload: line.text.as_bytes(),
                passed_on: &[],
                expires: None,
                qos: Qos::AtMostOnce,
            };
            self.route(&content, &Origin::default(), false, None);
        }
    }
}
