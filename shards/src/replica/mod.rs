//! The replica: which other cores hold a subscription that matches a topic. Knows no subscriber and
//! no message.
//!
//! A core announces a filter with its first subscriber, and withdraws it after the last one.
//! Filters without wildcards, the great majority, are stored as fingerprints of eight bytes: a
//! collision costs a needless forward, never a message.

mod exact;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use exact::Exact;

use crate::hash::Hashing;
use crate::index::{
    FilterId, Matches, SubscriberId, Subscription, SubscriptionIndex, SubscriptionOptions,
};
use crate::slab::heap;
use crate::topic::{TopicFilter, has_wildcard};

/// A 64-bit hash of a filter without wildcards, or of a topic, with a seed that the cores of one
/// process share and that is unknown to peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

/// A shared subscription with members on other cores. Reused after the last member has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(FilterId);

/// The part of a shared subscription on one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupAt {
    /// The core.
    pub core: u16,
    /// Number of connected members.
    pub online: u32,
    /// Number of members.
    pub members: u32,
}

/// The matches of a topic on other cores. Reused between calls, so that matching allocates nothing
/// once the buffers have grown.
#[derive(Debug, Default)]
pub struct CoreMatches {
    /// Cores with a matching subscription that is not shared, each once, ascending.
    pub cores: Vec<u16>,
    /// Matching shared subscriptions, each once.
    pub groups: Vec<GroupId>,
    scratch: Matches,
}

impl CoreMatches {
    /// Cost of the last match: nodes visited, and matches found.
    pub fn steps(&self) -> usize {
        self.scratch.steps()
    }

    /// Bytes of memory allocated by the buffers.
    pub fn heap_bytes(&self) -> usize {
        let groups = self.groups.capacity() * size_of::<GroupId>();
        self.cores.capacity() * size_of::<u16>() + groups + self.scratch.heap_bytes()
    }
}

/// The members of a group on the other cores.
#[derive(Debug, Default)]
struct Shares {
    /// In order of core.
    at: Vec<GroupAt>,
    /// Round-robin position among the cores.
    turn: u64,
}

/// The announcements of the other cores.
#[derive(Debug)]
pub struct Replica {
    hashing: Hashing,
    exact: Exact,
    /// Filters with wildcards, and shared ones, with cores as subscribers.
    others: SubscriptionIndex,
    /// The members of each group by core.
    groups: HashMap<FilterId, Shares>,
    /// Capacity of that table, as `HashMap::capacity` reports less after removals.
    group_places: usize,
    /// Bytes of the lists of shares.
    share_bytes: usize,
    epoch: u64,
}

