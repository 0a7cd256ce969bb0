//! Configuration: defaults, the TOML file over them, flags over both. Every key has one place here and one in
//! `deploy/broker.toml`, which a test holds against each other.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Deserializer, de};

use crate::session::outbound::QueuePolicy;

/// Everything a broker can be told.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Cores to run on.
    pub cores: Cores,
    /// Whether cores are chosen by NUMA node.
    pub numa: bool,
    /// How to run.
    pub mode: Mode,
    /// What cores run on.
    pub executor: ExecutorKind,
    /// How to use io_uring.
    pub uring: Uring,
    /// What is kept on disk.
    pub storage: Storage,
    /// The log.
    pub log: Log,
    /// Statistics.
    pub stats: Stats,
    /// Bounds on what clients can make the broker do and hold.
    pub limits: Limits,
    /// What the protocol leaves to the server.
    pub mqtt: Mqtt,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![
                "127.0.0.1:1883".parse().expect("an address"),
                "[::1]:1883".parse().expect("an address"),
            ],
            cores: Cores::default(),
            numa: false,
            mode: Mode::default(),
            executor: ExecutorKind::default(),
            uring: Uring::default(),
            storage: Storage::default(),
            log: Log::default(),
            stats: Stats::default(),
            limits: Limits::default(),
            mqtt: Mqtt::default(),
        }
    }
}

/// Cores to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// So many, whichever the system has.
    Count(u16),
    /// Those with these numbers, as the system counts them.
    List(Vec<u16>),
}

impl Default for Cores {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Cores {
    /// How many.
    pub fn count(&self) -> u16 {
        match self {
            Self::Count(count) => *count,
            Self::List(list) => list.len() as u16,
        }
    }
}

impl std::str::FromStr for Cores {
    type Err = String;

    /// A number of cores, or a list of their numbers such as `0,2,4-7`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?} {what}; say how many, or which, as in 0,2,4-7");
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong("is no number of cores"));
        let cores = if text.contains([',', '-']) {
            let mut list = Vec::new();
            for range in text.split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(wrong("has a range that runs backwards"));
                }
                list.extend(first..=last);
            }
            let unique: std::collections::BTreeSet<&u16> = list.iter().collect();
            if unique.len() < list.len() {
                return Err(wrong("names a core twice"));
            }
            Self::List(list)
        } else {
            Self::Count(number(text)?)
        };
        match cores.count() {
            1..=CORES_MAX => Ok(cores),
            count => Err(wrong(&format!("are {count} cores, not 1 to {CORES_MAX}"))),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of cores, or a list such as \"0,2,4-7\"")]
        enum Text {
            Number(i64),
            Text(String),
        }
        let text = match Text::deserialize(deserializer)? {
            Text::Number(number) => number.to_string(),
            Text::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

/// Threads one process may run on; more than any machine has, and as many as a stamp can name.
const CORES_MAX: u16 = 1_024;

/// How to use io_uring.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Uring {
    /// Submissions a core may have waiting for the end of its turn.
    #[serde(deserialize_with = "between::<_, _, 1, 32_768>")]
    pub entries: u32,
    /// Completions that may wait for a core.
    #[serde(deserialize_with = "between::<_, _, 2, 65_536>")]
    pub completions: u32,
    /// Receive buffers of a core; a power of two.
    #[serde(deserialize_with = "power_of_two")]
    pub buffers: u16,
    /// Bytes of each.
    #[serde(deserialize_with = "between::<_, _, 64, 1_048_576>")]
    pub buffer_bytes: u32,
    /// From how many bytes on a send goes without copying; 0 for never.
    #[serde(deserialize_with = "between::<_, _, 0, 1_073_741_824>")]
    pub zero_copy_bytes_min: u32,
    /// Whether several receptions may share a buffer, where the kernel can (6.12).
    pub incremental: bool,
    /// Whether the kernel's work for a core waits until the core asks for it, where it can (6.1).
    pub defer_taskrun: bool,
}

impl Default for Uring {
    fn default() -> Self {
        Self {
            entries: 1_024,
            completions: 8_192,
            buffers: 8,
            buffer_bytes: 65_536,
            zero_copy_bytes_min: 0,
            incremental: true,
            defer_taskrun: true,
        }
    }
}

