//! Bytes from a client: cut into packets, decoded, dispatched by phase and type.

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId};
use crate::base::limits;
use crate::base::log_rate::{name, rated};
use crate::base::metrics::Drop as DropCause;
use crate::config::Limits;
use crate::engine::Engine;
use crate::engine::connections::connection::{Connection, Hold, Phase};
use crate::engine::packets::disconnect::Ending;
use crate::engine::work::BYTES_PER_STEP;
use crate::session::outbound::Ack;
use crate::session::state::Session;
use crate::wire::violation::Violation;
use crate::wire::{self, Disconnect, Frame, Packet, PacketType, ReasonCode, Version};

impl Connection {
    /// The largest size of the next packet: that of CONNECT until the client is admitted.
    pub(in crate::engine) fn packet_bytes_max(&self, limits: &Limits) -> usize {
        match self.phase {
            Phase::Open { .. } => limits.packet_bytes_max as usize,
            _ => limits.connect_bytes_max as usize,
        }
    }
}

impl Engine {
    /// Bytes arrived on a connection.
    pub fn handle_received(&mut self, now: Now, id: ConnectionId, bytes: &[u8]) {
        self.set_now(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let has_transport = connection.transport.is_some();
        self.metrics.bytes_received += bytes.len() as u64;
        match has_transport {
            false => self.handle_mqtt(id, bytes),
            true => self.handle_wrapped(id, bytes),
        }
    }

    /// MQTT arrived on a connection.
    pub(in crate::engine) fn handle_mqtt(&mut self, id: ConnectionId, bytes: &[u8]) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.session() {
            Some(_) => connection.last_received = now,
            None => connection.timing.note_heard(),
        }
        let must_wait = connection.defers_input();
        let takes_slowly = connection.is_sending;
        let speaks_mqtt = match connection.phase {
            Phase::Connecting { .. } if connection.stash().is_empty() => {
                wire::may_begin_connect(bytes)
            }
            _ => true,
        };
        if !speaks_mqtt {
            // The end of an HTTP request's "packet" would never come [MQTT-3.1.0-1].
            self.violate(id, Violation::FirstPacketNotConnect);
        } else if must_wait {
            if connection.holds.has(Hold::Left) {
                return; // [MQTT-3.14.4-1]
            }
            self.stash(id, bytes, 0);
            self.connections.defer_input(id);
        } else if self.work.is_spent() {
            self.connections.mark_untouched(id);
            self.stash(id, bytes, 0);
        } else if takes_slowly && self.holds_for_answers(id) {
            self.stash(id, bytes, 0);
        } else {
            self.take_in(id, bytes);
        }
    }

    /// Keeps input for later, as the start of a packet of `need` bytes where that is known; ends the
    /// connection where there is no room. The executor reads at most one more buffer after a `Pause`.
    fn stash(&mut self, id: ConnectionId, bytes: &[u8], need: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let is_whole = connection.defers_input();
        let before = connection.input_bytes();
        let after = before + connection.stash_growth(bytes.len(), need);
        if !self.has_room_for_input(after, after - before, is_whole) {
            return self.end_for_input(id);
        }
        self.connections.extend_stash(id, bytes, need, now);
        self.work.spend_bytes(bytes.len());
        self.connections.time_packet(id, &self.config.protection, &mut self.timers, now);
    }

