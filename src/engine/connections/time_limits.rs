//! Time limits of clients: Keep Alive, the time until CONNECT, the time a packet may take.
//!
//! A limit that has passed by the clock says nothing yet of the client: while the core was stopped, or
//! busy, the client may have sent in time what still lies in its socket. So the connection is put on a
//! list, and it is judged in a later turn: when all that had come by then is read. Where the core comes
//! late by a second or more, what was sent meanwhile may still be on its way: a peer sends again in
//! intervals that double, so that it comes within as long as the core was away.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::packets::disconnect::Ending;
use crate::engine::{Engine, Timer};
use crate::wire::{self, Frame, ReasonCode};

/// Connections whose time is up by the clock.
#[derive(Debug, Default)]
pub(in crate::engine) struct Overdue {
    list: VecDeque<(ConnectionId, Limit)>,
    /// When the core last came late, and by how much.
    returned: Now,
    away: Duration,
}

/// What has passed.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Keep Alive, or the time until CONNECT.
    Silence,
    /// The time for a packet that has begun, of which so many bytes were here.
    Packet { bytes: usize },
}

impl Overdue {
    /// A timer fires that was due at `due`.
    pub fn note_firing(&mut self, now: Now, due: Deadline) -> bool {
        let late = Duration::from_micros(now.0.saturating_sub(due.us()));
        let is_late = late >= Duration::from_millis(limits::LATE_MS);
        if is_late {
            (self.returned, self.away) = (now, late);
        }
        is_late
    }

    /// The core did not come late after all.
    #[cfg(test)]
    pub fn come_in_time(&mut self) {
        self.away = Duration::ZERO;
    }

    /// Until when nobody is judged for a limit of `limit`, if that lies ahead.
    fn patience(&self, now: Now, limit: Duration) -> Option<Deadline> {
        let most = Duration::from_millis(limits::PATIENCE_MS);
        let until = self.returned.after(self.away.min(most).min(limit));
        (!until.is_due(now)).then_some(until)
    }
}

impl Connection {
    /// Input lies here, or a decision is awaited: the client waits for us. One that is not read because it
    /// does not take its answers does not.
    fn awaits_us(&self) -> bool {
        let is_unwrapped_later = self.transport.as_ref().is_some_and(|t| t.is_waiting());
        let ours = [Hold::Backlog, Hold::Decision, Hold::Job];
        is_unwrapped_later
            || self.holders > 0
            || ours.iter().any(|&hold| self.holds.has(hold))
            || self.is_ready && !self.stash().is_empty()
    }
}

impl Engine {
    /// The connections whose time is up: their sockets are to be read before the next call of
    /// [`Self::handle_all_read`].
    pub fn overdue(&self) -> impl Iterator<Item = ConnectionId> {
        self.overdue.list.iter().map(|&(id, _)| id)
    }

    /// Whether there are such.
    pub fn has_overdue(&self) -> bool {
        !self.overdue.list.is_empty()
    }

    /// Since the last [`Self::handle_timeout`] the executor has asked for input, and has taken all that
    /// had come: whoever is still overdue has sent nothing in time.
    pub fn handle_all_read(&mut self, now: Now) {
        if self.overdue.list.is_empty() {
            return;
        }
        self.set_now(now);
        let count = self.overdue.list.len().min(limits::ENDED_PER_TURN_MAX);
        for number in 0..count {
            if number >= limits::TIMERS_PER_TURN_MIN && self.work.is_spent() {
                break;
            }
            self.work.spend(1);
            match self.overdue.list.pop_front() {
                Some((id, Limit::Silence)) => self.judge_silence(id),
                Some((id, Limit::Packet { bytes })) => self.judge_packet(id, bytes),
                None => break,
            }
        }
    }

    /// Keep Alive or the time limit for CONNECT may have passed.
    pub(in crate::engine) fn look_at_silence(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.links.get(id) else { return };
        if connection.timer.is_none_or(|armed| !armed.is_due(now)) {
            return;
        }
        connection.timer = None;
        let Some((deadline, _)) = self.silence_limit(id) else { return };
        if !deadline.is_due(now) {
            return self.arm_connection(id, deadline);
        }
        if let Some(connection) = self.links.get(id) {
            connection.timing.note_overdue();
        }
        self.overdue.list.push_back((id, Limit::Silence));
    }

