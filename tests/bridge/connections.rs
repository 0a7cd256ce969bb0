//! Bridges with several connections: each message once, and in order by topic.

use std::collections::BTreeMap;

use crate::support::{Broker, Client, Connect, Publish};
use crate::{
    ONE_SETUP, Site, Witness, at_once, bridge, connected, flows, logged, mosquitto, numbers,
    publish, versions,
};

const TOPICS: usize = 12;
const EACH: u16 = 15;
const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";
const BOTH: &str = "[[bridges.out]]\nfilter = \"#\"\n[[bridges.in]]\nfilter = \"#\"\n";

/// A publisher of numbers on several topics in turn, with QoS 1 and 2.
pub struct Numbers {
    client: Client,
    next: u16,
}

impl Numbers {
    pub fn at(broker: &Broker) -> Self {
        Self { client: Client::connect(broker, Connect::v5("numbers")), next: 0 }
    }

    /// Publishes the next numbers on each topic.
    pub fn publish(&mut self, count: u16) {
        for number in self.next..self.next + count {
            for topic in 0..TOPICS {
                let qos = 1 + (topic % 2) as u8;
                let topic = format!("t/{topic}");
                self.client.publish(Publish::new(&topic, number.to_string()).qos(qos, 1));
            }
        }
        self.next += count;
    }

    /// Whether all have come once, and in order by topic.
    #[track_caller]
    pub fn came_to(&self, witness: &mut Witness, what: &str) {
        let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for _ in 0..TOPICS * usize::from(self.next) {
            let of = witness.next();
            came.entry(of.topic.clone()).or_default().push(of.text().to_owned());
        }
        assert_eq!(came.len(), TOPICS, "{what}");
        for (topic, texts) in came {
            assert_eq!(texts, numbers(0..self.next), "{what}: {topic}");
        }
        assert!(witness.until_quiet().is_empty(), "{what}: more than was published");
    }
}

/// A bridge with so many connections. `more` are keys and rules.
pub fn several(connections: u16, more: &str) -> String {
    format!("connections = {connections}\nclient_identifier = \"n\"\n{more}")
}

#[test]
fn messages_go_over_several_connections_once_and_in_order_by_topic() {
    at_once(versions(&["3.1.1"]), |(version, setup)| {
        let far = Site::new(setup);
        let more = several(3, &format!("version = {version:?}\n{OUT}"));
        let near = Site::new(setup).with_store().bridge("far", far.address, &more);
        let far = far.start();
        let near = near.start();
        connected(&near, 3);
        for number in 0..3 {
            logged(&far, &format!("\"client\":\"n-{number}\""), 1);
        }
        let mut there = Witness::at(&far, "t/#");
        let mut numbers = Numbers::at(&near);
        numbers.publish(EACH);
        numbers.came_to(&mut there, setup);
    });
}

#[test]
fn what_waits_for_several_connections_outlasts_a_restart_and_stays_in_order() {
    at_once([ONE_SETUP, "mode = \"poll\"\ncores = 1"].into_iter(), |setup| {
        let far = Site::new(setup);
        let near = Site::new(setup).with_store().bridge("far", far.address, &several(4, OUT));
        let running = near.start();
        logged(&running, "bridge is not connected", 4);
        let mut numbers = Numbers::at(&running);
        numbers.publish(EACH);
        drop(running);
        let far = far.start();
        let mut there = Witness::at(&far, "t/#");
        let running = near.start();
        numbers.came_to(&mut there, setup);
        drop(running);
    });
}

#[test]
fn what_several_connections_carry_both_ways_reaches_each_broker_once() {
    at_once(versions(&["3.1.1"]), |(version, setup)| {
        let far = Site::new(setup);
        let more = several(3, &format!("version = {version:?}\n{BOTH}"));
        let near = Site::new(setup).bridge("far", far.address, &more);
        let (far, near) = (far.start(), near.start());
        each_once(&near, &far, &format!("{setup} {version}"));
    });
}