    /// Processes what is stashed and then `bytes`, without copying any packet that lies whole in
    /// `bytes`; what is left is stashed. Once the budget is spent the rest waits for a later turn.
    pub(in crate::engine) fn take_in(&mut self, id: ConnectionId, mut bytes: &[u8]) {
        let is_next = loop {
            let is_spent = self.work.is_spent();
            let Some(connection) = self.connections.get_mut(id) else { return };
            let has_stash = connection.stash_began().is_some();
            if connection.is_held() || !has_stash || is_spent {
                break !has_stash;
            }
            let packet_bytes_max = connection.packet_bytes_max(&self.config.limits);
            let (missing, need) = match wire::frame(connection.stash(), packet_bytes_max) {
                Err(violation) => {
                    // The protocol version may be in the bytes that follow.
                    let begun = [connection.stash(), bytes].concat();
                    return self.refuse_frame(id, &begun, violation);
                }
                Ok(Frame::Complete { .. }) => (0, 0),
                Ok(Frame::Incomplete { need }) => {
                    (need.saturating_sub(connection.stash().len()).max(1), need)
                }
            };
            if missing > 0 {
                if bytes.is_empty() {
                    return;
                }
                let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
                bytes = rest;
                self.stash(id, taken, need);
                continue;
            }
            let Some(mut stash) = self.connections.take_stash(id) else { return };
            let used = self.take_packets(id, stash.bytes());
            stash.advance(used);
            let Self { connections, config, timers, now, .. } = self;
            connections.put_back(id, stash, &config.protection, timers, *now);
        };
        let used = if is_next { self.take_packets(id, bytes) } else { 0 };
        if is_next && used == bytes.len() {
            return;
        }
        if used < bytes.len() {
            let rest = &bytes[used..];
            if self.work.is_spent() {
                self.connections.mark_ready(id);
            }
            let need = self.connections.get_mut(id).map_or(0, |connection| {
                match wire::frame(rest, connection.packet_bytes_max(&self.config.limits)) {
                    Ok(Frame::Incomplete { need }) => need,
                    _ => 0,
                }
            });
            self.stash(id, rest, need);
        }
        if self.work.is_spent()
            && let Some(connection) = self.connections.get_mut(id)
            && !connection.is_held()
            && !connection.stash().is_empty()
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
            let packet_bytes_max = match self.connections.get_mut(id) {
                Some(connection) if !connection.is_held() && !is_spent => {
                    connection.packet_bytes_max(&self.config.limits)
                }
                _ => return used,
            };
            match wire::frame(&bytes[used..], packet_bytes_max) {
                Ok(Frame::Complete { header, total }) => {
                    self.work.spend(1 + total / BYTES_PER_STEP);
                    self.handle_packet(id, &bytes[used..used + total], header);
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
            _ => self.violate(id, violation),
        }
    }

    pub(in crate::engine) fn handle_packet(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
        header: usize,
    ) {
        self.metrics.packets_received += 1;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let version = connection.version;
        let outcome = match connection.phase {
            Phase::Connecting { .. } => return self.handle_first_packet(id, frame),
            Phase::Leaving(_) => unreachable!("its input is held"),
            Phase::Authenticating(_) => self.handle_while_authenticating(id, frame),
            Phase::Open { session } => {
                if self.config.bounds_rates {
                    let Self { connections, config, timers, metrics, .. } = self;
                    let protection = &config.protection;
                    let is_throttled =
                        connections.count_packet(id, frame, protection, timers, self.now);
                    metrics.clients_throttled += u64::from(is_throttled);
                }
                if frame.len() > limits::PROPERTIES_LOOK_BYTES
                    && let Err(violation) =
                        check_properties(&self.config.limits, frame, header, version)
                {
                    return self.violate(id, violation);
                }
                self.handle_open(id, session, frame, header, version)
            }
        };
        if let Err(violation) = outcome {
            self.violate(id, violation);
        }
    }

    /// Handles a packet of an open connection. The most common packets have a decoder of their own, as
    /// [`Packet`] is a large value to move.
    #[inline]
    fn handle_open(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        frame: &[u8],
        header: usize,
        version: Version,
    ) -> Result<(), Violation> {
        match wire::packet_type(frame) {
            Some(PacketType::Publish) => match &wire::decode_publish(frame, header, version) {
                Ok(publish) => self.handle_publish(id, session, publish),
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
                self.connections.send(id, |out| Packet::Pingresp.encode(version, out));
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
    pub(in crate::engine) fn violate(&mut self, id: ConnectionId, violation: Violation) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let address = connection.address;
        self.metrics.violations += 1;
        tracing::debug!(?address, clause = violation.clause(), "protocol violation: {violation}");
        self.end_connection(id, Ending::Violation(violation));
    }

    /// Counts messages lost on the way to a client, by cause and by client.
    #[inline]
    pub(in crate::engine) fn count_drops(
        &mut self,
        session: SessionId,
        cause: DropCause,
        messages: u64,
    ) {
        if messages > 0 {
            self.metrics.drops.add(cause, messages);
            count_dropped(&mut self.sessions[session], cause, messages, self.now);
        }
    }
}

/// Checks the size of the properties, which are decoded one by one before the rest of the packet: millions
/// of them would take a turn by themselves.
#[cold]
fn check_properties(
    limits: &Limits,
    frame: &[u8],
    header: usize,
    version: Version,
) -> Result<(), Violation> {
    let bytes_max = limits.properties_bytes_max as usize;
    let bytes = wire::properties_bytes(frame, header).filter(|_| version == Version::V5);
    match bytes.is_some_and(|bytes| bytes > bytes_max) {
        true => Err(Violation::PropertiesTooLarge),
        false => Ok(()),
    }
}

/// Counts messages to a client that were dropped; the first is logged.
#[cold]
fn count_dropped(session: &mut Session, cause: DropCause, messages: u64, now: Now) {
    let extra = session.extra.get_or_insert_default();
    if extra.drops.is_none() {
        rated!(
            warn,
            now,
            client = name(session.client_identifier.as_str()),
            ?cause,
            "messages to this client are being dropped; the total follows when it leaves"
        );
    }
    extra.drops.get_or_insert_default().add(cause, messages);
}
