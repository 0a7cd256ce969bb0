//! The index as a whole, compared with a plain list of subscriptions.

use super::*;
use crate::arbitrary::{filter_text, topic};
use crate::hash::COLLIDING_SEED;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, 128).expect("well formed")
}

fn subscription(subscriber: u32) -> Subscription {
    let options = SubscriptionOptions::new(0, false, false);
    Subscription { subscriber: SubscriberId(subscriber), options, identifier: 0 }
}

/// An index in which subscriber n subscribed to the nth filter.
fn index(filters: &[&str]) -> SubscriptionIndex {
    let mut index = SubscriptionIndex::new(1);
    for (n, text) in filters.iter().enumerate() {
        assert!(index.subscribe(&filter(text), subscription(n as u32)).first);
    }
    index
}

fn matched(index: &SubscriptionIndex, topic: &str) -> Vec<u32> {
    let mut out = Matches::default();
    index.matches(topic, &mut out);
    let mut matched: Vec<_> = out.subscriptions.iter().map(|found| found.subscriber.0).collect();
    matched.sort_unstable();
    matched
}

fn shared(index: &SubscriptionIndex, topic: &str) -> Vec<String> {
    let mut out = Matches::default();
    index.matches(topic, &mut out);
    let mut shared: Vec<_> = out.shared.iter().map(|id| index.text(*id)).collect();
    shared.sort_unstable();
    shared
}

fn assert_vacated(index: &SubscriptionIndex) {
    assert_eq!((index.len(), index.filters(), index.is_empty()), (0, 0, true));
    assert_eq!(index.trie.counts(), (0, 0));
    assert!(index.exact.is_empty() && index.shared.is_vacated());
}

#[test]
fn exact_and_wildcard_filters_are_all_found() {
    let index = index(&["a/b", "a/+", "a/#", "#", "+/+", "a/b/#", "b/a", "a/b/+", "+/#"]);
    assert_eq!(matched(&index, "a/b"), [0, 1, 2, 3, 4, 5, 8]);
    assert_eq!(matched(&index, "a"), [2, 3, 8]);
    assert_eq!(matched(&index, "a/b/c"), [2, 3, 5, 7, 8]);
    assert_eq!(matched(&index, "x/y"), [3, 4, 8]);
}

#[test]
fn mqtt_4_7_2_1_leading_wildcard_does_not_match_dollar_topics() {
    let index = index(&["#", "+/a", "+/#", "$SYS/#", "$SYS/a", "$SYS/+", "$share/g/#"]);
    assert_eq!(matched(&index, "$SYS/a"), [3, 4, 5]);
    assert_eq!(matched(&index, "$SYS"), [3]);
    assert_eq!(shared(&index, "$SYS/a"), [""; 0]);
    assert_eq!(shared(&index, "SYS/a"), ["$share/g/#"]);
}

#[test]
fn empty_levels_are_levels() {
    let index = index(&["/", "//", "+/+", "/+", "+/", "+//+", "#", "/#"]);
    assert_eq!(matched(&index, "/"), [0, 2, 3, 4, 6, 7]);
    assert_eq!(matched(&index, "//"), [1, 5, 6, 7]);
    assert_eq!(matched(&index, "a//b"), [5, 6]);
}

#[test]
fn mqtt_3_8_4_3_identical_filter_replaces_the_subscription() {
    for text in ["a/b", "a/+", "$share/g/a", "$share/g/+"] {
        let mut index = SubscriptionIndex::new(1);
        let before = index.subscribe(&filter(text), subscription(7));
        let changed = Subscription { identifier: 3, ..subscription(7) };
        let after = index.subscribe(&filter(text), changed);
        assert_eq!((after.filter, after.first), (before.filter, false));
        assert_eq!(after.replaced, Some(subscription(7)));
        assert_eq!((index.len(), index.filters()), (1, 1));
        assert_eq!(index.get(after.filter, SubscriberId(7)), Some(changed));
    }
}

#[test]
fn the_same_filter_in_several_groups_is_found_in_each() {
    for text in ["a/b", "a/+"] {
        let groups: Vec<String> = (0..5).map(|n| format!("$share/g{n}/{text}")).collect();
        let mut index = index(&groups.iter().map(String::as_str).collect::<Vec<_>>());
        index.subscribe(&filter(text), subscription(9));
        assert_eq!(shared(&index, "a/b"), groups);
        assert_eq!(matched(&index, "a/b"), [9], "members of groups are not matched themselves");
        // The first, the last and one in the middle of the chain leave.
        for n in [4, 0, 2] {
            let id = index.find(&groups[n as usize]).expect("is there");
            assert!(index.unsubscribe(id, SubscriberId(n)).expect("is a member").last);
        }
        assert_eq!(shared(&index, "a/b"), [groups[1].clone(), groups[3].clone()]);
        let ids = [(groups[1].as_str(), 1), (groups[3].as_str(), 3), (text, 9)];
        for (text, subscriber) in ids {
            let id = index.find(text).expect("is there");
            index.unsubscribe(id, SubscriberId(subscriber)).expect("is a member");
        }
        assert_vacated(&index);
    }
}

