//! Session State of one client, kept across its Network Connections, and its Will.

use std::collections::{HashMap, VecDeque};

use shards::{FilterId, Text};
use smallvec::SmallVec;

use crate::base::clock::Deadline;
use crate::base::ids::ConnectionId;
use crate::resources::gauges::{Charge, Ledger};
use crate::resources::users::Membership;
use crate::session::inbound::Inbound;
use crate::session::outbound::{Identifiers, Outbound};
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
    /// When it ends, while no connection uses it.
    pub expires: Option<Deadline>,
    /// When its timer fires; entries of the wheel for another time mean nothing.
    pub timer: Option<Deadline>,
    /// How copies for it are encoded: that of the latest connection.
    pub class: DeliveryClass,
    /// With the generation its number in the store; zero when it is not kept there.
    pub era: [u8; 3],
    /// Its subscriptions in the index, in no order.
    pub subscriptions: SmallVec<[FilterId; 4]>,
    /// Messages to the client; none until the first one that must be tracked.
    pub outbound: Option<Box<Outbound>>,
    /// QoS 2 from the client; none until the first.
    pub inbound: Option<Box<Inbound>>,
    /// Retained messages still to be sent for subscriptions made.
    pub feeds: Feeds,
    /// The Will, from CONNECT until it is published or cancelled.
    pub will: Option<Box<Will>>,
    /// What few sessions have.
    pub extra: Option<Box<SessionExtra>>,
}

/// What few sessions have.
#[derive(Debug, Default)]
pub struct SessionExtra {
    /// Messages lost on the way to this client, by cause, since the session began.
    pub drops: Option<Box<crate::base::metrics::Drops>>,
    /// The name of the client that made it, if it has one: nobody else is to have the session.
    pub owner: Option<Box<str>>,
    /// Counts for that user, where it is bounded what one may hold.
    pub membership: Option<Membership>,
    /// Rules have changed while its client was away.
    pub is_unjudged: bool,
    /// It has ended: its place stays taken until the index knows nothing of it.
    pub is_over: bool,
}

// As for the connection.
const _: () = assert!(size_of::<Session>() <= 128);

/// Retained messages that are still owed, subscription after subscription; few sessions have any.
#[derive(Debug, Default)]
pub struct Feeds(Option<Box<FeedLine>>);

/// Those of a session, by the number that each has in the line. One that is replaced, or whose
/// subscription ends, leaves an empty place.
#[derive(Debug, Default)]
struct FeedLine {
    line: VecDeque<Option<RetainedFeed>>,
    /// How many have left the line at its front.
    gone: u64,
    /// The numbers by subscription, where there are so many that they are not looked through.
    numbers: Option<HashMap<FilterId, u64>>,
    charge: Charge,
}

impl Feeds {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds one, which replaces an earlier one for the same subscription.
    pub fn push(&mut self, feed: RetainedFeed, ledger: &Ledger) {
        let feeds = self.0.get_or_insert_default();
        feeds.empty(feed.subscription);
        feeds.add(feed);
        feeds.tidy();
        feeds.charge.set(ledger, feeds.heap_bytes());
    }

    /// The one whose turn it is.
    pub fn first(&self) -> Option<&RetainedFeed> {
        self.0.as_ref()?.line.front()?.as_ref()
    }

    /// The same, to go on with it.
    pub fn first_mut(&mut self) -> Option<&mut RetainedFeed> {
        self.0.as_mut()?.line.front_mut()?.as_mut()
    }

    /// Ends it.
    pub fn end_first(&mut self) {
        if let Some(subscription) = self.first().map(|first| first.subscription) {
            self.end(subscription);
        }
    }

    /// Ends that of a subscription.
    pub fn end(&mut self, subscription: FilterId) {
        let Some(feeds) = &mut self.0 else { return };
        feeds.empty(subscription);
        feeds.tidy();
        if feeds.line.is_empty() {
            self.0 = None;
        }
    }
}

/// Feeds in a line from which on they are found by subscription.
const FEEDS_LOOKED_THROUGH_MAX: usize = 16;

/// Empty places that a line may have besides as many as it has others.
const FEEDS_EMPTY_MAX: usize = 64;

impl FeedLine {
    fn add(&mut self, feed: RetainedFeed) {
        if let Some(numbers) = &mut self.numbers {
            numbers.insert(feed.subscription, self.gone + self.line.len() as u64);
        }
        self.line.push_back(Some(feed));
        let is_loose = match &self.numbers {
            Some(numbers) => self.line.len() > 2 * numbers.len() + FEEDS_EMPTY_MAX,
            None => self.line.len() > FEEDS_LOOKED_THROUGH_MAX,
        };
        if is_loose {
            self.close_ranks();
        }
    }

    fn empty(&mut self, subscription: FilterId) {
        let is_it = |feed: &RetainedFeed| feed.subscription == subscription;
        let place = match &mut self.numbers {
            Some(numbers) => {
                numbers.remove(&subscription).map(|number| (number - self.gone) as usize)
            }
            None => self.line.iter().position(|feed| feed.as_ref().is_some_and(is_it)),
        };
        if let Some(place) = place {
            self.line[place] = None;
        }
    }

    /// The first one in line is never an empty place.
    fn tidy(&mut self) {
        while self.line.pop_front_if(|feed| feed.is_none()).is_some() {
            self.gone += 1;
        }
    }

    /// Leaves out all empty places, each of which was made by one that came, so that it costs each of
    /// them little; and numbers the others where they are many.
    fn close_ranks(&mut self) {
        self.line.retain(Option::is_some);
        let numbered = self.line.iter().flatten().zip(self.gone..);
        let number = |(feed, number): (&RetainedFeed, u64)| (feed.subscription, number);
        let is_long = self.line.len() > FEEDS_LOOKED_THROUGH_MAX;
        self.numbers = is_long.then(|| numbered.map(number).collect());
    }

