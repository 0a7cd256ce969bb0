//! Bridges of the configuration.

use super::*;
use crate::config::Settings;

/// A bridge with these keys after `name`, and these tables after them.
fn read(keys: &str, tables: &str) -> Result<Settings, String> {
    let text = format!("[[bridges]]\nname = \"a\"\n{keys}\n{tables}");
    let settings = Settings::from_toml(&text)?;
    settings.check().map_err(|error| error.to_string())?;
    Ok(settings)
}

const SERVERS: &str = "servers = [\"mqtt://h\"]";
const OUT: &str = "[[bridges.out]]\nfilter = \"#\"\n";

fn error(keys: &str, tables: &str) -> String {
    read(keys, tables).err().unwrap_or_default()
}

#[test]
fn a_bridge_with_a_name_a_server_and_a_filter_has_the_defaults() {
    let settings = read(SERVERS, OUT).expect("valid");
    let expected = Bridge {
        name: "a".to_owned(),
        servers: vec!["mqtt://h:1883".parse().expect("a server")],
        prefer: Prefer::First,
        profile: Profile::None,
        notification_topic: String::new(),
        version: Version::Auto,
        client_identifier: String::new(),
        username: String::new(),
        password: String::new(),
        password_file: PathBuf::new(),
        clean_start: false,
        session_expiry_s: 604_800,
        keep_alive_s: 60,
        stalled_s: 60,
        bind: String::new(),
        bridge_bit: true,
        echo: Echo::Auto,
        packet_bytes_max: 0,
        receive_maximum: 0,
        topic_alias_maximum: 0,
        unsubscribe_out: false,
        reload: ReloadMode::Immediate,
        start: StartMode::Always,
        lazy_messages: 1,
        idle_s: 60,
        connections: 1,
        share: String::new(),
        user: String::new(),
        local_client_identifier: String::new(),
        retained: Retained::Initial,
        hops_max: 8,
        tls: None,
        queue: super::BridgeQueue::default(),
        reconnect: Reconnect { first_ms: 500, most_s: 60, stable_s: 30 },
        tcp: BridgeTcp::default(),
        outgoing: vec![OutRule {
            filter: "#".to_owned(),
            qos_max: 2,
            local_prefix: String::new(),
            remote_prefix: String::new(),
            to: String::new(),
        }],
        incoming: Vec::new(),
    };
    assert_eq!(settings.bridges, [expected]);
    assert_eq!(settings.bridges[0].client_identifier("box"), "ringmq-box-a");
}

#[test]
fn a_lazy_bridge_without_messages_that_could_wait_is_refused() {
    let incoming = "[[bridges.in]]\nfilter = \"#\"\n";
    let keys = |start: &str| format!("{SERVERS}\nstart = {start:?}");
    assert!(error(&keys("lazy"), incoming).contains("start = \"lazy\" without [[bridges.out]]"));
    for (start, tables) in [("manual", incoming), ("always", incoming), ("lazy", OUT)] {
        assert_eq!(error(&keys(start), tables), "", "{start}");
    }
    assert!(error(&keys("never"), OUT).contains("`always`, `manual`, `lazy`, `once`"));
}

#[test]
fn a_notification_topic_is_a_topic_name_and_for_bridges_that_notify() {
    let keys = |topic: &str| format!("{SERVERS}\nnotification_topic = {topic:?}");
    assert!(error(&keys("a"), OUT).contains("is for profile = \"mosquitto\""));
    let mosquitto = |topic: &str| format!("{}\nprofile = \"mosquitto\"", keys(topic));
    for topic in ["a/+", "a/#"] {
        assert!(error(&mosquitto(topic), OUT).contains("is not a Topic Name"), "{topic:?}");
    }
    let zero = mosquitto("x").replace("\"x\"", "\"x\\u0000\"");
    assert!(error(&zero, OUT).contains("is not a Topic Name"), "{zero}");
    assert_eq!(error(&mosquitto("bridges/a"), OUT), "");
}

