//! 4.6: the order of messages, of one publisher among several, and of messages that are sent again.

use std::collections::HashMap;
use std::thread;

use super::{durable, publish_numbers, receive_maximum, resumed, subscriber};
use crate::support::{
    Ack, Broker, Client, Connect, Encode, Packet, Publish, V5, V311, Version, for_versions,
};

/// Number of messages per publisher.
const MESSAGES: u16 = 200;

/// Publishes "name 0", "name 1" and so on, at QoS 0, 1 and 2 in turn or at `qos`, without waiting
/// for acknowledgements, within the Receive Maximum of the server; then receives all
/// acknowledgements.
fn publish_without_waiting(
    broker: &Broker,
    version: Version,
    name: &str,
    topic: &str,
    qos: Option<u8>,
) {
    let mut client = Client::connect(broker, Connect::new(version, name));
    let mut bytes = Vec::new();
    let mut acks = 0;
    for number in 0..MESSAGES {
        let publish = Publish::new(topic, format!("{name} {number}"));
        let publish = match qos.unwrap_or((number % 3) as u8) {
            0 => publish,
            qos => publish.qos(qos, number + 1),
        };
        acks += u16::from(publish.qos > 0);
        bytes.extend(publish.encode(version));
    }
    client.raw(&bytes);
    for _ in 0..acks {
        let ack = client.expect_ack();
        if ack.kind == 5 {
            client.send(Ack::pubrel(ack.packet_identifier));
        }
    }
}

/// Receives and acknowledges `count` messages, and checks their order per publisher, topic and QoS.
fn expect_order(subscriber: &mut Client, count: usize) {
    let mut last: HashMap<(String, String, u8), u16> = HashMap::new();
    let (mut seen, mut unreleased) = (0, 0);
    while seen < count || unreleased > 0 {
        match subscriber.receive() {
            Packet::Publish(publish) => {
                let (name, number) = publish.text().split_once(' ').expect("name and number");
                let number: u16 = number.parse().expect("a number");
                let key = (name.to_owned(), publish.topic.clone(), publish.qos);
                let before = last.insert(key, number);
                assert!(before < Some(number), "{before:?} before {publish:?}");
                match publish.qos {
                    0 => {}
                    1 => subscriber.send(Ack::puback(publish.id())),
                    _ => {
                        subscriber.send(Ack::pubrec(publish.id()));
                        unreleased += 1;
                    }
                }
                seen += 1;
            }
            Packet::Ack(ack) if ack.kind == 6 => {
                subscriber.send(Ack::pubcomp(ack.packet_identifier));
                unreleased -= 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn mqtt_4_6_0_5_messages_of_a_client_topic_and_qos_are_delivered_in_order() {
    for_versions(|version| {
        for qos in 0..3 {
            let broker = Broker::start();
            let mut subscriber = subscriber(&broker, version, qos);
            publish_without_waiting(&broker, version, "p", "t/a", Some(qos));
            expect_order(&mut subscriber, usize::from(MESSAGES));
        }
    });
}

#[test]
fn mqtt_4_6_0_6_every_topic_is_ordered_with_several_publishers() {
    let broker = Broker::start();
    let mut subscribers: Vec<Client> = (0..5)
        .map(|number| {
            let version = if number % 2 == 0 { V5 } else { V311 };
            let mut client = Client::connect(&broker, Connect::new(version, &format!("s{number}")));
            client.subscribe(["t/#", "t/a", "+/+", "#", "t/b"][number], 2);
            client
        })
        .collect();
    let broker = &broker;
    thread::scope(|scope| {
        for (number, topic) in ["t/a", "t/a", "t/b", "t/a", "t/b", "t/c"].iter().enumerate() {
            let version = if number % 2 == 0 { V5 } else { V311 };
            let name = format!("p{number}");
            scope.spawn(move || publish_without_waiting(broker, version, &name, topic, None));
        }
        for (subscriber, publishers) in subscribers.iter_mut().zip([6, 3, 6, 6, 2]) {
            scope.spawn(move || expect_order(subscriber, publishers * usize::from(MESSAGES)));
        }
    });
    subscribers.iter_mut().for_each(Client::expect_alive);
}

#[test]
fn qos_0_and_qos_1_messages_of_a_topic_keep_their_order_when_all_are_delivered_at_qos_0() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 0);
        publish_without_waiting(&broker, version, "p", "t/a", None);
        for number in 0..MESSAGES {
            assert_eq!(subscriber.expect_publish().text(), format!("p {number}"));
        }
    });
}

