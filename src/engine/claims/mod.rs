//! One session a Client Identifier in the whole cluster: which node has it, and how a session moves to the node to which
//! its client connects.
//!
//! The home core of a Client Identifier (the same hash on each node) knows which node has the session: nodes claim sessions,
//! each claim with a stamp, and of several the latest counts ([`directory`]).
//!
//! * A client comes back to the node that has its session: nobody is asked, unless the session was not kept and is to be
//!   kept from now on. Such a session was claimed without a question.
//! * No node has one, and the client wants none but until the end of the connection (Clean Start): the other nodes are told,
//!   and CONNACK goes out at once.
//! * Otherwise all other nodes are asked, and CONNACK waits for their answers. Two that ask at once see the claim of each
//!   other before the answer that follows it in the same lane, and the later one wins.
//!
//! A node whose session is claimed ends the connection with "Session taken over". The session ends too where the client
//! has Clean Start or the session is not kept, and else moves:
//!
//! ```text
//! new node                    old node
//! claim ────────────────────► ends the connection
//!       ◄──────────────────── answer, filters
//! subscribes, and waits until all nodes know the filters
//! ask   ────────────────────► flush: asks all nodes and cores for marks, and waits for them
//! marks ◄─── of each core of all nodes ───► marks
//!       ◄──────────────────── state, a part at a time: QoS 2 exchanges, what is in flight, the queue
//! stores it, sends CONNACK
//! taken, receipt ───────────► ends its copy
//! ```
//!
//! From the time when a publisher's node knows the new filters until the old node has withdrawn its own, both get a message.
//! The [marks] of each publishing core say at which of the two it counts: none is lost, doubled or overtaken.
//! Either node may fail before the last receipt: the old one keeps all, also what counts at the new one.
//!
//! The stored sessions of a node that has left come back with it. Until it has been away for too long, a client that would
//! begin another session elsewhere, and lose what waits in its own, is refused and tries again.

mod arrivals;
mod asked;
mod directory;
pub(in crate::engine) mod drain;
pub(in crate::engine) mod marks;
mod moves;
mod parts;

use std::collections::{BTreeMap, VecDeque};

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, CoreId, SessionId};
use crate::engine::access::Grant;
use crate::engine::cause::{Cause, Rejection};
use crate::engine::claims::arrivals::Arrival;
use crate::engine::claims::directory::Directory;
use crate::engine::claims::drain::Emptying;
use crate::engine::claims::marks::Source;
use crate::engine::claims::moves::Move;
use crate::engine::client_log::Claimed;
use crate::engine::mesh::batch::Batch;
use crate::engine::mesh::session_message::SessionStep;
use crate::engine::packets::connect::keeps_session;
use crate::engine::timers::Timer;
use crate::engine::{Engine, Mesh, Metrics};
use crate::resources::gauges::{Charge, Ledger, Place};
use crate::transport::bridge::SESSION_PREFIX;
use crate::wire::{Connect, ReasonCode};

/// Places of sessions that are looked at for a node that joins, at a time.
const CLAIMS_TOLD: usize = 256;

/// A client whose CONNECT waits for the answers of other nodes.
#[derive(Debug)]
struct Waiting {
    /// None if another node has offered the session.
    connection: Option<ConnectionId>,
    stamp: u64,
    /// A session that another node has ends.
    ends: bool,
    /// The session was offered: the claim ends no connection, and leaves the session its Will.
    is_offered: bool,
    user: Option<Box<str>>,
    /// The nodes that have not answered, a bit for each.
    left: u64,
    /// The session that comes from another node, until it is here.
    arrival: Option<Arrival>,
    /// A session has come.
    has_session: bool,
    /// A node that has left has the session, as another one says.
    is_absent: bool,
    /// This node has a copy, which it was giving to another node, and had claimed it under this stamp.
    held: Option<u64>,
}

