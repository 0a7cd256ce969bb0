//! Files as the programs, packages and users write them that run Mosquitto: each is translated, and the broker serves with
//! it. They have the combinations of options that public files have, with ports and folders of the test.

mod cases;
#[cfg(feature = "http-hook")]
#[path = "../support/http.rs"]
mod http;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cases::CASES;

use crate::{Folder, Serving, broker, connack_to, free_port, output, stderr, stdout};

/// Files that are refused: each with the line that is named, and what is said of it.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "an edge device's bridge to a cloud, with a shared subscription to nothing",
        "listener PORT 127.0.0.1\nallow_anonymous true\nconnection edge-to-cloud\naddress 127.0.0.9:9\n\
         remote_username device-1\nremote_password secret\ntopic s/us out 2 c8y/ \"\"\n\
         topic $share/x in 2 c8y/ \"\"\n",
        "m.conf:8: refused: topic $share/x in 2 c8y/ \"\" -> a shared subscription is $share/NAME/FILTER",
    ),
    (
        "a router whose clients have keys in common",
        "port PORT\nlistener OTHER\npsk_hint router\npsk_file DIR/keys\n",
        "m.conf:4: refused: psk_file",
    ),
    (
        "a router's hint for keys in common",
        "listener PORT\npsk_hint router\n",
        "m.conf:2: refused: psk_hint *** -> ",
    ),
    (
        "a router's bridge with a key in common",
        "listener PORT\nconnection uplink\naddress 127.0.0.9:9\ntopic # out\nbridge_identity router\nbridge_psk 0a1b2c\n",
        "m.conf:6: refused: bridge_psk",
    ),
    (
        "a router's bridge with a name for it",
        "listener PORT\nconnection uplink\naddress 127.0.0.9:9\ntopic # out\nbridge_identity router\n",
        "m.conf:5: refused: bridge_identity router -> ",
    ),
    (
        "a bridge that asks for a stapled answer",
        "listener PORT\nconnection c\naddress 127.0.0.9:9\ntopic # out\nbridge_cafile DIR/ca.pem\n\
         bridge_require_ocsp true\n",
        "m.conf:6: refused: bridge_require_ocsp true -> ",
    ),
    (
        "a key in a device of its own",
        "listener PORT\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\ntls_engine pkcs11\ntls_keyform engine\n\
         tls_engine_kpass_sha1 0a1b2c\n",
        "m.conf:4: refused: tls_engine pkcs11 -> ",
    ),
    (
        "the password of such a device",
        "listener PORT\ntls_engine_kpass_sha1 0a1b2c\n",
        "m.conf:2: refused: tls_engine_kpass_sha1",
    ),
    (
        "an option of another broker",
        "listener PORT\nallow_anonymus true\n",
        "m.conf:2: refused: allow_anonymus true -> unknown option; the nearest one is allow_anonymous",
    ),
    (
        "a broken line in an included file's place",
        "allow_anonymous perhaps\nlistener PORT\n",
        "m.conf:1: refused: allow_anonymous perhaps -> ",
    ),
];

