//! Authentication and authorization: the implementation of [`engine::Access`](crate::engine::Access)
//! by a list of authentication methods and a file of access rules.
//!
//! All files are read into one `Snapshot`, which never changes; a reload replaces it. Each core has a
//! [`CoreAccess`], which uses the current snapshot and caches, for each connection, the user and the
//! decisions made. Slow work runs in a pool of threads (`crate::base::pool`); its result comes back
//! through a channel, and [`Notify`] wakes the core.

pub mod acl;
#[cfg(feature = "http-hook")]
mod authorization;
#[cfg(not(feature = "http-hook"))]
#[path = "authorization_absent.rs"]
mod authorization;
mod cache;
mod client;
mod core;
#[cfg(feature = "admin")]
pub(crate) mod database;
#[cfg(not(feature = "admin"))]
#[path = "database_absent.rs"]
mod database;
mod decide;
#[cfg(feature = "dynamic-security")]
mod dynamic_security;
#[cfg(not(feature = "dynamic-security"))]
#[path = "dynamic_security_absent.rs"]
mod dynamic_security;
#[cfg(feature = "http-hook")]
mod go_auth;
mod grants;
mod later;
mod methods;
pub mod password_file;
mod protect;
mod read_rules;
mod reply;
#[cfg(feature = "scram")]
mod scram_verifier;
#[cfg(not(feature = "scram"))]
#[path = "scram_verifier_absent.rs"]
mod scram_verifier;
#[cfg(feature = "http-hook")]
mod server;
#[cfg(test)]
mod tests;
mod topic_rules;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::base::atomic::AtomicU64;
use crate::base::metrics::AccessCounts;
use crate::base::pool::Pool;
use crate::base::secret_file;
use crate::config::listener::ProxiedIdentity;
use crate::config::{self, AclFormat, Anonymous, Bind, ClientCertificate, Listener, Settings};
use crate::wire::ReasonCode;

use acl::Rules;
use authorization::Authorizer;
use client::Origins;
pub use core::CoreAccess;
use database::Database;
use dynamic_security::{DynamicSecurity, Security};
pub use later::Gate;
use methods::{Methods, Workers};
use password_file::{Passwords, User};
use protect::Guard;
pub use topic_rules::read_rules;
use topic_rules::{TopicRules, read_rules_for, read_rules_of_listeners};

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

/// Users, rules and methods at one time.
struct Snapshot {
    /// Number of the snapshot, from 1.
    revision: u64,
    /// Access rules: those of the file, then those of the database, and those of listeners; where there are none,
    /// everything is allowed.
    rules: TopicRules,
    /// Users with passwords: those of the file, and those of the database.
    passwords: Arc<Passwords>,
    /// Whose users listeners know, by number.
    of_listeners: Arc<[UsersOf]>,
    methods: Arc<Methods>,
    /// The server that is asked about what no rule decides.
    authorizer: Option<Arc<Authorizer>>,
    /// Dynamic security. It decides alone: `rules` are there, and empty.
    security: Option<Arc<Security>>,
    /// Users and rules of the database alone.
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "nobody lists them"))]
    database: Option<Arc<database::Content>>,
}

/// The access control of a broker, which its cores share.
pub struct Control {
    state: Mutex<State>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    guard: Guard,
    pools: ArcSwap<Pools>,
    /// Wakes every core after a change.
    cores: Mutex<Vec<Notify>>,
    reloads: AtomicU64,
    reloads_failed: AtomicU64,
    authorization: authorization::Counts,
    /// Executes commands of dynamic security.
    commands: dynamic_security::Executor,
}

/// What snapshots are made of.
struct State {
    asked: Asked,
    files: Files,
    methods: Arc<Methods>,
    authorizer: Option<Arc<Authorizer>>,
    database: Option<Database>,
    security: Option<DynamicSecurity>,
}

/// The content of the files of users and rules.
#[derive(Clone)]
struct Files {
    rules: Option<Arc<Rules>>,
    /// Rules of listeners that have their own, by number.
    rules_of_listeners: Arc<[Option<Arc<Rules>>]>,
    passwords: Arc<Passwords>,
    /// Whose users listeners know, by number.
    of_listeners: Arc<[UsersOf]>,
}

/// Whose users with passwords a listener knows.
#[derive(Clone)]
enum UsersOf {
    /// Those of the broker.
    Broker,
    /// Its own.
    Listener(Arc<Passwords>),
    /// Those that it knew: it is gone.
    Gone,
}

