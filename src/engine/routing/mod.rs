//! From a message to its recipients: who they are, how it reaches them, and what happens to those that are slow.
//!
//! [`Router`] owns the subscriptions of this core, the replica of what other cores subscribed to, and the
//! messages that are on their way to subscribers. Code outside of this folder reads subscriptions through
//! [`Router::index`] and changes them through the methods in `subscriptions`, which deliver the pending
//! fan-out batch first.

pub(in crate::engine) mod backpressure;
pub(in crate::engine) mod congestion;
pub(in crate::engine) mod deliver;
pub(in crate::engine) mod fan_out;
pub(in crate::engine) mod fan_out_batch;
mod groups;
pub(in crate::engine) mod recipients;
pub(in crate::engine) mod shared_subscriptions;
mod subscriptions;

use std::sync::Arc;

use shards::{Hashing, Replica, SubscriptionIndex};

use crate::base::ids::SessionId;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::engine::mesh::lanes::Awaited;
use crate::engine::routing::deliver::Template;
use crate::engine::routing::fan_out::FanOuts;
use crate::engine::routing::fan_out_batch::FanOutBatch;
use crate::engine::routing::groups::ChangedGroups;
use crate::engine::routing::recipients::{Recipient, Recipients, TopicCache};
use crate::engine::work::Work;
use crate::resources::accounted::{Accounted, Edit};
use crate::resources::gauges::Place;
use crate::session::table::SessionTable;

/// Number of visited nodes of the subscription index per step of the turn's budget.
const INDEX_STEPS_PER_STEP: usize = 8;

/// The subscriptions that one core knows of, and the messages on their way to its subscribers.
pub(in crate::engine) struct Router {
    place: Place,
    /// The subscriptions of this core's sessions.
    index: Accounted<SubscriptionIndex>,
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
        let cache_bytes_max =
            memory_bytes_max / limits::TOPIC_CACHE_MEMORY_SHARE / u64::from(place.cores());
        Self {
            index: Accounted::new(SubscriptionIndex::new(seed), ledger.clone()),
            replica: Accounted::new(Replica::new(seed), ledger.clone()),
            cache: TopicCache::new(hashing, cache_bytes_max as usize, ledger.clone()),
            batch: FanOutBatch::default(),
            fan_outs: FanOuts::default(),
            template: Template::default(),
            changed_groups: ChangedGroups::default(),
            has_queued: false,
            place: place.clone(),
        }
    }

    /// The subscriptions of this core's sessions.
    #[inline]
    pub(in crate::engine) fn index(&self) -> &SubscriptionIndex {
        &self.index
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

    /// Whether a fan-out has begun since the last call.
    #[inline]
    pub(in crate::engine) fn take_new_fan_out(&mut self) -> bool {
        self.fan_outs.take_new()
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

    /// Starts with another message of a client: it is queued for no subscriber yet.
    #[inline]
    pub(in crate::engine) fn begin_message(&mut self) {
        self.has_queued = false;
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

    /// One session as the recipient of its own message: subscriptions with No Local do not count.
    fn recipient_of_own(&mut self, topic: &str, session: SessionId) -> Option<Recipient> {
        self.cache.recipient_of_own(topic, session, &self.index)
    }
}