#[cfg(feature = "tls")]
#[test]
fn every_key_of_a_bridge_is_read_and_written_as_it_is_read() {
    let keys = "servers = [\"mqtts://a.example\", \"mqtts://[::1]:1\"]\nprofile = \"mosquitto\"\nversion = \"3.1.1\"\n\
                client_identifier = \"c\"\nusername = \"u\"\npassword_file = \"/p\"\nclean_start = true\n\
                session_expiry_s = 1\nkeep_alive_s = 5\nbind = \"127.0.0.2\"\nbridge_bit = false\n\
                echo = \"off\"\nstart = \"lazy\"\nlazy_messages = 10\nidle_s = 5\n\
                packet_bytes_max = 9\nreceive_maximum = 8\nuser = \"b\"\nretained = \"clear\"\nhops_max = 64\n\
                prefer = \"any\"\nstalled_s = 5\nnotification_topic = \"bridge/state\"\n\
                topic_alias_maximum = 7\nunsubscribe_out = true\nreload = \"lazy\"\nlocal_client_identifier = \"l\"\n\
                tcp = { keep_alive_idle_s = 1, keep_alive_interval_s = 2, keep_alive_probes = 3, user_timeout_ms = 4 }\n\
                queue = { offline = false }";
    let tables = "[bridges.tls]\nca = \"/ca\"\ncertificate = \"/c\"\nkey = \"/k\"\nalpn = [\"mqtt\"]\n\
                  server_name = \"n\"\nverify_name = false\nversions = [\"1.3\"]\n[bridges.reconnect]\nfirst_ms = 10\nmost_s = 1\nstable_s = 0\n\
                  [[bridges.out]]\nfilter = \"s/#\"\nqos_max = 0\nlocal_prefix = \"s/\"\nremote_prefix = \"r/\"\n\
                  [[bridges.in]]\nfilter = \"q/#\"\nqos = 1\nlocal_prefix = \"s/\"\nremote_prefix = \"q/\"\n";
    let settings = read(keys, tables).expect("valid");
    let [bridge] = &settings.bridges[..] else { panic!("{settings:?}") };
    assert!(bridge.has_tls() && bridge.clean_start && !bridge.bridge_bit);
    assert_eq!((bridge.echo, bridge.profile), (Echo::Off, Profile::Mosquitto));
    assert_eq!((bridge.version, bridge.retained), (Version::V311, Retained::Clear));
    assert_eq!((bridge.packet_bytes_max, bridge.receive_maximum), (9, 8));
    assert!(!bridge.bridge_bit && bridge.bind == "127.0.0.2");
    assert!(bridge.unsubscribe_out && bridge.reload == ReloadMode::Lazy && !bridge.queue.offline);
    assert_eq!((bridge.topic_alias_maximum, &*bridge.local_client_identifier), (7, "l"));
    let expected = BridgeTcp {
        keep_alive_idle_s: 1,
        keep_alive_interval_s: 2,
        keep_alive_probes: 3,
        user_timeout_ms: 4,
    };
    assert_eq!(bridge.tcp, expected);
    assert!(
        bridge.prefer == Prefer::Any
            && bridge.stalled_s == 5
            && bridge.notification_topic == "bridge/state"
    );
    assert_eq!((bridge.outgoing[0].qos_max, bridge.incoming[0].qos), (0, 1));
    assert_eq!(bridge.client_identifier("box"), "c");
    assert_eq!((bridge.start, bridge.lazy_messages, bridge.idle_s), (StartMode::Lazy, 10, 5));
    let tls = bridge.tls.as_ref().expect("the table");
    assert_eq!((&tls.ca, &*tls.alpn[0]), (&Authorities::File("/ca".into()), "mqtt"));
    assert_eq!((tls.verify_name, &tls.versions[..]), (false, &[TlsVersion::V1_3][..]));
    let written = crate::config::serializer::to_table(&settings).expect("a table").to_string();
    assert_eq!(Settings::from_toml(&written).as_ref(), Ok(&settings), "{written}");
}