/// The free ports of a test, and its folder with the files that are named.
struct Place {
    folder: Folder,
    ports: [u16; 3],
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // A short name: the path of a Unix socket is limited.
        let folder = Folder::new(&format!("users{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(folder.0.join("data")).expect("a folder");
        std::fs::create_dir_all(folder.0.join("conf.d")).expect("a folder");
        std::fs::create_dir_all(folder.0.join("authorities")).expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let made = made.expect("a certificate");
        for name in ["ca.pem", "server.pem", "authorities/ca.pem"] {
            folder.write(name, &made.cert.pem());
        }
        folder.write("server-key.pem", &made.signing_key.serialize_pem());
        folder.write("ca.crl", &revoked());
        folder.write("dh.pem", "");
        // The password is "secret": PBKDF2-HMAC-SHA-512 with one iteration.
        folder.write("passwords", &format!("alice:{HASH}\n"));
        folder.write(
            "acl",
            "topic readwrite #\nuser alice\ntopic readwrite #\npattern read $SYS/#\n",
        );
        folder.write("dynamic.json", DYNAMIC);
        Self { folder, ports: [free_port(), free_port(), free_port()] }
    }

    /// The ports with their names in files.
    fn named(&self) -> impl Iterator<Item = (&'static str, u16)> {
        ["PORT", "OTHER", "THIRD"].into_iter().zip(self.ports)
    }

    /// The text with the ports and the folder of the test.
    fn filled(&self, text: &str) -> String {
        let folder = self.folder.0.to_str().expect("a path of letters");
        self.named().fold(text.replace("DIR", folder), |text, (name, port)| {
            text.replace(name, &port.to_string())
        })
    }

    /// The path of a file with this text.
    fn configuration(&self, text: &str) -> String {
        self.folder.write("m.conf", &self.filled(text))
    }
}

/// A list of an authority that has revoked nothing.
fn revoked() -> String {
    let authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    let key = rcgen::KeyPair::generate().expect("a key");
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(4000, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&rcgen::Issuer::new(authority, key)).expect("a signed list");
    list.pem().expect("PEM")
}

const HASH: &str = "$7$1$MDEyMzQ1Njc4OWFi$3tRQU83jhvduc7r/1pc5YS9xcdkQejbeK3zAr85h\
                    0v7Y/G/3y1yXSvBLGJ28BkriqtC0m7lT20gzFF8MS31UAg==";

const DYNAMIC: &str = r#"{
    "defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": true, "unsubscribe": true},
    "clients": [{"username": "alice", "password": "3tRQU83jhvduc7r/1pc5YS9xcdkQejbeK3zAr85h0v7Y/G/3y1yXSvBLGJ28BkriqtC0m7lT20gzFF8MS31UAg==", "salt": "MDEyMzQ1Njc4OWFi", "iterations": 1}]
}"#;

