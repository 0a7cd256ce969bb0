//! 3.8 and 3.9: SUBSCRIBE and SUBACK.

use crate::support::{
    Broker, Client, Connect, Encode, Packet, Property, Publish, Suback, Subscribe, Unsubscribe, V5,
    V311, Version, for_all_versions, for_versions, property, reason,
};

const NO_LOCAL: u8 = 0x04;
const RETAIN_HANDLING_1: u8 = 0x10;
const RETAIN_HANDLING_2: u8 = 0x20;

fn client(broker: &Broker, version: Version) -> Client {
    Client::connect(broker, Connect::new(version, "c"))
}

/// Publishes at QoS 1 and disconnects. On return, the message has been routed to every subscriber.
#[track_caller]
fn publish(broker: &Broker, topic: &str, payload: &str) {
    let mut publisher = Client::connect(broker, Connect::v5("publisher"));
    publisher.publish(Publish::new(topic, payload).qos(1, 1));
}

/// The SUBACK for `subscribe`, on a connection of its own.
#[track_caller]
fn reasons(broker: &Broker, version: Version, subscribe: Subscribe) -> Vec<u8> {
    let mut client = client(broker, version);
    client.send(&subscribe);
    client.expect_suback().reasons
}

/// Expects `packet` on a new connection to be a violation, with `reason` in 5.0.
#[track_caller]
fn expect_violation(broker: &Broker, version: Version, packet: impl Encode, reason: u8) {
    let mut client = client(broker, version);
    client.send(packet);
    client.expect_violation(reason);
}

#[test]
fn mqtt_3_8_1_1_subscribe_with_other_flags_ends_the_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        for flags in (0..16).filter(|&flags| flags != 2) {
            let mut bytes = Subscribe::new(1, "a", 0).encode(version);
            bytes[0] = 0x80 | flags;
            let mut client = client(&broker, version);
            client.raw(&bytes);
            client.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_3_8_3_1_a_topic_filter_that_is_not_utf_8_ends_the_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        for filter in [&b"a/\xC3\x28"[..], b"\xED\xA0\x80", b"\xFF", b"a/\xC0\x80"] {
            let subscribe = Subscribe::new(1, filter, 0);
            expect_violation(&broker, version, subscribe, reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_3_8_3_2_subscribe_without_topic_filter_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut subscribe = Subscribe::new(1, "a", 0);
        subscribe.filters.clear();
        expect_violation(&broker, version, subscribe, reason::PROTOCOL_ERROR);
    });
}

#[test]
fn mqtt_3_8_3_3_with_no_local_a_client_does_not_receive_its_own_messages() {
    let broker = Broker::start();
    let mut own = Client::connect(&broker, Connect::v5("own"));
    let mut other = Client::connect(&broker, Connect::v5("other"));
    for qos in 0..=2 {
        own.subscribe("a", NO_LOCAL | 2);
        other.subscribe("a", NO_LOCAL | 2);
        own.publish(Publish { packet_identifier: None, ..Publish::new("a", "own") });
        own.publish(match qos {
            0 => Publish::new("a", "own, too"),
            _ => Publish::new("a", "own, too").qos(qos, 7),
        });
        own.expect_alive();
        other.expect_message("own");
        other.expect_message("own, too");
        other.publish(Publish::new("a", "from another").qos(1, 1));
        own.expect_message("from another");
        other.expect_alive();
    }
}

#[test]
fn without_no_local_a_client_receives_its_own_messages() {
    let broker = Broker::start();
    let mut client = client(&broker, V5);
    client.subscribe("a/+", NO_LOCAL | 1);
    client.subscribe("a/b", 0);
    client.send(Publish::new("a/b", "own").qos(1, 1));
    let (mut own, mut others) = (0, 0);
    for _ in 0..2 {
        match client.receive() {
            Packet::Publish(publish) => {
                assert_eq!((publish.text(), publish.qos), ("own", 0));
                own += 1;
            }
            _ => others += 1,
        }
    }
    assert_eq!((own, others), (1, 1));
    client.send(Publish::new("a/c", "own").qos(1, 2));
    assert_eq!(client.expect_ack().packet_identifier, 2);
    client.expect_alive();
}

