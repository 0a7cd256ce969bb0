//! CONNECT to CONNACK: checks, authentication, take-over or resumption of the session.

use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::config::{Limits, Redirect};
use crate::engine::access::Grant;
use crate::engine::cause::{Cause, Rejection};
use crate::engine::client_log::{Agreement, Claimed, Why};
use crate::engine::connections::connection::{Connection, Deferred, Hold, Phase};
use crate::engine::connections::ending::Ending;
use crate::engine::listeners::Listeners;
use crate::engine::packets::authenticate::{EndsForeign, credentials, note_foreign_end};
use crate::engine::packets::take_over::Comes;
use crate::engine::{Config, Engine, sys_topics};
use crate::resources::users::{Membership, QuotaExceeded};
use crate::session::state::{DeliveryClass, Will};
use crate::session::topic_alias::OutgoingAliases;
use crate::transport::bridge::SESSION_PREFIX;
use crate::wire::violation::Violation;
use crate::wire::{self, Connect, Packet, PacketType, ReasonCode, Version};

/// Places in flight that are looked at for a step when a client comes back to its session.
const RESUMED_PER_STEP: usize = 64;

/// Steps to decode a CONNECT and to admit its client, besides the state of its session.
fn connect_steps(frame: &[u8]) -> usize {
    16 + frame.len() / 64
}

/// Decodes a CONNECT that was kept: it was decoded when it came.
pub(super) fn decode_again(frame: &[u8]) -> Connect<'_> {
    match wire::decode(frame, Version::V5) {
        Ok(Packet::Connect(connect)) => connect,
        _ => unreachable!("CONNECT was decoded when it came"),
    }
}

/// The name that takes the place of the Client Identifier: that of the certificate, or the User Name. None if there is
/// none that could.
fn client_name<'a>(connection: &'a Connection, connect: &Connect<'a>) -> Option<&'a str> {
    let certified = connection.certificate().and_then(|of| of.name.as_deref());
    certified.or(connect.username).filter(|name| !name.is_empty())
}

/// The claim of a client to a session, as granted at CONNECT.
struct Claim {
    /// The session of the Client Identifier is another user's, and ends.
    ends_foreign: bool,
    /// Counts the session for its user, where that is bounded.
    membership: Option<Membership>,
    /// Something else than a rule allows the Will.
    will_is_granted: bool,
}

