//! No acknowledged message is lost when the broker is killed, at any moment. Clients with
//! persistent sessions publish and subscribe at QoS 1 and 2 and retain messages; the broker is
//! killed at random moments and restarted on the same folder. In the end every acknowledged message
//! must have been delivered, in order, at QoS 2 once, and to one member of a shared subscription
//! whose members connect and disconnect. Each kill also ends the connection of a client with a
//! Will, which must be published.
//!
//! ```text
//! cargo test --test crash                                         a few seconds
//! RINGMQ_CRASH_ROUNDS=5000 cargo test --release --test crash        this many kills
//! RINGMQ_CRASH_SECONDS=3600 cargo test --release --test crash       kills for an hour
//! RINGMQ_TEST_FLAGS='--cores 2' …                                 flags for the broker
//! ```
//!
//! `tests/crash/plant` verifies that the test detects a broker that acknowledges messages before it
//! has stored them.
#![cfg(feature = "store")]

mod broker;
mod link;
#[path = "../support/next_packet.rs"]
mod next_packet;
mod publisher;
mod subscriber;
#[path = "../support/uninterrupted.rs"]
mod uninterrupted;
mod wills;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmq::wire::{
    self, Packet, PacketIdentifier, Qos, Subscribe, SubscribeFilters, SubscribeOptions,
    UserProperties, Version,
};

use crate::broker::{Broker, Folder};
use crate::link::Link;
use crate::publisher::Publisher;
use crate::subscriber::{Group, Subscriber};
use crate::wills::ClientsWithWills;

const PUBLISHERS: usize = 3;
/// Number of messages that a publisher has in flight.
const WINDOW: usize = 24;
/// Time limit for the remaining deliveries after the last kill.
const PATIENCE: Duration = Duration::from_secs(60);

/// SplitMix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Runs all clients for a while, and then kills the broker.
fn round(
    broker: &mut Broker,
    publishers: &mut [Publisher],
    subscribers: &mut [Subscriber],
    members: &mut [Subscriber],
    with_wills: &mut ClientsWithWills,
    (time, is_odd): (Duration, bool),
) {
    let (address, never) = (broker.address, AtomicBool::new(false));
    let is_killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for publisher in publishers {
            scope.spawn(|| drop(publisher.serve(address, &never)));
        }
        for (number, subscriber) in subscribers.iter_mut().enumerate() {
            // In every other round, one subscriber is disconnected after it has subscribed.
            if number > 0 && is_odd && subscriber.is_subscribed {
                continue;
            }
            scope.spawn(|| drop(subscriber.serve(address, |_| is_killed.load(Ordering::Relaxed))));
        }
        scope.spawn(|| with_wills.serve(address));
        let leaves = Instant::now() + time / 2;
        for (number, member) in members.iter_mut().enumerate() {
            // One member disconnects in the middle, so that its queued messages move to the others.
            let is_leaving = (number == 1) == is_odd;
            let is_killed = &is_killed;
            let is_done = move |_: &Subscriber| {
                is_killed.load(Ordering::Relaxed) || is_leaving && Instant::now() > leaves
            };
            scope.spawn(move || drop(member.serve(address, is_done)));
        }
        std::thread::sleep(time);
        broker.kill();
        is_killed.store(true, Ordering::Relaxed);
    });
}

/// After the last kill: every acknowledged message must be delivered.
fn settle(
    address: SocketAddr,
    publishers: &mut [Publisher],
    subscribers: &mut [Subscriber],
    (group, members): (&Group, &mut [Subscriber]),
    with_wills: &ClientsWithWills,
) {
    let ends = AtomicBool::new(true);
    for publisher in publishers.iter_mut() {
        assert!(
            publisher.serve(address, &ends).is_ok(),
            "the connection was closed without a kill"
        );
    }
    let topic =
        |publisher: &Publisher, qos: u8| (publisher.topic(qos), publisher.last[usize::from(qos)]);
    let all: Vec<(String, u64)> = publishers
        .iter()
        .flat_map(|publisher| [topic(publisher, 1), topic(publisher, 2)])
        .collect();
    for subscriber in subscribers {
        let until = Instant::now() + PATIENCE;
        let has_all = |of: &Subscriber| {
            all.iter().all(|(topic, last)| of.seen.get(topic).copied().unwrap_or(0) >= *last)
        };
        let served = subscriber.serve(address, |of| has_all(of) || Instant::now() > until);
        assert!(served.is_ok(), "the connection was closed without a kill");
        for (topic, last) in &all {
            let seen = subscriber.seen.get(topic).copied().unwrap_or(0);
            assert!(seen >= *last, "{} got {topic} up to {seen} of {last}", subscriber.name);
        }
    }
    settle_group(address, &all, group, members);
    let retained = retained(address, publishers.len(), &with_wills.accepted);
    let lost = with_wills.accepted.iter().find(|&topic| !retained.contains_key(topic));
    assert!(lost.is_none(), "the Will {lost:?} was not published");
    for publisher in publishers {
        let kept = retained.get(&publisher.topic(0)).copied().unwrap_or(0);
        let acknowledged = publisher.acknowledged[0];
        assert!(kept >= acknowledged, "{}: {kept} is retained, not {acknowledged}", publisher.name);
    }
}

