//! Bridges: the threads that connect this broker to others.
//!
//! | file | what it does |
//! | --- | --- |
//! | `worker` | the thread of a bridge: registration of its session, attempts, pauses, signs of life |
//! | `dial` | one connection: names, addresses, TCP and Unix sockets |
//! | `board` | what is known of a bridge |
//! | `orders` | commands of operators, on their way to the thread |
//! | `lazy` | connections only while messages wait |
//! | `leaving` | the end of a connection by a command |
//! | `backoff` | how long to wait before the next attempt |
//! | `encryption` | TLS and WebSocket to the far broker |
//! | `health` | refused subscriptions, and sessions that others take over |
//! | `identity` | the identifier of this broker in the path of messages |
//! | `token` | passwords that end |
//!
//! A thread resolves names and opens connections, which may block, and hands each connection to a core
//! ([`Command::Adopt`](crate::control::Command::Adopt)). The core's engine serves it like that of a client
//! ([`crate::transport::bridge`]); the thread hears of it through events, and waits in between.

mod backoff;
mod board;
mod dial;
mod encryption;
mod health;
mod identity;
mod lazy;
mod leaving;
mod orders;
mod token;
mod worker;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use flume::Sender;

use crate::base::host_name::host_name;
use crate::config::Settings;
use crate::config::bridge::{Bridge, Echo, Profile};
use crate::control::bridge::{BridgeCommand, BridgeIsStopped, BridgeStatus};
use crate::control::stop::Stop;
use crate::control::{Cores, Replies};
use crate::transport::bridge::mapping::{InMap, OutMap};
use crate::transport::bridge::{Counters, SESSION_PREFIX, Terms, notification};
use board::Board;
use worker::Worker;

/// Stack of the thread of a bridge: it resolves names, and does little else.
const STACK_BYTES: usize = 256 * 1024;

/// The bridges of a broker; clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Bridges(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    boards: Vec<Arc<Board>>,
    /// Dropping it ends the threads: at once, or when an attempt to connect that is under way is over.
    running: Mutex<Option<Sender<()>>>,
}

impl Bridges {
    /// The configured bridges, of which none runs yet.
    pub fn new(settings: &Settings) -> Self {
        let boards = settings.bridges.iter().map(|bridge| Arc::new(Board::new(bridge))).collect();
        Self(Arc::new(Shared { boards, running: Mutex::default() }))
    }

    /// Starts the threads. `folder` is that of the store, if there is one.
    pub fn start(
        &self,
        settings: &Settings,
        folder: Option<&Path>,
        cores: &Cores,
        stop: &Stop,
    ) -> io::Result<()> {
        if settings.bridges.is_empty() {
            return Ok(());
        }
        let broker = identity::of_broker(folder);
        let (running, stopped) = flume::bounded(0);
        *self.running() = Some(running);
        for (bridge, board) in settings.bridges.iter().zip(&self.0.boards) {
            let bridge = bridge.with_profile();
            let worker = Worker {
                terms: Arc::new(terms(&bridge, settings, &broker)),
                bridge: bridge.clone(),
                cores: cores.clone(),
                board: Arc::clone(board),
                stop: stop.clone(),
                stopped: stopped.clone(),
            };
            let thread = thread::Builder::new()
                .name(format!("bridge {}", bridge.name))
                .stack_size(STACK_BYTES);
            thread.spawn(move || worker.run())?;
        }
        Ok(())
    }

    /// Ends the threads, once the cores have stopped.
    pub fn end(&self) {
        *self.running() = None;
    }

    /// What is known of each bridge, in the order of the configuration.
    pub fn status(&self) -> Vec<BridgeStatus> {
        self.0.boards.iter().map(|board| board.status()).collect()
    }

    /// Client Identifiers of the sessions of all bridges, in the order of [`Self::status`].
    pub fn sessions(&self) -> Arc<[Box<str>]> {
        self.0.boards.iter().map(|board| session(board.name()).into()).collect()
    }

    /// Sends a command to a bridge; none if no bridge has this name. The reply comes when the command is carried out.
    pub fn command(
        &self,
        name: &str,
        command: BridgeCommand,
    ) -> Option<Replies<Result<(), BridgeIsStopped>>> {
        Some(self.board(name)?.orders.send(command))
    }

    /// An operator has dropped messages of a bridge.
    pub fn note_dropped(&self, name: &str, messages: u64) {
        if let Some(board) = self.board(name) {
            Counters::add(&board.counters.by_operator, messages);
        }
    }

    fn board(&self, name: &str) -> Option<&Arc<Board>> {
        self.0.boards.iter().find(|board| board.name() == name)
    }

    fn running(&self) -> MutexGuard<'_, Option<Sender<()>>> {
        // No code that can panic runs with the lock held.
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Client Identifier of the session of a bridge.
fn session(name: &str) -> String {
    format!("{SESSION_PREFIX}{name}")
}

fn terms(bridge: &Bridge, settings: &Settings, broker: &str) -> Terms {
    let client_identifier = bridge.client_identifier(&host_name());
    let notifies = bridge.profile == Profile::Mosquitto;
    Terms {
        notification: notifies.then(|| notification::topic(&client_identifier).into()),
        accepts: bridge.accepts(),
        session: session(&bridge.name).into(),
        user: (!bridge.user.is_empty()).then(|| bridge.user.as_str().into()),
        client_identifier: client_identifier.into(),
        keep_alive_s: bridge.keep_alive_s,
        session_expiry_s: bridge.session_expiry_s,
        retained: bridge.retained,
        hops_max: usize::from(bridge.hops_max),
        broker: broker.into(),
        packet_bytes_max: settings.limits.packet_bytes_max,
        sent_bytes_max: (bridge.packet_bytes_max > 0).then_some(bridge.packet_bytes_max),
        receive_maximum: match bridge.receive_maximum {
            0 => settings.limits.receive_maximum,
            own => own,
        },
        out: OutMap::new(&bridge.outgoing),
        r#in: InMap::new(&bridge.incoming),
        echoes: (bridge.echo == Echo::Auto && bridge.has_overlap()).then(Arc::default),
    }
}
