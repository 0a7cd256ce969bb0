//! Bridges, as the engine serves them: clients whose far end is another broker
//! ([`Link`](crate::transport::bridge::Link)). What differs from other clients is here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Peer, SessionId, exchange};
use crate::base::metrics::Drop as DropCause;
use crate::config::bridge::BridgeQueue;
use crate::control::bridge::{
    BridgeDue, BridgeEnd, BridgeOrder, BridgeQueues, BridgeTick, KeptBridge, LinkOrder, QueueSize,
};
use crate::engine::ages::Ages;
use crate::engine::cause::Cause;
use crate::engine::connections::connection::{Connection, Phase};
use crate::engine::connections::ending::Ending;
use crate::engine::listeners::NO_LISTENER;
use crate::engine::routing::congestion::resume_waiting;
use crate::engine::timers::Timer;
use crate::engine::{Authentication, Engine, Refused};
use crate::transport::Transport;
use crate::transport::bridge::mapping::InMap;
use crate::transport::bridge::{FarEnd, Link, SESSION_PREFIX, part_of};
use crate::wire::ReasonCode;

/// Client Identifiers of the sessions of bridges that this core has had: as many as there are names in the store and in
/// the configurations since the start.
#[derive(Debug, Default)]
pub(in crate::engine) struct BridgeSessions {
    by_identifier: BTreeMap<Box<str>, Ages>,
    /// A timer is armed for the next look at their queues.
    is_looked_at: bool,
}

/// How often it is looked at the queues of bridges.
const LOOK: Duration = Duration::from_secs(1);

impl Engine {
    /// A bridge has opened a connection to another broker. `bytes` are packets of the bridge's session, as if they had
    /// been received. The executor reads the socket under the returned handle.
    pub fn handle_dialed(
        &mut self,
        now: Now,
        transport: Box<Transport>,
        bytes: Vec<u8>,
    ) -> Result<ConnectionId, Refused> {
        self.set_now(now);
        let generation = self.connections.next_generation();
        let peer = Peer { address: None, listener: NO_LISTENER };
        let mut connection = Connection::new(generation, peer.address, peer.listener, now);
        // It counts for no address.
        connection.phase = Phase::Connecting { elsewhere: false, awaits_address: true };
        connection.transport = Some(transport);
        let limits = &self.config.limits;
        let id = self.connections.add(connection, limits, &mut self.timers, now);
        self.connections.mark_dirty(id);
        if !bytes.is_empty() {
            self.handle_mqtt(id, &bytes);
        }
        Ok(id)
    }

    /// Decides about CONNECT of a bridge: its configuration admits it. None for other clients.
    pub(in crate::engine) fn authenticate_bridge(
        &mut self,
        id: ConnectionId,
        client_identifier: &str,
    ) -> Option<Authentication> {
        let link = link_of(&self.connections[id])?;
        let terms = link.terms();
        let client_identifier = terms.known_as.as_deref().unwrap_or(client_identifier);
        Some(self.access.admit_bridge(exchange(id), client_identifier, terms.user.clone()))
    }

