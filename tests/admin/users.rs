//! The user database: users and rules that are changed through the interface take effect on clients, and are kept.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use ringmq::config::Role;
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::support::{Answer, Broker, CONFIG, EXECUTORS, PATIENCE};
use crate::uninterrupted::uninterrupted;

/// An MQTT 3.1.1 client with a user name.
struct Client(TcpStream);

impl Client {
    /// Sends a packet of fewer than 128 bytes.
    fn send(&mut self, first: u8, content: &[u8]) {
        let length = u8::try_from(content.len()).expect("short");
        assert!(length < 128);
        self.0.write_all(&[&[first, length], content].concat()).expect("the broker reads");
    }

    /// The next packet, whose content is short.
    fn packet(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("an answer");
        let mut content = vec![0; head[1].into()];
        self.0.read_exact(&mut content).expect("the rest");
        (head[0], content)
    }

    fn ping(&mut self) {
        self.send(0xC0, &[]);
        assert_eq!(self.packet(), (0xD0, Vec::new()));
    }

    /// Subscribes; whether that is allowed.
    fn subscribe(&mut self, filter: &str) -> bool {
        self.send(0x82, &[&[0, 1][..], &text(filter), &[0]].concat());
        let (kind, content) = self.packet();
        assert_eq!(kind, 0x90);
        content[2] != 0x80
    }

    /// Whether the broker has closed the connection.
    fn is_closed(&mut self) -> bool {
        uninterrupted(|| self.0.read(&mut [0])).map_or(true, |read| read == 0)
    }
}

/// A string of MQTT.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

fn config(more: &str) -> String {
    format!(
        "{CONFIG}[access]\n{more}[access.hashing]\nmemory_kib = 8\niterations = 1\nscram_iterations = 4096\n\
         [access.database]\nusers_max = 4\nrules_max = 3\n"
    )
}

fn ask(broker: &Broker, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    broker.ask(Role::Admin, method, path, &body)
}

/// The status of a request, and what its answer says.
fn said(broker: &Broker, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = ask(broker, method, path, body);
    (answer.status, answer.json())
}

fn add_user(broker: &Broker, name: &str, groups: &[&str]) {
    let user = json!({ "name": name, "password": format!("of {name}"), "groups": groups });
    let (status, answer) = said(broker, "POST", "/api/v1/users", &user);
    assert_eq!(status, 200, "{answer}");
}

/// A client that logs in, and the return code of CONNACK.
fn log_in(broker: &Broker, user: &str, password: &str) -> (Client, u8) {
    let stream = TcpStream::connect(&broker.mqtt).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut client = Client(stream);
    let head = b"\0\x04MQTT\x04\xC2\0\0";
    client.send(0x10, &[&head[..], &text(user), &text(user), &text(password)].concat());
    let (kind, content) = client.packet();
    assert_eq!(kind, 0x20);
    (client, content[1])
}

#[test]
fn a_user_added_by_the_interface_logs_in_and_is_disconnected_when_removed_on_every_executor() {
    for flags in EXECUTORS {
        let broker = Broker::with(Folder::new("users-live"), &config(""), flags);
        assert_eq!(log_in(&broker, "alice", "of alice").1, 4, "{flags}: unknown");
        add_user(&broker, "alice", &[]);
        add_user(&broker, "bob", &[]);
        let ((mut alice, code), (mut bob, _)) =
            (log_in(&broker, "alice", "of alice"), log_in(&broker, "bob", "of bob"));
        assert_eq!((code, log_in(&broker, "eve", "of alice").1), (0, 4), "{flags}");
        let (status, changed) =
            said(&broker, "PUT", "/api/v1/users/alice", &json!({ "password": "new" }));
        assert_eq!((status, &changed["disconnected"]), (200, &json!(1)), "{flags}: {changed}");
        assert_eq!(changed["complete"], true, "{flags}");
        assert!(alice.is_closed(), "{flags}");
        assert_eq!(log_in(&broker, "alice", "of alice").1, 4, "{flags}");
        assert_eq!(log_in(&broker, "alice", "new").1, 0, "{flags}");
        bob.ping();
        let (status, changed) = said(&broker, "DELETE", "/api/v1/users/bob", &Value::Null);
        assert_eq!((status, &changed["disconnected"]), (200, &json!(1)), "{flags}: {changed}");
        assert!(bob.is_closed(), "{flags}");
        assert_eq!(log_in(&broker, "bob", "of bob").1, 4, "{flags}");
        // The audit log names who has changed what, and no password.
        let line = broker.wait_for_log("a change is logged", |line| {
            line["what"] == "DELETE /api/v1/users/bob" && line["outcome"] == 200
        });
        assert_eq!(line["who"], "admin", "{line}");
        let log = broker.log.lock().expect("no panic");
        assert!(log.iter().all(|line| !line.to_string().contains("of bob")), "{log:?}");
    }
}

