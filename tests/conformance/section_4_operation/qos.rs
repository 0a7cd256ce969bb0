//! 4.3: the three QoS levels, with the server as receiver and as sender.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;

use super::{durable, publish_numbers, release, resumed, subscriber};
use crate::support::{
    Ack, Broker, Client, Connect, Encode, Property, Publish, SILENCE, Subscribe, V5, Version,
    for_versions, reason,
};

/// Subscribes to `t/#` at each QoS.
fn subscribers(broker: &Broker, version: Version) -> Vec<Client> {
    let connect = |qos| {
        let mut client = Client::connect(broker, Connect::new(version, &format!("s{qos}")));
        client.subscribe("t/#", qos);
        client
    };
    (0..3).map(connect).collect()
}

#[test]
fn mqtt_4_3_1_1_qos_0_is_sent_with_dup_0() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscribers = subscribers(&broker, version);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        publisher.publish(Publish::new("t", "zero"));
        // The publisher's DUP flag is not forwarded.
        publisher.publish(Publish::new("t", "again").qos(2, 1).dup());
        for (payload, qos_max) in [("zero", 0), ("again", 2)] {
            for (granted, subscriber) in (0..).zip(&mut subscribers) {
                let publish = subscriber.expect_message(payload);
                assert_eq!((publish.qos, publish.dup), (qos_max.min(granted), false));
            }
        }
    });
}

#[test]
fn a_qos_0_message_has_no_packet_identifier_and_is_not_sent_again() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 0);
        publish_numbers(&broker, version, 2, 0..1);
        assert_eq!(subscriber.expect_publish(), Publish::new("t/a", "0"));
        subscriber.vanish();
        resumed(&broker, durable(version)).expect_silence(SILENCE);
    });
}

/// Expects Packet Identifiers of incomplete exchanges not to be reused.
fn expect_unused_identifiers(qos: u8) {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, qos);
        let mut in_use = HashSet::new();
        let mut next = 0;
        for _ in 0..8 {
            publish_numbers(&broker, version, qos, next..next + 4);
            let publishes: Vec<Publish> = (0..4).map(|_| subscriber.expect_publish()).collect();
            for (number, publish) in (next..).zip(&publishes) {
                assert_eq!((publish.text(), publish.qos), (&*number.to_string(), qos));
                assert!(in_use.insert(publish.id()), "{} is in use", publish.id());
            }
            for (number, publish) in (next..).zip(&publishes) {
                match (qos, number % 4) {
                    (1, 1..) => subscriber.send(Ack::puback(publish.id())),
                    (2, 1) => {
                        release(&mut subscriber, publish);
                        continue; // in use until PUBCOMP
                    }
                    (2, 2) if version == V5 => {
                        subscriber.send(Ack::pubrec(publish.id()).reason(0x80));
                    }
                    (2, 2..) => {
                        release(&mut subscriber, publish);
                        subscriber.send(Ack::pubcomp(publish.id()));
                    }
                    _ => continue,
                }
                in_use.remove(&publish.id());
            }
            next += 4;
        }
    });
}

#[test]
fn mqtt_4_3_2_1_a_new_qos_1_message_takes_an_unused_packet_identifier() {
    expect_unused_identifiers(1);
}

#[test]
fn mqtt_4_3_3_1_a_new_qos_2_message_takes_an_unused_packet_identifier() {
    expect_unused_identifiers(2);
}

#[test]
fn packet_identifiers_restart_at_1_after_65_535() {
    let broker = Broker::start();
    let mut subscriber = subscriber(&broker, V5, 1);
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    let batch: Vec<u8> =
        (1..=100).flat_map(|id| Publish::new("t/a", "").qos(1, id).encode(V5)).collect();
    let mut last = 0;
    for _ in 0..700 {
        publisher.raw(&batch);
        let mut acks = Vec::new();
        for _ in 0..100 {
            let id = subscriber.expect_publish().id();
            assert_eq!(id, if last == u16::MAX { 1 } else { last + 1 });
            acks.extend(Ack::puback(id).encode(V5));
            last = id;
        }
        subscriber.raw(&acks);
        for id in 1..=100 {
            publisher.expect(Ack::puback(id));
        }
    }
}

