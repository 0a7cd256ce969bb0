//! CONNECT to CONNACK: checks, authentication, take-over or resumption of the session.

use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::base::log_rate::name;
use crate::config::{Limits, Redirect};
use crate::engine::access::Grant;
use crate::engine::connections::connection::{Deferred, Hold, Phase};
use crate::engine::connections::stream_end::Comes;
use crate::engine::packets::authenticate::{
    EndsForeign, credentials, enter_user, note_foreign_end,
};
use crate::engine::packets::disconnect::Ending;
use crate::engine::{Config, Engine};
use crate::resources::users::Membership;
use crate::session::state::{DeliveryClass, Will};
use crate::session::topic_alias::OutgoingAliases;
use crate::wire::violation::Violation;
use crate::wire::{self, Connect, Packet, ReasonCode, Version};

/// Steps to decode a CONNECT and to admit its client, besides the state of its session.
fn connect_steps(frame: &[u8]) -> usize {
    16 + frame.len() / 64
}

/// A CONNECT that is answered with an error.
pub(in crate::engine) struct Refusal(pub ReasonCode);

/// The claim of a client to a session, as granted at CONNECT.
struct Claim {
    /// The session of the Client Identifier is another user's, and ends.
    ends_foreign: bool,
    /// Counts the session for its user, where that is bounded.
    membership: Option<Membership>,
}

/// The session that a client is given.
struct Opened {
    session: SessionId,
    session_present: bool,
    /// The session was nobody's before, or another user's.
    changes_hands: bool,
    /// The store is sent something that is new of the session.
    is_logged: bool,
}

/// Values requested by CONNECT, within the limits of the server.
struct Agreed {
    keep_alive_s: u16,
    aliases_max: u16,
    window: u16,
    expiry_interval_s: u32,
    class: DeliveryClass,
}

impl Agreed {
    fn new(connect: &Connect<'_>, limits: &Limits) -> Self {
        let properties = &connect.properties;
        // A client before 5.0 cannot be sent a Server Keep Alive.
        let keep_alive_max_s = match connect.version {
            Version::V5 => limits.keep_alive_max_s,
            Version::V31 | Version::V311 => limits.keep_alive_v3_max_s,
        };
        let keep_alive_s = match (connect.keep_alive_s, keep_alive_max_s) {
            (asked, 0) => asked,
            (0, max) => max,
            (asked, max) => asked.min(max),
        };
        let aliases_max = properties.topic_alias_maximum.min(limits.topic_alias_outgoing_max);
        let expiry_interval_s = match connect.version {
            Version::V5 => properties.session_expiry_interval.unwrap_or(0),
            _ if connect.clean_start => 0,
            _ => u32::MAX,
        };
        let class = match connect.version {
            Version::V5 if aliases_max > 0 => DeliveryClass::V5Alias,
            Version::V5 => DeliveryClass::V5,
            _ => DeliveryClass::V3,
        };
        Self {
            keep_alive_s,
            aliases_max,
            window: properties.receive_maximum.unwrap_or(u16::MAX).min(limits.inflight_max),
            expiry_interval_s: expiry_interval_s.min(limits.session_expiry_max_s),
            class,
        }
    }
}

/// Checks a Will against what the server accepts.
fn check_will(will: &wire::Will<'_>, config: &Config) -> Result<(), Refusal> {
    if u8::from(will.qos) > config.mqtt.maximum_qos {
        return Err(Refusal(ReasonCode::QosNotSupported)); // [MQTT-3.2.2-12]
    }
    if will.retain && !config.mqtt.retain_available {
        return Err(Refusal(ReasonCode::RetainNotSupported)); // [MQTT-3.2.2-13]
    }
    let limits = &config.limits;
    let is_too_long = will.topic.len() > usize::from(limits.topic_bytes_max);
    let levels_max = limits.topic_levels_max as usize;
    if is_too_long || shards::check_topic_name(will.topic, levels_max).is_err() {
        return Err(Refusal(ReasonCode::TopicNameInvalid));
    }
    if crate::engine::sys_topics::is_ours(will.topic) {
        return Err(Refusal(ReasonCode::NotAuthorized));
    }
    Ok(())
}

