//! Cost of finding subscriptions and retained messages among a million: `cargo bench -p shards`.
//! With `RINGMQ_BENCH_SHORT=1` among ten thousand, which only verifies that the benchmarks run.
//!
//! Each set has filters of one kind, so that every requested topic matches one of them. The order
//! of the topics defeats caches: the benchmarks mostly measure memory access.

use std::num::NonZeroU64;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan, black_box};
use shards::*;

static IS_SHORT: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("RINGMQ_BENCH_SHORT").is_some_and(|value| value == "1"));

static COUNT: LazyLock<u32> = LazyLock::new(|| if *IS_SHORT { 10_000 } else { 1_000_000 });

fn main() {
    let divan = Divan::from_args();
    let divan = if *IS_SHORT {
        divan.sample_count(5).sample_size(10).max_time(Duration::from_millis(50))
    } else {
        divan.max_time(Duration::from_secs(3))
    };
    divan.main();
    for set in &SETS {
        if let Some((_, bytes)) = set.index.get() {
            println!("{:<14} {bytes:>4} bytes of memory for each filter", set.name);
        }
    }
    for set in &SETS {
        if let Some((_, bytes)) = set.replica.get() {
            println!("{:<14} {bytes:>4} bytes of memory for each filter, replicated", set.name);
        }
    }
    if let Some((_, bytes)) = RETAINED.get() {
        println!("{:<14} {bytes:>4} bytes of memory for each topic", "retained");
    }
}

/// Memory in use by this process in bytes; 0 if unknown.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// Builds a structure of `COUNT` items, and returns the memory per item. The structure must stay
/// allocated: memory that was freed and is reused does not show.
fn measured<T>(build: impl FnOnce() -> T) -> (T, usize) {
    let before = resident_bytes();
    let built = build();
    (built, resident_bytes().saturating_sub(before) / *COUNT as usize)
}

/// The numbers below `COUNT` in an irregular order.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % u64::from(*COUNT)) as u32
    }

    fn take(count: usize) -> Vec<u32> {
        let mut numbers = Self(7);
        (0..count).map(|_| numbers.next()).collect()
    }
}

fn topic(n: u32) -> String {
    format!("site/{}/device/{n}/state", n % 1000)
}

fn subscription(subscriber: u32) -> Subscription {
    let options = SubscriptionOptions::new(1, false, false);
    Subscription { subscriber: SubscriberId(subscriber), options, identifier: 0 }
}

fn index(filters: impl Iterator<Item = String>) -> SubscriptionIndex {
    let mut index = SubscriptionIndex::new(0x5EED);
    for (n, text) in filters.enumerate() {
        let filter = TopicFilter::parse(&text, 16).expect("a well-formed filter");
        index.subscribe(&filter, subscription(n as u32));
    }
    index
}

/// Announcements of another core.
fn replica(filters: impl Iterator<Item = String>) -> Replica {
    let mut replica = Replica::new(0x5EED);
    for text in filters {
        let filter = TopicFilter::parse(&text, 16).expect("a well-formed filter");
        match filter.has_wildcard() {
            true => replica.announce_wildcard(1, &filter),
            false => replica.announce_exact(1, replica.fingerprint(&text)),
        }
    }
    replica
}

/// A set of filters of one kind.
struct Set {
    name: &'static str,
    /// The nth filter.
    filter: fn(u32) -> String,
    /// A topic that only the nth filter matches.
    topic: fn(u32) -> String,
    /// The index of all filters, built on first use, and its memory per filter.
    index: OnceLock<(SubscriptionIndex, usize)>,
    /// The replica on another core.
    replica: OnceLock<(Replica, usize)>,
}

impl Set {
    const fn new(name: &'static str, filter: fn(u32) -> String, topic: fn(u32) -> String) -> Self {
        Self { name, filter, topic, index: OnceLock::new(), replica: OnceLock::new() }
    }

    fn index(&self) -> &SubscriptionIndex {
        &self.index.get_or_init(|| measured(|| index((0..*COUNT).map(self.filter)))).0
    }

    fn replica(&self) -> &Replica {
        &self.replica.get_or_init(|| measured(|| replica((0..*COUNT).map(self.filter)))).0
    }

    fn named(name: &str) -> &'static Self {
        SETS.iter().find(|set| set.name == name).expect("one of the names")
    }
}

const NAMES: [&str; 7] = ["exact short", "exact", "plus", "plus first", "hash", "shared", "mixed"];

static SETS: [Set; NAMES.len()] = [
    Set::new(NAMES[0], short, short),
    Set::new(NAMES[1], topic, topic),
    Set::new(NAMES[2], plus, topic),
    Set::new(NAMES[3], plus_first, topic),
    Set::new(NAMES[4], hash, topic),
    Set::new(NAMES[5], shared, topic),
    Set::new(NAMES[6], mixed, topic),
];

