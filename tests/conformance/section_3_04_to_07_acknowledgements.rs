//! 3.4 to 3.7: PUBACK, PUBREC, PUBREL and PUBCOMP.

use crate::support::{
    Ack, Broker, Bytes, Client, Connect, Property, Publish, V5, for_versions, frame, property,
    reason,
};

/// Reason Codes of the table in section 2.4, and undefined ones.
fn reasons_but(allowed: &[u8]) -> Vec<u8> {
    let candidates = [
        0x01, 0x02, 0x04, 0x10, 0x11, 0x18, 0x19, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x87, 0x8B, 0x8E,
        0x90, 0x91, 0x92, 0x93, 0x97, 0x99, 0xA2, 0xFF,
    ];
    candidates.into_iter().filter(|reason| !allowed.contains(reason)).collect()
}

/// Reason Codes allowed in both PUBACK and PUBREC.
const RECEIPT_REASONS: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// Reason Codes allowed in both PUBREL and PUBCOMP.
const RELEASE_REASONS: [u8; 2] = [0x00, 0x92];

/// A subscriber `s` with an unacknowledged message at `qos`. Another message, "next", is sent only
/// after the acknowledgement, as the Receive Maximum is 1.
fn holding(broker: &Broker, qos: u8) -> (Client, Publish) {
    let connect = Connect::v5("s").property(Property::ReceiveMaximum(1));
    let mut subscriber = Client::connect(broker, connect);
    subscriber.subscribe("t", qos);
    let mut publisher = Client::connect(broker, Connect::v5("p"));
    publisher.publish(Publish::new("t", "m").qos(qos, 1));
    publisher.publish(Publish::new("t", "next").qos(qos, 2));
    let publish = subscriber.expect_publish();
    assert_eq!(publish.qos, qos);
    subscriber.expect_alive();
    (subscriber, publish)
}

/// Sends `ack` with every Reason Code that is not allowed; each ends the connection.
fn expect_reasons_refused(ack: &Ack, allowed: &[u8]) {
    let broker = Broker::start();
    for reason in reasons_but(allowed) {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.send(ack.clone().reason(reason));
        client.expect_disconnect(reason::PROTOCOL_ERROR);
    }
}

/// The server's acknowledgements of messages with and without subscribers, and of a refused one.
fn acknowledgements_of_the_server(qos: u8) -> Vec<u8> {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, Connect::v5("s"));
    subscriber.subscribe("t", 0);
    let mut client = Client::connect(&broker, Connect::v5("c"));
    let mut receipt = |topic: &str, id| {
        client.send(Publish::new(topic, "m").qos(qos, id));
        let ack = client.expect_ack();
        assert_eq!((ack.kind, ack.packet_identifier), (3 + qos, id));
        ack.reason
    };
    vec![receipt("t", 1), receipt("nobody", 2), receipt("$SYS/mine", 3)]
}

#[test]
fn mqtt_3_4_2_1_puback_has_one_of_its_reason_codes() {
    let server = acknowledgements_of_the_server(1);
    assert!(server.iter().all(|reason| RECEIPT_REASONS.contains(reason)), "{server:02x?}");
    expect_reasons_refused(&Ack::puback(1), &RECEIPT_REASONS);
}

#[test]
fn mqtt_3_5_2_1_pubrec_has_one_of_its_reason_codes() {
    let server = acknowledgements_of_the_server(2);
    assert!(server.iter().all(|reason| RECEIPT_REASONS.contains(reason)), "{server:02x?}");
    expect_reasons_refused(&Ack::pubrec(1), &RECEIPT_REASONS);
}

#[test]
fn mqtt_3_6_2_1_pubrel_has_one_of_its_reason_codes() {
    let broker = Broker::start();
    let (mut subscriber, publish) = holding(&broker, 2);
    subscriber.send(Ack::pubrec(publish.id()));
    subscriber.expect(Ack::pubrel(publish.id()));
    subscriber.send(Ack::pubrec(publish.id() + 1));
    assert!(RELEASE_REASONS.contains(&subscriber.expect_ack().reason));
    expect_reasons_refused(&Ack::pubrel(1), &RELEASE_REASONS);
}

