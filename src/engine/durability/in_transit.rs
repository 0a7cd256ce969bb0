//! In-transit forwards: messages on their way to other cores that no client would send again.
//!
//! These messages are of shared subscriptions whose publisher has been acknowledged, or waits for this
//! core alone, and Wills that the store knew, as their clients are gone. Each is logged before it leaves,
//! as a delivery of a session without a client, and ends once the other cores have stored what became of
//! it. After a crash, the next start sends these messages again.

use std::collections::VecDeque;

use crate::base::clock::Now;
use crate::base::ids::CoreId;
use crate::base::metrics::Drop as DropCause;
use crate::engine::connections::Connections;
use crate::engine::durability::Durability;
use crate::engine::durability::journal::Journal;
use crate::engine::mesh::Mesh;
use crate::engine::routing::deliver::{Draft, Origin};
use crate::engine::routing::fan_out::FanOuts;
use crate::engine::{Engine, Timer};
use crate::message::{Content, Message};
use crate::resources::gauges::Ledger;
use crate::session::outbound::{Delivery, Identifiers};
use crate::storage::commit::RecordRef;
use crate::storage::image;
use crate::storage::record::{DeliveryNumber, Record, SessionNumber};
use crate::wire::Qos;

/// A delivery in the journal.
pub(in crate::engine) type LoggedDelivery = (SessionNumber, DeliveryNumber);

/// The logged deliveries that end once a forwarded message has arrived: its own, and those of the cores
/// and sessions it came from, which may not be in the journal yet.
#[derive(Clone, Debug)]
pub(in crate::engine) struct EndOnArrival(pub Vec<LoggedDelivery>);

/// The messages on their way from this core.
#[derive(Debug, Default)]
pub(super) struct InTransit {
    /// The session under which they are logged, from the first one on.
    session: Option<SessionNumber>,
    /// By destination core, in the order of its lane.
    forwards: Vec<VecDeque<Forward>>,
    /// Wills, with what must have happened before they end.
    wills: VecDeque<(Delivery, Barriers)>,
    /// Messages that were in transit when the last process ended.
    restored: VecDeque<Forward>,
}

/// Events that a Will waits for.
#[derive(Debug)]
struct Barriers {
    /// The receipts of the cores that got the Will.
    receipts: Vec<(CoreId, u64)>,
    /// The number of fan-outs that must be complete on this core.
    fan_outs: u64,
}

/// A message in transit.
#[derive(Debug)]
struct Forward {
    /// The shared subscription; none for a Will, which goes to all subscribers.
    filter: Option<Box<str>>,
    delivery: Delivery,
    /// The batch of the lane that contains the message.
    batch: u64,
}

impl InTransit {
    /// Logs all messages in transit, for a checkpoint.
    pub(super) fn log(&mut self, journal: &mut Journal) {
        let Some(session) = self.session else { return };
        log_session(journal, session);
        for forward in self.forwards.iter_mut().flatten().chain(&mut self.restored) {
            let filter = forward.filter.as_deref();
            forward.delivery.kept = journal.write_delivery(session, &forward.delivery, 0, filter);
        }
        for (will, _) in &mut self.wills {
            will.kept = journal.write_delivery(session, will, 0, None);
        }
    }
}

fn log_session(journal: &mut Journal, session: SessionNumber) {
    let (client_identifier, expiry_interval_s) = ("", u32::MAX);
    journal.write(&Record::Session { session, client_identifier, expiry_interval_s });
}

impl Barriers {
    /// For the message that was forwarded last.
    fn of_last_message(mesh: &mut Mesh, fan_outs: &FanOuts) -> Self {
        Self { receipts: mesh.barriers_of_reached(), fan_outs: fan_outs.begun() }
    }
}

impl Durability {
    /// The session under which messages in transit are logged.
    fn transit_session(&mut self, connections: &mut Connections) -> SessionNumber {
        match self.in_transit.session {
            Some(session) => session,
            None => {
                let generation = connections.next_generation();
                self.begin_transit(connections.round(), generation)
            }
        }
    }

    /// Begins the session under which messages in transit are logged.
    fn begin_transit(&mut self, round: u32, generation: u32) -> SessionNumber {
        let session = self.session_number(round, generation);
        self.in_transit.session = Some(session);
        if let Some(journal) = &mut self.journal {
            log_session(journal, session);
        }
        session
    }

    /// Logs a message in transit.
    fn append_in_transit(
        &mut self,
        session: SessionNumber,
        filter: Option<&str>,
        message: Message,
        (qos, retain): (Qos, bool),
    ) -> Delivery {
        let mut delivery = Delivery {
            message,
            qos,
            retain,
            subscription_identifiers: Identifiers::None,
            shared: None,
            kept: RecordRef::default(),
        };
        if let Some(journal) = &mut self.journal {
            delivery.kept = journal.write_delivery(session, &delivery, 0, filter);
        }
        delivery
    }

