//! `/metrics` as monitoring systems scrape it.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringmq::config::Role;

use crate::folder::Folder;
use crate::support::{Answer, Broker, CONFIG, EXECUTORS};

/// The value of a series in Prometheus text.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("{series} is missing in\n{text}"));
    line.parse().expect("a number")
}

fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.clone()).expect("text")
}

/// Publishes one message at QoS 1, and waits for PUBACK.
fn publish(broker: &Broker) {
    let mut client = TcpStream::connect(&broker.mqtt).expect("it listens");
    client.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a").expect("the server reads");
    client.read_exact(&mut [0; 4]).expect("CONNACK");
    client.write_all(b"\x32\x06\0\x01t\0\x07x").expect("the server reads");
    client.read_exact(&mut [0; 4]).expect("PUBACK");
}

#[test]
fn counters_and_latencies_are_those_of_what_clients_did_on_every_executor() {
    for flags in EXECUTORS {
        let broker = Broker::start("metrics", flags);
        publish(&broker);
        let mut unix = broker.unix();
        let answer = unix.ask("GET", "/metrics", &[], "");
        let media_type = answer.header("content-type");
        assert_eq!(media_type, Some("text/plain; version=0.0.4; charset=utf-8"), "{flags}");
        let first = text(&answer);
        let cores = if flags.contains("--cores 4") { 4.0 } else { 1.0 };
        assert_eq!(value(&first, "ringmq_cores"), cores, "{flags}");
        assert_eq!(value(&first, "ringmq_scrape_cores_missing"), 0.0, "{flags}");
        assert_eq!(value(&first, "ringmq_messages_received_total{qos=\"1\"}"), 1.0, "{flags}");
        assert_eq!(value(&first, "ringmq_connections_accepted_total"), 1.0, "{flags}");
        assert_eq!(value(&first, "ringmq_publish_seconds_count{qos=\"1\"}"), 1.0, "{flags}");
        assert_eq!(value(&first, "ringmq_publish_seconds_count{qos=\"0\"}"), 0.0, "{flags}");
        assert_eq!(value(&first, "ringmq_connect_seconds_count"), 1.0, "{flags}");
        // Latencies count from the start, whoever has read them before.
        publish(&broker);
        let second = text(&unix.ask("GET", "/metrics", &[], ""));
        assert_eq!(value(&second, "ringmq_publish_seconds_count{qos=\"1\"}"), 2.0, "{flags}");
        let turns = "ringmq_core_turn_seconds_count";
        assert!(value(&second, turns) > value(&first, turns), "{flags}");
        assert!(value(&second, "ringmq_publish_seconds_sum{qos=\"1\"}") < 20.0, "{flags}");
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn printed_statistics_and_scrapes_do_not_take_each_others_latencies() {
    let broker = Broker::start("metrics-stats", "--mode poll --stats=1");
    for messages in 1..=3 {
        publish(&broker);
        std::thread::sleep(std::time::Duration::from_millis(700));
        let text = text(&broker.unix().ask("GET", "/metrics", &[], ""));
        let series = "ringmq_publish_seconds_count{qos=\"1\"}";
        assert_eq!(value(&text, series), f64::from(messages));
    }
    assert!(broker.stop());
}

#[test]
fn open_metrics_and_gzip_are_for_those_that_accept_them() {
    let broker = Broker::start("metrics-formats", "--mode poll");
    let accept = ("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    let answer = broker.tcp().ask("GET", "/metrics", &[accept], "");
    let media_type = answer.header("content-type").expect("a media type");
    assert!(media_type.starts_with("application/openmetrics-text; version=1.0.0"), "{media_type}");
    assert!(text(&answer).ends_with("# EOF\n"));
    let answer = broker.tcp().ask("GET", "/metrics", &[("Accept-Encoding", "gzip")], "");
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
    assert!(answer.header("vary").is_some_and(|of| of.contains("accept-encoding")));
}

#[test]
fn metrics_are_for_everybody_at_home_or_for_those_with_a_role_as_configured() {
    for (configured, without, with) in
        [("auto", 200, 200), ("open", 200, 200), ("closed", 401, 200)]
    {
        let more = format!("metrics = \"{configured}\"\n[admin.access]");
        let config = CONFIG.replace("[admin.access]", &more);
        let broker = Broker::with(Folder::new("metrics-closed"), &config, "--mode poll");
        let status = broker.tcp().ask("GET", "/metrics", &[], "").status;
        assert_eq!(status, without, "{configured}");
        let status = broker.ask(Role::Read, "GET", "/metrics", "").status;
        assert_eq!(status, with, "{configured}");
        // The owner of the socket has every role.
        assert_eq!(broker.unix().ask("GET", "/metrics", &[], "").status, 200, "{configured}");
    }
}

#[test]
fn the_expiry_of_certificates_is_among_the_metrics() {
    let folder = Folder::new("metrics-certificate");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed").pem();
    folder.write("certificate.pem", &certificate);
    folder.write("key.pem", &key.serialize_pem());
    let listener = "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\n\
        tls.certificate = \"{FOLDER}/certificate.pem\"\ntls.key = \"{FOLDER}/key.pem\"\n[storage]";
    let config = CONFIG.replace("[storage]", listener);
    let broker = Broker::with(folder, &config, "--mode poll");
    let text = text(&broker.unix().ask("GET", "/metrics", &[], ""));
    let line = text.lines().find(|line| line.starts_with("ringmq_certificate_expiry_seconds{"));
    let line = line.expect("a certificate");
    assert!(line.contains("listener=\"127.0.0.1:") && line.ends_with(" 4102444800.0"), "{line}");
}
