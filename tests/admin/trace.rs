//! Traces over HTTP and by `broker ctl`: what they show, who may read them, and how they end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringmq::admin::openapi;
use ringmq::config::Role;
use ringmq::wire::{Packet, Publish, Qos};
use serde_json::Value;

use crate::clients::Mqtt;
use crate::folder::Folder;
use crate::schema;
use crate::support::{Broker, CONFIG, EXECUTORS, PATIENCE, wait_for};

/// The reader of a trace.
struct Reader {
    stream: BufReader<UnixStream>,
    head: String,
    /// What is left of the chunk that is read.
    left: usize,
}

impl Reader {
    fn open(broker: &Broker, query: &str, more: &str) -> Self {
        let mut stream = UnixStream::connect(broker.socket()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let request =
            format!("GET /api/v1/trace?{query} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut reader = Self { stream: BufReader::new(stream), head: String::new(), left: 0 };
        loop {
            let mut line = String::new();
            assert!(reader.stream.read_line(&mut line).expect("text") > 0, "{}", reader.head);
            if line == "\r\n" {
                return reader;
            }
            reader.head += &line;
        }
    }

    fn start(broker: &Broker, query: &str) -> Self {
        let reader = Self::open(broker, query, "");
        assert!(reader.head.starts_with("HTTP/1.1 200"), "{}", reader.head);
        assert!(reader.head.contains("application/x-ndjson"), "{}", reader.head);
        reader
    }

    /// The next byte of the content; none at its end.
    fn byte(&mut self) -> Option<u8> {
        if self.left == 0 {
            let mut size = String::new();
            self.stream.read_line(&mut size).expect("text");
            if size == "\r\n" {
                size.clear();
                self.stream.read_line(&mut size).expect("text");
            }
            self.left = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0)?;
        }
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("a chunk");
        self.left -= 1;
        Some(byte[0])
    }

    fn text_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Some(String::from_utf8(line).expect("text")),
                byte => line.push(byte),
            }
        }
    }

    fn line(&mut self) -> Option<Value> {
        self.text_line().map(|line| serde_json::from_str(&line).expect("JSON"))
    }

    fn rest(mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.line()).collect()
    }
}

/// Direction, type and topic of an event.
fn shown(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    format!("{} {} {}", text("direction"), text("packet"), text("topic")).trim_end().to_owned()
}

#[test]
fn a_trace_shows_a_client_that_connects_later_on_every_executor() {
    let document = openapi::document();
    let content = &document["paths"]["/api/v1/trace"]["get"]["responses"]["200"]["content"];
    let schema = &content["application/x-ndjson"]["schema"];
    assert_eq!(schema, &content["text/event-stream"]["schema"]);
    for flags in EXECUTORS {
        let broker = Broker::start("trace", flags);
        let trace = Reader::start(&broker, "client=device&payload=3&seconds=2");
        let mut other = Mqtt::connect(&broker, "other");
        let mut device = Mqtt::connect(&broker, "device");
        device.subscribe("t/#");
        other.publish("t/1", b"payload", false);
        assert!(device.packet().starts_with("Publish"));
        let begun = Instant::now();
        let events = trace.rest();
        assert!(begun.elapsed() < PATIENCE);
        for event in &events {
            schema::check(&document, schema, event).unwrap_or_else(|what| panic!("{what}"));
        }
        let lines: Vec<String> = events.iter().map(shown).collect();
        let expected = [
            "received CONNECT",
            "sent CONNACK",
            "received SUBSCRIBE",
            "sent SUBACK",
            "sent PUBLISH t/1",
            "",
        ];
        assert_eq!(lines, expected, "{flags}: {events:#?}");
        let (publish, end) = (&events[4], &events[5]);
        assert_eq!((&publish["text"], &publish["payload_bytes"]), (&"pay".into(), &7.into()));
        assert_eq!((&publish["client_id"], &publish["qos"]), (&"device".into(), &1.into()));
        assert!(publish["address"].as_str().is_some_and(|of| of.starts_with("127.0.0.1:")));
        assert_eq!((&end["event"], &end["why"]), (&"end".into(), &"time".into()));
        assert_eq!(end["events"], 5);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.expect("after 1970").as_secs_f64() - publish["at"].as_f64().expect("a time");
        assert!((0.0..60.0).contains(&age), "{age}");
    }
}

