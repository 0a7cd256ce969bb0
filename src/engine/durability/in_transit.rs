//! In-transit forwards: messages on their way to other cores that no client would send again.
//!
//! These messages are of shared subscriptions whose publisher has been acknowledged, or waits for this
//! core alone, and Wills that the store knew, as their clients are gone. Each is logged before it leaves,
//! as a delivery of a session without a client, and ends once the other cores have stored what became of
//! it. After a crash, the next start sends these messages again.

use std::collections::VecDeque;

use crate::base::ids::CoreId;
use crate::engine::Engine;
use crate::engine::connections::Connections;
use crate::engine::draft::{Draft, Origin};
use crate::engine::durability::Durability;
use crate::engine::durability::checkpoint_part::CheckpointPart;
use crate::engine::durability::journal::Journal;
use crate::engine::mesh::Mesh;
use crate::engine::routing::fan_outs::FanOuts;
use crate::message::{Content, Message};
use crate::session::outbound::{Delivery, Identifiers};
use crate::storage::commit::{RecordMark, RecordRef};
use crate::storage::record::{DeliveryNumber, Record, SessionNumber};
use crate::wire::Qos;

/// A delivery in the journal.
pub(crate) type LoggedDelivery = (SessionNumber, DeliveryNumber);

/// The logged deliveries that end once a forwarded message has arrived: its own, and those of the cores
/// and sessions it came from, which may not be in the journal yet.
#[derive(Clone, Debug)]
pub(crate) struct EndOnArrival(pub Vec<LoggedDelivery>);

/// The messages on their way from this core.
#[derive(Debug, Default)]
pub(super) struct InTransit {
    /// The session under which they are logged, from the first one on.
    pub(super) session: Option<SessionNumber>,
    /// By destination core, in the order of its lane.
    forwards: Vec<VecDeque<Forward>>,
    /// Messages that leave once their records are stored, in the order of the records.
    held: VecDeque<HeldForward>,
    /// Wills, with what must have happened before they end.
    pub(super) wills: VecDeque<(Delivery, Barriers)>,
    /// Messages that were in transit when the last process ended.
    pub(super) restored: VecDeque<Forward>,
}

/// Events that a Will waits for.
#[derive(Debug)]
pub(super) struct Barriers {
    /// The receipts of the cores that got the Will.
    receipts: Vec<(CoreId, u64)>,
    /// The number of fan-outs that must be complete on this core.
    fan_outs: u64,
}

/// A message in transit.
#[derive(Debug)]
pub(super) struct Forward {
    /// The shared subscription; none for a Will, which goes to all subscribers.
    pub(super) filter: Option<Box<str>>,
    pub(super) delivery: Delivery,
    /// The batch of the lane that contains the message.
    pub(super) batch: u64,
}

/// A message that leaves once its record is stored.
#[derive(Debug)]
pub(super) struct HeldForward {
    /// The batch of the journal with its record.
    stored_with: u64,
    pub(super) to: CoreId,
    pub(super) hops: u16,
    pub(super) filter: Box<str>,
    pub(super) delivery: Delivery,
    /// The deliveries that end once it has arrived, besides its own.
    pub(super) before: Vec<LoggedDelivery>,
}

/// How a message goes to another core.
#[derive(Debug)]
pub(in crate::engine) enum Begun {
    /// At once: somebody else sends it again after a crash.
    AtOnce,
    /// At once, and these deliveries end once it has arrived.
    Logged(EndOnArrival),
    /// By itself, once its record is stored.
    OnceStored,
}

impl InTransit {
    /// Logs messages in transit again, each line from its end, for a checkpoint; whether that was all.
    pub(super) fn log(
        &mut self,
        journal: &mut Journal,
        up_to: &mut TransitRewrite,
        part: &mut CheckpointPart,
    ) -> bool {
        let Some(session) = self.session else { return true };
        let begin = || journal.begin_rewrite(session, NO_CLIENT, u32::MAX);
        let mark = *up_to.mark.get_or_insert_with(begin);
        while up_to.line < self.lines() {
            let left = up_to.left.min(self.len(up_to.line));
            up_to.left = left.saturating_sub(1);
            if left == 0 {
                (up_to.line, up_to.left) = (up_to.line + 1, usize::MAX);
                continue;
            }
            if part.is_full(journal) {
                up_to.left = left;
                return false;
            }
            part.look_at(1);
            let (delivery, filter) = self.get_mut(up_to.line, up_to.left);
            if !delivery.record.is_since(mark, journal.number() as u32) {
                delivery.record = journal.write_delivery(session, delivery, 0, filter);
            }
        }
        journal.end_rewrite();
        true
    }

    fn lines(&self) -> usize {
        3 + self.forwards.len()
    }

    /// The messages of a line: those of an earlier process, Wills, those that have not left, and then those to each core.
    fn len(&self, line: usize) -> usize {
        match line {
            0 => self.restored.len(),
            1 => self.wills.len(),
            2 => self.held.len(),
            _ => self.forwards[line - 3].len(),
        }
    }

