//! Commands in code blocks of documents, run as they are there. `tests/documents/blocks.rs` lists all blocks, and where each
//! is run.
#![cfg(all(unix, feature = "admin", feature = "store"))]

#[path = "support/folder.rs"]
mod folder;
#[path = "support/shell.rs"]
mod shell;

use std::path::Path;

use folder::Folder;
use shell::{Shell, free_port, lacks, steps_of};

/// A shell in a folder of its own, with a broker on a port.
struct Terminal {
    folder: Folder,
    shell: Shell,
}

impl Terminal {
    /// None, with a notice, where a program is not installed. The configuration is that of the broker, but `listen`.
    fn start(name: &str, configuration: &str) -> Option<Self> {
        if lacks(&["mosquitto_sub", "curl"]) {
            return None;
        }
        let (folder, port) = (Folder::new(name), free_port());
        let listen = format!("listen = \"127.0.0.1:{port}\"\n");
        folder
            .write("broker.toml", &format!("{listen}{configuration}[storage]\ndata = \"data\"\n"));
        let mut shell = Shell::new(&folder.0, port);
        shell.run("export RINGMQCTL_AT=unix:data/admin.sock; shopt -s expand_aliases");
        shell.run("broker --config broker.toml 2>broker.log &");
        shell.follow("broker ctl health", "NAME…all…");
        Some(Self { folder, shell })
    }
}

#[test]
fn users_and_rules_change_while_the_broker_runs_as_documented() {
    let document = include_str!("../docs/access.md");
    let (_, section) = document.split_once("\n## User database\n").expect("the heading");
    let (_, keys) = section.split_once("```toml\n").expect("the keys");
    let (keys, _) = keys.split_once("```").expect("their end");
    let Some(mut at) = Terminal::start("users", keys) else { return };
    at.folder.write("new-password", "other secret\n");
    let steps = steps_of("docs/access.md", "## User database", "console");
    assert_eq!(steps.len(), 6);
    for step in steps {
        let (command, output) = match step.output.contains("New password") {
            true => (format!("{} <<<secret", step.command), String::new()),
            false => (step.command, step.output),
        };
        at.shell.follow(&command, &output);
    }
}

#[test]
fn a_topic_below_sys_has_what_is_documented() {
    let Some(mut at) = Terminal::start("sys", "[mqtt]\nsys_interval_s = 1\n") else { return };
    // The client that is counted.
    at.shell.run("mosquitto_sub -t none &");
    for step in steps_of("docs/metrics.md", "## `$SYS` topics", "console") {
        at.shell.follow(&step.command, &step.output);
    }
}

#[test]
fn statistics_have_the_documented_lines() {
    let folder = Folder::new("statistics");
    let mut shell = Shell::new(&folder.0, 0);
    let steps = steps_of("docs/metrics.md", "## Latency statistics", "console");
    let [step] = &steps[..] else { panic!("{} commands", steps.len()) };
    // The first words of a line; numbers and bars differ.
    let words = |line: &str| -> String {
        let words = line.split("  ").next().expect("a first part").trim();
        words.chars().take_while(|c| !c.is_ascii_digit()).collect()
    };
    let (lines, _) = step.output.split_once("PUBLISH, QoS 1, by").expect("a histogram");
    let lines = lines.lines().map(words).filter(|line| !line.is_empty() && line != "packets");
    let command = step.command.replace("10", "1") + " --listen 127.0.0.1:0 --data none";
    shell.run(&format!("{command} >statistics 2>log & broker=$!"));
    shell.follow("cat statistics", "…── ringmq…");
    for line in lines.filter(|line| !line.starts_with("PUBLISH") && !line.starts_with("CONNECT")) {
        shell.follow("cat statistics", &format!("…{line}…"));
    }
}

#[test]
fn the_dashboard_is_turned_on_as_documented() {
    let folder = Folder::new("dashboard");
    let mut shell = Shell::new(&folder.0, 0);
    folder.write("broker.toml", "listen = \"127.0.0.1:1883\"\n");
    for step in steps_of("docs/operations.md", "### Dashboard", "sh") {
        shell.follow(&step.command, "");
    }
    shell.follow("broker --config broker.toml --check-config", "configuration ok…");
}

