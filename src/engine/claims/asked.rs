//! What other nodes say of sessions.

use crate::base::ids::{CoreId, SessionId};
use crate::engine::Engine;
use crate::engine::cause::{Cause, Rejection};
use crate::engine::claims::Waiting;
use crate::engine::claims::directory::Claim;
use crate::engine::claims::moves::Move;
use crate::engine::connections::ending::Ending;
use crate::engine::mesh::batch::Batch;
use crate::engine::mesh::session_message::{SessionMessage, SessionStep};
use crate::wire::ReasonCode;

/// A claim of another node.
struct Asked<'a> {
    client: &'a str,
    fingerprint: u64,
    claim: Claim,
    asks: bool,
    ends: bool,
    is_offered: bool,
    user: Option<&'a str>,
}

impl Engine {
    /// Handles what a node says of the session of a client.
    pub(in crate::engine) fn take_session_message(
        &mut self,
        from: CoreId,
        batch: &Batch,
        message: SessionMessage,
    ) {
        let (client, stamp) = (batch.text(message.client), message.stamp);
        let is_core = from.0 < self.mesh.cores();
        if !(is_core || self.mesh.is_member(from)) || !self.claims.covers(client) {
            return;
        }
        self.claims.directory.note_stamp(stamp);
        let claim = |engine: &Self| (stamp, engine.mesh.node_number(from));
        match message.step {
            SessionStep::Flush { to } => self.take_flush(from, client, stamp, to),
            SessionStep::Flushed { cores } => self.take_flushed(from, client, stamp, cores),
            SessionStep::Mark { cores } => self.take_mark(from, client, stamp, cores),
            // Cores of this node have nothing else to say.
            _ if is_core => {}
            SessionStep::Claim { asks, ends, refuses, is_offered, user } => {
                let user = user.map(|user| batch.text(user));
                let (fingerprint, claim) = (self.fingerprint(client), claim(self));
                let asked = Asked { client, fingerprint, claim, asks, ends, is_offered, user };
                self.take_claim(from, &asked, refuses);
            }
            SessionStep::Withdraw => {
                let (fingerprint, claim) = (self.fingerprint(client), claim(self));
                self.claims.directory.remove(fingerprint, claim);
                self.claims.emptying.forget(client);
                self.settle_claims();
                self.note_withdrawn(from, client, stamp);
            }
            SessionStep::Answer { has_session, is_absent, claimed } => {
                if is_absent {
                    self.note_absent(client, stamp);
                }
                self.take_answer(from, client, stamp, has_session.then_some(claimed));
            }
            SessionStep::Filters { is_last, records } => {
                self.take_filters(from, client, stamp, is_last, &records);
            }
            SessionStep::Ask { wants, nodes } => {
                self.take_ask(from, client, stamp, wants.then_some(nodes));
            }
            SessionStep::State { is_last, records } => {
                self.take_state(from, client, stamp, is_last, &records);
            }
            SessionStep::Offer { user } => {
                let user = user.map(|user| batch.text(user));
                self.take_offer(from, client, stamp, user);
            }
            SessionStep::Decline => self.claims.emptying.forget(client),
        }
    }

    /// The claim that counts so far.
    fn latest_claim(&self, asked: &Asked<'_>) -> Option<Claim> {
        let directory = &self.claims.directory;
        let waiting = self.claims.waiting.get(asked.client).map(|waiting| waiting.stamp);
        // A session that was restored has no claim of its own.
        let is_here = || self.sessions.find(asked.client).is_some();
        let own = waiting.or_else(|| directory.own_stamp(asked.fingerprint));
        let elsewhere = directory.elsewhere(asked.fingerprint);
        let own = own.or_else(|| (elsewhere.is_none() && is_here()).then_some(0));
        own.map(|stamp| (stamp, directory.own())).max(elsewhere)
    }

