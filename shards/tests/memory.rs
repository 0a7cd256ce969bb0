//! Compares the memory that the indexes report with their allocations. A single test, since the
//! counters cover the whole process.

use shards::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 33
    }

    fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for n in (1..items.len()).rev() {
            items.swap(n, self.next() as usize % (n + 1));
        }
        items
    }
}

/// Asserts that the count is that of the allocator, or slightly more, for the allocator's overhead.
fn assert_counted(name: &str, counted: usize, region: &Region<'_, System>) {
    let change = region.change();
    let allocated = change.bytes_allocated - change.bytes_deallocated;
    let most = allocated + allocated * 3 / 10 + 8_192;
    assert!(
        (allocated..=most).contains(&(counted + 512)),
        "{name}: {counted} bytes counted, {allocated} allocated"
    );
}

fn subscription(subscriber: u32) -> Subscription {
    let options = SubscriptionOptions::new(0, false, false);
    Subscription { subscriber: SubscriberId(subscriber), options, identifier: 0 }
}

/// Subscribes, unsubscribes in random order, and compares at each step.
fn subscribe_and_leave(name: &str, filters: &[String], subscribers: u32) {
    let mut ids = Vec::with_capacity(filters.len() * subscribers as usize);
    let order: Vec<usize> = Numbers(7).shuffled((0..ids.capacity()).collect());
    let region = Region::new(ALLOCATOR);
    let mut index = SubscriptionIndex::new(1);
    for text in filters {
        let filter = TopicFilter::parse(text, 256).expect("a well-formed filter");
        for subscriber in 0..subscribers {
            let id = index.subscribe(&filter, subscription(subscriber)).filter;
            index.set_present(id, SubscriberId(subscriber / 2), subscriber % 3 > 0);
            ids.push((id, subscriber));
            if ids.len() % (order.len() / 20) == 0 {
                assert_counted(name, index.heap_bytes(), &region);
            }
        }
    }
    for (n, (filter, subscriber)) in order.iter().map(|n| ids[*n]).enumerate() {
        index.unsubscribe(filter, SubscriberId(subscriber)).expect("an existing entry");
        if n % (order.len() / 20) == 0 {
            assert_counted(name, index.heap_bytes(), &region);
        }
    }
    assert!(index.heap_bytes() <= 8_192, "{name}: {} bytes in the end", index.heap_bytes());
    assert_counted(name, index.heap_bytes(), &region);
}

fn retain_and_forget(name: &str, topics: Vec<String>) {
    let order = Numbers(7).shuffled(topics.clone());
    let region = Region::new(ALLOCATOR);
    let mut index = RetainedIndex::new(1);
    for (n, topic) in topics.iter().enumerate() {
        index.insert(topic, n as u64);
        if n % (topics.len() / 20) == 0 {
            assert_counted(name, index.heap_bytes(), &region);
        }
    }
    for (n, topic) in order.iter().enumerate() {
        index.remove(topic);
        if n % (topics.len() / 20) == 0 {
            assert_counted(name, index.heap_bytes(), &region);
        }
    }
    assert!(index.heap_bytes() <= 8_192, "{name}: {} bytes in the end", index.heap_bytes());
}

fn replicate_and_withdraw(name: &str, filters: &[String]) {
    let region = Region::new(ALLOCATOR);
    let mut replica = Replica::new(1);
    let parsed = |text| TopicFilter::parse(text, 256).expect("a well-formed filter");
    for (n, text) in filters.iter().enumerate() {
        let core = n as u16 % 3;
        match (text.starts_with("$share"), has_wildcard(text)) {
            (true, _) => {
                replica.set_group(&parsed(text), GroupAt { core, online: 1, members: 1 });
            }
            (false, true) => replica.announce_wildcard(core, &parsed(text)),
            (false, false) => replica.announce_exact(core, replica.fingerprint(text)),
        }
        if n % (filters.len() / 20) == 0 {
            assert_counted(name, replica.heap_bytes(), &region);
        }
    }
    for (n, text) in filters.iter().enumerate() {
        let core = n as u16 % 3;
        match (text.starts_with("$share"), has_wildcard(text)) {
            (true, _) => {
                replica.set_group(&parsed(text), GroupAt { core, online: 0, members: 0 });
            }
            (false, true) => replica.withdraw_wildcard(core, text),
            (false, false) => replica.withdraw_exact(core, replica.fingerprint(text)),
        }
        if n % (filters.len() / 20) == 0 {
            assert_counted(name, replica.heap_bytes(), &region);
        }
    }
    assert!(replica.heap_bytes() <= 8_192, "{name}: {} bytes in the end", replica.heap_bytes());
}

/// `+` and `a` in any order.
fn deep(count: usize, levels: usize) -> Vec<String> {
    let mut numbers = Numbers(3);
    let mut level = || if numbers.next() & 8 == 0 { "a" } else { "+" };
    let mut filter = || (0..levels).map(|_| level()).collect::<Vec<_>>().join("/");
    (0..count).map(|_| filter()).collect()
}

fn of(count: usize, text: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(text).collect()
}

#[test]
fn the_indexes_count_their_memory() {
    subscribe_and_leave("exact", &of(40_000, |n| format!("device/{n}/state")), 1);
    let long = of(20_000, |n| format!("site/building/floor/device/{n:08}/temperature"));
    subscribe_and_leave("exact, long", &long, 1);
    subscribe_and_leave("plus", &of(40_000, |n| format!("device/{n}/+")), 1);
    let own = of(2_000, |n| format!("+/{n:030}/{:030}/c/d/e/{n}/#", n * 7));
    subscribe_and_leave("long levels", &own, 1);
    subscribe_and_leave("deep", &deep(4_000, 200), 1);
    subscribe_and_leave("shared", &of(10_000, |n| format!("$share/group-{n:020}/a/+")), 2);
    subscribe_and_leave("crowd", &of(3, |n| format!("$share/g/{n}")), 10_000);
    subscribe_and_leave("some each", &of(4_000, |n| format!("news/{n}")), 5);
    retain_and_forget("retained", of(40_000, |n| format!("site/{}/device/{n}", n % 100)));
    retain_and_forget("retained, long", of(10_000, |n| format!("a/{n:060}")));
    let levels = |n: usize| (0..255).map(|l| format!("{}", (n * l) % 10)).collect::<Vec<_>>();
    retain_and_forget("retained, deep", of(2_000, |n| format!("{n}/{}", levels(n).join("/"))));
    replicate_and_withdraw("replica", &of(100_000, |n| format!("site/{n}")));
    replicate_and_withdraw("replica, plus", &of(20_000, |n| format!("site/{n}/+")));
    replicate_and_withdraw("replica, groups", &of(20_000, |n| format!("$share/g{n}/a/{n}")));
}