fn power_of_two<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number: u16 = between::<_, _, 1, 32_768>(deserializer)?;
    match number.is_power_of_two() {
        true => Ok(number),
        false => Err(de::Error::custom(format!("{number} is no power of two"))),
    }
}

/// What is kept on disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Where.
    pub data: Data,
    /// When it is synchronised with the disk.
    pub sync: Sync,
    /// How often, where that is `interval`; so much may be lost.
    #[serde(deserialize_with = "between::<_, _, 1, 3_600_000>")]
    pub sync_interval_ms: u32,
    /// Bytes at most; 0 for what the disk has.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub bytes_max: u64,
    /// Bytes from which on it is compacted, once more than half of it is past.
    #[serde(deserialize_with = "between::<_, _, 1_048_576, 1_099_511_627_776>")]
    pub compact_bytes_min: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data: Data::Auto,
            sync: Sync::Always,
            sync_interval_ms: 100,
            bytes_max: 0,
            compact_bytes_min: 64 * 1024 * 1024,
        }
    }
}

/// Where sessions and retained messages are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// In a folder for what programs keep, under the port that is listened on.
    #[default]
    Auto,
    /// In memory alone.
    None,
    /// In this folder.
    Folder(PathBuf),
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "none" => Self::None,
            _ => Self::Folder(text.into()),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.is_empty() {
            true => Err(de::Error::custom("a folder, \"auto\" or \"none\" is expected")),
            false => Ok(text.into()),
        }
    }
}

/// When what is kept is synchronised with the disk.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Before it is acknowledged.
    #[default]
    Always,
    /// Every `sync_interval_ms`; acknowledgements do not wait.
    Interval,
    /// When the system sees fit.
    None,
}

/// The log.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Least urgent events that are written.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}

/// How urgent a log event is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What stops the broker or loses data.
    Error,
    /// What an operator should look at.
    Warn,
    /// Start, stop, and little else.
    #[default]
    Info,
    /// A line for each connection event.
    Debug,
    /// Everything.
    Trace,
}

/// How log events are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Statistics: what took how long, and what was counted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Stats {
    /// Whether they are taken. They are printed at exit and on SIGUSR1.
    pub enabled: bool,
    /// Seconds after which they are printed too; 0 for never.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub interval_s: u32,
    /// How they are printed.
    pub format: StatsFormat,
    /// File for histograms that other tools read; empty for none.
    pub log: PathBuf,
}

/// How statistics are written to standard output.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StatsFormat {
    /// A table for people.
    #[default]
    Table,
    /// A JSON object a line.
    Json,
}

