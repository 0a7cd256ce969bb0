//! Authentication and authorization: the implementation of [`engine::Access`](crate::engine::Access)
//! by a list of authentication methods and a file of access rules.
//!
//! All files are read into one `Snapshot`, which never changes; a reload replaces it. Each core has a
//! [`CoreAccess`], which uses the current snapshot and caches, for each connection, the user and the
//! decisions made. Slow work runs in a pool of threads (`crate::base::pool`); its result comes back
//! through a channel, and [`Notify`] wakes the core.

pub mod acl;
mod cache;
mod core;
mod methods;
pub mod password_file;
mod protect;
#[cfg(feature = "scram")]
mod scram_verifier;
#[cfg(not(feature = "scram"))]
#[path = "scram_verifier_absent.rs"]
mod scram_verifier;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::base::atomic::AtomicU64;
use crate::base::metrics::AccessCounts;
use crate::base::pool::Pool;
use crate::base::secret_file;
use crate::config::listener::ProxiedIdentity;
use crate::config::{self, Anonymous, Bind, ClientCertificate, Listener, Settings};
use crate::engine::{Access, AllowAll};
use crate::wire::ReasonCode;

use acl::Rules;
pub use core::CoreAccess;
use methods::{Methods, Workers};
use password_file::{Passwords, User};
use protect::Guard;

/// Concurrent requests to servers: they wait and use no processor.
const NETWORK_THREADS_MAX: usize = 32;

/// Wakes a core that has a decision to process, or whose clients have to be checked again.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// A setting or file of the access control that cannot be used: its name, the line, and the reason.
#[derive(Debug)]
pub struct AccessError(String);

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AccessError {}

/// The content of all files at one time.
struct Snapshot {
    /// Number of the snapshot, from 1.
    revision: u64,
    /// Access rules; none without a file: everything is allowed.
    rules: Option<Rules>,
    passwords: Arc<Passwords>,
    methods: Methods,
}

/// The access control of a broker, which its cores share.
pub struct Control {
    settings: config::Access,
    snapshot: Arc<ArcSwap<Snapshot>>,
    guard: Guard,
    /// Computes hashes and signatures.
    pool: Pool,
    /// Waits for servers, in threads of its own, so that a server that hangs delays no other method.
    network_pool: Pool,
    /// Wakes every core after a reload.
    cores: Mutex<Vec<Notify>>,
    reloads: AtomicU64,
    reloads_failed: AtomicU64,
}

impl Control {
    /// Reads the files that the settings name. None if every client may connect and do everything.
    pub fn open(settings: &Settings) -> Result<Option<Arc<Self>>, AccessError> {
        let anonymous: Vec<bool> = settings
            .every_listener()
            .map(|listener| admits_anonymous(&settings.access, &listener))
            .collect();
        let asks_certificates = settings.every_listener().any(|listener| {
            listener.tls.client_certificate != ClientCertificate::None
                || listener.proxy_protocol_identity != ProxiedIdentity::None
        });
        let access = &settings.access;
        let is_open = anonymous.iter().all(|&is_open| is_open)
            && !access.knows_users()
            && access.acl_file.as_os_str().is_empty();
        if is_open && !asks_certificates && !settings.protection.counts_connections() {
            return Ok(None);
        }
        let snapshot = Snapshot::open(access, anonymous)?;
        Ok(Some(Arc::new(Self {
            settings: access.clone(),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            guard: Guard::new(&settings.protection),
            pool: Pool::for_this_machine(access.waiting_max as usize),
            network_pool: Pool::new(NETWORK_THREADS_MAX, access.waiting_max as usize),
            cores: Mutex::default(),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
        })))
    }

