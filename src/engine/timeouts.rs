//! The engine's timers, and what each of them leads to when it fires.

use std::collections::VecDeque;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, SessionId, SessionRef};
use crate::base::limits;
use crate::base::timer_wheel::Wheel;
use crate::engine::Engine;
use crate::engine::connections::connection::Connection;
use crate::engine::routing::congestion::check_congestion;
use crate::session::state::Session;

/// The purpose of a timer. The handler decides whether the timer still means anything.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// CONNECT time limit, then Keep Alive.
    Connection(ConnectionId),
    /// Session expiry and Will delay.
    Session(SessionRef),
    /// Look whether a consumer that is behind takes anything.
    Congestion(ConnectionId),
    /// A publisher rested for lack of memory.
    MemoryPause(ConnectionId),
    /// The time for which a client may stay is over.
    Stay(ConnectionId),
    /// A client that exceeded its rate limit may be read again.
    Allowance(ConnectionId),
    /// A packet that has begun may be overdue.
    Packet(ConnectionId),
    /// `$SYS` topics are due.
    SysTopics,
    /// Look whether retained messages that were taken away can be forgotten.
    Tombstones,
    /// The next retained message expires.
    RetainedExpiry,
    /// Send the restored in-transit forwards again.
    RestoredForwards,
    /// Publish Wills of clients that did not reconnect after a restart.
    LeftWills,
    /// Hand over records that nothing waits for.
    Records,
    /// Check which connections can move to kernel TLS.
    KernelTls,
    /// Look whether a connection that is ending has less left than before.
    End { connection: ConnectionId, left: u32, checks: u8 },
}

/// The timers of one core, and those that have fired and are not handled yet.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: Wheel<Timer>,
    fired: VecDeque<Timer>,
}

impl Timers {
    /// No timer is armed.
    pub fn new(now: Now) -> Self {
        Self { wheel: Wheel::new(now), fired: VecDeque::new() }
    }

    /// Fires `timer` at `deadline`.
    #[inline]
    pub fn arm(&mut self, deadline: Deadline, timer: Timer) {
        self.wheel.arm(deadline, timer);
    }

    /// Fires `timer` at `deadline`, or at most [`limits::TIMER_AHEAD_S`] ahead: what reconnecting clients
    /// leave behind in the wheel stays little.
    pub fn arm_ahead(&mut self, now: Now, deadline: Deadline, timer: Timer) {
        self.wheel.arm(deadline.min(now.after_s(limits::TIMER_AHEAD_S)), timer);
    }

    /// Fires the timer of a connection at `deadline` or earlier, unless it fires earlier already.
    pub fn arm_connection(
        &mut self,
        now: Now,
        id: ConnectionId,
        connection: &mut Connection,
        deadline: Deadline,
    ) {
        let deadline = deadline.min(now.after_s(limits::TIMER_AHEAD_S));
        if connection.timer.is_none_or(|armed| armed > deadline) {
            connection.timer = Some(deadline);
            self.wheel.arm(deadline, Timer::Connection(id));
        }
    }

    /// Fires the timer of a session at `deadline` or earlier, unless it fires earlier already.
    pub fn arm_session(
        &mut self,
        now: Now,
        id: SessionId,
        session: &mut Session,
        deadline: Deadline,
    ) {
        let deadline = deadline.min(now.after_s(limits::TIMER_AHEAD_S));
        if session.timer.is_none_or(|armed| armed > deadline) {
            session.timer = Some(deadline);
            let reference = SessionRef { session: id, generation: session.generation };
            self.wheel.arm(deadline, Timer::Session(reference));
        }
    }

    /// When [`Self::advance`] has something to do; none while no timer is armed.
    #[inline]
    pub fn next(&self) -> Option<Deadline> {
        self.wheel.next()
    }

    /// Moves on to `now`. The timers that are due wait for [`Self::pop_fired`].
    pub fn advance(&mut self, now: Now) {
        self.wheel.advance(now, &mut self.fired);
    }

    /// The next timer that has fired.
    pub fn pop_fired(&mut self) -> Option<Timer> {
        self.fired.pop_front()
    }

    /// Whether timers have fired that are not handled yet.
    #[inline]
    pub fn has_fired(&self) -> bool {
        !self.fired.is_empty()
    }

    /// How many timers are armed.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.wheel.len()
    }
}

impl Engine {
    /// Time has passed: handles the timers that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.set_now(now);
        if let Some(due) = self.timers.next()
            && self.connections.note_firing(now, due)
        {
            self.metrics.turns_late += 1;
        }
        self.retained.continue_removing(self.now, &mut self.timers);
        self.timers.advance(now);
        // Some have their time whatever else there was in this turn.
        for number in 0.. {
            if number >= limits::TIMERS_PER_TURN_MIN && self.work.is_spent() {
                break;
            }
            let Some(timer) = self.timers.pop_fired() else { break };
            self.work.spend(1);
            match timer {
                Timer::Connection(id) => {
                    let Self { connections, config, timers, now, .. } = self;
                    connections.check_silence(id, &config.limits, timers, *now);
                }
                Timer::Session(session) => self.check_session(session),
                Timer::Congestion(id) => {
                    check_congestion(id, &mut self.connections, &mut self.timers, self.now);
                }
                Timer::MemoryPause(id) | Timer::Allowance(id) => {
                    self.connections.resume_reading(id, self.now);
                }
                Timer::Stay(id) => self.check_stay(id),
                Timer::Packet(id) => {
                    let Self { connections, config, timers, now, .. } = self;
                    let bounds = (&config.limits, &config.protection);
                    connections.check_packet(id, bounds, timers, *now);
                }
                Timer::SysTopics => self.begin_sys_topics(),
                Timer::Tombstones => {
                    self.retained.handle_tombstone_timer(
                        self.now,
                        &mut self.timers,
                        &mut self.mesh,
                    );
                }
                Timer::RetainedExpiry => {
                    self.retained.handle_expiry_timer(self.now, &mut self.timers);
                }
                Timer::RestoredForwards => self.send_restored_forwards(),
                Timer::LeftWills => self.publish_left_wills(),
                Timer::Records => self.durability.end_flush_timer(),
                Timer::KernelTls => {
                    let Self { listeners, connections, metrics, timers, now, .. } = self;
                    listeners.check_offload(connections, metrics, timers, *now);
                }
                Timer::End { connection, left, checks } => self.check_end(connection, left, checks),
            }
        }
    }

    /// Checks a session at `deadline`, or earlier.
    pub(super) fn arm_session(&mut self, id: SessionId, deadline: Deadline) {
        self.timers.arm_session(self.now, id, &mut self.sessions[id], deadline);
    }
}
