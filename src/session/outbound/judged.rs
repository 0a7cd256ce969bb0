//! Messages that waited when rights changed: each is looked at before it is sent, and no other is.

use super::Outbound;

impl Outbound {
    /// Rights have changed: what waits now is to be judged by them.
    pub fn judge_anew(&mut self) {
        (self.queue.unjudged, self.unjudged_held) = (self.queue.len(), self.held.len());
    }

    /// Whether something waits that is to be judged.
    pub fn has_unjudged(&self) -> bool {
        self.queue.has_unjudged() || self.unjudged_held > 0
    }
}