/// The rows of a table of the documentation for these keys.
#[cfg(feature = "tls")]
fn check_rows(section: &str, table: &toml::Table) {
    for (key, value) in table {
        let row = match value {
            _ if matches!(key.as_str(), "name" | "servers" | "filter") => {
                format!("`{key}` | required |")
            }
            toml::Value::Table(_) | toml::Value::Array(_)
                if !matches!(key.as_str(), "alpn" | "versions") =>
            {
                continue;
            }
            _ if matches!(key.as_str(), "certificate" | "key") => {
                "`certificate`, `key` | \"\" |".to_owned()
            }
            value => format!("`{key}` | {value} |"),
        };
        assert!(section.contains(&format!("\n| {row}")), "docs/bridges.md lacks: | {row}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn the_documentation_and_the_documented_file_list_every_key_of_a_bridge_with_its_default() {
    let document = include_str!("../../../docs/bridges.md");
    let (_, section) = document.split_once("## Keys").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another follows");
    let example = include_str!("../../../deploy/broker.toml");
    let (_, example) = example.split_once("see docs/bridges.md:\n").expect("the example");
    let lines: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    let documented = Settings::from_toml(&lines.join("\n")).expect("TOML once it is no comment");
    documented.check().expect("it makes sense");
    let servers = "servers = [\"mqtts://broker.example.org\"]";
    let tables = "[bridges.tls]\n[[bridges.out]]\nfilter = \"site/#\"\n\
                  [[bridges.in]]\nfilter = \"plant7/cmd/#\"\n";
    let mut defaults = read(servers, tables).expect("valid");
    defaults.bridges[0].name = "cloud".to_owned();
    assert_eq!(documented.bridges, defaults.bridges, "deploy/broker.toml has other values");
    let table: toml::Table = lines.join("\n").parse().expect("TOML");
    let table_of = |value: &toml::Value| value.as_table().expect("a table").clone();
    let written = crate::config::serializer::to_table(&defaults).expect("a table");
    let (example, written) = (table_of(&table["bridges"][0]), table_of(&written["bridges"][0]));
    check_rows(section, &written);
    for part in ["tls", "queue", "reconnect", "tcp"] {
        check_rows(section, &table_of(&written[part]));
        assert_eq!(example[part], written[part], "a key is missing from deploy/broker.toml");
    }
    for part in ["out", "in"] {
        check_rows(section, &table_of(&written[part][0]));
        assert_eq!(example[part], written[part], "a key is missing from deploy/broker.toml");
    }
    let names = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&example), names(&written), "a key is missing from deploy/broker.toml");
}

