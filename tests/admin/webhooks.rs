//! Webhooks against a server that records what it gets, and that is down, slow or broken at will.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringmq::config::Role;
use ringmq::wire::{Qos, Version};
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::mqtt::Mqtt;
use crate::packets;
use crate::reload::{change, reload, write};
use crate::request::read_request;
use crate::support::{Broker, CONFIG, EXECUTORS, wait_for};

/// A server of webhooks.
struct Server {
    address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Status of the next answers.
    status: AtomicU32,
    /// Milliseconds before an answer.
    delay_ms: AtomicU32,
    /// Accepted and refused requests: head and content.
    requests: Mutex<Vec<(String, Value)>>,
    /// Events of the requests that were accepted.
    events: Mutex<Vec<Value>>,
}

impl Server {
    fn start() -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    fn at(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("it listens").to_string();
        let state = Arc::new(State { status: 200.into(), ..State::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.expect("a connection"), Arc::clone(&shared));
                std::thread::spawn(move || serve(BufReader::new(stream), &state));
            }
        });
        Self { address, state }
    }

    fn answer_with(&self, status: u32) {
        self.state.status.store(status, SeqCst);
    }

    fn delay_by(&self, milliseconds: u32) {
        self.state.delay_ms.store(milliseconds, SeqCst);
    }

    fn requests(&self) -> Vec<(String, Value)> {
        self.state.requests.lock().expect("whole").clone()
    }

    fn events(&self) -> Vec<Value> {
        self.state.events.lock().expect("whole").clone()
    }

    /// The events of a kind, once there are so many.
    fn await_events(&self, kind: &str, count: usize) -> Vec<Value> {
        wait_for(kind, || {
            let mut events = self.events();
            events.retain(|event| event["event"] == kind);
            (events.len() >= count).then_some(events)
        })
    }
}

