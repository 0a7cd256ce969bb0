//! Console blocks of README.md and docs, run as they are: commands as a person types them, and what they print.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::{Broker, PATIENCE, clients_are_there, wait};

/// A topic for messages that only find out whether a subscription is there.
const PROBE: &str = "house/probe";

/// A command, and the lines that follow it in the document.
struct Step {
    command: String,
    prints: Vec<String>,
}

/// The console blocks below a heading.
fn blocks(document: &str, heading: &str) -> Vec<Vec<Step>> {
    let text = fs::read_to_string(document).expect("the document");
    let (_, section) = text.split_once(&format!("\n{heading}\n")).expect("the heading");
    let level = heading.split(' ').next().expect("its level").len();
    let is_end = |line: &&str| {
        line.starts_with('#') && line.split(' ').next().is_some_and(|marks| marks.len() <= level)
    };
    let section: Vec<_> = section.lines().take_while(|line| !is_end(line)).collect();
    let section = section.join("\n") + "\n";
    let blocks = section.split("```console\n").skip(1);
    blocks.map(|block| steps(block.split("```").next().expect("a block"))).collect()
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { command: command.to_owned(), prints: Vec::new() })
            }
            (None, Some(step)) => step.prints.push(line.to_owned()),
            (None, None) => panic!("the block begins with {line}"),
        }
    }
    steps
}

/// A folder, in which `broker` and the clients of Mosquitto are those of the test.
struct Terminal {
    folder: PathBuf,
    in_background: Vec<Child>,
}

impl Terminal {
    fn new(name: &str, port: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).expect("a folder");
        let terminal = Self { folder, in_background: Vec::new() };
        terminal.program("broker", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_broker")));
        for client in ["mosquitto_pub", "mosquitto_sub"] {
            let found = format!("PATH=${{PATH#*:}}; exec {client} -p {port} \"$@\"");
            terminal.program(client, &found);
        }
        File::create(terminal.folder.join("printed")).expect("a file");
        terminal
    }

    fn program(&self, name: &str, line: &str) {
        let path = self.folder.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("written");
        let made = Command::new("chmod").arg("755").arg(path).status();
        assert!(made.expect("the command runs").success());
    }

