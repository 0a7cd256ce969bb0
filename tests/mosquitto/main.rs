//! A broker in the place of Mosquitto, as seen by scripts: its files, its flags, its signals.

#[cfg(all(
    unix,
    feature = "tls",
    feature = "websocket",
    feature = "store",
    feature = "admin",
    feature = "bridge",
    feature = "dynamic-security"
))]
mod users;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> Output {
    broker(arguments).output().expect("the broker runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The file of this name in the folder of files as users have them.
fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mosquitto/files");
    folder.join(name).to_str().expect("a path of letters").to_owned()
}

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a path of letters").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("an address");
    socket.local_addr().expect("an address").port()
}

/// A running broker.
struct Serving(Child);

impl Serving {
    /// Starts a broker, and waits until it accepts connections.
    fn start(mut command: Command, port: u16) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("the broker starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let until = Instant::now() + Duration::from_secs(15);
        while TcpStream::connect(address).is_err() {
            let status = child.try_wait().expect("the exit status");
            assert!(status.is_none() && Instant::now() < until, "{status:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }

    #[cfg(unix)]
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    fn wait(&mut self) -> Option<i32> {
        self.0.wait().expect("the exit status").code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects as an anonymous client, and returns the bytes of CONNACK.
fn connect(port: u16) -> (TcpStream, [u8; 4]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c").expect("sent");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK");
    (stream, answer)
}

#[test]
fn files_as_users_have_them_are_taken_whole_or_refused_by_line() {
    for (name, code, says) in [
        ("debian.conf", 0, "1 same, 3 translated, 0 ignored, 0 refused"),
        ("two-lines.conf", 0, "2 same, 0 translated, 0 ignored, 0 refused"),
        ("container.conf", 0, "0 refused"),
        ("websockets.conf", 0, "0 refused"),
        ("certificates.conf", 0, "0 refused"),
        ("router.conf", 0, "0 refused"),
        ("test-broker.conf", 0, "0 refused"),
        ("dashboard.conf", 0, "admin.listen = [\"unix\", \"127.0.0.1:9883\"]"),
        ("bridge.conf", 0, "bridge.conf:4: translated: connection cloud -> name = \"cloud\""),
        ("rules.conf", 1, "rules.conf:5: refused: auth_plugin /usr/share/mosquitto/auth-plug.so"),
    ] {
        let answer = output(&["mosquitto", "check", &file(name)]);
        let text = stdout(&answer) + &stderr(&answer);
        assert_eq!(answer.status.code(), Some(code), "{name}: {text}");
        assert!(text.contains(says), "{name}: {text}");
        assert!(!text.contains("secret"), "{name}: {text}");
        let converted = output(&["mosquitto", "convert", &file(name)]);
        assert_eq!(converted.status.code(), Some(code), "{name}: {}", stderr(&converted));
    }
}

#[test]
fn a_converted_file_is_accepted_and_has_the_settings_of_the_original() {
    let folder = Folder::new("converted");
    let all =
        ["container.conf", "websockets.conf", "test-broker.conf", "two-lines.conf", "bridge.conf"];
    for name in all.into_iter().filter(|name| cfg!(feature = "bridge") || *name != "bridge.conf") {
        let converted = output(&["mosquitto", "convert", &file(name)]);
        let toml = folder.write("broker.toml", &stdout(&converted));
        let settings = |arguments: &[&str]| {
            let printed = output(arguments);
            assert!(printed.status.success(), "{name}: {}", stderr(&printed));
            let printed = stdout(&printed);
            let lines =
                printed.lines().map(|line| line.rsplit_once("  # ").map_or(line, |of| of.0));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let of_original = settings(&["--mosquitto-conf", &file(name), "--print-config"]);
        assert_eq!(settings(&["--config", &toml, "--print-config"]), of_original, "{name}");
    }
}

#[test]
fn a_refused_line_stops_the_start_with_file_line_reason_and_what_to_do() {
    let answer = output(&["--mosquitto-conf", &file("rules.conf")]);
    let text = stderr(&answer);
    assert_eq!(answer.status.code(), Some(2), "{text}");
    assert!(
        text.contains("rules.conf:5: auth_plugin /usr/share/mosquitto/auth-plug.so: "),
        "{text}"
    );
    assert!(text.contains("cannot be loaded"), "{text}");
    let absent = output(&["--mosquitto-conf", "/nowhere/mosquitto.conf"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(stderr(&absent).contains("/nowhere/mosquitto.conf: cannot be read"));
}

#[cfg(unix)]
#[test]
fn a_file_of_mosquitto_is_served_as_it_is_and_read_again_on_sighup() {
    let (folder, port) = (Folder::new("served"), free_port());
    let pid_file = folder.0.join("m.pid");
    let text = |anonymous: &str| {
        format!(
            "pid_file {}\nlistener {port} 127.0.0.1\nallow_anonymous {anonymous}\nautosave_interval 5\n",
            pid_file.display()
        )
    };
    let conf = folder.write("mosquitto.conf", &text("true"));
    let mut command = broker(&["--mosquitto-conf", &conf, "--log-format", "json"]);
    command.env("RINGMQ_ADMIN__LISTEN", "[]");
    let mut serving = Serving::start(command, port);
    assert_eq!(connect(port).1, [0x20, 2, 0, 0]);
    let written = std::fs::read_to_string(&pid_file).expect("the file");
    assert_eq!(written.trim(), serving.0.id().to_string());
    folder.write("mosquitto.conf", &text("false"));
    serving.signal("-HUP");
    let until = Instant::now() + Duration::from_secs(10);
    while connect(port).1 != [0x20, 2, 0, 5] {
        assert!(Instant::now() < until, "the reload does not arrive");
        std::thread::sleep(Duration::from_millis(50));
    }
    serving.signal("-TERM");
    assert_eq!(serving.wait(), Some(0));
    assert!(!pid_file.exists(), "it is removed at the end");
}

#[cfg(unix)]
#[test]
fn called_as_mosquitto_it_serves_this_machine_without_a_file() {
    use std::os::unix::process::CommandExt as _;
    let port = free_port();
    let mut command = broker(&["-p", &port.to_string(), "-v"]);
    command.arg0("/usr/sbin/mosquitto").env("RINGMQ_ADMIN__LISTEN", "[]");
    let mut serving = Serving::start(command, port);
    assert_eq!(connect(port).1, [0x20, 2, 0, 0], "everybody on this machine is admitted");
    serving.signal("-TERM");
    assert_eq!(serving.wait(), Some(0));
    for (conf, code) in [("two-lines.conf", 0), ("rules.conf", 2)] {
        let mut command = broker(&["-c", &file(conf), "--test-config"]);
        let answer = command.arg0("mosquitto").output().expect("the broker runs");
        assert_eq!(answer.status.code(), Some(code), "{conf}: {}", stderr(&answer));
    }
}

#[cfg(unix)]
#[test]
fn in_the_background_it_serves_after_the_command_has_ended() {
    use std::os::unix::process::CommandExt as _;
    let (folder, port) = (Folder::new("background"), free_port());
    let pid_file = folder.0.join("m.pid");
    let conf = folder.write(
        "m.conf",
        &format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npid_file {}\n",
            pid_file.display()
        ),
    );
    let mut command = broker(&["-c", &conf, "-d"]);
    command.arg0("mosquitto").env("RINGMQ_ADMIN__LISTEN", "[]");
    let answer = command.output().expect("the broker runs");
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
    let until = Instant::now() + Duration::from_secs(15);
    while !pid_file.exists() || TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "it does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    let admitted = connect(port).1;
    let pid = std::fs::read_to_string(&pid_file).expect("the file");
    let ended = Command::new("kill").args(["-TERM", pid.trim()]).status().expect("kill runs");
    assert!(ended.success());
    assert_eq!(admitted, [0x20, 2, 0, 0]);
}

/// CONNECT of a client with this Protocol Level, Client Identifier and User Name, and the bytes of CONNACK.
fn connack(port: u16, level: u8, client: &str, user: Option<&str>) -> Vec<u8> {
    connack_to(port, level, client, user, None)
}

/// The same of a client with a password.
fn connack_to(
    port: u16,
    level: u8,
    client: &str,
    user: Option<&str>,
    password: Option<&str>,
) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, 0x02, 0, 60];
    body[7] |= if user.is_some() { 0x80 } else { 0 };
    body[7] |= if password.is_some() { 0x40 } else { 0 };
    body.extend((level == 5).then_some(0));
    for text in [Some(client), user, password].into_iter().flatten() {
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    stream.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).expect("sent");
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("CONNACK");
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).expect("CONNACK");
    [head.to_vec(), rest].concat()
}

/// A broker with these lines in its file after a listener on loopback, and its port.
fn serving(folder: &Folder, lines: &str) -> (Serving, u16) {
    let port = free_port();
    let text = format!("allow_anonymous true\nlistener {port} 127.0.0.1\n{lines}");
    let conf = folder.write("mosquitto.conf", &text);
    let mut command = broker(&["--mosquitto-conf", &conf]);
    command.env("RINGMQ_ADMIN__LISTEN", "[]").env("RINGMQ_STATS__ENABLED", "true");
    (Serving::start(command, port), port)
}

#[test]
fn a_listener_accepts_the_versions_it_names_and_refuses_others_with_the_code_of_each() {
    let folder = Folder::new("versions");
    let (_serving, port) = serving(&folder, "accept_protocol_versions 5\n");
    assert_eq!(connack(port, 5, "c", None)[3], 0);
    assert_eq!(connack(port, 4, "c", None), [0x20, 2, 0, 1], "return code 1 of 3.1.1");
    let (_serving, port) = serving(&folder, "accept_protocol_versions 3,4\n");
    assert_eq!(connack(port, 4, "c", None), [0x20, 2, 0, 0]);
    assert_eq!(connack(port, 5, "c", None)[3], 0x84);
}

#[test]
fn a_listener_limits_the_qos_of_its_clients() {
    let folder = Folder::new("qos");
    let (_serving, port) = serving(&folder, "max_qos 1\n");
    let announced = connack(port, 5, "c", None);
    assert!(announced[4..].windows(2).any(|property| property == [0x24, 1]), "{announced:?}");
    let (mut stream, connack) = connect(port);
    assert_eq!(connack, [0x20, 2, 0, 0]);
    // SUBSCRIBE to t at QoS 2 is granted QoS 1.
    stream.write_all(&[0x82, 6, 0, 1, 0, 1, b't', 2]).expect("sent");
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).expect("SUBACK");
    assert_eq!(suback, [0x90, 3, 0, 1, 1]);
    // PUBLISH at QoS 2 ends the connection, as in Mosquitto.
    stream.write_all(&[0x34, 5, 0, 1, b't', 0, 2]).expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end");
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn client_identifiers_have_to_be_as_the_file_says() {
    let folder = Folder::new("identifiers");
    let lines = "clientid_prefixes pump-\nallow_zero_length_clientid false\n";
    let (_serving, port) = serving(&folder, lines);
    assert_eq!(connack(port, 4, "pump-1", None), [0x20, 2, 0, 0]);
    assert_eq!(connack(port, 4, "valve-1", None), [0x20, 2, 0, 2]);
    assert_eq!(connack(port, 5, "valve-1", None)[3], 0x85);
    assert_eq!(connack(port, 4, "", None), [0x20, 2, 0, 2]);
    let (_serving, port) = serving(&folder, "allow_zero_length_clientid false\n");
    assert_eq!(connack(port, 5, "", None)[3], 0x85);
    let (_serving, port) = serving(&folder, "");
    assert_eq!(connack(port, 5, "", None)[3], 0, "it is assigned one");
}

#[test]
fn assigned_client_identifiers_begin_as_the_file_says() {
    let folder = Folder::new("prefix");
    for (lines, prefix) in [
        ("", "auto-"),
        ("listener_auto_id_prefix web-\n", "web-"),
        ("auto_id_prefix all-\n", "all-"),
        ("auto_id_prefix all-\nlistener_auto_id_prefix web-\n", "web-"),
        ("auto_id_prefix pump-\nclientid_prefixes pump-\n", "pump-"),
    ] {
        let (_serving, port) = serving(&folder, lines);
        let answer = connack(port, 5, "", None);
        assert_eq!(answer[3], 0, "{lines}");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains(&format!("\x12\0{}{prefix}", (prefix.len() + 16) as u8 as char)));
    }
    let (_serving, port) = serving(&folder, "clientid_prefixes pump-\n");
    assert_eq!(connack(port, 5, "", None)[3], 0x85, "auto- is not among what may begin");
}

#[test]
fn the_log_goes_to_subscribers_of_its_topics() {
    let folder = Folder::new("topics");
    let (_serving, port) = serving(&folder, "log_dest topic\n");
    let (mut reader, _) = connect(port);
    let topic = b"$SYS/broker/log/I";
    let subscribe = [&[0x82, 22, 0, 1, 0, 17][..], topic, &[0]].concat();
    reader.write_all(&subscribe).expect("sent");
    let mut suback = [0; 5];
    reader.read_exact(&mut suback).expect("SUBACK");
    assert_eq!(connack(port, 4, "pump", None)[3], 0);
    let expected = " as pump (p2, c1, k60)";
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(expected) {
        let mut more = [0; 1024];
        let bytes = reader.read(&mut more).expect("a line within the time limit of the socket");
        assert!(bytes > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&more[..bytes]);
    }
    assert!(seen.windows(topic.len()).any(|part| part == topic));
}

#[cfg(unix)]
#[test]
fn the_log_has_the_words_of_mosquitto_and_signals_what_its_manual_says() {
    let folder = Folder::new("log");
    let log = folder.0.join("m.log");
    let lines = format!(
        "log_dest file {}\nuse_username_as_clientid true\naccept_protocol_versions 4\n",
        log.display()
    );
    let (mut serving, port) = serving(&folder, &lines);
    assert_eq!(connack(port, 4, "c", Some("alice")), [0x20, 2, 0, 0]);
    assert_eq!(connack(port, 4, "c", None)[3], 0, "there is no User Name that could replace it");
    let wait_for = |path: &Path, text: &str| {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let found = std::fs::read_to_string(path).unwrap_or_default();
            match found.lines().find(|line| line.contains(text)) {
                Some(line) => return line.to_owned(),
                None => assert!(Instant::now() < until, "{text}: {found}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let line = wait_for(&log, "as alice (p2, c1, k60");
    let (seconds, rest) = line.split_once(": ").expect("a time");
    assert!(seconds.parse::<u64>().is_ok_and(|seconds| seconds > 1_700_000_000), "{line}");
    assert!(rest.starts_with("New client connected from 127.0.0.1:"), "{line}");
    serving.signal("-USR1");
    serving.signal("-USR2");
    wait_for(&log, "summary clients_connected=");
    let rotated = folder.0.join("m.log.1");
    std::fs::rename(&log, &rotated).expect("renamed");
    if cfg!(target_os = "linux") {
        serving.signal("-34");
        std::thread::sleep(Duration::from_millis(300));
        serving.signal("-USR2");
        wait_for(&log, "summary clients_connected=");
    }
    serving.signal("-TERM");
    assert_eq!(serving.wait(), Some(0), "USR1 and USR2 do not end a broker");
}

#[cfg(feature = "store")]
#[test]
fn the_database_is_imported_at_the_first_start_alone() {
    let folder = Folder::new("import");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mosquitto-db");
    let databases = std::fs::read_dir(fixtures).expect("the fixtures");
    let mut databases: Vec<PathBuf> = databases.map(|of| of.expect("an entry").path()).collect();
    databases.retain(|path| path.extension().is_some_and(|of| of == "db"));
    databases.sort();
    let database = databases.last().expect("a database");
    std::fs::copy(database, folder.0.join("mosquitto.db")).expect("copied");
    let lines = format!("persistence true\npersistence_location {}/\n", folder.0.display());
    for has_log in [true, false] {
        let log = folder.0.join(format!("{has_log}.log"));
        let (mut serving, port) =
            serving(&folder, &format!("{lines}log_dest file {}\n", log.display()));
        assert_eq!(connack(port, 4, "c", None), [0x20, 2, 0, 0]);
        let _ = serving.0.kill();
        let _ = serving.0.wait();
        let text = std::fs::read_to_string(&log).expect("the log");
        assert_eq!(text.contains("mosquitto.db"), has_log, "{text}");
    }
    let data = folder.0.join("ringmq");
    let inspected = output(&["store", "inspect", "--data", data.to_str().expect("letters")]);
    assert!(inspected.status.success(), "{}", stderr(&inspected));
}

#[cfg(target_os = "linux")]
#[test]
fn a_broker_that_root_starts_serves_as_the_user_of_the_file() {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/self").expect("this process").uid();
    let folder = Folder::new("user");
    let lines =
        format!("user nobody\npersistence true\npersistence_location {}/\n", folder.0.display());
    std::fs::set_permissions(&folder.0, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("readable for others");
    let (mut serving, port) = serving(&folder, &lines);
    assert_eq!(connack(port, 4, "c", None), [0x20, 2, 0, 0], "it serves and writes");
    let status = std::fs::read_to_string(format!("/proc/{}/status", serving.0.id()));
    let status = status.expect("it runs");
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("the users");
    let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().expect("a number")).collect();
    let store = std::fs::metadata(folder.0.join("ringmq")).expect("the store").uid();
    match own {
        0 => {
            assert!(ids.iter().all(|id| *id == store && *id != 0), "{ids:?}, the store of {store}")
        }
        own => assert!(ids.iter().all(|id| *id == own), "{ids:?}"),
    }
    serving.signal("-TERM");
    assert_eq!(serving.wait(), Some(0));
}

#[test]
fn an_ignored_line_is_logged_at_the_start() {
    let (folder, port) = (Folder::new("notices"), free_port());
    let conf = folder.write("m.conf", &format!("autosave_interval 5\nlistener {port} 127.0.0.1\n"));
    let mut command = broker(&["--mosquitto-conf", &conf]);
    command.env("RINGMQ_ADMIN__LISTEN", "[]");
    let mut child = command.spawn().expect("the broker starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let found = lines.any(|line| {
        let line = line.expect("readable");
        line.contains("m.conf:1: autosave_interval 5: what is acknowledged is on disk")
    });
    let _ = child.kill();
    let _ = child.wait();
    assert!(found);
}

#[cfg(unix)]
/// A password file of Mosquitto with one user; none if its tool is not there.
fn one_user(name: &str, password: &str) -> Option<String> {
    let folder = Folder::new(&format!("one-user-{name}"));
    let path = folder.0.join("users");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .args([path.as_os_str(), name.as_ref(), password.as_ref()])
        .stderr(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success())
        .then(|| std::fs::read_to_string(&path).expect("just written"))
}

#[cfg(unix)]
#[test]
fn each_listener_admits_the_users_of_its_own_password_file_as_the_reload_reads_it() {
    let (Some(alice), Some(bob)) = (one_user("alice", "secret"), one_user("bob", "hush")) else {
        return eprintln!("SKIPPED: mosquitto_passwd is not installed");
    };
    let (folder, ports) = (Folder::new("own-users"), [free_port(), free_port(), free_port()]);
    let (of_alice, of_bob) = (folder.write("alice", &alice), folder.write("bob", &bob));
    let [first, second, third] = ports;
    let conf = folder.write(
        "m.conf",
        &format!(
            "per_listener_settings true\nlistener {first} 127.0.0.1\npassword_file {of_alice}\n\
             listener {second} 127.0.0.1\npassword_file {of_bob}\n\
             listener {third} 127.0.0.1\nallow_anonymous true\n"
        ),
    );
    let mut command = broker(&["--mosquitto-conf", &conf]);
    command.env("RINGMQ_ADMIN__LISTEN", "[]");
    let serving = Serving::start(command, third);
    // Each user of each listener has a Client Identifier, as the connection before may be open yet.
    let admits = |port: u16, user: &str, password: &str| {
        connack_to(port, 4, &format!("{user}{port}"), Some(user), Some(password))[3] == 0
    };
    for (user, password, expected) in [
        ("alice", "secret", [true, false, true]),
        ("bob", "hush", [false, true, true]),
        ("bob", "secret", [false, false, true]),
    ] {
        assert_eq!(ports.map(|port| admits(port, user, password)), expected, "{user}");
    }
    assert_eq!(ports.map(|port| connack(port, 4, "nobody", None)[3] == 0), [false, false, true]);
    folder.write("bob", &alice);
    serving.signal("-HUP");
    let until = Instant::now() + Duration::from_secs(20);
    while !admits(second, "alice", "secret") {
        assert!(Instant::now() < until, "the reload does not arrive");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!admits(second, "bob", "hush"));
}
