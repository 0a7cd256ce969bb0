//! The options of bridges.

use super::*;
use crate::config::Bridge;
use crate::config::bridge::{Authorities, InRule, OutRule, Profile, Retained, StartMode, Version};
use crate::config::listener::TlsVersion;

const BRIDGE: &str = "connection far\naddress 192.0.2.1\ntopic a/#\n";
const USER: &str = "connection far\naddress 192.0.2.1\ntopic a/#\nlocal_username u\n";
const TLS: &str = "connection far\naddress 192.0.2.1:8883\ntopic a/#\nbridge_cafile /ca.pem\n";

/// The cases of the options of a bridge, as those of all others.
pub const CASES: &[(&str, &str, Class, &str)] = &[
    ("", "connection far\naddress h\ntopic a", Class::Translated, "name = \"far\""),
    (
        "connection far\ntopic a\n",
        "address a.example b.example:8883",
        Class::Same,
        "servers = [\"mqtt://a.example:1883\", \"mqtt://b.example:8883\"]",
    ),
    ("connection far\ntopic a\n", "addresses h:1", Class::Same, "servers = [\"mqtt://h:1\"]"),
    (
        BRIDGE,
        "topic b/# both 2 x/ y/",
        Class::Same,
        "out = { filter = \"x/b/#\", qos_max = 2, local_prefix = \"x/\", remote_prefix = \"y/\" }, \
         in = { filter = \"y/b/#\", qos = 2, local_prefix = \"x/\", remote_prefix = \"y/\" }",
    ),
    (BRIDGE, "round_robin true", Class::Translated, "prefer = \"any\""),
    (BRIDGE, "start_type automatic", Class::Translated, ""),
    (BRIDGE, "start_type lazy", Class::Translated, "start = \"lazy\""),
    (BRIDGE, "start_type once", Class::Translated, "start = \"once\""),
    (BRIDGE, "idle_timeout 90", Class::Same, "idle_s = 90"),
    (BRIDGE, "threshold 20", Class::Same, "lazy_messages = 20"),
    (
        BRIDGE,
        "restart_timeout 7 20",
        Class::Same,
        "reconnect.first_ms = 7000, reconnect.most_s = 20",
    ),
    (BRIDGE, "keepalive_interval 30", Class::Same, "keep_alive_s = 30"),
    (BRIDGE, "cleansession true", Class::Same, "clean_start = true, queue.offline = false"),
    (BRIDGE, "local_cleansession true", Class::Same, "queue.offline = false"),
    (USER, "local_clientid x", Class::Translated, "local_client_identifier = \"x\""),
    (BRIDGE, "local_username x", Class::Translated, "user = \"x\""),
    (BRIDGE, "local_password x", Class::Ignored, "a part of the broker"),
    (BRIDGE, "remote_clientid x", Class::Same, "client_identifier = \"x\""),
    (BRIDGE, "remote_username x", Class::Same, "username = \"x\""),
    (
        "connection far\naddress h\ntopic a\nremote_username x\n",
        "remote_password hush",
        Class::Same,
        "password = \"***\"",
    ),
    (BRIDGE, "clientid x", Class::Same, "client_identifier = \"x\""),
    (BRIDGE, "username x", Class::Same, "username = \"x\""),
    (
        "connection far\naddress h\ntopic a\nusername x\n",
        "password hush",
        Class::Same,
        "password = \"***\"",
    ),
    (BRIDGE, "notifications true", Class::Same, "profile = \"mosquitto\""),
    (BRIDGE, "notifications_local_only true", Class::Same, "profile = \"none\""),
    (BRIDGE, "notification_topic x", Class::Same, "notification_topic = \"x\""),
    (BRIDGE, "try_private false", Class::Same, "bridge_bit = false"),
    (BRIDGE, "bridge_attempt_unsubscribe false", Class::Same, "unsubscribe_out = false"),
    (BRIDGE, "bridge_bind_address 127.0.0.2", Class::Same, "bind = \"127.0.0.2\""),
    (BRIDGE, "bridge_outgoing_retain false", Class::Same, "retained = \"clear\""),
    (BRIDGE, "bridge_max_packet_size 900", Class::Same, "packet_bytes_max = 900"),
    (BRIDGE, "bridge_max_topic_alias 5", Class::Same, "topic_alias_maximum = 5"),
    (BRIDGE, "bridge_receive_maximum 5", Class::Same, "receive_maximum = 5"),
    (BRIDGE, "bridge_session_expiry_interval 60", Class::Same, "session_expiry_s = 60"),
    (BRIDGE, "bridge_reload_type lazy", Class::Same, "reload = \"lazy\""),
    (BRIDGE, "bridge_reload_type immediate", Class::Same, "reload = \"immediate\""),
    (
        BRIDGE,
        "bridge_tcp_keepalive 10 5 3",
        Class::Same,
        "tcp.keep_alive_idle_s = 10, tcp.keep_alive_interval_s = 5, tcp.keep_alive_probes = 3",
    ),
    (BRIDGE, "bridge_tcp_user_timeout 10", Class::Same, "tcp.user_timeout_ms = 10"),
    (BRIDGE, "bridge_protocol_version mqttv50", Class::Translated, "version = \"5\""),
    (BRIDGE, "bridge_cafile /ca.pem", Class::Same, "tls.ca = \"/ca.pem\""),
    (BRIDGE, "bridge_capath /ca", Class::Translated, "tls.ca = \"/ca\""),
    (BRIDGE, "bridge_tls_use_os_certs true", Class::Same, "tls.ca = \"system\""),
    (TLS, "bridge_certfile /c\nbridge_keyfile /k", Class::Same, "tls.certificate = \"/c\""),
    (TLS, "bridge_keyfile /k\nbridge_certfile /c", Class::Same, "tls.key = \"/k\""),
    (TLS, "bridge_alpn mqtt", Class::Same, "tls.alpn = [\"mqtt\"]"),
    (TLS, "bridge_insecure true", Class::Same, "tls.verify_name = false"),
    (TLS, "bridge_tls_version tlsv1.3", Class::Same, "tls.versions = [\"1.3\"]"),
    (TLS, "bridge_ciphers ECDHE-RSA-AES128-GCM-SHA256", Class::Ignored, "TLS 1.2 uses ECDHE"),
    (
        TLS,
        "bridge_ciphers_tls1.3 TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
        Class::Translated,
        "three suites",
    ),
    (TLS, "bridge_require_ocsp true", Class::Refused, "OCSP"),
    (TLS, "bridge_identity x", Class::Refused, "passwords over TLS"),
    (TLS, "bridge_psk x", Class::Refused, "passwords over TLS"),
];

