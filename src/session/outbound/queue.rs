//! The queue of one client: messages that wait behind what is in flight, within their bounds.

use std::collections::{HashMap, VecDeque};

use super::expired::Sweep;
use super::{Delivery, Gone};
use crate::base::clock::Now;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;
use crate::resources::gauges::Ledger;
use crate::resources::users::{Membership, QueueCount};
use crate::wire::Qos;

/// Places in a queue that are kept when it is empty.
const ROOM_KEPT: usize = 256;

/// Approximate bytes of a topic under `keep-latest` besides its name.
pub(super) const LATEST_BYTES: usize = 48;

/// Bounds of one queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Messages.
    pub messages_max: usize,
    /// Bytes of messages, each counted whole.
    pub bytes_max: u64,
    /// Bytes of all queues of the session's user; 0 is no bound.
    pub user_bytes_max: u64,
    /// Which messages are dropped when the queue is full.
    pub policy: QueuePolicy,
    /// Bytes of payloads in flight, beyond which further messages wait; 0 is no bound.
    pub inflight_bytes_max: u64,
}

/// Result of queueing a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Queued {
    /// The message waits.
    Kept,
    /// The message waits in a queue that is nearly full, and its publisher with it.
    KeptHolding,
    /// Some message was dropped for this cause; the new one may wait nevertheless.
    Dropped(DropCause),
    /// The policy wants the client disconnected, and the new message was dropped for this cause.
    Disconnect(DropCause),
}

/// Messages that wait for one client.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) messages: VecDeque<Delivery>,
    /// The messages that wait and their bytes, without hollow places.
    pub(super) count: QueueCount,
    /// Under `keep-latest`: where in `messages` the message of a topic waits, counted from the first
    /// message ever queued.
    pub(super) latest: HashMap<Box<str>, u64>,
    /// Approximate bytes of `latest`.
    pub(super) latest_bytes: usize,
    /// Messages that left the head of the queue so far.
    pub(super) left: u64,
    /// How many at the head of the queue waited already when the client connected.
    pub(super) backlog: usize,
    /// Their bytes.
    pub(super) backlog_bytes: u64,
    /// QoS 0 messages: while there are any, later QoS 0 messages line up behind them.
    pub(super) qos_0: usize,
    /// How many at the head of the queue waited already when rights changed.
    pub(super) unjudged: usize,
    /// When queued messages expire; none while the queue was never full.
    pub(super) sweep: Option<Box<Sweep>>,
}

impl Queue {
    /// An empty queue, whose messages count on `ledger`.
    pub fn new(ledger: &Ledger) -> Self {
        Self {
            messages: VecDeque::new(),
            count: QueueCount::on(ledger),
            latest: HashMap::new(),
            latest_bytes: 0,
            left: 0,
            backlog: 0,
            backlog_bytes: 0,
            qos_0: 0,
            unjudged: 0,
            sweep: None,
        }
    }

    /// Whether no place is taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many places are taken, hollow ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// How many messages wait.
    #[inline]
    pub fn messages(&self) -> usize {
        self.count.messages()
    }

    /// How many places came while the client was connected.
    #[inline]
    pub fn live(&self) -> usize {
        self.messages.len() - self.backlog
    }

    /// Their bytes.
    #[inline]
    pub fn live_bytes(&self) -> u64 {
        self.count.bytes() - self.backlog_bytes
    }

    /// Whether QoS 0 messages wait.
    #[inline]
    pub fn has_qos_0(&self) -> bool {
        self.qos_0 > 0
    }

    /// Whether the message at the head is judged by the rights before it is sent.
    #[inline]
    pub fn has_unjudged(&self) -> bool {
        self.unjudged > 0
    }

    /// The message at the head.
    #[inline]
    pub fn front(&self) -> Option<&Delivery> {
        self.messages.front()
    }

    /// For how many messages there is room without more memory.
    #[inline]
    pub fn room(&self) -> usize {
        self.messages.capacity()
    }

    /// Bytes of the topics under `keep-latest`.
    #[inline]
    pub fn latest_bytes(&self) -> usize {
        self.latest_bytes
    }

