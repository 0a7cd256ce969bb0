//! The subscription index: from a Topic Name to the matching subscriptions, in time proportional to
//! the topic's levels and the number of matches, independent of the number of subscriptions. Knows
//! no session and no message.
//!
//! Filters without a wildcard, the great majority, are found by one hash of the whole Topic Name.
//! The others are in a trie. Shared filters have a table of their own, and are linked to the exact
//! table or to the trie node where their filter ends.

mod filter;
mod group;
mod members;
mod shared;
mod subscription;
mod trie;

#[cfg(test)]
mod tests;

pub use group::Turns;
pub use subscription::{
    FilterId, Matches, Subscribed, SubscriberId, Subscription, SubscriptionOptions, Unsubscribed,
};

use crate::hash::Hashing;
use crate::id_table::IdTable;
use crate::slab::{Id, Slab};
use crate::text::Text;
use crate::topic::{SHARE_PREFIX, TopicFilter, has_wildcard};
use filter::{Filter, Place};
use group::Group;
use members::{Members, Removed};
use shared::{SharedFilter, SharedFilters};
use trie::Trie;

/// All subscriptions of one core.
#[derive(Debug)]
pub struct SubscriptionIndex {
    hashing: Hashing,
    filters: Slab<Filter>,
    /// Filters without a wildcard, by text.
    exact: IdTable,
    trie: Trie,
    shared: SharedFilters,
    /// Bytes of member lists with several entries, and of texts that are not stored inline.
    heap_bytes: usize,
    /// Number of subscriptions.
    len: usize,
    /// Number of subscriptions whose filter has a wildcard.
    wildcard_len: usize,
    /// Number of shared subscriptions.
    shared_len: usize,
    epoch: u64,
}

/// A decoded [`FilterId`].
#[derive(Clone, Copy)]
enum Which {
    Own(Id<Filter>),
    Shared(Id<SharedFilter>),
}

impl Which {
    fn from_id(FilterId(number): FilterId) -> Option<Self> {
        let own = number & !(FilterId::SHARED | FilterId::WILDCARD);
        if number & FilterId::SHARED == 0 {
            Id::from_number(own).map(Self::Own)
        } else {
            Id::from_number(own).map(Self::Shared)
        }
    }

    fn id(self, has_wildcard: bool) -> FilterId {
        let (number, shared) = match self {
            Self::Own(id) => (id.number(), 0),
            Self::Shared(id) => (id.number(), FilterId::SHARED),
        };
        assert!(number < FilterId::WILDCARD, "fewer than 2^30 filters of a kind");
        FilterId(number | shared | if has_wildcard { FilterId::WILDCARD } else { 0 })
    }
}

impl SubscriptionIndex {
    /// An empty index. Its tables are hashed with `seed`, which must be unknown to peers.
    pub fn new(seed: u64) -> Self {
        let hashing = Hashing::new(seed);
        Self {
            trie: Trie::new(hashing.clone()),
            hashing,
            filters: Slab::default(),
            exact: IdTable::default(),
            shared: SharedFilters::default(),
            heap_bytes: 0,
            len: 0,
            wildcard_len: 0,
            shared_len: 0,
            epoch: 0,
        }
    }

    /// Writes the subscriptions whose filters match the Topic Name `topic` into `out`, which is
    /// cleared first.
    pub fn matches(&self, topic: &str, out: &mut Matches) {
        out.clear();
        let Matches { subscriptions, shared, walk } = out;
        let hash = self.hashing.text(topic);
        if let Some(id) = self.find_exact(hash, topic) {
            subscriptions.extend_from_slice(self.filters[id].members.as_slice());
        }
        let mut share = |first: Option<Id<SharedFilter>>, has_wildcard| {
            if first.is_some() {
                let chain = self.shared.chain(first);
                shared.extend(chain.map(|id| Which::Shared(id).id(has_wildcard)));
            }
        };
        share(self.shared.first_exact(hash, topic), false);
        self.trie.matches(topic, walk, |node| {
            if let Some(id) = node.filter {
                subscriptions.extend_from_slice(self.filters[id].members.as_slice());
            }
            share(node.shared, true);
        });
    }