    /// A command whose output is appended to that of the others; `input` is what the person types.
    fn start(&self, command: &str, input: &str) -> Child {
        fs::write(self.folder.join("input"), input).expect("written");
        let printed = File::options().append(true).open(self.folder.join("printed"));
        Command::new("bash")
            .args(["-c", &format!("PATH=$PWD/bin:$PATH; {command}")])
            .env("SECRET", "secret")
            .current_dir(&self.folder)
            .stdin(File::open(self.folder.join("input")).expect("a file"))
            .stdout(printed.expect("a file"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash runs")
    }

    fn run(&self, command: &str, input: &str) {
        wait(self.start(command, input), command);
    }

    fn printed(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("printed")).expect("the file");
        text.lines().filter(|line| !line.starts_with(PROBE)).map(str::to_owned).collect()
    }

    /// Starts a subscriber that stays, and waits until it receives.
    fn run_in_background(&mut self, command: &str) {
        self.in_background.push(self.start(&format!("exec {command}"), ""));
        let until = Instant::now() + PATIENCE;
        let is_there = |terminal: &Self| {
            let text = fs::read_to_string(terminal.folder.join("printed")).expect("the file");
            text.lines().any(|line| line.starts_with(PROBE))
        };
        while !is_there(self) {
            assert!(Instant::now() < until, "{command} receives nothing");
            self.run(&format!("mosquitto_pub -t {PROBE} -m there -q 1"), "");
        }
    }

    /// Runs the commands of a block, and compares what they print, in any order, as some run at the same time.
    fn follow(&mut self, block: &[Step], input: &str) {
        let before = self.printed().len();
        let mut expected = Vec::new();
        for Step { command, prints } in block {
            if let Some(file) = command.strip_prefix("cat ") {
                fs::write(self.folder.join(file), prints.join("\n")).expect("written");
            } else if let Some(command) = command.strip_suffix(" &") {
                self.run_in_background(command);
            } else {
                self.run(command, input);
                expected.extend_from_slice(prints);
            }
        }
        expected.sort();
        let until = Instant::now() + PATIENCE;
        loop {
            let mut printed = self.printed().split_off(before);
            printed.sort();
            if printed == expected {
                return;
            }
            assert!(
                printed.len() < expected.len() && Instant::now() < until,
                "printed:\n{}\nin the document:\n{}",
                printed.join("\n"),
                expected.join("\n")
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for child in &mut self.in_background {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Without what only a person is asked.
fn without_prompts(block: &mut [Step]) {
    let is_prompt = |line: &String| line.starts_with("New password") || line.starts_with("Repeat");
    block.iter_mut().for_each(|step| step.prints.retain(|line| !is_prompt(line)));
}

#[test]
fn the_tour_of_the_readme_prints_what_it_shows() {
    if !clients_are_there() {
        return;
    }
    let broker = Broker::start();
    let mut terminal = Terminal::new("tour", &broker.port());
    let mut blocks = blocks("README.md", "## Two-minute tour");
    let [publish, session, rules] = &mut blocks[..] else { panic!("{} blocks", blocks.len()) };
    terminal.follow(publish, "");
    terminal.follow(session, "");
    // The last command serves other machines; the one before it has checked that it can.
    let last = rules.pop().expect("commands");
    assert_eq!(last.command, "broker --config broker.toml");
    terminal.follow(rules, "secret\n");
}

#[test]
fn users_of_a_password_file_are_managed_as_documented() {
    let mut terminal = Terminal::new("passwords", "0");
    let mut blocks = blocks("docs/access.md", "## Password file");
    let block = &mut blocks[0];
    without_prompts(block);
    terminal.follow(block, "secret\n");
}

#[test]
fn decisions_of_rules_are_explained_as_documented() {
    let mut terminal = Terminal::new("rules", "0");
    let folder = &terminal.folder;
    fs::create_dir(folder.join("deploy")).expect("a folder");
    fs::copy("deploy/acl.txt", folder.join("deploy/acl.txt")).expect("copied");
    let of_identifiers = "for users\n    allow client %u/*\n";
    fs::write(folder.join("acl.txt"), of_identifiers).expect("written");
    let of_mosquitto = "user alice\ntopic readwrite house/#\ntopic deny house/alarm\n";
    fs::write(folder.join("mosquitto.acl"), of_mosquitto).expect("written");
    let mut blocks = blocks("docs/access.md", "### Explain a decision");
    for step in &mut blocks[0] {
        // The exit code says what is decided, too.
        let is_denied = step.prints.iter().any(|line| line.contains(": denied for"));
        let (command, code) = (&step.command, u8::from(is_denied));
        step.command = format!("{command}\ntest $? = {code}");
    }
    terminal.follow(&blocks[0], "");
}

#[test]
fn a_file_of_mosquitto_is_taken_over_as_documented() {
    let mut terminal = Terminal::new("mosquitto", "0");
    let lines = "persistence true\npersistence_location /var/lib/mosquitto/\nlistener 1883\nautosave_interval 60\n";
    fs::write(terminal.folder.join("mosquitto.conf"), lines).expect("written");
    let mut blocks = blocks("docs/from-mosquitto.md", "## Configuration");
    for step in &mut blocks[0] {
        step.command = step.command.replace("/etc/mosquitto/", "");
        step.prints.iter_mut().for_each(|line| *line = line.replace("/etc/mosquitto/", ""));
    }
    terminal.follow(&blocks[0], "");
}

#[test]
fn a_store_is_exported_checked_and_repaired_as_documented() {
    if !clients_are_there() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console").join("store");
    let _ = fs::remove_dir_all(&folder);
    let mut broker = Command::new(env!("CARGO_BIN_EXE_broker"));
    broker.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--data"]).arg(&folder);
    let child = broker.stderr(Stdio::piped()).spawn().expect("the broker starts");
    let mut broker = Broker::listening(child);
    let terminal = Terminal::new("store-commands", &broker.port());
    terminal.run("mosquitto_sub -V 5 -i ID -c -x 3600 -q 1 -t alarm -E", "");
    terminal.run("mosquitto_pub -q 1 -t alarm -m 'window open'", "");
    broker.kill();
    fs::rename(&folder, terminal.folder.join("DIR")).expect("moved");
    for block in blocks("docs/persistence.md", "## Backup and restore")
        .into_iter()
        .chain(blocks("docs/persistence.md", "## Verify and repair"))
    {
        for step in block {
            terminal.run(&step.command, "");
        }
    }
    let text = fs::read_to_string(terminal.folder.join("store.jsonl")).expect("the export");
    assert!(text.contains("alarm") && text.lines().count() > 1, "{text}");
    terminal.run("broker store --data OTHER export >other.jsonl", "");
    let other = fs::read_to_string(terminal.folder.join("other.jsonl")).expect("the export");
    assert_eq!(other.lines().count(), text.lines().count(), "{text}\n{other}");
}
