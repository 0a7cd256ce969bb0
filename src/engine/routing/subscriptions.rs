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
            self.note_counts();
        }
        subscribed
    }

    /// Removes a subscription from the index.
    fn unsubscribe(&mut self, filter: FilterId, session: SessionId) -> Option<Unsubscribed> {
        debug_assert!(self.batch.is_empty(), "the batch was delivered before");
        let unsubscribed = self.index.edit().unsubscribe(filter, session.into())?;
        self.note_counts();
        Some(unsubscribed)
    }

    /// Charges for the subscriptions in the lists of sessions, and publishes to the other cores how many there are of
    /// the kinds that are limited in all.
    fn note_counts(&mut self) {
        self.listed.set(self.place.ledger(), self.index.len() * limits::SUBSCRIPTION_BYTES);
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
        let subscription = self.mark_kept(session, subscription);
        let subscribed = self.router.subscribe(filter, subscription);
        if subscribed.replaced.is_none() {
            self.sessions[session].subscriptions.push(subscribed.filter);
        }
        self.mesh.note_subscribed(filter, &subscription, &subscribed, self.memory.ledger());
        subscribed
    }

    /// Marks a subscription of a session that the access rules filter from now on, or takes the mark off.
    pub(in crate::engine) fn mark_filtered(
        &mut self,
        session: SessionId,
        text: &str,
        subscription: Subscription,
        is_filtered: bool,
    ) {
        let Ok(filter) = TopicFilter::parse(text, usize::MAX) else { return };
        let options = subscription.options.with_filtered(is_filtered);
        self.add_subscription(session, &filter, Subscription { options, ..subscription });
    }

    /// The client of a session may be another user's: who receives what is decided once more.
    pub(in crate::engine) fn decide_recipients_again(&mut self) {
        if self.router.has_read_rules() {
            self.flush_fan_out_batch();
            self.router.cache.clear();
        }
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
        // Only other cores need to be told which filter it was.
        let text = match self.mesh.is_alone() {
            true => String::new(),
            false => self.router.index.text(filter),
        };
        let Some(gone) = self.router.unsubscribe(filter, session) else { return };
        let (of, ledger) = ((filter, text.as_str()), self.memory.ledger());
        self.mesh.note_unsubscribed(of, &gone.subscription, gone.last, ledger);
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