#[test]
fn members_of_a_group_are_partitioned_by_presence() {
    let mut index = SubscriptionIndex::new(1);
    let new = |index: &mut SubscriptionIndex, n: u32| {
        let options = SubscriptionOptions::new(u8::from(n > 1), false, false);
        let member = Subscription { options, ..subscription(n) };
        index.subscribe(&filter("$share/g/a"), member).filter
    };
    let ids: Vec<_> = (0..5).map(|n| new(&mut index, n)).collect();
    let numbers = |members: &[Subscription]| -> Vec<u32> {
        members.iter().map(|member| member.subscriber.0).collect()
    };
    assert!(index.set_present(ids[0], SubscriberId(1), true));
    assert!(index.set_present(ids[0], SubscriberId(3), true));
    assert!(!index.set_present(ids[0], SubscriberId(9), true));
    index.unsubscribe(ids[0], SubscriberId(1));
    assert_eq!(numbers(index.present(ids[0])), [3]);
    assert!(index.is_present(ids[0], SubscriberId(3)));
    assert!(!index.is_present(ids[0], SubscriberId(2)));
    let mut waiting = numbers(index.waiting(ids[0]));
    waiting.sort_unstable();
    assert_eq!(waiting, [2, 4], "QoS 0 is not queued for absent members");
    let other = index.subscribe(&filter("a"), subscription(1)).filter;
    assert!(!index.set_present(other, SubscriberId(1), true), "not shared");
    assert_eq!(index.present(other), []);
}

#[test]
fn a_topic_that_looks_like_a_shared_filter_matches_no_shared_subscription() {
    let index = index(&["$share/g/a", "$share/g/+"]);
    assert_eq!((matched(&index, "$share/g/a"), shared(&index, "$share/g/a").len()), (vec![], 0));
}

#[test]
fn texts_that_no_filter_can_have_are_not_found() {
    let index = index(&["a/b", "a/+", "$share/g/a/b"]);
    for text in ["", "a", "a/", "a+", "a/#/b", "$share", "$share/", "$share/g", "$share//a/b", "+"]
    {
        assert_eq!(index.find(text), None, "{text}");
    }
}

#[test]
fn ids_of_removed_filters_find_nothing() {
    let mut index = index(&["a/b", "$share/g/+"]);
    for (text, subscriber) in [("a/b", SubscriberId(0)), ("$share/g/+", SubscriberId(1))] {
        let id = index.find(text).expect("is there");
        assert_eq!(index.unsubscribe(id, SubscriberId(5)), None);
        assert!(index.unsubscribe(id, subscriber).is_some());
        assert_eq!(index.unsubscribe(id, subscriber), None);
        assert_eq!((index.get(id, subscriber), index.members(id)), (None, &[][..]));
        assert_eq!(index.text(id), "");
    }
    for number in [0, 1 << 31, u32::MAX] {
        assert_eq!(index.members(FilterId(number)), []);
    }
}

#[test]
fn the_epoch_changes_exactly_when_matches_may_change() {
    let mut index = SubscriptionIndex::new(1);
    let mut epochs = vec![index.epoch()];
    let id = index.subscribe(&filter("a/+"), subscription(1)).filter;
    epochs.push(index.epoch());
    index.subscribe(&filter("a/+"), Subscription { identifier: 1, ..subscription(1) });
    epochs.push(index.epoch());
    index.subscribe(&filter("a/+"), subscription(2));
    epochs.push(index.epoch());
    index.unsubscribe(id, SubscriberId(1));
    epochs.push(index.epoch());
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    index.subscribe(&filter("a/+"), subscription(2));
    index.unsubscribe(id, SubscriberId(1));
    assert_eq!(epochs.last(), Some(&index.epoch()));
}

#[test]
fn a_hundred_thousand_filters_are_added_and_removed_without_leaks() {
    let mut index = SubscriptionIndex::new(1);
    let texts: Vec<String> = (0..100_000)
        .map(|n| match n % 5 {
            0 => format!("site/{}/device/{n}", n % 100),
            1 => format!("site/{}/device/{n}/+", n % 100),
            2 => format!("site/{}/device/{n}/#", n % 100),
            3 => format!("$share/g{}/site/+/device/{n}", n % 7),
            _ => format!("$share/g{}/site/device/{n}", n % 7),
        })
        .collect();
    for _ in 0..2 {
        let ids: Vec<_> = texts
            .iter()
            .map(|text| index.subscribe(&filter(text), subscription(1)).filter)
            .collect();
        assert_eq!((index.len(), index.filters()), (texts.len(), texts.len()));
        for (text, id) in texts.iter().zip(&ids) {
            assert_eq!(index.find(text), Some(*id));
            assert_eq!(index.text(*id), *text);
        }
        for id in ids {
            assert!(index.unsubscribe(id, SubscriberId(1)).expect("is there").last);
        }
        assert_vacated(&index);
    }
}

