//! A broker process on a port of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A broker process, stopped at the end of the test; its log is printed if the test fails.
pub struct Broker {
    address: SocketAddr,
    process: Option<Process>,
    second: Option<Second>,
}

/// Another node of the cluster of the first one.
struct Second {
    node: Box<Broker>,
    /// Connections so far: they go to the two in turn.
    connections: AtomicUsize,
}

struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    configuration: Option<PathBuf>,
    /// What follows the text of the test in the configuration.
    section: String,
    data: Option<PathBuf>,
}

/// Another broker, to check the tests themselves: the address `HOST:PORT` of a running one (with
/// `--test-threads=1`, as the tests share it), or a command that accepts `-p PORT`, such as
/// `mosquitto`, started for each test.
const OTHER: &str = "RINGMQ_TEST_BROKER";

/// The command that runs this project's broker, if not the one built with the tests: a build for
/// another processor or system with its emulator, such as `qemu-arm target/cross/…/broker`.
const PROGRAM: &str = "RINGMQ_TEST_PROGRAM";

/// Additional flags for this project's broker, such as `--cores 4 --mode poll`.
const FLAGS: &str = "RINGMQ_TEST_FLAGS";

/// A folder in which each broker of this project has a store of its own. Without it, sessions are
/// in memory.
const DATA: &str = "RINGMQ_TEST_DATA";

/// Address of a nats-server. Each broker of this project is then two nodes of a cluster of their own, to which connections
/// go in turn; `tests/cluster/run` sets it.
const ENGINE: &str = "RINGMQ_TEST_ENGINE";

impl Broker {
    /// Starts a broker with the default configuration.
    pub fn start() -> Self {
        match std::env::var(OTHER) {
            Ok(other) if other.contains(':') => Self {
                address: other.to_socket_addrs().expect("HOST:PORT").next().expect("an address"),
                process: None,
                second: None,
            },
            Ok(command) => Self::other(&command),
            Err(_) => Self::with_config(""),
        }
    }

    /// Starts this project's broker with a configuration file of this text.
    pub fn with_config(text: &str) -> Self {
        Self::listening_at("127.0.0.1:0", text)
    }

    /// Like [`with_config`](Self::with_config), at another address of this machine.
    pub fn listening_at(listen: &str, text: &str) -> Self {
        let number = next_number();
        match std::env::var(ENGINE) {
            Ok(engine) if !text.contains("[cluster]") => {
                Self::two_nodes(listen, text, number, &engine)
            }
            _ => Self::node(&own_program(), listen, text, number, String::new()),
        }
    }

