//! WebSocket requests as browsers, clients and proxies send them, on every executor.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{self, Broker, EXECUTORS, PATIENCE};
use crate::uninterrupted::uninterrupted;

const MORE: &str = "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"ws\"\nanonymous = true\n\
    [listeners.websocket]\npath = [\"/a\", \"/b\"]\norigins = [\"https://*.example.org\"]\n\
    forwarded_for_from = [\"127.0.0.1\"]\n\
    [protection]\nconnections_per_address_max = 1\nexempt = [\"127.0.0.0/8\"]\n";

/// Sends a request, and returns the first line of the response.
fn asks(broker: &Broker, transport: &str, path: &str, fields: &str) -> (TcpStream, String) {
    let mut stream = broker.tcp(transport);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n{fields}\r\n",
        broker.address(transport)
    );
    stream.write_all(request.as_bytes()).expect("written");
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n")
        && uninterrupted(|| stream.read(&mut byte)).is_ok_and(|count| count > 0)
    {
        answer.extend(byte);
    }
    let answer = String::from_utf8(answer).expect("text");
    (stream, answer.lines().next().unwrap_or_default().to_owned())
}

const GRANTED: &str = "HTTP/1.1 101 Switching Protocols";

#[test]
fn clients_connect_at_the_configured_paths_with_long_cookies() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, MORE);
        let cookies = format!("Cookie: session={}\r\n", "c".repeat(12_000));
        for path in ["/", "/ws", "/mqtt", "/mqtt?token=1"] {
            assert_eq!(asks(&broker, "ws", path, &cookies).1, GRANTED, "{flags}: {path}");
        }
        for (path, answer) in [("/a", GRANTED), ("/b", GRANTED), ("/", "HTTP/1.1 404 Not Found")] {
            assert_eq!(asks(&broker, "more", path, "").1, answer, "{flags}: {path}");
        }
        let fields = "X-Field: 1\r\n".repeat(500);
        let (_, answer) = asks(&broker, "ws", "/mqtt", &fields);
        assert_eq!(answer, "HTTP/1.1 431 Request Header Fields Too Large", "{flags}");
    }
}

#[test]
fn pages_of_configured_origins_and_of_the_same_origin_may_connect() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, MORE);
        let own = format!("http://{}", broker.address("more"));
        let from = |origin: &str| asks(&broker, "more", "/a", &format!("Origin: {origin}\r\n")).1;
        for origin in ["https://www.example.org", &own] {
            assert_eq!(from(origin), GRANTED, "{flags}: {origin}");
        }
        for origin in ["https://example.com", "http://127.0.0.1", "null"] {
            assert_eq!(from(origin), "HTTP/1.1 403 Forbidden", "{flags}: {origin}");
        }
    }
}

/// Whether a client forwarded by a proxy receives CONNACK; the connection stays open.
fn is_let_in(broker: &Broker, forwarded_for: &str) -> (TcpStream, bool) {
    let fields = format!("X-Forwarded-For: {forwarded_for}\r\n");
    let (mut stream, _) = asks(broker, "more", "/a", &fields);
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    // The mask is 0.
    let frame = b"\x82\x8e\0\0\0\0\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0";
    let mut connack = [0; 6];
    let is_answered = stream.write_all(frame).and_then(|()| stream.read_exact(&mut connack));
    (stream, is_answered.is_ok() && connack[2..] == [0x20, 2, 0, 0])
}

#[test]
fn address_limits_use_the_forwarded_address_of_a_trusted_proxy() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, MORE);
        let (first, is_in) = is_let_in(&broker, "203.0.113.9, 198.51.100.7");
        assert!(is_in, "{flags}");
        assert!(
            !is_let_in(&broker, "203.0.113.10, 198.51.100.7").1,
            "{flags}: one connection per address"
        );
        assert!(is_let_in(&broker, "198.51.100.8").1, "{flags}: another address");
        drop(first);
    }
}

#[test]
fn a_plain_http_request_receives_an_http_response() {
    let broker = Broker::start("--mode poll", "");
    for (path, answer) in [("/", "426 Upgrade Required"), ("/index.html", "404 Not Found")] {
        let mut stream = broker.tcp("ws");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("written");
        let rest = support::rest(stream);
        assert!(rest.starts_with(format!("HTTP/1.1 {answer}\r\n").as_bytes()), "{path}");
    }
}

/// The MQTT bytes in each received frame, up to this total.
fn frames(stream: &mut TcpStream, bytes: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < bytes {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a frame comes");
        assert_eq!(head[0], 0x82);
        let mut long = [0; 2];
        let length = match head[1] {
            126 => {
                stream.read_exact(&mut long).expect("the rest");
                usize::from(u16::from_be_bytes(long))
            }
            length => usize::from(length),
        };
        stream.read_exact(&mut vec![0; length]).expect("the payload");
        lengths.push(length);
    }
    lengths
}

#[test]
fn each_packet_is_sent_in_a_frame_of_its_own_unless_configured_otherwise() {
    let more = "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"ws\"\nanonymous = true\n\
                [listeners.websocket]\nframe_per_packet = false\n";
    // CONNECT and three PINGREQ packets in one frame, answered in one turn.
    let ping = b"\x82\x94\0\0\0\0\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0\xc0\0\xc0\0\xc0\0";
    for flags in EXECUTORS {
        let broker = Broker::start(flags, more);
        for (transport, expected) in [("ws", &[4, 2, 2, 2][..]), ("more", &[10])] {
            let (mut stream, _) = asks(&broker, transport, "/mqtt", "");
            stream.write_all(ping).expect("written");
            assert_eq!(frames(&mut stream, 10), expected, "{flags}: {transport}");
        }
    }
}
