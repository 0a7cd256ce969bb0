//! Authentication: the answers of the access control, AUTH exchanges, the user that owns a session, and how
//! long a client may stay connected.

use std::time::Duration;

use shards::Text;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::base::log_rate::{Name, name, rated};
use crate::base::metrics::Metrics;
use crate::engine::Engine;
use crate::engine::access::{
    Authentication, Credentials, Decision, IdentifierClaim, Identity, Message, WillOwner,
};
use crate::engine::cause::{Cause, Rejection};
use crate::engine::client_log::Claimed;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Connection, Hold, Phase};
use crate::engine::connections::ending::Ending;
use crate::engine::packets::connect::decode_again;
use crate::engine::timers::{Timer, Timers};
use crate::message::Content;
use crate::session::table::SessionTable;
use crate::wire::violation::Violation;
use crate::wire::{self, Auth, Connect, Packet, ReasonCode, UserProperties, Version};

/// Whether the session of another user ends, so that a new one can take its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct EndsForeign(pub bool);

/// The parts of a CONNECT that are passed to the access control.
pub(super) fn credentials<'a>(
    connection: &'a Connection,
    connect: &Connect<'a>,
    replaces: Option<u64>,
) -> Credentials<'a> {
    let properties = &connect.properties;
    Credentials {
        client_identifier: connect.client_identifier,
        username: connect.username,
        password: connect.password,
        method: properties
            .authentication_method
            .map(|method| (method, properties.authentication_data.unwrap_or_default())),
        address: connection.address(),
        listener: connection.listener,
        certificate: connection.certificate(),
        replaces,
    }
}

impl Engine {
    /// Takes the answers of the access control that are ready, and checks clients again when its rules have
    /// changed. Called once a turn.
    pub fn handle_answers(&mut self, now: Now) {
        self.set_now(now);
        self.access.renew();
        let connection_of = |exchange: u64| ConnectionId {
            slot: exchange as u32,
            generation: (exchange >> 32) as u32,
        };
        while let Some((exchange, authentication)) = self.access.poll_answer(now) {
            self.handle_authenticated(now, connection_of(exchange), authentication);
        }
        while let Some(exchange) = self.access.poll_decided(now) {
            self.continue_decided(connection_of(exchange));
        }
        while let Some((topic, payload)) = self.access.poll_publication() {
            self.publish_own(topic, &payload);
        }
        // A change of the rules begins a check of all clients.
        self.access.recheck();
    }

