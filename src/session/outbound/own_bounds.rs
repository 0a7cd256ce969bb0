//! Queues with bounds of their own, as bridges have them, and with a time after which messages leave unsent.
//!
//! A queue without pays nothing: such bounds are with the search for expired messages, which every full queue has, and
//! a message that has come into a queue with own bounds comes again within them.

use std::collections::VecDeque;

use super::backfill::Backfill;
use super::expired::Sweep;
use super::queue::{LATEST_BYTES, Queue, QueueLimits, Queued};
use super::{Delivery, Gone, Outbound};
use crate::base::clock::{Deadline, Now};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;
use crate::config::bridge::BridgeQueue;

/// Parts of the time in which messages expire: they leave as much later at most.
const STEPS: u64 = 64;

/// Quarters of the bounds from which publishers wait, and below which they go on.
const HOLD_FROM: u64 = 3;
const HOLD_UNTIL: u64 = 2;

/// The bounds of one queue, and when its messages came.
#[derive(Debug)]
pub(super) struct OwnBounds {
    bounds: BridgeQueue,
    /// Instants with a number of a message, counted as in `Queue::latest`: those before had come then. Two in
    /// succession are for one of the [`STEPS`] at least.
    marks: VecDeque<(Now, u64)>,
    /// When the last message came; those of before the bounds were set count as having come at the first look.
    last: Option<Now>,
    /// Messages before this number have expired.
    expired_before: u64,
    /// How fast what has waited for a connection is sent.
    backfill: Backfill,
}

impl OwnBounds {
    /// The limits of the queue, where those of all sessions are `all`.
    fn limits(&self, all: &QueueLimits) -> QueueLimits {
        QueueLimits {
            messages_max: match self.bounds.messages_max {
                0 => all.messages_max,
                most => most as usize,
            },
            bytes_max: match self.bounds.bytes_max {
                0 => all.bytes_max,
                most => most,
            },
            user_bytes_max: all.user_bytes_max,
            policy: self.bounds.policy().unwrap_or(all.policy),
            inflight_bytes_max: all.inflight_bytes_max,
        }
    }

    /// All messages before this number have come by `now`, and no later than the last one that was noted.
    fn mark(&mut self, now: Now, number: u64) {
        let came = *self.last.get_or_insert(now);
        let step_us = self.expiry_us() / STEPS;
        let before = self.marks.len().checked_sub(2).map(|place| self.marks[place].0);
        let is_near = before.is_some_and(|before| came.since_us(before) < step_us);
        match self.marks.back_mut() {
            Some(last) if is_near || last.0 == came => *last = (came, number),
            _ => self.marks.push_back((came, number)),
        }
    }

    /// The number of the first message that has not expired.
    fn expire(&mut self, now: Now) -> u64 {
        while let Some(&(came, number)) = self.marks.front()
            && now.since_us(came) >= self.expiry_us()
        {
            self.expired_before = number;
            self.marks.pop_front();
        }
        self.expired_before
    }

    fn expiry_us(&self) -> u64 {
        u64::from(self.bounds.expiry_s) * 1_000_000
    }

    /// So many messages have left from within the queue: the numbers of those behind are lower now.
    pub(super) fn note_removed(&mut self, messages: u64) {
        for (_, number) in &mut self.marks {
            *number = number.saturating_sub(messages);
        }
        self.expired_before = self.expired_before.saturating_sub(messages);
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.marks.capacity() * size_of::<(Now, u64)>()
    }
}

impl Queue {
    /// From now on these bounds hold, or those of all sessions if they are the default ones.
    fn set_own_bounds(&mut self, bounds: BridgeQueue) {
        if bounds == BridgeQueue::default() {
            if let Some(sweep) = &mut self.sweep {
                sweep.own = None;
            }
            return;
        }
        let ledger = self.count.ledger();
        let sweep = self.sweep.get_or_insert_with(|| Box::new(Sweep::new(ledger)));
        let new = || {
            let marks = VecDeque::new();
            let backfill = Backfill::default();
            Box::new(OwnBounds { bounds, marks, last: None, expired_before: 0, backfill })
        };
        let policy_before = sweep.own.as_ref().and_then(|own| own.bounds.policy());
        sweep.own.get_or_insert_with(new).bounds = bounds;
        let keeps_latest = bounds.policy() == Some(QueuePolicy::KeepLatest);
        if keeps_latest && policy_before != bounds.policy() {
            self.renumber();
        }
    }

