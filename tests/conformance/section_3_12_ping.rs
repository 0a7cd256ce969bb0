//! 3.12 and 3.13: PINGREQ and PINGRESP.

use crate::support::{Broker, Client, Connect, Packet, for_all_versions, for_versions, reason};

#[test]
fn mqtt_3_12_4_1_pingreq_is_answered_with_pingresp() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0xC0, 0x00]);
        client.expect(Packet::Pingresp);
    });
}

#[test]
fn each_of_several_pingreqs_in_one_write_is_answered() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0xC0, 0x00].repeat(100));
        for _ in 0..100 {
            client.expect(Packet::Pingresp);
        }
        client.expect_alive();
    });
}

#[test]
fn a_pingreq_with_flags_or_a_payload_ends_the_connection() {
    // In 3.1 the flags of PINGREQ are unused and not checked.
    for_versions(|version| {
        let broker = Broker::start();
        for bytes in [&[0xC1, 0x00][..], &[0xC2, 0x00], &[0xC8, 0x00], &[0xC0, 0x01, 0x00]] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.raw(bytes);
            client.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn a_pingresp_from_a_client_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0xD0, 0x00]);
        client.expect_violation(reason::PROTOCOL_ERROR);
    });
}
