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
use crate::config::{Limits, Protection};
use crate::engine::Config;
use crate::engine::cause::Cause;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::timers::{Timer, Timers};
use crate::wire::{self, Frame};

/// Connections whose time is up by the clock.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    list: VecDeque<(ConnectionId, Limit)>,
    /// When the core last came late, and by how much.
    returned: Now,
    away: Duration,
}

/// The limit that has passed.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Keep Alive, or the time until CONNECT.
    Silence,
    /// The time for a packet that has begun, of which so many bytes were here.
    Packet { bytes: usize },
}

impl Overdue {
    /// A timer fires that was due at `due`; whether the core comes late.
    fn note_firing(&mut self, now: Now, due: Deadline) -> bool {
        let late = Duration::from_micros(now.0.saturating_sub(due.us()));
        let is_late = late >= Duration::from_millis(limits::LATE_MS);
        if is_late {
            (self.returned, self.away) = (now, late);
        }
        is_late
    }

    /// Until when nobody is judged for a limit of `limit`, if that lies ahead.
    fn grace(&self, now: Now, limit: Duration) -> Option<Deadline> {
        let most = Duration::from_millis(limits::PATIENCE_MS);
        let until = self.returned.after(self.away.min(most).min(limit));
        (!until.is_due(now)).then_some(until)
    }
}

impl Connection {
    /// Whether the client waits for the server: input or a decision is pending. A client that is not read
    /// because it does not read its answers does not wait.
    fn awaits_us(&self) -> bool {
        let is_unwrapped_later = self.transport.as_ref().is_some_and(|t| t.is_waiting());
        let ours = [Hold::Backlog, Hold::Decision, Hold::Job];
        is_unwrapped_later
            || self.read_holds > 0
            || ours.iter().any(|&hold| self.holds.has(hold))
            || self.is_ready && !self.input().is_empty()
    }
}

impl Connections {
    /// The connections whose time is up.
    pub fn overdue(&self) -> impl ExactSizeIterator<Item = ConnectionId> {
        self.overdue.list.iter().map(|&(id, _)| id)
    }

    /// Removes the next connection from the list of those whose time is up; whether it is late although
    /// everything that had come is read.
    pub fn check_next_overdue(
        &mut self,
        config: &Config,
        timers: &mut Timers,
        now: Now,
    ) -> Option<(ConnectionId, Option<Cause>)> {
        let (id, limit) = self.overdue.list.pop_front()?;
        let is_late = match limit {
            Limit::Silence => self.is_silent(id, &config.limits, timers, now),
            Limit::Packet { bytes } => self.is_packet_late(id, bytes, config, timers, now),
        };
        let is_admitted = self.slots.get(id).is_some_and(|of| of.session().is_some());
        let cause = match limit {
            _ if !is_admitted => Cause::ConnectTimeout,
            Limit::Silence => Cause::KeepAliveTimeout,
            Limit::Packet { .. } => Cause::PacketTimeout,
        };
        Some((id, is_late.then_some(cause)))
    }

    /// Whether the time of a connection is up.
    #[inline]
    pub fn has_overdue(&self) -> bool {
        !self.overdue.list.is_empty()
    }

    /// A timer fires that was due at `due`; whether the core comes late.
    pub fn note_firing(&mut self, now: Now, due: Deadline) -> bool {
        self.overdue.note_firing(now, due)
    }

    /// The core did not come late after all.
    #[cfg(test)]
    pub fn come_in_time(&mut self) {
        self.overdue.away = Duration::ZERO;
    }

