//! Connections that continue in a later turn, because the budget of this one was spent
//! ([`Work`](crate::engine::work::Work)): with input, retained messages, a packet that takes several turns.

use std::collections::VecDeque;

use crate::base::ids::ConnectionId;
use crate::engine::connections::Connections;

/// The connections that wait for their turn. Each is in one of the lists once, which
/// [`Connection::is_ready`](crate::engine::connections::connection::Connection::is_ready) says.
#[derive(Debug, Default)]
pub(super) struct Turns {
    ready: VecDeque<ConnectionId>,
    /// Connections that got none of the budget in the turn in which their input came: they are served first.
    untouched: VecDeque<ConnectionId>,
    /// How many continue in this turn, while it is being ended.
    left: usize,
}

impl Turns {
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.untouched.is_empty()
    }

    fn len(&self) -> usize {
        self.untouched.len() + self.ready.len()
    }
}

impl Connections {
    /// Continues a connection after those that wait already.
    pub fn mark_ready(&mut self, id: ConnectionId) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        if !connection.is_ready {
            connection.is_ready = true;
            self.turns.ready.push_back(id);
        }
    }

    /// Continues a connection before those that had something of the budget: it was spent when the input
    /// of this one came.
    pub fn mark_untouched(&mut self, id: ConnectionId) {
        let Some(connection) = self.slots.get_mut(id) else { return };
        if !connection.is_ready {
            connection.is_ready = true;
            self.counts.inputs_deferred += 1;
            self.turns.untouched.push_back(id);
        }
    }

    /// How many connections wait for their turn.
    pub fn waiting(&self) -> usize {
        self.turns.len()
    }

    /// Each connection that waits now continues once in this turn; those that are added meanwhile do in
    /// the next one.
    pub fn begin_turns(&mut self) {
        self.turns.left = self.turns.len();
    }

    /// The next connection to continue in this turn. Connections that have ended are among them.
    pub fn next_ready(&mut self) -> Option<ConnectionId> {
        self.turns.left = self.turns.left.checked_sub(1)?;
        let id = self.turns.untouched.pop_front().or_else(|| self.turns.ready.pop_front())?;
        if let Some(connection) = self.slots.get_mut(id) {
            connection.is_ready = false;
        }
        Some(id)
    }
}
