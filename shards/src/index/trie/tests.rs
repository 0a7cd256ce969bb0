//! Tests of the trie alone. The index tests compare it with the plain matcher.

use std::collections::BTreeSet;

use super::chains::{AT_ONCE, LEVELS_MIN};
use super::*;
use crate::hash::COLLIDING_SEED;
use crate::topic::filter_matches;
use proptest::prelude::*;

fn trie(filters: &[&str]) -> Trie {
    let mut trie = Trie::new(Hashing::new(3));
    for (n, filter) in filters.iter().enumerate() {
        let node = trie.make(filter);
        trie.node_mut(node).filter = Id::from_number(n as u32 + 1);
    }
    trie
}

fn found(trie: &Trie, topic: &str) -> Vec<u32> {
    let mut found = Vec::new();
    trie.matches(topic, &mut Walk::default(), |node| {
        found.extend(node.filter.map(|filter| filter.number()));
    });
    found.sort_unstable();
    found
}

#[test]
fn every_branch_is_visited() {
    let trie = trie(&["+/b/c", "a/+/c", "a/b/+", "a/b/#", "a/b/c/#", "+/+/+", "#", "a/+/d"]);
    assert_eq!(found(&trie, "a/b/c"), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(found(&trie, "a/b"), [4, 7]);
    assert_eq!(found(&trie, "x/b/c"), [1, 6, 7]);
    assert_eq!(found(&trie, "a"), [7]);
}

#[test]
fn a_walk_can_be_reused() {
    let trie = trie(&["a/+", "b/#"]);
    let mut walk = Walk::default();
    for topic in ["a/x", "b/x/y", "b", "a/x"] {
        let mut count = 0;
        trie.matches(topic, &mut walk, |node| count += u32::from(node.filter.is_some()));
        assert_eq!(count, 1, "{topic}");
    }
}

#[test]
fn a_walk_holds_at_most_one_branch_per_level() {
    let filters: Vec<String> = (0..1 << 8)
        .map(|bits| (0..8).map(|n| if bits >> n & 1 == 0 { "+/" } else { "a/" }).collect())
        .map(|path: String| path + "#")
        .collect();
    let trie = trie(&filters.iter().map(String::as_str).collect::<Vec<_>>());
    let mut walk = Walk::default();
    let mut count = 0;
    trie.matches("a/a/a/a/a/a/a/a", &mut walk, |node| {
        count += usize::from(node.filter.is_some());
    });
    assert_eq!(count, filters.len());
    assert!(walk.pending.capacity() <= 16);
}

#[test]
fn filter_texts_are_rebuilt_and_compared_from_the_path() {
    let filters = ["a/+/#", "/+", "#", "+//b", "a/+"];
    let trie = trie(&filters);
    for filter in filters {
        let node = trie.find(filter).expect("was made");
        let mut text = String::new();
        trie.write_text(node, &mut text);
        assert_eq!(text, filter);
        assert!(trie.is_text(node, filter));
        assert!(!trie.is_text(node, "a/#") && !trie.is_text(node, &format!("x/{filter}")));
        assert!(filter.split_once('/').is_none_or(|(_, end)| !trie.is_text(node, end)));
    }
    assert_eq!(trie.find("a/#"), None);
}

#[test]
fn pruning_removes_only_unused_nodes() {
    let mut trie = trie(&["a/b/+", "a/b/+/c/#", "a/+"]);
    let remove = |trie: &mut Trie, filter| {
        let node = trie.find(filter).expect("was made");
        trie.node_mut(node).filter = None;
        trie.prune(node);
    };
    remove(&mut trie, "a/b/+");
    assert_eq!(found(&trie, "a/b/x/c/d"), [2], "a node with children stays");
    remove(&mut trie, "a/b/+/c/#");
    assert_eq!((found(&trie, "a/x"), trie.counts()), (vec![3], (2, 1)));
    remove(&mut trie, "a/+");
    assert_eq!(trie.counts(), (0, 0));
    assert_eq!(found(&trie, "a/x"), []);
}

/// Levels for which long common runs are likely.
fn deep_filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "a", "a", "+", "+", "b", ""]);
    (prop::collection::vec(level, 1..24), any::<bool>()).prop_map(|(mut levels, is_open)| {
        levels.extend(is_open.then_some("#"));
        levels.join("/")
    })
}

