//! Types of the index: subscribers, filters, subscriptions, and matches.

use super::trie::Walk;

/// A subscriber; the owner of the index defines the meaning of the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u32);

/// A filter with at least one subscriber. Reused after the last subscriber has left.
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

    /// Whether the filter is shared.
    pub fn is_shared(self) -> bool {
        self.0 & Self::SHARED != 0
    }
}

/// The Subscription Options that affect delivery. Retain Handling applies only once, at SUBSCRIBE,
/// and is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionOptions(u8);

impl SubscriptionOptions {
    const QOS: u8 = 0b0011;
    const NO_LOCAL: u8 = 0b0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b1000;
    const FILTERED: u8 = 0b1_0000;
    const KEPT: u8 = 0b10_0000;

    /// Options with a Maximum QoS of 0, 1 or 2.
    pub fn new(qos: u8, no_local: bool, retain_as_published: bool) -> Self {
        assert!(qos <= 2, "there is no QoS {qos}");
        let no_local = if no_local { Self::NO_LOCAL } else { 0 };
        let retain = if retain_as_published { Self::RETAIN_AS_PUBLISHED } else { 0 };
        Self(qos | no_local | retain)
    }

    /// The options, and whether the owner of the index leaves out some of the topics that match.
    pub fn with_filtered(self, is_filtered: bool) -> Self {
        let filtered = if is_filtered { Self::FILTERED } else { 0 };
        Self(self.0 & !Self::FILTERED | filtered)
    }

    /// Whether the owner of the index leaves out some of the topics that match.
    pub fn is_filtered(&self) -> bool {
        self.0 & Self::FILTERED != 0
    }

    /// The options, and whether the subscriber is kept while it is away.
    pub fn with_kept(self, is_kept: bool) -> Self {
        let kept = if is_kept { Self::KEPT } else { 0 };
        Self(self.0 & !Self::KEPT | kept)
    }

    /// Whether the subscriber is kept while it is away.
    pub fn is_kept(&self) -> bool {
        self.0 & Self::KEPT != 0
    }

    /// The Maximum QoS.
    pub fn qos(&self) -> u8 {
        self.0 & Self::QOS
    }

    /// No Local: whether the subscriber's own messages are not sent to it.
    pub fn no_local(&self) -> bool {
        self.0 & Self::NO_LOCAL != 0
    }

    /// Retain As Published: whether messages keep the RETAIN flag of the publisher.
    pub fn retain_as_published(&self) -> bool {
        self.0 & Self::RETAIN_AS_PUBLISHED != 0
    }
}

/// A subscription of one subscriber to one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// The subscriber.
    pub subscriber: SubscriberId,
    /// The Subscription Options.
    pub options: SubscriptionOptions,
    /// The Subscription Identifier; 0 means none.
    pub identifier: u32,
}

/// The result of subscribing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// The filter's id, valid until its last subscriber leaves.
    pub filter: FilterId,
    /// The replaced subscription of the same subscriber to the same filter ([MQTT-3.8.4-3]).
    pub replaced: Option<Subscription>,
    /// Whether the filter had no subscriber before.
    pub first: bool,
}

/// The result of unsubscribing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The removed subscription.
    pub subscription: Subscription,
    /// Whether the filter has no subscriber left. Its id is then free for reuse.
    pub last: bool,
}

/// The matches of a Topic Name. Reused between calls, so that matching allocates nothing once the
/// buffers have grown.
#[derive(Debug, Default, Clone)]
pub struct Matches {
    /// The matching subscriptions, in no particular order. A subscriber occurs once for each
    /// matching filter.
    pub subscriptions: Vec<Subscription>,
    /// The matching shared filters, each once: one of the
    /// [`members`](super::SubscriptionIndex::members) receives the message.
    pub shared: Vec<FilterId>,
    pub(super) walk: Walk,
}

impl Matches {
    /// Cost of the last match: nodes visited, and matches found.
    pub fn steps(&self) -> usize {
        self.walk.steps as usize + self.subscriptions.len() + self.shared.len()
    }

    /// Bytes of memory allocated by the buffers.
    pub fn heap_bytes(&self) -> usize {
        self.subscriptions.capacity() * size_of::<Subscription>()
            + self.shared.capacity() * size_of::<FilterId>()
            + self.walk.heap_bytes()
    }

    /// Clears the matches and keeps the buffers.
    pub fn clear(&mut self) {
        self.subscriptions.clear();
        self.shared.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_encoding() {
        for bits in 0..12 {
            let (qos, no_local, retain) = (bits % 3, bits / 3 % 2 == 1, bits / 6 == 1);
            let options = SubscriptionOptions::new(qos, no_local, retain);
            assert_eq!(
                (options.qos(), options.no_local(), options.retain_as_published()),
                (qos, no_local, retain)
            );
            let filtered = options.with_filtered(true);
            assert!(filtered.is_filtered() && !options.is_filtered());
            assert_eq!((filtered.qos(), filtered.with_filtered(false)), (qos, options));
        }
        assert_eq!(size_of::<Subscription>(), 12);
    }
}
