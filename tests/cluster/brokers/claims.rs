//! One session a Client Identifier in the whole cluster.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::support::{V5, V311};

use super::*;

/// "Session taken over".
const TAKEN_OVER: u8 = 0x8E;

impl Nodes {
    /// Connects to a node; whether the session was present.
    fn enter(&self, node: usize, connect: Connect) -> (Client, bool) {
        let client = Client::connect(&self.brokers[node], connect);
        let is_present = client.connack.session_present;
        (client, is_present)
    }
}

#[test]
fn a_client_that_connects_to_another_node_is_disconnected_from_the_first_and_clean_start_ends_its_session()
 {
    let _alone = alone();
    let Some(nodes) = Nodes::start("claims") else { return };
    for version in [V5, V311] {
        let connect = || Connect::new(version, "roaming");
        let (mut first, _) = nodes.enter(0, connect().durable());
        first.subscribe("t", 1);
        let (mut second, is_present) = nodes.enter(1, connect());
        assert!(!is_present);
        first.expect_violation(TAKEN_OVER);
        // Without a session at the second node either: nothing is left of the first.
        let (mut third, is_present) = nodes.enter(0, connect().resume());
        assert!(!is_present);
        second.expect_violation(TAKEN_OVER);
        nodes.client(2, "publisher").publish(Publish::new("t", "nobody's").qos(1, 1));
        third.expect_alive();
        third.disconnect();
        let (clean, _) = nodes.enter(0, connect());
        clean.disconnect();
    }
}

#[test]
fn a_kept_session_moves_to_the_node_of_its_client_with_what_waits_in_it() {
    let _alone = alone();
    let Some(nodes) = Nodes::start("moves") else { return };
    let connect = || Connect::v5("roaming").durable();
    let (mut client, _) = nodes.enter(0, connect());
    client.subscribe("t", 2);
    client.disconnect();
    let numbers = (1..601).filter(|number| number % 3 != 0);
    let mut publisher = nodes.client(1, "publisher");
    for number in numbers.clone() {
        let publish = Publish::new("t", number.to_string());
        publisher.publish(publish.qos((number % 3) as u8, number));
    }
    let (mut client, is_present) = nodes.enter(2, connect());
    assert!(is_present);
    let mut got = Vec::new();
    for _ in numbers.clone() {
        let publish = client.expect_publish();
        client.acknowledge(&publish);
        got.push(publish);
    }
    let (all, got) = (expected(1..601), by_qos(&got));
    assert_eq!((&got[1], &got[2]), (&all[1], &all[2]));
    // Its subscription is at the third node now, and nothing is left at the first.
    publisher.publish(Publish::new("t", "after").qos(1, 1));
    client.expect_message("after");
    client.disconnect();
    let (_, is_present) = nodes.enter(2, connect());
    assert!(is_present);
}

#[test]
fn a_client_that_is_sent_from_node_to_node_under_load_gets_each_message() {
    let _alone = alone();
    let Some(nodes) = Nodes::start("roaming") else { return };
    let connect = || Connect::v5("roaming").durable();
    let (mut client, _) = nodes.enter(0, connect());
    client.subscribe("t", 1);
    let is_over = AtomicBool::new(false);
    let (mut got, mut moves) = (Vec::new(), 0);
    let mut take = |client: &mut Client, patience| {
        let Some(Packet::Publish(publish)) = client.receive_within(patience) else { return false };
        client.send(crate::support::Ack::puback(publish.id()));
        got.push(publish.text().parse::<u16>().expect("a number"));
        true
    };
    let published = std::thread::scope(|scope| {
        let mut publisher = nodes.client(1, "publisher");
        let publishing = scope.spawn({
            let is_over = &is_over;
            move || {
                let mut number = 0;
                while !is_over.load(Relaxed) && number < u16::MAX {
                    number += 1;
                    publisher.publish(Publish::new("t", number.to_string()).qos(1, number));
                }
                number
            }
        });
        while moves < 12 {
            for _ in 0..50 {
                take(&mut client, Duration::from_secs(10));
            }
            moves += 1;
            let (next, is_present) = nodes.enter(moves % 3, connect());
            assert!(is_present, "after {moves} moves");
            client = next;
        }
        is_over.store(true, Relaxed);
        publishing.join().expect("it publishes")
    });
    while take(&mut client, Duration::from_secs(2)) {}
    let mut seen = vec![false; usize::from(published) + 1];
    let first: Vec<u16> = got
        .iter()
        .copied()
        .filter(|&of| !std::mem::replace(&mut seen[usize::from(of)], true))
        .collect();
    assert_eq!(first, (1..=published).collect::<Vec<u16>>(), "each, and the first in order");
}
