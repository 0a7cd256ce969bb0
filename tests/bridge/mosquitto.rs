//! Mosquitto as the far broker.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::folder::Folder;
use crate::support::{Broker, Client, Connect, Publish};
use crate::{Site, Witness, connected, flows, free_address, numbers, publish, wait_until};

const RULES: &str = "\
[[bridges.out]]
filter = \"site/#\"
[[bridges.in]]
filter = \"cmd/#\"
";

/// The program, if it is there.
pub fn program() -> Option<&'static str> {
    let found = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    if found.is_none() {
        eprintln!("SKIPPED: mosquitto is not installed");
    }
    found
}

/// A Mosquitto that runs, if it is there.
pub fn started() -> Option<Mosquitto> {
    program().map(Mosquitto::new)
}

/// A Mosquitto with persistence, which can be started again.
pub struct Mosquitto {
    pub address: SocketAddr,
    program: &'static str,
    folder: Folder,
    child: Option<Child>,
}

impl Mosquitto {
    fn new(program: &'static str) -> Self {
        Self::with(program, "")
    }

    /// With further lines in its configuration.
    pub fn with(program: &'static str, lines: &str) -> Self {
        let address = free_address();
        let folder = Folder::new(&format!("mosquitto-{}", address.port()));
        let data = folder.0.display();
        // It writes what it has to disk when it stops, and after each change. It keeps its own user as root.
        let text = format!(
            "listener {} {}\nallow_anonymous true\npersistence true\npersistence_location {data}/\n\
             autosave_on_changes true\nautosave_interval 1\nuser root\nmax_queued_messages 0\n{lines}",
            address.port(),
            address.ip()
        );
        folder.write("mosquitto.conf", &text);
        let mut mosquitto = Self { address, program, folder, child: None };
        mosquitto.start();
        mosquitto
    }

