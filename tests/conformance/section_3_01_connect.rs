//! 3.1.0 to 3.1.2: CONNECT up to its properties.

use std::time::{Duration, Instant};

use crate::support::reason::{
    KEEP_ALIVE_TIMEOUT, MALFORMED_PACKET, NO_SUBSCRIPTION_EXISTED, PACKET_TOO_LARGE,
    PROTOCOL_ERROR, UNSUPPORTED_PROTOCOL_VERSION, V3_UNACCEPTABLE_VERSION,
};
use crate::support::{
    Ack, Broker, Client, Connect, Disconnect, Encode, Property, Publish, Subscribe, Unsuback,
    Unsubscribe, V5, V31, V311, Version, Will, for_all_versions, for_each_version, for_versions,
    property,
};

pub const WILL_FLAG: u8 = 0x04;
const WILL_QOS_1: u8 = 0x08;
const WILL_QOS_3: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD_FLAG: u8 = 0x40;
const USER_NAME_FLAG: u8 = 0x80;

/// A CONNECT that violates the specification: a 5.0 client receives CONNACK, and a 3.1.1 client
/// only sees the connection close.
#[track_caller]
pub fn expect_malformed(broker: &Broker, connect: Connect) {
    expect_connect_violation(broker, connect.version, &connect.bytes(), MALFORMED_PACKET);
}

#[track_caller]
pub fn expect_connect_violation(broker: &Broker, version: Version, connect: &[u8], reason: u8) {
    let mut client = Client::open(broker, version);
    client.raw(connect);
    if version == V5 {
        client.expect_refusal(reason);
    } else {
        client.expect_closed();
    }
}

#[test]
fn an_oversized_connect_is_refused_before_it_is_received() {
    let broker = Broker::with_config("limits.connect_bytes_max = 128");
    for version in [V311, V5] {
        let connect = |length| Connect::new(version, &"x".repeat(length)).bytes();
        let fits = 128 - connect(0).len();
        let mut client = Client::open(&broker, version);
        client.raw(&connect(fits));
        client.expect_connack();
        // Only as many bytes as state the length and the version.
        expect_connect_violation(&broker, version, &connect(fits + 1)[..10], PACKET_TOO_LARGE);
    }
}

#[test]
fn mqtt_3_1_0_1_the_first_packet_is_connect() {
    for_versions(|version| {
        let broker = Broker::start();
        let packets = [
            Publish::new("a", "").encode(version),
            Subscribe::new(1, "a", 0).encode(version),
            vec![0xC0, 0x00],
            vec![0xE0, 0x00],
            // An HTTP request, which reads like a PUBACK of 69 bytes.
            format!("GET / HTTP/1.1\r\nUser-Agent: {}\r\n\r\n", "x".repeat(69)).into_bytes(),
            b"GET".to_vec(),
        ];
        for packet in packets {
            let mut client = Client::open(&broker, version);
            client.raw(&packet);
            client.expect_closed();
        }
    });
}

#[test]
fn mqtt_3_1_0_2_a_second_connect_is_a_protocol_error() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Connect::new(version, "c"));
        client.expect_violation(PROTOCOL_ERROR);
    });
}

#[test]
fn mqtt_3_1_2_1_another_protocol_name_is_not_served() {
    let broker = Broker::start();
    for name in ["", "mqtt", "MQTTX", "MQT", "MQIsdp"] {
        let mut client = Client::open(&broker, V5);
        client.send(Connect::v5("c").protocol(name, 5));
        client.expect_closed_or_refused(UNSUPPORTED_PROTOCOL_VERSION);
    }
}

#[test]
fn mqtt_311_3_1_2_1_another_protocol_name_is_not_served() {
    let broker = Broker::start();
    for name in ["", "mqtt", "MQTTX", "MQIsdp"] {
        let mut client = Client::open(&broker, V311);
        client.send(Connect::v311("c").protocol(name, 4));
        client.expect_closed_or_refused(V3_UNACCEPTABLE_VERSION);
    }
}

#[test]
fn mqtt_3_1_2_2_another_protocol_version_is_refused() {
    let broker = Broker::start();
    for level in [6, 0x7F, 0x85, 0xFF] {
        Client::refused(
            &broker,
            Connect::v5("c").protocol("MQTT", level),
            UNSUPPORTED_PROTOCOL_VERSION,
        );
    }
}