/// The bridges of a file.
fn bridges(text: &str) -> Vec<Bridge> {
    settings(text).bridges
}

fn out(filter: &str, qos_max: u8, local: &str, remote: &str) -> OutRule {
    OutRule {
        filter: filter.to_owned(),
        qos_max,
        local_prefix: local.to_owned(),
        remote_prefix: remote.to_owned(),
        to: String::new(),
    }
}

fn incoming(filter: &str, qos: u8, local: &str, remote: &str) -> InRule {
    let OutRule { filter, local_prefix, remote_prefix, .. } = out(filter, 0, local, remote);
    InRule { filter, qos, local_prefix, remote_prefix, to: String::new() }
}

#[test]
fn each_form_of_a_topic_becomes_the_rules_of_its_directions() {
    let cases: &[(&str, &[OutRule], &[InRule])] = &[
        ("a/#", &[out("a/#", 0, "", "")], &[]),
        ("#", &[out("#", 0, "", "")], &[]),
        ("a out", &[out("a", 0, "", "")], &[]),
        ("a OUT 1", &[out("a", 1, "", "")], &[]),
        ("a in 2", &[], &[incoming("a", 2, "", "")]),
        ("+/b both 1", &[out("+/b", 1, "", "")], &[incoming("+/b", 1, "", "")]),
        ("# out 1 site/ plant7/", &[out("site/#", 1, "site/", "plant7/")], &[]),
        ("cmd/# in 1 \"\" plant7/", &[], &[incoming("plant7/cmd/#", 1, "", "plant7/")]),
        ("a/+ out 0 x/", &[out("x/a/+", 0, "x/", "")], &[]),
        ("a/+ out 0 x/ \"\"", &[out("x/a/+", 0, "x/", "")], &[]),
        (
            "\"\" both 2 one/topic another/topic",
            &[out("one/topic", 2, "one/topic", "another/topic")],
            &[incoming("another/topic", 2, "one/topic", "another/topic")],
        ),
        ("a out 1 # a comment", &[out("a", 1, "", "")], &[]),
        ("a out # a comment", &[out("a", 0, "", "")], &[]),
        ("a out \"\" \"\"", &[out("a", 0, "", "")], &[]),
    ];
    for (topic, outgoing, incoming) in cases {
        let of = bridges(&format!("connection c\naddress h\ntopic {topic}\n"));
        assert_eq!((&of[0].outgoing[..], &of[0].incoming[..]), (*outgoing, *incoming), "{topic}");
    }
    let two = bridges("connection c\naddress h\ntopic b out\ntopic a in\ntopic c out\n");
    assert_eq!(two[0].outgoing, [out("b", 0, "", ""), out("c", 0, "", "")], "in their order");
}

