//! CONNECT to CONNACK: checks, authentication, take-over or resumption of the session.

use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::base::log_rate::name;
use crate::config::Redirect;
use crate::engine::Engine;
use crate::engine::access::{Authentication, Credentials, Grant};
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Deferred, Hold, Phase};
use crate::engine::connections::stream_end::Comes;
use crate::engine::packets::authenticate::EndsForeign;
use crate::engine::packets::disconnect::Ending;
use crate::session::state::{DeliveryClass, Will};
use crate::session::topic_alias::OutgoingAliases;
use crate::wire::violation::Violation;
use crate::wire::{
    self, Auth, Connack, ConnackProperties, Connect, Packet, Qos, ReasonCode, UserProperties,
    Version,
};

fn credentials<'a>(
    connections: &'a Connections,
    id: ConnectionId,
    connect: &Connect<'a>,
    replaces: Option<u64>,
) -> Credentials<'a> {
    let connection = &connections[id];
    let properties = &connect.properties;
    Credentials {
        client_identifier: connect.client_identifier,
        username: connect.username,
        password: connect.password,
        method: properties
            .authentication_method
            .map(|method| (method, properties.authentication_data.unwrap_or_default())),
        address: connection.address,
        listener: connection.listener,
        certificate: connection.certificate(),
        replaces,
    }
}

/// Steps to decode a CONNECT and to admit its client, besides the state of its session.
fn connect_steps(frame: &[u8]) -> usize {
    16 + frame.len() / 64
}

/// A CONNECT that is answered with an error.
pub(in crate::engine) struct Refusal(pub ReasonCode);

impl Engine {
    /// The first packet of a connection must be CONNECT [MQTT-3.1.0-1].
    pub(in crate::engine) fn handle_first_packet(&mut self, id: ConnectionId, frame: &[u8]) {
        self.work.spend(connect_steps(frame));
        let connect = match wire::decode(frame, Version::V5) {
            Ok(Packet::Connect(connect)) => connect,
            // Whoever speaks something else gets no answer.
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
            let replaces = self.connection_of(connect.client_identifier).map(exchange);
            let who = credentials(&self.connections, id, &connect, replaces);
            self.access.authenticate(self.now, exchange(id), &who)
        };
        self.go_on_authenticating(id, authentication, frame);
    }

    /// A CONNECT that cannot be read, or is too large to be. A client known to speak 5.0 is told the reason
    /// [MQTT-3.1.4-1]; one whose version is unknown is told so in the form closest to its own.
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
            // Where the packet cannot be read, neither can what the client takes at most. Where it can,
            // the Reason Code says enough [MQTT-3.2.2-19].
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
        let Some(will) = &connect.will else { return Ok(()) };
        if u8::from(will.qos) > self.config.mqtt.maximum_qos {
            return Err(Refusal(ReasonCode::QosNotSupported)); // [MQTT-3.2.2-12]
        }
        if will.retain && !self.config.mqtt.retain_available {
            return Err(Refusal(ReasonCode::RetainNotSupported)); // [MQTT-3.2.2-13]
        }
        let limits = &self.config.limits;
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

    /// Whether a session, whose client comes back when memory is full, may give some of it back: messages
    /// wait in it. The others are let in as far as those go who are told that memory is full.
    fn may_give_way(&self, session: SessionId) -> bool {
        self.queued(session) > 0 || !self.memory_is_overdrawn()
    }

    pub(in crate::engine) fn connection_of(&self, client_identifier: &str) -> Option<ConnectionId> {
        self.sessions[self.sessions.find(client_identifier)?].connection
    }

    /// Acts on an answer of the access control to the CONNECT in `frame`.
    pub(in crate::engine) fn go_on_authenticating(
        &mut self,
        id: ConnectionId,
        authentication: Authentication,
        frame: &[u8],
    ) {
        match authentication {
            Authentication::Granted(grant) => {
                self.admit(id, frame, grant);
            }
            Authentication::Refused(reason) => self.turn_down(id, reason),
            Authentication::Continue(_) | Authentication::Pending => {
                if !self.defer_connect(id, frame, None) {
                    return;
                }
                match authentication {
                    Authentication::Pending => self.connections.hold(id, Hold::Decision),
                    _ => self.connections.release_hold(id, Hold::Decision, self.now),
                }
                if let Authentication::Continue(data) = authentication {
                    let Ok(Packet::Connect(connect)) = wire::decode(frame, Version::V5) else {
                        unreachable!("it was decoded when it came")
                    };
                    let method = connect.properties.authentication_method.unwrap_or_default();
                    self.send_auth(id, ReasonCode::ContinueAuthentication, method, &data);
                }
            }
        }
    }