#[test]
fn messages_of_a_publisher_stay_in_order_across_topics() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 1);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        for number in 0..50 {
            let topic = format!("t/{}", number % 7);
            publisher.publish(Publish::new(&topic, number.to_string()).qos(1, number + 1));
        }
        for number in 0..50 {
            subscriber.expect_message(&number.to_string());
        }
    });
}

#[test]
fn queued_messages_are_delivered_before_new_ones() {
    for_versions(|version| {
        let broker = Broker::start();
        subscriber(&broker, version, 1).vanish();
        publish_numbers(&broker, version, 1, 0..300);
        let mut client = resumed(&broker, durable(version));
        // New messages are queued behind those that wait for the Receive Maximum.
        let broker = &broker;
        thread::scope(|scope| {
            scope.spawn(move || publish_numbers(broker, version, 1, 300..500));
            for number in 0..500 {
                client.expect_message(&number.to_string());
            }
        });
        client.expect_alive();
    });
}

#[test]
fn queued_messages_of_all_qos_are_delivered_once() {
    // The specification orders only messages of one QoS; every message must be delivered once.
    let broker = Broker::start();
    let mut client = Client::connect(&broker, receive_maximum(durable(V5), 1));
    client.subscribe("t/#", 1);
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    for number in 0..10 {
        publisher.publish(Publish::new("t/a", "zero"));
        publisher.publish(Publish::new("t/a", number.to_string()).qos(1, 1));
    }
    let (mut zeros, mut ones) = (0, 0);
    while zeros + ones < 20 {
        let publish = client.expect_publish();
        if publish.qos == 0 {
            zeros += 1;
        } else {
            assert_eq!(publish.text(), ones.to_string());
            ones += 1;
            client.acknowledge(&publish);
        }
    }
    assert_eq!((zeros, ones), (10, 10));
}

#[test]
fn mqtt_311_4_6_0_6_messages_are_sent_again_in_their_original_order() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, 2);
        for number in 0..20 {
            publish_numbers(&broker, version, 1 + (number % 2) as u8, number..number + 1);
        }
        let first: Vec<Publish> = (0..20).map(|_| client.expect_publish()).collect();
        // Every third message is acknowledged, in reverse order.
        let (acknowledged, open): (Vec<_>, Vec<_>) =
            first.into_iter().enumerate().partition(|(number, _)| number % 3 == 0);
        for (_, publish) in acknowledged.iter().rev() {
            client.acknowledge(publish);
        }
        client.expect_alive();
        client.vanish();
        let mut client = resumed(&broker, durable(version));
        for (_, publish) in open {
            client.expect(publish.dup());
        }
        client.expect_alive();
    });
}

#[test]
fn the_server_sends_pubacks_in_the_order_of_the_messages() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "p"));
        for (qos, ack) in [(1, Ack::puback as fn(u16) -> Ack), (2, Ack::pubrec)] {
            let identifiers: Vec<u16> = (1..=100).map(|n| n * 41 % 101).collect();
            let publishes = identifiers.iter().map(|&id| Publish::new("t", "m").qos(qos, id));
            let bytes: Vec<u8> = publishes.flat_map(|publish| publish.encode(version)).collect();
            client.raw(&bytes);
            for &id in &identifiers {
                let received = client.expect_ack();
                assert_eq!(
                    (received.kind, received.packet_identifier),
                    (ack(id).kind, ack(id).packet_identifier)
                );
            }
        }
        let bytes: Vec<u8> = (1..=100).flat_map(|id| Ack::pubrel(id).encode(version)).collect();
        client.raw(&bytes);
        for id in 1..=100 {
            client.expect(Ack::pubcomp(id));
        }
    });
}

#[test]
fn the_server_sends_pubrels_in_the_order_of_the_pubrecs() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, 2);
        publish_numbers(&broker, version, 2, 0..20);
        let mut identifiers: Vec<u16> = (0..20).map(|_| client.expect_publish().id()).collect();
        identifiers.reverse();
        let pubrecs = identifiers.iter().flat_map(|&id| Ack::pubrec(id).encode(version));
        client.raw(&pubrecs.collect::<Vec<u8>>());
        for &id in &identifiers {
            client.expect(Ack::pubrel(id));
        }
    });
}
