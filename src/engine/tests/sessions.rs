//! Sessions over hours: expiry, Will delay, resumption within a smaller window, shared members.

use super::*;
use crate::wire::Disconnect;

fn will(delay_interval_s: u32) -> wire::Will<'static> {
    wire::Will {
        qos: Qos::AtLeastOnce,
        topic: "will",
        payload: b"gone",
        delay_interval_s,
        ..wire::Will::default()
    }
}

#[test]
fn a_session_ends_when_its_expiry_interval_has_passed_and_not_before() {
    let mut world = World::new();
    let id = world.connect(&Client::persistent("c"));
    world.subscribe(id, "t", Qos::AtLeastOnce);
    world.cut(id);
    world.advance_ms(3_599_000);
    assert_eq!(world.engine.router.index().len(), 1);
    world.advance_ms(1_100);
    assert_eq!((world.engine.router.index().len(), world.engine.sessions.len()), (0, 0));
}

#[test]
fn a_session_in_use_again_does_not_expire() {
    let mut world = World::new();
    let id = world.connect(&Client::persistent("c"));
    world.cut(id);
    world.advance_ms(3_000_000);
    world.connect(&Client::persistent("c"));
    world.advance_ms(10_000_000);
    assert_eq!(world.engine.sessions.len(), 1);
}

#[test]
fn mqtt_3_1_3_9_a_will_waits_for_its_delay_and_is_cancelled_by_a_return() {
    let mut world = World::new();
    let watcher = world.connect(&Client::v5("w"));
    world.subscribe(watcher, "will", Qos::AtLeastOnce);
    let client = Client { will: Some(will(100)), ..Client::persistent("c") };
    let id = world.connect(&client);
    world.cut(id);
    world.advance_ms(99_000);
    assert!(world.payloads(watcher).is_empty());
    let id = world.connect(&client);
    world.advance_ms(500_000);
    assert!(world.payloads(watcher).is_empty());
    world.cut(id);
    world.advance_ms(101_000);
    assert_eq!(world.payloads(watcher), ["gone"]);
}

#[test]
fn mqtt_3_1_3_9_a_delayed_will_is_published_when_the_session_ends_first() {
    let mut world = World::new();
    let watcher = world.connect(&Client::v5("w"));
    world.subscribe(watcher, "will", Qos::AtLeastOnce);
    let mut client = Client { will: Some(will(1_000)), ..Client::persistent("c") };
    client.properties.session_expiry_interval = Some(10);
    let id = world.connect(&client);
    world.cut(id);
    world.advance_ms(11_000);
    assert_eq!(world.payloads(watcher), ["gone"]);
    let id = world.connect(&Client { will: Some(will(1_000)), ..Client::persistent("c") });
    world.cut(id);
    world.connect(&Client::v5("c"));
    assert_eq!(world.payloads(watcher), ["gone"], "Clean Start ends the session");
}

#[test]
fn mqtt_3_14_4_3_a_normal_disconnect_discards_the_will() {
    let mut world = World::new();
    let watcher = world.connect(&Client::v5("w"));
    world.subscribe(watcher, "will", Qos::AtLeastOnce);
    let id = world.connect(&Client { will: Some(will(0)), ..Client::v5("c") });
    let disconnect = Disconnect {
        reason: ReasonCode::Success,
        session_expiry_interval: None,
        reason_string: None,
        user_properties: UserProperties::none(),
        server_reference: None,
    };
    world.send(id, Version::V5, &Packet::Disconnect(disconnect));
    assert!(world.closed.contains(&id) && world.payloads(watcher).is_empty());
}

#[test]
fn mqtt_4_4_0_1_inflight_messages_are_resent_in_order_within_a_smaller_window() {
    let mut world = World::new();
    let consumer = world.connect(&Client::persistent("c"));
    world.subscribe(consumer, "t", Qos::ExactlyOnce);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=6u16 {
        world.publish(publisher, "t", number.to_string().as_bytes(), Qos::ExactlyOnce, number);
    }
    assert_eq!(world.payloads(consumer).len(), 6);
    world.send(consumer, Version::V5, &Packet::Pubrec(ack(2)));
    world.send(consumer, Version::V5, &Packet::Pubrec(ack(3)));
    world.send(consumer, Version::V5, &Packet::Pubcomp(ack(3)));
    world.cut(consumer);
    let mut client = Client::persistent("c");
    client.properties.receive_maximum = Some(2);
    let consumer = world.accept();
    world.send_connect(consumer, &client);
    let packets = world.packets(consumer, Version::V5);
    let order: Vec<&str> = packets.iter().map(|p| &p[..6]).collect();
    // The PUBREL takes its place in the window until its PUBCOMP.
    assert_eq!(order, ["Connac", "Publis", "Pubrel"], "{packets:?}");
    assert!(packets[1].contains("dup: true"));
    world.send(consumer, Version::V5, &Packet::Pubcomp(ack(2)));
    assert_eq!(world.payloads(consumer), ["4"]);
    for number in [1, 4] {
        world.send(consumer, Version::V5, &Packet::Pubrec(ack(number)));
        world.send(consumer, Version::V5, &Packet::Pubcomp(ack(number)));
    }
    assert_eq!(world.payloads(consumer), ["5", "6"]);
}

