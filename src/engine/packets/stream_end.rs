//! The end of what a peer sends: everything that came before it is served and answered first, in order.
//!
//! ```text
//! handle_ended    FIN, close_notify, a Close frame: the peer may still read ─► Hold::Ended
//! DISCONNECT      answers to what came before are still to leave            ─► Hold::Left
//! handle_deaf     nothing can be sent any more: what came is read and served, its answers dropped
//! handle_closed   the socket is gone: what was read is served               ─► Hold::Closed
//! ```
//!
//! A connection that is ending is checked whenever part of its work is done, and ends once nothing is left.
//! A connection that makes no progress for a while ends with what is left: the server does not wait without
//! end for the store, other cores or the peer.

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::Engine;
use crate::engine::connections::connection::Hold;
use crate::engine::connections::ending::Ending;

impl Engine {
    /// The peer has sent its last byte, and may still read. The executor reads nothing more, and keeps
    /// the socket until [`Action::Close`](crate::engine::Action::Close).
    pub fn handle_ended(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.holds.set(Hold::Ended);
            self.end_when_served(id);
        }
    }

    /// Nothing can be sent to the peer any more. The executor has dropped what it had to write, and reads
    /// on: what the peer had sent before may still lie in the socket.
    pub fn handle_deaf(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.holds.set(Hold::Deaf);
        self.connections.drop_unsent(id);
        self.connections.release_hold(id, Hold::Answers, self.now);
        self.mesh.depart_sent(id);
        self.connections.continue_to_end(id);
        if self.connections.get_mut(id).is_some_and(|connection| connection.session().is_some()) {
            self.after_progress(id);
        }
    }

    /// The connection broke; the executor has dropped the socket. What was read before is served, but for
    /// a CONNECT that is not decided on, unless the peer had sent all it wanted to.
    pub fn handle_closed(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.holds.set(Hold::Deaf);
        connection.holds.set(Hold::Closed);
        connection.holds.clear(Hold::Answers);
        match connection.session().is_some() || connection.holds.has(Hold::Ended) {
            true => self.end_when_served(id),
            false => self.end_connection(id, Ending::PeerClosed),
        }
    }

    /// The layer above the socket has ended: nothing follows.
    pub(in crate::engine) fn end_of_input(&mut self, id: ConnectionId) {
        self.connections.hold(id, Hold::Ended);
        self.end_when_served(id);
    }

    /// Ends a connection now, or checks again whenever something of it has been done.
    fn end_when_served(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        if !connection.is_held() && !connection.input().is_empty() {
            self.connections.mark_ready(id);
        }
        if !self.end_if_served(id) {
            self.connections.check_end_later(id, 0, &mut self.timers, self.now);
        }
    }

    /// Ends a connection that is ending if nothing of it is left; whether it did.
    pub(in crate::engine) fn end_if_served(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        if !connection.holds.is_ending()
            || connection.has_input_left()
            || connection.has_answers_left()
        {
            return false;
        }
        self.end_connection(id, Ending::PeerClosed);
        true
    }

    /// A connection that is ending has had a while, for the last of so many times without getting any
    /// further: it ends with what is left if it should have. What consumers and rates hold up has longer,
    /// and a decision has a time limit of its own.
    pub(in crate::engine) fn check_end(&mut self, id: ConnectionId, before: u32, checks: u8) {
        let Some(connection) = self.connections.get(id) else { return };
        let mut checks = checks + 1;
        if connection.left() != before || connection.session().is_none() {
            checks = 0;
        }
        let checks_max = if connection.read_holds > 0 { limits::ENDING_LOOKS_MAX } else { 1 };
        match checks >= checks_max {
            true => self.end_connection(id, Ending::PeerClosed),
            false => self.connections.check_end_later(id, checks, &mut self.timers, self.now),
        }
    }
}
