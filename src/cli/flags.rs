//! The command line, which goes over the file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{
    Addresses, ConfigError, Cores, ExecutorKind, LogFormat, LogLevel, Mode, Settings, StatsFormat,
};

/// An MQTT broker that gets everything out of one machine.
///
/// Without flags it listens on `127.0.0.1:1883` and `[::1]:1883`, for clients on this machine.
#[derive(Debug, Parser)]
#[command(name = "broker", version, about, after_long_help = EXIT_CODES)]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address or host name to listen on, instead of the configured ones; may be repeated. A port
    /// alone is for all addresses of this machine. Port 0 takes a free one and logs it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<Addresses>,

    /// Port to listen on for clients on this machine (127.0.0.1 and ::1), instead of the configured
    /// addresses; may be repeated.
    #[arg(short, long, value_name = "PORT")]
    pub port: Vec<u16>,

    /// Configuration file (TOML); `deploy/broker.toml` documents every key.
    #[arg(short, long, value_name = "FILE", global = true)]
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

    /// Log a line for each connection event: `--log-level debug`. Twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "log_level")]
    pub verbose: u8,

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
    #[arg(long, value_name = "SECONDS", num_args = 0..=1,
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
    /// Change or look at a password file. Passwords are typed, or read from standard input.
    Passwd {
        /// The password file, instead of the configured one.
        #[arg(long, value_name = "FILE", global = true)]
        file: Option<PathBuf>,

        /// What to do.
        #[command(subcommand)]
        what: PasswdCommand,
    },
    /// Ask a file of rules.
    Acl {
        /// What to ask.
        #[command(subcommand)]
        what: AclCommand,
    },
    /// Look at what is kept on disk, check it, carry it elsewhere. The broker must not run.
    Store {
        /// What to do.
        #[command(subcommand)]
        what: StoreCommand,
    },
    /// Be a service of Windows, which starts with the machine.
    #[cfg(all(feature = "service", windows))]
    Service {
        /// What to do.
        #[command(subcommand)]
        what: ServiceCommand,
    },
}

/// What to do with the service of Windows.
#[cfg(all(feature = "service", windows))]
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ServiceCommand {
    /// Install it with the `--config` and `--data` given here, and start it. Its log is
    /// `%ProgramData%\ringmq\broker.log`. Everything else is said in the configuration file.
    Install,
    /// Stop it and take it away; configuration, data and log stay.
    Uninstall,
    /// What the service manager calls.
    Run,
}

/// What to do with a password file.
#[derive(Clone, Debug, Subcommand)]
pub enum PasswdCommand {
    /// Add a user, or give it another password.
    Add {
        /// User Name.
        user: String,
    },
    /// Take a user out.
    Remove {
        /// User Name.
        user: String,
    },
    /// Say who is in it.
    List,
    /// Say whether a password is a user's; exit code 1 if not.
    Verify {
        /// User Name.
        user: String,
    },
}

/// What to do with a file of rules.
#[derive(Clone, Debug, Subcommand)]
pub enum AclCommand {
    /// Say what a user may do with a topic, and whether it may have a Client Identifier, and which
    /// rule says so; exit code 1 if anything asked is denied.
    Check {
        /// User Name; `-` for a client without one.
        user: String,

        /// Topic Name, or Topic Filter.
        #[arg(required_unless_present = "client")]
        topic: Option<String>,

        /// Client Identifier.
        #[arg(long, value_name = "ID")]
        client: Option<String>,

        /// May it publish there? Without this and --subscribe both are asked.
        #[arg(long)]
        publish: bool,

        /// May it subscribe there?
        #[arg(long)]
        subscribe: bool,

        /// With this QoS.
        #[arg(long, value_name = "QOS", default_value_t = 0,
              value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,

        /// A message that is to be retained.
        #[arg(long)]
        retain: bool,

        /// The file of rules, instead of the configured one.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
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
    /// End the session of a client, as one that belongs to a user who does not come back: its
    /// subscriptions, what waits in it and its Will are gone.
    EndSession {
        /// The Client Identifier.
        #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        client: String,
    },
}

const EXIT_CODES: &str = "\
Exit codes: 0 stopped by SIGTERM or SIGINT, all clients told; 2 flags or configuration cannot be \
used; 3 an address cannot be listened on; 4 the descriptor limit is too low for the configured \
connections; 5 the store cannot be used; 1 anything else.";

impl Flags {
    /// Defaults, file and flags taken together.
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
