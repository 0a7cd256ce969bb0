//! Memory that clients can make a broker use: for each kind, a real broker with a small memory
//! bound and a limit on its address space, a client that attacks it, and one that must still be
//! served.
//!
//! `cargo test --test memory -- --nocapture` prints the memory of each attack.
//! `RINGMQ_TEST_PROGRAM=/some/broker` tests another build.

#![cfg(target_os = "linux")]
#![cfg_attr(not(feature = "tls"), allow(dead_code, reason = "some attacks need a TLS listener"))]

#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "../conformance/support/mod.rs"]
mod support;

#[path = "../support/folder.rs"]
mod folder;

mod input;
mod passwords;
mod state;

use std::fs;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use folder::Folder;
use support::{Broker, Client, Connect, Publish};

const MIB: u64 = 1 << 20;

/// `memory_bytes_max` of the brokers in these tests.
const MEMORY_BYTES_MAX: u64 = 32 * MIB;

/// Memory allowed beyond one and a quarter of `memory_bytes_max`: allocator overhead, buffers of
/// cores, connections before CONNECT.
const BEYOND_BYTES: u64 = 24 * MIB;

/// Address space beyond that at the start: an allocator reserves 64 MiB per thread without using
/// it.
const SPACE_BYTES: u64 = 512 * MIB;

/// A way in which clients can make a broker use memory.
struct Kind {
    name: &'static str,
    /// Configuration besides `memory_bytes_max`.
    configuration: String,
    /// Memory allowed in addition, as documented.
    extra_bytes: u64,
    /// The attack.
    attack: fn(&Attacked) -> Outcome,
    /// Part of the log line that states the cause.
    says: Option<&'static str>,
    /// The last bytes sent on a connection that is closed because of the attack.
    tells: &'static [u8],
    /// Topic below `$SYS/broker/` that counts it.
    counts: &'static str,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            name: "",
            configuration: String::new(),
            extra_bytes: 0,
            attack: |_| Outcome::default(),
            says: None,
            tells: &[],
            counts: "memory/bytes",
        }
    }
}

/// The broker under attack.
struct Attacked {
    address: SocketAddr,
    /// The addresses of further listeners, in order.
    others: Vec<SocketAddr>,
}

/// The outcome, as seen by the attacker.
#[derive(Default)]
struct Outcome {
    /// Connections kept open until the end.
    open: Vec<TcpStream>,
    /// Number of connections that the broker refused or closed.
    refused: usize,
    /// The minimum number of those.
    refused_min: usize,
    /// Last bytes received on them, each once.
    told: Vec<Vec<u8>>,
}

impl Outcome {
    /// Records the last bytes received on a connection, if it has ended.
    fn take(&mut self, mut stream: TcpStream, patience: Duration) {
        let until = Instant::now() + patience;
        let (mut told, mut bytes) = (Vec::new(), [0; 256]);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.open.push(stream);
            }
            stream.set_read_timeout(Some(left)).expect("an option");
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => told.extend_from_slice(&bytes[..count]),
                Err(error) => match error.kind() {
                    // A stopped process has its calls interrupted when it continues.
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => break,
                },
            }
        }
        self.refused += 1;
        if !self.told.contains(&told) {
            self.told.push(told);
        }
    }
}

/// Sends as many of `bytes` as the broker accepts.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("an option");
    bytes.chunks(256 * 1024).all(|chunk| stream.write_all(chunk).is_ok())
}

/// A 5.0 CONNECT with Clean Start.
fn connect(client_identifier: &str, user: Option<(&str, &str)>) -> Vec<u8> {
    let mut connect = Connect::v5(client_identifier);
    if let Some((user, password)) = user {
        connect = connect.username(user).password(password);
    }
    connect.bytes()
}

/// A size in `/proc/PID/status`.
fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the broker lives");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a line of it");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

