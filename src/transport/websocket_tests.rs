//! Frames and requests, whole, cut, and wrong.

use proptest::prelude::*;

use super::*;

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
     Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, mqtt\r\n\r\n";

fn rules() -> Arc<Rules> {
    Arc::new(Rules::default())
}

fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_head(first & 0x0F, payload.len(), &mut frame);
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend_from_slice(&mask);
    let begin = frame.len();
    frame.extend_from_slice(payload);
    unmask(&mut frame[begin..], mask);
    frame
}

/// One that has had its request granted.
fn open() -> WebSocket {
    let mut websocket = WebSocket::begin(rules());
    let (mut plain, mut received) = (Vec::new(), Received::default());
    websocket.receive(REQUEST.as_bytes(), &mut plain, &mut received).expect("it is granted");
    websocket.write_heads(0, &mut Vec::new());
    websocket
}

fn take(websocket: &mut WebSocket, bytes: &[u8]) -> (Vec<u8>, Result<bool, String>) {
    let (mut plain, mut received) = (Vec::new(), Received::default());
    let outcome = websocket.receive(bytes, &mut plain, &mut received);
    (plain, outcome.map(|()| received.is_ended).map_err(|fault| fault.what))
}

#[test]
fn a_request_is_answered_as_in_the_rfc() {
    // RFC 6455, 1.3: this key has this answer.
    let mut websocket = WebSocket::begin(rules());
    let (plain, outcome) = take(&mut websocket, REQUEST.as_bytes());
    assert_eq!((plain.len(), outcome), (0, Ok(false)));
    let mut out = Vec::new();
    websocket.write_heads(0, &mut out);
    let answer = String::from_utf8(out).expect("text");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
}

#[test]
fn a_request_that_comes_byte_by_byte_is_granted_with_the_frame_behind_it() {
    let mut websocket = WebSocket::begin(rules());
    let all = [REQUEST.as_bytes(), &frame(0x82, b"mqtt", [1, 2, 3, 4])].concat();
    let mut plain = Vec::new();
    for byte in &all {
        plain.extend(take(&mut websocket, std::slice::from_ref(byte)).0);
    }
    assert_eq!(plain, b"mqtt");
}

#[test]
fn a_request_that_is_not_granted_is_told_why() {
    let without = |line: &str| REQUEST.replacen(line, "", 1);
    let cases = [
        (REQUEST.replace("GET", "POST"), "400"),
        (REQUEST.replace("HTTP/1.1", "HTTP/1.0"), "400"),
        (REQUEST.replace("/mqtt ", "/other "), "404"),
        (without("Upgrade: websocket\r\n"), "426"),
        (REQUEST.replace(": 13", ": 8"), "426"),
        (REQUEST.replace("mqtt\r\n\r\n", "amqp\r\n\r\n"), "400"),
        (REQUEST.replace("dGhl", "dGh"), "400"),
        (without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "400"),
        ("\x10\x0c\0\x04MQTT".to_owned(), "400"),
        (REQUEST.replace("Host: x", &format!("Host: {}", "x".repeat(9_000))), "431"),
    ];
    for (request, status) in cases {
        let mut websocket = WebSocket::begin(rules());
        let (_, outcome) = take(&mut websocket, request.as_bytes());
        outcome.expect_err(&request);
        let mut out = Vec::new();
        websocket.write_heads(0, &mut out);
        websocket.write_close(&mut out);
        let answer = String::from_utf8(out).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
}

#[test]
fn pages_connect_from_the_origins_that_are_configured_alone() {
    let origins = vec!["https://example.org".to_owned()];
    let rules = Arc::new(Rules { origins, ..Rules::default() });
    let from = |origin: &str| {
        let request = REQUEST.replace("Host: x\r\n", &format!("Host: x\r\n{origin}"));
        take(&mut WebSocket::begin(Arc::clone(&rules)), request.as_bytes()).1.is_ok()
    };
    assert!(from("Origin: https://example.org\r\n") && from(""));
    assert!(!from("Origin: https://example.org.evil\r\n") && !from("Origin: null\r\n"));
}

#[test]
fn frames_that_break_the_rules_close_the_connection_with_the_code_for_it() {
    let masked = |first, payload: &[u8]| frame(first, payload, [9, 8, 7, 6]);
    let cases = [
        (vec![0x82, 0x00, 0, 0, 0, 0], 1_002), // no mask
        (masked(0xC2, b""), 1_002),            // a reserved bit
        (masked(0x81, b"text"), 1_003),        // [MQTT-6.0.0-1]
        (masked(0x83, b""), 1_002),            // no such kind
        (masked(0x80, b""), 1_002),            // goes on with nothing
        ([masked(0x02, b"a"), masked(0x82, b"b")].concat(), 1_002), // begins within another
        (masked(0x09, b""), 1_002),            // a ping in parts
        (masked(0x89, &[0; 126]), 1_002),      // a long ping
        (vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0], 1_002), // length too long
        (vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], 1_002), // the same
        (vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1_002), // negative
        (masked(0x88, b"\x03"), 1_002),        // half a code
        (masked(0x88, b"\x03\xed"), 1_002),    // 1005 is not sent
        (masked(0x88, b"\x03\xe8\xff"), 1_002), // no text
    ];
    for (bytes, code) in cases {
        let mut websocket = open();
        take(&mut websocket, &bytes).1.expect_err("it is wrong");
        let mut out = Vec::new();
        websocket.write_close(&mut out);
        assert_eq!(out, [&[0x88, 2][..], &u16::to_be_bytes(code)].concat(), "{bytes:?}");
        // What follows means nothing.
        assert_eq!(take(&mut websocket, &masked(0x82, b"x")).0, b"");
    }
}

