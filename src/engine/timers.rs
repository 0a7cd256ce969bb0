//! The timers of one core.

use std::collections::VecDeque;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, SessionId, SessionRef};
use crate::base::limits;
use crate::base::timer_wheel::Wheel;
use crate::engine::connections::connection::Connection;
use crate::session::table::SessionTable;

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
    /// Lines of the log are to be published.
    LogTopics,
    /// Look whether retained messages that were taken away can be forgotten.
    Tombstones,
    /// The next retained message expires.
    RetainedExpiry,
    /// Send the restored in-transit forwards again.
    RestoredForwards,
    /// Give up nodes of the cluster that have not come back.
    #[cfg(feature = "cluster")]
    AbsentNodes,
    /// Publish Wills of clients that did not reconnect after a restart.
    LeftWills,
    /// Hand over records that nothing waits for.
    Records,
    /// Check which connections can move to kernel TLS.
    KernelTls,
    /// Send more clients and sessions to other nodes.
    #[cfg(feature = "cluster")]
    Drain,
    /// More of the queue of a bridge may be sent.
    #[cfg(feature = "bridge")]
    Backfill(ConnectionId),
    /// Look at the queues of bridges.
    #[cfg(feature = "bridge")]
    Bridges,
    /// Look whether a question has taken too long.
    #[cfg(feature = "admin")]
    Questions,
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
        self.arm_earlier(now, &mut connection.timer, deadline, Timer::Connection(id));
    }

    /// Fires the timer of a session at `deadline` or earlier, unless it fires earlier already.
    pub fn arm_session(
        &mut self,
        now: Now,
        id: SessionId,
        sessions: &mut SessionTable,
        deadline: Deadline,
    ) {
        let timer = Timer::Session(sessions.reference(id));
        self.arm_earlier(now, &mut sessions[id].timer, deadline, timer);
    }

    /// Fires `timer` at `deadline`, or at most [`limits::TIMER_AHEAD_S`] ahead, unless it is `armed` for an
    /// earlier time.
    #[inline]
    fn arm_earlier(
        &mut self,
        now: Now,
        armed: &mut Option<Deadline>,
        deadline: Deadline,
        timer: Timer,
    ) {
        let deadline = deadline.min(now.after_s(limits::TIMER_AHEAD_S));
        if armed.is_none_or(|armed| armed > deadline) {
            *armed = Some(deadline);
            self.wheel.arm(deadline, timer);
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