/// Attacks a broker, and checks its memory, that it is alive, logs the cause, and serves a
/// connected client.
fn check(kind: &Kind) {
    let broker = Broker::with_config(&format!(
        "mqtt.sys_interval_s = 1\nlimits.memory_bytes_max = {MEMORY_BYTES_MAX}\n{}",
        kind.configuration
    ));
    let pid = broker.pid();
    let space = status_bytes(pid, "VmSize") + MEMORY_BYTES_MAX * 5 / 4 + SPACE_BYTES;
    let limit = format!("--as={space}");
    let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(limited.expect("prlimit, of util-linux, runs").success());
    let before = status_bytes(pid, "VmRSS");

    let mut innocent = Client::connect(&broker, Connect::v5("innocent"));
    innocent.subscribe("alive", 1);
    assert_served(&mut innocent, "before");
    // Connected before the attack: with full memory, new clients are refused.
    let mut watcher = Client::connect(&broker, Connect::v5("watcher"));
    watcher.subscribe_to_what_comes(&format!("$SYS/broker/{}", kind.counts), 0);
    let attacked = Attacked { address: broker.address(), others: others(&broker, kind) };
    let began = Instant::now();
    let outcome = (kind.attack)(&attacked);
    assert_served(&mut innocent, "beside");
    let took_s = began.elapsed().as_secs_f64();

    let peak = status_bytes(pid, "VmHWM").saturating_sub(before);
    let most = MEMORY_BYTES_MAX * 5 / 4 + BEYOND_BYTES + kind.extra_bytes;
    let log_bytes = broker.log().len();
    eprintln!(
        "{:<44} {:>5} MiB more at most, {:>4} allowed; {:>5} ended; log {:>7} bytes; {took_s:.1} s",
        kind.name,
        peak / MIB,
        most / MIB,
        outcome.refused,
        log_bytes,
    );
    assert!(peak <= most, "{}: {} MiB", kind.name, peak / MIB);
    assert!(outcome.refused >= outcome.refused_min, "{}: {} ended", kind.name, outcome.refused);
    assert!(log_bytes as f64 <= 20_000.0 + took_s * 20_000.0, "{}: {log_bytes} bytes", kind.name);
    if let Some(says) = kind.says {
        assert!(broker.log().contains(says), "{}: the log lacks {says:?}", kind.name);
    }
    let tells = |told: &Vec<u8>| told.ends_with(kind.tells);
    let is_told = kind.tells.is_empty() || outcome.told.iter().any(tells);
    assert!(is_told, "{}: {:x?}", kind.name, outcome.told);
    assert!(counted(&mut watcher) > 0, "{}: {}", kind.name, kind.counts);
    drop(outcome);
    assert_served(&mut innocent, "after");
}

/// The addresses of the configured listeners, after the one that every broker in these tests has.
fn others(broker: &Broker, kind: &Kind) -> Vec<SocketAddr> {
    let listeners = kind.configuration.matches("[[listeners]]").count();
    broker.await_log("\"listening\"", 1 + listeners);
    let log = broker.log();
    let events = log.lines().filter(|line| line.contains("\"listening\""));
    let address = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        event["address"].as_str().expect("an address").parse().expect("an address")
    };
    events.map(address).filter(|address| *address != broker.address()).collect()
}

/// Publishes a message and receives it.
fn assert_served(client: &mut Client, payload: &str) {
    client.send(Publish::new("alive", payload).qos(1, 7));
    let mut is_acknowledged = false;
    let mut is_received = false;
    while !(is_acknowledged && is_received) {
        match client.receive() {
            support::Packet::Publish(publish) => {
                assert_eq!(publish.text(), payload);
                client.acknowledge(&publish);
                is_received = true;
            }
            support::Packet::Ack(_) => is_acknowledged = true,
            other => panic!("{other:?}"),
        }
    }
}

/// The value of a `$SYS` topic, once it is not zero.
fn counted(watcher: &mut Client) -> u64 {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match watcher.receive_within(left) {
            Some(support::Packet::Publish(publish)) => match publish.text().parse() {
                Ok(0) => {}
                Ok(count) => return count,
                Err(_) => panic!("{publish:?}"),
            },
            Some(_) => {}
            None => return 0,
        }
    }
}
