//! Frames and requests, whole, cut, and wrong.

use proptest::prelude::*;

use super::*;

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
     Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, mqtt\r\n\r\n";

fn rules() -> Arc<Rules> {
    Arc::new(Rules::default())
}

/// Of a client that comes by itself, without TLS.
fn begin(rules: Arc<Rules>) -> WebSocket {
    WebSocket::begin(rules, false, false)
}

fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_head(first & 0x0F, payload.len(), &mut frame);
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend_from_slice(&mask);
    let begin = frame.len();
    frame.extend_from_slice(payload);
    apply_mask(&mut frame[begin..], mask);
    frame
}

/// One that has had its request granted.
fn open() -> WebSocket {
    let mut websocket = begin(rules());
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
    let mut websocket = begin(rules());
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
    let mut websocket = begin(rules());
    let all = [REQUEST.as_bytes(), &frame(0x82, b"mqtt", [1, 2, 3, 4])].concat();
    let mut plain = Vec::new();
    for byte in &all {
        plain.extend(take(&mut websocket, std::slice::from_ref(byte)).0);
    }
    assert_eq!(plain, b"mqtt");
}

#[test]
fn a_request_that_is_wrong_is_refused_alike_in_whatever_pieces_it_comes() {
    let with_a_wrong_byte =
        (0..REQUEST.len()).map(|length| [&REQUEST.as_bytes()[..length], b"\x0B"].concat());
    let after_empty_lines =
        ["\n", "\r\n", "\n\n", "\r\n\r\n"].map(|lines| [lines, "a\n\n", REQUEST].concat().into());
    let mut refused = 0;
    for request in with_a_wrong_byte.chain(after_empty_lines) {
        let (_, at_once) = take(&mut begin(rules()), &request);
        refused += usize::from(at_once.is_err());
        for step in [1, 2, 7, 31, 64, 100] {
            let mut websocket = begin(rules());
            let in_pieces = request.chunks(step).map(|piece| take(&mut websocket, piece).1);
            let in_pieces = in_pieces.reduce(|before, now| before.and(now));
            let text = request.escape_ascii();
            assert_eq!(in_pieces.as_ref(), Some(&at_once), "{text} in pieces of {step}");
        }
    }
    assert!(refused > 0);
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
        (REQUEST.replace("Host: x", &format!("Host: {}", "x".repeat(33_000))), "431"),
        (REQUEST.replace("Host: x", &"a: b\r\n".repeat(130)), "431"),
        ("\r\n\r\n".to_owned(), "400"),
    ];
    for (request, status) in cases {
        let mut websocket = begin(rules());
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
    let origins = vec!["https://example.org".parse().expect("an origin")];
    let rules = Arc::new(Rules { origins, ..Rules::default() });
    let from = |origin: &str| {
        let request = REQUEST.replace("Host: x\r\n", &format!("Host: x\r\n{origin}"));
        take(&mut begin(Arc::clone(&rules)), request.as_bytes()).1.is_ok()
    };
    assert!(from("Origin: https://example.org\r\n") && from(""));
    assert!(!from("Origin: https://example.org.evil\r\n") && !from("Origin: null\r\n"));
}

#[test]
fn who_says_the_brokers_own_address_as_origin_is_let_in() {
    let origins = vec!["https://example.org".parse().expect("an origin")];
    let rules = Arc::new(Rules { origins, ..Rules::default() });
    let from = |host: &str, origin: &str, has_tls| {
        let request =
            REQUEST.replace("Host: x\r\n", &format!("Host: {host}\r\nOrigin: {origin}\r\n"));
        let mut websocket = WebSocket::begin(Arc::clone(&rules), false, has_tls);
        take(&mut websocket, request.as_bytes()).1.is_ok()
    };
    assert!(from("127.0.0.1:8080", "http://127.0.0.1:8080", false));
    assert!(from("broker.example:8443", "https://broker.example:8443", true));
    assert!(!from("127.0.0.1:8080", "http://127.0.0.1:8081", false));
    assert!(!from("evil.example:8080", "http://evil.example:8080", false), "DNS rebinding");
}

