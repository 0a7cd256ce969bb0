//! What is due when: the engine's timers, and what each of them leads to.

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, SessionId, SessionRef};
use crate::base::limits;
use crate::engine::Engine;

/// What a timer is for; its owner decides whether it still means anything.
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
    /// A client has sent more than it may in a while, and may go on.
    Allowance(ConnectionId),
    /// A packet that has begun may be overdue.
    Packet(ConnectionId),
    /// `$SYS` topics are due.
    SysTopics,
    /// Look whether retained messages that were taken away can be forgotten.
    Graves,
    /// The next retained message expires.
    RetainedExpiry,
    /// Share out what a crash found on its way between cores.
    Passages,
    /// Publish Wills of clients that did not come back after the broker was down.
    LeftWills,
    /// Hand over records that nobody waits for.
    Records,
    /// Look whose TLS can go on in the kernel.
    Settling,
    /// Look whether a connection that is ending has less left than before.
    End { connection: ConnectionId, left: u32, looks: u8 },
}

impl Engine {
    /// Time has passed: fires what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.set_now(now);
        if let Some(due) = self.timers.next()
            && self.overdue.note_firing(now, due)
        {
            self.metrics.turns_late += 1;
        }
        self.go_on_with_expiries();
        self.go_on_with_graves();
        self.timers.advance(now, &mut self.fired);
        if !self.fired.is_empty() {
            self.flush_run();
        }
        // Some have their time whatever else there was in this turn.
        for number in 0.. {
            if number >= limits::TIMERS_PER_TURN_MIN && self.work.is_spent() {
                break;
            }
            let Some(timer) = self.fired.pop_front() else { break };
            self.work.spend(1);
            match timer {
                Timer::Connection(id) => self.look_at_silence(id),
                Timer::Session(session) => self.look_at_session(session),
                Timer::Congestion(id) => self.look_at_congestion(id),
                Timer::MemoryPause(id) | Timer::Allowance(id) => self.resume_reading(id),
                Timer::Stay(id) => self.look_at_stay(id),
                Timer::Packet(id) => self.look_at_packet(id),
                Timer::SysTopics => self.begin_sys_topics(),
                Timer::Graves => self.look_at_graves(),
                Timer::RetainedExpiry => self.look_at_expiries(),
                Timer::Passages => self.share_found_passages(),
                Timer::LeftWills => self.look_at_left_wills(),
                Timer::Records => self.end_rest_of_records(),
                Timer::Settling => {
                    let Self { listeners, links, metrics, timers, now, .. } = self;
                    listeners.check_offload(links, metrics, timers, *now);
                }
                Timer::End { connection, left, looks } => self.look_at_end(connection, left, looks),
            }
        }
    }

    /// Looks at a connection at `deadline`, or earlier: no timer lies further ahead than
    /// [`TIMER_AHEAD_S`], so that what reconnecting clients leave behind in the wheel stays little.
    pub(super) fn arm_connection(&mut self, id: ConnectionId, deadline: Deadline) {
        let deadline = deadline.min(self.now.after_s(limits::TIMER_AHEAD_S));
        let Some(connection) = self.links.get(id) else { return };
        if connection.timer.is_none_or(|armed| armed > deadline) {
            connection.timer = Some(deadline);
            self.timers.arm(deadline, Timer::Connection(id));
        }
    }

    /// The same for a session.
    pub(super) fn arm_session(&mut self, index: SessionId, deadline: Deadline) {
        let deadline = deadline.min(self.now.after_s(limits::TIMER_AHEAD_S));
        let session = &mut self.sessions[index];
        if session.timer.is_none_or(|armed| armed > deadline) {
            session.timer = Some(deadline);
            self.timers.arm(deadline, Timer::Session(self.sessions.reference(index)));
        }
    }
}
