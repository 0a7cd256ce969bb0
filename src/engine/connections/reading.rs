//! Whether a connection is read, and whether what was read is processed: for each reason that stands
//! against it there is one place that sets it and one that takes it back. And the line of connections
//! that go on in a later turn, because the budget of this one was spent ([`Work`](crate::engine::work::Work)).

use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::{Action, Engine, Timer};

impl Connection {
    /// Whether input must wait.
    #[inline]
    pub(in crate::engine) fn is_held(&self) -> bool {
        self.holders > 0 || self.holds.holds_input()
    }

    /// Whether the executor is to read the socket.
    fn is_read(&self) -> bool {
        self.holders == 0 && self.holds.is_empty()
    }
}

impl Engine {
    /// Leaves a socket unread until [`Self::resume_reading`] was called as often.
    pub(in crate::engine) fn pause_reading(&mut self, publisher: ConnectionId) {
        let Some(connection) = self.links.get(publisher) else { return };
        let was_read = connection.is_read();
        connection.holders += 1;
        if connection.holders == 1 {
            self.metrics.publishers_paused += 1;
        }
        if was_read {
            self.links.actions.push_back(Action::Pause { connection: publisher });
        }
    }

    /// Reads a publisher's socket again, after what it had sent already.
    pub(in crate::engine) fn resume_reading(&mut self, publisher: ConnectionId) {
        let Some(connection) = self.links.get(publisher) else { return };
        let Some(left) = connection.holders.checked_sub(1) else { return };
        connection.holders = left;
        if left == 0 {
            self.go_on_reading(publisher);
        }
    }

    /// Leaves a socket unread for a reason of its own, until [`Self::release_hold`].
    pub(in crate::engine) fn hold(&mut self, id: ConnectionId, reason: Hold) {
        let Some(connection) = self.links.get(id) else { return };
        let was_read = connection.is_read();
        connection.holds.set(reason);
        if was_read {
            self.links.actions.push_back(Action::Pause { connection: id });
        }
    }

    /// The reason is there no more.
    pub(in crate::engine) fn release_hold(&mut self, id: ConnectionId, reason: Hold) {
        let Some(connection) = self.links.get(id) else { return };
        if connection.holds.has(reason) {
            connection.holds.clear(reason);
            self.go_on_reading(id);
        }
    }

    /// The packet that took several turns is done. What came after it is next, in this very turn.
    pub(in crate::engine) fn release_job(&mut self, id: ConnectionId) {
        let Some(connection) = self.links.get(id) else { return };
        connection.holds.clear(Hold::Job);
        self.read_again(id);
    }

    fn go_on_reading(&mut self, id: ConnectionId) {
        self.read_again(id);
        if self.links.get(id).is_some_and(|connection| !connection.is_held()) {
            self.mark_ready(id);
        }
    }

    /// Has the executor read a socket again, unless something else stands against it.
    fn read_again(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.links.get(id).filter(|connection| connection.is_read()) else {
            return;
        };
        if connection.session().is_some() {
            // What it has sent meanwhile is read only from now on.
            connection.last_received = now;
        }
        self.links.actions.push_back(Action::Resume { connection: id });
    }

    /// The memory bound is reached: a publisher rests for a while.
    pub(in crate::engine) fn rest_for_memory(&mut self, publisher: ConnectionId) {
        if self.links.get(publisher).is_none_or(|connection| connection.holders > 0) {
            return;
        }
        self.pause_reading(publisher);
        let pause = std::time::Duration::from_millis(limits::MEMORY_PAUSE_MS);
        self.timers.arm(self.now.after(pause), Timer::MemoryPause(publisher));
    }

    /// Whether the budget of this turn is spent: what arrives now is kept for a later one, and is better
    /// left where it is.
    pub fn has_spent_turn(&self) -> bool {
        self.work.is_spent()
    }

