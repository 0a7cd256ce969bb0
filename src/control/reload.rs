//! Reload: the configuration, and the files that it names, are read again; what can change while the broker runs
//! changes, or nothing does. Connections stay open.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use toml::Value;

use crate::config::bridge::changes::{self, BridgeChange, Effect};
use crate::config::{ConfigError, Configuration, Entry, Settings, keys};
use crate::control::{
    AccessChecked, Command, Cores, EngineCommand, Refused, Replies, Reply, replies,
};

/// How long cores may take to check their clients against changed access rules, before a warning says that the
/// check is not complete.
const CHECK_PATIENCE: Duration = Duration::from_secs(60);

/// How long cores may take to take new settings.
const CORES_PATIENCE: Duration = Duration::from_secs(5);

/// Reads the configuration again.
type Source = Box<dyn Fn() -> Result<Configuration, Vec<ConfigError>> + Send>;

/// Puts in force what was prepared. The error says what is not in force.
pub type Commit = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// Prepares a part of the broker for other settings, without changing anything; none if nothing changes for it.
type Part = Box<dyn Fn(&Change<'_>) -> Result<Option<Commit>, ConfigError> + Send>;

/// Opens something again that cannot be prepared. If that is impossible, it stays as it is.
type Reopen = Box<dyn Fn() -> Result<(), String> + Send>;

/// Whether a key, which usually changes live, needs a restart to have its value in these settings.
type Condition = Box<dyn Fn(&Settings) -> bool + Send>;

/// The settings in force, and those that shall be.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// In force.
    pub running: &'a Settings,
    /// In force after the reload.
    pub wanted: &'a Settings,
    /// Whether bridges that end drop their queues.
    pub drops_queues: bool,
}

/// What a reload has changed, or would change.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Keys that changed.
    pub applied: Vec<Difference>,
    /// Keys that change with the next start.
    pub needs_restart: Vec<Difference>,
    /// What becomes of each bridge.
    pub bridges: Vec<BridgeChange>,
    /// Errors; then nothing has changed.
    pub errors: Vec<Problem>,
}

/// A key whose value in the files differs from the running one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The key, such as `limits.sessions_max`.
    pub key: String,
    /// The value in force before the reload; none for a key that had none.
    pub running: Option<Value>,
    /// The value in the files, the environment or the flags.
    pub wanted: Option<Value>,
}

/// An error of the configuration, or of a file that it names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: Option<String>,
    /// The line in the file.
    pub line: Option<u32>,
    /// The key.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl From<&ConfigError> for Problem {
    fn from(error: &ConfigError) -> Self {
        Self {
            file: error.file().map(|file| file.display().to_string()),
            line: error.line(),
            key: error.key().map(str::to_owned),
            what: error.what().to_owned(),
        }
    }
}