#[test]
fn mqtt_4_3_2_2_a_qos_1_message_is_first_sent_with_dup_0() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 1);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        for (id, publish) in [(1, Publish::new("t/a", "m")), (2, Publish::new("t/a", "m").dup())] {
            publisher.publish(publish.qos(1, id));
            let publish = subscriber.expect_message("m");
            assert_eq!((publish.qos, publish.dup), (1, false));
        }
    });
}

#[test]
fn mqtt_4_3_3_2_a_qos_2_message_is_first_sent_with_dup_0() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 2);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        for (id, publish) in [(1, Publish::new("t/a", "m")), (2, Publish::new("t/a", "m").dup())] {
            publisher.publish(publish.qos(2, id));
            let publish = subscriber.expect_message("m");
            assert_eq!((publish.qos, publish.dup), (2, false));
        }
    });
}

#[test]
fn mqtt_4_3_2_3_a_qos_1_message_is_unacknowledged_until_its_puback() {
    for_versions(|version| {
        let broker = Broker::start();
        publish_to(&broker, version, 1, 2);
        // Sent again twice while unacknowledged, and not after PUBACK.
        for _ in 0..2 {
            let mut subscriber = resumed(&broker, durable(version));
            assert_eq!(subscriber.expect_publish().text(), "0");
            assert_eq!(subscriber.expect_publish().text(), "1");
            subscriber.vanish();
        }
        let mut subscriber = resumed(&broker, durable(version));
        let (_, one) = (subscriber.expect_publish(), subscriber.expect_publish());
        subscriber.send(Ack::puback(one.id()));
        subscriber.expect_alive();
        subscriber.vanish();
        let mut subscriber = resumed(&broker, durable(version));
        assert_eq!(subscriber.expect_message("0").qos, 1);
        subscriber.expect_alive();
        subscriber.vanish();
        resumed(&broker, durable(version)).expect_silence(SILENCE);
    });
}

/// Publishes `count` messages at `qos` for the disconnected session `s`.
fn publish_to(broker: &Broker, version: Version, qos: u8, count: u16) {
    subscriber(broker, version, qos).vanish();
    publish_numbers(broker, version, qos, 0..count);
}

#[test]
fn mqtt_4_3_2_4_puback_carries_the_packet_identifier_of_the_accepted_message() {
    for_versions(|version| {
        let broker = Broker::start();
        subscriber(&broker, version, 1).vanish();
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        let identifiers = [1, 65_535, 256, 2];
        for id in identifiers {
            publisher.send(Publish::new("t/a", id.to_string()).qos(1, id));
            publisher.expect(Ack::puback(id));
        }
        // The server has accepted the messages: the publisher is no longer needed.
        publisher.vanish();
        let mut subscriber = resumed(&broker, durable(version));
        for id in identifiers {
            subscriber.expect_message(&id.to_string());
        }
    });
}

#[test]
fn mqtt_4_3_2_5_after_puback_the_packet_identifier_means_a_new_message_regardless_of_dup() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 1);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        for payload in ["one", "two", "two"] {
            publisher.publish(Publish::new("t/a", payload).qos(1, 7).dup());
            subscriber.expect_message(payload);
            publisher.publish(Publish::new("t/a", payload).qos(1, 7));
            subscriber.expect_message(payload);
        }
    });
}

#[test]
fn mqtt_4_3_3_3_a_qos_2_message_is_unacknowledged_until_its_pubrec() {
    for_versions(|version| {
        let broker = Broker::start();
        publish_to(&broker, version, 2, 1);
        let mut first = None;
        for _ in 0..3 {
            let mut subscriber = resumed(&broker, durable(version));
            let publish = subscriber.expect_publish();
            assert_eq!((publish.text(), publish.qos), ("0", 2));
            assert_eq!(publish.dup, first.is_some());
            assert_eq!(publish.id(), *first.get_or_insert(publish.id()));
            // A PUBCOMP without a PUBREC is not an acknowledgement.
            subscriber.send(Ack::pubcomp(publish.id()));
            subscriber.expect_alive();
            subscriber.vanish();
        }
    });
}