    /// A message of a line, with its shared subscription.
    fn get_mut(&mut self, line: usize, place: usize) -> (&mut Delivery, Option<&str>) {
        let forward = match line {
            0 => &mut self.restored[place],
            1 => return (&mut self.wills[place].0, None),
            2 => {
                let held = &mut self.held[place];
                return (&mut held.delivery, Some(&held.filter));
            }
            _ => &mut self.forwards[line - 3][place],
        };
        (&mut forward.delivery, forward.filter.as_deref())
    }
}

/// How far a checkpoint has logged the messages in transit.
#[derive(Debug)]
pub(super) struct TransitRewrite {
    /// Where the first part begins in the journal.
    mark: Option<RecordMark>,
    line: usize,
    /// The messages at the head of the line that are left.
    left: usize,
}

impl Default for TransitRewrite {
    fn default() -> Self {
        Self { mark: None, line: 0, left: usize::MAX }
    }
}

/// The Client Identifier of the session under which messages in transit are logged.
const NO_CLIENT: &str = "";

fn log_session(journal: &mut Journal, session: SessionNumber) {
    let (client_identifier, expiry_interval_s) = (NO_CLIENT, u32::MAX);
    journal.write(&Record::Session { session, client_identifier, expiry_interval_s });
}

impl Barriers {
    /// For the message that was forwarded last.
    pub(super) fn of_last_message(mesh: &mut Mesh, fan_outs: &FanOuts) -> Self {
        Self { receipts: mesh.barriers_of_reached(), fan_outs: fan_outs.begun() }
    }
}

impl Durability {
    /// The session under which messages in transit are logged.
    pub(super) fn transit_session(&mut self, connections: &mut Connections) -> SessionNumber {
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
    pub(super) fn append_in_transit(
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
            record: RecordRef::default(),
        };
        if let Some(journal) = &mut self.journal {
            delivery.record = journal.write_delivery(session, &delivery, 0, filter);
        }
        delivery
    }

    /// Logs a message that goes to another core, with its exchange: from then on no member may get the message again.
    fn append_forward(
        &mut self,
        session: SessionNumber,
        filter: &str,
        (draft, message): (&Draft<'_>, Message),
    ) -> Delivery {
        self.append_taken_by_group(draft.exchange, filter);
        let quality = (draft.content.qos, draft.retain);
        self.append_in_transit(session, Some(filter), message, quality)
    }

    /// A logged message goes to core `to` with this batch of its lane. The deliveries that end once it has arrived.
    pub(super) fn note_forward(
        &mut self,
        to: CoreId,
        forward: Forward,
        mut before: Vec<LoggedDelivery>,
    ) -> EndOnArrival {
        before.extend(
            self.in_transit.session.map(|session| (session, forward.delivery.record.number)),
        );
        let (to, forwards) = (usize::from(to.0), &mut self.in_transit.forwards);
        if forwards.len() <= to {
            forwards.resize_with(to + 1, VecDeque::new);
        }
        forwards[to].push_back(forward);
        EndOnArrival(before)
    }

    /// The next message whose record is stored, and which has not left.
    pub(super) fn next_stored_forward(&mut self) -> Option<HeldForward> {
        let up_to = self.stored_up_to();
        self.in_transit.held.pop_front_if(|held| held.stored_with <= up_to)
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
                journal.end_delivery(session, forward.delivery.record);
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
            journal.end_delivery(session, will.record);
        }
    }
}

impl Engine {
    /// Logs a message that goes to another core for a shared subscription. The acknowledgement of a
    /// client's message waits for the first core the message goes to, so that hop is not logged.
    ///
    /// A message with an open QoS 2 exchange leaves once it is stored, and without its exchange, which is logged here and
    /// may end before the message arrives. If the next core logged the exchange too, after its end, then after a crash
    /// another message with the same Packet Identifier would be taken for a duplicate; and if the message left at once and
    /// the next core did not log it, a crash could leave the delivery without the exchange.
    pub(in crate::engine) fn begin_forward(
        &mut self,
        to: CoreId,
        filter: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        hops: u16,
    ) -> Begun {
        let is_awaited = hops == 1 && origin.publisher.is_some();
        if is_awaited || draft.content.qos == Qos::AtMostOnce || !self.durability.has_journal() {
            return Begun::AtOnce;
        }
        let message = draft.message(self.memory.ledger()).clone();
        let session = self.durability.transit_session(&mut self.connections);
        let delivery = self.durability.append_forward(session, filter, (draft, message));
        let before = draft.before.clone();
        if draft.exchange.is_some() && self.durability.waits() {
            let stored_with = self.durability.open_batch();
            let filter = filter.into();
            let held = HeldForward { stored_with, to, hops, filter, delivery, before };
            self.durability.in_transit.held.push_back(held);
            return Begun::OnceStored;
        }
        let batch = self.mesh.ask_receipt(to);
        let forward = Forward { filter: Some(filter.into()), delivery, batch };
        Begun::Logged(self.durability.note_forward(to, forward, before))
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
        let message = content.to_message(self.memory.ledger());
        let (session, quality) =
            (self.durability.transit_session(&mut self.connections), (content.qos, retain));
        let will = self.durability.append_in_transit(session, None, message, quality);
        let barriers = Barriers::of_last_message(&mut self.mesh, self.router.fan_outs());
        self.durability.in_transit.wills.push_back((will, barriers));
    }
}
