//! What the init script of the OpenWrt package makes of `/etc/config/ringmq`: a file that the broker
//! takes. The functions that OpenWrt brings are played by a few lines of shell.
#![cfg(unix)]

use std::process::Command;

/// `config_get` and its like, on the file that the package ships.
const OPENWRT: &str = r#"
CONFIG=deploy/openwrt/files/ringmq.config
config_get() {
    found=$(sed -n "s/^\toption $3 '\(.*\)'$/\1/p" "$CONFIG")
    eval "$1=\$found"
}
config_list_foreach() {
    for item in $(sed -n "s/^\tlist $2 '\(.*\)'$/\1/p" "$CONFIG"); do "$3" "$item"; done
}
. deploy/openwrt/files/ringmq.init
write_configuration broker
"#;

#[test]
fn the_broker_takes_what_the_router_s_configuration_becomes() {
    let output = Command::new("sh").arg("-c").arg(OPENWRT).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let settings =
        ringmq::config::Settings::from_toml(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    settings.check().expect("it fits together");
    // Every option of the file has arrived.
    let shipped = include_str!("../deploy/openwrt/files/ringmq.config");
    for line in shipped.lines().filter_map(|line| line.strip_prefix("\toption ")) {
        let (option, value) = line.split_once(' ').expect("an option and its value");
        let key = option.strip_prefix("log_").unwrap_or(option);
        let value = value.trim_matches('\'');
        let arrived = [format!("\n{key} = {value}\n"), format!("\n{key} = \"{value}\"\n")];
        assert!(
            option == "enabled" || arrived.iter().any(|line| text.contains(line)),
            "{option} is lost:\n{text}"
        );
    }
    assert_eq!(settings.limits.connections_max, 500);
    assert!(settings.listen.iter().all(|address| address.ip().is_loopback()));
}