#[test]
fn mqtt_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = Broker::start();
    for options in [NO_LOCAL, NO_LOCAL | 2] {
        let subscribe = Subscribe::new(1, "$share/g/a", options);
        expect_violation(&broker, V5, subscribe, reason::PROTOCOL_ERROR);
    }
    expect_violation(
        &broker,
        V5,
        Subscribe::new(1, "a", 0).and("$share/g/a", NO_LOCAL),
        reason::PROTOCOL_ERROR,
    );
}

#[test]
fn mqtt_3_8_3_5_reserved_bits_of_the_options_are_malformed() {
    let broker = Broker::start();
    for options in [0x40, 0x80, 0xC1] {
        let subscribe = Subscribe::new(1, "a", options);
        expect_violation(&broker, V5, subscribe, reason::MALFORMED_PACKET);
    }
    let second = Subscribe::new(1, "a", 0).and("b", 0x80);
    expect_violation(&broker, V5, second, reason::MALFORMED_PACKET);
}

#[test]
fn mqtt_311_3_8_3_4_reserved_bits_and_qos_3_end_the_connection() {
    let broker = Broker::start();
    for options in [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF] {
        let subscribe = Subscribe::new(1, "a", options);
        expect_violation(&broker, V311, subscribe, reason::MALFORMED_PACKET);
    }
}

#[test]
fn a_maximum_qos_of_3_is_a_protocol_error() {
    expect_violation(&Broker::start(), V5, Subscribe::new(1, "a", 3), reason::PROTOCOL_ERROR);
}

#[test]
fn a_retain_handling_of_3_is_a_protocol_error() {
    expect_violation(&Broker::start(), V5, Subscribe::new(1, "a", 0x30), reason::PROTOCOL_ERROR);
}

#[test]
fn a_subscription_identifier_of_0_or_a_second_one_is_a_protocol_error() {
    let broker = Broker::start();
    let with = |identifier| {
        Subscribe::new(1, "a", 0).property(Property::SubscriptionIdentifier(identifier))
    };
    expect_violation(&broker, V5, with(0), reason::PROTOCOL_ERROR);
    let twice = with(1).property(Property::SubscriptionIdentifier(2));
    expect_violation(&broker, V5, twice, reason::PROTOCOL_ERROR);
}

#[test]
fn subscribe_accepts_user_properties_and_the_largest_subscription_identifier() {
    let broker = Broker::start();
    let mut client = client(&broker, V5);
    let largest = Property::SubscriptionIdentifier(268_435_455);
    let subscribe = Subscribe::new(1, "a", 0)
        .property(Property::user("name", "value"))
        .property(largest.clone())
        .property(Property::user("name", "another"));
    client.send(subscribe);
    client.expect(Suback::new(1, &[0]));
    publish(&broker, "a", "m");
    client.expect(Publish::new("a", "m").property(largest));
}

#[test]
fn mqtt_3_8_4_1_subscribe_is_answered_with_suback() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        client.send(Subscribe::new(1, "a", 1));
        client.expect(Suback::new(1, &[1]));
        // Again, although the subscription is unchanged.
        client.send(Subscribe::new(2, "a", 1));
        client.expect(Suback::new(2, &[1]));
    });
}

#[test]
fn mqtt_3_8_4_2_suback_has_the_packet_identifier_of_its_subscribe() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        for id in [1, 2, 255, 256, 65_535] {
            client.send(Subscribe::new(id, "a", 0));
        }
        for id in [1, 2, 255, 256, 65_535] {
            assert_eq!(client.expect_suback().packet_identifier, id);
        }
    });
}

#[test]
fn mqtt_3_8_4_3_a_second_subscription_to_a_filter_replaces_the_first() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        for (filter, topic) in [("a/b", "a/b"), ("a/+", "a/c"), ("b/#", "b/c")] {
            for qos in [0, 2, 1, 0] {
                client.subscribe(filter, qos);
                publish(&broker, topic, "m");
                assert_eq!(client.expect_message("m").qos, qos.min(1), "{filter}");
                client.expect_alive();
            }
        }
    });
}

