//! Chapter 2: the format of a Control Packet.

use std::collections::BTreeSet;

use crate::support::reason::{MALFORMED_PACKET, PROTOCOL_ERROR};
use crate::support::{
    Ack, Broker, Client, Connect, Encode, Property, Publish, Suback, Subscribe, Unsuback,
    Unsubscribe, V5, V311, Version, for_versions, frame, string,
};

/// Packets of every type that a client sends after CONNECT, each well-formed except for its flags.
fn packets_with_wrong_flags(version: Version) -> Vec<Vec<u8>> {
    let mut packets = vec![
        Ack::puback(1).encode(version),
        Ack::pubrec(1).encode(version),
        Ack::pubrel(1).encode(version),
        Ack::pubcomp(1).encode(version),
        Subscribe::new(1, "a", 0).encode(version),
        Unsubscribe::new(1, "a").encode(version),
        vec![0xC0, 0x00],
        vec![0xE0, 0x00],
    ];
    if version == V5 {
        packets.push(vec![0xF0, 0x00]);
    }
    for packet in &mut packets {
        packet[0] ^= 0x01;
    }
    packets
}

#[test]
fn mqtt_2_1_3_1_reserved_flags_have_the_listed_values() {
    let broker = Broker::start();
    for packet in packets_with_wrong_flags(V5) {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.raw(&packet);
        client.expect_disconnect(MALFORMED_PACKET);
    }
}

#[test]
fn mqtt_2_1_3_1_reserved_flags_of_connect_are_0() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::open(&broker, version);
        let mut connect = Connect::new(version, "c").bytes();
        connect[0] |= 0x01;
        client.raw(&connect);
        if version == V5 {
            client.expect_refusal(MALFORMED_PACKET);
        } else {
            client.expect_closed();
        }
    });
}

#[test]
fn mqtt_311_2_2_2_2_wrong_flags_end_the_connection() {
    let broker = Broker::start();
    for packet in packets_with_wrong_flags(V311) {
        let mut client = Client::connect(&broker, Connect::v311("c"));
        client.raw(&packet);
        client.expect_closed();
    }
}

#[test]
fn a_packet_of_a_reserved_type_is_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0x00, 0x00]);
        client.expect_violation(MALFORMED_PACKET);
    });
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v311("c"));
    client.raw(&[0xF0, 0x00]);
    client.expect_closed();
}

#[test]
fn a_packet_type_that_only_a_server_may_send_is_a_protocol_error() {
    let broker = Broker::start();
    let packets: [&[u8]; 4] = [
        &[0x20, 0x03, 0x00, 0x00, 0x00],
        &[0x90, 0x04, 0x00, 0x01, 0x00, 0x00],
        &[0xB0, 0x04, 0x00, 0x01, 0x00, 0x00],
        &[0xD0, 0x00],
    ];
    for packet in packets {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.raw(packet);
        client.expect_disconnect(PROTOCOL_ERROR);
    }
}

#[test]
fn a_packet_with_bytes_after_its_last_field_is_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0xC0, 0x01, 0x00]);
        client.expect_violation(MALFORMED_PACKET);
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        let mut unsubscribe = Unsubscribe::new(1, "a").encode(version);
        unsubscribe[1] += 1;
        unsubscribe.push(0);
        client.raw(&unsubscribe);
        client.expect_violation(MALFORMED_PACKET);
    });
}

#[test]
fn a_packet_that_ends_within_a_field_is_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        // A Topic Name longer than its packet, and an acknowledgement of one byte.
        for packet in [&[0x30, 0x03, 0x00, 0x05, b'a'][..], &[0x40, 0x01, 0x00]] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.raw(packet);
            client.expect_violation(MALFORMED_PACKET);
        }
    });
}

#[test]
fn packets_may_be_split_at_any_byte() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::open(&broker, version);
        let bytes = [
            Connect::new(version, "c").bytes(),
            Subscribe::new(7, "a/b", 1).encode(version),
            Publish::new("a/b", "payload").qos(1, 9).encode(version),
            vec![0xC0, 0x00],
        ]
        .concat();
        for byte in &bytes {
            client.raw(&[*byte]);
        }
        expect_answers(&mut client);

        // All of them at once.
        let mut client = Client::open(&broker, version);
        client.raw(&bytes);
        expect_answers(&mut client);
    });
}

/// CONNACK, then SUBACK, PUBACK, PUBLISH and PINGRESP. The message may precede SUBACK (section
/// 3.8.4), which waits until all cores know the filter.
fn expect_answers(client: &mut Client) {
    assert_eq!(client.expect_connack().reason, 0);
    let mut seen = [(); 4].map(|()| format!("{:?}", client.receive()));
    seen.sort();
    let begin = ["Ack(Ack { kind: 4", "Pingresp", "Publish", "Suback"];
    assert!(seen.iter().zip(begin).all(|(seen, begin)| seen.starts_with(begin)), "{seen:?}");
}

