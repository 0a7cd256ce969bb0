//! 3.10 and 3.11: UNSUBSCRIBE and UNSUBACK.

use crate::support::{
    Ack, Broker, Client, Connect, Encode, Property, Publish, Suback, Subscribe, Unsuback,
    Unsubscribe, V5, V31, V311, Version, for_all_versions, for_versions, reason,
};

fn client(broker: &Broker, version: Version) -> Client {
    Client::connect(broker, Connect::new(version, "c"))
}

#[track_caller]
fn publish(broker: &Broker, topic: &str, payload: &str, qos: u8) {
    let mut publisher = Client::connect(broker, Connect::v5("publisher"));
    publisher.publish(Publish::new(topic, payload).qos(qos, 1));
}

/// Unsubscribes from one filter; in 5.0, UNSUBACK has `reason`.
#[track_caller]
fn unsubscribe(client: &mut Client, version: Version, filter: &str, reason: u8) {
    client.send(Unsubscribe::new(0x0B0B, filter));
    client.expect(unsuback(version, 0x0B0B, &[reason]));
}

fn unsuback(version: Version, packet_identifier: u16, reasons: &[u8]) -> Unsuback {
    Unsuback::new(packet_identifier, if version == V5 { reasons } else { &[] })
}

#[test]
fn mqtt_3_10_1_1_unsubscribe_with_other_flags_ends_the_connection() {
    // In 3.1, UNSUBSCRIBE has DUP and a QoS of 1.
    for_versions(|version| {
        let broker = Broker::start();
        for flags in (0..16).filter(|&flags| flags != 2) {
            let mut bytes = Unsubscribe::new(1, "a").encode(version);
            bytes[0] = 0xA0 | flags;
            let mut client = client(&broker, version);
            client.raw(&bytes);
            client.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_3_10_3_1_a_topic_filter_that_is_not_utf_8_ends_the_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        for filter in [&b"a/\xC3\x28"[..], b"\xED\xA0\x80", b"\xFF"] {
            let mut client = client(&broker, version);
            client.send(Unsubscribe::new(1, filter));
            client.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_3_10_3_2_unsubscribe_without_topic_filter_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        let mut unsubscribe = Unsubscribe::new(1, "a");
        unsubscribe.filters.clear();
        client.send(unsubscribe);
        client.expect_violation(reason::PROTOCOL_ERROR);
    });
}

#[test]
fn mqtt_3_10_4_1_only_an_identical_filter_is_removed() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        client.subscribe("a/b", 0);
        // Neither a filter that matches the same topics nor a similar one.
        for other in ["a/+", "#", "+/b", "a/#", "A/b", "a/b/", "/a/b", "a/B", "a", "a/b/#"] {
            unsubscribe(&mut client, version, other, reason::NO_SUBSCRIPTION_EXISTED);
        }
        publish(&broker, "a/b", "still", 1);
        client.expect_message("still");
        unsubscribe(&mut client, version, "a/b", reason::SUCCESS);
        publish(&broker, "a/b", "no more", 1);
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_10_4_1_a_wildcard_is_compared_as_a_character() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        client.subscribe("a/+", 0);
        client.subscribe("a/#", 0);
        for other in ["a/b", "a/c", "a/+/#"] {
            unsubscribe(&mut client, version, other, reason::NO_SUBSCRIPTION_EXISTED);
        }
        unsubscribe(&mut client, version, "a/+", reason::SUCCESS);
        publish(&broker, "a/b", "by the other", 1);
        client.expect_message("by the other");
        client.expect_alive();
        unsubscribe(&mut client, version, "a/#", reason::SUCCESS);
        publish(&broker, "a/b", "no more", 1);
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_10_4_2_no_new_message_is_sent_after_unsubscribe() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut publisher = Client::connect(&broker, Connect::new(version, "publisher"));
        let mut client = client(&broker, version);
        for qos in 0..=2 {
            client.subscribe("a", qos);
            publisher.publish(Publish::new("a", "m").qos(1, 1));
            client.expect_message("m");
            client.send(Unsubscribe::new(3, "a"));
            client.expect(unsuback(version, 3, &[0]));
            publisher.publish(Publish::new("a", "no more").qos(2, 2));
            client.expect_alive();
        }
    });
}