#[test]
fn mqtt_3_8_4_3_the_options_and_the_identifier_are_replaced_too() {
    let broker = Broker::start();
    let mut client = client(&broker, V5);
    for identifier in [Some(1), Some(2), None] {
        let mut subscribe = Subscribe::new(1, "a", 0);
        subscribe.properties.extend(identifier.map(Property::SubscriptionIdentifier));
        client.send(subscribe);
        client.expect(Suback::new(1, &[0]));
        publish(&broker, "a", "m");
        let publish = client.expect_message("m");
        assert_eq!(property!(publish.properties, SubscriptionIdentifier), identifier);
    }
    client.subscribe("a", NO_LOCAL);
    client.publish(Publish::new("a", "own").qos(1, 1));
    client.expect_alive();
    client.subscribe("a", 0);
    client.send(Publish::new("a", "own"));
    client.expect_message("own");
}

#[test]
fn mqtt_3_8_4_4_a_replacement_sends_retained_messages_again_and_loses_none() {
    let broker = Broker::start();
    publish_retained(&broker, "a/1", "kept");
    let mut client = client(&broker, V5);
    client.subscribe("a/+", 1);
    client.expect_message("kept");
    // Publishes messages around each replacement, in one write.
    let mut bytes = Vec::new();
    for round in 0..50_u16 {
        bytes.extend(Publish::new("a/2", format!("{round}")).encode(V5));
        bytes.extend(Subscribe::new(round + 1, "a/+", 0).encode(V5));
    }
    client.raw(&bytes);
    let (mut retained, mut live, mut subacks) = (0, Vec::new(), 0);
    while retained < 50 || live.len() < 50 || subacks < 50 {
        match client.receive() {
            Packet::Suback(_) => subacks += 1,
            Packet::Publish(publish) if publish.retain => {
                assert_eq!(publish.text(), "kept");
                retained += 1;
            }
            Packet::Publish(publish) => live.push(publish.text().to_owned()),
            other => panic!("{other:?}"),
        }
        assert!(retained <= subacks, "retained messages before their SUBACK");
    }
    let expected: Vec<String> = (0..50).map(|round| format!("{round}")).collect();
    assert_eq!(live, expected);
    client.expect_alive();
}

#[test]
fn mqtt_311_3_8_4_3_a_replacement_sends_retained_messages_again_and_loses_none() {
    let broker = Broker::start();
    publish_retained(&broker, "a/1", "kept");
    let mut client = client(&broker, V311);
    for qos in [0, 1, 1] {
        client.subscribe("a/+", qos);
        let publish = client.expect_message("kept");
        assert_eq!((publish.retain, publish.qos), (true, qos));
        self::publish(&broker, "a/2", "live");
        let publish = client.expect_message("live");
        assert_eq!((publish.retain, publish.qos), (false, qos));
        client.expect_alive();
    }
}

#[track_caller]
fn publish_retained(broker: &Broker, topic: &str, payload: &str) {
    let mut publisher = Client::connect(broker, Connect::v5("publisher"));
    publisher.publish(Publish::new(topic, payload).qos(1, 1).retain());
}

#[test]
fn a_replacement_with_retain_handling_1_or_2_sends_no_retained_message() {
    let broker = Broker::start();
    publish_retained(&broker, "a", "kept");
    let mut client = client(&broker, V5);
    client.subscribe("a", RETAIN_HANDLING_2);
    client.expect_alive();
    client.subscribe("a", RETAIN_HANDLING_1);
    client.expect_alive();
    client.subscribe("+", RETAIN_HANDLING_1);
    client.expect_message("kept");
    client.subscribe("+", RETAIN_HANDLING_1);
    client.expect_alive();
}

#[test]
fn mqtt_3_8_4_5_filters_in_one_packet_are_processed_in_order_with_one_suback() {
    for_versions(|version| {
        let broker = Broker::start();
        publish_retained(&broker, "a", "kept a");
        publish_retained(&broker, "b", "kept b");
        let mut client = client(&broker, version);
        // The last filter replaces the first.
        client.send(Subscribe::new(9, "a", 0).and("b", 0).and("c", 1).and("c", 0).and("+/d", 2));
        client.expect(Suback::new(9, &[0, 0, 1, 0, 2]));
        let mut kept = [client.expect_publish(), client.expect_publish()];
        kept.sort_by(|a, b| a.topic.cmp(&b.topic));
        assert_eq!(kept[0], Publish::new("a", "kept a").retain());
        assert_eq!(kept[1], Publish::new("b", "kept b").retain());
        publish(&broker, "c", "m");
        client.expect(Publish::new("c", "m"));
        publish(&broker, "x/d", "m");
        assert_eq!(client.expect_message("m").qos, 1);
        client.expect_alive();
    });
}

