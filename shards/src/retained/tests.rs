//! The retained index as a whole, compared with an ordered map and the plain matcher.

use super::*;
use crate::hash::COLLIDING_SEED;
use crate::topic::filter_matches;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn index(topics: &[&str]) -> RetainedIndex<u32> {
    let mut index = RetainedIndex::new(1);
    for (n, topic) in topics.iter().enumerate() {
        assert_eq!(index.insert(topic, n as u32), None);
    }
    index
}

/// All topics that match `filter`, in order.
fn scanned(index: &RetainedIndex<u32>, filter: &str) -> Vec<String> {
    let mut found = Vec::new();
    let state = index.scan(filter, &mut Cursor::default(), usize::MAX, &mut |topic, value| {
        assert_eq!(index.get(topic), Some(value));
        found.push(topic.to_owned());
        ScanStep::Next
    });
    assert_eq!(state, ScanState::Done);
    found
}

fn assert_vacated<T>(index: &RetainedIndex<T>) {
    assert_eq!((index.len(), index.nodes.len(), index.levels.len()), (0, 1, 0));
    assert!(index.by_level.is_empty() && index.nodes[index.root].children.is_empty());
}

#[test]
fn a_scan_visits_matching_topics_in_order_for_every_kind_of_filter() {
    let index = index(&["b", "a/b", "a", "a/b/c", "a/c", "a!", "/a", "/", "x/b/c", "a/b/d"]);
    assert_eq!(scanned(&index, "a/b"), ["a/b"]);
    assert_eq!(scanned(&index, "a/x"), [""; 0]);
    assert_eq!(scanned(&index, "+"), ["a", "a!", "b"]);
    assert_eq!(scanned(&index, "a/+"), ["a/b", "a/c"]);
    assert_eq!(scanned(&index, "a/#"), ["a", "a/b", "a/b/c", "a/b/d", "a/c"]);
    assert_eq!(scanned(&index, "+/b/+"), ["a/b/c", "a/b/d", "x/b/c"]);
    assert_eq!(scanned(&index, "+/b/#"), ["a/b", "a/b/c", "a/b/d", "x/b/c"]);
    assert_eq!(scanned(&index, "+/+/c"), ["a/b/c", "x/b/c"]);
    assert_eq!(scanned(&index, "/+"), ["/", "/a"]);
    let all = ["/", "/a", "a", "a/b", "a/b/c", "a/b/d", "a/c", "a!", "b", "x/b/c"];
    assert_eq!(scanned(&index, "#"), all, "a topic comes before those below it");
}

#[test]
fn mqtt_4_7_2_1_leading_wildcard_does_not_match_dollar_topics() {
    let index = index(&["$SYS", "$SYS/a", "a", "a/$b", "$"]);
    assert_eq!(scanned(&index, "#"), ["a", "a/$b"]);
    assert_eq!(scanned(&index, "+"), ["a"]);
    assert_eq!(scanned(&index, "+/#"), ["a", "a/$b"]);
    assert_eq!(scanned(&index, "+/a"), [""; 0]);
    assert_eq!(scanned(&index, "$SYS/#"), ["$SYS", "$SYS/a"]);
    assert_eq!(scanned(&index, "$SYS/+"), ["$SYS/a"]);
    assert_eq!(scanned(&index, "a/+"), ["a/$b"]);
}

#[test]
fn values_are_replaced_and_removed() {
    let mut index = index(&["a/b"]);
    assert_eq!(index.insert("a/b", 7), Some(0));
    assert_eq!((index.len(), index.get("a/b"), index.get("a")), (1, Some(&7), None));
    for absent in ["a", "a/b/c", "b", ""] {
        assert_eq!(index.remove(absent), None, "{absent}");
    }
    assert_eq!(index.remove("a/b"), Some(7));
    assert_vacated(&index);
}

#[test]
fn a_topic_with_children_can_be_removed_and_inserted() {
    let mut index = index(&["a/b", "a", "a/b/c"]);
    assert_eq!(index.remove("a/b"), Some(0));
    assert_eq!(scanned(&index, "#"), ["a", "a/b/c"]);
    assert_eq!(index.insert("a/b", 5), None);
    assert_eq!(scanned(&index, "#"), ["a", "a/b", "a/b/c"]);
}

