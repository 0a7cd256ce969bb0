//! 3.14: DISCONNECT from the client and from the server.

use std::time::Duration;

use crate::support::{
    Broker, Client, Connect, Disconnect, Encode, Packet, Property, Publish, SILENCE, Subscribe, V5,
    V311, Version, Will, for_all_versions, for_versions, frame, property, reason,
};

fn client(broker: &Broker, version: Version) -> Client {
    Client::connect(broker, Connect::new(version, "c"))
}

/// A client that receives the Wills of the others.
fn witness(broker: &Broker) -> Client {
    let mut witness = Client::connect(broker, Connect::v5("witness"));
    witness.subscribe("will", 0);
    witness
}

fn with_will(version: Version) -> Connect {
    Connect::new(version, "c").will(Will::new("will", "last words"))
}

#[test]
fn mqtt_3_14_0_1_the_server_sends_no_disconnect_before_a_connack_of_success() {
    let broker = Broker::with_config("[limits]\nconnect_timeout_s = 1\n");
    let mut silent = Client::open(&broker, V5);
    // Bytes that are no CONNECT.
    for bytes in [&[0xC0, 0x00][..], &[0xE0, 0x00], &[0xF0, 0x00], &[0x00, 0x00], b"GET / HTTP/1"] {
        let mut client = Client::open(&broker, V5);
        client.raw(bytes);
        client.expect_closed();
    }
    // A refused CONNECT: the last packet is CONNACK.
    let mut client = Client::open(&broker, V5);
    client.send(Connect::v5("c").flip_flags(0x01));
    client.expect_refusal(reason::MALFORMED_PACKET);
    Client::refused(
        &broker,
        Connect::v5("c").property(Property::AuthenticationMethod("none".into())),
        reason::BAD_AUTHENTICATION_METHOD,
    );
    // No CONNECT before the timeout.
    silent.expect_closed();
    // The server stops.
    let mut waiting = Client::open(&broker, V5);
    waiting.raw(&Connect::v5("waiting").bytes()[..5]);
    let mut witness = client_named(&broker, "accepted after it");
    witness.expect_alive();
    broker.stop();
    waiting.expect_closed();
}

fn client_named(broker: &Broker, name: &str) -> Client {
    Client::connect(broker, Connect::v5(name))
}

#[test]
fn mqtt_3_14_1_1_disconnect_with_flags_is_malformed() {
    let broker = Broker::start();
    for flags in 1..16 {
        let mut client = client(&broker, V5);
        client.raw(&[0xE0 | flags, 0x00]);
        client.expect_disconnect(reason::MALFORMED_PACKET);
    }
}

#[test]
fn mqtt_311_3_14_1_1_disconnect_with_flags_is_a_violation() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    for flags in 1..16 {
        let mut client = Client::connect(&broker, with_will(V311));
        client.raw(&[0xE0 | flags, 0x00]);
        client.expect_closed();
        // The packet is not a valid DISCONNECT: the Will is published.
        witness.expect_message("last words");
    }
}

#[test]
fn mqtt_3_14_2_1_an_undefined_reason_code_in_disconnect_is_a_protocol_error() {
    let broker = Broker::start();
    for code in [0x01, 0x02, 0x05, 0x10, 0x11, 0x18, 0x19, 0x7F, 0x84, 0x85, 0x91, 0xFF] {
        let mut client = client(&broker, V5);
        client.send(Disconnect::new().reason(code));
        client.expect_disconnect(reason::PROTOCOL_ERROR);
    }
}

