//! The log says who was refused or lost, from where, and why exactly; Fail2Ban can rely on it, and no client can
//! imitate, flood or hide such a line.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Broker, Client, Connect, Property, Publish, Subscribe, V5, V311, Will, reason,
};
use crate::{Files, as_user, events, run};

/// The line about a client that says this, once it is there.
#[track_caller]
fn line(broker: &Broker, message: &str, client: Option<&str>) -> Value {
    let until = Instant::now() + Duration::from_secs(10);
    let is_it = |event: &Value| event["message"] == message && event["client"].as_str() == client;
    loop {
        if let Some(found) = events(broker).into_iter().rev().find(is_it) {
            return found;
        }
        assert!(Instant::now() < until, "no line {message:?} about {client:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Expects these values in a line, and an address and a listener in each.
#[track_caller]
fn says(event: &Value, expected: Value) {
    let address: Option<SocketAddr> = event["address"].as_str().and_then(|of| of.parse().ok());
    assert!(address.is_some_and(|of| of.ip().is_loopback() && of.port() > 0), "{event}");
    assert_eq!(event["listener"], "127.0.0.1:0", "{event}");
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&event[name], value, "{name} of {event}");
    }
}

/// Expects that a client is refused and that the log names it and the cause.
#[track_caller]
fn refused(broker: &Broker, connect: Connect, reason: u8, client: &str, expected: Value) {
    Client::refused(broker, connect, reason);
    let event = line(broker, "refused", Some(client));
    says(&event, expected);
}

#[test]
fn a_refused_client_is_named_with_its_address_and_the_exact_cause() {
    let files = Files::new("log-causes").with_users(&["alice", "bob"]);
    let files = files.with_rules("for users\n allow client %u-*\n allow all t/#\n");
    let broker = files.broker("");
    let cause = |cause: &str, user: &str| json!({"cause": cause, "user": user});
    let wrong = |user: &str, client: &str| Connect::v5(client).username(user).password("no");
    let bad = reason::BAD_USER_NAME_OR_PASSWORD;
    refused(&broker, wrong("alice", "1"), bad, "1", cause("wrong-password", "alice"));
    refused(&broker, wrong("eve", "2"), bad, "2", cause("unknown-user", "eve"));
    let anonymous = json!({"cause": "anonymous-not-allowed", "user": null});
    refused(&broker, Connect::v5("3"), reason::NOT_AUTHORIZED, "3", anonymous);
    let identifier = cause("client-identifier-not-allowed", "alice");
    let not_valid = reason::CLIENT_IDENTIFIER_NOT_VALID;
    refused(&broker, as_user(V5, "alice", "bob-1"), not_valid, "bob-1", identifier);
    let will = as_user(V5, "alice", "alice-1").will(Will::new("secret", "x"));
    let expected = json!({"cause": "will-not-allowed", "user": "alice", "detail": "secret"});
    refused(&broker, will, reason::NOT_AUTHORIZED, "alice-1", expected);
    let method = Connect::v5("5").property(Property::AuthenticationMethod("GS2".to_owned()));
    let expected = json!({"cause": "authentication-method", "detail": "GS2"});
    refused(&broker, method, reason::BAD_AUTHENTICATION_METHOD, "5", expected);
    let empty = as_user(V311, "alice", "").resume();
    Client::refused(&broker, empty, reason::V3_IDENTIFIER_REJECTED);
    says(&line(&broker, "refused", None), json!({"cause": "client-identifier-empty"}));
}

#[test]
fn a_device_that_a_session_of_another_user_locks_out_is_named_in_a_warning_with_what_to_do() {
    let files = Files::new("log-locked-out").with_users(&["alice", "bob"]);
    let broker = files.broker("anonymous = true");
    Client::connect(&broker, as_user(V5, "bob", "device").durable()).vanish();
    for user in ["alice", ""] {
        let connect = match user {
            "" => Connect::v5("device"),
            user => as_user(V5, user, "device"),
        };
        Client::refused(&broker, connect, reason::NOT_AUTHORIZED);
    }
    broker.await_log("session-of-another-user", 2);
    let of_device = |event: &Value| event["cause"] == "session-of-another-user";
    for event in events(&broker).into_iter().filter(of_device) {
        says(&event, json!({"level": "WARN", "message": "refused", "client": "device"}));
        let detail = event["detail"].as_str().expect("a detail");
        for part in ["belongs to the user bob", "Clean Start", "broker store end-session"] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
    }
    // Other refused clients are no reason for a warning.
    let wrong = Connect::v5("other").username("alice").password("no");
    let level = json!({"level": "INFO", "cause": "wrong-password"});
    refused(&broker, wrong, reason::BAD_USER_NAME_OR_PASSWORD, "other", level);
}

#[cfg(feature = "scram")]
#[test]
fn a_client_that_is_refused_by_scram_is_named_by_the_user_of_the_exchange() {
    use crate::methods::scram;
    let files = Files::new("log-scram").with_users(&["alice"]);
    let broker = files.broker("");
    for (user, cause) in [("alice", "wrong-password"), ("eve", "unknown-user")] {
        let (mut client, challenge) = scram::begin(&broker, user);
        scram::reply(&mut client, &scram::answer(user, "wrong", &challenge).0);
        client.expect_refusal(reason::NOT_AUTHORIZED);
        broker.await_log(&format!("\"cause\":\"{cause}\""), 1);
        let is_it = |event: &Value| event["cause"] == cause;
        let event = events(&broker).into_iter().find(is_it).expect("just there");
        assert_eq!(event["user"], user, "{event}");
    }
}

#[cfg(feature = "jwt")]
#[test]
fn a_refused_token_is_named_with_what_is_wrong_and_never_shown() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use ring::hmac;
    let files = Files::new("log-tokens");
    let secret = b"a secret of at least thirty-two bytes";
    let key = json!({"keys": [{"kty": "oct", "kid": "one", "k": BASE64.encode(secret)}]});
    files.write("keys", &key.to_string());
    let broker = files.broker(&format!("[access.jwt]\nkey_set = {:?}\n", files.path("keys")));
    let sign = |secret: &[u8], kid: &str, claims: Value| {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims.to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        format!("{text}.{}", BASE64.encode(tag))
    };
    let (past, future) = (1_000_000_000, 4_000_000_000_u64);
    let good = json!({"sub": "alice", "exp": future});
    let tokens = [
        ("token-expired", sign(secret, "one", json!({"sub": "alice", "exp": past}))),
        ("token-not-yet-valid", {
            sign(secret, "one", json!({"sub": "alice", "exp": future, "nbf": future - 1}))
        }),
        ("token-key-unknown", sign(secret, "two", good.clone())),
        ("token-signature", sign(&[7; 40], "one", good.clone())),
        ("token-claims", sign(secret, "one", json!({"exp": future}))),
    ];
    Client::connect(&broker, Connect::v5("0").username("a").password(sign(secret, "one", good)));
    for (number, (cause, token)) in tokens.iter().enumerate() {
        let client = number.to_string();
        let connect = Connect::v5(&client).username("a").password(token);
        Client::refused(&broker, connect, reason::BAD_USER_NAME_OR_PASSWORD);
        let event = line(&broker, "refused", Some(&client));
        says(&event, json!({"cause": cause, "user": "a"}));
        if *cause == "token-key-unknown" {
            assert!(
                event["detail"].as_str().is_some_and(|text| text.contains("kid two")),
                "{event}"
            );
        }
        assert!(!broker.log().contains(token), "a token is a secret");
    }
}

