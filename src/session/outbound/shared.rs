//! Messages drawn for shared subscriptions, which other members may get instead.

use shards::FilterId;

use super::{Delivery, Outbound, Stage};
use crate::wire::Qos;

impl Outbound {
    /// Takes out what other members of the shared subscriptions that `is_taken` names can have
    /// instead: what waits and, `with_inflight`, QoS 1 that was not acknowledged. QoS 2 in flight
    /// stays with this client [MQTT-4.8.2-5].
    pub fn take_shared(
        &mut self,
        is_taken: impl Fn(FilterId) -> bool,
        with_inflight: bool,
    ) -> Vec<Delivery> {
        let is_taken = |delivery: &Delivery| delivery.shared.is_some_and(&is_taken);
        let mut taken = Vec::new();
        for inflight in self.inflight.iter_mut().filter(|_| with_inflight) {
            let is_unsent = matches!(inflight.stage, Stage::Unsent(_));
            let (Stage::Sent(delivery) | Stage::Unsent(delivery)) = &inflight.stage else {
                continue;
            };
            if delivery.qos == Qos::AtLeastOnce && is_taken(delivery) {
                let delivery = delivery.clone();
                if delivery.kept.number != 0 {
                    self.gone.push(delivery.kept);
                }
                taken.push(delivery);
                self.to_resend -= usize::from(is_unsent);
                self.unacknowledged -= usize::from(!is_unsent);
                inflight.stage = Stage::Done;
            }
        }
        self.forget_done();
        if self.queue.iter().any(is_taken) {
            let has_latest = !self.latest.is_empty();
            for _ in 0..self.queue.len() {
                let delivery = self.pop_queue().expect("counted");
                if is_taken(&delivery) {
                    self.note_gone(delivery.kept);
                    taken.push(delivery);
                } else {
                    self.enqueue(delivery);
                }
            }
            if has_latest {
                self.number_anew();
            }
        }
        taken
    }

    /// Makes what was drawn for a shared subscription this client's own: it is a member no more, and
    /// nobody else took it over.
    pub fn keep_shared(&mut self, filter: FilterId) {
        let in_flight = self.inflight.iter_mut().filter_map(|inflight| match &mut inflight.stage {
            Stage::Sent(delivery) | Stage::Unsent(delivery) | Stage::Held(delivery, _) => {
                Some(delivery)
            }
            Stage::Released { .. } | Stage::Done => None,
        });
        for delivery in in_flight.chain(&mut self.queue) {
            if delivery.shared == Some(filter) {
                delivery.shared = None;
            }
        }
    }

    /// The shared subscriptions for which messages wait or are in flight; some may come twice.
    pub fn shared_filters(&self) -> impl Iterator<Item = FilterId> {
        let in_flight = self.inflight.iter().filter_map(|inflight| match &inflight.stage {
            Stage::Sent(delivery) | Stage::Unsent(delivery) | Stage::Held(delivery, _) => {
                delivery.shared
            }
            Stage::Released { .. } | Stage::Done => None,
        });
        in_flight.chain(self.queue.iter().filter_map(|delivery| delivery.shared))
    }
}
