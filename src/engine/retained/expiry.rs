//! When retained messages expire: which of them is next, and taking those away that are due, a
//! bounded number at a time.

use std::collections::BTreeMap;

use crate::base::clock::{Deadline, Now};
use crate::base::limits;
use crate::engine::retained::{Stored, steps_to_take};
use crate::engine::{Engine, Timer};
use crate::message::Message;
use crate::resources::gauges::Ledger;

/// The retained messages that expire, in the order in which they do. Each of them is here once, as
/// long as it is retained: one that is replaced leaves nothing behind.
#[derive(Debug)]
pub(in crate::engine) struct Expiries {
    /// By deadline, and by address where several have the same one. A message that is here lives, so
    /// no other one has its address.
    by_deadline: BTreeMap<(Deadline, usize), Message>,
    /// When the timer fires that looks at them.
    timer: Option<Deadline>,
    /// More were due than are taken away at a time.
    has_more: bool,
    ledger: Ledger,
}

impl Expiries {
    pub(in crate::engine) fn new(ledger: Ledger) -> Self {
        Self { by_deadline: BTreeMap::new(), timer: None, has_more: false, ledger }
    }

    /// A message is retained from here on.
    pub(in crate::engine) fn add(&mut self, message: &Message) {
        let Some(deadline) = message.content().expires else { return };
        let key = (deadline, message.address());
        if self.by_deadline.insert(key, message.clone()).is_none() {
            self.ledger.charge(limits::EXPIRY_BYTES);
        }
    }

    /// It is not retained any more.
    pub(in crate::engine) fn remove(&mut self, message: &Message) {
        let Some(deadline) = message.content().expires else { return };
        if self.by_deadline.remove(&(deadline, message.address())).is_some() {
            self.ledger.release(limits::EXPIRY_BYTES);
        }
    }

    /// Whether some are due that wait for the next turn.
    pub(in crate::engine) fn has_more(&self) -> bool {
        self.has_more
    }

    fn first_due(&self, now: Now) -> Option<Message> {
        let (&(deadline, _), message) = self.by_deadline.first_key_value()?;
        deadline.is_due(now).then(|| message.clone())
    }

    fn next(&self) -> Option<Deadline> {
        self.by_deadline.first_key_value().map(|(&(deadline, _), _)| deadline)
    }
}

impl Engine {
    /// Sees to it that the next retained message goes when it expires.
    pub(in crate::engine) fn arm_expiry(&mut self) {
        let next = self.expiries.next().filter(|_| !self.expiries.has_more);
        let Some(next) = next else { return };
        let deadline = next.min(self.now.after_s(limits::TIMER_AHEAD_S));
        if self.expiries.timer.is_none_or(|armed| armed > deadline) {
            self.expiries.timer = Some(deadline);
            self.timers.arm(deadline, Timer::RetainedExpiry);
        }
    }

    /// The timer for retained messages fired.
    pub(in crate::engine) fn look_at_expiries(&mut self) {
        // Of several timers, only the one armed last means anything.
        if self.expiries.timer.is_some_and(|armed| armed.is_due(self.now)) {
            self.expiries.timer = None;
            self.expire_retained();
        }
    }

    /// Goes on with those for which there was no time in the turn before.
    pub(in crate::engine) fn go_on_with_expiries(&mut self) {
        if self.expiries.has_more {
            self.expire_retained();
        }
    }

    fn expire_retained(&mut self) {
        self.expiries.has_more = self.expire_some();
        if !self.expiries.has_more {
            self.arm_expiry();
        }
    }

    /// Takes retained messages away that have expired. Whether there may be more.
    pub(in crate::engine) fn expire_some(&mut self) -> bool {
        let mut steps = limits::RETAINED_TAKEN_STEPS;
        while steps > 0 {
            let Some(message) = self.expiries.first_due(self.now) else { return false };
            steps = steps.saturating_sub(steps_to_take(message.content().topic));
            self.forget_retained(&message);
        }
        true
    }

    /// Takes a message away that has expired, unless a younger one has its place. Every core finds out
    /// by itself, and the store, which knows when a message expires, does too.
    fn forget_retained(&mut self, message: &Message) {
        let topic = message.content().topic;
        let is_it = |kept: &&Stored| kept.message.as_ref().is_some_and(|m| m.is_same(message));
        let Some(stamp) = self.retained.get(topic).filter(is_it).map(|kept| kept.stamp) else {
            debug_assert!(false, "a message that is not retained has no expiry");
            self.expiries.remove(message);
            return;
        };
        self.metrics.retained_expired += 1;
        // As one that a client takes away: an older one may still be on its way here.
        self.store(topic, &Stored { stamp, message: None });
    }
}