    /// Handles the answer that follows [`Authentication::Pending`].
    pub fn handle_authenticated(
        &mut self,
        now: Now,
        id: ConnectionId,
        authentication: Authentication,
    ) {
        self.set_now(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Phase::Authenticating(deferred) = &connection.phase
            && connection.holds.has(Hold::Decision)
        {
            let connect = deferred.connect.clone();
            self.continue_authentication(id, authentication, &connect, &decode_again(&connect));
        } else if connection.session().is_some() {
            self.continue_reauthentication(id, authentication);
        }
    }

    /// Refuses a client that the access control does not admit.
    pub(in crate::engine) fn turn_down(
        &mut self,
        id: ConnectionId,
        claimed: Claimed<'_>,
        rejection: &Rejection,
    ) {
        self.metrics.clients_refused += 1;
        self.access.forget(exchange(id));
        self.refuse(id, claimed, rejection);
    }

    /// Acts on an answer of the access control to the CONNECT that `frame` holds.
    pub(in crate::engine) fn continue_authentication(
        &mut self,
        id: ConnectionId,
        authentication: Authentication,
        frame: &[u8],
        connect: &Connect<'_>,
    ) {
        match authentication {
            Authentication::Granted(grant) => {
                self.admit(id, frame, connect, grant);
            }
            Authentication::Refused(rejection) => {
                self.turn_down(id, Claimed::by(connect), &rejection);
            }
            Authentication::Continue(_) | Authentication::Pending => {
                if !self.defer_connect(id, frame, None) {
                    return;
                }
                match authentication {
                    Authentication::Pending => self.connections.hold(id, Hold::Decision),
                    _ => self.connections.release_hold(id, Hold::Decision, self.now),
                }
                if let Authentication::Continue(data) = authentication {
                    let method = connect.properties.authentication_method.unwrap_or_default();
                    self.connections.send_auth(
                        id,
                        ReasonCode::ContinueAuthentication,
                        method,
                        &data,
                    );
                }
            }
        }
    }

    /// Handles a packet before CONNACK: a client may send only AUTH and DISCONNECT [MQTT-3.1.2-30].
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
                let decoded = decode_again(&connect);
                // [MQTT-4.12.0-5]: the method stays the same.
                if auth.reason != ReasonCode::ContinueAuthentication
                    || auth.authentication_method != decoded.properties.authentication_method
                {
                    return Err(Violation::AuthenticationMethodChanged);
                }
                let data = auth.authentication_data.unwrap_or_default();
                let authentication = self.access.proceed(self.now, exchange(id), data);
                self.continue_authentication(id, authentication, &connect, &decoded);
                Ok(())
            }
            Packet::Disconnect(_) => {
                let connect = deferred.connect.clone();
                self.log_refusal(id, Claimed::in_frame(&connect), Cause::Left);
                self.end_connection(id, Ending::Silent);
                Ok(())
            }
            _ => Err(Violation::UnexpectedPacket),
        }
    }

    /// Handles AUTH on an open connection: re-authentication [MQTT-4.12.1-1].
    pub(in crate::engine) fn handle_auth(
        &mut self,
        id: ConnectionId,
        auth: &Auth<'_>,
    ) -> Result<(), Violation> {
        let session = self.connections.get_mut(id).and_then(|connection| connection.session());
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let (address, listener) = (connection.address(), connection.listener);
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
        self.continue_reauthentication(id, authentication);
        Ok(())
    }

    pub(in crate::engine) fn continue_reauthentication(
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
                self.connections.limit_stay(id, grant.valid_for, &mut self.timers, self.now);
                self.connections.send_auth(id, ReasonCode::Success, &method, &grant.data);
            }
            Authentication::Continue(data) => {
                self.connections.send_auth(id, ReasonCode::ContinueAuthentication, &method, &data);
            }
            // [MQTT-4.12.1-2]
            Authentication::Refused(Rejection { reason, cause, .. }) => {
                self.end_connection(id, Ending::Server(reason, cause));
            }
            Authentication::Pending => {}
        }
    }

    /// Checks whether a user may have a Client Identifier. Returns whether the session of the Client Identifier belongs
    /// to another user and ends.
    pub(in crate::engine) fn check_identity(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        client_identifier: &str,
        user: Option<&str>,
    ) -> Result<EndsForeign, Rejection> {
        let text = Text::new(client_identifier);
        let who = Identity { exchange: exchange(id), client_identifier: &text };
        let is_assigned = connect.client_identifier.is_empty();
        let claim = match is_assigned {
            true => IdentifierClaim::Open,
            false => self.access.claims_identifier(&who),
        };
        if claim == IdentifierClaim::Denied {
            self.metrics.identifiers_denied += 1;
            let cause = Cause::ClientIdentifierNotAllowed;
            return Err(Rejection::new(ReasonCode::ClientIdentifierNotValid, cause));
        }
        let claim = if connect.clean_start { claim } else { IdentifierClaim::Open };
        // The configuration may give the session of a bridge to another user.
        let is_bound = self.config.bind_sessions && !self.connections[id].has_far_broker();
        let ends_foreign = match is_bound {
            true => {
                let claimant = Claimant { client_identifier, user, claim };
                check_owner(claimant, &self.sessions, &mut self.metrics)?
            }
            false => EndsForeign(false),
        };
        Ok(ends_foreign)
    }

    /// Checks whether a client may publish its Will. Returns whether something else than a rule allows it; none while the
    /// decision is pending.
    pub(in crate::engine) fn check_will(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        client_identifier: &str,
        user: Option<&str>,
    ) -> Result<Option<bool>, Rejection> {
        let Some(will) = &connect.will else { return Ok(Some(false)) };
        let text = Text::new(client_identifier);
        let who = Identity { exchange: exchange(id), client_identifier: &text };
        let (qos, retain) = (will.qos, will.retain);
        let (topic, payload_bytes) = (will.topic, will.payload.len());
        let message = Message { topic, payload_bytes, qos, retain };
        match self.access.may_publish(self.now, &who, &message, &mut self.work) {
            Decision::Allowed(()) => {}
            Decision::Pending => return Ok(None),
            // Dropped when it is due.
            Decision::Denied if self.access.read_rules().is_some() => return Ok(Some(false)),
            Decision::Denied => {
                return Err(Rejection::new(ReasonCode::NotAuthorized, Cause::WillNotAllowed)
                    .with_detail(will.topic));
            }
        }
        let content = Content {
            topic: will.topic,
            payload: will.payload,
            passed_on: &[],
            expires: None,
            qos,
        };
        let listener = self.connections[id].listener;
        let owner = WillOwner { user, client_identifier: &text, listener };
        let Self { access, work, .. } = self;
        Ok(Some(!access.may_publish_will(&owner, &content, retain, false, work)))
    }

    /// Ends the connection of a client whose credentials were withdrawn; whether the client stays.
    pub(in crate::engine) fn check_credentials(&mut self, session: SessionId) -> bool {
        let Some(id) = self.sessions[session].connection else { return true };
        let Some(reason) = self.access.withdrawn(exchange(id)) else { return true };
        self.metrics.credentials_withdrawn += 1;
        self.end_connection(id, Ending::Server(reason, Cause::CredentialsWithdrawn));
        false
    }

    /// Checks whether the time for which a client may stay is over.
    pub(in crate::engine) fn check_stay(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(until) = connection.extra.as_ref().and_then(|extra| extra.stays_until) else {
            return;
        };
        if until.is_due(now) {
            self.metrics.stays_ended += 1;
            let (reason, cause) = (ReasonCode::MaximumConnectTime, Cause::CredentialsExpired);
            return self.end_connection(id, Ending::Server(reason, cause));
        }
        self.timers.arm_ahead(now, until, Timer::Stay(id));
    }
}

