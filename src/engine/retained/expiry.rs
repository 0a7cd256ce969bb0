//! The order in which retained messages expire.

use std::collections::BTreeMap;

use crate::base::clock::{Deadline, Now};
use crate::base::limits;
use crate::engine::timers::{Timer, Timers};
use crate::message::Message;
use crate::resources::gauges::Ledger;

/// The retained messages that expire, in the order in which they do. Each message is listed once while
/// it is retained; a message that is replaced is removed.
#[derive(Debug)]
pub(super) struct Expiries {
    /// By deadline, and by address where several messages have the same deadline. A listed message is
    /// alive, so that no other message has its address.
    by_deadline: BTreeMap<(Deadline, usize), Message>,
    /// When the timer fires that was set last.
    timer: Option<Deadline>,
    /// More messages had expired than were removed in one turn.
    pub(super) has_more: bool,
    ledger: Ledger,
}

impl Expiries {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { by_deadline: BTreeMap::new(), timer: None, has_more: false, ledger }
    }

    /// A message is retained from now on.
    pub(super) fn add(&mut self, message: &Message) {
        let Some(deadline) = message.content().expires else { return };
        let key = (deadline, message.address());
        if self.by_deadline.insert(key, message.clone()).is_none() {
            self.ledger.charge(limits::EXPIRY_BYTES);
        }
    }

    /// A message is no longer retained.
    pub(super) fn remove(&mut self, message: &Message) {
        let Some(deadline) = message.content().expires else { return };
        if self.by_deadline.remove(&(deadline, message.address())).is_some() {
            self.ledger.release(limits::EXPIRY_BYTES);
        }
    }

    /// The first message that has expired.
    pub(super) fn first_due(&self, now: Now) -> Option<Message> {
        let (&(deadline, _), message) = self.by_deadline.first_key_value()?;
        deadline.is_due(now).then(|| message.clone())
    }

    /// Sets a timer for the message that expires next.
    pub(super) fn arm(&mut self, now: Now, timers: &mut Timers) {
        let next = self.by_deadline.first_key_value().filter(|_| !self.has_more);
        let Some((&(next, _), _)) = next else { return };
        let deadline = next.min(now.after_s(limits::TIMER_AHEAD_S));
        if self.timer.is_none_or(|armed| armed > deadline) {
            self.timer = Some(deadline);
            timers.arm(deadline, Timer::RetainedExpiry);
        }
    }

    /// Whether a timer that fired is the one set last: earlier ones mean nothing any more.
    pub(super) fn take_timer(&mut self, now: Now) -> bool {
        let is_due = self.timer.is_some_and(|armed| armed.is_due(now));
        if is_due {
            self.timer = None;
        }
        is_due
    }
}