#[test]
fn what_is_wrong_with_a_bridge_is_said() {
    assert_eq!(error(SERVERS, OUT), "");
    let tls = "servers = [\"mqtts://h\"]";
    let websocket = error("servers = [\"ws://h\", \"mqtt://h\"]", OUT);
    match cfg!(feature = "websocket") {
        true => assert_eq!(websocket, ""),
        false => assert!(websocket.contains("built without WebSocket"), "{websocket}"),
    }
    let cases = [
        ("", OUT, "missing field `servers`"),
        ("servers = []", OUT, "1 to 16 servers"),
        ("servers = [\"mqtt://h\", \"mqtt://h:1883\"]", OUT, "mqtt://h:1883 is named twice"),
        ("servers = [\"mqtt://h\", \"mqtts://h\"]", OUT, "use TLS for all, or for none"),
        ("servers = [\"ws://h\", \"wss://h\"]", OUT, "use TLS for all, or for none"),
        ("servers = [\"tcp://h\"]", OUT, "not supported: use mqtt, mqtts, ws"),
        ("servers = [\"mqtt://h\"]\nserver = 1", OUT, "unknown field `server`"),
        ("servers = [\"mqtt://h\"]\nversion = \"4\"", OUT, "unknown variant `4`"),
        ("servers = [\"mqtt://h\"]\nretained = \"no\"", OUT, "unknown variant `no`"),
        ("servers = [\"mqtt://h\"]\nkeep_alive_s = 4", OUT, "4 is not from 5 to 65535"),
        ("servers = [\"mqtt://h\"]\nhops_max = 0", OUT, "0 is not from 1 to 64"),
        ("servers = [\"mqtt://h\"]\nuser = \"\\u0000\"", OUT, "user has U+0000"),
        ("servers = [\"mqtt://h\"]\npassword_file = \"p\"", OUT, "password_file needs username"),
        ("servers = [\"mqtt://h\"]\npassword = \"p\"", OUT, "password needs username"),
        (
            "servers = [\"mqtt://h\"]\nusername = \"u\"\npassword = \"p\"\npassword_file = \"f\"",
            OUT,
            "password and password_file exclude each other",
        ),
        ("servers = [\"mqtt://h\"]\nbind = \"eth0\"", OUT, "bind is an address of this machine"),
        ("servers = [\"mqtt://h\"]\nbind = \"127.0.0.1:1\"", OUT, "without a port"),
        ("servers = [\"mqtt://h\"]\nreceive_maximum = 65536", OUT, "65536 is not from 0 to 65535"),
        ("servers = [\"mqtt://h\"]\npacket_bytes_max = -1", OUT, "-1 is not from 0 to 268435460"),
        (SERVERS, "", "name topics in [[bridges.out]] or [[bridges.in]]"),
        (
            SERVERS,
            "[bridges.tls]\n[[bridges.out]]\nfilter = \"#\"",
            "servers are not mqtts:// or wss",
        ),
        (
            SERVERS,
            "[bridges.reconnect]\nfirst_ms = 2000\nmost_s = 1\n[[bridges.out]]\nfilter = \"#\"",
            "first_ms",
        ),
        (
            SERVERS,
            "[bridges.queue]\nexpiry_s = 1\npolicy = \"keep-latest\"\n[[bridges.out]]\nfilter = \"#\"",
            "queue.expiry_s",
        ),
        (
            SERVERS,
            "[bridges.queue]\noffline = false\nholds_publishers = true\n[[bridges.out]]\nfilter = \"#\"",
            "nobody is to wait",
        ),
        (
            SERVERS,
            "[bridges.tcp]\nkeep_alive_probes = 128\n[[bridges.out]]\nfilter = \"#\"",
            "128 is not from 0 to 127",
        ),
        (
            "servers = [\"mqtt://h\"]\nlocal_client_identifier = \"x\"",
            OUT,
            "bridges with `user` only",
        ),
        (
            SERVERS,
            "[bridges.queue]\npolicy = \"disconnect\"\n[[bridges.out]]\nfilter = \"#\"",
            "unknown variant `disconnect`",
        ),
        (SERVERS, "[[bridges.out]]\nfilter = \"a/#/b\"", "no Topic Filter: a wildcard must"),
        (SERVERS, "[[bridges.in]]\nfilter = \"\"", "no Topic Filter: empty"),
        (SERVERS, "[[bridges.in]]\nfilter = \"$share/g/a\"", "a shared subscription"),
        (SERVERS, "[[bridges.out]]\nfilter = \"$SYS/#\"", "$SYS and $CONTROL"),
        (SERVERS, "[[bridges.in]]\nfilter = \"$CONTROL/a\"", "$SYS and $CONTROL"),
        (SERVERS, "[[bridges.out]]\nfilter = \"#\"\nqos_max = 3", "3 is not from 0 to 2"),
        (SERVERS, "[[bridges.in]]\nfilter = \"#\"\nqos = 3", "3 is not from 0 to 2"),
        (
            SERVERS,
            "[[bridges.out]]\nfilter = \"#\"\nlocal_prefix = \"a/+/\"",
            "local_prefix is the beginning",
        ),
        (
            SERVERS,
            "[[bridges.in]]\nfilter = \"#\"\nlocal_prefix = \"\\u0000\"",
            "local_prefix is the beginning",
        ),
        (
            SERVERS,
            "[[bridges.in]]\nfilter = \"#\"\nlocal_prefix = \"$SYS/\"",
            "local_prefix: topics of $SYS",
        ),
        (
            SERVERS,
            "[[bridges.out]]\nfilter = \"a/#\"\nlocal_prefix = \"b/\"",
            "begins with local_prefix",
        ),
        (
            SERVERS,
            "[[bridges.in]]\nfilter = \"a/#\"\nremote_prefix = \"b/\"",
            "begins with remote_prefix",
        ),
    ];
    for (keys, tables, expected) in cases {
        let found = error(keys, tables);
        assert!(found.contains(expected), "{keys}\n{tables}: {found}");
    }
    let of_tls = [
        ("certificate = \"c\"", "tls.certificate and tls.key belong together"),
        ("key = \"k\"", "tls.certificate and tls.key belong together"),
        ("alpn = [\"\"]", "tls.alpn"),
        ("server_name = \"a/b\"", "tls.server_name"),
        ("versions = []", "tls.versions is empty"),
        ("versions = [\"1.1\"]", "unknown variant `1.1`"),
        ("ca = \"\"", "expected \"system\" or a PEM file"),
    ];
    for (key, expected) in of_tls.into_iter().filter(|_| cfg!(feature = "tls")) {
        let found = error(tls, &format!("[bridges.tls]\n{key}\n{OUT}"));
        assert!(found.contains(expected), "{key}: {found}");
    }
    if cfg!(feature = "tls") {
        assert_eq!(error(tls, OUT), "");
        assert_eq!(error(tls, &format!("[bridges.tls]\n{OUT}")), "");
    }
}