    /// Whether the queue has much more room than it uses.
    #[inline]
    pub fn is_roomy(&self) -> bool {
        let room = self.messages.capacity();
        room > ROOM_KEPT && self.messages.len() < room / 8
    }

    /// Gives memory back that the queue does not use.
    pub fn shrink(&mut self) {
        if self.is_roomy() {
            self.messages.shrink_to(2 * self.messages.len());
        }
    }

    /// Bytes of memory besides the messages themselves.
    pub fn heap_bytes(&self) -> usize {
        self.messages.capacity() * size_of::<Delivery>()
            + self.latest_bytes
            + self.sweep.as_ref().map_or(0, |sweep| sweep.bytes())
    }

    /// From now on, queued messages count for this user too.
    pub fn assign_to_user(&mut self, membership: &Membership) {
        self.count.assign_to_user(membership);
    }

    /// The messages are not counted among those that wait on their core any more.
    pub fn stop_counting(&mut self) {
        self.count.leave_core();
    }

    /// The client has connected: what waits now is its backlog.
    pub fn note_connected(&mut self) {
        (self.backlog, self.backlog_bytes) = (self.messages.len(), self.count.bytes());
    }

    /// Adds a message. What has expired makes room first, then what the policy names.
    #[inline]
    pub fn push(
        &mut self,
        delivery: Delivery,
        limits: &QueueLimits,
        online: bool,
        now: Now,
        gone: &mut Gone,
    ) -> Queued {
        self.push_within::<true>(delivery, limits, online, now, gone)
    }

    /// Adds a message within these limits, unless the queue `MAY_HAVE_OWN` bounds, and has.
    #[inline]
    pub(super) fn push_within<const MAY_HAVE_OWN: bool>(
        &mut self,
        delivery: Delivery,
        limits: &QueueLimits,
        online: bool,
        now: Now,
        gone: &mut Gone,
    ) -> Queued {
        let bytes = delivery.weight();
        let mut outcome = Queued::Kept;
        let mut may_expire = true;
        if limits.policy == QueuePolicy::KeepLatest && self.supersede(&delivery, gone) {
            return Queued::Dropped(DropCause::Superseded);
        }
        while let Some(cause) = self.is_full(bytes, limits) {
            if MAY_HAVE_OWN && self.has_own_bounds() {
                return self.push_within_own(delivery, limits, online, now, gone);
            }
            if std::mem::take(&mut may_expire) && self.expire(now, gone) {
                continue;
            }
            match limits.policy {
                QueuePolicy::Disconnect if online => {
                    gone.note(delivery.record);
                    return Queued::Disconnect(cause);
                }
                QueuePolicy::DropNewest | QueuePolicy::Disconnect => {
                    gone.note(delivery.record);
                    return Queued::Dropped(cause);
                }
                QueuePolicy::DropOldest | QueuePolicy::KeepLatest => {
                    let dropped = self.pop();
                    if dropped.as_ref().is_some_and(|dropped| dropped.message.is_hollow()) {
                        continue;
                    }
                    gone.note(dropped.as_ref().map_or(delivery.record, |dropped| dropped.record));
                    if dropped.is_none() {
                        return Queued::Dropped(cause);
                    }
                    outcome = Queued::Dropped(cause);
                }
            }
        }
        if limits.policy == QueuePolicy::KeepLatest {
            let number = self.left + self.messages.len() as u64;
            let topic = delivery.message.content().topic;
            if self.latest.insert(topic.into(), number).is_none() {
                self.latest_bytes += LATEST_BYTES + topic.len();
            }
        }
        self.count.add(delivery.weight());
        self.qos_0 += usize::from(delivery.qos == Qos::AtMostOnce);
        let Some(sweep) = &mut self.sweep else {
            self.messages.push_back(delivery);
            return outcome;
        };
        sweep.note_expiry(&delivery.message);
        let has_own = MAY_HAVE_OWN && sweep.own.is_some();
        self.messages.push_back(delivery);
        match has_own {
            true => self.push_again(outcome, limits, online, now, gone),
            false => outcome,
        }
    }

