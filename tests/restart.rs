//! The state after a restart, on every executor, with one core and several: messages are stored and
//! kept in memory once, Wills of before are published before later messages, and sessions expire.
#![cfg(feature = "store")]

#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "conformance/support/mod.rs"]
mod support;

#[path = "support/folder.rs"]
mod folder;

use std::thread::sleep;
use std::time::{Duration, Instant};

use folder::Folder;
use support::reason::SERVER_BUSY;
use support::{Broker, Client, Connect, Packet, Publish, SILENCE, Will};

/// Executors and numbers of cores.
const SETUPS: &[(&str, u16)] = &[
    ("mode = \"auto\"", 1),
    ("mode = \"auto\"", 3),
    ("mode = \"poll\"", 1),
    ("mode = \"poll\"", 3),
    ("mode = \"sync\"", 1),
    #[cfg(all(feature = "monoio", target_os = "linux", target_pointer_width = "64"))]
    ("executor = \"monoio\"", 2),
    #[cfg(all(feature = "glommio", target_os = "linux", target_pointer_width = "64"))]
    ("executor = \"glommio\"", 2),
];

/// Timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(30);

const MIB: u64 = 1024 * 1024;

/// A store that several brokers use one after the other.
struct Store {
    folder: Folder,
    setup: (&'static str, u16),
    storage: &'static str,
}

impl Store {
    fn new(name: &str, setup: (&'static str, u16), storage: &'static str) -> Self {
        Self { folder: Folder::new(name), setup, storage }
    }

    fn broker(&self) -> Broker {
        self.broker_with("")
    }

    /// A broker with further tables of the configuration.
    fn broker_with(&self, more: &str) -> Broker {
        let (mode, cores) = self.setup;
        let (data, storage) = (&self.folder.0, self.storage);
        Broker::with_config(&format!(
            "{mode}\ncores = {cores}\n[mqtt]\nsys_interval_s = 1\n[log]\nlevel = \"debug\"\n\
             [storage]\ndata = {data:?}\n{storage}\n{more}\n"
        ))
    }

    fn bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.folder.0).expect("readable");
        files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |of| of.len())).sum()
    }
}

fn kept(name: &str) -> Connect {
    Connect::v5(name).resume().expiry(3_600)
}

/// Memory of all cores that counts for the limit, once they have reported it.
fn memory_bytes(broker: &Broker) -> u64 {
    let mut client = Client::connect(broker, Connect::v5("memory"));
    sleep(Duration::from_millis(2_500));
    client.subscribe_to_what_comes("$SYS/broker/memory/bytes", 0);
    client.expect_publish().text().parse().expect("a number")
}

const SESSIONS: usize = 40;
const MESSAGES: u16 = 40;
const MESSAGE_BYTES: usize = 50_000;

fn names() -> impl Iterator<Item = String> {
    (0..SESSIONS).map(|number| format!("session-{number}"))
}

fn payload(number: u16) -> String {
    format!("{number:>MESSAGE_BYTES$}")
}

#[test]
fn sessions_share_a_queued_message_in_memory_and_on_disk_after_a_restart() {
    // Each core keeps the messages of its sessions once, 2 MB; 80 MB if sessions do not share them.
    const BYTES_MAX: u64 = 10 * MIB;
    for &setup in SETUPS {
        let store = Store::new("shared", setup, "compact_bytes_min = 1048576");
        let broker = store.broker();
        for name in names() {
            let mut client = Client::connect(&broker, kept(&name));
            client.subscribe("t", 1);
            client.vanish();
        }
        let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
        for number in 1..=MESSAGES {
            publisher.publish(Publish::new("t", payload(number)).qos(1, number));
        }
        // Obsolete records cause a checkpoint.
        let until = Instant::now() + PATIENCE;
        while !broker.log().contains("\"compacted the store\"") {
            assert!(Instant::now() < until, "{setup:?}: no checkpoint");
            publisher.publish(Publish::new("kept", payload(0)).qos(1, 1).retain());
        }
        let bytes = store.bytes();
        assert!(bytes < BYTES_MAX, "{setup:?}: {bytes} bytes on disk");
        drop((publisher, broker)); // SIGKILL
        let broker = store.broker();
        let bytes = memory_bytes(&broker);
        assert!(bytes < BYTES_MAX, "{setup:?}: {bytes} bytes of memory");
        for name in names().take(3) {
            let mut client = Client::connect(&broker, kept(&name));
            for number in 1..=MESSAGES {
                client.expect_message(&payload(number));
            }
        }
    }
}