    /// Whether so many answers wait for a client that does not take them that it is not read: what it
    /// sends would only add to them.
    pub(in crate::engine) fn holds_for_answers(&mut self, id: ConnectionId) -> bool {
        let is_full = self.memory_is_full();
        let outbox_bytes_max = self.config.limits.outbox_bytes_max as usize;
        let Some(connection) = self.links.get(id) else { return false };
        let unsent = connection.outbox.as_ref().map_or(0, |outbox| outbox.len());
        let (unsent_max, pending_max) = match is_full {
            false => (limits::UNSENT_ANSWERS_BYTES_MAX, outbox_bytes_max),
            true => (limits::UNSENT_ANSWERS_BYTES_MIN, limits::UNSENT_ANSWERS_BYTES_MIN),
        };
        if unsent <= unsent_max || connection.pending_bytes() <= pending_max {
            return false;
        }
        // Nothing leaves while the executor has no buffer out: then it is not the client who waits. And
        // whoever is gone takes nothing any more.
        if !connection.is_sending || connection.is_deaf() {
            return false;
        }
        self.metrics.clients_unread += 1;
        self.hold(id, Hold::Answers);
        true
    }

    /// A client that is not read for the answers it does not take has taken something: it is read again
    /// once that is half.
    pub(in crate::engine) fn note_answers_taken(&mut self, id: ConnectionId, bytes: usize) {
        let (now, outbox_bytes_max) = (self.now, self.config.limits.outbox_bytes_max as usize);
        let Some(connection) = self.links.get(id) else { return };
        if bytes > 0 {
            // It lives, though what it sends is not read.
            connection.last_received = now;
        }
        let unsent = connection.outbox.as_ref().map_or(0, |outbox| outbox.len());
        if !connection.is_sending
            || unsent <= limits::UNSENT_ANSWERS_BYTES_MIN / 2
            || connection.pending_bytes() <= outbox_bytes_max / 2
        {
            self.release_hold(id, Hold::Answers);
        }
    }

    /// Gives a connection another turn, after those who wait already.
    pub(in crate::engine) fn mark_ready(&mut self, id: ConnectionId) {
        let Some(connection) = self.links.get(id) else { return };
        if !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(id);
        }
    }

    /// The budget was spent before this client had anything of it: it comes before those who had.
    pub(in crate::engine) fn mark_untouched(&mut self, id: ConnectionId) {
        let Some(connection) = self.links.get(id) else { return };
        if !connection.is_ready {
            connection.is_ready = true;
            self.metrics.inputs_deferred += 1;
            self.untouched.push_back(id);
        }
    }

    /// The next connection that is to go on.
    pub(in crate::engine) fn next_ready(&mut self) -> Option<ConnectionId> {
        let waiting = self.untouched.len() + self.ready.len();
        let id = self.untouched.pop_front().or_else(|| self.ready.pop_front())?;
        self.work.begin_share(waiting);
        Some(id)
    }

    /// Goes on with a connection that had more to do than one turn allows.
    pub(in crate::engine) fn go_on(&mut self, id: ConnectionId) {
        let Some(connection) = self.links.get(id) else { return };
        connection.is_ready = false;
        self.work.spend(1);
        if connection.holds.has(Hold::Job) && !self.go_on_with_job(id) {
            return self.mark_ready(id);
        }
        self.go_on_admitting(id);
        let Some(connection) = self.links.get(id) else { return };
        if connection.is_held() {
            self.end_if_served(id);
            return;
        }
        if self.holds_for_answers(id) {
            return;
        }
        self.take_in(id, &[]);
        let Some(connection) = self.links.get(id) else { return };
        let (is_open, is_ready) = (connection.session().is_some(), connection.is_ready);
        // With budget left, what is kept is the start of a packet, however long: its rest is to come.
        let is_start = !connection.is_held() && !self.work.is_spent();
        if is_start || connection.stash().len() <= limits::READ_AHEAD_BYTES {
            self.release_hold(id, Hold::Backlog);
        }
        if is_open {
            self.after_progress(id.slot);
        }
        if !is_ready {
            self.end_if_served(id);
        }
    }

    /// Input that was read is kept, as others have their turn first. While much of it is kept, no more
    /// is read.
    pub(in crate::engine) fn defer_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.links.get(id) else { return };
        if connection.stash().len() > limits::READ_AHEAD_BYTES
            && !connection.holds.has(Hold::Backlog)
        {
            self.hold(id, Hold::Backlog);
        }
    }
}
