//! Connections with something between socket and MQTT (`crate::transport`): bytes go through it, and a
//! core does so many steps of TLS handshakes a turn and no more, so that those who are in do not wait
//! for a crowd that comes.

use std::net::SocketAddr;

use crate::base::ids::{ConnectionId, Peer};
use crate::base::limits;
use crate::base::log_rate::{Name, rated};
use crate::engine::connections::connection::{Connection, Hold, Phase};
use crate::engine::packets::disconnect::Ending;
use crate::engine::{Action, Engine, Refused};
use crate::transport::{Entrance, Entrances, Fault, Handshake, Layer, Received};

impl Engine {
    /// Says what is spoken at each listener, by its number. Those it does not name speak plain MQTT.
    pub fn open_to(&mut self, entrances: Entrances) {
        self.entrances = entrances;
    }

    fn entrance(&self, listener: u16) -> Option<&Entrance> {
        self.entrances.get(usize::from(listener))
    }

    /// Lets a connection through its listener's bound, and gives it what it has before MQTT.
    pub(in crate::engine) fn enter(
        &self,
        peer: &Peer,
        connection: &mut Connection,
    ) -> Result<(), Refused> {
        let Some(entrance) = self.entrance(peer.listener) else { return Ok(()) };
        if !entrance.enter() {
            return Err(Refused);
        }
        connection.transport = entrance.transport_for(peer);
        if connection.bytes_charged() > 0 && self.memory_is_overdrawn() {
            // They would take ever more before they can be told that memory is full.
            entrance.leave();
            return Err(Refused);
        }
        Ok(())
    }

    /// A connection of that listener has ended.
    pub(in crate::engine) fn leave_entrance(&self, listener: u16) {
        if let Some(entrance) = self.entrance(listener) {
            entrance.leave();
        }
    }

    /// Bytes arrived on a connection that has something before MQTT.
    pub(in crate::engine) fn handle_wrapped(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.links.get(id) else { return };
        connection.timing.note_heard();
        let Some(transport) = &connection.transport else { return };
        if transport.is_laborious() {
            // Whoever waits already comes first.
            if self.handshakes_left == 0 || !self.handshakes.is_empty() {
                return self.put_off_handshake(id, bytes);
            }
            self.handshakes_left -= 1;
        }
        self.unwrap(id, bytes);
    }

    /// Keeps what came for a later turn. Its socket is not read meanwhile; one more buffer may come.
    fn put_off_handshake(&mut self, id: ConnectionId, bytes: &[u8]) {
        let handshakes_max = self.settings.limits.tls_handshakes_waiting_max as usize;
        let Some(connection) = self.links.get(id) else { return };
        let Some(transport) = &mut connection.transport else { return };
        let (was_waiting, is_half_through) = (transport.is_waiting(), transport.is_half_through());
        let before = transport.bytes_held();
        let waiting = transport.keep_waiting(bytes);
        let after = transport.bytes_held();
        self.links.ledger.change_input(before, after);
        if waiting > limits::HANDSHAKE_BYTES_MAX {
            return self.fail(id, "TLS", "more than 128 KiB before the handshake is through");
        }
        if !self.has_room_for_input(after, 0, false) {
            return self.end_for_input(id);
        }
        if was_waiting {
            return;
        }
        if self.handshakes.len() >= handshakes_max {
            self.links.metrics.connections_refused += 1;
            return self.end_connection(id.slot, Ending::Silent);
        }
        self.links.metrics.tls_waited += 1;
        // What has been begun is finished first: so the first of a crowd are in at once, and not all
        // of them at the very end. Who trickles goes to the end of the line.
        match is_half_through {
            true => self.handshakes.push_front(id),
            false => self.handshakes.push_back(id),
        }
        self.links.actions.push_back(Action::Pause { connection: id });
    }

    /// Whether there is work that waits for its turn so that others need not wait for it.
    pub fn has_put_off(&self) -> bool {
        !self.handshakes.is_empty() || self.has_overdue()
    }

    /// Goes on with the handshake whose turn it is, if there is one and the turn allows for it.
    pub(in crate::engine) fn go_on_with_handshake(&mut self) -> bool {
        while self.handshakes_left > 0 {
            let Some(id) = self.handshakes.pop_front() else { return false };
            let Some(connection) = self.links.get(id) else { continue };
            let Some(transport) = &mut connection.transport else { continue };
            let before = transport.bytes_held();
            let bytes = transport.take_waiting();
            let after = transport.bytes_held();
            self.links.ledger.change_input(before, after);
            self.handshakes_left -= 1;
            // Before what may pause it again.
            self.links.actions.push_back(Action::Resume { connection: id });
            self.unwrap(id, &bytes);
            return true;
        }
        false
    }