impl Waiting {
    /// The stamp of the copy of the session that this node has.
    fn copy(&self) -> Option<u64> {
        if self.has_session { Some(self.stamp) } else { self.held }
    }
}

/// The claims to the sessions at home on this core, and the sessions on their way.
#[derive(Debug)]
pub(in crate::engine) struct Claims {
    /// Whether this process has a gateway to other nodes.
    has_gateway: bool,
    /// What to add to the clock of the core for the time since 1970.
    begin_us: u64,
    directory: Directory,
    /// By Client Identifier.
    waiting: BTreeMap<Box<str>, Waiting>,
    /// Clients of `waiting` for which nothing is left to wait.
    answered: Vec<Box<str>>,
    /// Clients of `waiting` whose filters all nodes have to know.
    announcing: Vec<Box<str>>,
    /// Sessions that move to other nodes, by Client Identifier.
    moves: BTreeMap<Box<str>, Move>,
    /// Those of them that are under way, and those that are not yet.
    under_way: Vec<Box<str>>,
    lined_up: VecDeque<Box<str>>,
    /// The order to empty this node.
    emptying: Emptying,
    /// Offers of sessions to other nodes so far.
    offered: u64,
    /// Nodes that are being told the claims, each with the place of the next session.
    joins: VecDeque<(CoreId, usize)>,
    /// Where the message that is being delivered was published.
    source: Source,
    /// Marks that have come, or were made here.
    marks: u64,
    charge: Charge,
}

impl Claims {
    pub(super) fn new(place: &Place) -> Self {
        Self {
            has_gateway: place.gateway().is_some(),
            begin_us: place.stamps_begin_us(),
            directory: Directory::new(),
            waiting: BTreeMap::new(),
            answered: Vec::new(),
            announcing: Vec::new(),
            moves: BTreeMap::new(),
            under_way: Vec::new(),
            lined_up: VecDeque::new(),
            emptying: Emptying::default(),
            offered: 0,
            joins: VecDeque::new(),
            source: Source::core(place.core()),
            marks: 0,
            charge: Charge::default(),
        }
    }

    /// Whether the session of a client is one for all nodes: each node has bridges of its own.
    fn covers(&self, client: &str) -> bool {
        self.has_gateway && !client.starts_with(SESSION_PREFIX)
    }

    /// A stamp for a claim after another one.
    fn next_stamp(&mut self, now: Now, after: u64) -> u64 {
        self.directory.next_stamp(self.begin_us + now.0, after)
    }

    /// Whether a node that joins can be told claims now.
    #[inline]
    pub(in crate::engine) fn has_joins(&self, mesh: &Mesh) -> bool {
        self.joins.iter().any(|&(node, _)| !mesh.is_loaded(node))
    }

    /// Whether nothing waits for an answer or a receipt.
    #[inline]
    pub(in crate::engine) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.moves.is_empty()
    }

    fn settle(&mut self, ledger: &Ledger) {
        self.charge.set(ledger, self.directory.bytes());
    }

    /// Fills in the numbers of this core.
    pub(in crate::engine) fn report(&self, metrics: &mut Metrics) {
        metrics.cluster_claims = self.directory.others() as u64;
    }
}

impl Engine {
    fn fingerprint(&self, client: &str) -> u64 {
        self.router.replica().fingerprint(client).0
    }

