//! What the init script of the OpenWrt package makes of `/etc/config/ringmq`: a file that the broker
//! takes. The functions that OpenWrt brings are played by a few lines of shell.
#![cfg(unix)]

use std::process::Command;

use ringmq::config::Settings;
use ringmq::config::Transport;

/// `config_get` and its like.
const OPENWRT: &str = r#"
config_get() {
    found=$(sed -n "s/^\toption $3 '\(.*\)'$/\1/p" "$CONFIG")
    eval "$1=\$found"
}
config_get_bool() { config_get "$@"; }
config_list_foreach() {
    for item in $(sed -n "s/^\tlist $2 '\(.*\)'$/\1/p" "$CONFIG"); do "$3" "$item"; done
}
. deploy/openwrt/files/ringmq.init
write_configuration broker
"#;

const SHIPPED: &str = include_str!("../deploy/openwrt/files/ringmq.config");

/// The settings that a configuration becomes, and the file they are read from. Every option of the
/// configuration has arrived there.
fn settings_of(configuration: &str, name: &str) -> (Settings, String) {
    let file = std::env::temp_dir().join(format!("ringmq-openwrt-{name}-{}", std::process::id()));
    std::fs::write(&file, configuration).expect("a configuration");
    let output = Command::new("sh").arg("-c").arg(OPENWRT).env("CONFIG", &file).output();
    let output = output.expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let settings = Settings::from_toml(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    settings.check().unwrap_or_else(|e| panic!("{e}\n{text}"));
    for line in configuration.lines().filter_map(|line| line.strip_prefix("\toption ")) {
        let (option, value) = line.split_once(' ').expect("an option and its value");
        let key = ["log_", "hash_"].iter().find_map(|of| option.strip_prefix(of));
        let (key, value) = (key.unwrap_or(option), value.trim_matches('\''));
        let arrived = match option {
            "anonymous" => text.contains("\nanonymous = true\n"),
            _ => [format!("\n{key} = {value}\n"), format!("\n{key} = \"{value}\"\n")]
                .iter()
                .any(|line| text.contains(line)),
        };
        assert!(option == "enabled" || arrived, "{option} is lost:\n{text}");
    }
    (settings, text)
}

#[test]
fn the_broker_takes_what_the_router_s_configuration_becomes() {
    let (settings, _) = settings_of(SHIPPED, "shipped");
    assert_eq!(settings.limits.connections_max, 500);
    assert!(settings.listeners.is_empty());
    assert!(settings.listen.iter().all(|address| address.ip().is_loopback()));
}

#[test]
fn it_takes_what_the_configuration_shows_as_a_comment_too() {
    let lines = SHIPPED.lines().filter(|line| !line.starts_with("\t#option config "));
    let shown = |line: &str| line.replace("\t#option ", "\toption ").replace("\t#list ", "\tlist ");
    let configuration: String = lines.map(|line| shown(line) + "\n").collect();
    let (settings, text) = settings_of(&configuration, "shown");
    assert_eq!(settings.listeners.len(), 1, "{text}");
    assert_eq!(settings.listeners[0].transport, Transport::Tls);
    assert_eq!(settings.listen.len(), 1, "the plain one stays: {text}");
    assert!(settings.access.knows_users());
}
