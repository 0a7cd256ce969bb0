//! 4.9: flow control in both directions.

use super::{durable, publish_numbers, receive_maximum, release, resumed, subscriber};
use crate::support::{
    Ack, Broker, Client, Connect, Packet, Property, Publish, SILENCE, Subscribe, Unsubscribe, V5,
    V311, property, reason,
};

/// The client `s` with a Receive Maximum, subscribed at `qos`.
fn limited(broker: &Broker, qos: u8, maximum: u16) -> Client {
    let mut client = Client::connect(broker, receive_maximum(durable(V5), maximum));
    client.subscribe("t/#", qos);
    client
}

#[test]
fn mqtt_4_9_0_1_the_initial_send_quota_is_between_1_and_the_receive_maximum() {
    for maximum in [1, 2, 7, 65_535] {
        let broker = Broker::start();
        let mut client = limited(&broker, 1, maximum);
        publish_numbers(&broker, V5, 1, 0..10);
        let expected = maximum.min(10);
        for number in 0..expected {
            assert_eq!(client.expect_publish().text(), number.to_string());
        }
        client.expect_alive();
    }
}

#[test]
fn mqtt_4_9_0_1_each_connection_starts_with_a_new_send_quota() {
    let broker = Broker::start();
    let mut client = limited(&broker, 1, 3);
    publish_numbers(&broker, V5, 1, 0..10);
    for number in 0..3 {
        assert_eq!(client.expect_publish().text(), number.to_string());
    }
    client.expect_alive();
    client.vanish();
    for maximum in [1, 5, 2] {
        let mut client = resumed(&broker, receive_maximum(durable(V5), maximum));
        for number in 0..maximum {
            assert_eq!(client.expect_publish().text(), number.to_string());
        }
        client.expect_alive();
        client.vanish();
    }
}

/// Expects messages to wait at a send quota of 0, and each one completed by `finish` to release one
/// more.
fn expect_none_beyond_the_quota(qos: u8, finish: fn(&mut Client, &Publish)) {
    let broker = Broker::start();
    let mut client = limited(&broker, qos, 2);
    publish_numbers(&broker, V5, qos, 0..6);
    let mut in_flight = vec![client.expect_publish(), client.expect_publish()];
    for number in 2..6 {
        client.expect_silence(SILENCE / 4);
        let publish = in_flight.remove(usize::from(number % 2 == 0));
        finish(&mut client, &publish);
        let publish = client.expect_publish();
        assert_eq!(publish.text(), number.to_string());
        in_flight.push(publish);
    }
    client.expect_alive();
}

#[test]
fn mqtt_4_9_0_2_at_a_send_quota_of_0_no_qos_1_message_is_sent() {
    expect_none_beyond_the_quota(1, |client, publish| client.send(Ack::puback(publish.id())));
    expect_none_beyond_the_quota(1, |client, publish| {
        client.send(Ack::puback(publish.id()).reason(reason::UNSPECIFIED_ERROR));
    });
}

#[test]
fn mqtt_4_9_0_2_at_a_send_quota_of_0_no_qos_2_message_is_sent() {
    expect_none_beyond_the_quota(2, |client, publish| {
        // PUBREC alone does not increase the quota.
        release(client, publish);
        client.expect_alive();
        client.send(Ack::pubcomp(publish.id()));
    });
    expect_none_beyond_the_quota(2, |client, publish| {
        client.send(Ack::pubrec(publish.id()).reason(reason::UNSPECIFIED_ERROR));
    });
}

#[test]
fn the_send_quota_never_rises_above_the_receive_maximum() {
    let broker = Broker::start();
    let mut client = limited(&broker, 2, 2);
    publish_numbers(&broker, V5, 2, 0..6);
    let publishes = [client.expect_publish(), client.expect_publish()];
    for publish in &publishes {
        // Acknowledgements of unknown messages, and duplicates for one message.
        client.send(Ack::pubcomp(999));
        client.send(Ack::puback(998));
        client.send(Ack::puback(publish.id()));
        client.send(Ack::pubrec(997).reason(reason::UNSPECIFIED_ERROR));
        client.expect_alive();
    }
    for publish in &publishes {
        release(&mut client, publish);
        client.send(Ack::pubcomp(publish.id()));
        client.send(Ack::pubcomp(publish.id()));
        assert_eq!(client.expect_publish().qos, 2);
        client.expect_alive();
    }
}

