//! Brokers of others as the far broker, besides Mosquitto: Aedes (npm) and aMQTT (pip), which have MQTT 3.1.1.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::support::{Broker, Client, Connect, Publish};
use crate::{
    NUMBER, ONE_SETUP, PATIENCE, SETUPS, Site, Witness, connected, free_address, wait_until,
};

const RULES: &str = "\
[[bridges.out]]
filter = \"site/#\"
[[bridges.in]]
filter = \"cmd/#\"
";

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Aedes,
    Amqtt,
}

impl Kind {
    /// Those that are installed.
    fn installed() -> impl Iterator<Item = Self> {
        [Self::Aedes, Self::Amqtt].into_iter().filter(|of| of.is_installed())
    }

    fn is_installed(self) -> bool {
        let file = match self {
            Self::Aedes => "target/interop/node_modules/aedes",
            Self::Amqtt => "target/interop/venv/bin/amqtt",
        };
        let is_there = Path::new(file).exists();
        // The check of the project records what it has tested.
        let is_needed = std::env::var_os("RINGMQ_MATRIX").is_some();
        assert!(is_there || !is_needed, "{self:?} is not installed; run tests/interop/setup");
        if !is_there {
            eprintln!("SKIPPED: {self:?} is not installed; tests/interop/setup installs it");
        }
        is_there
    }

    /// The QoS with which it sends a message to a subscriber with QoS 2: aMQTT sends all with the subscriber's.
    fn sends(self, qos: u8) -> u8 {
        if self == Self::Amqtt { 2 } else { qos }
    }

    /// Keys of a bridge to it, for each version that it has.
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Aedes => &["version = \"3.1.1\"", "version = \"3.1\"", "version = \"auto\""],
            // It closes connections of versions that it does not know, without an answer.
            Self::Amqtt => &["version = \"3.1.1\"\nbridge_bit = false"],
        }
    }
}

/// A broker that runs, and can be started again without what it had.
struct Peer {
    kind: Kind,
    address: SocketAddr,
    folder: Folder,
    child: Option<Child>,
}

impl Peer {
    fn new(kind: Kind) -> Self {
        let address = free_address();
        let folder = Folder::new(&format!("peer-{}", address.port()));
        folder.write(
            "amqtt.yaml",
            &format!(
                "listeners:\n  default:\n    type: tcp\n    bind: {address}\nplugins:\n  \
                 amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
            ),
        );
        let mut peer = Self { kind, address, folder, child: None };
        peer.start();
        peer
    }