    /// Whether the queue has bounds of its own.
    pub(super) fn has_own_bounds(&self) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.own.is_some())
    }

    /// Whether messages wait in the queue while the client is away.
    fn is_for_offline(&self) -> bool {
        let own = self.sweep.as_ref().and_then(|sweep| sweep.own.as_ref());
        own.is_none_or(|own| own.bounds.offline)
    }

    /// Adds a message to a queue with bounds of its own.
    #[cold]
    pub(super) fn push_within_own(
        &mut self,
        delivery: Delivery,
        all: &QueueLimits,
        online: bool,
        now: Now,
        gone: &mut Gone,
    ) -> Queued {
        self.expire_old(now, gone);
        if !online && !self.is_for_offline() {
            gone.note(delivery.record);
            return Queued::Dropped(DropCause::Offline);
        }
        let own = self.sweep.as_mut().and_then(|sweep| sweep.own.as_mut());
        let limits = own.map_or(*all, |own| {
            own.last = Some(now);
            own.limits(all)
        });
        let outcome = self.push_within::<false>(delivery, &limits, online, now, gone);
        match outcome {
            Queued::Kept if self.fills(&limits, HOLD_FROM) => Queued::KeptHolding,
            other => other,
        }
    }

    /// Whether publishers wait for room in the queue, and it has so many quarters of its bounds or more.
    fn fills(&self, limits: &QueueLimits, quarters: u64) -> bool {
        let own = self.sweep.as_ref().and_then(|sweep| sweep.own.as_ref());
        own.is_some_and(|own| own.bounds.holds_publishers)
            && (4 * self.messages() as u64 >= quarters * limits.messages_max as u64
                || self.count.bytes() / quarters >= limits.bytes_max / 4)
    }

    /// A message has come, within the bounds of all sessions, into a queue that has its own.
    #[cold]
    pub(super) fn push_again(
        &mut self,
        outcome: Queued,
        all: &QueueLimits,
        online: bool,
        now: Now,
        gone: &mut Gone,
    ) -> Queued {
        let Some(delivery) = self.messages.pop_back() else { return outcome };
        self.count.remove(delivery.weight());
        self.qos_0 -= usize::from(delivery.qos == crate::wire::Qos::AtMostOnce);
        let (number, topic) =
            (self.left + self.messages.len() as u64, delivery.message.content().topic);
        if self.latest.get(topic) == Some(&number) {
            self.latest.remove(topic);
            self.latest_bytes -= LATEST_BYTES + topic.len();
        }
        self.push_within_own(delivery, all, online, now, gone)
    }

    /// Drops messages that are older than the queue's own bounds allow, a limited number at a time.
    fn expire_old(&mut self, now: Now, gone: &mut Gone) {
        let end = self.left + self.messages.len() as u64;
        let own = self.sweep.as_mut().and_then(|sweep| sweep.own.as_mut());
        let Some(own) = own.filter(|own| own.bounds.expiry_s > 0) else { return };
        own.mark(now, end);
        let expired_before = own.expire(now);
        // A message that has taken the place of another one has come later.
        if !self.latest.is_empty() {
            return;
        }
        let mut expired = 0;
        while self.left < expired_before && expired < limits::EXPIRED_AT_ONCE {
            let Some(dropped) = self.pop() else { break };
            if !dropped.message.is_hollow() {
                gone.note(dropped.record);
                expired += 1;
            }
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.swept.expired += expired;
        }
    }
}

impl Outbound {
    /// From now on, these bounds of the queue hold instead of those of all sessions; the default ones are those.
    pub fn set_own_bounds(&mut self, bounds: BridgeQueue) {
        self.queue.set_own_bounds(bounds);
        self.settle_anew();
    }

    /// The numbers of the first message that waits and of the next one that will come: they count up.
    pub fn queue_numbers(&self) -> (u64, u64) {
        (self.queue.left, self.queue.left + self.queue.messages.len() as u64)
    }

    fn own(&mut self) -> Option<&mut OwnBounds> {
        Some(self.queue.sweep.as_mut()?.own.as_mut()?)
    }

    /// The client has connected: what waits now is sent within the bound of the queue, if it has one.
    pub fn begin_backfill(&mut self) {
        if let Some(own) = self.own() {
            own.backfill.begin();
        }
    }

    /// How many messages a queue with bounds of its own may send now; none for other queues.
    #[inline]
    pub fn quota(&mut self, now: Now) -> Option<usize> {
        let own = self.own()?;
        Some(own.backfill.quota(own.bounds.backfill_per_second_max, now).unwrap_or(usize::MAX))
    }

    /// A queue with bounds of its own has sent so many. Returns when to send more, if a timer has to be armed for that.
    pub fn note_backfilled(&mut self, messages: usize) -> Option<Deadline> {
        let has_waiting = self.has_waiting();
        let own = self.own()?;
        own.backfill.note_sent(messages, has_waiting, own.bounds.backfill_per_second_max)
    }

    /// That timer has fired.
    pub fn note_backfill_timer(&mut self) {
        if let Some(own) = self.own() {
            own.backfill.note_fired();
        }
    }

