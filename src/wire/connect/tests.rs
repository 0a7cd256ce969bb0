//! CONNECT packets, read and written.

use super::super::{Packet, decode};
use super::*;

fn encode(connect: &Connect<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Packet::Connect(connect.clone()).encode(connect.version, &mut out);
    out
}

/// Decodes a CONNECT packet in its own version, whatever version the caller passes.
fn read(bytes: &[u8]) -> Result<Packet<'_>, Violation> {
    decode(bytes, Version::V311)
}

fn minimal(version: Version) -> Connect<'static> {
    Connect {
        version,
        is_bridge: false,
        clean_start: true,
        keep_alive_s: 60,
        client_identifier: "c",
        username: None,
        password: None,
        will: None,
        properties: ConnectProperties::default(),
    }
}

#[test]
fn another_client_identifier_takes_the_place_of_the_one_in_the_frame() {
    let long = "n".repeat(300);
    for version in [Version::V31, Version::V311, Version::V5] {
        for (identifier, name) in [("c", "alice"), ("", "bob"), (&long, "carol"), ("c", &long)] {
            let mut connect = minimal(version);
            (connect.client_identifier, connect.username) = (identifier, Some(name));
            let frame = encode(&connect);
            let Ok(Packet::Connect(decoded)) = read(&frame) else { panic!("{frame:?}") };
            let renamed = connect_renamed(&frame, &decoded, name);
            connect.client_identifier = name;
            assert_eq!(renamed, encode(&connect), "{identifier} {name}");
        }
    }
}

