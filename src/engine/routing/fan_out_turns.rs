//! Continues fan-outs in later turns, and ends them: acknowledgements and publishers that waited go on.

use crate::engine::Engine;
use crate::engine::draft::Draft;
use crate::engine::routing::fan_outs::{FanOut, FanOutContent};

impl Engine {
    /// Continues the first fan-out; false if there is none, or the budget is spent.
    pub(in crate::engine) fn continue_fan_outs(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let Some(mut first) = self.router.fan_outs.take_first() else { return false };
        // Half of the budget: the other half is for connections that wait.
        self.work.begin_share(2);
        self.continue_fan_out(&mut first);
        let goes_on = !self.work.is_spent();
        self.work.end_share();
        match first.left.is_empty() {
            true => self.end_fan_out(first),
            false => self.router.fan_outs.put_back(first),
        }
        goes_on
    }

    fn continue_fan_out(&mut self, of: &mut FanOut) {
        self.router.has_queued = of.has_queued;
        let before = self.claims.set_source(of.source);
        match &of.content {
            FanOutContent::Message { message, retain, exchange, session } => {
                let mut draft = Draft::of(message, message.content(), *retain);
                draft.exchange = *exchange;
                let (left, pressure) = (&mut of.left, &mut of.pressure);
                self.deliver_part(&of.recipients, left, of.number, &mut draft, *session, pressure);
            }
            FanOutContent::Batch(batch) => {
                self.deliver_batch_part(
                    batch,
                    &of.recipients,
                    &mut of.left,
                    of.number,
                    &mut of.pressure,
                );
            }
        }
        self.claims.set_source(before);
        of.has_queued = self.router.has_queued;
    }

    /// All recipients have the message: acknowledgements and publishers that waited continue.
    fn end_fan_out(&mut self, of: FanOut) {
        let own = self.mesh.core();
        self.router.fan_outs.end(own, &of);
        while let Some(session) = self.router.fan_outs.next_free_place() {
            self.sessions.remove(session);
        }
        self.router.fan_outs.free_lists();
        let batch = self.durability.batch_since(of.mark);
        for awaited in of.answers {
            match batch {
                Some(batch) => self.durability.await_stored(batch, awaited),
                None => self.note_awaited(awaited),
            }
        }
        let rests = of.has_queued && self.memory.is_full();
        for &publisher in &of.publishers {
            if publisher.core == own {
                self.connections.resume_reading(publisher.connection, self.now);
                if rests {
                    self.connections.rest_for_memory(
                        publisher.connection,
                        &mut self.timers,
                        self.now,
                    );
                }
                self.pause_for_store(publisher.connection, of.mark);
            }
            self.slow_publisher(Some(publisher), &of.pressure);
        }
        if let FanOutContent::Batch(batch) = of.content {
            self.router.batch.take_back(*batch);
        }
        self.durability.end_forwarded_wills(&self.mesh, &self.router.fan_outs);
    }

    /// The broker stops: ends all fan-outs at once.
    pub(in crate::engine) fn finish_fan_outs(&mut self) {
        while let Some(mut first) = self.router.fan_outs.take_first() {
            while !first.left.is_empty() {
                self.work.end_turn();
                self.continue_fan_out(&mut first);
            }
            self.end_fan_out(first);
        }
    }
}