#[test]
fn mqtt_311_3_1_2_2_another_protocol_level_is_refused() {
    let broker = Broker::start();
    for level in [0, 1, 2, 3] {
        let connect = Connect::v311("c").protocol("MQTT", level);
        Client::refused(&broker, connect, V3_UNACCEPTABLE_VERSION);
    }
}

#[test]
fn clients_of_3_1_are_served() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::new(V31, "c"));
    client.subscribe("a", 1);
    client.send(Publish::new("a", "payload"));
    client.expect_message("payload");
    client.expect_alive();
}

#[test]
fn mqtt_3_1_2_3_the_reserved_flag_of_connect_is_0() {
    expect_malformed(&Broker::start(), Connect::v5("c").flip_flags(0x01));
}

#[test]
fn mqtt_311_3_1_2_3_the_reserved_flag_of_connect_is_0() {
    expect_malformed(&Broker::start(), Connect::v311("c").flip_flags(0x01));
}

/// A disconnected session with a subscription to `a` at QoS 1.
pub fn leave_session(broker: &Broker, version: Version) {
    let mut client = Client::connect(broker, Connect::new(version, "c").durable());
    client.subscribe("a", 1);
    client.disconnect();
}

pub fn publish(broker: &Broker, version: Version, payload: &str) {
    let mut publisher = Client::connect(broker, Connect::new(version, "publisher"));
    publisher.publish(Publish::new("a", payload).qos(1, 1));
}

#[test]
fn mqtt_3_1_2_4_clean_start_discards_the_session() {
    for_all_versions(|version| {
        let broker = Broker::start();
        leave_session(&broker, version);
        publish(&broker, version, "for the previous session");
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        assert!(!client.connack.session_present);
        publish(&broker, version, "for its subscription");
        client.expect_alive();
        client.disconnect();
        // The old state has not returned either.
        let mut client = Client::connect(&broker, Connect::new(version, "c").durable());
        assert!(!client.connack.session_present);
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_1_2_5_without_clean_start_the_session_is_resumed() {
    let broker = Broker::start();
    leave_session(&broker, V5);
    publish(&broker, V5, "while disconnected");
    let mut client = Client::connect(&broker, Connect::v5("c").durable());
    assert!(client.connack.session_present);
    client.expect_message("while disconnected");
    publish(&broker, V5, "when reconnected");
    client.expect_message("when reconnected");
}

#[test]
fn mqtt_311_3_1_2_4_with_clean_session_0_the_session_is_resumed() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        leave_session(&broker, version);
        let mut client = Client::connect(&broker, Connect::new(version, "c").resume());
        // MQTT 3.1 has no Session Present flag.
        assert_eq!(client.connack.session_present, version == V311);
        publish(&broker, version, "when reconnected");
        client.expect_message("when reconnected");
        let client = Client::connect(&broker, Connect::new(version, "another").resume());
        assert!(!client.connack.session_present);
    });
}

#[test]
fn mqtt_311_3_1_2_5_messages_are_queued_for_a_disconnected_session() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c").resume());
        client.subscribe("a", 2);
        client.vanish();
        let mut publisher = Client::connect(&broker, Connect::new(version, "publisher"));
        publisher.publish(Publish::new("a", "first").qos(1, 1));
        publisher.publish(Publish::new("a", "second").qos(2, 2));
        let mut client = Client::connect(&broker, Connect::new(version, "c").resume());
        client.expect_message("first");
        client.expect_message("second");
    });
}

#[test]
fn mqtt_311_3_1_2_6_a_clean_session_lasts_as_long_as_its_connection() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.subscribe("a", 1);
        client.disconnect();
        publish(&broker, version, "while disconnected");
        let mut client = Client::connect(&broker, Connect::new(version, "c").resume());
        assert!(!client.connack.session_present);
        publish(&broker, version, "when reconnected");
        client.expect_alive();
    });
}

#[test]
fn mqtt_311_3_1_2_7_retained_messages_survive_the_end_of_a_session() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.publish(Publish::new("a", "kept").retain().qos(1, 1));
        client.disconnect();
        let mut other = Client::connect(&broker, Connect::new(version, "other"));
        other.subscribe("a", 0);
        other.expect(Publish::new("a", "kept").retain());
    });
}

#[test]
fn mqtt_3_1_2_6_without_a_session_a_new_one_is_created() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c").durable());
        assert!(!client.connack.session_present);
        client.subscribe("a", 0);
        client.send(Publish::new("a", "payload"));
        client.expect_message("payload");
    });
}

