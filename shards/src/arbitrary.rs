//! Topic Names and Filters for property tests: few and similar, so that many match.

use crate::topic::TopicFilter;
use proptest::prelude::*;

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("a"),
        2 => Just("b"),
        1 => Just("ab"),
        1 => Just(""),
        1 => Just("$a"),
        1 => Just("a level longer than what is kept in place"),
    ]
}

/// A Topic Name of few levels, which many filters match.
pub(crate) fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a Topic Name has a character", |topic| !topic.is_empty())
}

/// A Topic Filter, perhaps with wildcards, perhaps shared.
pub(crate) fn filter_text() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => level(), 1 => Just("+")];
    let share = prop_oneof![2 => Just(""), 1 => Just("$share/g/"), 1 => Just("$share/h/")];
    (share, prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(share, mut levels, hash)| {
            levels.extend(hash.then_some("#"));
            share.to_owned() + &levels.join("/")
        })
        .prop_filter("a well-formed filter", |text| TopicFilter::parse(text, 128).is_ok())
}
