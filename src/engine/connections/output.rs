//! Outboxes, and their way to the executor.

use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::base::send_buffer::SendBuffer;
use crate::engine::action::Action;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::Connection;
use crate::resources::gauges::Ledger;
use crate::transport::{Scratch, Transport};
use crate::wire::{Ack, Packet, PacketIdentifier, ReasonCode};

/// The connections with something to send, and memory for what they send.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// In the order in which output was queued: a subscriber is sent a message before its publisher is
    /// acknowledged. Each connection is there once, which
    /// [`Connection::is_dirty`](crate::engine::connections::connection::Connection::is_dirty) says. A turn
    /// empties the list.
    dirty: Vec<ConnectionId>,
    /// How many of them have been served.
    served: usize,
    /// Empty outboxes for reuse.
    pool: Vec<SendBuffer>,
    /// Connections whose transport cannot send any more, to be ended.
    broken: Vec<ConnectionId>,
    /// For what goes through transports.
    scratch: Scratch,
}

/// Bytes that wait to be taken by a client and are on the ledger of its core: those of the last turn's end, less what
/// was written since.
#[derive(Debug, Default)]
pub(super) struct OutputCharge(u32);

/// Output of one connection as it is counted in its state: `limits.outbox_bytes_max` is at most 1 GiB, and what may
/// exceed it is one packet of at most 256 MiB and answers of bounded size.
#[inline]
fn narrow(bytes: usize) -> u32 {
    debug_assert!(u32::try_from(bytes).is_ok());
    bytes as u32
}

impl OutputCharge {
    /// Charges for all of `pending` bytes.
    #[inline]
    fn raise(&mut self, ledger: &Ledger, pending: usize) {
        ledger.charge_output(pending.saturating_sub(self.bytes()));
        self.0 = self.0.max(narrow(pending));
    }

    /// Releases bytes that do not wait any more.
    #[inline]
    fn lower(&mut self, ledger: &Ledger, bytes: usize) {
        self.0 -= narrow(bytes);
        ledger.release_output(bytes);
    }

    /// Bytes on the ledger.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0 as usize
    }
}

impl Output {
    pub fn has_dirty(&self) -> bool {
        self.served < self.dirty.len()
    }

    #[inline]
    fn mark_dirty(&mut self, id: ConnectionId, connection: &mut Connection) {
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Keeps an empty buffer for the next connection that needs one.
    #[inline]
    fn recycle(&mut self, mut buffer: SendBuffer) {
        if self.pool.len() < limits::POOLED_OUTBOXES_MAX
            && buffer.capacity() <= limits::POOLED_OUTBOX_BYTES_MAX
        {
            buffer.clear();
            self.pool.push(buffer);
        }
    }
}

impl Connections {
    /// The outbox of a connection, which is sent at the end of the turn.
    #[inline]
    pub fn outbox(&mut self, id: ConnectionId) -> &mut SendBuffer {
        let Self { slots, output, .. } = self;
        let connection = &mut slots[id];
        output.mark_dirty(id, connection);
        connection.outbox.get_or_insert_with(|| output.pool.pop().unwrap_or_default())
    }

    /// Checks at the end of the turn whether a connection has something to send.
    pub fn mark_dirty(&mut self, id: ConnectionId) {
        self.output.mark_dirty(id, &mut self.slots[id]);
    }

    /// Appends one packet other than PUBLISH.
    pub fn send(&mut self, id: ConnectionId, encode: impl FnOnce(&mut Vec<u8>)) {
        self.counts.other_packets_sent += 1;
        self.outbox(id).append(encode);
    }

    /// Appends a packet, unless it is larger than the client takes [MQTT-3.1.2-24]; whether it did.
    pub fn send_fitting(&mut self, id: ConnectionId, packet: &Packet<'_>) -> bool {
        let connection = &self.slots[id];
        let version = connection.version;
        if connection.packet_bytes_max == u32::MAX {
            self.send(id, |out| packet.encode(version, out));
            return true;
        }
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        let fits = bytes.len() <= connection.client_packet_bytes_max() as usize;
        if fits {
            self.send(id, |out| out.extend_from_slice(&bytes));
        }
        fits
    }

    /// Appends PUBREL.
    pub fn send_pubrel(
        &mut self,
        id: ConnectionId,
        identifier: PacketIdentifier,
        reason: ReasonCode,
    ) {
        let version = self.slots[id].version;
        let ack = Ack::new(identifier, reason);
        self.send(id, |out| Packet::Pubrel(ack).encode(version, out));
    }

    /// The connection whose output [`Self::next_send`] gives to the executor next.
    pub fn next_to_send(&self) -> Option<ConnectionId> {
        let Output { dirty, served, .. } = &self.output;
        let sends = |id: &&ConnectionId| self.slots.get(**id).is_some_and(Connection::sends_now);
        dirty[*served..].iter().find(sends).copied()
    }

    /// The next buffer to send, if any connection has one and the executor has none of it.
    pub fn next_send(&mut self) -> Option<Action> {
        while let Some(&id) = self.output.dirty.get(self.output.served) {
            self.output.served += 1;
            let Some(connection) = self.slots.get_mut(id) else { continue };
            connection.is_dirty = false;
            let pending = connection.pending_bytes();
            connection.charged.raise(self.place.ledger(), pending);
            if connection.is_deaf() {
                connection.outbox = None; // the peer cannot read it
                continue;
            }
            if connection.is_sending || connection.is_withheld {
                continue; // sent later, when the executor returns its buffer or the store has the session
            }
            if connection.transport.is_some() {
                match self.next_wrapped(id) {
                    Some(send) => return Some(send),
                    None => continue,
                }
            }
            let Some(buffer) = connection.outbox.take() else { continue };
            return Some(connection.give_to_executor(id, buffer));
        }
        self.output.dirty.clear();
        self.output.served = 0;
        None
    }