    /// Keeps a CONNECT that is not answered yet; false where there is no room for it.
    fn defer_connect(&mut self, id: ConnectionId, frame: &[u8], granted: Option<Grant>) -> bool {
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
    pub(in crate::engine) fn go_on_admitting(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some((connect, grant)) = connection.take_granted() else { return };
        self.work.spend(connect_steps(&connect));
        self.admit(id, &connect, grant);
    }

    /// Until it is let in, a client may send AUTH and DISCONNECT alone [MQTT-3.1.2-30].
    pub(in crate::engine) fn handle_while_authenticating(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
    ) -> Result<(), Violation> {
        let packet = wire::decode(frame, self.connections[id].version)?;
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let Phase::Authenticating(deferred) = &connection.phase else { return Ok(()) };
        match packet {
            Packet::Auth(auth) => {
                let connect = deferred.connect.clone();
                let Ok(Packet::Connect(decoded)) = wire::decode(&connect, Version::V5) else {
                    unreachable!("it was decoded when it came")
                };
                // [MQTT-4.12.0-5]: the method stays the same.
                if auth.reason != ReasonCode::ContinueAuthentication
                    || auth.authentication_method != decoded.properties.authentication_method
                {
                    return Err(Violation::AuthenticationMethodChanged);
                }
                let data = auth.authentication_data.unwrap_or_default();
                let authentication = self.access.proceed(self.now, exchange(id), data);
                self.go_on_authenticating(id, authentication, &connect);
                Ok(())
            }
            Packet::Disconnect(_) => {
                self.end_connection(id, Ending::Silent);
                Ok(())
            }
            _ => Err(Violation::UnexpectedPacket),
        }
    }

    /// AUTH on an open connection: re-authentication [MQTT-4.12.1-1].
    pub(in crate::engine) fn handle_auth(
        &mut self,
        id: ConnectionId,
        auth: &Auth<'_>,
    ) -> Result<(), Violation> {
        let session = self.connections.get_mut(id).and_then(|connection| connection.session());
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let (address, listener) = (connection.address, connection.listener);
        let certificate = connection.transport.as_ref().and_then(|t| t.certificate());
        let Some(extra) = connection.extra.as_mut() else {
            return Err(Violation::AuthWithoutMethod);
        };
        let certificate = certificate.or(extra.certificate.as_deref());
        // [MQTT-4.12.0-7]: without a method in CONNECT there is no AUTH.
        let Some(method) = extra.authentication_method.clone() else {
            return Err(Violation::AuthWithoutMethod);
        };
        if auth.authentication_method != Some(&*method) {
            return Err(Violation::AuthenticationMethodChanged);
        }
        let data = auth.authentication_data.unwrap_or_default();
        let authentication = match auth.reason {
            ReasonCode::Reauthenticate if !extra.is_reauthenticating => {
                extra.is_reauthenticating = true;
                let session = session.expect("an open connection has a session");
                let who = Credentials {
                    client_identifier: self.sessions[session].client_identifier.as_str(),
                    username: None,
                    password: None,
                    method: Some((&method, data)),
                    address,
                    listener,
                    certificate,
                    replaces: Some(exchange(id)),
                };
                self.access.authenticate(self.now, exchange(id), &who)
            }
            ReasonCode::ContinueAuthentication if extra.is_reauthenticating => {
                self.access.proceed(self.now, exchange(id), data)
            }
            _ => return Err(Violation::UnexpectedPacket),
        };
        self.go_on_reauthenticating(id, authentication);
        Ok(())
    }

    pub(in crate::engine) fn go_on_reauthenticating(
        &mut self,
        id: ConnectionId,
        authentication: Authentication,
    ) {
        let Some(extra) = self.connections.get_mut(id).and_then(|c| c.extra.as_mut()) else {
            return;
        };
        let method = extra.authentication_method.clone().unwrap_or_default();
        match authentication {
            Authentication::Granted(grant) => {
                extra.is_reauthenticating = false;
                self.limit_stay(id, grant.valid_for);
                self.send_auth(id, ReasonCode::Success, &method, &grant.data);
            }
            Authentication::Continue(data) => {
                self.send_auth(id, ReasonCode::ContinueAuthentication, &method, &data);
            }
            // [MQTT-4.12.1-2]
            Authentication::Refused(reason) => {
                self.end_connection(id, Ending::Server(reason));
            }
            Authentication::Pending => {}
        }
    }

    fn send_auth(&mut self, id: ConnectionId, reason: ReasonCode, method: &str, data: &[u8]) {
        let auth = Auth {
            reason,
            authentication_method: Some(method),
            authentication_data: (!data.is_empty()).then_some(data),
            reason_string: None,
            user_properties: UserProperties::none(),
        };
        self.connections.send(id, |out| Packet::Auth(auth).encode(Version::V5, out));
    }

    /// CONNACK with an error, then the connection is closed [MQTT-3.2.2-7].
    pub(in crate::engine) fn refuse(&mut self, id: ConnectionId, reason: ReasonCode) {
        self.refuse_with(id, reason, None);
    }

    fn refuse_with(
        &mut self,
        id: ConnectionId,
        reason: ReasonCode,
        reason_string: Option<&'static str>,
    ) {
        let version = self.connections[id].version;
        tracing::debug!(reason = reason.name(), "CONNECT refused");
        let has_words = version == Version::V5 || reason.return_code().is_some();
        if has_words {
            self.time_connack(id);
        }
        let server_reference = match reason {
            ReasonCode::UseAnotherServer | ReasonCode::ServerMoved => {
                Some(self.config.mqtt.server_reference.as_str()).filter(|r| !r.is_empty())
            }
            _ => None,
        };
        let mut connack = Connack {
            session_present: false, // [MQTT-3.2.2-6]
            reason,
            properties: ConnackProperties {
                server_reference,
                reason_string,
                ..ConnackProperties::default()
            },
        };
        if has_words && !self.connections.send_fitting(id, &Packet::Connack(connack.clone())) {
            connack.properties.reason_string = None; // [MQTT-3.2.2-19]
            self.connections.send_fitting(id, &Packet::Connack(connack));
        }
        self.end_connection(id, Ending::Silent);
    }

    /// The client is let in, unless somebody else has its session, or may not have its Will.
    fn admit(&mut self, id: ConnectionId, frame: &[u8], grant: Grant) {
        let Ok(Packet::Connect(connect)) = &wire::decode(frame, Version::V5) else {
            unreachable!("it was decoded when it came")
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
        let user = grant.user.as_deref();
        let checked = self.check_identity(id, connect, client_identifier, user);
        let EndsForeign(ends_foreign) = match checked {
            Ok(ends_foreign) => ends_foreign,
            Err(Refusal(reason)) => return self.turn_down(id, reason),
        };
        let membership = match self.enter_user(client_identifier, user) {
            Ok(membership) => membership,
            Err(Refusal(reason)) => {
                self.metrics.sessions_over_user += 1;
                return self.turn_down(id, reason);
            }
        };
        let mark = self.durability.mark();
        if ends_foreign {
            self.note_foreign_end(client_identifier, user);
        }
        let ends_session = connect.clean_start || ends_foreign;
        let (session, session_present) = self.claim_session(client_identifier, ends_session);
        if let Some(membership) = membership {
            self.sessions[session].assign_to_user(membership);
        }
        self.time_connack(id);
        self.agree(id, session, connect);
        self.limit_stay(id, grant.valid_for);
        let is_new_owner = self.own(session, user);
        let round = self.connections.round();
        let is_new_to_store = self.durability.append_connected(&mut self.sessions[session], round);
        if is_new_owner || is_new_to_store {
            self.durability.append_owner(&self.sessions[session]);
        }
        let is_session_logged = self.durability.mark() > mark;
        self.durability.cancel_left_will(client_identifier, self.place.ledger());
        self.durability.append_held_will(&mut self.sessions[session], round);
        let metrics = &mut self.metrics;
        metrics.clients_connected += 1;
        metrics.clients_maximum = metrics.clients_maximum.max(metrics.clients_connected);
        let assigned = assigned.as_deref();
        let is_told =
            self.send_connack(id, session, connect, assigned, session_present, &grant.data);
        if !is_told {
            // Nothing of what CONNACK says can be left out.
            return self.end_connection(id, Ending::Silent);
        }
        if (is_session_logged || !self.durability.is_failing())
            && self.durability.await_connack(id, &self.sessions[session], mark)
        {
            self.connections.close_gate(id);
        }
        tracing::debug!(
            client = name(client_identifier),
            user = user.map(name),
            session_present,
            version = ?connect.version,
            "connected"
        );
        if session_present {
            let changes_hands = is_new_owner || self.sessions[session].owner() != user;
            self.begin_checking_rights(id, session, changes_hands);
        }
        self.pump(id);
        let Self { listeners, connections, metrics, timers, now, .. } = self;
        listeners.consider_offload(connections, metrics, timers, *now, id);
        self.connections.release_hold(id, Hold::Decision, self.now);
    }

    /// Notes, where somebody takes the time, since when the client waits for the CONNACK of this turn.
    fn time_connack(&mut self, id: ConnectionId) {
        if self.config.has_statistics {
            self.connections.note_connack(id, self.now);
        }
    }

    fn assign_identifier(&mut self) -> String {
        loop {
            let identifier = self.names.draw();
            // One that lives here, so that the connection need not move.
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
        (self.new_session(client_identifier), false)
    }

    pub(in crate::engine) fn new_session(&mut self, client_identifier: &str) -> SessionId {
        let generation = self.connections.next_generation();
        self.sessions.create(client_identifier, generation)
    }

    /// Writes what CONNECT asks for into the connection and the session.
    fn agree(&mut self, id: ConnectionId, index: SessionId, connect: &Connect<'_>) {
        let limits = &self.config.limits;
        let properties = &connect.properties;
        // Those before 5 cannot be told.
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
        let window = properties.receive_maximum.unwrap_or(u16::MAX).min(limits.inflight_max);
        let expiry_interval_s = match connect.version {
            Version::V5 => properties.session_expiry_interval.unwrap_or(0),
            _ if connect.clean_start => 0,
            _ => u32::MAX,
        };

        let (now, ledger) = (self.now, self.place.ledger());
        self.connections.edit(id, |connection| {
            connection.phase = Phase::Open { session: index };
            connection.last_received = now;
            connection.keep_alive_s = keep_alive_s;
            connection.window = window;
            let hides_problems = !properties.request_problem_information;
            if aliases_max > 0 || properties.authentication_method.is_some() || hides_problems {
                // Whom a certificate names may be in it already.
                let extra = connection.extra.get_or_insert_default();
                extra.outgoing_aliases =
                    (aliases_max > 0).then(|| OutgoingAliases::new(aliases_max, ledger));
                extra.authentication_method = properties.authentication_method.map(Into::into);
                extra.hides_problems = hides_problems;
            }
        });

        let class = match connect.version {
            Version::V5 if aliases_max > 0 => DeliveryClass::V5Alias,
            Version::V5 => DeliveryClass::V5,
            _ => DeliveryClass::V3,
        };
        // Messages that were published earlier are not for this connection.
        self.flush_fan_out_batch();
        self.set_delivery_class(index, class);
        let limits = &self.config.limits;
        let session = &mut self.sessions[index];
        session.connection = Some(id);
        session.expires = None;
        session.expiry_interval_s = expiry_interval_s.min(limits.session_expiry_max_s);
        // A Will still waiting from the connection before is cancelled [MQTT-3.1.3-9].
        session.take_will(self.place.ledger());
        if let Some(will) = &connect.will {
            session.set_will(Will::new(will), self.place.ledger());
        }
        if let Some(outbound) = &mut session.outbound {
            outbound.resume(usize::from(window));
        }
        if let Some(inbound) = &mut session.inbound {
            inbound.resume();
        }
        self.router.set_connected(index, &self.sessions[index].subscriptions, true);
        if keep_alive_s > 0 {
            let connection = &mut self.connections[id];
            let deadline = connection.keep_alive_deadline();
            self.timers.arm_connection(self.now, id, connection, deadline);
        }
    }

    fn send_connack(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        connect: &Connect<'_>,
        assigned: Option<&str>,
        session_present: bool,
        authentication_data: &[u8],
    ) -> bool {
        let (limits, mqtt) = (&self.config.limits, &self.config.mqtt);
        let connection = &self.connections[id];
        let expiry_interval_s = self.sessions[session].expiry_interval_s;
        let asked = connect.properties.session_expiry_interval.unwrap_or(0);
        let not = |is_available: bool| (!is_available).then_some(false);
        let properties = ConnackProperties {
            session_expiry_interval: (expiry_interval_s != asked).then_some(expiry_interval_s),
            receive_maximum: (limits.receive_maximum < u16::MAX).then_some(limits.receive_maximum),
            maximum_qos: (mqtt.maximum_qos < u8::from(Qos::ExactlyOnce))
                .then_some(mqtt.maximum_qos),
            retain_available: not(mqtt.retain_available),
            maximum_packet_size: Some(limits.packet_bytes_max),
            assigned_client_identifier: assigned,
            topic_alias_maximum: (limits.topic_alias_maximum > 0)
                .then_some(limits.topic_alias_maximum),
            wildcard_subscription_available: not(mqtt.wildcard_subscription_available),
            subscription_identifiers_available: not(mqtt.subscription_identifiers_available),
            shared_subscription_available: not(mqtt.shared_subscription_available),
            server_keep_alive: (connection.keep_alive_s != connect.keep_alive_s)
                .then_some(connection.keep_alive_s),
            response_information: (connect.properties.request_response_information
                && !mqtt.response_information.is_empty())
            .then_some(mqtt.response_information.as_str()),
            authentication_method: connect.properties.authentication_method,
            authentication_data: (!authentication_data.is_empty()).then_some(authentication_data),
            ..ConnackProperties::default()
        };
        let connack = Connack { session_present, reason: ReasonCode::Success, properties };
        self.connections.send_fitting(id, &Packet::Connack(connack))
    }
}