    fn start(&mut self) {
        let child = Command::new(self.program)
            .args(["-c", &self.folder.path("mosquitto.conf")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto starts");
        self.child = Some(child);
        let address = self.address;
        wait_until("Mosquitto listens", || std::net::TcpStream::connect(address).is_ok());
    }

    /// Stops it as a service manager does.
    fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
        child.wait().expect("it exits");
    }

    pub fn broker(&self) -> Broker {
        Broker::running_at(self.address)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client whose session outlasts restarts.
fn kept() -> Connect {
    Connect::v5("kept").resume().expiry(3_600)
}

const VERSIONS: [&str; 4] = ["auto", "5", "3.1.1", "3.1"];

#[test]
fn messages_go_to_mosquitto_and_come_from_it_once_in_each_version() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::new(program);
    let far = mosquitto.broker();
    for (number, (version, setup)) in crate::versions(&["auto", "3.1.1", "3.1"]).enumerate() {
        let rules =
            format!("version = {version:?}\nclient_identifier = \"n{version}{number}\"\n{RULES}");
        let near = Site::new(setup).bridge("far", mosquitto.address, &rules).start();
        connected(&near, 1);
        flows(&far, "cmd/probe", &near, "cmd/probe");
        let (mut there, mut here) = (Witness::at(&far, "#"), Witness::at(&near, "#"));
        for qos in 0..=2 {
            let of = |topic: &str| match qos {
                0 => Publish::new(topic, "x"),
                _ => Publish::new(topic, "x").qos(qos, 1),
            };
            publish(&near, of("site/a"));
            let got = there.next();
            assert_eq!((&*got.topic, got.qos), ("site/a", qos), "{setup} {version}");
            publish(&far, of("cmd/a"));
            assert_eq!(there.next().topic, "cmd/a");
            assert_eq!(here.next().topic, "site/a");
            let got = here.next();
            assert_eq!((&*got.topic, got.qos), ("cmd/a", qos), "{setup} {version}");
        }
    }
}

#[test]
fn topics_that_go_both_ways_to_mosquitto_do_not_loop() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::new(program);
    let far = mosquitto.broker();
    // Without the bit, Mosquitto sends back what it has from here.
    let mut cases: Vec<(String, &str)> =
        VERSIONS.iter().map(|version| (format!("version = {version:?}"), *version)).collect();
    for version in ["3.1.1", "3.1"] {
        cases.push((format!("version = {version:?}\nbridge_bit = false"), "without the bit"));
    }
    for (number, (keys, version)) in cases.into_iter().enumerate() {
        let rules = format!(
            "{keys}\nclient_identifier = \"n{number}\"\n\
             [[bridges.out]]\nfilter = \"#\"\n[[bridges.in]]\nfilter = \"#\"\n"
        );
        let near = Site::new(crate::ONE_SETUP).bridge("far", mosquitto.address, &rules).start();
        connected(&near, 1);
        flows(&far, "probe", &near, "probe");
        for (from, name) in [(&near, "near"), (&far, "far")] {
            let (mut there, mut here) = (Witness::at(&far, "site/#"), Witness::at(&near, "site/#"));
            publish(from, Publish::new("site/a", "x").qos(2, 1));
            publish(from, Publish::new("site/a", "end").qos(2, 1));
            assert_eq!(there.texts_before("end"), ["x"], "{version}: from {name}");
            assert_eq!(here.texts_before("end"), ["x"], "{version}: from {name}");
            assert!(there.until_quiet().is_empty(), "{version}: from {name}");
            assert!(here.until_quiet().is_empty(), "{version}: from {name}");
        }
    }
}

#[test]
fn after_a_restart_of_mosquitto_nothing_is_missing_and_qos_2_has_come_once() {
    // All of it is within Mosquitto's window of 20: it ends the connection of a client to which it sends more after a
    // restart.
    const COUNT: u16 = 8;
    let Some(program) = program() else { return };
    for (number, (version, setup)) in crate::versions(&["auto", "3.1.1", "3.1"]).enumerate() {
        let mut mosquitto = Mosquitto::new(program);
        let rules =
            format!("version = {version:?}\nclient_identifier = \"n{version}{number}\"\n{RULES}");
        let near = Site::new(setup).with_store().bridge("far", mosquitto.address, &rules);
        let running = near.start();
        connected(&running, 1);
        flows(&mosquitto.broker(), "cmd/probe", &running, "cmd/probe");
        drop(Witness::of(&mosquitto.broker(), kept(), "site/#"));
        let mut here = Witness::of(&running, kept(), "cmd/#");
        let mut client = Client::connect(&running, Connect::v5("publisher"));
        for number in 0..COUNT {
            client.publish(Publish::new("site/a", number.to_string()).qos(2, number + 1));
        }
        // Stopped while some of it may be under way.
        mosquitto.stop();
        for number in COUNT..2 * COUNT {
            client.publish(Publish::new("site/a", number.to_string()).qos(2, number + 1));
        }
        mosquitto.start();
        client.publish(Publish::new("site/a", "end").qos(2, 1));
        let mut there = Witness::of(&mosquitto.broker(), kept(), "site/#");
        assert_eq!(there.texts_before("end"), numbers(0..2 * COUNT), "{setup} {version}");
        // In: what is published there while this broker is down.
        connected(&running, 2);
        publish(&mosquitto.broker(), Publish::new("cmd/a", "first").qos(2, 1));
        assert_eq!(here.texts_before("first"), [""; 0], "{setup} {version}");
        drop((here, running)); // SIGKILL
        let far = mosquitto.broker();
        let mut client = Client::connect(&far, Connect::v5("publisher"));
        for number in 0..COUNT {
            client.publish(Publish::new("cmd/a", number.to_string()).qos(2, number + 1));
        }
        let running = near.start();
        let mut here = Witness::of(&running, kept(), "cmd/#");
        client.publish(Publish::new("cmd/a", "end").qos(2, 1));
        let mut texts = here.texts_before("end");
        // The witness was killed before it could complete this exchange.
        texts.retain(|text| text != "first");
        assert_eq!(texts, numbers(0..COUNT), "{setup} {version}");
    }
}
