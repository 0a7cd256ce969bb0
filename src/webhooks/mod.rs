//! Webhooks: events that are reported to HTTP servers of the operator, off the data path.
//!
//! | file | what it does |
//! | --- | --- |
//! | `destination` | a server, and one request to it |
//! | `sender` | the thread of a webhook: batches, repetitions, the end |
//! | `body` | events as JSON |
//!
//! The engine of a core puts events into the bounded queue of each webhook that wants them
//! ([`crate::control::webhooks`]), and never waits. Each webhook has a thread of its own, so that a server that is slow
//! or down delays neither cores nor other webhooks.

mod body;
mod destination;
mod sender;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{ConfigError, Settings, Webhook, keys};
use crate::control::reload::{self, Reload};
use crate::control::stop::Stop;
use crate::control::webhooks::{Queue, Rules, Status, Tap};
use crate::control::{EngineCommand, Reply};
use destination::Destination;
use sender::{Clock, Sender};

/// How long the events that wait are sent when the broker stops, or when a webhook is removed.
const FLUSH: Duration = Duration::from_secs(5);

/// How long a thread may take to end after that.
const END: Duration = Duration::from_millis(500);

/// The webhooks of a broker; clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Webhooks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    clock: Arc<Clock>,
    hooks: Mutex<Hooks>,
}

#[derive(Debug, Default)]
struct Hooks {
    each: Vec<Hook>,
    /// Threads of webhooks that a reload has removed.
    leaving: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Hook {
    settings: Webhook,
    tap: Tap,
    sender: Arc<Sender>,
    thread: JoinHandle<()>,
}

/// Webhooks whose files have been read.
struct Prepared(Vec<(Webhook, Destination)>);

impl Prepared {
    fn read(webhooks: &[Webhook]) -> Result<Self, (usize, String)> {
        let read = |(number, webhook): (usize, &Webhook)| {
            let destination = Destination::open(webhook).map_err(|what| {
                (number, format!("[[webhooks]] name = \"{}\": {what}", webhook.name))
            })?;
            Ok((webhook.clone(), destination))
        };
        webhooks.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// What is wrong with the webhooks of a configuration, if anything is.
pub fn check(settings: &Settings) -> Result<(), String> {
    Prepared::read(&settings.webhooks).map(drop).map_err(|(_, what)| what)
}

impl Webhooks {
    /// Reads the files of the webhooks, starts their threads, and registers them for reloads.
    pub fn open(settings: &Settings, reload: &Reload, stop: &Stop) -> Result<Self, String> {
        let webhooks = Self::default();
        let prepared = Prepared::read(&settings.webhooks).map_err(|(_, what)| what)?;
        let (_, outcome) = webhooks.put_in_force(prepared);
        outcome.map_err(|error| format!("cannot start the thread of a webhook: {error}"))?;
        webhooks.register(reload, stop);
        Ok(webhooks)
    }

    fn register(&self, reload: &Reload, stop: &Stop) {
        let (webhooks, stop) = (self.clone(), stop.clone());
        reload.on_change(keys::WEBHOOKS, move |change| {
            let (running, wanted) = (&change.running.webhooks, &change.wanted.webhooks);
            if running.is_empty() && wanted.is_empty() {
                return Ok(None);
            }
            let prepared = Prepared::read(wanted).map_err(|(number, what)| {
                ConfigError::of_key(Some(&keys::of_table(keys::WEBHOOKS, number)), what)
            })?;
            let (webhooks, stop) = (webhooks.clone(), stop.clone());
            Ok(Some(Box::new(move || webhooks.change(prepared, &stop))))
        });
    }

    /// These webhooks from now on: those with a name that there was before keep their queue.
    fn change(&self, prepared: Prepared, stop: &Stop) -> Result<(), String> {
        let (removed, started) = self.put_in_force(prepared);
        let taps = self.taps();
        let command = |reply: Reply<()>| EngineCommand::Webhooks { taps: Arc::clone(&taps), reply };
        let outcome = match stop.cores() {
            Some(cores) => reload::tell_engines(cores, command),
            None => Err("the cores do not run yet; reload again".to_owned()),
        };
        let started =
            started.map_err(|error| format!("cannot start the thread of a webhook: {error}"));
        // After the cores have put their last events into the queues.
        let mut hooks = self.hooks();
        hooks.leaving.retain(|thread| !thread.is_finished());
        for Hook { sender, thread, .. } in removed {
            sender.end(Instant::now() + FLUSH);
            hooks.leaving.push(thread);
        }
        started.and(outcome)
    }

    /// Changes the webhooks; returns those that are there no more. An error means that a new one is missing.
    fn put_in_force(&self, Prepared(prepared): Prepared) -> (Vec<Hook>, io::Result<()>) {
        let mut hooks = self.hooks();
        let mut before = std::mem::take(&mut hooks.each);
        let mut outcome = Ok(());
        for (settings, destination) in prepared {
            let known = before.iter().position(|hook| hook.settings.name == settings.name);
            match known.map(|place| before.swap_remove(place)) {
                Some(mut hook) => {
                    hook.sender.set_destination(destination);
                    hook.tap = Tap::new(Rules::from(&settings), hook.sender.queue());
                    hooks.each.push(Hook { settings, ..hook });
                }
                None => match Hook::start(settings, destination, &self.0.clock) {
                    Ok(hook) => hooks.each.push(hook),
                    Err(error) => outcome = Err(error),
                },
            }
        }
        (before, outcome)
    }

    /// The cores' ends of all webhooks.
    pub fn taps(&self) -> Arc<[Tap]> {
        self.hooks().each.iter().map(|hook| hook.tap.clone()).collect()
    }

    /// The clocks of the cores start now.
    pub fn start_clock(&self) {
        self.0.clock.start();
    }

    /// Each webhook.
    pub fn status(&self) -> Vec<Status> {
        self.hooks().each.iter().map(|hook| hook.sender.status(&hook.settings)).collect()
    }

    /// The cores have ended: sends what waits, for a limited time, and ends the threads.
    pub fn end(&self) {
        let (mut threads, until) = (Vec::new(), Instant::now() + FLUSH);
        {
            let mut hooks = self.hooks();
            hooks.each.iter().for_each(|hook| hook.sender.end(until));
            threads.append(&mut hooks.leaving);
            threads.extend(hooks.each.drain(..).map(|hook| hook.thread));
        }
        // A name server may not answer in time.
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until + END {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hook {
    fn start(settings: Webhook, destination: Destination, clock: &Arc<Clock>) -> io::Result<Self> {
        let (queue, take) = Queue::new();
        let name = settings.name.as_str().into();
        let sender = Arc::new(Sender::new(name, destination, queue, Arc::clone(clock)));
        let tap = Tap::new(Rules::from(&settings), sender.queue());
        let run = {
            let sender = Arc::clone(&sender);
            move || sender.run(&take)
        };
        let thread = std::thread::Builder::new().name("webhook".to_owned()).spawn(run)?;
        sender.queue().taken_by(thread.thread().clone());
        Ok(Self { settings, tap, sender, thread })
    }
}
