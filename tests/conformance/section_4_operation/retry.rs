//! 4.4 and 4.5: what is sent again and when, and which sessions receive a message.

use super::{durable, publish_numbers, release, resumed, subscriber};
use crate::support::{
    Ack, Broker, Client, Connect, Packet, Property, Publish, SILENCE, Subscribe, V5, V311, Version,
    for_versions, reason,
};

/// Four messages, the first and third at QoS 1; then the second is released, and the connection is
/// cut. Packets expected on the next connection, in this order:
fn unacknowledged(broker: &Broker, version: Version) -> Vec<Packet> {
    let mut client = subscriber(broker, version, 2);
    publish_numbers(broker, version, 1, 0..1);
    publish_numbers(broker, version, 2, 1..2);
    publish_numbers(broker, version, 1, 2..3);
    publish_numbers(broker, version, 2, 3..4);
    let publishes: Vec<Publish> = (0..4).map(|_| client.expect_publish()).collect();
    let again = |number: usize| Packet::from(publishes[number].clone().dup());
    let expected = vec![again(0), Ack::pubrel(publishes[1].id()).into(), again(2), again(3)];
    release(&mut client, &publishes[1]);
    client.vanish();
    expected
}

#[test]
fn mqtt_4_4_0_1_unacknowledged_packets_are_sent_again_on_the_next_connection() {
    expect_sent_again(V5);
}

/// PUBLISH packets in their original order, with PUBREL packets anywhere among them.
fn expect_sent_again(version: Version) {
    let by_type = |mut packets: Vec<Packet>| {
        packets.sort_by_key(|packet| matches!(packet, Packet::Publish(_)));
        packets
    };
    let broker = Broker::start();
    let expected = by_type(unacknowledged(&broker, version));
    for _ in 0..2 {
        let mut client = resumed(&broker, durable(version));
        let got = (0..4).map(|_| client.receive()).collect();
        assert_eq!(by_type(got), expected);
        client.expect_alive();
        client.vanish();
    }
}

#[test]
fn mqtt_311_4_4_0_1_unacknowledged_packets_are_sent_again_on_the_next_connection() {
    expect_sent_again(V311);
}

#[test]
fn publish_and_pubrel_are_sent_again_in_the_original_order_of_their_messages() {
    for_versions(|version| {
        let broker = Broker::start();
        if !broker.is_ours() {
            return; // The specification does not define the position of PUBREL among PUBLISH.
        }
        let expected = unacknowledged(&broker, version);
        let mut client = resumed(&broker, durable(version));
        for packet in expected {
            client.expect(packet);
        }
    });
}

#[test]
fn resent_messages_precede_queued_ones() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, 1);
        publish_numbers(&broker, version, 1, 0..3);
        for number in 0..3 {
            assert_eq!(client.expect_publish().text(), number.to_string());
        }
        client.vanish();
        publish_numbers(&broker, version, 1, 3..6);
        let mut client = resumed(&broker, durable(version));
        for number in 0..6 {
            let publish = client.expect_message(&number.to_string());
            assert_eq!(publish.dup, number < 3, "{publish:?}");
        }
        client.expect_alive();
    });
}

#[test]
fn mqtt_4_4_0_1_no_packet_is_sent_again_on_the_same_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, 2);
        publish_numbers(&broker, version, 1, 0..1);
        publish_numbers(&broker, version, 2, 1..3);
        let publishes: Vec<Publish> = (0..3).map(|_| client.expect_publish()).collect();
        release(&mut client, &publishes[2]);
        client.expect_silence(3 * SILENCE);
        // Nor because of other events.
        client.send(Subscribe::new(9, "other", 1));
        client.expect_suback();
        client.send(Subscribe::new(10, "t/#", 2));
        client.expect_suback();
        client.expect_alive();
        client.expect_silence(SILENCE);
    });
}

#[test]
fn mqtt_4_4_0_1_no_packet_is_sent_again_to_a_new_session() {
    for_versions(|version| {
        let broker = Broker::start();
        unacknowledged(&broker, version);
        let mut client = Client::connect(&broker, Connect::new(version, "s"));
        client.expect_silence(SILENCE);
    });
}