#[test]
fn what_several_connections_carry_both_ways_to_mosquitto_reaches_each_broker_once() {
    let Some(program) = mosquitto::program() else { return };
    for version in ["5", "3.1.1"] {
        let mosquitto = mosquitto::Mosquitto::with(program, "");
        let more = several(3, &format!("version = {version:?}\n{BOTH}"));
        let near = Site::new(ONE_SETUP).bridge("far", mosquitto.address, &more).start();
        each_once(&near, &mosquitto.broker(), version);
    }
}

/// Messages of either broker reach both once.
#[track_caller]
fn each_once(near: &Broker, far: &Broker, what: &str) {
    connected(near, 3);
    for topic in ["p/0", "p/1", "p/2", "p/3", "p/4", "p/5"] {
        flows(near, topic, far, topic);
    }
    flows(far, "probe", near, "probe");
    let (mut there, mut here) = (Witness::at(far, "site/#"), Witness::at(near, "site/#"));
    for from in [near, far] {
        for number in 0..12 {
            publish(from, Publish::new(&format!("site/{number}"), "x").qos(1 + number % 2, 1));
        }
        for witness in [&mut there, &mut here] {
            let mut topics: Vec<String> =
                witness.until_quiet().into_iter().map(|of| of.topic.clone()).collect();
            topics.sort();
            let mut expected: Vec<String> =
                (0..12).map(|number| format!("site/{number}")).collect();
            expected.sort();
            assert_eq!(topics, expected, "{what}");
        }
    }
}

#[test]
fn filters_that_share_topics_are_subscribed_to_by_one_connection() {
    let far = Site::new(ONE_SETUP);
    let rules: String = ["a/#", "b/#", "a/b", "c/#"]
        .iter()
        .map(|filter| format!("[[bridges.in]]\nfilter = {filter:?}\n"))
        .collect();
    let near = Site::new(ONE_SETUP).bridge("far", far.address, &several(2, &rules));
    let (far, near) = (far.start(), near.start());
    connected(&near, 2);
    for topic in ["a/b", "b/x", "c/x"] {
        flows(&far, topic, &near, topic);
    }
    let mut here = Witness::at(&near, "#");
    for topic in ["a/b", "a/c", "b/x", "c/x"] {
        publish(&far, Publish::new(topic, "x").qos(2, 1));
    }
    let mut topics: Vec<_> = here.until_quiet().into_iter().map(|of| of.topic.clone()).collect();
    topics.sort();
    assert_eq!(topics, ["a/b", "a/c", "b/x", "c/x"]);
}

#[test]
fn several_connections_share_a_subscription_if_that_is_asked_for() {
    for version in ["5", "3.1.1"] {
        let far = Site::new(ONE_SETUP);
        let keys =
            format!("version = {version:?}\nshare = \"g\"\n[[bridges.in]]\nfilter = \"a/#\"\n");
        let near = Site::new(ONE_SETUP).bridge("far", far.address, &several(3, &keys));
        let (far, near) = (far.start(), near.start());
        connected(&near, 3);
        logged(&near, "order of messages is lost", 1);
        flows(&far, "a/probe", &near, "a/probe");
        let mut here = Witness::at(&near, "a/#");
        for number in numbers(0..30) {
            publish(&far, Publish::new("a/x", &number).qos(1, 1));
        }
        let mut texts = here.texts(30);
        texts.sort_by_key(|text| text.parse::<u16>().expect("a number"));
        assert_eq!(texts, numbers(0..30), "{version}");
        assert!(here.until_quiet().is_empty(), "{version}");
    }
}

