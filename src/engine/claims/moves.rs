//! Sessions that move to other nodes: the old node.

use shards::{Subscription, SubscriptionIndex};

use crate::base::ids::{CoreId, SessionId};
use crate::engine::Engine;
use crate::engine::claims::marks::{Marks, Source};
use crate::engine::claims::parts::Part;
use crate::engine::mesh::session_message::SessionStep;
use crate::engine::work::BYTES_PER_STEP;
use crate::session::outbound::Outbound;
use crate::session::state::Will;

/// Sessions that a core sends at a time: each has a part under way at most.
const UNDER_WAY_MAX: usize = 64;

/// A session on its way to another node.
#[derive(Debug)]
pub(super) struct Move {
    to: CoreId,
    stamp: u64,
    stage: Stage,
    /// The stamp under which this node had claimed the session.
    claimed: u64,
    /// The new node has it all: it is stored there when the receipt comes.
    is_taken: bool,
    /// Shared subscriptions that the session has left for the move.
    left_groups: Vec<(Box<str>, Subscription)>,
    /// The marks of all cores, once they have been asked for.
    pub(super) marks: Option<Marks>,
    /// The delayed Will of a client that is away, once all has been sent: the new node publishes it.
    will: Option<Box<Will>>,
    /// Messages of the queue that came after the mark of their core, by number: they reach the new node by themselves, and
    /// are kept here for the case that it fails.
    pub(super) counts_elsewhere: Vec<u64>,
}

impl Move {
    /// The stamp under which this node had claimed the session.
    pub(super) fn claimed(&self) -> u64 {
        self.claimed
    }
}

#[derive(Debug)]
enum Stage {
    /// Others are first.
    LinedUp,
    /// So many of its subscriptions have not been sent; the receipt for the last part is awaited.
    Filters { left: usize, barrier: u64 },
    /// The new node waits until all nodes know its filters.
    Announced,
    /// The marks of all cores are awaited, and then the end of the first fan-outs.
    Flushing { fan_outs: Option<u64> },
    /// Its state is being sent; the receipt for the last part is awaited.
    State { cursor: Cursor, barrier: u64 },
}

/// How far the state has been sent.
#[derive(Debug)]
struct Cursor {
    has_received: bool,
    /// Messages in flight so far.
    inflight: usize,
    /// The next message of the queue, and the end of what moves: later ones reach the new node by themselves.
    queued: u64,
    end: u64,
    is_done: bool,
}

impl Engine {
    /// Sends the session of a client to a node that has claimed it. Its delayed Will goes with it, unless its client is back.
    pub(super) fn begin_move(
        &mut self,
        to: CoreId,
        client: &str,
        stamp: u64,
        claimed: u64,
        keeps_will: bool,
    ) {
        self.cancel_move(client);
        self.flush_fan_out_batch();
        if let Some(session) = self.sessions.find(client) {
            self.sessions[session].set_moving(true);
            if !keeps_will {
                // A delayed one: its client is back [MQTT-3.1.3-9].
                self.sessions[session].will = None;
            }
        }
        let of = Move {
            to,
            stamp,
            stage: Stage::LinedUp,
            claimed,
            is_taken: false,
            left_groups: Vec::new(),
            marks: None,
            will: None,
            counts_elsewhere: Vec::new(),
        };
        self.claims.moves.insert(client.into(), of);
        self.claims.lined_up.push_back(client.into());
        self.continue_departures();
    }

    /// A node has left: its clients' sessions stay here.
    pub(super) fn cancel_moves_to(&mut self, node: CoreId) {
        let moves = self.claims.moves.iter().filter(|(_, of)| of.to == node);
        let clients: Vec<(Box<str>, u64)> =
            moves.map(|(client, of)| (client.clone(), of.stamp)).collect();
        for (client, stamp) in clients {
            self.cancel_move(&client);
            self.claim(&client, stamp, false);
        }
        self.continue_departures();
    }

