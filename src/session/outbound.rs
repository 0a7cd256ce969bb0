//! Messages on their way to one client: the in-flight window, the queue behind it, and their bounds.
//!
//! Independent of the encoding: the engine asks for the next packet and encodes it.
//!
//! A QoS 1 or 2 message walks: queue → `Sent` → gone (PUBACK), or → `Sent` → `Released`
//! (PUBREC came, PUBREL sent) → gone (PUBCOMP). When the connection is lost, what was sent is
//! `Unsent` again on the next one and goes out first, in the old order, with DUP.

mod acks;
mod backfill;
mod emptied;
mod expired;
mod inflight_bytes;
mod judged;
mod listing;
mod own_bounds;
mod queue;
mod recorded;
mod shared;

use std::collections::VecDeque;
use std::sync::Arc;

pub use acks::{Ack, Acknowledged};
pub use expired::Swept;
use inflight_bytes::InflightBytes;
pub use listing::{InflightStage, Listed};
use queue::Queue;
pub use queue::{QueueLimits, Queued};
pub use recorded::{Logged, LoggedUpTo};
use shards::FilterId;

use crate::base::clock::Now;
use crate::base::limits;
use crate::message::Message;
use crate::resources::gauges::{Charge, Ledger};
use crate::resources::users::Membership;
use crate::storage::commit::RecordRef;
use crate::wire::{PacketIdentifier, Qos};

/// A message for one client.
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
    /// The record in the store, where the session outlives the process.
    pub record: RecordRef,
}

/// Subscription Identifiers of a delivery: none or one nearly always.
#[derive(Clone, Debug, Default)]
pub enum Identifiers {
    /// No matching subscription has one.
    #[default]
    None,
    /// A single identifier.
    One([u32; 1]),
    /// Several identifiers, in the order of the subscriptions.
    Several(Arc<[u32]>),
}

impl Identifiers {
    /// Subscription Identifiers of a list.
    pub fn new(identifiers: &[u32]) -> Self {
        match identifiers {
            [] => Self::None,
            [one] => Self::One([*one]),
            several => Self::Several(several.into()),
        }
    }

    /// The identifiers as a list.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Several(several) => several,
        }
    }
}

/// The stage of a message in flight.
#[derive(Clone, Debug)]
enum Stage {
    /// Sent on an earlier connection, to be sent again on this one.
    Unsent(Delivery),
    /// Sent on this connection, awaiting PUBACK or PUBREC.
    Sent(Delivery),
    /// Never sent: it is once the store has this batch.
    Held(Delivery, u64),
    /// PUBREC came; `resend` says that PUBREL must be sent again on this connection.
    Released { resend: bool, record: RecordRef },
    /// Acknowledged out of order; leaves when all before it have.
    Done,
}

#[derive(Debug)]
struct Inflight {
    identifier: u16,
    stage: Stage,
}

/// The next thing to send, see [`Outbound::next`].
#[derive(Debug)]
pub enum Next {
    /// A PUBLISH with this identifier (none for QoS 0) and DUP flag.
    Publish(Delivery, Option<PacketIdentifier>, bool),
    /// A PUBREL.
    Pubrel(PacketIdentifier),
    /// Nothing yet: this QoS 2 message is in flight now, and has to be stored before it is sent.
    /// [`Outbound::hold_until`] must follow.
    Hold(RecordRef, PacketIdentifier),
    /// Nothing yet: a message was dropped because its client may not receive it any more.
    Denied,
}

/// Records of messages that are not sent any more, whose end is not logged yet.
#[derive(Debug, Default)]
struct Gone(Vec<RecordRef>);

impl Gone {
    fn note(&mut self, record: RecordRef) {
        if record.number != 0 {
            self.0.push(record);
        }
    }
}

/// Messages on their way to one client.
#[derive(Debug)]
pub struct Outbound {
    inflight: VecDeque<Inflight>,
    queue: Queue,
    /// Publishes that await their acknowledgement, of those sent or released on this connection;
    /// a new one is sent below `window` only.
    unacknowledged: usize,
    /// How many of `inflight` still have to be sent on this connection; they go before anything new.
    to_resend: usize,
    /// The place in `inflight` before which none of those is.
    resend_from: usize,
    /// The client's Receive Maximum or our own bound, if lower; 0 while the bound of bytes is reached.
    window: usize,
    /// The bound of the bytes in flight, if there is one.
    inflight_bytes: Option<Box<InflightBytes>>,
    last_identifier: u16,
    /// Packet Identifiers of what is in flight and not sent yet, in order.
    held: VecDeque<u16>,
    /// How many of those are retained messages: what is newer does not overtake them.
    held_retained: usize,
    /// How many at the head of `held` waited already when rights changed.
    unjudged_held: usize,
    gone: Gone,
    /// The memory of all this besides the messages themselves, which other clients may have too.
    charge: Charge,
    /// The room for messages, and the bytes of topics, that the charge was computed for.
    charged_for: (usize, usize),
}

