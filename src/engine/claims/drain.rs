//! A node that is emptied: its clients are disconnected at a bounded rate, and sessions without a client are offered to other
//! nodes.
//!
//! ```text
//! drained node                 chosen node
//! offer ────────────────────►  claims the session, as if its client had connected there
//!       ◄──────────────────── claim ─ ─ ─► to all nodes
//! …                            the move of a session whose client has connected elsewhere
//! ```
//!
//! The claim has a stamp that follows soon after the one under which the drained node has the session, and that no other
//! offer has, because marks are told apart by stamps. The stamp of a CONNECT is the time of day, so a client that connects
//! anywhere meanwhile is later and wins. The drained node remembers what it has offered
//! until the session is gone, the other node declines or leaves, or [`OFFER_S`] have passed; the next walk over the table of
//! sessions finds what is left, and offers it to the next node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shards::NODES_MAX;

use crate::base::clock::Now;
use crate::base::ids::{CoreId, SessionId};
use crate::control::drain::{DrainOrder, DrainProgress, Purpose};
use crate::engine::Engine;
use crate::engine::cause::Cause;
use crate::engine::claims::Waiting;
use crate::engine::claims::directory::stamp_of;
use crate::engine::connections::ending::Ending;
use crate::engine::mesh::session_message::SessionStep;
use crate::engine::timers::Timer;
use crate::wire::ReasonCode;

/// Time between two parts of a walk, in microseconds.
const TICK_US: u64 = 50_000;

/// Places of the table of sessions that are looked at in a part.
const LOOKED_AT: usize = 8_192;

/// Sessions that a core has offered at a time.
const OFFERS_MAX: usize = 256;

/// Claims that wait on a core that is offered another session, at most.
const WAITING_MAX: usize = 4_096;

/// Seconds after which an offer that came to nothing is forgotten.
const OFFER_S: u64 = 10;

/// How far an order has been executed.
#[derive(Debug, Default)]
pub(super) struct Emptying {
    /// The number of the order.
    order: u64,
    /// The next place of the walk, and how many walks have ended.
    place: usize,
    walks: u64,
    /// Clients and sessions without one that this walk has seen so far, and those that the last one saw.
    seen: (u64, u64),
    last: (u64, u64),
    /// Offered sessions by Client Identifier: to whom, and when.
    offers: HashMap<Box<str>, (CoreId, Now)>,
    /// This walk has seen a client that can be disconnected once the rate permits, and the last one did not.
    has_more: bool,
    is_done: bool,
    /// Clients that have been disconnected.
    disconnected: u64,
    /// Microseconds that have not been turned into disconnected clients, by the rate.
    allowance_us: u64,
    ticked: Now,
    is_armed: bool,
}

impl Emptying {
    /// An offer has come to nothing, or its session has ended.
    pub fn forget(&mut self, client: &str) {
        self.offers.remove(client);
    }

    /// A node has left.
    pub fn forget_node(&mut self, node: CoreId) {
        self.offers.retain(|_, (to, _)| *to != node);
    }

    fn begin(&mut self, order: u64, now: Now) {
        let is_armed = self.is_armed;
        *self = Self { order, ticked: now, is_armed, ..Self::default() };
    }
}

impl Engine {
    /// Executes the order of the moment for a while.
    pub(in crate::engine) fn continue_draining(&mut self) {
        let Some(order) = self.drain.order().cloned() else {
            self.claims.emptying.begin(0, self.now);
            return;
        };
        if self.claims.emptying.order != order.number {
            self.claims.emptying.begin(order.number, self.now);
        }
        if !self.claims.emptying.is_armed && self.claims.has_gateway {
            self.claims.emptying.is_armed = true;
            self.timers.arm(self.now.after(Duration::from_micros(TICK_US)), Timer::Drain);
        }
    }

    /// The timer of the drain has fired.
    pub(in crate::engine) fn handle_drain_timer(&mut self) {
        self.claims.emptying.is_armed = false;
        let Some(order) = self.drain.order().cloned() else { return };
        let Self { claims, sessions, now, .. } = self;
        let emptying = &mut claims.emptying;
        let (passed_us, moves) = (now.0 - emptying.ticked.0, &claims.moves);
        emptying.ticked = *now;
        // At most what comes together in a second: a core that was busy does not disconnect all at once.
        emptying.allowance_us = (emptying.allowance_us + passed_us).min(1_000_000);
        emptying.offers.retain(|client, (_, since)| {
            let is_open = moves.contains_key(client) || !since.after_s(OFFER_S).is_due(*now);
            is_open && sessions.find(client).is_some()
        });
        self.walk(&order);
        self.continue_draining();
    }

    /// Looks at the next part of the sessions.
    fn walk(&mut self, order: &Arc<DrainOrder>) {
        let from = self.claims.emptying.place;
        let to = self.sessions.end().min(from + LOOKED_AT);
        let mut acted = 0;
        for id in (from..to).map(SessionId::new) {
            if self.sessions.get(id).is_some_and(|session| !session.is_over()) {
                acted += usize::from(self.send_elsewhere(id, order));
            }
        }
        self.work.spend((to - from) / 8 + acted);
        let emptying = &mut self.claims.emptying;
        emptying.place = to;
        if to == self.sessions.end() {
            emptying.place = 0;
            emptying.walks += 1;
            emptying.last = std::mem::take(&mut emptying.seen);
            emptying.is_done = !std::mem::take(&mut emptying.has_more);
        }
    }