#[test]
fn messages_in_flight_after_a_resent_pubrel_do_not_exceed_the_receive_maximum() {
    let broker = Broker::start();
    let mut client = limited(&broker, 2, 2);
    publish_numbers(&broker, V5, 2, 0..8);
    let first = [client.expect_publish(), client.expect_publish()];
    release(&mut client, &first[0]);
    release(&mut client, &first[1]);
    client.vanish();
    let mut client = resumed(&broker, receive_maximum(durable(V5), 2));
    let (mut released, mut in_flight) = (Vec::new(), 0);
    // First the messages sent without a request, then those sent as each old exchange is completed.
    for ended in [None, Some(&first[0]), Some(&first[1])] {
        if let Some(publish) = ended {
            client.send(Ack::pubcomp(publish.id()));
        }
        client.raw(&[0xC0, 0x00]);
        loop {
            match client.receive() {
                Packet::Pingresp => break,
                Packet::Publish(_) => in_flight += 1,
                Packet::Ack(ack) => released.push(ack),
                other => panic!("{other:?}"),
            }
        }
        assert!(in_flight <= 2, "{in_flight} messages in flight");
        assert_eq!(released, [Ack::pubrel(first[0].id()), Ack::pubrel(first[1].id())]);
    }
    // A broker with a store sends QoS 2 messages after the delivery has been stored.
    for _ in in_flight..2 {
        client.expect_publish();
    }
}

#[test]
fn mqtt_4_9_0_3_at_a_send_quota_of_0_all_other_packets_are_processed() {
    let broker = Broker::start();
    let mut client = limited(&broker, 1, 1);
    publish_numbers(&broker, V5, 1, 0..3);
    let held = client.expect_publish();
    client.expect_alive();
    client.send(Subscribe::new(1, "other", 0));
    client.expect_suback();
    // QoS 0 uses no quota.
    client.publish(Publish::new("other", "zero"));
    client.expect_message("zero");
    client.publish(Publish::new("nobody", "one").qos(1, 1));
    client.publish(Publish::new("nobody", "two").qos(2, 2));
    client.send(Unsubscribe::new(3, "other"));
    assert!(matches!(client.receive(), Packet::Unsuback(_)));
    client.expect_alive();
    client.send(Ack::puback(held.id()));
    client.expect_message("1");
    client.expect_message("2");
}

#[test]
fn a_receive_maximum_of_0_is_a_protocol_error() {
    let broker = Broker::start();
    Client::refused(&broker, receive_maximum(Connect::v5("c"), 0), reason::PROTOCOL_ERROR);
}

#[test]
fn a_3_1_1_client_has_at_most_inflight_max_messages_in_flight() {
    let broker = Broker::with_config("[limits]\ninflight_max = 3");
    for version in [V311, V5] {
        let mut client = subscriber(&broker, version, 2);
        publish_numbers(&broker, version, 1, 0..5);
        let publishes: Vec<Publish> = (0..3).map(|_| client.expect_publish()).collect();
        client.expect_alive();
        for publish in &publishes {
            client.acknowledge(publish);
        }
        client.expect_message("3");
        client.expect_message("4");
        client.disconnect();
    }
}

#[test]
fn the_receive_maximum_of_the_server_bounds_qos_2_messages_between_publish_and_pubcomp() {
    let broker = Broker::with_config("[limits]\nreceive_maximum = 2");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    assert_eq!(property!(client.connack.properties, ReceiveMaximum), Some(2));
    for round in 0..3 {
        for id in [1, 2] {
            client.send(Publish::new("t", "m").qos(2, id));
            assert_eq!(client.expect_ack().packet_identifier, id);
        }
        // Messages that are sent again count once.
        client.send(Publish::new("t", "m").qos(2, 1).dup());
        assert_eq!(client.expect_ack().kind, 5);
        // QoS 1 is acknowledged immediately and does not accumulate.
        if round == 0 {
            for id in 1..10 {
                client.send(Ack::pubrel(100 + id));
                client.expect_ack();
            }
        }
        for id in [1, 2] {
            client.send(Ack::pubrel(id));
            client.expect(Ack::pubcomp(id));
        }
    }
    for id in [1, 2, 3] {
        client.send(Publish::new("t", "m").qos(2, id));
        if id < 3 {
            client.expect_ack();
        }
    }
    client.expect_disconnect(reason::RECEIVE_MAXIMUM_EXCEEDED);
}

