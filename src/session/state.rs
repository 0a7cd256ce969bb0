//! Session State of one client, kept across its Network Connections, and its Will.

use std::sync::Arc;

use shards::{FilterId, Text};
use smallvec::SmallVec;

use crate::base::clock::Deadline;
use crate::base::ids::ConnectionId;
use crate::base::part::Part;
use crate::config::bridge::BridgeQueue;
use crate::resources::gauges::{Charge, Ledger};
use crate::resources::users::Membership;
use crate::session::inbound::Inbound;
use crate::session::outbound::{Outbound, QueueLimits};
use crate::session::retained_replay::Replays;
use crate::storage::record::SessionNumber;
use crate::wire::Qos;

/// How copies of a message for a client are encoded: clients of one class share an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryClass {
    /// MQTT 3.1 and 3.1.1.
    V3,
    /// MQTT 5.0 without Topic Aliases.
    V5,
    /// MQTT 5.0 with Topic Aliases: each connection has its own encoding.
    V5Alias,
    /// Topics without a mount point, of either version: each connection has its own encoding.
    Mounted,
}

/// A client's Session State [MQTT-4.1.0].
#[derive(Debug)]
pub struct Session {
    /// The Client Identifier; the key of the session.
    pub client_identifier: Text,
    /// Tells this session from an earlier one in the same place.
    pub generation: u32,
    /// The connection that uses it.
    pub connection: Option<ConnectionId>,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_interval_s: u32,
    /// When the session ends, while no connection uses it.
    pub expires: Option<Deadline>,
    /// When the timer fires; entries of the wheel for another time mean nothing.
    pub timer: Option<Deadline>,
    /// How copies are encoded: the class of the latest connection.
    pub class: DeliveryClass,
    /// With the generation, the number of the session in the store; zero when it is not stored.
    pub era: [u8; 3],
    /// The subscriptions in the index, in no order.
    pub subscriptions: SmallVec<[FilterId; 4]>,
    /// Messages to the client; none until the first one that must be tracked.
    pub outbound: Option<Box<Outbound>>,
    /// QoS 2 from the client; none until the first.
    pub inbound: Option<Box<Inbound>>,
    /// Retained messages still to be sent for new subscriptions.
    pub replays: Replays,
    /// The Will, from CONNECT until it is published or cancelled.
    pub will: Option<Box<Will>>,
    /// State that few sessions have.
    pub extra: Option<Box<SessionExtra>>,
}

/// State that few sessions have.
#[derive(Debug, Default)]
pub struct SessionExtra {
    /// Messages lost on the way to this client, by cause, since the session began.
    pub drops: Option<Box<crate::base::metrics::Drops>>,
    /// The user that owns the session, if it has one: no other user may resume it.
    pub owner: Option<Box<str>>,
    /// Counts the session for that user, where the sessions of a user are bounded.
    pub membership: Option<Membership>,
    /// The client of a session that has an owner has no user name: sessions are not bound to users.
    pub is_without_user: bool,
    /// Rules have changed while the client was away.
    pub is_unjudged: bool,
    /// Number of the listener of the latest connection, where there are access rules.
    pub listener: u16,
    /// Bounds of its queue that are not those of all sessions: a bridge has them.
    pub own_bounds: Option<Box<BridgeQueue>>,
    /// Of a bridge: Topic Filters that it may have subscribed to at its far broker, in no order.
    pub far_subscriptions: Box<[Box<str>]>,
    /// Of a bridge with several connections: the topics that this one takes.
    pub part: Option<Part>,
    /// The session has ended: its place stays taken until the index has none of its subscriptions.
    pub is_over: bool,
    /// The session is on its way to or from another node of the cluster.
    pub is_moving: bool,
}

// As for the connection.
const _: () = assert!(size_of::<Session>() <= 128);

/// A Will Message with its rules.
#[derive(Debug)]
pub struct Will {
    /// Topic Name.
    pub topic: Box<str>,
    /// Payload.
    pub payload: Box<[u8]>,
    /// QoS.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_interval_s: u32,
    /// Message Expiry Interval in seconds, from publication.
    pub message_expiry_interval_s: Option<u32>,
    /// Encoded properties forwarded unaltered.
    pub passed_on: Box<[u8]>,
    /// When it is published, once the connection is gone.
    pub due: Option<Deadline>,
    /// The session under which the store has it while the client is connected.
    pub held: Option<SessionNumber>,
    /// No rule allows it, but something that ended with the connection did, such as a token.
    pub is_granted: bool,
    /// Number of the listener that its client came through, whose access rules apply; `u16::MAX` if it is not known.
    pub listener: u16,
    /// The address or path of that listener, for the store.
    pub listener_name: Option<Arc<str>>,
    /// Its bytes, while it belongs to a session.
    pub charge: Charge,
}

impl Will {
    /// Bytes for the memory bound.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len() + self.passed_on.len()
    }
}

#[cold]
fn new_outbound(
    window: u16,
    extra: Option<&SessionExtra>,
    limits: &QueueLimits,
    ledger: &Ledger,
) -> Box<Outbound> {
    let mut outbound = Box::new(Outbound::new(ledger));
    outbound.resume(usize::from(window));
    outbound.bound_inflight_bytes(limits.inflight_bytes_max);
    if let Some(membership) = extra.and_then(|extra| extra.membership.as_ref()) {
        outbound.assign_to_user(membership);
    }
    if let Some(bounds) = extra.and_then(|extra| extra.own_bounds.as_deref()) {
        outbound.set_own_bounds(*bounds);
    }
    outbound
}

