//! The file and the documented defaults.

use super::*;

#[test]
fn the_documented_file_says_exactly_the_defaults() {
    let text = include_str!("../../deploy/broker.toml");
    let parsed = Settings::from_toml(text).expect("the documented file parses");
    assert_eq!(parsed, Settings::default());
}

/// The keys of a table and of those in it, each with the name of its own.
fn keys(table: &toml::Table) -> Vec<&str> {
    let below = table.values().filter_map(|value| value.as_table()).flat_map(keys);
    table.keys().map(String::as_str).chain(below).collect()
}

#[test]
fn the_documented_file_has_every_key() {
    let text = include_str!("../../deploy/broker.toml");
    let table: toml::Table = text.parse().expect("it parses");
    let debug = format!("{:?}", Settings::default());
    let documented = keys(&table);
    for key in &documented {
        assert!(debug.contains(&format!("{key}: ")), "{key}");
    }
    // Every field shows as `name: value`. The others are the lists of tables, of which there are none, and the numbers
    // of listeners, which are no key.
    let numbers = format!("{:?}", ListenerNumbers::default()).matches(": ").count() + 1;
    let fields = debug.matches(": ").count() - keys::LISTS.len() - numbers;
    assert_eq!(documented.len(), fields, "a key is missing from deploy/broker.toml");
}

#[test]
fn the_threat_model_lists_every_bound_of_protection_with_its_default() {
    let text = include_str!("../../docs/security.md");
    let documented: toml::Table =
        include_str!("../../deploy/broker.toml").parse().expect("it parses");
    let bounds = documented["protection"].as_table().expect("a section");
    for (key, default) in bounds {
        let row = format!("| `{key}` | {default} |");
        assert!(text.contains(&row), "docs/security.md lacks: {row}");
    }
    assert_eq!(text.matches("\n| `").count(), bounds.len(), "a row too many");
}

#[test]
fn the_documents_examples_of_configuration_are_read() {
    for (name, text) in [
        ("docs/access.md", include_str!("../../docs/access.md")),
        #[cfg(all(feature = "bridge", feature = "tls"))]
        ("docs/bridges.md", include_str!("../../docs/bridges.md")),
        #[cfg(feature = "websocket")]
        ("docs/clients.md", include_str!("../../docs/clients.md")),
        #[cfg(all(unix, feature = "tls", feature = "websocket"))]
        ("docs/configuration.md", include_str!("../../docs/configuration.md")),
        ("docs/security.md", include_str!("../../docs/security.md")),
    ] {
        let examples = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        assert!(examples.clone().count() > 0, "{name}");
        for example in examples {
            let settings = Settings::from_toml(example);
            assert!(settings.is_ok_and(|of| of.check().is_ok()), "{name}: {example}");
        }
    }
}

#[test]
fn the_documentation_lists_every_limit_with_its_default() {
    let text = include_str!("../../docs/limits.md");
    let (_, limits) = text.split_once("## Keys and defaults").expect("the section");
    let (limits, _) = limits.split_once("\n## ").expect("another follows");
    let documented: toml::Table =
        include_str!("../../deploy/broker.toml").parse().expect("it parses");
    for (key, default) in documented["limits"].as_table().expect("a section") {
        let row = format!("| `{key}` | {default}");
        assert!(limits.contains(&row), "docs/limits.md lacks: {row}");
    }
    let rows = limits.matches("\n| `").count();
    assert_eq!(rows, documented["limits"].as_table().expect("a section").len(), "a row too many");
}

/// Adds a row of a documentation table for each key of this table and of those in it.
fn add_rows(table: &toml::Table, rows: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(section) if !section.is_empty() => add_rows(section, rows),
            toml::Value::Table(_) => rows.push(format!("| `{key}` | {{}} |")),
            default => rows.push(format!("| `{key}` | {default} |")),
        }
    }
}

#[test]
fn the_documentation_lists_every_other_key_with_its_default() {
    let text = include_str!("../../docs/configuration.md");
    let mut documented: toml::Table =
        include_str!("../../deploy/broker.toml").parse().expect("it parses");
    // Each has a document of its own.
    for section in ["limits", "protection"] {
        assert!(documented.remove(section).is_some(), "{section}");
    }
    let mut rows = Vec::new();
    add_rows(&documented, &mut rows);
    for row in &rows {
        assert!(text.contains(row), "docs/configuration.md lacks: {row}");
    }
    let (text, _) = text.split_once("### `[[webhooks]]`").expect("the section of a list");
    assert_eq!(text.matches("\n| `").count(), rows.len(), "a row too many");
}

