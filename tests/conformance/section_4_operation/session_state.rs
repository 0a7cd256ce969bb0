//! 4.1 and 4.2: the state of a session, its lifetime, and the network connection.

use std::thread::sleep;
use std::time::Duration;

use super::{durable, publish_numbers, resumed, subscriber};
use crate::support::{
    Ack, Broker, Client, Connect, Disconnect, Property, Publish, SILENCE, V5, V311, Version,
    for_all_versions, for_versions, reason,
};

#[test]
fn mqtt_4_1_0_1_session_state_is_not_discarded_while_the_connection_is_open() {
    let broker = Broker::start();
    // The session ends with the connection, but not before.
    let mut client = Client::connect(&broker, Connect::v5("c").expiry(0));
    client.subscribe("t", 2);
    client.send(Publish::new("u", "half").qos(2, 7));
    client.expect_ack();
    sleep(SILENCE);
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    publisher.publish(Publish::new("t", "m"));
    client.expect_message("m");
    client.send(Publish::new("u", "half").qos(2, 7).dup());
    assert_eq!(client.expect_ack(), Ack::pubrec(7), "the exchange is still known");
}

#[test]
fn mqtt_4_1_0_1_a_session_does_not_expire_while_connected() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c").expiry(1));
    client.subscribe("t", 1);
    sleep(Duration::from_millis(1500));
    publish(&broker, "t");
    client.expect_message("m");
    client.vanish();
    let client = Client::connect(&broker, Connect::v5("c").resume());
    assert!(client.connack.session_present);
}

fn publish(broker: &Broker, topic: &str) {
    Client::connect(broker, Connect::v5("p")).publish(Publish::new(topic, "m").qos(1, 1));
}

#[test]
fn mqtt_4_1_0_2_session_state_is_discarded_when_its_expiry_interval_has_passed() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c").expiry(1));
    client.subscribe("t", 1);
    client.vanish();
    publish(&broker, "t");
    sleep(Duration::from_millis(1500));
    let mut client = Client::connect(&broker, Connect::v5("c").resume().expiry(1));
    assert!(!client.connack.session_present);
    publish(&broker, "t");
    client.expect_silence(SILENCE);
}

#[test]
fn mqtt_4_1_0_2_session_state_is_discarded_at_once_without_an_expiry_interval() {
    let broker = Broker::start();
    for connect in [Connect::v5("c").resume(), Connect::v5("c").resume().expiry(0)] {
        let mut client = Client::connect(&broker, connect);
        assert!(!client.connack.session_present);
        client.subscribe("t", 1);
        client.vanish();
    }
}

#[test]
fn a_session_lasts_until_its_expiry_interval_has_passed() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c").expiry(5));
    client.subscribe("t", 1);
    client.vanish();
    sleep(Duration::from_millis(1200));
    publish(&broker, "t");
    let mut client = Client::connect(&broker, Connect::v5("c").resume().expiry(5));
    assert!(client.connack.session_present);
    client.expect_message("m");
}

#[test]
fn the_expiry_interval_starts_over_at_every_disconnection() {
    let broker = Broker::start();
    let connect = || Connect::v5("c").resume().expiry(2);
    Client::connect(&broker, connect()).vanish();
    for _ in 0..3 {
        sleep(Duration::from_millis(900));
        let client = Client::connect(&broker, connect());
        assert!(client.connack.session_present);
        client.vanish();
    }
}

#[test]
fn disconnect_may_set_another_expiry_interval() {
    let broker = Broker::start();
    let client = Client::connect(&broker, Connect::v5("c").expiry(300));
    client.disconnect_with(Disconnect::new().property(Property::SessionExpiryInterval(0)));
    let client = Client::connect(&broker, Connect::v5("c").resume().expiry(300));
    assert!(!client.connack.session_present);
}

#[test]
fn a_session_survives_every_kind_of_disconnection() {
    for_versions(|version| {
        let broker = Broker::start();
        let ends: [fn(Client, &Broker, Version); 4] = [
            |client, _, _| client.disconnect(),
            |client, _, _| client.vanish(),
            |mut client, _, _| {
                client.raw(&[0x00, 0x00]);
                client.expect_violation(reason::MALFORMED_PACKET);
            },
            |mut old, broker, version| {
                Client::connect(broker, durable(version)).disconnect();
                old.expect_violation(reason::SESSION_TAKEN_OVER);
            },
        ];
        subscriber(&broker, version, 1).disconnect();
        for (number, end) in (0..).zip(ends) {
            end(resumed(&broker, durable(version)), &broker, version);
            publish_numbers(&broker, version, 1, number..number + 1);
            let mut client = resumed(&broker, durable(version));
            client.expect_message(&number.to_string());
            client.expect_alive();
            client.disconnect();
        }
    });
}