#[test]
fn after_a_restart_a_client_with_queued_messages_is_admitted_although_memory_is_full() {
    for &setup in SETUPS {
        let store = Store::new("full", setup, "");
        let broker = store.broker();
        let mut owner = Client::connect(&broker, kept("owner"));
        owner.subscribe("t", 1);
        owner.vanish();
        let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
        for number in 1..=MESSAGES {
            publisher.publish(Publish::new("t", payload(number)).qos(1, number));
        }
        drop((publisher, broker)); // SIGKILL
        // Less than the 2 MB of the queue.
        let broker = store.broker_with("[limits]\nmemory_bytes_max = 1000000");
        Client::refused(&broker, kept("newcomer"), SERVER_BUSY);
        let mut owner = Client::connect(&broker, kept("owner"));
        assert!(owner.connack.session_present, "{setup:?}");
        for number in 1..=MESSAGES {
            owner.expect_message(&payload(number));
        }
        // The queue was all that filled the memory.
        let until = Instant::now() + PATIENCE;
        while !is_admitted(&broker, kept("newcomer")) {
            assert!(Instant::now() < until, "{setup:?}: memory stays full");
            sleep(Duration::from_millis(50));
        }
        owner.expect_alive();
    }
}

/// Whether a client is admitted.
fn is_admitted(broker: &Broker, connect: Connect) -> bool {
    let mut client = Client::open(broker, connect.version);
    client.send(&connect);
    matches!(client.receive(), Packet::Connack(connack) if connack.reason == 0)
}

#[test]
fn the_will_of_an_assigned_identifier_is_published_before_later_messages_after_a_restart() {
    let connect = || Connect::v5("").will(Will::new("state", "offline").qos(1));
    for &setup in SETUPS {
        let store = Store::new("assigned", setup, "will_grace_s = 1");
        let broker = store.broker();
        let mut watcher = Client::connect(&broker, kept("watcher"));
        watcher.subscribe("state", 1);
        watcher.vanish();
        let mut program = Client::connect(&broker, connect());
        program.publish(Publish::new("state", "online").qos(1, 1));
        drop((program, broker)); // SIGKILL
        let broker = store.broker();
        let mut program = Client::connect(&broker, connect());
        program.publish(Publish::new("state", "online again").qos(1, 1));
        sleep(Duration::from_millis(1_500));
        let mut watcher = Client::connect(&broker, kept("watcher"));
        for expected in ["online", "offline", "online again"] {
            assert_eq!(watcher.expect_publish().text(), expected, "{setup:?}");
        }
        watcher.expect_silence(SILENCE);
    }
}

#[test]
fn a_retained_will_of_before_a_restart_does_not_replace_what_was_published_since() {
    for &setup in SETUPS {
        let store = Store::new("outdated", setup, "will_grace_s = 1");
        let broker = store.broker();
        // Client Identifiers determine home cores: Wills and publishers on the same core and others.
        let topics: Vec<String> = (0..4).map(|number| format!("state/{number}")).collect();
        let clients: Vec<Client> = topics
            .iter()
            .map(|topic| {
                let will = Will::new(topic, "offline").qos(1).retain();
                Client::connect(&broker, Connect::v5(topic).will(will))
            })
            .collect();
        drop((clients, broker)); // SIGKILL
        let broker = store.broker();
        let mut other = Client::connect(&broker, Connect::v5("other"));
        for topic in &topics[..3] {
            other.publish(Publish::new(topic, "online").qos(1, 1).retain());
        }
        sleep(Duration::from_millis(1_800));
        let mut reader = Client::connect(&broker, Connect::v5("reader"));
        for topic in &topics[..3] {
            reader.subscribe(topic, 0);
            assert_eq!(reader.expect_publish().text(), "online", "{setup:?}: {topic}");
        }
        reader.subscribe(&topics[3], 0);
        assert_eq!(reader.expect_publish().text(), "offline", "{setup:?}: nothing since");
    }
}

#[test]
fn session_expiry_counts_from_a_stop_and_after_a_crash_from_the_next_start() {
    for &setup in SETUPS {
        for stops in [true, false] {
            let store = Store::new("expiry", setup, "");
            let mut broker = store.broker();
            let client = Client::connect(&broker, Connect::v5("short").resume().expiry(3));
            match stops {
                true => {
                    broker.stop();
                    broker.await_end();
                    drop(client);
                }
                false => drop((broker, client)), // SIGKILL, before the broker sees the end of the connection
            }
            sleep(Duration::from_millis(2_500));
            let broker = store.broker();
            sleep(Duration::from_millis(1_200));
            let back = Client::connect(&broker, Connect::v5("short").resume().expiry(3));
            assert_eq!(back.connack.session_present, !stops, "{setup:?}: stopped: {stops}");
        }
    }
}