#[test]
fn broker_ctl_reaches_a_broker_over_tcp_as_documented() {
    let port = free_port();
    let admin = format!(
        "[admin]\nlisten = [\"unix\", \"127.0.0.1:{port}\"]\n[admin.access]\ntokens_file = \"tokens\"\n"
    );
    if lacks(&["curl"]) {
        return;
    }
    let folder = Folder::new("ctl");
    let mut shell = Shell::new(&folder.0, 0);
    let here = |command: &str| {
        let at = format!("http://127.0.0.1:{port}");
        command.replace("/etc/ringmq/", "").replace("https://broker.example.org:9883", &at)
    };
    let steps = steps_of("docs/operations.md", "## `broker ctl`", "console");
    let [token, status] = &steps[..] else { panic!("{} commands", steps.len()) };
    shell.follow(&here(&token.command), "");
    let listen = "listen = \"127.0.0.1:0\"\n";
    folder.write("broker.toml", &format!("{listen}{admin}[storage]\ndata = \"none\"\n"));
    shell.run("broker --config broker.toml 2>broker.log &");
    shell.follow(&here(&status.command), "…uptime…");
}

#[test]
fn the_admin_interface_answers_curl_as_documented() {
    let Some(mut at) = Terminal::start("curl", "") else { return };
    at.shell.run("mosquitto_sub -i sensor-17 -t none &");
    at.shell.follow("broker ctl clients --prefix sensor-", "…sensor-17…connected…");
    let steps = steps_of("docs/operations.md", "## Clients, topics and messages", "console");
    assert!(steps.len() > 4, "{} commands", steps.len());
    for step in steps {
        let command = step.command.replace("/var/lib/ringmq/", "data/");
        let command = command.replace("curl --silent", "curl --silent --show-error --fail");
        at.shell.follow(&command, &step.output);
    }
}

#[test]
fn a_trace_shows_what_is_documented() {
    let Some(mut at) = Terminal::start("trace", "") else { return };
    let steps = steps_of("docs/operations.md", "## Trace", "console");
    let [step] = &steps[..] else { panic!("{} commands", steps.len()) };
    at.shell.run(&format!("{} >packets &", step.command.replace("30", "5")));
    // Only the trace shows that it has begun.
    let send = "mosquitto_pub -V 5 -i pump-7 -t plant/pump-7/rpm -q 1 -m 1480";
    at.shell.follow(&format!("{send}; grep -q PUBACK packets && echo traced"), "…traced");
    at.shell.follow("tail -n 1 packets", "end (time): …events");
    let (shown, _) = step.output.trim().rsplit_once('\n').expect("lines");
    for line in shown.lines() {
        let (_, event) = line.split_once("pump-7 ").expect("the client");
        at.shell.follow("cat packets", &format!("…{event}…"));
    }
}

#[test]
fn a_database_of_mosquitto_is_imported_as_documented() {
    let folder = Folder::new("database");
    let fixture = "tests/fixtures/mosquitto-db/v2.0.11.db";
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture);
    std::fs::copy(fixture, folder.0.join("mosquitto.db")).expect("copied");
    let mut shell = Shell::new(&folder.0, 0);
    for step in steps_of("docs/from-mosquitto.md", "## Database", "console") {
        shell.follow(&step.command.replace("/var/lib/mosquitto/", ""), "");
    }
    shell.follow("broker store --data DIR inspect", "…sessions…");
}

#[test]
fn the_platform_is_reported_with_the_documented_lines() {
    let folder = Folder::new("platform");
    let mut shell = Shell::new(&folder.0, 0);
    let steps = steps_of("docs/command-line.md", "## Executors", "console");
    let [step] = &steps[..] else { panic!("{} commands", steps.len()) };
    let label = |line: &str| line.split_at_checked(14).map(|(label, _)| label.trim().to_owned());
    for label in step.output.lines().filter_map(label).filter(|label| !label.is_empty()) {
        shell.follow(&step.command, &format!("…{label}…"));
    }
}