#[test]
fn a_refused_entry_is_the_next_one_offered() {
    let index = index(&["a/b", "c", "a/c"]);
    for filter in ["#", "a/c", "+/c"] {
        let mut cursor = Cursor::default();
        let refuse = &mut |topic: &str, _: &u32| match topic {
            "a/c" => ScanStep::StopBefore,
            _ => ScanStep::Next,
        };
        assert_eq!(index.scan(filter, &mut cursor, 100, refuse), ScanState::More);
        assert_eq!(index.scan(filter, &mut cursor, 100, refuse), ScanState::More);
        let mut first = None;
        let state = index.scan(filter, &mut cursor, 100, &mut |topic, _| {
            first.get_or_insert(topic.to_owned());
            ScanStep::Next
        });
        assert_eq!((first.as_deref(), state), (Some("a/c"), ScanState::Done), "{filter}");
    }
}

#[test]
fn a_finished_scan_stays_finished() {
    let mut index = index(&["a"]);
    let mut cursor = Cursor::default();
    for round in 0..2 {
        let mut visits = 0;
        let state = index.scan("#", &mut cursor, 100, &mut |_, _| {
            visits += 1;
            ScanStep::Next
        });
        assert_eq!((state, visits), (ScanState::Done, 1 - round));
        index.insert("z", 1);
    }
}

#[test]
fn a_scan_stops_at_its_step_limit() {
    let topics: Vec<String> = (0..1000).map(|n| format!("site/{n}/temperature")).collect();
    let index = index(&topics.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut cursor, mut calls, mut visits) = (Cursor::default(), 0, 0);
    loop {
        let mut visited = 0;
        let state = index.scan("site/+/#", &mut cursor, 10, &mut |_, _| {
            visited += 1;
            ScanStep::Next
        });
        assert!(visited <= 10);
        (calls, visits) = (calls + 1, visits + visited);
        if state == ScanState::Done {
            break;
        }
    }
    assert_eq!((calls, visits), (2001_usize.div_ceil(10), 1000));
}

#[test]
fn a_scan_with_a_step_limit_of_zero_still_progresses() {
    let index = index(&["a/b", "a/c"]);
    let mut cursor = Cursor::default();
    let calls = (1..10)
        .find(|_| index.scan("#", &mut cursor, 0, &mut |_, _| ScanStep::Next) == ScanState::Done);
    assert_eq!(calls, Some(3));
}

#[test]
fn a_scan_skips_subtrees_that_do_not_match() {
    let mut index = RetainedIndex::new(1);
    for n in 0..100_000 {
        index.insert(&format!("site/{}/device/{n}/state", n % 100), n);
    }
    let walked = |filter: &str, steps_max| {
        let mut visits = 0;
        let state = index.scan(filter, &mut Cursor::default(), steps_max, &mut |_, _| {
            visits += 1;
            ScanStep::Next
        });
        (state, visits)
    };
    assert_eq!(walked("site/7/device/107/#", 5), (ScanState::Done, 1));
    assert_eq!(walked("+/7/+/107/+", 5), (ScanState::Done, 1));
    assert_eq!(walked("site/+/device/107/state", 1 + 100 + 100 + 2), (ScanState::Done, 1));
    assert_eq!(walked("site/7/device/+/state", 3 + 2 * 1000), (ScanState::Done, 1000));
    assert_eq!(walked("site/7/device/+/absent", 3 + 1000), (ScanState::Done, 0));
}

#[test]
fn a_hundred_thousand_topics_are_added_and_removed_without_leaks() {
    let topics: Vec<String> =
        (0..100_000).map(|n| format!("{}/{}/{n}", n * 7 % 13, n * 31 % 977)).collect();
    let mut index = RetainedIndex::new(1);
    for _ in 0..2 {
        for (n, topic) in topics.iter().enumerate() {
            assert_eq!(index.insert(topic, n), None);
        }
        assert_eq!(index.len(), topics.len());
        for (n, topic) in topics.iter().enumerate() {
            assert_eq!(index.remove(topic), Some(n));
        }
        assert_vacated(&index);
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "b",
        "ab",
        "",
        "$a",
        "!",
        "é",
        "a long level, not kept in place",
    ])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a Topic Name has a character", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![1 => level(), 1 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            levels.extend(hash.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a Topic Filter has a character", |filter| !filter.is_empty())
}