/// The session that a client is given.
struct Opened {
    session: SessionId,
    session_present: bool,
    /// The session was nobody's before, or another user's, or its client came through another listener.
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

/// Whether the session that a client asks for outlives its connection.
#[cfg(feature = "cluster")]
pub(in crate::engine) fn keeps_session(connect: &Connect<'_>, limits: &Limits) -> bool {
    Agreed::new(connect, limits).expiry_interval_s > 0
}

/// Checks a Will against what the server accepts, at most `maximum_qos`.
fn check_will(will: &wire::Will<'_>, config: &Config, maximum_qos: u8) -> Result<(), Rejection> {
    let invalid = |reason: ReasonCode| {
        Err(Rejection::new(reason, Cause::WillInvalid).with_detail(reason.name()))
    };
    if u8::from(will.qos) > maximum_qos {
        return invalid(ReasonCode::QosNotSupported); // [MQTT-3.2.2-12]
    }
    if will.retain && !config.mqtt.retain_available {
        return invalid(ReasonCode::RetainNotSupported); // [MQTT-3.2.2-13]
    }
    let limits = &config.limits;
    if limits.payload_bytes_max > 0 && will.payload.len() > limits.payload_bytes_max as usize {
        return invalid(ReasonCode::PacketTooLarge);
    }
    let is_too_long = will.topic.len() > usize::from(limits.topic_bytes_max);
    let levels_max = limits.topic_levels_max as usize;
    if is_too_long || shards::check_topic_name(will.topic, levels_max).is_err() {
        return invalid(ReasonCode::TopicNameInvalid);
    }
    if sys_topics::is_ours(will.topic) {
        let rejection = Rejection::new(ReasonCode::NotAuthorized, Cause::WillNotAllowed);
        return Err(rejection.with_detail(will.topic));
    }
    Ok(())
}

/// How Client Identifiers begin that clients of a listener are assigned.
fn assigned_prefix<'a>(listener: u16, listeners: &'a Listeners, config: &'a Config) -> &'a str {
    listeners.assigned_prefix(listener).unwrap_or(&config.mqtt.assigned_identifier_prefix)
}

impl Engine {
    /// Handles the first packet of a connection, which must be CONNECT [MQTT-3.1.0-1].
    pub(in crate::engine) fn handle_first_packet(&mut self, id: ConnectionId, frame: &[u8]) {
        self.work.spend(connect_steps(frame));
        let connect = match wire::decode(frame, Version::V5) {
            Ok(Packet::Connect(connect)) => connect,
            // A peer of another protocol gets no answer.
            Ok(_) => {
                let packet = wire::packet_type(frame);
                let why = Why::violation(Violation::FirstPacketNotConnect, packet);
                self.log_refusal(id, Claimed::default(), why);
                return self.end_connection(id, Ending::Silent);
            }
            Err(violation) => return self.refuse_malformed(id, frame, violation),
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let is_changed = self.listeners.changes_connect(connection.listener);
        if is_changed
            && self.listeners.renames_clients(connection.listener)
            && let Some(name) = client_name(connection, &connect)
            && name != connect.client_identifier
        {
            let renamed = wire::connect_renamed(frame, &connect, name);
            return self.handle_first_packet(id, &renamed);
        }
        if connection.refusal.is_none() && !connect.client_identifier.is_empty() {
            let home = self.mesh.home(connect.client_identifier, self.router.replica());
            if home != self.mesh.core() {
                return self.send_home(id, home, frame);
            }
        }
        match is_changed {
            true => self.handle_mounted_connect(id, frame, &connect),
            false => self.handle_home_connect(id, frame, &connect),
        }
    }

    /// Handles a CONNECT on the home core of its client.
    #[inline]
    pub(super) fn handle_home_connect(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
        connect: &Connect<'_>,
    ) {
        // Counted on the home core of the client.
        self.metrics.connects_received += 1;
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.version = connect.version;
        connection.packet_bytes_max = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        if let Err(rejection) = self.check(id, connect) {
            return self.refuse(id, Claimed::by(connect), &rejection);
        }
        let authentication = {
            let replaces = self.sessions.connection_of(connect.client_identifier).map(exchange);
            match self.authenticate_bridge(id, connect.client_identifier) {
                Some(authentication) => authentication,
                None => {
                    let who = credentials(&self.connections[id], connect, replaces);
                    self.access.authenticate(self.now, exchange(id), &who)
                }
            }
        };
        self.continue_authentication(id, authentication, frame, connect);
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
        let packet = Some(PacketType::Connect);
        self.log_refusal(id, Claimed::default(), Why::violation(violation, packet));
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

    fn check(&mut self, id: ConnectionId, connect: &Connect<'_>) -> Result<(), Rejection> {
        let refused = |reason, cause| Err(Rejection::new(reason, cause));
        if let Some(reason) = self.connections[id].refusal {
            let is_too_fast = reason == ReasonCode::ConnectionRateExceeded;
            let cause = if is_too_fast { Cause::ConnectionRate } else { Cause::ServerFull };
            return refused(reason, cause);
        }
        if self.drain.refuses_clients() {
            return refused(ReasonCode::UseAnotherServer, Cause::Draining);
        }
        if let Err(rejection) = self.check_bans(id, connect.client_identifier, None) {
            self.metrics.clients_refused += 1;
            return Err(rejection);
        }
        match self.config.mqtt.redirect {
            Redirect::None => {}
            Redirect::Temporary => return refused(ReasonCode::UseAnotherServer, Cause::Redirected),
            Redirect::Permanent => return refused(ReasonCode::ServerMoved, Cause::Redirected),
        }
        let session = self.sessions.find(connect.client_identifier);
        let has_room = !self.memory.is_full() || session.is_some_and(|of| self.may_give_way(of));
        if !has_room || self.durability.is_far_behind() {
            self.metrics.connections_refused += 1;
            let cause = if has_room { Cause::StoreBehind } else { Cause::MemoryFull };
            return refused(ReasonCode::ServerBusy, cause);
        }
        if session.is_none()
            && self.sessions.everywhere() >= self.config.limits.sessions_max as usize
        {
            self.metrics.connections_refused += 1;
            return refused(ReasonCode::QuotaExceeded, Cause::SessionsFull);
        }
        let listener = self.connections[id].listener;
        if !self.listeners.accepts(listener, connect.version) {
            return refused(ReasonCode::UnsupportedProtocolVersion, Cause::VersionNotAccepted);
        }
        let mqtt = &self.config.mqtt;
        let client_identifier = match connect.client_identifier {
            "" => assigned_prefix(listener, &self.listeners, &self.config),
            given => given,
        };
        let has_wrong_prefix = !client_identifier.starts_with(&mqtt.client_identifier_prefix)
            || client_identifier.starts_with(SESSION_PREFIX);
        if has_wrong_prefix && !self.connections[id].has_far_broker()
            || connect.client_identifier.is_empty() && self.listeners.renames_clients(listener)
        {
            let reason = ReasonCode::ClientIdentifierNotValid;
            return refused(reason, Cause::ClientIdentifierNotAllowed);
        }
        if connect.client_identifier.is_empty() {
            // [MQTT-3.1.3-7] and [MQTT-3.1.3-8] of 3.1.1; 3.1 knows no empty one at all.
            let is_refused = match connect.version {
                _ if !mqtt.assigned_client_identifiers => true,
                Version::V31 => true,
                Version::V311 => !connect.clean_start,
                Version::V5 => false,
            };
            if is_refused {
                let reason = ReasonCode::ClientIdentifierNotValid;
                return refused(reason, Cause::ClientIdentifierEmpty);
            }
        }
        let maximum_qos = self.maximum_qos(id);
        connect.will.as_ref().map_or(Ok(()), |will| check_will(will, &self.config, maximum_qos))
    }

    /// Whether a client may come back to its session while memory is full: where messages wait in the
    /// session, which it gives memory back with; else as long as memory is not overdrawn.
    fn may_give_way(&self, session: SessionId) -> bool {
        self.sessions.queued(session) > 0 || !self.memory.is_overdrawn()
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
        if after > before && !self.memory.has_room_for_input(after, 0, true) {
            self.metrics.input_refused += 1;
            let busy = Rejection::new(ReasonCode::ServerBusy, Cause::InputFull);
            self.refuse(id, Claimed::in_frame(frame), &busy);
            return false;
        }
        true
    }

    /// Tries again to admit a client that waits until its earlier connection is served to the end, or for a decision about
    /// its Will.
    pub(in crate::engine) fn continue_admitting(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some((connect, grant)) = connection.take_granted() else { return };
        self.work.spend(connect_steps(&connect));
        self.admit(id, &connect, &decode_again(&connect), grant);
    }

    /// Admits a client, unless its session belongs to another user or its Will is not allowed.
    pub(super) fn admit(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
        connect: &Connect<'_>,
        grant: Grant,
    ) {
        let assigned = connect.client_identifier.is_empty().then(|| {
            let Self { sessions, mesh, router, listeners, connections, config, .. } = self;
            let prefix = assigned_prefix(connections[id].listener, listeners, config);
            let is_home = |name: &str| mesh.home(name, router.replica()) == mesh.core();
            sessions.assign_identifier(prefix, is_home)
        });
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
        let claim = self.check_claim(id, connect, client_identifier, &grant);
        let claim = claim.and_then(|claim| match claim {
            Some(claim) => Ok(self.has_claim(id, connect, &grant)?.then_some(claim)),
            None => Ok(None),
        });
        let claim = match claim {
            Ok(Some(claim)) => claim,
            Ok(None) => {
                if self.defer_connect(id, frame, Some(grant)) {
                    self.connections.hold(id, Hold::Decision);
                }
                return;
            }
            Err(rejection) => {
                let user = grant.user.as_deref().or(connect.username);
                let claimed = Claimed { client: Some(client_identifier), user };
                return self.turn_down(id, claimed, &rejection);
            }
        };
        let mark = self.durability.mark();
        let opened = self.open_session(id, connect, client_identifier, &grant, claim);
        let Opened { session, session_present, changes_hands, is_logged } = opened;
        self.note_claim(session);
        let metrics = &mut self.metrics;
        metrics.clients_connected += 1;
        metrics.clients_maximum = metrics.clients_maximum.max(metrics.clients_connected);
        let assigned = assigned.as_deref();
        let is_told =
            self.send_connack(id, session, connect, assigned, session_present, &grant.data);
        if !is_told {
            // No property of CONNACK can be left out.
            let (reason, cause) = (ReasonCode::PacketTooLarge, Cause::ConnackTooLarge);
            return self.end_connection(id, Ending::Server(reason, cause));
        }
        if (is_logged || !self.durability.is_failing())
            && self.durability.await_connack(id, &self.sessions[session], mark)
        {
            self.connections.withhold_output(id);
        }
        let agreement = Agreement { session_present, clean_start: connect.clean_start };
        self.log_connected(id, session, agreement);
        self.report_connected(id, session, agreement);
        if session_present {
            self.begin_checking_rights(id, session, changes_hands);
        }
        if self.connections[id].has_far_broker() {
            self.begin_bridge(id, session);
        }
        self.pump(id);
        let Self { listeners, connections, metrics, timers, now, .. } = self;
        listeners.consider_offload(connections, metrics, timers, *now, id);
        self.connections.release_hold(id, Hold::Decision, self.now);
    }

    /// Checks whether the client may have its session and its Will, and counts the session for its user; none while the
    /// decision about the Will is pending.
    fn check_claim(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        client_identifier: &str,
        grant: &Grant,
    ) -> Result<Option<Claim>, Rejection> {
        let user = grant.user.as_deref();
        self.check_bans(id, client_identifier, user)?;
        let EndsForeign(ends_foreign) =
            self.check_identity(id, connect, client_identifier, user)?;
        let will_is_granted = self.check_will(id, connect, client_identifier, user)?;
        let Some(will_is_granted) = will_is_granted else { return Ok(None) };
        let protection = &self.config.protection;
        let entered = self.sessions.enter_user(client_identifier, user, protection);
        let membership = entered.map_err(|QuotaExceeded| {
            self.metrics.sessions_over_user += 1;
            Rejection::new(ReasonCode::QuotaExceeded, Cause::SessionsOfUser)
        })?;
        Ok(Some(Claim { ends_foreign, membership, will_is_granted }))
    }

    /// Gives the client its session, with all that CONNECT asks for, and logs it for the store.
    fn open_session(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        client_identifier: &str,
        grant: &Grant,
        Claim { ends_foreign, membership, will_is_granted }: Claim,
    ) -> Opened {
        let (mark, user) = (self.durability.mark(), grant.user.as_deref());
        if ends_foreign {
            note_foreign_end(client_identifier, user, &self.sessions, self.now);
            self.metrics.foreign_sessions_ended += 1;
        }
        let ends_session = connect.clean_start || ends_foreign;
        let (session, session_present) = self.claim_session(id, client_identifier, ends_session);
        if let Some(membership) = membership {
            self.sessions[session].assign_to_user(membership);
        }
        self.time_connack(id);
        let is_elsewhere = self.note_listener(id, session);
        self.agree(id, session, connect);
        if let Some(will) = &mut self.sessions[session].will {
            will.is_granted = will_is_granted;
        }
        self.connections.limit_stay(id, grant.valid_for, &mut self.timers, self.now);
        let is_new_owner = self.sessions.make_owner(session, user);
        let round = self.connections.round();
        let is_new_to_store = self.durability.append_connected(&mut self.sessions[session], round);
        if is_new_owner || is_new_to_store {
            self.durability.append_owner(&self.sessions[session]);
        }
        let is_logged = self.durability.mark() > mark;
        self.durability.cancel_left_will(client_identifier);
        self.durability.append_held_will(&mut self.sessions[session], round);
        let changes_hands = is_new_owner || is_elsewhere || self.sessions[session].owner() != user;
        Opened { session, session_present, changes_hands, is_logged }
    }

    /// Notes through which listener the client of a session comes, where access rules may depend on it; whether it came
    /// through another one before.
    pub(in crate::engine) fn note_listener(
        &mut self,
        id: ConnectionId,
        session: SessionId,
    ) -> bool {
        if !self.access.has_rules() {
            return false;
        }
        let (state, listener) = (&mut self.sessions[session], self.connections[id].listener);
        let is_elsewhere = state.listener() != listener;
        state.set_listener(listener);
        is_elsewhere
    }

    /// The session of this Client Identifier: taken over, resumed, or new [MQTT-3.1.2-4],
    /// [MQTT-3.1.2-5], [MQTT-3.1.4-3].
    fn claim_session(
        &mut self,
        id: ConnectionId,
        client_identifier: &str,
        ends_session: bool,
    ) -> (SessionId, bool) {
        let mut found = self.sessions.find(client_identifier);
        if let Some(session) = found
            && let Some(old) = self.sessions[session].connection
        {
            self.metrics.takeovers += 1;
            let (by, before) = (self.connections[id].address(), self.connections[old].address());
            self.observers.log.taken_over(self.now, &self.sessions[session], by, before);
            self.end_connection(old, Ending::TakenOver { ends_session, by });
            // The session may have ended with its connection.
            found = self.sessions.find(client_identifier);
        }
        if let Some(session) = found {
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
        let (mut agreed, terms) = (Agreed::new(connect, &self.config.limits), self.config.terms);
        let is_mounted = self.connections[id].mount().is_some();
        if is_mounted {
            (agreed.class, agreed.aliases_max) = (DeliveryClass::Mounted, 0);
        }
        let maximum_qos = self.maximum_qos(id);
        let listener = self.connections[id].listener;
        let (now, ledger) = (self.now, self.memory.ledger());
        self.connections.edit(id, |connection| {
            connection.open(index, terms, maximum_qos, now);
            connection.last_received = now;
            connection.keep_alive_s = agreed.keep_alive_s;
            connection.window = agreed.window;
            let (properties, aliases_max) = (&connect.properties, agreed.aliases_max);
            let hides_problems = !properties.request_problem_information;
            let has_method = properties.authentication_method.is_some();
            if aliases_max > 0 || has_method || hides_problems || connect.is_bridge {
                // The identity of a certificate may be in it already.
                let extra = connection.extra.get_or_insert_default();
                extra.outgoing_aliases =
                    (aliases_max > 0).then(|| OutgoingAliases::new(aliases_max, ledger));
                extra.authentication_method = properties.authentication_method.map(Into::into);
                extra.hides_problems = hides_problems;
                extra.is_bridge = connect.is_bridge;
            }
            if is_mounted {
                connection.begin_mounted();
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
        session.will = None;
        if let Some(will) = &connect.will {
            let listener_name = self.listeners.stored_name(listener);
            let will = Will { listener, listener_name, ..Will::new(will) };
            session.set_will(will, self.memory.ledger());
        }
        if let Some(outbound) = &mut session.outbound {
            let places = outbound.resume(usize::from(agreed.window));
            outbound.bound_inflight_bytes(self.config.queue_limits.inflight_bytes_max);
            self.work.spend(places / RESUMED_PER_STEP);
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