/// Levels with many collisions: texts, prefixes of texts, the empty level, and ones that begin with
/// `$`.
#[derive(Debug, Clone)]
enum Change {
    Subscribe(String, Subscription),
    /// The nth existing subscription.
    Unsubscribe(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let options = (0..3_u8, any::<bool>(), any::<bool>())
        .prop_map(|(qos, local, retain)| SubscriptionOptions::new(qos, local, retain));
    let subscription =
        (0..4_u32, options, 0..3_u32).prop_map(|(subscriber, options, identifier)| Subscription {
            subscriber: SubscriberId(subscriber),
            options,
            identifier,
        });
    prop_oneof![
        3 => (filter_text(), subscription).prop_map(|(text, new)| Change::Subscribe(text, new)),
        2 => any::<prop::sample::Index>().prop_map(Change::Unsubscribe),
    ]
}

type Model = BTreeMap<(String, SubscriberId), Subscription>;

/// Applies `change` to both and compares the results.
fn apply(index: &mut SubscriptionIndex, model: &mut Model, change: Change) {
    let has_text = |model: &Model, text: &str| model.keys().any(|(other, _)| other == text);
    match change {
        Change::Subscribe(text, new) => {
            let first = !has_text(model, &text);
            let done = index.subscribe(&filter(&text), new);
            let replaced = model.insert((text.clone(), new.subscriber), new);
            assert_eq!((done.first, done.replaced), (first, replaced));
            assert_eq!(index.find(&text), Some(done.filter));
            assert_eq!(index.text(done.filter), text);
        }
        Change::Unsubscribe(nth) if !model.is_empty() => {
            let (key, subscription) =
                nth.get(&model.clone().into_iter().collect::<Vec<_>>()).clone();
            model.remove(&key);
            let id = index.find(&key.0).expect("is there");
            let last = !has_text(model, &key.0);
            let done = index.unsubscribe(id, key.1);
            assert_eq!(done, Some(Unsubscribed { subscription, last }));
            assert_eq!(index.find(&key.0).is_none(), last);
        }
        Change::Unsubscribe(_) => {}
    }
}

/// Compares the matches of the index with those of the plain matcher.
fn compare(index: &SubscriptionIndex, model: &Model, topic: &str, out: &mut Matches) {
    index.matches(topic, out);
    let matching = model.iter().filter(|((text, _), _)| filter(text).matches(topic));
    let (shared, own): (Vec<_>, Vec<_>) =
        matching.partition(|((text, _), _)| filter(text).share_name().is_some());
    let sorted = |found: &mut dyn Iterator<Item = Subscription>| {
        let mut found: Vec<_> = found.collect();
        found.sort_unstable_by_key(|s| (s.subscriber, s.options, s.identifier));
        found
    };
    assert_eq!(
        sorted(&mut out.subscriptions.iter().copied()),
        sorted(&mut own.iter().map(|(_, subscription)| **subscription)),
        "{topic}"
    );
    let mut expected: Vec<_> = shared.iter().map(|((text, _), _)| text.clone()).collect();
    expected.dedup();
    let mut found: Vec<_> = out.shared.iter().map(|id| index.text(*id)).collect();
    found.sort_unstable();
    assert_eq!(found, expected, "{topic}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_the_plain_matcher(
        seed in prop_oneof![any::<u64>(), Just(COLLIDING_SEED)],
        changes in prop::collection::vec(change(), 1..80),
        topics in prop::collection::vec(topic(), 1..12),
    ) {
        let mut index = SubscriptionIndex::new(seed);
        let mut model = Model::new();
        let mut out = Matches::default();
        for (n, change) in changes.into_iter().enumerate() {
            apply(&mut index, &mut model, change);
            compare(&index, &model, &topics[n % topics.len()], &mut out);
        }
        assert_eq!(index.len(), model.len());
        for topic in &topics {
            compare(&index, &model, topic, &mut out);
        }
        for ((text, subscriber), subscription) in &model {
            let id = index.find(text).expect("is there");
            assert_eq!(index.get(id, *subscriber), Some(*subscription));
            assert!(index.unsubscribe(id, *subscriber).is_some());
        }
        assert_vacated(&index);
    }
}
