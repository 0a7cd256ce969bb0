//! Listening sockets on every executor: their creation, their permissions, and their removal when
//! the broker exits.
#![cfg(unix)]

#[path = "support/folder.rs"]
mod folder;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use folder::Folder;

/// Timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(20);

const EXECUTORS: &[&str] = &[
    "--mode poll",
    "--mode poll --cores 3",
    "--mode sync",
    "--mode sync --executor poll",
    #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
    "--mode uring",
    #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
    "--mode uring --cores 3",
    #[cfg(all(feature = "monoio", target_os = "linux", target_pointer_width = "64"))]
    "--executor monoio --cores 2",
    #[cfg(all(feature = "glommio", target_os = "linux", target_pointer_width = "64"))]
    "--executor glommio --cores 2",
];

/// One test at a time: each observes the moment after a process exits.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port")
}

fn command(config: &str, flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(["--data", "none", "--config", config]).args(flags.split_whitespace());
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

struct Broker(Child);

impl Broker {
    /// A broker that listens, or its error output.
    fn try_start(config: &str, flags: &str) -> Result<Self, String> {
        let mut child = command(config, flags).spawn().expect("the process starts");
        let expected = fs::read_to_string(config).expect("a file").matches("bind =").count();
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let (mut said, mut listening) = (String::new(), 0);
        while listening < expected {
            let before = said.len();
            if log.read_line(&mut said).expect("text") == 0 {
                child.wait().expect("the process exits");
                return Err(said);
            }
            listening += usize::from(said[before..].contains(" listening "));
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(Self(child))
    }

    fn start(config: &str, flags: &str) -> Self {
        Self::try_start(config, flags).unwrap_or_else(|said| panic!("{flags}: {said}"))
    }

    fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("the command runs").success());
        assert!(self.0.wait().expect("the process exits").success());
    }

    fn kill(mut self) {
        self.0.kill().expect("the command runs");
        self.0.wait().expect("the process exits");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether CONNECT is answered there.
fn is_served(mut stream: impl Read + Write) -> bool {
    let mut connack = [0; 4];
    let connect = b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0";
    stream.write_all(connect).and_then(|()| stream.read_exact(&mut connack)).is_ok()
}

/// Connected clients, so that there are connections to close.
fn clients(address: SocketAddr) -> Vec<TcpStream> {
    let client = |_| {
        let stream = TcpStream::connect(address).expect("the server listens");
        assert!(is_served(&stream));
        stream
    };
    (0..30).map(client).collect()
}

/// A configuration with one listener of each kind.
fn two_listeners(folder: &Folder) -> (String, SocketAddr, String) {
    let (config, tcp, unix) = (folder.path("broker.toml"), free(), folder.path("broker.sock"));
    let text = format!(
        "[[listeners]]\nbind = \"unix:{unix}\"\ntransport = \"unix\"\n\
         [[listeners]]\nbind = \"{tcp}\"\ntransport = \"tcp\"\n"
    );
    fs::write(&config, text).expect("written");
    (config, tcp, unix)
}

#[test]
fn a_stopped_process_accepts_no_connection() {
    let (_alone, folder) = (alone(), Folder::new("stopped"));
    let (config, tcp, unix) = two_listeners(&folder);
    for flags in EXECUTORS {
        for _ in 0..4 {
            let broker = Broker::start(&config, flags);
            let clients = clients(tcp);
            std::thread::sleep(Duration::from_millis(30));
            broker.stop();
            let until = Instant::now() + Duration::from_millis(30);
            while Instant::now() < until {
                let error = TcpStream::connect(tcp).expect_err(flags);
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{flags}");
            }
            assert!(!Path::new(&unix).exists(), "{flags}");
            drop(clients);
        }
    }
}

#[test]
fn after_a_kill_the_next_broker_listens_on_the_same_ports_and_paths() {
    let (_alone, folder) = (alone(), Folder::new("killed"));
    let (config, tcp, unix) = two_listeners(&folder);
    for flags in EXECUTORS {
        let mut broker = Broker::start(&config, flags);
        for _ in 0..8 {
            let clients = clients(tcp);
            std::thread::sleep(Duration::from_millis(30));
            broker.kill();
            broker = Broker::start(&config, flags);
            assert!(is_served(UnixStream::connect(&unix).expect("the server listens")), "{flags}");
            drop(clients);
        }
        drop(broker);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_path_where_another_program_listens_is_not_taken_over() {
    let (_alone, folder) = (alone(), Folder::new("taken"));
    let (config, _, unix) = two_listeners(&folder);
    let broker = Broker::start(&config, "--mode poll");
    let other = folder.path("other.toml");
    let text = format!("[[listeners]]\nbind = \"unix:{unix}\"\ntransport = \"unix\"\n");
    fs::write(&other, text).expect("written");
    let output = command(&other, "").output().expect("the command runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("another program listens there"), "{error}");
    assert!(is_served(UnixStream::connect(&unix).expect("the server listens")));
    broker.stop();
}

/// The mode, owner and group of a path.
fn rights(path: &str) -> (u32, u32, u32) {
    let of = fs::symlink_metadata(path).expect("the file exists");
    (of.permissions().mode() & 0o7777, of.uid(), of.gid())
}

#[test]
fn a_unix_socket_has_the_configured_mode_owner_and_group() {
    let (_alone, folder) = (alone(), Folder::new("rights"));
    let (user, group) = {
        let of = fs::metadata(&folder.0).expect("the file exists");
        (of.uid(), of.gid())
    };
    let owned = if user == 0 { "owner = \"daemon\"\ngroup = \"3\"\n" } else { "" };
    let sockets = [
        ("open", "mode = \"0666\"\n".to_owned(), (0o666, user, group)),
        ("closed", "mode = \"600\"\n".to_owned(), (0o600, user, group)),
        (
            "owned",
            format!("mode = \"660\"\n{owned}"),
            if user == 0 { (0o660, 1, 3) } else { (0o660, user, group) },
        ),
    ];
    let config = folder.path("broker.toml");
    let listener = |(name, unix, _): &(&str, String, _)| {
        let path = folder.path(name);
        format!(
            "[[listeners]]\nbind = \"unix:{path}\"\ntransport = \"unix\"\n[listeners.unix]\n{unix}"
        )
    };
    fs::write(&config, sockets.iter().map(listener).collect::<String>()).expect("written");
    for flags in EXECUTORS {
        let broker = Broker::start(&config, flags);
        for (name, _, expected) in &sockets {
            let path = folder.path(name);
            assert_eq!(rights(&path), *expected, "{flags}: {name}");
            assert!(
                is_served(UnixStream::connect(&path).expect("the server listens")),
                "{flags}: {name}"
            );
        }
        broker.stop();
    }
}

#[test]
fn an_unknown_owner_is_named_with_a_remedy() {
    let (_alone, folder) = (alone(), Folder::new("nobody"));
    let (config, path) = (folder.path("broker.toml"), folder.path("broker.sock"));
    for (key, word) in [("owner", "user"), ("group", "group")] {
        let text = format!(
            "[[listeners]]\nbind = \"unix:{path}\"\ntransport = \"unix\"\n\
             [listeners.unix]\n{key} = \"nobody-has-this-name\"\n"
        );
        fs::write(&config, text).expect("written");
        let output = command(&config, "").output().expect("the command runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{error}");
        let says = format!("unix.{key}: there is no {word} \"nobody-has-this-name\"");
        assert!(error.contains(&says), "{error}");
        assert!(!Path::new(&path).exists(), "the socket remains");
    }
}

/// Whether the first connection to this address is served.
fn is_first_served(address: SocketAddr) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let Ok(stream) = TcpStream::connect(address) else { continue };
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        return is_served(stream);
    }
    false
}

#[test]
fn clients_that_connect_while_a_broker_starts_are_served() {
    let (_alone, folder) = (alone(), Folder::new("starts"));
    for flags in EXECUTORS {
        for _ in 0..8 {
            let (config, tcp, _) = two_listeners(&folder);
            let waiting = std::thread::spawn(move || is_first_served(tcp));
            let broker = Broker::start(&config, flags);
            assert!(waiting.join().expect("the thread ends"), "{flags}");
            drop(broker);
        }
    }
}

/// Runs a script in a network namespace without addresses; `None` if this user may not create one.
#[cfg(target_os = "linux")]
fn in_a_network_namespace(script: &str) -> Option<std::process::Output> {
    let unshare = |what: &[&str]| {
        Command::new("unshare").args(["--net", "--map-root-user"]).args(what).output().ok()
    };
    if !unshare(&["ip", "link", "set", "lo", "down"]).is_some_and(|tried| tried.status.success()) {
        eprintln!("SKIPPED: no permission to create a network namespace (unshare, ip)");
        return None;
    }
    unshare(&["bash", "-c", script])
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_that_appears_late_is_served_if_configured() {
    let (_alone, folder) = (alone(), Folder::new("late"));
    let config = folder.path("broker.toml");
    for flags in EXECUTORS {
        for key in ["free_bind = true", "bind_wait_s = 20"] {
            let text = format!("{key}\nlisten = [\"192.0.2.77:1883\", \"[2001:db8::77]:1883\"]\n");
            fs::write(&config, text + "[access]\nanonymous = true\n").expect("written");
            let broker = env!("CARGO_BIN_EXE_broker");
            let script = format!(
                "{broker} --data none --config {config} {flags} & broker=$!; sleep 0.3\n\
                 ip link set lo up; ip address add 192.0.2.77/32 dev lo\n\
                 sleep 0.1; ip address add 2001:db8::77/128 dev lo nodad\n\
                 for address in 192.0.2.77 2001:db8::77; do for try in $(seq 100); do\n\
                 exec 3<>/dev/tcp/$address/1883 && break; sleep 0.1; done 2>/dev/null\n\
                 printf '\\x10\\x0c\\0\\x04MQTT\\x04\\x02\\0\\0\\0\\0' >&3\n\
                 [[ $(head -c 4 <&3 | od -An -tx1) == ' 20 02 00 00' ]] || exit 9; done\n\
                 kill $broker; wait $broker"
            );
            let Some(output) = in_a_network_namespace(&script) else { return };
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{flags}: {key}: {said}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_that_does_not_appear_is_named_after_the_timeout() {
    let (_alone, folder) = (alone(), Folder::new("never"));
    let config = folder.path("broker.toml");
    let text = "bind_wait_s = 1\nlisten = [\"192.0.2.77:1883\"]\n[access]\nanonymous = true\n";
    fs::write(&config, text).expect("written");
    let begun = Instant::now();
    let output = command(&config, "--mode poll").output().expect("the command runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "it does not wait");
    for says in ["waiting for an address", "this machine has no such address", "bind_wait_s"] {
        assert!(error.contains(says), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_listener_of_a_network_interface_serves_connections_of_that_one_only() {
    let (_alone, folder) = (alone(), Folder::new("interface"));
    let config = folder.path("broker.toml");
    let others = fs::read_dir("/sys/class/net").expect("a folder");
    let other = others.map(|of| of.expect("an entry").file_name().into_string().expect("text"));
    let other = other.into_iter().find(|name| name != "lo" && name.len() <= 15);
    for flags in EXECUTORS {
        for (interface, is_there) in [(Some("lo".to_owned()), true), (other.clone(), false)] {
            let Some(interface) = interface else { continue };
            let port = free().port();
            let text = format!(
                "[[listeners]]\nbind = \"0.0.0.0:{port}\"\ninterface = {interface:?}\nanonymous = true\n"
            );
            fs::write(&config, text).expect("written");
            let broker = Broker::start(&config, flags);
            let here = TcpStream::connect(("127.0.0.1", port));
            assert_eq!(here.is_ok_and(is_served), is_there, "{flags}: {interface}");
            broker.stop();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_interface_that_this_machine_does_not_have_is_named() {
    let (_alone, folder) = (alone(), Folder::new("no-interface"));
    let config = folder.path("broker.toml");
    let text = "[[listeners]]\nbind = \"127.0.0.1:0\"\ninterface = \"absent0\"\n";
    fs::write(&config, text).expect("written");
    for flags in ["--mode poll", "--check-config"] {
        let output = command(&config, flags).output().expect("the command runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{error}");
        for says in ["interface \"absent0\"", "`ip link` shows"] {
            assert!(error.contains(says), "{flags}: {error}");
        }
    }
}

/// A service manager may restart the broker repeatedly.
#[test]
fn shipped_units_restart_the_broker_without_limit() {
    let unit = include_str!("../deploy/systemd/ringmq.service");
    let (unit_section, service) = unit.split_once("[Service]").expect("a section");
    assert!(
        unit_section.contains("\nStartLimitIntervalSec=0\n"),
        "systemd stops after five restarts"
    );
    assert!(service.contains("\nRestart=on-failure\n"));
    let init = include_str!("../deploy/openwrt/files/ringmq.init");
    // The last number is the number of restarts; 0 means unlimited.
    assert!(init.contains("procd_set_param respawn 3600 5 0\n"));
    let socket = include_str!("../deploy/systemd/optional/ringmq.socket");
    assert!(socket.contains("\nFreeBind=yes\n"));
}
