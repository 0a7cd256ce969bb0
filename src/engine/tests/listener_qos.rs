//! The highest QoS of a listener's clients.

use super::*;
use crate::config::listener::Listener;
use crate::transport::ListenerPolicy;

/// A broker whose first listener has no limit of its own, and whose second has this one.
fn world(maximum_qos: u8) -> World {
    world_with(maximum_qos, |_| {})
}

fn world_with(maximum_qos: u8, others: impl FnOnce(&mut Settings)) -> World {
    let address = "127.0.0.1:1883".parse().expect("an address");
    let free = Listener::tcp(address);
    let limited = Listener { maximum_qos, ..Listener::tcp(address) };
    let change = |settings: &mut Settings| {
        settings.listeners = vec![free.clone(), limited.clone()];
        others(settings);
    };
    let mut world = World::with(change, Box::new(AllowAll));
    let policy = |listener| ListenerPolicy::new(listener, None).into();
    world.engine.set_listeners([policy(&free), policy(&limited)].into());
    world
}

fn connect(world: &mut World, listener: u16, client: &Client<'_>) -> (ConnectionId, Vec<String>) {
    let peer = Peer { address: None, listener };
    let id = world.engine.handle_accepted(world.now, peer).expect("accepted");
    world.received.insert(id, Vec::new());
    world.send_connect(id, client);
    let packets = world.packets(id, client.version);
    (id, packets)
}

#[test]
fn mqtt_3_2_2_9_connack_has_the_maximum_qos_of_the_listener() {
    for (maximum, announced) in [(0, "Some(0)"), (1, "Some(1)"), (2, "None")] {
        let mut world = world(maximum);
        let (_, limited) = connect(&mut world, 1, &Client::v5("limited"));
        assert!(limited[0].contains(&format!("maximum_qos: {announced}")), "{limited:?}");
        let (_, free) = connect(&mut world, 0, &Client::v5("free"));
        assert!(free[0].contains("maximum_qos: None"), "{free:?}");
    }
}

#[test]
fn mqtt_3_2_2_11_publish_beyond_the_maximum_qos_of_the_listener_ends_the_connection() {
    let mut world = world(0);
    let (limited, _) = connect(&mut world, 1, &Client::v5("limited"));
    let (free, _) = connect(&mut world, 0, &Client::v5("free"));
    world.publish(limited, "t", b"x", Qos::AtMostOnce, 1);
    assert!(world.packets(limited, Version::V5).is_empty());
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        world.publish(free, "t", b"x", qos, 1);
        let answer = world.packets(free, Version::V5);
        assert!(answer[0].starts_with("Pub"), "clients of another listener may: {answer:?}");
    }
    world.publish(limited, "t", b"x", Qos::AtLeastOnce, 1);
    let end = world.packets(limited, Version::V5);
    assert!(end[0].contains("QosNotSupported"), "{end:?}");
    assert!(world.closed.contains(&limited) && !world.closed.contains(&free));
}

#[test]
fn publish_beyond_the_maximum_qos_of_the_listener_ends_a_connection_of_3_1_1_without_a_packet() {
    let mut world = world(1);
    let client = Client { version: Version::V311, ..Client::v5("limited") };
    let (limited, _) = connect(&mut world, 1, &client);
    let of = |qos, number| Packet::Publish(publish("t", b"x", qos, number));
    world.send(limited, Version::V311, &of(Qos::AtLeastOnce, 1));
    assert!(world.packets(limited, Version::V311)[0].starts_with("Puback"));
    world.send(limited, Version::V311, &of(Qos::ExactlyOnce, 2));
    assert!(world.packets(limited, Version::V311).is_empty());
    assert!(world.closed.contains(&limited));
}

#[test]
fn subscriptions_are_granted_the_maximum_qos_of_the_listener_at_most() {
    let mut world = world(1);
    for (listener, granted) in [(0, "reasons: [2]"), (1, "reasons: [1]")] {
        let (id, _) = connect(&mut world, listener, &Client::v5(&format!("at {listener}")));
        world.subscribe(id, "t", Qos::ExactlyOnce);
        let suback = world.packets(id, Version::V5);
        assert!(suback[0].contains(granted), "{suback:?}");
    }
}

#[test]
fn mqtt_3_2_2_12_a_will_beyond_the_maximum_qos_of_the_listener_is_refused() {
    let mut world = world(1);
    let mut client = Client::v5("with a Will");
    for (qos, listener, answer) in [
        (Qos::AtLeastOnce, 1, "reason: Success"),
        (Qos::ExactlyOnce, 1, "QosNotSupported"),
        (Qos::ExactlyOnce, 0, "reason: Success"),
    ] {
        client.will = Some(wire::Will { topic: "will", qos, ..wire::Will::default() });
        let (_, connack) = connect(&mut world, listener, &client);
        assert!(connack[0].contains(answer), "{qos:?} at {listener}: {connack:?}");
    }
}

#[test]
fn retain_is_refused_beside_the_maximum_qos_of_another_listener() {
    let mut world = world_with(0, |settings| settings.mqtt.retain_available = false);
    let (free, _) = connect(&mut world, 0, &Client::v5("free"));
    let retained = Publish { retain: true, ..publish("t", b"x", Qos::AtLeastOnce, 1) };
    world.send(free, Version::V5, &Packet::Publish(retained));
    let end = world.packets(free, Version::V5);
    assert!(end[0].contains("RetainNotSupported"), "{end:?}");
}
