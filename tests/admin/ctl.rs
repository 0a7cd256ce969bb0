//! `broker ctl` against a real broker, and every exit code of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use ringmq::config::Role;
use serde_json::Value;

use crate::folder::Folder;
use crate::support::{Broker, CONFIG, PATIENCE, wait_for};
use crate::uninterrupted::uninterrupted;

/// Runs `broker ctl` with these arguments.
fn ctl(arguments: &[&str]) -> Output {
    ctl_with(arguments, &[])
}

fn ctl_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg("ctl").args(arguments).stdin(Stdio::null());
    for variable in ["RINGMQCTL_AT", "RINGMQCTL_TOKEN", "RUNTIME_DIRECTORY", "SSL_CERT_FILE"] {
        command.env_remove(variable);
    }
    command.envs(environment.iter().copied()).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The standard output of a command that ends with this code.
fn said(arguments: &[&str], code: i32) -> String {
    let output = ctl(arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
    assert_eq!(stderr.starts_with("broker ctl: "), code != 0 && !stderr.is_empty(), "{stderr}");
    stdout
}

/// The standard error of a command that ends with this code.
fn error(arguments: &[&str], code: i32) -> String {
    let output = ctl(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    stderr
}

fn at(broker: &Broker) -> String {
    format!("unix:{}", broker.socket().display())
}

#[test]
fn the_socket_is_found_from_the_configuration_and_the_data_directory() {
    let broker = Broker::start("ctl-found", "--mode poll");
    let config = broker.folder.path("broker.toml");
    let found = said(&["--config", &config, "status"], 0);
    let version = found.lines().find_map(|line| line.strip_prefix("version"));
    assert_eq!(version.map(str::trim), Some(env!("CARGO_PKG_VERSION")), "{found}");
    let data = broker.folder.path("data");
    assert_eq!(said(&["--data", &data, "api", "get", "store"], 0).lines().next(), Some("{"));
    let by_variable = ctl_with(&["status"], &[("RINGMQCTL_AT", &at(&broker))]);
    assert_eq!(by_variable.status.code(), Some(0));
}

#[test]
fn answers_are_for_people_or_for_programs() {
    let broker = Broker::start("ctl-answers", "--mode poll --cores 2");
    let at = at(&broker);
    let json = said(&["--at", &at, "--json", "status"], 0);
    let status: Value = serde_json::from_str(&json).expect("one line of JSON");
    assert_eq!((json.lines().count(), &status["cores"]), (1, &2.into()));
    let health = said(&["--at", &at, "health"], 0);
    assert!(health.starts_with("NAME") && health.contains("store_writes"), "{health}");
    let live = said(&["--at", &at, "health", "--live"], 0);
    assert!(live.contains("cores") && !live.contains("store_writes"), "{live}");
    let metrics = said(&["--at", &at, "api", "GET", "/metrics"], 0);
    assert!(metrics.contains("\nringmq_cores 2\n"), "{metrics}");
}

#[test]
fn exit_code_1_is_a_no_of_the_broker() {
    let broker = Broker::start("ctl-no", "--mode poll");
    let wrong = error(&["--at", &at(&broker), "api", "GET", "nothing"], 1);
    assert!(wrong.starts_with("broker ctl: ") && wrong.contains("404"), "{wrong}");
}

#[test]
fn exit_code_2_is_for_flags_and_files_that_cannot_be_used() {
    for (arguments, what) in [
        (&["--at", "localhost", "status"][..], "unix:PATH"),
        (&["--at", "http://127.0.0.1:1", "--token-file", "/nowhere", "status"], "--token-file"),
        (&["--at", "https://localhost:1", "--ca", "/nowhere", "status"], "/nowhere"),
        (&["nonsense"], "nonsense"),
        (&["publish"], "TOPIC"),
        (&["token", "add", "read", "x"], "--file"),
        (&["token", "add", "root", "x"], "not a role"),
        (&["--config", "/nowhere", "status"], "/nowhere"),
    ] {
        let error = error(arguments, 2);
        assert!(error.contains(what), "{arguments:?}: {error}");
    }
    // A token is not sent over plain HTTP to another machine.
    let variable = [("RINGMQCTL_TOKEN", "t")];
    let output = ctl_with(&["--at", "http://192.0.2.1:1", "status"], &variable);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("--insecure"), "{stderr}");
}

#[test]
fn exit_code_3_is_for_an_interface_that_cannot_be_reached() {
    let folder = Folder::new("ctl-unreachable");
    let gone = format!("unix:{}", folder.path("gone.sock"));
    assert!(error(&["--at", &gone, "status"], 3).contains("gone.sock"));
    assert!(error(&["--at", "http://127.0.0.1:1", "status"], 3).contains("http://127.0.0.1:1"));
    let config = folder.write("broker.toml", "[admin]\nlisten = [\"unix:/nowhere/admin.sock\"]\n");
    let missing = error(&["--config", &config, "status"], 3);
    assert!(missing.contains("unix:/nowhere/admin.sock") && missing.contains("--at"), "{missing}");
    // The socket of a broker that was killed.
    let broker = Broker::start("ctl-killed", "--mode poll");
    let at = at(&broker);
    let _folder = broker.kill();
    assert!(error(&["--at", &at, "status"], 3).contains("refused"));
}

#[test]
fn exit_code_4_is_for_a_missing_token_and_a_role_that_does_not_suffice() {
    let broker = Broker::start("ctl-token", "--mode poll");
    let at = format!("http://{}", broker.address());
    assert!(error(&["--at", &at, "status"], 4).contains("401"));
    let token = |role: Role| {
        let name = format!("{}.token", role.name());
        broker.folder.write(&name, &format!("{}\n", broker.tokens[role as usize]))
    };
    let read = token(Role::Read);
    said(&["--at", &at, "--token-file", &read, "status"], 0);
    let variable = [("RINGMQCTL_TOKEN", &*broker.tokens[0])];
    assert_eq!(ctl_with(&["--at", &at, "status"], &variable).status.code(), Some(0));
    let wrong = broker.folder.write("wrong.token", "read.wrong");
    assert!(error(&["--at", &at, "--token-file", &wrong, "status"], 4).contains("401"));
    said(&["--at", &at, "health"], 0);
}

#[test]
fn a_token_that_ctl_adds_is_accepted_after_a_reload_until_it_is_removed() {
    let broker = Broker::start("ctl-add", "--mode poll");
    let config = broker.folder.path("broker.toml");
    let token = said(&["--config", &config, "token", "add", "read", "monitor"], 0);
    assert!(token.starts_with("monitor."), "{token}");
    let file = broker.folder.write("monitor.token", &token);
    let at = format!("http://{}", broker.address());
    let status = |arguments: &[&str]| ctl(arguments).status.code();
    let ask = ["--at", &*at, "--token-file", &*file, "status"];
    assert_eq!(status(&ask), Some(4));
    broker.signal("-HUP");
    wait_for("the token", || (status(&ask) == Some(0)).then_some(()));
    let remove = ["--config", &*config, "token", "remove", "monitor"];
    assert_eq!((status(&remove), status(&remove)), (Some(0), Some(1)));
}

/// An MQTT 3.1.1 client with a persistent session, which is connected and has one subscription.
fn client(broker: &Broker, name: &str, filter: &str) -> TcpStream {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let packet = |first: u8, body: &[u8]| [&[first, body.len() as u8], body].concat();
    let connect = packet(0x10, &[&text("MQTT")[..], &[4, 0, 0, 0], &text(name)].concat());
    let subscribe = packet(0x82, &[&[0, 1][..], &text(filter), &[1]].concat());
    let mut stream = TcpStream::connect(&broker.mqtt).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream.write_all(&connect).expect("the server reads");
    stream.read_exact(&mut [0; 4]).expect("CONNACK");
    stream.write_all(&subscribe).expect("the server reads");
    stream.read_exact(&mut [0; 5]).expect("SUBACK");
    stream
}

#[test]
fn clients_are_listed_shown_and_sent_away() {
    let broker = Broker::start("ctl-clients", "--mode poll --cores 2");
    let at = at(&broker);
    let said = |arguments: &[&str], code: i32| said(&[&["--at", &at], arguments].concat(), code);
    let mut first = client(&broker, "sensor/1", "a/+");
    let _second = client(&broker, "door", "a/b");
    let all = said(&["clients"], 0);
    assert!(all.starts_with("CLIENT ID") && all.lines().count() == 3, "{all}");
    let some = said(&["clients", "--prefix", "sensor/", "--state", "connected"], 0);
    assert!(some.contains("sensor/1") && !some.contains("door"), "{some}");
    // Page by page, and no more than asked for.
    let one = said(&["clients", "--limit", "1"], 0);
    assert!(
        one.lines().count() == 3 && one.ends_with("… and more, which --limit shows\n"),
        "{one}"
    );
    assert!(said(&["client", "sensor/1"], 0).contains("keep alive"));
    assert!(said(&["client", "sensor/1", "--show", "subscriptions"], 0).contains("a/+"));
    let subscribers = said(&["subs", "a/b"], 0);
    assert!(subscribers.contains("sensor/1") && subscribers.contains("door"), "{subscribers}");
    assert!(!said(&["subs", "a/c"], 0).contains("door"));
    assert_eq!(said(&["subs"], 0).lines().count(), 3);
    assert_eq!(said(&["kick", "sensor/1", "--reason", "test"], 0), "disconnected\n");
    assert_eq!(uninterrupted(|| first.read(&mut [0; 4])).expect("the end"), 0);
    said(&["kick", "sensor/1"], 1);
    said(&["publish", "a/b", "hello", "--qos", "1"], 0);
    let queue = said(&["client", "sensor/1", "--show", "queue", "--payload", "9"], 0);
    assert!(queue.contains("a/b") && queue.contains("hello"), "{queue}");
    let top = said(&["top", "--once"], 0);
    assert!(top.contains("CORE") && top.contains("sensor/1"), "{top}");
    said(&["session", "unsubscribe", "sensor/1", "a/+"], 0);
    said(&["session", "delete", "sensor/1"], 0);
    said(&["client", "sensor/1"], 1);
}

#[test]
fn retained_messages_bans_and_draining_are_steered() {
    let broker = Broker::start("ctl-steered", "--mode poll");
    let at = at(&broker);
    let said = |arguments: &[&str], code: i32| said(&[&["--at", &at], arguments].concat(), code);
    for topic in ["/a", "x/1", "x/2"] {
        said(&["publish", topic, "warm", "--retain"], 0);
    }
    let list = said(&["retained", "list"], 0);
    assert!(list.contains("/a") && list.contains("x/2"), "{list}");
    assert!(!said(&["retained", "list", "x/#"], 0).contains("/a"));
    assert!(said(&["retained", "get", "/a"], 0).contains("warm"));
    said(&["retained", "clear", "x/#", "--max", "1"], 5);
    said(&["retained", "clear", "x/#", "--max", "5"], 0);
    assert_eq!(said(&["retained", "delete", "/a"], 0), "deleted\n");
    said(&["retained", "get", "/a"], 1);
    let mut banned = client(&broker, "door", "a");
    said(&["ban", "add", "client", "door", "--reason", "broken", "--seconds", "600"], 0);
    assert_eq!(uninterrupted(|| banned.read(&mut [0; 4])).expect("the end"), 0);
    let bans = said(&["ban", "list"], 0);
    assert!(bans.contains("door") && bans.contains("broken"), "{bans}");
    said(&["ban", "remove", "client", "door"], 0);
    said(&["ban", "remove", "client", "door"], 1);
    said(&["drain"], 0);
    said(&["health"], 1);
    said(&["drain", "--stop"], 0);
    said(&["health"], 0);
}

/// Answers one request with this content.
fn answer_once(folder: &Folder, name: &str, status: &str, content: &str) -> String {
    let path = folder.path(name);
    let listener = UnixListener::bind(&path).expect("a socket");
    let length = content.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{content}"
    );
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = Vec::new();
        while !request.windows(4).any(|four| four == b"\r\n\r\n") {
            let mut part = [0; 1_024];
            let count = stream.read(&mut part).expect("a request");
            request.extend_from_slice(&part[..count]);
        }
        stream.write_all(answer.as_bytes()).expect("the client reads");
    });
    format!("unix:{path}")
}