/// Everything that can be reloaded; clones are the same one.
#[derive(Clone, Default)]
pub struct Reload(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: Configuration,
    source: Option<Source>,
    /// Whether the addresses of `listen` are those of sockets that the service manager has opened.
    keeps_listen: bool,
    parts: Vec<(&'static str, Part)>,
    reopened: Vec<(&'static str, Reopen)>,
    conditions: Vec<(&'static str, Condition)>,
}

/// A reload that is possible.
struct Prepared {
    wanted: Configuration,
    applied: Vec<Difference>,
    needs_restart: Vec<Difference>,
    bridges: Vec<BridgeChange>,
    commits: Vec<(&'static str, Commit)>,
}

impl Reload {
    /// With nothing to reload yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The configuration that is in force, and the way to read it again.
    pub fn read_by(
        &self,
        running: Configuration,
        source: impl Fn() -> Result<Configuration, Vec<ConfigError>> + Send + 'static,
    ) {
        let mut state = self.state();
        state.running = running;
        state.source = Some(Box::new(source));
    }

    /// The settings with which the broker starts, after the service manager's sockets have replaced the configured
    /// addresses.
    pub fn begin(&self, settings: &Settings) {
        let mut state = self.state();
        state.keeps_listen = state.running.settings.listen != settings.listen;
        state.running.settings.clone_from(settings);
    }

    /// Adds a part of the broker that other settings, or other contents of files, change; `what` names it in the log.
    pub fn on_change(
        &self,
        what: &'static str,
        prepare: impl Fn(&Change<'_>) -> Result<Option<Commit>, ConfigError> + Send + 'static,
    ) {
        self.state().parts.push((what, Box::new(prepare)));
    }

    /// Adds something that is opened again at each reload; `what` names it in the log.
    pub fn register(
        &self,
        what: &'static str,
        reopen: impl Fn() -> Result<(), String> + Send + 'static,
    ) {
        self.state().reopened.push((what, Box::new(reopen)));
    }

    /// A key, or table of keys, needs a restart under this condition on the settings.
    pub fn needs_restart_if(
        &self,
        key: &'static str,
        condition: impl Fn(&Settings) -> bool + Send + 'static,
    ) {
        self.state().conditions.push((key, Box::new(condition)));
    }

    /// The settings in force with their origins, by key.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().running.entries()
    }

    /// Says what [`Self::run`] would do, and changes nothing.
    pub fn dry_run(&self) -> Outcome {
        match self.state().prepare(false) {
            Ok(Prepared { applied, needs_restart, bridges, .. }) => {
                Outcome { applied, needs_restart, bridges, errors: Vec::new() }
            }
            Err(errors) => Outcome::failed(&errors),
        }
    }

    /// Reloads everything, on the calling thread, and logs the outcome. One error keeps everything as it is.
    pub fn run(&self) -> Outcome {
        self.run_with(false)
    }

    /// Like [`Self::run`]; bridges that end drop their queues if that is asked for.
    pub fn run_with(&self, drops_queues: bool) -> Outcome {
        let mut state = self.state();
        let prepared = match state.prepare(drops_queues) {
            Ok(prepared) => prepared,
            Err(errors) => {
                for (what, error) in &errors {
                    tracing::error!(
                        what,
                        "cannot reload; what was read before stays in force: {error}"
                    );
                }
                return Outcome::failed(&errors);
            }
        };
        let Prepared { wanted, applied, needs_restart, bridges, commits } = prepared;
        let mut errors = Vec::new();
        let reopened = state.reopened.iter().map(|(what, reopen)| (*what, reopen()));
        let outcomes = commits.into_iter().map(|(what, commit)| (what, commit())).chain(reopened);
        for (what, outcome) in outcomes {
            match outcome {
                Ok(()) => tracing::info!(what, "reloaded"),
                Err(error) => {
                    tracing::error!(
                        what,
                        "cannot reload; what was read before stays in force: {error}"
                    );
                    errors.push(Problem::from(&ConfigError::of_key(Some(what), error)));
                }
            }
        }
        for Difference { key, running, wanted } in &applied {
            let (running, wanted) = (text(running), text(wanted));
            tracing::info!(key, running, wanted, "setting changed");
        }
        for Difference { key, running, wanted } in &needs_restart {
            let (running, wanted) = (text(running), text(wanted));
            tracing::warn!(key, running, wanted, "this setting changes with the next start");
        }
        for of in bridges.iter().filter(|of| of.effect != Effect::Unchanged) {
            tracing::info!(bridge = &*of.name, effect = of.effect.name(), "bridge changes");
        }
        state.running = wanted;
        Outcome { applied, needs_restart, bridges, errors }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A part that panicked has not changed the state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reads everything, and prepares each part. An error has the name of its part.
    fn prepare(&self, drops_queues: bool) -> Result<Prepared, Vec<(&'static str, ConfigError)>> {
        let of_file = |error| ("configuration", error);
        let running = &self.running.settings;
        let mut read = match &self.source {
            Some(source) => source().map_err(|errors: Vec<ConfigError>| {
                errors.into_iter().map(of_file).collect::<Vec<_>>()
            })?,
            None => self.running.clone(),
        };
        if self.keeps_listen {
            read.settings.listen.clone_from(&running.listen);
        }
        let blocked: Vec<&str> = self
            .conditions
            .iter()
            .filter(|(_, needs_restart)| needs_restart(&read.settings))
            .map(|(key, _)| *key)
            .collect();
        let is_live = |key: &str| keys::is_live(key) && !keys::is_among(&blocked, key);
        let (applied, needs_restart) =
            differences(running, &read.settings).into_iter().partition(|of| is_live(&of.key));
        let wanted =
            self.running.take_over(&read, &is_live).map_err(|error| vec![of_file(error)])?;
        wanted.check().map_err(|error| vec![of_file(error)])?;
        let change = Change { running, wanted: &wanted.settings, drops_queues };
        let bridges = changes::changes(&running.bridges, &wanted.settings.bridges);
        let (mut commits, mut errors) = (Vec::new(), Vec::new());
        for (what, prepare) in &self.parts {
            match prepare(&change) {
                Ok(commit) => commits.extend(commit.map(|commit| (*what, commit))),
                Err(error) => errors.push((*what, read.locate(error))),
            }
        }
        match errors.is_empty() {
            true => Ok(Prepared { wanted, applied, needs_restart, bridges, commits }),
            false => Err(errors),
        }
    }
}

impl Outcome {
    fn failed(errors: &[(&'static str, ConfigError)]) -> Self {
        Self {
            errors: errors.iter().map(|(_, error)| Problem::from(error)).collect(),
            ..Self::default()
        }
    }
}

/// The keys whose values differ, without secrets.
fn differences(running: &Settings, wanted: &Settings) -> Vec<Difference> {
    let (mut running, mut all) = (keys::of(running), Vec::new());
    for (key, wanted) in keys::of(wanted) {
        let at = running.iter().position(|(other, _)| *other == key);
        let running = at.map(|at| running.remove(at).1);
        if running.as_ref() != Some(&wanted) {
            all.push(Difference { key, running, wanted: Some(wanted) });
        }
    }
    let left = running.into_iter();
    all.extend(left.map(|(key, value)| Difference { key, running: Some(value), wanted: None }));
    for Difference { key, running, wanted } in &mut all {
        for value in [running, wanted].into_iter().flatten() {
            *value = keys::without_secrets(key, std::mem::replace(value, false.into()));
        }
    }
    all
}

/// A value for the log.
fn text(value: &Option<Value>) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), Value::to_string)
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.state().parts.iter().map(|(what, _)| what)).finish()
    }
}

/// Hands new settings to all cores, and waits until each has taken them. The error names those that have not.
pub fn configure(cores: &Cores, settings: &Settings) -> Result<(), String> {
    let settings = Arc::new(settings.clone());
    tell_engines(cores, |reply| EngineCommand::Configure { settings: Arc::clone(&settings), reply })
}

/// Sends a command to the engines of all cores: see [`tell_all`].
pub fn tell_engines(
    cores: &Cores,
    command: impl Fn(Reply<()>) -> EngineCommand,
) -> Result<(), String> {
    tell_all(cores, |_, reply| Command::Engine(command(reply)))
}

/// Sends a command to each core, and waits until all have executed theirs. The error names those that have not.
pub fn tell_all(
    cores: &Cores,
    command: impl Fn(usize, Reply<()>) -> Command,
) -> Result<(), String> {
    let until = Instant::now() + CORES_PATIENCE;
    let (to, replies) = replies();
    let mut missing: Vec<usize> = (0..cores.count()).collect();
    for core in 0..cores.count() {
        let command = || command(core, to.core(core));
        while cores.send(core, command()) == Err(Refused::Full) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    drop(to);
    while let Some((core, answer)) = replies.next_before(until) {
        // The broker stops.
        if answer != Err(Refused::Full) {
            missing.retain(|&other| other != core);
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("cores {missing:?} have not taken the settings; reload again")),
    }
}

/// Access rules have been reloaded: has all cores check their clients against them, and logs when all have, on a
/// thread of its own.
pub fn check_access(cores: &Cores) {
    let replies = cores.ask_all(|reply| Command::Engine(EngineCommand::CheckAccess(reply)));
    let count = cores.count();
    let run = move || match sum(&replies, count, Instant::now() + CHECK_PATIENCE) {
        Ok(Some(AccessChecked { clients_disconnected, subscriptions_ended })) => tracing::info!(
            clients_disconnected,
            subscriptions_ended,
            "all clients have been checked against the reloaded access rules"
        ),
        // The broker stops.
        Ok(None) => {}
        Err(cores) => tracing::warn!(
            ?cores,
            "these cores have not yet checked their clients against the reloaded access rules"
        ),
    };
    if let Err(error) = std::thread::Builder::new().name("reload".to_owned()).spawn(run) {
        tracing::warn!(%error, "cannot start the thread that waits for the check of clients");
    }
}

/// The sum of all cores' replies; none when a core has stopped. The error names the cores that have not replied.
fn sum(
    replies: &Replies<AccessChecked>,
    cores: usize,
    deadline: Instant,
) -> Result<Option<AccessChecked>, Vec<usize>> {
    let mut sum = AccessChecked::default();
    let mut missing: Vec<usize> = (0..cores).collect();
    while let Some((core, answer)) = replies.next_before(deadline) {
        match answer {
            Ok(checked) => {
                sum.clients_disconnected += checked.clients_disconnected;
                sum.subscriptions_ended += checked.subscriptions_ended;
                missing.retain(|&other| other != core);
            }
            Err(Refused::Stopped) => return Ok(None),
            Err(Refused::Full | Refused::Busy) => {}
        }
    }
    if missing.is_empty() { Ok(Some(sum)) } else { Err(missing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A reload of these settings, and what a part of the broker has put in force.
    fn reload(
        wanted: impl Fn() -> Result<Configuration, Vec<ConfigError>> + Send + 'static,
    ) -> (Reload, Arc<Mutex<Settings>>) {
        let (reload, in_force) = (Reload::new(), Arc::new(Mutex::new(Settings::default())));
        reload.read_by(Configuration::default(), wanted);
        reload.begin(&Settings::default());
        let part = Arc::clone(&in_force);
        reload.on_change("it", move |change| {
            let (part, wanted) = (Arc::clone(&part), change.wanted.clone());
            Ok(Some(Box::new(move || {
                *part.lock().expect("nobody panicked") = wanted;
                Ok(())
            })))
        });
        (reload, in_force)
    }

    fn settings(text: &str) -> Result<Configuration, Vec<ConfigError>> {
        Ok(Settings::from_toml(text).expect("valid").into())
    }

    fn keys_of(of: &[Difference]) -> Vec<&str> {
        of.iter().map(|of| of.key.as_str()).collect()
    }

    #[test]
    fn what_can_change_changes_and_the_rest_is_said_to_need_a_restart() {
        let text = "cores = 2\n[limits]\nsessions_max = 5\nconnections_max = 7\n[access.http]\nurl = \"http://u:p@h/\"";
        let (reload, in_force) = reload(move || settings(text));
        reload.needs_restart_if("limits.connections_max", |of| of.limits.connections_max > 6);
        let dry = reload.dry_run();
        assert_eq!(keys_of(&dry.applied), ["access.http.url", "limits.sessions_max"]);
        assert_eq!(
            *in_force.lock().expect("fine"),
            Settings::default(),
            "a dry run changes nothing"
        );
        let outcome = reload.run();
        assert_eq!(outcome.applied, dry.applied);
        assert_eq!(keys_of(&outcome.needs_restart), ["cores", "limits.connections_max"]);
        assert_eq!(outcome.needs_restart[0].running, Some(1.into()));
        assert_eq!(outcome.needs_restart[0].wanted, Some(2.into()));
        assert_eq!(outcome.applied[0].wanted, Some("http://***@h/".into()));
        let now = in_force.lock().expect("fine").clone();
        assert_eq!((now.limits.sessions_max, now.limits.connections_max), (5, 0));
        assert_eq!((now.cores.count(), now.access.http.url.as_str()), (1, "http://u:p@h/"));
        let again = reload.run();
        assert!(again.applied.is_empty() && again.needs_restart.len() == 2, "{again:?}");
        let shown = reload.entries();
        let shown = shown.iter().find(|of| of.key == "limits.sessions_max").expect("a key");
        assert_eq!((&shown.value, shown.is_live), (&5.into(), true));
    }

    #[test]
    fn one_error_keeps_everything_as_it_is() {
        let (reload, in_force) = reload(|| settings("[limits]\nsessions_max = 5"));
        reload.on_change("other", |_| Err(ConfigError::of_key(Some("limits"), "no")));
        for outcome in [reload.dry_run(), reload.run()] {
            assert_eq!(outcome.errors.len(), 1, "{outcome:?}");
            assert_eq!(outcome.errors[0].key.as_deref(), Some("limits"));
            assert!(outcome.applied.is_empty());
        }
        assert_eq!(*in_force.lock().expect("fine"), Settings::default());
        let (reload, in_force) = self::reload(|| Err(vec![ConfigError::of_key(None, "bad"); 2]));
        assert_eq!(reload.run().errors.len(), 2);
        assert_eq!(*in_force.lock().expect("fine"), Settings::default());
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_does_not_keep_the_others_from_being_opened() {
        let (reload, opened) = (Reload::new(), Arc::new(AtomicU32::new(0)));
        for is_good in [true, false, true] {
            let opened = Arc::clone(&opened);
            reload.register("it", move || {
                opened.fetch_add(1, Ordering::Relaxed);
                is_good.then_some(()).ok_or_else(|| "no".to_owned())
            });
        }
        assert_eq!(reload.run().errors.len(), 1);
        assert_eq!(opened.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn the_replies_of_all_cores_are_added_up_and_those_that_do_not_reply_are_named() {
        let (to, replies) = crate::control::replies();
        let checked = AccessChecked { clients_disconnected: 2, subscriptions_ended: 3 };
        (0..2).for_each(|core| to.core(core).send(checked));
        let now = Instant::now();
        assert_eq!(sum(&replies, 3, now), Err(vec![2]));
        (0..2).for_each(|core| to.core(core).send(checked));
        drop(to);
        let later = now + Duration::from_secs(60);
        let twice = AccessChecked { clients_disconnected: 4, subscriptions_ended: 6 };
        assert_eq!(sum(&replies, 2, later), Ok(Some(twice)));
        let (to, replies) = crate::control::replies();
        drop((to.core(0), to));
        assert_eq!(sum(&replies, 1, later), Ok(None), "the core has stopped");
    }
}
