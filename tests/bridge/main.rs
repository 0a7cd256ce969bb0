//! Bridges between broker processes, on every executor, with one core and several: to another broker of this project, to
//! Mosquitto, and to a far broker that a test plays itself.
#![cfg(all(unix, feature = "bridge", feature = "store"))]

mod access;
mod attempts;
mod backlog;
#[cfg(feature = "admin")]
mod commands;
mod connections;
mod crashes;
mod far;
#[path = "../support/folder.rs"]
mod folder;
#[path = "../crash/link.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod link;
mod loops;
mod mosquitto;
mod mosquitto_conf;
#[path = "../support/next_packet.rs"]
mod next_packet;
mod no_local;
mod options;
mod outages;
mod passing;
mod peers;
mod profiles;
#[path = "../crash/publisher.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod publisher;
mod queue;
mod refusals;
mod reload;
#[cfg(feature = "admin")]
mod reload_commands;
mod reload_kinds;
mod silence;
mod stand_in;
#[path = "../crash/subscriber.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod subscriber;
#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "../conformance/support/mod.rs"]
mod support;
mod terms;
#[path = "../support/uninterrupted.rs"]
mod uninterrupted;
mod ways;
mod witness;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use folder::Folder;
use support::{Broker, Client, Connect, Publish};
use witness::Witness;

/// Executors and numbers of cores.
const SETUPS: &[&str] = &[
    "mode = \"auto\"\ncores = 1",
    "mode = \"auto\"\ncores = 3",
    "mode = \"poll\"\ncores = 1",
    "mode = \"poll\"\ncores = 3",
    "mode = \"sync\"\ncores = 1",
    #[cfg(all(feature = "monoio", target_os = "linux", target_pointer_width = "64"))]
    "executor = \"monoio\"\ncores = 2",
    #[cfg(all(feature = "glommio", target_os = "linux", target_pointer_width = "64"))]
    "executor = \"glommio\"\ncores = 2",
];

/// Several cores, for tests that are about the far broker or about time.
const ONE_SETUP: &str = "mode = \"auto\"\ncores = 3";

/// Setups with 5.0, and one of them with each other version.
fn versions(others: &'static [&'static str]) -> impl Iterator<Item = (&'static str, &'static str)> {
    let with_5 = SETUPS.iter().map(|setup| ("5", *setup));
    with_5.chain(others.iter().map(|version| (*version, ONE_SETUP)))
}

/// Runs a test with all of these at the same time: most of it is waiting.
fn at_once<T: Send>(all: impl Iterator<Item = T>, body: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for of in all {
            let body = &body;
            scope.spawn(move || body(of));
        }
    });
}

/// Timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that a publisher has in flight.
const WINDOW: usize = 24;

/// A broker that is started several times, at one address.
struct Site {
    address: SocketAddr,
    top: String,
    tables: String,
    folder: Option<Folder>,
}

impl Site {
    fn new(setup: &str) -> Self {
        Self { top: format!("{setup}\n"), ..Self::at(free_address()) }
    }

    /// At this address, on one core.
    fn at(address: SocketAddr) -> Self {
        Self { address, top: "cores = 1\n".to_owned(), tables: String::new(), folder: None }
    }

    /// Adds tables of the configuration.
    fn with(mut self, tables: &str) -> Self {
        self.tables += tables;
        self.tables += "\n";
        self
    }

    /// With a store, which outlasts the process.
    fn with_store(mut self) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Folder::new(&number.to_string());
        self.tables += &format!("[storage]\ndata = {:?}\n", folder.0.join("data"));
        self.folder = Some(folder);
        self
    }

    /// With a bridge of this name. `more` are further keys, and `[[bridges.out]]` and `[[bridges.in]]`.
    fn bridge(self, name: &str, to: SocketAddr, more: &str) -> Self {
        self.with(&bridge(name, to, more))
    }

    fn start(&self) -> Broker {
        self.start_with("")
    }

    /// Starts with further tables, which a reload may change.
    fn start_with(&self, more: &str) -> Broker {
        Broker::listening_at(&self.address.to_string(), &self.text(more))
    }

    /// The configuration with further tables.
    fn text(&self, more: &str) -> String {
        let Self { top, tables, .. } = self;
        // Not in the folder of the user, whose name is the port.
        let memory = if self.folder.is_none() { "[storage]\ndata = \"none\"\n" } else { "" };
        format!("{top}{tables}{memory}{more}")
    }
}

/// The table of a bridge. `more` are further keys, and `[[bridges.out]]` and `[[bridges.in]]`.
fn bridge(name: &str, to: SocketAddr, more: &str) -> String {
    format!(
        "[[bridges]]\nname = {name:?}\nservers = [\"mqtt://{to}\"]\n\
         reconnect = {{ first_ms = 50, most_s = 1, stable_s = 0 }}\n{more}"
    )
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    // Other addresses of this machine are not used by other tests, so that the port stays free.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let host = match cfg!(target_os = "linux") {
        true => {
            let [.., high, low] = std::process::id().to_be_bytes();
            [127, 64 + (number % 64) as u8, high, low.clamp(1, 254)]
        }
        false => [127, 0, 0, 1],
    };
    let socket = TcpListener::bind((std::net::Ipv4Addr::from(host), 0)).expect("an address");
    socket.local_addr().expect("bound")
}

/// Waits for a condition.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a bridge has connected that many times.
#[track_caller]
fn connected(broker: &Broker, times: usize) {
    logged(broker, "\"bridge connected\"", times);
}

/// Waits until the log has a text that many times.
#[track_caller]
fn logged(broker: &Broker, text: &str, times: usize) {
    wait_until(text, || broker.log().matches(text).count() >= times);
}

/// Waits until messages of one broker reach another one: the far broker has the subscription of a bridge some time after
/// the bridge has connected. Nothing of it is under way afterwards.
#[track_caller]
fn flows(from: &Broker, topic: &str, to: &Broker, mapped: &str) {
    let name = format!("flow {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut witness = Witness::of(to, Connect::v5(&name), mapped);
    let mut client = Client::connect(from, Connect::v5(&format!("{name} publisher")));
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "{topic} does not arrive");
        client.publish(Publish::new(topic, "probe").qos(1, 1));
        if witness.within(Duration::from_millis(100)).is_some() {
            break;
        }
    }
    client.publish(Publish::new(topic, "last probe").qos(1, 1));
    witness.texts_before("last probe");
}

/// Publishes as a client of its own.
fn publish(broker: &Broker, publish: Publish) {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut client = Client::connect(broker, Connect::v5(&format!("publisher {number}")));
    client.publish(publish);
    client.disconnect();
}

/// The numbers as texts.
fn numbers(range: std::ops::Range<u16>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
