//! The replica compared with a plain list of announcements per core.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{filter_text, topic};
use crate::hash::COLLIDING_SEED;

const CORES: u16 = 4;

#[derive(Debug, Clone)]
enum Change {
    /// A core has its first subscriber to a filter, or, for a shared one, these members.
    Announce(u16, String, u32, u32),
    /// The nth announcement is withdrawn.
    Withdraw(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let announce =
        (0..CORES, filter_text(), 1..4_u32, 0..4_u32).prop_map(|(core, text, members, online)| {
            Change::Announce(core, text, members, online.min(members))
        });
    prop_oneof![3 => announce, 2 => any::<prop::sample::Index>().prop_map(Change::Withdraw)]
}

/// By filter and core: members, and how many of them are connected.
type Model = BTreeMap<(String, u16), (u32, u32)>;

fn parsed(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, 128).expect("well formed")
}

/// Reports the state of a core like its engine.
fn set(replica: &mut Replica, text: &str, core: u16, now: Option<(u32, u32)>) {
    let filter = parsed(text);
    match (filter.share_name(), filter.has_wildcard(), now) {
        (Some(_), _, now) => {
            let (members, online) = now.unwrap_or_default();
            replica.set_group(&filter, GroupAt { core, online, members });
        }
        (None, true, Some(_)) => replica.announce_wildcard(core, &filter),
        (None, true, None) => replica.withdraw_wildcard(core, text),
        (None, false, Some(_)) => replica.announce_exact(core, replica.fingerprint(text)),
        (None, false, None) => replica.withdraw_exact(core, replica.fingerprint(text)),
    }
}

fn apply(replica: &mut Replica, model: &mut Model, change: Change) {
    match change {
        Change::Announce(core, text, members, online) => {
            let is_shared = parsed(&text).share_name().is_some();
            let before = model.insert((text.clone(), core), (members, online));
            // A filter is announced when it is added; a group whenever it changes.
            if before.is_none() || is_shared {
                set(replica, &text, core, Some((members, online)));
            }
        }
        Change::Withdraw(nth) if !model.is_empty() => {
            let (text, core) = nth.get(&model.keys().cloned().collect::<Vec<_>>()).clone();
            model.remove(&(text.clone(), core));
            set(replica, &text, core, None);
        }
        Change::Withdraw(_) => {}
    }
}

/// Compares with the plain matcher; more cores are allowed only where fingerprints collide.
fn compare(replica: &Replica, model: &Model, topic: &str, may_collide: bool) {
    let mut out = CoreMatches::default();
    replica.matches(topic, &mut out);
    let matching = || model.iter().filter(|((text, _), _)| parsed(text).matches(topic));
    let is_shared = |text: &str| parsed(text).share_name().is_some();
    let cores: BTreeSet<u16> =
        matching().filter(|((text, _), _)| !is_shared(text)).map(|((_, core), _)| *core).collect();
    let found: BTreeSet<u16> = out.cores.iter().copied().collect();
    assert!(out.cores.is_sorted() && found.len() == out.cores.len(), "each once, ascending");
    match may_collide {
        true => assert!(found.is_superset(&cores), "{topic}: {found:?} are not all of {cores:?}"),
        false => assert_eq!(found, cores, "{topic}"),
    }
    let mut groups: BTreeMap<String, Vec<GroupAt>> = BTreeMap::new();
    for ((text, core), &(members, online)) in matching().filter(|((text, _), _)| is_shared(text)) {
        groups.entry(text.clone()).or_default().push(GroupAt { core: *core, online, members });
    }
    let found: BTreeMap<String, Vec<GroupAt>> = out
        .groups
        .iter()
        .map(|&group| (replica.text(group), replica.members(group).to_vec()))
        .collect();
    assert_eq!(found, groups, "{topic}");
    assert_eq!(out.groups.len(), groups.len(), "each group once");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_replica_names_the_cores_with_a_subscription(
        seed in prop_oneof![any::<u64>(), Just(COLLIDING_SEED)],
        changes in prop::collection::vec(change(), 1..80),
        topics in prop::collection::vec(topic(), 1..12),
    ) {
        let mut replica = Replica::new(seed);
        let mut model = Model::new();
        let may_collide = seed == COLLIDING_SEED;
        for (n, change) in changes.into_iter().enumerate() {
            apply(&mut replica, &mut model, change);
            compare(&replica, &model, &topics[n % topics.len()], may_collide);
        }
        assert_eq!(replica.len(), model.len());
        for (text, core) in model.keys() {
            set(&mut replica, text, *core, None);
        }
        assert!(replica.is_empty() && replica.groups.is_empty());
        for topic in &topics {
            compare(&replica, &Model::new(), topic, false);
        }
    }
}

#[test]
fn filters_with_equal_fingerprints_stay_until_each_is_withdrawn() {
    let mut replica = Replica::new(1);
    let fingerprint = replica.fingerprint("a");
    replica.announce_exact(2, fingerprint);
    replica.announce_exact(2, fingerprint);
    replica.withdraw_exact(2, fingerprint);
    let mut out = CoreMatches::default();
    replica.matches("a", &mut out);
    assert_eq!(out.cores, [2]);
    replica.withdraw_exact(2, fingerprint);
    replica.matches("a", &mut out);
    assert!(out.cores.is_empty());
}

#[test]
fn the_epoch_changes_with_every_change_of_matches() {
    let mut replica = Replica::new(1);
    let mut epochs = BTreeSet::from([replica.epoch()]);
    let fingerprint = replica.fingerprint("a");
    replica.announce_exact(1, fingerprint);
    assert!(epochs.insert(replica.epoch()));
    replica.announce_wildcard(1, &parsed("a/+"));
    assert!(epochs.insert(replica.epoch()));
    replica.set_group(&parsed("$share/g/a"), GroupAt { core: 1, online: 1, members: 1 });
    assert!(epochs.insert(replica.epoch()));
    replica.withdraw_exact(1, fingerprint);
    assert!(epochs.insert(replica.epoch()));
    replica.withdraw_wildcard(1, "a/+");
    assert!(epochs.insert(replica.epoch()));
    replica.set_group(&parsed("$share/g/a"), GroupAt { core: 1, online: 0, members: 0 });
    assert!(epochs.insert(replica.epoch()));
}

#[test]
fn withdrawing_an_unannounced_filter_has_no_effect() {
    let mut replica = Replica::new(1);
    replica.announce_wildcard(1, &parsed("a/+"));
    replica.withdraw_exact(1, replica.fingerprint("a"));
    replica.withdraw_wildcard(2, "a/+");
    replica.withdraw_wildcard(1, "b/+");
    replica.set_group(&parsed("$share/g/a"), GroupAt { core: 1, online: 0, members: 0 });
    assert_eq!(replica.len(), 1);
}