    fn take_claim(&mut self, from: CoreId, asked: &Asked<'_>, refuses: bool) {
        let &Asked { client, fingerprint, claim, asks, .. } = asked;
        if let Some(latest) = self.latest_claim(asked).filter(|&latest| latest > claim) {
            // The claimer may hear of the later claim from the node that has made it after all answers.
            if asks {
                self.answer_claim(from, client, latest.0.max(claim.0 + 1), None);
            }
            return;
        }
        if asks && !asked.ends && self.claims.directory.is_absent(fingerprint, self.now) {
            // A node that has just joined does not know.
            let answer = SessionStep::Answer { has_session: false, is_absent: true, claimed: 0 };
            return self.mesh.send_session(from, client, claim.0, |_| answer);
        }
        let session = self.sessions.find(client);
        if asked.is_offered && session.is_some_and(|of| self.sessions[of].connection.is_some()) {
            // Its client has come back meanwhile.
            return self.claim(client, claim.0, false);
        }
        if !asked.is_offered {
            self.durability.cancel_left_will(client);
        }
        let claimed = self.claimed(client, fingerprint);
        if let Some(stamp) = self.claims.directory.own_stamp(fingerprint) {
            // A node that has heard of the later claim and of its end would keep this one.
            self.mesh.send_session_to_all(client, stamp, |_| SessionStep::Withdraw);
        }
        self.claims.directory.set_claim(fingerprint, claim);
        self.settle_claims();
        self.abandon_waiting(client, refuses);
        let session = self.sessions.find(client);
        if asks && session.is_some_and(|session| self.is_guarded(session, asked.user)) {
            self.metrics.sessions_guarded += 1;
            return self.claim(client, claim.0, true);
        }
        let has_session = session.is_some_and(|session| self.let_go(session, asked));
        if asks {
            self.answer_claim(from, client, claim.0, has_session.then_some(claimed));
        }
        if has_session {
            self.begin_move(from, client, claim.0, claimed, asked.is_offered);
        }
    }

    /// A CONNECT that waits here is too late: its client is at another node.
    pub(super) fn abandon_waiting(&mut self, client: &str, refuses: bool) {
        let Some(waiting) = self.claims.waiting.remove(client) else { return };
        // A node that hears of the later claim and of its end first would keep this one.
        self.mesh.send_session_to_all(client, waiting.stamp, |_| SessionStep::Withdraw);
        if waiting.arrival.is_some()
            && let Some(session) = self.sessions.find(client)
        {
            // The node that it came from has it still.
            self.end_moved_session(session);
        }
        match refuses {
            true => {
                let (reason, cause) = (ReasonCode::NotAuthorized, Cause::SessionOfAnotherUser);
                let rejection = Rejection::new(reason, cause)
                    .with_detail("it belongs to another user at another node of the cluster");
                self.refuse_waiting(waiting.connection, client, &rejection);
            }
            false => self.give_way(waiting.connection, client),
        }
    }

    /// Whether a session is not given to a user who asks for it at another node.
    fn is_guarded(&self, session: SessionId, user: Option<&str>) -> bool {
        let owner = self.sessions[session].owner();
        self.config.bind_sessions && owner.is_some() && owner != user
    }

    /// The client of a session is at another node: its connection ends here. Whether the session is left, to move there.
    fn let_go(&mut self, session: SessionId, asked: &Asked<'_>) -> bool {
        // What belongs to nobody is not this user's.
        let is_nobodys = self.config.bind_sessions && self.sessions[session].owner() != asked.user;
        let ends_session = asked.ends || is_nobodys;
        self.end_connection_elsewhere(session, ends_session);
        let Some(session) = self.sessions.find(asked.client) else { return false };
        if ends_session {
            self.end_session(session);
        }
        !ends_session
    }

    /// Ends the connection of a session, if it has one, as its client is at another node.
    pub(super) fn end_connection_elsewhere(&mut self, session: SessionId, ends_session: bool) {
        if let Some(connection) = self.sessions[session].connection {
            self.metrics.takeovers += 1;
            let before = self.connections[connection].address();
            self.observers.log.taken_over(self.now, &self.sessions[session], None, before);
            self.end_connection(connection, Ending::TakenOver { ends_session, by: None });
        }
    }

    /// The stamp under which this node has claimed the session of a client that it has; 0 if it was restored.
    pub(super) fn claimed(&self, client: &str, fingerprint: u64) -> u64 {
        let own = self.claims.waiting.get(client).and_then(Waiting::copy);
        let own = own.or_else(|| self.claims.directory.own_stamp(fingerprint));
        own.or_else(|| self.claims.moves.get(client).map(Move::claimed)).unwrap_or(0)
    }

    /// Answers a claim: if the session follows, with the stamp under which it was claimed here. `stamp` is that of the claim,
    /// or of a later one.
    pub(super) fn answer_claim(
        &mut self,
        to: CoreId,
        client: &str,
        stamp: u64,
        claimed: Option<u64>,
    ) {
        let (has_session, claimed) = (claimed.is_some(), claimed.unwrap_or(0));
        let answer = SessionStep::Answer { has_session, is_absent: false, claimed };
        self.mesh.send_session(to, client, stamp, |_| answer);
    }

    /// Another node knows of a node that has left and has the session that is asked for.
    fn note_absent(&mut self, client: &str, stamp: u64) {
        let waiting = self.claims.waiting.get_mut(client);
        if let Some(waiting) = waiting.filter(|waiting| waiting.stamp == stamp) {
            waiting.is_absent = true;
        }
    }
}
