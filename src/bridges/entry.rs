//! One bridge with the threads of its connections: how they start, change, and make room for others.
//!
//! If a reload changes the number of connections, topics move from one session to another. So that nothing is lost and
//! topics stay in order, the new sessions begin to queue messages first; then the former ones take no more, and send what
//! they have; and the new ones connect when the former ones have ended.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender};

use super::board::Board;
use super::change::Change;
use super::running::{Place, STACK_BYTES};
use super::whole::Whole;
use super::worker::Worker;
use crate::base::host_name::host_name;
use crate::base::part::Part;
use crate::config::bridge::{Bridge, StartMode};
use crate::control::bridge::BridgeState;
use crate::transport::bridge::Terms;

/// How often a thread that waits for others looks whether the broker stops.
const LOOK: Duration = Duration::from_secs(1);

/// A bridge with its threads.
#[derive(Debug)]
pub(super) struct Entry {
    /// The table that the threads have, or have been sent, with what its profile sets.
    pub bridge: Bridge,
    /// What is known of it.
    pub whole: Arc<Whole>,
    connections: Vec<Connection>,
    /// Those that end once their queues are sent.
    leaving: Vec<Connection>,
}

/// A connection with its thread.
#[derive(Clone, Debug)]
struct Connection {
    board: Arc<Board>,
    /// Disconnected when the session has the subscriptions of the table.
    registered: Receiver<()>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

/// What a new thread waits for.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    /// Disconnected before it does anything: by threads of bridges that have the name or the Client Identifier, when they
    /// have ended; and, for a connection that takes no more messages, by those that take its place, when they do.
    pub first: Vec<Receiver<()>>,
    /// Threads that have to have ended before it connects, as their sessions may have earlier messages of its topics.
    pub before: Vec<Receiver<()>>,
    /// The connections whose place it takes are stopped by a command, and so is it.
    pub is_stopped: bool,
}

/// Whether a connection stays.
enum Role {
    Stays,
    /// It ends once its queue is sent, and drops this then.
    Leaves(Option<Sender<()>>),
}

impl Entry {
    /// Starts the threads of a bridge.
    pub fn start(
        place: &Place,
        bridge: Bridge,
        terms: impl Fn(&Bridge) -> Terms,
        waits: &Waits,
    ) -> Result<Self, String> {
        note_share(&bridge);
        let whole = Arc::new(Whole::new(&bridge));
        let mut entry = Self { bridge, whole, connections: Vec::new(), leaving: Vec::new() };
        let host = host_name();
        for part in entry.bridge.parts() {
            let table = entry.bridge.for_part(part, &host);
            match entry.begin(place, part, table, &terms, waits.clone(), Role::Stays) {
                Ok(connection) => entry.connections.push(connection),
                Err(what) => {
                    end_all(&entry.connections, false);
                    return Err(what);
                }
            }
        }
        Ok(entry)
    }

    fn begin(
        &self,
        place: &Place,
        part: Option<Part>,
        table: Bridge,
        terms: &impl Fn(&Bridge) -> Terms,
        waits: Waits,
        role: Role,
    ) -> Result<Connection, String> {
        let board = Arc::new(Board::new(&table, part, &self.whole.counters));
        let (running, ended) = flume::bounded(0);
        let (registering, registered) = flume::bounded(0);
        let (leaves, door) = match role {
            Role::Stays => (false, None),
            Role::Leaves(door) => (true, door),
        };
        let terms = if leaves { leaving(terms(&table)) } else { terms(&table) };
        let worker = Worker {
            terms: Arc::new(terms),
            bridge: table,
            server: 0,
            is_returning: false,
            failed_returns: 0,
            cores: place.cores.clone(),
            board: Arc::clone(&board),
            whole: Arc::clone(&self.whole),
            stop: place.stop.clone(),
            stopped: place.stopped.clone(),
            waits,
            leaves,
            no_local: true,
            registering: Some(registering),
            _running: (running, door),
        };
        let name = &worker.bridge.name;
        let thread = thread::Builder::new().name(format!("bridge {name}")).stack_size(STACK_BYTES);
        let refused = format!("[[bridges]] name = \"{name}\": cannot start its thread");
        self.whole.add(&board);
        let spawned = thread.spawn(move || worker.run());
        if let Err(error) = spawned {
            self.whole.remove(&board);
            return Err(format!("{refused}: {error}"));
        }
        Ok(Connection { board, registered, ended })
    }

    /// When the threads have ended.
    pub fn ended(&self) -> impl Iterator<Item = Receiver<()>> {
        self.all().map(|of| of.ended.clone())
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().chain(&self.leaving)
    }

    /// The table is gone.
    pub fn end(&self, drops_queue: bool) -> Result<(), String> {
        self.check_room()?;
        for of in self.all() {
            of.board.orders.change(Change::End { drops_queue });
        }
        Ok(())
    }

