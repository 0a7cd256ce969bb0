//! Every transport on every executor, with several cores: PROXY headers, TLS, WebSocket and Unix
//! domain sockets, against the `broker` command.
#![cfg(all(unix, feature = "tls", feature = "websocket"))]

mod kernel;
#[path = "../support/matrix.rs"]
mod matrix;
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod support;
#[path = "../support/uninterrupted.rs"]
mod uninterrupted;
mod websocket;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use support::{Authority, Broker, Client, EXECUTORS, TRANSPORTS, Tls, topic_of};

/// A round trip of a message of many records and frames, and of a small one.
fn talks(client: &mut Client) {
    client.connect("talker");
    client.subscribe("talk");
    for bytes in [1, 100_000] {
        let payload: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        client.publish("talk", &payload);
        assert!(client.publish_received("talk") == payload, "{bytes} bytes");
    }
}

#[test]
fn every_transport_works_on_every_executor() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, "");
        for transport in TRANSPORTS {
            // Client Identifiers determine home cores: some clients stay, some move.
            for number in 0..6 {
                let mut client = broker.client(transport);
                client.connect(&format!("{transport}-{number}"));
                client.subscribe(&topic_of(transport, number));
                client.publish(&topic_of(transport, number), b"there and back");
                let payload = client.publish_received(&topic_of(transport, number));
                assert_eq!(payload, b"there and back", "{flags}: {transport}");
            }
            talks(&mut broker.client(transport));
            matrix::record(&broker.setup, transport, "none", "the tests' own");
        }
    }
}

#[test]
fn docs_transports_lists_every_tested_transport_and_executor() {
    let table = include_str!("../../docs/transports.md");
    for transport in TRANSPORTS {
        assert!(table.contains(&format!("| `{transport}` |")), "docs/transports.md: {transport}");
    }
}

#[test]
fn a_tls_session_is_resumed_by_its_ticket_even_after_a_reload() {
    let broker = Broker::start("--mode poll --cores 2", "");
    let config = broker.authority.client_config(None);
    let mut kinds = Vec::new();
    for number in 0..3 {
        if number == 2 {
            broker.reload();
        }
        let mut client = broker.client_with("tls", config.clone());
        client.connect(&format!("resumer-{number}"));
        client.ping();
        kinds.push(client.handshake_kind());
    }
    use rustls::HandshakeKind::{Full, Resumed};
    assert_eq!(kinds, [Full, Resumed, Resumed]);
}

#[test]
fn a_new_certificate_applies_to_new_connections_and_keeps_existing_ones() {
    let broker = Broker::start("--cores 2", "");
    let mut inside = broker.client("tls");
    inside.connect("inside");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut made = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut client = broker.client_of_any_server("tls");
                client.connect(&format!("load-{made}"));
                client.ping();
                made += 1;
            }
            made
        });
        let before = broker.certificate_shown("tls");
        let other = Authority::new();
        for _ in 0..5 {
            other.write_server(&broker.folder);
            broker.reload();
            inside.ping();
        }
        assert_ne!(broker.certificate_shown("tls"), before);
        // An invalid certificate changes nothing.
        let new = broker.certificate_shown("tls");
        std::fs::write(broker.folder.join("server.pem"), "no PEM").expect("written");
        broker.reload_fails();
        assert_eq!(broker.certificate_shown("tls"), new);
        inside.ping();
        is_over.store(true, Ordering::Relaxed);
        assert!(load.join().expect("no client fails") > 0);
    });
}

#[test]
fn a_listener_that_requires_certificates_accepts_only_unrevoked_ones() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, &support::mutual("required"));
        let connects = |tls: Tls| {
            broker
                .try_client_with("mutual", tls)
                .is_ok_and(|mut client| client.tries_to_connect("somebody"))
        };
        let (good, revoked) = (broker.authority.issue("good", 7), broker.authority.issue("bad", 8));
        assert!(connects(broker.authority.client_config(Some(&good))), "{flags}");
        assert!(connects(broker.authority.client_config(Some(&revoked))), "{flags}");
        assert!(!connects(broker.authority.client_config(None)), "{flags}");
        let stranger = Authority::new().issue("stranger", 9);
        assert!(!connects(broker.authority.client_config(Some(&stranger))), "{flags}");
        // A resumed session keeps the certificate of the original handshake.
        let ticket = broker.authority.client_config(Some(&revoked));
        assert!(connects(ticket.clone()));
        broker.authority.write_revoked(&broker.folder, &[8]);
        broker.reload();
        assert!(!connects(ticket), "{flags}");
        assert!(connects(broker.authority.client_config(Some(&good))), "{flags}");
    }
}

