//! What the cores of this process are subscribed to, as the other nodes are told.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use shards::{CoreMatches, GroupAt, Replica, TopicFilter, heap};

use crate::base::clock::{Deadline, Now};
use crate::base::ids::CoreId;
use crate::cluster::gateway::node::Node;
use crate::cluster::limits::{WITHDRAWAL_DELAY, WITHDRAWALS_MAX};
use crate::engine::for_gateway::home_of;

/// Estimated memory of an entry of a map, without its text.
const ENTRY_BYTES: usize = 48;

/// A filter that is not shared.
#[derive(Debug, Default)]
struct Held {
    /// Number of cores with subscribers.
    cores: u16,
    /// When it is withdrawn, if there are none then; a filter waits once, however often its subscribers change.
    until: Option<Deadline>,
    /// Whether it is in the line of withdrawals.
    waits: bool,
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
    /// Filters that had no subscribers at some time, in the order of the times when they may be withdrawn.
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
                self.held.insert(text.into(), Held { cores: 1, ..Held::default() });
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
        if held.cores == 0 {
            let until = now.after(WITHDRAWAL_DELAY);
            held.until = Some(until);
            if !std::mem::replace(&mut held.waits, true) {
                self.wait(until, text.into());
            }
        }
    }

    fn wait(&mut self, until: Deadline, text: Box<str>) {
        self.bytes += entry_bytes(&text);
        self.withdrawals.push_back((until, text));
    }

    /// Withdraws the filters from all nodes that nobody has subscribed to again in time, and the oldest of too many.
    pub(super) fn withdraw_due(&mut self, now: Now, nodes: &mut [Option<Box<Node>>]) {
        loop {
            let is_full = self.withdrawals.len() > WITHDRAWALS_MAX;
            let next = self.withdrawals.pop_front_if(|(at, _)| is_full || at.is_due(now));
            let Some((_, text)) = next else { return };
            self.bytes -= entry_bytes(&text);
            let Some(held) = self.held.get_mut(&text) else { continue };
            match held.until {
                // It was subscribed to and left again meanwhile.
                Some(until) if !is_full && !until.is_due(now) => self.wait(until, text),
                Some(_) => {
                    self.held.remove(&text);
                    self.bytes -= entry_bytes(&text);
                    nodes.iter_mut().flatten().for_each(|node| node.tell_withdrawal(now, &text));
                }
                None => held.waits = false,
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

    /// The home core of a Client Identifier.
    pub(super) fn home(&self, client_identifier: &str) -> CoreId {
        home_of(self.replica.fingerprint(client_identifier), self.cores)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn interest() -> Interest {
        Interest::new(2, 7)
    }

    fn nobody() -> std::iter::Empty<&'static mut Box<Node>> {
        std::iter::empty()
    }

    #[test]
    fn a_client_that_subscribes_and_leaves_again_and_again_makes_a_filter_wait_once() {
        let mut interest = interest();
        let after_first = {
            interest.announce(CoreId(0), "a", Now(0), nobody());
            interest.withdraw(CoreId(0), "a", Now(0));
            interest.bytes
        };
        for time in 1..10_000 {
            interest.announce(CoreId(0), "a", Now(time), nobody());
            interest.withdraw(CoreId(0), "a", Now(time));
        }
        assert_eq!((interest.withdrawals.len(), interest.bytes), (1, after_first));
        // It goes ten seconds after the last one has left, and not before.
        let due = |time: u64| Now(time + WITHDRAWAL_DELAY.as_micros() as u64);
        interest.withdraw_due(due(9_998), &mut []);
        assert_eq!(interest.len(), 1);
        interest.withdraw_due(due(9_999), &mut []);
        assert_eq!((interest.len(), interest.withdrawals.len(), interest.bytes), (0, 0, 0));
    }

    #[test]
    fn a_filter_that_is_subscribed_to_again_stays() {
        let mut interest = interest();
        interest.announce(CoreId(0), "a", Now(0), nobody());
        interest.withdraw(CoreId(0), "a", Now(0));
        interest.announce(CoreId(1), "a", Now(1), nobody());
        interest.withdraw_due(Now(60_000_000), &mut []);
        assert_eq!((interest.len(), interest.withdrawals.len()), (1, 0));
        interest.withdraw(CoreId(1), "a", Now(60_000_000));
        interest.withdraw_due(Now(90_000_000), &mut []);
        assert_eq!((interest.len(), interest.bytes), (0, 0));
    }

    #[test]
    fn filters_that_wait_to_be_withdrawn_are_bounded() {
        let mut interest = interest();
        for number in 0..WITHDRAWALS_MAX + 1_000 {
            let text = number.to_string();
            interest.announce(CoreId(0), &text, Now(0), nobody());
            interest.withdraw(CoreId(0), &text, Now(0));
        }
        interest.withdraw_due(Now(0), &mut []);
        assert_eq!(
            (interest.len(), interest.withdrawals.len()),
            (WITHDRAWALS_MAX, WITHDRAWALS_MAX)
        );
        assert!(!interest.held.contains_key("0"), "the oldest go first");
    }
}
