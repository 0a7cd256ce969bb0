//! Input of connections that have a transport (TLS, WebSocket, PROXY) below MQTT. TLS handshakes cost the
//! most: a turn takes a limited number of handshake steps, so that a crowd of new clients does not
//! delay the clients that are connected.

use std::net::SocketAddr;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::engine::cause::Cause;
use crate::engine::client_log::Claimed;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Hold, Phase};
use crate::engine::connections::ending::Ending;
use crate::engine::{Action, Engine};
use crate::transport::{Fault, Handshake, Layer, ListenerPolicies, Received};

/// WebSocket frames per step of the turn's budget.
const FRAMES_PER_STEP: usize = 4;

/// Bytes that are decrypted and unframed between two checks of the budget.
const UNWRAPPED_AT_ONCE: usize = 4 * 1024;

impl Engine {
    /// Sets the policy of each listener, by its number. Listeners without one accept plain MQTT.
    pub fn set_listeners(&mut self, policies: ListenerPolicies) {
        self.listeners.set_policies(policies);
    }

    /// Bytes arrived on a connection.
    pub fn handle_received(&mut self, now: Now, id: ConnectionId, bytes: &[u8]) {
        self.set_now(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let has_transport = connection.transport.is_some();
        connection.traffic.note_received(bytes.len());
        self.metrics.bytes_received += bytes.len() as u64;
        match has_transport {
            false => self.handle_mqtt(id, bytes),
            true => self.handle_wrapped(id, bytes),
        }
    }

    /// Bytes arrived on a connection that has a transport.
    pub(in crate::engine) fn handle_wrapped(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.timing.note_heard();
        let Some(transport) = &connection.transport else { return };
        if transport.is_laborious() && !self.listeners.handshakes.take_step() {
            return self.put_off_handshake(id, bytes);
        }
        if self.work.is_spent() || transport.is_waiting() {
            return self.put_off_input(id, bytes);
        }
        self.unwrap(id, bytes);
    }

    /// Keeps bytes as they came, because the budget of the turn is spent.
    fn put_off_input(&mut self, id: ConnectionId, bytes: &[u8]) {
        let held = self.connections.with_transport(id, |transport, _| {
            transport.keep_waiting(bytes);
            transport.bytes_held()
        });
        let Some(held) = held else { return };
        if !self.memory.has_room_for_input(held, 0, false) {
            return self.end_for_input(id);
        }
        self.work.spend_bytes(bytes.len());
        self.connections.mark_untouched(id);
        self.connections.defer_input(id);
    }

    /// Processes bytes that were kept as they came, as far as the budget goes.
    pub(in crate::engine) fn unwrap_waiting(&mut self, id: ConnectionId) {
        loop {
            let is_spent = self.work.is_spent();
            let Some(connection) = self.connections.get_mut(id) else { return };
            let Some(transport) = &connection.transport else { return };
            // The handshake has a queue of its own.
            if !transport.is_waiting() || transport.is_laborious() || connection.is_held() {
                return;
            }
            if is_spent {
                return self.connections.mark_ready(id);
            }
            let part = self
                .connections
                .with_transport(id, |transport, _| transport.take_waiting_part(UNWRAPPED_AT_ONCE));
            self.unwrap(id, &part.unwrap_or_default());
        }
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
            let what = "more than 128 KiB before the handshake is through".to_owned();
            return self.fail(id, Fault { layer: Layer::Tls, what });
        }
        if !self.memory.has_room_for_input(held, 0, false) {
            return self.end_for_input(id);
        }
        if was_waiting {
            return;
        }
        if !self.listeners.handshakes.push(id, is_begun) {
            self.metrics.connections_refused += 1;
            self.log_refusal(id, Claimed::default(), Cause::HandshakesWaiting);
            return self.end_connection(id, Ending::Silent);
        }
        self.metrics.tls_waited += 1;
        self.connections.push_action(Action::Pause { connection: id });
    }

    /// Whether work waits for a later turn so that other clients are served first.
    pub fn has_put_off(&self) -> bool {
        self.listeners.has_handshakes() || self.connections.has_overdue()
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
        self.work.spend_bytes(bytes.len());
        if let Ok(received) = &mut outcome {
            self.work.spend(received.frames / FRAMES_PER_STEP);
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
        let has_room = !holds_more || self.memory.has_room_for_input(held, 0, false);
        match outcome {
            Err(fault) => self.fail(id, fault),
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
        connection.set_address(address.or(connection.address()));
        let peer = connection.peer();
        if let Err(cause) = self.access.may_stay(self.now, &peer) {
            self.log_refusal(id, Claimed::default(), cause);
            return self.end_connection(id, Ending::Silent);
        }
        self.connections[id].phase = Phase::Connecting { elsewhere: false, awaits_address: false };
    }

    /// The bytes of a connection are invalid below MQTT. The peer gets a reason if its transport allows;
    /// packets that came before are served first.
    pub(in crate::engine) fn fail(&mut self, id: ConnectionId, fault: Fault) {
        if self.connections.contains(id) {
            self.metrics.transport_faults += 1;
            self.end_for_fault(id, fault);
        }
    }

    /// Ends a connection because of a layer below MQTT, which the log says.
    pub(in crate::engine) fn end_for_fault(&mut self, id: ConnectionId, fault: Fault) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.session() {
            // The line about the end of the connection says why.
            Some(_) => connection.extra.get_or_insert_default().fault = Some(Box::new(fault)),
            None => self.log_refusal(id, Claimed::default(), &fault),
        }
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