#[test]
fn a_shared_subscription_is_one_at_the_other_broker() {
    for (topics, share, rules) in [
        ("topic $share/g/a/# in 1", "g", vec![incoming("a/#", 1, "", "")]),
        ("topic $share/g/a/# in 1 x/", "g", vec![incoming("a/#", 1, "x/", "")]),
        ("topic a/# in 2 x/ $share/g/y/", "g", vec![incoming("y/a/#", 2, "x/", "y/")]),
        ("topic \"\" in 0 x $share/g/y", "g", vec![incoming("y", 0, "x", "y")]),
        (
            "topic $share/g/a in\ntopic b out\ntopic $share/g/c in",
            "g",
            vec![incoming("a", 0, "", ""), incoming("c", 0, "", "")],
        ),
        ("topic share/g/a in", "", vec![incoming("share/g/a", 0, "", "")]),
    ] {
        let of = &bridges(&format!("connection c\naddress h\n{topics}\n"))[0];
        assert_eq!((&*of.share, &of.incoming), (share, &rules), "{topics}");
    }
}

#[test]
fn a_section_without_options_has_the_defaults_of_mosquitto() {
    let all =
        bridges("connection a.b\naddress h\ntopic a\nconnection a-b\naddress g:1\ntopic a in\n");
    let [first, second] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&*first.name, &*second.name), ("a-b", "a-b-2"), "names here have no dots");
    assert!(first.client_identifier.ends_with(".a.b"), "{}", first.client_identifier);
    assert_eq!(second.servers[0].to_string(), "mqtt://g:1");
    assert_eq!((first.version, first.retained), (Version::V311, Retained::Always));
    assert_eq!((first.keep_alive_s, first.clean_start, first.bridge_bit), (60, false, true));
    assert!(first.tls.is_none() && first.username.is_empty() && first.password.is_empty());
}

#[test]
fn sections_of_listeners_and_of_bridges_do_not_mix() {
    let text =
        "connection far\naddress h\nlistener 1884 127.0.0.1\ntopic a out\nmax_connections 3\n";
    let of = settings(text);
    assert_eq!((of.bridges[0].outgoing.len(), of.listeners[0].connections_max), (1, 3));
}

#[test]
fn a_bridge_uses_tls_if_the_authorities_of_the_other_broker_are_named() {
    let of = bridges(&format!(
        "{TLS}bridge_certfile /c\nbridge_keyfile /k\nbridge_insecure true\nbridge_alpn mqtt\n\
         bridge_tls_version tlsv1.2\n"
    ));
    assert_eq!(of[0].servers[0].to_string(), "mqtts://192.0.2.1:8883");
    let tls = of[0].tls.as_ref().expect("the table");
    assert_eq!(tls.ca, Authorities::File("/ca.pem".into()));
    assert!(!tls.verify_name && tls.alpn == ["mqtt"]);
    assert_eq!(tls.versions, [TlsVersion::V1_2, TlsVersion::V1_3]);
    let without = translated(&format!(
        "{BRIDGE}bridge_certfile /c\nbridge_keyfile /k\nbridge_insecure false\n"
    ));
    for judged in &without.lines[3..] {
        assert_eq!(judged.class, Class::Ignored, "{judged:?}");
        assert!(judged.what.contains("no effect without bridge_cafile"), "{judged:?}");
    }
    let without = without.configuration([]).expect("valid").settings;
    assert!(without.bridges[0].tls.is_none() && !without.bridges[0].has_tls());
}