    /// Reads all files again and puts them into effect together. If one cannot be used, nothing changes.
    pub fn reload(&self) -> Result<(), AccessError> {
        let reloaded = self.snapshot.load().reload(&self.settings);
        match reloaded {
            Ok(snapshot) => {
                self.snapshot.store(Arc::new(snapshot));
                self.reloads.fetch_add(1, Relaxed);
                self.cores().iter().for_each(|notify| notify());
                Ok(())
            }
            Err(error) => {
                self.reloads_failed.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    /// The access control of a core, which `notify` wakes.
    pub fn for_core(self: &Arc<Self>, notify: Notify) -> CoreAccess {
        self.cores().push(Arc::clone(&notify));
        CoreAccess::new(Arc::clone(self), notify)
    }

    fn cores(&self) -> std::sync::MutexGuard<'_, Vec<Notify>> {
        // A panic leaves the list valid.
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, workers: Workers) -> &Pool {
        match workers {
            Workers::Processor => &self.pool,
            Workers::Network => &self.network_pool,
        }
    }

    fn counts(&self) -> AccessCounts {
        AccessCounts {
            reloads: self.reloads.load(Relaxed),
            reloads_failed: self.reloads_failed.load(Relaxed),
            unfinished: (self.pool.unfinished() + self.network_pool.unfinished()) as u64,
            turned_away: self.guard.turned_away(),
            bans: self.guard.bans(),
        }
    }
}

/// The access control of a core; without a `control`, everything is allowed.
pub fn make(control: Option<&Arc<Control>>, notify: Notify) -> Box<dyn Access> {
    match control {
        Some(control) => Box::new(control.for_core(notify)),
        None => Box::new(AllowAll),
    }
}

/// Logs for each listener which clients may connect.
pub fn log_policies(settings: &Settings) {
    for listener in settings.every_listener() {
        let (bind, is_local) = (listener.bind.to_string(), is_local(&listener));
        let anonymous = admits_anonymous(&settings.access, &listener);
        match (anonymous, is_local) {
            (true, false) => tracing::warn!(
                listener = bind,
                "anonymous clients may connect, and other machines may reach this listener"
            ),
            (true, true) => tracing::info!(listener = bind, "anonymous clients may connect"),
            (false, _) if settings.access.knows_users() => {
                tracing::info!(listener = bind, "clients must authenticate");
            }
            (false, _) => tracing::info!(
                listener = bind,
                "clients must authenticate, but no users are configured: see [access] in the \
                 configuration, and docs/access.md"
            ),
        }
    }
}

/// Whether anonymous clients may connect to a listener.
fn admits_anonymous(access: &config::Access, listener: &Listener) -> bool {
    listener.anonymous.unwrap_or_else(|| match access.anonymous {
        Anonymous::Yes => true,
        Anonymous::No => false,
        Anonymous::Auto => is_local(listener) && !access.knows_users(),
    })
}

/// Whether only programs of this machine reach a listener. A proxy on this machine may forward other
/// machines, and so may a browser that shows a web page of any site.
fn is_local(listener: &Listener) -> bool {
    let is_here = match &listener.bind {
        Bind::Address(address) => address.ip().is_loopback(),
        Bind::Path(_) => true,
    };
    let websocket = &listener.websocket;
    let is_for_pages = listener.transport.has_websocket() && websocket.admits_any_page();
    let is_for_proxies =
        !listener.proxy_protocol_from.is_empty() || !websocket.forwarded_for_from.is_empty();
    is_here && !is_for_pages && !is_for_proxies
}

impl Snapshot {
    /// Reads the files for the first time.
    fn open(access: &config::Access, anonymous: Vec<bool>) -> Result<Self, AccessError> {
        let (rules, passwords) = Self::read(access)?;
        let methods = Methods::open(access, anonymous, &passwords)?;
        Ok(Self { revision: 1, rules, passwords, methods })
    }

    /// Reads the files again.
    fn reload(&self, access: &config::Access) -> Result<Self, AccessError> {
        let (rules, passwords) = Self::read(access)?;
        let methods = self.methods.reload(&passwords)?;
        Ok(Self { revision: self.revision + 1, rules, passwords, methods })
    }

    fn read(access: &config::Access) -> Result<(Option<Rules>, Arc<Passwords>), AccessError> {
        let rules = configured(&access.acl_file).map(read_rules).transpose()?;
        let passwords = match configured(&access.password_file) {
            Some(path) => {
                secret_file::warn_if_open(path, "the password file");
                let error = |error| AccessError(format!("access.password_file: {error}"));
                Passwords::read(path, &access.hashing).map_err(error)?
            }
            None => Passwords::none(&access.hashing),
        };
        Ok((rules, Arc::new(passwords)))
    }

    /// The user's present entry in the password file, or the reason why a client that authenticated by
    /// `entry` has to be disconnected.
    fn current_entry(&self, user: &str, entry: &Arc<User>) -> Result<&Arc<User>, ReasonCode> {
        match self.passwords.user(user) {
            None => Err(ReasonCode::NotAuthorized),
            Some(now) if now == entry || now.has_password_of(entry) => Ok(now),
            Some(_) => Err(ReasonCode::AdministrativeAction),
        }
    }
}

/// The path of a file, or none if the setting is empty.
fn configured(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// Logs a problem of a file that does not prevent its use.
#[cfg(feature = "jwt")]
fn warn_about(file: &Path, problem: &dyn fmt::Display) {
    tracing::warn!(file = %file.display(), "{problem}");
}

/// Reads a file of access rules.
pub fn read_rules(path: &Path) -> Result<Rules, AccessError> {
    let text = crate::base::text_file::read(path)
        .map_err(|error| AccessError(format!("access.acl_file: {}: {error}", path.display())))?;
    Rules::parse(&text, &path.display().to_string()).map_err(|error| AccessError(error.to_string()))
}
