//! A server that decides what clients may do.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::reason::NOT_AUTHORIZED;
use crate::support::{
    Broker, Client, Connect, Publish, SILENCE, Subscribe, V5, Will, for_versions,
};
use crate::{Files, await_metric, http, in_version};

/// A server that allows what has `yes` in its topic, after this time, and what it is asked.
fn serve(delay: Duration) -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/rights", listener.local_addr().expect("it listens"));
    let (asked, questions) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, asked) = (stream.expect("a connection"), asked.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Ok(Some((_, body))) = http::read_request(&mut reader) {
                    let question: Value = serde_json::from_slice(&body).expect("JSON");
                    let topic = question["topic"].as_str().expect("text");
                    let answer = format!("{{\"allow\": {}}}", topic.contains("yes"));
                    let _ = asked.send(question.clone());
                    std::thread::sleep(delay);
                    let length = answer.len();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    let _ = reader.get_mut().write_all((head + &answer).as_bytes());
                }
            });
        }
    });
    (url, questions)
}

fn broker(url: &str, more: &str) -> Broker {
    Broker::with_config(&format!("{more}[access.authorization]\nurl = {url:?}\n"))
}

#[test]
fn a_server_decides_about_messages_and_subscriptions_and_is_asked_once_for_each_topic() {
    for_versions(|version| {
        let (url, questions) = serve(Duration::ZERO);
        let broker = broker(&url, "");
        let mut reader = Client::connect(&broker, Connect::new(version, "reader"));
        reader.send(Subscribe::new(1, "yes/#", 1));
        assert_eq!(reader.expect_suback().reasons, [1]);
        reader.send(Subscribe::new(2, "no/#", 1));
        assert_eq!(reader.expect_suback().reasons, [in_version(version, NOT_AUTHORIZED, 0x80)]);
        let mut writer = Client::connect(&broker, Connect::new(version, "writer"));
        for number in 1..=20 {
            let (topic, payload) = match number % 2 {
                0 => ("yes/1", number.to_string()),
                _ => ("no/1", "denied".to_owned()),
            };
            writer.send(Publish::new(topic, payload).qos(1, number));
        }
        for number in 1..=20_u16 {
            let ack = writer.expect_ack();
            let denied = if number % 2 == 0 { 0 } else { in_version(version, NOT_AUTHORIZED, 0) };
            assert_eq!(ack.reason, denied, "{number}");
        }
        for number in (2..=20).step_by(2) {
            reader.expect_message(&number.to_string());
        }
        reader.expect_silence(SILENCE);
        let asked: Vec<String> = questions.try_iter().map(|of| of.to_string()).collect();
        let different: BTreeSet<&String> = asked.iter().collect();
        assert_eq!((asked.len(), different.len()), (4, 4), "{asked:?}");
    });
}

#[test]
fn a_server_that_hangs_delays_its_own_client_and_no_other() {
    let (url, _questions) = serve(Duration::from_secs(30));
    let more = "[mqtt]\nsys_interval_s = 1\n";
    let files = Files::new("hangs")
        .with_rules("for client free\n allow all free/#\nfor client m\n allow subscribe $SYS/#\n");
    let broker = broker(&url, &format!("{more}[access]\nacl_file = {:?}\n", files.path("acl")));
    let mut slow = Client::connect(&broker, Connect::v5("slow"));
    slow.send(Publish::new("yes", "x").qos(1, 1));
    let mut free = Client::connect(&broker, Connect::v5("free"));
    free.subscribe("free/#", 0);
    free.publish(Publish::new("free/1", "at once").qos(1, 1));
    free.expect_message("at once");
    // Without an answer in time, the message is denied.
    assert_eq!(slow.expect_ack().reason, NOT_AUTHORIZED);
    slow.expect_alive();
    broker.await_log("the server that authorizes clients did not answer", 1);
    await_metric(&broker, Connect::v5("m"), "access/authorization/failed", 1);
}

#[test]
fn a_will_is_asked_about_before_its_client_is_admitted() {
    let (url, _questions) = serve(Duration::from_millis(50));
    let broker = broker(&url, "");
    let mut reader = Client::connect(&broker, Connect::v5("reader"));
    reader.subscribe("yes/#", 0);
    let with = |client: &str, topic: &str| Connect::new(V5, client).will(Will::new(topic, "gone"));
    Client::refused(&broker, with("denied", "no/will"), NOT_AUTHORIZED);
    Client::connect(&broker, with("allowed", "yes/will")).vanish();
    reader.expect_message("gone");
    // The broker assigns the Client Identifier.
    Client::connect(&broker, with("", "yes/other")).vanish();
    reader.expect_message("gone");
    Client::refused(&broker, with("", "no/other"), NOT_AUTHORIZED);
}