/// One step of a test: a call of scan with its bounds, followed by changes.
#[derive(Debug, Clone)]
struct Turn {
    steps_max: usize,
    visits_max: usize,
    changes: Vec<(String, bool)>,
}

fn turn() -> impl Strategy<Value = Turn> {
    let changes = prop::collection::vec((topic(), any::<bool>()), 0..4);
    (0..12_usize, 0..4_usize, changes).prop_map(|(steps_max, visits_max, changes)| Turn {
        steps_max,
        visits_max,
        changes,
    })
}

/// A scan over an index that changes between the calls, with the expected results.
struct Scanned {
    index: RetainedIndex<u32>,
    model: BTreeMap<String, u32>,
    /// Topics that were there all along.
    stayed: BTreeSet<String>,
    visited: Vec<String>,
    refused: Option<String>,
    cursor: Cursor,
}

impl Scanned {
    fn new(seed: u64, topics: &BTreeSet<String>) -> Self {
        let mut index = RetainedIndex::new(seed);
        let model: BTreeMap<_, _> = topics.iter().cloned().zip(0..).collect();
        for (topic, value) in &model {
            index.insert(topic, *value);
        }
        let (stayed, cursor) = (topics.clone(), Cursor::default());
        Self { index, model, stayed, visited: Vec::new(), refused: None, cursor }
    }

    fn scan(&mut self, filter: &str, turn: &Turn) -> ScanState {
        let Self { index, model, visited, refused, cursor, .. } = self;
        let mut left = turn.visits_max;
        let mut expected = refused.take().filter(|topic| model.contains_key(topic));
        index.scan(filter, cursor, turn.steps_max, &mut |topic, value| {
            assert_eq!(model.get(topic), Some(value));
            if let Some(expected) = expected.take() {
                // The cursor has passed topics that were inserted in the meantime before its
                // position.
                assert_eq!(topic, expected);
            }
            if left == 0 {
                *refused = Some(topic.to_owned());
                return ScanStep::StopBefore;
            }
            left -= 1;
            visited.push(topic.to_owned());
            ScanStep::Next
        })
    }

    fn change(&mut self, topic: String, insert: bool) {
        if insert {
            let value = self.model.len() as u32;
            assert_eq!(self.index.insert(&topic, value), self.model.insert(topic, value));
        } else {
            assert_eq!(self.index.remove(&topic), self.model.remove(&topic));
            self.stayed.remove(&topic);
        }
        assert_eq!(self.index.len(), self.model.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 1024,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_interrupted_scan_visits_remaining_topics_once_and_in_order(
        seed in prop_oneof![any::<u64>(), Just(COLLIDING_SEED)],
        topics in prop::collection::btree_set(topic(), 0..40),
        filter in filter(),
        turns in prop::collection::vec(turn(), 0..30),
    ) {
        let mut scanned = Scanned::new(seed, &topics);
        for turn in turns {
            scanned.scan(&filter, &turn);
            for (topic, insert) in turn.changes {
                scanned.change(topic, insert);
            }
        }
        let rest = Turn { steps_max: usize::MAX, visits_max: usize::MAX, changes: Vec::new() };
        assert_eq!(scanned.scan(&filter, &rest), ScanState::Done);
        let by_levels = |topic: &String| topic.split('/').map(str::to_owned).collect::<Vec<_>>();
        assert!(scanned.visited.iter().map(by_levels).is_sorted_by(|a, b| a < b));
        assert!(scanned.visited.iter().all(|topic| filter_matches(&filter, topic)));
        for topic in scanned.stayed.iter().filter(|topic| filter_matches(&filter, topic)) {
            assert!(scanned.visited.contains(topic), "{topic} was skipped");
        }
        for topic in scanned.model.clone().into_keys() {
            scanned.change(topic, false);
        }
        assert_vacated(&scanned.index);
    }
}
