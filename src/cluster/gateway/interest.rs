//! What the cores of this process are subscribed to, as the other nodes are told.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use shards::interest::Class;
use shards::{CoreMatches, GroupAt, Replica, TopicFilter, heap};

use crate::base::clock::{Deadline, Now};
use crate::base::ids::CoreId;
use crate::cluster::gateway::node::Node;
use crate::cluster::limits::{WITHDRAWAL_DELAY, WITHDRAWALS_MAX};
use crate::engine::for_gateway::home_of;

/// Estimated memory of an entry of a map, without its text.
const ENTRY_BYTES: usize = 48;

/// A filter that is not shared.
#[derive(Debug)]
struct Held {
    /// By class, the number of cores of whose subscribers it is the highest.
    cores: [u16; 3],
    /// What the nodes were told.
    announced: Announced,
    /// When it is withdrawn, or its class lowered, if the cores need no more then; a filter waits once, however often its
    /// subscribers change.
    until: Option<Deadline>,
    /// Whether it is in the line of withdrawals.
    waits: bool,
}

/// What the nodes were told of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) class: Class,
    /// The number of the announcement: a node that was told the filters in their order meanwhile knows later ones too.
    number: u64,
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
    /// Number of announcements so far.
    announcements: u64,
    bytes: usize,
}

/// How far a node has been told what the cores hold.
#[derive(Debug)]
pub(super) struct Told {
    /// The number of the last announcement before: later ones were told when they were made.
    since: u64,
    filter: Option<Box<str>>,
    group: Option<Box<str>>,
}

impl Told {
    /// Whether the node knows a filter that was announced so.
    pub(super) fn has(&self, filter: &str, announced: Announced) -> bool {
        announced.number > self.since || self.filter.as_deref().is_some_and(|last| filter <= last)
    }
}

impl Interest {
    pub(super) fn new(cores: u16, seed: u64) -> Self {
        Self {
            cores,
            held: BTreeMap::new(),
            groups: BTreeMap::new(),
            withdrawals: VecDeque::new(),
            replica: Replica::new(seed),
            announcements: 0,
            bytes: 0,
        }
    }

    /// A node has been told nothing yet.
    pub(super) fn nothing_told(&self) -> Told {
        Told { since: self.announcements, filter: None, group: None }
    }