/// Number of nodes, of chains, and of bytes of chain levels.
fn shape(trie: &Trie) -> (usize, usize, usize) {
    (trie.nodes.len(), trie.chains.len(), trie.chain_bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn removed_filters_leave_no_trace_in_the_shape(
        seed in prop_oneof![any::<u64>(), Just(COLLIDING_SEED)],
        changes in prop::collection::vec((deep_filter(), 0..40_usize), 1..60),
    ) {
        let mut trie = Trie::new(Hashing::new(seed));
        let mut filters = BTreeSet::new();
        for (filter, other) in changes {
            let node = trie.make(&filter);
            trie.node_mut(node).filter = Id::from_number(1);
            // Some begin like existing ones.
            filters.insert(filter);
            let gone = filters.iter().nth(other).cloned();
            if let Some(gone) = gone {
                filters.remove(&gone);
                let node = trie.find(&gone).expect("was made");
                trie.node_mut(node).filter = None;
                trie.prune(node);
            }
            let mut fresh = Trie::new(Hashing::new(seed));
            for filter in &filters {
                let node = fresh.make(filter);
                fresh.node_mut(node).filter = Id::from_number(1);
            }
            prop_assert_eq!(shape(&trie), shape(&fresh), "{:?}", filters);
            prop_assert!(trie.nodes.len() <= 1 + 2 * chains::LEVELS_MIN * filters.len());
            for filter in &filters {
                let (node, mut text) = (trie.find(filter).expect("is there"), String::new());
                trie.write_text(node, &mut text);
                prop_assert_eq!(&text, filter);
                prop_assert!(trie.is_text(node, filter));
            }
        }
    }

    #[test]
    fn deep_filters_agree_with_the_plain_matcher(
        filters in prop::collection::btree_set(deep_filter(), 1..40),
        topics in prop::collection::vec(deep_filter(), 1..20),
    ) {
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let trie = trie(&filters);
        for topic in topics.iter().map(|topic| topic.replace(['+', '#'], "c")) {
            let expected: Vec<u32> = (1..)
                .zip(&filters)
                .filter(|(_, filter)| filter_matches(filter, &topic))
                .map(|(n, _)| n)
                .collect();
            prop_assert_eq!(found(&trie, &topic), expected, "{}", topic);
        }
    }
}

/// As many filters as one client may have, as deep as allowed, all of which match one topic: in any
/// order of `a` and `+`, with long common runs that diverge late.
#[test]
fn a_walk_costs_a_few_steps_per_filter_at_any_depth() {
    const FILTERS: usize = 2_000;
    const LEVELS: usize = 128;
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    let mut filters: Vec<String> = (0..FILTERS / 2)
        .map(|_| (0..LEVELS).map(|_| if next() & 8 == 0 { "a" } else { "+" }).collect::<Vec<_>>())
        .map(|levels| levels.join("/"))
        .collect();
    filters.extend((0..FILTERS / 2).map(|n| {
        let level = |at: usize| if n >> (at % 10) & 1 == 0 { "a" } else { "+" };
        (0..LEVELS).map(level).collect::<Vec<_>>().join("/")
    }));
    filters.sort_unstable();
    filters.dedup();
    let trie = trie(&filters.iter().map(String::as_str).collect::<Vec<_>>());
    let mut walk = Walk::default();
    let mut matches = 0;
    trie.matches(&vec!["a"; LEVELS].join("/"), &mut walk, |_| matches += 1);
    assert_eq!(matches, filters.len());
    let each = walk.steps as usize / filters.len();
    assert!(each <= 2 * LEVELS_MIN + LEVELS / AT_ONCE, "{each} steps a filter");
}
