//! 3.2: CONNACK, and how the configuration changes it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::reason::{
    BAD_AUTHENTICATION_METHOD, KEEP_ALIVE_TIMEOUT, MALFORMED_PACKET, PACKET_TOO_LARGE,
    PROTOCOL_ERROR, QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, SERVER_MOVED,
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    TOPIC_ALIAS_INVALID, UNSUPPORTED_PROTOCOL_VERSION, USE_ANOTHER_SERVER, V3_SERVER_UNAVAILABLE,
    V3_UNACCEPTABLE_VERSION, WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
};
use crate::support::{
    Broker, Client, Connack, Connect, Packet, Property, Publish, Subscribe, V5, V31, V311, Will,
    for_all_versions, for_each_version, for_versions, property,
};

fn unknown_method() -> Connect {
    let method = Property::AuthenticationMethod("unknown method".into());
    Connect::v5("c").property(method)
}

/// The CONNACK properties of a broker with this configuration.
fn announced(configuration: &str) -> Vec<Property> {
    let broker = Broker::with_config(configuration);
    Client::connect(&broker, Connect::v5("c")).connack.properties
}

#[test]
fn mqtt_3_2_0_1_connack_comes_first() {
    for_versions(|version| {
        let broker = Broker::start();
        let connect = || Connect::new(version, "c").durable();
        let mut client = Client::connect(&broker, connect());
        client.subscribe("a", 1);
        client.disconnect();
        let mut publisher = Client::connect(&broker, Connect::new(version, "publisher"));
        publisher.publish(Publish::new("a", "waiting").qos(1, 1));
        // `connect` fails unless the first packet is CONNACK.
        let mut client = Client::connect(&broker, connect());
        client.expect_message("waiting");
    });
}

#[test]
fn mqtt_3_2_0_2_there_is_one_connack() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.subscribe("a", 0);
        client.expect_alive();
        client.send(Connect::new(version, "c"));
        client.expect_violation(PROTOCOL_ERROR);
    });
}

#[test]
fn mqtt_3_2_2_1_reserved_connect_acknowledge_flags_are_0() {
    // The decoder rejects other flags; the test covers Session Present 0 and 1.
    for_versions(|version| {
        let broker = Broker::start();
        for session_present in [false, true] {
            let client = Client::connect(&broker, Connect::new(version, "c").durable());
            assert_eq!(client.connack.session_present, session_present);
            client.disconnect();
        }
    });
}

#[test]
fn connack_before_5_0_is_two_bytes() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let client = Client::connect(&broker, Connect::new(version, "c"));
        assert_eq!(client.connack, Connack::default());
    });
}

#[test]
fn mqtt_3_2_2_2_session_present_is_0_after_clean_start() {
    for_all_versions(|version| {
        let broker = Broker::start();
        Client::connect(&broker, Connect::new(version, "c").durable()).disconnect();
        let client = Client::connect(&broker, Connect::new(version, "c"));
        assert!(!client.connack.session_present);
    });
}

#[test]
fn mqtt_3_2_2_3_session_present_is_1_exactly_if_there_was_a_session() {
    for_versions(|version| {
        let broker = Broker::start();
        let connect = || Connect::new(version, "c").durable();
        let client = Client::connect(&broker, connect());
        assert!(!client.connack.session_present);
        client.disconnect();
        // A session without subscriptions is also a session.
        assert!(Client::connect(&broker, connect()).connack.session_present);
    });
}

#[test]
fn mqtt_3_2_2_6_session_present_is_0_in_a_refusal() {
    let broker = Broker::start();
    Client::connect(&broker, Connect::v5("c").durable()).disconnect();
    let refusal = Client::refused(&broker, unknown_method().resume(), BAD_AUTHENTICATION_METHOD);
    assert!(!refusal.session_present);
}

#[test]
fn mqtt_311_3_2_2_4_session_present_is_0_in_a_refusal() {
    let broker = Broker::start();
    Client::connect(&broker, Connect::v311("c").resume()).disconnect();
    let connect = Connect::v311("c").resume().protocol("MQTT", 3);
    let refusal = Client::refused(&broker, connect, V3_UNACCEPTABLE_VERSION);
    assert!(!refusal.session_present);
}

#[test]
fn mqtt_3_2_2_7_the_connection_is_closed_after_a_refusal() {
    let broker = Broker::start();
    // `refused` expects the connection to be closed.
    Client::refused(&broker, unknown_method(), BAD_AUTHENTICATION_METHOD);
    let connect = Connect::v5("c").protocol("MQTT", 6);
    Client::refused(&broker, connect, UNSUPPORTED_PROTOCOL_VERSION);
}