#[test]
fn a_thousand_filters_fit_in_one_subscribe() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        let mut subscribe = Subscribe::new(1, "t/0", 0);
        for number in 1..1000 {
            subscribe = subscribe.and(format!("t/{number}"), number as u8 % 3);
        }
        client.send(subscribe);
        let granted: Vec<u8> = (0..1000).map(|number: u32| number as u8 % 3).collect();
        client.expect(Suback::new(1, &granted));
        for number in [0, 500, 998] {
            publish(&broker, &format!("t/{number}"), "m");
            client.expect_message("m");
        }
        client.expect_alive();
    });
}

/// Grants at most QoS 1, and no wildcards.
const MEAN: &str = "[mqtt]\nmaximum_qos = 1\nwildcard_subscription_available = false\n";

#[test]
fn mqtt_3_8_4_6_suback_has_a_reason_code_for_each_filter() {
    let broker = Broker::with_config(MEAN);
    for_versions(|version| {
        for count in [1, 2, 3, 10, 200] {
            let mut subscribe = Subscribe::new(1, "a", 0);
            for number in 1..count {
                // Failures, repetitions and granted filters.
                let filter = ["#", "a", "b"][number % 3];
                subscribe = subscribe.and(filter, 0);
            }
            assert_eq!(reasons(&broker, version, subscribe).len(), count);
        }
    });
}

#[test]
fn mqtt_3_8_4_7_the_reason_code_is_the_granted_qos_or_a_failure() {
    let broker = Broker::with_config(MEAN);
    let mut client = client(&broker, V5);
    let refused = reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED;
    client.send(Subscribe::new(1, "a", 0).and("b", 1).and("c", 2).and("d/#", 2));
    client.expect(Suback::new(1, &[0, 1, 1, refused]));
    for (topic, qos) in [("a", 0), ("b", 1), ("c", 1)] {
        publish(&broker, topic, "m");
        assert_eq!(client.expect_message("m").qos, qos);
    }
    // A refused filter is not subscribed to.
    publish(&broker, "d/e", "m");
    client.expect_alive();
}

#[test]
fn mqtt_3_8_4_8_a_message_is_delivered_at_the_lower_of_both_qos() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut publisher = Client::connect(&broker, Connect::new(version, "publisher"));
        for granted in 0..=2 {
            let name = format!("subscriber {granted}");
            let mut subscriber = Client::connect(&broker, Connect::new(version, &name));
            subscriber.subscribe("a", granted);
            for published in 0..=2_u8 {
                publisher.publish(match published {
                    0 => Publish::new("a", "m"),
                    qos => Publish::new("a", "m").qos(qos, 1),
                });
                assert_eq!(subscriber.expect_message("m").qos, published.min(granted));
            }
            subscriber.expect_alive();
        }
    });
}

#[test]
fn mqtt_3_8_4_8_a_retained_message_is_delivered_at_the_lower_of_both_qos() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut publisher = Client::connect(&broker, Connect::new(version, "publisher"));
        let mut subscriber = client(&broker, version);
        for published in 0..=2_u8 {
            publisher.publish(match published {
                0 => Publish::new("a", "m").retain(),
                qos => Publish::new("a", "m").qos(qos, 1).retain(),
            });
            publisher.expect_alive();
            for granted in 0..=2 {
                subscriber.subscribe("a", granted);
                assert_eq!(subscriber.expect_message("m").qos, published.min(granted));
            }
            subscriber.send(Unsubscribe::new(1, "a"));
            subscriber.receive();
        }
    });
}

