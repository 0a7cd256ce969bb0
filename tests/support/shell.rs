//! A shell in which the commands of a document's console blocks are run, and print what the document shows.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A command is repeated for so long until it prints what is expected.
const PATIENCE: Duration = Duration::from_secs(60);

/// The line after the output of a command.
const END: &str = "<end of the command>";

/// A command of the document, and what it prints; `…` stands for any text.
pub struct Step {
    pub command: String,
    pub output: String,
}

/// The commands of the blocks in a language below a heading, up to the next one of its level or above.
pub fn steps_of(document: &str, heading: &str, language: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).expect("the document");
    let (_, text) = text.split_once(&format!("\n{heading}\n")).expect("the heading");
    let level = heading.split(' ').next().expect("its level").len();
    let ends: Vec<String> = (2..=level).map(|level| format!("\n{} ", "#".repeat(level))).collect();
    let text = ends.iter().fold(text, |text, end| text.split(end.as_str()).next().expect("a part"));
    for block in text.split(&format!("```{language}\n")).skip(1) {
        let block = block.split("```").next().expect("a first part");
        // Lines of a command that are not its first one: after a backslash, and of a here-document.
        let (mut continues, mut until) = (false, None::<&str>);
        for line in block.lines() {
            let is_new = !continues && until.is_none();
            // Blocks of the language `sh` have nothing but commands.
            let command = if language == "sh" { Some(line) } else { line.strip_prefix("$ ") };
            if let Some(command) = command.filter(|_| is_new) {
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

/// A shell whose processes end with it.
pub struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    /// A shell in a folder, in which `broker` is that of the test, and clients of Mosquitto use a port.
    pub fn new(folder: &Path, port: u16) -> Self {
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
        let clients = ["mosquitto_pub", "mosquitto_sub"]
            .map(|name| format!("{name}() {{ command {name} -p {port} \"$@\"; }}\n"));
        shell.run(&format!("exec 2>&1\n{}", clients.concat()));
        shell
    }

    /// The output of a command, and its exit code.
    pub fn run(&mut self, command: &str) -> (String, i32) {
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

impl Shell {
    /// Runs a command, again and again where it prints something else than a document shows.
    pub fn follow(&mut self, command: &str, output: &str) {
        let expected = comparable(output);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (printed, code) = self.run(command);
            let is_right = match expected.is_empty() {
                true => code == 0,
                false => is_match(&expected, &comparable(&printed)),
            };
            if is_right {
                return;
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

impl Drop for Shell {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// Whether one of these programs is not installed, which is said then.
pub fn lacks(programs: &[&str]) -> bool {
    programs.iter().any(|program| {
        let found = Command::new("bash").args(["-c", &format!("command -v {program}")]).output();
        let is_there = found.is_ok_and(|found| found.status.success());
        if !is_there {
            eprintln!(
                "SKIPPED: {program} is not installed (Debian: prometheus, curl, mosquitto-clients, procps)"
            );
        }
        !is_there
    })
}

/// A port that nobody uses.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}