#[test]
fn the_smallest_is_read_and_written_in_each_version() {
    let cases: &[(Version, &[u8])] = &[
        (Version::V31, b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01c"),
        (Version::V311, b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c"),
        (Version::V5, b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01c"),
    ];
    for &(version, bytes) in cases {
        assert_eq!(encode(&minimal(version)), bytes);
        assert_eq!(read(bytes), Ok(Packet::Connect(minimal(version))));
    }
}

#[test]
fn bit_7_of_the_protocol_version_says_that_a_client_before_5_is_a_bridge() {
    for (version, bytes) in [
        (Version::V31, &b"\x10\x0F\0\x06MQIsdp\x83\x02\0\x3C\0\x01c"[..]),
        (Version::V311, b"\x10\x0D\0\x04MQTT\x84\x02\0\x3C\0\x01c"),
    ] {
        let bridge = Connect { is_bridge: true, ..minimal(version) };
        assert_eq!(encode(&bridge), bytes);
        assert_eq!(read(bytes), Ok(Packet::Connect(bridge)));
    }
    for other in [&b"\0\x04MQTT\x83"[..], b"\0\x06MQIsdp\x84", b"\0\x04MQTT\x85", b"\0\x04MQTT\x80"]
    {
        let bytes = packet(&[other, &b"\x02\0\0\0\x01c"[..]].concat());
        assert_eq!(read(&bytes), Err(Violation::UnsupportedProtocolVersion), "{other:?}");
    }
}

#[test]
fn a_3_1_1_will_and_credentials_are_read_and_written() {
    let connect = Connect {
        clean_start: false,
        username: Some("u"),
        password: Some(&[0xFF]),
        will: Some(Will {
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "w",
            payload: b"gone",
            ..Will::default()
        }),
        ..minimal(Version::V311)
    };
    let bytes = b"\x10\x1C\0\x04MQTT\x04\xEC\0\x3C\0\x01c\0\x01w\0\x04gone\0\x01u\0\x01\xFF";
    assert_eq!(encode(&connect), bytes);
    assert_eq!(read(bytes), Ok(Packet::Connect(connect)));
}

#[test]
fn every_property_is_read_and_written() {
    let mut user_properties = Vec::new();
    UserProperties::push(&mut user_properties, "k", "v");
    let user_properties = UserProperties::encoded(&user_properties);
    let connect = Connect {
        // A Password without a User Name is allowed only in 5.0.
        password: Some(b"p"),
        will: Some(Will {
            qos: Qos::ExactlyOnce,
            retain: false,
            topic: "w",
            payload: b"",
            delay_interval_s: 1,
            message_expiry_interval: Some(2),
            payload_format_indicator: Some(1),
            response_topic: Some("r"),
            correlation_data: Some(b"d"),
            content_type: Some("t"),
            user_properties,
            passed_on: PassedOn::default(),
        }),
        properties: ConnectProperties {
            session_expiry_interval: Some(3),
            receive_maximum: Some(4),
            maximum_packet_size: Some(5),
            topic_alias_maximum: 6,
            request_response_information: true,
            request_problem_information: false,
            user_properties,
            authentication_method: Some("m"),
            authentication_data: Some(b"a"),
        },
        ..minimal(Version::V5)
    };
    let bytes = [
        &b"\x10\x59\0\x04MQTT\x05\x56\0\x3C"[..],
        b"\x23\x11\0\0\0\x03\x21\0\x04\x27\0\0\0\x05\x22\0\x06\x19\x01\x17\x00",
        b"\x15\0\x01m\x16\0\x01a\x26\0\x01k\0\x01v\0\x01c",
        b"\x1F\x18\0\0\0\x01\x01\x01\x02\0\0\0\x02\x03\0\x01t\x08\0\x01r\x09\0\x01d",
        b"\x26\0\x01k\0\x01v\0\x01w\0\0\0\x01p",
    ]
    .concat();
    assert_eq!(encode(&connect), bytes);
    let Ok(Packet::Connect(mut decoded)) = read(&bytes) else { panic!("{:?}", read(&bytes)) };
    let will = decoded.will.as_mut().unwrap();
    let mut passed_on = Vec::new();
    will.passed_on.write(&mut passed_on);
    let expected = b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x01d\x26\0\x01k\0\x01v";
    assert_eq!(passed_on, expected);
    will.passed_on = PassedOn::default();
    assert_eq!(decoded, connect);
}

#[test]
fn in_3_1_unused_flags_and_missing_strings_are_accepted() {
    let expected = Ok(Packet::Connect(minimal(Version::V31)));
    // Reserved bit, Will QoS 3 and Will Retain without a Will.
    let bytes = b"\x10\x0F\0\x06MQIsdp\x03\x3B\0\x3C\0\x01c";
    assert_eq!(read(bytes), expected);
    // User Name and Password flags, but neither string.
    let bytes = b"\x1F\x0F\0\x06MQIsdp\x03\xC2\0\x3C\0\x01c";
    assert_eq!(read(bytes), expected);
    // The Password is missing.
    let bytes = b"\x10\x12\0\x06MQIsdp\x03\xC2\0\x3C\0\x01c\0\x01u";
    let with_username = Connect { username: Some("u"), ..minimal(Version::V31) };
    assert_eq!(read(bytes), Ok(Packet::Connect(with_username)));
}

/// A CONNECT packet of 3.1.1 with these flags and payload.
fn v311(flags: u8, payload: &[u8]) -> Vec<u8> {
    packet(&[&b"\0\x04MQTT\x04"[..], &[flags], b"\0\0", payload].concat())
}

/// A CONNECT packet of 5.0 with these flags, properties and payload.
fn v5(flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = [properties.len() as u8];
    packet(&[&b"\0\x04MQTT\x05"[..], &[flags], b"\0\0", &length, properties, payload].concat())
}

fn packet(body: &[u8]) -> Vec<u8> {
    [&[0x10, body.len() as u8], body].concat()
}

#[test]
fn invalid_packets_are_rejected() {
    use Violation::*;
    let cases: &[(Vec<u8>, Violation)] = &[
        (packet(b""), ConnectBeforeVersionTooShort),
        (packet(b"\0\x04MQT"), ConnectBeforeVersionTooShort),
        (packet(b"\0\x04MQTT"), ConnectBeforeVersionTooShort),
        (packet(b"\0\x04MQTt\x04\x02\0\0\0\0"), UnsupportedProtocolName),
        (packet(b"\0\0\x04\x02\0\0\0\0"), UnsupportedProtocolName),
        (packet(b"\0\x04\xFFQTT\x04\x02\0\0\0\0"), UnsupportedProtocolName),
        (packet(b"\0\x04MQTT\x03\x02\0\0\0\0"), UnsupportedProtocolVersion),
        (packet(b"\0\x04MQTT\x06\x02\0\0\0\0\0"), UnsupportedProtocolVersion),
        (packet(b"\0\x04MQTT\x86\x02\0\0\0\0"), UnsupportedProtocolVersion),
        (packet(b"\0\x06MQIsdp\x04\x02\0\0\0\0"), UnsupportedProtocolVersion),
        (packet(b"\0\x04MQTT\x04"), PacketTooShort),
        (packet(b"\0\x04MQTT\x04\x02\0"), PacketTooShort),
        (packet(b"\0\x04MQTT\x05\x02\0\0"), PacketTooShort),
        (v311(0x02, b""), PacketTooShort),
        (v311(0x02, b"\0\0\0"), TrailingBytes),
        (v311(0x03, b"\0\0"), ConnectFlagReserved),
        (v311(0x0A, b"\0\0"), WillQosWithoutWill),
        (v311(0x1A, b"\0\0"), WillQosWithoutWill),
        (v311(0x22, b"\0\0"), WillRetainWithoutWill),
        (v311(0x1E, b"\0\0\0\x01w\0\0"), WillQosInvalid),
        (v311(0x42, b"\0\0\0\x01p"), PasswordWithoutUserName),
        (v311(0x82, b"\0\0"), PacketTooShort),
        (v311(0xC2, b"\0\0\0\x01u"), PacketTooShort),
        (v311(0x06, b"\0\0\0\0\0\0"), WillTopicEmpty),
        (v311(0x06, b"\0\0\0\x01#\0\0"), WillTopicHasWildcard),
        (v311(0x06, b"\0\0\0\x01w"), PacketTooShort),
        (v311(0x02, b"\0\x01\0"), StringHasNull),
        (v311(0x02, b"\0\x02\xC3\x28"), StringNotUtf8),
        (v311(0x82, b"\0\0\0\x01\xFF"), StringNotUtf8),
        (v5(0x03, b"", b"\0\0"), ConnectFlagReserved),
        (v5(0x02, b"\x21\0\0", b"\0\0"), ReceiveMaximumZero),
        (v5(0x02, b"\x27\0\0\0\0", b"\0\0"), MaximumPacketSizeZero),
        (v5(0x02, b"\x17\x02", b"\0\0"), PropertyNotBoolean),
        (v5(0x02, b"\x19\xFF", b"\0\0"), PropertyNotBoolean),
        (v5(0x02, b"\x17\x01\x17\x01", b"\0\0"), PropertyRepeated),
        (v5(0x02, b"\x16\0\0", b"\0\0"), AuthenticationDataWithoutMethod),
        (v5(0x02, b"\x18\0\0\0\0", b"\0\0"), PropertyNotAllowed),
        (v5(0x02, b"\x21\0", b"\0\0"), PacketTooShort),
        (v5(0x06, b"", b"\0\0\x05\x11\0\0\0\0\0\x01w\0\0"), PropertyNotAllowed),
        (v5(0x06, b"", b"\0\0\x0A\x18\0\0\0\0\x18\0\0\0\0"), PropertyRepeated),
        (v5(0x06, b"", b"\0\0\x04\x08\0\x01+\0\x01w\0\0"), ResponseTopicHasWildcard),
        ([&[0x11], &v311(0x02, b"\0\0")[1..]].concat(), FixedHeaderFlagsInvalid),
    ];
    for (bytes, violation) in cases {
        assert_eq!(read(bytes), Err(*violation), "{bytes:02X?}");
        let has_level = matches!(connect_level(bytes), Some(4 | 5));
        assert!(has_level || violation.is_before_version(), "{bytes:02X?}");
    }
}

#[test]
fn only_5_asks_for_a_minimal_remaining_length() {
    let padded = |bytes: &[u8]| [&[0x10, bytes[1] | 0x80, 0], &bytes[2..]].concat();
    assert!(read(&padded(&v311(0x02, b"\0\0"))).is_ok());
    let refused = Err(Violation::VariableByteIntegerNotMinimal);
    assert_eq!(read(&padded(&v5(0x02, b"", b"\0\0"))), refused);
}

#[test]
fn the_level_of_a_rejected_packet_is_found() {
    assert_eq!(connect_level(&packet(b"\0\x04MQTT\x07")), Some(7));
    assert_eq!(connect_level(&packet(b"\0\x06MQIsdp\x03")), Some(3));
    assert_eq!(connect_level(&packet(b"\0\x04MQTT\x83")), Some(3), "a bridge");
    assert_eq!(connect_level(&packet(b"\0\x01?\x02")), None, "another protocol");
    assert_eq!(connect_level(b"\x10\x87\0\0\x04MQTT\x05"), Some(5));
    for bytes in [&b""[..], b"\x10", b"\x10\x80", b"\x10\x06\0\x04MQTT", b"\xC0\0"] {
        assert_eq!(connect_level(bytes), None, "{bytes:02X?}");
    }
}