#[test]
fn mqtt_3_9_2_1_suback_stays_within_the_maximum_packet_size() {
    let broker = Broker::with_config(MEAN);
    // Type, length, Packet Identifier, empty properties, two Reason Codes.
    let connect = Connect::v5("c").property(Property::MaximumPacketSize(60));
    let mut client = Client::connect(&broker, connect);
    let mut subscribe = Subscribe::new(1, "#", 0);
    for _ in 1..55 {
        subscribe = subscribe.and("#", 0);
    }
    client.send(subscribe);
    let suback = client.expect_suback();
    assert_eq!(suback.reasons.len(), 55);
    assert_eq!(suback.properties, []);
    client.expect_alive();
}

#[test]
fn a_subscribe_whose_suback_would_exceed_the_maximum_packet_size_is_not_processed() {
    let broker = Broker::start();
    let connect = Connect::v5("c").expiry(300).property(Property::MaximumPacketSize(60));
    let mut client = Client::connect(&broker, connect);
    let mut subscribe = Subscribe::new(1, "a", 0);
    for number in 1..56 {
        subscribe = subscribe.and(format!("{number}"), 0);
    }
    client.send(subscribe);
    client.expect_disconnect(reason::PACKET_TOO_LARGE);
    let mut client = Client::connect(&broker, Connect::v5("c").durable());
    assert!(client.connack.session_present);
    publish(&broker, "a", "m");
    client.expect_alive();
}

#[test]
fn mqtt_3_9_3_1_reason_codes_are_in_the_order_of_the_filters() {
    let broker = Broker::with_config(MEAN);
    let refused = reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED;
    let subscribe = Subscribe::new(1, "b", 1)
        .and("#", 0)
        .and("a", 0)
        .and("a", 2)
        .and("+", 1)
        .and("c", 0)
        .and("b", 0);
    assert_eq!(reasons(&broker, V5, subscribe.clone()), [1, refused, 0, 1, refused, 0, 0]);
    assert_eq!(reasons(&broker, V311, subscribe), [1, 0x80, 0, 1, 0x80, 0, 0]);
}

#[test]
fn mqtt_3_9_3_2_reason_codes_of_suback_are_among_the_listed() {
    // The client checks every SUBACK it reads; this test provokes each kind of Reason Code.
    let broker = Broker::with_config(
        "[limits]\ntopic_levels_max = 2\nsubscriptions_per_client_max = 3\n\
         [mqtt]\nwildcard_subscription_available = false\n\
         shared_subscription_available = false\n",
    );
    let subscribe = Subscribe::new(1, "a", 0)
        .and("b", 1)
        .and("c", 2)
        .and("a/b/c", 0)
        .and("d", 0)
        .and("+", 0)
        .and("$share/g/a", 0);
    let expected = [
        0,
        1,
        2,
        reason::TOPIC_FILTER_INVALID,
        reason::QUOTA_EXCEEDED,
        reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    ];
    assert_eq!(reasons(&broker, V5, subscribe), expected);
}

#[test]
fn mqtt_311_3_9_3_2_every_refusal_is_0x80() {
    let broker = Broker::with_config(
        "[limits]\ntopic_levels_max = 2\nsubscriptions_per_client_max = 3\n\
         [mqtt]\nwildcard_subscription_available = false\n\
         shared_subscription_available = false\n",
    );
    let subscribe = Subscribe::new(1, "a", 0)
        .and("b", 1)
        .and("c", 2)
        .and("a/b/c", 0)
        .and("d", 0)
        .and("+", 0)
        .and("$share/g/a", 0);
    assert_eq!(reasons(&broker, V311, subscribe), [0, 1, 2, 0x80, 0x80, 0x80, 0x80]);
}

#[test]
fn a_filter_with_too_many_levels_is_refused_with_0x8f() {
    let broker = Broker::with_config("[limits]\ntopic_levels_max = 3\n");
    let answer = |filter: &str| reasons(&broker, V5, Subscribe::new(1, filter, 0))[0];
    assert_eq!(answer("a/b/c"), 0);
    assert_eq!(answer("//"), 0);
    assert_eq!(answer("a/+/#"), 0);
    assert_eq!(answer("$share/g/a/b/c"), 0);
    for filter in ["a/b/c/d", "///", "a/b/c/#", "+/+/+/+", "$share/g/a/b/c/d"] {
        assert_eq!(answer(filter), reason::TOPIC_FILTER_INVALID, "{filter}");
        assert_eq!(reasons(&broker, V311, Subscribe::new(1, filter, 0)), [0x80], "{filter}");
    }
}