#[test]
fn each_retained_message_goes_over_one_connection() {
    let far = Site::new(ONE_SETUP);
    let near = Site::new(ONE_SETUP).bridge("far", far.address, &several(3, OUT));
    let near = near.start();
    for number in 0..30 {
        publish(&near, Publish::new(&format!("t/{number}"), "x").qos(1, 1).retain());
    }
    // What was published is queued, too.
    logged(&near, "bridge is not connected", 3);
    let far = far.start();
    let mut there = Witness::at(&far, "t/#");
    connected(&near, 3);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for of in there.until_quiet() {
        *counts.entry(of.topic.clone()).or_default() += 1;
    }
    assert_eq!(counts.len(), 30);
    assert!(counts.values().all(|count| *count <= 2), "{counts:?}");
}

/// A broker whose bridge has no far broker yet, with so many connections, and what has been published.
fn waiting(setup: &str, connections: u16) -> (Site, Site, Broker, Numbers) {
    let far = Site::new(setup);
    let site = Site::new(setup).with_store();
    let near = site.start_with(&bridge("far", far.address, &several(connections, OUT)));
    logged(&near, "bridge is not connected", usize::from(connections));
    let mut numbers = Numbers::at(&near);
    numbers.publish(EACH);
    (site, far, near, numbers)
}

/// Starts the far broker. The near one goes on only once somebody is subscribed there.
fn with_witness(far: &Site, near: &Broker) -> (Broker, Witness) {
    near.signal("-STOP");
    let far = far.start();
    let witness = Witness::at(&far, "t/#");
    near.signal("-CONT");
    (far, witness)
}

#[test]
fn a_reload_that_changes_the_number_of_connections_loses_nothing_and_keeps_the_order() {
    let numbers = [(1, 3), (3, 1), (2, 4)];
    let all = numbers.iter().flat_map(|of| [(*of, ONE_SETUP), (*of, "mode = \"poll\"\ncores = 1")]);
    at_once(all, |((before, after), setup)| {
        let (site, far, near, mut numbers) = waiting(setup, before);
        let table = bridge("far", far.address, &several(after, OUT));
        near.reconfigure(&site.text(&table));
        // The sessions of the new connections have what is published from now on, and the former ones no more.
        logged(&near, "\"effect\":\"reconnects\"", 1);
        let (_far, mut there) = with_witness(&far, &near);
        logged(&near, "a former connection of the bridge has sent its queue", usize::from(before));
        numbers.publish(EACH);
        numbers.came_to(&mut there, &format!("{before} {after} {setup}"));
    });
}

#[test]
fn a_restart_with_another_number_of_connections_loses_nothing_and_keeps_the_order() {
    at_once([(1, 3), (3, 1), (2, 4)].into_iter(), |(before, after)| {
        let (site, far, near, mut numbers) = waiting(ONE_SETUP, before);
        drop(near);
        let near = site.start_with(&bridge("far", far.address, &several(after, OUT)));
        logged(&near, "had another number of connections", usize::from(before));
        logged(&near, "bridge is not connected", usize::from(before));
        let mut again = Numbers::at(&near);
        again.next = numbers.next;
        again.publish(EACH);
        numbers.next = again.next;
        let (_far, mut there) = with_witness(&far, &near);
        numbers.came_to(&mut there, &format!("{before} {after}"));
        connected(&near, usize::from(before + after));
    });
}

#[cfg(feature = "admin")]
mod admin {
    use super::*;
    use crate::commands::Near;
    use crate::wait_until;

