//! Files as the programs, packages and users write them that run Mosquitto: each is translated, and the broker serves with
//! it. They have the combinations of options that public files have, with ports and folders of the test.

#[cfg(feature = "http-hook")]
#[path = "../support/http.rs"]
mod http;

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Folder, Serving, broker, connack_to, free_port, output, stderr, stdout};

/// A file of a user, with what is expected of it.
struct Case {
    name: &'static str,
    /// `PORT`, `OTHER` and `THIRD` stand for free ports, `DIR` for a folder with `passwords`, `acl`, certificates and an
    /// empty folder `data`.
    text: &'static str,
    /// Files in the folder `conf.d`.
    included: &'static [(&'static str, &'static str)],
    /// The lines that are ignored with a notice.
    ignored: usize,
    /// The user of the clients that connect; none: an anonymous one.
    user: Option<&'static str>,
}

const CASE: Case = Case { name: "", text: "", included: &[], ignored: 0, user: None };

const CASES: &[Case] = &[
    Case { name: "two lines", text: "listener PORT 127.0.0.1\nallow_anonymous true\n", ..CASE },
    Case {
        name: "a sensor network in a container",
        text: "# for its gateways\nlistener PORT 127.0.0.1\nallow_anonymous true\nmax_queued_messages 1000\n",
        ..CASE
    },
    Case {
        name: "a distribution's package",
        text: "# further files are in the folder\n\npid_file DIR/mosquitto.pid\n\npersistence true\n\
               persistence_location DIR/data/\n\nlog_dest file DIR/mosquitto.log\n\ninclude_dir DIR/conf.d\n",
        included: &[("default.conf", "listener PORT 127.0.0.1\nallow_anonymous true\n")],
        ..CASE
    },
    Case {
        name: "a package whose passwords are in an included file",
        text: "per_listener_settings false\npersistence true\npersistence_location DIR/data/\n\
               log_dest syslog\nlog_dest stdout\nlog_dest topic\nlog_type error\nlog_type warning\n\
               log_type notice\nlog_type information\nconnection_messages true\nlog_timestamp true\n\
               include_dir DIR/conf.d\n",
        included: &[
            ("10-listener.conf", "listener PORT 127.0.0.1\n"),
            ("20-users.conf", "allow_anonymous false\npassword_file DIR/passwords\n"),
            ("ignored.txt", "this is not read\n"),
        ],
        ignored: 1,
        user: Some("alice"),
    },
    Case {
        name: "the image, with its dashboard",
        text: "persistence true\npersistence_location DIR/data/\nlog_dest stdout\nlistener PORT 127.0.0.1\n\
               allow_anonymous true\nlistener OTHER 127.0.0.1\nprotocol http_api\nhttp_dir /usr/share/dashboard\n",
        ignored: 1,
        ..CASE
    },
    Case {
        name: "containers with passwords, websockets and times that people read",
        text: "user root\nsocket_domain ipv4\npersistence true\npersistence_location DIR/data/\n\
               autosave_interval 300\nlog_dest stdout\nlog_dest file DIR/m.log\nlog_type all\n\
               log_timestamp_format %Y-%m-%dT%H:%M:%S\nmessage_size_limit 1048576\nmax_connections -1\n\
               listener PORT 127.0.0.1\nprotocol mqtt\nlistener OTHER 127.0.0.1\nprotocol websockets\n\
               allow_anonymous false\npassword_file DIR/passwords\n",
        ignored: 2,
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "an appliance: rules, a Unix socket and websockets, each with settings of its own",
        text: "per_listener_settings true\nlistener 0 DIR/m.sock\nallow_anonymous true\nacl_file DIR/acl\n\
               listener PORT 127.0.0.1\nallow_anonymous true\nacl_file DIR/acl\nlistener OTHER 127.0.0.1\n\
               protocol websockets\nsocket_domain ipv4\nwebsockets_log_level 255\nallow_anonymous true\n\
               acl_file DIR/acl\nmax_queued_messages 5000\npersistence true\npersistence_location DIR/data/\n",
        ignored: 1,
        ..CASE
    },
    Case {
        name: "an appliance with a mount point for devices",
        text: "listener PORT 127.0.0.1\nmount_point devices/\nallow_anonymous true\nlistener OTHER 127.0.0.1\n",
        ..CASE
    },
    Case {
        name: "a chart's config map",
        text: "per_listener_settings false\nlistener PORT 127.0.0.1\nallow_anonymous true\npersistence true\n\
               persistence_location DIR/data/\nautosave_interval 1800\nautosave_on_changes false\n\
               connection_messages true\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n\
               log_type information\nlog_type subscribe\nlog_timestamp true\ninclude_dir DIR/conf.d\n",
        included: &[("extra.conf", "max_inflight_messages 40\nmax_queued_bytes 0\n")],
        ignored: 3,
        ..CASE
    },
    Case {
        name: "an edge device: users by a plugin",
        text: "listener PORT 127.0.0.1\nallow_anonymous false\nplugin /usr/lib/mosquitto_password_file.so\n\
               plugin_opt_password_file DIR/passwords\nlog_dest none\nqueue_qos0_messages true\n",
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "an edge device: certificates for others, this machine without",
        text: "per_listener_settings true\nlistener PORT 127.0.0.1\nallow_anonymous true\nrequire_certificate false\n\
               listener OTHER 127.0.0.1\nallow_anonymous false\nrequire_certificate true\ncafile DIR/ca.pem\n\
               certfile DIR/server.pem\nkeyfile DIR/server-key.pem\n",
        ignored: 1,
        ..CASE
    },
    Case {
        name: "an edge device: a folder of authorities",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nlistener OTHER 127.0.0.1\nrequire_certificate true\n\
               capath DIR/authorities\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\n\
               use_identity_as_username true\n",
        ..CASE
    },
    Case {
        name: "certificate names, and sessions that end",
        text: "listener OTHER 127.0.0.1\ncafile DIR/ca.pem\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\n\
               tls_version tlsv1.2\nrequire_certificate true\nuse_identity_as_username true\nallow_anonymous false\n\
               acl_file DIR/acl\npersistence true\npersistence_location DIR/data/\n\
               persistent_client_expiration 14d\nmax_inflight_messages 100\nmax_queued_messages 8192\n\
               listener PORT 127.0.0.1\nallow_anonymous true\n",
        ..CASE
    },
    Case {
        name: "dynamic security",
        text: "listener PORT 127.0.0.1\nallow_anonymous false\nper_listener_settings false\n\
               plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so\n\
               plugin_opt_config_file DIR/dynamic.json\npersistence true\npersistence_location DIR/data/\n",
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "a router's generator",
        text: "log_dest syslog\nlog_type error\nconnection_messages false\npersistence true\n\
               persistence_location DIR/data\npersistence_file mosquitto.db\nautosave_interval 1800\n\
               autosave_on_changes false\npersistent_client_expiration 1m\nallow_duplicate_messages true\n\
               retry_interval 20\nsys_interval 10\nmax_inflight_messages 20\nmax_queued_messages 100\n\
               max_queued_bytes 0\nmax_inflight_bytes 0\nmemory_limit 0\nmax_packet_size 65535\nmax_keepalive 65535\n\
               retain_available true\nset_tcp_nodelay false\nqueue_qos0_messages false\n\
               auto_id_prefix router-\nport PORT\nbind_address 127.0.0.1\nallow_anonymous false\n\
               password_file DIR/passwords\nacl_file DIR/acl\n",
        ignored: 5,
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "a test broker with everything on",
        text: "listener PORT 127.0.0.1\nallow_anonymous true # for tests\nmax_topic_alias 100\nmax_qos 2\n\
               max_keepalive 0\nlog_type all\nlog_dest stdout\nlistener OTHER 127.0.0.1\nprotocol websockets\n\
               websockets_origin https://example.org\nlistener THIRD 127.0.0.1\ncertfile DIR/server.pem\n\
               keyfile DIR/server-key.pem\ncafile DIR/ca.pem\nciphers HIGH\ndhparamfile DIR/dh.pem\n",
        ignored: 3,
        ..CASE
    },
    Case {
        name: "for this machine alone",
        text: "bind_address 127.0.0.1\nport PORT\nallow_anonymous true\nretained_persistence false\n",
        ..CASE
    },
    Case {
        name: "behind a proxy",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nlistener OTHER 127.0.0.1\nenable_proxy_protocol 2\n\
               use_username_as_clientid true\n",
        ..CASE
    },
    Case {
        name: "an edge device's bridge to a cloud",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nconnection edge-to-cloud\naddress mqtt.example.org:8883\n\
         bridge_cafile DIR/ca.pem\nbridge_certfile DIR/server.pem\nbridge_keyfile DIR/server-key.pem\n\
         remote_clientid device-1\nlocal_clientid cloud\ntry_private false\nstart_type automatic\ncleansession true\n\
         notifications true\nnotifications_local_only true\nnotification_topic te/bridge/health\n\
         bridge_attempt_unsubscribe false\ntopic s/us out 2 c8y/ \"\"\ntopic s/ds in 2 c8y/ \"\"\n",
        ignored: 2,
        ..CASE
    },
    Case {
        name: "a gateway's bridge, with a comment behind a value",
        text: "listener PORT\nallow_anonymous true\nconnection showcase\naddress 192.0.2.1:1883 # the other one\n\
               topic # both 0\nremote_username site\nremote_password secret\n",
        ..CASE
    },
];