#[test]
fn a_trace_is_sent_as_events_to_those_who_accept_them() {
    let broker = Broker::start("trace-events", "--mode poll");
    let mut trace = Reader::open(&broker, "topic=t", "Accept: text/event-stream\r\n");
    assert!(trace.head.contains("text/event-stream"), "{}", trace.head);
    let mut client = Mqtt::connect(&broker, "c");
    client.publish("other", b"x", false);
    client.publish("t", b"x", false);
    assert_eq!(trace.text_line().as_deref(), Some("event: packet"));
    let data = trace.text_line().expect("data");
    let event: Value =
        serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(shown(&event), "received PUBLISH t");
    assert_eq!(trace.text_line().as_deref(), Some(""));
}

#[test]
fn a_trace_needs_the_role_operate_and_sound_parameters_and_is_in_the_audit_log() {
    let broker = Broker::start("trace-roles", "--mode poll");
    let status =
        |role, query: &str| broker.ask(role, "GET", &format!("/api/v1/trace?{query}"), "").status;
    assert_eq!(status(Role::Read, "client=x"), 403);
    for wrong in [
        "topic=a/%23/b",
        "topic=$share/g/t",
        "address=nowhere",
        "payload=65537",
        "seconds=0",
        "seconds=3601",
        "nonsense=1",
    ] {
        assert_eq!(status(Role::Admin, wrong), 400, "{wrong}");
    }
    drop(Reader::start(&broker, "client=audited&seconds=60"));
    broker.wait_for_log("an audit line", |line| {
        let is_of =
            |name: &str, text: &str| line[name].as_str().is_some_and(|of| of.contains(text));
        is_of("message", "admin interface") && is_of("what", "GET /api/v1/trace?client=audited")
    });
}

#[test]
fn four_traces_run_at_a_time_and_end_when_their_readers_go_or_the_broker_stops() {
    let broker = Broker::start("trace-four", "--mode poll --cores 2");
    let open = || Reader::open(&broker, "seconds=600", "");
    let mut traces: Vec<Reader> = (0..4).map(|_| open()).collect();
    assert!(traces.iter().all(|trace| trace.head.starts_with("HTTP/1.1 200")));
    let fifth = open();
    assert!(fifth.head.starts_with("HTTP/1.1 503"), "{}", fifth.head);
    traces.pop().expect("four").stream.get_ref().shutdown(Shutdown::Both).expect("open");
    let mut again = wait_for("a place is free", || {
        let trace = open();
        trace.head.starts_with("HTTP/1.1 200").then_some(trace)
    });
    broker.signal("-TERM");
    // The broker does not wait for traces, so that the last line may be missing.
    let last = std::iter::from_fn(|| again.line()).last();
    assert!(last.is_none_or(|last| last["event"] == "end" && last["why"] == "stopping"));
    assert!(broker.wait(), "the broker ends well");
}

#[test]
fn a_reader_that_does_not_read_is_cut_and_the_broker_serves_on() {
    let broker = Broker::start("trace-slow", "--mode poll");
    let trace = Reader::start(&broker, "seconds=600&payload=60000");
    let mut client = Mqtt::connect(&broker, "c");
    let payload = "x".repeat(50_000);
    let begun = Instant::now();
    while !broker.log.lock().expect("no panic").iter().any(|line| {
        line["message"].as_str().is_some_and(|text| text.contains("its reader is too slow"))
    }) {
        assert!(begun.elapsed() < 3 * PATIENCE);
        client.publish("t", payload.as_bytes(), false);
    }
    client.publish("t", b"still served", false);
    let events = trace.rest();
    assert!(events.iter().all(|event| event["event"] != "end"), "the trace was cut");
    let metrics = broker.unix().ask("GET", "/metrics", &[], "");
    let metrics = String::from_utf8(metrics.body).expect("text");
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).expect("a metric");
        line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
    };
    assert!(value("ringmq_trace_events_total ") > 20.0);
    assert_eq!(value("ringmq_traces_running "), 0.0);
}