    /// Like [`listening_at`](Self::listening_at), by a command that runs another one, such as in a namespace.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn run_by(command: &str, listen: &str, text: &str) -> Self {
        Self::run(&format!("{command} {}", own_program()), listen, text)
    }

    /// Like [`listening_at`](Self::listening_at), of another program, with what comes before it on the command line.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn run(program: &str, listen: &str, text: &str) -> Self {
        Self::node(program, listen, text, next_number(), String::new())
    }

    /// Starts two nodes, which know each other.
    fn two_nodes(listen: &str, text: &str, number: u32, engine: &str) -> Self {
        let start = |node: u32| {
            let name = format!("test-{}-{number}", std::process::id());
            let section =
                format!("\n[cluster]\nname = \"{name}\"\nnode = {node}\nengine = [\"{engine}\"]\n");
            let number = if node == 0 { number } else { next_number() };
            Self::node(&own_program(), listen, text, number, section)
        };
        let (mut first, node) = (start(0), start(1));
        for broker in [&first, &node] {
            broker.await_log("cluster: a node has joined", 1);
        }
        first.second = Some(Second { node: Box::new(node), connections: AtomicUsize::new(0) });
        first
    }

    fn node(program: &str, listen: &str, text: &str, number: u32, section: String) -> Self {
        let name = format!("ringmq-conformance-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, format!("{text}{section}")).expect("a configuration file");
        let mut words = program.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        command.args(["--listen", listen, "--log-format", "json", "--config"]).arg(&path);
        command.args(std::env::var(FLAGS).unwrap_or_default().split_whitespace());
        let folder = |base| PathBuf::from(base).join(format!("{}-{number}", std::process::id()));
        let data = std::env::var_os(DATA).map(folder);
        if let Some(data) = &data {
            command.arg("--data").arg(data);
        }
        let mut child = spawn(&mut command);
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut seen = String::new();
        let address = loop {
            let start = seen.len();
            let read = log.read_line(&mut seen).expect("a log of text");
            assert!(read > 0, "the broker exited before it listened:\n{seen}");
            let event: serde_json::Value =
                serde_json::from_str(&seen[start..]).unwrap_or_else(|_| panic!("{seen}"));
            if event["message"] == "listening" {
                let address = event["address"].as_str().expect("an address");
                break address.parse().expect("an address");
            }
        };
        let mut address: SocketAddr = address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let log = keep(log, seen);
        let process = Process { child, log, configuration: Some(path), section, data };
        Self { address, process: Some(process), second: None }
    }

    fn other(command: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.expect("a free port");
        let mut child = spawn(Command::new(command).arg("-p").arg(address.port().to_string()));
        let log = keep(BufReader::new(child.stderr.take().expect("piped")), String::new());
        let give_up = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < give_up, "{command} does not listen on {address}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let section = String::new();
        let process = Process { child, log, configuration: None, section, data: None };
        Self { address, process: Some(process), second: None }
    }

    /// A broker that the test has not started so.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn running_at(address: SocketAddr) -> Self {
        Self { address, process: None, second: None }
    }

    /// The address that the broker listens on; of two nodes that of each in turn.
    pub fn address(&self) -> SocketAddr {
        match &self.second {
            Some(Second { node, connections })
                if connections.fetch_add(1, Ordering::Relaxed) % 2 == 1 =>
            {
                node.address
            }
            _ => self.address,
        }
    }

    fn other_node(&self) -> Option<&Self> {
        self.second.as_ref().map(|second| &*second.node)
    }

    /// Whether this is the project's broker, whose promises exceed the specification.
    pub fn is_ours(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.configuration.is_some())
    }

    /// The process ID.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a broker started by the test").child.id()
    }

    /// Sends SIGTERM, like a service manager. Requires a broker started by the test.
    pub fn stop(&self) {
        self.signal("-TERM");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("a broker started by the test");
        let id = process.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(status.success());
        self.other_node().inspect(|node| node.signal(signal));
    }

    /// Replaces the text of the configuration file.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn rewrite(&self, text: &str) {
        let process = self.process.as_ref().expect("a broker started by the test");
        let configuration = process.configuration.as_ref().expect("a file of the test");
        let text_of_both = format!("{text}{}", process.section);
        std::fs::write(configuration, text_of_both).expect("a configuration file");
        self.other_node().inspect(|node| node.rewrite(text));
    }

    /// Replaces the text of the configuration file and has it read again.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn reconfigure(&self, text: &str) {
        self.rewrite(text);
        self.signal("-HUP");
    }

    /// The log so far, one JSON event per line.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn log(&self) -> String {
        let process = self.process.as_ref().expect("a broker started by the test");
        let mut log = process.log.lock().expect("no reader panics").clone();
        self.other_node().inspect(|node| log.push_str(&node.log()));
        log
    }

    /// Waits until the log contains `text` that many times.
    #[track_caller]
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn await_log(&self, text: &str, times: usize) {
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.log().matches(text).count() < times {
            assert!(Instant::now() < give_up, "the log does not contain {text:?} {times} times");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Broker {
    /// Waits until the process has stopped, and returns its exit code, if it was not killed; fails after a timeout.
    #[allow(dead_code, reason = "not used by all tests that share this module")]
    pub fn await_end(&mut self) -> Option<i32> {
        let process = self.process.as_mut().expect("a broker started by the test");
        let until = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = process.child.try_wait().expect("the process status") {
                break status;
            }
            assert!(Instant::now() < until, "the broker does not stop");
            std::thread::sleep(Duration::from_millis(10));
        };
        if let Some(second) = &mut self.second {
            second.node.await_end();
        }
        status.code()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let _ = process.child.kill();
        let _ = process.child.wait();
        if let Some(configuration) = &process.configuration {
            let _ = std::fs::remove_file(configuration);
        }
        if let Some(data) = &process.data {
            let _ = std::fs::remove_dir_all(data);
        }
        if std::thread::panicking() {
            let log = process.log.lock().map_or_else(|e| e.into_inner().clone(), |l| l.clone());
            eprintln!("the broker's log:\n{log}");
        }
    }
}

/// Waits until messages have crossed between cores or nodes: no acknowledgement covers QoS 0 messages, or
/// messages that move from one member of a group to another.
pub fn settle() {
    if std::env::var(FLAGS).is_ok_and(|flags| flags.contains("--cores")) {
        std::thread::sleep(Duration::from_millis(50));
    }
    if std::env::var_os(ENGINE).is_some() {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The command that runs this project's broker.
fn own_program() -> String {
    let program = std::env::var(PROGRAM).unwrap_or_default();
    if program.is_empty() { env!("CARGO_BIN_EXE_broker").to_owned() } else { program }
}

/// A number that no other broker of this process has.
fn next_number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Reads the log in the background, so that the broker never blocks on a full pipe.
fn keep(mut from: impl Read + Send + 'static, seen: String) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(seen));
    let kept = Arc::clone(&log);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]);
            kept.lock().expect("no reader panics").push_str(&text);
        }
    });
    log
}
