//! Configuration: defaults, overridden by TOML files, overridden by environment variables, overridden by flags. Every
//! key is a field here and documented in `deploy/broker.toml`; a test compares the two.

mod access;
mod address;
mod admin;
pub mod bridge;
mod cluster;
mod configuration;
mod deserializer;
mod document;
mod environment;
mod error;
mod executor;
mod file;
pub mod keys;
mod limits;
pub mod listener;
mod listener_numbers;
mod log;
mod mqtt;
mod number;
mod protection;
pub mod proxy;
mod serializer;
mod storage;
pub mod telemetry;
#[cfg(test)]
mod tests;
mod unix_socket;
mod webhook;
pub mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use access::{
    Access, AclFormat, Anonymous, Authorization, Database, Hashing, Http, Jwt, OnFailure, Params,
    ServerAnswer, TokenIn,
};
pub use address::Addresses;
pub use admin::{Admin, AdminAccess, AdminBind, AdminTls, Role, Scrapers};
pub use bridge::Bridge;
pub use cluster::{Cluster, ClusterEngine, ClusterNode, Degrade, Replicas};
pub use configuration::{Configuration, Entry, Origin};
pub use environment::variable_of;
pub use error::ConfigError;
pub use executor::{Cores, ExecutorKind, Mode, Uring};
pub use limits::{Limits, QueuePolicy};
pub use listener::{Bind, ClientCertificate, Listener, Transport};
pub use listener_numbers::ListenerNumbers;
pub use log::{Log, LogFormat, LogLevel, LogTo, Stats, StatsFormat};
pub use mqtt::{Mqtt, Redirect};
use number::between;
pub use protection::Protection;
use storage::state_folder;
pub use storage::{Data, Storage, Sync};
pub use telemetry::{Sampling, Telemetry};
pub use webhook::{Webhook, WebhookEvent};

/// The settings of a broker.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder of further files, relative to the folder of the file that names it; empty for none.
    pub include: PathBuf,
    /// Addresses to listen on for MQTT over TCP. The default addresses are not used if
    /// [`Self::listeners`] are configured.
    #[serde(deserialize_with = "address::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Further listeners, each with its own options.
    pub listeners: Vec<Listener>,
    /// Seconds that a start waits for an address that this machine does not have yet.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub bind_wait_s: u32,
    /// Whether to listen on addresses that this machine does not have yet (`IP_FREEBIND` of Linux).
    pub free_bind: bool,
    /// File for the process identifier; empty for none.
    pub pid_file: PathBuf,
    /// User that serves, where the broker is started as root; empty for the one that starts it.
    pub user: String,
    /// Cores to run on.
    pub cores: Cores,
    /// Whether cores are chosen by NUMA node.
    pub numa: bool,
    /// I/O method.
    pub mode: Mode,
    /// Executor of the cores.
    pub executor: ExecutorKind,
    /// Microseconds that a busy core waits at most for more input before it serves what has come; 0 for never.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000>")]
    pub latency_budget_us: u32,
    /// Options of io_uring.
    pub uring: Uring,
    /// The store.
    pub storage: Storage,
    /// The log.
    pub log: Log,
    /// Statistics.
    pub stats: Stats,
    /// Limits on the resources that clients can use.
    pub limits: Limits,
    /// Options that the MQTT specification leaves to the server.
    pub mqtt: Mqtt,
    /// Authentication and authorization.
    pub access: Access,
    /// Limits per address, user and client.
    pub protection: Protection,
    /// The admin interface.
    pub admin: Admin,
    /// Events that are reported to HTTP servers.
    pub webhooks: Vec<Webhook>,
    /// Other brokers of which this one is a client.
    pub bridges: Vec<Bridge>,
    /// Telemetry by OTLP.
    pub telemetry: Telemetry,
    /// A cluster of brokers.
    pub cluster: Cluster,
    /// The numbers of listeners.
    #[serde(skip)]
    pub listener_numbers: ListenerNumbers,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            include: PathBuf::new(),
            listen: Addresses::loopback(1883).0,
            listeners: Vec::new(),
            bind_wait_s: 0,
            free_bind: false,
            pid_file: PathBuf::new(),
            user: String::new(),
            cores: Cores::default(),
            numa: false,
            mode: Mode::default(),
            executor: ExecutorKind::default(),
            latency_budget_us: 1_000,
            uring: Uring::default(),
            storage: Storage::default(),
            log: Log::default(),
            stats: Stats::default(),
            limits: Limits::default(),
            mqtt: Mqtt::default(),
            access: Access::default(),
            protection: Protection::default(),
            admin: Admin::default(),
            webhooks: Vec::new(),
            bridges: Vec::new(),
            telemetry: Telemetry::default(),
            cluster: Cluster::default(),
            listener_numbers: ListenerNumbers::default(),
        }
    }
}

