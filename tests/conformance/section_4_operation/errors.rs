//! 4.12 and 4.13: enhanced authentication, and what follows an error.
//!
//! The broker has no built-in authentication method; the tests of the engine cover the exchange
//! itself.

use super::{durable, publish_numbers, resumed};
use crate::support::{
    Ack, Auth, Broker, Bytes, Client, Connect, Disconnect, Encode, Property, Publish, SILENCE,
    Subscribe, V5, V311, Version, Will, for_versions, frame, property, reason, string,
};

fn method(connect: Connect) -> Connect {
    connect
        .property(Property::AuthenticationMethod("SCRAM-SHA-1".into()))
        .property(Property::AuthenticationData(b"client-first".to_vec()))
}

fn auth(reason: u8) -> Auth {
    Auth::new(reason).property(Property::AuthenticationMethod("SCRAM-SHA-1".into()))
}

#[test]
fn mqtt_4_12_0_1_an_unsupported_authentication_method_is_refused_with_0x8c() {
    let broker = Broker::start();
    Client::refused(&broker, method(Connect::v5("c")), reason::BAD_AUTHENTICATION_METHOD);
}

#[test]
fn a_refused_authentication_method_leaves_the_session_unchanged() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, durable(V5));
    client.subscribe("t/#", 1);
    let refused = method(Connect::v5("s"));
    Client::refused(&broker, refused, reason::BAD_AUTHENTICATION_METHOD);
    client.expect_alive();
    client.disconnect();
    publish_numbers(&broker, V5, 1, 0..1);
    Client::refused(&broker, method(Connect::v5("s")), reason::BAD_AUTHENTICATION_METHOD);
    resumed(&broker, durable(V5)).expect_message("0");
}

#[test]
fn mqtt_4_12_0_6_without_an_authentication_method_the_server_sends_none_and_no_auth() {
    let broker = Broker::start();
    let mut client =
        Client::connect(&broker, Connect::v5("c").username("someone").password("secret"));
    assert_eq!(property!(client.connack.properties, AuthenticationMethod), None);
    assert_eq!(property!(client.connack.properties, AuthenticationData), None);
    client.expect_silence(SILENCE);
    client.expect_alive();
}

#[test]
fn mqtt_4_12_0_7_auth_without_an_authentication_method_in_connect_is_a_protocol_error() {
    let broker = Broker::start();
    for reason in [reason::RE_AUTHENTICATE, reason::CONTINUE_AUTHENTICATION, reason::SUCCESS] {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.send(auth(reason));
        client.expect_disconnect(reason::PROTOCOL_ERROR);
    }
}

#[test]
fn auth_as_the_first_packet_ends_the_connection() {
    let broker = Broker::start();
    let mut client = Client::open(&broker, V5);
    client.send(auth(reason::CONTINUE_AUTHENTICATION));
    client.expect_closed();
}

#[test]
fn auth_is_a_violation_in_3_1_1() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v311("c"));
    client.raw(&frame(0xF0, &[]));
    client.expect_closed();
}

/// Malformed packets, and well-formed ones that are not allowed.
fn violations(version: Version) -> Vec<(Vec<u8>, u8)> {
    let topic = string("t");
    let malformed = [
        frame(0x00, &[]),                                   // reserved packet type
        frame(0xC1, &[]),                                   // reserved flags
        frame(0x36, &[&topic[..], &[0, 1, 0]].concat()),    // QoS 3
        vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], // Remaining Length of more than four bytes
        frame(0x30, &[0, 9, b't']),               // string longer than its packet
        frame(0x30, &[&string([0xFF])[..], &[0]].concat()), // ill-formed UTF-8
        frame(0x82, &[0]),                        // truncated Packet Identifier
    ];
    let subscribe = Subscribe { filters: Vec::new(), ..Subscribe::new(1, "t", 0) };
    let protocol = [
        Connect::new(version, "c").bytes(),
        frame(0x20, &[0, 0, 0]), // CONNACK
        frame(0xD0, &[]),        // PINGRESP
        subscribe.encode(version),
        Publish::new("t", "m").qos(1, 0).encode(version),
    ];
    let malformed = malformed.into_iter().map(|bytes| (bytes, reason::MALFORMED_PACKET));
    malformed.chain(protocol.map(|bytes| (bytes, reason::PROTOCOL_ERROR))).collect()
}