#[test]
fn unsubscribe_leaves_subscriptions_of_other_clients() {
    let broker = Broker::start();
    let mut other = Client::connect(&broker, Connect::v5("other"));
    other.subscribe("a", 0);
    let mut client = client(&broker, V5);
    unsubscribe(&mut client, V5, "a", reason::NO_SUBSCRIPTION_EXISTED);
    client.subscribe("a", 0);
    unsubscribe(&mut client, V5, "a", reason::SUCCESS);
    publish(&broker, "a", "m", 1);
    other.expect_message("m");
    client.expect_alive();
}

#[test]
fn mqtt_3_10_4_3_a_started_delivery_is_completed_after_unsubscribe() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        for qos in [1, 2] {
            client.subscribe("a", 2);
            publish(&broker, "a", "m", qos);
            let message = client.expect_publish();
            assert_eq!(message.qos, qos);
            client.send(Unsubscribe::new(3, "a"));
            client.expect(unsuback(version, 3, &[0]));
            client.acknowledge(&message);
            client.expect_alive();
        }
    });
}

#[test]
fn mqtt_3_10_4_3_a_started_delivery_is_completed_on_the_next_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        for qos in [1, 2] {
            let connect = Connect::new(version, &format!("c{qos}")).durable();
            let mut client = Client::connect(&broker, connect.clone());
            client.subscribe("a", 2);
            publish(&broker, "a", "m", qos);
            let first = client.expect_publish();
            client.send(Unsubscribe::new(3, "a"));
            client.expect(unsuback(version, 3, &[0]));
            client.vanish();
            let mut client = Client::connect(&broker, connect);
            let again = client.expect_message("m");
            assert_eq!(again, first.dup());
            client.expect_alive();
        }
    });
}

#[test]
fn mqtt_3_10_4_4_unsubscribe_is_answered_with_unsuback() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        client.subscribe("a", 0);
        client.send(Unsubscribe::new(7, "a"));
        client.expect(unsuback(version, 7, &[reason::SUCCESS]));
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_10_4_5_unsuback_has_the_packet_identifier_of_its_unsubscribe() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        client.subscribe("a", 0);
        for id in [1, 256, 65_535] {
            client.send(Unsubscribe::new(id, "a"));
            let existed = if id == 1 { reason::SUCCESS } else { reason::NO_SUBSCRIPTION_EXISTED };
            client.expect(unsuback(version, id, &[existed]));
        }
    });
}

#[test]
fn mqtt_311_3_10_4_5_unsubscribe_is_answered_even_if_no_filter_matched() {
    for version in [V31, V311] {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        client.send(Unsubscribe::new(0x1234, "never").and("nor/#"));
        // The packet has only a Packet Identifier: the client rejects additional bytes.
        client.expect(Unsuback::new(0x1234, &[]));
    }
}

#[test]
fn mqtt_3_10_4_6_filters_in_one_packet_are_processed_in_order_with_one_unsuback() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        client.send(Subscribe::new(1, "a", 0).and("b/+", 0).and("c", 0));
        client.expect(Suback::new(1, &[0, 0, 0]));
        client.send(Unsubscribe::new(2, "a").and("b/+").and("a").and("d"));
        client.expect(unsuback(version, 2, &[0, 0, 0x11, 0x11]));
        publish(&broker, "a", "no", 1);
        publish(&broker, "b/b", "no", 1);
        publish(&broker, "c", "yes", 1);
        client.expect_message("yes");
        client.expect_alive();
    });
}

