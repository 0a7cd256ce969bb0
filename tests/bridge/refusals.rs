//! What a far broker refuses, and what becomes of it.

use std::time::{Duration, Instant};

use crate::far::{Far, Packet, Peer};
use crate::support::{Ack, Broker, Client, Connect, Disconnect, Publish};
use crate::{ONE_SETUP, PATIENCE, SETUPS, Site, Witness, at_once, logged};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";
const IN: &str = "[[bridges.in]]\nfilter = \"a/#\"\n[[bridges.in]]\nfilter = \"b/#\"\n";

fn bridged(setup: &str, far: &Far, more: &str) -> Broker {
    let broker = Site::new(setup).bridge("far", far.address, more).start();
    far.discard();
    broker
}

/// Waits until the state of the bridge is this one; returns its publication.
#[track_caller]
fn state(broker: &Broker, state: &str) -> String {
    let mut states = Witness::at(broker, "$SYS/broker/bridges/far/state");
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "the state is not {state}");
        let text = states.next().text().to_owned();
        if text.contains(&format!("\"state\":\"{state}\"")) {
            return text;
        }
    }
}

/// The next SUBSCRIBE, however many minutes it takes; answers pings before it.
#[track_caller]
fn subscribed(peer: &mut Peer) -> (u16, Vec<(String, u8)>) {
    let until = Instant::now() + 3 * PATIENCE;
    while Instant::now() < until {
        match peer.within(Duration::from_secs(1)) {
            None => {}
            Some(Some(Packet::Pingreq)) => peer.raw(&[0xD0, 0]),
            Some(Some(Packet::Subscribe(identifier, filters))) => return (identifier, filters),
            other => panic!("{other:?} instead of SUBSCRIBE"),
        }
    }
    panic!("no SUBSCRIBE");
}

#[test]
fn a_refused_filter_is_subscribed_to_again_after_a_minute_on_the_same_connection() {
    let far = Far::new();
    let near = bridged(ONE_SETUP, &far, &format!("{OUT}{IN}"));
    let mut peer = far.serve(false, &[]);
    peer.grant(&[2, 0x87]);
    let degraded = state(&near, "degraded");
    assert!(degraded.contains("b/#: 0x87"), "the state names filter and reason: {degraded}");
    let (identifier, filters) = subscribed(&mut peer);
    assert_eq!(filters, [("b/#".to_owned(), 0x1E)], "only what was refused");
    peer.suback(identifier, &[2]);
    state(&near, "up");
    logged(&near, "has granted all subscriptions", 1);
}

#[test]
fn a_refused_password_is_a_state_of_its_own_and_is_tried_again_after_a_second_at_least() {
    let far = Far::new();
    let near =
        Site::new(ONE_SETUP).bridge("far", far.address, &format!("version = \"5\"\n{OUT}")).start();
    for _ in 0..2 {
        let (mut peer, _) = far.accept();
        let refused = Instant::now();
        peer.raw(&[0x20, 3, 0, 0x86, 0]);
        peer.expect_end();
        let (mut peer, _) = far.accept();
        assert!(refused.elapsed() >= Duration::from_secs(1), "{:?}", refused.elapsed());
        let text = state(&near, "refused");
        assert!(text.contains("Bad User Name or Password"), "the state says why: {text}");
        peer.raw(&[0x20, 3, 0, 0x89, 0]);
        peer.expect_end();
        state(&near, "down");
    }
}

#[test]
fn a_client_identifier_that_another_broker_uses_is_a_conflict_and_the_bridge_backs_off() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = bridged(setup, &far, OUT);
        for _ in 0..4 {
            let mut peer = far.serve(true, &[]);
            peer.send(Disconnect::new().reason(0x8E));
            peer.expect_end();
        }
        let conflict = state(&near, "conflict");
        assert!(conflict.contains("aken over"), "{setup}: the state says why: {conflict}");
        logged(&near, "two brokers use one Client Identifier", 1);
        // It tries again.
        far.serve(true, &[]);
    });
}

#[test]
fn a_message_for_which_the_far_broker_has_no_quota_is_sent_again_on_the_next_connection() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = bridged(setup, &far, OUT);
        let mut peer = far.serve(false, &[]);
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        client.publish(Publish::new("t/1", "one").qos(1, 1));
        let one = peer.publish();
        peer.send(Ack::puback(one.id()).reason(0x97));
        peer.expect_end();
        logged(&near, "has refused a message; it is sent again", 1);
        let mut peer = far.serve(true, &[]);
        assert_eq!(peer.publish(), one.clone().dup(), "{setup}");
        peer.send(Ack::puback(one.id()));
        client.publish(Publish::new("t/1", "two").qos(2, 2));
        let two = peer.publish();
        peer.send(Ack::pubrec(two.id()).reason(0x97));
        peer.expect_end();
        let mut peer = far.serve(true, &[]);
        assert_eq!(peer.publish(), two.clone().dup(), "{setup}");
        peer.send(Ack::pubrec(two.id()));
        peer.expect(Ack::pubrel(two.id()));
        peer.send(Ack::pubcomp(two.id()));
    });
}

#[test]
fn the_first_message_that_is_refused_for_a_reason_is_logged_with_its_topic() {
    let far = Far::new();
    let near = bridged(ONE_SETUP, &far, OUT);
    let mut peer = far.serve(false, &[]);
    let mut client = Client::connect(&near, Connect::v5("publisher"));
    for (number, reason) in [0x87, 0x87, 0x90, 0x99].into_iter().enumerate() {
        let topic = format!("t/{number}");
        client.publish(Publish::new(&topic, "x").qos(1, number as u16 + 1));
        let got = peer.publish();
        peer.send(Ack::puback(got.id()).reason(reason));
    }
    logged(&near, "has refused a message; it is dropped", 3);
    let log = near.log();
    for (topic, reason) in [
        ("t/0", "not-authorized"),
        ("t/2", "topic-name-invalid"),
        ("t/3", "payload-format-invalid"),
    ] {
        let is_of = |line: &&str| line.contains("refused a message") && line.contains(topic);
        let line = log.lines().find(is_of).unwrap_or_else(|| panic!("{topic} is not in the log"));
        assert!(line.contains(reason), "{line}");
    }
    assert!(!log.contains("t/1"), "the second one for a reason is counted only");
}
