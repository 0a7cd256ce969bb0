//! Messages on their way to one client: the in-flight window, the queue behind it, and their bounds.
//!
//! Knows no bytes: the engine asks what is to be sent next and encodes it.
//!
//! A QoS 1 or 2 message walks: queue → `Sent` → gone (PUBACK), or → `Sent` → `Released`
//! (PUBREC came, PUBREL sent) → gone (PUBCOMP). When the connection is lost, what was sent is
//! `Unsent` again on the next one and goes out first, in the old order, with DUP.

mod acks;
mod expired;
mod judged;
mod kept;
mod shared;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub use acks::{Ack, Acknowledged};
use expired::Sweep;
pub use expired::Swept;
pub use kept::Telling;
use shards::FilterId;

use crate::base::clock::Now;
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;
use crate::message::Message;
use crate::resources::gauges::{Charge, Ledger};
use crate::resources::users::{Membership, QueueBytes};
use crate::storage::commit::RecordRef;
use crate::wire::{PacketIdentifier, Qos};

/// Places in a queue that are kept when it is empty.
const ROOM_KEPT: usize = 256;

/// What a topic takes under `keep-latest` besides its bytes, roughly.
const LATEST_BYTES: usize = 48;

/// One message for one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message, shared with its other subscribers.
    pub message: Message,
    /// Effective QoS.
    pub qos: Qos,
    /// RETAIN flag of this copy.
    pub retain: bool,
    /// Subscription Identifiers of all subscriptions that matched.
    pub subscription_identifiers: Identifiers,
    /// The shared subscription it was drawn for, so that another member can have it instead.
    pub shared: Option<FilterId>,
    /// Its record, where the session outlives the process.
    pub kept: RecordRef,
}

/// Subscription Identifiers of a delivery: none or one nearly always.
#[derive(Clone, Debug, Default)]
pub enum Identifiers {
    /// No matching subscription has one.
    #[default]
    None,
    /// One.
    One([u32; 1]),
    /// Several, in the order of the subscriptions.
    Several(Arc<[u32]>),
}

impl Identifiers {
    /// From a list.
    pub fn new(identifiers: &[u32]) -> Self {
        match identifiers {
            [] => Self::None,
            [one] => Self::One([*one]),
            several => Self::Several(several.into()),
        }
    }

    /// As a list.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Several(several) => several,
        }
    }
}

/// Bounds of one queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Messages.
    pub messages_max: usize,
    /// Bytes of messages, each counted whole.
    pub bytes_max: u64,
    /// Bytes of all queues of the session's user; 0 is no bound.
    pub user_bytes_max: u64,
    /// What gives way.
    pub policy: QueuePolicy,
}

/// Where a message in flight stands.
#[derive(Clone, Debug)]
enum Stage {
    /// Sent on an earlier connection, to be sent again on this one.
    Unsent(Delivery),
    /// Sent on this connection, awaiting PUBACK or PUBREC.
    Sent(Delivery),
    /// Never sent: it is once the store has this batch.
    Held(Delivery, u64),
    /// PUBREC came; `resend` says that PUBREL is to be sent again on this connection.
    Released { resend: bool, kept: RecordRef },
    /// Acknowledged out of order; leaves when all before it have.
    Done,
}

#[derive(Debug)]
struct Inflight {
    identifier: u16,
    stage: Stage,
}

/// What [`Outbound::next`] says to send.
#[derive(Debug)]
pub enum Next {
    /// A PUBLISH with this identifier (none for QoS 0) and DUP flag.
    Publish(Delivery, Option<PacketIdentifier>, bool),
    /// A PUBREL.
    Pubrel(PacketIdentifier),
    /// Nothing yet: this QoS 2 message is in flight now, which is to be stored before it is sent.
    /// [`Outbound::hold_until`] must follow.
    Hold(RecordRef, PacketIdentifier),
    /// Nothing yet: this message, which waited, is not for its client any more, and has been let go of.
    Denied,
}

/// How a newcomer fared.
#[derive(Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits.
    Kept,
    /// Something was dropped for this cause; the newcomer may wait nevertheless.
    Dropped(DropCause),
    /// The policy wants the client disconnected, and the newcomer was dropped for this cause.
    Disconnect(DropCause),
}

