//! 3.1.3 and 3.1.4: the payload of CONNECT, and how the server handles it.

use std::time::Instant;

use crate::section_3_01_connect::{
    WILL_FLAG, expect_connect_violation, expect_malformed, leave_session, publish,
};
use crate::support::reason::{
    BAD_AUTHENTICATION_METHOD, MALFORMED_PACKET, SESSION_TAKEN_OVER, TOPIC_NAME_INVALID,
    V3_IDENTIFIER_REJECTED,
};
use crate::support::{
    Broker, Client, Connect, Encode, Property, Publish, Subscribe, V5, V31, V311, Version, Will,
    for_all_versions, for_each_version, for_versions, frame, property, string,
};

#[test]
fn mqtt_3_1_3_1_the_payload_of_connect_has_its_fields_in_order() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut watcher = Client::connect(&broker, Connect::new(version, "watcher"));
        watcher.subscribe("will/topic", 0);
        let will = Will::new("will/topic", "will payload");
        let connect = Connect::new(version, "c").will(will).username("user").password("secret");
        Client::connect(&broker, connect).vanish();
        watcher.expect(Publish::new("will/topic", "will payload"));
    });
}

#[test]
fn mqtt_3_1_3_2_the_client_identifier_names_the_session() {
    for_versions(|version| {
        let broker = Broker::start();
        leave_session(&broker, version);
        let connect = |name| Connect::new(version, name).durable();
        for other in ["C", "c ", "cc"] {
            assert!(!Client::connect(&broker, connect(other)).connack.session_present);
        }
        assert!(Client::connect(&broker, connect("c")).connack.session_present);
    });
}

#[test]
fn a_session_can_be_resumed_in_another_version() {
    let broker = Broker::start();
    leave_session(&broker, V311);
    publish(&broker, V311, "first");
    let mut client = Client::connect(&broker, Connect::v5("c").durable());
    assert!(client.connack.session_present);
    client.expect_message("first");
    client.disconnect();
    publish(&broker, V5, "second");
    let mut client = Client::connect(&broker, Connect::v311("c").resume());
    assert!(client.connack.session_present);
    client.expect_message("second");
}

#[test]
fn mqtt_3_1_3_3_a_connect_without_client_identifier_is_malformed() {
    for_versions(|version| {
        let properties: &[u8] = if version == V5 { &[0] } else { &[] };
        let head = [&string("MQTT")[..], &[version as u8, 0x02, 0, 60], properties].concat();
        let broker = Broker::start();
        expect_connect_violation(&broker, version, &frame(0x10, &head), MALFORMED_PACKET);
    });
}

#[test]
fn mqtt_3_1_3_4_the_client_identifier_is_checked_as_a_string() {
    for_versions(|version| {
        let broker = Broker::start();
        for bytes in [&b"a\xFF"[..], b"\xED\xA0\x80", b"a\0b"] {
            let client_identifier = bytes.to_vec();
            expect_malformed(&broker, Connect { client_identifier, ..Connect::new(version, "") });
        }
    });
}

#[test]
fn mqtt_3_1_3_5_client_identifiers_of_up_to_23_digits_and_letters_are_accepted() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let names = [
            "0",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
            "ZZZZZZZZZZZZZZZZZZZZZZZ",
        ];
        for name in names {
            Client::connect(&broker, Connect::new(version, name));
        }
    });
}

#[test]
fn longer_client_identifiers_of_any_characters_are_accepted() {
    for_all_versions(|version| {
        let broker = Broker::start();
        for name in ["with spaces, / + # and é", &"long".repeat(100)] {
            Client::connect(&broker, Connect::new(version, name)).expect_alive();
        }
    });
}

#[test]
fn mqtt_3_1_3_6_an_empty_client_identifier_is_replaced_by_a_unique_one() {
    let broker = Broker::start();
    let mut first = Client::connect(&broker, Connect::v5(""));
    let mut second = Client::connect(&broker, Connect::v5("").resume());
    first.expect_alive();
    second.expect_alive();
    let assigned = |client: &Client| {
        property!(client.connack.properties, AssignedClientIdentifier).expect("an identifier")
    };
    assert_ne!(assigned(&first), assigned(&second));
}

