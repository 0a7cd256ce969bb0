//! Every option with its verdict and its effect.

mod bridges;

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::options::{self, Class};
use super::*;
use crate::config::{Bind, Settings};

/// A file that is removed at the end of the test.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("ringmq-mosquitto-{}-{number}.conf", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("written");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn translated(text: &str) -> Translation {
    let file = File::new(text);
    Translation::read(Some(&file.0), &[], Generation::V2_1).expect("readable")
}

fn settings(text: &str) -> Settings {
    let configuration = translated(text).configuration([]).expect(text);
    configuration.check().expect(text);
    configuration.settings
}

/// TLS with a required certificate.
const TLS: &str =
    "listener 8883\ncertfile c.pem\nkeyfile k.pem\ncafile a.pem\nrequire_certificate true\n";
const WS: &str = "listener 9001\nprotocol websockets\n";
const DYNAMIC: &str = "plugin /usr/lib/mosquitto_dynamic_security.so\n";
const PLUGIN: &str = "plugin /usr/lib/mosquitto_password_file.so\n";

/// An option with an effect for another kind of listener only.
const WITHOUT_EFFECT_HERE: &str = "http_dir /srv";

/// What stands before a line, the line, its class, and a part of what is said about it: the keys that it sets.
const CASES: &[(&str, &str, Class, &str)] = &[
    ("", "listener 1884 127.0.0.1", Class::Same, "bind = \"127.0.0.1:1884\""),
    ("", "port 1885", Class::Same, "bind = \":1885\""),
    ("", "bind_address 127.0.0.2", Class::Same, "bind = \"127.0.0.2:1883\""),
    ("listener 1\n", "bind_interface eth0", Class::Translated, "interface = \"eth0\""),
    ("listener 1884 127.0.0.1\n", "socket_domain ipv4", Class::Translated, ""),
    (WS, "protocol websockets", Class::Translated, "transport = \"ws\""),
    ("listener 1\n", "mount_point a/", Class::Translated, "mount_point = \"a/\""),
    ("listener 1\n", "max_connections 5", Class::Same, "connections_max = 5"),
    ("listener 1\n", "max_connections 0", Class::Same, "no limit"),
    ("listener 1\n", "max_qos 1", Class::Translated, "maximum_qos = 1"),
    ("listener 1\n", "maximum_qos 0", Class::Translated, "maximum_qos = 0"),
    ("listener 1\n", "max_topic_alias 7", Class::Same, "limits.topic_alias_maximum = 7"),
    (
        "listener 1\n",
        "max_topic_alias_broker 7",
        Class::Same,
        "limits.topic_alias_outgoing_max = 7",
    ),
    (
        "listener 1\n",
        "accept_protocol_versions 4, 5",
        Class::Translated,
        "versions = [\"3.1.1\", \"5.0\"]",
    ),
    ("", "allow_anonymous true", Class::Same, "access.anonymous = true"),
    ("listener 1\n", "listener_allow_anonymous true", Class::Same, "anonymous = true"),
    (
        "",
        "allow_zero_length_clientid false",
        Class::Translated,
        "mqtt.assigned_client_identifiers = false",
    ),
    ("", "auto_id_prefix x-", Class::Translated, "mqtt.assigned_identifier_prefix = \"x-\""),
    (
        "listener 1\n",
        "listener_auto_id_prefix x-",
        Class::Translated,
        "assigned_identifier_prefix = \"x-\"",
    ),
    ("", "clientid_prefixes x-", Class::Translated, "mqtt.client_identifier_prefix = \"x-\""),
    (
        "listener 1\n",
        "use_username_as_clientid true",
        Class::Translated,
        "username_as_client_identifier = true",
    ),
    (TLS, "use_identity_as_username true", Class::Same, "tls.identity = \"cn\""),
    (TLS, "use_subject_as_username true", Class::Translated, "tls.identity = \"subject\""),
    (TLS, "require_certificate true", Class::Same, "tls.client_certificate = \"required\""),
    (
        "listener 1\ncertfile c\nkeyfile k\nrequire_certificate true\n",
        "cafile a.pem",
        Class::Translated,
        "tls.client_ca = \"a.pem\"",
    ),
    (
        "listener 1\ncertfile c\nkeyfile k\nrequire_certificate true\n",
        "capath /etc/ca",
        Class::Translated,
        "tls.client_ca = \"/etc/ca\"",
    ),
    ("listener 1\nkeyfile k\n", "certfile c", Class::Same, "tls.certificate = \"c\""),
    ("listener 1\ncertfile c\n", "keyfile k", Class::Same, "tls.key = \"k\""),
    (TLS, "crlfile r.pem", Class::Same, "tls.client_crl = [\"r.pem\"]"),
    (TLS, "ciphers ECDHE-RSA-AES128-GCM-SHA256", Class::Ignored, "TLS 1.2 uses ECDHE"),
    (
        TLS,
        "ciphers_tls1.3 TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
        Class::Translated,
        "three suites",
    ),
    (TLS, "dhparamfile d", Class::Ignored, "finite fields"),
    (TLS, "tls_version tlsv1.3", Class::Translated, "tls.versions = [\"1.3\"]"),
    (TLS, "tls_engine pkcs11", Class::Refused, "PEM file"),
    (TLS, "tls_engine_kpass_sha1 00", Class::Refused, "PEM file"),
    (TLS, "tls_keyform engine", Class::Refused, "PEM file"),
    (TLS, "disable_client_cert_date_checks true", Class::Refused, "renew"),
    ("listener 1\n", "psk_file /p", Class::Refused, "passwords over TLS"),
    ("listener 1\n", "psk_hint h", Class::Refused, "passwords over TLS"),
    (
        "listener 1\n",
        "enable_proxy_protocol 2",
        Class::Translated,
        "proxy_protocol_from = [\"0.0.0.0/0\"",
    ),
    (
        "listener 1\nenable_proxy_protocol 2\n",
        "proxy_protocol_v2_require_tls true",
        Class::Translated,
        "proxy_protocol_requires_tls = true",
    ),
    (WS, "websockets_log_level 255", Class::Ignored, "libwebsockets"),
    (WS, "websockets_headers_size 4096", Class::Ignored, "request_bytes_max"),
    (WS, "packet_buffer_size 4096", Class::Ignored, "no such buffer"),
    (
        WS,
        "websockets_origin https://a.example",
        Class::Same,
        "websocket.origins = [\"https://a.example\"]",
    ),
    (WS, WITHOUT_EFFECT_HERE, Class::Ignored, "dashboard"),
    ("listener 1\nprotocol http_api\n", "http_dir /srv", Class::Translated, "dashboard"),
    ("", "password_file /etc/p", Class::Same, "access.password_file = \"/etc/p\""),
    (
        "",
        "acl_file /etc/a",
        Class::Same,
        "access.acl_file = \"/etc/a\", access.acl_format = \"mosquitto\"",
    ),
    ("", "plugin /usr/lib/mosquitto_password_file.so", Class::Translated, "as password_file"),
    (
        "",
        "global_plugin /usr/lib/mosquitto_password_file.so",
        Class::Translated,
        "as password_file",
    ),
    (
        "",
        "auth_plugin /x/go-auth.so\nauth_opt_backends files\nauth_opt_files_password_path /p",
        Class::Translated,
        "",
    ),
    (
        DYNAMIC,
        "plugin_opt_config_file /etc/d.json",
        Class::Translated,
        "access.dynamic_security = \"/etc/d.json\"",
    ),
    (
        "",
        "plugin_load p /usr/lib/mosquitto_password_file.so",
        Class::Translated,
        "as password_file",
    ),
    (
        "plugin_load p /usr/lib/mosquitto_password_file.so\nlistener 1\n",
        "plugin_use p",
        Class::Translated,
        "",
    ),
    (
        PLUGIN,
        "plugin_opt_password_file /etc/p",
        Class::Translated,
        "access.password_file = \"/etc/p\"",
    ),
    (
        PLUGIN,
        "auth_opt_password_file /etc/p",
        Class::Translated,
        "access.password_file = \"/etc/p\"",
    ),
    ("", "auth_plugin_deny_special_chars true", Class::Same, ""),
    ("", "per_listener_settings true", Class::Translated, "listener before them"),
    ("", "persistence true", Class::Translated, "storage.data = \"ringmq\""),
    (
        "persistence true\n",
        "persistence_location /var/lib/m/",
        Class::Translated,
        "storage.data = \"/var/lib/m/ringmq\"",
    ),
    (
        "persistence true\n",
        "persistence_file m.db",
        Class::Translated,
        "storage.import_mosquitto = \"m.db\"",
    ),
    (
        "",
        "plugin /usr/lib/mosquitto_persist_sqlite.so",
        Class::Translated,
        "storage.import_mosquitto = \"mosquitto.sqlite3\"",
    ),
    (
        "plugin /usr/lib/mosquitto_persist_sqlite.so\n",
        "plugin_opt_db_file /var/lib/m/a.sqlite3",
        Class::Translated,
        "storage.import_mosquitto = \"/var/lib/m/a.sqlite3\"",
    ),
    ("", "autosave_interval 30", Class::Ignored, "storage.sync"),
    ("", "autosave_on_changes true", Class::Ignored, "storage.sync"),
    ("", "persistent_client_expiration 2d", Class::Same, "limits.session_expiry_max_s = 172800"),
    ("", "queue_qos0_messages true", Class::Translated, "limits.queue_qos0 = true"),
    (
        "",
        "max_inflight_messages 30",
        Class::Same,
        "limits.inflight_max = 30, limits.receive_maximum = 30",
    ),
    ("", "max_inflight_bytes 70000", Class::Translated, "limits.inflight_bytes_max = 70000"),
    ("", "max_queued_messages 0", Class::Same, "limits.queue_messages_max = 100000000"),
    ("", "max_queued_messages -1", Class::Same, "limits.queue_messages_max = 100000000"),
    ("", "max_inflight_messages -1", Class::Same, "limits.receive_maximum = 65535"),
    ("", "max_queued_bytes 5000", Class::Same, "limits.queue_bytes_max = 5000"),
    ("", "max_packet_size 5000", Class::Same, "limits.packet_bytes_max = 5000"),
    ("", "message_size_limit 900", Class::Translated, "limits.payload_bytes_max = 900"),
    ("", "memory_limit 100000000", Class::Same, "limits.memory_bytes_max = 100000000"),
    (
        "",
        "max_keepalive 100",
        Class::Same,
        "limits.keep_alive_max_s = 100, limits.keep_alive_v3_max_s = 100",
    ),
    ("", "retain_available false", Class::Same, "mqtt.retain_available = false"),
    ("", "retain_expiry_interval 5", Class::Ignored, "expire by themselves"),
    ("", "check_retain_source false", Class::Translated, ""),
    ("", "allow_duplicate_messages true", Class::Ignored, "one copy"),
    ("", "upgrade_outgoing_qos true", Class::Refused, "specification forbids"),
    ("", "set_tcp_nodelay true", Class::Ignored, "always set"),
    ("", "global_max_clients 9", Class::Same, "limits.sessions_max = 9"),
    ("", "global_max_connections 9", Class::Same, "limits.connections_max = 9"),
    ("", "sys_interval 5", Class::Same, "mqtt.sys_interval_s = 5"),
    ("", "enable_control_api false", Class::Translated, ""),
    ("", "connection_messages false", Class::Translated, "log.connections = false"),
    ("", "log_dest file /var/log/m.log", Class::Translated, "log.to = \"file:/var/log/m.log\""),
    ("", "log_dest topic", Class::Translated, "log.topics = true"),
    ("", "log_facility 5", Class::Translated, "log.facility = \"local5\""),
    ("", "log_timestamp false", Class::Same, "log.timestamp_format = \"none\""),
    ("", "log_timestamp_format %H:%M", Class::Same, "log.timestamp_format = \"%H:%M\""),
    ("", "log_type debug", Class::Translated, "log.level = \"debug\""),
    ("", "pid_file /run/m.pid", Class::Same, "pid_file = \"/run/m.pid\""),
    ("", "user mosquitto", Class::Translated, "user = \"mosquitto\""),
    ("", "include_dir benches", Class::Same, ""),
    ("", "retry_interval 5", Class::Ignored, "as in Mosquitto"),
    ("", "store_clean_interval 5", Class::Ignored, "as in Mosquitto"),
    ("", "retained_persistence true", Class::Translated, "storage.data = \"ringmq\""),
];