#[test]
fn mqtt_3_7_2_1_pubcomp_has_one_of_its_reason_codes() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.publish(Publish::new("t", "m").qos(2, 1));
    client.send(Ack::pubrel(2));
    assert!(RELEASE_REASONS.contains(&client.expect_ack().reason));
    expect_reasons_refused(&Ack::pubcomp(1), &RELEASE_REASONS);
}

#[test]
fn every_reason_code_of_puback_ends_a_qos_1_delivery() {
    let broker = Broker::start();
    for reason in RECEIPT_REASONS {
        let (mut subscriber, publish) = holding(&broker, 1);
        subscriber.send(Ack::puback(publish.id()).reason(reason));
        subscriber.expect_message("next");
    }
}

#[test]
fn every_reason_code_of_pubrec_below_0x80_is_answered_with_pubrel_and_the_others_are_not() {
    let broker = Broker::start();
    for reason in RECEIPT_REASONS {
        let (mut subscriber, publish) = holding(&broker, 2);
        subscriber.send(Ack::pubrec(publish.id()).reason(reason));
        if reason < 0x80 {
            subscriber.expect(Ack::pubrel(publish.id()));
            subscriber.expect_alive();
        } else {
            subscriber.expect_message("next");
        }
    }
}

#[test]
fn every_reason_code_of_pubrel_is_answered_with_pubcomp() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    for reason in RELEASE_REASONS {
        client.send(Publish::new("t", "m").qos(2, 5));
        assert_eq!(client.expect_ack().kind, 5);
        client.send(Ack::pubrel(5).reason(reason));
        client.expect(Ack::pubcomp(5));
    }
}

#[test]
fn every_reason_code_of_pubcomp_ends_a_qos_2_delivery() {
    let broker = Broker::start();
    for reason in RELEASE_REASONS {
        let (mut subscriber, publish) = holding(&broker, 2);
        subscriber.send(Ack::pubrec(publish.id()));
        subscriber.expect(Ack::pubrel(publish.id()));
        subscriber.send(Ack::pubcomp(publish.id()).reason(reason));
        subscriber.expect_message("next");
    }
}

/// The acknowledgement of a refused message, for a client with a Maximum Packet Size of `maximum`.
fn refusal_within(qos: u8, maximum: Option<u32>) -> Ack {
    let broker = Broker::start();
    let connect = Connect::v5("c");
    let mut client = Client::connect(
        &broker,
        match maximum {
            Some(maximum) => connect.property(Property::MaximumPacketSize(maximum)),
            None => connect,
        },
    );
    client.send(Publish::new("$SYS/mine", "m").qos(qos, 1));
    let ack = client.expect_ack();
    assert_eq!((ack.kind, ack.packet_identifier), (3 + qos, 1));
    ack
}

/// The size of an acknowledgement with a Reason Code and at most this Reason String.
fn size(ack: &Ack) -> usize {
    let text = property!(ack.properties, ReasonString).map_or(0, |text: String| 3 + text.len());
    assert!(ack.properties.len() <= 1);
    // Fixed header, Packet Identifier, Reason Code; Property Length if there is a property.
    2 + 2 + 1 + usize::from(text > 0) + text
}

#[test]
fn mqtt_3_4_2_2_a_reason_string_does_not_make_puback_too_large() {
    let free = refusal_within(1, None);
    // CONNACK has to fit as well, so a smaller maximum is impossible.
    let bound = refusal_within(1, Some(64));
    assert_eq!(free.reason, bound.reason);
    assert!(size(&bound) <= 64, "{bound:?}");
}

#[test]
fn mqtt_3_5_2_2_a_reason_string_does_not_make_pubrec_too_large() {
    let free = refusal_within(2, None);
    let bound = refusal_within(2, Some(64));
    assert_eq!(free.reason, bound.reason);
    assert!(size(&bound) <= 64, "{bound:?}");
}