impl Engine {
    /// Handles the first packet of a connection, which must be CONNECT [MQTT-3.1.0-1].
    pub(in crate::engine) fn handle_first_packet(&mut self, id: ConnectionId, frame: &[u8]) {
        self.work.spend(connect_steps(frame));
        let connect = match wire::decode(frame, Version::V5) {
            Ok(Packet::Connect(connect)) => connect,
            // A peer of another protocol gets no answer.
            Ok(_) => return self.end_connection(id, Ending::Silent),
            Err(violation) => return self.refuse_malformed(id, frame, violation),
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.refusal.is_none() && !connect.client_identifier.is_empty() {
            let home = self.home(connect.client_identifier);
            if home != self.core() {
                return self.send_home(id, home, frame);
            }
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.version = connect.version;
        connection.packet_bytes_max = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        if let Err(Refusal(reason)) = self.check(id, &connect) {
            return self.refuse(id, reason);
        }
        let authentication = {
            let replaces = self.sessions.connection_of(connect.client_identifier).map(exchange);
            let who = credentials(&self.connections[id], &connect, replaces);
            self.access.authenticate(self.now, exchange(id), &who)
        };
        self.continue_authentication(id, authentication, frame);
    }

    /// Refuses a CONNECT that cannot be read, or is too large. A client known to speak 5.0 is sent the reason
    /// [MQTT-3.1.4-1]; a client of an unknown version is sent it in the form closest to its own.
    pub(in crate::engine) fn refuse_malformed(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
        violation: Violation,
    ) {
        self.metrics.violations += 1;
        tracing::debug!(clause = violation.clause(), "CONNECT refused: {violation}");
        let level = match violation {
            Violation::UnsupportedProtocolName => None, // it speaks something else
            _ => wire::connect_level(frame),
        };
        let Some(level) = level else { return self.end_connection(id, Ending::Silent) };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.version = if level >= 5 { Version::V5 } else { Version::V311 };
        let reason = violation.reason();
        if level >= 5 || reason == ReasonCode::UnsupportedProtocolVersion {
            // Where the packet cannot be read, the Maximum Packet Size cannot either. Where it can, the
            // Reason Code says enough [MQTT-3.2.2-19].
            let is_unreadable =
                matches!(reason, ReasonCode::MalformedPacket | ReasonCode::PacketTooLarge);
            self.refuse_with(id, reason, is_unreadable.then(|| violation.what()));
        } else {
            self.end_connection(id, Ending::Silent);
        }
    }

    fn check(&mut self, id: ConnectionId, connect: &Connect<'_>) -> Result<(), Refusal> {
        if let Some(reason) = self.connections[id].refusal {
            return Err(Refusal(reason));
        }
        match self.config.mqtt.redirect {
            Redirect::None => {}
            Redirect::Temporary => return Err(Refusal(ReasonCode::UseAnotherServer)),
            Redirect::Permanent => return Err(Refusal(ReasonCode::ServerMoved)),
        }
        let session = self.sessions.find(connect.client_identifier);
        let has_room = !self.memory_is_full() || session.is_some_and(|of| self.may_give_way(of));
        if !has_room || self.durability.is_far_behind() {
            self.metrics.connections_refused += 1;
            return Err(Refusal(ReasonCode::ServerBusy));
        }
        if session.is_none()
            && self.sessions.everywhere() >= self.config.limits.sessions_max as usize
        {
            self.metrics.connections_refused += 1;
            return Err(Refusal(ReasonCode::QuotaExceeded));
        }
        if connect.client_identifier.is_empty() {
            // [MQTT-3.1.3-7] and [MQTT-3.1.3-8] of 3.1.1; 3.1 knows no empty one at all.
            let is_refused = match connect.version {
                Version::V31 => true,
                Version::V311 => !connect.clean_start,
                Version::V5 => false,
            };
            if is_refused {
                return Err(Refusal(ReasonCode::ClientIdentifierNotValid));
            }
        }
        connect.will.as_ref().map_or(Ok(()), |will| check_will(will, &self.config))
    }

    /// Whether a client may come back to its session while memory is full: where messages wait in the
    /// session, which it gives memory back with; else as long as memory is not overdrawn.
    fn may_give_way(&self, session: SessionId) -> bool {
        self.sessions.queued(session) > 0 || !self.memory_is_overdrawn()
    }

    /// Keeps a CONNECT that is not answered yet; returns false where there is no room for it.
    pub(super) fn defer_connect(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
        granted: Option<Grant>,
    ) -> bool {
        let now = self.now;
        let deferred = self.connections.edit(id, |connection| {
            let before = connection.input_bytes();
            let received = connection.connect_received(now);
            let deferred = Deferred { connect: frame.into(), received, granted };
            connection.phase = Phase::Authenticating(Box::new(deferred));
            (before, connection.input_bytes())
        });
        let Some((before, after)) = deferred else { return false };
        if after > before && !self.has_room_for_input(after, 0, true) {
            self.metrics.input_refused += 1;
            self.refuse(id, ReasonCode::ServerBusy);
            return false;
        }
        true
    }

    /// Tries again to admit a client that waits until its earlier connection is served to the end.
    pub(in crate::engine) fn continue_admitting(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some((connect, grant)) = connection.take_granted() else { return };
        self.work.spend(connect_steps(&connect));
        self.admit(id, &connect, grant);
    }

    /// Admits a client, unless its session belongs to another user or its Will is not allowed.
    pub(super) fn admit(&mut self, id: ConnectionId, frame: &[u8], grant: Grant) {
        let Ok(Packet::Connect(connect)) = &wire::decode(frame, Version::V5) else {
            unreachable!("CONNECT was decoded when it came")
        };
        let assigned = connect.client_identifier.is_empty().then(|| self.assign_identifier());
        let client_identifier = assigned.as_deref().unwrap_or(connect.client_identifier);
        match self.comes_after(id, client_identifier) {
            Comes::After => {}
            Comes::Before => return self.end_connection(id, Ending::Silent),
            Comes::TooSoon => {
                if self.defer_connect(id, frame, Some(grant)) {
                    self.connections.hold(id, Hold::Decision);
                    self.connections.mark_ready(id);
                }
                return;
            }
        }
        let claim = match self.check_claim(id, connect, client_identifier, &grant) {
            Ok(claim) => claim,
            Err(Refusal(reason)) => return self.turn_down(id, reason),
        };
        let mark = self.durability.mark();
        let opened = self.open_session(id, connect, client_identifier, &grant, claim);
        let Opened { session, session_present, changes_hands, is_logged } = opened;
        let metrics = &mut self.metrics;
        metrics.clients_connected += 1;
        metrics.clients_maximum = metrics.clients_maximum.max(metrics.clients_connected);
        let assigned = assigned.as_deref();
        let is_told =
            self.send_connack(id, session, connect, assigned, session_present, &grant.data);
        if !is_told {
            // No property of CONNACK can be left out.
            return self.end_connection(id, Ending::Silent);
        }
        if (is_logged || !self.durability.is_failing())
            && self.durability.await_connack(id, &self.sessions[session], mark)
        {
            self.connections.close_gate(id);
        }
        tracing::debug!(
            client = name(client_identifier),
            user = grant.user.as_deref().map(name),
            session_present,
            version = ?connect.version,
            "connected"
        );
        if session_present {
            self.begin_checking_rights(id, session, changes_hands);
        }
        self.pump(id);
        let Self { listeners, connections, metrics, timers, now, .. } = self;
        listeners.consider_offload(connections, metrics, timers, *now, id);
        self.connections.release_hold(id, Hold::Decision, self.now);
    }

    /// Checks whether the client may have its session and its Will, and counts the session for its user.
    fn check_claim(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        client_identifier: &str,
        grant: &Grant,
    ) -> Result<Claim, Refusal> {
        let user = grant.user.as_deref();
        let EndsForeign(ends_foreign) =
            self.check_identity(id, connect, client_identifier, user)?;
        let Self { sessions, config, place, .. } = self;
        let membership = enter_user(client_identifier, user, &config.protection, sessions, place)
            .inspect_err(|_| self.metrics.sessions_over_user += 1)?;
        Ok(Claim { ends_foreign, membership })
    }

    /// Gives the client its session, with all that CONNECT asks for, and logs it for the store.
    fn open_session(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        client_identifier: &str,
        grant: &Grant,
        Claim { ends_foreign, membership }: Claim,
    ) -> Opened {
        let (mark, user) = (self.durability.mark(), grant.user.as_deref());
        if ends_foreign {
            note_foreign_end(client_identifier, user, &self.sessions, self.now);
            self.metrics.foreign_sessions_ended += 1;
        }
        let ends_session = connect.clean_start || ends_foreign;
        let (session, session_present) = self.claim_session(client_identifier, ends_session);
        if let Some(membership) = membership {
            self.sessions[session].assign_to_user(membership);
        }
        self.time_connack(id);
        self.agree(id, session, connect);
        self.connections.limit_stay(id, grant.valid_for, &mut self.timers, self.now);
        let is_new_owner = self.sessions.make_owner(session, user);
        let round = self.connections.round();
        let is_new_to_store = self.durability.append_connected(&mut self.sessions[session], round);
        if is_new_owner || is_new_to_store {
            self.durability.append_owner(&self.sessions[session]);
        }
        let is_logged = self.durability.mark() > mark;
        self.durability.cancel_left_will(client_identifier, self.place.ledger());
        self.durability.append_held_will(&mut self.sessions[session], round);
        let changes_hands = is_new_owner || self.sessions[session].owner() != user;
        Opened { session, session_present, changes_hands, is_logged }
    }

    fn assign_identifier(&mut self) -> String {
        loop {
            let identifier = self.names.draw();
            // An identifier whose home is this core, so that the connection need not move.
            if self.home(&identifier) == self.core() && self.sessions.find(&identifier).is_none() {
                return identifier;
            }
        }
    }

    /// The session of this Client Identifier: taken over, resumed, or new [MQTT-3.1.2-4],
    /// [MQTT-3.1.2-5], [MQTT-3.1.4-3].
    fn claim_session(&mut self, client_identifier: &str, ends_session: bool) -> (SessionId, bool) {
        if let Some(session) = self.sessions.find(client_identifier)
            && let Some(old) = self.sessions[session].connection
        {
            self.metrics.takeovers += 1;
            self.end_connection(old, Ending::TakenOver { ends_session });
        }
        // Looked up again: the session may have ended with its connection.
        if let Some(session) = self.sessions.find(client_identifier) {
            if !ends_session {
                self.metrics.clients_disconnected -= 1;
                return (session, true);
            }
            self.end_session(session);
        }
        let generation = self.connections.next_generation();
        (self.sessions.create(client_identifier, generation), false)
    }

    /// Writes what CONNECT asks for into the connection and the session.
    fn agree(&mut self, id: ConnectionId, index: SessionId, connect: &Connect<'_>) {
        let agreed = Agreed::new(connect, &self.config.limits);
        let (now, ledger) = (self.now, self.place.ledger());
        self.connections.edit(id, |connection| {
            connection.phase = Phase::Open { session: index };
            connection.last_received = now;
            connection.keep_alive_s = agreed.keep_alive_s;
            connection.window = agreed.window;
            let (properties, aliases_max) = (&connect.properties, agreed.aliases_max);
            let hides_problems = !properties.request_problem_information;
            if aliases_max > 0 || properties.authentication_method.is_some() || hides_problems {
                // The identity of a certificate may be in it already.
                let extra = connection.extra.get_or_insert_default();
                extra.outgoing_aliases =
                    (aliases_max > 0).then(|| OutgoingAliases::new(aliases_max, ledger));
                extra.authentication_method = properties.authentication_method.map(Into::into);
                extra.hides_problems = hides_problems;
            }
        });
        // Messages that were published earlier are not for this connection.
        self.flush_fan_out_batch();
        self.set_delivery_class(index, agreed.class);
        let session = &mut self.sessions[index];
        session.connection = Some(id);
        session.expires = None;
        session.expiry_interval_s = agreed.expiry_interval_s;
        // A Will still waiting from the connection before is cancelled [MQTT-3.1.3-9].
        session.take_will(self.place.ledger());
        if let Some(will) = &connect.will {
            session.set_will(Will::new(will), self.place.ledger());
        }
        if let Some(outbound) = &mut session.outbound {
            outbound.resume(usize::from(agreed.window));
        }
        if let Some(inbound) = &mut session.inbound {
            inbound.resume();
        }
        self.router.set_connected(index, &self.sessions[index].subscriptions, true);
        if agreed.keep_alive_s > 0 {
            let connection = &mut self.connections[id];
            let deadline = connection.keep_alive_deadline();
            self.timers.arm_connection(self.now, id, connection, deadline);
        }
    }
}
