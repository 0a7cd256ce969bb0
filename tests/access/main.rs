//! Authentication and authorization as seen by clients: every way to be accepted, and every way to
//! be refused.

#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "../conformance/support/mod.rs"]
mod support;

#[cfg(feature = "http-hook")]
mod authorization;
mod client_log;
mod denials;
#[cfg(feature = "jwt")]
mod grants;
#[cfg(feature = "http-hook")]
#[path = "../support/http.rs"]
mod http;
#[cfg(all(feature = "jwt", feature = "http-hook"))]
mod key_url;
mod limits;
#[path = "../support/matrix.rs"]
mod matrix;
mod methods;
mod names;
mod protection;
mod proxied;
mod reload;
mod rules;
mod sessions;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use support::{Broker, Client, Connect, Packet, Subscribe, V5, Version};

/// Cheap password hashes, as these tests do not measure their cost.
const CHEAP: &str = "[access.hashing]\nmemory_kib = 8\niterations = 1\nscram_iterations = 4096\n";

/// Files of one test, removed with it.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ringmq-access-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        let files = Self(path);
        files.write("cheap.toml", CHEAP);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    /// Adds users, each with its name twice as its password.
    fn with_users(self, users: &[&str]) -> Self {
        for user in users {
            let out = self.passwd(&["add", user], &format!("{user}{user}\n"));
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
        self
    }

    fn passwd(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = broker(&["passwd", "--file"]);
        command.arg(self.path("passwords")).arg("--config").arg(self.path("cheap.toml"));
        run(command.args(arguments), input)
    }

    fn with_rules(self, rules: &str) -> Self {
        self.write("acl", rules);
        self
    }

    /// The section `[access]` that refers to the existing files, followed by `more`.
    fn access(&self, more: &str) -> String {
        let mut text = String::from("[access]\n");
        for (key, file) in [("password_file", "passwords"), ("acl_file", "acl")] {
            if self.path(file).exists() {
                text += &format!("{key} = {:?}\n", self.path(file));
            }
        }
        format!("{text}{more}\n")
    }

    fn broker(&self, more: &str) -> Broker {
        Broker::with_config(&self.access(more))
    }

    /// Makes the broker reload the files, and waits until it has.
    fn reload(&self, broker: &Broker) {
        let before = broker.log().matches("\"reloaded\"").count();
        broker.signal("-HUP");
        broker.await_log("\"reloaded\"", before + 1);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(arguments);
    command
}

fn run(command: &mut Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the command runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("the process reads its input");
    child.wait_with_output().expect("the process exits")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A user's CONNECT with the correct password.
fn as_user(version: Version, user: &str, client_identifier: &str) -> Connect {
    Connect::new(version, client_identifier).username(user).password(format!("{user}{user}"))
}

/// Records how a client of the tests was authenticated or refused.
fn record(broker: &Broker, authentication: &str) {
    let flags = std::env::var("RINGMQ_TEST_FLAGS").unwrap_or_default();
    let events = events(broker);
    let setup = events.iter().find_map(|event| matrix::setup_of(event, &flags));
    let setup = setup.expect("the start event");
    matrix::record(&setup, "tcp", authentication, "the tests' own");
}

fn events(broker: &Broker) -> Vec<serde_json::Value> {
    // The last line may be incomplete.
    broker.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until `$SYS` shows this count. Requires `sys_interval_s = 1`.
#[track_caller]
fn await_metric(broker: &Broker, asks: Connect, name: &str, value: u64) {
    let mut client = Client::connect(broker, asks);
    client.send(Subscribe::new(1, format!("$SYS/broker/{name}"), 0));
    let (mut is_granted, mut is_shown) = (false, false);
    while !is_granted || !is_shown {
        // With several cores the value may arrive before SUBACK.
        match client.receive() {
            Packet::Suback(suback) => is_granted = suback.reasons == [0],
            Packet::Publish(publish) => is_shown |= publish.text() == value.to_string(),
            other => panic!("{other:?} instead of {name}"),
        }
    }
    client.raw(&[0xE0, 0]);
    // The retained value may follow.
    client.expect_end_within_bytes(1_000);
}

fn in_version(version: Version, v5: u8, v311: u8) -> u8 {
    if version == V5 { v5 } else { v311 }
}