    /// Disconnects the client of a session, or offers the session to another node, if it is time to; whether anything
    /// was done.
    fn send_elsewhere(&mut self, id: SessionId, order: &Arc<DrainOrder>) -> bool {
        let session = &self.sessions[id];
        let client = session.client_identifier.as_str();
        if !self.claims.covers(client) {
            return false;
        }
        match session.connection {
            Some(_) => {
                self.claims.emptying.seen.0 += 1;
                self.disconnect_for(id, order)
            }
            None if order.purpose == Purpose::Drain => {
                self.claims.emptying.seen.1 += 1;
                let client: Box<str> = client.into();
                self.offer(id, client, order)
            }
            None => false,
        }
    }

    fn disconnect_for(&mut self, id: SessionId, order: &DrainOrder) -> bool {
        let (session, emptying) = (&self.sessions[id], &mut self.claims.emptying);
        let Some(cost_us) = 1_000_000_u64.checked_div(order.rate.into()) else { return false };
        let is_enough = match order.purpose {
            Purpose::Drain => false,
            Purpose::Rebalance { clients } => {
                // Its Will would be published, or its session end, for no other reason.
                let will = session.will.as_ref();
                emptying.disconnected >= clients
                    || will.is_some_and(|will| session.delay_of(will) == 0)
            }
        };
        let Some(connection) = session.connection.filter(|_| !is_enough) else { return false };
        emptying.has_more = true;
        if emptying.allowance_us < cost_us {
            return false;
        }
        emptying.allowance_us -= cost_us;
        emptying.disconnected += 1;
        emptying.seen.0 -= 1;
        self.metrics.clients_sent_elsewhere += 1;
        let ending = match order.purpose {
            Purpose::Drain => Ending::Drained,
            Purpose::Rebalance { .. } => {
                Ending::Server(ReasonCode::UseAnotherServer, Cause::Rebalanced)
            }
        };
        self.end_connection(connection, ending);
        if self.sessions.get(id).is_some_and(|session| !session.is_over()) {
            self.claims.emptying.seen.1 += 1;
        }
        true
    }

    /// Offers a session without a client to a node.
    fn offer(&mut self, id: SessionId, client: Box<str>, order: &DrainOrder) -> bool {
        let claims = &self.claims;
        if claims.emptying.offers.len() >= OFFERS_MAX
            || claims.emptying.offers.contains_key(&client)
            || claims.moves.contains_key(&client)
            || claims.waiting.contains_key(&client)
        {
            return false;
        }
        let cores = self.mesh.cores();
        let targets = order.targets.iter().filter(|target| target.takes_sessions);
        let targets = targets.map(|target| CoreId(cores + target.node));
        let targets: Vec<CoreId> = targets.filter(|&node| self.mesh.is_member(node)).collect();
        if targets.is_empty() {
            return false;
        }
        let (fingerprint, walks) = (self.fingerprint(&client), self.claims.emptying.walks);
        let place = fingerprint.wrapping_add(walks) % targets.len() as u64;
        let to = targets[place as usize];
        // A session that was restored has none.
        let claimed = self.claims.directory.own_stamp(fingerprint);
        self.claims.offered += 1;
        let after = claimed.unwrap_or(self.claims.begin_us) + 1;
        let after = after + self.claims.offered * u64::from(NODES_MAX);
        let stamp = stamp_of(self.mesh.node_number(to), after);
        self.delay_left_will(id);
        self.claims.emptying.offers.insert(client.clone(), (to, self.now));
        let owner = self.sessions[id].owner();
        self.mesh.send_session(to, &client, stamp, |batch| SessionStep::Offer {
            user: owner.map(|owner| batch.push_text(owner)),
        });
        true
    }

    /// Another node wants to be rid of a session: claims it, unless this node has one, or no room.
    pub(super) fn take_offer(
        &mut self,
        from: CoreId,
        client: &str,
        stamp: u64,
        user: Option<&str>,
    ) {
        let fingerprint = self.fingerprint(client);
        let own = (stamp, self.claims.directory.own());
        let is_later = self.claims.directory.elsewhere(fingerprint).is_some_and(|of| of > own);
        let has_room = self.claims.waiting.len() < WAITING_MAX
            && !self.memory.is_full()
            && !self.durability.is_far_behind()
            && self.sessions.everywhere() < self.config.limits.sessions_max as usize;
        let is_known =
            self.sessions.find(client).is_some() || self.claims.waiting.contains_key(client);
        if is_later || is_known || !has_room || self.drain.refuses_clients() {
            return self.mesh.send_session(from, client, stamp, |_| SessionStep::Decline);
        }
        let waiting = Waiting {
            connection: None,
            stamp,
            ends: false,
            is_offered: true,
            user: user.map(Into::into),
            left: self.mesh.member_bits(),
            arrival: None,
            has_session: false,
            is_absent: false,
            held: None,
        };
        self.ask_for_session(None, client, &waiting);
        self.claims.waiting.insert(client.into(), waiting);
    }

    /// How far this core has come.
    pub(in crate::engine) fn drain_progress(&self) -> DrainProgress {
        let emptying = &self.claims.emptying;
        let moved = self.metrics.sessions_moved_out;
        let (clients, sessions) = match emptying.walks {
            0 => (self.metrics.clients_connected, self.metrics.clients_disconnected),
            _ => emptying.last,
        };
        let under_way = emptying.offers.len().max(self.claims.moves.len()) as u64;
        let disconnected = emptying.disconnected;
        let progress = DrainProgress {
            clients,
            sessions,
            under_way,
            disconnected,
            moved,
            // The first walk may have begun in the middle of a change.
            is_counted: emptying.walks > 0 && self.drain.order().is_some(),
        };
        match self.drain.order().map(|order| order.purpose) {
            Some(Purpose::Rebalance { clients }) => {
                let left = if emptying.is_done { 0 } else { clients.saturating_sub(disconnected) };
                DrainProgress { clients: left, sessions: 0, ..progress }
            }
            _ => progress,
        }
    }
}
