//! 4.8: subscriptions, mainly shared ones.

use crate::support::{
    Ack, Broker, Client, Connect, Disconnect, Packet, Property, Publish, Suback, Subscribe,
    Unsuback, Unsubscribe, V5, V311, Version, for_versions, property, reason, settle,
};

fn client(broker: &Broker, name: &str) -> Client {
    Client::connect(broker, Connect::v5(name))
}

/// A member of a shared subscription, in any version.
#[track_caller]
fn member(broker: &Broker, version: Version, name: &str, filter: &str, qos: u8) -> Client {
    let mut member = Client::connect(broker, Connect::new(version, name));
    member.subscribe(filter, qos);
    member
}

/// Publishes `payloads` in order; on return they have been routed.
#[track_caller]
fn publish(broker: &Broker, topic: &str, qos: u8, payloads: &[&str]) {
    let mut publisher = client(broker, "publisher");
    for payload in payloads {
        publisher.publish(match qos {
            0 => Publish::new(topic, payload),
            qos => Publish::new(topic, payload).qos(qos, 1),
        });
    }
    publisher.expect_alive();
}

/// The messages received so far, each answered as its QoS requires except for the last step of QoS
/// 2.
#[track_caller]
fn received(client: &mut Client) -> Vec<Publish> {
    settle();
    client.raw(&[0xC0, 0x00]);
    let mut received = Vec::new();
    loop {
        match client.receive() {
            Packet::Pingresp => return received,
            Packet::Publish(publish) => {
                match publish.qos {
                    0 => {}
                    1 => client.send(Ack::puback(publish.id())),
                    _ => client.send(Ack::pubrec(publish.id())),
                }
                received.push(publish);
            }
            Packet::Ack(ack) if ack.kind == 6 => client.send(Ack::pubcomp(ack.packet_identifier)),
            other => panic!("{other:?}"),
        }
    }
}

fn texts(received: &[Publish]) -> Vec<&str> {
    received.iter().map(Publish::text).collect()
}

#[test]
fn mqtt_4_8_2_1_a_share_without_a_name_ends_the_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        for filter in ["$share/", "$share//", "$share//a", "$share///"] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.send(Subscribe::new(1, filter, 0));
            client.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_4_8_2_1_a_filter_with_another_prefix_is_not_shared() {
    let broker = Broker::start();
    for filter in ["$share", "$shared/g/a", "$SHARE/g/a", "share/g/a", "/$share/g/a"] {
        let mut first = member(&broker, V5, "first", filter, 0);
        let mut second = member(&broker, V5, "second", filter, 0);
        publish(&broker, filter, 0, &["m"]);
        first.expect_message("m");
        second.expect_message("m");
        publish(&broker, "a", 0, &["m"]);
        first.expect_alive();
    }
}

#[test]
fn mqtt_4_8_2_2_a_share_name_with_a_wildcard_or_without_a_filter_ends_the_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        for filter in [
            "$share/g",
            "$share/g/",
            "$share/+/a",
            "$share/#/a",
            "$share/g+/a",
            "$share/g#/a",
            "$share/#",
            "$share/+",
            "$share/g/a#",
            "$share/g/+a",
        ] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.send(Subscribe::new(1, filter, 0));
            client.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_4_8_2_2_any_filter_may_follow_the_share_name() {
    for_versions(|version| {
        let broker = Broker::start();
        let cases = [
            ("$share/g/a", "a"),
            ("$share/g//", "/"),
            ("$share/g//a", "/a"),
            ("$share/g/+", "b"),
            ("$share/a b/c/#", "c"),
            ("$share/$g/$d/#", "$d/e"),
            ("$share/é/f/+/#", "f/g/h"),
        ];
        for (filter, topic) in cases {
            let mut member = member(&broker, version, filter, filter, 0);
            publish(&broker, topic, 0, &["m"]);
            member.expect_message("m");
            member.disconnect();
        }
    });
}

#[test]
fn mqtt_4_8_2_3_each_member_receives_messages_at_its_own_qos() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut members =
            [0, 1, 2].map(|qos| member(&broker, version, &format!("m{qos}"), "$share/g/a", qos));
        for published in 0..=2_u8 {
            publish(&broker, "a", published, &["1", "2", "3"]);
            for (granted, member) in (0..).zip(&mut members) {
                let received = received(member);
                assert_eq!(received.len(), 1, "{received:?}");
                assert_eq!(received[0].qos, published.min(granted));
                // The end of the QoS 2 exchange may still be in transit.
                assert_eq!(self::received(member), []);
            }
        }
    });
}