#[test]
fn refused_messages_do_not_count_towards_the_receive_maximum_of_the_server() {
    let broker = Broker::with_config("[limits]\nreceive_maximum = 2");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    for id in 1..10 {
        client.send(Publish::new("$SYS/mine", "m").qos(2, id));
        client.expect(Ack::pubrec(id).reason(reason::NOT_AUTHORIZED));
    }
    client.expect_alive();
}

#[test]
fn the_receive_maximum_of_the_server_starts_over_on_each_connection() {
    let broker = Broker::with_config("[limits]\nreceive_maximum = 2");
    let connect = || Connect::v5("c").durable();
    let mut client = Client::connect(&broker, connect());
    for id in [1, 2] {
        client.send(Publish::new("t", "m").qos(2, id));
        client.expect_ack();
    }
    client.vanish();
    let mut client = Client::connect(&broker, connect());
    assert!(client.connack.session_present);
    // Exchanges of the previous connection are still open, and do not count towards the new quota.
    for id in [3, 4] {
        client.send(Publish::new("t", "m").qos(2, id));
        assert_eq!(client.expect_ack().packet_identifier, id);
    }
    for id in [1, 2, 3, 4] {
        client.send(Ack::pubrel(id));
        client.expect(Ack::pubcomp(id));
    }
    for id in [5, 6, 7] {
        client.send(Publish::new("t", "m").qos(2, id));
        if id < 7 {
            client.expect_ack();
        }
    }
    client.expect_disconnect(reason::RECEIVE_MAXIMUM_EXCEEDED);
}

#[test]
fn a_3_1_1_client_is_not_limited_by_the_receive_maximum() {
    let broker = Broker::with_config("[limits]\nreceive_maximum = 2");
    let mut client = Client::connect(&broker, Connect::v311("c"));
    for id in 1..=50 {
        client.send(Publish::new("t", "m").qos(2, id));
        client.expect(Ack::pubrec(id));
    }
    for id in 1..=50 {
        client.send(Ack::pubrel(id));
        client.expect(Ack::pubcomp(id));
    }
}

#[test]
fn messages_that_wait_for_the_quota_are_sent_in_order_and_once() {
    for qos in [1, 2] {
        for maximum in [1, 2, 3, 10] {
            let broker = Broker::start();
            let mut client = limited(&broker, qos, maximum);
            publish_numbers(&broker, V5, qos, 0..40);
            let mut expected = 0;
            while expected < 40 {
                let batch = maximum.min(40 - expected);
                let publishes: Vec<Publish> = (0..batch).map(|_| client.expect_publish()).collect();
                for publish in &publishes {
                    assert_eq!(publish.text(), expected.to_string());
                    expected += 1;
                }
                // Completed together, so that the next messages are sent together.
                if qos == 2 {
                    publishes.iter().for_each(|publish| release(&mut client, publish));
                }
                let kind = if qos == 1 { Ack::puback } else { Ack::pubcomp };
                publishes.iter().for_each(|publish| client.send(kind(publish.id())));
            }
            client.expect_alive();
        }
    }
}

#[test]
fn a_full_session_queue_drops_messages_according_to_its_policy() {
    for (policy, kept) in [
        ("drop-newest", vec!["0", "1", "2"]),
        ("drop-oldest", vec!["3", "4", "5"]),
        ("keep-latest", vec!["5"]),
    ] {
        let broker = Broker::with_config(&format!(
            "[limits]\nqueue_messages_max = 3\nqueue_policy = \"{policy}\""
        ));
        subscriber(&broker, V5, 1).vanish();
        publish_numbers(&broker, V5, 1, 0..6);
        let mut client = resumed(&broker, durable(V5));
        for payload in kept {
            client.expect_message(payload);
        }
        client.expect_silence(SILENCE / 2);
    }
}

#[test]
fn expired_messages_make_room_in_the_queue() {
    let broker = Broker::start();
    let mut client = limited(&broker, 1, 1);
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    publisher.publish(Publish::new("t/a", "held").qos(1, 1));
    for payload in ["brief", "briefer"] {
        let expiry = Property::MessageExpiryInterval(1);
        publisher.publish(Publish::new("t/a", payload).qos(1, 1).property(expiry));
    }
    publisher.publish(Publish::new("t/a", "lasting").qos(1, 1));
    let held = client.expect_publish();
    std::thread::sleep(std::time::Duration::from_millis(1300));
    client.acknowledge(&held);
    client.expect_message("lasting");
    client.expect_alive();
}