#[test]
fn mqtt_3_1_2_9_with_the_will_flag_there_is_a_will() {
    for_versions(|version| {
        expect_malformed(&Broker::start(), Connect::new(version, "c").flip_flags(WILL_FLAG));
    });
}

#[test]
fn mqtt_3_1_2_11_without_a_will_the_will_qos_is_0() {
    for_versions(|version| {
        expect_malformed(&Broker::start(), Connect::new(version, "c").flip_flags(WILL_QOS_1));
    });
}

#[test]
fn mqtt_3_1_2_12_the_will_qos_is_not_3() {
    for_versions(|version| {
        let connect = Connect::new(version, "c").will(Will::new("w", "payload"));
        expect_malformed(&Broker::start(), connect.flip_flags(WILL_QOS_3));
    });
}

#[test]
fn mqtt_3_1_2_13_without_a_will_will_retain_is_0() {
    for_versions(|version| {
        expect_malformed(&Broker::start(), Connect::new(version, "c").flip_flags(WILL_RETAIN));
    });
}

#[test]
fn mqtt_311_3_1_2_11_without_a_will_flag_there_are_no_will_fields() {
    let broker = Broker::start();
    let will = || Connect::v311("c").will(Will::new("w", "payload"));
    for flags in [WILL_QOS_1, WILL_RETAIN, WILL_QOS_1 | WILL_RETAIN] {
        expect_malformed(&broker, Connect::v311("c").flip_flags(flags));
    }
    expect_malformed(&broker, will().flip_flags(WILL_FLAG));
}

#[test]
fn mqtt_3_1_2_16_without_the_user_name_flag_there_is_no_user_name() {
    for_versions(|version| {
        let connect = Connect::new(version, "c").username("user");
        expect_malformed(&Broker::start(), connect.flip_flags(USER_NAME_FLAG));
    });
}

#[test]
fn mqtt_3_1_2_17_with_the_user_name_flag_there_is_a_user_name() {
    for_versions(|version| {
        expect_malformed(&Broker::start(), Connect::new(version, "c").flip_flags(USER_NAME_FLAG));
    });
}

#[test]
fn mqtt_3_1_2_18_without_the_password_flag_there_is_no_password() {
    for_versions(|version| {
        let connect = Connect::new(version, "c").username("user").password("secret");
        expect_malformed(&Broker::start(), connect.flip_flags(PASSWORD_FLAG));
    });
}

#[test]
fn mqtt_3_1_2_19_with_the_password_flag_there_is_a_password() {
    for_versions(|version| {
        let connect = Connect::new(version, "c").username("user");
        expect_malformed(&Broker::start(), connect.flip_flags(PASSWORD_FLAG));
    });
}

#[test]
fn a_password_without_a_user_name_is_accepted() {
    Client::connect(&Broker::start(), Connect::v5("c").password([0xFF, 0x00]));
}

#[test]
fn mqtt_311_3_1_2_22_there_is_no_password_without_a_user_name() {
    expect_malformed(&Broker::start(), Connect::v311("c").password("secret"));
}

/// Half a second of tolerance, as the timer may be handled late on a loaded machine.
#[track_caller]
fn expect_keep_alive_timeout(client: &mut Client, version: Version, since: Instant, after_s: f32) {
    if version == V5 {
        client.expect_disconnect(KEEP_ALIVE_TIMEOUT);
    } else {
        client.expect_closed();
    }
    let waited = since.elapsed().as_secs_f32();
    assert!((after_s - 0.1..after_s + 1.5).contains(&waited), "closed after {waited} s");
}

#[test]
fn mqtt_3_1_2_22_a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    let broker = Broker::start();
    let mut watcher = Client::connect(&broker, Connect::v5("watcher").keep_alive(0));
    watcher.subscribe("w", 0);
    let will = Will::new("w", "connection lost");
    let mut client = Client::connect(&broker, Connect::v5("c").keep_alive(1).will(will));
    // Any packet counts, not only PINGREQ.
    std::thread::sleep(Duration::from_millis(1000));
    client.send(Publish::new("a", "payload"));
    expect_keep_alive_timeout(&mut client, V5, Instant::now(), 1.5);
    watcher.expect_message("connection lost");
    // A Keep Alive of 0 disables the check.
    watcher.expect_alive();
}

