//! Log output never blocks the broker: whatever happens to standard error and standard output, the
//! broker serves clients, stops on request, and counts lost lines.
#![cfg(target_os = "linux")]

#[path = "support/uninterrupted.rs"]
mod uninterrupted;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ringmq::wire::{Frame, frame};
use uninterrupted::uninterrupted;

/// Timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(20);

/// At level debug, this many connections fill a pipe of 64 KiB and the broker's queue of lines.
const CONNECTIONS_MAX: u32 = 40_000;

/// Every executor, with one core and several.
const RUNS: &[&str] = &[
    "--mode poll",
    "--mode poll --cores 2",
    "--mode sync",
    "--mode sync --executor poll",
    #[cfg(all(feature = "uring", target_pointer_width = "64"))]
    "--mode uring",
    #[cfg(all(feature = "uring", target_pointer_width = "64"))]
    "--mode uring --cores 2",
    #[cfg(all(feature = "monoio", target_pointer_width = "64"))]
    "--executor monoio --cores 2",
    #[cfg(all(feature = "glommio", target_pointer_width = "64"))]
    "--executor glommio --cores 2",
];

struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    fn start(flags: &str, stdout: Stdio, stderr: Stdio) -> Self {
        static CONFIGURATION: LazyLock<PathBuf> = LazyLock::new(|| {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("log-output.toml");
            std::fs::write(&path, "mqtt.sys_interval_s = 1\n").expect("written");
            path
        });
        Self::configured(&CONFIGURATION, flags, stdout, stderr)
    }

    /// A broker that logs to this destination.
    fn logging_to(name: &str, to: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("log-to-{name}.toml"));
        let text = format!("mqtt.sys_interval_s = 1\nlog.to = {to:?}\n");
        std::fs::write(&path, text).expect("written");
        Self::configured(&path, "--mode poll", Stdio::null(), Stdio::null())
    }

    fn configured(configuration: &Path, flags: &str, stdout: Stdio, stderr: Stdio) -> Self {
        // The log is not available to determine the port.
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.arg("--config").arg(configuration);
        command.args(["--data", "none", "--log-level", "debug", "--listen", &address.to_string()]);
        command.args(flags.split_whitespace()).stdin(Stdio::null());
        let child = command.stdout(stdout).stderr(stderr).spawn().expect("the process starts");
        let mut broker = Self { child, address };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let ended = broker.child.try_wait().expect("a child");
            assert!(ended.is_none() && Instant::now() < until, "{flags}: {ended:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        broker
    }

    /// Whether a client receives a response in time.
    fn serves(&self) {
        drop(Client::connect(self.address));
    }

    /// The number of lost lines in `$SYS`, once it is not zero.
    fn lost(&self) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lost_so_far() {
                0 if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
                lost => return lost,
            }
        }
    }

    fn lost_so_far(&self) -> u64 {
        let mut client = Client::connect(self.address);
        client.say(b"\x82\x19\0\x01\0\x14$SYS/broker/log/lost\0");
        loop {
            let packet = client.packet();
            if packet[0] & 0xF0 == 0x30 {
                let text = String::from_utf8_lossy(&packet);
                let number = text.rsplit("lost").next().expect("a payload");
                return number.parse().expect("a number");
            }
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// The exit code after SIGTERM, if the broker exits in time.
    fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => return status.code(),
                None if Instant::now() > until => return None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut client = Self { stream, read: Vec::new() };
        client.say(b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0");
        assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        client
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    fn packet(&mut self) -> Vec<u8> {
        loop {
            if let Ok(Frame::Complete { total, .. }) = frame(&self.read, usize::MAX) {
                return self.read.drain(..total).collect();
            }
            let mut bytes = [0; 4096];
            let count = uninterrupted(|| self.stream.read(&mut bytes)).expect("an answer in time");
            assert!(count > 0, "the connection was closed");
            self.read.extend_from_slice(&bytes[..count]);
        }
    }
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux has it").into()
}

/// A pipe for the broker, and its read end.
fn pipe() -> (Stdio, io::PipeReader) {
    let (reader, writer) = io::pipe().expect("a pipe");
    (OwnedFd::from(writer).into(), reader)
}

#[test]
fn a_log_on_a_full_disk_affects_neither_operation_nor_stop() {
    for flags in RUNS {
        let broker = Broker::start(flags, Stdio::null(), full_disk());
        broker.serves();
        broker.signal("-HUP");
        broker.serves();
        assert!(broker.lost() > 0, "{flags}");
        assert_eq!(broker.stop(), Some(0), "{flags}");
    }
}

#[test]
fn a_log_without_a_reader_affects_neither_operation_nor_stop() {
    for flags in RUNS {
        let (stderr, reader) = pipe();
        let broker = Broker::start(flags, Stdio::null(), stderr);
        drop(reader);
        broker.serves();
        broker.signal("-HUP");
        broker.serves();
        assert!(broker.lost() > 0, "{flags}");
        assert_eq!(broker.stop(), Some(0), "{flags}");
    }
}

/// Connects until lines are lost, while the pipe is not read.
fn fill(broker: &Broker) -> u64 {
    for count in 1..=CONNECTIONS_MAX {
        broker.serves();
        if count % 500 == 0 {
            let lost = broker.lost_so_far();
            if lost > 0 {
                return lost;
            }
        }
    }
    panic!("{CONNECTIONS_MAX} connections cause too few lines");
}

#[test]
fn a_stalled_log_reader_does_not_stop_the_broker() {
    for flags in RUNS {
        let (stderr, reader) = pipe();
        let broker = Broker::start(flags, Stdio::null(), stderr);
        fill(&broker);
        broker.signal("-HUP");
        broker.serves();
        assert_eq!(broker.stop(), Some(0), "{flags}");
        drop(reader);
    }
}

#[test]
fn a_log_reader_that_resumes_receives_the_number_of_lost_lines() {
    let (stderr, mut reader) = pipe();
    let broker = Broker::start("--mode poll --log-format json", Stdio::null(), stderr);
    fill(&broker);
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).map(|_| log)
    });
    std::thread::sleep(Duration::from_millis(100));
    broker.serves();
    assert_eq!(broker.stop(), Some(0));
    let log = log.join().expect("the process reads its input").expect("text");
    let events = log.lines().map(|line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"))
    });
    let lost: u64 = events.filter_map(|event| event["lost"].as_u64()).sum();
    assert!(lost > 0);
    assert!(log.contains("\"stopped\""), "the last line was written");
}