    /// The filters that match the Topic Name `topic`, those of shared subscriptions among them.
    pub fn matching_filters(&self, topic: &str) -> Vec<FilterId> {
        let (mut filters, mut walk) = (Vec::new(), Matches::default().walk);
        let hash = self.hashing.text(topic);
        filters.extend(self.find_exact(hash, topic).map(|id| Which::Own(id).id(false)));
        let share = |first: Option<Id<SharedFilter>>, has_wildcard, out: &mut Vec<FilterId>| {
            out.extend(self.shared.chain(first).map(|id| Which::Shared(id).id(has_wildcard)));
        };
        share(self.shared.first_exact(hash, topic), false, &mut filters);
        self.trie.matches(topic, &mut walk, |node| {
            filters.extend(node.filter.map(|id| Which::Own(id).id(true)));
            share(node.shared, true, &mut filters);
        });
        filters
    }

    /// Adds `subscription` to `filter`. It replaces the same subscriber's subscription to the same
    /// filter ([MQTT-3.8.4-3]).
    pub fn subscribe(
        &mut self,
        filter: &TopicFilter<'_>,
        subscription: Subscription,
    ) -> Subscribed {
        let hash = self.hashing.text(filter.text());
        let found = self.find_hashed(hash, filter.text());
        let Some(which) = found else {
            let which = self.insert(hash, filter, subscription);
            self.count(filter.has_wildcard(), 1);
            self.epoch += 1;
            return Subscribed {
                filter: which.id(filter.has_wildcard()),
                replaced: None,
                first: true,
            };
        };
        let before = self.member_bytes(which);
        let replaced = match which {
            Which::Own(id) => self.filters[id].members.put(&self.hashing, subscription),
            Which::Shared(id) => {
                let replaced = self.shared[id].group.put(&self.hashing, subscription);
                self.shared_len += usize::from(replaced.is_none());
                replaced
            }
        };
        self.heap_bytes += self.member_bytes(which);
        self.heap_bytes -= before;
        if replaced.is_none() {
            self.count(filter.has_wildcard(), 1);
        }
        self.epoch += u64::from(replaced != Some(subscription));
        Subscribed { filter: which.id(filter.has_wildcard()), replaced, first: false }
    }

    /// Removes the subscription of `subscriber` to `filter`, if there is one.
    pub fn unsubscribe(
        &mut self,
        filter: FilterId,
        subscriber: SubscriberId,
    ) -> Option<Unsubscribed> {
        let which = Which::from_id(filter)?;
        // A single member allocates no memory outside the value.
        let is_one_of_many = self.members(filter).len() > 1;
        let before = if is_one_of_many { self.member_bytes(which) } else { 0 };
        let removed = match which {
            Which::Own(id) => self.filters.get_mut(id)?.members.remove(&self.hashing, subscriber),
            Which::Shared(id) => {
                let removed = self.shared.get_mut(id)?.group.remove(&self.hashing, subscriber);
                self.shared_len -= usize::from(!matches!(removed, Removed::NoMember));
                removed
            }
        };
        let (subscription, last) = match removed {
            Removed::NoMember => return None,
            Removed::Member(subscription) => (subscription, false),
            Removed::Last(subscription) => (subscription, true),
        };
        if is_one_of_many {
            self.heap_bytes += self.member_bytes(which);
            self.heap_bytes -= before;
        }
        match which {
            Which::Own(id) if last => self.remove(id),
            Which::Shared(id) if last => self.remove_shared(id),
            _ => {}
        }
        self.count(filter.has_wildcard(), -1);
        self.epoch += 1;
        Some(Unsubscribed { subscription, last })
    }

    /// Bytes of memory as an allocator counts them.
    pub fn heap_bytes(&self) -> usize {
        self.filters.bytes()
            + self.exact.bytes()
            + self.trie.heap_bytes()
            + self.shared.heap_bytes()
            + self.heap_bytes
    }

    fn member_bytes(&self, which: Which) -> usize {
        match which {
            Which::Own(id) => self.filters.get(id).map_or(0, |filter| filter.members.heap_bytes()),
            Which::Shared(id) => {
                self.shared.get(id).map_or(0, |filter| filter.group.members().heap_bytes())
            }
        }
    }