#[test]
fn mqtt_4_3_3_4_pubrec_is_answered_with_pubrel_of_the_same_packet_identifier() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 2);
        publish_numbers(&broker, version, 2, 0..3);
        let publishes: Vec<Publish> = (0..3).map(|_| subscriber.expect_publish()).collect();
        for publish in publishes.iter().rev() {
            subscriber.send(Ack::pubrec(publish.id()));
            subscriber.expect(Ack::pubrel(publish.id()));
        }
        // A repeated PUBREC is answered again.
        release(&mut subscriber, &publishes[1]);
    });
}

#[test]
fn mqtt_4_3_3_4_a_pubrec_of_0x80_or_above_is_not_answered() {
    let broker = Broker::start();
    let mut subscriber = subscriber(&broker, V5, 2);
    publish_numbers(&broker, V5, 2, 0..1);
    let publish = subscriber.expect_publish();
    subscriber.send(Ack::pubrec(publish.id()).reason(reason::QUOTA_EXCEEDED));
    subscriber.expect_alive();
}

#[test]
fn mqtt_4_3_3_5_pubrel_is_unacknowledged_until_its_pubcomp() {
    for_versions(|version| {
        let broker = Broker::start();
        publish_to(&broker, version, 2, 1);
        let mut subscriber = resumed(&broker, durable(version));
        let publish = subscriber.expect_publish();
        release(&mut subscriber, &publish);
        subscriber.vanish();
        for _ in 0..2 {
            let mut subscriber = resumed(&broker, durable(version));
            subscriber.expect(Ack::pubrel(publish.id()));
            subscriber.expect_alive();
            subscriber.vanish();
        }
        let mut subscriber = resumed(&broker, durable(version));
        subscriber.expect(Ack::pubrel(publish.id()));
        subscriber.send(Ack::pubcomp(publish.id()));
        subscriber.expect_alive();
        subscriber.vanish();
        resumed(&broker, durable(version)).expect_silence(SILENCE);
    });
}

#[test]
fn mqtt_4_3_3_6_a_qos_2_message_is_not_sent_again_after_its_pubrel() {
    for_versions(|version| {
        let broker = Broker::start();
        publish_to(&broker, version, 2, 2);
        let mut subscriber = resumed(&broker, durable(version));
        let (zero, one) = (subscriber.expect_publish(), subscriber.expect_publish());
        release(&mut subscriber, &one);
        subscriber.vanish();
        let mut subscriber = resumed(&broker, durable(version));
        subscriber.expect(Publish { dup: true, ..zero });
        subscriber.expect(Ack::pubrel(one.id()));
        // Not even after a repeated PUBREC.
        release(&mut subscriber, &one);
        subscriber.expect_alive();
    });
}

#[test]
fn mqtt_4_3_3_7_a_sent_message_does_not_expire() {
    let broker = Broker::start();
    let mut subscriber = subscriber(&broker, V5, 2);
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    let brief = |payload| {
        let publish = Publish::new("t/a", payload).property(Property::MessageExpiryInterval(1));
        publish.qos(2, 1)
    };
    publisher.publish(brief("sent"));
    let sent = subscriber.expect_publish();
    subscriber.vanish();
    publisher.publish(brief("waits"));
    sleep(Duration::from_millis(1300));
    let mut subscriber = resumed(&broker, durable(V5));
    let again = subscriber.expect_message("sent");
    assert_eq!((again.id(), again.dup), (sent.id(), true));
    // The other message expired before it could be sent.
    subscriber.expect_silence(SILENCE);
}

#[test]
fn mqtt_4_3_3_8_pubrec_carries_the_packet_identifier_of_the_accepted_message() {
    for_versions(|version| {
        let broker = Broker::start();
        subscriber(&broker, version, 2).vanish();
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        let identifiers = [1, 65_535, 256, 2];
        for id in identifiers {
            publisher.send(Publish::new("t/a", id.to_string()).qos(2, id));
            publisher.expect(Ack::pubrec(id));
        }
        // The server has accepted the messages: the publisher is no longer needed. This broker
        // forwards them at once; others may wait for PUBREL.
        if !broker.is_ours() {
            for id in identifiers {
                publisher.send(Ack::pubrel(id));
                publisher.expect(Ack::pubcomp(id));
            }
        }
        publisher.vanish();
        let mut subscriber = resumed(&broker, durable(version));
        for id in identifiers {
            assert_eq!(subscriber.expect_publish().text(), id.to_string());
        }
    });
}