#[test]
fn the_time_before_attempts_is_constant_or_has_a_first_and_a_longest_one() {
    for (value, expected) in [
        ("20", (20_000, 20, 30)),
        ("10 60", (10_000, 60, 30)),
        ("10 60 5", (10_000, 60, 5)),
        ("0", (1_000, 1, 30)),
        ("300", (60_000, 300, 30)),
    ] {
        let of = bridges(&format!("{BRIDGE}restart_timeout {value}\n"));
        let reconnect = &of[0].reconnect;
        let found = (reconnect.first_ms, reconnect.most_s, reconnect.stable_s);
        assert_eq!(found, expected, "{value}");
    }
}

#[test]
fn a_line_of_a_bridge_that_cannot_be_taken_is_refused_at_its_place() {
    const START: &str = "connection far\naddress h\n";
    for (text, line, says) in [
        ("connection\n", 1, "has no value"),
        ("connection a\ntopic b\n", 1, "add a line `address HOST:PORT`"),
        (START, 1, "add a line such as `topic # out`"),
        ("connection a\naddress h\ntopic b\nconnection a\n", 4, "also set at"),
        ("connection a\naddress\ntopic b\n", 2, "has no value"),
        ("connection a\naddress # none\ntopic b\n", 2, "has no value"),
        ("connection a\naddress h:0\ntopic b\n", 2, "from 1 to 65535"),
        ("connection a\naddress h\naddress g\ntopic b\n", 3, "name all addresses in one line"),
        ("connection a\naddress h_/x\ntopic b\n", 2, "remove the path"),
        ("connection a\naddress h\ntopic\n", 3, "has no value"),
        ("connection a\naddress h\ntopic a up\n", 3, "not one of out, in, both"),
        ("connection a\naddress h\ntopic a out 3\n", 3, "not one of 0, 1, 2"),
        ("connection a\naddress h\ntopic a/#/b out\n", 3, "no Topic Filter"),
        ("connection a\naddress h\ntopic # out 0 site\n", 3, "no Topic Filter"),
        ("connection a\naddress h\ntopic a out 0 x/+/\n", 3, "local_prefix is the beginning"),
        ("connection a\naddress h\ntopic \"\" out 0 x\n", 3, "give both"),
        ("connection a\naddress h\ntopic $SYS/# out\n", 3, "of one broker"),
        ("connection a\naddress h\ntopic $share/g in\n", 3, "give it a name"),
        ("connection a\naddress h\ntopic $share//a in\n", 3, "give it a name"),
        ("connection a\naddress h\ntopic a in 0 x/ $share/g\n", 3, "give it a name"),
        ("connection a\naddress h\ntopic $share/g/a both\n", 3, "its direction is in"),
        ("connection a\naddress h\ntopic $share/g/a\n", 3, "its direction is in"),
        ("connection a\naddress h\ntopic b in\ntopic $share/g/a in\n", 4, "section `connection`"),
        ("connection a\naddress h\ntopic $share/g/a in\ntopic b in\n", 4, "section `connection`"),
        ("connection a\naddress h\ntopic $share/+/a in\n", 3, "without + and #"),
        ("connection a\naddress h\ntopic a\nstart_type manual\n", 4, "use automatic"),
        ("connection a\naddress h\ntopic a\nrestart_timeout 9 5\n", 4, "exchange them"),
        ("connection a\naddress h\ntopic a\nremote_password x\n", 4, "needs remote_username"),
        ("connection a\naddress h\ntopic a\nbridge_bind_address eth0\n", 4, "address of this"),
        ("connection a\naddress h\ntopic a\nbridge_protocol_version 5\n", 4, "mqttv50"),
        ("connection a\naddress h\ntopic a\nbridge_tls_version tlsv1.1\n", 4, "TLS 1.0"),
        ("connection a\naddress h\ntopic a\nbridge_cafile /a\nbridge_capath /b\n", 5, "one place"),
        (
            "connection a\naddress h\ntopic a\nbridge_cafile /a\nbridge_certfile /b\n",
            5,
            "add the other one",
        ),
        ("connection a\naddress h\ntopic a\nbridge_unknown 1\n", 4, "unknown option"),
    ] {
        let errors = translated(text).configuration([]).expect_err(text);
        let error = errors.iter().find(|error| error.to_string().contains(says));
        let error = error.unwrap_or_else(|| panic!("{text}: {errors:?}"));
        assert_eq!(error.line(), Some(line), "{text}: {error}");
    }
}

