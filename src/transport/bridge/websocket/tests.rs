//! The client's end of WebSocket, against frames and answers as servers send them.

use std::sync::Arc;

use super::*;
use crate::config::listener::WebSocket as Rules;
use crate::transport::Received;
use crate::transport::request::accept_of;
use crate::transport::websocket::WebSocket;

/// A connection, and its key.
fn begun() -> (ClientWebSocket, String) {
    let mut of = ClientWebSocket::begin("h:81", "/mqtt?a=b").expect("random bytes");
    let request = String::from_utf8(sent(&mut of, b"")).expect("text");
    assert!(request.starts_with("GET /mqtt?a=b HTTP/1.1\r\nHost: h:81\r\n"), "{request}");
    assert!(request.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{request}");
    let (_, key) = request.split_once("Sec-WebSocket-Key: ").expect("a key");
    let (key, _) = key.split_once("\r\n").expect("a line");
    (of, key.to_owned())
}

fn answer(key: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
        accept_of(key)
    )
}

fn open() -> ClientWebSocket {
    let (mut of, key) = begun();
    assert_eq!(heard(&mut of, answer(&key).as_bytes()), (Vec::new(), Ok(None)));
    assert!(of.is_open());
    of
}

/// What is sent with these bytes of MQTT.
fn sent(of: &mut ClientWebSocket, mqtt: &[u8]) -> Vec<u8> {
    let (mut buffer, mut out) = (SendBuffer::default(), Vec::new());
    buffer.append(|out| out.extend_from_slice(mqtt));
    of.wrap(&mut buffer, &mut vec![1, 2, 3]);
    buffer.take(usize::MAX, &mut out);
    out
}

/// What these bytes carry, and how it goes on.
fn heard(of: &mut ClientWebSocket, bytes: &[u8]) -> (Vec<u8>, Result<Option<u16>, String>) {
    let mut mqtt = Vec::new();
    let outcome = of.receive(bytes, &mut 0, |part| {
        mqtt.extend_from_slice(part);
        Ok(())
    });
    (mqtt, outcome.map_err(|fault| fault.what))
}

/// A frame of a server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_head(first & 0x0F, payload.len(), &mut frame);
    frame[0] = first;
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn the_server_of_this_broker_understands_request_frames_and_close() {
    let mut of = ClientWebSocket::begin("h", "/mqtt").expect("random bytes");
    let mut server = WebSocket::begin(Arc::new(Rules::default()), false, false);
    let (mut plain, mut received) = (Vec::new(), Received::default());
    server.receive(&sent(&mut of, b""), &mut plain, &mut received).expect("it is accepted");
    let mut back = Vec::new();
    server.write_heads(3, &mut back);
    back.extend_from_slice(b"abc");
    assert_eq!(heard(&mut of, &back), (b"abc".to_vec(), Ok(None)));
    let long: Vec<u8> = (0..200_000).map(|at| at as u8).collect();
    for mqtt in [&b"x"[..], &long[..126], &long[..70_000], &long] {
        plain.clear();
        server.receive(&sent(&mut of, mqtt), &mut plain, &mut received).expect("frames");
        assert!(plain == mqtt, "{} bytes", mqtt.len());
    }
    let mut close = Vec::new();
    of.write_close(&mut close);
    server.receive(&close, &mut plain, &mut received).expect("a frame");
    assert!(received.is_ended);
}

#[test]
fn frames_are_understood_however_they_are_cut_and_packets_lie_in_them() {
    let bytes = [
        frame(0x02, b"first "),
        frame(0x89, b"are you there"),
        frame(0x00, b"message"),
        frame(0x80, b""),
        frame(0x82, &[b'x'; 300]),
        frame(0x8A, b"unasked"),
        frame(0x82, b"last"),
    ]
    .concat();
    let expected = format!("first message{}last", "x".repeat(300));
    for cut in [1, 2, 3, 7, 500] {
        let (mut of, key) = begun();
        let all = [answer(&key).into_bytes(), bytes.clone()].concat();
        let mut mqtt = Vec::new();
        for part in all.chunks(cut) {
            let (more, outcome) = heard(&mut of, part);
            assert_eq!(outcome, Ok(None), "{cut}");
            mqtt.extend(more);
        }
        assert_eq!(String::from_utf8_lossy(&mqtt), expected, "{cut}");
        assert!(of.has_something_to_say());
        let pong = sent(&mut of, b"");
        assert_eq!(pong[..2], [0x8A, 0x80 | 13]);
        let mut text = pong[6..].to_vec();
        apply_mask(&mut text, pong[2..6].try_into().expect("four bytes"));
        assert_eq!(text, b"are you there");
        assert!(!of.has_something_to_say());
    }
}

