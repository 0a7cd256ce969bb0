//! Configuration: defaults, overridden by a TOML file. Every key is a field here and documented in
//! `deploy/broker.toml`; a test compares the two.

mod access;
mod address;
mod executor;
mod limits;
pub mod listener;
mod log;
mod mqtt;
mod number;
mod protection;
pub mod proxy;
mod storage;
#[cfg(test)]
mod tests;
mod unix_socket;
pub mod websocket;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use access::{Access, Anonymous, Hashing, Http, Jwt, OnFailure, TokenIn};
pub use address::Addresses;
pub use executor::{Cores, ExecutorKind, Mode, Uring};
pub use limits::{Limits, QueuePolicy};
pub use listener::{Bind, ClientCertificate, Listener, Transport};
pub use log::{Log, LogFormat, LogLevel, Stats, StatsFormat};
pub use mqtt::{Mqtt, Redirect};
use number::between;
pub use protection::Protection;
use storage::state_folder;
pub use storage::{Data, Storage, Sync};

/// The settings of a broker.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
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
    /// Cores to run on.
    pub cores: Cores,
    /// Whether cores are chosen by NUMA node.
    pub numa: bool,
    /// I/O method.
    pub mode: Mode,
    /// Executor of the cores.
    pub executor: ExecutorKind,
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Addresses::loopback(1883).0,
            listeners: Vec::new(),
            bind_wait_s: 0,
            free_bind: false,
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
            access: Access::default(),
            protection: Protection::default(),
        }
    }
}

/// An invalid configuration: the file, the place, and the reason.
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

/// A parse error, with the line unless it may contain a password, which must not reach the log.
fn described(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = text.lines().nth(before.matches('\n').count()).unwrap_or_default();
    match line.split_once("://").is_some_and(|(_, after)| after.contains('@')) {
        true => format!(
            "TOML parse error at line {}: {} (the line is not shown because a URL in it has a password)",
            before.matches('\n').count() + 1,
            error.message()
        ),
        false => error.to_string(),
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
                let port = self.every_listener().find_map(|listener| match listener.bind {
                    Bind::Address(address) => Some(address.port()),
                    Bind::Path(_) => None,
                });
                let port = port.unwrap_or(0);
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

    /// Reads a TOML file over the defaults.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let error = |message: String| ConfigError { file: Some(path.to_owned()), message };
        let text = crate::base::text_file::read(path)
            .map_err(|e| error(format!("cannot be read: {e}; name a readable TOML file")))?;
        Self::from_toml(&text).map_err(error)
    }

    /// Reads the text of a TOML file over the defaults; errors name line, column, key and the accepted values.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let mut settings: Self = toml::from_str(text).map_err(|error| described(text, &error))?;
        let table: toml::Table = text.parse().map_err(|error| described(text, &error))?;
        if !settings.listeners.is_empty() && !table.contains_key("listen") {
            settings.listen.clear();
        }
        settings.spread(&table)?;
        Ok(settings)
    }

    /// Makes a listener of each address that a `bind` stands for, and refuses tables that the listener's
    /// transport does not use, even if their values are the defaults.
    fn spread(&mut self, table: &toml::Table) -> Result<(), String> {
        let Some(tables) = table.get("listeners").and_then(toml::Value::as_array) else {
            return Ok(());
        };
        for (listener, table) in std::mem::take(&mut self.listeners).into_iter().zip(tables) {
            for name in ["tls", "websocket", "unix"] {
                if table.get(name).is_some() {
                    listener.check_table(name)?;
                }
            }
            let bind = table.get("bind").and_then(toml::Value::as_str).unwrap_or_default();
            match &listener.bind {
                Bind::Path(_) => self.listeners.push(listener),
                Bind::Address(_) => {
                    let of =
                        |address| Listener { bind: Bind::Address(address), ..listener.clone() };
                    self.listeners.extend(bind.parse::<Addresses>()?.0.into_iter().map(of));
                }
            }
        }
        Ok(())
    }

    /// All listeners in the order of their numbers, those of [`Self::listen`] first.
    pub fn every_listener(&self) -> impl Iterator<Item = Listener> + '_ {
        let plain = self.listen.iter().map(|&address| Listener::tcp(address));
        plain.chain(self.listeners.iter().cloned())
    }

    /// Checks conditions that involve several keys, or keys and flags.
    pub fn check(&self) -> Result<(), ConfigError> {
        let error = |message: &str| Err(ConfigError { file: None, message: message.to_owned() });
        let listeners = self.listen.len() + self.listeners.len();
        if listeners == 0 {
            return error("listen: no address; name one, such as \"127.0.0.1:1883\"");
        }
        if listeners > LISTENERS_MAX {
            return error("listen, [[listeners]]: more than 64 listeners");
        }
        for listener in &self.listeners {
            listener.check().or_else(|message| error(&message))?;
        }
        self.check_clashes().or_else(|message| error(&message))?;
        if self.free_bind && !cfg!(target_os = "linux") {
            return error("free_bind: not supported on this system; use bind_wait_s instead");
        }
        if self.mode == Mode::Sync && self.cores.count() > 1 {
            return error("mode sync runs on one core; choose another mode, or --cores 1");
        }
        use ExecutorKind as Kind;
        match (self.mode, self.executor) {
            (Mode::Poll, Kind::Uring | Kind::Monoio | Kind::Glommio) => {
                return error("mode poll excludes this executor, which uses io_uring");
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
                "stats: options without statistics; enable statistics with --stats or \
                 stats.enabled = true",
            );
        }
        if let Data::Folder(folder) = &self.storage.data
            && !cfg!(feature = "store")
        {
            return error(&format!(
                "storage.data {}: this broker was built without a store; build it with \
                 `cargo build --release --features store`, or use --data none",
                folder.display()
            ));
        }
        if self.mqtt.redirect != Redirect::None && self.mqtt.server_reference.is_empty() {
            return error(
                "mqtt.redirect: clients are redirected but mqtt.server_reference is empty; \
                 name the other server",
            );
        }
        Ok(())
    }
}

impl Settings {
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