    /// Until when a connection may be silent, and how long that is; none when for ever.
    fn silence_limit(&mut self, id: ConnectionId) -> Option<(Deadline, Duration)> {
        let connect_timeout = Duration::from_secs(self.config.limits.connect_timeout_s.into());
        let now = self.now;
        let connection = self.links.get(id)?;
        if connection.session().is_none() {
            return Some((connection.last_received.after(connect_timeout), connect_timeout));
        }
        if connection.keep_alive_s == 0 {
            return None;
        }
        if connection.awaits_us() {
            // Its packets lie unread because we do not read them.
            connection.last_received = now;
        }
        Some((connection.last_received.after(connection.silence_max()), connection.silence_max()))
    }

    fn judge_silence(&mut self, id: ConnectionId) {
        let now = self.now;
        // One that has been let in meanwhile has a limit of another kind.
        if self.links.get(id).is_none_or(|connection| connection.timer.is_some()) {
            return;
        }
        let Some((deadline, limit)) = self.silence_limit(id) else { return };
        if !deadline.is_due(now) {
            return self.arm_connection(id, deadline);
        }
        if let Some(until) = self.overdue.patience(now, limit) {
            return self.arm_connection(id, until);
        }
        let Some(connection) = self.links.get(id) else { return };
        if connection.session().is_none() {
            let awaits_us = connection.awaits_us();
            if connection.timing.excuse(awaits_us) {
                // What it had sent lay in its socket: the answer to it goes out only now.
                connection.last_received = now;
                return self.arm_connection(id, now.after(limit));
            }
            tracing::debug!(limit_s = limit.as_secs(), "no CONNECT within the time limit");
        }
        // [MQTT-3.1.2-22]
        self.metrics.timeouts += 1;
        self.end_connection(id.slot, Ending::Server(ReasonCode::KeepAliveTimeout));
    }

    /// A packet has begun: it is to be whole in time, so that nobody holds memory by sending
    /// slowly.
    pub(in crate::engine) fn time_packet(&mut self, id: ConnectionId) {
        let limit_s = u64::from(self.config.protection.packet_timeout_s);
        let is_timed =
            self.links.get(id).is_none_or(|connection| connection.timing.is_packet_timed());
        if limit_s > 0 && !is_timed {
            self.look_at_packet_by(id, self.now.after_s(limit_s));
        }
    }

    fn look_at_packet_by(&mut self, id: ConnectionId, deadline: Deadline) {
        let Some(connection) = self.links.get(id) else { return };
        connection.timing.set_packet_timed(true);
        self.timers.arm_ahead(self.now, deadline, Timer::Packet(id));
    }

    /// Is a packet that has begun overdue?
    pub(in crate::engine) fn look_at_packet(&mut self, id: ConnectionId) {
        let Some(deadline) = self.packet_deadline(id) else { return };
        if !deadline.is_due(self.now) {
            return self.look_at_packet_by(id, deadline);
        }
        let Some(connection) = self.links.get(id) else { return };
        let bytes = connection.stash().len();
        self.overdue.list.push_back((id, Limit::Packet { bytes }));
    }

    /// When the packet that has begun is to be whole; none when none has.
    fn packet_deadline(&mut self, id: ConnectionId) -> Option<Deadline> {
        let (now, limit_s) = (self.now, u64::from(self.config.protection.packet_timeout_s));
        let connection = self.links.get(id)?;
        let packet_bytes_max = connection.packet_bytes_max(&self.config.limits);
        let is_incomplete = matches!(
            wire::frame(connection.stash(), packet_bytes_max),
            Ok(Frame::Incomplete { .. })
        );
        if connection.is_held() || connection.is_ready || !is_incomplete {
            // What lies there waits for us, not for the client.
            connection.restart_stash(now);
        }
        let began = connection.stash_began();
        if began.is_none() {
            connection.timing.set_packet_timed(false);
        }
        Some(began?.after_s(limit_s))
    }

    /// `bytes` of it were here when its time was up.
    fn judge_packet(&mut self, id: ConnectionId, bytes: usize) {
        let (now, limit_s) = (self.now, u64::from(self.config.protection.packet_timeout_s));
        let Some(deadline) = self.packet_deadline(id) else { return };
        if !deadline.is_due(now) {
            return self.look_at_packet_by(id, deadline);
        }
        if let Some(until) = self.overdue.patience(now, Duration::from_secs(limit_s)) {
            return self.look_at_packet_by(id, until);
        }
        let Some(connection) = self.links.get(id) else { return };
        if connection.stash().len() > bytes && connection.excuse_stash(now) {
            return self.look_at_packet_by(id, now.after_s(limit_s));
        }
        self.metrics.timeouts += 1;
        tracing::debug!(limit_s, "a packet was not whole within the time limit");
        self.end_connection(id.slot, Ending::Server(ReasonCode::KeepAliveTimeout));
    }
}
