//! Sessions that move to this node.

use shards::{Subscription, TopicFilter};

use crate::base::ids::{CoreId, SessionId};
use crate::base::log_rate::{name, rated};
use crate::engine::Engine;
use crate::engine::claims::Waiting;
use crate::engine::claims::marks::Marks;
use crate::engine::claims::parts;
use crate::engine::durability::restore::stored_subscription;
use crate::engine::mesh::session_message::SessionStep;
use crate::message;
use crate::session::inbound::Inbound;
use crate::session::outbound::{Delivery, Identifiers, Outbound};
use crate::session::state::Will;
use crate::storage::commit::RecordRef;
use crate::storage::image;
use crate::wire::{PacketIdentifier, Qos};

/// A session that comes from another node.
#[derive(Debug)]
pub(super) struct Arrival {
    from: CoreId,
    /// The stamp under which that node had claimed it.
    claimed: u64,
    /// Receipts that say that all nodes and cores know its filters, and the nodes, a bit for each.
    pub(super) announced: Vec<(CoreId, u64)>,
    nodes: u64,
    /// The marks of all cores: none before the filters are known everywhere.
    pub(super) marks: Option<Marks>,
    /// The old node waits for the mark of this core.
    pub(super) is_flush_asked: bool,
    outbound: Option<Box<Outbound>>,
    inbound: Option<Box<Inbound>>,
}

impl Arrival {
    /// The node that the session comes from.
    pub fn from(&self) -> CoreId {
        self.from
    }
}

impl Engine {
    /// A node has answered a claim; if it has the session, with the stamp under which it had claimed that.
    pub(super) fn take_answer(
        &mut self,
        from: CoreId,
        client: &str,
        stamp: u64,
        claimed: Option<u64>,
    ) {
        let waiting = self.claims.waiting.get(client);
        if claimed.is_none() && waiting.is_some_and(|waiting| waiting.stamp < stamp) {
            let copy = waiting.and_then(Waiting::copy);
            self.abandon_waiting(client, false);
            if let Some(copy) = copy.filter(|_| self.sessions.find(client).is_some()) {
                // Whoever has made the later claim is told so when that comes.
                let fingerprint = self.fingerprint(client);
                let own = (copy, self.claims.directory.own());
                let elsewhere = self.claims.directory.elsewhere(fingerprint);
                if elsewhere.is_none_or(|of| of < own) {
                    self.claims.directory.set_own_claim(fingerprint, copy);
                }
            }
            return;
        }
        let Some(waiting) = waiting.filter(|waiting| waiting.stamp == stamp) else {
            // A later claim came in between. The node hears of it too, and gives the session there.
            return;
        };
        let Some(claimed) = claimed else { return self.end_wait(from, client) };
        // Of several the one that was claimed last is the session, and the others are what was left of it.
        let other = waiting.arrival.as_ref();
        let is_left = other.is_some_and(|of| of.marks.is_some() || of.claimed >= claimed)
            || waiting.copy().is_some_and(|copy| copy >= claimed);
        if is_left {
            self.refuse_session(from, client, stamp);
            return self.continue_arrivals();
        }
        if let Some(other) = other.map(Arrival::from) {
            self.claims.announcing.retain(|of| **of != *client);
            self.refuse_session(other, client, stamp);
        }
        if let Some(session) = self.sessions.find(client) {
            // A session that was not kept may have its connection still.
            self.end_connection_elsewhere(session, true);
        }
        if let Some(session) = self.sessions.find(client) {
            self.end_moved_session(session);
        }
        let arrival = Arrival {
            from,
            claimed,
            announced: Vec::new(),
            nodes: 0,
            marks: None,
            is_flush_asked: false,
            outbound: None,
            inbound: None,
        };
        if let Some(waiting) = self.claims.waiting.get_mut(client) {
            waiting.held = None;
            waiting.arrival = Some(arrival);
        }
        self.continue_arrivals();
    }

    /// A node's copy of a session is not the latest, and ends.
    fn refuse_session(&mut self, from: CoreId, client: &str, stamp: u64) {
        let refusal = SessionStep::Ask { wants: false, nodes: 0 };
        self.mesh.send_session(from, client, stamp, |_| refusal);
        self.note_answer(from, client);
    }

    /// The session that comes from a node, for a claim with this stamp.
    pub(super) fn arrival(
        &mut self,
        from: CoreId,
        client: &str,
        stamp: u64,
    ) -> Option<&mut Arrival> {
        let waiting = self.claims.waiting.get_mut(client)?;
        let arrival = waiting.arrival.as_mut().filter(|arrival| arrival.from == from)?;
        (waiting.stamp == stamp).then_some(arrival)
    }