#[test]
fn request_problem_information_0_omits_reason_strings_and_user_properties() {
    let broker = Broker::start();
    let connect = Connect::v5("c").property(Property::RequestProblemInformation(0));
    let mut client = Client::connect(&broker, connect);
    for qos in [1, 2] {
        client.send(Publish::new("$SYS/mine", "m").qos(qos, 1));
        assert_eq!(client.expect_ack().properties, []);
    }
    client.send(Ack::pubrel(9));
    client.expect(Ack::pubcomp(9).reason(reason::PACKET_IDENTIFIER_NOT_FOUND));
    client.send(Ack::pubrec(9));
    client.expect(Ack::pubrel(9).reason(reason::PACKET_IDENTIFIER_NOT_FOUND));
}

#[test]
fn mqtt_3_6_1_1_pubrel_has_the_flags_0010() {
    for_versions(|version| {
        let broker = Broker::start();
        for flags in [0x0, 0x1, 0x3, 0x4, 0x6, 0x8, 0xA, 0xF] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.send(Publish::new("t", "m").qos(2, 1));
            client.expect_ack();
            client.raw(&frame(0x60 | flags, &[0, 1]));
            client.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn puback_pubrec_and_pubcomp_have_no_flags() {
    for_versions(|version| {
        let broker = Broker::start();
        for kind in [0x40, 0x50, 0x70] {
            for flags in [0x1, 0x2, 0x8, 0xF] {
                let mut client = Client::connect(&broker, Connect::new(version, "c"));
                client.raw(&frame(kind | flags, &[0, 1]));
                client.expect_violation(reason::MALFORMED_PACKET);
            }
        }
    });
}

/// First bytes of the four packet types.
const FIRST_BYTES: [u8; 4] = [0x40, 0x50, 0x62, 0x70];

#[test]
fn an_acknowledgement_with_a_truncated_packet_identifier_is_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        for first in FIRST_BYTES {
            for rest in [&[][..], &[1]] {
                let mut client = Client::connect(&broker, Connect::new(version, "c"));
                client.raw(&frame(first, rest));
                client.expect_violation(reason::MALFORMED_PACKET);
            }
        }
    });
}

#[test]
fn an_acknowledgement_of_packet_identifier_0_ends_the_connection() {
    for_versions(|version| {
        let broker = Broker::start();
        for first in FIRST_BYTES {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.raw(&frame(first, &[0, 0]));
            client.expect_violation(reason::PROTOCOL_ERROR);
        }
    });
}

#[test]
fn an_acknowledgement_with_bytes_after_its_end_is_malformed() {
    let broker = Broker::start();
    for first in FIRST_BYTES {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.raw(&frame(first, &[0, 1, 0, 0, 0]));
        client.expect_disconnect(reason::MALFORMED_PACKET);
        // A Property Length beyond the end of the packet.
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.raw(&frame(first, &[0, 1, 0, 1]));
        client.expect_disconnect(reason::MALFORMED_PACKET);
        // In 3.1.1 the packet ends after the Packet Identifier.
        let mut client = Client::connect(&broker, Connect::v311("c"));
        client.raw(&frame(first, &[0, 1, 0]));
        client.expect_closed();
    }
}

#[test]
fn an_omitted_reason_code_means_success_and_the_property_length_may_be_omitted() {
    let broker = Broker::start();
    let (mut subscriber, publish) = holding(&broker, 2);
    let [high, low] = publish.id().to_be_bytes();
    for rest in [&[high, low][..], &[high, low, 0], &[high, low, 0, 0]] {
        subscriber.raw(&frame(0x50, rest));
        subscriber.expect(Ack::pubrel(publish.id()));
    }
    subscriber.raw(&frame(0x70, &[high, low]));
    subscriber.expect_message("next");
    let mut publisher = Client::connect(&broker, Connect::v5("p2"));
    for (id, rest) in [(7, &[0, 7][..]), (8, &[0, 8, 0]), (9, &[0, 9, 0, 0])] {
        publisher.send(Publish::new("nobody", "m").qos(2, id));
        publisher.expect_ack();
        publisher.raw(&frame(0x62, rest));
        publisher.expect(Ack::pubcomp(id));
    }
}

