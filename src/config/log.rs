//! The log, and statistics.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::number::between;
use crate::base::log_sink::{CONVERSIONS, Stamp};

/// The log.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Level.
    pub level: LogLevel,
    /// Format.
    pub format: LogFormat,
    /// Time of each line in the format `mosquitto`: empty for seconds since 1970, `none`, or conversions of `strftime`.
    #[serde(deserialize_with = "timestamp_format")]
    pub timestamp_format: String,
    /// Where the log goes.
    pub to: LogTo,
    /// The facility of lines that go to syslog.
    pub facility: LogFacility,
    /// Whether lines are published below `$SYS/broker/log/`, too.
    pub topics: bool,
    /// Whether clients that connect, and clients that leave by themselves, are logged.
    pub connections: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            format: LogFormat::default(),
            timestamp_format: String::new(),
            to: LogTo::default(),
            facility: LogFacility::default(),
            topics: false,
            connections: true,
        }
    }
}

impl Log {
    /// The time at the beginning of a line in the format `mosquitto`.
    pub fn stamp(&self) -> Stamp {
        match self.timestamp_format.as_str() {
            "" => Stamp::Seconds,
            "none" => Stamp::None,
            format => Stamp::Format(format.to_owned()),
        }
    }
}

fn timestamp_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let format = String::deserialize(deserializer)?;
    match Stamp::of_format(&format) {
        Ok(_) => Ok(format),
        Err(unknown) => Err(de::Error::custom(format!(
            "{format:?}: {unknown} is not one of the conversions {CONVERSIONS}"
        ))),
    }
}

/// A facility of syslog: RFC 5424, 6.2.1.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFacility {
    /// Programs of users.
    User = 1,
    /// Daemons.
    #[default]
    Daemon = 3,
    /// Local use 0.
    Local0 = 16,
    /// Local use 1.
    Local1,
    /// Local use 2.
    Local2,
    /// Local use 3.
    Local3,
    /// Local use 4.
    Local4,
    /// Local use 5.
    Local5,
    /// Local use 6.
    Local6,
    /// Local use 7.
    Local7,
}

impl LogFacility {
    /// The numerical code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Where the log goes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum LogTo {
    /// Standard error.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
    /// Nowhere.
    None,
    /// A file, which SIGHUP opens again.
    File(PathBuf),
    /// The journal of systemd, with a field for each field of a line.
    Journald,
    /// The syslog daemon of this machine, by this socket, or by the usual one.
    Syslog(Option<PathBuf>),
}

impl TryFrom<String> for LogTo {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = |path: &str| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        let to = match text.split_once(':') {
            None if text == "stderr" => Some(Self::Stderr),
            None if text == "stdout" => Some(Self::Stdout),
            None if text == "none" => Some(Self::None),
            None if text == "journald" => Some(Self::Journald),
            None if text == "syslog" => Some(Self::Syslog(None)),
            Some(("file", file)) => path(file).map(Self::File),
            Some(("syslog", socket)) => path(socket).map(|socket| Self::Syslog(Some(socket))),
            _ => None,
        };
        let is_here = cfg!(all(feature = "service", unix));
        match to {
            Some(Self::Journald | Self::Syslog(_)) if !is_here => Err(format!(
                "{text:?}: this broker was built without it; it needs Unix and the feature `service`"
            )),
            Some(to) => Ok(to),
            None => Err(format!(
                "{text:?} is not \"stderr\", \"stdout\", \"none\", \"file:/PATH\", \"journald\", \"syslog\" or \"syslog:/SOCKET\""
            )),
        }
    }
}

impl fmt::Display for LogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::Stdout => f.write_str("stdout"),
            Self::None => f.write_str("none"),
            Self::File(file) => write!(f, "file:{}", file.display()),
            Self::Journald => f.write_str("journald"),
            Self::Syslog(None) => f.write_str("syslog"),
            Self::Syslog(Some(socket)) => write!(f, "syslog:{}", socket.display()),
        }
    }
}

impl Serialize for LogTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Level of a log event.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The broker stops, or data is lost.
    Error,
    /// An operator should look at this.
    Warn,
    /// Start, stop, and clients that come, leave or are refused.
    #[default]
    Info,
    /// Every line about clients, without the limit on their number.
    Debug,
    /// Packets, without payloads and passwords.
    Trace,
}

impl LogLevel {
    /// All levels, from the one with the fewest lines.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// The words of Mosquitto.
    Mosquitto,
}

/// Statistics: latencies and counters.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Stats {
    /// Whether statistics are collected, and printed on exit and on SIGUSR1.
    pub enabled: bool,
    /// Seconds between further prints; 0 for none.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub interval_s: u32,
    /// Format.
    pub format: StatsFormat,
    /// File for histograms that other tools read; empty for none.
    #[serde(serialize_with = "shown")]
    pub log: PathBuf,
}

/// A path that a flag names need not be UTF-8.
fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Format of statistics on standard output.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StatsFormat {
    /// A table for people.
    #[default]
    Table,
    /// One JSON object per line.
    Json,
}