    /// Subscribes for a session that comes from another node.
    pub(super) fn take_filters(
        &mut self,
        from: CoreId,
        client: &str,
        stamp: u64,
        is_last: bool,
        records: &[u8],
    ) {
        if self.arrival(from, client, stamp).is_none() {
            return;
        }
        let Ok(part) = parts::read(records) else { return self.note_unreadable(from, client) };
        let session = match self.sessions.find(client) {
            Some(session) => session,
            None => {
                let generation = self.connections.next_generation();
                self.metrics.clients_disconnected += 1;
                self.sessions.create(client, generation)
            }
        };
        self.sessions[session].set_moving(true);
        self.sessions[session].expiry_interval_s = part.expiry_interval_s;
        if let Some(owner) = &part.owner {
            self.sessions.make_owner(session, Some(owner));
            self.sessions.count_restored(session, &self.config.protection);
        }
        self.work.spend(1 + part.subscriptions.len());
        for (text, of) in &part.subscriptions {
            self.subscribe_again(session, text, stored_subscription(session, of));
        }
        if is_last {
            self.router.announce_groups(&mut self.mesh);
            let (barriers, nodes) = (self.mesh.barriers(), self.mesh.member_bits());
            if let Some(arrival) = self.arrival(from, client, stamp) {
                (arrival.announced, arrival.nodes) = (barriers, nodes);
                self.claims.announcing.push(client.into());
            }
            self.continue_arrivals();
        }
    }

    /// Asks for the state of sessions whose filters all nodes know, once no other node can have a later copy.
    pub(super) fn continue_arrivals(&mut self) {
        let Self { claims, mesh, .. } = self;
        claims.announcing.retain(|client| {
            let Some(waiting) = claims.waiting.get_mut(client) else { return false };
            let (stamp, left, Some(arrival)) = (waiting.stamp, waiting.left, &mut waiting.arrival)
            else {
                return false;
            };
            if left & !mesh.member_bit(arrival.from) != 0 || !mesh.are_receipted(&arrival.announced)
            {
                return true;
            }
            // Nodes that have joined meanwhile may know one of the two nodes only.
            let nodes = arrival.nodes & mesh.member_bits();
            arrival.marks = Some(Marks::new(mesh.nodes_of(nodes).chain(mesh.others()).collect()));
            let wants = SessionStep::Ask { wants: true, nodes };
            mesh.send_session(arrival.from, client, stamp, |_| wants);
            false
        });
    }

    /// Subscribes a session that is not connected, and tells the other cores and nodes.
    pub(super) fn subscribe_again(
        &mut self,
        session: SessionId,
        text: &str,
        subscription: Subscription,
    ) {
        let Ok(filter) = TopicFilter::parse(text, usize::MAX) else { return };
        let subscribed = self.add_subscription(session, &filter, subscription);
        match filter.share_name() {
            Some(_) => self.router.set_connected(session, &[subscribed.filter], false),
            None if subscribed.first => self.mesh.announce(&filter, self.router.replica()),
            None => {}
        }
    }

    /// Takes a part of the state of a session that comes from another node.
    pub(super) fn take_state(
        &mut self,
        from: CoreId,
        client: &str,
        stamp: u64,
        is_last: bool,
        records: &[u8],
    ) {
        let Some(session) = self.sessions.find(client) else { return };
        let Some(arrival) = self.arrival(from, client, stamp) else { return };
        let (mut outbound, mut inbound) = (arrival.outbound.take(), arrival.inbound.take());
        let Ok(mut part) = parts::read(records) else { return self.note_unreadable(from, client) };
        for &identifier in &part.received {
            if let Some(identifier) = PacketIdentifier::new(identifier) {
                inbound.get_or_insert_default().receive(identifier);
            }
        }
        let (inflight, queue) =
            (std::mem::take(&mut part.inflight), std::mem::take(&mut part.queue));
        self.work.spend(1 + inflight.len() + queue.len());
        let outbound_of = |engine: &Self| Box::new(Outbound::new(engine.memory.ledger()));
        for of in &inflight {
            let Some(identifier) = PacketIdentifier::new(of.packet_identifier) else { continue };
            let outbound = outbound.get_or_insert_with(|| outbound_of(self));
            match (&of.content, self.arrived_delivery(of)) {
                (None, _) => outbound.restore_inflight(identifier, Err(RecordRef::default())),
                (Some(_), Some(delivery)) => outbound.restore_inflight(identifier, Ok(delivery)),
                // It has expired on its way.
                (Some(_), None) => {}
            }
        }
        for of in &queue {
            if let Some(delivery) = self.arrived_delivery(of) {
                outbound.get_or_insert_with(|| outbound_of(self)).restore_queued(delivery);
            }
        }
        match (is_last, self.arrival(from, client, stamp)) {
            (true, _) => {
                if let Some(waiting) = self.claims.waiting.get_mut(client) {
                    // From here on, it is this node that has it.
                    (waiting.arrival, waiting.has_session) = (None, true);
                }
                self.install(session, outbound, inbound, &mut part);
                let taken = SessionStep::Ask { wants: false, nodes: 0 };
                self.mesh.send_session(from, client, stamp, |_| taken);
                self.note_answer(from, client);
            }
            (false, Some(arrival)) => (arrival.outbound, arrival.inbound) = (outbound, inbound),
            (false, None) => {}
        }
    }