#[test]
fn users_and_rules_are_kept_across_a_kill_and_a_damaged_database_is_refused() {
    let broker = Broker::with(Folder::new("users-kept"), &config(""), "--mode poll");
    add_user(&broker, "alice", &["meters"]);
    let rule = json!({ "for": "group meters", "rule": "allow subscribe meters/%u/#" });
    let (status, answer) = said(&broker, "POST", "/api/v1/rules", &rule);
    assert_eq!((status, &answer["rule"]), (200, &json!(1)), "{answer}");
    let folder = broker.kill();
    let broker = Broker::with(folder, &config(""), "--mode poll");
    let (mut alice, code) = log_in(&broker, "alice", "of alice");
    assert_eq!(code, 0);
    assert!(alice.subscribe("meters/alice/#") && !alice.subscribe("meters/bob/#"));
    let users = said(&broker, "GET", "/api/v1/users", &Value::Null).1;
    let user = json!({ "name": "alice", "groups": ["meters"], "scram": true, "hidden": false });
    assert_eq!(users, json!({ "users": [user], "next": null, "total": 1 }));
    assert_eq!(said(&broker, "GET", "/api/v1/users/alice", &Value::Null), (200, user));
    let rules = said(&broker, "GET", "/api/v1/rules", &Value::Null).1;
    let first = json!({ "number": 1, "for": "group meters", "rule": rule["rule"] });
    assert_eq!(rules, json!({ "rules": [first], "next": null, "total": 1 }));
    let metrics = broker.ask(Role::Read, "GET", "/metrics", "");
    let metrics = String::from_utf8(metrics.body).expect("text");
    assert!(metrics.contains("\nringmq_access_database_users 1\n"), "{metrics}");
    assert!(metrics.contains("\nringmq_access_database_rules 1\n"), "{metrics}");
    let folder = broker.kill();
    let file = folder.0.join("data").join("users.json");
    std::fs::write(&file, "{\"format\": 1,").expect("written");
    let output = crate::support::command(&folder, &config(""), "--mode poll").output();
    let output = output.expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("users.json cannot be read") && error.contains("line 1"), "{error}");
}

#[test]
fn a_rule_takes_effect_on_connected_clients_and_after_the_file() {
    let folder = Folder::new("rules-live");
    let acl = folder.write("acl", "for everyone\n deny all secret/#\n");
    let config = config(&format!("acl_file = {acl:?}\n"));
    let broker = Broker::with(folder, &config, "--mode poll --cores 2");
    add_user(&broker, "alice", &[]);
    let (mut alice, _) = log_in(&broker, "alice", "of alice");
    assert!(!alice.subscribe("t"), "no rule allows it");
    let rule = |who: &str, rule: &str| json!({ "for": who, "rule": rule });
    let add = |body: &Value| said(&broker, "POST", "/api/v1/rules", body);
    assert_eq!(add(&rule("user alice", "allow all #")).0, 200);
    assert!(alice.subscribe("t") && !alice.subscribe("secret/t"));
    let mut first = rule("user alice", "deny subscribe t");
    first["before"] = json!(1);
    let (status, changed) = add(&first);
    assert_eq!((status, &changed["subscriptions_ended"]), (200, &json!(1)), "{changed}");
    assert!(!alice.subscribe("t"), "the rule before decides");
    let other = rule("user alice", "deny subscribe u");
    assert_eq!(said(&broker, "PUT", "/api/v1/rules/2", &other).0, 200);
    assert!(alice.subscribe("t") && !alice.subscribe("u"));
    assert_eq!(said(&broker, "DELETE", "/api/v1/rules/2", &Value::Null).0, 200);
    assert!(alice.subscribe("u"));
    let (status, problem) = add(&rule("user alice", "allow sing #"));
    let detail = problem["detail"].as_str().expect("text");
    assert_eq!(status, 400);
    assert!(detail.contains("\"allow sing #\", column 7"), "{detail}");
}

