//! Flags over the configuration file.

use clap::Parser as _;

use super::Flags;
use crate::config::{Limits, LogFormat, LogLevel, Stats};

#[test]
fn flags_override_the_file_and_the_file_the_defaults() {
    let folder = std::env::temp_dir().join(format!("ringmq-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("broker.toml");
    std::fs::write(
        &file,
        "listen = [\"127.0.0.1:1\"]\n[log]\nlevel = \"warn\"\nformat = \"json\"\n",
    )
    .expect("written");
    let file = file.to_str().expect("a path");
    let flags = Flags::parse_from([
        "broker",
        "--config",
        file,
        "--listen",
        "127.0.0.1:2",
        "--log-level",
        "error",
    ]);
    let settings = flags.configuration().expect("fine").settings;
    assert_eq!(settings.listen, ["127.0.0.1:2".parse().expect("an address")]);
    assert_eq!((settings.log.level, settings.log.format), (LogLevel::Error, LogFormat::Json));
    assert_eq!(settings.limits, Limits::default());
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn stats_without_seconds_keeps_the_interval_of_the_file() {
    let settings = |flag: &str| {
        let flags = Flags::parse_from(["broker", flag]);
        flags.configuration().expect("fine").settings.stats
    };
    assert_eq!(settings("--stats"), Stats { enabled: true, ..Stats::default() });
    let each_7_s = Stats { enabled: true, interval_s: 7, ..Stats::default() };
    assert_eq!(settings("--stats=7"), each_7_s);
}