#[test]
fn mqtt_3_2_2_8_the_reason_code_of_connack_is_one_of_the_listed() {
    let listed = [
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95,
        0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    let broker = Broker::with_config("[mqtt]\nmaximum_qos = 1\nretain_available = false");
    let connects = [
        Connect::v5("c"),
        unknown_method(),
        Connect::v5("c").protocol("MQTT", 6),
        Connect::v5("c").flip_flags(0x01),
        Connect::v5("c").property(Property::ReceiveMaximum(0)),
        Connect::v5("c").will(Will::new("#", "")),
        Connect::v5("c").will(Will::new("w", "").qos(2)),
        Connect::v5("c").will(Will::new("w", "").retain()),
        Connect { client_identifier: vec![0xFF], ..Connect::v5("") },
    ];
    for connect in connects {
        let mut client = Client::open(&broker, V5);
        client.send(&connect);
        let reason = client.expect_connack().reason;
        assert!(listed.contains(&reason), "{reason:#04x} to {connect:?}");
    }
}

#[test]
fn mqtt_311_3_2_2_6_without_an_applicable_return_code_there_is_no_connack() {
    let broker = Broker::with_config("[mqtt]\nmaximum_qos = 1\nretain_available = false");
    for will in [Will::new("#", ""), Will::new("w", "").qos(2), Will::new("w", "").retain()] {
        let mut client = Client::open(&broker, V311);
        client.send(Connect::v311("c").will(will));
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_2_2_9_maximum_qos_is_announced() {
    assert_eq!(property!(announced(""), MaximumQos), None);
    assert_eq!(property!(announced("mqtt.maximum_qos = 1"), MaximumQos), Some(1));
    assert_eq!(property!(announced("mqtt.maximum_qos = 0"), MaximumQos), Some(0));
}

#[test]
fn mqtt_3_2_2_10_subscribe_with_any_qos_is_accepted_below_maximum_qos_2() {
    for maximum_qos in [0, 1] {
        let broker = Broker::with_config(&format!("mqtt.maximum_qos = {maximum_qos}"));
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.send(Subscribe::new(1, "a", 0).and("b", 1).and("c", 2));
        let reasons = client.expect_suback().reasons;
        assert_eq!(reasons, [0, 1, 2].map(|qos: u8| qos.min(maximum_qos)));
        client.send(Publish::new("c", "payload"));
        client.expect_message("payload");
    }
}

#[test]
fn mqtt_3_2_2_11_a_publish_above_the_maximum_qos_ends_the_connection() {
    for maximum_qos in [0, 1] {
        let broker = Broker::with_config(&format!("mqtt.maximum_qos = {maximum_qos}"));
        for qos in maximum_qos + 1..=2 {
            for version in [V311, V5] {
                let mut client = Client::connect(&broker, Connect::new(version, "c"));
                client.send(Publish::new("a", "payload").qos(qos, 1));
                client.expect_violation(QOS_NOT_SUPPORTED);
            }
        }
    }
}

#[test]
fn mqtt_3_2_2_12_a_will_qos_above_the_maximum_qos_is_refused() {
    let broker = Broker::with_config("mqtt.maximum_qos = 0");
    for qos in [1, 2] {
        let connect = Connect::v5("c").will(Will::new("w", "payload").qos(qos));
        Client::refused(&broker, connect, QOS_NOT_SUPPORTED);
    }
    Client::connect(&broker, Connect::v5("c").will(Will::new("w", "payload")));
}

#[test]
fn mqtt_3_2_2_13_will_retain_is_refused_if_retain_is_not_available() {
    let broker = Broker::with_config("mqtt.retain_available = false");
    let client = Client::connect(&broker, Connect::v5("c"));
    assert_eq!(property!(client.connack.properties, RetainAvailable), Some(0));
    let connect = Connect::v5("c").will(Will::new("w", "payload").retain());
    Client::refused(&broker, connect, RETAIN_NOT_SUPPORTED);
    assert_eq!(property!(announced(""), RetainAvailable), None);
}

#[test]
fn mqtt_3_2_2_14_a_retained_publish_ends_the_connection_if_retain_is_not_available() {
    let broker = Broker::with_config("mqtt.retain_available = false");
    for version in [V311, V5] {
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Publish::new("a", "payload").retain());
        client.expect_violation(RETAIN_NOT_SUPPORTED);
    }
}

#[test]
fn mqtt_3_2_2_15_a_packet_larger_than_announced_ends_the_connection() {
    let broker = Broker::with_config("limits.packet_bytes_max = 1000");
    for version in [V311, V5] {
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        if version == V5 {
            let announced = property!(client.connack.properties, MaximumPacketSize);
            assert_eq!(announced, Some(1000));
        }
        // Three bytes of fixed header and three of Topic Name, and in 5.0 a Property Length.
        let overhead = if version == V5 { 7 } else { 6 };
        client.subscribe("a", 0);
        client.send(Publish::new("a", "x".repeat(1000 - overhead)));
        assert_eq!(client.expect_publish().payload.len(), 1000 - overhead);
        client.send(Publish::new("a", "x".repeat(1000 - overhead + 1)));
        client.expect_violation(PACKET_TOO_LARGE);
        // The size is known before the whole packet has arrived.
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        client.expect_violation(PACKET_TOO_LARGE);
    }
}

#[test]
fn mqtt_3_2_2_16_assigned_client_identifiers_are_unique() {
    let broker = Broker::start();
    let mut seen = BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = Client::connect(&broker, Connect::v5(""));
        let assigned = property!(client.connack.properties, AssignedClientIdentifier);
        assert!(seen.insert(assigned.expect("an identifier")), "{seen:?}");
        clients.push(client);
    }
    clients.iter_mut().for_each(Client::expect_alive);
    let named = Client::connect(&broker, Connect::v5("c"));
    assert_eq!(property!(named.connack.properties, AssignedClientIdentifier), None);
}

#[test]
fn mqtt_3_2_2_17_a_topic_alias_above_the_maximum_ends_the_connection() {
    let broker = Broker::with_config("limits.topic_alias_maximum = 3");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    assert_eq!(property!(client.connack.properties, TopicAliasMaximum), Some(3));
    client.send(Publish::new("a", "payload").property(Property::TopicAlias(3)));
    client.expect_alive();
    client.send(Publish::new("a", "payload").property(Property::TopicAlias(4)));
    client.expect_disconnect(TOPIC_ALIAS_INVALID);
}

#[test]
fn mqtt_3_2_2_18_without_a_topic_alias_maximum_no_topic_alias_is_accepted() {
    let broker = Broker::with_config("limits.topic_alias_maximum = 0");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    let maximum = property!(client.connack.properties, TopicAliasMaximum);
    assert_eq!(maximum.unwrap_or(0), 0);
    client.send(Publish::new("a", "payload").property(Property::TopicAlias(1)));
    client.expect_disconnect(TOPIC_ALIAS_INVALID);
}

#[test]
fn mqtt_3_2_2_19_a_reason_string_does_not_make_connack_too_large() {
    let broker = Broker::start();
    let small = || Connect::v5("c").property(Property::MaximumPacketSize(12));
    let method = Property::AuthenticationMethod("unknown method".into());
    let connects = [small().property(method), small().will(Will::new("a/#", "payload"))];
    for connect in connects {
        let mut client = Client::open(&broker, V5);
        client.send(connect);
        client.expect_end_within_bytes(12);
    }
}

#[test]
fn a_refusal_has_a_reason_string_if_it_fits() {
    let broker = Broker::start();
    let refusal = Client::refused(&broker, Connect::v5("c").flip_flags(0x01), MALFORMED_PACKET);
    if broker.is_ours() {
        let reason = property!(refusal.properties, ReasonString).expect("a Reason String");
        assert!(!reason.is_empty());
    }
}

#[test]
fn mqtt_3_2_2_22_without_a_server_keep_alive_the_clients_applies() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c").keep_alive(1));
    assert_eq!(property!(client.connack.properties, ServerKeepAlive), None);
    let since = Instant::now();
    client.expect_disconnect(KEEP_ALIVE_TIMEOUT);
    let waited = since.elapsed().as_secs_f32();
    assert!((1.4..3.0).contains(&waited), "closed after {waited} s");
}