#[test]
fn mqtt_4_3_3_9_after_a_pubrec_of_0x80_or_above_the_packet_identifier_means_a_new_message() {
    let broker = Broker::start();
    let mut subscriber = subscriber(&broker, V5, 2);
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    publisher.send(Publish::new("$SYS/mine", "refused").qos(2, 7));
    publisher.expect(Ack::pubrec(7).reason(reason::NOT_AUTHORIZED));
    for dup in [true, false] {
        publisher.publish(Publish { dup, ..Publish::new("t/a", "new").qos(2, 7) });
        subscriber.expect_message("new");
    }
}

#[test]
fn mqtt_4_3_3_10_until_pubrel_the_same_message_is_answered_with_pubrec_and_not_delivered_again() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 2);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        let publish = Publish::new("t/a", "once").qos(2, 7);
        for dup in [false, true, true, false] {
            publisher.send(Publish { dup, ..publish.clone() });
            publisher.expect(Ack::pubrec(7));
        }
        publisher.send(Ack::pubrel(7));
        publisher.expect(Ack::pubcomp(7));
        subscriber.expect_message("once");
        subscriber.expect_silence(SILENCE);
    });
}

#[test]
fn mqtt_4_3_3_11_pubrel_is_answered_with_pubcomp_of_the_same_packet_identifier() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        for id in [3, 1, 65_535] {
            publisher.send(Publish::new("t/a", "m").qos(2, id));
            assert_eq!(publisher.expect_ack().packet_identifier, id);
        }
        for id in [65_535, 3, 1] {
            publisher.send(Ack::pubrel(id));
            publisher.expect(Ack::pubcomp(id));
        }
    });
}

#[test]
fn mqtt_4_3_3_12_after_pubcomp_the_packet_identifier_means_a_new_message() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 2);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        for dup in [false, false, true] {
            publisher.publish(Publish { dup, ..Publish::new("t/a", "same").qos(2, 7) });
            subscriber.expect_message("same");
        }
    });
}

#[test]
fn mqtt_4_3_3_13_the_exchange_continues_after_the_message_has_expired() {
    let broker = Broker::start();
    let mut subscriber = subscriber(&broker, V5, 2);
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    let publish = Publish::new("t/a", "m").property(Property::MessageExpiryInterval(1)).qos(2, 7);
    publisher.send(&publish);
    publisher.expect(Ack::pubrec(7));
    let received = subscriber.expect_publish();
    sleep(Duration::from_millis(1300));
    // The server as receiver.
    publisher.send(publish.dup());
    publisher.expect(Ack::pubrec(7));
    publisher.send(Ack::pubrel(7));
    publisher.expect(Ack::pubcomp(7));
    // The server as sender.
    release(&mut subscriber, &received);
    subscriber.send(Ack::pubcomp(received.id()));
    subscriber.expect_alive();
}

#[test]
fn a_message_is_delivered_at_the_lower_of_its_qos_and_the_granted() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscribers = subscribers(&broker, version);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        for qos in 0..3 {
            let publish = Publish::new("t", qos.to_string());
            publisher.publish(if qos > 0 { publish.qos(qos, 1) } else { publish });
            for (granted, subscriber) in (0..).zip(&mut subscribers) {
                assert_eq!(subscriber.expect_message(&qos.to_string()).qos, qos.min(granted));
            }
        }
    });
}

#[test]
fn packet_identifiers_of_the_two_directions_are_independent() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, 2);
        publish_numbers(&broker, version, 2, 0..1);
        let received = client.expect_publish();
        let id = received.id();
        client.send(Publish::new("u", "other").qos(2, id));
        assert_eq!(client.expect_ack().kind, 5);
        release(&mut client, &received);
        client.send(Subscribe::new(id.wrapping_add(1).max(1), "v", 0));
        client.expect_suback();
        client.send(Ack::pubrel(id));
        client.expect(Ack::pubcomp(id));
        client.send(Ack::pubcomp(id));
        client.expect_alive();
    });
}