/// Expects each of [`violations`] to end the connection, in 5.0 with its Reason Code.
fn expect_violations_end_the_connection(version: Version) {
    let broker = Broker::start();
    for (bytes, reason) in violations(version) {
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        eprintln!("{bytes:02x?}");
        client.send(Bytes(bytes));
        client.expect_violation(reason);
    }
}

#[test]
fn mqtt_4_13_1_1_a_malformed_packet_or_protocol_error_ends_the_connection() {
    expect_violations_end_the_connection(V5);
}

#[test]
fn mqtt_311_4_8_0_1_a_violation_ends_the_connection() {
    expect_violations_end_the_connection(V311);
}

#[test]
fn mqtt_4_13_2_1_a_connack_of_0x80_or_above_ends_the_connection() {
    let broker = Broker::start();
    let unsupported = Connect::v5("c").protocol("MQTT", 9);
    Client::refused(&broker, unsupported, reason::UNSUPPORTED_PROTOCOL_VERSION);
    let rejected = Connect::v311("").resume();
    Client::refused(&broker, rejected, reason::V3_IDENTIFIER_REJECTED);
}

#[test]
fn mqtt_4_13_2_1_a_disconnect_of_0x80_or_above_from_the_server_ends_the_connection() {
    let broker = Broker::start();
    let mut old = Client::connect(&broker, Connect::v5("c"));
    let _new = Client::connect(&broker, Connect::v5("c"));
    old.expect_disconnect(reason::SESSION_TAKEN_OVER);
}

#[test]
fn mqtt_4_13_2_1_a_disconnect_of_0x80_or_above_from_the_client_ends_the_connection() {
    let broker = Broker::start();
    for reason in [reason::UNSPECIFIED_ERROR, reason::PROTOCOL_ERROR, reason::TOPIC_NAME_INVALID] {
        let client = Client::connect(&broker, Connect::v5("c"));
        client.disconnect_with(Disconnect::new().reason(reason));
    }
}

#[test]
fn mqtt_4_13_2_1_a_3_1_1_client_is_not_sent_a_disconnect() {
    let broker = Broker::start();
    let mut old = Client::connect(&broker, Connect::v311("c"));
    let _new = Client::connect(&broker, Connect::v311("c"));
    old.expect_closed();
}

#[test]
fn an_error_in_any_other_packet_leaves_the_connection_open() {
    let broker = Broker::with_config("[limits]\ntopic_levels_max = 2");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.send(Publish::new("$SYS/mine", "m").qos(1, 1));
    assert!(client.expect_ack().reason >= 0x80);
    client.send(Publish::new("$SYS/mine", "m").qos(2, 2));
    assert!(client.expect_ack().reason >= 0x80);
    client.send(Ack::pubrel(3));
    assert!(client.expect_ack().reason >= 0x80);
    client.send(Ack::pubrec(4));
    assert!(client.expect_ack().reason >= 0x80);
    client.send(Subscribe::new(5, "a/b/c", 0));
    assert!(client.expect_suback().reasons[0] >= 0x80);
    client.expect_alive();
}

#[test]
fn packets_before_a_violation_are_processed_and_packets_after_it_are_not() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = Client::connect(&broker, Connect::new(version, "s"));
        subscriber.subscribe("t", 0);
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        let before = Publish::new("t", "before").encode(version);
        let after = Publish::new("t", "after").encode(version);
        client.raw(&[before, vec![0x00, 0x00], after].concat());
        client.expect_violation(reason::MALFORMED_PACKET);
        subscriber.expect_message("before");
        subscriber.expect_silence(SILENCE);
    });
}

#[test]
fn a_violation_publishes_the_will_and_affects_no_other_client() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut other = Client::connect(&broker, Connect::new(version, "other"));
        other.subscribe("will", 0);
        for (number, (bytes, _)) in violations(version).into_iter().enumerate() {
            let will = Will::new("will", number.to_string());
            let mut client = Client::connect(&broker, Connect::new(version, "c").will(will));
            client.raw(&bytes);
            other.expect_message(&number.to_string());
        }
        other.expect_alive();
    });
}