#[test]
fn topics_that_come_back_without_a_net_are_refused() {
    let both = format!("{OUT}[[bridges.in]]\nfilter = \"a/#\"\n");
    let without = |keys: &str| format!("{SERVERS}\n{keys}");
    for version in ["3.1.1", "3.1"] {
        let keys = format!("version = {version:?}\nbridge_bit = false\necho = \"off\"");
        assert!(error(&without(&keys), &both).contains("nothing would tell them"), "{version}");
        let apart = both.replace("\"#\"", "\"b/#\"");
        assert_eq!(error(&without(&keys), &apart), "", "{version}");
    }
    for keys in [
        "version = \"3.1.1\"\nbridge_bit = false",
        "version = \"3.1.1\"\necho = \"off\"",
        "version = \"5\"\nbridge_bit = false\necho = \"off\"",
        "bridge_bit = false\necho = \"off\"",
    ] {
        assert_eq!(error(&without(keys), &both), "", "{keys}");
    }
}

#[test]
fn an_error_of_a_bridge_has_its_name_its_key_and_its_line() {
    use crate::config::Configuration;

    let path = std::env::temp_dir().join(format!("ringmq-bridge-{}.toml", std::process::id()));
    let text = "[[bridges]]\nname = \"a\"\nservers = [\"mqtt://h\"]\n[[bridges.in]]\nfilter = \"a\"\n\
                [[bridges]]\nname = \"b\"\nservers = [\"mqtt://h\"]\n";
    std::fs::write(&path, text).expect("written");
    let error = Configuration::read(Some(&path), []).expect("it is read").check();
    std::fs::remove_file(&path).expect("removed");
    let error = error.expect_err("nothing passes");
    assert_eq!((error.line(), error.key()), (Some(6), Some("bridges[1]")));
    assert!(error.what().starts_with("[[bridges]] name = \"b\": nothing goes out"), "{error}");
}

#[test]
fn two_bridges_have_two_names_and_two_sessions_at_a_server() {
    let second =
        |name: &str, keys: &str| format!("{OUT}[[bridges]]\nname = \"{name}\"\n{keys}\n{OUT}");
    let own = "servers = [\"mqtt://g\", \"mqtt://h\"]\nclient_identifier = \"c\"";
    let found = error(SERVERS, &second("a", SERVERS));
    assert!(found.contains("the name is used twice"), "{found}");
    let found = error(own, &second("b", &format!("{SERVERS}\nclient_identifier = \"c\"")));
    assert!(found.contains("\"a\" has the same one at mqtt://h:1883"), "{found}");
    for keys in [SERVERS, "servers = [\"mqtt://x\"]\nclient_identifier = \"c\""] {
        assert_eq!(error(own, &second("b", keys)), "", "{keys}");
    }
    assert_eq!(error(SERVERS, &second("b", SERVERS)), "", "each has its name in its identifier");
}

#[test]
fn bridges_their_servers_rules_and_names_are_bounded() {
    let bridges = |count: usize| {
        let each = |number| format!("{OUT}[[bridges]]\nname = \"b{number}\"\n{SERVERS}\n");
        (1..count).map(each).collect::<String>() + OUT
    };
    assert_eq!(error(SERVERS, &bridges(64)), "");
    assert!(error(SERVERS, &bridges(65)).contains("more than 64 bridges"));
    assert_eq!(error(SERVERS, &OUT.repeat(256)), "");
    assert!(error(SERVERS, &OUT.repeat(257)).contains("more than 256"));
    let servers = |count: usize| {
        let each = (0..count).map(|number| format!("\"mqtt://h{number}\"")).collect::<Vec<_>>();
        format!("servers = [{}]", each.join(", "))
    };
    assert_eq!(error(&servers(16), OUT), "");
    assert!(error(&servers(17), OUT).contains("1 to 16 servers"));
    for (name, is_valid) in [
        ("x".repeat(64), true),
        ("x".repeat(65), false),
        (String::new(), false),
        ("a b".to_owned(), false),
    ] {
        let tables = format!("{OUT}[[bridges]]\nname = \"{name}\"\n{SERVERS}\n{OUT}");
        assert_eq!(error(SERVERS, &tables).is_empty(), is_valid, "{name}");
    }
}