    /// The session of a bridge is open: ends subscriptions that the configuration does not name any more, here and at the
    /// far broker, and QoS 2 exchanges that the far broker has forgotten.
    pub(in crate::engine) fn begin_bridge(&mut self, id: ConnectionId, session: SessionId) {
        let Some(link) = link_of(&self.connections[id]) else { return };
        let (terms, is_far_session_new) = (link.terms().clone(), link.is_far_session_new());
        self.note_bridge(&terms.session);
        self.note_part(session);
        if is_far_session_new {
            self.forget_received(session);
            self.forget_far(session, |filter| !terms.r#in.has_filter(filter));
        }
        self.note_far(session, &terms.r#in);
        let held = self.sessions[session].subscriptions.clone();
        let mut groups_left = Vec::new();
        for filter in held {
            let text = self.router.index().text(filter);
            if !terms.out.local_filters().any(|(wanted, _)| wanted == text) {
                self.unsubscribe_from(session, &text, &mut groups_left);
            }
        }
        if let Some(outbound) = &mut self.sessions[session].outbound {
            outbound.begin_backfill();
        }
        let kept = self.sessions[session].far_subscriptions().to_vec();
        self.with_link(id, |link| link.give_up_others(&kept));
    }

    /// The session may be of one of several connections, which takes a part of all topics.
    fn note_part(&mut self, session: SessionId) {
        let state = &mut self.sessions[session];
        let part = part_of(state.client_identifier.as_str());
        if part.is_some() && state.extra.as_ref().and_then(|extra| extra.part) != part {
            state.extra.get_or_insert_default().part = part;
            self.flush_fan_out_batch();
            self.router.note_part();
        }
    }

    /// The bridge is about to subscribe to these filters at its far broker, if it is connected.
    fn note_far(&mut self, session: SessionId, wanted: &InMap) {
        let mut noted = self.sessions[session].far_subscriptions().to_vec();
        let count = noted.len();
        let known: BTreeSet<&str> = noted.iter().map(|of| &**of).collect();
        let new = wanted.remote_filters().map(|(filter, _)| filter);
        let new: Vec<Box<str>> = new.filter(|of| !known.contains(of)).map(Into::into).collect();
        noted.extend(new);
        if noted.len() == count {
            return;
        }
        for filter in &noted[count..] {
            self.durability.append_far_subscription(&self.sessions[session], filter, true);
        }
        self.sessions[session].extra.get_or_insert_default().far_subscriptions = noted.into();
    }

    /// The bridge has no subscriptions to these filters at its far broker any more.
    fn forget_far(&mut self, session: SessionId, is_over: impl Fn(&str) -> bool) {
        let noted = self.sessions[session].far_subscriptions().to_vec();
        let (over, left): (Vec<_>, Vec<_>) = noted.into_iter().partition(|of| is_over(of));
        if over.is_empty() {
            return;
        }
        for filter in &over {
            self.durability.append_far_subscription(&self.sessions[session], filter, false);
        }
        self.sessions[session].extra.get_or_insert_default().far_subscriptions = left.into();
    }

    /// The store has the session of a client, which may be that of a bridge.
    pub(in crate::engine) fn restore_bridge(
        &mut self,
        session: SessionId,
        far_subscriptions: BTreeSet<Box<str>>,
    ) {
        let state = &mut self.sessions[session];
        let Some(name) = state.client_identifier.as_str().strip_prefix(SESSION_PREFIX) else {
            return;
        };
        let identifier = format!("{SESSION_PREFIX}{name}");
        if !far_subscriptions.is_empty() {
            let extra = state.extra.get_or_insert_default();
            extra.far_subscriptions = far_subscriptions.into_iter().collect();
        }
        self.note_part(session);
        self.note_bridge(&identifier);
    }

    /// The sessions of bridges on this core, configured or not.
    pub(in crate::engine) fn kept_bridges(&mut self) -> Vec<KeptBridge> {
        self.work.spend(self.bridges.by_identifier.len());
        let kept = |identifier: &str| {
            let state = &self.sessions[self.sessions.find(identifier)?];
            let messages = state.outbound.as_ref().map_or(0, |of| of.queued() + of.inflight());
            Some(KeptBridge {
                name: identifier.strip_prefix(SESSION_PREFIX)?.into(),
                messages,
                far_subscriptions: state.far_subscriptions().to_vec(),
            })
        };
        self.bridges.by_identifier.keys().filter_map(|identifier| kept(identifier)).collect()
    }

    /// Changes a bridge whose session is at home on this core.
    pub(in crate::engine) fn take_bridge_order(&mut self, order: BridgeOrder) {
        let BridgeOrder { session: identifier, what, reply } = order;
        let session = self.sessions.find(&identifier);
        let is_done = session.is_some_and(|session| self.change_bridge(session, what));
        reply.send(is_done);
    }

    fn change_bridge(&mut self, session: SessionId, what: LinkOrder) -> bool {
        let connection = self.sessions[session].connection;
        match (what, connection) {
            (LinkOrder::Change(terms), Some(id)) => {
                self.note_far(session, &terms.r#in);
                self.with_link(id, |link| link.change(terms));
            }
            (LinkOrder::GiveUp, Some(id)) => self.with_link(id, Link::give_up),
            (LinkOrder::Unsubscribed(filters), connection) => {
                let link = connection.and_then(|id| link_of(&self.connections[id]));
                let is_wanted = |filter: &str| link.is_some_and(|link| link.wants(filter));
                let mut over: BTreeSet<_> = filters.iter().cloned().collect();
                over.retain(|filter| !is_wanted(filter));
                self.forget_far(session, |filter| over.contains(filter));
            }
            (LinkOrder::EndSession, connection) => {
                connection.into_iter().for_each(|id| self.end_bridge_connection(id));
                self.end_session(session);
            }
            (LinkOrder::Change(_) | LinkOrder::GiveUp, None) => return false,
        }
        true
    }

    fn end_bridge_connection(&mut self, id: ConnectionId) {
        let ending = Ending::Server(ReasonCode::AdministrativeAction, Cause::ByOperator);
        self.end_connection(id, ending);
    }

    /// Changes the link of a connection, which may have something to say then.
    fn with_link(&mut self, id: ConnectionId, change: impl FnOnce(&mut Link)) {
        self.connections.with_transport(id, |transport, _| {
            if let Some(far_end) = transport.bridge_mut() {
                change(far_end.link_mut());
            }
        });
        self.connections.mark_dirty(id);
        self.connections.mark_ready(id);
    }

    /// The far broker has no session from before: it uses Packet Identifiers anew that are between PUBREC and PUBREL
    /// here.
    fn forget_received(&mut self, session: SessionId) {
        let Some(inbound) = &self.sessions[session].inbound else { return };
        for identifier in inbound.identifiers() {
            let Some(inbound) = &mut self.sessions[session].inbound else { return };
            if inbound.release(identifier) {
                self.durability.append_completed(&self.sessions, session, identifier);
            }
        }
    }

    /// Does what is due on the connection of a bridge, if its session is at home on this core.
    pub(in crate::engine) fn tick_bridge(&mut self, tick: BridgeTick) {
        let BridgeTick { session, due, reply } = tick;
        if let BridgeDue::Queue(bounds) = due {
            let found = self.sessions.find(&session);
            reply.send(found.is_some_and(|id| self.sessions[id].connection.is_some()));
            found.into_iter().for_each(|session| self.bound_queue(session, bounds));
            return self.release_publishers();
        }
        let id = self.sessions.connection_of(&session);
        reply.send(id.is_some());
        let Some(id) = id else { return };
        let ticked = self.connections.with_transport(id, |transport, _| {
            let Some(far_end) = transport.bridge_mut() else { return Ok(()) };
            match due {
                BridgeDue::SignOfLife => far_end.link_mut().tick(),
                BridgeDue::Acknowledgements => far_end.link_mut().check_acknowledgements(),
                BridgeDue::Subscriptions => {
                    far_end.link_mut().subscribe_again();
                    Ok(())
                }
                BridgeDue::Queue(_) => Ok(()),
            }
        });
        match ticked {
            Some(Err(fault)) => self.end_for_fault(id, fault),
            _ => {
                self.connections.mark_dirty(id);
                self.connections.mark_ready(id);
            }
        }
    }

    /// Ends the connection of a bridge, if its session is at home on this core.
    pub(in crate::engine) fn end_bridge(&mut self, end: BridgeEnd) {
        let id = self.sessions.connection_of(&end.session);
        id.into_iter().for_each(|id| self.end_bridge_connection(id));
        end.reply.send(id.is_some());
    }

    /// Counts what waits in those sessions of bridges that are at home on this core.
    pub(in crate::engine) fn count_bridge_queues(&mut self, queues: BridgeQueues) {
        self.work.spend(queues.sessions.len());
        let mut of = |client_identifier: &str| {
            let session = self.sessions.find(client_identifier)?;
            let Some(outbound) = &self.sessions[session].outbound else {
                return Some(QueueSize::default());
            };
            let (messages, bytes) = (outbound.queued() as u64, outbound.queued_bytes());
            let (first, end) = outbound.queue_numbers();
            let ages = self.bridges.by_identifier.get_mut(client_identifier);
            let oldest_s = ages.map_or(0, |ages| ages.oldest_s(self.now, first, end));
            Some(QueueSize { messages, bytes, inflight: outbound.inflight() as u64, oldest_s })
        };
        let found = queues.sessions.iter().map(|session| of(session)).collect();
        queues.reply.send(found);
    }
}

impl Engine {
    /// A queue with bounds of its own has sent so many messages.
    pub(in crate::engine) fn note_pumped(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        messages: usize,
    ) {
        let Some(outbound) = &mut self.sessions[session].outbound else { return };
        if let Some(more) = outbound.note_backfilled(messages) {
            self.timers.arm(more, Timer::Backfill(id));
        }
        self.release_publishers();
    }

    /// More of the queue of a bridge may be sent.
    pub(in crate::engine) fn continue_backfill(&mut self, id: ConnectionId) {
        let Some(session) = self.connections.get(id).and_then(Connection::session) else { return };
        let Some(outbound) = &mut self.sessions[session].outbound else { return };
        outbound.note_backfill_timer();
        self.pump(id);
    }

    /// This core has the session of a bridge: it is looked at its queue from now on.
    fn note_bridge(&mut self, client_identifier: &str) {
        let BridgeSessions { by_identifier, is_looked_at } = &mut self.bridges;
        by_identifier.entry(client_identifier.into()).or_default();
        if !std::mem::replace(is_looked_at, true) {
            self.timers.arm(self.now.after(LOOK), Timer::Bridges);
        }
    }

    /// Looks at the queues of bridges: for how long their messages have waited, and whether they have room again.
    pub(in crate::engine) fn look_at_bridges(&mut self) {
        let Self { bridges, sessions, work, now, timers, .. } = self;
        work.spend(bridges.by_identifier.len());
        for (client_identifier, ages) in &mut bridges.by_identifier {
            let session = sessions.find(client_identifier);
            let outbound = session.and_then(|session| sessions[session].outbound.as_ref());
            let (first, end) = outbound.map_or((0, 0), |outbound| outbound.queue_numbers());
            ages.look(*now, first, end);
        }
        timers.arm(now.after(LOOK), Timer::Bridges);
        self.release_publishers();
    }

    /// Lets publishers go on that wait for room in queues that have some by now, or do not hold publishers any more.
    fn release_publishers(&mut self) {
        let (sessions, limits) = (&self.sessions, &self.config.queue_limits);
        let has_room = |session: SessionId| {
            let outbound = sessions.get(session).and_then(|of| of.outbound.as_ref());
            outbound.is_none_or(|outbound| !outbound.holds_publishers(limits))
        };
        let released = self.router.full_queues.release(has_room);
        resume_waiting(released, &mut self.connections, &mut self.mesh, self.now);
    }

    /// Sets the bounds of a queue, and drops what is too old for them.
    fn bound_queue(&mut self, session: SessionId, bounds: BridgeQueue) {
        self.sessions[session].set_own_bounds(bounds);
        let Some(outbound) = &mut self.sessions[session].outbound else { return };
        outbound.expire_old(self.now);
        let expired = outbound.take_swept().expired;
        self.count_drops(session, DropCause::Expired, expired);
        self.durability.append_done(&mut self.sessions, session);
        self.empty_queue_of_absent(session);
    }
}

fn link_of(connection: &Connection) -> Option<&Link> {
    connection.transport.as_ref()?.bridge().map(FarEnd::link)
}
