//! Whether a connection is read, and whether what was read is processed: for each reason that stands
//! against it there is one place that sets it and one that clears it.

use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::timers::Timers;
use crate::engine::{Action, Timer};

impl Connection {
    /// Whether input must wait.
    #[inline]
    pub(in crate::engine) fn is_held(&self) -> bool {
        self.read_holds > 0 || self.holds.holds_input()
    }

    /// Bytes that were read and are not processed yet.
    fn unprocessed_bytes(&self) -> usize {
        let waiting = self.transport.as_ref().map_or(0, |transport| transport.waiting_bytes());
        self.input().len() + waiting
    }

    /// Whether the executor reads the socket.
    fn is_read(&self) -> bool {
        self.read_holds == 0 && self.holds.is_empty()
    }
}

impl Connections {
    /// Leaves a socket unread until [`Self::resume_reading`] was called as often.
    pub fn pause_reading(&mut self, publisher: ConnectionId) {
        let Some(connection) = self.slots.get_mut(publisher) else { return };
        let was_read = connection.is_read();
        connection.read_holds += 1;
        if connection.read_holds == 1 {
            self.counts.publishers_paused += 1;
        }
        if was_read {
            self.actions.push_back(Action::Pause { connection: publisher });
        }
    }

    /// Reads a publisher's socket again, after what it had sent already.
    pub fn resume_reading(&mut self, publisher: ConnectionId, now: Now) {
        let Some(connection) = self.slots.get_mut(publisher) else { return };
        let Some(left) = connection.read_holds.checked_sub(1) else { return };
        connection.read_holds = left;
        if left == 0 {
            self.continue_reading(publisher, now);
        }
    }

    /// Leaves a socket unread for a reason of its own, until [`Self::release_hold`].
    pub fn hold(&mut self, id: ConnectionId, reason: Hold) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        let was_read = connection.is_read();
        connection.holds.set(reason);
        if was_read {
            self.actions.push_back(Action::Pause { connection: id });
        }
    }

    /// A reason for which the socket is not read does not apply any more.
    pub fn release_hold(&mut self, id: ConnectionId, reason: Hold, now: Now) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        if connection.holds.has(reason) {
            connection.holds.clear(reason);
            self.continue_reading(id, now);
        }
    }

    /// The packet that took several turns is done. What came after it is next, in this very turn.
    pub fn release_job(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        connection.holds.clear(Hold::Job);
        self.read_again(id, now);
    }

    fn continue_reading(&mut self, id: ConnectionId, now: Now) {
        self.read_again(id, now);
        if self.slots.get(id).is_some_and(|connection| !connection.is_held()) {
            self.mark_ready(id);
        }
    }

    /// Has the executor read a socket again, unless something else stands against it.
    fn read_again(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.slots.get_mut(id).filter(|connection| connection.is_read())
        else {
            return;
        };
        if connection.session().is_some() {
            // Packets sent in the meantime are read only from now on.
            connection.last_received = now;
        }
        self.actions.push_back(Action::Resume { connection: id });
    }

    /// The memory bound is reached: a publisher is not read for a while.
    pub fn rest_for_memory(&mut self, publisher: ConnectionId, timers: &mut Timers, now: Now) {
        if self.slots.get(publisher).is_none_or(|connection| connection.read_holds > 0) {
            return;
        }
        self.pause_reading(publisher);
        let pause = Duration::from_millis(limits::MEMORY_PAUSE_MS);
        timers.arm(now.after(pause), Timer::MemoryPause(publisher));
    }

    /// A client that is not read for the answers it does not take has taken something: it is read again
    /// once that is half.
    pub fn note_answers_taken(
        &mut self,
        id: ConnectionId,
        bytes: usize,
        outbox_bytes_max: usize,
        now: Now,
    ) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        if bytes > 0 {
            // The client is alive, though its packets are not read.
            connection.last_received = now;
        }
        let unsent = connection.outbox.as_ref().map_or(0, |outbox| outbox.len());
        if !connection.is_sending
            || unsent <= limits::UNSENT_ANSWERS_BYTES_MIN / 2
            || connection.pending_bytes() <= outbox_bytes_max / 2
        {
            self.release_hold(id, Hold::Answers, now);
        }
    }

    /// Input that was read is kept, as others have their turn first. While much of it is kept, no more
    /// is read.
    pub fn defer_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.slots.get(id) else { return };
        if connection.unprocessed_bytes() > limits::READ_AHEAD_BYTES
            && !connection.holds.has(Hold::Backlog)
        {
            self.hold(id, Hold::Backlog);
        }
    }

    /// Reads a connection again once little of its input is kept.
    pub fn release_backlog(&mut self, id: ConnectionId, is_spent: bool, now: Now) {
        let Some(connection) = self.slots.get(id) else { return };
        // With budget left, kept input is the start of a packet of any length, whose rest has not arrived.
        let is_start = !connection.is_held() && !is_spent;
        if is_start || connection.unprocessed_bytes() <= limits::READ_AHEAD_BYTES {
            self.release_hold(id, Hold::Backlog, now);
        }
    }
}
