//! Input of connections that have a transport (TLS, WebSocket, PROXY) below MQTT. TLS handshakes cost the
//! most: a turn takes a limited number of handshake steps, so that a crowd of new clients does not
//! delay the clients that are connected.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Peer};
use crate::base::limits;
use crate::base::log_rate::{Name, rated};
use crate::base::metrics::Metrics;
use crate::config::Limits;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Connection, Hold, Phase};
use crate::engine::packets::disconnect::Ending;
use crate::engine::{Action, Engine};
use crate::transport::{Fault, Handshake, Layer, ListenerPolicies, Received};

/// TLS handshakes that wait for a later turn, and the handshake steps left in this one.
#[derive(Debug)]
pub(super) struct HandshakeQueue {
    waiting: VecDeque<ConnectionId>,
    waiting_max: usize,
    steps_left: u32,
    steps_per_turn: u32,
}

impl HandshakeQueue {
    pub fn new(limits: &Limits) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_max: limits.tls_handshakes_waiting_max as usize,
            steps_left: limits.tls_handshakes_per_turn_max,
            steps_per_turn: limits.tls_handshakes_per_turn_max,
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a step for input that has just arrived. None is left for such input while earlier
    /// handshakes wait.
    fn take_step(&mut self) -> bool {
        let has_step = self.steps_left > 0 && self.waiting.is_empty();
        self.steps_left -= u32::from(has_step);
        has_step
    }

    /// The next handshake, if a step is left; [`Self::note_step`] takes the step.
    #[inline]
    pub fn pop(&mut self) -> Option<ConnectionId> {
        if self.steps_left == 0 {
            return None;
        }
        self.waiting.pop_front()
    }

    fn note_step(&mut self) {
        self.steps_left -= 1;
    }

    /// Adds a handshake; false when too many wait. A handshake that has begun is finished first, so that
    /// the first clients of a crowd connect at once and not all of them at the end. A client that
    /// trickles its bytes goes to the end of the queue.
    fn push(&mut self, id: ConnectionId, is_half_through: bool) -> bool {
        if self.waiting.len() >= self.waiting_max {
            return false;
        }
        match is_half_through {
            true => self.waiting.push_front(id),
            false => self.waiting.push_back(id),
        }
        true
    }

    #[inline]
    pub fn end_turn(&mut self) {
        self.steps_left = self.steps_per_turn;
    }
}

impl Engine {
    /// Sets the policy of each listener, by its number. Listeners without one accept plain MQTT.
    pub fn set_listeners(&mut self, policies: ListenerPolicies) {
        self.listeners.set_policies(policies);
    }

    /// Bytes arrived on a connection that has a transport.
    pub(in crate::engine) fn handle_wrapped(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.timing.note_heard();
        let Some(transport) = &connection.transport else { return };
        if transport.is_laborious() && !self.listeners.handshakes.take_step() {
            return self.put_off_handshake(id, bytes);
        }
        self.unwrap(id, bytes);
    }

    /// Keeps handshake bytes for a later turn. The socket is not read meanwhile, except for one more
    /// buffer that may be under way.
    fn put_off_handshake(&mut self, id: ConnectionId, bytes: &[u8]) {
        let kept = self.connections.with_transport(id, |transport, _| {
            let (was_waiting, is_begun) = (transport.is_waiting(), transport.is_half_through());
            (was_waiting, is_begun, transport.keep_waiting(bytes), transport.bytes_held())
        });
        let Some((was_waiting, is_begun, waiting, held)) = kept else { return };
        if waiting > limits::HANDSHAKE_BYTES_MAX {
            return self.fail(id, "TLS", "more than 128 KiB before the handshake is through");
        }
        if !self.has_room_for_input(held, 0, false) {
            return self.end_for_input(id);
        }
        if was_waiting {
            return;
        }
        if !self.listeners.handshakes.push(id, is_begun) {
            self.metrics.connections_refused += 1;
            return self.end_connection(id, Ending::Silent);
        }
        self.metrics.tls_waited += 1;
        self.connections.push_action(Action::Pause { connection: id });
    }

    /// Whether work waits for a later turn so that other clients are served first.
    pub fn has_put_off(&self) -> bool {
        self.listeners.has_handshakes() || self.has_overdue()
    }

    /// Continues the next TLS handshake, if one waits and the turn has a step left.
    pub(in crate::engine) fn continue_handshake(&mut self) -> bool {
        while let Some(id) = self.listeners.next_handshake() {
            let bytes =
                self.connections.with_transport(id, |transport, _| transport.take_waiting());
            let Some(bytes) = bytes else { continue };
            self.listeners.handshakes.note_step();
            // First, as what follows may pause the connection again.
            self.connections.push_action(Action::Resume { connection: id });
            self.unwrap(id, &bytes);
            return true;
        }
        false
    }