fn short(n: u32) -> String {
    format!("device/{n}")
}

fn mixed(n: u32) -> String {
    match n % 10 {
        0 => plus(n),
        1 => plus_first(n),
        2 => hash(n),
        3 => shared(n),
        _ => topic(n),
    }
}

fn plus(n: u32) -> String {
    format!("site/{}/device/{n}/+", n % 1000)
}

fn plus_first(n: u32) -> String {
    format!("+/+/device/{n}/state")
}

fn hash(n: u32) -> String {
    format!("site/{}/device/{n}/#", n % 1000)
}

fn shared(n: u32) -> String {
    format!("$share/g/site/+/device/{n}/state")
}

/// Enough topic numbers that their records are in no cache.
const TOPICS: usize = 1 << 16;

#[divan::bench(sample_size = 1000, args = NAMES)]
fn match_one_of_all(bencher: Bencher, name: &str) {
    let set = Set::named(name);
    let index = set.index();
    let topics: Vec<String> = Numbers::take(TOPICS).into_iter().map(set.topic).collect();
    let mut out = Matches::default();
    let mut next = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        next = (next + 1) % topics.len();
        index.matches(&topics[next], &mut out);
        assert!(out.subscriptions.len() + out.shared.len() == 1);
    });
}

#[divan::bench(sample_size = 1000)]
fn match_none_of_mixed(bencher: Bencher) {
    let index = Set::named("mixed").index();
    let absent = |n| format!("site/{}/device/{n}/absent/below", n % 999);
    let topics: Vec<String> = Numbers::take(TOPICS).into_iter().map(absent).collect();
    let mut out = Matches::default();
    let mut next = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        next = (next + 1) % topics.len();
        index.matches(&topics[next], &mut out);
        black_box(&out);
    });
}

/// The same topic every time: the cost of the walk itself.
#[divan::bench(sample_size = 1000, args = NAMES)]
fn match_in_cache(bencher: Bencher, name: &str) {
    let set = Set::named(name);
    let (index, topic) = (set.index(), (set.topic)(1234));
    let mut out = Matches::default();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        index.matches(black_box(&topic), &mut out);
        assert!(out.subscriptions.len() + out.shared.len() == 1);
    });
}

/// Which other cores have subscribers.
#[divan::bench(sample_size = 1000, args = ["exact short", "exact", "plus", "hash"])]
fn replica_match_one_of_all(bencher: Bencher, name: &str) {
    let set = Set::named(name);
    let replica = set.replica();
    let topics: Vec<String> = Numbers::take(TOPICS).into_iter().map(set.topic).collect();
    let mut out = CoreMatches::default();
    let mut next = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        next = (next + 1) % topics.len();
        replica.matches(&topics[next], &mut out);
        assert!(out.cores == [1]);
    });
}

/// One filter with many subscribers: the cost per subscriber.
#[divan::bench(args = [500, 100_000])]
fn match_fan_out(bencher: Bencher, subscribers: u32) {
    let filters = (0..subscribers).map(|_| "news/all".to_owned());
    let index = index(filters);
    let mut out = Matches::default();
    bencher.counter(ItemsCount::new(subscribers)).bench_local(|| {
        index.matches("news/all", &mut out);
        black_box(&out);
    });
}

/// All combinations of `+` and a text in eight levels: a topic matches all 256 filters.
#[divan::bench]
fn match_every_branch(bencher: Bencher) {
    let level = |bits: u32, n: u32| if bits >> n & 1 == 0 { "+" } else { "a" };
    let filter = |bits| (0..8).map(|n| level(bits, n)).collect::<Vec<_>>().join("/");
    let index = index((0..256).map(filter));
    let mut out = Matches::default();
    bencher.counter(ItemsCount::new(256_u32)).bench_local(|| {
        index.matches("a/a/a/a/a/a/a/a", &mut out);
        assert!(out.subscriptions.len() == 256);
    });
}

