//! The `broker` command as seen by scripts: flags, files, messages, exit codes, signals.

#[path = "support/uninterrupted.rs"]
mod uninterrupted;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use uninterrupted::uninterrupted;

fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a broker that is expected to exit by itself.
fn output(arguments: &[&str]) -> Output {
    broker(arguments).output().expect("the broker runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_refused(arguments: &[&str], code: i32, says: &[&str]) {
    let output = output(arguments);
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    for part in says {
        assert!(stderr.contains(part), "{arguments:?} should say {part:?}: {stderr}");
    }
}

/// A file that is removed on drop.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringmq-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of letters")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A running broker on a port of its own.
struct Serving {
    child: Child,
    address: SocketAddr,
    log: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let arguments = [&["--listen", "127.0.0.1:0", "--log-format", "json"], arguments].concat();
        Self::listening(broker(&arguments).spawn().expect("the broker starts"))
    }

    /// Waits for a broker with JSON logs to report its address.
    fn listening(mut child: Child) -> Self {
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).expect("readable") > 0,
                "the broker exited before it listened"
            );
            let event: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
            if event["message"] == "listening" {
                assert_eq!(event["transport"], "tcp");
                let address = event["address"].as_str().expect("an address");
                break address.parse().expect("an address");
            }
        };
        Self { child, address, log }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        stream
    }

    #[cfg(unix)]
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    fn wait(&mut self) -> i32 {
        let until = Instant::now() + Duration::from_secs(15);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("the exit status") {
                return status.code().expect("the exit code");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the broker did not exit");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A 5.0 CONNECT with Clean Start and the ClientId "c".
const CONNECT: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";

fn read_packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 2];
    stream.read_exact(&mut header).expect("a packet");
    let mut packet = vec![0; usize::from(header[1])];
    stream.read_exact(&mut packet).expect("the rest of the packet");
    [&header[..], &packet].concat()
}