/// The settings of the access control.
#[derive(Clone, PartialEq)]
struct Asked {
    access: config::Access,
    /// What listeners ask of clients, by number.
    listeners: Vec<Admission>,
    /// The folder of the store, or why there is none.
    folder: Result<PathBuf, &'static str>,
}

impl Asked {
    fn of(settings: &Settings) -> Self {
        let access = settings.access.clone();
        // Nobody new comes through a listener that is gone.
        let mut listeners = vec![Admission::default(); settings.listener_numbers()];
        for (number, listener) in settings.numbered_listeners() {
            listeners[usize::from(number)] = Admission::of(&access, listener);
        }
        Self { access, listeners, folder: settings.data_folder() }
    }
}

/// What a listener asks of clients.
#[derive(Clone, Debug, Default, PartialEq)]
struct Admission {
    /// Whether it is there.
    is_open: bool,
    /// Whether it admits anonymous clients.
    anonymous: bool,
    /// Whether its clients can be authenticated.
    knows_users: bool,
    /// File of its own users; empty for none.
    password_file: PathBuf,
    /// File of its own access rules; empty for none.
    acl_file: PathBuf,
}

impl Admission {
    fn of(access: &config::Access, listener: Listener) -> Self {
        Self {
            is_open: true,
            anonymous: admits_anonymous(access, &listener),
            knows_users: knows_users(access, &listener),
            password_file: listener.password_file,
            acl_file: listener.acl_file,
        }
    }
}

/// Threads for slow decisions.
struct Pools {
    /// Computes hashes and signatures.
    processor: Pool,
    /// Waits for servers, in threads of its own, so that a server that hangs delays no other method.
    network: Pool,
    /// The same for authorization, whose servers delay no login.
    authorization: Pool,
}

impl Pools {
    fn new(access: &config::Access) -> Self {
        let waiting_max = access.waiting_max as usize;
        Self {
            processor: Pool::for_this_machine(waiting_max),
            network: Pool::new(NETWORK_THREADS_MAX, waiting_max),
            authorization: Pool::new(NETWORK_THREADS_MAX, waiting_max),
        }
    }
}

/// Settings and files of the access control that have been read and are not in force yet.
pub struct Prepared {
    control: Arc<Control>,
    state: State,
    protection: config::Protection,
}

impl Prepared {
    /// Puts everything into effect together.
    pub fn put_in_force(self) {
        let Self { control, state: wanted, protection } = self;
        let mut state = lock(&control.state);
        control.guard.set_bounds(&protection);
        if state.asked.access.waiting_max != wanted.asked.access.waiting_max {
            // Jobs that wait in the earlier pools are done there.
            control.pools.store(Arc::new(Pools::new(&wanted.asked.access)));
        }
        // The database that is open may have changed since it was read.
        let open = state.database.take().filter(|_| wanted.database.is_some());
        let newer = state
            .security
            .take()
            .filter(|open| wanted.security.as_ref().is_some_and(|read| open.is_newer_than(read)));
        let security = newer.or(wanted.security);
        *state = State { database: open.or(wanted.database), security, ..wanted };
        control.reloads.fetch_add(1, Relaxed);
        control.put_in_force(&state);
    }
}

impl Control {
    /// Reads the files that the settings name. None if every client may connect and do everything.
    pub fn open(settings: &Settings) -> Result<Option<Arc<Self>>, AccessError> {
        let asked = Asked::of(settings);
        let asks_certificates = settings.every_listener().any(|listener| {
            listener.tls.client_certificate != ClientCertificate::None
                || listener.proxy_protocol_identity != ProxiedIdentity::None
        });
        let access = &settings.access;
        let lets_in = |listener: Listener| {
            admits_anonymous(access, &listener) && !knows_users(access, &listener)
        };
        let has_rules = access.has_rules() || settings.every_listener().any(|of| of.has_acl_file());
        let is_open = settings.every_listener().all(lets_in) && !has_rules;
        if is_open && !asks_certificates && !settings.protection.counts_connections() {
            return Ok(None);
        }
        let state = State::open(asked, None, None)?;
        Ok(Some(Arc::new(Self {
            snapshot: Arc::new(ArcSwap::from_pointee(state.snapshot(1))),
            guard: Guard::new(&settings.protection),
            pools: ArcSwap::from_pointee(Pools::new(access)),
            state: Mutex::new(state),
            cores: Mutex::default(),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            authorization: authorization::Counts::default(),
            commands: dynamic_security::Executor::default(),
        })))
    }