/// Messages on their way to one client.
#[derive(Debug, Default)]
pub struct Outbound {
    inflight: VecDeque<Inflight>,
    queue: VecDeque<Delivery>,
    queue_bytes: QueueBytes,
    /// Under `keep-latest`: where in `queue` the message of a topic waits, counted from the first
    /// message ever queued.
    latest: HashMap<Box<str>, u64>,
    /// What that takes, roughly.
    latest_bytes: usize,
    /// Messages that left the head of `queue` so far.
    left: u64,
    /// How many at the head of `queue` waited already when the client connected.
    backlog: usize,
    /// Their bytes.
    backlog_bytes: u64,
    /// QoS 0 messages in `queue`: while there are any, later QoS 0 messages line up behind them.
    queued_qos_0: usize,
    /// Publishes that await their acknowledgement, of those sent or released on this connection;
    /// a new one is sent below `window` only.
    unacknowledged: usize,
    /// How many of `inflight` still have to be sent on this connection; they go before anything new.
    to_resend: usize,
    /// None of those stands before this place.
    resend_from: usize,
    /// The client's Receive Maximum or our own bound, if lower.
    window: usize,
    last_identifier: u16,
    /// Packet Identifiers of what is in flight and not sent yet, in order.
    held: VecDeque<u16>,
    /// How many of those are retained messages: what is newer does not overtake them.
    held_retained: usize,
    /// How many at the head of `queue`, and of `held`, waited already when rights changed.
    unjudged: usize,
    unjudged_held: usize,
    /// When queued messages expire; none while the queue was never full.
    sweep: Option<Box<Sweep>>,
    /// Messages that are not to be sent any more and have a record of which the end is to be told.
    gone: Vec<RecordRef>,
    /// What all of it takes besides the messages themselves, which others may have too.
    charge: Charge,
    /// For how many messages there was room when that was reckoned.
    places: usize,
}

impl Outbound {
    /// Puts what it takes on the ledger, after it has changed, and gives back what a burst has left.
    #[inline]
    pub fn settle(&mut self, ledger: &Ledger) {
        let places = self.queue.capacity() + self.inflight.capacity();
        if places != self.places || self.latest_bytes > 0 || self.is_roomy() {
            self.settle_anew(ledger);
        }
    }