#[test]
fn help_names_every_flag_and_the_exit_codes() {
    let output = output(&["--help"]);
    let help = String::from_utf8_lossy(&output.stdout);
    for flag in [
        "--listen",
        "--port",
        "--config",
        "--check-config",
        "--log-format",
        "--log-level",
        "--verbose",
        "--data",
        "--cores",
        "--numa",
        "--mode",
        "--executor",
        "--stats",
        "--stats-format",
        "--stats-log",
        "Exit codes",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn unusable_flags_are_refused_with_a_remedy() {
    let not_a_folder = ["--listen", "127.0.0.1:0", "--data", "/dev/null/x"];
    if cfg!(feature = "store") {
        assert_refused(&not_a_folder, 5, &["/dev/null/x", "--data DIR", "--data none"]);
    } else {
        assert_refused(&not_a_folder, 2, &["/dev/null/x", "--features store", "--data none"]);
    }
    assert_refused(&["--mode", "sync", "--cores", "2"], 2, &["mode sync", "one core"]);
    assert_refused(&["--cores", "0"], 2, &["--cores", "not 1 to"]);
    assert_refused(&["--cores", "3-1"], 2, &["--cores", "backwards"]);
    assert_refused(&["--cores", "1,1"], 2, &["--cores", "twice"]);
    assert_refused(&["--cores", "0,1023"], 2, &["--cores", "1023", "broker platform"]);
    assert_refused(&["--mode", "poll", "--executor", "uring"], 2, &["mode poll", "exclude"]);
    assert_refused(&["--mode", "uring", "--executor", "poll"], 2, &["mode uring", "exclude"]);
    assert_refused(&["--stats=5s"], 2, &["--stats", "5s"]);
    assert_refused(&["--stats=86401"], 2, &["--stats", "86401"]);
    assert_refused(&["--stats-format", "json"], 2, &["--stats", "options without statistics"]);
    assert_refused(&["--stats-log", "x"], 2, &["--stats", "options without statistics"]);
}

#[test]
fn flags_that_state_the_default_are_accepted() {
    let flags = ["--data", "none", "--cores", "1", "--mode", "sync", "--executor", "poll"];
    let output = output(&[&flags[..], &["--check-config"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn invalid_flags_are_refused_with_the_allowed_values() {
    assert_refused(&["--listen", "localhost"], 2, &["localhost", "--listen"]);
    assert_refused(&["--log-format", "xml"], 2, &["xml", "text", "json"]);
    assert_refused(&["--frobnicate"], 2, &["--frobnicate", "--help"]);
}

#[test]
fn check_config_reports_success_or_the_problem() {
    let good = output(&["--check-config", "--config", "deploy/broker.toml"]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(String::from_utf8_lossy(&good.stdout).contains("127.0.0.1:1883"));
    let bad = File::new("bad", "[limits]\n\nqueue_policy = \"drop\"\n");
    assert_refused(
        &["--check-config", "--config", bad.path()],
        2,
        &[bad.path(), "line 3", "queue_policy", "drop-newest", "keep-latest"],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    assert_refused(&["--config", "/nonexistent/x.toml"], 2, &["/nonexistent/x.toml", "readable"]);
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    assert_refused(&["--listen", &address], 3, &[&address, "another program", "--listen"]);
}

#[test]
fn an_address_of_another_machine_is_named() {
    assert_refused(&["--listen", "192.0.2.1:1883"], 3, &["192.0.2.1:1883", "no such address"]);
}

#[cfg(unix)]
#[test]
fn too_low_a_descriptor_limit_for_the_configured_connections_is_an_error() {
    let file = File::new("connections", "[limits]\nconnections_max = 99999999\n");
    assert_refused(
        &["--listen", "127.0.0.1:0", "--config", file.path()],
        4,
        &["connections_max = 99999999", "descriptors", "LimitNOFILE"],
    );
}

#[cfg(unix)]
#[test]
fn a_stop_sends_disconnect_to_5_0_clients_and_exits_with_0() {
    for signal in ["-TERM", "-INT"] {
        let mut serving = Serving::start(&[]);
        let mut client = serving.connect();
        client.write_all(CONNECT).expect("sent");
        assert_eq!(read_packet(&mut client)[0], 0x20);
        serving.signal(signal);
        // DISCONNECT, 0x8B Server shutting down.
        assert_eq!(read_packet(&mut client), [0xe0, 0x01, 0x8b]);
        drop(client);
        assert_eq!(serving.wait(), 0);
        let mut rest = String::new();
        serving.log.read_to_string(&mut rest).expect("readable");
        assert!(rest.contains("stopped"), "{rest}");
    }
}

#[cfg(unix)]
#[test]
fn messages_published_before_a_stop_reach_a_slow_subscriber() {
    let mut serving = Serving::start(&[]);
    let (mut subscriber, mut publisher) = (serving.connect(), serving.connect());
    subscriber.write_all(CONNECT).expect("sent");
    read_packet(&mut subscriber);
    subscriber.write_all(b"\x82\x07\x00\x01\x00\x00\x01t\x00").expect("sent");
    read_packet(&mut subscriber);
    publisher.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01p").expect("sent");
    read_packet(&mut publisher);
    // 200 KB: more than the socket accepts while the client does not read.
    let mut message = vec![0x30, 0xc3, 0x9a, 0x0c, 0, 1, b't'];
    message.resize(4 + 200_003, b'x');
    publisher.write_all(&message).expect("sent");
    publisher.write_all(b"\xc0\x00").expect("sent");
    let mut pong = [0; 2];
    publisher.read_exact(&mut pong).expect("PINGRESP: all packets before it were processed");
    serving.signal("-TERM");
    std::thread::sleep(Duration::from_millis(200));
    let mut received = Vec::new();
    subscriber.read_to_end(&mut received).expect("until the end");
    assert!(received.len() > 200_000, "{}", received.len());
    assert_eq!(received[received.len() - 3..], [0xe0, 0x01, 0x8b]);
    assert_eq!(serving.wait(), 0);
}

#[test]
fn a_refusal_reaches_the_client_even_with_unread_input() {
    let serving = Serving::start(&[]);
    let mut client = serving.connect();
    // An ill-formed 5.0 CONNECT with much data behind it.
    let mut bytes = b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01c".to_vec();
    bytes.resize(60_000, 0);
    client.write_all(&bytes).expect("sent");
    // CONNACK with 0x81 Malformed Packet, and then the end of the stream, not a reset.
    let connack = read_packet(&mut client);
    assert_eq!((connack[0], connack[3]), (0x20, 0x81));
    assert_eq!(uninterrupted(|| client.read(&mut [0])).expect("the end"), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn without_free_descriptors_connected_clients_are_served_and_new_ones_wait() {
    let serving = Serving::start(&["--mode", "poll"]);
    let limit_descriptors = |limit: &str| {
        let (pid, limit) = (serving.child.id().to_string(), format!("--nofile={limit}:"));
        let limited = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(limited.expect("prlimit, of util-linux, runs").success());
    };
    let mut first = serving.connect();
    first.write_all(CONNECT).expect("sent");
    read_packet(&mut first);
    limit_descriptors("3");
    // The kernel accepts the connections, the broker cannot.
    let mut late = serving.connect();
    late.write_all(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01d").expect("sent");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(50));
        first.write_all(b"\xc0\x00").expect("sent");
        assert_eq!(read_packet(&mut first), [0xd0, 0x00]);
    }
    late.set_nonblocking(true).expect("set");
    assert!(late.read(&mut [0]).is_err(), "no descriptor was free");
    late.set_nonblocking(false).expect("set");
    limit_descriptors("1000");
    assert_eq!(read_packet(&mut late)[0], 0x20);
}

#[test]
fn the_program_is_ringmq_whatever_it_is_called() {
    let version = output(&["--version"]);
    let expected = concat!("ringmq ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
}

#[cfg(all(feature = "completions", unix))]
#[test]
fn completions_are_for_the_name_that_the_program_is_called_by() {
    use std::os::unix::process::CommandExt as _;
    for (shell, line) in [("bash", "default ringmq\n"), ("zsh", "#compdef ringmq\n")] {
        let output = broker(&["completions", shell]).arg0("/usr/bin/ringmq").output();
        let text = String::from_utf8(output.expect("the broker runs").stdout).expect("text");
        assert!(text.contains(line) && text.contains("--check-config"), "{shell}: {text}");
    }
    assert_refused(&["completions", "dos"], 2, &["dos", "bash", "zsh", "fish"]);
}