/// Waits until a listener accepts connections: that of the admin interface opens after those of clients.
fn await_listener(port: u16, name: &str) {
    let until = Instant::now() + Duration::from_secs(15);
    while let Err(error) = std::net::TcpStream::connect(("127.0.0.1", port)) {
        assert!(Instant::now() < until, "{name}: {port}: {error}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn files_of_users_are_translated_and_the_broker_serves_with_them() {
    for case in CASES {
        let place = Place::new();
        for (name, text) in case.included {
            place.folder.write(&format!("conf.d/{name}"), &place.filled(text));
        }
        let conf = place.configuration(case.text);
        let checked = output(&["mosquitto", "check", &conf]);
        let text = stdout(&checked) + &stderr(&checked);
        assert_eq!(checked.status.code(), Some(0), "{}: {text}", case.name);
        let counts = format!(" {} ignored, 0 refused", case.ignored);
        assert!(text.contains(&counts), "{}: {text}", case.name);
        for says in case.says {
            assert!(text.contains(says), "{}: {says:?} is not in {text}", case.name);
        }
        assert!(!text.contains("secret"), "{}: no password is printed: {text}", case.name);
        let checked = output(&["--mosquitto-conf", &conf, "--check-config"]);
        assert!(checked.status.success(), "{}: {}", case.name, stderr(&checked));
        let converted = output(&["mosquitto", "convert", &conf]);
        let toml = place.folder.write("broker.toml", &stdout(&converted));
        let checked = output(&["--config", &toml, "--check-config"]);
        assert!(checked.status.success(), "{}: {}", case.name, stderr(&checked));
        let mut command = broker(&["--mosquitto-conf", &conf]);
        command.env("XDG_RUNTIME_DIR", &place.folder.0).stdout(Stdio::null());
        let port = place.ports[0];
        let serving = Serving::start(command, port);
        for (_, port) in place.named().filter(|(name, _)| case.text.contains(name)) {
            await_listener(port, case.name);
        }
        let (user, password) = (case.user, case.user.map(|_| "secret"));
        let answer = connack_to(port, 4, "c", user, password);
        assert_eq!(answer, [0x20, 2, 0, 0], "{}", case.name);
        if case.user.is_some() {
            let answer = connack_to(port, 4, "d", None, None);
            assert_eq!(answer[3], 5, "{}: nobody else is admitted", case.name);
        }
        drop(serving);
    }
}

/// The first words of all lines of files.
fn options_in<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let lines = texts.flat_map(str::lines).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn each_option_of_mosquitto_is_in_a_file_that_starts_or_in_one_that_is_refused() {
    let included = |case: &cases::Case| case.included.iter().map(|(_, text)| *text);
    let taken =
        options_in(CASES.iter().flat_map(|case| std::iter::once(case.text).chain(included(case))));
    let refused = options_in(REFUSED.iter().map(|(_, text, _)| *text));
    let table = include_str!("../../src/mosquitto/configuration/options.tsv");
    let options = table.lines().filter(|line| !line.starts_with('#'));
    let mut only_refused = Vec::new();
    for option in options.filter_map(|line| line.split('\t').next()) {
        let is_in = |all: &BTreeSet<&str>| match option.strip_suffix('*') {
            Some(beginning) => all.iter().any(|of| of.starts_with(beginning)),
            None => all.contains(option),
        };
        assert!(is_in(&taken) || is_in(&refused), "{option} is in no file");
        if !is_in(&taken) {
            only_refused.push(option);
        }
    }
    let expected = [
        "tls_engine",
        "tls_engine_kpass_sha1",
        "psk_file",
        "psk_hint",
        "bridge_require_ocsp",
        "bridge_identity",
        "bridge_psk",
    ];
    assert_eq!(only_refused, expected);
    assert_eq!(CASES.len(), 44);
}

#[test]
fn files_of_users_that_cannot_be_honoured_are_refused_by_line() {
    for (name, text, says) in REFUSED {
        let place = Place::new();
        let conf = place.configuration(text);
        let checked = output(&["mosquitto", "check", &conf]);
        let text = stdout(&checked) + &stderr(&checked);
        assert_eq!(checked.status.code(), Some(1), "{name}: {text}");
        assert!(text.contains(says), "{name}: {text}");
        assert!(!text.contains("secret"), "{name}: {text}");
        assert!(Path::new(&conf).exists());
        assert_eq!(output(&["--mosquitto-conf", &conf]).status.code(), Some(2), "{name}");
    }
}

/// The file of the add-on of a house: passwords and rules in files, then a server.
#[cfg(feature = "http-hook")]
const ADD_ON: &str = "protocol mqtt\nuser root\nlog_dest stdout\nlog_type error\npersistence true\n\
    persistence_location DIR/data/\nmax_queued_messages 8192\nauth_plugin /usr/share/mosquitto/go-auth.so\n\
    auth_opt_backends files,http\nauth_opt_hasher pbkdf2\nauth_opt_cache true\nauth_opt_auth_cache_seconds 300\n\
    auth_opt_auth_jitter_seconds 30\nauth_opt_acl_cache_seconds 300\nauth_opt_acl_jitter_seconds 30\n\
    auth_opt_log_level error\nauth_opt_files_password_path DIR/passwords\nauth_opt_files_acl_path DIR/acl\n\
    auth_opt_http_host 127.0.0.1\nauth_opt_http_port SERVER\nauth_opt_http_getuser_uri /authentication\n\
    auth_opt_http_superuser_uri /superuser\nauth_opt_http_aclcheck_uri /acl\nauth_opt_http_params_mode MODE\n\
    include_dir DIR/conf.d\nlistener PORT 127.0.0.1\n";

/// Passwords as the tool of the plugin writes them: "secret".
#[cfg(feature = "http-hook")]
const OF_TOOL: &str = "alice:PBKDF2$sha512$1$ZmVkY2JhOTg3NjU0MzIxMA==$f+ncOs+DfOzNlIaj90Yf3tToOvA4DTkrfShdITbwNHQ8c92keoGSGLo9+lqXHgaC/Jsdm1pVTjK4/ut4NuKP3A==\n";

/// A server that knows bob and his topics, another password of alice, and the superuser root. Answers by status. Its port.
#[cfg(feature = "http-hook")]
fn house() -> u16 {
    use std::io::{BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            std::thread::spawn(move || {
                while let Ok(Some((head, body))) = http::read_request(&mut reader) {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    let has = |name: &str, value: &str| {
                        body.contains(&format!("\"{name}\":\"{value}"))
                            || body.contains(&format!("{name}={}", value.replace('/', "%2F")))
                    };
                    let is_yes = match head.split(' ').nth(1) {
                        Some("/authentication") => {
                            has("username", "bob") && has("password", "server")
                                || has("username", "alice") && has("password", "other")
                                || has("username", "root") && has("password", "server")
                        }
                        Some("/superuser") => has("username", "root"),
                        Some("/acl") => has("username", "bob") && has("topic", "bob/"),
                        _ => false,
                    };
                    let status = if is_yes { "200 OK" } else { "401 Unauthorized" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    let _ = reader.get_mut().write_all(answer.as_bytes());
                }
            });
        }
    });
    port
}

/// Connects with 5.0, publishes to a topic at QoS 1, and returns the Reason Code of PUBACK.
#[cfg(feature = "http-hook")]
fn publish(port: u16, user: &str, password: &str, topic: &str) -> u8 {
    use std::io::{Read as _, Write as _};
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("set");
    let body =
        [b"\x00\x04MQTT\x05\xC2\x00\x3c\x00", &*text(user), &text(user), &text(password)].concat();
    stream.write_all(&[&[0x10, body.len() as u8], &*body].concat()).expect("sent");
    let body = [&*text(topic), &[0, 1, 0, b'x']].concat();
    stream.write_all(&[&[0x32, body.len() as u8], &*body].concat()).expect("sent");
    let mut packet = || {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a packet");
        let mut rest = vec![0; usize::from(head[1])];
        stream.read_exact(&mut rest).expect("a packet");
        rest
    };
    assert_eq!(packet()[1], 0, "{user} is admitted");
    packet().get(2).copied().unwrap_or(0)
}

#[cfg(feature = "http-hook")]
#[test]
fn of_the_backends_of_go_auth_the_first_that_says_yes_decides() {
    const DENIED: u8 = 0x87;
    for mode in ["json", "form"] {
        let place = Place::new();
        place.folder.write("passwords", OF_TOOL);
        place
            .folder
            .write("acl", "user alice\ntopic readwrite alice/#\nuser bob\ntopic deny bob/secret\n");
        let text = ADD_ON.replace("SERVER", &house().to_string()).replace("MODE", mode);
        let conf = place.configuration(&text);
        let checked = output(&["mosquitto", "check", &conf]);
        let text = stdout(&checked) + &stderr(&checked);
        assert!(text.contains(" 0 refused"), "{text}");
        let port = place.ports[0];
        let _serving = Serving::start(broker(&["--mosquitto-conf", &conf]), port);
        for (user, password, is_admitted) in [
            ("alice", "secret", true),
            ("alice", "other", true),
            ("alice", "wrong", false),
            ("bob", "server", true),
            ("bob", "secret", false),
            ("carol", "secret", false),
        ] {
            let answer = connack_to(port, 4, "c", Some(user), Some(password));
            assert_eq!(answer[3] == 0, is_admitted, "{mode}: {user} {password}: {answer:?}");
        }
        for (user, password, topic, is_allowed) in [
            ("alice", "secret", "alice/1", true),
            ("alice", "secret", "bob/1", false),
            ("bob", "server", "bob/1", true),
            ("bob", "server", "alice/1", false),
            ("bob", "server", "bob/secret", true), // a file that says no leaves it to the server
            ("root", "server", "alice/1", true),
        ] {
            let reason = publish(port, user, password, topic);
            assert_eq!(reason != DENIED, is_allowed, "{mode}: {user} {topic}: {reason}");
        }
    }
}
