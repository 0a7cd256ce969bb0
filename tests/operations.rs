//! The tour in docs/operations.md: each command is run, and prints what the document shows.
#![cfg(all(unix, feature = "admin"))]

#[path = "support/folder.rs"]
mod folder;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use folder::Folder;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");

/// A command is repeated for so long until it prints what is expected.
const PATIENCE: Duration = Duration::from_secs(60);

/// The line after the output of a command.
const END: &str = "<end of the command>";

/// A command of the document, and what it prints; `…` stands for any text.
struct Step {
    command: String,
    output: String,
}

/// The commands of the console blocks in a section.
fn steps_of(section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let document = std::fs::read_to_string(DOCUMENT).expect("the document");
    let text = document.split(&format!("\n## {section}\n")).nth(1).expect("the section");
    let text = text.split("\n## ").next().expect("a first part");
    for block in text.split("```console\n").skip(1) {
        let block = block.split("```").next().expect("a first part");
        // Lines of a command that are not its first one: after a backslash, and of a here-document.
        let (mut continues, mut until) = (false, None::<&str>);
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ").filter(|_| until.is_none()) {
                steps.push(Step { command: command.to_owned(), output: String::new() });
                until = command.contains("<<'END'").then_some("END");
            } else {
                let step = steps.last_mut().expect("a command first");
                let part =
                    if continues || until.is_some() { &mut step.command } else { &mut step.output };
                part.push('\n');
                part.push_str(line);
                until = until.filter(|&end| end != line);
            }
            continues = line.ends_with('\\');
        }
    }
    steps
}

/// Output without what differs from one run to the next: the width of columns, times and ports.
fn comparable(text: &str) -> String {
    let word = |word: &str| match word.contains(':') {
        true => word.replace(|c: char| c.is_ascii_digit(), "0"),
        false => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    let mut text = text.lines().map(line).collect::<Vec<_>>().join("\n");
    while text.contains("00") {
        text = text.replace("00", "0");
    }
    text.trim().to_owned()
}

/// Whether `expected` with its `…` matches a text.
fn is_match(expected: &str, text: &str) -> bool {
    let parts: Vec<&str> = expected.split('…').map(str::trim).collect();
    let [first, middle @ .., last] = &parts[..] else { return expected == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// A shell in which the tour is taken.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn new(folder: &Path, ports: &[u16; 3]) -> Self {
        let deploy = folder.join("deploy/prometheus");
        std::fs::create_dir_all(&deploy).expect("a folder");
        for file in ["prometheus.yml", "ringmq.rules.yml"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus").join(file);
            let text = std::fs::read_to_string(source).expect("the file");
            std::fs::write(deploy.join(file), with_ports(&text, ports)).expect("written");
        }
        let programs = Path::new(env!("CARGO_BIN_EXE_broker")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("bash")
            .args(["--norc", "--noprofile"])
            .env("PATH", format!("{}:{path}", programs.display()))
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is there");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Self { child, input, output };
        let port = ports[0];
        let clients = ["mosquitto_pub", "mosquitto_sub"]
            .map(|name| format!("{name}() {{ command {name} -p {port} \"$@\"; }}\n"));
        shell.run(&format!("exec 2>&1\n{}", clients.concat()));
        shell
    }

    /// The output of a command, and its exit code.
    fn run(&mut self, command: &str) -> (String, i32) {
        // The input of the shell is not the input of the command.
        writeln!(self.input, "{command}\nprintf '\\n%s %d\\n' '{END}' $?").expect("bash reads");
        let mut output = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).expect("text") > 0,
                "{command}: bash has ended"
            );
            if let Some(code) = line.strip_prefix(END) {
                return (output, code.trim().parse().expect("a number"));
            }
            output.push_str(&line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// A text with free ports in place of those of MQTT, the admin interface and Prometheus.
fn with_ports(text: &str, ports: &[u16; 3]) -> String {
    let documented = ["1883", "9883", "9090"].iter().zip(ports);
    documented.fold(text.to_owned(), |text, (documented, port)| {
        text.replace(documented, &port.to_string())
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

#[test]
fn the_tour_of_an_operator_leads_through() {
    for program in ["prometheus", "promtool", "curl", "mosquitto_sub", "pgrep"] {
        let found = Command::new("bash").args(["-c", &format!("command -v {program}")]).output();
        if !found.is_ok_and(|found| found.status.success()) {
            eprintln!(
                "SKIPPED: {program} is not installed (Debian: prometheus, curl, mosquitto-clients, procps)"
            );
            return;
        }
    }
    let steps = steps_of("Tour");
    assert!(steps.len() > 20, "{} commands", steps.len());
    let folder = Folder::new("tour");
    let ports = [free_port(), free_port(), free_port()];
    let mut shell = Shell::new(&folder.0, &ports);
    for Step { command, output } in steps {
        let here = with_ports(&command, &ports);
        let expected = comparable(&output);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (printed, code) = shell.run(&here);
            let is_right = match expected.is_empty() {
                true => code == 0,
                false => is_match(&expected, &comparable(&printed)),
            };
            if is_right {
                break;
            }
            let can_repeat = !expected.is_empty() && Instant::now() < deadline;
            assert!(
                can_repeat,
                "$ {command}\nexit code {code}, printed:\n{printed}\nexpected:\n{output}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
