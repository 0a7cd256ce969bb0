//! A node: this program, started again, which writes what happens to its standard output, a line for each event, and ends
//! with its standard input.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmq::cluster::nats::{Carrier, CarrierEvent};
use ringmq::cluster::setup;
use ringmq::cluster::view::LaneVersions;
use ringmq::config::Settings;
use ringmq::control::cluster::ClusterBoard;

/// How long a condition is waited for: many times what it takes on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(120);

const SETTINGS: &str = "RINGMQ_CLUSTER_TEST_NODE";
const DATA: &str = "RINGMQ_CLUSTER_TEST_DATA";

/// A node that runs.
pub struct Node {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Node {
    pub fn start(settings: &str, data: &Path) -> Self {
        std::fs::create_dir_all(data).expect("a folder");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "node::a_node_that_a_test_started", "--nocapture"])
            .env(SETTINGS, settings)
            .env(DATA, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = child.stdout.take().expect("a pipe");
        let said = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let told = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                told.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                told.1.notify_all();
            }
        });
        let input = child.stdin.take();
        Self { child, input, said }
    }

    /// How many lines it has written.
    pub fn lines(&self) -> usize {
        self.said.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for a line, after the first ones, for which something holds, and returns it.
    pub fn wait_after(&self, first: usize, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.iter().skip(first).find(|line| holds(line)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            let others = || lines.iter().filter(|line| !line.starts_with("frame"));
            assert!(!left.is_zero(), "{what} has not come: {:#?}", others().collect::<Vec<_>>());
            let waited = self.said.1.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it says something.
    pub fn wait(&self, what: &str) -> String {
        self.wait_after(0, what, |line| line.starts_with(what))
    }

    /// What it said last of a kind.
    pub fn last(&self, what: &str) -> String {
        self.wait(what);
        let lines = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().find(|line| line.starts_with(what)).cloned().unwrap_or_default()
    }

    /// Waits until it says something anew.
    pub fn wait_anew(&self, what: &str) -> String {
        self.wait_after(self.lines(), what, |line| line.starts_with(what))
    }

    /// Whether it has said something.
    pub fn has_said(&self, what: &str) -> bool {
        self.said
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|line| line.starts_with(what))
    }

    /// Tells it something.
    pub fn tell(&mut self, what: &str) {
        let input = self.input.as_mut().expect("it runs");
        writeln!(input, "{what}").expect("it listens");
    }

    pub fn signal(&self, name: &str) {
        let number = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &number]).status().expect("kill runs");
        assert!(sent.success(), "{name}");
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it, and waits for that.
    pub fn stop(&mut self) {
        drop(self.input.take());
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("it can be asked").is_none() {
            assert!(Instant::now() < end, "the node does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The number after a word of a line.
pub fn number(line: &str, word: &str) -> u64 {
    let mut words = line.split_whitespace();
    words.find(|of| *of == word).and_then(|_| words.next()?.parse().ok()).expect(line)
}

/// No test of its own: what [`Node::start`] starts.
#[test]
fn a_node_that_a_test_started() {
    let (Ok(settings), Some(data)) = (std::env::var(SETTINGS), std::env::var_os(DATA)) else {
        return;
    };
    let settings = Settings::from_toml(&format!("[cluster]\n{settings}")).expect("settings");
    settings.check().expect("valid settings");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run(&settings, Path::new(&data)));
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
        std::process::exit(0);
    }
}

async fn run(settings: &Settings, data: &Path) {
    let lanes = LaneVersions { lowest: 1, highest: 1 };
    let board = ClusterBoard::default();
    let started = setup::start(&settings.cluster, Some(data), lanes, board.clone()).await;
    let (engine, mut carrier) = match started {
        Ok(started) => started,
        Err(why) => return say(&format!("failed {why}")),
    };
    let (teller, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = teller.send(line);
        }
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut echoed = Instant::now();
    loop {
        tokio::select! {
            event = carrier.next_event() => take(event, &mut carrier, &mut echoed),
            line = told.recv() => match line.as_deref() {
                Some("leave") => carrier.leave(),
                Some("status") => say(&format!("status {:?}", board.status())),
                Some(_) => {}
                None => break,
            },
            _ = ticks.tick() => {
                carrier.send_echo(1);
                if echoed.elapsed() > Duration::from_secs(2) {
                    carrier.force_reconnect();
                    echoed = Instant::now();
                }
                speak(&mut carrier);
            }
        }
    }
    if let Some(engine) = engine {
        engine.stop().await;
    }
    say("ended");
}

/// Sends every other member a frame with this node's incarnation.
fn speak(carrier: &mut Carrier) {
    let (Some((own, incarnation)), Some(view)) = (carrier.own(), carrier.view().cloned()) else {
        return;
    };
    for member in view.members.iter().filter(|member| member.node != own) {
        carrier.send(member.node, incarnation.0.to_string().into_bytes().into());
    }
}

fn take(event: CarrierEvent, carrier: &mut Carrier, echoed: &mut Instant) {
    match event {
        CarrierEvent::Connected { server } => {
            *echoed = Instant::now();
            say(&format!("connected {server}"));
        }
        CarrierEvent::Disconnected => say("disconnected"),
        CarrierEvent::Joined { node, incarnation, seed } => {
            say(&format!("joined {node} incarnation {incarnation} seed {seed:?}"));
            carrier.set_ready();
        }
        CarrierEvent::Refused(error) => say(&format!("refused {error}")),
        CarrierEvent::FrameReceived { from, frame } => {
            let view = carrier.view().expect("a node with lanes has a view");
            let incarnation = view.member(from).map(|member| member.incarnation.0.to_string());
            if incarnation.is_some_and(|of| of.as_bytes() == &frame[..]) {
                carrier.note_heard(from);
                say(&format!("frame from {from}"));
            }
        }
        CarrierEvent::ViewChanged(view) => {
            let member =
                |of: &ringmq::cluster::view::Member| format!("{}:{}", of.node, of.state.name());
            let members: Vec<String> = view.members.iter().map(member).collect();
            say(&format!("view {}", members.join(" ")));
        }
        CarrierEvent::EchoHeard(_) => *echoed = Instant::now(),
        CarrierEvent::LeaseSeen { .. } => {}
        CarrierEvent::Isolated => say("isolated"),
        CarrierEvent::Healed => say("healed"),
        CarrierEvent::Evicted => {
            say("evicted");
            carrier.rejoin();
        }
        CarrierEvent::Left => say("left"),
    }
}
