//! Input that waits: starts of packets, and what cannot be processed yet. All of it is on the ledger, and
//! `Memory` bounds it, so that input of strangers leaves room for the other data.

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::config::Protection;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::Connection;
use crate::engine::connections::input_buffer::InputBuffer;
use crate::engine::timers::Timers;

impl Connections {
    /// Puts input back that was taken out to be processed, unless its connection has ended.
    pub fn put_back(
        &mut self,
        id: ConnectionId,
        input: Box<InputBuffer>,
        protection: &Protection,
        timers: &mut Timers,
        now: Now,
    ) {
        if !input.bytes().is_empty() && self.contains(id) {
            self.put_back_input(id, input, now);
            self.time_packet(id, protection, timers, now);
        }
    }

    /// Takes the input that a connection keeps, all of it.
    pub fn take_input(&mut self, id: ConnectionId) -> Option<Box<InputBuffer>> {
        self.edit_input(id, Connection::take_input)?
    }

    /// Keeps input again that could not be processed after all.
    pub fn put_back_input(&mut self, id: ConnectionId, input: Box<InputBuffer>, now: Now) {
        self.edit_input(id, |connection| connection.put_back_input(now, input));
    }

    /// Keeps input for later, as the start of a packet of `need` bytes where that is known.
    pub fn extend_input(&mut self, id: ConnectionId, bytes: &[u8], need: usize, now: Now) {
        self.edit_input(id, |connection| connection.extend_input(now, bytes, need));
    }
}
