//! Listeners while the broker runs: a reload opens new ones, changes the rules of others, and closes those that are
//! gone. Everything that can fail is done before anything changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::listen::{self, Bound, Open};
use super::{ServerError, certificates};
use crate::config::{self, Bind, ConfigError, ExecutorKind, Settings, keys};
use crate::control::listener::{Handed, ListenerChange, ListenerTable, Listening};
use crate::control::reload::{self, Change, Commit, Reload};
use crate::control::stop::Stop;
use crate::control::{Command, EngineCommand};
use crate::executor::{Listener, Listeners};
use crate::platform::plan::Placement;
use crate::transport::{ListenerPolicies, ListenerPolicy};

/// The listeners of this broker; clones are the same ones.
#[derive(Clone)]
pub(super) struct Live(Arc<Shared>);

struct Shared {
    kind: ExecutorKind,
    /// How many cores accept connections of an address.
    accepting: u16,
    placements: Vec<Placement>,
    stop: Stop,
    /// By number.
    entries: Mutex<Vec<Entry>>,
    table: ListenerTable,
}

/// A listener that there is, or was.
struct Entry {
    configured: config::Listener,
    listening: Listening,
    is_ours: bool,
}

/// What a reload changes.
#[derive(Default)]
struct Planned {
    certificates: Vec<(Arc<ListenerPolicy>, certificates::Loaded)>,
    /// Listeners with other rules.
    changed: Vec<(u16, config::Listener, ListenerPolicy)>,
    opened: Vec<(u16, config::Listener, ListenerPolicy, Bound)>,
    closed: Vec<u16>,
}

impl Live {
    /// The listeners that the start has opened.
    pub fn new(
        settings: &Settings,
        (kind, accepting, placements): (ExecutorKind, u16, &[Placement]),
        policies: &ListenerPolicies,
        open: &[Open],
        stop: &Stop,
    ) -> Self {
        let entry = |((number, configured), policy): ((u16, config::Listener), &Arc<_>)| {
            let opened = open.iter().find(|open| open.number == number);
            let listening = Listening {
                number,
                bind: opened.map_or(&configured.bind, |open| &open.bind).clone(),
                transport: configured.transport,
                policy: Arc::clone(policy),
                is_open: opened.is_some(),
            };
            let is_ours = opened.is_none_or(|open| open.is_ours);
            Entry { configured, listening, is_ours }
        };
        let entries = settings.numbered_listeners().zip(&**policies).map(entry).collect();
        let live = Self(Arc::new(Shared {
            kind,
            accepting,
            placements: placements.to_vec(),
            stop: stop.clone(),
            entries: Mutex::new(entries),
            table: ListenerTable::default(),
        }));
        live.publish(&live.entries());
        live
    }

    /// The listeners, for the admin interface.
    #[cfg(feature = "admin")]
    pub fn table(&self) -> ListenerTable {
        self.0.table.clone()
    }

    /// Changes the listeners at reloads.
    pub fn register(&self, reload: &Reload) {
        let live = self.clone();
        reload.on_change(keys::LISTENERS, move |change| {
            let Some(planned) = live.prepare(change)? else { return Ok(None) };
            let live = live.clone();
            let commit: Commit = Box::new(move || live.commit(planned));
            Ok(Some(commit))
        });
    }

    /// Removes the paths of the sockets that listen, because the broker ends.
    pub fn remove_paths(&self) {
        let entries = self.entries();
        entries.iter().filter(|entry| entry.listening.is_open).for_each(Entry::remove_path);
    }

    /// Opens sockets and reads files. None if nothing changes.
    fn prepare(&self, change: &Change<'_>) -> Result<Option<Planned>, ConfigError> {
        let (wanted, entries) = (change.wanted, self.entries());
        let ciphers = certificates::ciphers(wanted, self.0.kind);
        let (mut planned, mut numbers) = (Planned::default(), Vec::new());
        for (place, (number, listener)) in wanted.numbered_listeners().enumerate() {
            numbers.push(number);
            let key = match place.checked_sub(wanted.listen.len()) {
                None => "listen".to_owned(),
                Some(place) => keys::of_table(keys::LISTENERS, place),
            };
            let about = |error: ServerError| ConfigError::of_key(Some(&key), error.to_string());
            let entry = entries.get(usize::from(number));
            let running = entry.filter(|entry| entry.listening.is_open);
            if let Some(entry) = running.filter(|entry| entry.configured == listener) {
                let policy = &entry.listening.policy;
                let loaded = certificates::read_again(&listener, policy).map_err(about)?;
                planned.certificates.extend(loaded.map(|of| (Arc::clone(policy), of)));
                continue;
            }
            let policy = certificates::policy(&listener, ciphers).map_err(about)?;
            let policy = match entry {
                Some(entry) => policy.following(&entry.listening.policy),
                None => policy,
            };
            if let Some(entry) = running.filter(|of| of.configured.interface != listener.interface)
            {
                let address = &entry.configured.bind;
                let what = format!(
                    "interface: the socket of {address} is bound to another one; restart the broker"
                );
                return Err(ConfigError::of_key(Some(&key), what));
            }
            if running.is_some() {
                listen::check_rights(&listener)
                    .map_err(|error| about(ServerError::Listen(listener.bind.clone(), error)))?;
                planned.changed.push((number, listener, policy));
                continue;
            }
            match listen::bind_again(wanted, &listener, self.0.accepting) {
                Ok(Some(bound)) => planned.opened.push((number, listener, policy, bound)),
                Ok(None) => {}
                Err(error) => return Err(about(ServerError::Listen(listener.bind, error))),
            }
        }
        let open = entries.iter().filter(|entry| entry.listening.is_open);
        let gone = open.map(|entry| entry.listening.number).filter(|of| !numbers.contains(of));
        planned.closed = gone.collect();
        Ok(Some(planned).filter(|planned| !planned.is_empty()))
    }

