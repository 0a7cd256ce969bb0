//! Drain and rebalance: orders to the cores to send clients, and sessions without a client, to other nodes of the cluster.
//!
//! A drain is an order that is repeated twice a second with the members of the moment, by a thread of its own
//! ([`Drainer`]), because nodes join and leave meanwhile. The answers of the cores are its progress. Outside a cluster a
//! drain refuses new clients and does nothing else.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::control::cluster::{ClusterBoard, ClusterStatus, MemberStatus};
use crate::control::stop::Stop;
use crate::control::{Command, EngineCommand};

/// Clients a second that a core disconnects, if nothing else is asked for.
pub const RATE: u32 = 100;

/// The highest rate that can be asked for.
pub const RATE_MAX: u32 = 100_000;

/// Time between two orders.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long the thread waits for the answers of the cores.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a core has to do with its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// Another number is another order: what was counted for the one before does not count.
    pub number: u64,
    /// What for.
    pub purpose: Purpose,
    /// Clients a second that the core disconnects; 0 for none.
    pub rate: u32,
    /// The nodes that take them.
    pub targets: Box<[Target]>,
}

/// What an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The node is emptied: new clients are refused, and sessions without a client move too.
    Drain,
    /// So many clients of the core go elsewhere.
    Rebalance {
        /// Their number.
        clients: u64,
    },
}

/// A node that takes clients and sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its number.
    pub node: u16,
    /// Its address for clients; empty if none is configured.
    pub server_reference: Box<str>,
    /// Whether its program can be offered sessions.
    pub takes_sessions: bool,
}

/// How far a core has come, or all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Connected clients that are left.
    pub clients: u64,
    /// Sessions without a client that are left.
    pub sessions: u64,
    /// Those of them that are offered to other nodes or on their way.
    pub under_way: u64,
    /// Clients that were disconnected for this order.
    pub disconnected: u64,
    /// Sessions that have moved to other nodes since the start of the broker, for whatever reason.
    pub moved: u64,
    /// All sessions have been looked at since the order was given.
    pub is_counted: bool,
}

impl DrainProgress {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.is_counted && self.clients == 0 && self.sessions == 0 && self.under_way == 0
    }

    fn add(&mut self, of: Self) {
        self.clients += of.clients;
        self.sessions += of.sessions;
        self.under_way += of.under_way;
        self.disconnected += of.disconnected;
        self.moved += of.moved;
        self.is_counted &= of.is_counted;
    }
}

/// The drain or rebalance of this node, for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainStatus {
    /// Whether clients and sessions go to other nodes: the broker is a node of a cluster.
    pub is_node: bool,
    /// What it is for; none while there is none.
    pub purpose: Option<Purpose>,
    /// Clients a second that each core disconnects.
    pub rate: u32,
    /// How far it has come; none before the cores have answered.
    pub progress: Option<DrainProgress>,
}

impl DrainStatus {
    /// Whether new clients are refused.
    pub fn is_draining(&self) -> bool {
        self.purpose == Some(Purpose::Drain)
    }

    /// Whether the node is drained, and nothing is left on it.
    pub fn is_empty(&self) -> bool {
        self.is_draining() && self.progress.is_some_and(|progress| progress.is_empty())
    }
}

/// Drains this node, or sends some of its clients elsewhere; clones are the same one.
#[derive(Clone, Debug)]
pub struct Drainer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stop: Stop,
    /// None if the broker is no node of a cluster.
    board: Option<ClusterBoard>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the latest order.
    number: u64,
    status: DrainStatus,
    has_thread: bool,
}