#[test]
fn exit_code_5_is_for_what_is_done_in_part() {
    let folder = Folder::new("ctl-part");
    let restart = r#"{"applied":["log.level"],"needs_restart":[{"key":"cores"}]}"#;
    let at = answer_once(&folder, "a.sock", "200 OK", restart);
    assert!(said(&["--at", &at, "reload"], 5).contains("cores"));
    let at = answer_once(&folder, "b.sock", "200 OK", r#"{"applied":[],"needs_restart":[]}"#);
    said(&["--at", &at, "reload"], 0);
    let wrong = r#"{"applied":[],"needs_restart":[{"key":"cores"}],"errors":[{"what":"line 7"}]}"#;
    let at = answer_once(&folder, "e.sock", "200 OK", wrong);
    assert!(said(&["--at", &at, "reload"], 1).contains("line 7"));
    let at = answer_once(&folder, "c.sock", "200 OK", r#"{"deleted":5,"complete":false}"#);
    said(&["--at", &at, "retained", "clear", "a/#", "--max", "5"], 5);
    let at =
        answer_once(&folder, "d.sock", "503 Service Unavailable", r#"{"ok":false,"checks":[]}"#);
    said(&["--at", &at, "health"], 1);
}

#[test]
fn an_https_interface_is_verified() {
    let folder = Folder::new("ctl-tls");
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate =
        folder.write("certificate.pem", &params.self_signed(&key).expect("signed").pem());
    folder.write("key.pem", &key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("signed");
    let other = folder.write("other.pem", &other.cert.pem());
    let tls =
        "[admin.tls]\ncertificate = \"{FOLDER}/certificate.pem\"\nkey = \"{FOLDER}/key.pem\"\n";
    let broker = Broker::with(folder, &format!("{CONFIG}{tls}"), "--mode poll");
    let port = broker.address().rsplit(':').next().expect("a port").to_owned();
    let at = format!("https://localhost:{port}");
    let token = broker.folder.write("read.token", &broker.tokens[0]);
    said(&["--at", &at, "--ca", &certificate, "--token-file", &token, "status"], 0);
    let error = error(&["--at", &at, "--ca", &other, "--token-file", &token, "status"], 3);
    assert!(error.contains("certificate"), "{error}");
}