#[test]
fn the_last_ping_is_answered_though_it_comes_within_a_message() {
    let mut websocket = open();
    let mask = [5, 6, 7, 8];
    let bytes = [
        frame(0x02, b"ab", mask),
        frame(0x89, b"one", mask),
        frame(0x89, b"two", mask),
        frame(0x8A, b"a pong nobody asked for", mask),
        frame(0x80, b"cd", mask),
    ];
    let (plain, outcome) = take(&mut websocket, &bytes.concat());
    assert_eq!((&plain[..], outcome), (&b"abcd"[..], Ok(false)));
    let mut out = Vec::new();
    websocket.write_heads(3, &mut out);
    assert_eq!(out, b"\x8a\x03two\x82\x03");
    assert!(!websocket.has_something_to_say());
}

#[test]
fn a_close_is_answered_with_its_own_code() {
    for (payload, code) in [(&b""[..], 1_000u16), (b"\x03\xe9bye", 1_001), (b"\x10\x00", 4_096)] {
        let mut websocket = open();
        let (_, outcome) = take(&mut websocket, &frame(0x88, payload, [1, 1, 1, 1]));
        assert_eq!(outcome, Ok(true));
        let mut out = Vec::new();
        websocket.write_close(&mut out);
        assert_eq!(out, [&[0x88, 2][..], &code.to_be_bytes()].concat());
    }
}

#[test]
fn heads_have_the_shortest_length_that_fits() {
    for (bytes, head) in [
        (125, &b"\x82\x7d"[..]),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
    ] {
        let mut out = Vec::new();
        open().write_heads(bytes, &mut out);
        assert_eq!(out, head);
    }
}

proptest! {
    #[test]
    fn mqtt_6_0_0_2_packets_cut_into_frames_and_frames_into_pieces_are_the_same_bytes(
        payloads in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 1..8),
        cuts in proptest::collection::vec(1usize..64, 1..40),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (payload, mask) in &payloads {
            bytes.extend(frame(0x82, payload, *mask));
            expected.extend_from_slice(payload);
        }
        let mut websocket = open();
        let (mut plain, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            rest = later;
            let (got, outcome) = take(&mut websocket, piece);
            prop_assert_eq!(outcome, Ok(false));
            plain.extend(got);
        }
        prop_assert_eq!(plain, expected);
    }
}
