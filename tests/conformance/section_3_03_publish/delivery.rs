//! Which copies a subscriber receives, with which flags and identifiers.

use super::{
    RETAIN_AS_PUBLISHED, RETAIN_HANDLING_1, identifiers, publisher, subscribe_as, subscriber,
};
use crate::support::{
    Broker, Client, Connect, Property, Publish, Suback, Subscribe, V5, for_all_versions,
    for_versions,
};

const NO_LOCAL: u8 = 0x04;

#[test]
fn an_empty_payload_removes_the_retained_message_at_any_qos() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = publisher(&broker, version);
        for qos in 0..=2 {
            client.publish(Publish::new("a", "kept").qos(1, 1).retain());
            client.publish(Publish::new("elsewhere", "kept").qos(1, 1).retain());
            let removal = Publish::new("a", "").retain();
            client.publish(if qos > 0 { removal.qos(qos, 1) } else { removal });
            let mut late = subscriber(&broker, version, "#", 0);
            late.expect(Publish::new("elsewhere", "kept").retain());
            late.expect_alive();
        }
    });
}

#[test]
fn with_retain_as_published_the_removal_of_a_retained_message_has_retain_1() {
    let broker = Broker::start();
    let mut client = subscriber(&broker, V5, "a", RETAIN_AS_PUBLISHED);
    publisher(&broker, V5).publish(Publish::new("a", "").qos(1, 1).retain());
    client.expect(Publish::new("a", "").retain());
}

#[test]
fn a_retained_message_has_retain_1_without_retain_as_published() {
    let broker = Broker::start();
    publisher(&broker, V5).publish(Publish::new("a", "kept").qos(1, 1).retain());
    for options in [0, RETAIN_AS_PUBLISHED, RETAIN_HANDLING_1] {
        let mut client = subscriber(&broker, V5, "a", options);
        client.expect(Publish::new("a", "kept").retain());
    }
}

#[test]
fn a_queued_message_is_sent_with_dup_0_and_retain_0() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let connect = || Connect::new(version, "c").durable();
        let mut client = Client::connect(&broker, connect());
        client.subscribe("a", 2);
        client.disconnect();
        let mut publisher = publisher(&broker, version);
        for qos in [1, 2] {
            publisher.publish(Publish::new("a", qos.to_string()).qos(qos, 1).dup().retain());
        }
        let mut client = Client::connect(&broker, connect());
        for qos in [1, 2] {
            let publish = client.expect_message(&qos.to_string());
            assert_eq!((publish.qos, publish.dup, publish.retain), (qos, false, false));
        }
    });
}

#[test]
fn each_client_receives_one_copy_at_the_lower_of_both_qos() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut clients = [0, 1, 2].map(|qos| (qos, subscriber(&broker, version, "a", qos)));
        let mut publisher = publisher(&broker, version);
        for published in [0, 1, 2] {
            let publish = Publish::new("a", "payload");
            publisher.publish(if published > 0 { publish.qos(published, 1) } else { publish });
            for (granted, client) in &mut clients {
                let publish = client.expect_message("payload");
                assert_eq!(publish.qos, published.min(*granted));
                assert_eq!(publish.packet_identifier.is_some(), publish.qos > 0);
                client.expect_alive();
            }
        }
    });
}

#[test]
fn payloads_of_any_length_arrive_unchanged() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut clients = [0, 1, 2].map(|qos| subscriber(&broker, version, "a", qos));
        let mut publisher = publisher(&broker, version);
        // Around every change of the size of the Remaining Length.
        for length in [0, 1, 120, 125, 130, 2047, 2048, 16_375, 16_380, 16_385, 100_000] {
            let payload: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
            publisher.publish(Publish::new("a", &payload).qos(2, 1));
            for client in &mut clients {
                let publish = client.expect_publish();
                assert!(publish.payload == payload, "of {length}");
                client.acknowledge(&publish);
            }
        }
    });
}

#[test]
fn an_identifier_of_several_matching_subscriptions_is_sent_once_per_subscription() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    for (filter, identifier) in [("a/b", 7), ("a/+", 7), ("#", 9)] {
        subscribe_as(&mut client, filter, identifier);
    }
    publisher(&broker, V5).publish(Publish::new("a/b", "payload").qos(1, 1));
    assert_eq!(identifiers(&client.expect_message("payload")), [7, 7, 9]);
}

#[test]
fn a_no_local_subscription_adds_no_identifier_to_the_clients_own_message() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    for (filter, options, identifier) in [("a", NO_LOCAL, 1), ("+", 0, 2)] {
        let property = Property::SubscriptionIdentifier(identifier);
        client.send(Subscribe::new(1, filter, options).property(property));
        client.expect(Suback::new(1, &[0]));
    }
    client.send(Publish::new("a", "own"));
    assert_eq!(identifiers(&client.expect_message("own")), [2]);
    publisher(&broker, V5).send(Publish::new("a", "another's"));
    assert_eq!(identifiers(&client.expect_message("another's")), [1, 2]);
    client.expect_alive();
}

#[test]
fn a_queued_message_carries_the_subscription_identifiers() {
    let broker = Broker::start();
    let connect = || Connect::v5("c").durable();
    let mut client = Client::connect(&broker, connect());
    for (filter, identifier) in [("a/b", 1), ("a/+", 200)] {
        let property = Property::SubscriptionIdentifier(identifier);
        client.send(Subscribe::new(1, filter, 1).property(property));
        client.expect(Suback::new(1, &[1]));
    }
    client.disconnect();
    publisher(&broker, V5).publish(Publish::new("a/b", "payload").qos(1, 1));
    let mut client = Client::connect(&broker, connect());
    let first = client.expect_publish();
    assert_eq!(identifiers(&first), [1, 200]);
    client.vanish();
    // Likewise when it is sent again.
    let mut client = Client::connect(&broker, connect());
    assert_eq!(identifiers(&client.expect_message("payload")), [1, 200]);
}
