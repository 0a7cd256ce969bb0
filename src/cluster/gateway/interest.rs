//! What the cores of this process are subscribed to, as the other nodes are told.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use shards::{CoreMatches, GroupAt, Replica, TopicFilter, heap};

use crate::base::clock::{Deadline, Now};
use crate::base::ids::CoreId;
use crate::cluster::gateway::node::Node;
use crate::cluster::limits::WITHDRAWAL_DELAY;

/// Estimated memory of an entry of a map, without its text.
const ENTRY_BYTES: usize = 48;

/// A filter that is not shared.
#[derive(Debug, Default)]
struct Held {
    /// Number of cores with subscribers.
    cores: u16,
    /// When it is withdrawn, if there are none.
    until: Option<Deadline>,
}

/// The members of a shared subscription.
#[derive(Debug, Default)]
struct Group {
    /// In order of core.
    at: Vec<GroupAt>,
    /// Round-robin position among the members.
    turn: u64,
}

/// The subscriptions of the cores.
#[derive(Debug)]
pub(super) struct Interest {
    cores: u16,
    held: BTreeMap<Box<str>, Held>,
    groups: BTreeMap<Box<str>, Group>,
    /// Filters without subscribers, in the order of the times when they are withdrawn.
    withdrawals: VecDeque<(Deadline, Box<str>)>,
    /// Which core has a subscription that matches a topic; empty with a single core.
    replica: Replica,
    bytes: usize,
}

/// How far a node has been told what the cores hold.
#[derive(Debug, Default)]
pub(super) struct Told {
    filter: Option<Box<str>>,
    group: Option<Box<str>>,
}

impl Interest {
    pub(super) fn new(cores: u16, seed: u64) -> Self {
        Self {
            cores,
            held: BTreeMap::new(),
            groups: BTreeMap::new(),
            withdrawals: VecDeque::new(),
            replica: Replica::new(seed),
            bytes: 0,
        }
    }

    /// A core has the first subscription to a filter.
    pub(super) fn announce<'a>(
        &mut self,
        from: CoreId,
        text: &str,
        now: Now,
        nodes: impl Iterator<Item = &'a mut Box<Node>>,
    ) {
        if self.cores > 1
            && let Ok(filter) = TopicFilter::parse(text, usize::MAX)
        {
            self.replica.announce(from.0, &filter);
        }
        match self.held.get_mut(text) {
            // All nodes know it.
            Some(held) => (held.cores, held.until) = (held.cores + 1, None),
            None => {
                self.bytes += entry_bytes(text);
                self.held.insert(text.into(), Held { cores: 1, until: None });
                nodes.for_each(|node| node.tell_filter(now, text));
            }
        }
    }

    /// A core has no subscription to a filter any more.
    pub(super) fn withdraw(&mut self, from: CoreId, text: &str, now: Now) {
        if self.cores > 1 {
            self.replica.withdraw(from.0, text);
        }
        let Some(held) = self.held.get_mut(text) else { return };
        held.cores = held.cores.saturating_sub(1);
        if held.cores == 0 && held.until.is_none() {
            let until = now.after(WITHDRAWAL_DELAY);
            held.until = Some(until);
            self.bytes += entry_bytes(text);
            self.withdrawals.push_back((until, text.into()));
        }
    }

    /// Withdraws the filters from all nodes that nobody has subscribed to again in time.
    pub(super) fn withdraw_due(&mut self, now: Now, nodes: &mut [Option<Box<Node>>]) {
        while let Some((at, text)) = self.withdrawals.pop_front_if(|(at, _)| at.is_due(now)) {
            self.bytes -= entry_bytes(&text);
            if self.held.get(&text).is_some_and(|held| held.until == Some(at)) {
                self.held.remove(&text);
                self.bytes -= entry_bytes(&text);
                nodes.iter_mut().flatten().for_each(|node| node.tell_withdrawal(now, &text));
            }
        }
    }

    pub(super) fn next_withdrawal(&self) -> Option<Deadline> {
        self.withdrawals.front().map(|&(at, _)| at)
    }

    /// Sets the members of a shared subscription on a core.
    pub(super) fn set_group<'a>(
        &mut self,
        text: &str,
        at: GroupAt,
        now: Now,
        nodes: impl Iterator<Item = &'a mut Box<Node>>,
    ) {
        if !self.groups.contains_key(text) {
            if at.members == 0 {
                return;
            }
            self.bytes += entry_bytes(text) + usize::from(self.cores) * size_of::<GroupAt>();
            self.groups.insert(text.into(), Group::default());
        }
        let Some(group) = self.groups.get_mut(text) else { return };
        group.at.retain(|other| other.core != at.core);
        if at.members > 0 {
            let place = group.at.partition_point(|other| other.core < at.core);
            group.at.insert(place, at);
        }
        let (online, members) = group.totals();
        if members == 0 {
            self.groups.remove(text);
            self.bytes -= entry_bytes(text) + usize::from(self.cores) * size_of::<GroupAt>();
        }
        nodes.for_each(|node| node.tell_group(now, text, online, members));
    }

    /// The core whose turn it is in a shared subscription, by connected members, or by members if none is connected.
    /// None if there is no member.
    pub(super) fn next_in_group(&mut self, text: &str) -> Option<CoreId> {
        let group = self.groups.get_mut(text)?;
        let (online, members) = group.totals();
        let weight = |at: &GroupAt| if online > 0 { at.online } else { at.members };
        let total = if online > 0 { online } else { members };
        group.turn += 1;
        let mut turn = group.turn % u64::from(total.max(1));
        group.at.iter().find_map(|at| match turn.checked_sub(weight(at).into()) {
            Some(rest) => {
                turn = rest;
                None
            }
            None => Some(CoreId(at.core)),
        })
    }

    /// Writes the cores with a subscription that matches `topic` into `matches`.
    pub(super) fn matches(&self, topic: &str, matches: &mut CoreMatches) {
        if self.cores == 1 {
            matches.cores.clear();
            matches.cores.push(0);
        } else {
            self.replica.matches(topic, matches);
        }
    }

    /// Tells a node the next filters and shared subscriptions; false when it has been told all.
    pub(super) fn tell_next(
        &self,
        told: &mut Told,
        count: usize,
        mut tell: impl FnMut(Entry<'_>),
    ) -> bool {
        let from = |last: &Option<Box<str>>| match last {
            Some(last) => Bound::Excluded(last.clone()),
            None => Bound::Unbounded,
        };
        let mut left = count;
        let filters = self.held.range((from(&told.filter), Bound::Unbounded));
        for (text, _) in filters.take(left) {
            tell(Entry::Filter(text));
            told.filter = Some(text.clone());
            left -= 1;
        }
        let groups = self.groups.range((from(&told.group), Bound::Unbounded));
        for (text, group) in groups.take(left) {
            let (online, members) = group.totals();
            tell(Entry::Group { text, online, members });
            told.group = Some(text.clone());
            left -= 1;
        }
        left == 0
    }

    pub(super) fn len(&self) -> usize {
        self.held.len() + self.groups.len()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.replica.heap_bytes()
    }
}

/// Something that the cores hold.
pub(super) enum Entry<'a> {
    Filter(&'a str),
    Group { text: &'a str, online: u32, members: u32 },
}

impl Group {
    fn totals(&self) -> (u32, u32) {
        let sum = |of: fn(&GroupAt) -> u32| self.at.iter().map(of).fold(0, u32::saturating_add);
        (sum(|at| at.online), sum(|at| at.members))
    }
}

fn entry_bytes(text: &str) -> usize {
    ENTRY_BYTES + heap(text.len())
}