/// Members connect and disconnect until each message has reached one of them.
fn settle_group(
    address: SocketAddr,
    all: &[(String, u64)],
    group: &Group,
    members: &mut [Subscriber],
) {
    let until = Instant::now() + PATIENCE;
    let missing = || {
        let missing =
            |(topic, last): &(String, u64)| Some((topic.clone(), group.missing(topic, *last)?));
        all.iter().find_map(missing)
    };
    while let Some((topic, number)) = missing() {
        assert!(Instant::now() < until, "no member of the group got {topic} {number}");
        for member in members.iter_mut() {
            let leaves = Instant::now() + Duration::from_millis(300);
            let served = member.serve(address, |_| Instant::now() > leaves);
            assert!(served.is_ok(), "the connection was closed without a kill");
        }
    }
}

/// The retained messages of publishers and Wills, as a new subscriber receives them that waits for
/// these Wills.
fn retained(
    address: SocketAddr,
    publishers: usize,
    wills: &BTreeSet<String>,
) -> BTreeMap<String, u64> {
    let name = format!("newcomer {}", std::process::id());
    let Ok((mut link, _)) = Link::open(address, &name) else {
        panic!("the connection was closed without a kill")
    };
    let options = SubscribeOptions {
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let filters = [("r/#", options), (&*format!("{}#", wills::TOPICS), options)];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_identifier: PacketIdentifier::new(1).expect("one"),
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&filters),
    });
    assert!(link.send(&subscribe).is_ok());
    let (mut kept, until) = (BTreeMap::new(), Instant::now() + Duration::from_secs(10));
    let mut missing = wills.len() + publishers;
    while missing > 0 && Instant::now() < until {
        let Ok(packet) = link.next() else { panic!("the connection was closed without a kill") };
        let Some(packet) = packet else { continue };
        if let Packet::Publish(publish) = wire::decode(&packet, Version::V5).expect("MQTT") {
            let number = u64::from_be_bytes(publish.payload.try_into().expect("a number"));
            let topic = publish.topic;
            let is_awaited = wills.contains(topic) || !topic.starts_with(wills::TOPICS);
            let is_new = kept.insert(topic.to_owned(), number).is_none();
            missing -= usize::from(is_new && is_awaited);
        }
    }
    kept
}

#[test]
fn no_acknowledged_message_is_lost_when_the_broker_is_killed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("RINGMQ_CRASH_ROUNDS").unwrap_or(u64::MAX);
    let default_s = if rounds < u64::MAX { u64::MAX } else { 20 };
    let seconds = number("RINGMQ_CRASH_SECONDS").unwrap_or(default_s);
    let mut random = number("RINGMQ_CRASH_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_nanos() as u64
    });
    println!("RINGMQ_CRASH_SEED={random}");
    let folder = Folder::new("crash");
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS).map(Publisher::new).collect();
    let mut subscribers: Vec<Subscriber> = (0..2).map(Subscriber::new).collect();
    let group = Arc::new(Group::default());
    let mut members: Vec<Subscriber> = (0..3).map(|n| Subscriber::member(n, &group)).collect();
    let mut with_wills = ClientsWithWills::default();
    let broker = Broker::start(&folder.0);
    // What is published before a subscription is acknowledged need not reach its client.
    for client in subscribers.iter_mut().chain(&mut members) {
        assert!(client.serve(broker.address, |client| client.is_subscribed).is_ok());
    }
    broker.stop();
    let (begin, mut done) = (Instant::now(), 0);
    while done < rounds && begin.elapsed().as_secs() < seconds {
        // The store is independent of the flags the broker runs with.
        let cores = format!("--cores {}", 1 + next_random(&mut random) % 3);
        let flags = std::env::var("RINGMQ_TEST_FLAGS").unwrap_or(cores);
        // Sometimes Wills survive several kills.
        let will_grace_s = if next_random(&mut random).is_multiple_of(2) { 0 } else { 30 };
        let mut broker = Broker::start_with(&folder.0, &flags, will_grace_s);
        let time = Duration::from_micros(next_random(&mut random) % 120_000);
        let how = (time, done % 2 == 1);
        round(&mut broker, &mut publishers, &mut subscribers, &mut members, &mut with_wills, how);
        done += 1;
        if done % 50 == 0 {
            let broker = Broker::start(&folder.0);
            let shared = (&*group, &mut members[..]);
            settle(broker.address, &mut publishers, &mut subscribers, shared, &with_wills);
            if done % 100 == 0 {
                broker.stop();
            }
        }
    }
    let broker = Broker::start(&folder.0);
    let shared = (&*group, &mut members[..]);
    settle(broker.address, &mut publishers, &mut subscribers, shared, &with_wills);
    let messages: u64 = publishers.iter().flat_map(|publisher| publisher.last).sum();
    assert!(messages > 0, "no message was published");
    let (seconds, wills) = (begin.elapsed().as_secs_f64(), with_wills.accepted.len());
    println!("{done} kills in {seconds:.0} s, {messages} messages, {wills} Wills");
}