    /// Takes bytes through the transport, and handles the MQTT that comes out of it.
    fn unwrap(&mut self, id: ConnectionId, bytes: &[u8]) {
        let unwrapped = self.connections.with_transport(id, |transport, scratch| {
            let (held_before, awaited) = (transport.bytes_held(), transport.awaits_address());
            let outcome = transport.receive(bytes, scratch);
            let has_address = awaited && !transport.awaits_address();
            let held = transport.bytes_held();
            (outcome, has_address, transport.has_something_to_say(), held, held > held_before)
        });
        let Some((mut outcome, has_address, has_output, held, holds_more)) = unwrapped else {
            return;
        };
        if has_output {
            self.connections.mark_dirty(id);
        }
        let mut plain = self.connections.take_plain();
        if let Ok(received) = &mut outcome {
            self.connections.note_handshake(id, received, &mut self.metrics, self.now);
            if has_address {
                self.note_address(id, received.address);
            }
        }
        if has_address && outcome.is_err() {
            // The address was lost with the error.
            plain.clear();
        }
        if !plain.is_empty() {
            self.handle_mqtt(id, &plain);
        }
        let has_room = !holds_more || self.has_room_for_input(held, 0, false);
        match outcome {
            Err(Fault { layer, what }) => {
                if layer == Layer::ClientCertificate
                    && let Some(connection) = self.connections.get_mut(id)
                {
                    log_refused_certificate(connection, self.now, &what);
                }
                self.fail(id, layer.name(), &what);
            }
            Ok(_) if !has_room => self.end_for_input(id),
            Ok(Received { is_ended: true, .. }) => self.end_of_input(id),
            Ok(_) => self.connections.continue_to_end(id),
        }
        self.connections.recycle_plain(plain);
    }

    /// A proxy has named the address of its client, or said that it speaks for itself. The connection
    /// counts for that address from here on; until now it counted for none.
    fn note_address(&mut self, id: ConnectionId, address: Option<SocketAddr>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.address = address.or(connection.address);
        let peer = Peer { address: connection.address, listener: connection.listener };
        if !self.access.may_stay(self.now, &peer) {
            return self.end_connection(id, Ending::Silent);
        }
        self.connections[id].phase = Phase::Connecting { elsewhere: false, awaits_address: false };
    }

    /// The bytes of a connection are invalid below MQTT. The peer gets a reason if its transport allows;
    /// packets that came before are served first.
    pub(in crate::engine) fn fail(&mut self, id: ConnectionId, layer: &'static str, what: &str) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (address, listener) = (connection.address, connection.listener);
        self.metrics.transport_faults += 1;
        tracing::debug!(?address, listener, layer, "connection ended: {}", Name(what));
        self.end_of_input(id);
    }

    /// The transport of a connection cannot send any more. The connection ends once everything that it
    /// has received is served.
    pub(in crate::engine) fn end_broken(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.holds.is_ending() {
            return self.end_connection(id, Ending::Silent);
        }
        connection.holds.set(Hold::Deaf);
        self.connections.continue_to_end(id);
    }
}

impl Connections {
    /// Notes what the layers below MQTT found out about a client: a handshake that is complete, and whom
    /// its certificate names.
    fn note_handshake(
        &mut self,
        id: ConnectionId,
        received: &mut Received,
        metrics: &mut Metrics,
        now: Now,
    ) {
        if let Some(certificate) = received.proxied.take()
            && let Some(connection) = self.get_mut(id)
        {
            connection.extra.get_or_insert_default().certificate = Some(certificate);
        }
        let Some(handshake) = received.handshake else { return };
        metrics.tls_handshakes += 1;
        metrics.tls_resumed += u64::from(handshake == Handshake::Resumed);
        let Some(valid_for) = received.certificate_valid_for else { return };
        let Some(transport) = self.get_mut(id).and_then(|c| c.transport.as_mut()) else { return };
        if let Some(certificate) = transport.certificate_mut() {
            certificate.valid_until = Some(now.after(valid_for));
        }
    }
}

/// Logs which client certificate was refused and why; the client learns only the type of the failure.
fn log_refused_certificate(connection: &Connection, now: Now, what: &str) {
    let (address, listener) = (connection.address, connection.listener);
    let address = address.map(tracing::field::display);
    rated!(info, now, address, listener, "a client's certificate is refused: {what}");
}
