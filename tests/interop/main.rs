//! Third-party clients against the `broker` command: mosquitto_pub and mosquitto_sub, mosquitto as a bridge, paho-mqtt,
//! Paho C, MQTT.js, rumqttc, openssl, an exporter for Prometheus, and a page in Chromium; over TCP in this file, over the other
//! transports in the modules.
//!
//! The clients are installed by `tests/interop/setup`, which the first test runs. Where that is not
//! possible, `RINGMQ_INTEROP=skip` skips these tests with a message.

mod bridges;
// SCRAM includes the code that computes a certificate's fingerprint.
#[cfg(all(unix, feature = "tls", feature = "websocket", feature = "scram"))]
mod browser;
#[cfg(all(unix, feature = "store"))]
mod console;
mod examples;
#[cfg(all(unix, feature = "tls", feature = "websocket", feature = "scram"))]
#[path = "../support/http.rs"]
mod http;
#[path = "../support/matrix.rs"]
mod matrix;
#[cfg(all(unix, feature = "tls", feature = "websocket"))]
mod secured;
#[cfg(unix)]
mod statistics;
#[allow(dead_code, reason = "shared with tests that use the rest")]
#[cfg(all(unix, feature = "tls", feature = "websocket"))]
#[path = "../transports/support.rs"]
mod support;
#[cfg(all(unix, feature = "tls", feature = "websocket"))]
mod transports;
mod zigbee2mqtt;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Additional flags for the broker, such as `--cores 4 --mode poll`.
const FLAGS: &str = "RINGMQ_TEST_FLAGS";

/// The path where the set-up installs paho-mqtt.
const PYTHON: &str = "target/interop/venv/bin/python";

const PATIENCE: Duration = Duration::from_secs(120);

/// Whether the clients are installed; installs them the first time. False only if the tests are
/// skipped.
fn clients_are_there() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        if std::env::var_os("RINGMQ_INTEROP").is_some_and(|value| value == "skip") {
            eprintln!("SKIPPED because of RINGMQ_INTEROP=skip: no third-party client was tested");
            return false;
        }
        let setup = Command::new("tests/interop/setup").output().expect("bash is there");
        let what = String::from_utf8_lossy(&setup.stderr).into_owned();
        assert!(setup.status.success(), "tests/interop/setup failed:\n{what}");
        true
    })
}

/// A broker that listens only on TCP.
struct Broker {
    child: Child,
    setup: String,
    address: SocketAddr,
}

impl Broker {
    fn start() -> Self {
        Self::listen("127.0.0.1:0")
    }

    fn listen(address: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--listen", address, "--log-format", "json", "--data", "none"])
            .args(std::env::var(FLAGS).unwrap_or_default().split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        Self::listening(child)
    }

    fn listening(child: Child) -> Self {
        Self::listening_with("tcp", child)
    }

    /// A broker that listens on this transport, too: its address is that of the listener.
    fn listening_with(transport: &str, mut child: Child) -> Self {
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut setup = String::new();
        let event = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).expect("readable") > 0,
                "the broker exited before it listened"
            );
            let event: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
            setup = matrix::setup_of(&event, &std::env::var(FLAGS).unwrap_or_default())
                .unwrap_or(setup);
            if event["message"] == "listening" && event["transport"] == transport {
                break event;
            }
        };
        let address = event["address"].as_str().expect("an address");
        let address = address.parse().expect("an address");
        // The log is read continuously, so that the broker never blocks on the pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, setup, address }
    }

    fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    fn record(&self, client: &str) {
        matrix::record(&self.setup, "tcp", "none", client);
    }

    fn port(&self) -> String {
        self.address.port().to_string()
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a client to exit, and kills it after a timeout.
fn wait(mut child: Child, what: &str) -> Output {
    let until = Instant::now() + PATIENCE;
    while child.try_wait().expect("the exit status").is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            let output = child.wait_with_output().expect("the output of the process");
            panic!("{what} did not exit; its output: {}", text(&output));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("the output of the process");
    assert!(output.status.success(), "{what} failed:\n{}", text(&output));
    output
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&parts).into_owned()
}