    /// Whether this node has the session of the client, or no node has: CONNECT can be answered. Otherwise the other nodes
    /// are asked, and the CONNECT is tried again when they have answered. An error if a node has it that has left: the client
    /// would lose what waits there if it began another session, and tries again.
    pub(in crate::engine) fn has_claim(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        grant: &Grant,
    ) -> Result<bool, Rejection> {
        let client = connect.client_identifier;
        // An assigned identifier is nobody's.
        if client.is_empty() || !self.claims.covers(client) {
            return Ok(true);
        }
        let fingerprint = self.fingerprint(client);
        if let Some(waiting) = self.claims.waiting.get_mut(client) {
            let before = waiting.connection.replace(id);
            let (is_answered, stamp) = (waiting.left == 0, waiting.stamp);
            let is_absent = waiting.is_absent && !waiting.has_session;
            if is_answered {
                self.claims.waiting.remove(client);
                match is_absent {
                    true => {
                        self.mesh.send_session_to_all(client, stamp, |_| SessionStep::Withdraw);
                    }
                    false => self.claims.directory.set_own_claim(fingerprint, stamp),
                }
                self.settle_claims();
            }
            if before != Some(id) {
                self.give_way(before, client);
            }
            return match is_answered && is_absent {
                true => Err(self.absent()),
                false => Ok(is_answered),
            };
        }
        let elsewhere = self.claims.directory.elsewhere(fingerprint);
        let members = self.mesh.member_bits();
        if !connect.clean_start && self.claims.directory.is_absent(fingerprint, self.now) {
            return Err(self.absent());
        }
        let is_kept = keeps_session(connect, &self.config.limits);
        let session = self.sessions.find(client).filter(|_| elsewhere.is_none());
        // A session that was not kept was claimed without a question: an earlier connection's claim may still be under way.
        let is_own =
            session.is_some_and(|session| !is_kept || self.sessions[session].expiry_interval_s > 0);
        // A node that has just joined may not know of a session that the client wants.
        let is_free = elsewhere.is_none() && connect.clean_start && !is_kept;
        if is_own || is_free || members == 0 {
            return Ok(true);
        }
        let stamp = self.claims.next_stamp(self.now, elsewhere.map_or(0, |(stamp, _)| stamp));
        let (ends, user) = (connect.clean_start, grant.user.clone());
        let waiting = Waiting {
            connection: Some(id),
            stamp,
            ends,
            is_offered: false,
            user,
            left: members,
            arrival: None,
            has_session: false,
            is_absent: false,
            held: self.sessions.find(client).map(|_| self.claimed(client, fingerprint)),
        };
        self.cancel_move(client);
        self.ask_for_session(None, client, &waiting);
        self.claims.waiting.insert(client.into(), waiting);
        self.metrics.cluster_asked += 1;
        Ok(false)
    }

    /// Asks a node, or all, for the session of a client.
    fn ask_for_session(&mut self, node: Option<CoreId>, client: &str, waiting: &Waiting) {
        let Waiting { stamp, ends, is_offered, ref user, .. } = *waiting;
        let step = |batch: &mut Batch| {
            let user = user.as_deref().map(|user| batch.push_text(user));
            SessionStep::Claim { asks: true, ends, refuses: false, is_offered, user }
        };
        match node {
            Some(node) => self.mesh.send_session(node, client, stamp, step),
            None => self.mesh.send_session_to_all(client, stamp, step),
        }
    }

    /// Tells all nodes that this one has the session of a client from now on.
    fn claim(&mut self, client: &str, after: u64, refuses: bool) {
        let stamp = self.claims.next_stamp(self.now, after);
        let fingerprint = self.fingerprint(client);
        self.set_claim(client, fingerprint, stamp, refuses);
    }

    /// Tells all nodes that this one has the session of a client, under this claim.
    fn set_claim(&mut self, client: &str, fingerprint: u64, stamp: u64, refuses: bool) {
        self.claims.directory.set_own_claim(fingerprint, stamp);
        self.settle_claims();
        if self.mesh.member_bits() != 0 {
            self.mesh.send_session_to_all(client, stamp, |_| SessionStep::Claim {
                asks: false,
                ends: true,
                refuses,
                is_offered: false,
                user: None,
            });
        }
    }

    /// A client has its session: the other nodes learn of it if they do not know.
    pub(in crate::engine) fn note_claim(&mut self, session: SessionId) {
        let client = &self.sessions[session].client_identifier;
        if !self.claims.covers(client.as_str()) {
            return;
        }
        let fingerprint = self.router.replica().fingerprint(client.as_str()).0;
        if self.claims.directory.own_stamp(fingerprint).is_none() {
            let client = client.as_str().to_owned();
            let elsewhere = self.claims.directory.elsewhere(fingerprint);
            self.claim(&client, elsewhere.map_or(0, |(stamp, _)| stamp), false);
        }
    }