impl Replica {
    /// An empty replica. All cores of a process use the same `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            hashing: Hashing::new(seed),
            exact: Exact::default(),
            others: SubscriptionIndex::new(seed),
            groups: HashMap::new(),
            group_places: 0,
            share_bytes: 0,
            epoch: 0,
        }
    }

    /// The fingerprint of a filter without wildcards, or of a topic.
    pub fn fingerprint(&self, text: &str) -> Fingerprint {
        Fingerprint(self.hashing.long(text))
    }

    /// Records that a core has subscribers to a filter without wildcards.
    pub fn announce_exact(&mut self, core: u16, filter: Fingerprint) {
        self.exact.insert(core, filter);
        self.epoch += 1;
    }

    /// Records that a core has no more subscribers to a filter without wildcards.
    pub fn withdraw_exact(&mut self, core: u16, filter: Fingerprint) {
        self.epoch += u64::from(self.exact.remove(core, filter));
    }

    /// Records that a core has subscribers to a filter.
    pub fn announce(&mut self, core: u16, filter: &TopicFilter<'_>) {
        match filter.has_wildcard() {
            true => self.announce_wildcard(core, filter),
            false => self.announce_exact(core, self.fingerprint(filter.text())),
        }
    }

    /// Records that a core has no more subscribers to a filter.
    pub fn withdraw(&mut self, core: u16, filter: &str) {
        match has_wildcard(filter) {
            true => self.withdraw_wildcard(core, filter),
            false => self.withdraw_exact(core, self.fingerprint(filter)),
        }
    }

    /// Records that a core has subscribers to a filter with wildcards.
    pub fn announce_wildcard(&mut self, core: u16, filter: &TopicFilter<'_>) {
        self.announce_wildcard_of_class(core, filter, 0);
    }

    /// Records that a core has subscribers of a class, 0 to 2, to a filter with wildcards; the last one announced counts.
    pub fn announce_wildcard_of_class(&mut self, core: u16, filter: &TopicFilter<'_>, class: u8) {
        let options = SubscriptionOptions::new(class, false, false);
        self.others.subscribe(filter, Subscription { options, ..of(core) });
    }

    /// Records that a core has no more subscribers to a filter with wildcards.
    pub fn withdraw_wildcard(&mut self, core: u16, filter: &str) {
        if let Some(filter) = self.others.find(filter) {
            self.others.unsubscribe(filter, SubscriberId(core.into()));
        }
    }

    /// Sets the number of members of a shared subscription on a core; zero removes the core.
    pub fn set_group(&mut self, filter: &TopicFilter<'_>, at: GroupAt) {
        if at.members > 0 {
            let filter = self.others.subscribe(filter, of(at.core)).filter;
            let shares = &mut self.groups.entry(filter).or_default().at;
            let before = share_bytes(shares);
            match shares.binary_search_by_key(&at.core, |share| share.core) {
                Ok(place) => shares[place] = at,
                Err(place) => shares.insert(place, at),
            }
            self.share_bytes += share_bytes(shares);
            self.share_bytes -= before;
            self.group_places = self.group_places.max(self.groups.capacity());
            return;
        }
        let Some(filter) = self.others.find(filter.text()) else { return };
        self.others.unsubscribe(filter, SubscriberId(at.core.into()));
        if let Some(shares) = self.groups.get_mut(&filter) {
            shares.at.retain(|share| share.core != at.core);
            if shares.at.is_empty() {
                self.share_bytes -= share_bytes(&shares.at);
                self.groups.remove(&filter);
                if self.group_places > 16 * self.groups.len() {
                    self.groups.shrink_to(2 * self.groups.len());
                    self.group_places = self.groups.capacity();
                }
            }
        }
    }

    /// The shared subscription with this full text, if other cores have members.
    pub fn group(&self, text: &str) -> Option<GroupId> {
        if self.groups.is_empty() {
            return None;
        }
        self.others.find(text).filter(|filter| filter.is_shared()).map(GroupId)
    }

    /// The members on other cores, in order of core; empty if there is no such group.
    pub fn members(&self, GroupId(filter): GroupId) -> &[GroupAt] {
        self.groups.get(&filter).map_or(&[], |shares| &shares.at)
    }

    /// The number of earlier calls for this group: its round-robin position.
    pub fn next_turn(&mut self, GroupId(filter): GroupId) -> u64 {
        let Some(shares) = self.groups.get_mut(&filter) else { return 0 };
        shares.turn += 1;
        shares.turn
    }

    /// The full text of a shared subscription.
    pub fn text(&self, GroupId(filter): GroupId) -> String {
        self.others.text(filter)
    }

    /// Writes the cores and shared subscriptions that match `topic` into `out`, which is cleared
    /// first.
    pub fn matches(&self, topic: &str, out: &mut CoreMatches) {
        let CoreMatches { cores, groups, scratch } = out;
        cores.clear();
        groups.clear();
        if !self.exact.is_empty() {
            cores.extend(self.exact.cores(self.fingerprint(topic)));
        }
        if !self.others.is_empty() {
            self.others.matches(topic, scratch);
            cores.extend(scratch.subscriptions.iter().map(|of| of.subscriber.0 as u16));
            groups.extend(scratch.shared.iter().map(|&filter| GroupId(filter)));
        }
        cores.sort_unstable();
        cores.dedup();
    }

    /// Calls `found` with the cores that have announced a filter with wildcards that matches `topic`, and with their
    /// classes.
    pub fn matches_by_class(
        &self,
        topic: &str,
        out: &mut CoreMatches,
        mut found: impl FnMut(u16, u8),
    ) {
        let scratch = &mut out.scratch;
        scratch.clear();
        if !self.others.is_empty() {
            self.others.matches(topic, scratch);
            for of in &scratch.subscriptions {
                found(of.subscriber.0 as u16, of.options.qos());
            }
        }
    }

    /// Bytes of memory as an allocator counts them.
    pub fn heap_bytes(&self) -> usize {
        // A table is full at seven eighths, and has one control byte per bucket.
        let places = self.group_places * 8 / 7;
        let groups = places * (size_of::<(FilterId, Shares)>() + 1);
        self.exact.bytes() + self.others.heap_bytes() + groups + self.share_bytes
    }

    /// A number that changes whenever a later [`matches`](Self::matches) could return a different
    /// result.
    pub fn epoch(&self) -> u64 {
        self.epoch + self.others.epoch()
    }

    /// Number of announced filters, each counted once per core.
    pub fn len(&self) -> usize {
        self.exact.len() + self.others.len()
    }

    /// Whether nothing is announced.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn share_bytes(shares: &Vec<GroupAt>) -> usize {
    heap(shares.capacity() * size_of::<GroupAt>())
}

/// A core as a subscriber.
fn of(core: u16) -> Subscription {
    Subscription {
        subscriber: SubscriberId(core.into()),
        options: SubscriptionOptions::new(0, false, false),
        identifier: 0,
    }
}