    /// A node has given up its claim: a session on its way there stays, under the claim that it had.
    pub(super) fn note_withdrawn(&mut self, from: CoreId, client: &str, stamp: u64) {
        let of = self.claims.moves.get(client).filter(|of| of.to == from && of.stamp <= stamp);
        let Some(claimed) = of.map(Move::claimed) else { return };
        if of.is_some_and(|of| of.is_taken) {
            return self.end_move(client);
        }
        self.cancel_move(client);
        let fingerprint = self.fingerprint(client);
        if claimed > 0 && self.claims.directory.elsewhere(fingerprint).is_none() {
            // It was withdrawn when the node that has given up took the session over.
            self.set_claim(client, fingerprint, claimed, false);
        }
        self.continue_departures();
    }

    /// The session of a client stays here after all.
    pub(super) fn cancel_move(&mut self, client: &str) {
        let Some(of) = self.claims.moves.remove(client) else { return };
        let Some(session) = self.sessions.find(client) else { return };
        self.sessions[session].set_moving(false);
        if let Some(will) = of.will {
            let due = will.due;
            self.sessions[session].will = Some(will);
            if let Some(due) = due {
                self.timers.arm_session(self.now, session, &mut self.sessions, due);
            }
        }
        for (text, subscription) in &of.left_groups {
            self.subscribe_again(session, text, *subscription);
        }
    }

    /// The new node has announced the filters, and these other nodes know them; or it does not want the session, or no more of
    /// it.
    pub(super) fn take_ask(&mut self, from: CoreId, client: &str, stamp: u64, nodes: Option<u64>) {
        let is_it = |of: &&mut Move| of.to == from && of.stamp == stamp;
        let Some(of) = self.claims.moves.get_mut(client).filter(is_it) else { return };
        let Some(nodes) = nodes else {
            of.is_taken = true;
            return match of.stage {
                Stage::State { .. } => self.continue_departures(),
                _ => self.end_move(client),
            };
        };
        let marks = self.ask_for_marks(from, client, stamp, nodes);
        if let Some(of) = self.claims.moves.get_mut(client) {
            (of.stage, of.marks) = (Stage::Flushing { fan_outs: None }, Some(marks));
        }
        self.continue_departures();
    }

    /// Asks the cores of these nodes, and those of this one, for their marks, and makes that of this core.
    fn ask_for_marks(&mut self, to: CoreId, client: &str, stamp: u64, nodes: u64) -> Marks {
        let nodes = nodes | self.mesh.member_bit(to);
        let (number, cores) = (self.mesh.node_number(to), self.mesh.cores());
        let members = self.mesh.nodes_of(nodes & self.mesh.member_bits());
        let of: Vec<CoreId> = members.chain(self.mesh.others()).collect();
        for &one in &of {
            self.mesh.send_session(one, client, stamp, |_| SessionStep::Flush { to: number });
        }
        self.mesh.send_session(to, client, stamp, |_| SessionStep::Mark { cores });
        let (mut marks, own, mark) = (Marks::new(of), self.mesh.core(), self.claims.count_mark());
        marks.take(own, 1, Source::core(own), mark);
        marks
    }

    /// The mark of a core has come for a session that moves to another node.
    pub(super) fn take_flushed(&mut self, from: CoreId, client: &str, stamp: u64, cores: u16) {
        let (source, number) = (Source::behind(&self.mesh, from), self.claims.count_mark());
        let of = self.claims.moves.get_mut(client).filter(|of| of.stamp == stamp);
        let Some(marks) = of.and_then(|of| of.marks.as_mut()) else { return };
        marks.take(from, cores, source, number);
        if marks.are_complete() {
            self.continue_departures();
        }
    }

