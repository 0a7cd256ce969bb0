//! The end of connections and sessions: DISCONNECT, Session Expiry.

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, Peer, SessionId, SessionRef, exchange};
use crate::base::log_rate::{name, rated};
use crate::base::metrics::Drop as DropCause;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Hold, Phase};
use crate::engine::routing::congestion::resume_waiting;
use crate::engine::{Action, Engine};
use crate::session::state::Session;
use crate::wire::violation::Violation;
use crate::wire::{Disconnect, Packet, ReasonCode, Version};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Ending {
    /// The network ended the connection, or its client has left and been answered.
    PeerClosed,
    /// The client sent DISCONNECT.
    Client {
        /// The Reason Code asks for the Will to be published.
        publishes_will: bool,
    },
    /// The server ends it, for this reason.
    Server(ReasonCode),
    /// The client broke the protocol.
    Violation(Violation),
    /// A later connection has the same Client Identifier.
    TakenOver {
        /// The later connection has Clean Start.
        ends_session: bool,
    },
    /// The broker stops.
    Shutdown,
    /// The server ends it without DISCONNECT.
    Silent,
}

impl Ending {
    /// The Reason Code of the DISCONNECT that is sent; none where none is.
    fn reason(self) -> Option<ReasonCode> {
        match self {
            Self::Server(reason) => Some(reason),
            Self::Violation(violation) => Some(violation.reason()),
            Self::TakenOver { .. } => Some(ReasonCode::SessionTakenOver),
            Self::Shutdown => Some(ReasonCode::ServerShuttingDown),
            Self::PeerClosed | Self::Client { .. } | Self::Silent => None,
        }
    }

    /// The Reason String, for a client that wants problem information.
    fn reason_string(self) -> Option<&'static str> {
        match self {
            Self::Violation(violation) => Some(violation.what()),
            _ => None,
        }
    }

    pub(in crate::engine) fn publishes_will(self) -> bool {
        match self {
            Self::Client { publishes_will } => publishes_will,
            Self::Shutdown => false,
            _ => true,
        }
    }
}

impl Connections {
    /// Sends DISCONNECT with a reason, where the client's version knows it and the client is admitted.
    fn send_disconnect(&mut self, id: ConnectionId, ending: Ending, server_reference: &str) {
        let Some(reason) = ending.reason() else { return };
        let connection = &self[id];
        if connection.version != Version::V5 || connection.session().is_none() {
            return;
        }
        // A server to go to turns "shutting down" into "use another server" [MQTT-4.11].
        let is_elsewhere = reason == ReasonCode::ServerShuttingDown && !server_reference.is_empty();
        let elsewhere = is_elsewhere.then(|| Disconnect {
            reason: ReasonCode::UseAnotherServer,
            server_reference: Some(server_reference),
            ..Disconnect::default()
        });
        // [MQTT-3.1.2-29]
        let reason_string =
            ending.reason_string().filter(|_| connection.wants_problem_information());
        let in_words = Disconnect { reason, reason_string, ..Disconnect::default() };
        let bare = Disconnect { reason, ..Disconnect::default() };
        // A client with a small Maximum Packet Size gets less detail, or none [MQTT-3.1.2-24],
        // [MQTT-3.14.2-3]. A Session Expiry Interval is in none of them [MQTT-3.14.2-2].
        let packets = elsewhere.into_iter().chain([in_words, bare]).map(Packet::Disconnect);
        for packet in packets {
            if self.send_fitting(id, &packet) {
                return;
            }
        }
    }
}