    /// Makes the changes. The error says which of them could not be made.
    fn commit(&self, planned: Planned) -> Result<(), String> {
        let Some(cores) = self.0.stop.cores() else {
            return Err("the cores do not run yet; reload again".to_owned());
        };
        let Planned { certificates, changed, opened, closed } = planned;
        for (policy, loaded) in certificates {
            certificates::put_in_force(&policy, loaded);
        }
        let mut errors = Vec::new();
        let mut entries = self.entries();
        let mut sockets: Vec<Listeners> = (0..cores.count()).map(|_| Vec::new()).collect();
        for (number, configured, policy) in changed {
            if let Err(error) = listen::set_rights(&configured) {
                errors.push(format!("{}: {error}", configured.bind));
            }
            let entry = &mut entries[usize::from(number)];
            entry.listening.transport = configured.transport;
            entry.listening.policy = Arc::new(policy);
            entry.configured = configured;
            tracing::info!(address = %entry.listening.bind, "the rules of a listener have changed");
        }
        for (number, configured, policy, bound) in opened {
            match bound.listen() {
                Ok((of_cores, bind)) => {
                    for (core, socket) in sockets.iter_mut().zip(of_cores) {
                        core.push(Listener { number, socket, is_ours: true });
                    }
                    Self::enter(&mut entries, number, configured, (bind, Arc::new(policy)));
                }
                Err(error) => errors.push(format!("cannot listen on {}: {error}", configured.bind)),
            }
        }
        listen::steer(&sockets, &self.0.placements);
        // Before the sockets, so that every core knows the rules of each connection.
        let policies: ListenerPolicies =
            entries.iter().map(|entry| Arc::clone(&entry.listening.policy)).collect();
        let told = reload::tell_engines(cores, |reply| EngineCommand::Policies {
            policies: Arc::clone(&policies),
            reply,
        });
        errors.extend(told.err());
        if !closed.is_empty() || sockets.iter().any(|of_core| !of_core.is_empty()) {
            let change = |open| Handed::new(ListenerChange { open, close: closed.clone() });
            let changes: Vec<Handed> = sockets.into_iter().map(change).collect();
            let told = reload::tell_all(cores, |core, reply| Command::Listen {
                change: changes[core].clone(),
                reply,
            });
            errors.extend(told.err());
        }
        for number in closed {
            let entry = &mut entries[usize::from(number)];
            entry.listening.is_open = false;
            entry.remove_path();
            tracing::info!(address = %entry.listening.bind, "no longer listening");
        }
        self.publish(&entries);
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors.join("; ")),
        }
    }

    /// Notes a listener that has been opened.
    fn enter(
        entries: &mut Vec<Entry>,
        number: u16,
        configured: config::Listener,
        (bind, policy): (Bind, Arc<ListenerPolicy>),
    ) {
        let transport = configured.transport;
        tracing::info!(address = %bind, transport = transport.name(), "listening");
        let listening = Listening { number, bind, transport, policy, is_open: true };
        let entry = Entry { configured, listening, is_ours: true };
        match entries.get_mut(usize::from(number)) {
            Some(place) => *place = entry,
            None => entries.push(entry),
        }
    }

    fn publish(&self, entries: &[Entry]) {
        self.0.table.set(entries.iter().map(|entry| entry.listening.clone()).collect());
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Only reloads change them, one at a time.
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Planned {
    fn is_empty(&self) -> bool {
        self.certificates.is_empty()
            && self.changed.is_empty()
            && self.opened.is_empty()
            && self.closed.is_empty()
    }
}

impl Entry {
    /// Removes a socket in the file system that the broker has made.
    fn remove_path(&self) {
        if let (Bind::Path(path), true) = (&self.listening.bind, self.is_ours) {
            listen::remove(path);
        }
    }
}
