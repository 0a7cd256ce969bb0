//! Clients of a listener with a mount point: the engine has full topics, the clients know them without it.

use super::*;
use crate::base::metrics::Drop as DropCause;
use crate::config::listener::Listener;
use crate::transport::ListenerPolicy;

/// Listeners: 0 without a mount point, 1 with `site7/`, 2 with `site8/`.
const FULL: u16 = 0;
const SITE7: u16 = 1;
const SITE8: u16 = 2;

fn world() -> World {
    world_with(|_| {}, Box::new(AllowAll))
}

fn world_with(change: impl FnOnce(&mut Settings), access: Box<dyn Access>) -> World {
    let address = "127.0.0.1:1883".parse().expect("an address");
    let at = |mount_point: Option<&str>| {
        let mount_point = mount_point.map(str::to_owned);
        Listener { mount_point, ..Listener::tcp(address) }
    };
    let listeners = vec![at(None), at(Some("site7/")), at(Some("site8/"))];
    let policies: Vec<_> =
        listeners.iter().map(|of| ListenerPolicy::new(of, None).into()).collect();
    let mut world = World::with(
        |settings| {
            settings.listeners = listeners;
            change(settings);
        },
        access,
    );
    world.engine.set_listeners(policies.into());
    world
}

fn connect(world: &mut World, listener: u16, client: &Client<'_>) -> ConnectionId {
    let (id, packets) = try_to_connect(world, listener, client);
    assert!(packets[0].contains("reason: Success"), "{packets:?}");
    id
}

fn try_to_connect(
    world: &mut World,
    listener: u16,
    client: &Client<'_>,
) -> (ConnectionId, Vec<String>) {
    let peer = Peer { address: None, listener };
    let id = world.engine.handle_accepted(world.now, peer).expect("accepted");
    world.received.insert(id, Vec::new());
    world.send_connect(id, client);
    let packets = world.packets(id, client.version);
    (id, packets)
}

/// Connects a client again, and returns the topics of the messages that waited for it.
fn resume(world: &mut World, listener: u16, client: &Client<'_>) -> (ConnectionId, Vec<String>) {
    let (id, packets) = try_to_connect(world, listener, client);
    assert!(packets[0].contains("session_present: true"), "{packets:?}");
    let topic =
        |packet: &String| packet.split("topic: \"").nth(1)?.split('"').next().map(Into::into);
    (id, packets[1..].iter().filter_map(topic).collect())
}

fn topics(world: &mut World, id: ConnectionId) -> Vec<String> {
    world.publishes(id).into_iter().map(|(topic, ..)| topic).collect()
}

fn subscribe(world: &mut World, id: ConnectionId, filter: &str, qos: Qos) -> String {
    world.subscribe(id, filter, qos);
    let packets = world.packets(id, Version::V5);
    packets.into_iter().find(|packet| packet.starts_with("Suback")).expect("an answer")
}

fn drops(world: &mut World, cause: DropCause) -> u64 {
    world.engine.metrics().drops.of(cause)
}

#[test]
fn topics_get_the_mount_point_and_deliveries_have_it_taken_off() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut world = world();
        let full = connect(&mut world, FULL, &Client::v5("full"));
        let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
        let site8 = connect(&mut world, SITE8, &Client::v5("site8"));
        for client in [full, site7, site8] {
            assert!(subscribe(&mut world, client, "#", qos).contains(&u8::from(qos).to_string()));
        }
        world.publish(site7, "a/b", b"x", qos, 1);
        assert_eq!(topics(&mut world, full), ["site7/a/b"]);
        assert_eq!(topics(&mut world, site7), ["a/b"]);
        assert!(topics(&mut world, site8).is_empty());
        world.publish(full, "site8/c", b"x", qos, 1);
        assert_eq!(topics(&mut world, full), ["site8/c"]);
        assert_eq!(topics(&mut world, site8), ["c"]);
        assert!(topics(&mut world, site7).is_empty());
    }
}