fn start(program: &str, arguments: &[&str]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; run tests/interop/setup"))
}

fn paho(scenario: &str) {
    if clients_are_there() {
        let broker = Broker::start();
        let arguments = ["tests/interop/paho_client.py", scenario, &broker.url()];
        wait(start(PYTHON, &arguments), scenario);
        broker.record("paho-mqtt");
    }
}

fn mqtt_js(scenario: &str) {
    if clients_are_there() {
        let broker = Broker::start();
        let arguments = ["tests/interop/mqttjs_client.js", scenario, &broker.url()];
        wait(start("node", &arguments), scenario);
        broker.record("MQTT.js");
    }
}

#[test]
fn paho_sends_and_receives_at_every_qos_in_every_version() {
    paho("every_qos");
}

#[test]
fn paho_receives_10_000_messages_at_qos_1_and_2_000_at_qos_2_in_order() {
    paho("many_in_order");
}

#[test]
fn paho_receives_the_properties_that_were_sent() {
    paho("properties");
}

#[test]
fn paho_receives_and_removes_retained_messages() {
    paho("retained");
}

#[test]
fn a_killed_paho_client_has_its_will_published_and_receives_missed_messages_later() {
    paho("killed");
}

#[test]
fn paho_clients_share_a_subscription_evenly() {
    paho("shared");
}

#[test]
fn paho_receives_five_megabytes_unchanged() {
    paho("large");
}

#[test]
fn paho_is_notified_of_a_take_over() {
    paho("takeover");
}

#[test]
fn mqtt_js_sends_and_receives_at_every_qos_in_every_version() {
    mqtt_js("everyQos");
}

#[test]
fn mqtt_js_receives_5_000_messages_in_order() {
    mqtt_js("manyInOrder");
}

#[test]
fn mqtt_js_receives_properties_with_topic_aliases() {
    mqtt_js("properties");
}

#[test]
fn mqtt_js_reconnects_after_the_broker_was_killed() {
    if !clients_are_there() {
        return;
    }
    let mut broker = Broker::start();
    let address = broker.address.to_string();
    let mut client =
        start("node", &["tests/interop/mqttjs_client.js", "reconnects", &broker.url()]);
    wait_for_line(&mut client, "ready");
    broker.kill();
    let _again = Broker::listen(&address);
    wait(client, "reconnects");
}

fn wait_for_line(child: &mut Child, line: &str) {
    let mut stdout: BufReader<&mut ChildStdout> =
        BufReader::new(child.stdout.as_mut().expect("piped"));
    let mut read = String::new();
    while read.trim_end() != line {
        read.clear();
        assert!(
            stdout.read_line(&mut read).expect("readable") > 0,
            "the client exited before {line:?}"
        );
    }
}

/// A `mosquitto_sub` that has subscribed, as its debug output shows.
fn mosquitto_sub(broker: &Broker, arguments: &[&str]) -> Child {
    mosquitto_sub_at(&broker.port(), arguments)
}