    /// A session ends: its Client Identifier is nobody's, unless another node has claimed it.
    pub(in crate::engine) fn withdraw_claim(&mut self, session: SessionId) {
        let client = &self.sessions[session].client_identifier;
        if !self.claims.covers(client.as_str()) {
            return;
        }
        let client = client.as_str().to_owned();
        let fingerprint = self.fingerprint(&client);
        let is_elsewhere = self.claims.directory.elsewhere(fingerprint).is_some()
            || self.claims.waiting.contains_key(&*client);
        let stamp = match self.claims.directory.remove_own(fingerprint) {
            Some(stamp) => stamp,
            None if is_elsewhere => return,
            // Restored, and its client was never here.
            None => 0,
        };
        self.settle_claims();
        self.mesh.send_session_to_all(&client, stamp, |_| SessionStep::Withdraw);
    }

    /// The client of a waiting CONNECT is on a later connection, here or at another node.
    fn give_way(&mut self, id: Option<ConnectionId>, client: &str) {
        self.refuse_waiting(id, client, &Rejection::new(ReasonCode::ServerBusy, Cause::TakenOver));
    }

    /// A node that has left has the session of a client.
    fn absent(&mut self) -> Rejection {
        self.metrics.cluster_absent += 1;
        let rejection = Rejection::new(ReasonCode::ServerUnavailable, Cause::SessionAbsent);
        rejection.with_detail("the node of the cluster that has it is away")
    }

    fn refuse_waiting(&mut self, id: Option<ConnectionId>, client: &str, rejection: &Rejection) {
        if let Some(id) = id.filter(|&id| self.connections.contains(id)) {
            self.refuse(id, Claimed { client: Some(client), user: None }, rejection);
        }
    }

    /// A node has joined the cluster, or has left it.
    pub(in crate::engine) fn note_node_of_claims(
        &mut self,
        node: CoreId,
        is_member: bool,
        own: u16,
    ) {
        self.claims.directory.set_own(own);
        let bit = self.mesh.member_bit(node);
        let (number, wait_s) = (self.mesh.node_number(node), self.config.absent_session_wait_s);
        match is_member || wait_s == 0 {
            true => self.claims.directory.forget(number),
            false => {
                let until = self.now.after_s(wait_s.into());
                self.claims.directory.set_absent(number, until);
                self.timers.arm(until, Timer::AbsentNodes);
            }
        }
        self.settle_claims();
        self.claims.joins.retain(|(of, _)| *of != node);
        if is_member {
            self.claims.joins.push_back((node, 0));
        }
        let clients: Vec<Box<str>> = self.claims.waiting.keys().cloned().collect();
        for client in clients {
            match is_member {
                true => {
                    let Some(mut waiting) = self.claims.waiting.remove(&client) else { continue };
                    // Also if all others have answered: the node has to know the claim before CONNACK.
                    waiting.left |= bit;
                    self.ask_for_session(Some(node), &client, &waiting);
                    self.claims.waiting.insert(client, waiting);
                }
                false => self.end_wait(node, &client),
            }
        }
        if !is_member {
            self.claims.emptying.forget_node(node);
            self.cancel_moves_to(node);
            self.forget_marks_of(node);
        }
    }

    /// Tells a node that joins some claims; false when there is none, or no budget.
    pub(in crate::engine) fn continue_telling_claims(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let is_free = |&(node, _): &(CoreId, usize)| !self.mesh.is_loaded(node);
        let place = self.claims.joins.iter().position(is_free);
        let Some((node, from)) = place.and_then(|place| self.claims.joins.remove(place)) else {
            return false;
        };
        let next = self.tell_claims(node, from);
        if next < self.sessions.end() {
            self.claims.joins.push_back((node, next));
        }
        true
    }

