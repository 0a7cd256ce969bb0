//! What a client cannot do: take all connections, send too much, or send what two programs read differently.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ringmq::config::Role;

use crate::folder::Folder;
use crate::support::{Broker, CONFIG, Client, EXECUTORS, wait_for};

fn head(method: &str, more: &str) -> String {
    format!("{method} /livez HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let broker = Broker::start("pipelined", "--mode poll");
    let mut client = broker.unix();
    let paths = ["/livez", "/api/v1/status", "/api/v1/nothing", "/api/v1/whoami"];
    let all: String = (0..50)
        .map(|number| format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", paths[number % 4]))
        .collect();
    client.send(all.as_bytes());
    for number in 0..50 {
        let expected = if number % 4 == 2 { 404 } else { 200 };
        assert_eq!(client.answer().expect("an answer").status, expected, "{number}");
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_answered_and_a_cut_one_is_not_executed() {
    let broker = Broker::start("cut", "--mode poll");
    let mut client = broker.tcp();
    for byte in head("GET", "").as_bytes() {
        client.send(std::slice::from_ref(byte));
    }
    assert_eq!(client.answer().expect("an answer").status, 200);
    let more = "Content-Type: application/json\r\nContent-Length: 3\r\n";
    let request = head("POST", more).replace("/livez", "/api/v1/logout?cut");
    for length in (0..request.len()).step_by(7).chain([request.len()]) {
        let mut client = broker.tcp();
        client.send(&request.as_bytes()[..length]);
        client.stream.shutdown(std::net::Shutdown::Write).expect("an option");
        while client.answer().is_some() {}
    }
    assert_eq!(broker.tcp().ask("GET", "/livez", &[], "").status, 200);
}

#[test]
fn content_whose_end_two_programs_could_read_differently_is_refused() {
    let broker = Broker::start("smuggled", "--mode poll");
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (more, content, expected) in [
        ("Transfer-Encoding: chunked\r\n", format!("0\r\n\r\n{smuggled}"), 411),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            format!("0\r\n\r\n{smuggled}"),
            411,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            format!("0\r\n\r\n{smuggled}"),
            411,
        ),
        ("Transfer-Encoding: xchunked\r\n", smuggled.to_owned(), 400),
        ("Transfer-Encoding : chunked\r\n", format!("0\r\n\r\n{smuggled}"), 400),
        ("Content-Length: 5\r\nContent-Length: 0\r\n", smuggled.to_owned(), 400),
        ("Content-Length: +5\r\n", smuggled.to_owned(), 400),
        ("Content-Length: 5, 5\r\n", smuggled.to_owned(), 400),
        ("Content-Length: -1\r\n", smuggled.to_owned(), 400),
        ("X: a\r\n b: c\r\n", smuggled.to_owned(), 400),
        ("X: \0\r\n", smuggled.to_owned(), 400),
    ] {
        let mut client = broker.tcp();
        client.send((head("POST", more) + &content).as_bytes());
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.status, expected, "{more:?}");
        assert!(client.answer().is_none(), "{more:?}: what follows is not answered");
    }
}

#[test]
fn headers_and_content_have_bounds() {
    let broker = Broker::start("bounds", "--mode poll");
    let long = "a".repeat(20 << 10);
    let many: String = (0..100).map(|number| format!("X-{number}: a\r\n")).collect();
    for more in [format!("X: {long}\r\n"), many] {
        let mut client = broker.tcp();
        client.send(head("GET", &more).as_bytes());
        assert_eq!(client.answer().expect("an answer").status, 431);
        assert!(client.answer().is_none());
    }
    let fits = format!("X: {}\r\n", "a".repeat(15 << 10));
    let mut client = broker.tcp();
    client.send(head("GET", &fits).as_bytes());
    assert_eq!(client.answer().expect("an answer").status, 200);
    let mut client = broker.tcp();
    client.send(format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    let status = client.answer().expect("an answer").status;
    assert!(matches!(status, 414 | 431), "{status}");
    let token = format!("Authorization: Bearer {}\r\n", broker.tokens[2]);
    let more = format!("{token}Content-Type: application/json\r\nContent-Length: 1048577\r\n");
    let mut client = broker.tcp();
    client.send(head("POST", &more).replace("/livez", "/api/v1/login").as_bytes());
    let answer = client.answer().expect("an answer before the content");
    assert_eq!((answer.status, answer.json()["status"].as_u64()), (413, Some(413)));
    assert!(client.answer().is_none());
    // As much as fits is read.
    let content = format!("{{\"token\": \"{}\"}}", "x".repeat((1 << 20) - 100));
    let answer = broker.tcp().ask("POST", "/api/v1/login", &[], &content);
    assert_eq!(answer.status, 401);
}

#[test]
fn connections_beyond_the_limit_are_answered_with_503_and_health_and_the_socket_keep_a_place() {
    for flags in EXECUTORS {
        let config = CONFIG.replace("[admin.access]", "connections_max = 4\n[admin.access]");
        let broker = Broker::with(Folder::new("places"), &config, flags);
        let mut taken: Vec<_> = (0..2).map(|_| broker.tcp()).collect();
        for client in &mut taken {
            assert_eq!(client.ask("GET", "/livez", &[], "").status, 200, "{flags}");
        }
        // Only one is left for addresses, and it is for health.
        let mut health = broker.tcp();
        assert_eq!(health.ask("GET", "/livez", &[], "").status, 200, "{flags}");
        assert!(health.is_closed(), "{flags}: one request at a time");
        let refused = broker.ask(Role::Read, "GET", "/api/v1/status", "");
        assert_eq!(
            (refused.status, refused.json()["status"].as_u64()),
            (503, Some(503)),
            "{flags}"
        );
        let _slow = broker.tcp();
        // The server may not have accepted it yet.
        wait_for("a refusal", || {
            let answer = broker.tcp().ask("GET", "/livez", &[], "");
            (answer.status == 503).then_some(answer.json())
        });
        let mut unix = broker.unix();
        assert_eq!(unix.ask("GET", "/api/v1/status", &[], "").status, 200, "{flags}");
        assert_eq!(broker.unix().ask("GET", "/api/v1/status", &[], "").status, 503, "{flags}");
        drop(taken.pop());
        wait_for("a place", || {
            (broker.ask(Role::Read, "GET", "/api/v1/status", "").status == 200).then_some(())
        });
    }
}

#[test]
fn a_flood_of_connections_disturbs_no_client_of_the_broker() {
    let broker = Broker::start("flood", "--mode poll");
    let address = broker.address().to_owned();
    let flood = std::thread::spawn(move || {
        for _ in 0..500 {
            if let Ok(mut stream) = std::net::TcpStream::connect(&address) {
                let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
        }
    });
    let mut client = std::net::TcpStream::connect(&broker.mqtt).expect("it listens");
    client.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a").expect("it reads");
    client.read_exact(&mut [0; 4]).expect("CONNACK");
    while !flood.is_finished() {
        client.write_all(b"\xc0\0").expect("it reads");
        client.read_exact(&mut [0; 2]).expect("PINGRESP");
    }
    flood.join().expect("no panic");
    wait_for("a place", || {
        // A client that is closed without an answer comes again.
        let mut client = broker.tcp();
        client.stream.write_all(head("GET", "").as_bytes()).ok()?;
        (client.answer()?.status == 200).then_some(())
    });
}

#[test]
fn a_client_that_sends_nothing_loses_its_place() {
    let broker = Broker::start("slow", "--mode poll");
    let begin = Instant::now();
    let (mut silent, mut slow) = (broker.tcp(), Client::unix(&broker.socket()));
    slow.send(b"GET /livez HTTP/1.1\r\nHost: loc");
    while silent.answer().is_some() {}
    while slow.answer().is_some() {}
    let elapsed = begin.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&elapsed), "{elapsed:?}");
}
