//! zigbee2mqtt itself, with the configuration and the rules of `examples`, and a stand-in for its adapter
//! (`zigbee_adapter.cjs`).
#![cfg(unix)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::examples::{folder, read, run};
use crate::{Broker, PATIENCE, clients_are_there, text};

const PASSWORD: &str = "PASSWORD";

/// A broker that knows zigbee2mqtt, of which `examples/README.md` says what it may do, and an observer.
fn broker(folder: &Path) -> Broker {
    let readme = read("README.md");
    let (_, section) = readme.split_once("\n## zigbee2mqtt\n").expect("the heading");
    let section = section.split("\n## ").next().expect("a first part");
    let rules: Vec<_> = section.split('`').filter(|code| code.starts_with("allow ")).collect();
    assert!(!rules.is_empty(), "{section}");
    let rules = rules.join("\n    ");
    let rules = format!("for user zigbee2mqtt\n    {rules}\nfor user observer\n    allow all #\n");
    fs::write(folder.join("acl.txt"), rules).expect("written");
    fs::write(folder.join("password"), PASSWORD).expect("written");
    for user in ["zigbee2mqtt", "observer"] {
        let mut add = Command::new(env!("CARGO_BIN_EXE_broker"));
        add.args(["passwd", "--file", "passwords", "add", user]).current_dir(folder);
        add.stdin(File::open(folder.join("password")).expect("a file")).stdout(Stdio::null());
        assert!(add.status().expect("it runs").success());
    }
    let configuration = "listen = \"127.0.0.1:0\"\n[storage]\ndata = \"none\"\n[log]\nformat = \"json\"\n\
         [access]\npassword_file = \"passwords\"\nacl_file = \"acl.txt\"\n";
    fs::write(folder.join("broker.toml"), configuration).expect("written");
    let mut broker = Command::new(env!("CARGO_BIN_EXE_broker"));
    broker.args(["--config", "broker.toml"]).current_dir(folder).stderr(Stdio::piped());
    Broker::listening(broker.spawn().expect("the broker starts"))
}

/// zigbee2mqtt, which is killed at the end of the test.
struct Program(Child);

impl Program {
    fn start(folder: &Path, port: &str) -> Self {
        let work = Path::new("target/interop/zigbee2mqtt");
        fs::create_dir_all(work).expect("a folder");
        let install = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
        run(Command::new("npm").args(install).arg("--prefix").arg(work).arg("zigbee2mqtt@2.14.1"));
        let configuration = read("zigbee2mqtt/configuration.yaml")
            .replace(":1883", &format!(":{port}"))
            .replace("# user:", "user:")
            .replace("# password:", "password:");
        fs::write(folder.join("configuration.yaml"), configuration).expect("written");
        let program = Command::new("node")
            .args(["--require", "./tests/interop/zigbee_adapter.cjs"])
            .arg(work.join("node_modules/zigbee2mqtt/index.js"))
            .env("ZIGBEE2MQTT_DATA", folder)
            .env("Z2M_ONBOARD_NO_SERVER", "1")
            // In a repository, it takes the commit for its own, and builds itself again.
            .env("GIT_DIR", "none")
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("printed")).expect("a file"))
            .spawn();
        Self(program.expect("node runs"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client of Mosquitto that may do everything.
fn observer(name: &str, port: &str, topic: &str) -> Command {
    let mut client = Command::new(name);
    client.args(["-V", "5", "-q", "1", "-u", "observer", "-P", PASSWORD, "-p", port, "-t", topic]);
    client
}

/// The first message of a topic.
fn receive(port: &str, topic: &str) -> Child {
    let mut client = observer("mosquitto_sub", port, topic);
    client.args(["-C", "1", "-W", "100"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    client.spawn().expect("the client runs")
}

fn printed(child: Child) -> String {
    let output: Output = child.wait_with_output().expect("the output");
    text(&output)
}

/// Takes a minute to install, and so runs only if `RINGMQ_INTEROP=all` asks for it.
#[test]
fn zigbee2mqtt_runs_with_its_configuration_and_the_documented_rules() {
    if std::env::var_os("RINGMQ_INTEROP").is_none_or(|wanted| wanted != "all") {
        eprintln!("SKIPPED: RINGMQ_INTEROP=all runs zigbee2mqtt");
        return;
    }
    if !clients_are_there() {
        return;
    }
    let folder = folder("zigbee2mqtt");
    let broker = broker(&folder);
    let port = broker.port();
    let _program = Program::start(&folder, &port);
    // Retained, so that they are received whenever they are published.
    let state = printed(receive(&port, "zigbee2mqtt/bridge/state"));
    let discovery = printed(receive(&port, "homeassistant/+/+/connection_state/config"));
    // An answer shows that its subscriptions are there, too.
    let mut answer = receive(&port, "zigbee2mqtt/bridge/response/health_check");
    let until = Instant::now() + PATIENCE;
    while answer.try_wait().expect("the status").is_none() && Instant::now() < until {
        let ask = "zigbee2mqtt/bridge/request/health_check";
        run(observer("mosquitto_pub", &port, ask).args(["-m", ""]));
        std::thread::sleep(Duration::from_millis(200));
    }
    let answer = printed(answer);
    let log = fs::read_to_string(folder.join("printed")).expect("the log");
    assert_eq!(state, "{\"state\":\"online\"}\n", "{log}");
    assert!(discovery.contains("Zigbee2MQTT Bridge"), "{discovery}\n{log}");
    assert!(answer.contains("\"healthy\":true"), "{answer}\n{log}");
    // Of level error, whose name may be coloured.
    let is_error = |line: &&str| {
        line.starts_with('[') && line.chars().take(40).collect::<String>().contains("error")
    };
    let errors: Vec<_> = log.lines().filter(is_error).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}