#[test]
fn mqtt_311_3_1_2_24_a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    let broker = Broker::start();
    let mut watcher = Client::connect(&broker, Connect::v311("watcher").keep_alive(0));
    watcher.subscribe("w", 0);
    let will = Will::new("w", "connection lost");
    let mut client = Client::connect(&broker, Connect::v311("c").keep_alive(1).will(will));
    expect_keep_alive_timeout(&mut client, V311, Instant::now(), 1.5);
    watcher.expect_message("connection lost");
    watcher.expect_alive();
}

#[test]
fn mqtt_3_1_2_23_the_session_lasts_for_its_expiry_interval() {
    let broker = Broker::start();
    for interval in [2, u32::MAX] {
        let connect = || Connect::v5("c").resume().expiry(interval);
        let mut client = Client::connect(&broker, connect());
        client.subscribe("a", 1);
        client.vanish();
        publish(&broker, V5, "while disconnected");
        let mut client = Client::connect(&broker, connect());
        assert!(client.connack.session_present);
        client.expect_message("while disconnected");
        client.disconnect_with(Disconnect::new().property(Property::SessionExpiryInterval(0)));
    }
}

#[test]
fn without_a_session_expiry_interval_the_session_ends_with_its_connection() {
    let broker = Broker::start();
    for connect in [Connect::v5("c").resume(), Connect::v5("c").resume().expiry(0)] {
        let mut client = Client::connect(&broker, connect);
        client.subscribe("a", 1);
        client.disconnect();
        let client = Client::connect(&broker, Connect::v5("c").resume());
        assert!(!client.connack.session_present);
    }
}

#[test]
fn a_session_created_by_clean_start_may_outlive_its_connection() {
    let broker = Broker::start();
    Client::connect(&broker, Connect::v5("c").expiry(300)).disconnect();
    assert!(Client::connect(&broker, Connect::v5("c").resume()).connack.session_present);
}

#[test]
fn disconnect_may_change_a_session_expiry_interval_other_than_0() {
    let broker = Broker::start();
    let change = |to| Disconnect::new().property(Property::SessionExpiryInterval(to));
    Client::connect(&broker, Connect::v5("c").expiry(300)).disconnect_with(change(0));
    let mut client = Client::connect(&broker, Connect::v5("c").resume());
    assert!(!client.connack.session_present);
    client.send(change(300));
    client.expect_disconnect(PROTOCOL_ERROR);
}

#[test]
fn mqtt_3_1_2_24_no_packet_exceeds_the_clients_maximum_packet_size() {
    let broker = Broker::start();
    let connect = |bytes| Connect::v5("c").property(Property::MaximumPacketSize(bytes));
    let mut client = Client::connect(&broker, connect(100));
    client.subscribe("a", 0);
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    // Two bytes of fixed header, three of Topic Name, one of Property Length: a payload of 94 bytes
    // fits.
    for length in [200, 95, 94] {
        publisher.publish(Publish::new("a", "x".repeat(length)).qos(1, 1));
    }
    assert_eq!(client.expect_publish().payload.len(), 94);
    client.expect_alive();
}

#[test]
fn mqtt_3_1_2_24_connack_does_not_exceed_the_clients_maximum_packet_size() {
    let broker = Broker::start();
    let connect = Connect::v5("").property(Property::MaximumPacketSize(8));
    let mut client = Client::open(&broker, V5);
    client.send(connect);
    // A mandatory CONNACK property cannot be omitted, so the connection is closed, with or without
    // a packet.
    client.expect_end_within_bytes(8);
}

#[test]
fn mqtt_3_1_2_25_an_oversized_message_is_dropped_as_if_it_had_been_sent() {
    let broker = Broker::start();
    let connect = || {
        Connect::v5("c")
            .durable()
            .property(Property::MaximumPacketSize(100))
            .property(Property::ReceiveMaximum(1))
    };
    let mut client = Client::connect(&broker, connect());
    client.subscribe("a", 2);
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    // Neither message reduces the send quota or is sent after a reconnection.
    for qos in [1, 2] {
        publisher.publish(Publish::new("a", "x".repeat(200)).qos(qos, 1));
    }
    publisher.publish(Publish::new("a", "fits").qos(2, 1));
    client.expect_message("fits");
    client.disconnect();
    let mut client = Client::connect(&broker, connect());
    assert!(client.connack.session_present);
    client.expect_alive();
}

