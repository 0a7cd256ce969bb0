//! Statistics as operators see them: on every executor, on several cores, on a signal, at intervals
//! and at exit. They are compared with the actions of clients.
#![cfg(unix)]

#[cfg(feature = "admin")]
#[path = "support/folder.rs"]
mod folder;
#[path = "support/uninterrupted.rs"]
mod uninterrupted;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use ringmq::wire::{Frame, frame};
use serde_json::Value;
use uninterrupted::uninterrupted;

/// Timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(20);

struct Broker {
    child: Child,
    address: SocketAddr,
    statistics: BufReader<ChildStdout>,
}

impl Broker {
    fn start(flags: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        command.args(flags.split_whitespace());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("text") > 0, "{flags}: the broker exited");
            let event: Value = serde_json::from_str(&line).expect("JSON");
            if event["message"] == "listening" {
                break event["address"].as_str().expect("text").parse().expect("address");
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let statistics = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, address, statistics }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// The next report.
    fn json(&mut self) -> Value {
        let mut line = String::new();
        self.statistics.read_line(&mut line).expect("text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// All remaining output, after a stop.
    fn rest(mut self) -> String {
        self.signal("-TERM");
        let mut rest = String::new();
        self.statistics.read_to_string(&mut rest).expect("text");
        assert_eq!(self.child.wait().expect("the process exits").code(), Some(0));
        rest
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A 3.1.1 client.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, name: &str) -> Self {
        Self::connect_with(address, name, 2)
    }

    /// Connects with these Connect Flags.
    fn connect_with(address: SocketAddr, name: &str, flags: u8) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut client = Self { stream, read: Vec::new() };
        let body = [&text("MQTT")[..], &[4, flags, 0, 0], &text(name)].concat();
        client.say(0x10, &body);
        assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        client
    }

    fn say(&mut self, first: u8, body: &[u8]) {
        assert!(body.len() < 128);
        let packet = [&[first, body.len() as u8], body].concat();
        self.stream.write_all(&packet).expect("sent");
    }

    fn subscribe(&mut self, filter: &str) {
        self.say(0x82, &[&[0, 1][..], &text(filter), &[0]].concat());
        assert_eq!(self.packet(), [0x90, 3, 0, 1, 0]);
    }

    /// Publishes a message; returns when the exchange is complete.
    fn publish(&mut self, qos: u8, identifier: u16) {
        let identifier = identifier.to_be_bytes();
        let identified: &[u8] = if qos > 0 { &identifier } else { &[] };
        self.say(0x30 | qos << 1, &[&text("t/1"), identified, b"payload"].concat());
        if qos == 1 {
            assert_eq!(self.packet()[..2], [0x40, 2]);
        } else if qos == 2 {
            assert_eq!(self.packet()[..2], [0x50, 2]);
            self.say(0x62, &identifier);
            assert_eq!(self.packet()[..2], [0x70, 2]);
        }
    }

    fn packet(&mut self) -> Vec<u8> {
        loop {
            if let Ok(Frame::Complete { total, .. }) = frame(&self.read, usize::MAX) {
                return self.read.drain(..total).collect();
            }
            let mut bytes = [0; 4096];
            let count = uninterrupted(|| self.stream.read(&mut bytes)).expect("in time");
            assert!(count > 0, "the connection was closed");
            self.read.extend_from_slice(&bytes[..count]);
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Messages of each QoS per publisher that [`traffic`] publishes.
const MESSAGES: [u64; 3] = [30, 20, 10];
const PUBLISHERS: u64 = 6;
const SUBSCRIBERS: u64 = 3;
const CLIENTS: u64 = PUBLISHERS + SUBSCRIBERS;

/// Some publishers and subscribers, whose names are spread over the cores; returns all of them,
/// connected.
fn traffic(address: SocketAddr) -> Vec<Client> {
    let connect = |n| Client::connect(address, &format!("client {n}"));
    let mut clients: Vec<Client> = (0..CLIENTS).map(connect).collect();
    let (subscribers, publishers) = clients.split_at_mut(SUBSCRIBERS as usize);
    subscribers.iter_mut().for_each(|client| client.subscribe("t/#"));
    for publisher in publishers {
        for (qos, count) in MESSAGES.into_iter().enumerate() {
            (0..count).for_each(|n| publisher.publish(qos as u8, n as u16 + 1));
        }
    }
    for subscriber in subscribers {
        (0..PUBLISHERS * MESSAGES.iter().sum::<u64>()).for_each(|_| {
            assert_eq!(subscriber.packet()[0], 0x30);
        });
    }
    clients
}

fn count(of: &Value, kind: &str) -> u64 {
    of["latency_ns"][kind]["count"].as_u64().unwrap_or(0)
}

fn number(of: &Value, section: &str, name: &str) -> u64 {
    of[section][name].as_u64().unwrap_or_else(|| panic!("{section}.{name} in {of}"))
}

/// Checks a report of everything since the start, after [`traffic`].
fn agrees(report: &Value, cores: usize, flags: &str) {
    let published: u64 = PUBLISHERS * MESSAGES.iter().sum::<u64>();
    for (qos, messages) in MESSAGES.into_iter().enumerate() {
        let taken = PUBLISHERS * messages;
        assert_eq!(count(report, &format!("publish-qos{qos}")), taken, "{flags}, QoS {qos}");
        assert_eq!(report["publishes_received_by_qos"][qos], taken, "{flags}");
    }
    assert_eq!(count(report, "connect"), CLIENTS, "{flags}");
    assert_eq!(number(report, "counters", "publishes_received"), published, "{flags}");
    assert_eq!(number(report, "counters", "publishes_sent"), published * SUBSCRIBERS, "{flags}");
    assert_eq!(number(report, "counters", "connections_accepted"), CLIENTS, "{flags}");
    assert!(report["latency_ns"].get("storage-commit").is_none(), "{flags}: there is no store");
    let each = report["cores"].as_array().expect("a list");
    assert_eq!(each.len(), cores, "{flags}");
    for (kind, latency) in report["latency_ns"].as_object().expect("an object") {
        let sum: u64 = each.iter().map(|core| count(core, kind)).sum();
        assert_eq!(sum, latency["count"].as_u64().expect("a number"), "{flags}: {kind}");
        let at = |name: &str| latency[name].as_u64().expect("a number");
        let rising = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(at);
        assert!(rising.is_sorted() && rising[6] < PATIENCE.as_nanos() as u64, "{flags}: {latency}");
        let slowest = each.iter().filter_map(|core| core["latency_ns"][kind]["max"].as_u64()).max();
        assert_eq!(slowest, Some(rising[6]), "{flags}: {kind}");
    }
    for name in ["publishes_received", "bytes_received", "bytes_sent", "turns"] {
        let sum: u64 = each.iter().map(|core| number(core, "counters", name)).sum();
        assert_eq!(sum, number(report, "counters", name), "{flags}: {name}");
    }
    let crossed: u64 = (0..3).map(|qos| count(report, &format!("forwarded-qos{qos}"))).sum();
    // All clients may happen to have the same home core: then no message crosses.
    let homes = each.iter().filter(|core| count(core, "connect") > 0).count();
    assert_eq!(crossed > 0, homes > 1, "{flags}");
    assert_eq!(count(report, "hop") > 0, cores > 1, "{flags}");
}

fn check(flags: &str, cores: usize) {
    let mut broker = Broker::start(&format!("{flags} --stats --stats-format json"));
    let clients = traffic(broker.address);
    broker.signal("-USR1");
    let asked = broker.json();
    assert_eq!(asked["why"], "asked", "{flags}");
    assert_eq!(number(&asked, "gauges", "clients_connected"), CLIENTS, "{flags}");
    agrees(&asked, cores, flags);
    drop(clients);
    // Everything since the start again: a report does not reset the counters.
    let exit: Value = serde_json::from_str(&broker.rest()).expect("one line");
    assert_eq!(exit["why"], "exit", "{flags}");
    agrees(&exit, cores, flags);
}

#[test]
fn counts_agree_with_what_clients_did_on_one_core() {
    for flags in ["--mode auto", "--mode poll", "--mode sync", "--mode sync --executor poll"] {
        check(flags, 1);
    }
}

#[test]
fn counts_agree_with_what_clients_did_on_several_cores() {
    check("--mode auto --cores 2", 2);
    check("--mode poll --cores 2", 2);
    check("--mode auto --cores 4", 4);
}

#[cfg(all(feature = "monoio", target_os = "linux"))]
#[test]
fn counts_agree_with_what_clients_did_under_monoio() {
    check("--executor monoio", 1);
    check("--executor monoio --cores 2", 2);
}

#[cfg(all(feature = "glommio", target_os = "linux"))]
#[test]
fn counts_agree_with_what_clients_did_under_glommio() {
    check("--executor glommio", 1);
    check("--executor glommio --cores 2", 2);
}

#[test]
fn intervals_cover_only_their_own_events_and_add_up() {
    let mut broker = Broker::start("--cores 2 --stats=1 --stats-format json");
    let clients = traffic(broker.address);
    let (mut published, mut connects) = (0, 0);
    // A report on request does not shorten an interval.
    broker.signal("-USR1");
    let all = PUBLISHERS * MESSAGES.iter().sum::<u64>();
    while published < all {
        let report = broker.json();
        if report["why"] == "interval" {
            let span_s = report["span_s"].as_f64().expect("a number");
            assert!((0.5..10.0).contains(&span_s), "{span_s}");
            published +=
                (0..3).map(|qos| count(&report, &format!("publish-qos{qos}"))).sum::<u64>();
            connects += count(&report, "connect");
        } else {
            assert_eq!(report["why"], "asked");
        }
    }
    assert_eq!((published, connects), (all, CLIENTS));
    let quiet = loop {
        let report = broker.json();
        if report["why"] == "interval" {
            break report;
        }
    };
    assert_eq!(number(&quiet, "counters", "publishes_received"), 0);
    assert_eq!(count(&quiet, "publish-qos0") + count(&quiet, "connect"), 0);
    assert_eq!(number(&quiet, "gauges", "clients_connected"), CLIENTS);
    drop(clients);
}

#[cfg(feature = "store")]
#[test]
fn waiting_for_the_disk_is_measured() {
    let folder = std::env::temp_dir().join(format!("ringmq-stats-{}", std::process::id()));
    let data = folder.to_str().expect("text");
    let broker = Broker::start(&format!("--stats --stats-format json --data {data}"));
    // Without Clean Session: CONNACK and SUBACK wait for the store.
    let mut client = Client::connect_with(broker.address, "kept", 0);
    client.subscribe("t/#");
    let report: Value = serde_json::from_str(broker.rest().trim()).expect("JSON");
    let latency = &report["latency_ns"]["storage-commit"];
    assert!(latency["count"].as_u64() >= Some(2) && latency["max"].as_u64() > Some(0), "{report}");
    std::fs::remove_dir_all(folder).expect("the folder exists");
}

#[test]
fn a_table_contains_the_same_counts() {
    let broker = Broker::start("--stats");
    drop(traffic(broker.address));
    let table = broker.rest();
    for part in [
        "1 core",
        "at exit",
        "99.99 %",
        "PUBLISH, QoS 0                     180",
        "PUBLISH, QoS 2                      60",
        "CONNECT to CONNACK                   9",
        "messages (PUBLISH)                 360",
        "1,080",
        "dropped                 nothing",
        "PUBLISH, QoS 1, by µs",
        "█",
    ] {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
}

/// Histograms in files for other tools.
#[test]
fn histograms_are_written_for_other_tools() {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let folder = std::env::temp_dir().join(format!("ringmq-stats-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let log = folder.join("broker.hlog");
    let flags = format!("--cores 2 --stats=1 --stats-log {}", log.display());
    let broker = Broker::start(&flags);
    drop(traffic(broker.address));
    broker.rest();
    let text = std::fs::read(&log).expect("written");
    let mut tags = Vec::new();
    for entry in IntervalLogIterator::new(&text) {
        if let LogEntry::Interval(interval) = entry.expect("well formed") {
            assert!(interval.max() > 0.0 && interval.encoded_histogram().starts_with("HISTFAAA"));
            tags.push(interval.tag().expect("a tag").as_str().to_owned());
        }
    }
    for tag in ["publish-qos0", "publish-qos1", "publish-qos2", "connect", "core1-turn", "hop"] {
        assert!(tags.iter().any(|of| of == tag), "{tag} in {tags:?}");
    }
    let file = |name: &str| std::fs::read_to_string(folder.join(name)).expect("written");
    assert!(file("broker.publish-qos1.hgrm").contains("Total count    =          120]"));
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_signal_is_ignored_without_statistics() {
    let broker = Broker::start("");
    broker.signal("-USR1");
    drop(traffic(broker.address));
    assert_eq!(broker.rest(), "");
}

#[test]
fn a_closed_statistics_pipe_does_not_stop_the_broker() {
    let mut broker = Broker::start("--stats=1 --stats-format json");
    broker.json();
    // The pipe is closed: later output has no reader.
    let closed = std::mem::replace(&mut broker.statistics, BufReader::new(closed_pipe()));
    drop(closed);
    broker.signal("-USR1");
    std::thread::sleep(Duration::from_millis(1_200));
    drop(traffic(broker.address));
    broker.signal("-TERM");
    assert_eq!(broker.child.wait().expect("the process exits").code(), Some(0));
}

/// The read end of a pipe that is at its end.
fn closed_pipe() -> ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().expect("true runs");
    child.wait().expect("the process exits");
    child.stdout.take().expect("piped")
}

#[test]
fn an_unwritable_file_is_named_at_start() {
    let file = PathBuf::from("/nonexistent/broker.hlog");
    let output = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["--listen", "127.0.0.1:0", "--stats", "--stats-log"])
        .arg(&file)
        .output()
        .expect("the command runs");
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{says}");
    for part in ["--stats-log", "/nonexistent/broker.hlog", "folder"] {
        assert!(says.contains(part), "{part:?} in {says}");
    }
}

#[test]
#[cfg(feature = "admin")]
fn a_reload_begins_changes_and_ends_statistics() {
    let folder = folder::Folder::new("live");
    let (config, log) = (folder.0.join("broker.toml"), folder.0.join("a.hlog"));
    let write = |stats: &str| {
        let socket = folder.0.join("admin.sock");
        let text = format!("[admin]\nlisten = [\"unix:{}\"]\n{stats}", socket.display());
        std::fs::write(&config, text).expect("written");
    };
    for flags in ["--mode poll --cores 2", "--mode sync"] {
        write("");
        let flags = format!("{flags} --data none --config {}", config.display());
        let mut broker = Broker::start(&flags);
        let mut client = Client::connect(broker.address, "a");
        write("[stats]\nenabled = true\nformat = \"json\"\ninterval_s = 1\n");
        broker.signal("-HUP");
        let first = broker.json();
        assert_eq!(first["why"], "interval", "{flags}: {first}");
        (1..=3).for_each(|_| client.publish(0, 0));
        let mut sum = count(&first, "publish-qos0");
        while sum < 3 {
            sum += count(&broker.json(), "publish-qos0");
        }
        // Another interval, a log, and a report on a signal.
        let stats = "[stats]\nenabled = true\nformat = \"json\"\ninterval_s = 3600\n";
        write(&format!("{stats}log = \"{}\"\n", log.display()));
        broker.signal("-HUP");
        while broker.json()["why"] != "exit" {}
        broker.signal("-USR1");
        let asked = broker.json();
        assert_eq!(asked["why"], "asked", "{flags}: {asked}");
        assert!(count(&asked, "turn") > 0, "{flags}: {asked}");
        let text = std::fs::read_to_string(&log).expect("it is written");
        assert!(text.starts_with("#[Histogram log format"), "{flags}: {text}");
        // A log that cannot be written changes nothing.
        write(&format!("{stats}log = \"/nonexistent/a.hlog\"\n"));
        broker.signal("-HUP");
        broker.signal("-USR1");
        assert_eq!(broker.json()["why"], "asked", "{flags}");
        write("");
        broker.signal("-HUP");
        assert_eq!(broker.json()["why"], "exit", "{flags}");
        broker.signal("-USR1");
        assert_eq!(broker.rest(), "", "{flags}: nothing is printed any more");
    }
}