#[test]
fn mqtt_4_4_0_2_an_acknowledgement_of_0x80_or_above_ends_the_message() {
    let broker = Broker::start();
    let mut client = subscriber(&broker, V5, 2);
    publish_numbers(&broker, V5, 1, 0..1);
    publish_numbers(&broker, V5, 2, 1..2);
    publish_numbers(&broker, V5, 1, 2..3);
    let publishes: Vec<Publish> = (0..3).map(|_| client.expect_publish()).collect();
    client.send(Ack::puback(publishes[0].id()).reason(reason::NOT_AUTHORIZED));
    client.send(Ack::pubrec(publishes[1].id()).reason(reason::PACKET_IDENTIFIER_IN_USE));
    client.expect_alive();
    client.vanish();
    let mut client = resumed(&broker, durable(V5));
    assert_eq!(client.expect_message("2").id(), publishes[2].id());
    client.expect_silence(SILENCE);
}

#[test]
fn messages_in_flight_are_sent_again_when_another_connection_takes_over() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut first = subscriber(&broker, version, 2);
        publish_numbers(&broker, version, 2, 0..2);
        let (zero, one) = (first.expect_publish(), first.expect_publish());
        release(&mut first, &zero);
        let mut second = resumed(&broker, durable(version));
        first.expect_violation(reason::SESSION_TAKEN_OVER);
        second.expect(Ack::pubrel(zero.id()));
        second.expect(one.dup());
        second.expect_alive();
    });
}

#[test]
fn a_message_sent_again_is_identical_including_its_properties() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, durable(V5));
    client.send(Subscribe::new(1, "t/#", 1 | 0x08).property(Property::SubscriptionIdentifier(9)));
    client.expect_suback();
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    let publish = Publish::new("t/a", "m")
        .retain()
        .property(Property::PayloadFormatIndicator(1))
        .property(Property::ContentType("text/plain".into()))
        .property(Property::ResponseTopic("r".into()))
        .property(Property::CorrelationData(vec![1, 0, 2]))
        .property(Property::user("a", "1"))
        .property(Property::user("a", "2"));
    publisher.publish(publish.qos(1, 1));
    let received = client.expect_publish();
    assert_eq!(received.properties.len(), 7);
    client.vanish();
    resumed(&broker, durable(V5)).expect(received.dup());
}

#[test]
fn mqtt_4_5_0_1_a_message_goes_to_every_session_with_a_matching_subscription() {
    for_versions(|version| {
        let broker = Broker::start();
        let filters = ["t/a", "t/+", "t/#", "#", "+/a", "other", "t/b"];
        let connect = |number: usize| Connect::new(version, &format!("s{number}")).durable();
        // Half of the clients are disconnected.
        let mut sessions: Vec<Option<Client>> = Vec::new();
        for (number, filter) in filters.iter().enumerate() {
            for client in [2 * number, 2 * number + 1] {
                let mut subscriber = Client::connect(&broker, connect(client));
                subscriber.subscribe(filter, 1);
                sessions.push((client % 2 == 0).then_some(subscriber));
            }
        }
        publish_numbers(&broker, version, 1, 0..2);
        for (number, session) in sessions.into_iter().enumerate() {
            let mut client = session.unwrap_or_else(|| Client::connect(&broker, connect(number)));
            if number < 10 {
                client.expect_message("0");
                client.expect_message("1");
            }
            client.expect_alive();
        }
    });
}

#[test]
fn a_subscriber_that_does_not_acknowledge_does_not_delay_others() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut silent = subscriber(&broker, version, 1);
        let mut other = Client::connect(&broker, Connect::new(version, "other"));
        other.subscribe("t/#", 1);
        publish_numbers(&broker, version, 1, 0..300);
        for number in 0..300 {
            other.expect_message(&number.to_string());
        }
        assert_eq!(silent.expect_publish().text(), "0");
    });
}