/// Publishes to `topics` in turn and receives the messages, resolving aliases. Returns the largest
/// alias.
fn aliases_seen(connect: Connect, topics: u16) -> u16 {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, connect);
    client.subscribe("topic/#", 0);
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    let mut names = std::collections::HashMap::new();
    let mut largest = 0;
    for number in 0..topics * 3 {
        let topic = format!("topic/with/a/name/that/is/worth/an/alias/{}", number % topics);
        publisher.publish(Publish::new(&topic, "payload").qos(1, 1));
        let publish = client.expect_publish();
        let name = match property!(publish.properties, TopicAlias) {
            None => publish.topic,
            Some(alias) => {
                largest = largest.max(alias);
                if !publish.topic.is_empty() {
                    names.insert(alias, publish.topic);
                }
                names.get(&alias).expect("an alias that was set").clone()
            }
        };
        assert_eq!(name, topic);
    }
    largest
}

#[test]
fn mqtt_3_1_2_26_no_topic_alias_exceeds_the_clients_maximum() {
    let connect = Connect::v5("c").property(Property::TopicAliasMaximum(2));
    assert!(aliases_seen(connect, 5) <= 2);
}

#[test]
fn mqtt_3_1_2_27_without_a_topic_alias_maximum_there_are_no_topic_aliases() {
    assert_eq!(aliases_seen(Connect::v5("c"), 3), 0);
    let connect = Connect::v5("c").property(Property::TopicAliasMaximum(0));
    assert_eq!(aliases_seen(connect, 3), 0);
}

#[test]
fn mqtt_3_1_2_28_response_information_is_sent_only_on_request() {
    let broker = Broker::with_config("[mqtt]\nresponse_information = \"replies/\"");
    let information = |ask: &[u8]| {
        let property = |&ask| Property::RequestResponseInformation(ask);
        let properties = ask.iter().map(property).collect();
        let client = Client::connect(&broker, Connect { properties, ..Connect::v5("c") });
        property!(client.connack.properties, ResponseInformation)
    };
    assert_eq!(information(&[]), None);
    assert_eq!(information(&[0]), None);
    assert_eq!(information(&[1]), Some("replies/".to_owned()));
}

#[test]
fn mqtt_3_1_2_29_problem_information_is_not_sent_if_declined() {
    let broker = Broker::start();
    let connect = Connect::v5("c").property(Property::RequestProblemInformation(0));
    let mut client = Client::connect(&broker, connect);
    client.send(Publish::new("$SYS/not/for/clients", "").qos(1, 1));
    assert_eq!(client.expect_ack().properties, []);
    client.send(Publish::new("$SYS/not/for/clients", "").qos(2, 2));
    assert_eq!(client.expect_ack().properties, []);
    client.send(Ack::pubrel(99));
    assert_eq!(client.expect_ack().properties, []);
    client.send(Subscribe::new(3, "a/".repeat(1000), 0));
    assert_eq!(client.expect_suback().properties, []);
    client.send(Unsubscribe::new(4, "never/subscribed"));
    client.expect(Unsuback::new(4, &[NO_SUBSCRIPTION_EXISTED]));
}

#[test]
fn invalid_values_of_connect_properties_are_protocol_errors() {
    let broker = Broker::start();
    let properties = [
        Property::ReceiveMaximum(0),
        Property::MaximumPacketSize(0),
        Property::RequestProblemInformation(2),
        Property::RequestResponseInformation(2),
        Property::AuthenticationData(b"without a method".to_vec()),
    ];
    for property in properties {
        Client::refused(&broker, Connect::v5("c").property(property), PROTOCOL_ERROR);
    }
}

#[test]
fn a_duplicate_connect_property_is_a_protocol_error() {
    let broker = Broker::start();
    let properties = [
        Property::SessionExpiryInterval(1),
        Property::ReceiveMaximum(1),
        Property::MaximumPacketSize(100),
        Property::TopicAliasMaximum(1),
        Property::RequestResponseInformation(1),
        Property::RequestProblemInformation(1),
        Property::AuthenticationMethod("m".into()),
    ];
    for property in properties {
        let connect = Connect::v5("c").property(property.clone()).property(property);
        Client::refused(&broker, connect, PROTOCOL_ERROR);
    }
    let connect = Connect::v5("c").property(Property::user("a", "b"));
    Client::connect(&broker, connect.property(Property::user("a", "b")));
}