    #[test]
    fn commands_are_for_all_connections_and_each_of_them_is_shown() {
        at_once(crate::SETUPS.iter().copied(), |setup| {
            let far = Site::new(setup);
            let near = Near::start(Site::new(setup).bridge("far", far.address, &several(3, OUT)));
            let far = far.start();
            near.is_in_state("up");
            near.does("bridge stop far");
            near.is_in_state("stopped");
            let mut numbers = Numbers::at(&near.broker);
            numbers.publish(2);
            let shown = near.shown();
            let of = |key: &str| -> Vec<&serde_json::Value> {
                let all = shown["connections"].as_array().expect("a list");
                all.iter().map(|of| &of[key]).collect()
            };
            assert_eq!(
                of("session"),
                ["$bridge/far/0/3", "$bridge/far/1/3", "$bridge/far/2/3"],
                "{setup}"
            );
            assert_eq!(of("state"), ["stopped"; 3], "{setup}");
            let queued: u64 = of("queued").iter().filter_map(|of| of.as_u64()).sum();
            assert_eq!((shown["queued"].as_u64(), queued), (Some(24), 24), "{setup}");
            assert!(of("queued").iter().all(|of| of.as_u64() > Some(0)), "{setup}: {shown}");
            assert!(near.does("bridge drop-queue far").contains("24"), "{setup}");
            assert_eq!(near.shown()["queued"], 0, "{setup}");
            assert_eq!(near.shown()["dropped_by_operator"], 24, "{setup}");
            near.does("bridge start far");
            near.is_in_state("up");
            near.does("bridge reset-session far");
            wait_until("new sessions", || near.shown()["connects"].as_u64() >= Some(9));
            near.is_in_state("up");
            let mut there = Witness::at(&far, "t/#");
            let mut numbers = Numbers::at(&near.broker);
            numbers.publish(2);
            numbers.came_to(&mut there, setup);
        });
    }

    #[test]
    fn a_bridge_of_which_one_connection_is_refused_is_degraded_and_not_ready() {
        let far = Site::new(ONE_SETUP);
        // Two bridges take the same Client Identifier in turn.
        let taken = "clean_start = true\nclient_identifier = \"n-1\"\n";
        let near = Near::start(Site::new(ONE_SETUP).bridge("far", far.address, &several(2, OUT)));
        let other = Site::new(ONE_SETUP).bridge("other", far.address, &format!("{taken}{OUT}"));
        let (_far, _other) = (far.start(), other.start());
        wait_until("one of two is away", || {
            let shown = near.shown();
            shown["state"] == "degraded"
                && shown["why"].as_str().is_some_and(|why| why.starts_with("connection 1/2: "))
        });
    }

    #[test]
    fn a_bridge_that_is_stopped_stays_so_with_another_number_of_connections() {
        let far = Site::new(ONE_SETUP);
        let table = |connections| bridge("far", far.address, &several(connections, OUT));
        let (near, site) = Near::start_with(Site::new(ONE_SETUP).with_store(), &table(2));
        near.is_in_state("down");
        near.does("bridge stop far");
        let mut numbers = Numbers::at(&near.broker);
        numbers.publish(2);
        near.broker.reconfigure(&site.text(&table(3)));
        let count = || near.shown()["connections"].as_array().map(Vec::len);
        wait_until("all are there", || count() == Some(5));
        near.is_in_state("stopped");
        let far = far.start();
        let mut there = Witness::at(&far, "t/#");
        assert!(there.until_quiet().is_empty());
        near.does("bridge start far");
        numbers.came_to(&mut there, "once it is started");
        wait_until("the former ones have ended", || count() == Some(3));
    }

    #[test]
    fn a_reload_that_drops_queues_ends_former_connections_without_sending_them() {
        let far = Site::new(ONE_SETUP);
        let table = |connections| bridge("far", far.address, &several(connections, OUT));
        let (near, site) = Near::start_with(Site::new(ONE_SETUP).with_store(), &table(2));
        near.is_in_state("down");
        Numbers::at(&near.broker).publish(2);
        near.broker.rewrite(&site.text(&table(3)));
        near.does("reload --drop-queues");
        let sessions = || {
            let shown = near.shown();
            let all = shown["connections"].as_array().expect("a list");
            all.iter()
                .map(|of| of["session"].as_str().expect("text").to_owned())
                .collect::<Vec<_>>()
        };
        wait_until("the former ones have ended", || sessions().iter().all(|of| of.ends_with("/3")));
        assert_eq!(near.shown()["queued"], 0);
        let far = far.start();
        let mut there = Witness::at(&far, "t/#");
        near.is_in_state("up");
        let mut numbers = Numbers::at(&near.broker);
        numbers.publish(2);
        numbers.came_to(&mut there, "after the reload");
    }
}