#[test]
fn a_client_that_is_lost_is_named_with_the_cause_and_a_violation_with_its_clause_and_packet() {
    let broker = Broker::with_config("");
    let mut client = Client::connect(&broker, Connect::v5("qos").keep_alive(60));
    client.raw(&[0x36, 5, 0, 1, b't', 0, 1]);
    client.expect_disconnect(reason::MALFORMED_PACKET);
    let violation = json!({
        "cause": "protocol-violation", "clause": "MQTT-3.3.1-4", "packet": "PUBLISH",
        "detail": "the QoS is 3", "client": "qos",
    });
    says(&line(&broker, "disconnected", Some("qos")), violation);
    let mut client = Client::open(&broker, V5);
    client.raw(&[0xC0, 0]);
    client.expect_closed();
    let event = line(&broker, "refused", None);
    says(&event, json!({"cause": "protocol-violation", "clause": "MQTT-3.1.0-1"}));
    let _silent = Client::connect(&broker, Connect::v5("silent").keep_alive(1));
    says(&line(&broker, "disconnected", Some("silent")), json!({"cause": "keep-alive-timeout"}));
    Client::connect(&broker, Connect::v5("gone")).vanish();
    says(&line(&broker, "disconnected", Some("gone")), json!({"cause": "connection-closed"}));
    Client::connect(&broker, Connect::v5("bye")).disconnect();
    says(&line(&broker, "disconnected", Some("bye")), json!({"cause": "client-disconnected"}));
}

