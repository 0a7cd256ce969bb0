//! Changes of subscriptions. Each change first delivers the pending fan-out batch, whose recipients were
//! found before it, so that callers need not know of the batch.

use shards::{FilterId, Subscribed, Subscription, TopicFilter, Unsubscribed};

use crate::base::ids::SessionId;
use crate::base::limits;
use crate::engine::Engine;
use crate::engine::routing::Router;
use crate::session::state::DeliveryClass;

impl Router {
    /// Adds a subscription to the index, or replaces the one of the same session to the same filter.
    fn subscribe(&mut self, filter: &TopicFilter<'_>, subscription: Subscription) -> Subscribed {
        debug_assert!(self.batch.is_empty(), "the batch was delivered before");
        let subscribed = self.index.edit().subscribe(filter, subscription);
        if subscribed.replaced.is_none() {
            self.place.ledger().charge(limits::SUBSCRIPTION_BYTES);
            self.publish_counts();
        }
        subscribed
    }

    /// Removes a subscription from the index.
    fn unsubscribe(&mut self, filter: FilterId, session: SessionId) -> Option<Unsubscribed> {
        debug_assert!(self.batch.is_empty(), "the batch was delivered before");
        let unsubscribed = self.index.edit().unsubscribe(filter, session.into())?;
        self.place.ledger().release(limits::SUBSCRIPTION_BYTES);
        self.publish_counts();
        Some(unsubscribed)
    }

    /// Publishes to the other cores how many subscriptions there are of the kinds that are limited in all.
    fn publish_counts(&self) {
        self.place.set_subscriptions(self.index.wildcard_len(), self.index.shared_filters());
    }
}

impl Engine {
    /// Adds a subscription of a session, or replaces its earlier one to the same filter.
    pub(in crate::engine) fn add_subscription(
        &mut self,
        session: SessionId,
        filter: &TopicFilter<'_>,
        subscription: Subscription,
    ) -> Subscribed {
        self.flush_fan_out_batch();
        let subscribed = self.router.subscribe(filter, subscription);
        if subscribed.replaced.is_none() {
            self.sessions[session].subscriptions.push(subscribed.filter);
        }
        subscribed
    }

    /// Removes a subscription of a session that continues: fan-outs that have not reached it yet leave it
    /// out. The caller has removed the filter from the session.
    pub(in crate::engine) fn remove_subscription(&mut self, filter: FilterId, session: SessionId) {
        self.flush_fan_out_batch();
        self.router.fan_outs.note_unsubscribed(session);
        self.leave(filter, session);
    }

    /// Removes a subscription of a session that has ended.
    pub(in crate::engine) fn leave(&mut self, filter: FilterId, session: SessionId) {
        self.flush_fan_out_batch();
        let text = self.router.index.text(filter);
        let Some(gone) = self.router.unsubscribe(filter, session) else { return };
        if filter.is_shared() {
            self.router.leave_group(filter, &text, gone.last, &mut self.mesh);
        } else if gone.last {
            self.mesh.withdraw(&text, &self.router.replica);
        }
    }

    /// Changes how copies for a session are encoded. Recipients are grouped by that.
    pub(in crate::engine) fn set_delivery_class(
        &mut self,
        session: SessionId,
        class: DeliveryClass,
    ) {
        if self.sessions[session].class == class {
            return;
        }
        if !self.sessions[session].subscriptions.is_empty() {
            self.flush_fan_out_batch();
            self.router.cache.clear();
        }
        self.sessions[session].class = class;
    }
}