#[test]
fn a_server_keep_alive_replaces_the_clients() {
    let broker = Broker::with_config("limits.keep_alive_max_s = 1");
    let since = Instant::now();
    let asked = [0, 60].map(|asked| {
        let client = Client::connect(&broker, Connect::v5(&format!("{asked}")).keep_alive(asked));
        assert_eq!(property!(client.connack.properties, ServerKeepAlive), Some(1));
        client
    });
    for mut client in asked {
        client.expect_disconnect(KEEP_ALIVE_TIMEOUT);
        assert!((1.4..3.0).contains(&since.elapsed().as_secs_f32()));
    }
    let within = Client::connect(&broker, Connect::v5("within").keep_alive(1));
    assert_eq!(property!(within.connack.properties, ServerKeepAlive), None);
}

#[test]
fn the_keep_alive_of_3_x_clients_is_limited_only_by_its_own_setting() {
    let before_5 = |broker: &Broker| {
        let name = |version| format!("{version:?}");
        [V31, V311].map(|version| {
            Client::connect(broker, Connect::new(version, &name(version)).keep_alive(0))
        })
    };
    let of_5 = Broker::with_config("limits.keep_alive_max_s = 1");
    let stay = before_5(&of_5);
    let of_3 = Broker::with_config("limits.keep_alive_v3_max_s = 1");
    let since = Instant::now();
    let go = before_5(&of_3);
    let mut told_nothing = Client::connect(&of_3, Connect::v5("c").keep_alive(0));
    assert_eq!(property!(told_nothing.connack.properties, ServerKeepAlive), None);
    for mut client in go {
        client.expect_closed();
        assert!((1.4..3.0).contains(&since.elapsed().as_secs_f32()));
    }
    std::thread::sleep(Duration::from_millis(500));
    stay.into_iter().for_each(|mut client| client.expect_alive());
    told_nothing.expect_alive();
}