    /// A node that has left sends no marks.
    pub(super) fn forget_marks_of(&mut self, node: CoreId) {
        for marks in self.claims.moves.values_mut().filter_map(|of| of.marks.as_mut()) {
            marks.forget(node);
        }
        let mut clients = Vec::new();
        for (client, waiting) in &mut self.claims.waiting {
            if let Some(marks) = waiting.marks() {
                marks.forget(node);
                clients.push(client.clone());
            }
        }
        clients.iter().for_each(|client| self.flush_arrival(client));
        self.continue_departures();
    }

    /// Ends a session that has moved, or whose move is given up by the other node.
    fn end_move(&mut self, client: &str) {
        if self.claims.moves.remove(client).is_some()
            && let Some(session) = self.sessions.find(client)
        {
            self.end_moved_session(session);
        }
    }

    /// Goes on with the moves whose receipts have come, and begins with those that are next.
    pub(super) fn continue_departures(&mut self) {
        let mut under_way = std::mem::take(&mut self.claims.under_way);
        under_way.retain(|client| self.continue_departure(client));
        while under_way.len() < UNDER_WAY_MAX
            && let Some(client) = self.claims.lined_up.pop_front()
        {
            let Some(of) = self.claims.moves.get_mut(&client) else { continue };
            if matches!(of.stage, Stage::LinedUp) {
                of.stage = Stage::Filters { left: usize::MAX, barrier: 0 };
                if self.continue_departure(&client) {
                    under_way.push(client);
                }
            }
        }
        self.claims.under_way = under_way;
    }

    /// Goes on with a move; whether it is still under way.
    fn continue_departure(&mut self, client: &str) -> bool {
        let Some(mut of) = self.claims.moves.remove(client) else { return false };
        let Some(session) = self.sessions.find(client) else {
            // It has ended meanwhile.
            self.answer_claim(of.to, client, of.stamp, None);
            return false;
        };
        let is_over = match &mut of.stage {
            Stage::LinedUp => return self.put_back(client, of),
            Stage::Announced => false,
            Stage::Filters { left, barrier } => {
                if self.mesh.is_receipted(of.to, *barrier) {
                    (*left, *barrier) = self.send_filters(session, of.to, of.stamp, *left);
                    if *left == 0 {
                        of.stage = Stage::Announced;
                    }
                }
                false
            }
            Stage::Flushing { fan_outs } => {
                if of.marks.as_ref().is_some_and(Marks::are_complete) {
                    // What came before the marks may still be on its way to many sessions here.
                    let begun = *fan_outs.get_or_insert(self.router.fan_outs().begun());
                    if self.router.fan_outs().have_ended(begun) {
                        of.left_groups = self.leave_groups(session);
                        of.stage = self.begin_state(session, &of);
                    }
                }
                false
            }
            Stage::State { cursor, barrier } => {
                let is_receipted = self.mesh.is_receipted(of.to, *barrier);
                if is_receipted && !cursor.is_done {
                    let to = (of.to, of.stamp);
                    *barrier = self.send_state(session, to, cursor, &of.counts_elsewhere);
                }
                of.is_taken && cursor.is_done && self.mesh.is_receipted(of.to, *barrier)
            }
        };
        if let Stage::State { cursor, .. } = &of.stage
            && cursor.is_done
            && let Some(will) = self.sessions[session].will.take()
        {
            // From here on it is the new node that publishes it.
            of.will = Some(will);
        }
        self.put_back(client, of);
        if is_over {
            self.metrics.sessions_moved_out += 1;
            self.end_move(client);
        }
        !is_over
    }

    fn put_back(&mut self, client: &str, of: Move) -> bool {
        self.claims.moves.insert(client.into(), of);
        true
    }

