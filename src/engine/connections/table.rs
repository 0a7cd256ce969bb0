//! The connections of one core and the frames on their way to them. Knows no session and no topic.

use std::collections::VecDeque;

use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::base::send_buffer::SendBuffer;
use crate::engine::action::Action;
use crate::engine::connections::connection::Connection;
use crate::engine::connections::slots::Slots;
use crate::resources::gauges::Ledger;
use crate::transport::{Scratch, Transport};

/// Connections, their outboxes, and what the executor is to do.
#[derive(Debug)]
pub struct Links {
    /// By slot.
    pub connections: Slots,
    /// Things to do other than sending.
    pub actions: VecDeque<Action>,
    /// Slots with something to send, in the order in which that came up: who got something first is
    /// served first, a subscriber before the publisher who is acknowledged. A turn empties it.
    dirty: Vec<u32>,
    /// How many of them have been served.
    served: usize,
    /// Empty outboxes for reuse.
    pool: Vec<SendBuffer>,
    /// Connections that cannot be told anything any more, to be ended.
    pub broken: Vec<ConnectionId>,
    /// For what goes through transports.
    pub scratch: Scratch,
    /// What all of it weighs.
    pub ledger: Ledger,
    /// MQTT packets appended to outboxes since the start.
    packets_sent: u64,
    /// Bytes that the executor has written since the start.
    bytes_sent: u64,
}

impl Links {
    /// Without connections yet.
    pub fn new(ledger: Ledger) -> Self {
        Self {
            connections: Slots::default(),
            actions: VecDeque::new(),
            dirty: Vec::new(),
            served: 0,
            pool: Vec::new(),
            broken: Vec::new(),
            scratch: Scratch::default(),
            ledger,
            packets_sent: 0,
            bytes_sent: 0,
        }
    }

