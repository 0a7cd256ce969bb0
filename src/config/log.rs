//! The log, and statistics.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Deserialize;

use super::number::between;

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
