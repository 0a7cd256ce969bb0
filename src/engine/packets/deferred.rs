//! Input and packets that are deferred to a later turn, or until the client reads its answers.

use crate::base::ids::ConnectionId;
use crate::engine::Engine;
use crate::engine::connections::connection::Hold;
use crate::engine::packets::job::State;

impl Engine {
    /// Whether the budget of this turn is spent: what arrives now is kept for a later one, and is better
    /// left where it is.
    pub fn has_spent_turn(&self) -> bool {
        self.work.is_spent()
    }

    /// Continues a connection that had more to do than one turn allows.
    pub(in crate::engine) fn continue_reading(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        self.work.spend(1);
        if connection.holds.has(Hold::Job) {
            match self.continue_job(id) {
                State::Done => {}
                State::Continues => return self.connections.mark_ready(id),
                State::Waits => return,
            }
        }
        self.continue_admitting(id);
        let Some(connection) = self.connections.get(id) else { return };
        if connection.is_held() {
            self.end_if_served(id);
            return;
        }
        if self.holds_for_answers(id) {
            return;
        }
        self.take_in(id, &[]);
        self.unwrap_waiting(id);
        let Some(connection) = self.connections.get(id) else { return };
        let (is_open, is_ready) = (connection.session().is_some(), connection.is_ready);
        self.connections.release_backlog(id, self.work.is_spent(), self.now);
        if is_open {
            self.after_progress(id);
        }
        if !is_ready {
            self.end_if_served(id);
        }
    }
}