    fn heap_bytes(&self) -> usize {
        let numbers = self.numbers.as_ref().map_or(0, HashMap::capacity);
        size_of::<Self>()
            + self.line.capacity() * size_of::<Option<RetainedFeed>>()
            + numbers * size_of::<(FilterId, u64)>()
    }
}

/// Retained messages that a new subscription is still owed, streamed by cursor.
#[derive(Debug)]
pub struct RetainedFeed {
    /// Where the stream stands.
    pub cursor: shards::Cursor,
    /// QoS granted.
    pub qos: Qos,
    /// Its Subscription Identifier.
    pub subscription_identifiers: Identifiers,
    /// Its subscription: unsubscribing ends the stream.
    pub subscription: FilterId,
}

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
}

impl Will {
    /// Bytes it takes, for the memory bound.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len() + self.passed_on.len()
    }
}

#[cold]
fn new_outbound(window: u16, extra: Option<&SessionExtra>) -> Box<Outbound> {
    let mut outbound = Box::<Outbound>::default();
    outbound.resume(usize::from(window));
    if let Some(membership) = extra.and_then(|extra| extra.membership.as_ref()) {
        outbound.count_for(membership);
    }
    outbound
}

impl Session {
    /// A fresh one, of nobody, that ends with its connection.
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
            feeds: Feeds::default(),
            will: None,
            extra: None,
        }
    }

    /// The outbound record, made when it is needed; `window` is what the client takes at a time.
    #[inline]
    pub fn outbound_mut(&mut self, window: u16) -> &mut Outbound {
        let extra = &self.extra;
        self.outbound.get_or_insert_with(|| new_outbound(window, extra.as_deref()))
    }

    /// The session, with its queue, counts for this user from here on.
    pub fn count_for(&mut self, membership: Membership) {
        if let Some(outbound) = &mut self.outbound {
            outbound.count_for(&membership);
        }
        self.extra.get_or_insert_default().membership = Some(membership);
    }

    /// The user for whom it counts, where that is bounded.
    pub fn membership(&self) -> Option<&Membership> {
        self.extra.as_ref()?.membership.as_ref()
    }

    /// Its number in the store, if it is kept there.
    pub fn number(&self) -> Option<SessionNumber> {
        let [low, middle, high] = self.era;
        let era = u32::from_le_bytes([low, middle, high, 0]);
        (era != 0).then(|| SessionNumber(u64::from(era) << 32 | u64::from(self.generation)))
    }

    /// The name of the client that made it, if it has one.
    pub fn owner(&self) -> Option<&str> {
        self.extra.as_ref()?.owner.as_deref()
    }

    /// Whether it has ended, and only its place is still taken.
    pub fn is_over(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_over)
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

    /// Takes the Will away, and its bytes off the ledger.
    pub fn take_will(&mut self, ledger: &Ledger) -> Option<Box<Will>> {
        let will = self.will.take()?;
        ledger.release(will.bytes());
        Some(will)
    }

    /// Other rules hold: what waits is judged by them before it is sent, also what is still to come for a
    /// client that is away, as its subscriptions are looked at when it is back.
    pub fn note_new_rules(&mut self) {
        match (&mut self.outbound, self.connection) {
            (Some(outbound), Some(_)) => outbound.judge_anew(),
            (None, Some(_)) => {}
            (_, None) => self.extra.get_or_insert_default().is_unjudged = true,
        }
    }

    /// Lets records go that hold nothing: most sessions are idle.
    pub fn tidy(&mut self) {
        if self.inbound.as_ref().is_some_and(|inbound| inbound.is_empty()) {
            self.inbound = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(subscription: u32, qos: Qos) -> RetainedFeed {
        RetainedFeed {
            cursor: shards::Cursor::default(),
            qos,
            subscription_identifiers: Identifiers::None,
            subscription: FilterId(subscription),
        }
    }

    #[test]
    fn a_feed_replaces_the_one_of_its_subscription_and_stands_last() {
        let mut feeds = Feeds::default();
        for subscription in [1, 2, 3] {
            feeds.push(feed(subscription, Qos::AtMostOnce), &Ledger::default());
        }
        feeds.push(feed(1, Qos::AtLeastOnce), &Ledger::default());
        feeds.end(FilterId(2));
        let mut order = Vec::new();
        while let Some(first) = feeds.first() {
            order.push((first.subscription.0, first.qos));
            feeds.end_first();
        }
        assert_eq!(order, [(3, Qos::AtMostOnce), (1, Qos::AtLeastOnce)]);
        assert!(feeds.is_empty());
    }

    #[test]
    fn feeds_that_replace_each_other_take_no_more_places_than_subscriptions() {
        for subscriptions in [2, 16, 17, 100] {
            let (mut feeds, ledger) = (Feeds::default(), Ledger::default());
            for round in 0..10_000_u32 {
                feeds.push(feed(round % subscriptions, Qos::AtMostOnce), &ledger);
            }
            let line = feeds.0.as_ref().expect("there are some");
            assert_eq!(line.line.iter().flatten().count(), subscriptions as usize);
            assert!(line.line.len() <= 2 * subscriptions as usize + FEEDS_EMPTY_MAX);
            assert!(ledger.bytes() >= u64::from(subscriptions) * size_of::<RetainedFeed>() as u64);
            for subscription in 0..subscriptions {
                feeds.end(FilterId(subscription));
            }
            assert!(feeds.is_empty());
            assert_eq!(ledger.bytes(), 0);
        }
    }
}
