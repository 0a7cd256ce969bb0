//! Messages that expire while they wait: when there is no room they are dropped before any other message. A
//! queue that was never full pays nothing for it.
//!
//! A full queue is searched, a part for each new message. An expired message is dropped at once; its place
//! stays, *hollow*, until many places are hollow, so that each costs little wherever it was. After a complete
//! search it is known when the next message expires, and nothing is searched before.

use super::own_bounds::OwnBounds;
use super::queue::{LATEST_BYTES, Queue};
use super::{Delivery, Gone};
use crate::base::clock::{Deadline, Now};
use crate::base::limits;
use crate::message::{Content, Message};
use crate::resources::gauges::Ledger;
use crate::storage::commit::RecordRef;
use crate::wire::Qos;

/// How many places may be hollow, besides a sixteenth of the queue.
const HOLLOW_KEPT: usize = 64;

/// The search for expired messages in a queue.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Stands in hollow places.
    hollow: Message,
    /// How many there are.
    hollow_places: usize,
    /// When the first of those expires that were looked at, or came since.
    next: Deadline,
    /// Where the scan continues, as a number of a message as in `latest`; none when all were checked.
    at: Option<u64>,
    /// How many messages were dropped and checked since the last [`Queue::take_swept`].
    pub(super) swept: Swept,
    /// Bounds of the queue that are not those of all sessions.
    pub(super) own: Option<Box<OwnBounds>>,
}

/// Counts of a scan for expired messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swept {
    /// Messages that had expired.
    pub expired: u64,
    /// Messages that were looked at.
    pub looked_at: usize,
}

impl Sweep {
    pub(super) fn new(ledger: &Ledger) -> Self {
        let content = Content {
            topic: "",
            payload: &[],
            passed_on: &[],
            expires: None,
            qos: Qos::AtLeastOnce,
        };
        Self {
            hollow: content.to_message(ledger),
            hollow_places: 0,
            next: Deadline::at_us(u64::MAX),
            at: Some(0),
            swept: Swept::default(),
            own: None,
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.own.as_ref().map_or(0, |own| own.bytes())
    }

    /// A message has come into the queue.
    #[inline]
    pub(super) fn note_expiry(&mut self, message: &Message) {
        if let Some(deadline) = message.expires() {
            self.next = self.next.min(deadline);
        }
    }

    fn is_through(&self, now: Now) -> bool {
        self.at.is_none() && !self.next.is_due(now)
    }
}

impl Queue {
    /// Lets go of what has expired, as far as it is found at a time; whether something was.
    pub fn expire(&mut self, now: Now, gone: &mut Gone) -> bool {
        let new = || Box::new(Sweep::new(self.count.ledger()));
        let mut sweep = self.sweep.take().unwrap_or_else(new);
        let expired_before = sweep.swept.expired;
        if !sweep.is_through(now) {
            self.look_through(&mut sweep, now, gone);
        }
        let has_expired = sweep.swept.expired > expired_before;
        let hollow_max = HOLLOW_KEPT.max(self.messages.len() / 16);
        let closes_ranks = sweep.hollow_places > hollow_max.min(self.messages.len() / 2);
        self.sweep = Some(sweep);
        if closes_ranks {
            self.close_ranks();
        }
        has_expired
    }

    fn look_through(&mut self, sweep: &mut Sweep, now: Now, gone: &mut Gone) {
        if sweep.at.is_none() {
            sweep.next = Deadline::at_us(u64::MAX);
        }
        let from = sweep.at.map_or(0, |at| at.saturating_sub(self.left) as usize);
        let to = self.messages.len().min(from + limits::SWEPT_AT_ONCE);
        for place in from..to {
            match self.messages[place].message.expires() {
                Some(deadline) if deadline.is_due(now) => self.hollow_out(sweep, place, gone),
                Some(deadline) => sweep.next = sweep.next.min(deadline),
                None => {}
            }
        }
        sweep.swept.looked_at += to.saturating_sub(from);
        sweep.at = (to < self.messages.len()).then_some(self.left + to as u64);
    }