impl Drainer {
    /// For the cores that `stop` will know, and the cluster on the board.
    pub fn new(stop: Stop, board: Option<ClusterBoard>) -> Self {
        Self(Arc::new(Inner { stop, board, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs with the lock held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The drain, and how far it has come.
    pub fn status(&self) -> DrainStatus {
        DrainStatus { is_node: self.0.board.is_some(), ..self.state().status }
    }

    /// Begins a drain or a rebalance, in place of the one before. Each core disconnects `rate` clients a second.
    ///
    /// # Errors
    ///
    /// The thread that repeats the order cannot be made.
    pub fn begin(&self, purpose: Purpose, rate: u32) -> io::Result<()> {
        {
            let mut state = self.state();
            let rate = rate.clamp(1, RATE_MAX);
            state.number += 1;
            state.status = DrainStatus { purpose: Some(purpose), rate, ..DrainStatus::default() };
            let Some(board) = &self.0.board else { return Ok(()) };
            board.set_emptied(purpose == Purpose::Drain);
            if std::mem::replace(&mut state.has_thread, true) {
                return Ok(());
            }
        }
        let drainer = self.clone();
        let run = move || drainer.run();
        let thread = std::thread::Builder::new().name("drain".to_owned()).spawn(run);
        if thread.is_err() {
            self.state().has_thread = false;
        }
        thread.map(drop)
    }

    /// Ends the drain: clients are accepted again. Sessions that are on their way arrive at their new nodes.
    pub fn end(&self) {
        let mut state = self.state();
        state.number += 1;
        state.status = DrainStatus::default();
        if let Some(board) = &self.0.board {
            board.set_emptied(false);
        }
    }

    /// What the cores have to do now; none if nothing.
    pub fn order(&self) -> Option<Arc<DrainOrder>> {
        let (number, status) = {
            let state = self.state();
            (state.number, state.status)
        };
        let purpose = status.purpose?;
        let targets = self.0.board.as_ref().map(|board| targets(&board.status()));
        let targets = targets.unwrap_or_default();
        Some(Arc::new(DrainOrder { number, purpose, rate: status.rate, targets }))
    }

    /// Drains the node for so long at most, and asks the broker to stop then.
    ///
    /// # Errors
    ///
    /// A thread cannot be made.
    pub fn stop_within(&self, most: Duration) -> io::Result<()> {
        let rate = self.rate_within(most);
        self.begin(Purpose::Drain, rate)?;
        let drainer = self.clone();
        let run = move || {
            let begun = Instant::now();
            let stop = &drainer.0.stop;
            while begun.elapsed() < most && !drainer.status().is_empty() && !stop.is_requested() {
                std::thread::sleep(Duration::from_millis(100));
            }
            let progress = drainer.status().progress.unwrap_or_default();
            let DrainProgress { clients, sessions, .. } = progress;
            tracing::info!(clients, sessions, "drained before the stop; so many are left");
            if !stop.is_requested() {
                stop.request();
            }
        };
        std::thread::Builder::new().name("drain-stop".to_owned()).spawn(run).map(drop)
    }

    /// A rate at which the clients of a core are gone in half of this time, at least the default one.
    fn rate_within(&self, most: Duration) -> u32 {
        let Some(progress) = self.status().progress.or_else(|| self.ask(None)) else { return RATE };
        let cores = self.0.stop.cores().map_or(1, |cores| cores.count()) as u64;
        let rate = progress.clients.div_ceil(cores) * 2 / most.as_secs().max(1);
        u32::try_from(rate).unwrap_or(RATE_MAX).clamp(RATE, RATE_MAX)
    }

    /// Repeats the order until it is ended, and the cores know.
    fn run(&self) {
        while !self.0.stop.is_requested() {
            let order = self.order();
            let number = order.as_ref().map(|order| order.number);
            let is_rebalance = order.as_ref().is_some_and(|order| order.purpose != Purpose::Drain);
            let progress = self.ask(order);
            let mut state = self.state();
            match number {
                None if state.status.purpose.is_none() => {
                    state.has_thread = false;
                    return;
                }
                Some(number) if number == state.number => {
                    state.status.progress = progress.or(state.status.progress);
                    let is_over = |of: DrainProgress| of.clients == 0 && of.is_counted;
                    if is_rebalance && progress.is_some_and(is_over) {
                        state.status = DrainStatus::default();
                    }
                }
                // There is another order.
                _ => continue,
            }
            drop(state);
            std::thread::sleep(INTERVAL);
        }
    }

    /// Gives all cores the order; their progress together. None if one of them does not answer.
    fn ask(&self, order: Option<Arc<DrainOrder>>) -> Option<DrainProgress> {
        let cores = self.0.stop.cores()?;
        let replies = cores
            .ask_all(|reply| Command::Engine(EngineCommand::Drain { order: order.clone(), reply }));
        let begun = Instant::now();
        let mut progress = DrainProgress { is_counted: true, ..DrainProgress::default() };
        let mut left = cores.count();
        while left > 0 && begun.elapsed() < PATIENCE {
            match replies.try_next() {
                Some((_, answer)) => {
                    progress.add(answer.ok()?);
                    left -= 1;
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        (left == 0).then_some(progress)
    }

    /// Takes what the cores have answered, each for itself, to an order that was given otherwise.
    pub fn note_answers(&self, answers: impl IntoIterator<Item = DrainProgress>) {
        let mut progress = DrainProgress { is_counted: true, ..DrainProgress::default() };
        answers.into_iter().for_each(|of| progress.add(of));
        let mut state = self.state();
        if state.status.purpose.is_some() {
            state.status.progress = Some(progress);
        }
    }
}

/// The other members that serve clients, and are not being emptied.
fn targets(status: &ClusterStatus) -> Box<[Target]> {
    let others = status.members.iter().filter(|member| !member.is_own && member.state == "member");
    let target = |member: &MemberStatus| Target {
        node: member.node.into(),
        server_reference: member.advertise.as_str().into(),
        takes_sessions: member.takes_sessions,
    };
    others.map(target).collect()
}
