//! Who is let in and who may do what: the access control that the engine asks ([`engine::Access`]),
//! made of a password file, tokens, a server that is asked, certificates and a file of rules.
//!
//! What is read from files is one `Snapshot`, which never changes; reading it anew puts another
//! one in its place. Each core has a [`CoreAccess`], which looks at the snapshot in force and
//! remembers, for each of its connections, who it is and what was decided for it. What takes long
//! is worked out in the pool (`crate::base::pool`) and comes back through a channel and the core's bell.
//!
//! [`engine::Access`]: crate::engine::Access

pub mod acl;
mod cache;
mod core;
mod methods;
pub mod password_file;
mod protect;
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
use crate::config::{Anonymous, Bind, ClientCertificate, Listener, Settings};
use crate::engine::{Access, AllowAll};
use crate::wire::ReasonCode;

use acl::Rules;
pub use core::CoreAccess;
#[cfg(feature = "http-hook")]
use methods::http;
#[cfg(feature = "jwt")]
use methods::jwt;
#[cfg(feature = "scram")]
use methods::scram;
use password_file::{Passwords, User};
use protect::Guard;

/// Questions to a server under way at a time. They take no processor, so its number is no matter.
#[cfg(feature = "http-hook")]
const ASKING_MAX: usize = 32;

/// Wakes the core whose access control has an answer for it.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// Why an access control cannot be made, or not be made anew: the file, the place in it, what is
/// wrong.
#[derive(Debug)]
pub struct AccessError(String);

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AccessError {}

/// What was read from files; it does not change any more.
struct Snapshot {
    /// Counts up; 0 is no snapshot's.
    revision: u64,
    /// None where there is no file: then everything is allowed.
    rules: Option<Rules>,
    passwords: Passwords,
    #[cfg(feature = "scram")]
    scram_secret: scram::Secret,
    #[cfg(feature = "jwt")]
    keys: Option<jwt::Keys>,
}

/// The access control of a broker; its cores share it.
pub struct Control {
    settings: crate::config::Access,
    /// By the number of the listener, whether it lets in clients without a name.
    anonymous: Vec<bool>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    guard: Guard,
    /// Works out hashes and signatures.
    pool: Pool,
    /// Asks the server, apart from it: one that hangs keeps nobody from logging in by password.
    #[cfg(feature = "http-hook")]
    asking: Pool,
    #[cfg(feature = "http-hook")]
    http: Option<Arc<http::Hook>>,
    /// Of the cores, which are to look when something was read anew.
    bells: Mutex<Vec<Bell>>,
    reloads: AtomicU64,
    reloads_failed: AtomicU64,
}

impl Control {
    /// Reads what the settings name. None where everybody may do everything: then nothing is asked.
    pub fn open(settings: &Settings) -> Result<Option<Arc<Self>>, AccessError> {
        let anonymous: Vec<bool> = settings
            .every_listener()
            .map(|listener| lets_in_anonymous(&settings.access, &listener))
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
        check_features(access)?;
        let snapshot = Snapshot::read(access, 1)?;
        Ok(Some(Arc::new(Self {
            settings: access.clone(),
            anonymous,
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            guard: Guard::new(&settings.protection),
            pool: Pool::for_this_machine(access.waiting_max as usize),
            #[cfg(feature = "http-hook")]
            asking: Pool::new(ASKING_MAX, access.waiting_max as usize),
            #[cfg(feature = "http-hook")]
            http: http::Hook::new(&access.http).map_err(AccessError)?.map(Arc::new),
            bells: Mutex::default(),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
        })))
    }

