//! Clients that change the node under load, while servers of the engine are killed and stopped: each message at least once
//! at QoS 1, once at QoS 2, in order. Three brokers with stores; publishers at every node, which leave it only if it sends
//! them away, and publishers that change it too;
//! subscribers with stored sessions, of MQTT 5.0 and 3.1.1.
//!
//! ```text
//! RINGMQ_TEST_LOAD_S=3600      seconds of load; a few without it
//! RINGMQ_TEST_SEED=1           when clients leave, and for where
//! RINGMQ_TEST_NO_FAULTS=1      the servers of the engine stay
//! ```

mod ledger;
mod link;
mod publisher;
mod rolling;
mod subscriber;
mod traffic;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringmq::wire::Version;

use self::ledger::Verdict;
use self::link::Gone;
use self::publisher::Publisher;
use self::subscriber::Subscriber;
use self::traffic::Traffic;
use crate::alone;
use crate::brokers::Nodes;
use crate::engine::Engine;

/// Publishers that stay at their node, one a node, and others that change it.
const STAYING: usize = 3;
const ROAMING: usize = 2;
const SUBSCRIBERS: usize = 6;

/// How long clients stay at a node at most.
const STAY_MS: u64 = 150;

/// Time limit for deliveries and acknowledgements after the load, from the last one on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds between faults of the engine in a long run.
const FAULT_EVERY: Duration = Duration::from_secs(12);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Another node than this one.
    fn other_node(&mut self, node: usize, nodes: usize) -> usize {
        (node + 1 + self.below(nodes as u64 - 1) as usize) % nodes
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn version(number: usize) -> Version {
    if number.is_multiple_of(2) { Version::V5 } else { Version::V311 }
}

/// Ends the run, also when a check fails.
struct EndOnDrop<'a>(&'a Traffic);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The clients of a run.
struct Clients {
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    traffic: Traffic,
    moves: AtomicU64,
}

impl Clients {
    /// Subscribers that have subscribed, so that they are to get everything.
    fn new(addresses: &[SocketAddr]) -> Self {
        let publishers = STAYING + ROAMING;
        let mut clients = Self {
            publishers: (0..publishers).map(|of| Publisher::new(of, version(of))).collect(),
            subscribers: (0..SUBSCRIBERS).map(|of| Subscriber::new(of, version(of))).collect(),
            traffic: Traffic::new(publishers, SUBSCRIBERS),
            moves: AtomicU64::new(0),
        };
        for (number, subscriber) in clients.subscribers.iter_mut().enumerate() {
            let link = subscriber.enter(addresses[number % addresses.len()]);
            let served = link.and_then(|mut link| {
                subscriber.serve(&mut link, &clients.traffic, Subscriber::is_subscribed)
            });
            served.expect("nothing ends the connection");
        }
        clients
    }

    /// All publish, subscribe and move, while `faults` runs.
    fn run(&mut self, addresses: &[SocketAddr], seed: u64, faults: impl FnOnce(&Traffic)) {
        let (traffic, moves) = (&self.traffic, &self.moves);
        std::thread::scope(|scope| {
            for (of, publisher) in self.publishers.iter_mut().enumerate() {
                let random = Random(seed ^ of as u64);
                scope.spawn(move || publish(publisher, addresses, random, traffic, moves));
            }
            let subscribing = self.subscribers.iter_mut().enumerate().map(|(of, subscriber)| {
                let random = Random(seed ^ (100 + of as u64));
                scope.spawn(move || roam(subscriber, addresses, of, random, traffic, moves))
            });
            let subscribing: Vec<_> = subscribing.collect();
            let end = EndOnDrop(traffic);
            faults(traffic);
            drop(end);
            subscribing.into_iter().for_each(|one| one.join().expect("no subscriber fails"));
        });
    }

    /// Subscribers take what is left for them; then each has what it is to get, or it is lost.
    fn settle(self, addresses: &[SocketAddr]) -> (Verdict, Vec<String>) {
        let (publishers, traffic) = (self.publishers, &self.traffic);
        let expected = |of: usize| -> Vec<(String, u64)> {
            publishers.iter().flat_map(|one| one.expected(of, SUBSCRIBERS)).collect()
        };
        let mut sum = Verdict::default();
        let mut findings = Vec::new();
        let mut subscribers = self.subscribers;
        std::thread::scope(|scope| {
            for (of, subscriber) in subscribers.iter_mut().enumerate() {
                let (address, expected) = (addresses[of % addresses.len()], expected(of));
                scope.spawn(move || take_rest(subscriber, address, traffic, &expected));
            }
        });
        for (of, subscriber) in subscribers.into_iter().enumerate() {
            let expected = expected(of);
            if subscriber.sessions_lost > 0 {
                let count = subscriber.sessions_lost;
                findings.push(format!("subscriber {of} has lost its session {count} times"));
            }
            let (verdict, found) = subscriber.ledger.close(&expected);
            sum.add(&verdict);
            findings.extend(found.iter().map(|one| format!("subscriber {of}: {one}")));
        }
        for publisher in publishers.iter().filter(|one| one.sessions_lost > 0) {
            let (number, count) = (publisher.number, publisher.sessions_lost);
            findings.push(format!("publisher {number} has lost its session {count} times"));
        }
        (sum, findings)
    }
}