    /// Another table of the same name holds from now on. With `drops_queues`, connections that make room for others drop
    /// what they have not sent.
    pub fn change(
        &mut self,
        place: &Place,
        wanted: Bridge,
        terms: impl Fn(&Bridge) -> Terms,
        drops_queues: bool,
    ) -> Result<(), String> {
        self.check_room()?;
        self.leaving.retain(|of| !of.ended.is_disconnected());
        let host = host_name();
        if self.bridge.parts().len() != wanted.parts().len() {
            self.replace(place, &wanted, &terms, drops_queues)?;
        } else {
            for of in &self.connections {
                let table = wanted.for_part(of.board.part(), &host);
                let terms = Box::new(terms(&table));
                of.board.orders.change(Change::To(Box::new(table), terms));
            }
            for of in &self.leaving {
                of.board.orders.change(leave(&wanted, of.board.part(), &terms));
            }
        }
        if (&self.bridge.share, self.bridge.connections) != (&wanted.share, wanted.connections) {
            note_share(&wanted);
        }
        self.whole.set_servers(&wanted);
        self.bridge = wanted;
        Ok(())
    }

    /// Other connections take the place of those that there are.
    fn replace(
        &mut self,
        place: &Place,
        wanted: &Bridge,
        terms: &impl Fn(&Bridge) -> Terms,
        drops_queues: bool,
    ) -> Result<(), String> {
        let host = host_name();
        let before: Vec<_> = self.ended().collect();
        let is_stopped =
            self.connections.iter().all(|of| of.board.status().state == BridgeState::Stopped);
        let mut connections = Vec::new();
        for part in wanted.parts() {
            let same = self.leaving.iter().filter(|of| of.board.part() == part);
            let first = same.map(|of| of.ended.clone()).collect();
            let waits = Waits { first, before: before.clone(), is_stopped };
            let table = wanted.for_part(part, &host);
            match self.begin(place, part, table, terms, waits, Role::Stays) {
                Ok(connection) => connections.push(connection),
                Err(what) => {
                    // The former ones go on, and have all that these have.
                    end_all(&connections, true);
                    return Err(what);
                }
            }
        }
        let registered: Vec<_> = connections.iter().map(|of| of.registered.clone()).collect();
        self.leaving.append(&mut self.connections);
        self.connections = connections;
        let changes: Vec<_> = self
            .leaving
            .iter()
            .map(|of| {
                let change = match drops_queues {
                    true => Change::End { drops_queue: true },
                    false => leave(wanted, of.board.part(), terms),
                };
                (Arc::clone(&of.board), change)
            })
            .collect();
        let stopped = place.stopped.clone();
        let hand_over = move || {
            if registered.iter().all(|of| has_ended(of, &stopped)) {
                for (board, change) in changes {
                    board.orders.change(change);
                }
            }
        };
        let thread = thread::Builder::new().name("bridges".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(hand_over).map(drop).map_err(|error| error.to_string())
    }

    /// The store has a session of a connection that the table does not have: once those of the table have their
    /// subscriptions, it loses its own, sends its queue, and ends. `door` is dropped then.
    pub fn take_up(
        &mut self,
        place: &Place,
        part: Option<Part>,
        door: Option<Sender<()>>,
        terms: impl Fn(&Bridge) -> Terms,
    ) -> Result<(), String> {
        let table = without_waiting(self.bridge.for_part(part, &host_name()));
        let first = self.connections.iter().map(|of| of.registered.clone()).collect();
        let (waits, role) = (Waits { first, ..Waits::default() }, Role::Leaves(door));
        self.leaving.push(self.begin(place, part, table, &terms, waits, role)?);
        Ok(())
    }

    /// Whether the bridge has a session for this part of all topics.
    pub fn has(&self, part: Option<Part>) -> bool {
        self.all().any(|of| of.board.part() == part)
    }

    fn check_room(&self) -> Result<(), String> {
        let name = &self.bridge.name;
        self.all().all(|of| of.board.orders.has_room()).then_some(()).ok_or_else(|| {
            format!("[[bridges]] name = \"{name}\": the bridge is still busy with earlier changes; reload again")
        })
    }
}

/// The far broker deals messages of a shared subscription out to all its members.
fn note_share(bridge: &Bridge) {
    if !bridge.share.is_empty() {
        let (bridge, share) = (&*bridge.name, &*bridge.share);
        tracing::info!(
            bridge,
            share,
            "the far broker deals out the messages of [[bridges.in]]: the order of messages is lost"
        );
    }
}

fn end_all(connections: &[Connection], drops_queue: bool) {
    for of in connections {
        of.board.orders.change(Change::End { drops_queue });
    }
}

/// The change of a connection that makes room for others.
fn leave(wanted: &Bridge, part: Option<Part>, terms: &impl Fn(&Bridge) -> Terms) -> Change {
    let table = without_waiting(wanted.for_part(part, &host_name()));
    let terms = leaving(terms(&table));
    Change::Leave(Box::new(table), Box::new(terms))
}

/// A connection that sends what is queued connects for that.
fn without_waiting(table: Bridge) -> Bridge {
    match table.start {
        StartMode::Lazy => Bridge { start: StartMode::Always, ..table },
        StartMode::Always | StartMode::Once | StartMode::Manual => table,
    }
}

/// The terms of a connection that takes no more messages here.
fn leaving(terms: Terms) -> Terms {
    Terms { out: terms.out.without_subscriptions(), ..terms }
}

/// Waits until something is disconnected; false if the broker stops before.
fn has_ended(of: &Receiver<()>, stopped: &Receiver<()>) -> bool {
    loop {
        match of.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) if stopped.is_disconnected() => return false,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}
