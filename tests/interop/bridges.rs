//! Mosquitto as a bridge to the broker.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::{Broker, clients_are_there, messages, start, wait};

/// Messages published on each side.
const EACH: usize = 200;

/// A Mosquitto with a bridge to the broker.
struct Mosquitto {
    child: Child,
    port: String,
    config: PathBuf,
}

impl Mosquitto {
    /// `options` are lines of the bridge, besides those without which there is none.
    fn bridged_to(broker: &Broker, name: &str, options: &str) -> Self {
        // Free at this time; a port of 0 means no listener to Mosquitto.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("bound").port().to_string();
        drop(free);
        let config =
            std::env::temp_dir().join(format!("ringmq-bridge-{}-{name}", std::process::id()));
        let far_end = broker.port();
        let lines = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\n\
             connection {name}\naddress 127.0.0.1:{far_end}\ntopic # both 1\nrestart_timeout 1\n{options}\n"
        );
        std::fs::write(&config, lines).expect("writable");
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("mosquitto")
            .env("PATH", path)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is there");
        Self { child, port, config }
    }

    /// Waits until the bridge reports at the broker that it is connected.
    fn wait_until_up(&self, broker: &Broker) {
        let port = broker.port();
        let arguments =
            ["-p", &port, "-t", "$SYS/broker/connection/+/state", "-C", "1", "-W", "60"];
        let state = wait(start("mosquitto_sub", &arguments), "the state of the bridge");
        assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "1");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// A `mosquitto_sub` on `site/#` that has subscribed and exits after `count` messages.
fn subscriber(port: &str, count: usize) -> Child {
    let count = count.to_string();
    crate::mosquitto_sub_at(port, &["-t", "site/#", "-q", "1", "-C", &count])
}

fn publish(port: &str, payloads: &str, topic: &str) {
    let mut child = Command::new("mosquitto_pub")
        .args(["-p", port, "-t", topic, "-q", "1", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub is there");
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, payloads.as_bytes()).expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("it runs").success());
}

/// Each side publishes; each side receives each message once, and nothing circulates afterwards.
fn exchange(broker: &Broker, mosquitto: &Mosquitto) {
    let ports = [broker.port(), mosquitto.port.clone()];
    let lines = |side: usize| (0..EACH).map(|i| format!("{side}-{i}\n")).collect::<String>();
    let subscribers = ports.each_ref().map(|port| subscriber(port, 2 * EACH));
    for (side, port) in ports.iter().enumerate() {
        publish(port, &lines(side), &format!("site/{side}"));
    }
    let expected: BTreeSet<String> =
        (0..2).flat_map(|side| (0..EACH).map(move |i| format!("{side}-{i}"))).collect();
    for subscriber in subscribers {
        let received = messages(&wait(subscriber, "a subscriber"));
        assert_eq!(received.iter().cloned().collect::<BTreeSet<_>>(), expected);
        assert_eq!(received.len(), 2 * EACH);
        for side in ["0-", "1-"] {
            let of_side: Vec<_> = received.iter().filter(|text| text.starts_with(side)).collect();
            let in_order: Vec<_> = (0..EACH).map(|i| format!("{side}{i}")).collect();
            assert_eq!(of_side, in_order.iter().collect::<Vec<_>>());
        }
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let subscriber = subscriber(&ports[to], 1);
        publish(&ports[from], "end\n", "site/end");
        assert_eq!(messages(&wait(subscriber, "a subscriber")), ["end"], "a message circulates");
    }
}

#[test]
fn a_bridge_of_mosquitto_with_its_defaults_connects_and_loses_doubles_and_loops_nothing() {
    if !clients_are_there() {
        return;
    }
    let broker = Broker::start();
    let mosquitto = Mosquitto::bridged_to(&broker, "defaults", "");
    mosquitto.wait_until_up(&broker);
    exchange(&broker, &mosquitto);
    broker.record("mosquitto bridge");
}

#[test]
fn a_bridge_of_mosquitto_in_each_version_loses_doubles_and_loops_nothing() {
    if !clients_are_there() {
        return;
    }
    for version in ["mqttv31", "mqttv50"] {
        let broker = Broker::start();
        let options = format!("bridge_protocol_version {version}");
        let mosquitto = Mosquitto::bridged_to(&broker, version, &options);
        mosquitto.wait_until_up(&broker);
        exchange(&broker, &mosquitto);
    }
}

#[test]
fn a_bridge_of_mosquitto_delivers_after_the_broker_was_killed_what_was_published_meanwhile() {
    if !clients_are_there() {
        return;
    }
    let mut broker = Broker::start();
    let address = broker.address.to_string();
    let mosquitto = Mosquitto::bridged_to(&broker, "outage", "");
    mosquitto.wait_until_up(&broker);
    broker.kill();
    let lines: Vec<_> = (0..EACH).map(|i| i.to_string()).collect();
    publish(&mosquitto.port, &(lines.join("\n") + "\n"), "site/outage");
    let broker = Broker::listen(&address);
    let received = wait(subscriber(&broker.port(), EACH), "a subscriber");
    assert_eq!(messages(&received), lines);
    mosquitto.wait_until_up(&broker);
}