#[test]
fn each_frame_has_another_mask() {
    let mut of = open();
    let mut masks = std::collections::HashSet::new();
    for _ in 0..200 {
        let bytes = sent(&mut of, b"abcd");
        assert_eq!((bytes.len(), bytes[0], bytes[1]), (10, 0x82, 0x84));
        masks.insert(bytes[2..6].to_vec());
    }
    assert!(masks.len() > 190, "{} of 200", masks.len());
}

#[test]
fn frames_that_break_the_protocol_end_the_connection_with_its_code() {
    for (bytes, expected, says) in [
        (vec![0x82, 0x81, 1, 2, 3, 4, 5], 1_002, "a mask from a server"),
        (frame(0xC2, b""), 1_002, "reserved bits"),
        (frame(0x81, b"text"), 1_003, "MQTT is binary"),
        (frame(0x80, b""), 1_002, "continuation"),
        (frame(0x89, &[0; 126]), 1_002, "longer than 125 bytes"),
        (vec![0x82, 126, 0, 1, 0], 1_002, "shortest form"),
    ] {
        let mut of = open();
        let all = [frame(0x82, b"before"), bytes].concat();
        let (mqtt, outcome) = heard(&mut of, &all);
        assert_eq!(mqtt, b"before", "{says}");
        assert!(outcome.as_ref().is_err_and(|what| what.contains(says)), "{says}: {outcome:?}");
        assert_eq!(heard(&mut of, &frame(0x82, b"after")), (Vec::new(), Ok(None)));
        let mut close = Vec::new();
        of.write_close(&mut close);
        let mask = close[2..6].try_into().expect("four bytes");
        apply_mask(&mut close[6..], mask);
        assert_eq!((close[0], close[6..].to_vec()), (0x88, u16::to_be_bytes(expected).to_vec()));
    }
}

#[test]
fn a_close_frame_of_the_server_is_answered_with_its_code() {
    let mut of = open();
    let close = [frame(0x82, b"last"), frame(0x88, &[0x03, 0xE9]), frame(0x82, b"x")].concat();
    assert_eq!(heard(&mut of, &close), (b"last".to_vec(), Ok(Some(1_001))));
    let mut close = Vec::new();
    of.write_close(&mut close);
    assert_eq!(close.len(), 8);
    of.write_close(&mut close);
    assert_eq!(close.len(), 8, "once");
}

#[test]
fn an_answer_that_does_not_accept_says_why() {
    let wrong = |of: &str, other: &str| {
        let (mut websocket, key) = begun();
        let bytes = answer(&key).replace(of, other);
        let (_, outcome) = heard(&mut websocket, bytes.as_bytes());
        assert!(!websocket.is_open());
        outcome.expect_err("it is refused")
    };
    for (of, other, says) in [
        ("101 Switching Protocols", "404 Not Found", "404 Not Found; check the path of the server"),
        ("101 Switching Protocols", "401 Un\u{1b}authorized", "is not HTTP"),
        ("101 Switching Protocols", "503 Busy", "with 503 Busy"),
        (
            "101 Switching Protocols\r\n",
            "301 Moved\r\nLocation: wss://b/\r\n",
            "301 Moved; it names wss://b/",
        ),
        ("Accept: ", "Accept: x", "does not belong to the request"),
        ("Sec-WebSocket-Accept", "X", "does not belong to the request"),
        ("Sec-WebSocket-Protocol: mqtt\r\n", "", "has not chosen the subprotocol mqtt"),
        ("Protocol: mqtt", "Protocol: amqp", "the subprotocol amqp, not mqtt"),
        ("Upgrade: WebSocket\r\n", "", "does not change to WebSocket"),
        ("Upgrade: WebSocket", "Upgrade: WebSocket\r\nSec-WebSocket-Extensions: x", "extension"),
        ("HTTP/1.1 101", "HTTP/1.1 1x1", "is not HTTP"),
    ] {
        let what = wrong(of, other);
        assert!(what.contains(says), "{says}: {what}");
    }
    let what = wrong("Upgrade: WebSocket", &format!("X: {}", "x".repeat(20_000)));
    assert!(what.contains("longer than 16384 bytes"), "{what}");
    // CONNACK of a listener without WebSocket.
    let (mut websocket, _) = begun();
    let (_, outcome) = heard(&mut websocket, &[0x20, 2, 0, 1]);
    assert!(outcome.expect_err("no HTTP").contains("check scheme and port"));
}

#[test]
fn without_an_answer_no_mqtt_and_no_close_frame_is_sent() {
    let (mut of, _) = begun();
    assert!(!of.is_open() && !of.has_something_to_say());
    let mut close = Vec::new();
    of.write_close(&mut close);
    assert_eq!((close.len(), sent(&mut of, b"").len()), (0, 0));
}
