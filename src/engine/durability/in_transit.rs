//! Messages on their way from this core to others that nobody answers for but the broker: of shared
//! subscriptions, when their publisher has been told that they are received, or waits for this core
//! alone; and Wills that the store knew, as their clients are gone.
//!
//! Each is told to the store before it leaves, as a delivery of a session without a client, and is
//! over once the other cores have stored what became of it. What a crash finds under way is shared
//! out, or published, anew by the next start.

use std::collections::VecDeque;

use crate::base::ids::CoreId;
use crate::base::metrics::Drop as DropCause;
use crate::engine::durability::journal::Journal;
use crate::engine::routing::deliver::{Draft, Origin};
use crate::engine::{Engine, Timer};
use crate::message::{Content, Message};
use crate::session::outbound::{Delivery, Identifiers};
use crate::storage::commit::RecordRef;
use crate::storage::image;
use crate::storage::record::{DeliveryNumber, Record, SessionNumber};
use crate::wire::Qos;

/// A delivery, as the store knows it.
pub(in crate::engine) type Told = (SessionNumber, DeliveryNumber);

/// A message on its way, as the store knows it: what it is now, and before that all deliveries and
/// ways that are over with it once it has arrived. The store may not have heard so yet from the cores
/// it came by.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Passage(pub Vec<Told>);

/// The messages on their way from this core.
#[derive(Debug, Default)]
pub(in crate::engine) struct Transit {
    /// The session they are told under, once there has been one.
    session: Option<SessionNumber>,
    /// By the core they go to, in the order of its lane.
    to: Vec<VecDeque<Passing>>,
    /// Wills, with what has to have happened before they are over.
    wills: VecDeque<(Delivery, Barriers)>,
    /// Those that a crash found on their way.
    found: VecDeque<Passing>,
}

#[derive(Debug)]
struct Barriers {
    /// What the cores that got it have to have receipted.
    receipts: Vec<(CoreId, u64)>,
    /// How many fan-outs have to be through here.
    fan_outs: u64,
}

#[derive(Debug)]
struct Passing {
    /// The shared subscription; none of a Will, which is for everybody who subscribed.
    filter: Option<Box<str>>,
    delivery: Delivery,
    /// The batch of the lane that has it.
    batch: u64,
}

impl Transit {
    /// Tells all of it anew, for a checkpoint.
    pub(in crate::engine) fn tell_anew(&mut self, journal: &mut Journal) {
        let Some(session) = self.session else { return };
        tell_session(journal, session);
        for passing in self.to.iter_mut().flatten().chain(&mut self.found) {
            let filter = passing.filter.as_deref();
            passing.delivery.kept = journal.write_delivery(session, &passing.delivery, 0, filter);
        }
        for (will, _) in &mut self.wills {
            will.kept = journal.write_delivery(session, will, 0, None);
        }
    }
}

fn tell_session(journal: &mut Journal, session: SessionNumber) {
    let (client_identifier, expiry_interval_s) = ("", u32::MAX);
    journal.write(&Record::Session { session, client_identifier, expiry_interval_s });
}

impl Engine {
    /// Tells the store of a message that goes to another core for a shared subscription. For the
    /// first way of a client's message its publisher's acknowledgement waits, and nothing is told.
    pub(in crate::engine) fn begin_passage(
        &mut self,
        to: CoreId,
        filter: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        hops: u16,
    ) -> Option<Passage> {
        let is_awaited = hops == 1 && origin.publisher.is_some();
        if is_awaited || draft.content.qos == Qos::AtMostOnce {
            return None;
        }
        self.journal.as_ref()?;
        let (once, message) = (draft.once, draft.message(self.place.ledger()).clone());
        self.tell_taken_by_group(once, filter);
        let (qos, retain) = (draft.content.qos, draft.retain);
        let mut passing = self.passing(Some(filter), message, qos, retain)?;
        passing.batch = self.mesh.ask_receipt(to);
        let mut told = draft.before.clone();
        told.push((self.transit.session?, passing.delivery.kept.number));
        let to = usize::from(to.0);
        if self.transit.to.len() <= to {
            self.transit.to.resize_with(to + 1, VecDeque::new);
        }
        self.transit.to[to].push_back(passing);
        Some(Passage(told))
    }

    /// Tells the store of a Will that it knew, and that other cores have just got, or that `fans_out`
    /// here: it is over for good once it is stored what became of it.
    pub(in crate::engine) fn begin_passage_of_will(
        &mut self,
        content: &Content<'_>,
        retain: bool,
        fans_out: bool,
    ) {
        let is_over = !self.mesh.has_reached_any() && !fans_out;
        if content.qos == Qos::AtMostOnce || is_over || self.journal.is_none() {
            return;
        }
        let message = content.to_message(self.place.ledger());
        if let Some(passing) = self.passing(None, message, content.qos, retain) {
            self.await_receipts(passing.delivery);
        }
    }

    /// A Will is over once the cores that it reached have stored what became of it.
    fn await_receipts(&mut self, will: Delivery) {
        let receipts = self.mesh.barriers_of_reached();
        let barriers = Barriers { receipts, fan_outs: self.router.fan_outs().begun() };
        self.transit.wills.push_back((will, barriers));
    }