#[test]
fn a_session_keeps_subscriptions_with_their_options_and_identifiers() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, durable(V5));
    let subscribe = crate::support::Subscribe::new(1, "t/#", 0x02 | 0x04 | 0x08)
        .property(Property::SubscriptionIdentifier(77));
    client.send(subscribe);
    client.expect_suback();
    client.disconnect();
    let mut client = resumed(&broker, durable(V5));
    // No Local still applies.
    client.publish(Publish::new("t/a", "own").qos(1, 1));
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    publisher.publish(Publish::new("t/a", "m").qos(2, 1).retain());
    let publish = client.expect_message("m");
    assert_eq!((publish.qos, publish.retain), (2, true));
    assert_eq!(publish.properties, [Property::SubscriptionIdentifier(77)]);
}

#[test]
fn a_disconnected_session_queues_messages_above_qos_0_in_order() {
    for_all_versions(|version| {
        let broker = Broker::start();
        subscriber(&broker, version, 2).vanish();
        publish_numbers(&broker, version, 1, 0..10);
        publish_numbers(&broker, version, 2, 10..20);
        let mut client = resumed(&broker, durable(version));
        for number in 0..20 {
            let publish = client.expect_publish();
            assert_eq!(publish.text(), number.to_string());
            assert_eq!(publish.qos, if number < 10 { 1 } else { 2 });
            assert!(!publish.dup, "the message was not sent before");
        }
        client.expect_alive();
    });
}

#[test]
fn clean_start_discards_the_whole_session_state() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, 2);
        client.send(Publish::new("u", "half").qos(2, 7));
        client.expect_ack();
        publish_numbers(&broker, version, 2, 0..1);
        client.expect_publish();
        client.vanish();
        publish_numbers(&broker, version, 1, 1..2);
        let mut client = Client::connect(&broker, Connect::new(version, "s"));
        assert!(!client.connack.session_present);
        publish_numbers(&broker, version, 1, 2..3);
        client.expect_silence(SILENCE);
        client.send(Ack::pubrel(7));
        let unknown = if version == V5 { reason::PACKET_IDENTIFIER_NOT_FOUND } else { 0 };
        client.expect(Ack::pubcomp(7).reason(unknown));
    });
}

#[test]
fn a_session_can_be_resumed_with_another_protocol_version() {
    let broker = Broker::start();
    subscriber(&broker, V311, 1).disconnect();
    publish_numbers(&broker, V311, 1, 0..1);
    let mut client = resumed(&broker, durable(V5));
    client.expect_message("0");
    client.disconnect();
    publish_numbers(&broker, V5, 1, 1..2);
    let mut client = resumed(&broker, durable(V311));
    client.expect_message("1");
}

#[test]
fn the_end_of_a_connection_is_detected_right_after_the_last_packet() {
    for_versions(|version| {
        let broker = Broker::start();
        for _ in 0..100 {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.raw(&[0xC0, 0x00]);
            client.vanish();
        }
    });
}

#[test]
fn mqtt_4_2_0_1_the_transport_delivers_all_bytes_in_order() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::open(&broker, version);
        // The packets are the same wherever TCP splits the stream.
        for byte in Connect::new(version, "c").bytes() {
            client.raw(&[byte]);
        }
        assert_eq!(client.expect_connack().reason, reason::SUCCESS);
        client.subscribe("t", 1);
        let payload: String = ('a'..='z').cycle().take(300_000).collect();
        client.send(Publish::new("t", &payload).qos(1, 1));
        let (mut received, mut acknowledged) = (false, false);
        while !(received && acknowledged) {
            match client.receive() {
                crate::support::Packet::Publish(publish) => {
                    assert!(publish.payload == payload.as_bytes());
                    received = true;
                }
                packet => {
                    assert_eq!(packet, Ack::puback(1).into());
                    acknowledged = true;
                }
            }
        }
    });
}
