//! 3.3.1 and 3.3.4: flags of PUBLISH, retained messages, and how the server handles a PUBLISH. The
//! modules contain tests of behaviour without a numbered statement.

mod answers;
mod delivery;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::reason::{MALFORMED_PACKET, PROTOCOL_ERROR, RECEIVE_MAXIMUM_EXCEEDED};
use crate::support::{
    Ack, Broker, Client, Connect, Property, Publish, SILENCE, Suback, Subscribe, V5, V31, V311,
    Version, for_all_versions, for_each_version, for_versions,
};

const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_1: u8 = 0x10;
const RETAIN_HANDLING_2: u8 = 0x20;

fn publisher(broker: &Broker, version: Version) -> Client {
    Client::connect(broker, Connect::new(version, "publisher"))
}

/// A client that subscribes to `filter`.
fn subscriber(broker: &Broker, version: Version, filter: &str, options: u8) -> Client {
    // MQTT 3.1 does not allow an empty Client Identifier.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("subscriber-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut client = Client::connect(broker, Connect::new(version, &name));
    client.subscribe(filter, options);
    client
}

fn identifiers(publish: &Publish) -> Vec<u32> {
    let identifier = |property: &Property| match property {
        Property::SubscriptionIdentifier(identifier) => Some(*identifier),
        _ => None,
    };
    let mut identifiers: Vec<_> = publish.properties.iter().filter_map(identifier).collect();
    identifiers.sort_unstable();
    identifiers
}

#[test]
fn mqtt_3_3_1_1_dup_is_set_in_a_publish_sent_again() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let connect = || Connect::new(version, "c").durable();
        let mut client = Client::connect(&broker, connect());
        client.subscribe("a", 2);
        let mut publisher = publisher(&broker, version);
        publisher.publish(Publish::new("a", "first").qos(1, 1));
        publisher.publish(Publish::new("a", "second").qos(2, 2));
        let sent = [client.expect_publish(), client.expect_publish()];
        assert!(!sent[0].dup && !sent[1].dup);
        client.vanish();
        let mut client = Client::connect(&broker, connect());
        for publish in sent {
            client.expect(publish.dup());
        }
    });
}

#[test]
fn mqtt_3_3_1_2_dup_is_0_at_qos_0() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Publish::new("a", "payload").dup());
        client.expect_violation(MALFORMED_PACKET);
    });
}

#[test]
fn mqtt_3_3_1_3_dup_of_the_publisher_is_not_forwarded() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, "a", 2);
        let mut publisher = publisher(&broker, version);
        for qos in [1, 2] {
            publisher.publish(Publish::new("a", "payload").qos(qos, 1).dup());
            assert!(!client.expect_message("payload").dup);
        }
    });
}

#[test]
fn mqtt_3_3_1_4_both_qos_bits_are_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Publish::new("a", "payload").qos(3, 1));
        client.expect_violation(MALFORMED_PACKET);
    });
}

#[test]
fn mqtt_3_3_1_5_retain_replaces_the_retained_message() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut publisher = publisher(&broker, version);
        publisher.publish(Publish::new("a", "first").qos(2, 1).retain());
        publisher.publish(Publish::new("a", "second").retain());
        publisher.publish(Publish::new("a", "third").qos(1, 1).retain());
        publisher.publish(Publish::new("b", "another topic").qos(2, 1).retain());
        let mut client = subscriber(&broker, version, "a", 2);
        let publish = client.expect_message("third");
        assert_eq!((publish.qos, publish.retain), (1, true));
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_3_1_6_retain_without_payload_is_delivered_and_removes_the_retained_message() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut publisher = publisher(&broker, version);
        publisher.publish(Publish::new("a", "kept").qos(1, 1).retain());
        let mut early = subscriber(&broker, version, "a", 0);
        early.expect_message("kept");
        publisher.publish(Publish::new("a", "").qos(1, 1).retain());
        early.expect(Publish::new("a", ""));
        subscriber(&broker, version, "a", 0).expect_alive();
    });
}