/// The most expensive topic that clients can construct: filters of `+` and a text in any order, of
/// maximum depth, that all match it. One client may have 2,000 of them; five have 10,000.
#[divan::bench(args = ["2000 of 128", "10000 of 128", "10000 of 250", "50000 of 250"])]
fn match_deep(bencher: Bencher, set: &str) {
    let (count, levels) = set.split_once(" of ").expect("two numbers");
    let (count, levels) = (count.parse().expect("a count"), levels.parse().expect("levels"));
    let mut numbers = Numbers(3);
    let mut level = || if numbers.next() & 8 == 0 { "a" } else { "+" };
    let mut filter = || (0..levels).map(|_| level()).collect::<Vec<_>>().join("/");
    let mut index = SubscriptionIndex::new(0x5EED);
    for n in 0..count {
        let text = filter();
        let filter = TopicFilter::parse(&text, 256).expect("a well-formed filter");
        index.subscribe(&filter, subscription(n));
    }
    let topic = vec!["a"; levels].join("/");
    let mut out = Matches::default();
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        index.matches(&topic, &mut out);
        assert!(out.subscriptions.len() == count as usize);
    });
}

/// Adds and removes a new filter among all of them.
#[divan::bench(sample_size = 1000, args = ["exact", "plus"])]
fn subscribe_and_unsubscribe(bencher: Bencher, name: &str) {
    let filter = Set::named(name).filter;
    let mut index = index((0..*COUNT).map(filter));
    let new = |n| filter(n + *COUNT);
    let texts: Vec<String> = Numbers::take(TOPICS).into_iter().map(new).collect();
    let mut next = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        next = (next + 1) % texts.len();
        let filter = TopicFilter::parse(&texts[next], 16).expect("a well-formed filter");
        let id = index.subscribe(&filter, subscription(1)).filter;
        assert!(index.unsubscribe(id, SubscriberId(1)).is_some());
    });
}

/// Adds and removes a subscriber of a filter that has 100,000.
#[divan::bench(sample_size = 1000)]
fn join_and_leave_a_crowd(bencher: Bencher) {
    let mut index = index((0..100_000).map(|_| "news/all".to_owned()));
    let filter = TopicFilter::parse("news/all", 16).expect("a well-formed filter");
    let mut numbers = Numbers(7);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let subscriber = 100_000 + numbers.next();
        let id = index.subscribe(&filter, subscription(subscriber)).filter;
        assert!(index.unsubscribe(id, SubscriberId(subscriber)).is_some());
    });
}

/// Values the size of a pointer.
static RETAINED: OnceLock<(RetainedIndex<NonZeroU64>, usize)> = OnceLock::new();

fn retained() -> &'static RetainedIndex<NonZeroU64> {
    let build = || {
        let mut index = RetainedIndex::new(0x5EED);
        (0..*COUNT).for_each(|n| assert!(index.insert(&topic(n), NonZeroU64::MIN).is_none()));
        index
    };
    &RETAINED.get_or_init(|| measured(build)).0
}

#[divan::bench(sample_size = 1000)]
fn retained_get(bencher: Bencher) {
    let index = retained();
    let topics: Vec<String> = Numbers::take(TOPICS).into_iter().map(topic).collect();
    let mut next = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        next = (next + 1) % topics.len();
        assert!(index.get(&topics[next]).is_some());
    });
}

#[divan::bench(sample_size = 1000)]
fn retained_insert_and_remove(bencher: Bencher) {
    let mut index = RetainedIndex::new(0x5EED);
    (0..*COUNT).for_each(|n| assert!(index.insert(&topic(n), n).is_none()));
    let topics: Vec<String> =
        Numbers::take(TOPICS).into_iter().map(|n| topic(n + *COUNT)).collect();
    let mut next = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        next = (next + 1) % topics.len();
        index.insert(&topics[next], 1);
        assert!(index.remove(&topics[next]).is_some());
    });
}

/// Whole scans; the cost is for each topic found. The last filter looks into each of the 1000 sites
/// for the device that one of them has.
#[divan::bench(args = ["#", "site/+/device/+/state", "site/7/#", "site/7/device/+/state",
    "site/7/device/7/#", "site/+/device/7/state"])]
fn retained_scan(bencher: Bencher, filter: &str) {
    let index = retained();
    let scan = || {
        let mut found = 0_u32;
        let state = index.scan(filter, &mut Cursor::default(), usize::MAX, &mut |topic, _| {
            black_box(topic);
            found += 1;
            ScanStep::Next
        });
        assert!(state == ScanState::Done);
        found
    };
    bencher.counter(ItemsCount::new(scan())).bench_local(scan);
}

/// A scan for everything in parts of 100 topics, as a consumer takes them; for each part.
#[divan::bench]
fn retained_scan_resumed(bencher: Bencher) {
    let index = retained();
    let mut cursor = Cursor::default();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let mut left = 100;
        let state = index.scan("#", &mut cursor, usize::MAX, &mut |topic, _| {
            black_box(topic);
            if left == 0 {
                return ScanStep::StopBefore;
            }
            left -= 1;
            ScanStep::Next
        });
        if state == ScanState::Done {
            cursor = Cursor::default();
        }
    });
}
