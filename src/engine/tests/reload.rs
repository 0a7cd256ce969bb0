//! Settings that change while clients are connected.

use std::sync::Arc;

use super::*;
use crate::control::{EngineCommand, replies};

impl World {
    /// Hands the engine other settings.
    fn configure(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::default();
        settings.mqtt.sys_interval_s = 0;
        settings.limits.memory_bytes_max = 1 << 30;
        settings.limits.connections_max = 100;
        change(&mut settings);
        let (to, replies) = replies();
        let (settings, reply) = (Arc::new(settings), to.core(0));
        self.engine.handle_command(self.now, EngineCommand::Configure { settings, reply });
        assert_eq!(replies.try_next(), Some((0, Ok(()))));
        self.settle();
    }
}

/// A PUBLISH that uses everything that CONNACK may say is not available.
fn demanding(topic: &str, alias: u16, payload: &[u8], number: u16) -> Packet<'static> {
    let mut publish = publish("", &[], Qos::ExactlyOnce, number);
    publish.retain = true;
    publish.properties.topic_alias = Some(alias);
    publish.topic = topic.to_owned().leak();
    publish.payload = payload.to_vec().leak();
    Packet::Publish(publish)
}

#[test]
fn what_connack_announced_holds_for_a_client_until_it_disconnects() {
    let mut world = World::new();
    let early = world.connect(&Client::v5("early"));
    let lower = |settings: &mut Settings| {
        settings.limits.packet_bytes_max = 128;
        settings.limits.topic_alias_maximum = 1;
        settings.limits.receive_maximum = 1;
        settings.mqtt.maximum_qos = 0;
        settings.mqtt.retain_available = false;
        settings.mqtt.wildcard_subscription_available = false;
        settings.mqtt.shared_subscription_available = false;
    };
    world.configure(lower);
    // A second change does not take away what was announced before the first.
    world.configure(|settings| {
        lower(settings);
        settings.limits.packet_bytes_max = 200;
    });
    for number in 1..=5 {
        world.send(early, Version::V5, &demanding("t", 64, &[b'x'; 1_000], number));
    }
    world.subscribe(early, "a/+", Qos::ExactlyOnce);
    world.subscribe(early, "$share/g/a", Qos::ExactlyOnce);
    let packets = world.packets(early, Version::V5);
    assert_eq!(packets.iter().filter(|of| of.starts_with("Pubrec")).count(), 5, "{packets:?}");
    let subacks: Vec<_> = packets.iter().filter(|of| of.starts_with("Suback")).collect();
    // The QoS of a subscription is granted with SUBACK.
    assert!(
        subacks.len() == 2 && subacks.iter().all(|of| of.contains("reasons: [0]")),
        "{packets:?}"
    );
    assert!(!world.closed.contains(&early));

    let id = world.accept();
    world.send_connect(id, &Client::v5("late"));
    let connack = &world.packets(id, Version::V5)[0];
    for announced in
        ["maximum_qos: Some(0)", "maximum_packet_size: Some(200)", "topic_alias_maximum: Some(1)"]
    {
        assert!(connack.contains(announced), "{connack}");
    }
    world.subscribe(id, "a/+", Qos::AtMostOnce);
    let suback = world.packets(id, Version::V5);
    assert!(suback[0].contains("reasons: [162]"), "{suback:?}");
    world.send(id, Version::V5, &demanding("t", 1, b"", 1));
    let end = world.packets(id, Version::V5);
    assert!(end[0].contains("QosNotSupported"), "{end:?}");
    // The same client is a newcomer when it comes back.
    world.cut(early);
    let again = world.connect(&Client::v5("early"));
    world.send(again, Version::V5, &publish_packet(&[b'x'; 1_000]));
    assert!(world.packets(again, Version::V5)[0].contains("PacketTooLarge"));
}

fn publish_packet(payload: &[u8]) -> Packet<'_> {
    Packet::Publish(publish("t", payload, Qos::AtMostOnce, 0))
}

#[test]
fn any_number_of_changes_takes_nothing_away_from_clients_that_are_connected() {
    let mut world = World::new();
    let early = world.connect(&Client::v5("early"));
    for number in 0..600 {
        world.configure(|settings| settings.limits.packet_bytes_max = 200 + number % 2);
    }
    let late = world.connect(&Client::v5("late"));
    for id in [early, late] {
        world.publish(id, "t", &[b'x'; 150], Qos::AtLeastOnce, 1);
        assert!(world.packets(id, Version::V5)[0].starts_with("Puback"));
    }
    world.publish(early, "t", &[b'x'; 1_000], Qos::AtLeastOnce, 2);
    assert!(world.packets(early, Version::V5)[0].starts_with("Puback"));
}

