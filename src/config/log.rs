//! The log, and statistics.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Deserialize;

use super::number::between;

/// The log.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Level.
    pub level: LogLevel,
    /// Format.
    pub format: LogFormat,
}

/// Level of a log event.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The broker stops, or data is lost.
    Error,
    /// An operator should look at this.
    Warn,
    /// Start, stop, and few other events.
    #[default]
    Info,
    /// A line for each connection event.
    Debug,
    /// Everything.
    Trace,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Statistics: latencies and counters.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
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
    pub log: PathBuf,
}

/// Format of statistics on standard output.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StatsFormat {
    /// A table for people.
    #[default]
    Table,
    /// One JSON object per line.
    Json,
}
