//! Messages drawn for shared subscriptions, which other members may get instead.

use shards::FilterId;

use super::queue::Queue;
use super::{Delivery, Gone, Outbound, Stage};
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
        for place in 0..if with_inflight { self.inflight.len() } else { 0 } {
            let bytes = self.bytes_sent_at(place);
            let inflight = &mut self.inflight[place];
            let is_unsent = matches!(inflight.stage, Stage::Unsent(_));
            let (Stage::Sent(delivery) | Stage::Unsent(delivery)) = &inflight.stage else {
                continue;
            };
            if delivery.qos == Qos::AtLeastOnce && is_taken(delivery) {
                let delivery = delivery.clone();
                self.gone.note(delivery.record);
                taken.push(delivery);
                self.to_resend -= usize::from(is_unsent);
                self.unacknowledged -= usize::from(!is_unsent);
                inflight.stage = Stage::Done;
                self.note_bytes_answered(bytes);
            }
        }
        self.forget_done();
        let is_more = self.queue.take(is_taken, messages_max, &mut taken, &mut self.gone);
        self.settle();
        (taken, is_more)
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
        for delivery in in_flight.chain(&mut self.queue.messages) {
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
        in_flight.chain(self.queue.messages.iter().filter_map(|delivery| delivery.shared))
    }
}

impl Queue {
    /// Moves messages that `is_taken` names to `taken`, no more than `messages_max`; whether there are
    /// more of them.
    fn take(
        &mut self,
        is_taken: impl Fn(&Delivery) -> bool,
        messages_max: usize,
        taken: &mut Vec<Delivery>,
        gone: &mut Gone,
    ) -> bool {
        let places = self.messages.iter().enumerate().filter(|(_, delivery)| is_taken(delivery));
        let Some((last, _)) = places.take(messages_max).last() else { return false };
        let (has_latest, unjudged) = (!self.latest.is_empty(), self.unjudged);
        // The others up to there, in their order, are put back in front of the rest.
        let mut others = Vec::new();
        for _ in 0..=last {
            let delivery = self.pop().expect("counted");
            if delivery.message.is_hollow() {
                continue;
            }
            if is_taken(&delivery) {
                gone.note(delivery.record);
                taken.push(delivery);
            } else {
                others.push(delivery);
            }
        }
        while let Some(other) = others.pop() {
            self.push_front(other);
        }
        self.unjudged = unjudged.min(self.messages.len());
        self.look_anew();
        if has_latest {
            self.renumber();
        }
        self.messages.iter().any(is_taken)
    }
}