    /// The next buffer of a connection with something between MQTT and its socket.
    #[cold]
    fn next_wrapped(&mut self, id: ConnectionId) -> Option<Action> {
        let Self { slots, output, place, .. } = self;
        let spare = output.pool.pop().unwrap_or_default();
        let connection = slots.get_mut(id)?;
        let transport = connection.transport.as_mut()?;
        if transport.is_offloading() {
            output.recycle(spare);
            return None; // sent later, when the kernel has taken or refused the keys
        }
        let outbox = connection.outbox.take();
        if outbox.is_none() && !transport.has_something_to_say() {
            output.recycle(spare);
            return None;
        }
        let outbox = outbox.unwrap_or_default();
        let (wrapped, rest) = transport.wrap(outbox, spare, &mut output.scratch);
        if transport.is_broken() {
            output.broken.push(id);
        }
        // The wrapped bytes count, which are more than the plain ones that waited.
        connection.charged.raise(place.ledger(), wrapped.len());
        let send = (!wrapped.is_empty()).then(|| connection.give_to_executor(id, wrapped));
        output.recycle(rest);
        send
    }

    /// The executor wrote `bytes`, and returns the buffer when it is empty.
    pub fn sent(&mut self, id: ConnectionId, bytes: usize, drained: Option<SendBuffer>) {
        self.counts.bytes_sent += bytes as u64;
        let is_drained = drained.is_some();
        if let Some(buffer) = drained {
            self.output.recycle(buffer);
        }
        let Some(connection) = self.slots.get_mut(id) else { return };
        connection.sending -= narrow(bytes);
        connection.charged.lower(self.place.ledger(), bytes);
        connection.traffic.note_sent(bytes);
        if let Some(congestion) = connection.congestion_mut() {
            congestion.taken += bytes as u64;
        }
        if is_drained {
            debug_assert_eq!(connection.sending, 0);
            connection.is_sending = false;
            if connection.has_something_to_send() {
                self.output.mark_dirty(id, connection);
            }
        }
    }

    /// Nothing can be sent to the peer any more: the executor has dropped what it had to write.
    pub fn drop_unsent(&mut self, id: ConnectionId) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        let unsent = std::mem::take(&mut connection.sending) as usize;
        connection.charged.lower(self.place.ledger(), unsent);
        connection.is_sending = false;
        self.output.mark_dirty(id, connection);
    }

    /// Lets the transport of a connection do something, with scratch memory; the ledger follows what it
    /// holds then. A transport that does nothing to bytes any more is dropped.
    pub fn with_transport<R>(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut Transport, &mut Scratch) -> R,
    ) -> Option<R> {
        let connection = self.slots.get_mut(id)?;
        let transport = connection.transport.as_deref_mut()?;
        let (input_before, state_before) = (transport.bytes_held(), transport.state_bytes());
        let outcome = act(transport, &mut self.output.scratch);
        let (input, state) = match transport.is_spent() {
            true => {
                connection.transport = None;
                (0, 0)
            }
            false => (transport.bytes_held(), transport.state_bytes()),
        };
        self.ledger().change_input(input_before, input);
        self.ledger().change(state_before, state);
        Some(outcome)
    }

    /// The last bytes of a connection that has been taken out, as its transport sends them.
    pub fn wrap_last(
        &mut self,
        transport: &mut Transport,
        last: Option<SendBuffer>,
    ) -> Option<SendBuffer> {
        transport.close(last, &mut self.output.scratch)
    }

    /// The MQTT that the last transport brought; [`Self::recycle_plain`] brings the memory back.
    pub fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output.scratch.plain)
    }

    /// Brings back the memory of [`Self::take_plain`].
    pub fn recycle_plain(&mut self, plain: Vec<u8>) {
        self.output.scratch.plain = plain;
        self.output.scratch.clear();
    }

    /// Withholds the output of a connection, its CONNACK first, until records are stored.
    pub fn withhold_output(&mut self, id: ConnectionId) {
        if let Some(connection) = self.slots.get_mut(id) {
            connection.is_withheld = true;
        }
    }

    /// The records are stored: the output of the connection is sent.
    pub fn release_output(&mut self, id: ConnectionId) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        connection.is_withheld = false;
        if connection.has_something_to_send() {
            self.output.mark_dirty(id, connection);
        }
    }

    /// The next connection whose transport cannot send any more.
    pub fn next_broken(&mut self) -> Option<ConnectionId> {
        self.output.broken.pop()
    }
}

impl Connection {
    fn give_to_executor(&mut self, id: ConnectionId, buffer: SendBuffer) -> Action {
        self.is_sending = true;
        self.sending = narrow(buffer.len());
        Action::Send { connection: id, buffer }
    }

    /// Whether the outbox leaves in this turn.
    fn sends_now(&self) -> bool {
        let is_offloading = self.transport.as_ref().is_some_and(|of| of.is_offloading());
        let waits = self.is_sending || self.is_withheld || is_offloading;
        self.outbox.is_some() && !waits && !self.is_deaf()
    }

    fn has_something_to_send(&self) -> bool {
        let transport = self.transport.as_ref();
        self.outbox.is_some() || transport.is_some_and(|t| t.has_something_to_say())
    }
}
