//! Counters and gauges of a core.

use crate::base::metrics::{Metrics, Turn};
use crate::engine::Engine;

impl Engine {
    /// Counters and gauges as they stand.
    pub fn metrics(&mut self) -> &Metrics {
        self.metrics.publishes_received = self.metrics.received_by_qos.iter().sum();
        self.connections.report(&mut self.metrics);
        self.metrics.memory_bytes = self.memory.ledger().bytes();
        self.metrics.output_bytes = self.memory.ledger().output_bytes();
        self.metrics.input_bytes = self.memory.ledger().input_bytes();
        self.metrics.log_lines_left_out = crate::base::log_rate::suppressed_lines();
        self.metrics.log_lines_lost = crate::base::output::log_lines_lost();
        self.metrics.work_steps = self.work.total();
        self.metrics.work_steps_turn_max = self.work.turn_max();
        self.router.count_into(&mut self.metrics);
        self.retained.count_into(&mut self.metrics);
        self.metrics.lanes_bytes = self.mesh.bytes_under_way();
        self.metrics.wills_left = self.durability.left_wills() as u64;
        self.claims.report(&mut self.metrics);
        self.observers.watch.count_into(&mut self.metrics);
        self.metrics.note_access(self.access.counts());
        self.metrics.messages_queued = self.memory.ledger().messages_queued();
        self.metrics.queue_bytes = self.memory.ledger().queue_bytes();
        debug_assert_eq!(
            self.metrics.messages_queued,
            self.sessions
                .iter()
                .map(|(session, _)| self.sessions.queued(session) as u64)
                .sum::<u64>()
        );
        &self.metrics
    }

    /// The counters, with how busy the core was since the last report.
    pub(in crate::engine) fn report(&mut self) -> Metrics {
        self.sys_topics.note_busy(self.now, &mut self.metrics);
        self.metrics().clone()
    }

    /// The executor has gone through a turn of its loop.
    pub fn note_turn(&mut self, turn: Turn) {
        self.metrics.note_turn(turn);
    }

    /// PUBLISH packets received from clients, and messages of other cores' clients taken from there,
    /// each by QoS, since the start.
    pub fn publishes_taken(&self) -> ([u64; 3], [u64; 3]) {
        (self.metrics.received_by_qos, self.metrics.forwarded_by_qos)
    }

    /// MQTT Control Packets received since the start, and messages published by clients of other cores.
    #[inline]
    pub fn packets_handled(&self) -> u64 {
        self.metrics.packets_received + self.metrics.forwarded_by_qos.iter().sum::<u64>()
    }
}