    /// Reads all files again, for these settings. If one cannot be used, nothing changes.
    pub fn prepare(self: &Arc<Self>, settings: &Settings) -> Result<Prepared, AccessError> {
        let asked = Asked::of(settings);
        // Commands of dynamic security wait meanwhile.
        let state = lock(&self.state);
        let (methods, security) = (&state.methods, state.security.as_ref());
        let prepared = match state.asked == asked {
            true => State::reload(asked, methods, security),
            false => State::open(asked, Some(methods), security),
        };
        let prepared = prepared.and_then(|mut wanted| {
            let before = &state.files.rules_of_listeners;
            let rules = &mut wanted.files.rules_of_listeners;
            topic_rules::keep_rules_of_gone(rules, &wanted.asked, before);
            // The file that is in use is written by commands.
            if let Some(other) = wanted.security.as_ref().filter(|of| !of.is_of_file(security)) {
                other.check_writable()?;
            }
            Ok(wanted)
        });
        drop(state);
        let state = prepared.inspect_err(|_| {
            self.reloads_failed.fetch_add(1, Relaxed);
        })?;
        let (control, protection) = (Arc::clone(self), settings.protection.clone());
        Ok(Prepared { control, state, protection })
    }

    /// Puts a changed state in force.
    fn put_in_force(&self, state: &State) {
        let revision = self.snapshot.load().revision + 1;
        self.snapshot.store(Arc::new(state.snapshot(revision)));
        let cores = lock(&self.cores);
        if !cores.is_empty() {
            state.methods.start();
        }
        cores.iter().for_each(|notify| notify());
    }

    /// Whether this is the user's password. Slow, equally for unknown users.
    #[cfg(feature = "admin")]
    pub(crate) fn verify(
        &self,
        user: &str,
        password: &[u8],
    ) -> Result<bool, password_file::NoMemory> {
        self.snapshot.load().passwords.verify(user, password)
    }

    /// The hash of the password of a user who is a member of this group of the rules.
    #[cfg(feature = "admin")]
    pub(crate) fn hash_of_member(&self, user: &str, group: &str) -> Option<Box<str>> {
        let snapshot = self.snapshot.load();
        snapshot.rules.general().filter(|rules| rules.is_member(user, group))?;
        snapshot.passwords.user(user).map(|user| user.hash().into())
    }

    /// The access control of a core, which `notify` wakes.
    pub fn for_core(self: &Arc<Self>, notify: Notify) -> CoreAccess {
        self.for_core_with(notify, Origins::default())
    }

    /// The same, for a core with clients that came through these listeners.
    fn for_core_with(self: &Arc<Self>, notify: Notify, origins: Origins) -> CoreAccess {
        lock(&self.cores).push(Arc::clone(&notify));
        self.snapshot.load().methods.start();
        CoreAccess::new(Arc::clone(self), notify, origins)
    }

    fn pool(&self, workers: Workers) -> Pool {
        let pools = self.pools.load();
        match workers {
            Workers::Processor => pools.processor.clone(),
            Workers::Network => pools.network.clone(),
        }
    }

    /// Age of the fetched keys in seconds, and failed attempts to fetch them.
    fn key_set_counts(&self) -> (u64, u64) {
        #[cfg(feature = "jwt")]
        if let Some(fetched) = self.snapshot.load().methods.fetched() {
            return fetched.counts();
        }
        (0, 0)
    }

    fn counts(&self) -> AccessCounts {
        let pools = self.pools.load();
        let (key_set_age_s, key_set_failures) = self.key_set_counts();
        AccessCounts {
            key_set_age_s,
            key_set_failures,
            reloads: self.reloads.load(Relaxed),
            reloads_failed: self.reloads_failed.load(Relaxed),
            database_users: self.database_counts().0,
            database_rules: self.database_counts().1,
            unfinished: (pools.processor.unfinished()
                + pools.network.unfinished()
                + pools.authorization.unfinished()) as u64,
            authorization_asked: self.authorization.asked.load(Relaxed),
            authorization_failed: self.authorization.failed.load(Relaxed),
            authorization_cached: self.authorization.cached.load(Relaxed),
            dynamic_security_commands: self.commands.counts.commands.load(Relaxed),
            dynamic_security_errors: self.commands.counts.errors.load(Relaxed),
            dynamic_security_refused: self.commands.counts.refused.load(Relaxed),
            turned_away: self.guard.turned_away(),
            bans: self.guard.bans(),
        }
    }
}