#[test]
fn a_client_certificate_and_its_tickets_are_accepted_until_it_expires() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, &support::mutual("required"));
        let (issued, end) = broker.authority.issue_for("short", 7, 3);
        let config = broker.authority.client_config(Some(&issued));
        let mut client = broker.client_with("mutual", config.clone());
        client.connect("short");
        client.ping();
        let lasting = broker.authority.issue("lasting", 8);
        let mut stays =
            broker.client_with("mutual", broker.authority.client_config(Some(&lasting)));
        stays.connect("lasting");
        client.rest().expect("close_notify");
        let now = SystemTime::now();
        assert!(now >= end, "{flags}: {:?} early", end.duration_since(now));
        let late = now.duration_since(end).expect("later");
        assert!(late < Duration::from_secs(3), "{flags}: {late:?} late");
        // The ticket is valid as long as the certificate.
        let again = broker.try_client_with("mutual", config);
        if let Ok(mut client) = again {
            assert_eq!(client.handshake_kind(), rustls::HandshakeKind::Resumed);
            assert!(!client.tries_to_connect("short"), "{flags}");
            broker
                .waits_for_line(&["\"cause\":\"client-certificate\"", "since the full handshake"]);
        }
        stays.ping();
    }
}

#[test]
fn an_expired_revocation_list_is_logged_and_refuses_clients_if_configured() {
    for flags in EXECUTORS {
        let past = |folder: &support::Folder, authority: &Authority| {
            authority.write_list(folder, &[8], 2021);
        };
        for refuses in [false, true] {
            let key = if refuses { "client_crl_expired = \"refuse\"\n" } else { "" };
            let more = support::mutual("required") + key;
            let broker = Broker::start_with(flags, &more, past);
            let certificates =
                [broker.authority.issue("good", 7), broker.authority.issue("bad", 8)];
            let configs =
                certificates.each_ref().map(|of| broker.authority.client_config(Some(of)));
            let connects = |config: &Tls| {
                broker
                    .try_client_with("mutual", config.clone())
                    .is_ok_and(|mut client| client.tries_to_connect("somebody"))
            };
            assert_eq!(configs.each_ref().map(connects), [!refuses, false], "{flags}");
            let says = ["the revocation list of CN=authority of a test has expired"];
            broker.reload_after(&says);
            assert_eq!(configs.each_ref().map(connects), [!refuses, false], "{flags}");
            broker.authority.write_list(&broker.folder, &[8], 4000);
            broker.reload();
            assert_eq!(configs.each_ref().map(connects), [true, false], "{flags}");
            // Between two reloads, a ticket would accept a client that connected before the date.
            let mut client = broker.client_with("mutual", configs[0].clone());
            client.connect("again");
            let is_resumed = client.handshake_kind() == rustls::HandshakeKind::Resumed;
            assert_eq!(is_resumed, !refuses, "{flags}");
        }
    }
}

#[test]
fn a_listener_selects_its_certificate_by_server_name_indication() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, "");
        let shown = |name: &str| broker.certificate_shown_for("tls", name);
        assert_ne!(shown("localhost"), shown("other.example"));
        assert_eq!(shown("other.example"), shown("any.wild.example"));
        assert_eq!(shown("localhost"), shown("nobody.example"));
    }
}

#[test]
fn alpn_without_mqtt_is_refused_with_an_alert() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, "");
        let with = |protocol: &str| {
            let mut config = (*broker.authority.client_config(None)).clone();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            broker.try_client_with("tls", config.into()).is_ok()
        };
        assert!(with("mqtt") && !with("h2"), "{flags}");
    }
}

#[test]
fn a_listener_negotiates_its_configured_alpn_protocols() {
    let agreed = |flags: &str, alpn: &str, asked: &[&str]| {
        let listener = format!(
            "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\n[listeners.tls]\n\
             certificate = \"FOLDER/server.pem\"\nkey = \"FOLDER/key.pem\"\nalpn = {alpn}\n"
        );
        let broker = Broker::start(flags, &listener);
        let mut config = (*broker.authority.client_config(None)).clone();
        config.alpn_protocols = asked.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = broker.try_client_with("mutual", config.into()).ok()?;
        client.connect("asks");
        let agreed = client.tls().conn.alpn_protocol().unwrap_or_default();
        Some(String::from_utf8_lossy(agreed).into_owned())
    };
    let aws = r#"["mqtt", "x-amzn-mqtt-ca"]"#;
    for flags in EXECUTORS {
        for (alpn, asked, expected) in [
            (aws, &["x-amzn-mqtt-ca"][..], Some("x-amzn-mqtt-ca")),
            (aws, &["x-amzn-mqtt-ca", "mqtt"], Some("mqtt")),
            (aws, &[], Some("")),
            (aws, &["h2"], None),
            ("[]", &["h2"], Some("")),
        ] {
            let agreed = agreed(flags, alpn, asked);
            assert_eq!(agreed.as_deref(), expected, "{flags}: {alpn}: {asked:?}");
        }
    }
}