/// Bounds on what clients can make the broker do and hold.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time; 0 for as many as the descriptor limit allows.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_max: u32,
    /// Connections accepted in a second; 0 for no limit.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_second_max: u32,
    /// Seconds from accepting a connection to its CONNECT.
    #[serde(deserialize_with = "between::<_, _, 1, 3_600>")]
    pub connect_timeout_s: u32,
    /// Maximum Packet Size announced and enforced.
    #[serde(deserialize_with = "between::<_, _, 128, 268_435_460>")]
    pub packet_bytes_max: u32,
    /// Levels of a Topic Name or Filter.
    #[serde(deserialize_with = "between::<_, _, 1, 65_536>")]
    pub topic_levels_max: u32,
    /// Sessions, of connected clients and of those that are away.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000_000>")]
    pub sessions_max: u32,
    /// Subscriptions of one client.
    #[serde(deserialize_with = "between::<_, _, 1, 100_000_000>")]
    pub subscriptions_per_client_max: u32,
    /// Receive Maximum announced: unfinished QoS 2 messages from one client.
    #[serde(deserialize_with = "between::<_, _, 1, 65_535>")]
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in flight to one client, or its Receive Maximum if lower.
    #[serde(deserialize_with = "between::<_, _, 1, 30_000>")]
    pub inflight_max: u16,
    /// Topic Alias Maximum announced; 0 for none.
    #[serde(deserialize_with = "between::<_, _, 0, 65_535>")]
    pub topic_alias_maximum: u16,
    /// Topic Aliases the broker sets towards one client, or its Topic Alias Maximum if lower.
    #[serde(deserialize_with = "between::<_, _, 0, 65_535>")]
    pub topic_alias_outgoing_max: u16,
    /// Encoded bytes waiting for one client.
    #[serde(deserialize_with = "between::<_, _, 4_096, 1_073_741_824>")]
    pub outbox_bytes_max: u32,
    /// Messages queued for one session.
    #[serde(deserialize_with = "between::<_, _, 1, 100_000_000>")]
    pub queue_messages_max: u32,
    /// Bytes of messages queued for one session.
    #[serde(deserialize_with = "between::<_, _, 1_024, 1_099_511_627_776>")]
    pub queue_bytes_max: u64,
    /// What gives way when a queue is full.
    pub queue_policy: QueuePolicy,
    /// Retained messages.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub retained_messages_max: u32,
    /// Bytes of retained messages.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub retained_bytes_max: u64,
    /// Bytes of all sessions, subscriptions, messages, queues and outboxes; 0 for three quarters of the memory there is.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub memory_bytes_max: u64,
    /// Longest Session Expiry Interval; 4294967295 for "never expires".
    #[serde(deserialize_with = "between::<_, _, 0, 4_294_967_295>")]
    pub session_expiry_max_s: u32,
    /// Keep Alive at most, imposed as Server Keep Alive; 0 leaves it to the client.
    #[serde(deserialize_with = "between::<_, _, 0, 65_535>")]
    pub keep_alive_max_s: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 0,
            connections_per_second_max: 0,
            connect_timeout_s: 10,
            packet_bytes_max: 16 * 1024 * 1024,
            topic_levels_max: 256,
            sessions_max: 2_000_000,
            subscriptions_per_client_max: 10_000,
            receive_maximum: 1_024,
            inflight_max: 1_024,
            topic_alias_maximum: 64,
            topic_alias_outgoing_max: 64,
            outbox_bytes_max: 1024 * 1024,
            queue_messages_max: 100_000,
            queue_bytes_max: 64 * 1024 * 1024,
            queue_policy: QueuePolicy::DropNewest,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1024 * 1024 * 1024,
            memory_bytes_max: 0,
            session_expiry_max_s: u32::MAX,
            keep_alive_max_s: 0,
        }
    }
}

/// What the protocol leaves to the server.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Highest QoS.
    #[serde(deserialize_with = "between::<_, _, 0, 2>")]
    pub maximum_qos: u8,
    /// Whether messages are retained.
    pub retain_available: bool,
    /// Whether filters may hold wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifiers_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscription_available: bool,
    /// Whether a payload said to be UTF-8 is checked.
    pub payload_format_validate: bool,
    /// Prefix for response topics, given to clients that ask.
    pub response_information: String,
    /// Another server to use, told to clients that are sent away.
    pub server_reference: String,
    /// Whether clients are sent away.
    pub redirect: Redirect,
    /// Seconds between updates of `$SYS`; 0 for none.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub sys_interval_s: u32,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            maximum_qos: 2,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
            payload_format_validate: false,
            response_information: String::new(),
            server_reference: String::new(),
            redirect: Redirect::None,
            sys_interval_s: 10,
        }
    }
}

/// Whether clients are sent to `server_reference`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// They are served here.
    #[default]
    None,
    /// CONNACK 0x9C Use another server.
    Temporary,
    /// CONNACK 0x9D Server moved.
    Permanent,
}

/// A whole number within bounds, so that the error names them.
fn between<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = i128::from(i64::deserialize(deserializer)?);
    let fits = (i128::from(MIN)..=i128::from(MAX)).contains(&number);
    let value = u64::try_from(number).ok().filter(|_| fits).and_then(|n| T::try_from(n).ok());
    value.ok_or_else(|| de::Error::custom(format!("{number} is not from {MIN} to {MAX}")))
}