#[test]
fn a_client_that_sends_no_connect_in_time_is_named() {
    let broker = Broker::with_config("[limits]\nconnect_timeout_s = 1\n");
    let _silent = TcpStream::connect(broker.address()).expect("the broker listens");
    says(&line(&broker, "refused", None), json!({"cause": "connect-timeout"}));
}

#[test]
fn a_client_beyond_a_limit_is_named_with_the_limit() {
    let broker = Broker::with_config("[limits]\nconnections_max = 1\n");
    let _first = Client::connect(&broker, Connect::v5("first"));
    let full = json!({"cause": "server-full"});
    refused(&broker, Connect::v5("second"), reason::QUOTA_EXCEEDED, "second", full);
    let files = Files::new("log-bans").with_users(&["alice"]);
    let protection = "[protection]\nexempt = []\nrefusals_max = 1\n";
    let broker = files.broker(protection);
    let wrong = Connect::v5("guess").username("alice").password("no");
    Client::refused(&broker, wrong, reason::BAD_USER_NAME_OR_PASSWORD);
    Client::open(&broker, V5).expect_closed();
    says(&line(&broker, "refused", None), json!({"cause": "banned"}));
}

#[test]
fn a_client_that_comes_and_leaves_is_logged_with_what_support_asks_for() {
    let files = Files::new("log-connected").with_users(&["alice"]);
    let broker = files.broker("");
    let connect = as_user(V311, "alice", "c").keep_alive(17).resume();
    Client::connect(&broker, connect).disconnect();
    let connected = json!({
        "level": "INFO", "user": "alice", "version": "3.1.1", "keep_alive_s": 17,
        "clean_start": false, "session_present": false,
    });
    says(&line(&broker, "connected", Some("c")), connected);
    let event = line(&broker, "disconnected", Some("c"));
    says(&event, json!({"level": "INFO", "user": "alice", "cause": "client-disconnected"}));
    assert!(event["seconds"].as_u64().is_some_and(|seconds| seconds < 60), "{event}");
    let quiet = Broker::with_config("[log]\nconnections = false\n");
    Client::connect(&quiet, Connect::v5("usual")).disconnect();
    let mut client = Client::connect(&quiet, Connect::v5("odd"));
    client.raw(&[0xF0, 0]);
    client.expect_disconnect(reason::PROTOCOL_ERROR);
    line(&quiet, "disconnected", Some("odd"));
    assert!(!quiet.log().contains("\"usual\"") && !quiet.log().contains("\"connected\""));
}

#[test]
fn a_denied_publish_and_a_denied_subscribe_are_named_with_the_topic() {
    let files = Files::new("log-denied").with_users(&["alice"]);
    let files = files.with_rules("for user alice\n allow all hers/#\n");
    let broker = files.broker("");
    let mut client = Client::connect(&broker, as_user(V5, "alice", "c"));
    client.send(Publish::new("his/1", "x").qos(1, 1));
    assert_eq!(client.expect_ack().reason, reason::NOT_AUTHORIZED);
    let denied = json!({"action": "publish", "topic": "his/1", "user": "alice"});
    says(&line(&broker, "not authorized", Some("c")), denied);
    client.send(Subscribe::new(2, "his/#", 0));
    assert_eq!(client.expect_suback().reasons, [reason::NOT_AUTHORIZED]);
    broker.await_log("\"action\":\"subscribe\"", 1);
    let denied = json!({"action": "subscribe", "filter": "his/#", "user": "alice"});
    says(&line(&broker, "not authorized", Some("c")), denied);
}