#[test]
fn the_session_expiry_interval_is_capped_and_announced() {
    let broker = Broker::with_config("limits.session_expiry_max_s = 10");
    let granted = |asked| {
        let client = Client::connect(&broker, Connect::v5("c").expiry(asked));
        property!(client.connack.properties, SessionExpiryInterval)
    };
    assert_eq!(granted(u32::MAX), Some(10));
    assert_eq!(granted(11), Some(10));
    assert_eq!(granted(10), None);
    assert_eq!(granted(0), None);
}

#[test]
fn the_receive_maximum_is_announced() {
    let list = announced("limits.receive_maximum = 7");
    assert_eq!(property!(list, ReceiveMaximum), Some(7));
}

#[test]
fn clients_are_redirected_to_another_server() {
    for (redirect, reason) in [("temporary", USE_ANOTHER_SERVER), ("permanent", SERVER_MOVED)] {
        let broker = Broker::with_config(&format!(
            "[mqtt]\nredirect = \"{redirect}\"\nserver_reference = \"other.example:1883\""
        ));
        let refusal = Client::refused(&broker, Connect::v5("c"), reason);
        let reference = property!(refusal.properties, ServerReference);
        assert_eq!(reference, Some("other.example:1883".to_owned()));
        Client::refused(&broker, Connect::v311("c"), V3_SERVER_UNAVAILABLE);
    }
}

/// A feature that the configuration disables: the property in CONNACK, and the response to its use.
fn expect_not_available(key: &str, announced: &Property, subscribe: Subscribe, reason: u8) {
    let broker = Broker::with_config(&format!("mqtt.{key} = false"));
    let mut client = Client::connect(&broker, Connect::v5("c"));
    assert!(client.connack.properties.contains(announced), "{:?}", client.connack);
    client.send(subscribe);
    // The specification allows either this response or closing the connection.
    match client.receive() {
        Packet::Suback(suback) => assert_eq!(suback.reasons, [reason]),
        Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn disabled_features_are_announced_and_refused() {
    expect_not_available(
        "wildcard_subscription_available",
        &Property::WildcardSubscriptionAvailable(0),
        Subscribe::new(1, "a/#", 0),
        WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
    );
    expect_not_available(
        "shared_subscription_available",
        &Property::SharedSubscriptionAvailable(0),
        Subscribe::new(1, "$share/group/a", 0),
        SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    );
    expect_not_available(
        "subscription_identifiers_available",
        &Property::SubscriptionIdentifierAvailable(0),
        Subscribe::new(1, "a", 0).property(Property::SubscriptionIdentifier(1)),
        SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    );
    let list = announced("");
    assert_eq!(property!(list, WildcardSubscriptionAvailable).unwrap_or(1), 1);
    assert_eq!(property!(list, SharedSubscriptionAvailable).unwrap_or(1), 1);
    assert_eq!(property!(list, SubscriptionIdentifierAvailable).unwrap_or(1), 1);
}
