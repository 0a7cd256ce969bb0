//! Rare kernel conditions, provoked: no free buffer, a full completion queue, short sends, no free
//! descriptor. No message may be lost, and `$SYS` must count the condition.
#![cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]

#[path = "support/uninterrupted.rs"]
mod uninterrupted;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringmq::wire::{Frame, frame};
use uninterrupted::uninterrupted;

/// Timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(20);

struct Broker {
    child: Child,
    address: SocketAddr,
    configuration: PathBuf,
}

impl Broker {
    fn with_config(text: &str) -> Self {
        Self::start(text, &[], |_| {})
    }

    fn start(text: &str, flags: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmq-executors-{}-{number}.toml", std::process::id());
        let configuration = std::env::temp_dir().join(name);
        std::fs::write(&configuration, format!("{text}\n[mqtt]\nsys_interval_s = 1\n"))
            .expect("a configuration file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(flags);
        command.arg("--config").arg(&configuration).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().expect("the broker starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).expect("text") > 0,
                "the broker exited before it listened"
            );
            let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if event["message"] == "listening" {
                break event["address"].as_str().expect("text").parse().expect("address");
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address, configuration }
    }

    /// The value of `$SYS/broker/TOPIC`.
    fn shown(&self, topic: &str) -> u64 {
        let mut client = Client::connect(self.address, "looker");
        client.subscribe(&format!("$SYS/broker/{topic}"), 0);
        let (_, payload) = client.publish_received();
        String::from_utf8(payload).expect("text").parse().expect("a number")
    }

    /// The value of `$SYS/broker/cores/0/kernel/TOPIC`, once it is not zero.
    fn counted(&self, topic: &str) -> u64 {
        let topic = format!("$SYS/broker/cores/0/kernel/{topic}");
        let mut client = Client::connect(self.address, "reader");
        client.subscribe(&topic, 0);
        loop {
            let (_, payload) = client.publish_received();
            let count = String::from_utf8(payload).expect("text").parse().expect("a number");
            if count > 0 {
                return count;
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.configuration);
    }
}

/// A scripted 3.1.1 client.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        packet.push((left % 128) as u8 | if left >= 128 { 0x80 } else { 0 });
        left /= 128;
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn publish(topic: &str, qos: u8, identifier: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(identifier.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Self { stream, read: Vec::new() }
    }

    fn connect(address: SocketAddr, name: &str) -> Self {
        let mut client = Self::open(address);
        client.say_connect(name);
        assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        client
    }

    fn say_connect(&mut self, name: &str) {
        let body = [&text("MQTT")[..], &[4, 2, 0, 0], &text(name)].concat();
        self.say(&packet(0x10, &body));
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let body = [&[0, 1][..], &text(filter), &[qos]].concat();
        self.say(&packet(0x82, &body));
        assert_eq!(self.packet(), [0x90, 3, 0, 1, qos]);
    }

    fn packet(&mut self) -> Vec<u8> {
        loop {
            if let Ok(Frame::Complete { total, .. }) = frame(&self.read, usize::MAX) {
                return self.read.drain(..total).collect();
            }
            let mut bytes = [0; 65_536];
            let count = uninterrupted(|| self.stream.read(&mut bytes)).expect("in time");
            assert!(count > 0, "the connection was closed");
            self.read.extend_from_slice(&bytes[..count]);
        }
    }

    /// The next PUBLISH at QoS 0: its topic and payload.
    fn publish_received(&mut self) -> (String, Vec<u8>) {
        let packet = self.packet();
        Self::publish_in(&packet)
    }

    /// The next PUBLISH at QoS 0, if one arrives in time.
    fn publish_within(&mut self, time: Duration) -> Option<(String, Vec<u8>)> {
        self.stream.set_read_timeout(Some(time)).expect("set");
        loop {
            if let Ok(Frame::Complete { total, .. }) = frame(&self.read, usize::MAX) {
                let packet: Vec<u8> = self.read.drain(..total).collect();
                return Some(Self::publish_in(&packet));
            }
            let mut bytes = [0; 4_096];
            match uninterrupted(|| self.stream.read(&mut bytes)) {
                Ok(count) => {
                    assert!(count > 0, "the connection was closed");
                    self.read.extend_from_slice(&bytes[..count]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn publish_in(packet: &[u8]) -> (String, Vec<u8>) {
        assert_eq!(packet[0] & 0xF6, 0x30, "a PUBLISH at QoS 0");
        let start = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).expect("a length") + 1;
        let len = usize::from(u16::from_be_bytes([packet[start], packet[start + 1]]));
        let topic = &packet[start + 2..start + 2 + len];
        (String::from_utf8(topic.to_vec()).expect("text"), packet[start + 2 + len..].to_vec())
    }
}

/// Many publishers at once, with large and small packets: every packet is acknowledged, and every
/// message is delivered once, in order and unchanged.
fn storm(address: SocketAddr) {
    const PUBLISHERS: usize = 24;
    const MESSAGES: usize = 60;
    let payload = |publisher: usize, number: usize| {
        let mut payload = vec![publisher as u8; 40 + publisher * 37 + number * 11];
        payload[..2].copy_from_slice(&[publisher as u8, number as u8]);
        payload
    };
    let mut subscriber = Client::connect(address, "subscriber");
    subscriber.subscribe("storm/#", 0);
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address, &format!("publisher {publisher}"));
                let topic = format!("storm/{publisher}");
                let all: Vec<u8> = (0..MESSAGES)
                    .flat_map(|n| publish(&topic, 1, n as u16 + 1, &payload(publisher, n)))
                    .collect();
                client.say(&all);
                for number in 0..MESSAGES {
                    assert_eq!(client.packet(), [0x40, 2, 0, number as u8 + 1]);
                }
            })
        })
        .collect();
    let mut next = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS * MESSAGES {
        let (topic, received) = subscriber.publish_received();
        let publisher: usize = topic["storm/".len()..].parse().expect("a number");
        assert_eq!(received, payload(publisher, next[publisher]), "of publisher {publisher}");
        next[publisher] += 1;
    }
    publishers.into_iter().for_each(|publisher| {
        publisher.join().expect("the publisher received its acknowledgements")
    });
}

const URING: &str = "mode = \"uring\"\n[uring]\n";

#[test]
fn no_message_is_lost_without_a_free_receive_buffer() {
    for incremental in [true, false] {
        let tiny = format!("{URING}buffers = 2\nbuffer_bytes = 64\nincremental = {incremental}");
        let broker = Broker::with_config(&tiny);
        storm(broker.address);
        assert!(broker.counted("receives-starved") > 0);
    }
}

#[test]
fn no_message_is_lost_with_full_submission_and_completion_queues() {
    let tiny = format!("{URING}entries = 1\ncompletions = 2\nbuffers = 64\nbuffer_bytes = 4096");
    let broker = Broker::with_config(&tiny);
    storm(broker.address);
    assert!(broker.counted("completions-overflowed") > 0);
}

#[test]
fn the_executor_works_without_features_of_newer_kernels() {
    let old = format!("{URING}defer_taskrun = false\nincremental = false\nbuffers = 64");
    storm(Broker::with_config(&old).address);
}

#[test]
fn every_byte_arrives_with_zero_copy_sends() {
    let broker = Broker::with_config(&format!(
        "{URING}zero_copy_bytes_min = 1\n[limits]\noutbox_bytes_max = 67108864"
    ));
    every_byte_arrives(&broker, 8);
    storm(broker.address);
}

/// More than any socket buffer holds, to a peer that starts reading late.
fn every_byte_arrives(broker: &Broker, messages: u8) {
    let mut subscriber = Client::connect(broker.address, "subscriber");
    subscriber.subscribe("large", 0);
    let mut publisher = Client::connect(broker.address, "publisher");
    let payload = |number: u8| -> Vec<u8> {
        (0..3_000_000u32).map(|at| (at.wrapping_mul(at) >> 3) as u8 ^ number).collect()
    };
    for number in 0..messages {
        publisher.say(&publish("large", 1, u16::from(number) + 1, &payload(number)));
    }
    std::thread::sleep(Duration::from_millis(300));
    for number in 0..messages {
        let (_, received) = subscriber.publish_received();
        assert!(received == payload(number), "message {number} was altered");
    }
    for number in 0..messages {
        assert_eq!(publisher.packet(), [0x40, 2, 0, number + 1]);
    }
}

#[test]
fn every_byte_arrives_with_short_sends() {
    for mode in ["uring", "poll"] {
        let config = format!("mode = \"{mode}\"\n[limits]\noutbox_bytes_max = 67108864");
        let broker = Broker::with_config(&config);
        every_byte_arrives(&broker, 8);
        assert!(broker.counted("sends-waited") > 0, "{mode}");
    }
}

/// A publisher is paused and resumed many times: its receive is cancelled and restarted.
#[test]
fn a_paused_publisher_loses_no_message() {
    for mode in ["uring", "poll"] {
        let broker = Broker::with_config(&format!(
            "mode = \"{mode}\"\n[limits]\noutbox_bytes_max = 65536\nqueue_bytes_max = 65536"
        ));
        let mut subscriber = Client::connect(broker.address, "subscriber");
        subscriber.subscribe("held", 0);
        let address = broker.address;
        const MESSAGES: u32 = 30_000;
        let publisher = std::thread::spawn(move || {
            let mut publisher = Client::connect(address, "publisher");
            for numbers in (0..MESSAGES).collect::<Vec<_>>().chunks(100) {
                let of =
                    |n: &u32| publish("held", 0, 0, &[&n.to_be_bytes()[..], &[0; 996]].concat());
                publisher.say(&numbers.iter().flat_map(of).collect::<Vec<u8>>());
            }
            publisher.say(&[0xC0, 0]);
            assert_eq!(publisher.packet(), [0xD0, 0]);
        });
        for number in 0..MESSAGES {
            if number % 1_000 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            let (_, payload) = subscriber.publish_received();
            assert_eq!(payload[..4], number.to_be_bytes(), "{mode}");
        }
        publisher.join().expect("the client was served");
    }
}

#[test]
fn without_a_free_descriptor_connected_clients_are_served_and_new_ones_are_accepted_later() {
    // As many as can linger, without room for more: each is refused with a reason, and leaves its
    // socket open.
    let broker =
        Broker::start("mode = \"uring\"\n[limits]\nconnections_max = 40", &[], |command| {
            limit_descriptors(command, 75)
        });
    let mut client = Client::connect(broker.address, "in");
    let begun = Instant::now();
    let mut others = Vec::new();
    while begun.elapsed() < Duration::from_millis(900) {
        if let Ok(mut other) = TcpStream::connect(broker.address) {
            let _ = other.write_all(&packet(0x10, b"\0\x04MQTT\x09\x02\0\0\0\0"));
            others.push(other);
        }
        assert!(others.len() < 5_000, "the broker never ran out of descriptors");
        if others.len() % 50 == 0 {
            client.say(&[0xC0, 0]);
            assert_eq!(client.packet(), [0xD0, 0]);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    drop(others);
    // They have disconnected, and the time to linger has passed.
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(broker.counted("accepts-rested") > 0);
    client.say(&[0xC0, 0]);
    assert_eq!(client.packet(), [0xD0, 0]);
}

/// More clients than a process may have descriptors: each receives its messages, while others
/// connect and disconnect.
fn crowd(flags: &[&str]) {
    const DESCRIPTORS: u64 = 200;
    const CLIENTS: usize = 900;
    let broker =
        Broker::start("mode = \"uring\"", flags, |command| limit_descriptors(command, DESCRIPTORS));
    let join = |number: usize| {
        let mut client = Client::connect(broker.address, &format!("client {number}"));
        client.subscribe(&format!("to/{number}"), 0);
        client
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(join).collect();
    let mut publisher = Client::connect(broker.address, "publisher");
    for round in 0..3_u8 {
        for (number, client) in clients.iter_mut().enumerate() {
            // For some, larger than a socket accepts at once.
            let bytes = if number % 100 == 7 { 3 << 20 } else { 10 };
            publisher.say(&publish(&format!("to/{number}"), 0, 0, &vec![round; bytes]));
            if bytes > 10 {
                let (_, payload) = client.publish_received();
                assert_eq!(payload, vec![round; bytes]);
            }
        }
        for (number, client) in clients.iter_mut().enumerate().filter(|(n, _)| n % 100 != 7) {
            assert_eq!(client.publish_received(), (format!("to/{number}"), vec![round; 10]));
        }
        for number in (usize::from(round)..CLIENTS).step_by(3) {
            clients[number].say(&[0xE0, 0]);
            clients[number] = join(number);
        }
    }
}

#[test]
fn more_clients_than_descriptors_use_additional_rings() {
    crowd(&[]);
}

#[test]
fn clients_are_handed_over_to_a_ring_with_room() {
    crowd(&["--cores", "3"]);
}

/// As before Linux 6.13, where a ring's table does not close its sockets: several cores, clients
/// handed over from the accepting core, and one silent client.
#[test]
fn sockets_that_are_process_descriptors_are_closed_despite_a_silent_client() {
    let config = format!("cores = 3\n{URING}direct_descriptors = false");
    let broker = Broker::with_config(&config);
    let mut silent = Client::connect(broker.address, "silent");
    silent.subscribe("news", 0);
    let descriptors = || {
        let path = format!("/proc/{}/fd", broker.child.id());
        std::fs::read_dir(path).expect("the broker runs").count()
    };
    let before = descriptors();
    for round in 0..4 {
        let mut clients: Vec<_> = (0..50)
            .map(|number| Client::connect(broker.address, &format!("client {number}")))
            .collect();
        assert!(descriptors() >= before + clients.len());
        for (number, client) in clients.iter_mut().enumerate() {
            let payload = vec![number as u8; 10_000];
            client.say(&publish("news", 1, 1, &payload));
            assert_eq!(client.packet(), [0x40, 2, 0, 1]);
            assert_eq!(silent.publish_received(), ("news".to_owned(), payload));
        }
        // Half send DISCONNECT, the others close the connection.
        for client in clients.iter_mut().skip(round % 2).step_by(2) {
            client.say(&[0xE0, 0]);
        }
        drop(clients);
        let until = Instant::now() + PATIENCE;
        while descriptors() > before {
            assert!(Instant::now() < until, "{} are left of {before}", descriptors());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    storm(broker.address);
}

#[expect(unsafe_code, reason = "setrlimit(2) between fork and exec")]
fn limit_descriptors(command: &mut Command, limit: u64) {
    // SAFETY: setrlimit is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(move || rlimit::Resource::NOFILE.set(limit, limit));
    }
}

/// Every executor of this build.
const EXECUTORS: &[&str] = &[
    "mode = \"uring\"",
    "mode = \"poll\"",
    "mode = \"sync\"",
    #[cfg(feature = "monoio")]
    "executor = \"monoio\"",
    #[cfg(feature = "glommio")]
    "executor = \"glommio\"",
];

/// Clients that ping while the process is stopped, and as many silent ones.
const PINGING: usize = 10;

impl Client {
    /// A client with a Keep Alive of a second and a Will on `gone`.
    fn connect_with_will(address: SocketAddr, name: &str) -> Self {
        let mut client = Self::open(address);
        let body =
            [&text("MQTT")[..], &[4, 6, 0, 1], &text(name), &text("gone"), &text(name)].concat();
        client.say(&packet(0x10, &body));
        assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        client
    }

    /// Whether the connection is still open after a PINGREQ.
    fn is_answered(&mut self) -> bool {
        let mut answer = [0; 2];
        let sent = self.stream.write_all(&[0xC0, 0]);
        sent.and_then(|()| self.stream.read_exact(&mut answer)).is_ok() && answer == [0xD0, 0]
    }
}

#[expect(unsafe_code, reason = "kill(2)")]
fn signal(child: &Child, signal: i32) {
    // SAFETY: kill(2) accesses no memory, and the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0, "the process runs");
}

#[test]
fn clients_that_pinged_while_the_process_was_stopped_stay_connected_and_silent_ones_do_not() {
    for executor in EXECUTORS {
        let broker = Broker::with_config(&format!("cores = 1\n{executor}"));
        let mut watcher = Client::connect(broker.address, "watcher");
        watcher.subscribe("gone", 0);
        let clients = |kind: &str| -> Vec<Client> {
            let one = |at| Client::connect_with_will(broker.address, &format!("{kind}{at}"));
            (0..PINGING).map(one).collect()
        };
        let (mut pinging, silent) = (clients("p"), clients("s"));
        signal(&broker.child, libc::SIGSTOP);
        for _ in 0..7 {
            std::thread::sleep(Duration::from_millis(500));
            pinging.iter_mut().for_each(|client| client.say(&[0xC0, 0]));
        }
        signal(&broker.child, libc::SIGCONT);
        let continued = Instant::now();
        // Only Wills of silent clients are published, all of them, within a Keep Alive.
        let mut gone = Vec::new();
        while gone.len() < silent.len() {
            let will = watcher.publish_within(Duration::from_millis(100));
            gone.extend(will.map(|(_, name)| String::from_utf8(name).expect("text")));
            pinging.iter_mut().for_each(|client| client.say(&[0xC0, 0]));
            assert!(continued.elapsed() < PATIENCE, "{executor}: {gone:?}");
        }
        let took = continued.elapsed();
        assert!(gone.iter().all(|name| name.starts_with('s')), "{executor}: {gone:?}");
        assert!(took < Duration::from_secs(4), "{executor}: {took:?}");
        assert!(pinging.iter_mut().all(Client::is_answered), "{executor}");
    }
}

/// Bytes that a slow consumer reads at a time, ten times a second.
const SIP: usize = 1_024;

/// The last message of a firehose.
const LAST: u32 = u32::MAX;

/// A publisher that sends numbered messages faster than they are read, until it is stopped; returns
/// their number.
fn firehose(
    address: SocketAddr,
    topic: &'static str,
    is_over: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> std::thread::JoinHandle<(u32, Client)> {
    std::thread::spawn(move || {
        let mut client = Client::connect(address, &format!("firehose {topic}"));
        client.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("set");
        let (mut number, mut left) = (0u32, Vec::new());
        while !is_over.load(Ordering::Relaxed) {
            if left.is_empty() {
                let payload = [&number.to_be_bytes()[..], &[b'.'; 1_000]].concat();
                left = publish(topic, 0, 0, &payload);
                number += 1;
            }
            if let Ok(bytes) = client.stream.write(&left) {
                left.drain(..bytes);
            }
            // Some megabytes a second: far more than is read, with time for the others.
            std::thread::sleep(Duration::from_micros(200));
        }
        // The last message is sent completely.
        client.stream.set_write_timeout(Some(PATIENCE)).expect("set");
        client.say(&left);
        client.say(&publish(topic, 0, 0, &LAST.to_be_bytes()));
        // The connection stays open, so that everything is read.
        (number, client)
    })
}

#[test]
fn a_slow_consumer_loses_no_message_and_one_that_reads_nothing_is_stuck() {
    let check = |executor: &'static str| {
        let broker = Broker::with_config(&format!("cores = 1\n{executor}"));
        let is_over = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let mut slow = Client::connect(broker.address, "slow");
        slow.subscribe("slow", 0);
        let firehose_of_slow = firehose(broker.address, "slow", is_over.clone());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(17) {
            std::thread::sleep(Duration::from_millis(100));
            let mut sip = [0; SIP];
            let bytes =
                uninterrupted(|| slow.stream.read(&mut sip)).expect("more data is available");
            slow.read.extend_from_slice(&sip[..bytes]);
        }
        assert_eq!(broker.shown("consumers/stuck"), 0, "{executor}");
        is_over.store(true, Ordering::Relaxed);
        // The consumer now reads everything, and receives the messages in order.
        let mut next = 0;
        let said = loop {
            let (_, payload) = slow.publish_received();
            let number = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
            if number == LAST {
                break firehose_of_slow.join().expect("the thread ends").0;
            }
            assert_eq!(number, next, "{executor}");
            next += 1;
        };
        assert_eq!(said, next, "{executor}");
        let is_over = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let mut deaf = Client::connect(broker.address, "deaf");
        deaf.subscribe("deaf", 0);
        let firehose_of_deaf = firehose(broker.address, "deaf", is_over.clone());
        let began = Instant::now();
        while broker.shown("consumers/stuck") == 0 {
            assert!(began.elapsed() < 2 * PATIENCE, "{executor}");
        }
        is_over.store(true, Ordering::Relaxed);
        firehose_of_deaf.join().expect("the thread ends");
    };
    let checks: Vec<_> =
        EXECUTORS.iter().map(|executor| std::thread::spawn(move || check(executor))).collect();
    checks.into_iter().for_each(|check| check.join().expect("the check passes"));
}

#[test]
fn a_slow_consumer_on_a_unix_socket_is_not_stuck() {
    let check = |number: usize, executor: &'static str| {
        let name = format!("ringmq-executors-{}-slow-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener =
            format!("[[listeners]]\nbind = \"unix:{}\"\ntransport = \"unix\"\n", path.display());
        let broker = Broker::with_config(&format!("cores = 1\n{executor}\n{listener}"));
        let mut slow = UnixStream::connect(&path).expect("the server listens");
        slow.set_read_timeout(Some(PATIENCE)).expect("set");
        let connect = packet(0x10, &[&text("MQTT")[..], &[4, 2, 0, 0], &text("slow")].concat());
        let subscribe = packet(0x82, &[&[0, 1][..], &text("slow"), &[0]].concat());
        slow.write_all(&[connect, subscribe].concat()).expect("sent");
        let is_over = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let firehose = firehose(broker.address, "slow", is_over.clone());
        // Longer than a consumer may take nothing, with some to spare.
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
            let mut sip = [0; SIP];
            uninterrupted(|| slow.read_exact(&mut sip)).expect("more data is available");
        }
        assert_eq!(broker.shown("consumers/stuck"), 0, "{executor}");
        drop(slow);
        is_over.store(true, Ordering::Relaxed);
        firehose.join().expect("the thread ends");
        let _ = std::fs::remove_file(path);
    };
    std::thread::scope(|scope| {
        for (number, executor) in EXECUTORS.iter().enumerate() {
            scope.spawn(move || check(number, executor));
        }
    });
}