    /// Why there is no room for so many bytes more, if there is none.
    fn is_full(&self, bytes: u64, limits: &QueueLimits) -> Option<DropCause> {
        if self.messages() >= limits.messages_max
            || self.count.bytes().saturating_add(bytes) > limits.bytes_max
        {
            return Some(DropCause::QueueFull);
        }
        let would_exceed = self.count.would_exceed(bytes, limits.user_bytes_max);
        would_exceed.then_some(DropCause::UserQueueFull)
    }

    /// Puts the new message in the place of a queued message of its topic.
    fn supersede(&mut self, delivery: &Delivery, gone: &mut Gone) -> bool {
        let topic = delivery.message.content().topic;
        let Some(number) = self.latest.get(topic) else { return false };
        let place = (number - self.left) as usize;
        let old = std::mem::replace(&mut self.messages[place], delivery.clone());
        gone.note(old.record);
        let (old_bytes, bytes) = (old.weight(), delivery.weight());
        self.count.replace(old_bytes, bytes);
        if place < self.backlog {
            self.backlog_bytes = self.backlog_bytes - old_bytes + bytes;
        }
        self.note_expiry(&delivery.message);
        self.qos_0 -= usize::from(old.qos == Qos::AtMostOnce);
        self.qos_0 += usize::from(delivery.qos == Qos::AtMostOnce);
        true
    }

    /// Takes the message at the head out, or a hollow place.
    pub fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.messages.pop_front()?;
        let bytes = delivery.weight();
        match delivery.message.is_hollow() {
            true => self.note_hollow_left(),
            false => self.count.remove(bytes),
        }
        if self.backlog > 0 {
            self.backlog -= 1;
            self.backlog_bytes -= bytes;
        }
        self.left += 1;
        self.unjudged = self.unjudged.saturating_sub(1);
        let topic = delivery.message.content().topic;
        if !self.latest.is_empty() && self.latest.remove(topic).is_some() {
            self.latest_bytes -= LATEST_BYTES + topic.len();
        }
        self.qos_0 -= usize::from(delivery.qos == Qos::AtMostOnce);
        Some(delivery)
    }

    /// Adds a message, whatever the bounds.
    pub fn push_back(&mut self, delivery: Delivery) {
        self.count.add(delivery.weight());
        self.qos_0 += usize::from(delivery.qos == Qos::AtMostOnce);
        self.note_expiry(&delivery.message);
        self.messages.push_back(delivery);
    }

    /// Puts a message back at the head.
    pub fn push_front(&mut self, delivery: Delivery) {
        self.count.add(delivery.weight());
        self.qos_0 += usize::from(delivery.qos == Qos::AtMostOnce);
        self.left = self.left.saturating_sub(1);
        self.messages.push_front(delivery);
    }

    /// Numbers the messages again after the queue was rearranged under `keep-latest`.
    pub fn renumber(&mut self) {
        self.latest = self
            .messages
            .iter()
            .zip(self.left..)
            .filter(|(delivery, _)| !delivery.message.is_hollow())
            .map(|(delivery, number)| (delivery.message.content().topic.into(), number))
            .collect();
        self.latest_bytes = self.latest.keys().map(|topic| LATEST_BYTES + topic.len()).sum();
    }

    /// Drops QoS 0 messages; how many.
    pub fn drop_qos_0(&mut self) -> u64 {
        let dropped = self.qos_0 as u64;
        if dropped > 0 {
            let Self { messages, count, .. } = self;
            messages.retain(|delivery| {
                let is_kept = delivery.qos != Qos::AtMostOnce;
                if !is_kept {
                    count.remove(delivery.weight());
                }
                is_kept
            });
            (self.qos_0, self.backlog, self.backlog_bytes) = (0, 0, 0);
            self.note_removed(dropped);
            if !self.latest.is_empty() {
                self.renumber();
            }
            self.look_anew();
        }
        dropped
    }

    /// Drops some messages at the end of a queue whose session has ended; how many.
    pub fn shed(&mut self, messages: usize) -> usize {
        let shed = self.messages.len().min(messages);
        self.messages.truncate(self.messages.len() - shed);
        shed
    }
}