/// A path for a file or socket of a test, where nothing is yet.
fn fresh(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringmq-log-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// Waits until a file contains this text.
fn await_text(path: &Path, text: &str) {
    let until = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(path).is_ok_and(|log| log.contains(text)) {
        assert!(Instant::now() < until, "{} does not contain {text:?}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_log_file_is_opened_again_after_a_rotation() {
    let (path, rotated) = (fresh("file"), fresh("rotated"));
    let broker = Broker::logging_to("file", &format!("file:{}", path.display()));
    broker.serves();
    await_text(&path, "connected address=127.0.0.1:");
    std::fs::rename(&path, &rotated).expect("renamed");
    broker.signal("-HUP");
    await_text(&path, "reloaded what=log");
    broker.serves();
    await_text(&path, "connected address=127.0.0.1:");
    assert_eq!(broker.stop(), Some(0));
    await_text(&path, "stopped");
    for file in [path, rotated] {
        std::fs::remove_file(file).expect("removed");
    }
}

#[test]
fn a_reload_moves_the_log_to_another_place_and_form_and_loses_no_line() {
    let (first, second, config) = (fresh("first"), fresh("second"), fresh("moved.toml"));
    let write = |log: String| std::fs::write(&config, log).expect("written");
    write(format!("log.to = \"file:{}\"\n", first.display()));
    let broker = Broker::configured(&config, "--mode poll", Stdio::null(), Stdio::null());
    await_text(&first, "listening");
    // A place that cannot be opened changes nothing.
    write("log.to = \"file:/nowhere/broker.log\"\n".to_owned());
    broker.signal("-HUP");
    await_text(&first, "log.to: cannot open /nowhere/broker.log: ");
    let form = "log.format = \"json\"\nlog.connections = false\n";
    write(format!("log.to = \"file:{}\"\n{form}", second.display()));
    broker.signal("-HUP");
    await_text(&second, "\"key\":\"log.to\"");
    await_text(&second, "\"key\":\"log.connections\"");
    let before = std::fs::read_to_string(&first).expect("text");
    broker.serves();
    assert_eq!(broker.stop(), Some(0));
    await_text(&second, "\"stopped\"");
    let after = std::fs::read_to_string(&second).expect("text");
    assert_eq!(std::fs::read_to_string(&first).expect("text"), before, "nothing goes there");
    for line in after.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    assert!(!after.contains("\"connected\""), "log.connections is false: {after}");
    for file in [first, second, config] {
        std::fs::remove_file(file).expect("removed");
    }
}

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error_at_start_that_names_it() {
    let configuration = fresh("no-folder.toml");
    std::fs::write(&configuration, "log.to = \"file:/nowhere/broker.log\"\n").expect("written");
    for check in [&["--check-config"][..], &[]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.arg("--config").arg(&configuration).args(["--data", "none", "-p", "0"]).args(check);
        let out = command.stdin(Stdio::null()).output().expect("the command runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{check:?}: {said}");
        assert!(said.contains("log.to: cannot open /nowhere/broker.log: "), "{said}");
    }
    for to in ["file:relative", "file:", "standard error", "syslog:log"] {
        std::fs::write(&configuration, format!("log.to = {to:?}\n")).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.arg("--config").arg(&configuration).arg("--check-config").stdin(Stdio::null());
        let out = command.output().expect("the command runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{to}: {said}");
        assert!(
            said.contains("is not \"stderr\", \"stdout\", \"none\", \"file:/PATH\", \"journald\""),
            "{said}"
        );
    }
    std::fs::remove_file(configuration).expect("removed");
}

#[test]
fn a_syslog_daemon_receives_each_line_as_a_message_with_structured_data() {
    let path = fresh("syslog");
    let daemon = UnixDatagram::bind(&path).expect("bound");
    daemon.set_read_timeout(Some(PATIENCE)).expect("set");
    let broker = Broker::logging_to("syslog", &format!("syslog:{}", path.display()));
    broker.serves();
    let id = broker.child.id();
    let mut bytes = [0; 64 * 1024];
    let line = loop {
        let count = uninterrupted(|| daemon.recv(&mut bytes)).expect("a line in time");
        let line = String::from_utf8_lossy(&bytes[..count]).into_owned();
        assert!(line.starts_with("<30>1 20") || line.starts_with("<28>1 20"), "{line}");
        if line.contains("] connected address=127.0.0.1:") {
            break line;
        }
    };
    assert!(
        line.contains(&format!("Z - ringmq {id} - [ringmq@32473 address=\"127.0.0.1:")),
        "{line}"
    );
    assert_eq!(broker.stop(), Some(0));
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_log_destination_that_is_away_or_does_not_read_affects_neither_operation_nor_stop() {
    let path = fresh("away");
    let broker = Broker::logging_to("away", &format!("syslog:{}", path.display()));
    broker.serves();
    assert!(broker.lost() > 0);
    assert_eq!(broker.stop(), Some(0));
    let _daemon = UnixDatagram::bind(&path).expect("bound");
    let broker = Broker::logging_to("stalled", &format!("syslog:{}", path.display()));
    fill(&broker);
    broker.serves();
    assert_eq!(broker.stop(), Some(0));
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn unprintable_statistics_affect_neither_operation_nor_stop() {
    for flags in RUNS {
        let flags = format!("{flags} --stats=1");
        let (stderr, mut log) = pipe();
        let broker = Broker::start(&flags, full_disk(), stderr);
        broker.signal("-USR1");
        broker.serves();
        assert_eq!(broker.stop(), Some(0), "{flags}");
        let mut text = String::new();
        log.read_to_string(&mut text).expect("text");
        assert!(text.contains("cannot print statistics"), "{flags}: {text}");
    }
}

#[test]
fn a_stalled_statistics_reader_does_not_prevent_a_stop() {
    let (stdout, reader) = pipe();
    let broker = Broker::start("--mode poll --stats", stdout, Stdio::null());
    for _ in 0..200 {
        broker.signal("-USR1"); // 64 KiB and more
        std::thread::sleep(Duration::from_millis(2));
    }
    broker.serves();
    assert_eq!(broker.stop(), Some(0));
    drop(reader);
}

#[test]
fn a_start_error_that_cannot_be_written_still_sets_the_exit_code() {
    for flags in [&["--listen", "192.0.2.1:1883", "--data", "none"][..], &["--nonsense"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(flags).stdin(Stdio::null()).stdout(full_disk()).stderr(full_disk());
        let code = command.status().expect("the command runs").code();
        assert_eq!(code, Some(if flags.len() > 1 { 3 } else { 2 }), "{flags:?}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg("--check-config").stdin(Stdio::null()).stdout(full_disk());
    let code = command.status().expect("the command runs").code();
    assert_eq!(code, Some(1), "what was asked for could not be said");
}
