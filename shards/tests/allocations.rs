//! Allocations of the indexes: none for matching, few for storage. A single test, since the
//! counters cover the whole process.

use shards::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FILTERS: u32 = 100_000;

fn index(filter: impl Fn(u32) -> String) -> SubscriptionIndex {
    let mut index = SubscriptionIndex::new(1);
    for n in 0..FILTERS {
        let text = filter(n);
        let filter = TopicFilter::parse(&text, 16).expect("a well-formed filter");
        let options = SubscriptionOptions::new(0, false, false);
        index.subscribe(
            &filter,
            Subscription { subscriber: SubscriberId(n), options, identifier: 0 },
        );
    }
    index
}

/// The bytes that `build` leaves allocated, divided by the number of `FILTERS`.
fn bytes_each<T>(build: impl FnOnce() -> T) -> (usize, T) {
    let region = Region::new(ALLOCATOR);
    let built = build();
    let change = region.change();
    // Both sums also include the differences of realloc.
    let bytes = change.bytes_allocated - change.bytes_deallocated;
    (bytes / FILTERS as usize, built)
}

#[test]
fn matching_allocates_nothing_and_filters_are_compact() {
    // DESIGN's 512 bytes for an idle client include its own filter.
    let (bytes, exact) = bytes_each(|| index(|n| format!("device/{n}/state")));
    assert!(bytes <= 64, "{bytes} bytes for an exact filter");
    let (bytes, long) = bytes_each(|| index(|n| format!("site/building/floor/device/{n:08}")));
    assert!(bytes <= 64 + 36, "{bytes} bytes for an exact filter of 36");
    let (bytes, plus) = bytes_each(|| index(|n| format!("device/{n}/+")));
    assert!(bytes <= 192, "{bytes} bytes for a filter with a level of its own");
    let (bytes, _retained) = bytes_each(|| {
        let mut retained = RetainedIndex::new(1);
        (0..FILTERS).for_each(|n| assert!(retained.insert(&format!("device/{n}"), n).is_none()));
        retained
    });
    assert!(bytes <= 128, "{bytes} bytes for a retained topic");

    let mut out = Matches::default();
    let mut match_all = |from: u32| {
        for n in from..from + 1000 {
            let topic = format!("device/{n}/state");
            let deep = format!("site/building/floor/device/{n:08}");
            let region = Region::new(ALLOCATOR);
            for (index, topic) in [(&exact, &topic), (&long, &deep), (&plus, &topic)] {
                index.matches(topic, &mut out);
                assert_eq!(out.subscriptions.len(), 1);
            }
            let change = region.change();
            // The first matches allocate the buffers.
            assert!(n < 10 || change.allocations + change.reallocations == 0, "{change:?}");
        }
    };
    match_all(0);
    match_all(50_000);
}