    /// Reads the files anew and puts them in force, all or none: where one is wrong, what was read
    /// before stays.
    pub fn reload(&self) -> Result<(), AccessError> {
        let revision = self.snapshot.load().revision + 1;
        #[cfg(feature = "http-hook")]
        let hook = self.http.as_ref().map(|hook| hook.reload().map_err(AccessError)).transpose();
        #[cfg(not(feature = "http-hook"))]
        let hook = Ok(None::<fn()>);
        let read = hook.and_then(|hook| Ok((Snapshot::read(&self.settings, revision)?, hook)));
        match read {
            Ok((snapshot, hook)) => {
                hook.into_iter().for_each(|hook| hook());
                self.snapshot.store(Arc::new(snapshot));
                self.reloads.fetch_add(1, Relaxed);
                self.bells().iter().for_each(|bell| bell());
                Ok(())
            }
            Err(error) => {
                self.reloads_failed.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    /// The access control of one core, which `bell` wakes.
    pub fn for_core(self: &Arc<Self>, bell: Bell) -> CoreAccess {
        self.bells().push(Arc::clone(&bell));
        CoreAccess::new(Arc::clone(self), bell)
    }

    fn bells(&self) -> std::sync::MutexGuard<'_, Vec<Bell>> {
        // Whoever panicked with it has left it whole.
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decisions that are being worked out, or wait for that.
    fn unfinished(&self) -> usize {
        #[cfg(feature = "http-hook")]
        return self.pool.unfinished() + self.asking.unfinished();
        #[cfg(not(feature = "http-hook"))]
        self.pool.unfinished()
    }

    fn is_anonymous_let_in(&self, listener: u16) -> bool {
        self.anonymous.get(usize::from(listener)).copied().unwrap_or(false)
    }

    fn counts(&self) -> AccessCounts {
        AccessCounts {
            reloads: self.reloads.load(Relaxed),
            reloads_failed: self.reloads_failed.load(Relaxed),
            unfinished: self.unfinished() as u64,
            turned_away: self.guard.turned_away(),
            bans: self.guard.bans(),
        }
    }
}

/// Makes a core its access control: one that asks nothing where there is nothing to ask.
pub fn make(control: Option<&Arc<Control>>, bell: Bell) -> Box<dyn Access> {
    match control {
        Some(control) => Box::new(control.for_core(bell)),
        None => Box::new(AllowAll),
    }
}

/// Says in the log whom each listener lets in.
pub fn say_who_is_let_in(settings: &Settings) {
    for listener in settings.every_listener() {
        let (bind, is_local) = (listener.bind.to_string(), is_local(&listener));
        let anonymous = lets_in_anonymous(&settings.access, &listener);
        match (anonymous, is_local) {
            (true, false) => tracing::warn!(
                listener = bind,
                "clients need no name here, and others than this machine may reach it"
            ),
            (true, true) => tracing::info!(listener = bind, "clients need no name here"),
            (false, _) if settings.access.knows_users() => {
                tracing::info!(listener = bind, "clients have to say who they are here");
            }
            (false, _) => tracing::info!(
                listener = bind,
                "clients have to say who they are here, and no users are known: see [access] in \
                 the configuration, and docs/access.md"
            ),
        }
    }
}

/// Whether clients without a name are let in by a listener.
fn lets_in_anonymous(access: &crate::config::Access, listener: &Listener) -> bool {
    listener.anonymous.unwrap_or_else(|| match access.anonymous {
        Anonymous::Yes => true,
        Anonymous::No => false,
        Anonymous::Auto => is_local(listener) && !access.knows_users(),
    })
}

/// Whether only this machine reaches a listener. A proxy on it may speak for others, and so may a
/// page of any site that somebody's browser shows here.
fn is_local(listener: &Listener) -> bool {
    let is_here = match &listener.bind {
        Bind::Address(address) => address.ip().is_loopback(),
        Bind::Path(_) => true,
    };
    let websocket = &listener.websocket;
    let is_for_pages = listener.transport.has_websocket() && websocket.admits_any_page();
    let speaks_for_others =
        !listener.proxy_protocol_from.is_empty() || !websocket.forwarded_for_from.is_empty();
    is_here && !is_for_pages && !speaks_for_others
}

/// What is asked for must have been built in.
fn check_features(access: &crate::config::Access) -> Result<(), AccessError> {
    let lacks = |key: &str, feature: &str| {
        Err(AccessError(format!(
            "{key}: this broker was built without it; build it with --features {feature}"
        )))
    };
    if !cfg!(feature = "jwt") && !access.jwt.key_set.as_os_str().is_empty() {
        return lacks("access.jwt.key_set", "jwt");
    }
    if !cfg!(feature = "http-hook") && !access.http.url.is_empty() {
        return lacks("access.http.url", "http-hook");
    }
    Ok(())
}

impl Snapshot {
    fn read(access: &crate::config::Access, revision: u64) -> Result<Self, AccessError> {
        let rules = named(&access.acl_file).map(read_rules).transpose()?;
        let passwords = match named(&access.password_file) {
            Some(path) => {
                secret_file::warn_if_open(path, "the password file");
                let error = |error| AccessError(format!("access.password_file: {error}"));
                Passwords::read(path, &access.hashing).map_err(error)?
            }
            None => Passwords::none(&access.hashing),
        };
        #[cfg(feature = "scram")]
        let scram_secret = {
            let iterations =
                passwords.scram_iterations().unwrap_or(access.hashing.scram_iterations);
            scram::Secret::new(iterations).map_err(|error| AccessError(error.to_string()))?
        };
        #[cfg(feature = "jwt")]
        let keys = match named(&access.jwt.key_set) {
            Some(path) => {
                let keys = jwt::Keys::read(path, &access.jwt).map_err(AccessError)?;
                for what in &keys.ignored {
                    let file = path.display();
                    tracing::warn!(%file, "a key of the key set is ignored: {what}");
                }
                Some(keys)
            }
            None => None,
        };
        Ok(Self {
            revision,
            rules,
            passwords,
            #[cfg(feature = "scram")]
            scram_secret,
            #[cfg(feature = "jwt")]
            keys,
        })
    }

    /// What the password file says of a user, if it is what let it in; or why it would not any more.
    fn entry_in_force(&self, user: &str, entry: &Arc<User>) -> Result<&Arc<User>, ReasonCode> {
        match self.passwords.user(user) {
            None => Err(ReasonCode::NotAuthorized),
            Some(now) if now == entry || now.has_password_of(entry) => Ok(now),
            Some(_) => Err(ReasonCode::AdministrativeAction),
        }
    }
}

fn named(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// Reads a file of rules.
pub fn read_rules(path: &Path) -> Result<Rules, AccessError> {
    let text = crate::base::text_file::read(path)
        .map_err(|error| AccessError(format!("access.acl_file: {}: {error}", path.display())))?;
    Rules::parse(&text, &path.display().to_string()).map_err(|error| AccessError(error.to_string()))
}