#[test]
fn mqtt_is_at_every_path_that_is_configured() {
    let asks = |path: &[&str], asked: &str| {
        let path = path.iter().map(|path| (*path).to_owned()).collect();
        let rules = Arc::new(Rules { path, ..Rules::default() });
        let request = REQUEST.replace("/mqtt ", &format!("{asked} "));
        take(&mut begin(rules), request.as_bytes()).1.is_ok()
    };
    let by_default = ["/mqtt", "/ws", "/"];
    assert_eq!(Rules::default().path, by_default);
    for asked in ["/", "/ws", "/mqtt", "/mqtt?token=x"] {
        assert!(asks(&by_default, asked), "{asked}");
    }
    assert!(!asks(&by_default, "/other") && !asks(&["/a"], "/"));
    assert!(asks(&["/a", "/b"], "/b") && asks(&["*"], "/any/path?x=1"));
}

#[test]
fn a_request_has_as_many_bytes_and_fields_as_the_configuration_says() {
    let asks = |rules: &Arc<Rules>, more: &str| {
        let request = REQUEST.replace("Host: x\r\n", more);
        take(&mut begin(Arc::clone(rules)), request.as_bytes()).1
    };
    // What a browser with many cookies, behind proxies that add fields, sends.
    let cookies = format!("Cookie: {}\r\n", "c".repeat(16_000));
    let fields = "X-Field: 1\r\n".repeat(90);
    assert_eq!(asks(&rules(), &(cookies + &fields)), Ok(false));
    let few = Rules { request_bytes_max: 600, request_fields_max: 8, ..Rules::default() };
    let few = Arc::new(few);
    assert_eq!(asks(&few, "Host: x\r\n"), Ok(false));
    let error = asks(&few, &format!("Cookie: {}\r\n", "c".repeat(600))).expect_err("too long");
    assert!(error.contains("600 bytes") && error.contains("request_bytes_max"), "{error}");
    let error = asks(&few, &"a: b\r\n".repeat(10)).expect_err("too many");
    assert!(error.contains("8 header fields"), "{error}");
}

#[test]
fn trusted_proxies_say_where_a_client_is_and_nobody_else() {
    let proxies = ["10.0.0.0/8", "192.0.2.1"].map(|proxy| proxy.parse().expect("a proxy"));
    let rules = Rules { forwarded_for_from: proxies.to_vec(), ..Rules::default() };
    let rules = Arc::new(rules);
    let address = |is_forwarded, fields: &str| {
        let request = REQUEST.replace("Host: x\r\n", fields);
        let mut websocket = WebSocket::begin(Arc::clone(&rules), is_forwarded, false);
        assert_eq!(websocket.awaits_address(), is_forwarded);
        let (mut plain, mut received) = (Vec::new(), Received::default());
        websocket.receive(request.as_bytes(), &mut plain, &mut received).expect("it is granted");
        assert!(!websocket.awaits_address());
        received.address.map(|address| address.to_string())
    };
    let some = |address: &str| Some(address.to_owned());
    let one = "X-Forwarded-For: 198.51.100.7\r\n";
    assert_eq!(address(true, one), some("198.51.100.7:0"));
    assert_eq!(address(false, one), None, "a claim of the client's own");
    // What a client claims stands to the left of what proxies have seen.
    let claimed = "X-Forwarded-For: 203.0.113.9, 198.51.100.7:4711, 192.0.2.1, 10.1.1.1\r\n";
    assert_eq!(address(true, claimed), some("198.51.100.7:4711"));
    let lines = "X-Forwarded-For: 203.0.113.9\r\nx-forwarded-for: [2001:db8::7]:1\r\n";
    assert_eq!(address(true, lines), some("[2001:db8::7]:1"));
    assert_eq!(address(true, "X-Forwarded-For: 2001:db8::7\r\n"), some("[2001:db8::7]:0"));
    assert_eq!(address(true, "X-Forwarded-For: 198.51.100.7, unknown\r\n"), None);
    assert_eq!(address(true, ""), None, "it speaks for itself");
}

#[test]
fn a_request_that_comes_byte_by_byte_takes_no_more_work_than_its_length_is_worth() {
    let rules = Rules { request_bytes_max: 1024 * 1024, ..Rules::default() };
    let mut websocket = begin(Arc::new(rules));
    let begun = std::time::Instant::now();
    take(&mut websocket, b"GET /mqtt HTTP/1.1\r\nCookie: ").1.expect("it may go on");
    for _ in 0..1_000_000 {
        take(&mut websocket, b"c").1.expect("it may go on");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    let rest = &REQUEST["GET /mqtt HTTP/1.1".len()..];
    assert_eq!(take(&mut websocket, rest.as_bytes()).1, Ok(false));
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
