//! Messages that an operator drops before they are sent.

use super::Outbound;

impl Outbound {
    /// The number that the next queued message gets, counted as by [`Self::list_queued`].
    pub fn queue_end(&self) -> u64 {
        self.queue.left + self.queue.len() as u64
    }

    /// Drops messages that wait and have lower numbers than `end`, the oldest first, from `places_max` places at most.
    /// What is in flight stays. Returns how many messages were dropped, and whether there are more.
    pub fn drop_queued(&mut self, end: u64, places_max: usize) -> (u64, bool) {
        let mut dropped = 0;
        for _ in 0..places_max {
            if self.queue.left >= end {
                break;
            }
            let Some(delivery) = self.queue.pop() else { break };
            if !delivery.message.is_hollow() {
                self.gone.note(delivery.record);
                dropped += 1;
            }
        }
        self.settle();
        (dropped, self.queue.left < end && !self.queue.is_empty())
    }
}