#[test]
fn ctl_trace_prints_a_line_for_each_event() {
    let broker = Broker::start("trace-ctl", "--mode poll --cores 2");
    let at = format!("unix:{}", broker.socket().display());
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["ctl", "--at", &at]).args(more);
        command.args(["trace", "--client", "device", "--seconds", "2"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it runs")
    };
    let (people, program) = (run(&[]), run(&["--json"]));
    wait_for("both traces run", || {
        let log = broker.log.lock().expect("no panic");
        let is_begun =
            |line: &&Value| line["what"].as_str().is_some_and(|what| what.contains("/trace"));
        (log.iter().filter(is_begun).count() == 2).then_some(())
    });
    let mut device = Mqtt::connect(&broker, "device");
    device.publish("t", b"x", false);
    let output = |child: std::process::Child| {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let (people, program) = (output(people), output(program));
    let lines: Vec<&str> = people.lines().collect();
    assert_eq!(lines.len(), 5, "{people}");
    assert!(lines[2].contains("device -> PUBLISH \"t\" qos=1 id=1"), "{people}");
    assert!(lines[3].contains("device <- PUBACK id=1 bytes=5 reason=0x10"), "{people}");
    assert_eq!(lines[4], "end (time): 4 events");
    let events: Vec<Value> =
        program.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(shown(&events[2]), "received PUBLISH t");
}

/// Descriptors that this process and the broker may open.
fn descriptors() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(4)?.parse().ok()).unwrap_or(1_024)
}

#[test]
fn a_trace_of_one_client_among_10_000_misses_no_event_at_1_000_a_second() {
    // A CONNECT is written by a thread of its own core, so that the clients come quickly.
    let clients = 10_000.min(descriptors().saturating_sub(500)) as usize;
    let folder = Folder::new("trace-10-000");
    let config = CONFIG.replacen("[storage]", "[limits]\nconnections_max = 10100\n[storage]", 1);
    let broker = Broker::with(folder, &config, "--mode poll --cores 2");
    let others: Vec<TcpStream> = (0..clients - 1)
        .map(|number| {
            let mut stream = TcpStream::connect(&broker.mqtt).expect("it listens");
            let connect =
                crate::packets::connect(&format!("client-{number}"), ringmq::wire::Version::V5);
            stream.write_all(&connect).expect("the broker reads");
            stream
        })
        .collect();
    let mut traced = Mqtt::connect(&broker, "traced");
    wait_for("all clients are connected", || {
        let status = broker.unix().ask("GET", "/api/v1/status", &[], "").json();
        (status["clients_connected"].as_u64() == Some(clients as u64)).then_some(())
    });
    let trace = Reader::start(&broker, "client=traced&seconds=7");
    let begun = Instant::now();
    let publish = Packet::Publish(Publish {
        topic: "t",
        payload: b"x",
        qos: Qos::AtMostOnce,
        ..Default::default()
    });
    const SECONDS: u32 = 5;
    for number in 0..1_000 * SECONDS {
        let due = begun + Duration::from_millis(number.into());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        traced.send(&publish);
    }
    let took = begun.elapsed();
    let events = trace.rest();
    let published = events.iter().filter(|event| shown(event) == "received PUBLISH t").count();
    assert_eq!(published, 1_000 * SECONDS as usize, "{:?} in {took:?}", events.last());
    assert!(events.iter().all(|event| event["event"] != "missed"));
    assert_eq!(events.last().expect("an end")["event"], "end");
    assert!(took < Duration::from_secs(7), "the rate was 1,000 a second: {took:?}");
    drop(others);
}
