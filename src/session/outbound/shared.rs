//! Messages drawn for shared subscriptions, which other members may get instead.

use shards::FilterId;

use super::{Delivery, Outbound, Stage};
use crate::wire::Qos;

impl Outbound {
    /// Takes out what other members of the shared subscriptions that `is_taken` names can have
    /// instead: what waits and, `with_inflight`, QoS 1 that was not acknowledged. QoS 2 in flight
    /// stays with this client [MQTT-4.8.2-5]. Of what waits no more than `messages_max` at a time;
    /// true when that was not all.
    pub fn take_shared(
        &mut self,
        is_taken: impl Fn(FilterId) -> bool,
        with_inflight: bool,
        messages_max: usize,
    ) -> (Vec<Delivery>, bool) {
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
        let Some(last) = self.last_of(is_taken, messages_max) else { return (taken, false) };
        let (has_latest, unjudged) = (!self.latest.is_empty(), self.unjudged);
        // The others up to there, in their order, are put back in front of the rest.
        let mut others = Vec::new();
        for _ in 0..=last {
            let delivery = self.pop_queue().expect("counted");
            if delivery.message.is_hollow() {
                continue;
            }
            if is_taken(&delivery) {
                self.note_gone(delivery.kept);
                taken.push(delivery);
            } else {
                others.push(delivery);
            }
        }
        while let Some(other) = others.pop() {
            self.put_first(other);
        }
        self.unjudged = unjudged.min(self.queue.len());
        self.look_anew();
        if has_latest {
            self.number_anew();
        }
        let is_more = self.queue.iter().any(is_taken);
        (taken, is_more)
    }

    /// The place of the last one of those to take, so many at most; none when there is none.
    fn last_of(&self, is_taken: impl Fn(&Delivery) -> bool, messages_max: usize) -> Option<usize> {
        let places = self.queue.iter().enumerate().filter(|(_, delivery)| is_taken(delivery));
        places.take(messages_max).last().map(|(place, _)| place)
    }

    fn put_first(&mut self, delivery: Delivery) {
        self.queue_bytes.set(self.queue_bytes.get() + delivery.weight());
        self.queued_qos_0 += usize::from(delivery.qos == Qos::AtMostOnce);
        self.left = self.left.saturating_sub(1);
        self.queue.push_front(delivery);
    }

    /// Makes what was drawn for the shared subscriptions that `is_left` names this client's own: it is
    /// a member no more, and nobody else took it over.
    pub fn keep_shared(&mut self, is_left: impl Fn(FilterId) -> bool) {
        let in_flight = self.inflight.iter_mut().filter_map(|inflight| match &mut inflight.stage {
            Stage::Sent(delivery) | Stage::Unsent(delivery) | Stage::Held(delivery, _) => {
                Some(delivery)
            }
            Stage::Released { .. } | Stage::Done => None,
        });
        for delivery in in_flight.chain(&mut self.queue) {
            if delivery.shared.is_some_and(&is_left) {
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