/// Publishes until the end of the run. The first publishers stay at their node.
fn publish(
    publisher: &mut Publisher,
    addresses: &[SocketAddr],
    mut random: Random,
    traffic: &Traffic,
    moves: &AtomicU64,
) {
    let is_roaming = publisher.number >= STAYING;
    let mut node = publisher.number % addresses.len();
    let mut ends = None;
    loop {
        let stay = Duration::from_millis(10 + random.below(3 * STAY_MS));
        let until = is_roaming.then(|| Instant::now() + stay);
        let served = match traffic.is_open(node) {
            true => publisher.serve(addresses[node], traffic, until),
            false => Err(Gone),
        };
        match served {
            Ok(()) if traffic.is_over() => return,
            Ok(()) => {
                node = random.other_node(node, addresses.len());
                moves.fetch_add(1, Relaxed);
            }
            Err(Gone) => {
                std::thread::sleep(Duration::from_millis(50));
                // A node that is emptied sends its clients to another one.
                node = random.other_node(node, addresses.len());
            }
        }
        if traffic.is_over() {
            let ends = ends.get_or_insert_with(|| Instant::now() + PATIENCE);
            assert!(Instant::now() < *ends, "publisher {} is not answered", publisher.number);
        }
    }
}

/// Moves from node to node until the end of the run: by a second connection, after DISCONNECT, or after the connection ended.
fn roam(
    subscriber: &mut Subscriber,
    addresses: &[SocketAddr],
    mut node: usize,
    mut random: Random,
    traffic: &Traffic,
    moves: &AtomicU64,
) {
    let mut former = None;
    while !traffic.is_over() {
        node = random.other_node(node, addresses.len());
        let entered = traffic.is_open(node).then(|| subscriber.enter(addresses[node]));
        let Some(Ok(mut link)) = entered else {
            former = None;
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        drop(former.take());
        moves.fetch_add(1, Relaxed);
        let until = Instant::now() + Duration::from_millis(random.below(STAY_MS));
        let is_done = |_: &Subscriber| Instant::now() > until || traffic.is_over();
        if subscriber.serve(&mut link, traffic, is_done).is_err() {
            continue;
        }
        match random.below(3) {
            0 => former = Some(link),
            1 => link.disconnect(),
            _ => drop(link),
        }
    }
}

/// Takes what comes until everything has come, or nothing comes any more.
fn take_rest(
    subscriber: &mut Subscriber,
    address: SocketAddr,
    traffic: &Traffic,
    expected: &[(String, u64)],
) {
    let lacking = |of: &Subscriber| -> u64 {
        expected.iter().map(|(topic, last)| of.ledger.lacking(topic, *last)).sum()
    };
    let mut left = lacking(subscriber);
    let mut until = Instant::now() + PATIENCE;
    // Once all is there, what comes in a moment more would have come twice.
    let mut quiet_until = None;
    while Instant::now() < until && quiet_until.is_none_or(|end| Instant::now() < end) {
        let Ok(mut link) = subscriber.enter(address) else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        while Instant::now() < until && quiet_until.is_none_or(|end| Instant::now() < end) {
            let pause = Instant::now() + Duration::from_millis(100);
            if subscriber.serve(&mut link, traffic, |_| Instant::now() > pause).is_err() {
                break;
            }
            let now = lacking(subscriber);
            if now == 0 {
                quiet_until.get_or_insert_with(|| Instant::now() + Duration::from_millis(500));
            } else if now < left {
                (left, until) = (now, Instant::now() + PATIENCE);
            }
        }
    }
}

/// Kills and stops a server of the engine from time to time, one after the other, until the time.
fn trouble(engine: &mut Engine, ends: Instant, load: Duration) -> u64 {
    let every = FAULT_EVERY.min(load / 3);
    let mut faults: u64 = 0;
    let mut next = Instant::now() + every / 2;
    while next + every < ends {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let server = faults as usize / 2 % 3;
        if faults.is_multiple_of(2) {
            engine.kill(server);
            std::thread::sleep(every / 4);
            engine.boot(server);
        } else {
            engine.signal(server, "-STOP");
            std::thread::sleep(every / 3);
            engine.signal(server, "-CONT");
        }
        faults += 1;
        next += every;
    }
    std::thread::sleep(ends.saturating_duration_since(Instant::now()));
    faults
}

#[test]
fn clients_that_change_the_node_under_load_get_each_message_once_and_in_order() {
    let _alone = alone();
    let seed = number("RINGMQ_TEST_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_nanos() as u64
    });
    println!("RINGMQ_TEST_SEED={seed}");
    let load = Duration::from_secs(number("RINGMQ_TEST_LOAD_S").unwrap_or(8));
    let Some(mut nodes) = Nodes::start_stored("load") else { return };
    let addresses: Vec<SocketAddr> = nodes.brokers.iter().map(|of| of.address()).collect();
    let mut clients = Clients::new(&addresses);
    let (begin, mut faults) = (Instant::now(), 0);
    clients.run(&addresses, seed, |_| {
        if number("RINGMQ_TEST_NO_FAULTS").is_some() {
            std::thread::sleep(load);
        } else {
            faults = trouble(&mut nodes.engine, begin + load, load);
        }
    });
    let moves = clients.moves.load(Relaxed);
    let seconds = begin.elapsed().as_secs();
    let (verdict, findings) = clients.settle(&addresses);
    println!("{moves} changes of the node, {faults} faults of engine servers, in {seconds} s");
    let (repeated, without_dup) = (verdict.repeated, verdict.repeated_without_dup);
    println!("QoS 1 again: {repeated} with DUP, {without_dup} without");
    let taken_out = |of: &crate::support::Broker| of.log().matches("taken this one out").count();
    let taken_out: usize = nodes.brokers.iter().map(taken_out).sum();
    if taken_out > 0 {
        println!("nodes were taken out {taken_out} times, which was not part of the plan");
    }
    findings.iter().take(40).for_each(|finding| println!("{finding}"));
    println!("{}", verdict.line());
    assert!(moves > 0 && verdict.delivered > 0, "no load");
    assert!(verdict.is_clean() && !findings.iter().any(|of| of.contains("session")));
}