#[test]
fn mqtt_3_3_1_7_a_message_without_payload_is_not_retained() {
    for_versions(|version| {
        let broker = Broker::start();
        publisher(&broker, version).publish(Publish::new("a", "").qos(1, 1).retain());
        subscriber(&broker, version, "#", 0).expect_alive();
    });
}

#[test]
fn mqtt_3_3_1_8_without_retain_no_retained_message_is_stored_or_replaced() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut publisher = publisher(&broker, version);
        publisher.publish(Publish::new("a", "kept").qos(1, 1).retain());
        for payload in ["passing", ""] {
            publisher.publish(Publish::new("a", payload).qos(1, 1));
            publisher.publish(Publish::new("b", payload).qos(1, 1));
        }
        let mut client = subscriber(&broker, version, "+", 0);
        client.expect(Publish::new("a", "kept").retain());
        client.expect_alive();
    });
}

#[test]
fn mqtt_3_3_1_9_retain_handling_0_sends_retained_messages() {
    let broker = Broker::start();
    let mut publisher = publisher(&broker, V5);
    for topic in ["a/1", "a/2", "b"] {
        publisher.publish(Publish::new(topic, topic).qos(1, 1).retain());
    }
    let mut client = Client::connect(&broker, Connect::v5("c"));
    // Also if the subscription already exists.
    for _ in 0..2 {
        client.subscribe("a/+", 0);
        let mut topics = [client.expect_publish().topic, client.expect_publish().topic];
        topics.sort();
        assert_eq!(topics, ["a/1", "a/2"]);
        client.expect_alive();
    }
}

#[test]
fn mqtt_3_3_1_10_retain_handling_1_sends_retained_messages_to_a_new_subscription() {
    let broker = Broker::start();
    publisher(&broker, V5).publish(Publish::new("a", "kept").qos(1, 1).retain());
    let mut client = Client::connect(&broker, Connect::v5("c").durable());
    client.subscribe("a", RETAIN_HANDLING_1);
    client.expect_message("kept");
    client.subscribe("a", RETAIN_HANDLING_1);
    client.expect_alive();
    client.disconnect();
    let mut client = Client::connect(&broker, Connect::v5("c").durable());
    client.subscribe("a", RETAIN_HANDLING_1 | 1);
    client.expect_alive();
}

#[test]
fn mqtt_3_3_1_11_retain_handling_2_sends_no_retained_messages() {
    let broker = Broker::start();
    publisher(&broker, V5).publish(Publish::new("a", "kept").qos(1, 1).retain());
    subscriber(&broker, V5, "a", RETAIN_HANDLING_2).expect_alive();
}

#[test]
fn mqtt_3_3_1_12_without_retain_as_published_retain_is_0() {
    let broker = Broker::start();
    let mut client = subscriber(&broker, V5, "a", 1);
    publisher(&broker, V5).publish(Publish::new("a", "payload").qos(1, 1).retain());
    assert!(!client.expect_message("payload").retain);
}

#[test]
fn mqtt_3_3_1_13_with_retain_as_published_retain_is_that_of_the_publisher() {
    let broker = Broker::start();
    let mut client = subscriber(&broker, V5, "a", RETAIN_AS_PUBLISHED);
    let mut publisher = publisher(&broker, V5);
    publisher.publish(Publish::new("a", "kept").qos(1, 1).retain());
    client.expect(Publish::new("a", "kept").retain());
    publisher.publish(Publish::new("a", "passing").qos(1, 1));
    client.expect(Publish::new("a", "passing"));
}

#[test]
fn mqtt_311_3_3_1_7_a_retained_message_at_qos_0_replaces_the_previous_one() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.publish(Publish::new("a", "before").qos(2, 1).retain());
        client.publish(Publish::new("a", "after").retain());
        client.subscribe("a", 2);
        client.expect(Publish::new("a", "after").retain());
    });
}