    /// The connection, unless it is gone.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections
            .get_mut(id.slot as usize)
            .filter(|connection| connection.generation == id.generation)
    }

    /// The handle of the connection in `slot`.
    pub fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: self.connections[slot as usize].generation }
    }

    /// The outbox of a connection, which will be sent at the end of the turn.
    pub fn outbox(&mut self, slot: u32) -> &mut SendBuffer {
        let connection = &mut self.connections[slot as usize];
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(slot);
        }
        connection.outbox.get_or_insert_with(|| self.pool.pop().unwrap_or_default())
    }

    /// Looks at the end of the turn whether a connection has something to say.
    pub fn mark_dirty(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Appends one packet other than PUBLISH.
    pub fn send(&mut self, slot: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        self.count_packets(1);
        self.outbox(slot).append(encode);
    }

    /// Counts packets that were appended to outboxes as bytes.
    #[inline]
    pub fn count_packets(&mut self, packets: u64) {
        self.packets_sent += packets;
    }

    /// MQTT packets appended to outboxes, and bytes written by the executor, since the start.
    pub fn sent_totals(&self) -> (u64, u64) {
        (self.packets_sent, self.bytes_sent)
    }

    /// Whether there is an action, or a connection that may have something to send.
    pub fn has_something_to_do(&self) -> bool {
        !self.actions.is_empty() || self.served < self.dirty.len()
    }

    /// The next buffer to send, if any connection has one and the executor has none of it.
    pub fn next_send(&mut self) -> Option<Action> {
        while let Some(&slot) = self.dirty.get(self.served) {
            self.served += 1;
            let Some(connection) = self.connections.get_mut(slot as usize) else { continue };
            if !std::mem::take(&mut connection.is_dirty) {
                continue;
            }
            let pending = connection.pending_bytes();
            self.ledger.charge(pending.saturating_sub(connection.charged));
            connection.charged = connection.charged.max(pending);
            if connection.is_deaf() {
                connection.outbox = None; // nobody is there to read it
                continue;
            }
            if connection.is_sending || connection.is_gated {
                continue; // it follows when the executor brings the buffer home, or the store has all
            }
            if connection.transport.is_some() {
                match self.next_wrapped(slot) {
                    Some(send) => return Some(send),
                    None => continue,
                }
            }
            let Some(buffer) = connection.outbox.take() else { continue };
            return Some(connection.give_to_executor(slot, buffer));
        }
        self.dirty.clear();
        self.served = 0;
        None
    }

    /// The same for a connection with something between MQTT and its socket.
    #[cold]
    fn next_wrapped(&mut self, slot: u32) -> Option<Action> {
        let spare = self.pool.pop().unwrap_or_default();
        let connection = self.connections.get_mut(slot as usize)?;
        let transport = connection.transport.as_mut()?;
        if transport.is_settling() {
            self.recycle(spare);
            return None; // it follows when the kernel has the keys, or has not
        }
        let outbox = connection.outbox.take();
        if outbox.is_none() && !transport.has_something_to_say() {
            self.recycle(spare);
            return None;
        }
        let outbox = outbox.unwrap_or_default();
        let (wrapped, rest) = transport.wrap(outbox, spare, &mut self.scratch);
        if transport.is_broken() {
            self.broken.push(ConnectionId { slot, generation: connection.generation });
        }
        // What goes out is what counts, and it is more than what was waiting for it.
        self.ledger.charge(wrapped.len().saturating_sub(connection.charged));
        connection.charged = connection.charged.max(wrapped.len());
        let send = (!wrapped.is_empty()).then(|| connection.give_to_executor(slot, wrapped));
        self.recycle(rest);
        send
    }

    /// The executor wrote `bytes`, and brings the buffer home when it is empty.
    pub fn sent(&mut self, id: ConnectionId, bytes: usize, drained: Option<SendBuffer>) {
        self.bytes_sent += bytes as u64;
        let is_drained = drained.is_some();
        if let Some(buffer) = drained {
            self.recycle(buffer);
        }
        let Some(connection) = self.get(id) else { return };
        connection.sending -= bytes;
        connection.charged -= bytes;
        if let Some(congestion) = connection.congestion_mut() {
            congestion.taken += bytes as u64;
        }
        if is_drained {
            debug_assert_eq!(connection.sending, 0);
            connection.is_sending = false;
            if connection.has_something_to_send() {
                self.mark_dirty(id.slot);
            }
        }
        self.ledger.release(bytes);
    }

    /// Lets the transport of a connection do something, with scratch memory; the ledger follows what it
    /// holds then. A transport that does nothing to bytes any more is dropped.
    pub fn with_transport<R>(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut Transport, &mut Scratch) -> R,
    ) -> Option<R> {
        let connection = self.connections.get_mut(id.slot as usize)?;
        if connection.generation != id.generation {
            return None;
        }
        let transport = connection.transport.as_deref_mut()?;
        let (input_before, state_before) = (transport.bytes_held(), transport.state_bytes());
        let outcome = act(transport, &mut self.scratch);
        let (input, state) = match transport.is_spent() {
            true => {
                connection.transport = None;
                (0, 0)
            }
            false => (transport.bytes_held(), transport.state_bytes()),
        };
        self.ledger.change_input(input_before, input);
        self.ledger.change(state_before, state);
        Some(outcome)
    }

    /// The MQTT that the last transport brought; [`Self::recycle_plain`] brings the memory back.
    pub fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch.plain)
    }

    /// See [`Self::take_plain`].
    pub fn recycle_plain(&mut self, plain: Vec<u8>) {
        self.scratch.plain = plain;
        self.scratch.clear();
    }

    /// What a connection is to be told may leave from now on.
    pub fn open_gate(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        connection.is_gated = false;
        if connection.has_something_to_send() {
            self.mark_dirty(id.slot);
        }
    }

    /// Takes a connection out, and returns what was to be sent to it. Its slot is to be freed once the
    /// executor knows.
    pub fn remove(&mut self, slot: u32) -> (Connection, Option<SendBuffer>) {
        let mut connection = self.connections.remove(slot as usize);
        self.ledger.release(connection.bytes_charged());
        self.ledger.change_input(connection.input_bytes(), 0);
        // A CONNACK that still waits for the store is a promise that was not made.
        let last = connection.outbox.take().filter(|_| !connection.is_gated);
        (connection, last)
    }

    /// Keeps an empty buffer for the next one who needs it.
    pub fn recycle(&mut self, mut buffer: SendBuffer) {
        if self.pool.len() < limits::POOLED_OUTBOXES_MAX
            && buffer.capacity() <= limits::POOLED_OUTBOX_BYTES_MAX
        {
            buffer.clear();
            self.pool.push(buffer);
        }
    }
}

impl Connection {
    fn give_to_executor(&mut self, slot: u32, buffer: SendBuffer) -> Action {
        self.is_sending = true;
        self.sending = buffer.len();
        let connection = ConnectionId { slot, generation: self.generation };
        Action::Send { connection, buffer }
    }

    fn has_something_to_send(&self) -> bool {
        let transport = self.transport.as_ref();
        self.outbox.is_some() || transport.is_some_and(|t| t.has_something_to_say())
    }
}