#[test]
fn many_subscribers_get_each_their_own_topic() {
    let mut world = world();
    let clients: Vec<(ConnectionId, u16)> = (0..40_u16)
        .map(|number| {
            let listener = number % 2;
            let client = connect(&mut world, listener, &Client::v5(&number.to_string()));
            subscribe(
                &mut world,
                client,
                if listener == FULL { "site7/#" } else { "#" },
                Qos::AtMostOnce,
            );
            (client, listener)
        })
        .collect();
    let publisher = connect(&mut world, SITE7, &Client::v5("publisher"));
    for number in 0..3 {
        world.publish(publisher, &format!("t/{number}"), b"x", Qos::AtMostOnce, 1);
    }
    for (client, listener) in clients {
        let prefix = if listener == FULL { "site7/" } else { "" };
        let expected: Vec<String> = (0..3).map(|number| format!("{prefix}t/{number}")).collect();
        assert_eq!(topics(&mut world, client), expected);
    }
}

#[test]
fn retained_messages_are_found_under_the_short_topic() {
    let mut world = world();
    let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
    let retained = Publish { retain: true, ..publish("state", b"on", Qos::AtLeastOnce, 1) };
    world.send(site7, Version::V5, &Packet::Publish(retained));
    for (listener, filter, topic) in [(FULL, "site7/+", "site7/state"), (SITE7, "+", "state")] {
        let client = connect(&mut world, listener, &Client::v5("late"));
        world.subscribe(client, filter, Qos::AtLeastOnce);
        assert_eq!(topics(&mut world, client), [topic]);
    }
    let site8 = connect(&mut world, SITE8, &Client::v5("site8"));
    world.subscribe(site8, "#", Qos::AtLeastOnce);
    assert!(topics(&mut world, site8).is_empty());
}

#[test]
fn a_will_gets_the_mount_point() {
    let mut world = world();
    let full = connect(&mut world, FULL, &Client::v5("full"));
    subscribe(&mut world, full, "#", Qos::AtMostOnce);
    for version in [Version::V311, Version::V5] {
        let will = wire::Will { topic: "gone", payload: b"bye", ..wire::Will::default() };
        let client = Client { will: Some(will), version, ..Client::v5("with a Will") };
        let client = connect(&mut world, SITE7, &client);
        world.cut(client);
        assert_eq!(topics(&mut world, full), ["site7/gone"]);
    }
}

#[test]
fn a_will_whose_full_topic_is_too_long_is_refused_at_connect() {
    for topic in ["t".repeat(65_530), "t".repeat(65_000)] {
        let is_short = topic.len() < 65_530;
        let mut world = world();
        let will = wire::Will { topic: &topic, ..wire::Will::default() };
        let client = Client { will: Some(will), ..Client::v5("with a Will") };
        let (_, packets) = try_to_connect(&mut world, SITE7, &client);
        let reason = if is_short { "Success" } else { "TopicNameInvalid" };
        assert!(packets[0].contains(reason), "{packets:?}");
    }
}

#[test]
fn unsubscribe_ends_the_subscription_with_the_mount_point() {
    let mut world = world();
    let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
    for filter in ["a/#", "$share/g/a/#"] {
        subscribe(&mut world, site7, filter, Qos::AtMostOnce);
        world.publish(site7, "a/1", b"x", Qos::AtMostOnce, 1);
        assert_eq!(topics(&mut world, site7), ["a/1"]);
        for reason in ["[0]", "[17]"] {
            let filters = [filter];
            let unsubscribe = wire::Unsubscribe {
                packet_identifier: identifier(1),
                user_properties: UserProperties::none(),
                filters: wire::UnsubscribeFilters::list(&filters),
            };
            world.send(site7, Version::V5, &Packet::Unsubscribe(unsubscribe));
            let answer = world.packets(site7, Version::V5);
            assert!(answer[0].contains(&format!("reasons: {reason}")), "{answer:?}");
        }
        world.publish(site7, "a/1", b"x", Qos::AtMostOnce, 1);
        assert!(topics(&mut world, site7).is_empty());
    }
}