#[test]
fn message_expiry_counts_down_while_a_message_waits_and_ends_it() {
    let mut world = World::new();
    let consumer = world.connect(&Client::persistent("c"));
    world.subscribe(consumer, "t", Qos::AtLeastOnce);
    world.cut(consumer);
    let publisher = world.connect(&Client::v5("p"));
    for (number, expiry_s) in [(1, 10), (2, 100)] {
        let mut message = publish("t", b"m", Qos::AtLeastOnce, number);
        message.properties.message_expiry_interval = Some(expiry_s);
        world.send(publisher, Version::V5, &Packet::Publish(message));
    }
    world.advance_ms(40_000);
    let consumer = world.accept();
    world.send_connect(consumer, &Client::persistent("c"));
    let packets = world.packets(consumer, Version::V5);
    assert_eq!(packets.len(), 2, "{packets:?}");
    assert!(packets[1].contains("message_expiry_interval: Some(60)"), "{packets:?}");
    assert_eq!(world.engine.metrics().drops.of(crate::base::metrics::Drop::Expired), 1);
}

#[test]
fn mqtt_4_8_2_6_unacknowledged_messages_of_a_leaving_member_go_to_another() {
    let mut world = World::new();
    let first = world.connect(&Client::v5("first"));
    world.subscribe(first, "$share/g/t", Qos::AtLeastOnce);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=4u16 {
        world.publish(publisher, "t", number.to_string().as_bytes(), Qos::AtLeastOnce, number);
    }
    let second = world.connect(&Client::v5("second"));
    world.subscribe(second, "$share/g/t", Qos::AtLeastOnce);
    assert_eq!(world.payloads(first).len(), 4);
    world.send(first, Version::V5, &Packet::Puback(ack(2)));
    world.cut(first);
    assert_eq!(world.payloads(second), ["1", "3", "4"]);
}

#[test]
fn shared_messages_are_distributed_evenly_among_connected_members() {
    let mut world = World::new();
    let members: Vec<ConnectionId> = (0..4)
        .map(|number| {
            let id = world.connect(&Client::persistent(&format!("m{number}")));
            world.subscribe(id, "$share/g/t/#", Qos::AtLeastOnce);
            id
        })
        .collect();
    world.cut(members[1]);
    let publisher = world.connect(&Client::v5("p"));
    for _ in 0..30 {
        world.publish(publisher, "t/x", b"m", Qos::AtMostOnce, 0);
    }
    let counts: Vec<usize> =
        [0, 2, 3].iter().map(|&number| world.payloads(members[number]).len()).collect();
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn a_topic_alias_chosen_by_the_server_stands_for_the_topic_and_not_after_a_reconnect() {
    let mut world = World::new();
    let mut client = Client::persistent("c");
    client.properties.topic_alias_maximum = 1;
    let consumer = world.connect(&client);
    world.subscribe(consumer, "long/topic", Qos::AtLeastOnce);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=2 {
        world.publish(publisher, "long/topic", b"m", Qos::AtLeastOnce, number);
    }
    let topics = |world: &mut World, id| -> Vec<String> {
        world.publishes(id).into_iter().map(|(topic, ..)| topic).collect()
    };
    assert_eq!(topics(&mut world, consumer), ["long/topic", ""]);
    world.cut(consumer);
    let consumer = world.accept();
    world.send_connect(consumer, &client);
    assert_eq!(topics(&mut world, consumer), ["long/topic", ""]);
}

#[test]
fn messages_in_queues_are_counted_as_they_come_and_go() {
    let mut world = World::new();
    let queued = |world: &mut World| world.engine.metrics().messages_queued;
    let publisher = world.connect(&Client::v5("p"));
    let publish = |world: &mut World, topic: &str, count: u16| {
        (0..count).for_each(|n| world.publish(publisher, topic, b"x", Qos::AtLeastOnce, n + 1));
    };
    let away = world.connect(&Client::persistent("away"));
    world.subscribe(away, "t", Qos::AtLeastOnce);
    world.subscribe(away, "$share/g/s", Qos::AtLeastOnce);
    world.cut(away);
    publish(&mut world, "t", 3);
    publish(&mut world, "s", 2);
    assert_eq!(queued(&mut world), 5);
    // Two messages fit into the window; the others stay queued.
    let mut slow = Client::persistent("slow");
    slow.properties.receive_maximum = Some(2);
    let id = world.connect(&slow);
    world.subscribe(id, "u", Qos::AtLeastOnce);
    publish(&mut world, "u", 6);
    assert_eq!(queued(&mut world), 5 + 4);
    world.cut(id);
    world.connect(&Client::persistent("slow"));
    assert_eq!(queued(&mut world), 5);
    // The messages of its own end with the session; those of the group go to another member.
    let member = world.connect(&Client::v5("member"));
    world.subscribe(member, "$share/g/s", Qos::AtLeastOnce);
    world.connect(&Client::v5("away"));
    assert_eq!(world.payloads(member).len(), 2);
    assert_eq!(queued(&mut world), 0);
}

/// Executors know a connection by its slot until the engine asks them to close it.
#[test]
fn a_slot_is_not_reused_before_the_executor_closes_its_socket() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("leaves"));
    let mut bytes = Vec::new();
    Packet::Disconnect(wire::Disconnect::default()).encode(Version::V5, &mut bytes);
    world.engine.handle_received(world.now, id, &bytes);
    // Another connection is accepted in the same turn.
    let next = world.accept();
    assert_ne!(id.slot, next.slot);
    world.settle();
    assert!(world.closed.contains(&id));
    assert_eq!(world.accept().slot, id.slot, "the slot is free by now");
}
