//! Sends what is in transit and has not left: messages whose records are stored now, and those that were in transit when the
//! last process ended.

use crate::base::clock::Now;
use crate::base::metrics::Drop as DropCause;
use crate::engine::draft::{Draft, Origin};
use crate::engine::durability::Durability;
use crate::engine::durability::in_transit::{Barriers, Forward, HeldForward};
use crate::engine::{Engine, Timer};
use crate::resources::gauges::Ledger;
use crate::storage::image;
use crate::storage::record::{Record, SessionNumber};
use crate::wire::Qos;

impl Durability {
    /// Restores the messages in transit of an earlier session; true when there are some to send again.
    fn restore_in_transit(
        &mut self,
        session: SessionNumber,
        of: &image::Session,
        now: Now,
        ledger: &Ledger,
    ) -> bool {
        for delivery in &of.queue {
            let Some(content) = delivery.content.as_ref().and_then(|of| of.get()) else { continue };
            let Some(message) = self.restore_message(content, now, ledger) else { continue };
            let qos = Qos::try_from(delivery.qos).unwrap_or(Qos::AtLeastOnce);
            let filter = delivery.shared.as_deref();
            let quality = (qos, delivery.retain);
            let delivery = self.append_in_transit(session, filter, message, quality);
            let forward = Forward { filter: filter.map(Into::into), delivery, batch: 0 };
            self.in_transit.restored.push_back(forward);
        }
        !self.in_transit.restored.is_empty()
    }
}

impl Engine {
    /// Restores what was in transit when the last process ended, logged under session `number`.
    pub(super) fn restore_forwards(&mut self, number: SessionNumber, of: &image::Session) {
        if !of.queue.is_empty() {
            let session = self.durability.transit_session(&mut self.connections);
            let ledger = self.memory.ledger();
            if self.durability.restore_in_transit(session, of, self.now, ledger) {
                self.timers.arm(self.now.after_s(0), Timer::RestoredForwards);
            }
        }
        self.durability.append(&Record::Ended { session: number });
    }

    /// Sends the messages whose records are stored, as far as the budget of this turn goes; whether there were any.
    pub(super) fn send_stored_forwards(&mut self) -> bool {
        let mut has_sent = false;
        while !self.work.is_spent()
            && let Some(held) = self.durability.next_stored_forward()
        {
            self.work.spend(1);
            has_sent = true;
            let HeldForward { to, hops, filter, delivery, before, .. } = held;
            let (message, retain) = (delivery.message.clone(), delivery.retain);
            let batch = self.mesh.ask_receipt(to);
            let forward = Forward { filter: Some(filter.clone()), delivery, batch };
            let ended = self.durability.note_forward(to, forward, before);
            let mut draft = Draft::of(&message, message.content(), retain);
            self.send_to_group(to, &filter, &mut draft, &Origin::default(), (hops, Some(ended)));
        }
        has_sent
    }

    /// Sends the restored messages again, now that every core knows the members on the others: as many as the budget of
    /// this turn permits, and the rest in the next ones.
    pub(in crate::engine) fn send_restored_forwards(&mut self) {
        while let Some(forward) = self.durability.in_transit.restored.pop_front() {
            self.send_restored_forward(forward);
            if self.work.is_spent() && !self.durability.in_transit.restored.is_empty() {
                return self.timers.arm(self.now.after_s(0), Timer::RestoredForwards);
            }
        }
    }

    fn send_restored_forward(&mut self, Forward { filter, delivery, .. }: Forward) {
        self.work.spend(1);
        let session = self.durability.in_transit.session;
        let message = &delivery.message;
        if message.is_expired(self.now) {
            self.metrics.drops.add(DropCause::Expired, 1);
        } else {
            let mut draft = Draft::of(message, message.content(), delivery.retain);
            if let Some(filter) = filter {
                draft.before.extend(session.map(|session| (session, delivery.record.number)));
                self.share_again(&filter, &mut draft);
            } else {
                let begun = self.router.fan_outs().begun();
                self.publish_again(&mut draft);
                if self.mesh.has_reached_any() || self.router.fan_outs().begun() > begun {
                    let barriers =
                        Barriers::of_last_message(&mut self.mesh, self.router.fan_outs());
                    return self.durability.in_transit.wills.push_back((delivery, barriers));
                }
            }
        }
        self.durability.append_end_of_delivery(session, delivery.record);
    }

    fn share_again(&mut self, filter: &str, draft: &mut Draft<'_>) {
        let subscription = self.router.shared_subscription(filter);
        if self.deliver_to_group(&subscription, draft, &Origin::default(), None).is_none() {
            self.metrics.drops.add(DropCause::Offline, 1);
        }
    }

    /// Delivers a Will to all subscribers, some of which may have got it before a crash. Its copies for
    /// shared subscriptions are forwards of their own.
    fn publish_again(&mut self, draft: &mut Draft<'_>) {
        self.mesh.begin_message();
        self.deliver_here(draft, &Origin::default());
        let recipients =
            self.router.recipients(draft.content.topic, &self.sessions, &mut self.work);
        self.forward(&recipients, draft, &Origin::default(), None);
    }
}