#[test]
fn mqtt_311_3_1_3_6_an_empty_client_identifier_is_replaced_by_a_unique_one() {
    let broker = Broker::start();
    let mut first = Client::connect(&broker, Connect::v311(""));
    let mut second = Client::connect(&broker, Connect::v311(""));
    first.expect_alive();
    second.expect_alive();
}

#[test]
fn mqtt_3_1_3_7_the_assigned_client_identifier_identifies_the_session() {
    let broker = Broker::start();
    let client = Client::connect(&broker, Connect::v5("").durable());
    assert!(!client.connack.session_present);
    let assigned = property!(client.connack.properties, AssignedClientIdentifier);
    client.disconnect();
    let assigned = assigned.expect("an identifier");
    let client = Client::connect(&broker, Connect::v5(&assigned).durable());
    assert!(client.connack.session_present);
    assert_eq!(property!(client.connack.properties, AssignedClientIdentifier), None);
}

#[test]
fn mqtt_311_3_1_3_7_an_empty_client_identifier_requires_clean_session_1() {
    let broker = Broker::start();
    Client::connect(&broker, Connect::v311(""));
    Client::refused(&broker, Connect::v311("").resume(), V3_IDENTIFIER_REJECTED);
}

#[test]
fn mqtt_311_3_1_3_8_an_empty_client_identifier_with_clean_session_0_is_rejected() {
    let broker = Broker::start();
    Client::refused(&broker, Connect::v311("").resume(), V3_IDENTIFIER_REJECTED);
}

#[test]
fn mqtt_311_3_1_3_9_a_rejected_client_identifier_is_answered_with_0x02() {
    let broker = Broker::start();
    Client::refused(&broker, Connect::v311("").resume(), V3_IDENTIFIER_REJECTED);
    if broker.is_ours() {
        // MQTT 3.1 does not allow an empty Client Identifier.
        Client::refused(&broker, Connect::new(V31, ""), V3_IDENTIFIER_REJECTED);
    }
}

#[test]
fn mqtt_3_1_3_11_the_will_topic_is_checked_as_a_string() {
    for_versions(|version| {
        let broker = Broker::start();
        for topic in [&b"a\xFF"[..], b"a\0b"] {
            let mut connect = Connect::new(version, "c").will(Will::new("____", "p")).bytes();
            let at = connect.windows(4).position(|bytes| bytes == b"____").expect("the topic");
            connect.splice(at - 1..at + 4, [&[topic.len() as u8][..], topic].concat());
            connect[1] = (connect.len() - 2) as u8;
            expect_connect_violation(&broker, version, &connect, MALFORMED_PACKET);
        }
    });
}

#[test]
fn a_will_topic_with_a_wildcard_is_refused() {
    for_versions(|version| {
        let broker = Broker::start();
        for topic in ["a/#", "+", ""] {
            let connect = Connect::new(version, "c").will(Will::new(topic, "payload"));
            expect_connect_violation(&broker, version, &connect.bytes(), TOPIC_NAME_INVALID);
        }
    });
}

#[test]
fn mqtt_3_1_3_12_the_user_name_is_checked_as_a_string() {
    for_versions(|version| {
        let broker = Broker::start();
        for name in [&b"a\xFF"[..], b"a\0b"] {
            expect_malformed(&broker, Connect::new(version, "c").username(name));
        }
    });
}

/// CONNECT packets that violate section 3.1, in every version.
fn ill_formed_connects(version: Version) -> Vec<Vec<u8>> {
    let connect = || Connect::new(version, "c");
    let whole = connect().username("user").bytes();
    let mut ends_early = whole[..whole.len() - 1].to_vec();
    ends_early[1] -= 1;
    let mut goes_on = whole;
    goes_on[1] += 1;
    goes_on.push(0);
    let reserved_flag = connect().flip_flags(0x01).bytes();
    let no_will = connect().flip_flags(WILL_FLAG).bytes();
    vec![ends_early, goes_on, reserved_flag, no_will]
}

#[test]
fn mqtt_3_1_4_1_an_ill_formed_connect_is_refused() {
    let broker = Broker::start();
    for connect in ill_formed_connects(V5) {
        expect_connect_violation(&broker, V5, &connect, MALFORMED_PACKET);
    }
    let malformed = [Property::Raw(vec![0x7E, 0x00]), Property::TopicAlias(1)];
    for property in malformed {
        expect_malformed(&broker, Connect::v5("c").property(property));
    }
}

