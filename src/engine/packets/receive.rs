//! Bytes from a client: cut into packets, decoded, dispatched by phase and type.

use crate::base::ids::{ConnectionId, SessionId};
use crate::base::limits;
use crate::config::Limits;
use crate::engine::Engine;
use crate::engine::client_log::{Claimed, Why};
use crate::engine::connections::connection::{Hold, Phase};
use crate::engine::connections::ending::Ending;
use crate::engine::packets::publish::Taken;
use crate::engine::work::BYTES_PER_STEP;
use crate::session::outbound::Ack;
use crate::wire::violation::Violation;
use crate::wire::{self, Disconnect, Frame, Packet, PacketType, ReasonCode, Version};

impl Engine {
    /// Stops reading a client that does not read its answers, as its packets would only add to them;
    /// whether it did.
    pub(in crate::engine) fn holds_for_answers(&mut self, id: ConnectionId) -> bool {
        let is_full = self.memory.is_full();
        let outbox_bytes_max = self.config.limits.outbox_bytes_max as usize;
        let Some(connection) = self.connections.get(id) else { return false };
        let unsent = connection.outbox.as_ref().map_or(0, |outbox| outbox.len());
        let (unsent_max, pending_max) = match is_full {
            false => (limits::UNSENT_ANSWERS_BYTES_MAX, outbox_bytes_max),
            true => (limits::UNSENT_ANSWERS_BYTES_MIN, limits::UNSENT_ANSWERS_BYTES_MIN),
        };
        if unsent <= unsent_max || connection.pending_bytes() <= pending_max {
            return false;
        }
        // While the executor has no buffer, the answers do not wait for the client. A client that is gone
        // reads nothing any more.
        if !connection.is_sending || connection.is_deaf() {
            return false;
        }
        self.metrics.clients_unread += 1;
        self.connections.hold(id, Hold::Answers);
        true
    }