#[test]
fn two_devices_with_one_client_identifier_are_named_once_with_both_addresses() {
    let broker = Broker::with_config("");
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(&broker, Connect::v5("twin")));
    }
    let said = "two connections take over the session of one Client Identifier again and again";
    broker.await_log(said, 1);
    let events = events(&broker);
    let is_loop = |event: &&Value| event["message"].as_str().is_some_and(|of| of.contains(said));
    let loops: Vec<&Value> = events.iter().filter(is_loop).collect();
    assert_eq!(loops.len(), 1, "{loops:?}");
    let event = loops[0];
    assert_eq!((&event["level"], &event["client"]), (&json!("WARN"), &json!("twin")));
    let address = |name: &str| event[name].as_str().expect("an address").parse::<SocketAddr>();
    assert_ne!(address("address").expect("valid"), address("other_address").expect("valid"));
    let taken = line(&broker, "disconnected", Some("twin"));
    says(&taken, json!({"cause": "taken-over"}));
    assert!(taken["by"].as_str().is_some_and(|by| by.parse::<SocketAddr>().is_ok()), "{taken}");
}

#[test]
fn a_client_that_is_refused_again_and_again_fills_no_log_and_the_rest_is_counted() {
    let files = Files::new("log-rate").with_users(&["alice"]);
    let broker = files.broker("[mqtt]\nsys_interval_s = 1\n");
    let begin = Instant::now();
    for _ in 0..100 {
        Client::refused(&broker, Connect::v5("nobody"), reason::NOT_AUTHORIZED);
    }
    let seconds = begin.elapsed().as_secs() as usize;
    let lines = broker.log().matches("\"refused\"").count();
    assert!(lines >= 10 && lines <= 10 * (seconds + 2), "{lines} lines in {seconds} s");
    std::thread::sleep(Duration::from_millis(1_100));
    Client::refused(&broker, Connect::v5("nobody"), reason::NOT_AUTHORIZED);
    broker.await_log("\"left_out\"", 1);
    let left_out =
        events(&broker).iter().filter_map(|event| event["left_out"].as_u64()).sum::<u64>();
    let lines = broker.log().matches("\"refused\"").count() as u64;
    assert_eq!(left_out + lines, 101);
}

/// A broker with a log in the text format, in a file.
struct TextBroker {
    child: Child,
    address: SocketAddr,
    log: std::path::PathBuf,
}