/// A socket that keeps a copy of what it receives.
struct Recorded {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Read for Recorded {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(into)?;
        self.received.extend_from_slice(&into[..count]);
        Ok(count)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// The lengths of the TLS records in `bytes`, without the last one if it is incomplete.
fn record_lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes
        && let length = usize::from(u16::from_be_bytes([*high, *low]))
        && let Some(rest) = rest.get(length..)
    {
        lengths.push(length);
        bytes = rest;
    }
    lengths
}

#[test]
fn tls_records_are_no_longer_than_configured() {
    const BYTES_MAX: usize = 512;
    // Content type, nonce and tag.
    const SEALED_EXTRA_BYTES_MAX: usize = 24;
    const PAYLOAD_BYTES: usize = 100_000;
    let listener = format!(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\nanonymous = true\n\
         [listeners.tls]\ncertificate = \"FOLDER/server.pem\"\nkey = \"FOLDER/key.pem\"\n\
         record_bytes_max = {BYTES_MAX}\n"
    );
    for flags in EXECUTORS {
        let broker = Broker::start(flags, &listener);
        // Client Identifiers determine home cores: some clients stay, some move.
        for number in b'0'..b'4' {
            let config = broker.authority.client_config(None);
            let name = "localhost".try_into().expect("a name");
            let connection = rustls::ClientConnection::new(config, name).expect("a configuration");
            let socket = Recorded { stream: broker.tcp("small"), received: Vec::new() };
            let mut client = rustls::StreamOwned::new(connection, socket);
            let mut bytes = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01".to_vec();
            bytes.push(number);
            bytes.extend(b"\x82\x06\0\x01\0\x01t\0");
            // PUBLISH with a length of 100,003 bytes.
            bytes.extend(b"\x30\xa3\x8d\x06\0\x01t");
            bytes.extend(vec![b'x'; PAYLOAD_BYTES]);
            client.write_all(&bytes).expect("the data is sent");
            // CONNACK, SUBACK, and the message.
            let mut answer = vec![0; 4 + 5 + 4 + 3 + PAYLOAD_BYTES];
            client.read_exact(&mut answer).expect("a response");
            assert_eq!(answer[..4], [0x20, 2, 0, 0], "{flags}");
            let longest = record_lengths(&client.sock.received).into_iter().max();
            let expected = Some(BYTES_MAX)..=Some(BYTES_MAX + SEALED_EXTRA_BYTES_MAX);
            assert!(expected.contains(&longest), "{flags}: a record of {longest:?} bytes");
        }
    }
}

#[test]
fn a_refused_client_certificate_is_logged_with_the_reason() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, &support::mutual("required"));
        let stranger = Authority::new().issue("stranger", 9);
        let config = broker.authority.client_config(Some(&stranger));
        let let_in = broker
            .try_client_with("mutual", config)
            .is_ok_and(|mut client| client.tries_to_connect("somebody"));
        assert!(!let_in, "{flags}");
        broker.waits_for_line(&["\"cause\":\"client-certificate\"", "may have been created again"]);
    }
}

#[test]
fn proxy_headers_are_accepted_on_unix_domain_sockets() {
    let more = "[protection]\nexempt = []\nconnections_per_address_max = 1\n[[listeners]]\n\
                bind = \"unix:FOLDER/proxied.sock\"\ntransport = \"unix\"\nanonymous = true\n\
                proxy_protocol_from = [\"unix\"]\n";
    for flags in EXECUTORS {
        let broker = Broker::start(flags, more);
        let client_at = |address: &str, name: &str| {
            let mut client = broker.unix_client("proxied.sock");
            client.raw(format!("PROXY TCP4 {address} 192.0.2.200 1 2\r\n").as_bytes());
            client.tries_to_connect(name).then_some(client)
        };
        let mut first = client_at("192.0.2.1", "first").expect("the client is accepted");
        assert!(
            client_at("192.0.2.1", "second").is_none(),
            "{flags}: the limit of the address is reached"
        );
        let mut other = client_at("192.0.2.2", "third").expect("the client is accepted");
        other.subscribe("there");
        first.publish("there", b"and back");
        assert_eq!(other.publish_received("there"), b"and back", "{flags}");
        first.ping();
        let mut silent = broker.unix_client("proxied.sock");
        assert!(!silent.tries_to_connect("fourth"), "{flags}: a connection without a header");
    }
}