impl Outbound {
    /// Nothing waits and nothing is in flight. Its memory and its messages count on `ledger`.
    pub fn new(ledger: &Ledger) -> Self {
        Self {
            inflight: VecDeque::new(),
            queue: Queue::new(ledger),
            unacknowledged: 0,
            to_resend: 0,
            resend_from: 0,
            window: 0,
            inflight_bytes: None,
            last_identifier: 0,
            held: VecDeque::new(),
            held_retained: 0,
            unjudged_held: 0,
            gone: Gone::default(),
            charge: Charge::on(ledger),
            charged_for: (0, 0),
        }
    }

    /// Charges the memory that is taken after a change of the queue, and gives back what a burst has left.
    #[inline]
    fn settle(&mut self) {
        if self.queue.is_roomy() || self.size() != self.charged_for {
            self.settle_anew();
        }
    }

    /// Charges the memory that is taken where only what is in flight has changed.
    #[inline]
    fn settle_inflight(&mut self) {
        if self.size() != self.charged_for {
            self.settle_anew();
        }
    }

    #[inline]
    fn size(&self) -> (usize, usize) {
        (self.queue.room() + self.inflight.capacity(), self.queue.latest_bytes())
    }

    #[cold]
    fn settle_anew(&mut self) {
        self.queue.shrink();
        let inflight = self.inflight.capacity() * size_of::<Inflight>();
        let bytes = self.inflight_bytes.as_ref().map_or(0, |_| size_of::<InflightBytes>());
        self.charge.update(size_of::<Self>() + inflight + bytes + self.queue.heap_bytes());
        self.charged_for = self.size();
    }

    /// Bytes of memory for the places of the queue.
    pub fn queue_room_bytes(&self) -> usize {
        self.queue.room() * size_of::<Delivery>()
    }

    /// Begins a new connection: everything in flight is sent again [MQTT-4.4.0-1], within `window`. Returns how many
    /// places in flight it has looked at.
    pub fn resume(&mut self, window: usize) -> usize {
        self.window = window;
        self.queue.note_connected();
        self.unacknowledged = 0;
        self.to_resend = 0;
        self.resend_from = 0;
        for inflight in &mut self.inflight {
            match std::mem::replace(&mut inflight.stage, Stage::Done) {
                Stage::Sent(delivery) | Stage::Unsent(delivery) => {
                    inflight.stage = Stage::Unsent(delivery);
                    self.to_resend += 1;
                }
                Stage::Released { record, .. } => {
                    inflight.stage = Stage::Released { resend: true, record };
                    self.to_resend += 1;
                }
                held @ (Stage::Held(..) | Stage::Done) => inflight.stage = held,
            }
        }
        self.inflight.len()
    }

    /// Whether a message of this QoS may be sent past the queue right now. What is held for the store
    /// goes before all else of QoS 2, and retained messages among it before everything.
    pub fn is_open(&self, qos: Qos) -> bool {
        let is_free = || self.queue.is_empty() && self.to_resend == 0 && self.has_room();
        match qos {
            Qos::AtMostOnce => !self.queue.has_qos_0() && self.held_retained == 0,
            Qos::AtLeastOnce => self.held_retained == 0 && is_free(),
            Qos::ExactlyOnce => is_free(),
        }
    }

    fn has_room(&self) -> bool {
        self.unacknowledged + self.held.len() < self.window
            && self.inflight.len() < limits::IDENTIFIER_SPAN_MAX
    }

    /// Takes a QoS 1 or 2 message into flight; the caller sends it with the identifier returned.
    #[inline]
    pub fn send(&mut self, delivery: Delivery) -> PacketIdentifier {
        debug_assert!(self.has_room() && delivery.qos != Qos::AtMostOnce);
        let identifier = self.next_identifier();
        self.unacknowledged += 1;
        self.note_bytes_sent(&delivery);
        self.inflight
            .push_back(Inflight { identifier: identifier.get(), stage: Stage::Sent(delivery) });
        self.settle_inflight();
        identifier
    }

    /// Takes a QoS 2 message into flight that has to be stored before it is sent;
    /// [`Self::hold_until`] must follow.
    pub fn hold(&mut self, delivery: Delivery) -> PacketIdentifier {
        debug_assert!(self.has_room() && delivery.qos == Qos::ExactlyOnce);
        let identifier = self.next_identifier();
        self.held.push_back(identifier.get());
        self.held_retained += usize::from(delivery.retain);
        let stage = Stage::Held(delivery, u64::MAX);
        self.inflight.push_back(Inflight { identifier: identifier.get(), stage });
        self.settle_inflight();
        identifier
    }

    /// Sends the message that was held last once the store has `batch`. `kept` is its record by now.
    pub fn hold_until(&mut self, batch: u64, record: RecordRef) {
        if let Some(Inflight { stage: Stage::Held(delivery, until), .. }) = self.inflight.back_mut()
        {
            (delivery.record, *until) = (record, batch);
        }
    }

