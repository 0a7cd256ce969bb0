//! The codec compared with bytes written by hand from the specification.

use super::*;
use crate::stamp::Stamp;

fn whole(bytes: &[u8], version: Version) -> Inbound<'_> {
    let (header, total) = frame(bytes).expect("well formed").expect("complete");
    assert_eq!(total, bytes.len());
    decode(version, bytes[0], &bytes[header..]).expect("well formed")
}

#[test]
fn connect_is_encoded_as_specified() {
    let mut out = Vec::new();
    encode_connect(Version::V311, Session::Clean, KEEP_ALIVE_S, "ab", &mut out);
    assert_eq!(out, b"\x10\x0E\x00\x04MQTT\x04\x02\xFF\xFF\x00\x02ab");
    out.clear();
    encode_connect(Version::V5, Session::Clean, KEEP_ALIVE_S, "ab", &mut out);
    assert_eq!(out, b"\x10\x0F\x00\x04MQTT\x05\x02\xFF\xFF\x00\x00\x02ab");
    out.clear();
    encode_connect(Version::V311, Session::Kept, KEEP_ALIVE_S, "ab", &mut out);
    assert_eq!(out, b"\x10\x0E\x00\x04MQTT\x04\x00\xFF\xFF\x00\x02ab");
    out.clear();
    encode_connect(Version::V5, Session::Kept, KEEP_ALIVE_S, "ab", &mut out);
    assert_eq!(out, b"\x10\x14\x00\x04MQTT\x05\x00\xFF\xFF\x05\x11\x00\x00\x0E\x10\x00\x02ab");
}

#[test]
fn subscribe_is_encoded_as_specified() {
    let mut out = Vec::new();
    encode_subscribe(Version::V311, 1, &["a/+".into()], Qos::AtLeastOnce, &mut out);
    assert_eq!(out, b"\x82\x08\x00\x01\x00\x03a/+\x01");
    out.clear();
    encode_subscribe(Version::V5, 0x0102, &["a/+".into(), "b".into()], Qos::ExactlyOnce, &mut out);
    assert_eq!(out, b"\x82\x0D\x01\x02\x00\x00\x03a/+\x02\x00\x01b\x02");
    out.clear();
    encode_unsubscribe(Version::V5, 3, "a/+", &mut out);
    encode_unsubscribe(Version::V311, 4, "b", &mut out);
    assert_eq!(out, b"\xA2\x08\x00\x03\x00\x00\x03a/+\xA2\x05\x00\x04\x00\x01b");
}

#[test]
fn acknowledgements_have_their_flags() {
    let mut out = Vec::new();
    encode_puback(0x0102, &mut out);
    encode_pubrec(3, &mut out);
    encode_pubrel(4, &mut out);
    encode_pubcomp(5, &mut out);
    encode_disconnect(&mut out);
    assert_eq!(out, b"\x40\x02\x01\x02\x50\x02\x00\x03\x62\x02\x00\x04\x70\x02\x00\x05\xE0\x00");
}

#[test]
fn a_publish_survives_encoding_at_every_qos_version_and_length() {
    for version in [Version::V311, Version::V5] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for payload_bytes in [Stamp::BYTES, 64, 127, 128, 20_000] {
                let template = PublishTemplate::new(version, "a/b", qos, payload_bytes);
                let stamp = Stamp { run: 1, publisher: 2, sequence: 3, sent_ns: 4 };
                let mut out = vec![0xFF];
                template.encode(77, &stamp, &mut out);
                let Inbound::Publish { qos: seen, packet_identifier, payload, retain } =
                    whole(&out[1..], version)
                else {
                    panic!("not a PUBLISH")
                };
                assert_eq!((seen, retain), (qos, false));
                assert_eq!(packet_identifier, if qos == Qos::AtMostOnce { 0 } else { 77 });
                assert_eq!(payload.len(), payload_bytes);
                assert_eq!(Stamp::decode(payload), Some(stamp));
            }
        }
    }
}

#[test]
fn the_receive_maximum_is_found_at_any_position_in_connack() {
    let session_present = false;
    let connack =
        |receive_maximum| Inbound::Connack { reason: 0, session_present, receive_maximum };
    assert_eq!(whole(b"\x20\x02\x00\x00", Version::V311), connack(65_535));
    assert_eq!(whole(b"\x20\x03\x00\x00\x00", Version::V5), connack(65_535));
    let bytes = b"\x20\x12\x00\x00\x0F\x22\x00\x0A\x12\x00\x01x\x26\x00\x00\x00\x00\x21\x00\x14";
    assert_eq!(whole(bytes, Version::V5), connack(20));
}

#[test]
fn the_other_packets_are_decoded() {
    let suback = |packet_identifier, reasons| Inbound::Suback { packet_identifier, reasons };
    assert_eq!(whole(b"\x90\x03\x00\x01\x80", Version::V311), suback(1, &[0x80]));
    assert_eq!(whole(b"\x90\x05\x00\x09\x00\x02\x01", Version::V5), suback(9, &[2, 1]));
    assert_eq!(whole(b"\xB0\x02\x00\x07", Version::V311), Inbound::Unsuback(7));
    assert_eq!(whole(b"\xB0\x04\x00\x07\x00\x00", Version::V5), Inbound::Unsuback(7));
    assert_eq!(
        whole(b"\x20\x02\x01\x00", Version::V311),
        Inbound::Connack { reason: 0, session_present: true, receive_maximum: 65_535 }
    );
    assert_eq!(whole(b"\x40\x02\x00\x07", Version::V5), Inbound::Puback(7, 0));
    assert_eq!(whole(b"\x50\x03\x00\x07\x10", Version::V5), Inbound::Pubrec(7, 0x10));
    assert_eq!(whole(b"\x62\x02\x00\x07", Version::V311), Inbound::Pubrel(7, 0));
    assert_eq!(whole(b"\x70\x02\x00\x07", Version::V311), Inbound::Pubcomp(7, 0));
    assert_eq!(whole(b"\xD0\x00", Version::V311), Inbound::Pingresp);
    assert_eq!(whole(b"\xE0\x02\x8B\x00", Version::V5), Inbound::Disconnect(0x8B));
}

#[test]
fn a_packet_truncated_at_any_byte_is_incomplete_without_a_panic() {
    let mut out = Vec::new();
    PublishTemplate::new(Version::V5, "a", Qos::AtLeastOnce, 200).encode(
        9,
        &Stamp::default(),
        &mut out,
    );
    for cut in 0..out.len() {
        assert_eq!(frame(&out[..cut]), Ok(None), "{cut}");
        let _ = decode(Version::V5, 0x32, &out[3..cut.max(3)]);
    }
}

#[test]
fn malformed_bytes_are_refused() {
    assert!(frame(b"\x30\xFF\xFF\xFF\xFF\x01").is_err());
    assert!(frame(b"\x30\xFF\xFF\xFF\x7F").is_err());
    assert!(decode(Version::V311, 0x36, b"\x00\x01a").is_err());
    assert!(decode(Version::V311, 0x32, b"\x00\x01a\x00\x00").is_err());
    assert!(decode(Version::V311, 0x30, b"\x00\x00").is_err());
    assert!(decode(Version::V311, 0x60, b"\x00\x01").is_err());
    assert!(decode(Version::V311, 0x10, b"").is_err());
    assert!(decode(Version::V5, 0x20, b"\x00\x00\x02\x77\x00").is_err());
}
