//! Command-line flags, which override environment variables and the configuration file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::InPlace;
use crate::config::{
    Addresses, ConfigError, Configuration, Cores, ExecutorKind, LogFormat, LogLevel, Mode,
    StatsFormat,
};
use crate::mosquitto::configuration::Generation;

/// An MQTT broker that gets everything out of one machine.
///
/// Without flags, the broker listens on `127.0.0.1:1883` and `[::1]:1883`, for clients on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringmq", version, about, after_long_help = EXIT_CODES)]
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

    /// Configuration file of Mosquitto, used as it is, with the defaults of Mosquitto.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub mosquitto_conf: Option<PathBuf>,

    /// Release of Mosquitto whose defaults are used with its configuration file.
    #[arg(long, value_name = "RELEASE", default_value = "2.1", global = true)]
    pub mosquitto: Generation,

    /// The flags of Mosquitto, if the program is called by its name.
    #[arg(skip)]
    pub in_place: Option<InPlace>,

    /// Check the configuration, report errors, and exit.
    #[arg(long)]
    pub check_config: bool,

    /// Print every effective setting with its origin, and exit.
    #[arg(long, conflicts_with = "check_config")]
    pub print_config: bool,

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
#[derive(Clone, Debug, Subcommand)]
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
    /// Check and convert configuration files of Mosquitto.
    Mosquitto {
        /// The command.
        #[command(subcommand)]
        what: MosquittoCommand,
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
    /// Ask and steer a running broker through its admin interface.
    #[cfg(feature = "admin")]
    #[command(after_long_help = CTL_EXIT_CODES)]
    Ctl(super::ctl::CtlFlags),
    /// Show the cluster as a running broker sees it.
    #[cfg(feature = "admin")]
    #[command(after_long_help = CTL_EXIT_CODES)]
    Cluster(super::ctl::ClusterFlags),
    /// Print the completions of this command line for a shell, under the name that the program is called by.
    #[cfg(feature = "completions")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
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
    /// Protect the hashes of mosquitto_passwd, which are fast to guess, by Argon2id; no password is needed.
    Upgrade,
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

        /// The syntax of the file, instead of the configured one.
        #[arg(long, value_parser = ["ringmq", "mosquitto"])]
        format: Option<String>,
    },
}

/// Commands for configuration files of Mosquitto.
#[derive(Clone, Debug, Subcommand)]
pub enum MosquittoCommand {
    /// Print how each line is taken over: same, translated, ignored or refused. Exit code 1 if one is refused.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print a configuration file of this broker with the same meaning.
    Convert {
        /// The file.
        file: PathBuf,
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
    /// Read the output of `export` from standard input into an empty store, or the database of another broker
    /// into any store.
    Import {
        /// What to import instead.
        #[command(subcommand)]
        from: Option<ImportCommand>,
    },
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

/// Databases of other brokers.
#[derive(Clone, Debug, Subcommand)]
pub enum ImportCommand {
    /// Take sessions, queued and retained messages from `mosquitto.db` of Mosquitto 1.4 to 2.1. Entries of
    /// the store stay; the same file is imported once.
    Mosquitto {
        /// The database.
        file: PathBuf,

        /// Sessions belong to the users in the database from then on. Mosquitto up to 2.0.15 writes wrong ones.
        #[arg(long)]
        owners: bool,

        /// Of a damaged database, take the part before the damage.
        #[arg(long)]
        salvage: bool,
    },
}

const EXIT_CODES: &str = "\
Exit codes: 0 stopped by SIGTERM or SIGINT, after a DISCONNECT to every client; 2 invalid flags or \
configuration; 3 an address cannot be listened on; 4 the descriptor limit is too low for the configured \
connections; 5 the store cannot be used; 6 other nodes of the cluster have taken over the sessions of this \
one; 1 any other error.";

#[cfg(feature = "admin")]
const CTL_EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the broker answered no, or any other error; 2 invalid flags or files; 3 no admin \
interface can be reached; 4 not allowed; 5 done in part.";

impl Flags {
    /// The configuration: defaults, overridden by files, by the environment, by flags.
    pub fn configuration(&self) -> Result<Configuration, Vec<ConfigError>> {
        let mut configuration = match (&self.mosquitto_conf, &self.in_place) {
            (None, None) => Configuration::read(self.config.as_deref(), std::env::vars_os())?,
            (file, in_place) => {
                super::mosquitto::configuration(file.as_deref(), self.mosquitto, in_place.as_ref())?
            }
        };
        self.apply(&mut configuration);
        configuration.check().map_err(|error| vec![error])?;
        Ok(configuration)
    }

    /// Sets what flags override.
    fn apply(&self, configuration: &mut Configuration) {
        let mut set = Vec::new();
        let settings = &mut configuration.settings;
        if !self.listen.is_empty() || !self.port.is_empty() {
            let ports = self.port.iter().map(|&port| Addresses::loopback(port));
            let all = self.listen.iter().cloned().chain(ports);
            settings.listen = all.flat_map(|addresses| addresses.0).collect();
            let flag = if self.listen.is_empty() { "--port" } else { "--listen" };
            set.push(("listen", flag));
        }
        let mut note = |key, flag, is_given: bool| {
            if is_given {
                set.push((key, flag))
            }
        };
        note("cores", "--cores", over(&mut settings.cores, self.cores.clone()));
        let data = self.data.clone().map(Into::into);
        note("storage.data", "--data", over(&mut settings.storage.data, data));
        note("mode", "--mode", over(&mut settings.mode, self.mode));
        note("numa", "--numa", over(&mut settings.numa, self.numa.then_some(true)));
        note("executor", "--executor", over(&mut settings.executor, self.executor));
        note("log.format", "--log-format", over(&mut settings.log.format, self.log_format));
        let (level, flag) = match self.verbose {
            0 => (self.log_level, "--log-level"),
            1 => (Some(LogLevel::Debug), "--verbose"),
            _ => (Some(LogLevel::Trace), "--verbose"),
        };
        note("log.level", flag, over(&mut settings.log.level, level));
        let stats = &mut settings.stats;
        note("stats.enabled", "--stats", over(&mut stats.enabled, self.stats.map(|_| true)));
        note("stats.interval_s", "--stats", over(&mut stats.interval_s, self.stats.flatten()));
        note("stats.format", "--stats-format", over(&mut stats.format, self.stats_format));
        note("stats.log", "--stats-log", over(&mut stats.log, self.stats_log.clone()));
        for (key, flag) in set {
            configuration.set_by_flag(key, flag);
        }
    }
}

/// Overrides a setting if its flag is given. Whether the flag is given.
fn over<T>(setting: &mut T, flag: Option<T>) -> bool {
    let is_given = flag.is_some();
    if let Some(value) = flag {
        *setting = value;
    }
    is_given
}