    fn count(&mut self, has_wildcard: bool, subscriptions: isize) {
        self.len = self.len.saturating_add_signed(subscriptions);
        if has_wildcard {
            self.wildcard_len = self.wildcard_len.saturating_add_signed(subscriptions);
        }
    }

    /// The filter whose full text, with `$share/NAME/` if shared, is `text`.
    pub fn find(&self, text: &str) -> Option<FilterId> {
        let which = self.find_hashed(self.hashing.text(text), text)?;
        let place = match which {
            Which::Own(id) => &self.filters[id].place,
            Which::Shared(id) => &self.shared[id].place,
        };
        Some(which.id(matches!(place, Place::Trie(_))))
    }

    /// The full text of `filter`; empty if no filter has this id.
    pub fn text(&self, filter: FilterId) -> String {
        let mut text = String::new();
        match Which::from_id(filter) {
            Some(Which::Own(id)) => {
                if let Some(filter) = self.filters.get(id) {
                    self.write_place(&filter.place, &mut text);
                }
            }
            Some(Which::Shared(id)) => {
                if let Some(filter) = self.shared.get(id) {
                    text.extend([SHARE_PREFIX, filter.name.as_str(), "/"]);
                    self.write_place(&filter.place, &mut text);
                }
            }
            None => {}
        }
        text
    }

    /// The subscription of `subscriber` to `filter`.
    pub fn get(&self, filter: FilterId, subscriber: SubscriberId) -> Option<Subscription> {
        self.members_of(filter)?.get(&self.hashing, subscriber)
    }

    /// All subscriptions to `filter`; none if no filter has this id. Up to 64 subscriptions to a
    /// filter that is not shared are in the order in which they were made. With more, a removed one
    /// is replaced by the last; the others do not move.
    pub fn members(&self, filter: FilterId) -> &[Subscription] {
        self.members_of(filter).map_or(&[], Members::as_slice)
    }

    fn members_of(&self, filter: FilterId) -> Option<&Members> {
        match Which::from_id(filter)? {
            Which::Own(id) => self.filters.get(id).map(|filter| &filter.members),
            Which::Shared(id) => self.shared.get(id).map(|filter| filter.group.members()),
        }
    }

    fn group(&self, filter: FilterId) -> Option<&Group> {
        match Which::from_id(filter)? {
            Which::Own(_) => None,
            Which::Shared(id) => self.shared.get(id).map(|filter| &filter.group),
        }
    }

    /// Records whether a member of a shared filter is present; a new member is not. False if it is
    /// no member.
    pub fn set_present(
        &mut self,
        filter: FilterId,
        subscriber: SubscriberId,
        is_present: bool,
    ) -> bool {
        let Some(which @ Which::Shared(id)) = Which::from_id(filter) else { return false };
        let before = self.member_bytes(which);
        let Some(SharedFilter { group, .. }) = self.shared.get_mut(id) else { return false };
        let is_member = group.set_present(&self.hashing, subscriber, is_present);
        self.heap_bytes += self.member_bytes(which);
        self.heap_bytes -= before;
        is_member
    }

    /// Whether a member of a shared filter is present.
    pub fn is_present(&self, filter: FilterId, subscriber: SubscriberId) -> bool {
        self.group(filter).is_some_and(|group| group.is_present(&self.hashing, subscriber))
    }

    /// The present members of a shared filter.
    pub fn present(&self, filter: FilterId) -> &[Subscription] {
        self.group(filter).map_or(&[], Group::present)
    }

    /// The absent members of a shared filter with a granted QoS of 1 or 2.
    pub fn waiting(&self, filter: FilterId) -> &[Subscription] {
        self.group(filter).map_or(&[], Group::waiting)
    }

    /// The round-robin positions of a shared filter.
    pub fn turns_mut(&mut self, filter: FilterId) -> Option<&mut Turns> {
        match Which::from_id(filter)? {
            Which::Own(_) => None,
            Which::Shared(id) => self.shared.get_mut(id).map(|filter| &mut filter.group.turns),
        }
    }

    /// A number that changes whenever a later [`matches`](Self::matches) could return a different
    /// result.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of subscriptions whose filter has a wildcard, including shared ones.
    pub fn wildcard_len(&self) -> usize {
        self.wildcard_len
    }