    /// Takes bytes through the transport, and what comes out of it as MQTT.
    fn unwrap(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.links.get(id) else { return };
        let Some(mut transport) = connection.transport.take() else { return };
        let mut scratch = std::mem::take(&mut self.links.scratch);
        let held_before = transport.bytes_held();
        let awaited_address = transport.awaits_address();
        let mut outcome = transport.receive(bytes, &mut scratch);
        let has_address = awaited_address && !transport.awaits_address();
        let has_something_to_say = transport.has_something_to_say();
        let held = transport.bytes_held();
        self.links.ledger.change_input(held_before, held);
        if !transport.is_spent() {
            let Some(connection) = self.links.get(id) else { return };
            connection.transport = Some(transport);
        }
        if has_something_to_say {
            self.links.mark_dirty(id.slot);
        }
        if let Ok(received) = &mut outcome {
            self.note_received(id, received);
            if has_address {
                self.note_address(id, received.address);
            }
        }
        let mut plain = std::mem::take(&mut scratch.plain);
        if has_address && outcome.is_err() {
            // Whose it is has got lost with it.
            plain.clear();
        }
        if !plain.is_empty() {
            self.handle_mqtt(id, &plain);
        }
        let has_room = held <= held_before || self.has_room_for_input(held, 0, false);
        match outcome {
            Err(Fault { layer, what }) => {
                if layer == Layer::ClientCertificate {
                    self.log_certificate(id, &what);
                }
                self.fail(id, layer.name(), &what);
            }
            Ok(_) if !has_room => self.end_for_input(id),
            Ok(Received { is_ended: true, .. }) => self.end_of_input(id),
            Ok(_) => self.go_on_to_end(id),
        }
        scratch.plain = plain;
        scratch.clear();
        self.links.scratch = scratch;
    }

    fn note_received(&mut self, id: ConnectionId, received: &mut Received) {
        if let Some(certificate) = received.proxied.take()
            && let Some(connection) = self.links.get(id)
        {
            connection.extra.get_or_insert_default().certificate = Some(certificate);
        }
        let Some(handshake) = received.handshake else { return };
        self.links.metrics.tls_handshakes += 1;
        self.links.metrics.tls_resumed += u64::from(handshake == Handshake::Resumed);
        let Some(valid_for) = received.certificate_valid_for else { return };
        let until = self.now.after(valid_for);
        let Some(transport) = self.links.get(id).and_then(|c| c.transport.as_mut()) else { return };
        if let Some(certificate) = transport.certificate_mut() {
            certificate.valid_until = Some(until);
        }
    }

    /// A proxy has said where its client is, or that it speaks for itself: what counts is where the
    /// connection comes from in truth, and until now it counted for nobody.
    fn note_address(&mut self, id: ConnectionId, address: Option<SocketAddr>) {
        let Some(connection) = self.links.get(id) else { return };
        connection.address = address.or(connection.address);
        let peer = Peer { address: connection.address, listener: connection.listener };
        if !self.access.may_stay(self.now, &peer) {
            return self.end_connection(id.slot, Ending::Silent);
        }
        self.links.connections[id.slot as usize].phase =
            Phase::Connecting { elsewhere: false, awaits_address: false };
    }

    /// A client's certificate is refused: whoever runs the broker is to see which and why, as the client
    /// is told no more than the kind of it.
    fn log_certificate(&mut self, id: ConnectionId, what: &str) {
        let Some(connection) = self.links.get(id) else { return };
        let (address, listener) = (connection.address, connection.listener);
        let address = address.map(tracing::field::display);
        rated!(info, self.now, address, listener, "a client's certificate is refused: {what}");
    }

    /// What came is of no use before it is MQTT: the peer is told as far as there are words for it. What
    /// came before it is served first.
    pub(in crate::engine) fn fail(&mut self, id: ConnectionId, layer: &'static str, what: &str) {
        let Some(connection) = self.links.get(id) else { return };
        let (address, listener) = (connection.address, connection.listener);
        self.links.metrics.transport_faults += 1;
        tracing::debug!(?address, listener, layer, "connection ended: {}", Name(what));
        self.end_of_input(id);
    }

    /// A connection's transport has nothing more to say: it ends, once what came before is served.
    pub(in crate::engine) fn end_broken(&mut self, id: ConnectionId) {
        let Some(connection) = self.links.get(id) else { return };
        if !connection.holds.is_ending() {
            return self.end_connection(id.slot, Ending::Silent);
        }
        connection.holds.set(Hold::Deaf);
        self.go_on_to_end(id);
    }
}