#[test]
fn an_ipv6_address_of_a_bridge_has_its_port_behind_the_last_colon() {
    for (address, server) in
        [("::1:1884", "mqtt://[::1]:1884"), ("[2001:db8::1]:1884", "mqtt://[2001:db8::1]:1884")]
    {
        let of = bridges(&format!("connection c\naddress {address}\ntopic a\n"));
        assert_eq!(of[0].servers[0].to_string(), server);
    }
}

#[test]
fn a_notification_topic_without_notifications_has_no_effect() {
    let topic = "notification_topic x\n";
    assert_eq!(bridges(&format!("{BRIDGE}{topic}"))[0].notification_topic, "x");
    for lines in ["notifications false\n", "notifications_local_only true\n"] {
        let text = format!("{BRIDGE}{topic}{lines}");
        assert_eq!(bridges(&text)[0].notification_topic, "");
        let judged = &translated(&text).lines[3];
        assert!(judged.class == Class::Ignored && judged.what.contains("no notifications"));
    }
}

#[test]
fn a_lazy_bridge_waits_for_as_many_messages_as_in_mosquitto() {
    for (lines, messages) in [
        ("start_type lazy\n", 10),
        ("start_type lazy\nthreshold 3\n", 3),
        ("threshold 3\nstart_type lazy\n", 3),
    ] {
        let bridge = &bridges(&format!("{BRIDGE}{lines}"))[0];
        assert_eq!((bridge.start, bridge.lazy_messages), (StartMode::Lazy, messages), "{lines}");
    }
}

#[test]
fn a_bridge_notifies_both_brokers_unless_the_file_says_otherwise() {
    let profile = |lines: &str| bridges(&format!("{BRIDGE}{lines}"))[0].profile;
    assert_eq!(profile(""), Profile::Mosquitto);
    assert_eq!(profile("notifications false\n"), Profile::None);
    assert_eq!(profile("notifications true\nnotifications_local_only true\n"), Profile::None);
}

#[test]
fn a_password_of_a_bridge_is_in_no_report() {
    let text = format!("{BRIDGE}remote_username u\nremote_password hush hush\n");
    let translation = translated(&text);
    assert!(!format!("{:?}", translation.lines).contains("hush"));
    assert_eq!(bridges(&text)[0].password, "hush hush");
}

#[cfg(unix)]
#[test]
fn a_file_with_a_password_that_others_can_read_is_warned_of_at_each_start() {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    for (mode, expected) in [(0o644, 1), (0o640, 0), (0o600, 0)] {
        let file = File::new(&format!("{BRIDGE}remote_username u\nremote_password hush\n"));
        std::fs::set_permissions(&file.0, Permissions::from_mode(mode)).expect("set");
        let of = Translation::read(Some(&file.0), &[], Generation::V2_1).expect("readable");
        let notices = of.configuration([]).expect("valid").notices;
        assert_eq!(notices.len(), expected, "{mode:o}: {notices:?}");
        assert!(notices.iter().all(|of| of.contains("chmod 600") && !of.contains("hush")));
        assert_eq!(of.lines[4].class, Class::Same);
    }
}