fn serve(mut reader: BufReader<std::net::TcpStream>, state: &State) {
    while let Ok(Some((head, body))) = read_request(&mut reader) {
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        std::thread::sleep(Duration::from_millis(state.delay_ms.load(SeqCst).into()));
        let status = state.status.load(SeqCst);
        if status == 200 {
            let events = body["events"].as_array().expect("a list").clone();
            state.events.lock().expect("whole").extend(events);
        }
        state.requests.lock().expect("whole").push((head, body));
        let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 2\r\n\r\n{{}}");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A webhook for these events, with more keys.
fn hook(name: &str, address: &str, events: &str, more: &str) -> String {
    format!(
        "[[webhooks]]\nname = \"{name}\"\nurl = \"http://{address}/in?key=1\"\nevents = [{events}]\n\
         linger_ms = 5\nbackoff_ms = 20\n{more}\n"
    )
}

fn start(name: &str, hooks: &str, flags: &str) -> Broker {
    Broker::with(Folder::new(name), &format!("{CONFIG}{hooks}"), flags)
}

fn status(broker: &Broker, name: &str) -> Value {
    let answer = broker.ask(Role::Read, "GET", "/api/v1/webhooks", "").json();
    let all = answer["webhooks"].as_array().expect("a list").clone();
    all.into_iter().find(|of| of["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

fn await_status(broker: &Broker, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || Some(status(broker, name)).filter(&holds))
}

const ALL: &str = "\"connect\", \"disconnect\", \"subscribe\", \"unsubscribe\", \"publish\"";

#[test]
fn a_webhook_gets_what_a_client_does_in_its_order_on_every_executor() {
    for flags in EXECUTORS {
        let server = Server::start();
        let more = "filters = [\"a/+\", \"b\"]\ntoken = \"secret\"\nheaders = { X-Site = \"9\" }\n";
        let broker = start("hooks", &hook("all", &server.address, ALL, more), flags);
        let (mut client, _) = Mqtt::connect(&broker, "client", None);
        client.send(&packets::subscribe("x/#", Qos::AtLeastOnce, Version::V5));
        client.expect("Suback", "");
        client.publish("a/1", Qos::AtLeastOnce, 1, true);
        client.expect("Puback", "");
        client.publish("a/1/2", Qos::AtLeastOnce, 2, false);
        client.expect("Puback", "");
        client.publish_with("b", b"\xFF\x00", Qos::AtMostOnce, 0, false);
        client.send(&[0xA2, 8, 0, 9, 0, 0, 3, b'x', b'/', b'#']);
        client.expect("Unsuback", "");
        client.send(&[0xE0, 0]);
        server.await_events("disconnect", 1);
        let events = server.events();
        let kinds: Vec<_> = events.iter().map(|of| of["event"].as_str().expect("text")).collect();
        let expected = ["connect", "subscribe", "publish", "publish", "unsubscribe", "disconnect"];
        assert_eq!(kinds, expected, "{flags}: {events:#?}");
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["client"], "client", "{flags}: {event}");
            assert_eq!(event["sequence"], number, "{flags}: {event}");
            assert_eq!(event["core"], events[0]["core"], "{flags}: {event}");
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let age = now.expect("after 1970").as_millis() as i64
                - event["at_ms"].as_i64().expect("a number");
            assert!((-1_000..60_000).contains(&age), "{flags}: {age}");
        }
        let [connect, subscribe, text, binary, unsubscribe, disconnect] = &events[..] else {
            panic!("{events:#?}")
        };
        assert_eq!(
            (&connect["version"], &connect["session_present"]),
            (&json!("5.0"), &json!(false))
        );
        assert_eq!(connect["listener"], "127.0.0.1:0", "as it is configured");
        assert!(connect["address"].as_str().expect("text").starts_with("127.0.0.1:"));
        assert_eq!((&subscribe["filter"], &subscribe["qos"]), (&json!("x/#"), &json!(1)));
        assert_eq!((&text["topic"], &text["payload"]), (&json!("a/1"), &json!("x")));
        assert_eq!((&text["retain"], &text["payload_bytes"]), (&json!(true), &json!(1)));
        assert_eq!((&binary["payload_base64"], &binary["qos"]), (&json!("/wA="), &json!(0)));
        assert_eq!(
            (&unsubscribe["filter"], &disconnect["cause"]),
            (&json!("x/#"), &json!("client-disconnected"))
        );
        let (head, body) = &server.requests()[0];
        assert!(head.starts_with("POST /in?key=1 HTTP/1.1\r\n"), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains("authorization: bearer secret\r\n"), "{head}");
        assert!(head.contains("x-site: 9\r\n") && head.contains("application/json"), "{head}");
        assert_eq!(body["webhook"], "all");
        let found = await_status(&broker, "all", "sent", |of| of["sent"] == 6);
        assert_eq!((&found["queued"], &found["queued_bytes"]), (&json!(0), &json!(0)), "{found}");
        assert_eq!(found["url"], format!("http://{}/in?…", server.address));
        let config = broker.ask(Role::Read, "GET", "/api/v1/config", "");
        let config = String::from_utf8(config.body).expect("text");
        assert!(config.contains("webhooks[0].headers.X-Site") && !config.contains("\"secret\""));
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn a_server_that_is_down_delays_nobody_and_gets_the_events_when_it_is_back() {
    let reserved = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = reserved.local_addr().expect("it listens").to_string();
    drop(reserved);
    let more = "filters = [\"#\"]\nretries_max = 1000\nbatch_events = 10\n";
    let broker =
        start("down", &hook("down", &address, "\"publish\"", more), "--mode poll --cores 2");
    let (mut client, _) = Mqtt::connect(&broker, "client", None);
    for number in 1..=100 {
        let begin = Instant::now();
        client.publish_with("t", number.to_string().as_bytes(), Qos::AtLeastOnce, number, false);
        client.expect("Puback", "");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
    let found = await_status(&broker, "down", "a failure", |of| of["failing"] == true);
    assert!(found["error"].as_str().expect("text").contains("refused"), "{found}");
    assert_eq!(found["queued"], 100, "{found}");
    broker.wait_for_log("the failure", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("webhook: a request failed"))
    });
    let server = Server::at(TcpListener::bind(&address).expect("the port is free again"));
    let events = server.await_events("publish", 100);
    let payloads: Vec<_> = events.iter().map(|of| of["payload"].as_str().expect("text")).collect();
    assert_eq!(payloads, (1..=100).map(|n: u32| n.to_string()).collect::<Vec<_>>(), "in order");
    let found = await_status(&broker, "down", "no failure", |of| of["failing"] == false);
    assert!(found["retried"].as_u64().expect("a number") > 0, "{found}");
    assert_eq!((&found["sent"], &found["dropped_failed"]), (&json!(100), &json!(0)), "{found}");
    assert!(broker.stop());
}

#[test]
fn a_server_that_always_fails_loses_its_events_after_the_last_repetition_and_they_are_counted() {
    let server = Server::start();
    server.answer_with(500);
    let hooks = hook("failing", &server.address, "\"connect\"", "retries_max = 2\n");
    let broker = start("failing", &hooks, "--mode poll");
    let _client = Mqtt::connect(&broker, "a", None);
    let found = await_status(&broker, "failing", "dropped", |of| of["dropped_failed"] == 1);
    assert_eq!((&found["retried"], &found["queued"]), (&json!(2), &json!(0)), "{found}");
    assert_eq!(server.requests().len(), 3, "once, and two repetitions");
    assert!(found["error"].as_str().expect("text").contains("status 500"), "{found}");
    // What a server refuses is not repeated.
    server.answer_with(422);
    let _other = Mqtt::connect(&broker, "b", None);
    let found = await_status(&broker, "failing", "refused", |of| of["dropped_refused"] == 1);
    assert_eq!(found["retried"], 2, "{found}");
    let metrics = String::from_utf8(broker.ask(Role::Read, "GET", "/metrics", "").body);
    let metrics = metrics.expect("text");
    for sample in [
        "ringmq_webhook_events_dropped_total{webhook=\"failing\",cause=\"failed\"} 1",
        "ringmq_webhook_events_dropped_total{webhook=\"failing\",cause=\"refused\"} 1",
        "ringmq_webhook_requests_retried_total{webhook=\"failing\"} 2",
        "ringmq_webhook_failing{webhook=\"failing\"} 1",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in {metrics}");
    }
    assert!(broker.stop());
}

#[test]
fn a_flood_for_a_slow_server_fills_the_queue_delays_no_core_and_every_event_is_counted() {
    const MESSAGES: u16 = 20_000;
    for flags in ["--mode poll --cores 2", "--mode sync"] {
        let (slow, fast) = (Server::start(), Server::start());
        slow.delay_by(1_000);
        let hooks = [
            hook("slow", &slow.address, "\"publish\"", "filters = [\"#\"]\nqueue_events = 500\n"),
            hook(
                "fast",
                &fast.address,
                "\"publish\"",
                "filters = [\"#\"]\nqueue_events = 1000000\nqueue_bytes = 1000000000\nbatch_events = 1000\n",
            ),
        ];
        let broker = start("flood", &hooks.concat(), flags);
        let (mut client, _) = Mqtt::connect(&broker, "client", None);
        let begin = Instant::now();
        for number in 1..=MESSAGES {
            let qos = if number == MESSAGES { Qos::AtLeastOnce } else { Qos::AtMostOnce };
            client.publish_with("t", &[b'x'; 100], qos, number, false);
        }
        client.expect("Puback", "");
        let took = begin.elapsed();
        let found = status(&broker, "slow");
        let (queued, dropped) = (&found["queued"], &found["dropped_full"]);
        let sum = |of: &Value| {
            let sum =
                ["queued", "sent", "dropped_full"].map(|key| of[key].as_u64().expect("a number"));
            sum.iter().sum::<u64>()
        };
        assert!(queued.as_u64().expect("a number") <= 500, "{flags}: {found}");
        assert!(dropped.as_u64().expect("a number") > 15_000, "{flags}: {found}");
        assert_eq!(sum(&found), u64::from(MESSAGES), "{flags}: {found}");
        // The other webhook does not wait for this one, and loses nothing.
        let events = fast.await_events("publish", MESSAGES.into());
        assert_eq!(events.len(), usize::from(MESSAGES), "{flags}");
        let order = events.iter().enumerate().find(|(number, of)| of["sequence"] != *number);
        assert_eq!(order, None, "{flags}");
        assert!(took < Duration::from_secs(15), "{flags}: {took:?}");
        slow.delay_by(0);
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn a_reload_changes_webhooks_by_name_and_one_error_changes_nothing() {
    let (first, second) = (Server::start(), Server::start());
    first.answer_with(503);
    let kept = |address: &str| {
        hook("kept", address, "\"connect\"", "retries_max = 100\nbackoff_ms = 30000\n")
    };
    let kept = |address: &str| kept(address).replacen("backoff_ms = 20\n", "", 1);
    let gone = hook("gone", &second.address, "\"connect\"", "");
    let broker = start("reload", &(kept(&first.address) + &gone), "--mode poll --cores 2");
    let _a = Mqtt::connect(&broker, "a", None);
    await_status(&broker, "kept", "a failure", |of| of["failing"] == true);
    write(
        &broker,
        &format!(
            "{}[[webhooks]]\nname = \"bad\"\nurl = \"x\"\nevents = [\"connect\"]\n",
            kept(&second.address)
        ),
    );
    let outcome = reload(&broker, "");
    let error = &outcome["errors"][0];
    assert_eq!((&error["key"], &outcome["applied"]), (&json!("webhooks[1]"), &json!([])));
    assert!(error["what"].as_str().expect("text").contains("a URL such as"), "{error}");
    assert_eq!(status(&broker, "gone")["failing"], false, "it is still there");
    // The event that waits for another try goes to the new server at once.
    let new = hook("new", &second.address, "\"disconnect\"", "");
    let keys = change(&broker, &(kept(&second.address) + &new));
    assert!(keys.iter().any(|key| key == "webhooks[0].url"), "{keys:?}");
    let a = second.await_events("connect", 2);
    assert!(a.iter().all(|of| of["client"] == "a"), "one of each webhook: {a:#?}");
    let (mut b, _) = Mqtt::connect(&broker, "b", None);
    b.send(&[0xE0, 0]);
    // One by each webhook.
    wait_for("connect and disconnect", || {
        let of_b = second.events().into_iter().filter(|of| of["client"] == "b").count();
        (of_b == 2).then_some(())
    });
    let answer = broker.ask(Role::Read, "GET", "/api/v1/webhooks", "").json();
    assert_eq!(answer["webhooks"].as_array().expect("a list").len(), 2);
    // None at all.
    change(&broker, "");
    let _c = Mqtt::connect(&broker, "c", None);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!second.events().iter().any(|of| of["client"] == "c"));
    assert!(broker.stop());
}

#[test]
fn what_waits_at_a_stop_is_sent_for_a_limited_time() {
    let server = Server::start();
    let more = "linger_ms = 60000\n";
    let hooks = hook("stop", &server.address, "\"connect\", \"disconnect\"", more).replacen(
        "linger_ms = 5\n",
        "",
        1,
    );
    let broker = start("stop", &hooks, "--mode poll --cores 2");
    let _client = Mqtt::connect(&broker, "a", None);
    await_status(&broker, "stop", "an event", |of| of["queued"] == 1);
    assert!(broker.stop());
    let kinds: Vec<_> = server.events().iter().map(|of| of["event"].clone()).collect();
    assert_eq!(kinds, ["connect", "disconnect"], "the end of the connection included");

    server.delay_by(60_000);
    let broker = start("stop", &hooks, "--mode poll");
    let _client = Mqtt::connect(&broker, "a", None);
    await_status(&broker, "stop", "an event", |of| of["queued"] == 1);
    let begin = Instant::now();
    assert!(broker.stop());
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
}