#[test]
fn a_subscription_beyond_the_limit_of_a_client_is_refused_with_0x97() {
    for_versions(|version| {
        let broker = Broker::with_config("[limits]\nsubscriptions_per_client_max = 2\n");
        let mut client = client(&broker, version);
        let refused = if version == V5 { reason::QUOTA_EXCEEDED } else { 0x80 };
        let mut answer = |filter: &str| {
            client.send(Subscribe::new(1, filter, 0));
            client.expect_suback().reasons[0]
        };
        assert_eq!(["a", "+", "$share/g/a", "c"].map(&mut answer), [0, 0, refused, refused]);
        // Replacing a subscription is allowed, and unsubscribing makes room.
        assert_eq!(answer("a"), 0);
        client.send(Unsubscribe::new(2, "a"));
        client.receive();
        client.subscribe("c", 0);
        client.send(Subscribe::new(1, "a", 0));
        client.expect(Suback::new(1, &[refused]));
    });
}

#[test]
fn disabled_shared_subscriptions_are_refused_with_0x9e() {
    let broker = Broker::with_config("[mqtt]\nshared_subscription_available = false\n");
    let mut client = client(&broker, V5);
    assert_eq!(property!(client.connack.properties, SharedSubscriptionAvailable), Some(0));
    client.send(Subscribe::new(1, "$share/g/a", 0).and("a", 0));
    client.expect(Suback::new(1, &[reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, 0]));
    publish(&broker, "a", "m");
    client.expect_message("m");
    client.expect_alive();
}

#[test]
fn disabled_subscription_identifiers_are_refused_with_0xa1() {
    let broker = Broker::with_config("[mqtt]\nsubscription_identifiers_available = false\n");
    let mut client = client(&broker, V5);
    assert_eq!(property!(client.connack.properties, SubscriptionIdentifierAvailable), Some(0));
    let subscribe = Subscribe::new(1, "a", 0).and("b", 0);
    client.send(subscribe.clone().property(Property::SubscriptionIdentifier(1)));
    let refused = reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED;
    client.expect(Suback::new(1, &[refused, refused]));
    publish(&broker, "a", "m");
    client.expect_alive();
    client.send(subscribe);
    client.expect(Suback::new(1, &[0, 0]));
}

#[test]
fn disabled_wildcard_subscriptions_are_refused_with_0xa2() {
    let broker = Broker::with_config("[mqtt]\nwildcard_subscription_available = false\n");
    let mut client = client(&broker, V5);
    assert_eq!(property!(client.connack.properties, WildcardSubscriptionAvailable), Some(0));
    client.send(Subscribe::new(1, "#", 0).and("a/+", 0).and("$share/g/#", 0).and("a/b", 0));
    let refused = reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED;
    client.expect(Suback::new(1, &[refused, refused, refused, 0]));
    publish(&broker, "a/b", "m");
    client.expect_message("m");
    client.expect_alive();
}

#[test]
fn connack_omits_the_properties_of_available_features() {
    let client = client(&Broker::start(), V5);
    let properties = &client.connack.properties;
    let denied = [
        property!(properties, WildcardSubscriptionAvailable),
        property!(properties, SubscriptionIdentifierAvailable),
        property!(properties, SharedSubscriptionAvailable),
    ];
    assert!(denied.iter().flatten().all(|&available| available == 1), "{denied:?}");
}

#[test]
fn an_invalid_subscribe_creates_no_subscription() {
    for_versions(|version| {
        let broker = Broker::start();
        let connect = Connect::new(version, "c").durable();
        let mut client = Client::connect(&broker, connect.clone());
        client.send(Subscribe::new(1, "a", 0).and("b/#/c", 0));
        client.expect_violation(reason::MALFORMED_PACKET);
        let mut client = Client::connect(&broker, connect);
        assert!(client.connack.session_present);
        publish(&broker, "a", "m");
        client.expect_alive();
    });
}