#[test]
fn a_shared_subscription_has_the_mount_point_behind_its_name() {
    let mut world = world();
    let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
    let full = connect(&mut world, FULL, &Client::v5("full"));
    subscribe(&mut world, site7, "$share/g/a/+", Qos::AtLeastOnce);
    subscribe(&mut world, full, "$share/g/site7/a/+", Qos::AtLeastOnce);
    for number in 1..=10 {
        world.publish(site7, "a/1", b"x", Qos::AtMostOnce, number);
    }
    let (of_site7, of_full) = (topics(&mut world, site7), topics(&mut world, full));
    assert_eq!(of_site7.len() + of_full.len(), 10, "each message went to one of them");
    assert!(!of_site7.is_empty() && of_site7.iter().all(|topic| topic == "a/1"));
    assert!(!of_full.is_empty() && of_full.iter().all(|topic| topic == "site7/a/1"));
}

#[test]
fn topics_of_the_broker_are_out_of_reach_behind_a_mount_point() {
    let mut world = world_with(|settings| settings.mqtt.sys_interval_s = 1, Box::new(AllowAll));
    let full = connect(&mut world, FULL, &Client::v5("full"));
    let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
    for client in [full, site7] {
        subscribe(&mut world, client, "$SYS/#", Qos::AtMostOnce);
    }
    world.advance_ms(2_500);
    assert!(!topics(&mut world, full).is_empty());
    assert!(topics(&mut world, site7).is_empty());
    world.publish(site7, "$SYS/broker/version", b"mine", Qos::AtMostOnce, 1);
    assert_eq!(topics(&mut world, site7), ["$SYS/broker/version"], "a topic as any other");
}

#[test]
fn a_topic_alias_stands_for_the_full_topic() {
    let mut world = world();
    let full = connect(&mut world, FULL, &Client::v5("full"));
    subscribe(&mut world, full, "#", Qos::AtMostOnce);
    let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
    for topic in ["a/b", "", ""] {
        let mut message = publish(topic, b"x", Qos::AtMostOnce, 1);
        message.properties.topic_alias = Some(3);
        world.send(site7, Version::V5, &Packet::Publish(message));
    }
    assert_eq!(topics(&mut world, full), ["site7/a/b"; 3]);
}

#[test]
fn a_client_that_takes_topic_aliases_is_sent_short_topics() {
    let mut world = world();
    let mut client = Client::v5("site7");
    client.properties.topic_alias_maximum = 10;
    let site7 = connect(&mut world, SITE7, &client);
    subscribe(&mut world, site7, "#", Qos::AtMostOnce);
    for _ in 0..3 {
        world.publish(site7, "a/long/topic", b"x", Qos::AtMostOnce, 1);
    }
    assert_eq!(topics(&mut world, site7), ["a/long/topic"; 3]);
}

#[test]
fn mqtt_3_1_2_24_the_maximum_packet_size_counts_the_short_topic() {
    let mut world = world();
    let mut client = Client::v5("site7");
    // Type, length, length of the topic, three bytes of topic, properties, payload.
    client.properties.maximum_packet_size = Some(2 + 2 + 3 + 1 + 20);
    let site7 = connect(&mut world, SITE7, &client);
    subscribe(&mut world, site7, "#", Qos::AtMostOnce);
    let publisher = connect(&mut world, SITE7, &Client::v5("publisher"));
    world.publish(publisher, "abc", &[0; 20], Qos::AtMostOnce, 1);
    world.publish(publisher, "abc", &[0; 21], Qos::AtMostOnce, 1);
    assert_eq!(topics(&mut world, site7), ["abc"]);
    assert_eq!(drops(&mut world, DropCause::PacketTooLarge), 1);
}