#[test]
fn acknowledgements_may_carry_a_reason_string_and_user_properties() {
    let broker = Broker::start();
    let explain = |ack: Ack| {
        ack.property(Property::ReasonString("why".into()))
            .property(Property::user("a", "1"))
            .property(Property::user("a", "1"))
    };
    let (mut subscriber, publish) = holding(&broker, 1);
    subscriber.send(explain(Ack::puback(publish.id())));
    subscriber.expect_message("next");
    let (mut subscriber, publish) = holding(&broker, 2);
    subscriber.send(explain(Ack::pubrec(publish.id())));
    subscriber.expect(Ack::pubrel(publish.id()));
    subscriber.send(explain(Ack::pubcomp(publish.id())));
    subscriber.expect_message("next");
    subscriber.send(Publish::new("nobody", "m").qos(2, 1));
    subscriber.expect_ack();
    subscriber.send(explain(Ack::pubrel(1)));
    subscriber.expect(Ack::pubcomp(1));
}

#[test]
fn a_duplicate_reason_string_in_an_acknowledgement_is_a_protocol_error() {
    let broker = Broker::start();
    for ack in [Ack::puback(1), Ack::pubrec(1), Ack::pubrel(1), Ack::pubcomp(1)] {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        let text = || Property::ReasonString("why".into());
        client.send(ack.property(text()).property(text()));
        client.expect_disconnect(reason::PROTOCOL_ERROR);
    }
}

#[test]
fn a_property_of_another_packet_in_an_acknowledgement_ends_the_connection() {
    let broker = Broker::start();
    for ack in [Ack::puback(1), Ack::pubrec(1), Ack::pubrel(1), Ack::pubcomp(1)] {
        for property in [Property::ServerReference("x".into()), Property::Raw(vec![0x7E, 0])] {
            let mut client = Client::connect(&broker, Connect::v5("c"));
            client.send(ack.clone().property(property));
            client.expect_disconnect(reason::MALFORMED_PACKET);
        }
    }
}

#[test]
fn unexpected_acknowledgements_are_ignored() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        for ack in [Ack::puback(77), Ack::pubcomp(77), Ack::pubrec(77).reason(0x80)] {
            if version == V5 || ack.reason == 0 {
                client.send(ack);
                client.expect_alive();
            }
        }
    });
}

#[test]
fn a_pubrel_for_an_unknown_packet_identifier_is_answered_with_0x92() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Ack::pubrel(77));
        let reason = if version == V5 { reason::PACKET_IDENTIFIER_NOT_FOUND } else { 0 };
        client.expect(Ack::pubcomp(77).reason(reason));
    });
}

#[test]
fn a_pubrec_for_an_unknown_packet_identifier_is_answered_with_0x92() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Ack::pubrec(77));
        let reason = if version == V5 { reason::PACKET_IDENTIFIER_NOT_FOUND } else { 0 };
        client.expect(Ack::pubrel(77).reason(reason));
    });
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_acknowledges_nothing() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = Client::connect(&broker, Connect::new(version, "s").durable());
        subscriber.subscribe("t", 2);
        let mut publisher = Client::connect(&broker, Connect::new(version, "p"));
        publisher.publish(Publish::new("t", "one").qos(1, 1));
        publisher.publish(Publish::new("t", "two").qos(2, 2));
        let (one, two) = (subscriber.expect_publish(), subscriber.expect_publish());
        subscriber.send(Ack::pubcomp(one.id()));
        subscriber.send(Ack::puback(two.id()));
        subscriber.send(Ack::pubcomp(two.id()));
        subscriber.expect_alive();
        subscriber.vanish();
        let mut subscriber = Client::connect(&broker, Connect::new(version, "s").durable());
        assert_eq!(subscriber.expect_message("one").packet_identifier, one.packet_identifier);
        assert_eq!(subscriber.expect_message("two").packet_identifier, two.packet_identifier);
    });
}

#[test]
fn a_fragmented_acknowledgement_is_reassembled() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Publish::new("t", "m").qos(2, 0x0102));
        client.expect_ack();
        for byte in [0x62, 0x02, 0x01, 0x02] {
            client.send(Bytes(vec![byte]));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        client.expect(Ack::pubcomp(0x0102));
    });
}