#[test]
fn unsafe_proxy_settings_of_a_listener_are_rejected_with_a_remedy() {
    let folder = support::Folder::new();
    let tls = "transport = \"tls\"\n[listeners.tls]\ncertificate = \"a\"\nkey = \"b\"\n";
    for (keys, says) in [
        (
            "bind = \"unix:/tmp/x.sock\"\ntransport = \"unix\"\n\
             proxy_protocol_from = [\"127.0.0.0/8\"]\n"
                .to_owned(),
            "use proxy_protocol_from = [\"unix\"]",
        ),
        (
            "bind = \"127.0.0.1:0\"\nproxy_protocol_from = [\"unix\"]\n".to_owned(),
            "name networks or addresses",
        ),
        (
            "bind = \"127.0.0.1:0\"\nproxy_protocol_identity = \"cn\"\n".to_owned(),
            "in proxy_protocol_from",
        ),
        (
            format!(
                "bind = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1\"]\n\
                 proxy_protocol_identity = \"cn\"\n{tls}"
            ),
            "use tls.identity",
        ),
    ] {
        let path = folder.join("broker.toml");
        std::fs::write(&path, format!("[[listeners]]\n{keys}")).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--check-config", "--config"])
            .arg(&path)
            .output()
            .expect("the command runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(says), "{keys}: {error}");
    }
}

#[test]
fn the_connection_limit_of_a_listener_applies() {
    let more = "[[listeners]]\nbind = \"127.0.0.1:0\"\nconnections_max = 2\n";
    let broker = Broker::start("--cores 2", more);
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..2 {
        let mut client = broker.client("bounded");
        client.connect(&format!("bounded-{number}"));
        clients.push(client);
    }
    assert!(!broker.client("bounded").tries_to_connect("one-more"));
    clients.pop();
    let until = Instant::now() + support::PATIENCE;
    while !broker.client("bounded").tries_to_connect("in-its-place") {
        assert!(Instant::now() < until, "the slot is not released");
    }
}

#[test]
fn many_handshakes_complete_one_step_per_turn_while_others_are_served() {
    // More handshakes than steps per turn: waiting ones must not be forgotten.
    let broker = Broker::start("--mode poll", "[limits]\ntls_handshakes_per_turn_max = 1\n");
    let mut inside = broker.client("tcp");
    inside.connect("inside");
    let config = broker.authority.client_config(None);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..8)
            .map(|member| {
                let (broker, config) = (&broker, config.clone());
                scope.spawn(move || {
                    for number in 0..25 {
                        let mut client = broker.client_with("tls", config.clone());
                        client.connect(&format!("crowd-{member}-{number}"));
                    }
                })
            })
            .collect();
        let load = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                inside.ping();
            }
        });
        crowd.into_iter().for_each(|member| member.join().expect("all get in"));
        is_over.store(true, Ordering::Relaxed);
        load.join().expect("the clients are served");
    });
}

#[test]
fn connections_without_the_expected_tls_or_proxy_header_are_closed() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, "");
        for transport in ["tls", "wss", "proxied"] {
            let mut stream = broker.tcp(transport);
            stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00").expect("written");
            let rest = support::rest(stream);
            assert!(!rest.starts_with(b"\x20"), "{flags}: {transport}: {rest:?}");
        }
    }
}

#[test]
fn unusable_files_are_reported_at_start_with_a_remedy() {
    let folder = support::Folder::new();
    let authority = Authority::new();
    authority.write_server(&folder);
    let cases = [
        ("certificate", "missing.pem", "No such file"),
        ("certificate", "key.pem", "contains no CERTIFICATE"),
        ("key", "server.pem", "contains no PRIVATE KEY"),
        ("key", "other-key.pem", "it must be the key of"),
    ];
    let other = authority.issue("x", 3);
    std::fs::write(folder.join("other-key.pem"), other.key_pem()).expect("written");
    for (key, file, says) in cases {
        let of = |name: &str, default| folder.join(if name == key { file } else { default });
        let config = format!(
            "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\n[listeners.tls]\n\
             certificate = {:?}\nkey = {:?}\n",
            of("certificate", "server.pem"),
            of("key", "key.pem"),
        );
        let path = folder.join("broker.toml");
        std::fs::write(&path, config).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--data", "none", "--config"])
            .arg(&path)
            .output()
            .expect("the command runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("tls.{key} ")) && error.contains(says), "{error}");
    }
}

#[test]
fn a_unix_socket_left_by_a_killed_broker_is_reused() {
    let mut broker = Broker::start("--mode poll", "");
    broker.kill();
    let again = broker.start_again("--mode poll");
    talks(&mut again.client("unix"));
    again.stop();
    assert!(!broker.folder.join("broker.sock").exists(), "the broker removes its socket on exit");
}