/// The cases of all options.
fn cases() -> impl Iterator<Item = &'static (&'static str, &'static str, Class, &'static str)> {
    CASES.iter().chain(bridges::CASES)
}

fn option_of(line: &str) -> &'static str {
    let name = line.split(' ').next().expect("a word");
    options::find(name).unwrap_or_else(|| panic!("{name}")).name
}

#[test]
fn every_option_has_its_verdict_and_its_effect() {
    let mut wrong = Vec::new();
    for &(before, line, class, says) in cases() {
        let translation = translated(&format!("{before}{line}\n"));
        // Lines that an option needs behind it follow in the same text.
        let judged = &translation.lines[before.lines().count()];
        let seen = format!("{before}{line}: {judged:?}");
        if judged.class != class || !judged.what.contains(says) {
            wrong.push(format!("{seen}, and not {class:?} with {says:?}"));
        }
        let expected = options::find(option_of(line)).expect("it exists").class;
        // An option without a translation is taken where its value asks for nothing.
        let has_none_here = class == Class::Ignored && line == WITHOUT_EFFECT_HERE;
        assert!(class == expected || has_none_here, "{seen}: the table says {expected:?}");
        if class != Class::Refused && translation.is_whole() {
            let configuration = translation.configuration([]);
            assert!(configuration.is_ok(), "{seen}: {configuration:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let tested: BTreeSet<&str> = cases().map(|(_, line, ..)| option_of(line)).collect();
    assert_eq!(tested.len(), 142);
}

#[test]
fn a_converted_file_means_the_same() {
    let (mut count, all) = (0, cases().map(|(before, line, ..)| format!("{before}{line}\n")));
    for text in
        all.chain(["".to_owned(), "allow_anonymous false\nlistener 0 /run/m.sock\n".to_owned()])
    {
        let translation = translated(&text);
        let Ok(configuration) = translation.configuration([]) else { continue };
        let toml = convert::to_toml(&translation);
        let settings = Settings::from_toml(&toml).unwrap_or_else(|error| panic!("{error}: {toml}"));
        assert_eq!(settings, configuration.settings, "{toml}");
        count += 1;
    }
    assert!(count > 60, "{count}");
}

#[test]
fn without_a_listener_this_machine_is_served_and_everybody_is_admitted() {
    let of = settings("");
    let binds: Vec<String> =
        of.every_listener().map(|listener| listener.bind.to_string()).collect();
    assert_eq!(binds, ["127.0.0.1:1883", "[::1]:1883"]);
    assert_eq!(of.access.anonymous, crate::config::Anonymous::Yes);
    assert_eq!(of.storage.data, crate::config::Data::None);
    assert_eq!(settings("listener 1883\n").access.anonymous, crate::config::Anonymous::No);
    let with_ports = Translation::read(None, &[1884, 1885], Generation::V2_1).expect("no file");
    let of = with_ports.configuration([]).expect("valid").settings;
    assert_eq!(of.every_listener().count(), 4);
}

#[test]
fn defaults_are_those_of_mosquitto() {
    let limits = settings("").limits;
    assert_eq!(
        (limits.inflight_max, limits.receive_maximum, limits.queue_messages_max),
        (20, 20, 1_000)
    );
    assert_eq!((limits.topic_alias_maximum, limits.topic_alias_outgoing_max), (10, 10));
    assert_eq!((limits.packet_bytes_max, limits.session_expiry_max_s), (2_000_000, u32::MAX));
    let older = Translation::read(None, &[], Generation::V2_0).expect("no file");
    let older = older.configuration([]).expect("valid");
    assert_eq!(older.settings.limits.packet_bytes_max, 268_435_455);
    assert_eq!(older.origin("limits.packet_bytes_max").to_string(), "default of Mosquitto 2.0");
}

#[test]
fn values_of_an_option_reach_the_listener_before_it() {
    let text = "allow_anonymous true\nlistener 1883 127.0.0.1\nmax_connections 3\nlistener 9001\nprotocol websockets\n\
                socket_domain ipv6\nlistener 0 /run/m.sock\nlistener 1999 ::1\n";
    let of = settings(text);
    let all: Vec<_> =
        of.listeners.iter().map(|of| (of.bind.to_string(), of.transport.name())).collect();
    assert_eq!(
        all,
        [
            ("127.0.0.1:1883".to_owned(), "tcp"),
            ("[::]:9001".to_owned(), "ws"),
            ("unix:/run/m.sock".to_owned(), "unix"),
            ("[::1]:1999".to_owned(), "tcp"),
        ]
    );
    assert_eq!(of.listeners[0].connections_max, 3);
    assert!(of.listeners[1].websocket.has_path("/anything"));
    assert!(matches!(of.listeners[2].bind, Bind::Path(_)));
}

#[test]
fn a_mount_point_belongs_to_its_listener_and_one_that_no_topic_may_begin_with_is_refused_by_line() {
    let of = settings("listener 1883 127.0.0.1\nlistener 1884 127.0.0.1\nmount_point site7/\n");
    let mount_points: Vec<_> = of.listeners.iter().map(|of| of.mount_point.as_deref()).collect();
    assert_eq!(mount_points, [None, Some("site7/")]);
    let long = "x".repeat(1_025);
    for (mount_point, reason) in
        [("a/+/", "wildcard"), ("#", "wildcard"), ("$SYS/", "begins with $"), (&long, "1,024")]
    {
        let translation = translated(&format!("listener 1883\nmount_point {mount_point}\n"));
        let judged = &translation.lines[1];
        assert!(judged.number == 2 && judged.what.contains(reason), "{judged:?}");
        assert_eq!(judged.class, Class::Refused);
    }
    let twice = translated("listener 1883\nmount_point a/\nmount_point b/\n");
    assert!(twice.lines[2].what.contains("also set at"), "{:?}", twice.lines);
}

#[test]
fn backends_of_go_auth_become_files_and_a_server_that_is_asked_after_them() {
    let plugin = "listener 1883\nauth_plugin /x/go-auth.so\n";
    let files = "auth_opt_files_password_path /p\nauth_opt_files_acl_path /a\n";
    let http = "auth_opt_http_host h\nauth_opt_http_port 8080\nauth_opt_http_getuser_uri /user\n\
                auth_opt_http_superuser_uri super\nauth_opt_http_aclcheck_uri /acl\n";
    let of = settings(&format!("{plugin}auth_opt_backends files\n{files}")).access;
    assert_eq!((of.password_file, of.acl_file), (PathBuf::from("/p"), PathBuf::from("/a")));
    assert!(of.http.url.is_empty() && of.authorization.url.is_empty());
    let text = format!("{plugin}auth_opt_backends files, http\n{files}{http}");
    let of = settings(&text).access;
    assert_eq!((&*of.http.url, of.http.after_passwords), ("http://h:8080/user", true));
    assert_eq!((of.http.cache_s, of.http.timeout_ms), (0, 5_000));
    let rights = &of.authorization;
    assert_eq!((&*rights.url, rights.after_rules), ("http://h:8080/acl", true));
    assert_eq!(rights.superuser_url, "http://h:8080/super");
    let of = settings(&format!(
        "{text}auth_opt_cache true\nauth_opt_auth_cache_seconds 300\nauth_opt_http_with_tls true\n"
    ));
    assert_eq!((&*of.access.http.url, of.access.http.cache_s), ("https://h:8080/user", 300));
    assert_eq!(of.access.authorization.cache_s, 30);
    for (lines, place, what) in [
        ("", 1, "auth_opt_backends"),
        ("auth_opt_backends mysql\n", 2, "\"mysql\" is not supported"),
        ("auth_opt_backends files\n", 2, "auth_opt_files_password_path"),
        ("auth_opt_backends http\n", 2, "auth_opt_http_host"),
        ("auth_opt_backends http\nauth_opt_hasher bcrypt\n", 3, "pbkdf2 or argon2id"),
        ("auth_opt_backends http\nauth_opt_http_bakends 1\n", 3, "no such option"),
    ] {
        let translation = translated(&format!("{plugin}{lines}"));
        let judged = &translation.lines[place];
        assert!(judged.class == Class::Refused && judged.what.contains(what), "{judged:?}");
    }
}

#[test]
fn options_of_each_listener_are_its_own_if_the_file_says_so() {
    let text = "per_listener_settings true\nlistener 1883 127.0.0.1\nallow_anonymous true\nlistener 1884\n\
                password_file /p\n";
    let of = settings(text);
    let anonymous: Vec<_> = of.listeners.iter().map(|of| of.anonymous).collect();
    assert_eq!(anonymous, [Some(true), None, None], "port 1884 is of both families");
    assert_eq!(of.access.anonymous, crate::config::Anonymous::No);
    let files = |of: &Settings| {
        let file =
            |of: &crate::config::Listener| of.password_file.to_str().expect("text").to_owned();
        of.listeners.iter().map(file).collect::<Vec<_>>()
    };
    assert_eq!(files(&of), ["", "/p", "/p"]);
    assert!(!of.access.has_password_file() && !of.access.unverified_names);
    let three = settings(&format!("{text}listener 1885 127.0.0.1\npassword_file /q\n"));
    assert_eq!(files(&three), ["", "/p", "/p", "/q"]);
    let same = settings(
        "per_listener_settings true\nlistener 1 ::1\npassword_file /p\nlistener 2 ::1\npassword_file /p\n",
    );
    assert_eq!((files(&same), same.access.password_file), (vec![String::new(); 2], "/p".into()));
}

#[test]
fn names_are_believed_only_through_listeners_without_passwords() {
    let one = "per_listener_settings true\nlistener 1 ::1\nacl_file /a\npassword_file /p\nlistener 2 ::1\nacl_file /a\n";
    assert!(settings(one).access.unverified_names);
    let both = settings(&format!("{one}password_file /q\n"));
    assert!(!both.access.unverified_names);
}

#[test]
fn password_files_that_differ_between_listeners_are_refused_beside_dynamic_security() {
    let plugin = "plugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file /d.json\n";
    let text = format!(
        "per_listener_settings true\nlistener 1\n{plugin}password_file /p\nlistener 2\n{plugin}"
    );
    let judged = translated(&text);
    let refused: Vec<_> = judged.lines.iter().filter(|of| of.class == Class::Refused).collect();
    assert!(refused.len() == 1 && refused[0].number == 5, "{refused:?}");
    assert!(refused[0].what.contains("together with dynamic security"), "{refused:?}");
}

#[test]
fn access_rules_apply_to_all_listeners_and_go_by_names_that_nobody_checks_only_without_passwords() {
    let of = settings("listener 1883\nallow_anonymous true\nacl_file /a\n").access;
    assert_eq!((of.acl_file, of.unverified_names), (PathBuf::from("/a"), true));
    assert_eq!(of.acl_format, crate::config::AclFormat::Mosquitto);
    let text = "listener 1883\npassword_file /p\nplugin /x/mosquitto_acl_file.so\nplugin_opt_acl_file /a\n";
    let of = settings(text).access;
    assert_eq!((of.acl_file, of.unverified_names), (PathBuf::from("/a"), false));
    let each =
        "per_listener_settings true\nlistener 1883\nacl_file /a\nlistener 1884\nacl_file /a\n";
    assert_eq!(settings(each).access.acl_file, PathBuf::from("/a"));
}

#[test]
fn access_rules_that_differ_between_listeners_are_theirs() {
    let start = "per_listener_settings true\nlistener 1883\nacl_file /a\nlistener 1884\n";
    for (end, second) in [("", ""), ("acl_file /b\n", "/b")] {
        let of = settings(&format!("{start}{end}"));
        let mut files: Vec<_> = of.listeners.iter().map(|of| of.acl_file.clone()).collect();
        files.dedup();
        assert_eq!(files, [PathBuf::from("/a"), PathBuf::from(second)]);
        assert_eq!(of.access.acl_file, PathBuf::new());
        assert_eq!(of.access.acl_format, crate::config::AclFormat::Mosquitto);
    }
    let dynamic = "plugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file /d.json\n";
    let refused = translated(&format!(
        "per_listener_settings true\nlistener 1883\n{dynamic}acl_file /a\nlistener 1884\n{dynamic}"
    ));
    assert_eq!(refused.lines[4].class, Class::Refused, "{:?}", refused.lines);
    let go_auth = translated(
        "per_listener_settings true\nlistener 1883\nacl_file /a\nauth_plugin /x/go-auth.so\nauth_opt_backends \
         files\nauth_opt_files_password_path /p\nlistener 1884\n",
    );
    assert_eq!(go_auth.lines[2].class, Class::Refused, "{:?}", go_auth.lines);
}

#[test]
fn a_line_that_is_refused_is_an_error_with_its_place() {
    for (text, line, says) in [
        ("\nlistner 1883\n", 2, "the nearest one is listener"),
        ("persistence yes\n", 1, "neither \"true\" nor \"false\""),
        ("max_inflight_messages 70000\n", 1, "from -1 to 65535"),
        ("persistence\n", 1, "has no value"),
        ("password_file /a\npid_file /x\npid_file /y\n", 3, "also set at"),
        ("listener 0\n", 1, "Unix socket"),
        ("log_dest dlt\n", 1, "not supported"),
        ("log_type verbose\n", 1, "is not one of"),
        ("bridge_cafile /x\n", 1, "begins with `connection NAME`"),
        ("plugin /usr/lib/other.so\n", 1, "other.so cannot be loaded"),
        ("plugin_opt_x 1\n", 1, "begins with `plugin FILE`"),
        ("listener 8883\ntls_version tlsv1.1\n", 2, "TLS 1.0 and 1.1"),
        ("listener 8883\nuse_identity_as_username true\n", 2, "Mosquitto admits nobody"),
        ("persistent_client_expiration 2x\n", 1, "such as 2d"),
        ("max_keepalive 5\n", 1, "from 10 to 65535"),
        ("allow_anonymous true\nper_listener_settings true\n", 2, "has to be before"),
    ] {
        let errors = translated(text).configuration([]).expect_err(text);
        let error = errors.first().expect("an error");
        assert_eq!(error.line(), Some(line), "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
}

#[test]
fn lines_without_effect_are_notices_of_the_configuration() {
    let configuration = translated("autosave_interval 5\n").configuration([]).expect("valid");
    let [notice] = &configuration.notices[..] else { panic!("{:?}", configuration.notices) };
    assert!(
        notice.contains(":1: autosave_interval 5: what is acknowledged is on disk"),
        "{notice}"
    );
}

#[test]
fn a_folder_of_files_is_read_where_it_is_included() {
    let folder = std::env::temp_dir().join(format!("ringmq-mosquitto-d-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("b.conf"), "max_queued_messages 7\n").expect("written");
    std::fs::write(folder.join("a.conf"), "max_queued_messages 6\ninclude_dir /x\n")
        .expect("written");
    std::fs::write(folder.join("c.txt"), "nonsense\n").expect("written");
    let translation = translated(&format!(
        "listener 1883\ninclude_dir {}\nmax_connections 3\n",
        folder.display()
    ));
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(translation.is_whole(), "{:?}", translation.lines);
    let of = translation.configuration([]).expect("valid").settings;
    assert_eq!((of.limits.queue_messages_max, of.listeners[0].connections_max), (7, 3));
    let included = translation.lines.iter().find(|line| line.line.starts_with("include_dir /"));
    assert!(included.is_some_and(|line| line.what.contains("2 files read")), "{included:?}");
}

#[test]
fn dynamic_security_is_for_all_listeners_or_refused() {
    let plugin = "plugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file /d.json\n";
    let one = format!("per_listener_settings true\nlistener 1\n{plugin}listener 2\n");
    let refused = translated(&one);
    let refused: Vec<&Judged> =
        refused.lines.iter().filter(|line| line.class == Class::Refused).collect();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].what.contains("applies to all listeners"), "{}", refused[0].what);
    let all = format!("per_listener_settings true\nlistener 1\n{plugin}listener 2\n{plugin}");
    for text in [all, format!("{plugin}listener 1\n")] {
        let access = settings(&text).access;
        assert_eq!(access.dynamic_security, PathBuf::from("/d.json"));
        assert_eq!(access.anonymous, crate::config::Anonymous::No, "{text}");
        assert!(!access.takes_unverified_names());
    }
}

#[test]
fn dynamic_security_needs_its_file_and_decides_alone() {
    let file = format!("{DYNAMIC}plugin_opt_config_file /etc/d.json\n");
    for (text, class, says) in [
        (DYNAMIC.to_owned(), Class::Refused, "add a line plugin_opt_config_file"),
        (format!("{DYNAMIC}plugin_opt_conifg_file /d"), Class::Refused, "no such option"),
        (format!("{file}acl_file /etc/a"), Class::Refused, "together with dynamic security"),
        (format!("{file}plugin_opt_password_init_file /p"), Class::Ignored, "dynsec init"),
    ] {
        let translation = translated(&text);
        let judged = translation.lines.last().expect("a line");
        assert!(judged.class == class && judged.what.contains(says), "{text}: {judged:?}");
    }
}
