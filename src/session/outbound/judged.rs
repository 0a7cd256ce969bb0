//! Messages that waited when rights changed: only these are checked before they are sent.

use super::Outbound;

impl Outbound {
    /// Rights have changed: messages that wait now are checked against them.
    pub fn judge_again(&mut self) {
        (self.queue.unjudged, self.unjudged_held) = (self.queue.len(), self.held.len());
    }

    /// Whether messages wait that have to be checked.
    pub fn has_unjudged(&self) -> bool {
        self.queue.has_unjudged() || self.unjudged_held > 0
    }
}
