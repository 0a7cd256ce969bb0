//! How much input may wait: starts of packets, of requests and of handshakes, and what cannot be
//! processed yet. All of it is on the ledger, and has a bound of its own there, so that what strangers
//! begin to send leaves room for what clients are about.

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::base::log_rate::rated;
use crate::config::Protection;
use crate::engine::Engine;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::Connection;
use crate::engine::connections::input_buffer::Input;
use crate::engine::packets::disconnect::Ending;
use crate::engine::timeouts::Timers;
use crate::wire::ReasonCode;

impl Connections {
    /// Puts input back that was taken out to be processed, unless its connection has ended.
    pub fn put_back(
        &mut self,
        id: ConnectionId,
        stash: Box<Input>,
        protection: &Protection,
        timers: &mut Timers,
        now: Now,
    ) {
        if !stash.bytes().is_empty() && self.contains(id) {
            self.put_back_stash(id, stash, now);
            self.time_packet(id, protection, timers, now);
        }
    }

    /// Takes the input that a connection keeps, all of it.
    pub fn take_stash(&mut self, id: ConnectionId) -> Option<Box<Input>> {
        self.edit_input(id, Connection::take_stash)?
    }

    /// Keeps input again that could not be processed after all.
    pub fn put_back_stash(&mut self, id: ConnectionId, stash: Box<Input>, now: Now) {
        self.edit_input(id, |connection| connection.put_back_stash(now, stash));
    }

    /// Keeps input for later, as the start of a packet of `need` bytes where that is known.
    pub fn extend_stash(&mut self, id: ConnectionId, bytes: &[u8], need: usize, now: Now) {
        self.edit_input(id, |connection| connection.extend_stash(now, bytes, need));
    }
}

impl Engine {
    /// Whether memory is full beyond what it takes to send "server busy" to new clients.
    pub(in crate::engine) fn memory_is_overdrawn(&self) -> bool {
        let most = self.config.limits.memory_bytes_max;
        let held = self.place.ledger().bytes() + self.memory_bytes_elsewhere;
        held >= most + most / limits::OVERDRAFT_SHARE
    }

    /// Whether a connection may hold `held` bytes of input, `more` of which are not on the ledger yet.
    /// With `is_whole`, the input waits for the server, and not for the rest of a packet.
    pub(in crate::engine) fn has_room_for_input(
        &self,
        held: usize,
        more: usize,
        is_whole: bool,
    ) -> bool {
        let elsewhere = self.place.input_bytes_elsewhere();
        let waiting = self.place.ledger().input_bytes() + elsewhere + more as u64;
        let most = self.config.input_bytes_max();
        if is_whole || held <= limits::INPUT_SMALL_BYTES {
            return waiting <= most;
        }
        // The rest is for clients that hold little: each of them is in the middle of a packet now and then.
        let share = match self.memory_is_full() {
            true => limits::INPUT_SHARE_OF_SMALL_WHEN_FULL,
            false => limits::INPUT_SHARE_OF_SMALL,
        };
        waiting <= most - most / share
    }

    /// Ends a connection that would hold more input than there is room for.
    pub(in crate::engine) fn end_for_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (address, held) = (connection.address, connection.input_bytes());
        let (all, most) = (self.place.ledger().input_bytes(), self.config.input_bytes_max());
        self.metrics.input_refused += 1;
        let why = match self.memory_is_full() {
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
        self.end_connection(id, Ending::Server(ReasonCode::QuotaExceeded));
    }
}