#[test]
fn mqtt_3_14_2_1_the_servers_reason_codes_are_among_the_listed() {
    let listed = [
        0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
        0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    let broker = Broker::with_config(
        "[limits]\npacket_bytes_max = 128\nreceive_maximum = 1\ntopic_levels_max = 2\n\
         [mqtt]\nmaximum_qos = 1\nretain_available = false\n",
    );
    let alias = |alias| Publish::new("a", "").property(Property::TopicAlias(alias));
    let packets: Vec<Vec<u8>> = vec![
        vec![0xC1, 0x00],
        frame(0x30, &[0; 200]),
        Subscribe::new(0, "a", 0).encode(V5),
        Subscribe::new(1, "a#", 0).encode(V5),
        Subscribe::new(1, "$share//a", 0).encode(V5),
        Subscribe::new(1, "", 0).encode(V5),
        Subscribe::new(1, b"\xFF", 0).encode(V5),
        Publish::new("a/+", "").encode(V5),
        Publish::new("", "").encode(V5),
        Publish::new("a/b/c", "").encode(V5),
        Publish::new("a", "").retain().encode(V5),
        Publish::new("a", "").qos(2, 1).encode(V5),
        alias(0).encode(V5),
        alias(1000).encode(V5),
        Connect::v5("c").bytes(),
        vec![0xF0, 0x00],
        vec![0xD0, 0x00],
    ];
    for bytes in packets {
        let mut client = client(&broker, V5);
        client.raw(&bytes);
        match client.receive() {
            Packet::Disconnect(disconnect) => {
                let code = disconnect.reason;
                assert!(listed.contains(&code) && code >= 0x80, "{code:#04x} to {bytes:02x?}");
            }
            other => panic!("{other:?} to {bytes:02x?}"),
        }
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_14_2_2_the_servers_disconnect_has_no_session_expiry_interval() {
    // The client panics if a DISCONNECT has one; this test provokes each kind of DISCONNECT.
    let mut broker = Broker::with_config("[limits]\nsession_expiry_max_s = 60\n");
    let connect = Connect::v5("c").durable();
    let mut first = Client::connect(&broker, connect.clone());
    let mut second = Client::connect(&broker, connect.clone());
    first.expect_disconnect(reason::SESSION_TAKEN_OVER);
    second.raw(&[0xC1, 0x00]);
    second.expect_disconnect(reason::MALFORMED_PACKET);
    let mut third = Client::connect(&broker, connect);
    broker.stop();
    third.expect_disconnect(reason::SERVER_SHUTTING_DOWN);
    broker.await_end();
}

#[test]
fn mqtt_3_14_2_3_a_reason_string_that_makes_disconnect_too_large_is_omitted() {
    let broker = Broker::start();
    let reason_string = |packet_bytes_max| {
        let small = Property::MaximumPacketSize(packet_bytes_max);
        let mut client = Client::connect(&broker, Connect::v5("c").property(small));
        client.raw(&[0xC1, 0x00]);
        let disconnect = client.expect_disconnect(reason::MALFORMED_PACKET);
        property!(disconnect.properties, ReasonString)
    };
    let text = reason_string(10_000).expect("a Reason String");
    // Type, length, Reason Code, Property Length, property, length of the string.
    let whole = 7 + text.len() as u32;
    assert_eq!(reason_string(whole), Some(text));
    assert_eq!(reason_string(whole - 1), None);
    assert_eq!(reason_string(40), None);
}

#[test]
fn a_server_reference_that_makes_disconnect_too_large_is_omitted() {
    let broker = Broker::with_config(&format!(
        "[mqtt]\nserver_reference = \"{}\"\n",
        "elsewhere.example:1883 ".repeat(20)
    ));
    let connect = Connect::v5("c").property(Property::MaximumPacketSize(100));
    let mut client = Client::connect(&broker, connect);
    broker.stop();
    assert_eq!(client.expect_disconnect(reason::SERVER_SHUTTING_DOWN).properties, []);
}

#[test]
fn mqtt_3_14_4_1_nothing_follows_the_servers_disconnect() {
    let broker = Broker::start();
    let mut client = client(&broker, V5);
    client.subscribe("a", 0);
    // Packets after the violation are not processed.
    let mut bytes = vec![0xC1, 0x00];
    bytes.extend([0xC0, 0x00]);
    bytes.extend(Subscribe::new(1, "b", 0).encode(V5));
    bytes.extend(Publish::new("a", "m").encode(V5));
    client.raw(&bytes);
    client.expect_disconnect(reason::MALFORMED_PACKET);
}

#[test]
fn mqtt_3_14_4_1_packets_after_a_clients_disconnect_are_not_processed() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = Client::connect(&broker, Connect::v5("subscriber"));
        subscriber.subscribe("a", 0);
        let mut client = client(&broker, version);
        let mut bytes = Publish::new("a", "before").encode(version);
        bytes.extend(frame(0xE0, &[]));
        bytes.extend(Publish::new("a", "after").encode(version));
        bytes.extend([0xC0, 0x00]);
        client.raw(&bytes);
        client.expect_closed();
        subscriber.expect_message("before");
        subscriber.expect_alive();
    });
}