    /// A message that is told from here on.
    fn passing(
        &mut self,
        filter: Option<&str>,
        message: Message,
        qos: Qos,
        retain: bool,
    ) -> Option<Passing> {
        let session = self.transit_session()?;
        let mut delivery = Delivery {
            message,
            qos,
            retain,
            subscription_identifiers: Identifiers::None,
            shared: None,
            kept: RecordRef::default(),
        };
        delivery.kept = self.journal.as_mut()?.write_delivery(session, &delivery, 0, filter);
        Some(Passing { filter: filter.map(Into::into), delivery, batch: 0 })
    }

    fn transit_session(&mut self) -> Option<SessionNumber> {
        if self.transit.session.is_none() {
            let generation = self.connections.next_generation();
            let session = SessionNumber::new(self.connections.round(), self.core().0, generation);
            tell_session(self.journal.as_mut()?, session);
            self.transit.session = Some(session);
        }
        self.transit.session
    }

    /// A message of another core is taken care of here: by those who are told together with this.
    pub(in crate::engine) fn tell_arrived(&mut self, Passage(told): &Passage) {
        let Some(journal) = &mut self.journal else { return };
        for &(session, delivery) in told {
            journal.write(&Record::Arrived { session, delivery });
        }
    }

    /// The other core has stored what became of its messages up to the last receipt.
    pub(in crate::engine) fn end_passages(&mut self, to: CoreId) {
        let (Some(journal), Some(session)) = (&mut self.journal, self.transit.session) else {
            return;
        };
        if let Some(line) = self.transit.to.get_mut(usize::from(to.0)) {
            let mesh = &self.mesh;
            while let Some(passing) =
                line.pop_front_if(|passing| mesh.is_receipted(to, passing.batch))
            {
                journal.end_delivery(session, passing.delivery.kept);
            }
        }
        self.end_passages_of_wills();
    }

    /// The same for Wills, which other cores and subscribers here may have got meanwhile.
    pub(in crate::engine) fn end_passages_of_wills(&mut self) {
        let (Some(journal), Some(session)) = (&mut self.journal, self.transit.session) else {
            return;
        };
        let (wills, mesh, fan_outs) = (&mut self.transit.wills, &self.mesh, self.router.fan_outs());
        while let Some((will, _)) = wills.pop_front_if(|(_, barriers)| {
            fan_outs.are_through(barriers.fan_outs) && mesh.are_receipted(&barriers.receipts)
        }) {
            journal.end_delivery(session, will.kept);
        }
    }

    /// Takes up what was on its way when the process before this one ended.
    pub(in crate::engine) fn restore_passages(
        &mut self,
        number: SessionNumber,
        of: image::Session,
    ) {
        for delivery in &of.queue {
            let Some(content) = delivery.content.as_ref().and_then(|of| of.get()) else { continue };
            let filter = delivery.shared.as_deref();
            let Some(message) = self.restore_message(content) else { continue };
            let qos = Qos::try_from(delivery.qos).unwrap_or(Qos::AtLeastOnce);
            if let Some(passing) = self.passing(filter, message, qos, delivery.retain) {
                self.transit.found.push_back(passing);
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.write(&Record::Ended { session: number });
        }
        if !self.transit.found.is_empty() {
            self.timers.arm(self.now.after_s(0), Timer::Passages);
        }
    }

    /// Shares out and publishes what was taken up, now that every core knows the others' members.
    pub(in crate::engine) fn share_found_passages(&mut self) {
        while let Some(Passing { filter, delivery, .. }) = self.transit.found.pop_front() {
            let message = &delivery.message;
            if message.is_expired(self.now) {
                self.metrics.drops.add(DropCause::Expired, 1);
            } else {
                let mut draft = Draft::of(message, message.content(), delivery.retain);
                if let Some(filter) = filter {
                    self.share_anew(&filter, &delivery, &mut draft);
                } else {
                    let begun = self.router.fan_outs().begun();
                    self.publish_anew(&mut draft);
                    if self.mesh.has_reached_any() || self.router.fan_outs().begun() > begun {
                        self.await_receipts(delivery);
                        continue;
                    }
                }
            }
            if let (Some(journal), Some(session)) = (&mut self.journal, self.transit.session) {
                journal.end_delivery(session, delivery.kept);
            }
        }
    }

    fn share_anew(&mut self, filter: &str, delivery: &Delivery, draft: &mut Draft<'_>) {
        let own = self.transit.session.map(|session| (session, delivery.kept.number));
        draft.before.extend(own);
        let sharing = self.router.sharing(filter);
        if self.share(&sharing, draft, &Origin::default(), None).is_none() {
            self.metrics.drops.add(DropCause::Offline, 1);
        }
    }

    /// Brings a Will to everybody who subscribed, of whom some may have got it before a crash. The
    /// copies for shared subscriptions have ways of their own.
    fn publish_anew(&mut self, draft: &mut Draft<'_>) {
        self.mesh.begin_message();
        self.deliver_here(draft, &Origin::default());
        let targets = self.targets(draft.content.topic);
        self.forward(&targets, draft, &Origin::default(), None);
    }
}