    fn hollow_out(&mut self, sweep: &mut Sweep, place: usize, gone: &mut Gone) {
        let hollow = Delivery {
            message: sweep.hollow.clone(),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_identifiers: super::Identifiers::None,
            shared: None,
            record: RecordRef::default(),
        };
        let expired = std::mem::replace(&mut self.messages[place], hollow);
        let bytes = expired.weight();
        self.count.remove(bytes);
        if place < self.backlog {
            self.backlog_bytes -= bytes;
        }
        self.qos_0 -= usize::from(expired.qos == Qos::AtMostOnce);
        let topic = expired.message.content().topic;
        if !self.latest.is_empty() && self.latest.remove(topic).is_some() {
            self.latest_bytes -= LATEST_BYTES + topic.len();
        }
        gone.note(expired.record);
        sweep.hollow_places += 1;
        sweep.swept.expired += 1;
    }

    /// Leaves out hollow places.
    fn close_ranks(&mut self) {
        let Some(sweep) = &mut self.sweep else { return };
        let (backlog, looked_at) =
            (self.backlog, sweep.at.map(|at| at.saturating_sub(self.left) as usize));
        let (mut place, mut gone_of_looked_at) = (0, 0);
        let hollow_places = sweep.hollow_places as u64;
        self.messages.retain(|delivery| {
            let is_hollow = delivery.message.is_hollow();
            if is_hollow {
                self.backlog -= usize::from(place < backlog);
                gone_of_looked_at += usize::from(looked_at.is_some_and(|to| place < to));
            }
            place += 1;
            !is_hollow
        });
        sweep.at = looked_at.map(|to| self.left + (to - gone_of_looked_at) as u64);
        sweep.hollow_places = 0;
        self.note_removed(hollow_places);
        self.unjudged = self.unjudged.min(self.messages.len());
        if !self.latest.is_empty() {
            self.renumber();
        }
    }

    /// How many messages were dropped and checked since the last call.
    pub fn take_swept(&mut self) -> Swept {
        self.sweep.as_mut().map_or(Swept::default(), |sweep| std::mem::take(&mut sweep.swept))
    }

    /// A hollow place has left the queue.
    pub(super) fn note_hollow_left(&mut self) {
        if let Some(sweep) = &mut self.sweep {
            sweep.hollow_places -= 1;
        }
    }

    /// A message has come into the queue.
    #[inline]
    pub(super) fn note_expiry(&mut self, message: &Message) {
        if let Some(sweep) = &mut self.sweep {
            sweep.note_expiry(message);
        }
    }

    /// So many messages have left from within the queue.
    pub(super) fn note_removed(&mut self, messages: u64) {
        if let Some(own) = self.sweep.as_mut().and_then(|sweep| sweep.own.as_mut()) {
            own.note_removed(messages);
        }
    }