/// A configuration that cannot be used, with the place where it is wrong.
#[derive(Debug)]
pub struct ConfigError {
    file: Option<PathBuf>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}: {}", file.display(), self.message.trim_end()),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Settings {
    /// The folder to keep things in; none to keep nothing, with why when that was not asked for.
    pub fn data_folder(&self) -> Result<PathBuf, &'static str> {
        match &self.storage.data {
            Data::Folder(folder) => Ok(folder.clone()),
            Data::None => Err("as configured"),
            Data::Auto if !cfg!(feature = "store") => Err("this broker was built without a store"),
            Data::Auto => {
                let port = self.listen.first().map_or(0, SocketAddr::port);
                if port == 0 {
                    return Err("a port that the system chooses names no broker that could come \
                                back; name a folder with --data DIR");
                }
                Ok(state_folder().join("ringmq").join(port.to_string()))
            }
        }
    }

    /// Reads a TOML file over the defaults.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let error = |message: String| ConfigError { file: Some(path.to_owned()), message };
        let text = std::fs::read_to_string(path)
            .map_err(|e| error(format!("cannot be read: {e}; name a readable TOML file")))?;
        Self::from_toml(&text).map_err(error)
    }

    /// The same from its text; the error names line, column, key and what is allowed.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// What holds between keys, and between keys and flags.
    pub fn check(&self) -> Result<(), ConfigError> {
        let error = |message: &str| Err(ConfigError { file: None, message: message.to_owned() });
        if self.listen.is_empty() {
            return error("listen: there is no address; name one like \"127.0.0.1:1883\"");
        }
        if self.listen.len() > LISTENERS_MAX {
            return error("listen: there are more than 64 addresses");
        }
        if self.mode == Mode::Sync && self.cores.count() > 1 {
            return error("mode sync runs on one core; choose another mode, or say --cores 1");
        }
        use ExecutorKind as Kind;
        match (self.mode, self.executor) {
            (Mode::Poll, Kind::Uring | Kind::Monoio | Kind::Glommio) => {
                return error(
                    "mode poll and this executor, which is on io_uring, exclude each other",
                );
            }
            (Mode::Uring, Kind::Poll) => {
                return error("mode uring and executor poll exclude each other");
            }
            (_, kind) if !kind.is_built_in() => {
                let name = kind.name();
                return error(&format!(
                    "executor {name}: this broker was built without it; build it with \
                     `cargo build --release --features {name}`, or choose another"
                ));
            }
            _ => {}
        }
        if !self.stats.enabled && self.stats != Stats::default() {
            return error(
                "stats: it is said how to write statistics, but none are taken; say --stats, or \
                 stats.enabled = true",
            );
        }
        if let Data::Folder(folder) = &self.storage.data
            && !cfg!(feature = "store")
        {
            return error(&format!(
                "storage.data {}: this broker was built without a store; build it with \
                 `cargo build --release --features store`, or say --data none",
                folder.display()
            ));
        }
        if self.mqtt.redirect != Redirect::None && self.mqtt.server_reference.is_empty() {
            return error(
                "mqtt.redirect: clients are sent away but mqtt.server_reference is empty; \
                 name the server to use instead",
            );
        }
        Ok(())
    }
}

const LISTENERS_MAX: usize = 64;

/// Where programs of this user, or this service, keep their state.
fn state_folder() -> PathBuf {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // What systemd gives a service, what the desktop's rules say, what Windows says.
    of("STATE_DIRECTORY")
        .or_else(|| of("XDG_STATE_HOME"))
        .or_else(|| of("LOCALAPPDATA"))
        .or_else(|| of("HOME").map(|home| home.join(".local").join("state")))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// An MQTT broker that gets everything out of one machine.
///
/// Without flags it listens on `127.0.0.1:1883` and `[::1]:1883`, for clients on this machine.
#[derive(Debug, Parser)]
#[command(name = "broker", version, about, after_long_help = EXIT_CODES)]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address to listen on, instead of the configured ones; may be repeated. Port 0 takes a free
    /// one and logs it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,

    /// Configuration file (TOML); `deploy/broker.toml` documents every key.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the configuration, say what is wrong with it, and exit.
    #[arg(long)]
    pub check_config: bool,

    /// How log events are written to standard error.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Least urgent log events that are written.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    /// Folder to keep sessions and retained messages in, or `none` for memory alone. Without it they
    /// are kept in a folder for what programs keep, under the port that is listened on.
    #[arg(long, value_name = "DIR|none", global = true)]
    pub data: Option<String>,

    /// Cores to run on: how many, or which, as in `0,2,4-7`. Each runs a thread pinned to it, as
    /// far as the system has as many.
    #[arg(long, value_name = "N|LIST")]
    pub cores: Option<Cores>,

    /// Choose cores by NUMA node, those beside the network card first, and keep each core's memory
    /// on its node. `broker platform --plan` shows the choice.
    #[arg(long)]
    pub numa: bool,

    /// How to run: on io_uring, on readiness (`poll`), on one core in the process's one thread
    /// (`sync`), or as fast as this machine allows (`auto`).
    #[arg(long)]
    pub mode: Option<Mode>,

    /// What cores run on: our own executors on io_uring or on readiness, or a runtime that this
    /// broker was built with.
    #[arg(long)]
    pub executor: Option<ExecutorKind>,

    /// Take statistics, latency histograms among them, and print them at exit, on SIGUSR1 (where
    /// there are signals), and every so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub stats: Option<Option<u32>>,

    /// How statistics are written to standard output.
    #[arg(long, value_name = "FORMAT")]
    pub stats_format: Option<StatsFormat>,

    /// File to write every interval's histograms to, as an HdrHistogram interval log, and beside it
    /// a `.hgrm` file for each kind of latency at the end.
    #[arg(long, value_name = "FILE")]
    pub stats_log: Option<PathBuf>,
}