    /// Sends some subscriptions; how many are left, and the number of the batch.
    fn send_filters(
        &mut self,
        session: SessionId,
        to: CoreId,
        stamp: u64,
        left: usize,
    ) -> (usize, u64) {
        let state = &self.sessions[session];
        let mut part = Part::new(state, self.now);
        if left == usize::MAX
            && let Some(owner) = state.owner()
        {
            part.add_owner(owner);
        }
        let index = self.router.index();
        let left = part.add_subscriptions(state, session.into(), index, left);
        self.work.spend(1 + state.subscriptions.len().min(256));
        let records = part.into_records();
        let client = state.client_identifier.as_str();
        self.mesh.send_session(to, client, stamp, |batch| SessionStep::Filters {
            is_last: left == 0,
            records: batch.push_records(records),
        });
        (left, self.mesh.ask_receipt(to))
    }

    /// All that was sent to the session before the new node had announced its filters is here: sends the first part of
    /// its state.
    fn begin_state(&mut self, session: SessionId, of: &Move) -> Stage {
        let outbound = self.sessions[session].outbound.as_ref();
        let (queued, end) = (0, outbound.map_or(0, |outbound| outbound.queue_end()));
        let mut cursor = Cursor { has_received: false, inflight: 0, queued, end, is_done: false };
        let to = (of.to, of.stamp);
        let barrier = self.send_state(session, to, &mut cursor, &of.counts_elsewhere);
        Stage::State { cursor, barrier }
    }

    /// Draws no more messages of shared subscriptions for the session, as they would reach nobody else; the subscriptions.
    fn leave_groups(&mut self, session: SessionId) -> Vec<(Box<str>, Subscription)> {
        let filters = self.sessions[session].subscriptions.clone();
        let mut left = Vec::new();
        for filter in filters.into_iter().filter(|filter| filter.is_shared()) {
            let index = self.router.index();
            let Some(subscription) = index.get(filter, session.into()) else { continue };
            left.push((index.text(filter).into(), subscription));
            self.leave(filter, session);
            self.sessions[session].subscriptions.retain(|of| *of != filter);
        }
        left
    }

    /// Sends the next part of the state; the number of the batch.
    fn send_state(
        &mut self,
        session: SessionId,
        (to, stamp): (CoreId, u64),
        cursor: &mut Cursor,
        counts_elsewhere: &[u64],
    ) -> u64 {
        let (state, index) = (&self.sessions[session], self.router.index());
        let mut part = Part::new(state, self.now);
        if !std::mem::replace(&mut cursor.has_received, true)
            && let Some(inbound) = &state.inbound
        {
            inbound.identifiers().iter().for_each(|of| part.add_received(of.get()));
        }
        cursor.is_done = match &state.outbound {
            Some(outbound) => cursor.add(outbound, counts_elsewhere, &mut part, index),
            None => true,
        };
        if cursor.is_done {
            if let Some(will) = &state.will {
                part.add_will(will);
            }
            part.add_end(state);
        }
        let records = part.into_records();
        self.work.spend(1 + records.len() / BYTES_PER_STEP);
        let (client, is_last) = (state.client_identifier.as_str(), cursor.is_done);
        self.mesh.send_session(to, client, stamp, |batch| SessionStep::State {
            is_last,
            records: batch.push_records(records),
        });
        self.mesh.ask_receipt(to)
    }
}

impl Cursor {
    /// Adds messages until the part is full; whether that was all.
    fn add(
        &mut self,
        outbound: &Outbound,
        counts_elsewhere: &[u64],
        part: &mut Part,
        index: &SubscriptionIndex,
    ) -> bool {
        for listed in outbound.list_inflight().skip(self.inflight) {
            if part.is_full() {
                return false;
            }
            self.inflight += 1;
            match listed.delivery {
                Some(delivery) => part.add_delivery(delivery, listed.identifier, index),
                None => part.add_released(listed.identifier),
            }
        }
        for (number, delivery) in outbound.list_queued(self.queued) {
            if number >= self.end {
                break;
            }
            if part.is_full() {
                return false;
            }
            self.queued = number + 1;
            // They came in the order of the queue.
            if counts_elsewhere.binary_search(&number).is_err() {
                part.add_delivery(delivery, 0, index);
            }
        }
        true
    }
}