    fn start(&mut self) {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let mut command = match self.kind {
            Kind::Aedes => {
                let mut command = Command::new("node");
                command.args(["tests/interop/aedes_broker.js", &host, &port]);
                command
            }
            Kind::Amqtt => {
                let mut command = Command::new("target/interop/venv/bin/amqtt");
                command.args(["-c", &self.folder.path("amqtt.yaml")]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("it starts"));
        let address = self.address;
        wait_until("it listens", || std::net::TcpStream::connect(address).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn broker(&self) -> Broker {
        Broker::running_at(self.address)
    }

    fn client(&self) -> Client {
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Client::connect(&self.broker(), Connect::v311(&format!("client{number}")))
    }

    /// A subscriber there.
    fn witness(&self, filter: &str) -> Witness {
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Witness::before_5(&self.broker(), &format!("witness{number}"), filter)
    }

    /// Waits until the bridge has subscribed there.
    #[track_caller]
    fn flows_to(&self, near: &Broker, what: &str) {
        let (mut here, mut client) = (Witness::at(near, "cmd/probe"), self.client());
        let until = Instant::now() + PATIENCE;
        while here.within(Duration::from_millis(200)).is_none() {
            assert!(Instant::now() < until, "{what}: nothing arrives");
            client.publish(Publish::new("cmd/probe", "probe").qos(1, 1));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn of_qos(topic: &str, text: &str, qos: u8) -> Publish {
    match qos {
        0 => Publish::new(topic, text),
        _ => Publish::new(topic, text).qos(qos, 1),
    }
}

#[test]
fn messages_go_to_other_brokers_and_come_from_them_once_with_each_qos() {
    for kind in Kind::installed() {
        let peer = Peer::new(kind);
        let setups = SETUPS.iter().cycle().take(kind.versions().len().max(2));
        for (number, setup) in setups.enumerate() {
            let keys = kind.versions()[number % kind.versions().len()];
            let rules = format!("{keys}\nclient_identifier = \"n{number}\"\n{RULES}");
            let near = Site::new(setup).bridge("far", peer.address, &rules).start();
            let what = format!("{kind:?} {keys} {setup}");
            connected(&near, 1);
            peer.flows_to(&near, &what);
            let (mut there, mut here) = (peer.witness("site/#"), Witness::at(&near, "cmd/a"));
            let mut client = Client::connect(&near, Connect::v5("publisher"));
            let mut far_client = peer.client();
            for qos in 0..=2 {
                client.publish(of_qos("site/a", "x", qos));
                let got = there.next();
                assert_eq!((&*got.topic, got.qos), ("site/a", kind.sends(qos)), "{what}");
                far_client.publish(of_qos("cmd/a", "y", qos));
                let got = here.next();
                assert_eq!((&*got.topic, got.qos), ("cmd/a", kind.sends(qos)), "{what}");
            }
            assert!(there.until_quiet().is_empty() && here.until_quiet().is_empty(), "{what}");
        }
    }
}

#[test]
fn topics_that_go_both_ways_to_other_brokers_do_not_loop() {
    for kind in Kind::installed() {
        let peer = Peer::new(kind);
        let keys = kind.versions()[0];
        let rules = "[[bridges.out]]\nfilter = \"#\"\n[[bridges.in]]\nfilter = \"#\"\n";
        let near = Site::new(ONE_SETUP)
            .bridge("far", peer.address, &format!("{keys}\nclient_identifier = \"n\"\n{rules}"))
            .start();
        connected(&near, 1);
        peer.flows_to(&near, &format!("{kind:?}"));
        let (mut there, mut here) = (peer.witness("site/#"), Witness::at(&near, "site/#"));
        for (mut client, text) in
            [(Client::connect(&near, Connect::v5("publisher")), "near"), (peer.client(), "far")]
        {
            client.publish(Publish::new("site/a", text).qos(2, 1));
            for witness in [&mut there, &mut here] {
                let texts: Vec<_> =
                    witness.until_quiet().iter().map(|of| of.text().to_owned()).collect();
                assert_eq!(texts, [text], "{kind:?}");
            }
        }
    }
}

#[test]
fn what_waits_for_a_broker_that_restarts_without_its_sessions_arrives_and_the_bridge_subscribes_again()
 {
    for kind in Kind::installed() {
        let mut peer = Peer::new(kind);
        let keys = kind.versions()[0];
        let near = Site::new(ONE_SETUP).with_store().bridge(
            "far",
            peer.address,
            &format!("{keys}\nclient_identifier = \"n\"\n{RULES}"),
        );
        let near = near.start();
        connected(&near, 1);
        let what = format!("{kind:?}");
        peer.flows_to(&near, &what);
        peer.stop();
        // Retained: a subscriber that comes later has them, too.
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        for number in 0..12 {
            let topic = format!("site/{number}");
            client.publish(of_qos(&topic, "x", 1 + number % 2).retain());
        }
        peer.start();
        let mut there = peer.witness("site/#");
        let mut missing: Vec<String> = (0..12).map(|number| format!("site/{number}")).collect();
        while !missing.is_empty() {
            let got = there.next();
            missing.retain(|topic| *topic != *got.topic);
        }
        connected(&near, 2);
        peer.flows_to(&near, &what);
    }
}