/// A member that has received the only message at QoS 2 and not acknowledged it, and a second
/// member. The first member's session outlives its connection.
fn started_at_qos_2(broker: &Broker, expiry_s: u32) -> (Client, Publish, Client) {
    let mut first = Client::connect(broker, Connect::v5("first").expiry(expiry_s));
    first.subscribe("$share/g/a", 2);
    publish(broker, "a", 2, &["m"]);
    let message = first.expect_publish();
    assert_eq!(message.qos, 2);
    let second = member(broker, V5, "second", "$share/g/a", 2);
    (first, message, second)
}

#[test]
fn mqtt_4_8_2_4_a_qos_2_delivery_is_completed_when_the_member_reconnects() {
    let broker = Broker::start();
    // Interrupted after PUBLISH, and after PUBREL.
    for is_received in [false, true] {
        let (mut first, message, mut second) = started_at_qos_2(&broker, 300);
        if is_received {
            first.send(Ack::pubrec(message.id()));
            first.expect(Ack::pubrel(message.id()));
        }
        first.vanish();
        second.expect_alive();
        let mut first = Client::connect(&broker, Connect::v5("first").durable());
        assert!(first.connack.session_present);
        if is_received {
            first.expect(Ack::pubrel(message.id()));
            first.send(Ack::pubcomp(message.id()));
        } else {
            first.expect(message.clone().dup());
            first.acknowledge(&message);
        }
        first.expect_alive();
        second.expect_alive();
        first.disconnect_with(Disconnect::new().property(Property::SessionExpiryInterval(0)));
    }
}

#[test]
fn mqtt_4_8_2_5_a_qos_2_delivery_ends_with_the_members_session() {
    let broker = Broker::start();
    // The session ends with the connection.
    let (first, _, mut second) = started_at_qos_2(&broker, 0);
    first.vanish();
    second.expect_alive();
    second.disconnect();
    // The session ends because the client starts a new one.
    let (first, _, mut second) = started_at_qos_2(&broker, 300);
    first.vanish();
    client(&broker, "first").expect_alive();
    second.expect_alive();
    second.disconnect();
    // The session ends because its Session Expiry Interval passes.
    let (first, _, mut second) = started_at_qos_2(&broker, 1);
    first.vanish();
    second.expect_silence(std::time::Duration::from_millis(1500));
}

#[test]
fn mqtt_4_8_2_6_a_message_refused_by_a_member_is_not_sent_to_another() {
    let broker = Broker::start();
    let mut members = ["first", "second"].map(|name| member(&broker, V5, name, "$share/g/a", 2));
    for (qos, code) in [(1, 0x80), (1, 0x97), (2, 0x80), (2, 0x99)] {
        publish(&broker, "a", qos, &["m", "n"]);
        for member in &mut members {
            let message = member.expect_publish();
            let ack = if qos == 1 { Ack::puback } else { Ack::pubrec };
            member.send(ack(message.id()).reason(code));
        }
        for member in &mut members {
            member.expect_alive();
        }
    }
    // Nor when the member that refused the message leaves.
    let [first, mut second] = members;
    first.disconnect();
    second.expect_alive();
}

#[test]
fn messages_are_distributed_round_robin() {
    for_versions(|version| {
        for qos in 0..=2 {
            let broker = Broker::start();
            let mut members =
                ["a", "b", "c"].map(|name| member(&broker, version, name, "$share/g/t/+", qos));
            let payloads: Vec<String> = (0..30).map(|number| format!("{number}")).collect();
            let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
            publish(&broker, "t/1", qos, &payloads);
            let mut all = Vec::new();
            for member in &mut members {
                let received = received(member);
                assert_eq!(received.len(), 10, "{:?}", texts(&received));
                let numbers: Vec<u32> =
                    texts(&received).iter().map(|text| text.parse().expect("a number")).collect();
                assert!(numbers.is_sorted(), "{numbers:?}");
                all.extend(numbers);
            }
            all.sort();
            assert_eq!(all, (0..30).collect::<Vec<_>>());
        }
    });
}

