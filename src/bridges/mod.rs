//! Bridges: the threads that connect this broker to others.
//!
//! | file | what it does |
//! | --- | --- |
//! | `running` | the bridges that there are: which threads a start and a reload begin, change and end |
//! | `entry` | one of them, with the threads of its connections |
//! | `worker` | the thread of a connection: registration of its session, attempts |
//! | `course` | what it does after a connection, and on orders without one: pauses, other tables |
//! | `watch` | a connection as the thread sees it: events, signs of life |
//! | `change` | changes by a reload, on their way to the connection and the session |
//! | `dial` | one connection: names, addresses, TCP and Unix sockets |
//! | `board` | what is known of a connection |
//! | `whole` | what is known of a bridge with its connections |
//! | `orders` | commands of operators and changes by reloads, on their way to the thread |
//! | `lazy` | connections only while messages wait |
//! | `leaving` | the end of a connection by an order |
//! | `backoff` | how long to wait before the next attempt |
//! | `encryption` | TLS and WebSocket to the far broker |
//! | `prefer` | the first server, once it is there again |
//! | `health` | refused subscriptions, and sessions that others take over |
//! | `identity` | the identifier of this broker in the path of messages |
//! | `token` | passwords that end |
//!
//! A thread resolves names and opens connections, which may block, and hands each connection to a core
//! ([`Command::Adopt`](crate::control::Command::Adopt)). The core's engine serves it like that of a client
//! ([`crate::transport::bridge`]); the thread hears of it through events, and waits in between.

mod backoff;
mod board;
mod change;
mod course;
mod dial;
mod encryption;
mod entry;
mod health;
mod identity;
mod lazy;
mod leaving;
mod orders;
mod prefer;
mod running;
mod token;
mod watch;
mod whole;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::config::Settings;
use crate::control::bridge::{BridgeCommand, BridgeIsStopped, BridgeStatus};
use crate::control::stop::Stop;
use crate::control::{Cores, Replies, replies};
use crate::transport::bridge::{Counters, SESSION_PREFIX};
use change::kept;
use running::{Place, Running, STACK_BYTES};

/// The bridges of a broker; clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Bridges(Arc<Mutex<Running>>);

impl Bridges {
    /// No bridges, until [`Self::start`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the threads. `folder` is that of the store, if there is one.
    pub fn start(
        &self,
        settings: &Settings,
        folder: Option<PathBuf>,
        cores: &Cores,
        stop: &Stop,
    ) -> Result<(), String> {
        let place = Place::new(folder, cores.clone(), stop.clone());
        let mut running = self.running();
        let names = settings.bridges.iter().map(|of| &*of.name);
        let doors = running.begin(place, names);
        running.apply(settings, false)?;
        drop(running);
        // A single core may run on this thread later, and answers only then.
        let (bridges, cores) = (self.clone(), cores.clone());
        let thread = thread::Builder::new().name("bridges".to_owned()).stack_size(STACK_BYTES);
        let look = move || {
            let kept = kept(&cores);
            bridges.running().take_up(kept, doors);
        };
        thread.spawn(look).map(drop).map_err(|error| error.to_string())
    }

    /// Makes the bridges those of these settings. Those that end drop their sessions here if that is asked for. The error
    /// says what has not changed.
    pub fn apply(&self, settings: &Settings, drops_queues: bool) -> Result<(), String> {
        let mut running = self.running();
        let outcome = running.apply(settings, drops_queues);
        running.is_behind = outcome.is_err();
        outcome
    }

    /// Whether the last change has failed, so that the bridges are not those of the settings.
    pub fn is_behind(&self) -> bool {
        self.running().is_behind
    }

    /// Ends the threads, once the cores have stopped: at once, or when an attempt to connect that is under way is over.
    pub fn end(&self) {
        self.running().end();
    }

    /// What is known of each bridge, in the order of the configuration.
    pub fn status(&self) -> Vec<BridgeStatus> {
        self.running().status()
    }

    /// Client Identifiers of the sessions of a bridge; none if no bridge has this name.
    pub fn sessions(&self, name: &str) -> Option<Vec<Box<str>>> {
        let boards = self.running().whole(name)?.boards();
        Some(boards.iter().map(|board| board.session().into()).collect())
    }

    /// Sends a command to each connection of a bridge; none if no bridge has this name. The replies come when the command
    /// is carried out.
    pub fn command(
        &self,
        name: &str,
        command: BridgeCommand,
    ) -> Option<Replies<Result<(), BridgeIsStopped>>> {
        let boards = self.running().whole(name)?.boards();
        let (to, replies) = replies();
        for (number, board) in boards.iter().enumerate() {
            board.orders.send(command, to.core(number));
        }
        Some(replies)
    }

    /// An operator has dropped messages of a bridge.
    pub fn note_dropped(&self, name: &str, messages: u64) {
        if let Some(whole) = self.running().whole(name) {
            Counters::add(&whole.counters.by_operator, messages);
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // No code that can panic runs with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Client Identifier of the session of a bridge.
fn session(name: &str) -> String {
    format!("{SESSION_PREFIX}{name}")
}