impl Session {
    /// A new session without an owner, that ends with its connection.
    pub fn new(client_identifier: Text, generation: u32) -> Self {
        Self {
            client_identifier,
            generation,
            connection: None,
            expiry_interval_s: 0,
            expires: None,
            timer: None,
            class: DeliveryClass::V3,
            era: [0; 3],
            subscriptions: SmallVec::new(),
            outbound: None,
            inbound: None,
            replays: Replays::default(),
            will: None,
            extra: None,
        }
    }

    /// The outbound messages, created when they are needed; `window` is the client's Receive Maximum.
    #[inline]
    pub fn outbound_mut(
        &mut self,
        window: u16,
        limits: &QueueLimits,
        ledger: &Ledger,
    ) -> &mut Outbound {
        let extra = &self.extra;
        self.outbound.get_or_insert_with(|| new_outbound(window, extra.as_deref(), limits, ledger))
    }

    /// Counts the session, with its queue, for a user from now on.
    pub fn assign_to_user(&mut self, membership: Membership) {
        if let Some(outbound) = &mut self.outbound {
            outbound.assign_to_user(&membership);
        }
        self.extra.get_or_insert_default().membership = Some(membership);
    }

    /// Bounds of the queue from now on, instead of those of all sessions; the default ones are those.
    pub fn set_own_bounds(&mut self, bounds: BridgeQueue) {
        let has_own = bounds != BridgeQueue::default();
        if !has_own && self.own_bounds().is_none() {
            return;
        }
        if let Some(outbound) = &mut self.outbound {
            outbound.set_own_bounds(bounds);
        }
        self.extra.get_or_insert_default().own_bounds = has_own.then(|| Box::new(bounds));
    }

    /// Bounds of the queue that are not those of all sessions.
    pub fn own_bounds(&self) -> Option<&BridgeQueue> {
        self.extra.as_ref()?.own_bounds.as_deref()
    }

    /// The user that the session counts for, where that is bounded.
    pub fn membership(&self) -> Option<&Membership> {
        self.extra.as_ref()?.membership.as_ref()
    }

    /// The number of the session in the store, if it is stored.
    pub fn number(&self) -> Option<SessionNumber> {
        let [low, middle, high] = self.era;
        let era = u32::from_le_bytes([low, middle, high, 0]);
        (era != 0).then(|| SessionNumber(u64::from(era) << 32 | u64::from(self.generation)))
    }

    /// The user that owns the session, if it has one.
    pub fn owner(&self) -> Option<&str> {
        self.extra.as_ref()?.owner.as_deref()
    }

    /// The user name of the client that has, or had last, the session.
    pub fn user(&self) -> Option<&str> {
        let extra = self.extra.as_ref().filter(|extra| !extra.is_without_user)?;
        extra.owner.as_deref()
    }

    /// Number of the listener of the latest connection, where access rules were in force. Those of this listener decide
    /// about what the session receives.
    pub fn listener(&self) -> u16 {
        self.extra.as_ref().map_or(0, |extra| extra.listener)
    }

    /// Notes through which listener the client came.
    pub fn set_listener(&mut self, listener: u16) {
        if self.listener() != listener {
            self.extra.get_or_insert_default().listener = listener;
        }
    }

    /// Of a bridge: Topic Filters that it may have subscribed to at its far broker.
    pub fn far_subscriptions(&self) -> &[Box<str>] {
        self.extra.as_ref().map_or(&[], |extra| &extra.far_subscriptions)
    }

    /// Whether the session receives messages of a topic that its subscriptions match.
    pub fn takes(&self, topic: &str) -> bool {
        let part = self.extra.as_ref().and_then(|extra| extra.part);
        part.is_none_or(|part| part.takes(topic))
    }

    /// Whether the session has ended, and only its place is still taken.
    pub fn is_over(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_over)
    }

    /// Whether the session is on its way to or from another node of the cluster.
    pub fn is_moving(&self) -> bool {
        cfg!(feature = "cluster") && self.extra.as_ref().is_some_and(|extra| extra.is_moving)
    }

    /// The session is on its way to or from another node of the cluster, or no longer.
    #[cfg(feature = "cluster")]
    pub fn set_moving(&mut self, is_moving: bool) {
        if is_moving || self.extra.is_some() {
            self.extra.get_or_insert_default().is_moving = is_moving;
        }
    }

    /// Whether Session State outlives the connection.
    pub fn is_persistent(&self) -> bool {
        self.expiry_interval_s > 0
    }

    /// Seconds from the end of the connection to the publication of this Will: its delay, but no longer
    /// than the session lasts [MQTT-3.1.3-9].
    pub fn delay_of(&self, will: &Will) -> u32 {
        will.delay_interval_s.min(self.expiry_interval_s)
    }

    /// Sets the Will; its bytes are on the ledger for as long as it exists.
    pub fn set_will(&mut self, will: Will, ledger: &Ledger) {
        let charge = Charge::of(ledger, will.bytes());
        self.will = Some(Box::new(Will { charge, ..will }));
    }

    /// Rules have changed: messages that wait are checked against them before they are sent. For a client that
    /// is away, all of them are when it is back, as are its subscriptions.
    pub fn note_new_rules(&mut self) {
        match (&mut self.outbound, self.connection) {
            (Some(outbound), Some(_)) => outbound.judge_again(),
            (None, Some(_)) => {}
            (_, None) => self.extra.get_or_insert_default().is_unjudged = true,
        }
    }

    /// Frees records that hold nothing: most sessions are idle.
    pub fn tidy(&mut self) {
        if self.inbound.as_ref().is_some_and(|inbound| inbound.is_empty()) {
            self.inbound = None;
        }
    }
}