/// What the broker does instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this machine is and allows, and how to run a broker on it.
    Platform {
        /// As a JSON object.
        #[arg(long)]
        json: bool,

        /// Say instead which processor each core would run on.
        #[arg(long)]
        plan: bool,

        /// For so many cores, or for those.
        #[arg(long, value_name = "N|LIST", requires = "plan")]
        cores: Option<Cores>,

        /// By NUMA node.
        #[arg(long, requires = "plan")]
        numa: bool,
    },
    /// Look at what is kept on disk, check it, carry it elsewhere. The broker must not run.
    Store {
        /// What to do.
        #[command(subcommand)]
        what: StoreCommand,
    },
}

/// What to do with a store.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Say what is in it.
    Inspect {
        /// As a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Look at every byte, and say where it is torn or damaged.
    Verify,
    /// Write it anew, without what is past.
    Compact,
    /// Write all of it to standard output, a JSON object a line.
    Export,
    /// Read what `export` wrote from standard input into an empty store.
    Import,
    /// Keep what is whole of a damaged store, and move the rest aside.
    Repair,
}

const EXIT_CODES: &str = "\
Exit codes: 0 stopped by SIGTERM or SIGINT, all clients told; 2 flags or configuration cannot be \
used; 3 an address cannot be listened on; 4 the descriptor limit is too low for the configured \
connections; 5 the store cannot be used; 1 anything else.";

/// How to run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The fastest way that this machine allows.
    #[default]
    Auto,
    /// On io_uring, or not at all.
    Uring,
    /// On readiness: epoll, kqueue or Windows' AFD.
    Poll,
    /// On one core, in the process's one thread.
    Sync,
}

/// What cores run on.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// The fastest that the mode and this machine allow.
    #[default]
    Auto,
    /// Our own, on io_uring.
    Uring,
    /// The runtime of this name, on io_uring; where the broker was built with it.
    Monoio,
    /// The runtime of this name, on io_uring; where the broker was built with it.
    Glommio,
    /// Our own, on readiness.
    Poll,
}

impl ExecutorKind {
    /// Whether this broker was built with it.
    pub fn is_built_in(self) -> bool {
        let is_64_bit_linux = cfg!(all(target_os = "linux", target_pointer_width = "64"));
        match self {
            Self::Auto | Self::Uring | Self::Poll => true,
            Self::Monoio => cfg!(feature = "monoio") && is_64_bit_linux,
            Self::Glommio => cfg!(feature = "glommio") && is_64_bit_linux,
        }
    }

    /// Its name in flags and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Monoio => "monoio",
            Self::Glommio => "glommio",
            Self::Poll => "poll",
        }
    }
}