    /// The highest class of a core's subscriptions to a filter was `before` and is `class`; none is no subscription.
    pub(super) fn set_class<'a>(
        &mut self,
        from: CoreId,
        text: &str,
        (before, class): (Option<Class>, Option<Class>),
        now: Now,
        nodes: impl Iterator<Item = &'a mut Box<Node>>,
    ) {
        self.note_core(from, text, before.is_some(), class.is_some());
        let Some(held) = self.held.get_mut(text) else {
            if let Some(class) = class {
                self.begin(text, class, now, nodes);
            }
            return;
        };
        let needed = held.needed();
        if let Some(before) = before {
            let cores = &mut held.cores[before as usize];
            *cores = cores.saturating_sub(1);
        }
        if let Some(class) = class {
            held.cores[class as usize] += 1;
        }
        let before = held.announced;
        match held.needed() {
            Some(class) if class > before.class => {
                held.until = None;
                self.change(text, before, class, now, nodes);
            }
            Some(class) if class == before.class => held.until = None,
            now_needed if now_needed != needed || held.until.is_none() => {
                let until = now.after(WITHDRAWAL_DELAY);
                held.until = Some(until);
                if !std::mem::replace(&mut held.waits, true) {
                    self.wait(until, text.into());
                }
            }
            _ => {}
        }
    }

    /// Notes which core has a filter, where there are several.
    fn note_core(&mut self, from: CoreId, text: &str, had: bool, has: bool) {
        if self.cores == 1 || had == has {
            return;
        }
        match TopicFilter::parse(text, usize::MAX) {
            Ok(filter) if has => self.replica.announce(from.0, &filter),
            _ => self.replica.withdraw(from.0, text),
        }
    }

    /// The first subscription to a filter.
    fn begin<'a>(
        &mut self,
        text: &str,
        class: Class,
        now: Now,
        nodes: impl Iterator<Item = &'a mut Box<Node>>,
    ) {
        let announced = self.announced(class);
        let mut held = Held { cores: [0; 3], announced, until: None, waits: false };
        held.cores[class as usize] = 1;
        self.bytes += entry_bytes(text);
        self.held.insert(text.into(), held);
        nodes.for_each(|node| node.tell_class(now, text, None, class));
    }

    /// A filter has another class from now on.
    fn change<'a>(
        &mut self,
        text: &str,
        before: Announced,
        class: Class,
        now: Now,
        nodes: impl Iterator<Item = &'a mut Box<Node>>,
    ) {
        let announced = self.announced(class);
        nodes.for_each(|node| node.tell_class(now, text, Some(before), class));
        if let Some(held) = self.held.get_mut(text) {
            held.announced = announced;
        }
    }

    /// Tells the nodes that the cores need less of a filter than was announced, or nothing.
    fn give_up(&mut self, now: Now, text: &str, nodes: &mut [Option<Box<Node>>]) {
        let Some(held) = self.held.get(text) else { return };
        let (before, nodes) = (held.announced, nodes.iter_mut().flatten());
        match held.needed() {
            Some(class) => self.change(text, before, class, now, nodes),
            None => {
                self.held.remove(text);
                self.bytes -= entry_bytes(text);
                nodes.for_each(|node| node.tell_withdrawal(now, text, before));
            }
        }
    }

    /// The next announcement of a filter.
    fn announced(&mut self, class: Class) -> Announced {
        self.announcements += 1;
        Announced { class, number: self.announcements }
    }

    fn wait(&mut self, until: Deadline, text: Box<str>) {
        self.bytes += entry_bytes(&text);
        self.withdrawals.push_back((until, text));
    }

    /// Withdraws the filters from all nodes that nobody has subscribed to again in time, or lowers their class, and the oldest
    /// of too many.
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
                    (held.until, held.waits) = (None, false);
                    self.give_up(now, &text, nodes);
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
        for (text, held) in filters.take(left) {
            // It was told when it was announced.
            if held.announced.number <= told.since {
                tell(Entry::Filter(text, held.announced.class));
            }
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

    /// For tests: the class that a filter is announced with.
    #[cfg(test)]
    pub(super) fn announced_class(&self, filter: &str) -> Option<Class> {
        Some(self.held.get(filter)?.announced.class)
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
    Filter(&'a str, Class),
    Group { text: &'a str, online: u32, members: u32 },
}

impl Held {
    /// The class that the cores need; none when they have no subscriber.
    fn needed(&self) -> Option<Class> {
        Class::ALL.into_iter().rfind(|&class| self.cores[class as usize] > 0)
    }
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

    /// A core has the first subscription to a filter.
    fn announce(interest: &mut Interest, core: u16, text: &str, now: Now) {
        let class = (None, Some(Class::Acknowledged));
        interest.set_class(CoreId(core), text, class, now, nobody());
    }

    /// A core has no subscription to a filter any more.
    fn withdraw(interest: &mut Interest, core: u16, text: &str, now: Now) {
        let class = (Some(Class::Acknowledged), None);
        interest.set_class(CoreId(core), text, class, now, nobody());
    }

    fn nobody() -> std::iter::Empty<&'static mut Box<Node>> {
        std::iter::empty()
    }

    #[test]
    fn a_client_that_subscribes_and_leaves_again_and_again_makes_a_filter_wait_once() {
        let mut interest = interest();
        let after_first = {
            announce(&mut interest, 0, "a", Now(0));
            withdraw(&mut interest, 0, "a", Now(0));
            interest.bytes
        };
        for time in 1..10_000 {
            announce(&mut interest, 0, "a", Now(time));
            withdraw(&mut interest, 0, "a", Now(time));
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
        announce(&mut interest, 0, "a", Now(0));
        withdraw(&mut interest, 0, "a", Now(0));
        announce(&mut interest, 1, "a", Now(1));
        interest.withdraw_due(Now(60_000_000), &mut []);
        assert_eq!((interest.len(), interest.withdrawals.len()), (1, 0));
        withdraw(&mut interest, 1, "a", Now(60_000_000));
        interest.withdraw_due(Now(90_000_000), &mut []);
        assert_eq!((interest.len(), interest.bytes), (0, 0));
    }

    #[test]
    fn a_class_rises_at_once_and_sinks_ten_seconds_after_the_last_that_needed_it() {
        let mut interest = interest();
        let class = |interest: &Interest| interest.held["a"].announced.class;
        let set = |interest: &mut Interest, core: u16, of, now| {
            interest.set_class(CoreId(core), "a", of, now, nobody());
        };
        set(&mut interest, 0, (None, Some(Class::AtMostOnce)), Now(0));
        assert_eq!(class(&interest), Class::AtMostOnce);
        set(&mut interest, 1, (None, Some(Class::Stored)), Now(0));
        assert_eq!(class(&interest), Class::Stored);
        set(&mut interest, 0, (Some(Class::AtMostOnce), Some(Class::Acknowledged)), Now(0));
        set(&mut interest, 1, (Some(Class::Stored), None), Now(1_000_000));
        interest.withdraw_due(Now(10_900_000), &mut []);
        assert_eq!(class(&interest), Class::Stored);
        interest.withdraw_due(Now(11_000_000), &mut []);
        assert_eq!(class(&interest), Class::Acknowledged);
        // It rises again meanwhile.
        set(&mut interest, 0, (Some(Class::Acknowledged), None), Now(20_000_000));
        set(&mut interest, 1, (None, Some(Class::Stored)), Now(21_000_000));
        interest.withdraw_due(Now(60_000_000), &mut []);
        assert_eq!((class(&interest), interest.withdrawals.len()), (Class::Stored, 0));
        set(&mut interest, 1, (Some(Class::Stored), None), Now(60_000_000));
        interest.withdraw_due(Now(90_000_000), &mut []);
        assert_eq!((interest.len(), interest.bytes), (0, 0));
    }

    #[test]
    fn a_node_that_is_being_told_the_filters_is_told_each_once() {
        let mut interest = interest();
        ["b", "d"].into_iter().for_each(|text| announce(&mut interest, 0, text, Now(0)));
        let mut told = interest.nothing_told();
        let mut heard = Vec::new();
        let mut tell = |interest: &Interest, told: &mut Told, count| {
            interest.tell_next(told, count, |entry| {
                if let Entry::Filter(text, _) = entry {
                    heard.push(text.to_owned());
                }
            })
        };
        assert!(tell(&interest, &mut told, 1));
        // These are told when they are announced; the one that changes is known or not.
        ["a", "c", "e"].into_iter().for_each(|text| announce(&mut interest, 0, text, Now(0)));
        let is_known = |text: &str| told.has(text, interest.held[text].announced);
        assert_eq!(["a", "b", "c", "d", "e"].map(is_known), [true, true, true, false, true]);
        while tell(&interest, &mut told, 1) {}
        assert_eq!(heard, ["b", "d"]);
    }

    #[test]
    fn filters_that_wait_to_be_withdrawn_are_bounded() {
        let mut interest = interest();
        for number in 0..WITHDRAWALS_MAX + 1_000 {
            let text = number.to_string();
            announce(&mut interest, 0, &text, Now(0));
            withdraw(&mut interest, 0, &text, Now(0));
        }
        interest.withdraw_due(Now(0), &mut []);
        assert_eq!(
            (interest.len(), interest.withdrawals.len()),
            (WITHDRAWALS_MAX, WITHDRAWALS_MAX)
        );
        assert!(!interest.held.contains_key("0"), "the oldest go first");
    }
}