impl Connections {
    fn send_auth(&mut self, id: ConnectionId, reason: ReasonCode, method: &str, data: &[u8]) {
        let auth = Auth {
            reason,
            authentication_method: Some(method),
            authentication_data: (!data.is_empty()).then_some(data),
            reason_string: None,
            user_properties: UserProperties::none(),
        };
        self.send(id, |out| Packet::Auth(auth).encode(Version::V5, out));
    }

    /// Limits how long a client may stay: as long as the access control says, or for ever, but no longer than
    /// its certificate is valid.
    pub fn limit_stay(
        &mut self,
        id: ConnectionId,
        valid_for: Option<Duration>,
        timers: &mut Timers,
        now: Now,
    ) {
        let Some(connection) = self.get_mut(id) else { return };
        let by_grant = valid_for.map(|valid_for| now.after(valid_for));
        let by_certificate = connection.certificate().and_then(|shown| shown.valid_until);
        let Some(until) = by_grant.into_iter().chain(by_certificate).min() else {
            if let Some(extra) = &mut connection.extra {
                extra.stays_until = None;
            }
            return;
        };
        let before = connection.extra.get_or_insert_default().stays_until.replace(until);
        // A timer checks repeatedly until the time is over: one is enough unless it fires too late.
        if before.is_none_or(|before| until < before) {
            timers.arm_ahead(now, until, Timer::Stay(id));
        }
    }
}

/// Logs that the session of a Client Identifier ends because it belonged to another user.
pub(super) fn note_foreign_end(
    client_identifier: &str,
    user: Option<&str>,
    sessions: &SessionTable,
    now: Now,
) {
    let session = sessions.find(client_identifier);
    let owner = session.and_then(|session| sessions[session].owner());
    rated!(
        info,
        now,
        client = name(client_identifier),
        user = user.map(name),
        owner = owner.map(name),
        "ended: the session of this Client Identifier belonged to another user, or to none"
    );
}

/// A client that claims the session of a Client Identifier.
#[derive(Clone, Copy)]
struct Claimant<'a> {
    client_identifier: &'a str,
    user: Option<&'a str>,
    /// Its right to the Client Identifier.
    claim: IdentifierClaim,
}

/// Whether the session of a Client Identifier is somebody else's, and ends for this user: one of
/// nobody always does, that of another user where the identifier is this one's or, while nobody is
/// connected with it, where a rule lets this one have it.
fn check_owner(
    Claimant { client_identifier, user, claim }: Claimant<'_>,
    sessions: &SessionTable,
    metrics: &mut Metrics,
) -> Result<EndsForeign, Rejection> {
    let session = sessions.find(client_identifier);
    let Some(session) = session.map(|session| &sessions[session]) else {
        return Ok(EndsForeign(false));
    };
    if session.owner() == user {
        return Ok(EndsForeign(false));
    }
    let owner = session.owner();
    let may_end = match claim {
        IdentifierClaim::Own => true,
        IdentifierClaim::Allowed => session.connection.is_none(),
        IdentifierClaim::Open | IdentifierClaim::Denied => false,
    };
    // Subscriptions and messages of no user are not this user's.
    if owner.is_none() || may_end {
        return Ok(EndsForeign(true));
    }
    metrics.sessions_guarded += 1;
    let detail = format!(
        "it belongs to the user {} and ends {} s after that client has left, when that user connects with Clean \
         Start, or by `broker store end-session`",
        Name(owner.unwrap_or_default()),
        session.expiry_interval_s
    );
    let rejection = Rejection::new(ReasonCode::NotAuthorized, Cause::SessionOfAnotherUser);
    Err(rejection.with_detail(detail))
}