#[test]
fn a_thousand_filters_fit_in_one_unsubscribe() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        let mut subscribe = Subscribe::new(1, "0", 0);
        let mut unsubscribe = Unsubscribe::new(2, "0");
        for number in 1..1000 {
            subscribe = subscribe.and(format!("{number}"), 0);
            unsubscribe = unsubscribe.and(format!("{number}"));
        }
        client.send(subscribe);
        client.expect(Suback::new(1, &[0; 1000]));
        client.send(unsubscribe);
        client.expect(unsuback(version, 2, &[0; 1000]));
        publish(&broker, "500", "no more", 1);
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_11_2_1_unsuback_stays_within_the_maximum_packet_size() {
    let broker = Broker::start();
    // Type, length, Packet Identifier, empty properties, one Reason Code per filter.
    let connect = Connect::v5("c").property(Property::MaximumPacketSize(60));
    let mut client = Client::connect(&broker, connect);
    let mut unsubscribe = Unsubscribe::new(1, "a");
    for _ in 1..55 {
        unsubscribe = unsubscribe.and("a");
    }
    client.send(unsubscribe.clone());
    client.expect(Unsuback::new(1, &[0x11; 55]));
    client.send(unsubscribe.and("a"));
    client.expect_disconnect(reason::PACKET_TOO_LARGE);
}

#[test]
fn mqtt_3_11_3_1_reason_codes_are_in_the_order_of_the_filters() {
    let broker = Broker::start();
    let mut client = client(&broker, V5);
    client.send(Subscribe::new(1, "a", 0).and("b", 0).and("c", 0));
    client.expect_suback();
    client.send(Unsubscribe::new(2, "x").and("c").and("y").and("a").and("b").and("z"));
    client.expect(Unsuback::new(2, &[0x11, 0, 0x11, 0, 0, 0x11]));
}

#[test]
fn mqtt_3_11_3_2_reason_codes_of_unsuback_are_among_the_listed() {
    let broker = Broker::start();
    let mut client = client(&broker, V5);
    client.subscribe("a/+", 0);
    client.subscribe("$share/g/a", 0);
    unsubscribe(&mut client, V5, "a/+", reason::SUCCESS);
    unsubscribe(&mut client, V5, "$share/g/a", reason::SUCCESS);
    unsubscribe(&mut client, V5, "a/+", reason::NO_SUBSCRIPTION_EXISTED);
    unsubscribe(&mut client, V5, "$share/g/b", reason::NO_SUBSCRIPTION_EXISTED);
    let deep = ["a"; 1000].join("/");
    unsubscribe(&mut client, V5, &deep, reason::NO_SUBSCRIPTION_EXISTED);
}

#[test]
fn unsubscribe_accepts_user_properties() {
    let broker = Broker::start();
    let mut client = client(&broker, V5);
    let unsubscribe = Unsubscribe::new(1, "a").property(Property::user("name", "value"));
    client.send(unsubscribe.property(Property::user("name", "another")));
    client.expect(Unsuback::new(1, &[reason::NO_SUBSCRIPTION_EXISTED]));
}

#[test]
fn an_ill_formed_filter_in_unsubscribe_ends_the_connection_and_removes_no_subscription() {
    for_versions(|version| {
        let broker = Broker::start();
        let connect = Connect::new(version, "c").durable();
        for filter in ["a/#/b", "a+", "$share/g", "$share//a", ""] {
            let mut client = Client::connect(&broker, connect.clone());
            client.subscribe("a", 0);
            client.send(Unsubscribe::new(1, "a").and(filter));
            client.expect_violation(reason::MALFORMED_PACKET);
            let mut client = Client::connect(&broker, connect.clone());
            unsubscribe(&mut client, version, "a", reason::SUCCESS);
        }
    });
}

#[test]
fn queued_messages_are_delivered_in_order_after_unsubscribe() {
    let broker = Broker::start();
    let connect = Connect::v5("c").property(Property::ReceiveMaximum(1));
    let mut client = Client::connect(&broker, connect);
    client.subscribe("a", 1);
    for payload in ["1", "2", "3"] {
        publish(&broker, "a", payload, 1);
    }
    let first = client.expect_publish();
    assert_eq!(first.text(), "1");
    client.send(Unsubscribe::new(3, "a"));
    client.expect(Unsuback::new(3, &[0]));
    client.send(Ack::puback(first.id()));
    // The specification leaves this open; this broker delivers queued messages.
    client.expect_message("2");
    client.expect_message("3");
    client.expect_alive();
}