    /// The record of what was sent last.
    pub fn note_record(&mut self, record: RecordRef) {
        if let Some(Inflight { stage: Stage::Sent(delivery), .. }) = self.inflight.back_mut() {
            delivery.record = record;
        }
    }

    /// The next record whose end is not logged yet.
    pub fn pop_gone(&mut self) -> Option<RecordRef> {
        self.gone.0.pop()
    }

    /// Identifiers count up and skip none, so those in flight are a stretch shorter than the
    /// number space: the next one is free [MQTT-2.2.1-3].
    fn next_identifier(&mut self) -> PacketIdentifier {
        self.last_identifier = self.last_identifier.checked_add(1).unwrap_or(1);
        PacketIdentifier::new(self.last_identifier).expect("counting skips zero")
    }

    /// Adds a message to the queue. `online` is whether the client is connected. What has expired makes
    /// room first; [`Self::take_swept`] says how much that was.
    pub fn push(
        &mut self,
        delivery: Delivery,
        limits: &QueueLimits,
        online: bool,
        now: Now,
    ) -> Queued {
        let outcome = self.queue.push(delivery, limits, online, now, &mut self.gone);
        self.settle();
        outcome
    }

    /// Drops queued messages that have expired, as many as are found at a time; whether there were any.
    pub fn expire(&mut self, now: Now) -> bool {
        let has_expired = self.queue.expire(now, &mut self.gone);
        self.settle();
        has_expired
    }

    /// Messages dropped to make room since the last call.
    pub fn take_swept(&mut self) -> Swept {
        self.queue.take_swept()
    }

    /// The queue counts for this user too from here on.
    pub fn assign_to_user(&mut self, membership: &Membership) {
        self.queue.assign_to_user(membership);
    }

    /// The session has ended: its messages are not counted among those that wait any more.
    pub fn stop_counting(&mut self) {
        self.queue.stop_counting();
    }

    /// Drops queued QoS 0 messages; how many.
    pub fn drop_qos_0(&mut self) -> u64 {
        let dropped = self.queue.drop_qos_0();
        self.settle();
        dropped
    }

    /// The next packet to send; `None` when nothing waits or the window is used up. Expired messages are
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
        let next = self.next_queued(now, stored, expired, permits);
        self.settle();
        next
    }

    /// The next message of the queue.
    fn next_queued(
        &mut self,
        now: Now,
        stored: u64,
        expired: &mut u64,
        mut permits: impl FnMut(&Delivery) -> bool,
    ) -> Option<Next> {
        loop {
            let head = self.queue.front()?;
            if head.qos != Qos::AtMostOnce && !self.has_room()
                || head.qos != Qos::ExactlyOnce && self.held_retained > 0
            {
                return None;
            }
            let is_unjudged = self.queue.has_unjudged();
            let delivery = self.queue.pop().expect("the head was there");
            if delivery.message.is_hollow() {
                continue;
            }
            if delivery.message.is_expired(now) {
                self.gone.note(delivery.record);
                *expired += 1;
                if *expired >= limits::EXPIRED_AT_ONCE {
                    return None;
                }
                continue;
            }
            if is_unjudged && !permits(&delivery) {
                self.gone.note(delivery.record);
                return Some(Next::Denied);
            }
            if delivery.qos == Qos::ExactlyOnce && delivery.record.number != 0 && stored < u64::MAX
            {
                let record = delivery.record;
                return Some(Next::Hold(record, self.hold(delivery)));
            }
            let identifier = (delivery.qos != Qos::AtMostOnce).then(|| self.send(delivery.clone()));
            return Some(Next::Publish(delivery, identifier, false));
        }
    }

    /// The next message that was held and is stored by now.
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
            self.gone.note(delivery.record);
            self.forget_done();
            return Some(Next::Denied);
        }
        self.unacknowledged += 1;
        self.note_bytes_sent(&delivery);
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
            if let Next::Publish(delivery, ..) = &next {
                self.note_bytes_sent(delivery);
            }
            return Some(next);
        }
    }

    /// Whether more messages wait or are in flight than this.
    pub fn is_longer_than(&self, messages: usize) -> bool {
        self.queue.len() + self.inflight.len() > messages
    }

    /// Drops some messages of a session that has ended; how many.
    pub fn shed(&mut self, messages: usize) -> usize {
        let queued = self.queue.shed(messages);
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

    /// How many messages wait.
    pub fn queued(&self) -> usize {
        self.queue.messages()
    }

    /// Messages that wait and came while the client was connected.
    pub fn queued_live(&self) -> usize {
        self.queue.live()
    }

    /// Bytes of the messages that wait and came while the client was connected.
    pub fn queued_live_bytes(&self) -> u64 {
        self.queue.live_bytes()
    }

    /// Messages in flight.
    pub fn inflight(&self) -> usize {
        let inflight = self.unacknowledged + self.to_resend + self.held.len();
        debug_assert_eq!(
            inflight,
            self.inflight.iter().filter(|one| !matches!(one.stage, Stage::Done)).count()
        );
        inflight
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
