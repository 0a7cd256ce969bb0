//! Bridges in circles: the traffic ends.

use std::net::SocketAddr;

use crate::support::{Broker, Connect, Publish};
use crate::{ONE_SETUP, SETUPS, Site, Witness, at_once, connected, flows, free_address, publish};

const OUT: &str = "[[bridges.out]]\nfilter = \"#\"\n";
const IN: &str = "[[bridges.in]]\nfilter = \"#\"\n";

/// Brokers with bridges: from, to, and its keys.
fn brokers(setup: &str, count: usize, bridges: &[(usize, usize, String)]) -> Vec<Broker> {
    let sites: Vec<Site> = (0..count).map(|_| Site::new(setup)).collect();
    let addresses: Vec<SocketAddr> = sites.iter().map(|site| site.address).collect();
    let mut running = Vec::new();
    for (from, mut site) in sites.into_iter().enumerate() {
        for (number, (_, to, more)) in bridges.iter().enumerate().filter(|(_, of)| of.0 == from) {
            let name = format!("bridge-{number}");
            site = site.bridge(&name, addresses[*to], more);
        }
        running.push(site.start());
    }
    for (from, broker) in running.iter().enumerate() {
        connected(broker, bridges.iter().filter(|of| of.0 == from).count());
    }
    for (from, to, _) in bridges.iter().filter(|(.., more)| more.contains(IN)) {
        flows(&running[*to], "probe", &running[*from], "probe");
    }
    running
}

/// Publishes a message at each broker and QoS. Returns how often each broker's subscriber has received each of them,
/// once there is silence.
fn counts(brokers: &[Broker]) -> Vec<Vec<usize>> {
    let mut witnesses: Vec<Witness> = brokers
        .iter()
        .map(|broker| Witness::of(broker, Connect::v5("witness"), "site/#"))
        .collect();
    // What of the probes circulates.
    for broker in brokers {
        Witness::of(broker, Connect::v5("quiet"), "probe").until_quiet();
    }
    for (from, broker) in brokers.iter().enumerate() {
        for qos in 0..=2 {
            let topic = format!("site/{from}/{qos}");
            let of = Publish::new(&topic, "x");
            publish(broker, if qos == 0 { of } else { of.qos(qos, 1) });
        }
    }
    let came: Vec<Vec<Publish>> = witnesses.iter_mut().map(Witness::until_quiet).collect();
    let topics =
        || (0..brokers.len()).flat_map(|of| (0..=2).map(move |qos| format!("site/{of}/{qos}")));
    let count = |came: &Vec<Publish>| {
        topics().map(|topic| came.iter().filter(|of| of.topic == topic).count()).collect()
    };
    came.iter().map(count).collect()
}

#[track_caller]
fn each_once(brokers: &[Broker], what: &str) {
    for (at, counts) in counts(brokers).iter().enumerate() {
        assert!(counts.iter().all(|&count| count == 1), "{what}: at broker {at}: {counts:?}");
    }
}

/// The traffic has ended; each message has reached each broker, and at most `most` times.
#[track_caller]
fn each_at_most(brokers: &[Broker], most: usize, what: &str) {
    for (at, counts) in counts(brokers).iter().enumerate() {
        let is_right = counts.iter().all(|count| (1..=most).contains(count));
        assert!(is_right, "{what}: at broker {at}: {counts:?}");
    }
}

#[test]
fn what_one_bridge_carries_both_ways_reaches_each_broker_once() {
    at_once(crate::versions(&["3.1.1", "3.1"]), |(version, setup)| {
        let both = format!("version = {version:?}\n{OUT}{IN}");
        each_once(&brokers(setup, 2, &[(0, 1, both)]), &format!("{setup} {version}"));
    });
}

#[test]
fn what_comes_back_from_a_broker_that_does_not_know_bridges_reaches_each_broker_once() {
    for setup in [ONE_SETUP, SETUPS[0]] {
        let both = format!("version = \"3.1.1\"\nbridge_bit = false\n{OUT}{IN}");
        each_once(&brokers(setup, 2, &[(0, 1, both.clone())]), setup);
    }
}

#[test]
fn a_ring_of_bridges_in_one_direction_ends_after_one_round() {
    for count in [2, 3] {
        for rules in [OUT, IN] {
            let ring: Vec<_> =
                (0..count).map(|of| (of, (of + 1) % count, rules.to_owned())).collect();
            each_at_most(&brokers(ONE_SETUP, count, &ring), 2, &format!("{count} {rules}"));
        }
    }
}

#[test]
fn two_brokers_that_bridge_everything_to_each_other_both_ways_do_not_loop() {
    let both = format!("{OUT}{IN}");
    at_once(SETUPS.iter().copied(), |setup| {
        let bridges = [(0, 1, both.clone()), (1, 0, both.clone())];
        each_at_most(&brokers(setup, 2, &bridges), 6, setup);
    });
}

#[test]
fn a_triangle_of_bridges_both_ways_does_not_loop() {
    let both = format!("{OUT}{IN}");
    at_once(SETUPS.iter().copied(), |setup| {
        let bridges: Vec<_> = (0..3).map(|of| (of, (of + 1) % 3, both.clone())).collect();
        each_at_most(&brokers(setup, 3, &bridges), 6, setup);
    });
}

#[test]
fn a_star_of_five_bridges_both_ways_reaches_each_broker_once() {
    let both = format!("{OUT}{IN}");
    let bridges: Vec<_> = (1..5).map(|of| (of, 0, both.clone())).collect();
    each_once(&brokers(ONE_SETUP, 5, &bridges), "star");
}

#[test]
fn a_bridge_to_the_broker_itself_does_not_loop() {
    for rules in [OUT.to_owned(), IN.to_owned(), format!("{OUT}{IN}")] {
        for setup in SETUPS {
            each_at_most(&brokers(setup, 1, &[(0, 0, rules.clone())]), 4, &rules);
        }
    }
}

#[test]
fn a_message_that_has_passed_too_many_brokers_goes_no_further() {
    let (a, b, c) = (Site::new(ONE_SETUP), free_address(), Site::new(ONE_SETUP));
    // A chain: from a over b to c. Each may be the second broker, not the third.
    let chain = format!("hops_max = 1\n{IN}");
    let mut b_site = Site::new(ONE_SETUP);
    b_site.address = b;
    let (a_address, c_site) = (a.address, c);
    let out = Site { address: a_address, ..a }.bridge("out", b, OUT);
    let c_site = c_site.bridge("in", b, &chain);
    let (b, a, c) = (b_site.start(), out.start(), c_site.start());
    connected(&a, 1);
    connected(&c, 1);
    flows(&b, "probe", &c, "probe");
    let mut last = Witness::at(&c, "#");
    publish(&a, Publish::new("one", "one hop").qos(1, 1));
    assert_eq!(last.texts(1), ["one hop"]);
    let far = crate::support::Property::user("ringmq-path", "0000000a,0000000b");
    publish(&b, Publish::new("two", "two hops").qos(2, 1).property(far));
    publish(&b, Publish::new("two", "end").qos(1, 1));
    assert_eq!(last.texts(1), ["end"]);
}
