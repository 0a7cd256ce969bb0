//! The broker as seen by a service manager: readiness, watchdog, stop, and socket activation. The
//! test plays the service manager.
#![cfg(all(feature = "service", target_os = "linux"))]

#[path = "support/uninterrupted.rs"]
mod uninterrupted;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use uninterrupted::uninterrupted;

const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01s";
const PATIENCE: Duration = Duration::from_secs(20);

/// The manager's notification socket, and the broker it started.
struct Managed {
    socket: UnixDatagram,
    path: PathBuf,
    child: Child,
}

impl Managed {
    /// Started through a shell that executes the broker, so that the process named by the variables
    /// is the broker. `before` runs in the shell first.
    fn start(name: &str, before: &str, flags: &str, environment: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let broker = env!("CARGO_BIN_EXE_broker");
        let child = Command::new("bash")
            .arg("-c")
            .arg(format!("{before} exec {broker} --data none {flags}"))
            .env("NOTIFY_SOCKET", &path)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash runs");
        Self { socket, path, child }
    }

    /// The next notification.
    fn hears(&self) -> String {
        let mut bytes = [0; 4096];
        let count = uninterrupted(|| self.socket.recv(&mut bytes)).expect("a notification in time");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a broker there answers CONNECT.
fn serves(address: &str) {
    let mut client = TcpStream::connect(address).expect("the server listens");
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    client.write_all(CONNECT).expect("sent");
    let mut connack = [0; 4];
    client.read_exact(&mut connack).expect("in time");
    assert_eq!(connack, [0x20, 2, 0, 0]);
}

#[test]
fn the_broker_notifies_readiness_with_its_addresses_and_stopping() {
    for mode in ["auto", "sync", "poll --cores 2"] {
        let flags = format!("--listen 127.0.0.1:0 --mode {mode}");
        let mut broker = Managed::start("ready", "", &flags, &[]);
        let ready = broker.hears();
        assert!(ready.starts_with("READY=1\n"), "{ready}");
        let (_, address) = ready.trim_end().split_once("STATUS=serving on ").expect("a status");
        serves(address);
        broker.signal("-TERM");
        assert_eq!(broker.hears(), "STOPPING=1\n");
        assert_eq!(broker.child.wait().expect("the process exits").code(), Some(0));
    }
}

#[test]
fn the_broker_notifies_the_watchdog_at_the_requested_interval() {
    for mode in ["auto", "sync", "poll --cores 2"] {
        let flags = format!("--listen 127.0.0.1:0 --mode {mode}");
        let asked = [("WATCHDOG_USEC", "300000")];
        let broker = Managed::start("watchdog", "", &flags, &asked);
        assert!(broker.hears().starts_with("READY=1\n"));
        for _ in 0..3 {
            assert_eq!(broker.hears(), "WATCHDOG=1\n");
        }
    }
}

#[test]
fn passed_sockets_replace_the_configured_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let ours = std::os::fd::AsRawFd::as_raw_fd(&listener);
    // The shell passes the test's socket as the first descriptor of the protocol.
    let before = format!("exec 3<&{ours}; export LISTEN_FDS=1 LISTEN_PID=$$;");
    inherit(&listener);
    for flags in ["", "--mode sync", "--mode poll --cores 2"] {
        let broker = Managed::start("sockets", &before, flags, &[]);
        let ready = broker.hears();
        assert!(ready.contains(&format!("serving on {address}\n")), "{ready}");
        serves(&address);
    }
}

#[test]
fn a_passed_descriptor_that_is_no_socket_is_refused_with_a_remedy() {
    let broker = env!("CARGO_BIN_EXE_broker");
    let script =
        format!("exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec {broker} --data none");
    let output = Command::new("bash").arg("-c").arg(script).output().expect("bash runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("fd 3") && stderr.contains("ListenStream="), "{stderr}");
}

/// Lets the socket's descriptor survive `exec`.
fn inherit(listener: &TcpListener) {
    rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty()).expect("a flag");
}