/// Files that this version refuses: each with the line that is named, and why.
const REFUSED: &[(&str, &str, &str)] = &[(
    "an edge device's bridge to a cloud, with a shared subscription",
    "listener PORT 127.0.0.1\nallow_anonymous true\nconnection edge-to-cloud\naddress mqtt.example.org:8883\n\
         bridge_cafile DIR/ca.pem\nbridge_certfile DIR/server.pem\nbridge_keyfile DIR/server-key.pem\n\
         remote_clientid device-1\nlocal_clientid cloud\ntry_private false\nstart_type automatic\ncleansession true\n\
         notifications true\nnotifications_local_only true\nnotification_topic te/bridge/health\n\
         bridge_attempt_unsubscribe false\ntopic s/us out 2 c8y/ \"\"\ntopic s/ds in 2 c8y/ \"\"\ntopic $share/x in 2 c8y/ \"\"\n",
    "m.conf:19: refused: topic $share/x in 2 c8y/",
)];

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

    /// The text with the ports and the folder of the test.
    fn filled(&self, text: &str) -> String {
        let folder = self.folder.0.to_str().expect("a path of letters");
        let names = ["PORT", "OTHER", "THIRD"].into_iter().zip(self.ports);
        names.fold(text.replace("DIR", folder), |text, (name, port)| {
            text.replace(name, &port.to_string())
        })
    }

    /// The path of a file with this text.
    fn configuration(&self, text: &str) -> String {
        self.folder.write("m.conf", &self.filled(text))
    }
}

const HASH: &str = "$7$1$MDEyMzQ1Njc4OWFi$3tRQU83jhvduc7r/1pc5YS9xcdkQejbeK3zAr85h\
                    0v7Y/G/3y1yXSvBLGJ28BkriqtC0m7lT20gzFF8MS31UAg==";

const DYNAMIC: &str = r#"{
    "defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": true, "unsubscribe": true},
    "clients": [{"username": "alice", "password": "3tRQU83jhvduc7r/1pc5YS9xcdkQejbeK3zAr85h0v7Y/G/3y1yXSvBLGJ28BkriqtC0m7lT20gzFF8MS31UAg==", "salt": "MDEyMzQ1Njc4OWFi", "iterations": 1}]
}"#;

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
        let checked = output(&["--mosquitto-conf", &conf, "--check-config"]);
        assert!(checked.status.success(), "{}: {}", case.name, stderr(&checked));
        let mut command = broker(&["--mosquitto-conf", &conf]);
        command.env("XDG_RUNTIME_DIR", &place.folder.0).stdout(Stdio::null());
        let port = place.ports[0];
        let serving = Serving::start(command, port);
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

#[test]
fn files_of_users_that_need_what_this_version_lacks_are_refused_by_line() {
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