#[test]
fn mqtt_3_14_4_2_the_connection_is_closed_after_the_servers_disconnect() {
    let broker = Broker::start();
    let mut old = client(&broker, V5);
    let mut new = client(&broker, V5);
    old.expect_disconnect(reason::SESSION_TAKEN_OVER);
    new.expect_alive();
    new.raw(&[0xC1, 0x00]);
    new.expect_disconnect(reason::MALFORMED_PACKET);
}

#[test]
fn the_server_closes_the_connection_after_a_clients_disconnect() {
    for_all_versions(|version| {
        let broker = Broker::start();
        client(&broker, version).disconnect();
    });
}

#[test]
fn mqtt_3_14_4_3_disconnect_with_success_discards_the_will() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    let will = Will::new("will", "last words");
    for connect in [
        with_will(V5),
        Connect::v5("c").expiry(300).will(will.clone().delay(1)),
        Connect::v5("c").durable().will(will.clone().qos(1).retain()),
    ] {
        for bytes in [&[0xE0, 0x00][..], &[0xE0, 0x01, 0x00], &[0xE0, 0x02, 0x00, 0x00]] {
            let mut client = Client::connect(&broker, connect.clone());
            client.raw(bytes);
            client.expect_closed();
            witness.expect_alive();
        }
    }
    // Nor later, after its delay.
    witness.expect_silence(Duration::from_millis(1200));
}

#[test]
fn mqtt_311_3_14_4_3_disconnect_discards_the_will() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    for connect in [with_will(V311), with_will(V311).durable()] {
        Client::connect(&broker, connect).disconnect();
        witness.expect_alive();
    }
    witness.expect_silence(SILENCE);
}

#[test]
fn disconnect_0x04_and_errors_publish_the_will() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    let codes = [0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    for code in [reason::DISCONNECT_WITH_WILL].iter().chain(&codes) {
        let client = Client::connect(&broker, with_will(V5));
        client.disconnect_with(Disconnect::new().reason(*code));
        witness.expect_message("last words");
    }
    // The Will is published once, and not again when the connection or the session ends.
    Client::connect(&broker, Connect::v5("c"));
    witness.expect_alive();
}

#[test]
fn disconnect_0x04_publishes_the_will_after_its_delay() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    let will = Will::new("will", "last words").delay(1);
    let client = Client::connect(&broker, Connect::v5("c").expiry(300).will(will));
    client.disconnect_with(Disconnect::new().reason(reason::DISCONNECT_WITH_WILL));
    witness.expect_silence(Duration::from_millis(700));
    witness.expect_message("last words");
}

#[test]
fn disconnect_accepts_a_reason_string_and_user_properties() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    let client = Client::connect(&broker, with_will(V5));
    client.disconnect_with(
        Disconnect::new()
            .property(Property::ReasonString("good night".into()))
            .property(Property::user("name", "value")),
    );
    witness.expect_alive();
}

#[test]
fn ill_formed_disconnect_packets_are_malformed() {
    let broker = Broker::start();
    for bytes in [
        // A property of another packet.
        &[0xE0, 0x05, 0x00, 0x03, 0x23, 0x00, 0x01][..],
        // A Property Length beyond the end.
        &[0xE0, 0x02, 0x00, 0x05],
        // Bytes after the properties.
        &[0xE0, 0x03, 0x00, 0x00, 0x00],
    ] {
        let mut client = client(&broker, V5);
        client.raw(bytes);
        client.expect_disconnect(reason::MALFORMED_PACKET);
    }
    let twice = Disconnect::new()
        .property(Property::SessionExpiryInterval(0))
        .property(Property::SessionExpiryInterval(0));
    let mut client = client(&broker, V5);
    client.send(twice);
    client.expect_disconnect(reason::PROTOCOL_ERROR);
}

#[test]
fn a_3_x_disconnect_with_a_body_is_a_violation_and_publishes_the_will() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    for body in [&[0x00][..], &[0x04], &[0x00, 0x00]] {
        let mut client = Client::connect(&broker, with_will(V311));
        client.raw(&frame(0xE0, body));
        client.expect_closed();
        witness.expect_message("last words");
    }
}

/// Ends a connection with the expiry `connect_s` by a DISCONNECT with `disconnect_s`; returns
/// whether the session exists after `pause`.
fn is_there_after(connect_s: u32, disconnect_s: u32, pause: Duration) -> bool {
    let broker = Broker::start();
    let client = Client::connect(&broker, Connect::v5("c").expiry(connect_s));
    let expiry = Property::SessionExpiryInterval(disconnect_s);
    client.disconnect_with(Disconnect::new().property(expiry));
    std::thread::sleep(pause);
    Client::connect(&broker, Connect::v5("c").resume()).connack.session_present
}

