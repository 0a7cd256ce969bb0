//! Command-line flags, which override the configuration file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{
    Addresses, ConfigError, Cores, ExecutorKind, LogFormat, LogLevel, Mode, Settings, StatsFormat,
};

/// An MQTT broker that gets everything out of one machine.
///
/// Without flags, the broker listens on `127.0.0.1:1883` and `[::1]:1883`, for clients on this machine.
#[derive(Debug, Parser)]
#[command(name = "broker", version, about, after_long_help = EXIT_CODES)]
pub struct Flags {
    /// Command to run instead of the broker.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address or host name to listen on, instead of the configured ones; may be repeated. A port
    /// alone means all addresses of this machine. Port 0 chooses a free port and logs it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<Addresses>,

    /// Port to listen on for clients on this machine (127.0.0.1 and ::1), instead of the configured
    /// addresses; may be repeated.
    #[arg(short, long, value_name = "PORT")]
    pub port: Vec<u16>,

    /// Configuration file (TOML); `deploy/broker.toml` documents every key.
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Check the configuration, report errors, and exit.
    #[arg(long)]
    pub check_config: bool,

    /// Format of the log on standard error.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Log level.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    /// Log every connection event (`--log-level debug`); -vv logs everything (`trace`).
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "log_level")]
    pub verbose: u8,

    /// Folder for sessions and retained messages, or `none` for memory only. The default is a folder named
    /// after the port, in the state folder of the user or the service.
    #[arg(long, value_name = "DIR|none", global = true)]
    pub data: Option<String>,

    /// Cores to run on: a number, or a list such as `0,2,4-7`. Each core runs one thread, pinned to a
    /// processor if there are enough.
    #[arg(long, value_name = "N|LIST")]
    pub cores: Option<Cores>,

    /// Choose cores by NUMA node, beginning with the node of the network card, and allocate each core's
    /// memory on its node. `broker platform --plan` shows the placement.
    #[arg(long)]
    pub numa: bool,

    /// I/O method: io_uring, readiness (`poll`), one core in the main thread (`sync`), or the fastest that
    /// is available (`auto`).
    #[arg(long)]
    pub mode: Option<Mode>,

    /// Executor of the cores: the broker's own, on io_uring or on readiness, or a runtime that this broker
    /// was built with.
    #[arg(long)]
    pub executor: Option<ExecutorKind>,

    /// Collect statistics, including latency histograms, and print them on exit, on SIGUSR1 (Unix) and, if
    /// given, every SECONDS seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1,
          value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub stats: Option<Option<u32>>,

    /// Format of statistics on standard output.
    #[arg(long, value_name = "FORMAT")]
    pub stats_format: Option<StatsFormat>,

    /// File for the histograms of every interval, an HdrHistogram interval log; on exit, a `.hgrm` file for
    /// each kind of latency is written beside it.
    #[arg(long, value_name = "FILE")]
    pub stats_log: Option<PathBuf>,
}

/// Commands other than running the broker.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Describe this machine, its limits, and suitable settings.
    Platform {
        /// Print a JSON object.
        #[arg(long)]
        json: bool,

        /// Print the placement of cores on processors instead.
        #[arg(long)]
        plan: bool,

        /// Cores to place: a number or a list.
        #[arg(long, value_name = "N|LIST", requires = "plan")]
        cores: Option<Cores>,

        /// Place cores by NUMA node.
        #[arg(long, requires = "plan")]
        numa: bool,
    },
    /// Manage a password file. Passwords are typed, or read from standard input.
    Passwd {
        /// The password file, instead of the configured one.
        #[arg(long, value_name = "FILE", global = true)]
        file: Option<PathBuf>,

        /// The command.
        #[command(subcommand)]
        what: PasswdCommand,
    },
    /// Evaluate a file of access rules.
    Acl {
        /// The command.
        #[command(subcommand)]
        what: AclCommand,
    },
    /// Inspect, check, repair, export and import the store. The broker must not be running.
    Store {
        /// The command.
        #[command(subcommand)]
        what: StoreCommand,
    },
    /// Manage the Windows service, which starts with the machine.
    #[cfg(all(feature = "service", windows))]
    Service {
        /// The command.
        #[command(subcommand)]
        what: ServiceCommand,
    },
}

/// Commands of the Windows service.
#[cfg(all(feature = "service", windows))]
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ServiceCommand {
    /// Install the service with the given `--config` and `--data`, and start it. Its log is
    /// `%ProgramData%\ringmq\broker.log`. All other settings come from the configuration file.
    Install,
    /// Stop and remove the service; configuration, data and log stay.
    Uninstall,
    /// Run the service; called by the service manager.
    Run,
}

/// Commands for a password file.
#[derive(Clone, Debug, Subcommand)]
pub enum PasswdCommand {
    /// Add a user, or change the password of one.
    Add {
        /// User Name.
        user: String,
    },
    /// Remove a user.
    Remove {
        /// User Name.
        user: String,
    },
    /// List all users.
    List,
    /// Check a password of a user; exit code 1 if it is wrong.
    Verify {
        /// User Name.
        user: String,
    },
}

/// Commands for a file of access rules.
#[derive(Clone, Debug, Subcommand)]
pub enum AclCommand {
    /// Show whether a user may publish or subscribe to a topic, or use a Client Identifier, and the rule
    /// that decides; exit code 1 if anything is denied.
    Check {
        /// User Name; `-` for an anonymous client.
        user: String,

        /// Topic Name, or Topic Filter.
        #[arg(required_unless_present = "client")]
        topic: Option<String>,

        /// Client Identifier.
        #[arg(long, value_name = "ID")]
        client: Option<String>,

        /// Check publishing. Without --publish and --subscribe, both are checked.
        #[arg(long)]
        publish: bool,

        /// Check subscribing.
        #[arg(long)]
        subscribe: bool,

        /// QoS of the message or subscription.
        #[arg(long, value_name = "QOS", default_value_t = 0,
              value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,

        /// Check publishing with RETAIN.
        #[arg(long)]
        retain: bool,

        /// The file of access rules, instead of the configured one.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// Commands for the store.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Show what the store contains.
    Inspect {
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Read every byte, and report torn or damaged places.
    Verify,
    /// Rewrite the store without obsolete records.
    Compact,
    /// Write the content to standard output, one JSON object per line.
    Export,
    /// Read the output of `export` from standard input into an empty store.
    Import,
    /// Keep the intact records of a damaged store, and move the damaged files aside.
    Repair,
    /// End the session of a client, for example of a user who does not come back: deletes its
    /// subscriptions, queued messages and Will.
    EndSession {
        /// The Client Identifier.
        #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        client: String,
    },
}

const EXIT_CODES: &str = "\
Exit codes: 0 stopped by SIGTERM or SIGINT, after a DISCONNECT to every client; 2 invalid flags or \
configuration; 3 an address cannot be listened on; 4 the descriptor limit is too low for the configured \
connections; 5 the store cannot be used; 1 any other error.";

impl Flags {
    /// The settings: defaults, overridden by the file, overridden by flags.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = match &self.config {
            Some(file) => Settings::from_file(file)?,
            None => Settings::default(),
        };
        if !self.listen.is_empty() || !self.port.is_empty() {
            let ports = self.port.iter().map(|&port| Addresses::loopback(port));
            let all = self.listen.iter().cloned().chain(ports);
            settings.listen = all.flat_map(|addresses| addresses.0).collect();
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
        settings.log.level = match self.verbose {
            0 => self.log_level.unwrap_or(settings.log.level),
            1 => LogLevel::Debug,
            _ => LogLevel::Trace,
        };
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
