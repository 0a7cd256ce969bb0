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

use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::Engine;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::packets::disconnect::Ending;
use crate::engine::timeouts::{Timer, Timers};
use crate::engine::work::BYTES_PER_STEP;
use crate::wire::{self, Frame};

/// The order of a CONNECT and the connection that its client already has.
pub(in crate::engine) enum Comes {
    /// The CONNECT is later and takes the session over.
    After,
    /// The peer of the CONNECT sends no more, and its client is back on a later connection, which it
    /// keeps although this CONNECT took longer to decide on.
    Before,
    /// The other connection is still being served to its end: the CONNECT has to wait.
    TooSoon,
}

impl Connection {
    /// Whether some input is not processed yet, and will be.
    fn has_input_left(&self) -> bool {
        if self.holds.has(Hold::Left) {
            return false;
        }
        let waits = self.is_held() || self.is_ready;
        waits && !self.stash().is_empty()
            || self.holds.has(Hold::Job)
            || self.holds.has(Hold::Decision)
            || self.transport.as_ref().is_some_and(|transport| transport.is_waiting())
    }

    /// Whether answers to the peer are not in the outbox yet.
    fn has_answers_left(&self) -> bool {
        !self.is_deaf() && (self.is_gated || self.is_ready || self.answers.is_some())
    }

    /// How much is left, to check whether it gets less.
    fn left(&self) -> u32 {
        let answers = self.answers.as_ref().map_or(0, |answers| answers.waiting());
        (self.stash().len() + self.pending_bytes() + answers) as u32
    }
}

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
        if !connection.is_held() && !connection.stash().is_empty() {
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

    /// Before a client is admitted, input that waits on a connection of the same Client Identifier whose
    /// peer sends no more is served.
    pub(in crate::engine) fn comes_after(
        &mut self,
        id: ConnectionId,
        client_identifier: &str,
    ) -> Comes {
        let Some(other) = self.sessions.connection_of(client_identifier) else {
            return Comes::After;
        };
        let is_later = (other.generation.wrapping_sub(id.generation) as i32) > 0;
        if is_later
            && self.connections.get_mut(id).is_some_and(|connection| connection.holds.is_ending())
        {
            return Comes::Before;
        }
        match self.serve_out(other) {
            true => Comes::After,
            false => Comes::TooSoon,
        }
    }

    /// Serves what waits on a connection whose peer sends no more, whatever it waits for, as far as the
    /// budget goes; whether that was all. There may be a DISCONNECT in it, after which no Will is
    /// published.
    fn serve_out(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let is_to_be = connection.holds.is_ending() && !connection.holds.has(Hold::Left);
        if !is_to_be || connection.session().is_none() {
            return true;
        }
        if connection.holds.has(Hold::Job) {
            return false;
        }
        let packet_bytes_max = connection.packet_bytes_max(&self.config.limits);
        let Some(mut stash) = self.connections.take_stash(id) else { return true };
        let mut used = 0;
        while let Ok(Frame::Complete { header, total }) =
            wire::frame(&stash.bytes()[used..], packet_bytes_max)
        {
            let Some(connection) = self.connections.get_mut(id) else { return true };
            if connection.holds.has(Hold::Left) {
                return true;
            }
            if connection.holds.has(Hold::Job) || self.work.is_spent() {
                stash.advance(used);
                let Self { connections, config, timers, now, .. } = self;
                connections.put_back(id, stash, &config.protection, timers, *now);
                return false;
            }
            self.work.spend(1 + total / BYTES_PER_STEP);
            self.handle_packet(id, &stash.bytes()[used..used + total], header);
            used += total;
        }
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
        let checks_max = if connection.holders > 0 { limits::ENDING_LOOKS_MAX } else { 1 };
        match checks >= checks_max {
            true => self.end_connection(id, Ending::PeerClosed),
            false => self.connections.check_end_later(id, checks, &mut self.timers, self.now),
        }
    }
}

impl Connections {
    /// The client of a connection has sent DISCONNECT: whether answers to what came before have to leave
    /// first.
    pub fn leaves_later(&mut self, id: ConnectionId, timers: &mut Timers, now: Now) -> bool {
        let Some(connection) = self.get(id) else { return false };
        if connection.is_deaf() || !connection.is_gated && connection.answers.is_none() {
            return false;
        }
        self.hold(id, Hold::Left);
        self.check_end_later(id, 0, timers, now);
        true
    }

    /// Something of a connection that may be ending has been done.
    pub fn continue_to_end(&mut self, id: ConnectionId) {
        if self.get(id).is_some_and(|connection| connection.holds.is_ending()) {
            self.mark_ready(id);
        }
    }

    /// Checks after a while whether a connection that is ending has less left than now.
    fn check_end_later(&mut self, id: ConnectionId, checks: u8, timers: &mut Timers, now: Now) {
        let Some(connection) = self.get(id) else { return };
        let left = connection.left();
        let deadline = now.after(Duration::from_millis(limits::STUCK_MS));
        timers.arm(deadline, Timer::End { connection: id, left, checks });
    }
}