#[test]
fn members_of_different_protocol_versions_share_messages() {
    let broker = Broker::start();
    let mut members = [V311, V5]
        .map(|version| member(&broker, version, &format!("{version:?}"), "$share/g/a", 1));
    publish(&broker, "a", 1, &["1", "2", "3", "4"]);
    for member in &mut members {
        assert_eq!(received(member).len(), 2);
    }
}

#[test]
fn each_group_and_each_ordinary_subscription_receives_a_copy() {
    for_versions(|version| {
        let broker = Broker::start();
        let new = |name, filter| member(&broker, version, name, filter, 1);
        let mut group_1 = [new("1a", "$share/g1/a"), new("1b", "$share/g1/a")];
        let mut group_2 = [new("2a", "$share/g2/a"), new("2b", "$share/g2/a")];
        // The same ShareName with another filter is another group.
        let mut other = new("3", "$share/g1/+");
        let mut normal = new("4", "a");
        publish(&broker, "a", 1, &["1", "2", "3", "4"]);
        for group in [&mut group_1, &mut group_2] {
            let mut all = Vec::new();
            for member in group {
                let received = received(member);
                assert_eq!(received.len(), 2);
                all.extend(texts(&received).into_iter().map(str::to_owned));
            }
            all.sort();
            assert_eq!(all, ["1", "2", "3", "4"]);
        }
        assert_eq!(texts(&received(&mut other)), ["1", "2", "3", "4"]);
        assert_eq!(texts(&received(&mut normal)), ["1", "2", "3", "4"]);
    });
}

#[test]
fn a_client_receives_copies_for_its_shared_and_its_ordinary_subscription() {
    let broker = Broker::start();
    let mut both = client(&broker, "both");
    for (identifier, filter) in [(1, "a"), (2, "$share/g/a"), (3, "+")] {
        let identifier = Property::SubscriptionIdentifier(identifier);
        both.send(Subscribe::new(1, filter, 0).property(identifier));
        both.expect(Suback::new(1, &[0]));
    }
    publish(&broker, "a", 0, &["m"]);
    let mut got: Vec<Vec<Property>> =
        received(&mut both).into_iter().map(|publish| publish.properties).collect();
    got.sort_by_key(Vec::len);
    let identifier = Property::SubscriptionIdentifier;
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(got[0], [identifier(2)]);
    assert!(got[1].contains(&identifier(1)) && got[1].contains(&identifier(3)), "{got:?}");
}

#[test]
fn a_member_that_subscribes_again_replaces_its_options() {
    let broker = Broker::start();
    let mut first = member(&broker, V5, "first", "$share/g/a", 0);
    let mut second = member(&broker, V5, "second", "$share/g/a", 0);
    first.subscribe("$share/g/a", 1);
    first.send(Subscribe::new(1, "$share/g/a", 1).property(Property::SubscriptionIdentifier(7)));
    first.expect(Suback::new(1, &[1]));
    publish(&broker, "a", 1, &["1", "2", "3", "4"]);
    let of_first = received(&mut first);
    assert_eq!(of_first.len(), 2);
    for publish in &of_first {
        assert_eq!(publish.qos, 1);
        assert_eq!(property!(publish.properties, SubscriptionIdentifier), Some(7));
    }
    assert_eq!(received(&mut second).len(), 2);
}

#[test]
fn retained_messages_are_not_sent_to_shared_subscriptions() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut publisher = client(&broker, "publisher");
        publisher.publish(Publish::new("a", "kept").qos(1, 1).retain());
        let mut member = Client::connect(&broker, Connect::new(version, "member"));
        let retain_handlings: &[u8] = if version == V5 { &[0x00, 0x10, 0x20] } else { &[0] };
        for handling in retain_handlings {
            for filter in ["$share/g/a", "$share/g/#", "$share/g/a"] {
                member.subscribe(filter, *handling);
                member.expect_alive();
            }
            member.send(Unsubscribe::new(1, "$share/g/a").and("$share/g/#"));
            member.receive();
        }
        // An ordinary subscription of the same client receives them.
        member.subscribe("a", 0);
        member.expect_message("kept");
    });
}