    /// Whether publishers that wait for room in the queue go on waiting. `all` are the bounds of all sessions.
    pub fn holds_publishers(&self, all: &QueueLimits) -> bool {
        let own = self.queue.sweep.as_ref().and_then(|sweep| sweep.own.as_ref());
        own.is_some_and(|own| self.queue.fills(&own.limits(all), HOLD_UNTIL))
    }

    /// Drops messages that are older than the queue's own bounds allow, a limited number at a time;
    /// [`Self::take_swept`] says how many.
    pub fn expire_old(&mut self, now: Now) {
        self.queue.expire_old(now, &mut self.gone);
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::bridge::BridgePolicy;
    use crate::message::Content;
    use crate::resources::gauges::Ledger;
    use crate::session::outbound::Next;
    use crate::storage::commit::RecordRef;
    use crate::wire::Qos;

    const ALL: QueueLimits = QueueLimits {
        messages_max: 10,
        bytes_max: 1 << 20,
        user_bytes_max: 0,
        policy: QueuePolicy::DropNewest,
        inflight_bytes_max: 0,
    };

    fn own(bounds: BridgeQueue) -> (Outbound, Ledger) {
        let ledger = Ledger::default();
        let mut outbound = Outbound::new(&ledger);
        outbound.set_own_bounds(bounds);
        (outbound, ledger)
    }

    /// Queues messages with these numbers at a second; returns what came of the last one.
    fn push(
        outbound: &mut Outbound,
        all: &QueueLimits,
        numbers: std::ops::Range<u64>,
        second: u64,
    ) -> Queued {
        let mut outcome = Queued::Kept;
        let ledger = Ledger::default();
        for number in numbers {
            let (topic, payload) = (format!("t/{}", number % 3), number.to_string());
            let content = Content {
                topic: &topic,
                payload: payload.as_bytes(),
                passed_on: &[],
                expires: None,
                qos: Qos::AtLeastOnce,
            };
            let delivery = Delivery {
                message: content.to_message(&ledger),
                qos: Qos::AtLeastOnce,
                retain: false,
                subscription_identifiers: super::super::Identifiers::None,
                shared: None,
                record: RecordRef::default(),
            };
            outcome = outbound.push(delivery, all, false, Now(second * 1_000_000));
        }
        outcome
    }

    #[test]
    fn publishers_wait_from_three_quarters_of_the_bounds_until_half_of_them() {
        let four = |holds_publishers| BridgeQueue {
            messages_max: 4,
            holds_publishers,
            ..BridgeQueue::default()
        };
        let (mut outbound, _ledger) = own(four(true));
        assert_eq!(push(&mut outbound, &ALL, 0..2, 0), Queued::Kept);
        assert_eq!(push(&mut outbound, &ALL, 2..3, 0), Queued::KeptHolding);
        assert_eq!(push(&mut outbound, &ALL, 3..4, 0), Queued::KeptHolding);
        assert!(outbound.holds_publishers(&ALL));
        for left in [true, true, false] {
            outbound.queue.pop();
            assert_eq!(outbound.holds_publishers(&ALL), left, "{}", outbound.queued());
        }
        let (mut outbound, _ledger) = own(four(false));
        assert_eq!(push(&mut outbound, &ALL, 0..4, 0), Queued::Kept);
        assert!(!outbound.holds_publishers(&ALL));
        let bytes = BridgeQueue { bytes_max: 700, holds_publishers: true, ..four(true) };
        let (mut outbound, _ledger) = own(BridgeQueue { messages_max: 100, ..bytes });
        assert_eq!(push(&mut outbound, &ALL, 0..1, 0), Queued::Kept);
        let outcomes = (1..100).map(|number| push(&mut outbound, &ALL, number..number + 1, 0));
        let first = outcomes.into_iter().find(|outcome| *outcome != Queued::Kept);
        assert_eq!(first, Some(Queued::KeptHolding), "bytes, too");
    }

    /// The numbers of all messages that wait, as they would be sent.
    fn sent(outbound: &mut Outbound, second: u64) -> Vec<u64> {
        outbound.resume(1_000);
        let now = Now(second * 1_000_000);
        let next = || match outbound.next(now, u64::MAX, &mut 0, |_| true)? {
            Next::Publish(sent, ..) => {
                std::str::from_utf8(sent.message.content().payload).ok()?.parse().ok()
            }
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn the_default_bounds_are_those_of_all_sessions_again() {
        let two = BridgeQueue { messages_max: 2, expiry_s: 100, ..BridgeQueue::default() };
        let (mut outbound, _ledger) = own(two);
        assert_eq!(push(&mut outbound, &ALL, 0..3, 0), Queued::Dropped(DropCause::QueueFull));
        outbound.set_own_bounds(BridgeQueue::default());
        assert!(!outbound.queue.has_own_bounds());
        assert_eq!(push(&mut outbound, &ALL, 3..11, 1), Queued::Kept);
        outbound.expire_old(Now(1_000_000_000));
        assert_eq!(outbound.queue.messages(), 10);
        assert_eq!(push(&mut outbound, &ALL, 11..12, 1), Queued::Dropped(DropCause::QueueFull));
    }

    #[test]
    fn own_bounds_are_narrower_or_wider_than_those_of_all_sessions() {
        for most in [4, 40] {
            let bounds = BridgeQueue { messages_max: most, ..BridgeQueue::default() };
            let (mut outbound, _ledger) = own(bounds);
            let all = ALL;
            assert_eq!(push(&mut outbound, &all, 0..u64::from(most), 0), Queued::Kept);
            let dropped = Queued::Dropped(DropCause::QueueFull);
            assert_eq!(push(&mut outbound, &all, 100..101, 0), dropped);
            assert_eq!(sent(&mut outbound, 0), (0..u64::from(most)).collect::<Vec<_>>());
        }
        let bounds = BridgeQueue { bytes_max: 300, ..BridgeQueue::default() };
        let (mut outbound, _ledger) = own(bounds);
        let outcome = push(&mut outbound, &ALL, 0..10, 0);
        assert_eq!(outcome, Queued::Dropped(DropCause::QueueFull), "bytes, too");
        assert!((1..10).contains(&sent(&mut outbound, 0).len()));
    }

    #[test]
    fn the_own_policy_decides_whatever_that_of_all_sessions_is() {
        use BridgePolicy::{DropNewest, DropOldest, KeepLatest};
        let all = [QueuePolicy::DropNewest, QueuePolicy::DropOldest, QueuePolicy::KeepLatest];
        for of_all in all {
            for (policy, expected) in [
                (DropNewest, vec![0, 1, 2, 3, 4]),
                (DropOldest, vec![15, 16, 17, 18, 19]),
                (KeepLatest, vec![18, 19, 17]),
            ] {
                let bounds = BridgeQueue { messages_max: 5, policy, ..BridgeQueue::default() };
                let (mut outbound, ledger) = own(bounds);
                push(&mut outbound, &QueueLimits { policy: of_all, ..ALL }, 0..20, 0);
                assert_eq!(sent(&mut outbound, 0), expected, "{of_all:?} {policy:?}");
                drop(outbound);
                assert_eq!(ledger.bytes(), 0);
            }
        }
    }

    #[test]
    fn a_message_leaves_unsent_once_it_is_too_old_and_not_before() {
        let bounds = BridgeQueue { expiry_s: 64, messages_max: 1_000, ..BridgeQueue::default() };
        let (mut outbound, _ledger) = own(bounds);
        for second in 0..200 {
            push(&mut outbound, &ALL, second..second + 1, second);
        }
        // The last one came in second 199: those of 135 and before are 64 seconds old.
        assert_eq!(outbound.take_swept().expired, 136);
        outbound.expire_old(Now(200 * 1_000_000));
        assert_eq!(sent(&mut outbound, 200), (137..200).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_messages_of_a_queue_expire_without_a_newer_one() {
        let (mut outbound, _ledger) = own(BridgeQueue { expiry_s: 10, ..BridgeQueue::default() });
        push(&mut outbound, &ALL, 0..5, 0);
        outbound.expire_old(Now(9_999_999));
        assert_eq!(outbound.queued(), 5);
        outbound.expire_old(Now(10_000_000));
        assert_eq!((outbound.queued(), outbound.take_swept().expired), (0, 5));
    }

    #[test]
    fn marks_of_ages_are_bounded_and_what_leaves_from_within_makes_no_message_expire_early() {
        let bounds =
            BridgeQueue { expiry_s: 1_000, messages_max: 1_000_000, ..BridgeQueue::default() };
        let (mut outbound, _ledger) = own(bounds);
        for second in 0..900 {
            push(&mut outbound, &ALL, second..second + 1, second);
        }
        let sweep = outbound.queue.sweep.as_mut().expect("it has own bounds");
        let own = sweep.own.as_mut().expect("it has own bounds");
        assert!(own.marks.len() <= 2 * STEPS as usize + 3, "{}", own.marks.len());
        own.note_removed(100);
        // As if 100 of the first had left.
        for _ in 0..100 {
            outbound.queue.messages.pop_front();
        }
        outbound.expire_old(Now(1_100 * 1_000_000));
        let first = outbound.queue.messages.front().expect("some are left");
        let first: u64 = std::str::from_utf8(first.message.content().payload)
            .expect("a number")
            .parse()
            .expect("a number");
        assert!((100..=101).contains(&first), "{first}: those of 100 seconds have expired");
    }
}
