//! The time of a core. Each event brings it; what is measured for a point in time is measured when it
//! advances.

use crate::base::clock::Now;
use crate::engine::Engine;

impl Engine {
    /// Advances the time, never back: in a turn that began early, a batch may have advanced it further.
    #[inline]
    pub(in crate::engine) fn set_now(&mut self, now: Now) {
        if self.now < now {
            self.begin_at(now);
        }
    }

    fn begin_at(&mut self, now: Now) {
        self.now = now;
        self.observers.watch.begin_turn(self.config.bounds_rates);
        self.memory.measure_others();
        self.router.give_way(self.memory.is_short());
    }
}