#[test]
fn a_message_whose_full_topic_is_too_long_is_refused_and_the_client_stays() {
    for (bytes_max, levels_max, topic) in
        [(65_535, 200, "t".repeat(65_530)), (100, 200, "t".repeat(95)), (65_535, 3, "a/b/c".into())]
    {
        let limit = |settings: &mut Settings| {
            settings.limits.topic_bytes_max = bytes_max;
            settings.limits.topic_levels_max = levels_max;
        };
        let mut world = world_with(limit, Box::new(AllowAll));
        let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
        let suback = subscribe(&mut world, site7, &topic, Qos::AtMostOnce);
        assert!(suback.contains("[143]"), "{suback}");
        for (qos, answer) in [
            (Qos::AtMostOnce, None),
            (Qos::AtLeastOnce, Some("Puback")),
            (Qos::ExactlyOnce, Some("Pubrec")),
        ] {
            let dropped = drops(&mut world, DropCause::TopicTooLong);
            world.publish(site7, &topic, b"x", qos, 1);
            let packets = world.packets(site7, Version::V5);
            assert_eq!(packets.len(), usize::from(answer.is_some()), "{packets:?}");
            let is_refused = |packet: &String| {
                answer.is_some_and(|answer| packet.starts_with(answer))
                    && packet.contains("TopicNameInvalid")
            };
            assert!(packets.iter().all(is_refused), "{packets:?}");
            assert_eq!(drops(&mut world, DropCause::TopicTooLong), dropped + 1);
            assert!(!world.closed.contains(&site7));
        }
        world.publish(site7, "t", b"x", Qos::AtLeastOnce, 1);
        assert!(world.packets(site7, Version::V5)[0].contains("NoMatchingSubscribers"));
    }
}

#[test]
fn a_mount_point_without_a_slash_leaves_room_for_filters_that_are_valid_behind_it() {
    let mut world = world();
    let listener =
        Listener { mount_point: Some("a".into()), ..Listener::tcp(([127, 0, 0, 1], 1).into()) };
    world.engine.set_listeners([ListenerPolicy::new(&listener, None).into()].into());
    let client = connect(&mut world, 0, &Client::v5("client"));
    for (filter, reason) in
        [("/t", "[0]"), ("b", "[0]"), ("/#", "[0]"), ("#", "[143]"), ("+", "[143]")]
    {
        let suback = subscribe(&mut world, client, filter, Qos::AtMostOnce);
        assert!(suback.contains(reason), "{filter}: {suback}");
    }
    world.publish(client, "b", b"x", Qos::AtMostOnce, 1);
    assert_eq!(topics(&mut world, client), ["b"]);
}

#[test]
fn the_level_above_the_mount_point_is_not_delivered() {
    let mut world = world();
    let full = connect(&mut world, FULL, &Client::v5("full"));
    let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
    subscribe(&mut world, site7, "#", Qos::AtLeastOnce);
    for topic in ["site7", "site7/"] {
        world.publish(full, topic, b"x", Qos::AtLeastOnce, 1);
    }
    assert!(topics(&mut world, site7).is_empty(), "their topics would be empty");
    assert_eq!(drops(&mut world, DropCause::OutsideMountPoint), 2);
}