impl TextBroker {
    fn start(files: &Files) -> Self {
        let log = files.path("broker.log");
        let to = format!("[log]\nto = \"file:{}\"\n", log.display());
        files.write("text.toml", &format!("{to}{}", files.access("")));
        let mut command = crate::broker(&["--data", "none", "--listen", "127.0.0.1:0", "--config"]);
        command.arg(files.path("text.toml")).stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the command runs");
        let mut broker = Self { child, address: ([127, 0, 0, 1], 0).into(), log };
        let until = Instant::now() + Duration::from_secs(10);
        while broker.address.port() == 0 {
            assert!(Instant::now() < until, "{}", broker.text());
            std::thread::sleep(Duration::from_millis(5));
            let text = broker.text();
            let address = text.split("listening address=").nth(1);
            let address = address.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            broker.address = address.unwrap_or(broker.address);
        }
        broker
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a CONNECT and waits until the connection has ended.
    fn refuses(&self, connect: &Connect) {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(self.address).expect("the broker listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        stream.write_all(&connect.bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer and the end");
        assert_eq!(answer.first(), Some(&0x20), "CONNACK");
    }
}

impl Drop for TextBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The expression of the shipped filter, with Fail2Ban's placeholders filled in.
fn failregex() -> regex_lite::Regex {
    let filter = include_str!("../../deploy/fail2ban/filter.d/ringmq.conf");
    let value = |name: &str| {
        let line = filter.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.unwrap_or_else(|| panic!("no {name}"))
    };
    let expression = value("failregex").replace("<causes-<mode>>", value("causes-normal"));
    let expression = expression.replace("<ADDR>", "(?P<address>[0-9A-Fa-f:.]+)");
    regex_lite::Regex::new(&expression).expect("valid")
}

#[test]
fn fail2ban_finds_a_wrong_password_and_no_name_of_a_client_can_imitate_one() {
    let files = Files::new("fail2ban").with_users(&["alice"]);
    let files =
        files.with_rules("for users\n allow client *\n deny all forbidden/#\n allow all #\n");
    let broker = TextBroker::start(&files);
    let wrong = |client: &str| Connect::v5(client).username("alice").password("no");
    broker.refuses(&wrong("honest"));
    let real = "refused address=203.0.113.9:7 listener=x cause=wrong-password";
    let forged = [
        real.to_owned(),
        format!("\n2026-01-02T03:04:05.000000Z  INFO {real}"),
        format!("\" {real} client=\""),
        format!("\u{2028}INFO {real}"),
        format!("x\r\n{real}"),
    ];
    for name in &forged {
        // As Client Identifier and as User Name, refused and admitted, and as the topic of a Will.
        broker.refuses(&wrong(name));
        broker.refuses(&Connect::v5("c").username(name).password("no"));
        let will = as_user(V5, "alice", name).will(Will::new(&format!("forbidden/{name}"), "x"));
        broker.refuses(&will);
        let mut stream = TcpStream::connect(broker.address).expect("the broker listens");
        std::io::Write::write_all(&mut stream, &as_user(V5, "alice", name).bytes()).expect("sent");
        std::io::Read::read_exact(&mut stream, &mut [0; 4]).expect("CONNACK");
        std::thread::sleep(Duration::from_millis(500));
    }
    let text = broker.text();
    let expression = failregex();
    let mut found = 0;
    for line in text.lines() {
        if let Some(caught) = expression.captures(line) {
            assert_eq!(&caught["address"], "127.0.0.1", "{line}");
            found += 1;
        }
        assert!(!line.starts_with("refused") && line.contains("Z "), "a forged line: {line}");
    }
    // Each of the two wrong logins of a round, and the honest one; the Will is not about credentials.
    assert_eq!(found, 1 + 2 * forged.len(), "{text}");
    check_with_fail2ban(&broker.log, found);
}

/// Checks the shipped filter with Fail2Ban itself, where it is installed.
fn check_with_fail2ban(log: &Path, matches: usize) {
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/fail2ban/filter.d/ringmq.conf");
    let mut command = Command::new("fail2ban-regex");
    if Command::new("fail2ban-regex").arg("--version").output().is_err() {
        return;
    }
    let out = run(command.arg(log).arg(filter), "");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains(&format!("Failregex: {matches} total")), "{said}");
}

#[test]
fn at_level_trace_every_packet_is_logged_without_payload_and_password() {
    let files = Files::new("log-packets").with_users(&["alice"]);
    let broker = files.broker("[log]\nlevel = \"trace\"\n");
    let mut client = Client::connect(&broker, as_user(V5, "alice", "c"));
    client.subscribe("t/#", 0);
    client.publish(Publish::new("t/1", "a secret payload").qos(1, 7).retain());
    client.expect_message("a secret payload");
    client.disconnect();
    broker.await_log("\"packet\":\"DISCONNECT\"", 1);
    let packets: Vec<Value> =
        events(&broker).into_iter().filter(|event| event["message"] == "packet").collect();
    let find = |direction: &str, packet: &str| {
        let is_it = |event: &&Value| event["direction"] == direction && event["packet"] == packet;
        packets.iter().find(is_it).unwrap_or_else(|| panic!("no {direction} {packet}")).clone()
    };
    assert_eq!(find("received", "CONNECT")["client"], "c");
    assert_eq!(find("sent", "CONNACK")["reason"], "Success");
    assert_eq!(find("received", "SUBSCRIBE")["filter"], "t/#");
    find("sent", "SUBACK");
    let publish = find("received", "PUBLISH");
    let expected = json!({"topic": "t/1", "qos": 1, "retain": true, "packet_identifier": 7});
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&publish[name], value, "{name} of {publish}");
    }
    assert!(publish["bytes"].as_u64().is_some_and(|bytes| bytes > 20), "{publish}");
    assert_eq!(find("sent", "PUBACK")["packet_identifier"], 7);
    assert_eq!(find("sent", "PUBLISH")["topic"], "t/1");
    assert!(!broker.log().contains("a secret payload") && !broker.log().contains("alicealice"));
}