#[test]
fn a_reload_takes_over_all_tables() {
    use crate::config::{Configuration, keys};

    let running = Configuration::from(read(SERVERS, OUT).expect("valid"));
    let changed = read(SERVERS, &OUT.replace('#', "a/#")).expect("valid");
    for wanted in [changed, Settings::default()] {
        let wanted = Configuration::from(wanted);
        let taken = running.take_over(&wanted, &keys::is_live).expect("valid");
        assert_eq!(taken.settings.bridges, wanted.settings.bridges);
    }
}

#[test]
fn a_bridge_with_several_connections_has_a_client_identifier_and_filters_of_its_own_for_each() {
    let tables: String = ["a/#", "b/#", "a/b", "c/#", "+/x"]
        .iter()
        .map(|filter| format!("[[bridges.in]]\nfilter = {filter:?}\n"))
        .collect();
    let keys = format!("{SERVERS}\nconnections = 2");
    let of = |tables: &str| -> Vec<(String, Vec<String>)> {
        let bridge = read(&keys, tables).expect("valid").bridges.remove(0);
        assert_eq!(bridge.client_identifiers("h"), ["ringmq-h-a-0", "ringmq-h-a-1"]);
        let parts = bridge.parts().into_iter().map(|part| bridge.for_part(part, "h"));
        let filters = |table: &Bridge| table.incoming.iter().map(|of| of.filter.clone()).collect();
        parts.map(|table| (table.client_identifier.clone(), filters(&table))).collect()
    };
    let expect = |of: Vec<(String, Vec<String>)>, first: &[&str], second: &[&str]| {
        let texts = |of: &[&str]| of.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let expected = [("ringmq-h-a-0", texts(first)), ("ringmq-h-a-1", texts(second))];
        assert_eq!(of, expected.map(|(name, filters)| (name.to_owned(), filters)));
    };
    // `+/x` has topics in common with all others.
    expect(of(&tables), &["a/#", "b/#", "a/b", "c/#", "+/x"], &[]);
    let tables = tables.replace("+/x", "d/x");
    expect(of(&tables), &["a/#", "a/b", "c/#"], &["b/#", "d/x"]);
}

#[test]
fn connections_and_share_are_refused_where_messages_would_come_twice_or_back() {
    const IN: &str = "[[bridges.in]]\nfilter = \"#\"\n";
    for (keys, tables, expected) in [
        ("connections = 0", OUT, "connections"),
        ("connections = 17", OUT, "connections"),
        ("share = \"g\"", OUT, "share without [[bridges.in]]"),
        ("share = \"g/h\"", IN, "share is the name"),
        (
            "share = \"g\"",
            "[[bridges.in]]\nfilter = \"a/#\"\n[[bridges.in]]\nfilter = \"+/b\"\n",
            "\"a/#\" and \"+/b\" would come twice",
        ),
        (
            "connections = 2\nversion = \"3.1.1\"\necho = \"off\"",
            "[[bridges.out]]\nfilter = \"#\"\n[[bridges.in]]\nfilter = \"#\"\n",
            "come back by another connection",
        ),
    ] {
        let keys = format!("{SERVERS}\n{keys}");
        let found = error(&keys, tables);
        assert!(found.contains(expected), "{keys} {tables}: {found}");
    }
    let two = "[[bridges]]\nname = \"b\"\nservers = [\"mqtt://h\"]\nclient_identifier = \"x-1\"\n";
    let found = error(
        &format!("{SERVERS}\nconnections = 2\nclient_identifier = \"x\""),
        &format!("{OUT}{two}{OUT}"),
    );
    assert!(found.contains("would end the other"), "{found}");
}
