//! Who a client is, as the access control says it: answers that come later, whose session it may
//! have, and how long it may stay.

use std::time::Duration;

use shards::Text;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::base::log_rate::{name, rated};
use crate::engine::access::{Authentication, IdentifierClaim, Identity};
use crate::engine::connections::connection::{Hold, Phase};
use crate::engine::packets::connect::Refusal;
use crate::engine::packets::disconnect::Ending;
use crate::engine::{Engine, Timer};
use crate::resources::users::{Membership, QuotaExceeded};
use crate::wire::{Connect, ReasonCode};

/// Whether a session that is somebody else's ends, so that a new one can take its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct EndsForeign(pub bool);

impl Engine {
    /// Takes the answers that the access control has worked out meanwhile, and notices when its
    /// rules have changed. To be called once a turn.
    pub fn handle_answers(&mut self, now: Now) {
        self.set_now(now);
        while let Some((exchange, authentication)) = self.access.poll_answer(now) {
            let id = ConnectionId { slot: exchange as u32, generation: (exchange >> 32) as u32 };
            self.handle_authenticated(now, id, authentication);
        }
        // A change of the rules begins a check of all clients.
        self.access.recheck();
    }

    /// The answer to [`Authentication::Pending`] is there.
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
            self.go_on_authenticating(id, authentication, &connect);
        } else if connection.session().is_some() {
            self.go_on_reauthenticating(id, authentication);
        }
    }

    /// Not let in by the access control.
    pub(in crate::engine) fn turn_down(&mut self, id: ConnectionId, reason: ReasonCode) {
        self.metrics.clients_refused += 1;
        self.access.forget(exchange(id));
        self.refuse(id, reason);
    }

    /// What of a CONNECT depends on who it is from. Whether the session of its Client Identifier is
    /// somebody else's and ends.
    pub(in crate::engine) fn check_identity(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        client_identifier: &str,
        user: Option<&str>,
    ) -> Result<EndsForeign, Refusal> {
        let text = Text::new(client_identifier);
        let who = Identity { exchange: exchange(id), client_identifier: &text };
        let is_assigned = connect.client_identifier.is_empty();
        let claim = match is_assigned {
            true => IdentifierClaim::Open,
            false => self.access.claims_identifier(&who),
        };
        if claim == IdentifierClaim::Denied {
            self.metrics.identifiers_denied += 1;
            rated!(
                info,
                self.now,
                client = name(client_identifier),
                user = user.map(name),
                "refused: the rules do not let this user have this Client Identifier"
            );
            return Err(Refusal(ReasonCode::ClientIdentifierNotValid));
        }
        let claim = if connect.clean_start { claim } else { IdentifierClaim::Open };
        let ends_foreign = self.check_owner(client_identifier, user, claim)?;
        let Some(will) = &connect.will else { return Ok(ends_foreign) };
        match self.access.may_publish(&who, will.topic, will.qos, will.retain, &mut self.work) {
            true => Ok(ends_foreign),
            false => Err(Refusal(ReasonCode::NotAuthorized)),
        }
    }

    /// Whether the session of a Client Identifier is somebody else's, and ends for this user: one of
    /// nobody always does, that of another user where the identifier is this one's or, while nobody is
    /// connected with it, where a rule lets this one have it.
    fn check_owner(
        &mut self,
        client_identifier: &str,
        user: Option<&str>,
        claim: IdentifierClaim,
    ) -> Result<EndsForeign, Refusal> {
        let session = self.sessions.find(client_identifier);
        let session = session.filter(|_| self.config.bind_sessions);
        let Some(session) = session.map(|session| &self.sessions[session]) else {
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
        // What nobody subscribed to and left unfinished is not this user's.
        if owner.is_none() || may_end {
            return Ok(EndsForeign(true));
        }
        let session_expiry_interval_s = session.expiry_interval_s;
        self.metrics.sessions_guarded += 1;
        rated!(
            warn,
            self.now,
            client = name(client_identifier),
            user = user.map(name),
            owner = owner.map(name),
            session_expiry_interval_s,
            "refused: the session of this Client Identifier belongs to another user; it ends when it \
             expires, when that user connects with Clean Start, or who may have the identifier by a rule \
             `allow client` (while the session's client is away, unless the rule has %u or is for one \
             user), or with `broker store end-session` while the broker is stopped"
        );
        Err(Refusal(ReasonCode::NotAuthorized))
    }

    /// The session of a Client Identifier ends, as it is somebody else's.
    pub(in crate::engine) fn note_foreign_end(
        &mut self,
        client_identifier: &str,
        user: Option<&str>,
    ) {
        let session = self.sessions.find(client_identifier);
        let owner = session.and_then(|session| self.sessions[session].owner());
        rated!(
            info,
            self.now,
            client = name(client_identifier),
            user = user.map(name),
            owner = owner.map(name),
            "ended: the session of this Client Identifier was somebody else's, or nobody's"
        );
        self.metrics.foreign_sessions_ended += 1;
    }

    /// Counts a session for its user, where that is bounded. One that has it already keeps its place.
    pub(in crate::engine) fn enter_user(
        &self,
        client_identifier: &str,
        user: Option<&str>,
    ) -> Result<Option<Membership>, Refusal> {
        let protection = &self.config.protection;
        let Some(user) = user.filter(|_| protection.bounds_holdings()) else { return Ok(None) };
        let session = self.sessions.find(client_identifier);
        let is_its_own = session.is_some_and(|s| self.sessions[s].owner() == Some(user));
        let (users, ledger) = (self.place.users(), self.place.ledger());
        let entered = users.add_session(user, protection.sessions_per_user_max, is_its_own, ledger);
        entered.map(Some).map_err(|QuotaExceeded| Refusal(ReasonCode::QuotaExceeded))
    }

    /// The same for one that was kept: it stays, even if its user has more than one may by now.
    pub(in crate::engine) fn count_restored(&mut self, session: SessionId) {
        let (users, ledger) = (self.place.users(), self.place.ledger());
        let state = &mut self.sessions[session];
        if self.config.protection.bounds_holdings()
            && let Some(owner) = state.owner()
            && let Ok(membership) = users.add_session(owner, 0, false, ledger)
        {
            state.assign_to_user(membership);
        }
    }

    /// Ends the connection of a client whose credentials were withdrawn. Whether it goes on.
    pub(in crate::engine) fn check_credentials(&mut self, session: SessionId) -> bool {
        let Some(id) = self.sessions[session].connection else { return true };
        let Some(reason) = self.access.withdrawn(exchange(id)) else { return true };
        let client = self.sessions[session].client_identifier.as_str();
        let (client, why) = (name(client), reason.name());
        rated!(info, self.now, client, why, "disconnected: its credentials do not hold any more");
        self.metrics.credentials_withdrawn += 1;
        self.end_connection(id, Ending::Server(reason));
        false
    }

    /// The session is this user's from now on; true when it was nobody's, or another's, before.
    pub(in crate::engine) fn own(&mut self, session: SessionId, user: Option<&str>) -> bool {
        if self.sessions[session].owner() == user {
            return false;
        }
        // Where sessions are not bound to users, one may be handed on to a user.
        let Some(user) = user else { return false };
        self.sessions.set_owner(session, user);
        true
    }

    /// Lets a client stay for so long, or for ever, but no longer than its certificate is valid.
    pub(in crate::engine) fn limit_stay(&mut self, id: ConnectionId, valid_for: Option<Duration>) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let by_grant = valid_for.map(|valid_for| now.after(valid_for));
        let by_certificate = connection.certificate().and_then(|shown| shown.valid_until);
        let Some(until) = by_grant.into_iter().chain(by_certificate).min() else {
            if let Some(extra) = &mut connection.extra {
                extra.stays_until = None;
            }
            return;
        };
        let before = connection.extra.get_or_insert_default().stays_until.replace(until);
        // A timer looks again and again until the time is over: one is enough unless it is too
        // late.
        if before.is_none_or(|before| until < before) {
            self.timers.arm_ahead(now, until, Timer::Stay(id));
        }
    }

    /// The time for which a client may stay may be over.
    pub(in crate::engine) fn look_at_stay(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(until) = connection.extra.as_ref().and_then(|extra| extra.stays_until) else {
            return;
        };
        if until.is_due(now) {
            self.metrics.stays_ended += 1;
            return self.end_connection(id, Ending::Server(ReasonCode::MaximumConnectTime));
        }
        self.timers.arm_ahead(now, until, Timer::Stay(id));
    }
}