    /// Bytes of memory for the places of the queue.
    pub fn queue_room_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Delivery>()
    }

    /// The same where no more has changed than what is in flight.
    #[inline]
    pub fn settle_inflight(&mut self, ledger: &Ledger) {
        if self.queue.capacity() + self.inflight.capacity() != self.places {
            self.settle_anew(ledger);
        }
    }

    /// Whether the queue has much more room than it uses.
    #[inline]
    fn is_roomy(&self) -> bool {
        let room = self.queue.capacity();
        room > ROOM_KEPT && self.queue.len() < room / 8
    }

    #[cold]
    fn settle_anew(&mut self, ledger: &Ledger) {
        if self.is_roomy() {
            self.queue.shrink_to(2 * self.queue.len());
        }
        let bytes = size_of::<Self>()
            + self.queue.capacity() * size_of::<Delivery>()
            + self.inflight.capacity() * size_of::<Inflight>()
            + self.latest_bytes
            + self.sweep.as_ref().map_or(0, |_| size_of::<Sweep>());
        self.charge.set(ledger, bytes);
        self.places = self.queue.capacity() + self.inflight.capacity();
    }

    /// A new connection: everything in flight is to be sent again [MQTT-4.4.0-1], within `window`.
    pub fn resume(&mut self, window: usize) {
        self.window = window;
        (self.backlog, self.backlog_bytes) = (self.queue.len(), self.queue_bytes.get());
        self.unacknowledged = 0;
        self.to_resend = 0;
        self.resend_from = 0;
        for inflight in &mut self.inflight {
            match std::mem::replace(&mut inflight.stage, Stage::Done) {
                Stage::Sent(delivery) | Stage::Unsent(delivery) => {
                    inflight.stage = Stage::Unsent(delivery);
                    self.to_resend += 1;
                }
                Stage::Released { kept, .. } => {
                    inflight.stage = Stage::Released { resend: true, kept };
                    self.to_resend += 1;
                }
                held @ (Stage::Held(..) | Stage::Done) => inflight.stage = held,
            }
        }
    }

    /// Whether a message of this QoS may be sent past the queue right now. What is held for the store
    /// goes before all else of QoS 2, and retained messages among it before everything.
    pub fn is_open(&self, qos: Qos) -> bool {
        let is_free = || self.queue.is_empty() && self.to_resend == 0 && self.has_room();
        match qos {
            Qos::AtMostOnce => self.queued_qos_0 == 0 && self.held_retained == 0,
            Qos::AtLeastOnce => self.held_retained == 0 && is_free(),
            Qos::ExactlyOnce => is_free(),
        }
    }

    fn has_room(&self) -> bool {
        self.unacknowledged + self.held.len() < self.window
            && self.inflight.len() < limits::IDENTIFIER_SPAN_MAX
    }

    /// Takes a QoS 1 or 2 message into flight; the caller sends it with the identifier returned.
    pub fn send(&mut self, delivery: Delivery) -> PacketIdentifier {
        debug_assert!(self.has_room() && delivery.qos != Qos::AtMostOnce);
        let identifier = self.next_identifier();
        self.unacknowledged += 1;
        self.inflight
            .push_back(Inflight { identifier: identifier.get(), stage: Stage::Sent(delivery) });
        identifier
    }

    /// Takes a QoS 2 message into flight that is to be stored before it is sent;
    /// [`Self::hold_until`] must follow.
    pub fn hold(&mut self, delivery: Delivery) -> PacketIdentifier {
        debug_assert!(self.has_room() && delivery.qos == Qos::ExactlyOnce);
        let identifier = self.next_identifier();
        self.held.push_back(identifier.get());
        self.held_retained += usize::from(delivery.retain);
        let stage = Stage::Held(delivery, u64::MAX);
        self.inflight.push_back(Inflight { identifier: identifier.get(), stage });
        identifier
    }

    /// What was held last is sent once the store has this batch. `kept` is its record by now.
    pub fn hold_until(&mut self, batch: u64, kept: RecordRef) {
        if let Some(Inflight { stage: Stage::Held(delivery, until), .. }) = self.inflight.back_mut()
        {
            (delivery.kept, *until) = (kept, batch);
        }
    }

    /// The record of what was sent last.
    pub fn note_kept(&mut self, kept: RecordRef) {
        if let Some(Inflight { stage: Stage::Sent(delivery), .. }) = self.inflight.back_mut() {
            delivery.kept = kept;
        }
    }

    /// Takes one whose end is to be told.
    pub fn pop_gone(&mut self) -> Option<RecordRef> {
        self.gone.pop()
    }

    fn note_gone(&mut self, kept: RecordRef) {
        if kept.number != 0 {
            self.gone.push(kept);
        }
    }

    /// Identifiers count up and skip none, so those in flight are a stretch shorter than the
    /// number space: the next one is free [MQTT-2.2.1-3].
    fn next_identifier(&mut self) -> PacketIdentifier {
        self.last_identifier = self.last_identifier.checked_add(1).unwrap_or(1);
        PacketIdentifier::new(self.last_identifier).expect("counting skips zero")
    }

    /// Lines a message up. `online` is whether the client is connected. What has expired makes room
    /// first; [`Self::take_swept`] says what did.
    pub fn push(
        &mut self,
        delivery: Delivery,
        limits: &QueueLimits,
        online: bool,
        now: Now,
        ledger: &Ledger,
    ) -> Queued {
        let bytes = delivery.weight();
        let mut outcome = Queued::Kept;
        let mut may_expire = true;
        if limits.policy == QueuePolicy::KeepLatest && self.supersede(&delivery) {
            return Queued::Dropped(DropCause::Superseded);
        }
        while let Some(cause) = self.is_full(bytes, limits) {
            if std::mem::take(&mut may_expire) && self.expire(now, ledger) {
                continue;
            }
            match limits.policy {
                QueuePolicy::Disconnect if online => {
                    self.note_gone(delivery.kept);
                    return Queued::Disconnect(cause);
                }
                QueuePolicy::DropNewest | QueuePolicy::Disconnect => {
                    self.note_gone(delivery.kept);
                    return Queued::Dropped(cause);
                }
                QueuePolicy::DropOldest | QueuePolicy::KeepLatest => {
                    let dropped = self.pop_queue();
                    if dropped.as_ref().is_some_and(|dropped| dropped.message.is_hollow()) {
                        continue;
                    }
                    self.note_gone(dropped.as_ref().map_or(delivery.kept, |dropped| dropped.kept));
                    if dropped.is_none() {
                        return Queued::Dropped(cause);
                    }
                    outcome = Queued::Dropped(cause);
                }
            }
        }
        if limits.policy == QueuePolicy::KeepLatest {
            let number = self.left + self.queue.len() as u64;
            let topic = delivery.message.content().topic;
            if self.latest.insert(topic.into(), number).is_none() {
                self.latest_bytes += LATEST_BYTES + topic.len();
            }
        }
        self.enqueue(delivery);
        outcome
    }

    /// Why there is no room for so many bytes more, if there is none.
    fn is_full(&self, bytes: u64, limits: &QueueLimits) -> Option<DropCause> {
        if self.queued() >= limits.messages_max
            || self.queue_bytes.get().saturating_add(bytes) > limits.bytes_max
        {
            return Some(DropCause::QueueFull);
        }
        let would_exceed = self.queue_bytes.would_exceed(bytes, limits.user_bytes_max);
        would_exceed.then_some(DropCause::UserQueueFull)
    }

    /// What waits counts for this user too from here on.
    pub fn assign_to_user(&mut self, membership: &Membership) {
        self.queue_bytes.assign_to_user(membership);
    }

    /// Puts the newcomer in the place of a queued message of its topic.
    fn supersede(&mut self, delivery: &Delivery) -> bool {
        let topic = delivery.message.content().topic;
        let Some(number) = self.latest.get(topic) else { return false };
        let place = (number - self.left) as usize;
        let old = std::mem::replace(&mut self.queue[place], delivery.clone());
        self.note_gone(old.kept);
        let (old_bytes, bytes) = (old.weight(), delivery.weight());
        self.queue_bytes.set(self.queue_bytes.get() - old_bytes + bytes);
        if place < self.backlog {
            self.backlog_bytes = self.backlog_bytes - old_bytes + bytes;
        }
        self.note_expiry(&delivery.message);
        self.queued_qos_0 -= usize::from(old.qos == Qos::AtMostOnce);
        self.queued_qos_0 += usize::from(delivery.qos == Qos::AtMostOnce);
        true
    }

    fn pop_queue(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        let bytes = delivery.weight();
        if bytes == 0 {
            self.note_hollow_left();
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
        self.queue_bytes.set(self.queue_bytes.get() - bytes);
        self.queued_qos_0 -= usize::from(delivery.qos == Qos::AtMostOnce);
        Some(delivery)
    }

    /// What to send next; `None` when nothing waits or the window is used up. Expired messages are
    /// left out and counted in `expired` [MQTT-3.3.2-5]. The store has everything up to the batch
    /// `stored`. What waited when rights changed is sent if `permits` says so.
    pub fn next(
        &mut self,
        now: Now,
        stored: u64,
        expired: &mut u64,
        mut permits: impl FnMut(&Delivery) -> bool,
    ) -> Option<Next> {
        if self.to_resend > 0 {
            return self.next_resend();
        }
        if let Some(next) = self.next_held(stored, &mut permits) {
            return Some(next);
        }
        loop {
            let head = self.queue.front()?;
            if head.qos != Qos::AtMostOnce && !self.has_room()
                || head.qos != Qos::ExactlyOnce && self.held_retained > 0
            {
                return None;
            }
            let is_unjudged = self.unjudged > 0;
            let delivery = self.pop_queue().expect("the head was there");
            if delivery.message.is_hollow() {
                continue;
            }
            if delivery.message.is_expired(now) {
                self.note_gone(delivery.kept);
                *expired += 1;
                if *expired >= limits::EXPIRED_AT_ONCE {
                    return None;
                }
                continue;
            }
            if is_unjudged && !permits(&delivery) {
                self.note_gone(delivery.kept);
                return Some(Next::Denied);
            }
            if delivery.qos == Qos::ExactlyOnce && delivery.kept.number != 0 && stored < u64::MAX {
                let kept = delivery.kept;
                return Some(Next::Hold(kept, self.hold(delivery)));
            }
            let identifier = (delivery.qos != Qos::AtMostOnce).then(|| self.send(delivery.clone()));
            return Some(Next::Publish(delivery, identifier, false));
        }
    }

    /// What was held and is stored by now.
    fn next_held(
        &mut self,
        stored: u64,
        permits: &mut impl FnMut(&Delivery) -> bool,
    ) -> Option<Next> {
        let identifier = *self.held.front()?;
        let place = self.find(identifier).expect("what is held is in flight");
        let stage = &mut self.inflight[place].stage;
        let Stage::Held(delivery, until) = stage else { unreachable!("it is held until here") };
        if *until > stored || self.unacknowledged >= self.window {
            return None;
        }
        let delivery = delivery.clone();
        let is_denied = self.unjudged_held > 0 && !permits(&delivery);
        *stage = match is_denied {
            true => Stage::Done,
            false => Stage::Sent(delivery.clone()),
        };
        self.held.pop_front();
        self.held_retained -= usize::from(delivery.retain);
        self.unjudged_held = self.unjudged_held.saturating_sub(1);
        if is_denied {
            self.note_gone(delivery.kept);
            self.forget_done();
            return Some(Next::Denied);
        }
        self.unacknowledged += 1;
        Some(Next::Publish(delivery, PacketIdentifier::new(identifier), false))
    }

    fn next_resend(&mut self) -> Option<Next> {
        let has_room = self.unacknowledged < self.window;
        loop {
            let inflight = self.inflight.get_mut(self.resend_from)?;
            let identifier = PacketIdentifier::new(inflight.identifier).expect("never zero");
            let next = match &mut inflight.stage {
                // Its PUBLISH awaits PUBCOMP: it takes a place in the window, whose bound it may
                // pass, as PUBREL waits for no quota [MQTT-4.9.0-3].
                Stage::Released { resend, .. } if *resend => {
                    *resend = false;
                    self.unacknowledged += 1;
                    Next::Pubrel(identifier)
                }
                Stage::Unsent(_) if !has_room => return None,
                Stage::Unsent(delivery) => {
                    let delivery = delivery.clone();
                    inflight.stage = Stage::Sent(delivery.clone());
                    self.unacknowledged += 1;
                    Next::Publish(delivery, Some(identifier), true)
                }
                _ => {
                    self.resend_from += 1;
                    continue;
                }
            };
            self.to_resend -= 1;
            self.resend_from += 1;
            return Some(next);
        }
    }

    /// The queue was rearranged under `keep-latest`.
    fn number_anew(&mut self) {
        self.latest = self
            .queue
            .iter()
            .zip(self.left..)
            .filter(|(delivery, _)| !delivery.message.is_hollow())
            .map(|(delivery, number)| (delivery.message.content().topic.into(), number))
            .collect();
        self.latest_bytes = self.latest.keys().map(|topic| LATEST_BYTES + topic.len()).sum();
    }

    fn enqueue(&mut self, delivery: Delivery) {
        let bytes = delivery.weight();
        self.queue_bytes.set(self.queue_bytes.get() + bytes);
        self.queued_qos_0 += usize::from(delivery.qos == Qos::AtMostOnce);
        self.note_expiry(&delivery.message);
        self.queue.push_back(delivery);
    }

    /// Drops queued QoS 0 messages: they do not outlive the connection.
    pub fn drop_qos_0(&mut self) -> u64 {
        let dropped = self.queued_qos_0 as u64;
        if dropped > 0 {
            self.queue.retain(|delivery| delivery.qos != Qos::AtMostOnce);
            (self.queued_qos_0, self.backlog, self.backlog_bytes) = (0, 0, 0);
            if !self.latest.is_empty() {
                self.number_anew();
            }
            self.queue_bytes.set(self.queue.iter().map(Delivery::weight).sum());
            self.look_anew();
        }
        dropped
    }

    /// Whether more messages wait or are in flight than this.
    pub fn is_longer_than(&self, messages: usize) -> bool {
        self.queue.len() + self.inflight.len() > messages
    }

    /// Lets go of some messages, of a session that has ended; how many.
    pub fn shed(&mut self, messages: usize) -> usize {
        let queued = self.queue.len().min(messages);
        self.queue.truncate(self.queue.len() - queued);
        let inflight = self.inflight.len().min(messages - queued);
        self.inflight.truncate(self.inflight.len() - inflight);
        queued + inflight
    }

    /// How many QoS 1 or 2 messages could be sent right now.
    pub fn room(&self) -> usize {
        if !self.is_open(Qos::ExactlyOnce) {
            return 0;
        }
        self.window
            .saturating_sub(self.unacknowledged + self.held.len())
            .min(limits::IDENTIFIER_SPAN_MAX - self.inflight.len())
    }

    /// Messages that wait.
    pub fn queued(&self) -> usize {
        self.queue.len() - self.hollow_places()
    }

    /// Messages that wait and came while the client was connected.
    pub fn queued_live(&self) -> usize {
        self.queue.len() - self.backlog
    }

    /// Their bytes.
    pub fn queued_live_bytes(&self) -> u64 {
        self.queue_bytes.get() - self.backlog_bytes
    }

    /// Messages in flight.
    pub fn inflight(&self) -> usize {
        self.inflight.iter().filter(|inflight| !matches!(inflight.stage, Stage::Done)).count()
    }

    /// Whether anything waits to be sent on this connection.
    pub fn has_waiting(&self) -> bool {
        self.to_resend > 0 || !self.held.is_empty() || !self.queue.is_empty()
    }

    /// Whether nothing waits and nothing is in flight, so that the record can go.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.inflight.is_empty()
    }
}
