//! From a message to its recipients: who they are, how it reaches them, and what happens to those that are slow.
//!
//! [`Router`] owns the subscriptions of this core, the replica of what other cores subscribed to, and the
//! messages that are on their way to subscribers. Code outside of this folder reads subscriptions through
//! [`Router::index`] and changes them through the methods in `subscriptions`, which deliver the pending
//! fan-out batch first.

pub(in crate::engine) mod backpressure;
pub(in crate::engine) mod congestion;
pub(in crate::engine) mod deliver;
#[cfg(feature = "cluster")]
pub(in crate::engine) mod elsewhere;
#[cfg(not(feature = "cluster"))]
#[path = "elsewhere_absent.rs"]
mod elsewhere;
mod encode;
mod fan_out;
mod fan_out_batch;
mod fan_out_turns;
pub(in crate::engine) mod fan_outs;
pub(in crate::engine) mod full_queues;
mod groups;
pub(in crate::engine) mod recipients;
pub(in crate::engine) mod shared_subscriptions;
mod subscriptions;
mod unmounted;

use std::sync::Arc;

use shards::{Hashing, Replica, SubscriptionIndex};

use crate::base::ids::SessionId;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::engine::access::ReadRules;
use crate::engine::mesh::lanes::Awaited;
use crate::engine::routing::elsewhere::Elsewhere;
use crate::engine::routing::encode::Template;
use crate::engine::routing::fan_out_batch::FanOutBatch;
use crate::engine::routing::fan_outs::FanOuts;
use crate::engine::routing::full_queues::FullQueues;
use crate::engine::routing::groups::ChangedGroups;
use crate::engine::routing::recipients::{INDEX_STEPS_PER_STEP, Recipient, Recipients, TopicCache};
use crate::engine::work::Work;
use crate::resources::accounted::{Accounted, Edit};
use crate::resources::gauges::{Charge, Place};
use crate::session::table::SessionTable;

/// The subscriptions that one core knows of, and the messages on their way to its subscribers.
pub(in crate::engine) struct Router {
    place: Place,
    /// The subscriptions of this core's sessions.
    index: Accounted<SubscriptionIndex>,
    /// The memory of all subscriptions in the lists of sessions.
    listed: Charge,
    /// Which other cores have subscribers, and for which filters.
    replica: Accounted<Replica>,
    cache: TopicCache,
    /// QoS 0 messages that are delivered together, at the end of the turn or before a change.
    batch: FanOutBatch,
    /// Messages that some of their subscribers receive in later turns.
    fan_outs: FanOuts,
    template: Template,
    /// Shared subscriptions whose members on this core changed in this turn.
    changed_groups: ChangedGroups,
    /// The current message was queued for some subscriber.
    has_queued: bool,
    /// The current message is delivered in a fan-out that continues in later turns.
    is_divided: bool,
    /// Publishers that wait for room in queues.
    pub(in crate::engine) full_queues: FullQueues,
}

impl Router {
    /// No subscriptions yet. `seed` and `hashing` are the same for all cores.
    pub(in crate::engine) fn new(
        place: &Place,
        memory_bytes_max: u64,
        seed: u64,
        hashing: Hashing,
    ) -> Self {
        let ledger = place.ledger();
        let cache_bytes_max = cache_bytes_max(place, memory_bytes_max);
        let elsewhere = Elsewhere::new(place);
        let cache = TopicCache::new(hashing, cache_bytes_max, ledger.clone(), elsewhere);
        Self {
            index: Accounted::new(SubscriptionIndex::new(seed), ledger.clone()),
            listed: Charge::on(ledger),
            replica: Accounted::new(Replica::new(seed), ledger.clone()),
            cache,
            batch: FanOutBatch::default(),
            fan_outs: FanOuts::new(ledger),
            template: Template::default(),
            changed_groups: ChangedGroups::default(),
            has_queued: false,
            is_divided: false,
            full_queues: FullQueues::default(),
            place: place.clone(),
        }
    }

    /// Another limit on the memory of all cores: the topic cache has a share of it.
    pub(in crate::engine) fn set_memory_bytes_max(&mut self, memory_bytes_max: u64) {
        self.cache.set_bytes_max(cache_bytes_max(&self.place, memory_bytes_max));
    }

    /// The subscriptions of this core's sessions.
    #[inline]
    pub(in crate::engine) fn index(&self) -> &SubscriptionIndex {
        &self.index
    }

    /// Wildcard subscriptions of all cores.
    pub(in crate::engine) fn wildcard_subscriptions_everywhere(&self) -> usize {
        self.index.wildcard_len() + self.place.wildcard_subscriptions_elsewhere()
    }

