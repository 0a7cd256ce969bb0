//! The limit of payloads.

use super::*;
use crate::base::metrics::Drop as DropCause;

const BYTES_MAX: usize = 10;

fn world() -> World {
    let change = |settings: &mut Settings| settings.limits.payload_bytes_max = BYTES_MAX as u32;
    World::with(change, Box::new(AllowAll))
}

#[test]
fn a_message_with_a_larger_payload_is_refused_and_counted_and_the_client_stays() {
    let mut world = world();
    let [reader, publisher] = ["r", "p"].map(|name| world.connect(&Client::v5(name)));
    world.subscribe(reader, "t", Qos::ExactlyOnce);
    world.packets(reader, Version::V5);
    let (fits, larger) = ([b'x'; BYTES_MAX], [b'y'; BYTES_MAX + 1]);
    for (qos, answer) in [
        (Qos::AtMostOnce, None),
        (Qos::AtLeastOnce, Some("Puback")),
        (Qos::ExactlyOnce, Some("Pubrec")),
    ] {
        let before = world.engine.metrics().drops.of(DropCause::PayloadTooLarge);
        world.publish(publisher, "t", &larger, qos, 1);
        let answers = world.packets(publisher, Version::V5);
        match answer {
            None => assert!(answers.is_empty(), "{answers:?}"),
            Some(name) => assert!(
                answers[0].starts_with(name) && answers[0].contains("ImplementationSpecificError"),
                "{answers:?}"
            ),
        }
        assert!(world.payloads(reader).is_empty(), "{qos:?}");
        assert_eq!(world.engine.metrics().drops.of(DropCause::PayloadTooLarge), before + 1);
        // The identifier is free again.
        world.publish(publisher, "t", &fits, qos, 1);
        let answers = world.packets(publisher, Version::V5);
        assert!(answers.iter().all(|of| of.contains("reason: Success")), "{answers:?}");
        assert_eq!(world.payloads(reader).len(), 1, "{qos:?}");
    }
    assert!(!world.closed.contains(&publisher));
}

#[test]
fn a_client_of_3_1_1_whose_payload_is_too_large_is_acknowledged_and_its_message_dropped() {
    let mut world = world();
    let reader = world.connect(&Client::v5("reader"));
    world.subscribe(reader, "t", Qos::AtLeastOnce);
    let client = Client { version: Version::V311, ..Client::v5("publisher") };
    let publisher = world.connect(&client);
    let large = publish("t", &[b'x'; BYTES_MAX + 1], Qos::AtLeastOnce, 1);
    world.send(publisher, Version::V311, &Packet::Publish(large));
    assert!(world.packets(publisher, Version::V311)[0].starts_with("Puback"));
    assert!(world.payloads(reader).is_empty());
}

#[test]
fn a_retained_message_that_is_too_large_replaces_nothing() {
    let mut world = world();
    let publisher = world.connect(&Client::v5("publisher"));
    for payload in [&b"kept"[..], &[b'x'; BYTES_MAX + 1]] {
        let message = Publish { retain: true, ..publish("t", payload, Qos::AtLeastOnce, 1) };
        world.send(publisher, Version::V5, &Packet::Publish(message));
    }
    let reader = world.connect(&Client::v5("reader"));
    world.subscribe(reader, "t", Qos::AtMostOnce);
    assert_eq!(world.payloads(reader), ["kept"]);
}

#[test]
fn a_client_with_a_will_that_is_too_large_is_refused() {
    for (bytes, answer) in [(BYTES_MAX, "reason: Success"), (BYTES_MAX + 1, "PacketTooLarge")] {
        let mut world = world();
        let payload = vec![b'x'; bytes];
        let will = wire::Will { topic: "w", payload: &payload, ..wire::Will::default() };
        let id = world.accept();
        world.send_connect(id, &Client { will: Some(will), ..Client::v5("mortal") });
        let connack = world.packets(id, Version::V5);
        assert!(connack[0].contains(answer), "{connack:?}");
    }
}

#[test]
fn payloads_of_any_size_are_accepted_without_a_limit() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("publisher"));
    world.publish(publisher, "t", &[b'x'; 1_000_000], Qos::AtLeastOnce, 1);
    assert!(!world.packets(publisher, Version::V5)[0].contains("Error"));
}
