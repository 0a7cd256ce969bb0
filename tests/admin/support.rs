//! A broker with an admin interface, and a client that sends bytes as they are.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringmq::admin::auth::tokens;
use ringmq::config::Role;
use serde_json::Value;

use crate::folder::Folder;
use crate::uninterrupted::uninterrupted;

/// Timeout of every operation.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The executors, with one core and several.
pub const EXECUTORS: &[&str] = &[
    "--mode poll",
    "--mode poll --cores 4",
    "--mode sync",
    #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
    "--mode uring",
    #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
    "--mode uring --cores 4",
];

/// A broker that serves.
pub struct Broker {
    child: Child,
    pub folder: Folder,
    /// Where the admin interface listens, in the order of the configuration.
    pub admin: Vec<String>,
    /// Where MQTT clients connect.
    pub mqtt: String,
    /// Lines of the log.
    pub log: Arc<Mutex<Vec<Value>>>,
    /// A token for each role.
    pub tokens: [String; 3],
}

/// A configuration with a socket and an address; `{FOLDER}` stands for a folder of the test.
pub const CONFIG: &str = "listen = \"127.0.0.1:0\"\n[storage]\ndata = \"{FOLDER}/data\"\n\
    [admin]\nlisten = [\"unix\", \"127.0.0.1:0\"]\n[admin.access]\ntokens_file = \"{FOLDER}/tokens\"\n";

/// The command of a broker with a configuration, in a folder.
pub fn command(folder: &Folder, config: &str, flags: &str) -> Command {
    let text = config.replace("{FOLDER}", &folder.0.display().to_string());
    let config = folder.write("broker.toml", &text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(["--config", &config, "--log-format", "json"]).args(flags.split_whitespace());
    command.env_remove("RUNTIME_DIRECTORY").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Writes a file with a token of each role.
pub fn tokens(folder: &Folder) -> [String; 3] {
    let file = folder.0.join("tokens");
    Role::ALL.map(|role| tokens::add(&file, role, role.name()).expect("a token"))
}

impl Broker {
    /// A broker with the usual configuration.
    pub fn start(name: &str, flags: &str) -> Self {
        Self::with(Folder::new(name), CONFIG, flags)
    }

    /// A broker with this configuration.
    pub fn with(folder: Folder, config: &str, flags: &str) -> Self {
        let tokens = tokens(&folder);
        let mut child = command(&folder, config, flags).spawn().expect("the process starts");
        let mut reader = BufReader::new(child.stderr.take().expect("piped"));
        let (mut admin, mut lines) = (Vec::new(), Vec::new());
        let mqtt = loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).expect("text") > 0, "{flags}: ended: {lines:#?}");
            let Ok(event) = serde_json::from_str::<Value>(&line) else { panic!("{line}") };
            let address = event["address"].as_str().map(str::to_owned);
            match event["message"].as_str() {
                Some("the admin interface is open") => admin.extend(address),
                Some("listening") => break address.expect("text"),
                _ => {}
            }
            lines.push(event);
        };
        let log = Arc::new(Mutex::new(lines));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().expect("no panic").push(event);
            }
        });
        Self { child, folder, admin, mqtt, log, tokens }
    }

    /// The path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        let path = self.admin.iter().find_map(|at| at.strip_prefix("unix:"));
        path.expect("a Unix socket").into()
    }

    /// The address of the interface.
    pub fn address(&self) -> &str {
        self.admin.iter().find(|at| !at.starts_with("unix:")).expect("an address")
    }

    /// A connection through the Unix socket.
    pub fn unix(&self) -> Client<UnixStream> {
        Client::unix(&self.socket())
    }

    /// A connection through TCP.
    pub fn tcp(&self) -> Client<TcpStream> {
        Client::tcp(self.address())
    }

    /// Sends a request with a token through TCP, on a connection of its own.
    pub fn ask(&self, role: Role, method: &str, path: &str, body: &str) -> Answer {
        let token = format!("Bearer {}", self.tokens[role as usize]);
        self.tcp().ask(method, path, &[("Authorization", &token)], body)
    }

    /// Waits for a log line about which this holds.
    pub fn wait_for_log(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || {
            self.log.lock().expect("no panic").iter().find(|line| holds(line)).cloned()
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// Stops the broker; whether it ended well.
    pub fn stop(self) -> bool {
        self.signal("-TERM");
        self.wait()
    }

    /// Waits until the broker has ended; whether it ended well.
    pub fn wait(mut self) -> bool {
        self.child.wait().expect("the process ends").success()
    }

    /// Kills the broker, and returns its folder.
    pub fn kill(mut self) -> Folder {
        self.child.kill().expect("it runs");
        self.child.wait().expect("the process ends");
        std::mem::replace(&mut self.folder, Folder(PathBuf::from("/nonexistent")))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is there.
pub fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(is, _)| is == name).map(|(_, value)| &**value)
    }

    /// The content.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }
}

/// An HTTP/1.1 client.
pub struct Client<S> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl Client<UnixStream> {
    /// Connects to a Unix socket.
    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        Self::new(stream)
    }
}

impl Client<TcpStream> {
    /// Connects to an address.
    pub fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        Self::new(stream)
    }
}

impl<S: Read + Write> Client<S> {
    /// A client on an open connection.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a request and reads its answer. Content is JSON.
    pub fn ask(&mut self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in more {
            head += &format!("{name}: {value}\r\n");
        }
        if method != "GET" {
            let length = body.len();
            head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        self.send(format!("{head}\r\n{body}").as_bytes());
        self.answer().unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Reads more; false at the end.
    fn read(&mut self) -> bool {
        let mut part = [0; 4_096];
        match uninterrupted(|| self.stream.read(&mut part)) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&part[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer in time: {error}"),
        }
    }

    /// The next answer; none when the connection has ended. Content without a length is not read.
    pub fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.read() {
                assert!(self.buffer.is_empty(), "{:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        };
        let head = String::from_utf8(self.buffer[..end].to_vec()).expect("text");
        self.buffer.drain(..end + 4);
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|of| of.get(..3)).expect("a status");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: Vec<_> =
            rest.split("\r\n").filter(|line| !line.is_empty()).map(header).collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, value)| value.parse().expect("a length"));
        while self.buffer.len() < length {
            assert!(self.read(), "the answer is cut: {head}");
        }
        let body = self.buffer.drain(..length).collect();
        Some(Answer { status: status.parse().expect("a number"), headers, body })
    }

    /// Whether the server has closed the connection, without a further byte.
    pub fn is_closed(&mut self) -> bool {
        !self.read()
    }
}