impl Engine {
    /// Closes a connection and releases what depends on it.
    pub(in crate::engine) fn end_connection(&mut self, id: ConnectionId, ending: Ending) {
        self.flush_fan_out_batch();
        self.work.spend(4);
        self.connections.send_disconnect(id, ending, &self.config.mqtt.server_reference);
        let (mut connection, last) = self.connections.remove(id);
        self.listeners.release(connection.listener);
        if let Phase::Leaving(_) = connection.phase {
            self.mesh.cancel_departure(id);
        }
        let last = match connection.transport.take() {
            _ if connection.is_deaf() => None,
            Some(mut transport) => self.connections.wrap_last(&mut transport, last),
            None => last,
        };
        if let Some(congestion) = connection.take_congestion() {
            let Self { connections, mesh, now, .. } = self;
            resume_waiting(congestion.waiting, connections, mesh, *now);
        }
        let was_open = connection.session().is_some();
        if connection.has_address() {
            let peer = Peer { address: connection.address, listener: connection.listener };
            self.access.gone(self.now, &peer, exchange(id), was_open);
        }
        self.access.forget(exchange(id));
        match connection.holds.has(Hold::Closed) {
            true => self.connections.free(id),
            false => self.connections.push_action(Action::Close { connection: id, last }),
        }
        if let Phase::Open { session } = connection.phase {
            self.metrics.clients_connected -= 1;
            self.detach_session(session, ending);
        }
    }

    fn detach_session(&mut self, index: SessionId, ending: Ending) {
        let session = &mut self.sessions[index];
        session.connection = None;
        session.tidy();
        self.router.set_connected(index, &self.sessions[index].subscriptions, false);
        let session = &mut self.sessions[index];
        let dropped = session.outbound.as_mut().map_or(0, |outbound| outbound.drop_qos_0());
        self.count_drops(index, DropCause::Offline, dropped);
        report_drops(&self.sessions[index], self.now);
        self.dispose_will(index, ending);
        let session = &self.sessions[index];
        tracing::debug!(client = name(session.client_identifier.as_str()), ?ending, "disconnected");
        // Before the count below: a session that ends now was never "disconnected".
        self.metrics.clients_disconnected += 1;
        if !session.is_persistent() || ending == (Ending::TakenOver { ends_session: true }) {
            return self.end_session(index);
        }
        self.redistribute_of_absent(index);
        let session = &mut self.sessions[index];
        if session.outbound.as_ref().is_some_and(|outbound| outbound.is_idle()) {
            session.outbound = None;
        }
        let is_mortal = session.expiry_interval_s < u32::MAX;
        self.durability.append_away(&self.sessions[index], self.now);
        if is_mortal {
            let session = &mut self.sessions[index];
            let deadline = self.now.after_s(u64::from(session.expiry_interval_s));
            session.expires = Some(deadline);
            self.arm_session(index, deadline);
        }
    }

    /// Checks a session whose timer fired: its Will or its expiry may be due.
    pub(in crate::engine) fn check_session(&mut self, session: SessionRef) {
        let now = self.now;
        let index = session.session;
        let Some(session) = self.sessions.resolve_mut(session) else { return };
        if session.timer.is_none_or(|armed| !armed.is_due(now)) {
            return;
        }
        session.timer = None;
        if session.connection.is_some() {
            return;
        }
        let is_due = |deadline: Option<Deadline>| deadline.is_some_and(|due| due.is_due(now));
        let expires = is_due(session.expires);
        if is_due(session.will.as_ref().and_then(|will| will.due)) {
            self.publish_will(index);
        }
        if expires {
            self.metrics.sessions_expired += 1;
            return self.end_session(index);
        }
        let session = &self.sessions[index];
        let will_due = session.will.as_ref().and_then(|will| will.due);
        if let Some(next) = session.expires.into_iter().chain(will_due).min() {
            self.arm_session(index, next);
        }
    }
}

fn report_drops(session: &Session, now: Now) {
    if let Some(drops) = session.extra.as_ref().and_then(|extra| extra.drops.as_ref()) {
        let (client, causes) = (name(session.client_identifier.as_str()), drops.summary());
        let dropped = drops.total();
        rated!(warn, now, client, dropped, causes, "messages were dropped");
    }
}