#[test]
fn mqtt_311_3_1_4_1_an_ill_formed_connect_is_closed_without_connack() {
    let broker = Broker::start();
    for connect in ill_formed_connects(V311) {
        let mut client = Client::open(&broker, V311);
        client.raw(&connect);
        client.expect_closed();
    }
}

fn unknown_method(client_identifier: &str) -> Connect {
    let method = Property::AuthenticationMethod("unknown method".into());
    Connect::v5(client_identifier).property(method)
}

#[test]
fn mqtt_3_1_4_2_a_connect_that_fails_a_further_check_is_refused() {
    Client::refused(&Broker::start(), unknown_method("c"), BAD_AUTHENTICATION_METHOD);
}

#[test]
fn mqtt_3_1_4_3_a_take_over_disconnects_the_previous_connection_with_0x8e() {
    let broker = Broker::start();
    for connect in [Connect::v5("c"), Connect::v5("c").durable()] {
        let mut old = Client::connect(&broker, connect.clone());
        let mut new = Client::connect(&broker, connect);
        old.expect_disconnect(SESSION_TAKEN_OVER);
        new.expect_alive();
    }
}

#[test]
fn mqtt_311_3_1_4_2_a_take_over_disconnects_the_previous_connection() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        for connect in [Connect::new(version, "c"), Connect::new(version, "c").resume()] {
            let mut old = Client::connect(&broker, connect.clone());
            let mut new = Client::connect(&broker, connect);
            old.expect_closed();
            new.expect_alive();
        }
    });
}

#[test]
fn mqtt_3_1_4_4_clean_start_applies_to_a_take_over() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut first = Client::connect(&broker, Connect::new(version, "c").durable());
        first.subscribe("a", 1);
        let mut second = Client::connect(&broker, Connect::new(version, "c").durable());
        assert!(second.connack.session_present);
        publish(&broker, version, "to the second");
        second.expect_message("to the second");
        let mut third = Client::connect(&broker, Connect::new(version, "c"));
        assert!(!third.connack.session_present);
        publish(&broker, version, "to nobody");
        third.expect_alive();
    });
}

#[test]
fn mqtt_3_1_4_5_an_accepted_connect_is_answered_with_success() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::open(&broker, version);
        client.send(Connect::new(version, "c"));
        assert_eq!(client.expect_connack().reason, 0);
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_1_4_6_nothing_is_processed_after_a_rejected_connect() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut watcher = Client::connect(&broker, Connect::new(version, "watcher"));
        watcher.subscribe("#", 0);
        let rejected = match version {
            V5 => unknown_method("c"),
            _ => Connect::new(version, "").resume(),
        };
        let publish = Publish::new("a", "of a client that was rejected").retain();
        let mut client = Client::open(&broker, version);
        client.raw(&[rejected.bytes(), publish.encode(version)].concat());
        let reason = if version == V5 { BAD_AUTHENTICATION_METHOD } else { V3_IDENTIFIER_REJECTED };
        client.expect_refusal(reason);
        watcher.expect_alive();
        watcher.subscribe("a", 0);
        watcher.expect_alive();
    });
}

#[test]
fn a_client_need_not_wait_for_connack() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::open(&broker, version);
        let subscribe = Subscribe::new(1, "a", 0).encode(version);
        let publish = Publish::new("a", "payload").encode(version);
        client.raw(&[Connect::new(version, "c").bytes(), subscribe, publish].concat());
        assert_eq!(client.expect_connack().reason, 0);
        // The message may precede SUBACK (section 3.8.4).
        let mut seen = [client.receive(), client.receive()].map(|packet| format!("{packet:?}"));
        seen.sort();
        assert!(seen[0].starts_with("Publish") && seen[1].starts_with("Suback"), "{seen:?}");
    });
}

#[test]
fn a_connection_without_connect_is_closed_after_a_timeout() {
    let broker = Broker::with_config("[limits]\nconnect_timeout_s = 1");
    let mut silent = Client::open(&broker, V5);
    let mut slow = Client::open(&broker, V5);
    slow.raw(&Connect::v5("c").bytes()[..5]);
    let since = Instant::now();
    silent.expect_closed();
    slow.expect_closed();
    let waited = since.elapsed();
    assert!((0.8..3.0).contains(&waited.as_secs_f32()), "closed after {waited:?}");
}