#[test]
fn refused_changes_say_why_and_change_nothing() {
    let folder = Folder::new("users-refused");
    let file = folder.0.join("passwords");
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_broker"));
    passwd.args(["passwd", "--file"]).arg(&file).args(["add", "alice"]).stdin(Stdio::piped());
    let mut child = passwd.stdout(Stdio::null()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(b"file\n").expect("it reads");
    assert!(child.wait().expect("it ends").success());
    let config = config(&format!("password_file = {file:?}\n"));
    let broker = Broker::with(folder, &config, "--mode poll");
    let user = |name: &str| json!({ "name": name, "password": "p" });
    for number in 0..4 {
        add_user(&broker, &format!("u{number}"), &[]);
    }
    for (method, path, body, status, says) in [
        ("POST", "users", user("alice"), 409, "password file, which goes first"),
        ("POST", "users", user("u0"), 409, "there is a user"),
        ("POST", "users", user("u4"), 507, "raise access.database.users_max"),
        ("POST", "users", user("a:b"), 400, "no colon"),
        ("PUT", "users/x", json!({ "password": "p" }), 404, "no user \"x\""),
        ("PUT", "users/u0", json!({}), 400, "name a new password"),
        ("DELETE", "users/alice", Value::Null, 404, "no user \"alice\""),
        ("PUT", "rules/1", json!({ "for": "users", "rule": "deny all #" }), 404, "no rule 1"),
        ("GET", "users?limit=0", Value::Null, 400, "limit is 0"),
    ] {
        let (found, problem) = said(&broker, method, &format!("/api/v1/{path}"), &body);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(found == status && detail.contains(says), "{method} {path}: {found} {problem}");
    }
    // Part by part, each user once.
    let mut seen = Vec::new();
    let mut path = "/api/v1/users?limit=3".to_owned();
    loop {
        let part = said(&broker, "GET", &path, &Value::Null).1;
        let users = part["users"].as_array().expect("a list").iter();
        seen.extend(users.map(|user| user["name"].as_str().expect("text").to_owned()));
        let Some(next) = part["next"].as_str() else { break };
        path = format!("/api/v1/users?limit=3&cursor={next}");
    }
    assert_eq!(seen, ["u0", "u1", "u2", "u3"]);
    let without = Broker::start("users-none", "--mode poll");
    let (status, problem) = said(&without, "POST", "/api/v1/users", &user("a"));
    let detail = problem["detail"].as_str().expect("text");
    assert!(status == 409 && detail.contains("set access.database.users_max"), "{detail}");
}

#[test]
fn ctl_manages_users_and_rules() {
    let broker = Broker::with(Folder::new("ctl-users"), &config(""), "--mode poll");
    let at = format!("unix:{}", broker.socket().display());
    let ctl = |arguments: &[&str], input: &str, code: i32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["ctl", "--at", &at]).args(arguments).stdin(Stdio::piped());
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("it runs");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that needs no input may have ended.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(all).expect("text");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
        all
    };
    ctl(&["user", "add", "alice", "--group", "a", "--group", "b"], "one\n", 0);
    ctl(&["rule", "add", "group a", "allow all #"], "", 0);
    assert_eq!(log_in(&broker, "alice", "one").1, 0);
    let users = ctl(&["user", "list"], "", 0);
    assert!(users.starts_with("NAME") && users.contains("alice"), "{users}");
    ctl(&["user", "password", "alice"], "two\n", 0);
    assert_eq!([log_in(&broker, "alice", "one").1, log_in(&broker, "alice", "two").1], [4, 0]);
    ctl(&["user", "groups", "alice", "c"], "", 0);
    let shown = ctl(&["--json", "user", "show", "alice"], "", 0);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["groups"], json!(["c"]));
    ctl(&["rule", "change", "1", "group c", "deny publish #"], "", 0);
    let rules = ctl(&["rule", "list"], "", 0);
    assert!(rules.contains("group c") && rules.contains("deny publish #"), "{rules}");
    ctl(&["rule", "remove", "1"], "", 0);
    assert!(ctl(&["rule", "remove", "1"], "", 1).contains("no rule 1"));
    ctl(&["user", "remove", "alice"], "", 0);
    assert!(ctl(&["user", "show", "alice"], "", 1).contains("no user"));
    assert!(ctl(&["user", "add", "bob"], "\n", 2).contains("the password is empty"));
}