#[test]
fn lowered_limits_end_nothing_that_exists() {
    let mut world = World::new();
    let away = world.connect(&Client::persistent("away"));
    world.subscribe(away, "t", Qos::AtLeastOnce);
    world.subscribe(away, "u", Qos::AtLeastOnce);
    world.cut(away);
    let publisher = world.connect(&Client::v5("publisher"));
    for number in 1..=10 {
        world.publish(publisher, "t", b"kept", Qos::AtLeastOnce, number);
    }
    world.configure(|settings| {
        settings.limits.queue_messages_max = 3;
        settings.limits.sessions_max = 1;
        settings.limits.subscriptions_per_client_max = 1;
        settings.limits.connections_max = 1;
    });
    world.publish(publisher, "t", b"dropped", Qos::AtLeastOnce, 11);
    let refused = world.accept();
    world.send_connect(refused, &Client::v5("new"));
    let connack = world.packets(refused, Version::V5);
    assert!(connack[0].contains("QuotaExceeded"), "{connack:?}");
    assert!(!world.closed.contains(&publisher));
    world.configure(|_| {});
    let back = world.accept();
    world.send_connect(back, &Client::persistent("away"));
    assert_eq!(world.payloads(back), ["kept"; 10]);
}

#[test]
fn retained_messages_stay_when_their_limit_is_lowered() {
    let mut world = World::new();
    let client = world.connect(&Client::v5("a"));
    let retain = |world: &mut World, topic: &'static str, number| {
        let mut publish = publish(topic, b"x", Qos::AtLeastOnce, number);
        publish.retain = true;
        world.send(client, Version::V5, &Packet::Publish(publish));
        world.packets(client, Version::V5).remove(0)
    };
    assert!(!retain(&mut world, "a", 1).contains("QuotaExceeded"));
    assert!(!retain(&mut world, "b", 2).contains("QuotaExceeded"));
    world.configure(|settings| settings.limits.retained_messages_max = 1);
    assert!(retain(&mut world, "c", 3).contains("QuotaExceeded"));
    let reader = world.connect(&Client::v5("reader"));
    world.subscribe(reader, "#", Qos::AtMostOnce);
    assert_eq!(world.publishes(reader).len(), 2);
    world.configure(|settings| settings.limits.retained_messages_max = 3);
    assert!(!retain(&mut world, "c", 4).contains("QuotaExceeded"));
}

#[test]
fn a_time_limit_that_is_removed_ends_no_packet_that_has_begun() {
    let mut world = World::with(|of| of.protection.packet_timeout_s = 10, Box::new(AllowAll));
    let client = world.connect(&Client::v5("slow"));
    world.engine.handle_received(world.now, client, &[0x30, 10]);
    world.settle();
    world.configure(|settings| settings.protection.packet_timeout_s = 0);
    world.advance_ms(60_000);
    assert!(!world.closed.contains(&client));
    // The limit holds for packets that begin later.
    world.engine.handle_received(world.now, client, &[0, 1, b't', 0, 0, 0, 0, 0, 0, 0]);
    world.settle();
    world.configure(|settings| settings.protection.packet_timeout_s = 10);
    world.engine.handle_received(world.now, client, &[0x30, 10]);
    world.settle();
    world.advance_ms(60_000);
    world.advance_ms(60_000);
    assert!(world.closed.contains(&client));
}

#[test]
fn sys_topics_begin_change_their_interval_and_end() {
    let mut world = World::new();
    let reader = world.connect(&Client::v5("reader"));
    world.subscribe(reader, "$SYS/broker/uptime", Qos::AtMostOnce);
    let shown = |world: &mut World| {
        world.advance_ms(100);
        world.payloads(reader)
    };
    world.advance_ms(100_000);
    assert!(shown(&mut world).is_empty());
    world.configure(|settings| settings.mqtt.sys_interval_s = 1_000);
    assert_eq!(shown(&mut world).len(), 1);
    world.advance_ms(10_000);
    assert!(shown(&mut world).is_empty());
    world.configure(|settings| settings.mqtt.sys_interval_s = 5);
    assert_eq!(shown(&mut world).len(), 1);
    for _ in 0..4 {
        world.advance_ms(5_000);
        assert_eq!(shown(&mut world).len(), 1);
    }
    world.configure(|settings| settings.mqtt.sys_interval_s = 0);
    assert_eq!(shown(&mut world), [""], "the topic is removed");
    world.advance_ms(2_000_000);
    assert!(shown(&mut world).is_empty());
    let late = world.connect(&Client::v5("late"));
    world.subscribe(late, "$SYS/#", Qos::AtMostOnce);
    assert!(world.payloads(late).is_empty());
}