impl Flags {
    /// Defaults, file and flags taken together.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = match &self.config {
            Some(file) => Settings::from_file(file)?,
            None => Settings::default(),
        };
        if !self.listen.is_empty() {
            settings.listen.clone_from(&self.listen);
        }
        if let Some(cores) = &self.cores {
            settings.cores = cores.clone();
        }
        if let Some(data) = &self.data {
            settings.storage.data = data.clone().into();
        }
        settings.mode = self.mode.unwrap_or(settings.mode);
        settings.numa |= self.numa;
        settings.executor = self.executor.unwrap_or(settings.executor);
        settings.log.format = self.log_format.unwrap_or(settings.log.format);
        settings.log.level = self.log_level.unwrap_or(settings.log.level);
        if let Some(interval_s) = self.stats {
            settings.stats.enabled = true;
            settings.stats.interval_s = interval_s.unwrap_or(settings.stats.interval_s);
        }
        settings.stats.format = self.stats_format.unwrap_or(settings.stats.format);
        if let Some(log) = &self.stats_log {
            settings.stats.log.clone_from(log);
        }
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_says_exactly_the_defaults() {
        let text = include_str!("../deploy/broker.toml");
        let parsed = Settings::from_toml(text).expect("the documented file parses");
        assert_eq!(parsed, Settings::default());
    }

    #[test]
    fn the_documented_file_has_every_key() {
        let text = include_str!("../deploy/broker.toml");
        let table: toml::Table = text.parse().expect("it parses");
        let debug = format!("{:?}", Settings::default());
        let sections = ["uring", "storage", "log", "stats", "limits", "mqtt"];
        for section in sections {
            for key in table[section].as_table().expect("a section").keys() {
                assert!(debug.contains(&format!("{key}:")), "{section}.{key}");
            }
        }
        let documented: usize =
            sections.iter().map(|s| table[*s].as_table().expect("a section").len()).sum();
        // Every field shows as `name: value`; `listen`, `cores`, `numa`, `mode`, `executor` and the sections are the others.
        let fields = debug.matches(": ").count() - 5 - sections.len();
        assert_eq!(documented, fields, "a key is missing from deploy/broker.toml");
    }

    #[test]
    fn the_readme_lists_every_limit_with_its_default() {
        let readme = include_str!("../README.md");
        let (_, limits) = readme.split_once("## Limits").expect("the section");
        let (limits, _) = limits.split_once("\n## ").expect("another follows");
        let documented: toml::Table =
            include_str!("../deploy/broker.toml").parse().expect("it parses");
        for (key, default) in documented["limits"].as_table().expect("a section") {
            let row = format!("| `{key}` | {default}");
            assert!(limits.contains(&row), "README.md lacks: {row}");
        }
        let rows = limits.matches("\n| `").count();
        assert_eq!(
            rows,
            documented["limits"].as_table().expect("a section").len(),
            "a row too many"
        );
    }

    fn error(text: &str) -> String {
        Settings::from_toml(text).expect_err("it is wrong")
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_keys_there_are() {
        let error = error("[limits]\nconections_max = 5\n");
        assert!(error.contains("line 2, column 1"), "{error}");
        assert!(
            error.contains("`conections_max`") && error.contains("`connections_max`"),
            "{error}"
        );
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_place_and_the_range() {
        for value in ["-1", "70000"] {
            let error = error(&format!("[limits]\n\nreceive_maximum = {value}\n"));
            assert!(error.contains("line 3"), "{error}");
            assert!(
                error.contains("receive_maximum") && error.contains("from 1 to 65535"),
                "{error}"
            );
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
        let settings = flags.settings().expect("fine");
        assert_eq!(settings.listen, ["127.0.0.1:2".parse().expect("an address")]);
        assert_eq!((settings.log.level, settings.log.format), (LogLevel::Error, LogFormat::Json));
        assert_eq!(settings.limits, Limits::default());
        std::fs::remove_dir_all(folder).expect("removed");
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
    fn stats_without_seconds_keeps_the_interval_of_the_file() {
        let settings = |flag: &str| {
            let flags = Flags::parse_from(["broker", flag]);
            flags.settings().expect("fine").stats
        };
        assert_eq!(settings("--stats"), Stats { enabled: true, ..Stats::default() });
        let each_7_s = Stats { enabled: true, interval_s: 7, ..Stats::default() };
        assert_eq!(settings("--stats=7"), each_7_s);
    }

    #[test]
    fn sending_clients_away_needs_a_place_to_send_them_to() {
        let settings = Settings::from_toml("[mqtt]\nredirect = \"permanent\"").expect("it parses");
        assert!(settings.check().is_err_and(|e| e.to_string().contains("server_reference")));
    }
}
