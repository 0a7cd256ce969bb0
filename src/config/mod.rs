//! Configuration: defaults, the TOML file over them, flags over both. Every key has one place here and one in
//! `deploy/broker.toml`, which a test holds against each other.

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

/// Everything a broker can be told.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Addresses to listen on for plain MQTT over TCP. Those of the defaults are not listened on by
    /// who names [`Self::listeners`].
    #[serde(deserialize_with = "address::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Further ways in, each with its own rules.
    pub listeners: Vec<Listener>,
    /// Seconds that a start waits for an address that this machine does not have yet.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub bind_wait_s: u32,
    /// Whether addresses are listened on that this machine does not have yet (Linux: `IP_FREEBIND`).
    pub free_bind: bool,
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
    /// Who is let in, and who may do what.
    pub access: Access,
    /// Bounds on what one address, one user and one client may do in a time.
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

/// What is wrong with a text, with the line it is in, unless that may hold a password: the log keeps it.
fn described(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = text.lines().nth(before.matches('\n').count()).unwrap_or_default();
    match line.split_once("://").is_some_and(|(_, after)| after.contains('@')) {
        true => format!(
            "TOML parse error at line {}: {} (the line is not shown, as a URL in it has a password)",
            before.matches('\n').count() + 1,
            error.message()
        ),
        false => error.to_string(),
    }
}

impl Settings {
    /// The folder to keep things in; none to keep nothing, with why when that was not asked for.
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
                    return Err("a port that the system chooses names no broker that could come \
                                back; name a folder with --data DIR");
                }
                let folder = state_folder().ok_or(NO_FOLDER)?;
                Ok(folder.join("ringmq").join(port.to_string()))
            }
        }
    }

    /// Why nothing can be kept though it should be: nobody says where.
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

    /// The same from its text; the error names line, column, key and what is allowed.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let mut settings: Self = toml::from_str(text).map_err(|error| described(text, &error))?;
        let table: toml::Table = text.parse().map_err(|error| described(text, &error))?;
        if !settings.listeners.is_empty() && !table.contains_key("listen") {
            settings.listen.clear();
        }
        settings.spread(&table)?;
        Ok(settings)
    }

    /// Gives each address that a `bind` means a listener of its own, and refuses tables that a listener's
    /// transport does not use, though they say what holds anyway.
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

    /// All listeners in the order of their numbers: those of [`Self::listen`] first.
    pub fn every_listener(&self) -> impl Iterator<Item = Listener> + '_ {
        let plain = self.listen.iter().map(|&address| Listener::tcp(address));
        plain.chain(self.listeners.iter().cloned())
    }

    /// What holds between keys, and between keys and flags.
    pub fn check(&self) -> Result<(), ConfigError> {
        let error = |message: &str| Err(ConfigError { file: None, message: message.to_owned() });
        let listeners = self.listen.len() + self.listeners.len();
        if listeners == 0 {
            return error("listen: there is no address; name one like \"127.0.0.1:1883\"");
        }
        if listeners > LISTENERS_MAX {
            return error("listen, [[listeners]]: there are more than 64 of them");
        }
        for listener in &self.listeners {
            listener.check().or_else(|message| error(&message))?;
        }
        self.check_clashes().or_else(|message| error(&message))?;
        if self.free_bind && !cfg!(target_os = "linux") {
            return error("free_bind: this system has no such thing; say bind_wait_s instead");
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

impl Settings {
    /// No two listeners are for the same.
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

const NO_FOLDER: &str = "there is no place to keep sessions and retained messages in: neither STATE_DIRECTORY, \
                         XDG_STATE_HOME nor HOME names a folder from the root on, and the system knows no home \
                         of this user; name a folder with --data DIR, or say --data none";