/// The same, with the port of whatever broker.
fn mosquitto_sub_at(port: &str, arguments: &[&str]) -> Child {
    let mut child = Command::new("stdbuf")
        .args(["-oL", "mosquitto_sub", "-d", "-p", port, "-W", "60"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .spawn()
        .expect("stdbuf and mosquitto_sub are there");
    let mut line = String::new();
    // Byte by byte, so that no later output is consumed.
    let stdout = child.stdout.as_mut().expect("piped");
    while !line.ends_with("received SUBACK\n") {
        let mut byte = [0];
        std::io::Read::read_exact(stdout, &mut byte).expect("SUBACK");
        line.push(char::from(byte[0]));
    }
    child
}

fn mosquitto_pub(broker: &Broker, arguments: &[&str]) {
    let port = broker.port();
    let child = start("mosquitto_pub", &[&["-p", &port], arguments].concat());
    wait(child, "mosquitto_pub");
}

/// The messages in the output of `mosquitto_sub -d`.
fn messages(output: &Output) -> Vec<String> {
    let debug = ["Client ", "Subscribed", "  "];
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !debug.iter().any(|start| line.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn mosquitto_sub_at_qos_2_receives_what_mosquitto_pub_sends_at_each_qos_in_each_version() {
    if !clients_are_there() {
        return;
    }
    let broker = Broker::start();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let arguments = ["-V", version, "-t", "a/#", "-q", "2", "-v", "-C", "9"];
        let subscriber = mosquitto_sub(&broker, &arguments);
        let mut expected = Vec::new();
        for publisher in ["mqttv31", "mqttv311", "mqttv5"] {
            for qos in ["0", "1", "2"] {
                let payload = format!("{publisher} {qos}");
                mosquitto_pub(&broker, &["-V", publisher, "-t", "a/b", "-q", qos, "-m", &payload]);
                expected.push(format!("a/b {payload}"));
            }
        }
        // A QoS 2 message is printed after its PUBREL, so a message of another client may precede
        // it.
        let mut shown = messages(&wait(subscriber, "mosquitto_sub"));
        shown.sort();
        expected.sort();
        assert_eq!(shown, expected, "{version}");
    }
    broker.record("mosquitto");
}

#[test]
fn a_killed_mosquitto_sub_receives_missed_messages_in_order_after_it_reconnects() {
    if !clients_are_there() {
        return;
    }
    for version in ["mqttv311", "mqttv5"] {
        let broker = Broker::start();
        let mut session = vec!["-V", version, "-i", "panel", "-c", "-q", "1", "-t", "alarm"];
        if version == "mqttv5" {
            session.extend(["-x", "3600"]);
        }
        let mut first = mosquitto_sub(&broker, &session);
        first.kill().expect("killed");
        first.wait().expect("gone");
        for number in 0..20 {
            let payload = number.to_string();
            mosquitto_pub(&broker, &["-q", "1", "-t", "alarm", "-m", &payload]);
        }
        session.extend(["-C", "20", "-W", "60", "-p"]);
        let port = broker.port();
        let back = wait(start("mosquitto_sub", &[&session[..], &[&port]].concat()), "its return");
        let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(messages(&back), expected, "{version}");
    }
}

#[test]
fn mosquitto_pub_sends_lines_immediately_and_its_will_is_published_when_it_is_killed() {
    if !clients_are_there() {
        return;
    }
    let broker = Broker::start();
    let subscriber = mosquitto_sub(&broker, &["-t", "#", "-q", "1", "-v", "-C", "3"]);
    let port = broker.port();
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-p", &port, "-t", "lines", "-q", "1", "-l"])
        .args(["--will-topic", "will", "--will-payload", "gone", "--will-qos", "1"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub is there");
    let stdin = publisher.stdin.as_mut().expect("piped");
    stdin.write_all(b"one\ntwo\n").expect("written");
    stdin.flush().expect("flushed");
    std::thread::sleep(Duration::from_millis(500));
    publisher.kill().expect("killed");
    publisher.wait().expect("gone");
    let got = messages(&wait(subscriber, "mosquitto_sub"));
    assert_eq!(got, ["lines one", "lines two", "will gone"]);
}

fn rumqttc(version: &str) {
    if clients_are_there() {
        let broker = Broker::start();
        wait(start("target/interop/rumqttc_client", &[version, &broker.port()]), "rumqttc");
        broker.record("rumqttc");
    }
}

#[test]
fn rumqttc_receives_its_own_3_000_messages_at_every_qos_in_order() {
    rumqttc("3.1.1");
}

#[test]
fn rumqttc_5_receives_its_own_3_000_messages_at_every_qos_in_order() {
    rumqttc("5");
}