#[cfg(feature = "webhooks")]
#[test]
fn the_documentation_and_the_documented_file_list_every_key_of_a_webhook_with_its_default() {
    let text = "name = \"a\"\nurl = \"http://h/\"\nevents = [\"connect\"]";
    let webhook: Webhook = toml::from_str(text).expect("valid");
    let all = toml::Table::try_from(&webhook).expect("written as it is read");
    let document = include_str!("../../docs/configuration.md");
    let (_, section) = document.split_once("### `[[webhooks]]`").expect("the section");
    let example = include_str!("../../deploy/broker.toml");
    let (_, example) = example.split_once("# [[webhooks]]\n").expect("the example");
    let example = example.split("\n\n").next().expect("a first part");
    let lines: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    let table: toml::Table = lines.join("\n").parse().expect("TOML once it is no comment");
    assert_eq!(table.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    for (key, default) in &all {
        assert!(section.contains(&format!("`{key}`")), "docs/configuration.md lacks {key}");
        if default.is_integer() {
            assert!(section.contains(&format!("| `{key}` | {default} |")), "{key} = {default}");
            assert_eq!(&table[key], default, "deploy/broker.toml: {key}");
        }
    }
}

#[cfg(all(unix, feature = "tls", feature = "websocket"))]
#[test]
fn the_documented_listeners_are_listeners_once_they_are_no_comment() {
    let text = include_str!("../../deploy/broker.toml");
    let (_, listeners) = text.split_once("addresses are opened:\n").expect("they are there");
    let (listeners, _) = listeners.split_once("\n\n").expect("a blank line follows");
    let lines = listeners.lines().map(|line| line.strip_prefix("# ").expect("a comment"));
    let settings = Settings::from_toml(&lines.collect::<Vec<_>>().join("\n")).expect("it parses");
    settings.check().expect("it makes sense");
    assert_eq!(settings.listeners.len(), 3);
}

fn error(text: &str) -> String {
    Settings::from_toml(text).expect_err("it is wrong")
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_keys_there_are() {
    let error = error("[limits]\nconections_max = 5\n");
    assert!(error.contains("line 2, column 1"), "{error}");
    assert!(error.contains("`conections_max`") && error.contains("`connections_max`"), "{error}");
}

#[test]
fn a_line_with_a_password_in_a_url_is_not_repeated_by_an_error() {
    for rest in ["", "\" 7", "\"\nurl = 7", "\", x = \"\\q\""] {
        let text = format!("[access.http]\n\nurl = \"https://u:hunter2@host/{rest}\n");
        let error = error(&text);
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("line 3") || error.contains("line 4"), "{error}");
    }
}

#[test]
fn a_value_out_of_range_is_refused_with_its_place_and_the_range() {
    for value in ["-1", "70000"] {
        let error = error(&format!("[limits]\n\nreceive_maximum = {value}\n"));
        assert!(error.contains("line 3"), "{error}");
        assert!(error.contains("receive_maximum") && error.contains("from 1 to 65535"), "{error}");
    }
}

#[test]
fn a_value_of_another_kind_is_refused_with_what_is_allowed() {
    let error = error("[limits]\nqueue_policy = \"drop\"\n");
    for allowed in ["drop-newest", "drop-oldest", "disconnect", "keep-latest"] {
        assert!(error.contains(allowed), "{error}");
    }
    assert!(Settings::from_toml("listen = [\"localhost\"]").is_err());
    assert!(Settings::from_toml("[mqtt]\nretain_available = 1").is_err());
}

#[test]
fn how_statistics_are_written_is_said_only_where_they_are_taken() {
    let check = |text: &str| Settings::from_toml(text).expect("it parses").check();
    assert!(check("[stats]\nenabled = true\ninterval_s = 5\nformat = \"json\"").is_ok());
    for key in ["interval_s = 5", "format = \"json\"", "log = \"x\""] {
        let error = check(&format!("[stats]\n{key}")).expect_err("nothing is taken");
        assert!(error.to_string().contains("--stats"), "{key}: {error}");
    }
}

#[test]
fn the_prefix_of_assigned_client_identifiers_has_1_to_64_bytes_that_rules_can_match() {
    let check = |text: &str| Settings::from_toml(text).expect("it parses").check();
    let long = "x".repeat(65);
    for (prefix, is_valid) in
        [("web-", true), ("", false), ("a/", false), ("a#", false), (&long, false)]
    {
        let key = format!("assigned_identifier_prefix = \"{prefix}\"");
        for text in
            [format!("[mqtt]\n{key}"), format!("[[listeners]]\nbind = \"127.0.0.1:1\"\n{key}")]
        {
            let checked = check(&text);
            assert_eq!(checked.is_ok(), is_valid, "{text}: {checked:?}");
            if let Err(error) = checked {
                assert!(error.to_string().contains("assigned_identifier_prefix"), "{error}");
            }
        }
    }
}

#[test]
fn topics_have_to_be_valid_behind_a_mount_point() {
    let long = "x".repeat(1_025);
    for (mount_point, reason) in [
        ("site7/", ""),
        ("a", ""),
        ("", "is empty"),
        ("a/+/", "wildcard"),
        ("#", "wildcard"),
        ("a\\u0000", "U+0000"),
        ("$SYS/", "begins with $"),
        (&long, "1,024 bytes"),
    ] {
        let text =
            format!("[[listeners]]\nbind = \"127.0.0.1:1\"\nmount_point = \"{mount_point}\"");
        let checked = Settings::from_toml(&text).expect("it parses").check();
        assert_eq!(checked.is_ok(), reason.is_empty(), "{mount_point}: {checked:?}");
        if let Err(error) = checked {
            let error = error.to_string();
            assert!(error.contains("mount_point") && error.contains(reason), "{error}");
        }
    }
}

#[test]
fn topics_of_the_log_need_the_format_of_their_lines() {
    let check = |text: &str| Settings::from_toml(text).expect("it parses").check();
    assert!(check("[log]\ntopics = true\nformat = \"mosquitto\"").is_ok());
    let error = check("[log]\ntopics = true").expect_err("the format is text");
    assert!(error.to_string().contains("log.format"), "{error}");
}

#[test]
fn sending_clients_away_needs_a_place_to_send_them_to() {
    let settings = Settings::from_toml("[mqtt]\nredirect = \"permanent\"").expect("it parses");
    assert!(settings.check().is_err_and(|e| e.to_string().contains("server_reference")));
}

#[test]
fn who_names_listeners_listens_there_alone_unless_listen_is_said_too() {
    let one = "[[listeners]]\nbind = \"127.0.0.1:9001\"\ntransport = \"tcp\"\n";
    let settings = Settings::from_toml(one).expect("it parses");
    let binds = |settings: &Settings| -> Vec<String> {
        settings.every_listener().map(|listener| listener.bind.to_string()).collect()
    };
    assert_eq!(binds(&settings), ["127.0.0.1:9001"]);
    let both = format!("listen = [\"127.0.0.1:1883\"]\n{one}");
    let settings = Settings::from_toml(&both).expect("it parses");
    assert_eq!(binds(&settings), ["127.0.0.1:1883", "127.0.0.1:9001"]);
}

#[cfg(all(unix, feature = "tls", feature = "websocket"))]
#[test]
fn a_listener_that_makes_no_sense_is_refused_with_what_to_say_instead() {
    let cases = [
        ("bind = \"localhost\"", "not an address with a port"),
        ("bind = \"unix:\"", "needs a path"),
        ("bind = \"unix:/x\"", "is for transport \"unix\""),
        ("bind = \"127.0.0.1:1\"\ntransport = \"unix\"", "needs a path"),
        ("bind = \"127.0.0.1:1\"\ntransport = \"quic\"", "expected one of `tcp`, `tls`"),
        ("bind = \"127.0.0.1:1\"\ntransport = \"tls\"", "certificate and key"),
        ("bind = \"127.0.0.1:1\"\n[listeners.tls]\nkey = \"k\"", "neither tls nor wss"),
        ("bind = \"127.0.0.1:1\"\n[listeners.websocket]\npath = \"/x\"", "neither ws nor wss"),
        (
            "bind = \"127.0.0.1:1\"\ntransport = \"ws\"\n[listeners.websocket]\npath = \"x\"",
            "begins with /",
        ),
        (
            "bind = \"127.0.0.1:1\"\ntransport = \"ws\"\n[listeners.websocket]\npath = []",
            "websocket.path is empty",
        ),
        (
            "bind = \"127.0.0.1:1\"\ntransport = \"ws\"\n[listeners.websocket]\n\
             origins = [\"https://example.org/\"]",
            "can match no page",
        ),
        (
            "bind = \"127.0.0.1:1\"\ntransport = \"ws\"\nproxy_protocol_from = [\"10.0.0.0/8\"]\n\
             [listeners.websocket]\nforwarded_for_from = [\"10.0.0.0/8\"]",
            "both give the address of a client",
        ),
        ("bind = \"127.0.0.1:1\"\nproxy_protocol_from = [\"10.0.0.0/40\"]", "proxy_protocol_from"),
        (
            "bind = \"127.0.0.1:1\"\nproxy_protocol_requires_tls = true",
            "requires_tls needs a trusted proxy",
        ),
        (
            "bind = \"127.0.0.1:1\"\ntransport = \"tls\"\nproxy_protocol_from = [\"10.0.0.0/8\"]\n\
             proxy_protocol_requires_tls = true\n[listeners.tls]\ncertificate = \"c\"\nkey = \"k\"",
            "each of its clients uses TLS",
        ),
        ("bind = \"127.0.0.1:1\"\ninterface = \"a/b\"", "name of a network interface"),
        ("bind = \"127.0.0.1:1\"\ninterface = \"\"", "name of a network interface"),
        (
            "bind = \"127.0.0.1:1\"\ntransport = \"tls\"\n[listeners.tls]\ncertificate = \"c\"\n\
             key = \"k\"\nclient_certificate = \"required\"",
            "tls.client_ca",
        ),
        (
            "bind = \"127.0.0.1:1\"\ntransport = \"tls\"\n[listeners.tls]\ncertificate = \"c\"\n\
             key = \"k\"\nidentity = \"cn\"",
            "have no effect",
        ),
    ];
    for (listener, what) in cases {
        let settings = Settings::from_toml(&format!("[[listeners]]\n{listener}\n"));
        let error = settings.and_then(|settings| settings.check().map_err(|e| e.to_string()));
        let error = error.expect_err(listener);
        assert!(error.contains(what), "{listener}: {error}");
    }
}