    /// Filters of shared subscriptions of all cores, each counted on each core that has members.
    pub(in crate::engine) fn shared_filters_everywhere(&self) -> usize {
        self.index.shared_filters() + self.place.shared_subscriptions_elsewhere()
    }

    /// Which other cores have subscribers, and for which filters.
    #[inline]
    pub(in crate::engine) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Applies an announcement of another core. The pending fan-out batch has recipients on this core
    /// alone, so that it does not matter here.
    pub(in crate::engine) fn edit_replica(&mut self) -> Edit<'_, Replica> {
        self.replica.edit()
    }

    /// The fan-outs that continue in later turns.
    #[inline]
    pub(in crate::engine) fn fan_outs(&self) -> &FanOuts {
        &self.fan_outs
    }

    /// Whether the current message is delivered in a fan-out that continues in later turns. A fan-out of
    /// another message that began meanwhile does not count.
    #[inline]
    pub(in crate::engine) fn is_divided(&self) -> bool {
        self.is_divided
    }

    /// Lets an acknowledgement wait for the fan-out that began last.
    pub(in crate::engine) fn await_last_fan_out(&mut self, awaited: Awaited) {
        self.fan_outs.await_last(awaited);
    }

    /// A session has ended. Returns whether a fan-out may still refer to it: then its place in the session
    /// table is freed when that fan-out ends.
    pub(in crate::engine) fn keep_place(&mut self, session: SessionId) -> bool {
        self.fan_outs.keep_place(session)
    }

    /// Starts with another message of a client: it is queued for no subscriber yet, and not divided.
    #[inline]
    pub(in crate::engine) fn begin_message(&mut self) {
        (self.has_queued, self.is_divided) = (false, false);
    }

    /// Whether the message was queued for some subscriber since [`Self::begin_message`].
    #[inline]
    pub(in crate::engine) fn take_has_queued(&mut self) -> bool {
        std::mem::take(&mut self.has_queued)
    }

    /// Frees the memory of the topic cache, and leaves it empty, while memory `is_short`.
    pub(in crate::engine) fn give_way(&mut self, is_short: bool) {
        self.cache.give_way(is_short);
    }

    /// Writes the counts of subscriptions and the memory that they take.
    pub(in crate::engine) fn count_into(&self, metrics: &mut Metrics) {
        metrics.subscriptions = self.index.len() as u64;
        metrics.subscriptions_wildcard = self.index.wildcard_len() as u64;
        metrics.subscriptions_shared = self.index.shared_filters() as u64;
        metrics.shared_members = self.index.shared_len() as u64;
        metrics.subscription_bytes = (self.index.charged() + self.replica.charged()) as u64;
        metrics.topic_cache_bytes = self.cache.charged() as u64;
    }

    /// The recipients of a topic.
    #[inline]
    pub(in crate::engine) fn recipients(
        &mut self,
        topic: &str,
        sessions: &SessionTable,
        work: &mut Work,
    ) -> Arc<Recipients> {
        let recipients = self.cache.recipients(topic, &self.index, &self.replica, sessions);
        work.spend(self.cache.take_steps() / INDEX_STEPS_PER_STEP);
        recipients
    }

    /// Whether subscriptions that the access rules cover in part are filtered.
    #[inline]
    pub(in crate::engine) fn has_read_rules(&self) -> bool {
        self.cache.has_read_rules()
    }

    /// Whether some subscriptions do not receive all that they match.
    pub(in crate::engine) fn is_filtered(&self) -> bool {
        self.cache.is_filtered()
    }

    /// Some session takes a part of all topics.
    #[cfg(feature = "bridge")]
    pub(in crate::engine) fn note_part(&mut self) {
        self.cache.note_part();
    }

    /// Other access rules filter subscriptions from now on.
    pub(in crate::engine) fn set_read_rules(&mut self, read_rules: Option<Arc<dyn ReadRules>>) {
        self.cache.set_read_rules(read_rules);
    }

    /// Whether a session may receive messages of a topic by a subscription that the access rules cover in part.
    pub(in crate::engine) fn may_read(
        &mut self,
        topic: &str,
        session: SessionId,
        sessions: &SessionTable,
        work: &mut Work,
    ) -> bool {
        let may_read = self.cache.may_read(topic, session, sessions);
        work.spend(self.cache.take_steps() / INDEX_STEPS_PER_STEP);
        may_read
    }

    /// One session as the recipient of its own message: subscriptions with No Local do not count.
    fn recipient_of_own(&mut self, topic: &str, session: SessionId) -> Option<Recipient> {
        self.cache.recipient_of_own(topic, session, &self.index)
    }
}

/// The topic cache's share of the memory.
fn cache_bytes_max(place: &Place, memory_bytes_max: u64) -> usize {
    (memory_bytes_max / limits::TOPIC_CACHE_MEMORY_SHARE / u64::from(place.cores())) as usize
}
