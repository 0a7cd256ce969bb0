//! SUBSCRIBE. Knows no subscription, and of a Topic Filter only that it is not empty.

use super::{PacketIdentifier, Qos, UserProperties};

/// A request for messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// To be repeated in SUBACK.
    pub packet_identifier: PacketIdentifier,
    /// To be repeated in each PUBLISH packet; never 0.
    pub subscription_identifier: Option<u32>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// At least one.
    pub filters: SubscribeFilters<'a>,
}

/// What a client wants of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The highest QoS that messages come with.
    pub qos: Qos,
    /// Not the client's own messages.
    pub no_local: bool,
    /// RETAIN as the publisher set it.
    pub retain_as_published: bool,
    /// 0: retained messages at each SUBSCRIBE, 1: at the first only, 2: never.
    pub retain_handling: u8,
}

/// Topic Filters with their options, in order.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a>(Source<'a>);

#[derive(Clone, Copy)]
#[allow(dead_code)]
enum Source<'a> {
    /// A whole payload, checked.
    Payload(&'a [u8]),
    List(&'a [(&'a str, SubscribeOptions)]),
}

impl<'a> SubscribeFilters<'a> {
    /// These, to be encoded.
    pub fn list(filters: &'a [(&'a str, SubscribeOptions)]) -> Self {
        SubscribeFilters(Source::List(filters))
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// Each in turn.
    pub fn iter(&self) -> SubscribeFiltersIter<'a> {
        SubscribeFiltersIter(self.0)
    }
}

/// Iterates [`SubscribeFilters`].
#[derive(Clone)]
pub struct SubscribeFiltersIter<'a>(Source<'a>);

impl<'a> Iterator for SubscribeFiltersIter<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}

impl<'a> IntoIterator for SubscribeFilters<'a> {
    type Item = (&'a str, SubscribeOptions);
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