    /// A message of a session that comes from another node, unless it has expired.
    fn arrived_delivery(&self, of: &image::Delivery) -> Option<Delivery> {
        let content = of.content.as_ref()?.get()?;
        shards::check_topic_name(&content.topic, usize::MAX).ok()?;
        let expires = content.expires_us.map(|at| parts::deadline(at, self.now));
        if expires.is_some_and(|at| at.is_due(self.now)) {
            return None;
        }
        let message = message::Content {
            topic: &content.topic,
            payload: &content.payload,
            passed_on: &content.passed_on,
            expires,
            qos: Qos::try_from(content.qos).unwrap_or(Qos::AtLeastOnce),
        };
        Some(Delivery {
            message: message.to_message(self.memory.ledger()),
            qos: Qos::try_from(of.qos).unwrap_or(Qos::AtLeastOnce),
            retain: of.retain,
            subscription_identifiers: Identifiers::new(&of.identifiers),
            shared: of.shared.as_deref().and_then(|text| self.router.index().find(text)),
            record: RecordRef::default(),
        })
    }

    /// A session has arrived: what has come for it here meanwhile follows what it had, and the store gets it all.
    fn install(
        &mut self,
        session: SessionId,
        outbound: Option<Box<Outbound>>,
        inbound: Option<Box<Inbound>>,
        part: &mut image::Session,
    ) {
        self.metrics.sessions_moved_in += 1;
        let mut outbound =
            outbound.unwrap_or_else(|| Box::new(Outbound::new(self.memory.ledger())));
        if let Some(membership) = self.sessions[session].membership() {
            outbound.assign_to_user(membership);
        }
        if let Some(own) = self.sessions[session].outbound.take() {
            self.work.spend(own.queued());
            own.list_queued(0).for_each(|(_, delivery)| outbound.restore_queued(delivery.clone()));
        }
        outbound.end_restore(self.config.queue_limits.policy);
        let state = &mut self.sessions[session];
        state.set_moving(false);
        state.outbound = (!outbound.is_idle()).then_some(outbound);
        if let Some(inbound) = inbound {
            let inbound = state.inbound.insert(inbound);
            inbound.settle(self.memory.ledger());
        }
        if self.access.has_rules() {
            // The rules of this node apply.
            state.note_new_rules();
        }
        if part.expiry_interval_s < u32::MAX {
            let since = part.away_since_us.unwrap_or(0);
            let interval_us = u64::from(part.expiry_interval_s) * 1_000_000;
            let expires = parts::deadline(since.saturating_add(interval_us), self.now);
            state.expires = Some(expires);
            self.timers.arm_session(self.now, session, &mut self.sessions, expires);
        }
        let (round, now) = (self.connections.round(), self.now);
        let Self { durability, sessions, router, .. } = self;
        durability.append_moved(&mut sessions[session], session, router.index(), round, now);
        self.install_will(session, part.will.take());
    }

    /// The client of a session that has arrived is away, and its Will is due later.
    fn install_will(&mut self, session: SessionId, will: Option<image::Will>) {
        let Some(of) = will else { return };
        let due = parts::deadline(of.due_us, self.now);
        let will = Will::restored(of.content, of.retain, of.message_expiry_interval_s);
        if let Some(will) = will.map(|will| will.came_through(of.listener, &self.listeners)) {
            let will = Will { due: Some(due), ..will };
            self.sessions[session].set_will(will, self.memory.ledger());
            self.note_delayed_will(session);
        }
    }

    /// A part of a session cannot be read: the node that sent it keeps the session, and its client begins anew here.
    fn note_unreadable(&mut self, from: CoreId, client: &str) {
        let node = self.mesh.node_number(from);
        rated!(
            error,
            self.now,
            node,
            client = name(client),
            "cluster: cannot read a session that moves here from another node; upgrade the older of the two"
        );
        self.end_wait(from, client);
    }
}
