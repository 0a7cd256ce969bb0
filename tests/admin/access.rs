//! Who may use the interface: tokens, passwords, cookies, the system's users; and requests that a page of another site
//! makes a browser send.

use std::process::{Command, Stdio};

use ringmq::admin::auth::tokens;
use ringmq::config::Role;
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::support::{Broker, CONFIG};

const WHOAMI: &str = "/api/v1/whoami";

#[test]
fn the_broker_s_user_is_an_administrator_through_the_unix_socket_without_a_secret() {
    let broker = Broker::start("owner", "--mode poll");
    let answer = broker.unix().ask("GET", WHOAMI, &[], "");
    let uid = nix::unistd::geteuid();
    assert_eq!(answer.json(), json!({ "name": format!("uid {uid}"), "role": "admin" }));
    let mode = std::fs::metadata(broker.socket()).expect("it is there").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    // A token limits what its holder does, also here.
    let token = format!("Bearer {}", broker.tokens[0]);
    let answer = broker.unix().ask("GET", WHOAMI, &[("Authorization", &token)], "");
    assert_eq!(answer.json(), json!({ "name": "read", "role": "read" }));
}

#[test]
fn a_token_is_known_until_a_reload_without_it() {
    let broker = Broker::start("token", "--mode poll");
    for role in Role::ALL {
        let answer = broker.ask(role, "GET", WHOAMI, "");
        assert_eq!(answer.json(), json!({ "name": role.name(), "role": role.name() }));
    }
    let file = broker.folder.0.join("tokens");
    let new = tokens::add(&file, Role::Read, "operate").expect("changed");
    tokens::remove(&file, "admin").expect("removed");
    broker.signal("-HUP");
    broker.wait_for_log("reloaded", |line| {
        line["message"] == "reloaded" && line["what"] == "admin interface"
    });
    assert_eq!(broker.ask(Role::Read, "GET", WHOAMI, "").status, 200);
    assert_eq!(broker.ask(Role::Admin, "GET", WHOAMI, "").status, 401, "removed");
    assert_eq!(broker.ask(Role::Operate, "GET", WHOAMI, "").status, 401, "replaced");
    let token = format!("Bearer {new}");
    let answer = broker.tcp().ask("GET", WHOAMI, &[("Authorization", &token)], "");
    assert_eq!(answer.json()["role"], "read");
    // A file that cannot be used changes nothing.
    std::fs::write(&file, "nonsense").expect("written");
    broker.signal("-HUP");
    broker.wait_for_log("refused", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("ROLE:NAME:HASH"))
    });
    assert_eq!(broker.ask(Role::Read, "GET", WHOAMI, "").status, 200);
}