    /// MQTT arrived on a connection.
    #[inline]
    pub(in crate::engine) fn handle_mqtt(&mut self, id: ConnectionId, bytes: &[u8]) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.session() {
            Some(_) => connection.last_received = now,
            None => connection.timing.note_heard(),
        }
        let must_wait = connection.defers_input();
        let has_buffered = connection.input_began().is_some();
        let takes_slowly = connection.is_sending;
        let speaks_mqtt = match connection.phase {
            Phase::Connecting { .. } if connection.input().is_empty() => {
                wire::may_begin_connect(bytes)
            }
            _ => true,
        };
        if !speaks_mqtt {
            // The end of an HTTP request's "packet" would never come [MQTT-3.1.0-1].
            self.violate(id, Violation::FirstPacketNotConnect, None);
        } else if must_wait {
            if connection.holds.has(Hold::Left) {
                return; // [MQTT-3.14.4-1]
            }
            self.buffer_input(id, bytes, 0);
            self.connections.defer_input(id);
        } else if self.work.is_spent() {
            self.connections.mark_untouched(id);
            self.buffer_input(id, bytes, 0);
        } else if takes_slowly && self.holds_for_answers(id) {
            self.buffer_input(id, bytes, 0);
        } else if has_buffered {
            self.take_in(id, bytes);
        } else {
            self.take_arrived(id, bytes);
        }
    }

    /// Keeps input for later, as the start of a packet of `need` bytes where that is known; ends the
    /// connection where there is no room. The executor reads at most one more buffer after a `Pause`.
    fn buffer_input(&mut self, id: ConnectionId, bytes: &[u8], need: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let is_whole = connection.defers_input();
        let before = connection.input_bytes();
        let after = before + connection.input_growth(bytes.len(), need);
        if !self.memory.has_room_for_input(after, after - before, is_whole) {
            return self.end_for_input(id);
        }
        self.connections.extend_input(id, bytes, need, now);
        self.work.spend_bytes(bytes.len());
        self.connections.time_packet(id, &self.config.protection, &mut self.timers, now);
    }

    /// Processes what is buffered and then `bytes`, without copying any packet that lies whole in
    /// `bytes`; what is left is buffered. Once the budget is spent the rest waits for a later turn.
    pub(in crate::engine) fn take_in(&mut self, id: ConnectionId, mut bytes: &[u8]) {
        let is_next = loop {
            let is_spent = self.work.is_spent();
            let Some(connection) = self.connections.get_mut(id) else { return };
            let has_buffered = connection.input_began().is_some();
            if connection.is_held() || !has_buffered || is_spent {
                break !has_buffered;
            }
            let packet_bytes_max = connection.packet_bytes_max(&self.config);
            let (missing, need) = match wire::frame(connection.input(), packet_bytes_max) {
                Err(violation) => {
                    // The protocol version may be in the bytes that follow.
                    let begun = [connection.input(), bytes].concat();
                    return self.refuse_frame(id, &begun, violation);
                }
                Ok(Frame::Complete { .. }) => (0, 0),
                Ok(Frame::Incomplete { need }) => {
                    (need.saturating_sub(connection.input().len()).max(1), need)
                }
            };
            if missing > 0 {
                if bytes.is_empty() {
                    return;
                }
                let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
                bytes = rest;
                self.buffer_input(id, taken, need);
                continue;
            }
            let Some(mut input) = self.connections.take_input(id) else { return };
            let used = self.take_packets(id, input.bytes());
            input.advance(used);
            let Self { connections, config, timers, now, .. } = self;
            connections.put_back(id, input, &config.protection, timers, *now);
        };
        match is_next {
            true => self.take_arrived(id, bytes),
            false => self.keep_rest(id, bytes),
        }
    }

    /// Processes the packets that lie whole in `bytes` while nothing is buffered, and buffers the rest.
    #[inline]
    fn take_arrived(&mut self, id: ConnectionId, bytes: &[u8]) {
        let used = self.take_packets(id, bytes);
        if used < bytes.len() {
            self.keep_rest(id, &bytes[used..]);
        }
    }

    /// Buffers what is left of the input. Once the budget is spent, the connection continues in a later turn.
    fn keep_rest(&mut self, id: ConnectionId, rest: &[u8]) {
        if !rest.is_empty() {
            if self.work.is_spent() {
                self.connections.mark_ready(id);
            }
            let need = self.connections.get_mut(id).map_or(0, |connection| {
                match wire::frame(rest, connection.packet_bytes_max(&self.config)) {
                    Ok(Frame::Incomplete { need }) => need,
                    _ => 0,
                }
            });
            self.buffer_input(id, rest, need);
        }
        if self.work.is_spent()
            && let Some(connection) = self.connections.get_mut(id)
            && !connection.is_held()
            && !connection.input().is_empty()
        {
            self.connections.mark_ready(id);
            self.connections.defer_input(id);
        }
    }

    /// Processes the packets that lie whole in `bytes`; returns how many bytes they were. Stops
    /// when the connection ends, is to be slowed, or the budget is spent.
    fn take_packets(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let is_spent = self.work.is_spent();
            let ((packet_bytes_max, open), version) = match self.connections.get(id) {
                Some(connection) if !connection.is_held() && !is_spent => {
                    (connection.taken(&self.config), connection.version)
                }
                _ => return used,
            };
            match wire::frame(&bytes[used..], packet_bytes_max) {
                Ok(Frame::Complete { header, total }) => {
                    self.work.spend(1 + total / BYTES_PER_STEP);
                    let frame = &bytes[used..used + total];
                    match open {
                        Some(session) => self.handle_packet(id, session, frame, header, version),
                        None => self.handle_early_packet(id, frame),
                    }
                    used += total;
                }
                Ok(Frame::Incomplete { .. }) => return used,
                Err(violation) => {
                    self.refuse_frame(id, &bytes[used..], violation);
                    return used;
                }
            }
            if used == bytes.len() {
                return used;
            }
        }
    }

    /// Handles bytes with which no packet may begin. A CONNECT that is too large is refused like any other.
    fn refuse_frame(&mut self, id: ConnectionId, bytes: &[u8], violation: Violation) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.phase {
            Phase::Connecting { .. } if violation == Violation::PacketTooLarge => {
                self.refuse_malformed(id, bytes, Violation::ConnectTooLarge);
            }
            _ => self.violate(id, violation, wire::packet_type(bytes)),
        }
    }

    /// Handles a packet of a connection that is not open yet, or of a client with a mount point.
    fn handle_early_packet(&mut self, id: ConnectionId, frame: &[u8]) {
        let Some(connection) = self.connections.get(id) else { return };
        if let Phase::Mounted { session, .. } = connection.phase {
            return self.handle_mounted_packet(id, session, frame);
        }
        self.metrics.packets_received += 1;
        match connection.phase {
            Phase::Connecting { .. } => {
                if self.observers.watch.shows_packets() {
                    self.show_received(id, frame);
                }
                self.handle_first_packet(id, frame);
            }
            Phase::Authenticating(_) => {
                if self.observers.watch.shows_packets() {
                    self.show_received(id, frame);
                }
                if let Err(violation) = self.handle_while_authenticating(id, frame) {
                    self.violate(id, violation, wire::packet_type(frame));
                }
            }
            Phase::Leaving(_) => unreachable!("its input is held"),
            Phase::Open { .. } | Phase::Mounted { .. } => unreachable!("it has a session"),
        }
    }

    /// Handles a packet of an open connection. Inlined, because every packet passes here.
    #[inline(always)]
    pub(in crate::engine) fn handle_packet(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        frame: &[u8],
        header: usize,
        version: Version,
    ) {
        self.metrics.packets_received += 1;
        if self.observers.watch.watches_packets() {
            self.watch_packet(id, frame);
        }
        let is_small = frame.len() <= limits::PROPERTIES_LOOK_BYTES
            || are_properties_small(&self.config.limits, frame, header, version);
        let outcome = match is_small {
            true => self.handle_open(id, session, frame, header, version),
            false => Err(Violation::PropertiesTooLarge),
        };
        if let Err(violation) = outcome {
            self.violate(id, violation, wire::packet_type(frame));
        }
    }

    /// Counts a packet for the client's rate limit, and shows it, where that is asked for.
    pub(super) fn watch_packet(&mut self, id: ConnectionId, frame: &[u8]) {
        if self.observers.watch.shows_packets() {
            self.show_received(id, frame);
        }
        if self.observers.watch.samples() {
            self.sample_received(id, frame);
        }
        if self.config.bounds_rates {
            let Self { connections, config, timers, metrics, now, .. } = self;
            let is_throttled =
                connections.count_packet(id, frame, &config.protection, timers, *now);
            metrics.clients_throttled += u64::from(is_throttled);
        }
    }

    /// Handles a packet of an open connection. The most common packets have a decoder of their own, as
    /// [`Packet`] is a large value to move.
    #[inline]
    pub(super) fn handle_open(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        frame: &[u8],
        header: usize,
        version: Version,
    ) -> Result<(), Violation> {
        match wire::packet_type(frame) {
            Some(PacketType::Publish) => match &wire::decode_publish(frame, header, version) {
                Ok(publish) => match self.handle_publish(id, session, publish) {
                    Ok(Taken::Done) => Ok(()),
                    Ok(Taken::Waits) => {
                        self.keep_publish(id, frame);
                        Ok(())
                    }
                    Err(violation) => Err(violation),
                },
                Err(violation) => Err(*violation),
            },
            Some(
                kind @ (PacketType::Puback
                | PacketType::Pubrec
                | PacketType::Pubrel
                | PacketType::Pubcomp),
            ) => match &wire::decode_ack(kind, frame, header, version) {
                Ok(ack) => {
                    self.handle_acknowledgement(id, session, kind, ack);
                    Ok(())
                }
                Err(violation) => Err(*violation),
            },
            _ if frame == wire::PINGREQ => {
                self.flush_fan_out_batch();
                self.connections.send(id, |out| out.extend_from_slice(&wire::PINGRESP));
                Ok(())
            }
            _ => match &wire::decode_framed(frame, header, version) {
                Ok(packet) => self.handle_other(id, session, packet),
                Err(violation) => Err(*violation),
            },
        }
    }

    #[inline]
    fn handle_acknowledgement(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        kind: PacketType,
        ack: &wire::Ack<'_>,
    ) {
        let identifier = ack.packet_identifier;
        match kind {
            PacketType::Pubrel => self.handle_pubrel(id, session, identifier),
            PacketType::Pubrec => {
                let refused = ack.reason as u8 >= 0x80;
                self.handle_ack(id, session, identifier, Ack::Pubrec { refused });
            }
            PacketType::Pubcomp => self.handle_ack(id, session, identifier, Ack::Pubcomp),
            _ => self.handle_ack(id, session, identifier, Ack::Puback),
        }
    }

    /// Handles packets that may change who receives which messages.
    fn handle_other(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        packet: &Packet<'_>,
    ) -> Result<(), Violation> {
        match packet {
            Packet::Subscribe(subscribe) => self.handle_subscribe(id, session, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(id, session, unsubscribe),
            Packet::Disconnect(disconnect) => self.handle_disconnect(id, session, disconnect),
            Packet::Auth(auth) => self.handle_auth(id, auth),
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => Err(Violation::SecondConnect),
            _ => Err(Violation::UnexpectedPacket),
        }
    }

    fn handle_disconnect(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        disconnect: &Disconnect<'_>,
    ) -> Result<(), Violation> {
        if let Some(interval_s) = disconnect.session_expiry_interval {
            let session = &mut self.sessions[session];
            // [MQTT-3.14.2-2] and 3.14.2.2.2: zero at CONNECT stays zero.
            if session.expiry_interval_s == 0 && interval_s > 0 {
                return Err(Violation::SessionExpiryIntervalSetAtDisconnect);
            }
            session.expiry_interval_s = interval_s.min(self.config.limits.session_expiry_max_s);
        }
        let publishes_will = disconnect.reason != ReasonCode::Success;
        let ending = Ending::Client { publishes_will };
        if !self.connections.leaves_later(id, &mut self.timers, self.now) {
            self.end_connection(id, ending);
        } else if !publishes_will {
            self.dispose_will(session, ending); // [MQTT-3.14.4-3]
        }
        Ok(())
    }

    /// Closes the connection of a peer that broke the protocol, with the reason where its version has one
    /// [MQTT-4.13.1-1].
    #[cold]
    pub(in crate::engine) fn violate(
        &mut self,
        id: ConnectionId,
        violation: Violation,
        packet: Option<PacketType>,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let is_admitted = connection.session().is_some();
        self.metrics.violations += 1;
        if !is_admitted {
            self.log_refusal(id, Claimed::default(), Why::violation(violation, packet));
        }
        self.end_connection(id, Ending::Violation(violation, packet));
    }
}

/// Checks the size of the properties, which are decoded one by one before the rest of the packet: millions
/// of them would take a turn by themselves.
#[cold]
pub(super) fn are_properties_small(
    limits: &Limits,
    frame: &[u8],
    header: usize,
    version: Version,
) -> bool {
    let bytes_max = limits.properties_bytes_max as usize;
    let bytes = wire::properties_bytes(frame, header).filter(|_| version == Version::V5);
    bytes.is_none_or(|bytes| bytes <= bytes_max)
}
