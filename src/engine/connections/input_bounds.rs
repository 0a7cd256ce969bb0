//! How much input may wait: starts of packets, of requests and of handshakes, and what cannot be
//! processed yet. All of it is on the ledger, and has a bound of its own there, so that what strangers
//! begin to send leaves room for what clients are about.

use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::base::log_rate::rated;
use crate::engine::Engine;
use crate::engine::packets::disconnect::Ending;
use crate::wire::ReasonCode;

impl Engine {
    /// Bytes of input that may wait on all cores together.
    fn input_bytes_max(&self) -> u64 {
        let share = self.config.limits.memory_bytes_max / limits::INPUT_SHARE;
        share.max(limits::INPUT_BYTES_MIN)
    }

    /// Whether memory is full beyond what those take who are still to be told so.
    pub(in crate::engine) fn memory_is_overdrawn(&self) -> bool {
        let most = self.config.limits.memory_bytes_max;
        let held = self.links.ledger.bytes() + self.memory_bytes_elsewhere;
        held >= most + most / limits::OVERDRAFT_SHARE
    }

    /// Whether a connection may hold `held` bytes of input, `more` of which are not on the ledger yet.
    /// Where `is_whole` it waits for us, and not for the rest of what the client has begun.
    pub(in crate::engine) fn has_room_for_input(
        &self,
        held: usize,
        more: usize,
        is_whole: bool,
    ) -> bool {
        let elsewhere = self.place.input_bytes_elsewhere();
        let waiting = self.links.ledger.input_bytes() + elsewhere + more as u64;
        let most = self.input_bytes_max();
        if is_whole || held <= limits::INPUT_SMALL_BYTES {
            return waiting <= most;
        }
        // What is left is for those who hold little: they are in the middle of a packet now and then.
        let share = match self.memory_is_full() {
            true => limits::INPUT_SHARE_OF_SMALL_WHEN_FULL,
            false => limits::INPUT_SHARE_OF_SMALL,
        };
        waiting <= most - most / share
    }

    /// Ends a connection that would hold more input than there is room for.
    pub(in crate::engine) fn end_for_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.links.get(id) else { return };
        let (address, held) = (connection.address, connection.input_bytes());
        let (all, most) = (self.links.ledger.input_bytes(), self.input_bytes_max());
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
        self.end_connection(id.slot, Ending::Server(ReasonCode::QuotaExceeded));
    }
}