    /// Logs a message that goes to core `to` with this batch of its lane.
    fn append_forward(
        &mut self,
        session: SessionNumber,
        to: CoreId,
        filter: &str,
        (draft, message): (&Draft<'_>, Message),
        batch: u64,
    ) -> EndOnArrival {
        self.append_taken_by_group(draft.once, filter);
        let quality = (draft.content.qos, draft.retain);
        let delivery = self.append_in_transit(session, Some(filter), message, quality);
        let mut ended = draft.before.clone();
        ended.push((session, delivery.kept.number));
        let (to, forwards) = (usize::from(to.0), &mut self.in_transit.forwards);
        if forwards.len() <= to {
            forwards.resize_with(to + 1, VecDeque::new);
        }
        forwards[to].push_back(Forward { filter: Some(filter.into()), delivery, batch });
        EndOnArrival(ended)
    }

    /// A message of another core has arrived: its deliveries here are logged in the same batch.
    pub(in crate::engine) fn append_arrived(&mut self, EndOnArrival(ended): &EndOnArrival) {
        let Some(journal) = &mut self.journal else { return };
        for &(session, delivery) in ended {
            journal.write(&Record::Arrived { session, delivery });
        }
    }

    /// Core `to` has given a receipt: messages to it up to that receipt have arrived.
    pub(in crate::engine) fn end_forwards(&mut self, to: CoreId, mesh: &Mesh, fan_outs: &FanOuts) {
        let (Some(journal), Some(session)) = (&mut self.journal, self.in_transit.session) else {
            return;
        };
        if let Some(line) = self.in_transit.forwards.get_mut(usize::from(to.0)) {
            while let Some(forward) =
                line.pop_front_if(|forward| mesh.is_receipted(to, forward.batch))
            {
                journal.end_delivery(session, forward.delivery.kept);
            }
        }
        self.end_forwarded_wills(mesh, fan_outs);
    }

    /// Ends the Wills that all other cores have stored and whose fan-out here is complete.
    pub(in crate::engine) fn end_forwarded_wills(&mut self, mesh: &Mesh, fan_outs: &FanOuts) {
        let (Some(journal), Some(session)) = (&mut self.journal, self.in_transit.session) else {
            return;
        };
        while let Some((will, _)) = self.in_transit.wills.pop_front_if(|(_, barriers)| {
            fan_outs.have_ended(barriers.fan_outs) && mesh.are_receipted(&barriers.receipts)
        }) {
            journal.end_delivery(session, will.kept);
        }
    }

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
    /// Logs a message that goes to another core for a shared subscription. The acknowledgement of a
    /// client's message waits for the first core the message goes to, so that hop is not logged.
    pub(in crate::engine) fn begin_forward(
        &mut self,
        to: CoreId,
        filter: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        hops: u16,
    ) -> Option<EndOnArrival> {
        let is_awaited = hops == 1 && origin.publisher.is_some();
        if is_awaited || draft.content.qos == Qos::AtMostOnce || !self.durability.has_journal() {
            return None;
        }
        let message = draft.message(self.place.ledger()).clone();
        let session = self.durability.transit_session(&mut self.connections);
        let batch = self.mesh.ask_receipt(to);
        Some(self.durability.append_forward(session, to, filter, (draft, message), batch))
    }

    /// Logs a Will that the store knew, and that other cores have just got, or that `fans_out` on this
    /// core: the Will ends once its deliveries are stored.
    pub(in crate::engine) fn begin_forward_of_will(
        &mut self,
        content: &Content<'_>,
        retain: bool,
        fans_out: bool,
    ) {
        let is_over = !self.mesh.has_reached_any() && !fans_out;
        if content.qos == Qos::AtMostOnce || is_over || !self.durability.has_journal() {
            return;
        }
        let message = content.to_message(self.place.ledger());
        let (session, quality) =
            (self.durability.transit_session(&mut self.connections), (content.qos, retain));
        let will = self.durability.append_in_transit(session, None, message, quality);
        let barriers = Barriers::of_last_message(&mut self.mesh, self.router.fan_outs());
        self.durability.in_transit.wills.push_back((will, barriers));
    }

    /// Restores what was in transit when the last process ended, logged under session `number`.
    pub(super) fn restore_forwards(&mut self, number: SessionNumber, of: &image::Session) {
        if !of.queue.is_empty() {
            let session = self.durability.transit_session(&mut self.connections);
            let ledger = self.place.ledger();
            if self.durability.restore_in_transit(session, of, self.now, ledger) {
                self.timers.arm(self.now.after_s(0), Timer::RestoredForwards);
            }
        }
        self.durability.append(&Record::Ended { session: number });
    }

    /// Sends the restored messages again, now that every core knows the members on the others.
    pub(in crate::engine) fn send_restored_forwards(&mut self) {
        let session = self.durability.in_transit.session;
        while let Some(forward) = self.durability.in_transit.restored.pop_front() {
            let Forward { filter, delivery, .. } = forward;
            let message = &delivery.message;
            if message.is_expired(self.now) {
                self.metrics.drops.add(DropCause::Expired, 1);
            } else {
                let mut draft = Draft::of(message, message.content(), delivery.retain);
                if let Some(filter) = filter {
                    draft.before.extend(session.map(|session| (session, delivery.kept.number)));
                    self.share_again(&filter, &mut draft);
                } else {
                    let begun = self.router.fan_outs().begun();
                    self.publish_again(&mut draft);
                    if self.mesh.has_reached_any() || self.router.fan_outs().begun() > begun {
                        let barriers =
                            Barriers::of_last_message(&mut self.mesh, self.router.fan_outs());
                        self.durability.in_transit.wills.push_back((delivery, barriers));
                        continue;
                    }
                }
            }
            self.durability.append_end_of_delivery(session, delivery.kept);
        }
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