#[test]
fn mqtt_311_3_3_1_8_retain_is_1_in_messages_sent_for_a_new_subscription() {
    let broker = Broker::start();
    publisher(&broker, V311).publish(Publish::new("a/b", "kept").qos(1, 1).retain());
    for filter in ["a/b", "a/#", "+/b"] {
        let mut client = subscriber(&broker, V311, filter, 0);
        client.expect(Publish::new("a/b", "kept").retain());
    }
}

#[test]
fn mqtt_311_3_3_1_9_retain_is_0_for_an_established_subscription() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.subscribe("a", 0);
        client.publish(Publish::new("a", "payload").retain());
        client.expect(Publish::new("a", "payload"));
    });
}

#[test]
fn mqtt_3_3_4_1_publish_is_answered_as_its_qos_requires() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Publish::new("a", "payload"));
        client.expect_alive();
        client.send(Publish::new("a", "payload").qos(1, 5));
        let puback = client.expect_ack();
        assert_eq!((puback.kind, puback.packet_identifier), (4, 5));
        client.send(Publish::new("a", "payload").qos(2, 5));
        let pubrec = client.expect_ack();
        assert_eq!((pubrec.kind, pubrec.packet_identifier), (5, 5));
        client.send(Ack::pubrel(5));
        client.expect(Ack::pubcomp(5));
    });
}

#[test]
fn mqtt_3_3_4_2_overlapping_subscriptions_deliver_at_their_highest_qos() {
    let broker = Broker::start();
    let mut client = subscriber(&broker, V5, "a/#", 0);
    client.subscribe("a/b", 2);
    client.subscribe("a/+", 1);
    publisher(&broker, V5).publish(Publish::new("a/b", "payload").qos(2, 1));
    assert_eq!(client.expect_message("payload").qos, 2);
    // This server promises a single copy.
    client.expect_alive();
}

#[test]
fn mqtt_311_3_3_5_1_overlapping_subscriptions_deliver_at_their_highest_qos() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.subscribe("a/#", 0);
        client.subscribe("a/b", 2);
        client.subscribe("a/+", 1);
        publisher(&broker, version).publish(Publish::new("a/b", "payload").qos(2, 1));
        assert_eq!(client.expect_message("payload").qos, 2);
        client.expect_alive();
    });
}

#[test]
fn mqtt_311_3_3_5_2_an_unauthorized_publish_is_acknowledged_and_dropped() {
    let broker = Broker::start();
    let mut watcher = subscriber(&broker, V311, "$SYS/mine", 0);
    let mut client = Client::connect(&broker, Connect::v311("c"));
    client.publish(Publish::new("$SYS/mine", "payload").qos(1, 1));
    client.publish(Publish::new("$SYS/mine", "payload").qos(2, 2));
    watcher.expect_alive();
}

/// SUBSCRIBE to `filter` at QoS 0 with a Subscription Identifier.
fn subscribe_as(client: &mut Client, filter: &str, identifier: u32) {
    let property = Property::SubscriptionIdentifier(identifier);
    client.send(Subscribe::new(1, filter, 0).property(property));
    client.expect(Suback::new(1, &[0]));
}

#[test]
fn mqtt_3_3_4_3_a_message_carries_the_subscription_identifier() {
    let broker = Broker::start();
    let mut publisher = publisher(&broker, V5);
    publisher.publish(Publish::new("kept", "payload").qos(1, 1).retain());
    let mut client = Client::connect(&broker, Connect::v5("c"));
    for (filter, identifier) in [("a", 1), ("b/#", 128), ("c/+", 268_435_455)] {
        subscribe_as(&mut client, filter, identifier);
    }
    client.subscribe("d", 0);
    for (topic, identifier) in [("a", 1), ("b", 128), ("c/d", 268_435_455)] {
        publisher.publish(Publish::new(topic, "payload").qos(1, 1));
        assert_eq!(identifiers(&client.expect_message("payload")), [identifier]);
    }
    publisher.publish(Publish::new("d", "payload").qos(1, 1));
    assert_eq!(identifiers(&client.expect_message("payload")), [0; 0]);
    // Retained messages carry it as well.
    subscribe_as(&mut client, "kept", 7);
    assert_eq!(identifiers(&client.expect_message("payload")), [7]);
}