#[test]
fn ten_wrong_secrets_close_an_address_but_neither_health_nor_the_socket() {
    let broker = Broker::start("wrong", "--mode poll");
    let wrong = ["Bearer nobody.x", "Bearer read.x", "Bearer x", "Basic YTpi", "Bearer admin."];
    for place in 0..10 {
        let answer = broker.tcp().ask("GET", WHOAMI, &[("Authorization", wrong[place % 5])], "");
        assert_eq!(answer.status, 401, "{}", wrong[place % 5]);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let answer = broker.ask(Role::Read, "GET", WHOAMI, "");
    assert_eq!(answer.status, 429, "even with a right one");
    let seconds: u32 = answer.header("retry-after").expect("a hint").parse().expect("a number");
    assert!((50..=61).contains(&seconds));
    let login = json!({ "token": broker.tokens[0] }).to_string();
    assert_eq!(broker.tcp().ask("POST", "/api/v1/login", &[], &login).status, 429);
    assert_eq!(broker.tcp().ask("GET", "/livez", &[], "").status, 200);
    assert_eq!(broker.unix().ask("GET", WHOAMI, &[], "").status, 200);
    let lines = broker.log.lock().expect("no panic");
    let wrong = lines
        .iter()
        .filter(|line| line["message"].as_str().is_some_and(|of| of.contains("wrong token")));
    assert_eq!(wrong.count(), 10);
}

#[test]
fn credentials_that_are_no_credentials_are_refused_and_cost_nothing() {
    let broker = Broker::start("malformed", "--mode poll");
    for value in [
        "",
        "Bearer",
        "Basic ~",
        "Basic YQ==",
        "Digest a=b",
        &format!("Bearer {}", "x".repeat(600)),
    ] {
        let answer = broker.tcp().ask("GET", WHOAMI, &[("Authorization", value)], "");
        assert_eq!(answer.status, 401, "{value:?}");
    }
    let token = format!("Bearer {}", broker.tokens[0]);
    let two = [("Authorization", &*token), ("Authorization", &*token)];
    assert_eq!(broker.tcp().ask("GET", WHOAMI, &two, "").status, 401);
    assert_eq!(broker.ask(Role::Read, "GET", WHOAMI, "").status, 200, "none of them counted");
}

#[test]
fn a_login_is_a_cookie_that_pages_of_other_sites_cannot_use() {
    let broker = Broker::start("login", "--mode poll");
    let login = json!({ "token": broker.tokens[Role::Operate as usize] }).to_string();
    let answer = broker.tcp().ask("POST", "/api/v1/login", &[], &login);
    assert_eq!(answer.json(), json!({ "name": "operate", "role": "operate" }));
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=28800"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let (pair, _) = cookie.split_once(';').expect("attributes");
    let cookies = format!("other=1; {pair}");
    let with = |more: &[(&str, &str)], method: &str, path: &str| {
        let all = [&[("Cookie", &*cookies)], more].concat();
        broker.tcp().ask(method, path, &all, "")
    };
    assert_eq!(with(&[], "GET", WHOAMI).json()["role"], "operate");
    let forged = cookies.replace("operate", "admin");
    assert_eq!(broker.tcp().ask("GET", WHOAMI, &[("Cookie", &forged)], "").status, 401);
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        assert_eq!(with(&[("Origin", origin)], "POST", "/api/v1/logout").status, 403, "{origin}");
    }
    let answer = with(&[("Origin", "http://localhost")], "POST", "/api/v1/logout");
    assert_eq!(answer.status, 204);
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")));
    for wrong in
        ["{}", "{\"token\":1}", "{\"token\":\"a\",\"more\":1}", "nonsense", "{\"name\":\"a\"}"]
    {
        let answer = broker.tcp().ask("POST", "/api/v1/login", &[], wrong);
        assert!(matches!(answer.status, 400 | 422), "{wrong}: {}", answer.status);
        assert_eq!(answer.json()["status"], answer.status, "{wrong}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

#[test]
fn members_of_the_group_log_in_with_their_passwords_and_other_users_do_not() {
    let folder = Folder::new("passwords");
    folder.write("acl.txt", "group staff: alice\nfor everyone\nallow all #\n");
    let file = folder.path("passwords");
    for (user, password) in [("alice", "secret"), ("bob", "word")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["passwd", "--file", &file, "add", user]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
        let mut input = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut input, format!("{password}\n").as_bytes()).expect("read");
        drop(input);
        assert!(child.wait().expect("it ends").success());
    }
    let config = format!(
        "{CONFIG}password_group = \"staff\"\npassword_role = \"read\"\n[access]\n\
         password_file = {file:?}\nacl_file = \"{{FOLDER}}/acl.txt\"\n"
    );
    let broker = Broker::with(folder, &config, "--mode poll");
    let ask = |user: &str, password: &str| {
        use base64::Engine as _;
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
        broker.tcp().ask("GET", WHOAMI, &[("Authorization", &format!("Basic {pair}"))], "")
    };
    for _ in 0..2 {
        assert_eq!(ask("alice", "secret").json(), json!({ "name": "alice", "role": "read" }));
    }
    for (user, password) in [("alice", "word"), ("bob", "word"), ("carol", ""), ("", "")] {
        assert_eq!(ask(user, password).status, 401, "{user}");
    }
    let login = json!({ "name": "alice", "password": "secret" }).to_string();
    let cookie = broker.tcp().ask("POST", "/api/v1/login", &[], &login);
    let cookie = cookie.header("set-cookie").expect("a cookie").split(';').next();
    let cookie = [("Cookie", cookie.expect("a pair"))];
    assert_eq!(broker.tcp().ask("GET", WHOAMI, &cookie, "").json()["name"], "alice");
    // A member who leaves the group is nobody, with the password and with the cookie.
    broker.folder.write("acl.txt", "group staff: bob\nfor everyone\nallow all #\n");
    broker.signal("-HUP");
    broker.wait_for_log("reloaded", |line| line["what"] == "access");
    assert_eq!(ask("alice", "secret").status, 401);
    assert_eq!(broker.tcp().ask("GET", WHOAMI, &cookie, "").status, 401);
    assert_eq!(ask("bob", "word").json()["name"], "bob");
}

#[test]
fn a_request_for_a_name_that_is_not_configured_is_refused() {
    let config =
        CONFIG.replace("[admin.access]", "hosts = [\"broker.example.org\"]\n[admin.access]");
    let broker = Broker::with(Folder::new("hosts"), &config, "--mode poll");
    for (host, expected) in [
        ("localhost", 200),
        ("127.0.0.1:9883", 200),
        ("[::1]:9883", 200),
        ("broker.example.org", 200),
        ("evil.example", 421),
        ("broker.example.org.evil.example", 421),
        ("a b", 400),
    ] {
        let mut client = broker.tcp();
        client.send(format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.answer().expect("an answer").status, expected, "{host}");
    }
    for (head, expected) in [
        ("GET /livez HTTP/1.1\r\n", 400),
        ("GET /livez HTTP/1.0\r\n", 200),
        ("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n", 421),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
    ] {
        let mut client = broker.tcp();
        client.send(format!("{head}\r\n").as_bytes());
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut client.stream, &mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        let status = String::from_utf8_lossy(&answer[9..12]).parse::<u16>().expect("a status");
        assert_eq!(status, expected, "{head}");
    }
}

#[test]
fn every_change_is_a_line_in_the_log_with_who_where_what_and_the_outcome() {
    let broker = Broker::start("audit", "--mode poll");
    let line = |outcome: u16| {
        broker.wait_for_log("an audit line", |line| {
            line["what"] == "POST /api/v1/logout?a=b" && line["outcome"] == outcome
        })
    };
    assert_eq!(broker.tcp().ask("POST", "/api/v1/logout?a=b", &[], "").status, 204);
    let fields = &line(204);
    assert_eq!(fields["audit"], true, "{fields}");
    assert!(fields["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{fields}");
    let origin = [("Origin", "http://evil.example")];
    broker.tcp().ask("POST", "/api/v1/logout?a=b", &origin, "");
    assert_eq!(line(403)["who"], "");
    let is_read = |line: &Value| line["what"].as_str().is_some_and(|of| of.starts_with("GET"));
    assert!(!broker.log.lock().expect("no panic").iter().any(is_read));
}