impl Settings {
    /// The folder of the store, or the reason why there is no store.
    pub fn data_folder(&self) -> Result<PathBuf, &'static str> {
        match &self.storage.data {
            Data::Folder(folder) => Ok(folder.clone()),
            Data::None => Err("as configured"),
            Data::Auto if !cfg!(feature = "store") => Err("this broker was built without a store"),
            Data::Auto => {
                let port = self.first_port().unwrap_or(0);
                if port == 0 {
                    return Err(
                        "a port that the system chooses does not identify this broker after a \
                                restart; name a folder with --data DIR",
                    );
                }
                let folder = state_folder().ok_or(NO_FOLDER)?;
                Ok(folder.join("ringmq").join(port.to_string()))
            }
        }
    }

    /// The error of a configuration that asks for a store without any folder being known.
    pub fn lacks_folder(&self) -> Option<&'static str> {
        self.data_folder().err().filter(|why| *why == NO_FOLDER)
    }

    /// All listeners in the order of their numbers, those of [`Self::listen`] first.
    pub fn every_listener(&self) -> impl Iterator<Item = Listener> + '_ {
        let plain = self.listen.iter().map(|&address| Listener::tcp(address));
        plain.chain(self.listeners.iter().cloned())
    }

    /// Checks conditions that involve several keys, or keys and flags.
    pub fn check(&self) -> Result<(), ConfigError> {
        let error = |key: &str, what: &str| Err(ConfigError::at(key, what));
        let listeners = self.listen.len() + self.listeners.len();
        if listeners == 0 {
            return error("listen", "listen: no address; name one, such as \"127.0.0.1:1883\"");
        }
        if listeners > LISTENERS_MAX {
            return error("listen", "listen, [[listeners]]: more than 64 listeners");
        }
        for (number, listener) in self.listeners.iter().enumerate() {
            listener.check().or_else(|what| error(&keys::of_listener(number), &what))?;
        }
        self.check_clashes().or_else(|what| error("listen", &what))?;
        self.check_admin().or_else(|what| error("admin", &what))?;
        webhook::check(&self.webhooks)
            .or_else(|(number, what)| error(&keys::of_table(keys::WEBHOOKS, number), &what))?;
        bridge::check(&self.bridges)
            .or_else(|(number, what)| error(&keys::of_table(keys::BRIDGES, number), &what))?;
        let cluster = self.cluster.check().and_then(|()| self.cluster.check_storage(&self.storage));
        cluster.or_else(|(key, what)| error(&format!("cluster.{key}"), &what))?;
        self.telemetry.check().or_else(|what| error("telemetry.endpoint", &what))?;
        if self.free_bind && !cfg!(target_os = "linux") {
            return error(
                "free_bind",
                "free_bind: not supported on this system; use bind_wait_s instead",
            );
        }
        self.check_executor()?;
        if !self.stats.enabled && self.stats != Stats::default() {
            return error(
                "stats",
                "stats: options without statistics; enable statistics with --stats or \
                 stats.enabled = true",
            );
        }
        if let Data::Folder(folder) = &self.storage.data
            && !cfg!(feature = "store")
        {
            let what = format!(
                "storage.data {}: this broker was built without a store; build it with \
                 `cargo build --release --features store`, or use --data none",
                folder.display()
            );
            return error("storage.data", &what);
        }
        if self.log.topics && self.log.format != LogFormat::Mosquitto {
            return error("log.topics", "log.topics: needs log.format = \"mosquitto\"");
        }
        mqtt::check_assigned_prefix(&self.mqtt.assigned_identifier_prefix)
            .or_else(|what| error("mqtt.assigned_identifier_prefix", &format!("mqtt.{what}")))?;
        if self.mqtt.redirect != Redirect::None && self.mqtt.server_reference.is_empty() {
            return error(
                "mqtt.redirect",
                "mqtt.redirect: clients are redirected but mqtt.server_reference is empty; \
                 name the other server",
            );
        }
        Ok(())
    }

    /// Checks cores, mode and executor.
    fn check_executor(&self) -> Result<(), ConfigError> {
        use ExecutorKind as Kind;
        let error = |key: &str, what: &str| Err(ConfigError::at(key, what));
        if self.mode == Mode::Sync && self.cores.count() > 1 {
            return error("mode", "mode sync runs on one core; choose another mode, or --cores 1");
        }
        match (self.mode, self.executor) {
            (Mode::Poll, Kind::Uring | Kind::Monoio | Kind::Glommio) => {
                error("mode", "mode poll excludes this executor, which uses io_uring")
            }
            (Mode::Uring, Kind::Poll) => {
                error("mode", "mode uring and executor poll exclude each other")
            }
            (_, kind) if !kind.is_built_in() => {
                let name = kind.name();
                let what = format!(
                    "executor {name}: this broker was built without it; build it with \
                     `cargo build --release --features {name}`, or choose another"
                );
                error("executor", &what)
            }
            _ => Ok(()),
        }
    }

    /// Refuses two listeners for the same address or path.
    fn check_clashes(&self) -> Result<(), String> {
        let binds: Vec<Bind> = self.every_listener().map(|listener| listener.bind).collect();
        for (place, one) in binds.iter().enumerate() {
            for other in &binds[..place] {
                let clash = match (other, one) {
                    (Bind::Address(other), Bind::Address(one)) => address::clash(other, one),
                    _ => {
                        (one == other).then(|| format!("{one} is listened on twice; name it once"))
                    }
                };
                if let Some(clash) = clash {
                    return Err(format!("listen, [[listeners]]: {clash}"));
                }
            }
        }
        Ok(())
    }
}

const LISTENERS_MAX: usize = 64;

const NO_FOLDER: &str = "no folder for sessions and retained messages: neither STATE_DIRECTORY, XDG_STATE_HOME nor \
                         HOME is an absolute path, and this user has no home directory; name a folder with \
                         --data DIR, or use --data none";
