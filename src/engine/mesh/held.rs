//! What this core holds, as the gateway is told: for each filter that is not shared, the highest class of its subscriptions.
//! A publisher's acknowledgement on another node waits for this one unless that is the lowest.

use std::collections::HashMap;

use shards::interest::Class;
use shards::{FilterId, Subscribed, Subscription, SubscriptionOptions, TopicFilter};

use crate::base::ids::SessionId;
use crate::engine::Engine;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::batch::MeshMessage;
use crate::resources::gauges::{Charge, Ledger};

/// Estimated memory of an entry of a map with its part of the room of the table.
const ENTRY_BYTES: usize = 24;

/// The subscriptions of this core by class.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By filter, the number of subscriptions of the two higher classes, if there are any.
    counts: HashMap<FilterId, [u32; 2]>,
    charge: Charge,
}

fn class_of(options: SubscriptionOptions) -> Class {
    match (options.qos(), options.is_kept()) {
        (0, _) => Class::AtMostOnce,
        (_, false) => Class::Acknowledged,
        (_, true) => Class::Stored,
    }
}

impl Held {
    /// The highest class of the subscriptions to a filter, if there are any.
    fn highest(&self, filter: FilterId) -> Class {
        match self.counts.get(&filter) {
            None => Class::AtMostOnce,
            Some([_, 0]) => Class::Acknowledged,
            Some(_) => Class::Stored,
        }
    }

    fn add(&mut self, filter: FilterId, class: Class) {
        match class {
            Class::AtMostOnce => {}
            Class::Acknowledged => self.counts.entry(filter).or_default()[0] += 1,
            Class::Stored => self.counts.entry(filter).or_default()[1] += 1,
        }
    }

    fn remove(&mut self, filter: FilterId, class: Class) {
        let Some(counts) = self.counts.get_mut(&filter) else { return };
        match class {
            Class::AtMostOnce => return,
            Class::Acknowledged => counts[0] = counts[0].saturating_sub(1),
            Class::Stored => counts[1] = counts[1].saturating_sub(1),
        }
        if *counts == [0, 0] {
            self.counts.remove(&filter);
            if self.counts.len() * 4 < self.counts.capacity() {
                self.counts.shrink_to(self.counts.len() * 2);
            }
        }
    }

    fn settle(&mut self, ledger: &Ledger) {
        self.charge.set(ledger, self.counts.capacity() * ENTRY_BYTES);
    }
}

impl Mesh {
    /// A subscription was made, or has replaced another one of its session. Announces the class of its filter if that has
    /// changed; a SUBACK waits until all nodes know it.
    pub(in crate::engine) fn note_subscribed(
        &mut self,
        filter: &TopicFilter<'_>,
        subscription: &Subscription,
        subscribed: &Subscribed,
        ledger: &Ledger,
    ) {
        if self.nodes.gateway.is_none() || filter.share_name().is_some() {
            return;
        }
        let (held, id) = (&mut self.nodes.held, subscribed.filter);
        let before = (!subscribed.first).then(|| held.highest(id));
        held.add(id, class_of(subscription.options));
        if let Some(replaced) = subscribed.replaced {
            held.remove(id, class_of(replaced.options));
        }
        let class = Some(held.highest(id));
        held.settle(ledger);
        self.tell_held(filter.text(), before, class);
    }

    /// A subscription has ended; `is_last` if it was the last one to its filter.
    pub(in crate::engine) fn note_unsubscribed(
        &mut self,
        (filter, text): (FilterId, &str),
        subscription: &Subscription,
        is_last: bool,
        ledger: &Ledger,
    ) {
        if self.nodes.gateway.is_none() || filter.is_shared() {
            return;
        }
        let held = &mut self.nodes.held;
        let before = Some(held.highest(filter));
        held.remove(filter, class_of(subscription.options));
        let class = (!is_last).then(|| held.highest(filter));
        held.settle(ledger);
        self.tell_held(text, before, class);
    }

    fn tell_held(&mut self, text: &str, before: Option<Class>, class: Option<Class>) {
        let Some(gateway) = self.nodes.gateway.filter(|_| before != class) else { return };
        let lane = self.lanes.to(gateway);
        let filter = lane.open().push_text(text);
        lane.push(MeshMessage::Held { filter, before, class });
        if class > before {
            lane.note_announcement();
        }
    }
}

impl Engine {
    /// A subscription of a session, marked if the session is kept. Without a cluster nothing is marked. A session that is not
    /// kept ends with its connection, so that it is never kept later; one that is kept no more, since its client has come
    /// back with an expiry interval of 0, has the mark until it ends.
    pub(in crate::engine) fn mark_kept(
        &self,
        session: SessionId,
        subscription: Subscription,
    ) -> Subscription {
        if self.mesh.nodes.gateway.is_none() {
            return subscription;
        }
        let is_kept = self.sessions[session].is_persistent();
        Subscription { options: subscription.options.with_kept(is_kept), ..subscription }
    }
}