#[test]
fn retain_as_published_applies_to_members() {
    let broker = Broker::start();
    let mut member = client(&broker, "member");
    let mut publisher = client(&broker, "publisher");
    for (options, retain) in [(0x00, false), (0x08, true)] {
        member.subscribe("$share/g/a", options);
        publisher.publish(Publish::new("a", "m").qos(1, 1).retain());
        assert_eq!(member.expect_publish().retain, retain);
    }
}

#[test]
fn a_leading_wildcard_of_a_shared_subscription_does_not_match_dollar_topics() {
    let broker = Broker::start();
    let mut member = client(&broker, "member");
    for filter in ["$share/g/#", "$share/g/+/b"] {
        member.subscribe(filter, 0);
    }
    publish(&broker, "$a/b", 0, &["m"]);
    member.expect_alive();
    member.subscribe("$share/g/$a/#", 0);
    publish(&broker, "$a/b", 0, &["m"]);
    member.expect_message("m");
}

#[test]
fn a_member_that_unsubscribes_leaves_the_group() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut first = member(&broker, version, "first", "$share/g/a", 1);
        let mut second = member(&broker, version, "second", "$share/g/a", 1);
        // The full text, with ShareName, identifies the subscription.
        first.send(Unsubscribe::new(1, "a").and("$share/h/a").and("$share/g/+"));
        let none = [reason::NO_SUBSCRIPTION_EXISTED; 3];
        first.expect(Unsuback::new(1, if version == V5 { &none } else { &[] }));
        first.send(Unsubscribe::new(2, "$share/g/a"));
        first.expect(Unsuback::new(2, if version == V5 { &[0] } else { &[] }));
        publish(&broker, "a", 1, &["1", "2", "3"]);
        assert_eq!(texts(&received(&mut second)), ["1", "2", "3"]);
        first.expect_alive();
        second.send(Unsubscribe::new(2, "$share/g/a"));
        second.receive();
        publish(&broker, "a", 1, &["to nobody"]);
        second.expect_alive();
    });
}

#[test]
fn a_member_that_disconnects_without_a_session_leaves_the_group() {
    for_versions(|version| {
        let broker = Broker::start();
        let first = member(&broker, version, "first", "$share/g/a", 1);
        let mut second = member(&broker, version, "second", "$share/g/a", 1);
        first.disconnect();
        settle();
        publish(&broker, "a", 0, &["1", "2", "3"]);
        assert_eq!(texts(&received(&mut second)), ["1", "2", "3"]);
    });
}

#[test]
fn unacknowledged_qos_1_messages_move_to_another_member_when_the_session_ends() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut first = member(&broker, version, "first", "$share/g/a", 1);
        publish(&broker, "a", 1, &["1", "2", "3"]);
        let received_first = first.expect_publish();
        assert_eq!(received_first.text(), "1");
        first.send(Ack::puback(received_first.id()));
        expect_unanswered(&mut first, "2");
        expect_unanswered(&mut first, "3");
        let mut second = member(&broker, version, "second", "$share/g/a", 1);
        second.expect_alive();
        first.vanish();
        // A new delivery, without DUP.
        for payload in ["2", "3"] {
            let publish = second.expect_message(payload);
            assert_eq!((publish.qos, publish.dup), (1, false));
        }
        second.expect_alive();
    });
}

#[track_caller]
fn expect_unanswered(client: &mut Client, payload: &str) {
    assert_eq!(client.expect_publish().text(), payload);
}

/// A member with a Receive Maximum of 1 that has received "1", with "2" and "3" queued.
fn with_waiting(broker: &Broker, expiry_s: u32) -> (Client, u16) {
    let connect = Connect::v5("first").expiry(expiry_s).property(Property::ReceiveMaximum(1));
    let mut first = Client::connect(broker, connect);
    first.subscribe("$share/g/a", 1);
    publish(broker, "a", 1, &["1", "2", "3"]);
    let message = first.expect_publish();
    assert_eq!(message.text(), "1");
    first.expect_alive();
    (first, message.id())
}

#[test]
fn queued_messages_move_to_another_member_when_the_session_ends() {
    let broker = Broker::start();
    let (first, _) = with_waiting(&broker, 0);
    let mut second = member(&broker, V5, "second", "$share/g/a", 1);
    first.disconnect();
    for payload in ["1", "2", "3"] {
        second.expect_message(payload);
    }
    second.expect_alive();
}