/// Logs for each listener which clients may connect.
pub fn log_policies(settings: &Settings) {
    let has_rules = settings.access.has_rules()
        || settings.every_listener().any(|listener| listener.has_acl_file());
    if settings.access.takes_unverified_names() && has_rules {
        tracing::warn!(
            "access rules go by User Names that nobody verifies: any client can claim any name"
        );
    }
    for listener in settings.every_listener() {
        let (bind, is_local) = (listener.bind.to_string(), is_local(&listener));
        let anonymous = admits_anonymous(&settings.access, &listener);
        match (anonymous, is_local) {
            (true, false) => tracing::warn!(
                listener = bind,
                "anonymous clients may connect, and other machines may reach this listener"
            ),
            (true, true) => tracing::info!(listener = bind, "anonymous clients may connect"),
            (false, _) if knows_users(&settings.access, &listener) => {
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
        Anonymous::Auto => is_local(listener) && !knows_users(access, listener),
    })
}

/// Whether clients of a listener can be authenticated.
fn knows_users(access: &config::Access, listener: &Listener) -> bool {
    access.knows_users() || listener.has_password_file()
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

impl State {
    /// Reads everything for settings that are new; `before` are the methods until now.
    fn open(
        asked: Asked,
        before: Option<&Methods>,
        security: Option<&DynamicSecurity>,
    ) -> Result<Self, AccessError> {
        let (files, database) = (Files::read(&asked)?, Database::open(&asked)?);
        let security = DynamicSecurity::open(&asked, security)?;
        let (_, passwords) = merged(&asked, &files, database.as_ref());
        let methods = Methods::open(&asked.access, &asked.listeners, &passwords, before)?;
        let authorizer = Authorizer::open(&asked.access.authorization)?;
        Ok(Self { asked, files, methods: Arc::new(methods), authorizer, database, security })
    }

    /// Reads everything again.
    fn reload(
        asked: Asked,
        methods: &Methods,
        security: Option<&DynamicSecurity>,
    ) -> Result<Self, AccessError> {
        let (files, database) = (Files::read(&asked)?, Database::open(&asked)?);
        let security = DynamicSecurity::open(&asked, security)?;
        let (_, passwords) = merged(&asked, &files, database.as_ref());
        let methods = methods.reload(&passwords)?;
        let authorizer = Authorizer::open(&asked.access.authorization)?;
        Ok(Self { asked, files, methods: Arc::new(methods), authorizer, database, security })
    }

    fn snapshot(&self, revision: u64) -> Snapshot {
        let (mut rules, mut passwords) = merged(&self.asked, &self.files, self.database.as_ref());
        if let Some(security) = &self.security {
            rules = Some(Arc::default());
            passwords = Arc::new(security.passwords_before(&passwords));
        }
        let rules = TopicRules::new(rules, Arc::clone(&self.files.rules_of_listeners));
        let security = self.security.as_ref().map(DynamicSecurity::security);
        let methods = Arc::clone(&self.methods);
        let database = self.database.as_ref().map(Database::content);
        let authorizer = self.authorizer.clone();
        let of_listeners = Arc::clone(&self.files.of_listeners);
        Snapshot {
            revision,
            rules,
            passwords,
            of_listeners,
            methods,
            authorizer,
            security,
            database,
        }
    }
}

/// The rules and users of the files, followed by those of the database.
fn merged(
    asked: &Asked,
    files: &Files,
    database: Option<&Database>,
) -> (Option<Arc<Rules>>, Arc<Passwords>) {
    match database {
        Some(database) => database.merge(asked, files),
        None => (files.rules.clone(), Arc::clone(&files.passwords)),
    }
}

impl Files {
    fn read(asked: &Asked) -> Result<Self, AccessError> {
        let access = &asked.access;
        let asks_further = access.authorization.after_rules;
        let rules = configured(&access.acl_file);
        let rules =
            rules.map(|path| read_rules_for("access.acl_file", path, access)).transpose()?;
        let rules_of_listeners = read_rules_of_listeners(asked)?;
        if access.acl_format == AclFormat::Mosquitto && !asks_further {
            check_decides_alone(access, "access.acl_format = \"mosquitto\"")?;
        }
        if access.has_dynamic_security() {
            if rules.is_some() {
                return Err(not_combined("access.acl_file", "access.dynamic_security"));
            }
            check_decides_alone(access, "access.dynamic_security")?;
        }
        let passwords = match configured(&access.password_file) {
            Some(path) => read_passwords("access.password_file", path, access)?,
            None => Passwords::none(&access.hashing),
        };
        let of_listeners = read_passwords_of_listeners(asked)?;
        Ok(Self {
            rules,
            rules_of_listeners: rules_of_listeners.into(),
            passwords: Arc::new(passwords),
            of_listeners: of_listeners.into(),
        })
    }
}

/// Reads a password file, which a key names.
fn read_passwords(
    key: &str,
    path: &Path,
    access: &config::Access,
) -> Result<Passwords, AccessError> {
    secret_file::warn_if_open(path, "the password file");
    let error = |error| AccessError(format!("{key}: {error}"));
    let passwords = Passwords::read(path, &access.hashing).map_err(error)?;
    warn_if_weak(path, passwords.weak());
    Ok(passwords)
}

/// Reads the password files of listeners, each file once.
fn read_passwords_of_listeners(asked: &Asked) -> Result<Vec<UsersOf>, AccessError> {
    const KEY: &str = "[[listeners]] password_file";
    let mut read: HashMap<&Path, Arc<Passwords>> = HashMap::new();
    let mut all = Vec::new();
    for listener in &asked.listeners {
        let Some(path) = configured(&listener.password_file) else {
            all.push(if listener.is_open { UsersOf::Broker } else { UsersOf::Gone });
            continue;
        };
        if asked.access.has_dynamic_security() {
            return Err(not_combined(KEY, "access.dynamic_security"));
        }
        let passwords = match read.get(path) {
            Some(passwords) => Arc::clone(passwords),
            None => Arc::new(read_passwords(KEY, path, &asked.access)?),
        };
        read.insert(path, Arc::clone(&passwords));
        all.push(UsersOf::Listener(passwords));
    }
    Ok(all)
}

impl Snapshot {
    /// The users with passwords that a listener of this number knows.
    fn passwords_of(&self, listener: u16) -> &Arc<Passwords> {
        self.own_passwords_of(listener).unwrap_or(&self.passwords)
    }

    /// The same, of a listener that has a file of its own.
    fn own_passwords_of(&self, listener: u16) -> Option<&Arc<Passwords>> {
        match self.of_listeners.get(usize::from(listener)) {
            Some(UsersOf::Listener(passwords)) => Some(passwords),
            _ => None,
        }
    }

    /// Whether a listener is there no more.
    fn is_gone(&self, listener: u16) -> bool {
        matches!(self.of_listeners.get(usize::from(listener)), Some(UsersOf::Gone))
    }

    /// The user's present entry among those with passwords that a listener knows, or the reason why a client that
    /// authenticated by `entry` has to be disconnected.
    fn current_entry(
        &self,
        listener: u16,
        user: &str,
        entry: &Arc<User>,
    ) -> Result<&Arc<User>, ReasonCode> {
        match self.passwords_of(listener).user(user) {
            None => Err(ReasonCode::NotAuthorized),
            Some(now) if now == entry || now.has_password_of(entry) => Ok(now),
            Some(_) => Err(ReasonCode::AdministrativeAction),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves lists and settings valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path of a file, or none if the setting is empty.
fn configured(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// Warns if users of a password file have hashes that are fast to guess.
fn warn_if_weak(file: &Path, users: usize) {
    if users > 0 {
        tracing::warn!(
            file = %file.display(),
            users,
            "hashes of mosquitto_passwd are fast to guess for whoever gets hold of the file; \
             `broker passwd upgrade` protects them by Argon2id"
        );
    }
}

/// Logs a problem of a file that does not prevent its use.
#[cfg(any(feature = "jwt", feature = "dynamic-security"))]
fn warn_about(file: &Path, problem: &dyn fmt::Display) {
    tracing::warn!(file = %file.display(), "{problem}");
}

/// Checks that nothing else decides about subscriptions that rules of Mosquitto filter, which `by` configures.
fn check_decides_alone(access: &config::Access, by: &str) -> Result<(), AccessError> {
    for (key, is_used) in [
        ("access.database.rules_max", access.database.rules_max > 0),
        ("access.authorization.url", !access.authorization.url.is_empty()),
    ] {
        if is_used {
            return Err(not_combined(key, by));
        }
    }
    Ok(())
}

/// Two keys are set of which one decides alone.
fn not_combined(key: &str, by: &str) -> AccessError {
    AccessError(format!("{key}: cannot be combined with {by}, which decides alone"))
}
