//! The end of connections and sessions: DISCONNECT, Session Expiry.

use crate::base::clock::Deadline;
use crate::base::ids::{ConnectionId, SessionId, SessionRef, exchange};
use crate::base::log_rate::rated;
use crate::base::metrics::Drop as DropCause;
use crate::engine::cause::Cause;
use crate::engine::connections::connection::{Hold, Phase};
use crate::engine::connections::ending::Ending;
use crate::engine::drops::report_drops;
use crate::engine::observers::Observers;
use crate::engine::routing::congestion::resume_waiting;
use crate::engine::{Action, Engine};
use crate::wire::ReasonCode;

impl Engine {
    /// Closes a connection and releases what depends on it.
    pub(in crate::engine) fn end_connection(&mut self, id: ConnectionId, ending: Ending) {
        self.flush_fan_out_batch();
        self.work.spend(4);
        let reference = ending.reason().and_then(|reason| self.server_reference(reason));
        self.connections.send_disconnect(id, ending, reference.as_deref());
        let (mut connection, last) = self.connections.remove(id);
        if self.observers.watch.shows_packets() {
            self.show_last(id, &connection, last.as_ref());
        }
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
        if let Some(session) = connection.session() {
            let Self {
                observers: Observers { log: client_log, .. }, listeners, sessions, now, ..
            } = self;
            client_log.disconnected(*now, listeners, &connection, &sessions[session], ending);
            self.report_disconnected(&connection, session, ending);
        }
        if connection.has_address() {
            self.access.gone(self.now, &connection.peer(), exchange(id), was_open);
        }
        self.access.forget(exchange(id));
        match connection.holds.has(Hold::Closed) {
            true => self.connections.free(id),
            false => self.connections.push_action(Action::Close { connection: id, last }),
        }
        if let Some(session) = connection.session() {
            self.metrics.clients_connected -= 1;
            self.detach_session(session, ending);
        } else {
            self.sweep_answered();
        }
    }

    /// Ends a connection that would hold more input than there is room for.
    pub(in crate::engine) fn end_for_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (address, held) = (connection.address(), connection.input_bytes());
        let (all, most) = (self.memory.ledger().input_bytes(), self.memory.input_bytes_max());
        self.metrics.input_refused += 1;
        let why = match self.memory.is_full() {
            true => "memory_bytes_max is reached, and unfinished input takes its share beyond it",
            false => "unfinished input of all connections takes a quarter of memory_bytes_max",
        };
        rated!(
            warn,
            self.now,
            ?address,
            held,
            input_bytes = all,
            input_bytes_max = most,
            "a connection ends that would hold more of an unfinished packet: {why}"
        );
        self.end_connection(id, Ending::Server(ReasonCode::QuotaExceeded, Cause::InputFull));
    }

    fn detach_session(&mut self, index: SessionId, ending: Ending) {
        let session = &mut self.sessions[index];
        session.connection = None;
        session.tidy();
        self.router.set_connected(index, &self.sessions[index].subscriptions, false);
        let session = &mut self.sessions[index];
        // They do not outlive the connection, unless they are queued for a client that is away.
        let stays = self.config.queues_qos_0(session) && session.is_persistent();
        let outbound = session.outbound.as_mut().filter(|_| !stays);
        let dropped = outbound.map_or(0, |outbound| outbound.drop_qos_0());
        self.count_drops(index, DropCause::Offline, dropped);
        report_drops(&self.sessions[index], self.now);
        self.dispose_will(index, ending);
        let session = &self.sessions[index];
        // Before the count below: a session that ends now was never "disconnected".
        self.metrics.clients_disconnected += 1;
        let ends_session = matches!(ending, Ending::TakenOver { ends_session: true, .. });
        if !session.is_persistent() || ends_session {
            return self.end_session(index);
        }
        self.redistribute_of_absent(index);
        self.empty_queue_of_absent(index);
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
            self.timers.arm_session(self.now, index, &mut self.sessions, deadline);
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
            self.timers.arm_session(self.now, index, &mut self.sessions, next);
        }
    }
}