#[test]
fn queued_messages_move_to_another_member_on_unsubscribe() {
    let broker = Broker::start();
    let (mut first, id) = with_waiting(&broker, 0);
    let mut second = member(&broker, V5, "second", "$share/g/a", 1);
    first.send(Unsubscribe::new(9, "$share/g/a"));
    first.expect(Unsuback::new(9, &[0]));
    // Started deliveries are completed [MQTT-3.10.4-3]; another member takes over the queued
    // messages.
    second.expect_message("2");
    second.expect_message("3");
    first.send(Ack::puback(id));
    first.expect_alive();
    second.expect_alive();
}

#[test]
fn queued_messages_move_to_a_disconnected_member_if_no_other_is_connected() {
    let broker = Broker::start();
    let away = Connect::v5("away").durable();
    let mut second = Client::connect(&broker, away.clone());
    let (first, _) = with_waiting(&broker, 0);
    second.subscribe("$share/g/a", 1);
    second.disconnect();
    // The session ends, and no member is connected.
    first.disconnect();
    let mut second = Client::connect(&broker, away);
    for payload in ["1", "2", "3"] {
        second.expect_message(payload);
    }
    second.expect_alive();
}

#[test]
fn queued_messages_are_not_moved_to_a_later_group() {
    let broker = Broker::start();
    let (mut first, _) = with_waiting(&broker, 0);
    // There are no other members: the queued messages stay, and the group ends.
    first.send(Unsubscribe::new(9, "$share/g/a"));
    first.expect(Unsuback::new(9, &[0]));
    let mut stranger = member(&broker, V5, "stranger", "$share/other/b", 1);
    stranger.subscribe("$share/another/c", 1);
    first.disconnect();
    stranger.expect_alive();
}

#[test]
fn connected_members_are_preferred() {
    for_versions(|version| {
        let broker = Broker::start();
        let away = Connect::new(version, "away").durable();
        let mut first = Client::connect(&broker, away.clone());
        first.subscribe("$share/g/a", 1);
        first.disconnect();
        let mut second = member(&broker, version, "second", "$share/g/a", 1);
        publish(&broker, "a", 1, &["1", "2", "3", "4"]);
        assert_eq!(texts(&received(&mut second)), ["1", "2", "3", "4"]);
        // Messages are queued for a disconnected member if it is the only one.
        second.disconnect();
        settle();
        publish(&broker, "a", 1, &["5", "6"]);
        publish(&broker, "a", 0, &["QoS 0 is for connected members"]);
        let mut first = Client::connect(&broker, away);
        first.expect_message("5");
        first.expect_message("6");
        first.expect_alive();
    });
}

#[test]
fn messages_beyond_a_members_receive_maximum_go_to_other_members() {
    let broker = Broker::start();
    let connect = Connect::v5("slow").property(Property::ReceiveMaximum(1));
    let mut slow = Client::connect(&broker, connect);
    slow.subscribe("$share/g/a", 1);
    let mut fast = member(&broker, V5, "fast", "$share/g/a", 1);
    publish(&broker, "a", 1, &["1", "2", "3", "4", "5", "6"]);
    let one = slow.expect_publish();
    let others = received(&mut fast);
    let mut all = texts(&others);
    assert_eq!(all.len(), 5, "{all:?}");
    all.push(one.text());
    all.sort();
    assert_eq!(all, ["1", "2", "3", "4", "5", "6"]);
    slow.expect_alive();
}

#[test]
fn a_shared_subscription_lasts_as_long_as_the_session() {
    let broker = Broker::start();
    let connect = Connect::v5("member").durable();
    let mut member = Client::connect(&broker, connect.clone());
    member.subscribe("$share/g/a", 2);
    member.disconnect();
    publish(&broker, "a", 2, &["while disconnected"]);
    let mut member = Client::connect(&broker, connect);
    member.expect_message("while disconnected");
    publish(&broker, "a", 0, &["back"]);
    member.expect_message("back");
    member.disconnect();
    let mut member = client(&broker, "member");
    publish(&broker, "a", 0, &["after a clean start"]);
    member.expect_alive();
}

#[test]
fn a_publisher_that_is_the_only_member_receives_its_own_message() {
    let broker = Broker::start();
    let mut member = member(&broker, V5, "member", "$share/g/a", 0);
    member.send(Publish::new("a", "own"));
    member.expect_message("own");
}