const NOW: Duration = Duration::ZERO;
const AFTER_A_SECOND: Duration = Duration::from_millis(1500);

#[test]
fn a_session_expiry_interval_of_0_in_disconnect_ends_the_session() {
    assert!(!is_there_after(300, 0, NOW));
    assert!(!is_there_after(u32::MAX, 0, NOW));
    assert!(!is_there_after(0, 0, NOW));
}

#[test]
fn a_longer_session_expiry_interval_in_disconnect_applies() {
    assert!(is_there_after(1, 300, AFTER_A_SECOND));
    assert!(is_there_after(1, u32::MAX, NOW));
}

#[test]
fn a_shorter_session_expiry_interval_in_disconnect_applies() {
    assert!(!is_there_after(300, 1, AFTER_A_SECOND));
    assert!(is_there_after(300, 1, NOW));
}

#[test]
fn without_a_session_expiry_interval_in_disconnect_that_of_connect_applies() {
    let broker = Broker::start();
    Client::connect(&broker, Connect::v5("c").expiry(300)).disconnect();
    let client = Client::connect(&broker, Connect::v5("c").resume());
    assert!(client.connack.session_present);
    client.disconnect();
    assert!(!Client::connect(&broker, Connect::v5("c").resume()).connack.session_present);
}

#[test]
fn a_session_expiry_interval_in_disconnect_after_0_in_connect_is_a_protocol_error() {
    let broker = Broker::start();
    let mut witness = witness(&broker);
    for connect in [with_will(V5), with_will(V5).expiry(0)] {
        let mut client = Client::connect(&broker, connect);
        client.send(Disconnect::new().property(Property::SessionExpiryInterval(1)));
        client.expect_disconnect(reason::PROTOCOL_ERROR);
        // The packet is not a valid DISCONNECT: the Will is published, and the session ends.
        witness.expect_message("last words");
        let client = Client::connect(&broker, Connect::v5("c").resume());
        assert!(!client.connack.session_present);
        client.disconnect();
    }
}

#[test]
fn a_session_expiry_interval_in_disconnect_is_capped_by_the_configuration() {
    let broker = Broker::with_config("[limits]\nsession_expiry_max_s = 1\n");
    let client = Client::connect(&broker, Connect::v5("c").expiry(1));
    client.disconnect_with(Disconnect::new().property(Property::SessionExpiryInterval(300)));
    std::thread::sleep(AFTER_A_SECOND);
    assert!(!Client::connect(&broker, Connect::v5("c").resume()).connack.session_present);
}

#[test]
fn a_stopping_server_sends_disconnect_to_5_0_clients_and_closes_all_connections() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut clients: Vec<Client> = (0..10)
            .map(|number| Client::connect(&broker, Connect::new(version, &format!("c{number}"))))
            .collect();
        broker.stop();
        for client in &mut clients {
            client.expect_violation(reason::SERVER_SHUTTING_DOWN);
        }
    });
}

#[test]
fn a_stopping_server_first_delivers_accepted_messages() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, Connect::v5("subscriber"));
    subscriber.subscribe("a", 0);
    let mut publisher = client(&broker, V5);
    for number in 0..100 {
        publisher.send(Publish::new("a", format!("{number}")));
    }
    publisher.expect_alive();
    broker.stop();
    for number in 0..100 {
        subscriber.expect_message(&format!("{number}"));
    }
    subscriber.expect_disconnect(reason::SERVER_SHUTTING_DOWN);
}

#[test]
fn a_stopping_server_redirects_clients_if_configured() {
    // Server Reference requires Reason Code 0x9C, which redirects the client.
    let broker = Broker::with_config("[mqtt]\nserver_reference = \"b.example:1883\"\n");
    let mut client = client(&broker, V5);
    let mut old = Client::connect(&broker, Connect::v311("old"));
    broker.stop();
    let disconnect = client.expect_disconnect(reason::USE_ANOTHER_SERVER);
    let reference = property!(disconnect.properties, ServerReference);
    assert_eq!(reference.as_deref(), Some("b.example:1883"));
    old.expect_closed();
}
