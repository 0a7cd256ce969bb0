//! The init script of the OpenWrt package converts `/etc/config/ringmq` to a configuration file
//! that the broker accepts. A few lines of shell replace OpenWrt's functions.
#![cfg(unix)]

use std::process::Command;

use ringmq::config::Settings;
use ringmq::config::Transport;

/// `config_get` and similar functions.
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

/// The settings that result from a configuration, and the file they were read from. Asserts that
/// every option was converted.
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
fn the_broker_accepts_the_converted_router_configuration() {
    let (settings, _) = settings_of(SHIPPED, "shipped");
    assert_eq!(settings.limits.connections_max, 500);
    assert!(settings.listeners.is_empty());
    assert!(settings.listen.iter().all(|address| address.ip().is_loopback()));
}

#[test]
fn the_broker_accepts_the_commented_options_too() {
    let lines = SHIPPED.lines().filter(|line| !line.starts_with("\t#option config "));
    let shown = |line: &str| line.replace("\t#option ", "\toption ").replace("\t#list ", "\tlist ");
    let configuration: String = lines.map(|line| shown(line) + "\n").collect();
    let (settings, text) = settings_of(&configuration, "shown");
    assert_eq!(settings.listeners.len(), 1, "{text}");
    assert_eq!(settings.listeners[0].transport, Transport::Tls);
    assert_eq!(settings.listen.len(), 1, "the plaintext listener stays: {text}");
    assert!(settings.access.knows_users());
}

/// The output of a command, which must succeed.
fn told(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        said(&output.stdout),
        said(&output.stderr)
    );
    said(&output.stdout)
}

#[test]
#[cfg(target_os = "linux")]
fn a_package_can_be_built_without_the_sdk() {
    let folder = std::env::temp_dir().join(format!("ringmq-ipk-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let binary = folder.join("program");
    std::fs::write(&binary, "a broker").expect("a program");
    let mut make = Command::new("tools/ipk");
    make.args(["x86_64-unknown-linux-musl", "of_a_test"]).env("BINARY", &binary);
    let said = told(&mut make);
    let (file, _) = said.split_once(": ").expect("FILE: its size");
    told(Command::new("tar").args(["xzf", file, "-C"]).arg(&folder));
    assert_eq!(
        std::fs::read_to_string(folder.join("debian-binary")).expect("the format file"),
        "2.0\n"
    );

    let control = told(Command::new("tar").arg("xzOf").arg(folder.join("control.tar.gz")).args([
        "./control",
        "./conffiles",
        "./postinst",
        "./prerm",
    ]));
    for line in [
        "Package: ringmq",
        concat!("Version: ", env!("CARGO_PKG_VERSION"), "-r1"),
        "Architecture: of_a_test",
        "Require-User: ringmq=1883:ringmq=1883",
        "/etc/config/ringmq",
        "default_postinst \"$0\" \"$@\"",
        "default_prerm \"$0\" \"$@\"",
    ] {
        assert!(control.lines().any(|it| it == line), "no {line} in\n{control}");
    }

    // Everything belongs to root, and only root can read the configuration.
    let data = folder.join("data.tar.gz");
    let listed = told(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(&data));
    for (mode, path) in [
        ("-rwxr-xr-x 0/0", "./usr/bin/ringmq"),
        ("-rwxr-xr-x 0/0", "./etc/init.d/ringmq"),
        ("-rw------- 0/0", "./etc/config/ringmq"),
    ] {
        let is_there = |line: &str| line.starts_with(mode) && line.ends_with(path);
        assert!(listed.lines().any(is_there), "no {mode} {path} in\n{listed}");
    }
    let shipped = told(Command::new("tar").arg("xzOf").arg(&data).arg("./etc/config/ringmq"));
    assert_eq!(shipped, SHIPPED);
    std::fs::remove_file(file).expect("the package");
    std::fs::remove_dir_all(&folder).expect("the folder");
}
