//! Chapter 1: strings and variable byte integers.

use crate::support::reason::MALFORMED_PACKET;
use crate::support::{
    Broker, Client, Connect, Packet, Property, Publish, Subscribe, V5, V311, Version, for_versions,
    frame, string,
};

/// Ill-formed UTF-8: a stray byte, a surrogate, an overlong form, a code point above U+10FFFF, a
/// truncated character.
const ILL_FORMED: [&[u8]; 5] =
    [b"a\xFF", b"\xED\xA0\x80", b"\xC0\xAF", b"\xF4\x90\x80\x80", b"a\xE2\x82"];

/// A PUBLISH at QoS 0 with these bytes as its Topic Name.
fn publish_to(topic: &[u8], version: Version) -> Vec<u8> {
    let properties: &[u8] = if version == V5 { &[0] } else { &[] };
    frame(0x30, &[&string(topic)[..], properties, b"payload"].concat())
}

#[test]
fn mqtt_1_5_4_1_ill_formed_utf_8_is_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        for bytes in ILL_FORMED {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.raw(&publish_to(bytes, version));
            client.expect_violation(MALFORMED_PACKET);
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.send(Subscribe::new(1, bytes, 0));
            client.expect_violation(MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_1_5_4_2_a_null_character_is_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&publish_to(b"a\0b", version));
        client.expect_violation(MALFORMED_PACKET);
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Subscribe::new(1, b"a\0b", 0));
        client.expect_violation(MALFORMED_PACKET);
    });
}

#[test]
fn mqtt_1_5_4_3_a_byte_order_mark_is_an_ordinary_character() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        let (marked, plain) = ("\u{FEFF}a/\u{FEFF}b", "a/b");
        client.subscribe(plain, 0);
        client.subscribe("\u{FEFF}a/+", 0);
        client.send(Publish::new(marked, "marked"));
        client.send(Publish::new(plain, "plain"));
        client.expect(Publish::new(marked, "marked"));
        client.expect(Publish::new(plain, "plain"));
        client.expect_alive();
    });
}

#[test]
fn mqtt_1_5_5_1_a_variable_byte_integer_of_non_minimal_length_is_malformed() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    // A Remaining Length of 0 in two bytes.
    client.raw(&[0xC0, 0x80, 0x00]);
    client.expect_disconnect(MALFORMED_PACKET);
    let mut client = Client::connect(&broker, Connect::v5("c"));
    // A Property Length of 0 in two bytes.
    client.raw(&frame(0x30, &[&string("a")[..], &[0x80, 0x00], b"payload"].concat()));
    client.expect_disconnect(MALFORMED_PACKET);
}

#[test]
fn a_variable_byte_integer_of_more_than_four_bytes_is_malformed() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
        client.expect_violation(MALFORMED_PACKET);
    });
}

#[test]
fn mqtt_1_5_7_1_both_strings_of_a_pair_are_checked() {
    let broker = Broker::start();
    let pairs: [(&[u8], &[u8]); 4] =
        [(b"\xFF", b"value"), (b"name", b"\xFF"), (b"na\0me", b"value"), (b"name", b"val\0ue")];
    for (name, value) in pairs {
        let pair = [vec![0x26], string(name), string(value)].concat();
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.send(Publish::new("a", "payload").property(Property::Raw(pair)));
        client.expect_disconnect(MALFORMED_PACKET);
    }
}

#[test]
fn mqtt_311_1_5_3_1_ill_formed_utf_8_ends_the_connection() {
    let broker = Broker::start();
    for bytes in ILL_FORMED {
        let mut client = Client::open(&broker, V311);
        let connect = Connect { client_identifier: bytes.to_vec(), ..Connect::v311("") };
        client.send(connect);
        client.expect_closed();
        let mut client = Client::connect(&broker, Connect::v311("c"));
        client.raw(&publish_to(bytes, V311));
        client.expect_closed();
    }
}

#[test]
fn mqtt_311_1_5_3_2_a_null_character_ends_the_connection() {
    let broker = Broker::start();
    let mut client = Client::open(&broker, V311);
    client.send(Connect::v311("a\0b"));
    client.expect_closed();
    let mut client = Client::connect(&broker, Connect::v311("c"));
    client.raw(&publish_to(b"a\0b", V311));
    client.expect_closed();
}

#[test]
fn discouraged_characters_are_forwarded() {
    // Section 1.5.4 advises against control characters and non-characters; a server may close the
    // connection, and this one does not.
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    let topic = "\u{1}/\u{7F}/\u{FFFF}/\u{1F600}";
    client.subscribe(topic, 0);
    client.send(Publish::new(topic, "payload"));
    client.expect(Packet::Publish(Publish::new(topic, "payload")));
}