#[test]
fn a_session_keeps_its_subscriptions_at_another_listener_and_gets_what_is_below_its_mount_point() {
    let mut world = world();
    let publisher = connect(&mut world, FULL, &Client::v5("publisher"));
    let site7 = connect(&mut world, SITE7, &Client::persistent("wanderer"));
    subscribe(&mut world, site7, "t", Qos::AtLeastOnce);
    world.cut(site7);
    world.publish(publisher, "site7/t", b"queued", Qos::AtLeastOnce, 1);
    let (site8, waited) = resume(&mut world, SITE8, &Client::persistent("wanderer"));
    assert!(waited.is_empty(), "the topic is not below site8/: {waited:?}");
    assert_eq!(drops(&mut world, DropCause::OutsideMountPoint), 1);
    subscribe(&mut world, site8, "t", Qos::AtLeastOnce);
    for topic in ["site7/t", "site8/t"] {
        world.publish(publisher, topic, b"x", Qos::AtLeastOnce, 1);
    }
    let seen = world.publishes(site8);
    assert!(seen.len() == 1 && seen[0].0 == "t", "{seen:?}");
    assert_eq!(drops(&mut world, DropCause::OutsideMountPoint), 2);
    world.send(site8, Version::V5, &Packet::Puback(ack(seen[0].3.expect("QoS 1"))));
    world.cut(site8);
    for topic in ["site7/t", "site8/t"] {
        world.publish(publisher, topic, b"x", Qos::AtLeastOnce, 1);
    }
    let (full, waited) = resume(&mut world, FULL, &Client::persistent("wanderer"));
    assert_eq!(waited, ["site7/t", "site8/t"], "nothing is taken off");
    world.publish(full, "site9", b"x", Qos::AtMostOnce, 1);
    subscribe(&mut world, publisher, "#", Qos::AtMostOnce);
    world.publish(full, "site9", b"x", Qos::AtMostOnce, 1);
    assert_eq!(topics(&mut world, publisher), ["site9"], "nothing is put before it");
}

#[test]
fn messages_in_flight_and_queued_are_sent_again_under_the_short_topic() {
    let mut world = world();
    let mut client = Client::persistent("site7");
    client.properties.receive_maximum = Some(1);
    let site7 = connect(&mut world, SITE7, &client);
    subscribe(&mut world, site7, "#", Qos::AtLeastOnce);
    let publisher = connect(&mut world, SITE7, &Client::v5("publisher"));
    for topic in ["a", "b"] {
        world.publish(publisher, topic, &[0; 5_000], Qos::AtLeastOnce, 1);
    }
    assert_eq!(topics(&mut world, site7), ["a"]);
    world.cut(site7);
    let (site7, waited) = resume(&mut world, SITE7, &client);
    assert_eq!(waited, ["a"]);
    world.send(site7, Version::V5, &Packet::Puback(ack(1)));
    assert_eq!(topics(&mut world, site7), ["b"]);
}

/// Rules that see the topics which they are asked about.
#[derive(Default)]
struct Asked(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Access for Asked {
    fn authenticate(&mut self, _: Now, _: u64, _: &Credentials<'_>) -> Authentication {
        Authentication::Granted(Grant::default())
    }

    fn may_publish(&mut self, _: Now, _: &Identity<'_>, topic: &str, _: Qos, _: bool) -> Decision {
        let mut asked = self.0.lock().expect("whole");
        asked.push(topic.to_owned());
        // The first answer comes later.
        let is_known = asked.iter().filter(|of| *of == topic).count() > 1;
        if is_known { Decision::Allowed(()) } else { Decision::Pending }
    }

    fn has_topic_rules(&mut self, _: u64) -> bool {
        true
    }

    fn may_subscribe(&mut self, _: Now, _: &Identity<'_>, filter: &str, qos: Qos) -> Decision<Qos> {
        self.0.lock().expect("whole").push(filter.to_owned());
        Decision::Allowed(qos)
    }

    fn may_unsubscribe(&mut self, _: &Identity<'_>, filter: &str) -> bool {
        self.0.lock().expect("whole").push(filter.to_owned());
        true
    }
}

#[test]
fn rules_are_asked_about_full_topics_also_after_a_decision_that_came_later() {
    let rules = Asked::default();
    let asked = std::sync::Arc::clone(&rules.0);
    let mut world = world_with(|_| {}, Box::new(rules));
    let site7 = connect(&mut world, SITE7, &Client::v5("site7"));
    subscribe(&mut world, site7, "+", Qos::AtMostOnce);
    world.publish(site7, "t", b"x", Qos::AtMostOnce, 1);
    world.engine.continue_decided(site7);
    world.settle();
    assert_eq!(topics(&mut world, site7), ["t"]);
    let asked = asked.lock().expect("whole");
    assert_eq!(*asked, ["site7/+", "site7/t", "site7/t"]);
}
