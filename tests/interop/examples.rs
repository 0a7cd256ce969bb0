//! The programs and configurations in `examples/`, as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Broker, PYTHON, clients_are_there, text, wait};

/// What each program prints.
const PRINTS: &str = "house/kitchen/temperature 21.5\n";

fn example(path: &str) -> PathBuf {
    Path::new("examples").join(path)
}

pub fn read(path: &str) -> String {
    fs::read_to_string(example(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An empty folder for an example.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Runs a command that has to succeed, and returns what it prints.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = wait(child, &format!("{command:?}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Lets a program publish and receive at a broker of the default configuration.
#[track_caller]
fn publishes_and_receives(command: &mut Command) {
    let broker = Broker::start();
    let printed = run(command.args(["127.0.0.1", &broker.port()]));
    assert_eq!(printed, PRINTS, "{command:?}");
}

#[test]
fn the_program_in_python_publishes_and_receives() {
    if clients_are_there() {
        publishes_and_receives(Command::new(PYTHON).arg(example("python/temperature.py")));
    }
}

#[test]
fn the_program_in_javascript_publishes_and_receives() {
    if clients_are_there() {
        // Beside the packages that it imports.
        let program = Path::new("target/interop/temperature.mjs");
        fs::copy(example("javascript/temperature.mjs"), program).expect("copied");
        publishes_and_receives(Command::new("node").arg(program));
    }
}

#[test]
fn the_program_in_rust_publishes_and_receives() {
    if clients_are_there() {
        let target = "target/interop/cargo";
        run(Command::new(env!("CARGO")).args([
            "build",
            "--quiet",
            "--package",
            "temperature",
            "--target-dir",
            target,
        ]));
        publishes_and_receives(&mut Command::new(Path::new(target).join("debug/temperature")));
    }
}

#[test]
fn the_program_in_c_publishes_and_receives() {
    if clients_are_there() {
        let program = folder("c").join("temperature");
        run(Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(example("c/temperature.c"))
            .arg("-lpaho-mqtt3c"));
        publishes_and_receives(&mut Command::new(program));
    }
}

/// Lines of a code block in a language below a heading of `examples/README.md`.
#[cfg(all(unix, feature = "tls"))]
fn block(heading: &str, language: &str) -> Vec<String> {
    let text = read("README.md");
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().expect("a first part");
    let (_, block) = section.split_once(&format!("```{language}\n")).expect("a block");
    let (block, _) = block.split_once("```").expect("its end");
    block.lines().map(str::to_owned).collect()
}

#[cfg(all(unix, feature = "tls"))]
#[test]
fn tls_with_an_own_authority_takes_three_commands() {
    if !clients_are_there() {
        return;
    }
    let folder = folder("tls");
    let commands = block("TLS", "sh");
    let [authority, server, serve] = &commands[..] else { panic!("{commands:?}") };
    for command in [authority, server] {
        run(Command::new("bash").args(["-c", command]).current_dir(&folder));
    }
    let configuration = read("tls/broker.toml").replace(":1883", ":0").replace(":8883", ":0");
    fs::write(folder.join("broker.toml"), configuration.replace("0.0.0.0", "127.0.0.1"))
        .expect("written");
    let flags: Vec<_> = serve.split(' ').skip(1).collect();
    let mut broker = Command::new(env!("CARGO_BIN_EXE_broker"));
    broker.args(flags).args(["--data", "none", "--log-format", "json"]).current_dir(&folder);
    let child = broker.stderr(Stdio::piped()).spawn().expect("the broker starts");
    let broker = Broker::listening_with("tls", child);
    let at = ["-h", "localhost", "-p", &broker.port(), "--cafile", "ca.pem", "-t", "house/tls"];
    let here = |program: &str| {
        let mut command = Command::new(program);
        command.args(at).current_dir(&folder);
        command
    };
    run(here("mosquitto_pub").args(["-q", "1", "-r", "-m", "sealed"]));
    assert_eq!(run(here("mosquitto_sub").args(["-C", "1", "-W", "60"])), "sealed\n");
}

#[cfg(feature = "websocket")]
#[test]
fn the_configurations_are_valid() {
    for name in ["browser", "home-assistant"] {
        let folder = folder(name);
        for entry in fs::read_dir(example(name)).expect("the example") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, folder.join(path.file_name().expect("a name"))).expect("copied");
        }
        fs::write(folder.join("passwords"), "").expect("written");
        let said = run(Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--config", "broker.toml", "--check-config"])
            .current_dir(folder));
        assert!(said.starts_with("configuration ok"), "{name}: {said}");
    }
    let telegraf: toml::Table = read("telegraf/telegraf.conf").parse().expect("TOML");
    assert!(telegraf.contains_key("inputs"));
}

#[test]
fn a_device_may_do_what_home_assistant_needs_and_nothing_else() {
    let message: serde_json::Value =
        serde_json::from_str(&read("home-assistant/discovery.json")).expect("JSON");
    let decide = |user: &str, topic: &str, what: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["acl", "check", user, topic, what, "--file", "examples/home-assistant/acl.txt"])
            .output()
            .expect("the broker runs");
        assert!(output.stderr.is_empty(), "{}", text(&output));
        output.status.success()
    };
    for topic in ["state_topic", "availability_topic"] {
        assert!(decide("devices", message[topic].as_str().expect("a topic"), "--publish"));
    }
    assert!(decide("devices", "homeassistant/sensor/kitchen/config", "--publish"));
    assert!(decide("devices", "homeassistant/status", "--subscribe"));
    assert!(!decide("devices", "homeassistant/#", "--subscribe"));
    assert!(!decide("devices", "other/topic", "--publish"));
    assert!(decide("homeassistant", "other/topic", "--publish"));
}

/// Takes a minute to install, and so runs only if `RINGMQ_INTEROP=all` asks for it.
#[test]
fn the_flow_of_node_red_acts_on_a_temperature() {
    if std::env::var_os("RINGMQ_INTEROP").is_none_or(|wanted| wanted != "all") {
        eprintln!("SKIPPED: RINGMQ_INTEROP=all runs the flow of Node-RED");
        return;
    }
    if !clients_are_there() {
        return;
    }
    let work = Path::new("target/interop/node-red");
    fs::create_dir_all(work).expect("a folder");
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
    run(Command::new("npm").args(install).arg("--prefix").arg(work).arg("node-red@4.1.8"));
    let broker = Broker::start();
    let folder = folder("node-red");
    let flow = read("node-red/flow.json").replace("\"1883\"", &format!("{:?}", broker.port()));
    fs::write(folder.join("flow.json"), flow).expect("written");
    fs::write(folder.join("settings.js"), "module.exports = { uiHost: '127.0.0.1' };")
        .expect("written");
    let mut red = Command::new("node")
        .arg(work.join("node_modules/node-red/red.js"))
        .args(["--port", "0", "--userDir"])
        .arg(&folder)
        .arg("--settings")
        .arg(folder.join("settings.js"))
        .arg(folder.join("flow.json"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("node runs");
    // Retained, so that the flow receives it whenever it has started.
    let at = ["-p", &broker.port(), "-q", "1"];
    run(Command::new("mosquitto_pub").args(at).args([
        "-r",
        "-t",
        "house/kitchen/temperature",
        "-m",
        "21.5",
    ]));
    let mut subscriber = Command::new("mosquitto_sub");
    let output = subscriber.args(at).args(["-t", "house/fan", "-C", "1", "-W", "100"]).output();
    let _ = red.kill();
    let _ = red.wait();
    assert_eq!(output.expect("the client runs").stdout, b"on\n");
}
