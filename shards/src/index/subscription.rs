//! The words of the index: subscribers, filters, subscriptions, and what the index answers.

use super::trie::Walk;

/// Who subscribed: whoever owns the index gives the number its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u32);

/// A filter text with at least one subscriber. Given out again once the last one has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub u32);

impl FilterId {
    /// Set in the ids of shared filters.
    pub(super) const SHARED: u32 = 1 << 31;
    /// Set in the ids of filters that have a wildcard.
    pub(super) const WILDCARD: u32 = 1 << 30;

    /// Whether the filter has a wildcard.
    pub fn has_wildcard(self) -> bool {
        self.0 & Self::WILDCARD != 0
    }

    /// Whether it is a shared filter.
    pub fn is_shared(self) -> bool {
        self.0 & Self::SHARED != 0
    }
}

/// The Subscription Options that matter for delivery. Retain Handling matters once, when the
/// SUBSCRIBE is answered, and is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionOptions(u8);

impl SubscriptionOptions {
    const QOS: u8 = 0b0011;
    const NO_LOCAL: u8 = 0b0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b1000;

    /// Options with the Maximum QoS `qos`, which is 0, 1 or 2.
    pub fn new(qos: u8, no_local: bool, retain_as_published: bool) -> Self {
        assert!(qos <= 2, "there is no QoS {qos}");
        let no_local = if no_local { Self::NO_LOCAL } else { 0 };
        let retain = if retain_as_published { Self::RETAIN_AS_PUBLISHED } else { 0 };
        Self(qos | no_local | retain)
    }

    /// The Maximum QoS.
    pub fn qos(&self) -> u8 {
        self.0 & Self::QOS
    }

    /// Whether the subscriber's own messages are kept from it.
    pub fn no_local(&self) -> bool {
        self.0 & Self::NO_LOCAL != 0
    }

    /// Whether messages keep the RETAIN flag that they were published with.
    pub fn retain_as_published(&self) -> bool {
        self.0 & Self::RETAIN_AS_PUBLISHED != 0
    }
}

/// One subscriber's subscription to one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Who subscribed.
    pub subscriber: SubscriberId,
    /// How messages are delivered.
    pub options: SubscriptionOptions,
    /// The Subscription Identifier; 0 is none.
    pub identifier: u32,
}

/// What subscribing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// The filter's id, valid until its last subscriber leaves.
    pub filter: FilterId,
    /// The subscription of the same subscriber to the same filter text that this one took the
    /// place of ([MQTT-3.8.4-3]).
    pub replaced: Option<Subscription>,
    /// Whether the filter text had no subscriber before.
    pub first: bool,
}

/// What unsubscribing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The subscription that was.
    pub subscription: Subscription,
    /// Whether the filter text has no subscriber left. Its id is then vacated.
    pub last: bool,
}

/// What matches a Topic Name. Kept and passed in again, so that matching allocates nothing once its
/// buffers have grown.
#[derive(Debug, Default, Clone)]
pub struct Matches {
    /// The subscriptions, in no particular order. A subscriber is in it once for each of its
    /// filters that match.
    pub subscriptions: Vec<Subscription>,
    /// The shared filters, each once: one of the [`members`](super::SubscriptionIndex::members) is
    /// to have the message.
    pub shared: Vec<FilterId>,
    pub(super) walk: Walk,
}

impl Matches {
    /// What the last match cost: nodes looked at, and what was found.
    pub fn steps(&self) -> usize {
        self.walk.steps as usize + self.subscriptions.len() + self.shared.len()
    }

    /// Bytes of memory that the buffers hold.
    pub fn heap_bytes(&self) -> usize {
        self.subscriptions.capacity() * size_of::<Subscription>()
            + self.shared.capacity() * size_of::<FilterId>()
            + self.walk.heap_bytes()
    }

    /// Forget the matches, keep the buffers.
    pub fn clear(&mut self) {
        self.subscriptions.clear();
        self.shared.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_as_they_were() {
        for bits in 0..12 {
            let (qos, no_local, retain) = (bits % 3, bits / 3 % 2 == 1, bits / 6 == 1);
            let options = SubscriptionOptions::new(qos, no_local, retain);
            assert_eq!(
                (options.qos(), options.no_local(), options.retain_as_published()),
                (qos, no_local, retain)
            );
        }
        assert_eq!(size_of::<Subscription>(), 12);
    }
}