#[test]
fn mqtt_2_2_1_2_a_publish_at_qos_0_has_no_packet_identifier() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.subscribe("a", 2);
        // Everything after the Topic Name and the properties is payload, in both directions.
        client.send(Publish::new("a", [0x00, 0x0A, 0x00]));
        client.expect(Publish::new("a", [0x00, 0x0A, 0x00]));
    });
}

#[test]
fn mqtt_2_2_1_3_a_packet_identifier_of_0_is_an_error() {
    for_versions(|version| {
        let broker = Broker::start();
        let packets = [
            Publish::new("a", "").qos(1, 0).encode(version),
            Publish::new("a", "").qos(2, 0).encode(version),
            Subscribe::new(0, "a", 0).encode(version),
            Unsubscribe::new(0, "a").encode(version),
        ];
        for packet in packets {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.raw(&packet);
            client.expect_violation(PROTOCOL_ERROR);
        }
    });
}

#[test]
fn mqtt_2_2_1_4_packet_identifiers_of_the_server_are_not_0_and_not_in_use() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = Client::connect(&broker, Connect::new(version, "s"));
        subscriber.subscribe("a", 2);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        let mut in_use = BTreeSet::new();
        for number in 0..20_u16 {
            let qos = 1 + (number % 2) as u8;
            publisher.publish(Publish::new("a", "payload").qos(qos, number + 1));
            let publish = subscriber.expect_publish();
            assert_ne!(publish.id(), 0);
            assert!(in_use.insert(publish.id()), "{} is in use: {in_use:?}", publish.id());
            if number % 3 == 0 {
                subscriber.acknowledge(&publish);
                in_use.remove(&publish.id());
            }
        }
    });
}

#[test]
fn mqtt_2_2_1_5_acknowledgements_carry_the_packet_identifier_of_their_publish() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.subscribe("own", 2);
        for id in [1, 0x1234, 0xFFFF] {
            client.send(Publish::new("a", "").qos(1, id));
            assert_eq!(client.expect_ack().packet_identifier, id);
            client.send(Publish::new("a", "").qos(2, id));
            assert_eq!(client.expect_ack().packet_identifier, id);
            client.send(Ack::pubrel(id));
            client.expect(Ack::pubcomp(id));
        }
        // The server as a sender: PUBREL carries the Packet Identifier of its PUBLISH.
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        publisher.publish(Publish::new("own", "payload").qos(2, 77));
        let publish = client.expect_publish();
        client.send(Ack::pubrec(publish.id()));
        client.expect(Ack::pubrel(publish.id()));
    });
}

#[test]
fn mqtt_2_2_1_6_suback_and_unsuback_carry_the_packet_identifier_they_answer() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        for id in [1, 0x1234, 0xFFFF] {
            client.send(Subscribe::new(id, "a", 0));
            client.expect(Suback::new(id, &[0]));
            client.send(Unsubscribe::new(id, "a"));
            let reasons: &[u8] = if version == V5 { &[0] } else { &[] };
            client.expect(Unsuback::new(id, reasons));
        }
    });
}

#[test]
fn mqtt_2_2_2_1_a_packet_without_properties_has_a_property_length_of_0() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.subscribe("a", 0);
    client.send(Publish::new("a", "payload"));
    client.expect(Publish::new("a", "payload"));
    // A PUBLISH without a Property Length, whose payload cannot be mistaken for one.
    client.raw(&frame(0x30, &string("a")));
    client.expect_disconnect(MALFORMED_PACKET);
}

#[test]
fn an_unknown_or_misplaced_property_is_malformed() {
    let broker = Broker::start();
    // Identifier 0x7E is undefined, Receive Maximum is not allowed in PUBLISH, and the last
    // property is truncated.
    let properties = [
        Property::Raw(vec![0x7E, 0x00]),
        Property::ReceiveMaximum(1),
        Property::Raw(vec![0x02, 0x00, 0x00]),
    ];
    for property in properties {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.send(Publish::new("a", "payload").property(property));
        client.expect_disconnect(MALFORMED_PACKET);
    }
}

#[test]
fn a_duplicate_property_is_a_protocol_error() {
    let broker = Broker::start();
    let properties = [
        Property::PayloadFormatIndicator(0),
        Property::MessageExpiryInterval(10),
        Property::TopicAlias(1),
        Property::ResponseTopic("r".into()),
        Property::CorrelationData(b"c".to_vec()),
        Property::ContentType("t".into()),
    ];
    for property in properties {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        let publish = Publish::new("a", "payload");
        client.send(publish.property(property.clone()).property(property));
        client.expect_disconnect(PROTOCOL_ERROR);
    }
}