    /// Tells a node the claims to some sessions, from a place on; the place of the next one.
    fn tell_claims(&mut self, node: CoreId, from: usize) -> usize {
        let to = self.sessions.end().min(from + CLAIMS_TOLD);
        self.work.spend(to - from);
        for id in (from..to).map(SessionId::new) {
            let Some(session) = self.sessions.get(id).filter(|session| !session.is_over()) else {
                continue;
            };
            let client = session.client_identifier.as_str();
            let fingerprint = self.router.replica().fingerprint(client).0;
            if !self.claims.covers(client)
                || self.claims.waiting.contains_key(client)
                || self.claims.directory.elsewhere(fingerprint).is_some()
            {
                continue;
            }
            let stamp = self.claims.directory.own_stamp(fingerprint).unwrap_or(0);
            self.mesh.send_session(node, client, stamp, |_| SessionStep::Claim {
                asks: false,
                ends: true,
                refuses: false,
                is_offered: false,
                user: None,
            });
        }
        to
    }

    /// A node does not answer any more, as it has left.
    fn end_wait(&mut self, node: CoreId, client: &str) {
        let Some(waiting) = self.claims.waiting.get_mut(client) else { return };
        if waiting.arrival.as_ref().is_some_and(|arrival| arrival.from() == node) {
            // The rest of it is not coming.
            waiting.arrival = None;
            if let Some(session) = self.sessions.find(client) {
                self.end_moved_session(session);
            }
        }
        self.note_answer(node, client);
        self.continue_arrivals();
    }

    /// A node has answered.
    fn note_answer(&mut self, node: CoreId, client: &str) {
        let bit = self.mesh.member_bit(node);
        let Some(waiting) = self.claims.waiting.get_mut(client) else { return };
        let before = waiting.left;
        waiting.left &= !bit;
        if before != 0 && waiting.left == 0 {
            let connection = waiting.connection.filter(|&id| self.connections.contains(id));
            if let Some(connection) = connection {
                self.connections.mark_ready(connection);
            }
            self.claims.answered.push(client.into());
            if connection.is_none() {
                self.sweep_answered();
            }
        }
    }

    /// Gives up claims whose clients did not wait for the answers. Called when a connection without a session has ended.
    pub(in crate::engine) fn sweep_answered(&mut self) {
        if self.claims.answered.is_empty() {
            return;
        }
        let mut answered = std::mem::take(&mut self.claims.answered);
        answered.retain(|client| {
            let Some(waiting) = self.claims.waiting.get(client) else { return false };
            let connection = waiting.connection;
            if waiting.left > 0 || connection.is_some_and(|id| self.connections.contains(id)) {
                return waiting.left == 0;
            }
            let stamp = waiting.stamp;
            self.claims.waiting.remove(client);
            let fingerprint = self.fingerprint(client);
            match self.sessions.find(client) {
                Some(_) => self.claims.directory.set_own_claim(fingerprint, stamp),
                None => self.mesh.send_session_to_all(client, stamp, |_| SessionStep::Withdraw),
            }
            false
        });
        self.claims.answered = answered;
        self.settle_claims();
    }

    /// A node that has left may have been away for too long: clients begin new sessions in place of those that it has.
    pub(in crate::engine) fn give_up_absent_nodes(&mut self) {
        self.claims.directory.give_up_absent(self.now);
        self.settle_claims();
    }

    /// Counts the memory of the claims.
    fn settle_claims(&mut self) {
        self.claims.settle(self.memory.ledger());
    }

    /// Goes on with what waited for receipts of other nodes.
    pub(in crate::engine) fn continue_moves(&mut self) {
        if self.claims.is_quiet() {
            return;
        }
        self.sweep_answered();
        self.continue_arrivals();
        self.continue_departures();
    }
}