    /// Number of shared subscriptions: each member of each shared filter.
    pub fn shared_len(&self) -> usize {
        self.shared_len
    }

    /// Number of shared filters, each with at least one member.
    pub fn shared_filters(&self) -> usize {
        self.shared.len()
    }

    /// Whether there are no subscriptions.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of distinct filters.
    pub fn filters(&self) -> usize {
        self.filters.len() + self.shared.len()
    }

    fn find_hashed(&self, hash: u32, text: &str) -> Option<Which> {
        if text.starts_with(SHARE_PREFIX) {
            let is_place = |place: &Place, filter: &str| match place {
                Place::Exact(text) => *text == *filter,
                Place::Trie(node) => self.trie.is_text(*node, filter),
            };
            self.shared.find(hash, text, is_place).map(Which::Shared)
        } else if has_wildcard(text) {
            self.trie.find(text).and_then(|node| self.trie.node(node).filter).map(Which::Own)
        } else {
            self.find_exact(hash, text).map(Which::Own)
        }
    }

    fn find_exact(&self, hash: u32, text: &str) -> Option<Id<Filter>> {
        let is = |number| {
            let filter = Id::from_number(number).map(|id: Id<Filter>| &self.filters[id]);
            matches!(filter, Some(Filter { place: Place::Exact(own), .. }) if *own == *text)
        };
        self.exact.find(hash, is).and_then(Id::from_number)
    }

    fn write_place(&self, place: &Place, out: &mut String) {
        match place {
            Place::Exact(text) => out.push_str(text.as_str()),
            Place::Trie(node) => self.trie.write_text(*node, out),
        }
    }

    /// Adds a new filter. `hash` is the hash of its full text.
    fn insert(&mut self, hash: u32, filter: &TopicFilter<'_>, only: Subscription) -> Which {
        let place = if filter.has_wildcard() {
            Place::Trie(self.trie.make(filter.filter()))
        } else {
            Place::Exact(Text::new(filter.filter()))
        };
        match filter.share_name() {
            Some(name) => {
                Which::Shared(self.insert_shared(hash, filter.filter(), name, place, only))
            }
            None => Which::Own(self.insert_own(hash, place, only)),
        }
    }

    fn insert_own(&mut self, hash: u32, place: Place, only: Subscription) -> Id<Filter> {
        let node = if let Place::Trie(node) = place { Some(node) } else { None };
        self.heap_bytes += place.heap_bytes();
        let id = self.filters.insert(Filter { place, members: Members::One(only) });
        match node {
            Some(node) => self.trie.node_mut(node).filter = Some(id),
            None => self.exact.insert(hash, id.number()),
        }
        id
    }

    fn insert_shared(
        &mut self,
        hash: u32,
        filter: &str,
        name: &str,
        place: Place,
        only: Subscription,
    ) -> Id<SharedFilter> {
        let group = Group::new(only);
        self.shared_len += 1;
        if let Place::Trie(node) = place {
            let first = self.trie.node(node).shared;
            let id = self.shared.insert(hash, (name, place, group), first);
            self.trie.node_mut(node).shared = Some(id);
            return id;
        }
        let exact_hash = self.hashing.text(filter);
        let first = self.shared.first_exact(exact_hash, filter);
        let id = self.shared.insert(hash, (name, place, group), first);
        self.shared.start_exact(exact_hash, first, Some(id));
        id
    }

    fn remove(&mut self, id: Id<Filter>) {
        let place = self.filters.remove(id).place;
        self.heap_bytes -= place.heap_bytes();
        match place {
            Place::Exact(text) => {
                self.exact.remove(self.hashing.text(text.as_bytes()), id.number())
            }
            Place::Trie(node) => {
                self.trie.node_mut(node).filter = None;
                self.trie.prune(node);
            }
        }
    }

    fn remove_shared(&mut self, id: Id<SharedFilter>) {
        let removal = self.shared.remove(id);
        if !removal.was_first {
            return;
        }
        match removal.place {
            Place::Exact(text) => {
                let hash = self.hashing.text(text.as_bytes());
                self.shared.start_exact(hash, Some(id), removal.first);
            }
            Place::Trie(node) => {
                self.trie.node_mut(node).shared = removal.first;
                self.trie.prune(node);
            }
        }
    }
}