    /// The queue was rearranged: what was not looked at yet may be anywhere.
    pub(super) fn look_anew(&mut self) {
        if let Some(sweep) = &mut self.sweep
            && sweep.at.is_some()
        {
            sweep.at = Some(0);
        }
    }
}

impl Delivery {
    /// Bytes of the message, as the bounds of a queue count them.
    #[inline]
    pub(super) fn weight(&self) -> u64 {
        match self.message.is_hollow() {
            true => 0,
            false => self.message.content().bytes() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Outbound;
    use super::*;
    use crate::base::metrics::Drop as DropCause;
    use crate::config::QueuePolicy;
    use crate::session::outbound::{Next, QueueLimits, Queued};

    const MESSAGES_MAX: usize = 150;

    #[derive(Clone, Debug)]
    enum Step {
        /// A message of this topic arrives, and lives for so long.
        Push(u8, Option<u64>),
        /// So much time passes.
        Pass(u64),
        /// So many are sent and acknowledged.
        Send(usize),
        /// The client connects.
        Resume,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            40 => (any::<u8>(), prop::option::of(1..2_000_u64)).prop_map(|(t, e)| Step::Push(t, e)),
            4 => (1..400_u64).prop_map(Step::Pass),
            1 => (1..40_usize).prop_map(Step::Send),
            1 => Just(Step::Resume),
        ]
    }

    /// A simple model of the queue: topic, number, deadline.
    #[derive(Default)]
    struct Model {
        queue: Vec<(u8, u64, Option<Deadline>)>,
        expired: u64,
        dropped: u64,
    }

    impl Model {
        fn push(&mut self, of: (u8, u64, Option<Deadline>), policy: QueuePolicy, now: Now) {
            if policy == QueuePolicy::KeepLatest
                && let Some(old) = self.queue.iter_mut().find(|old| old.0 == of.0)
            {
                *old = of;
                return;
            }
            if self.queue.len() == MESSAGES_MAX {
                let before = self.queue.len();
                self.queue.retain(|(_, _, expires)| !expires.is_some_and(|at| at.is_due(now)));
                self.expired += (before - self.queue.len()) as u64;
            }
            if self.queue.len() == MESSAGES_MAX {
                self.dropped += 1;
                if policy == QueuePolicy::DropNewest {
                    return;
                }
                self.queue.remove(0);
            }
            self.queue.push(of);
        }

        fn next(&mut self, now: Now) -> Option<u64> {
            while !self.queue.is_empty() {
                let (_, number, expires) = self.queue.remove(0);
                match expires.is_some_and(|at| at.is_due(now)) {
                    true => self.expired += 1,
                    false => return Some(number),
                }
            }
            None
        }
    }

    fn delivery(of: (u8, u64, Option<Deadline>), ledger: &Ledger) -> Delivery {
        let (topic, number, expires) = of;
        let (topic, payload) = (format!("t/{topic}"), number.to_le_bytes());
        let content = Content {
            topic: &topic,
            payload: &payload,
            passed_on: &[],
            expires,
            qos: Qos::AtLeastOnce,
        };
        Delivery {
            message: content.to_message(ledger),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_identifiers: super::super::Identifiers::None,
            shared: None,
            record: RecordRef::default(),
        }
    }

    proptest! {
        #[test]
        fn a_queue_with_hollow_places_is_one_without_what_has_expired(
            policy in prop::sample::select(
                vec![QueuePolicy::DropNewest, QueuePolicy::DropOldest, QueuePolicy::KeepLatest],
            ),
            steps in prop::collection::vec(step(), 1..1_500),
        ) {
            let ledger = Ledger::default();
            let (mut queue, mut model) = (Outbound::new(&ledger), Model::default());
            let limits = QueueLimits {
                messages_max: MESSAGES_MAX,
                bytes_max: u64::MAX,
                user_bytes_max: 0,
                policy,
                inflight_bytes_max: 0,
            };
            let (mut now, mut number, mut expired, mut dropped) = (Now(0), 0, 0, 0);
            queue.resume(10);
            for step in steps {
                match step {
                    Step::Push(topic, lives) => {
                        number += 1;
                        let of = (topic, number, lives.map(|us| Deadline::at_us(now.0 + us)));
                        model.push(of, policy, now);
                        let outcome = queue.push(delivery(of, &ledger), &limits, false, now);
                        let is_full = outcome == Queued::Dropped(DropCause::QueueFull);
                        dropped += u64::from(is_full);
                        expired += queue.take_swept().expired;
                    }
                    Step::Pass(us) => now = Now(now.0 + us),
                    Step::Resume => {
                        queue.resume(10);
                    }
                    Step::Send(many) => for _ in 0..many {
                        let Some(next) = queue.next(now, u64::MAX, &mut expired, |_| true) else {
                            prop_assert_eq!(model.next(now), None);
                            break;
                        };
                        let Next::Publish(sent, Some(identifier), _) = next else { panic!("QoS 1") };
                        let payload = sent.message.content().payload.try_into().expect("a number");
                        prop_assert_eq!(Some(u64::from_le_bytes(payload)), model.next(now));
                        queue.acknowledge(identifier, super::super::Ack::Puback);
                    },
                }
                prop_assert_eq!((queue.queued(), expired), (model.queue.len(), model.expired));
                prop_assert_eq!(dropped, model.dropped);
                prop_assert!(queue.queue.len() <= model.queue.len() + HOLLOW_KEPT + MESSAGES_MAX / 16);
                let bytes: u64 = queue.queue.messages.iter().map(Delivery::weight).sum();
                prop_assert_eq!(queue.queue.count.bytes(), bytes);
                let backlog: u64 =
                    queue.queue.messages.iter().take(queue.queue.backlog).map(Delivery::weight).sum();
                prop_assert_eq!(queue.queue.backlog_bytes, backlog);
            }
            drop(queue);
            prop_assert_eq!(ledger.bytes(), 0);
        }
    }
}
