//! Brokers that are killed while messages flow both ways. Each acknowledged message arrives at the other broker, in the
//! order of its publisher, and at QoS 2 once. `RINGMQ_TEST_BRIDGE_KILLS=200 cargo test --test bridge killed` kills each
//! broker so often.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::publisher::Publisher;
use crate::subscriber::Subscriber;
use crate::support::Broker;
use crate::{ONE_SETUP, PATIENCE, SETUPS, Site, at_once};

/// Kills of each broker, unless the environment says otherwise.
const KILLS: usize = 5;

fn kills() -> usize {
    std::env::var("RINGMQ_TEST_BRIDGE_KILLS").ok().and_then(|of| of.parse().ok()).unwrap_or(KILLS)
}

/// What the publisher of the near broker publishes goes out; what the one of the far broker publishes comes in.
const RULES: &str =
    "[[bridges.out]]\nfilter = \"t/+/publisher 0\"\n[[bridges.in]]\nfilter = \"t/+/publisher 1\"\n";

/// The clients of one broker.
struct Clients {
    publisher: Publisher,
    subscriber: Subscriber,
}

impl Clients {
    fn new(number: usize) -> Self {
        Self { publisher: Publisher::new(number), subscriber: Subscriber::new(number) }
    }

    /// Publish and subscribe until `is_over`, again after each end of the broker.
    fn serve(&mut self, address: SocketAddr, is_over: &AtomicBool) {
        let Self { publisher, subscriber } = self;
        let ends = || is_over.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Waits for its acknowledgements at the end.
                while publisher.serve(address, is_over).is_err() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            scope.spawn(move || {
                while subscriber.serve(address, |_| ends()).is_err() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        });
    }
}

/// Kills a broker after a while, and starts it again.
fn kill(broker: &mut Option<Broker>, site: &Site, number: usize) {
    let number = (number % KILLS) as u64;
    std::thread::sleep(Duration::from_millis(120 + 70 * number));
    *broker = None; // SIGKILL
    std::thread::sleep(Duration::from_millis(30 * number));
    *broker = Some(site.start());
}

fn check(setup: &str, version: &str, kills_near: bool, kills_far: bool) {
    eprintln!("{setup:?}, version {version}"); // shown if the test fails
    let rules = format!("version = {version:?}\n{RULES}");
    let far_site = Site::new(setup).with_store();
    let near_site = Site::new(setup).with_store().bridge("far", far_site.address, &rules);
    let (mut far, mut near) = (Some(far_site.start()), Some(near_site.start()));
    let brokers = (near.as_ref().expect("it runs"), far.as_ref().expect("it runs"));
    crate::connected(brokers.0, 1);
    crate::flows(brokers.1, "t/probe/publisher 1", brokers.0, "t/probe/publisher 1");
    let mut sides = [Clients::new(0), Clients::new(1)];
    let addresses = [near_site.address, far_site.address];
    // What is published before a subscription is acknowledged need not reach its client.
    for (side, address) in sides.iter_mut().zip(addresses) {
        assert!(side.subscriber.serve(address, |of| of.is_subscribed).is_ok());
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (side, address) in sides.iter_mut().zip(addresses) {
            let is_over = &is_over;
            scope.spawn(move || side.serve(address, is_over));
        }
        for number in 0..kills() {
            if kills_far {
                kill(&mut far, &far_site, number);
            }
            if kills_near {
                kill(&mut near, &near_site, number);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let sent: Vec<(String, u64)> = sides
        .iter()
        .flat_map(|side| {
            [1, 2].map(|qos| (side.publisher.topic(qos), side.publisher.last[usize::from(qos)]))
        })
        .collect();
    assert!(sent.iter().all(|(_, count)| *count > 0), "{setup}: {sent:?}");
    for (side, address) in sides.iter_mut().zip(addresses) {
        let until = Instant::now() + PATIENCE;
        let has_all = |of: &Subscriber| {
            sent.iter().all(|(topic, last)| of.seen.get(topic).copied().unwrap_or(0) >= *last)
        };
        let served = side.subscriber.serve(address, |of| has_all(of) || Instant::now() > until);
        assert!(served.is_ok(), "{setup}: the connection was closed without a kill");
        let seen = &side.subscriber.seen;
        assert!(has_all(&side.subscriber), "{setup} {version}: {seen:?} of {sent:?}");
    }
    drop((near, far));
}

#[test]
fn messages_arrive_in_order_and_qos_2_once_while_the_far_broker_is_killed() {
    at_once(SETUPS.iter().copied(), |setup| {
        check(setup, "5", false, true);
    });
}

#[test]
fn messages_arrive_in_order_and_qos_2_once_while_this_broker_is_killed() {
    at_once(SETUPS.iter().copied(), |setup| {
        check(setup, "5", true, false);
    });
}

#[test]
fn messages_arrive_in_order_and_qos_2_once_while_both_brokers_are_killed() {
    for version in ["5", "3.1.1", "3.1"] {
        check(ONE_SETUP, version, true, true);
    }
}