    /// Keep Alive or the time limit for CONNECT may have passed.
    pub fn check_silence(
        &mut self,
        id: ConnectionId,
        limits: &Limits,
        timers: &mut Timers,
        now: Now,
    ) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        if connection.timer.is_none_or(|armed| !armed.is_due(now)) {
            return;
        }
        connection.timer = None;
        let Some((deadline, _)) = connection.silence_limit(limits, now) else { return };
        if !deadline.is_due(now) {
            return timers.arm_connection(now, id, connection, deadline);
        }
        connection.timing.note_overdue();
        self.overdue.list.push_back((id, Limit::Silence));
    }

    /// Everything that had come is read: whether the connection is silent for too long all the same.
    fn is_silent(
        &mut self,
        id: ConnectionId,
        limits: &Limits,
        timers: &mut Timers,
        now: Now,
    ) -> bool {
        let Some(connection) = self.slots.get_mut(id) else { return false };
        // A client that has been admitted meanwhile has a limit of another kind.
        if connection.timer.is_some() {
            return false;
        }
        let Some((deadline, limit)) = connection.silence_limit(limits, now) else { return false };
        let later = match deadline.is_due(now) {
            false => Some(deadline),
            true => self.overdue.grace(now, limit),
        };
        if let Some(later) = later {
            timers.arm_connection(now, id, connection, later);
            return false;
        }
        if connection.session().is_none() {
            let awaits_us = connection.awaits_us();
            if connection.timing.excuse(awaits_us) {
                // Its packets lay in the socket: the answers leave only now.
                connection.last_received = now;
                timers.arm_connection(now, id, connection, now.after(limit));
                return false;
            }
        }
        true
    }

    /// A packet has begun: its rest has to come in time, so that nobody holds memory by sending slowly.
    pub fn time_packet(
        &mut self,
        id: ConnectionId,
        protection: &Protection,
        timers: &mut Timers,
        now: Now,
    ) {
        let limit_s = u64::from(protection.packet_timeout_s);
        let Some(connection) = self.slots.get_mut(id) else { return };
        if limit_s > 0 && !connection.timing.is_packet_timed() {
            connection.check_packet_at(id, now.after_s(limit_s), timers, now);
        }
    }

    /// A packet that has begun may be overdue.
    pub fn check_packet(
        &mut self,
        id: ConnectionId,
        config: &Config,
        timers: &mut Timers,
        now: Now,
    ) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        if config.protection.packet_timeout_s == 0 {
            // A reload has removed the limit.
            return connection.timing.set_packet_timed(false);
        }
        let Some(deadline) = connection.packet_deadline(config, now) else { return };
        if !deadline.is_due(now) {
            return connection.check_packet_at(id, deadline, timers, now);
        }
        let bytes = connection.input().len();
        self.overdue.list.push_back((id, Limit::Packet { bytes }));
    }

    /// Everything that had come is read: whether a packet, of which `bytes` were here when its time was
    /// up, is late all the same.
    fn is_packet_late(
        &mut self,
        id: ConnectionId,
        bytes: usize,
        config: &Config,
        timers: &mut Timers,
        now: Now,
    ) -> bool {
        let limit_s = u64::from(config.protection.packet_timeout_s);
        let Some(connection) = self.slots.get_mut(id) else { return false };
        if limit_s == 0 {
            connection.timing.set_packet_timed(false);
            return false;
        }
        let deadline = connection.packet_deadline(config, now);
        let Some(deadline) = deadline else { return false };
        let later = match deadline.is_due(now) {
            false => Some(deadline),
            true => self.overdue.grace(now, Duration::from_secs(limit_s)),
        };
        let later = later.or_else(|| {
            let is_excused = connection.input().len() > bytes && connection.excuse_input(now);
            is_excused.then(|| now.after_s(limit_s))
        });
        if let Some(later) = later {
            connection.check_packet_at(id, later, timers, now);
            return false;
        }
        true
    }
}

impl Connection {
    /// Until when the connection may be silent, and how long that is; none when for ever.
    fn silence_limit(&mut self, limits: &Limits, now: Now) -> Option<(Deadline, Duration)> {
        if self.session().is_none() {
            let connect_timeout = Duration::from_secs(limits.connect_timeout_s.into());
            return Some((self.last_received.after(connect_timeout), connect_timeout));
        }
        if self.keep_alive_s == 0 {
            return None;
        }
        if self.awaits_us() {
            // Its packets lie unread because the server does not read them.
            self.last_received = now;
        }
        Some((self.last_received.after(self.silence_max()), self.silence_max()))
    }

    /// When the packet that has begun has to be complete; none when none has begun.
    fn packet_deadline(&mut self, config: &Config, now: Now) -> Option<Deadline> {
        let packet_bytes_max = self.packet_bytes_max(config);
        let is_incomplete =
            matches!(wire::frame(self.input(), packet_bytes_max), Ok(Frame::Incomplete { .. }));
        if self.is_held() || self.is_ready || !is_incomplete {
            // The input waits for the server, not for the client.
            self.restart_input(now);
        }
        let began = self.input_began();
        if began.is_none() {
            self.timing.set_packet_timed(false);
        }
        Some(began?.after_s(u64::from(config.protection.packet_timeout_s)))
    }

    fn check_packet_at(
        &mut self,
        id: ConnectionId,
        deadline: Deadline,
        timers: &mut Timers,
        now: Now,
    ) {
        self.timing.set_packet_timed(true);
        timers.arm_ahead(now, deadline, Timer::Packet(id));
    }
}