#[test]
fn mqtt_3_3_4_4_one_copy_carries_all_the_subscription_identifiers() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    for (filter, identifier) in [("a/b", 1), ("a/#", 200), ("+/b", 30_000)] {
        subscribe_as(&mut client, filter, identifier);
    }
    client.subscribe("#", 0);
    publisher(&broker, V5).publish(Publish::new("a/b", "payload").qos(1, 1));
    assert_eq!(identifiers(&client.expect_message("payload")), [1, 200, 30_000]);
    client.expect_alive();
}

#[test]
fn mqtt_3_3_4_6_a_client_sends_no_subscription_identifier() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    let property = Property::SubscriptionIdentifier(1);
    client.send(Publish::new("a", "payload").property(property));
    client.expect_disconnect(PROTOCOL_ERROR);
}

#[test]
fn mqtt_3_3_4_7_exceeding_the_receive_maximum_ends_the_connection() {
    let broker = Broker::with_config("limits.receive_maximum = 3");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    for id in 1..=3 {
        client.send(Publish::new("a", "payload").qos(2, id));
        assert_eq!(client.expect_ack().packet_identifier, id);
    }
    // A completed exchange makes room for another.
    client.send(Ack::pubrel(2));
    client.expect(Ack::pubcomp(2));
    client.send(Publish::new("a", "payload").qos(2, 4));
    assert_eq!(client.expect_ack().packet_identifier, 4);
    client.send(Publish::new("a", "payload").qos(2, 5));
    client.expect_disconnect(RECEIVE_MAXIMUM_EXCEEDED);
}

/// A client with a Receive Maximum of 2 that has two of five messages to acknowledge, and the
/// publisher.
fn client_without_quota(broker: &Broker) -> (Client, Vec<Publish>, Client) {
    let connect = Connect::v5("c").property(Property::ReceiveMaximum(2));
    let mut client = Client::connect(broker, connect);
    client.subscribe("a", 2);
    let mut publisher = publisher(broker, V5);
    for number in 0..5_u16 {
        let qos = 1 + (number % 2) as u8;
        publisher.publish(Publish::new("a", number.to_string()).qos(qos, 1));
    }
    let unacknowledged = vec![client.expect_publish(), client.expect_publish()];
    (client, unacknowledged, publisher)
}

#[test]
fn mqtt_3_3_4_9_unacknowledged_messages_do_not_exceed_the_clients_receive_maximum() {
    let broker = Broker::start();
    let (mut client, unacknowledged, _publisher) = client_without_quota(&broker);
    client.expect_silence(SILENCE);
    // PUBREC frees no slot; PUBACK and PUBCOMP free one each.
    let [at_qos_1, at_qos_2] = &unacknowledged[..] else { panic!("two") };
    client.send(Ack::pubrec(at_qos_2.id()));
    client.expect(Ack::pubrel(at_qos_2.id()));
    client.expect_silence(SILENCE);
    client.send(Ack::puback(at_qos_1.id()));
    assert_eq!(client.expect_publish().text(), "2");
    client.expect_silence(SILENCE);
    client.send(Ack::pubcomp(at_qos_2.id()));
    assert_eq!(client.expect_publish().text(), "3");
    client.expect_silence(SILENCE);
}

#[test]
fn mqtt_3_3_4_10_without_send_quota_all_other_packets_are_sent() {
    let broker = Broker::start();
    let (mut client, _, mut publisher) = client_without_quota(&broker);
    client.expect_alive();
    client.subscribe("b", 0);
    client.publish(Publish::new("elsewhere", "payload").qos(2, 1));
    publisher.send(Publish::new("b", "at QoS 0"));
    client.expect_message("at QoS 0");
}
