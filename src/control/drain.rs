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
        let targets = self.0.board.as_ref().map(|board| targets(&board.status(), purpose));
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

/// The other members that serve clients, and are not being emptied; for a rebalance, those with fewer than their share.
fn targets(status: &ClusterStatus, purpose: Purpose) -> Box<[Target]> {
    let share = match purpose {
        Purpose::Drain => u64::MAX,
        Purpose::Rebalance { .. } => Shares::of(status).map_or(0, |of| of.share),
    };
    let has_fewer = |member: &&MemberStatus| {
        share == u64::MAX || clients_of(member).is_some_and(|of| of < share)
    };
    let others = status.members.iter().filter(|member| !member.is_own && serves(member));
    let target = |member: &MemberStatus| Target {
        node: member.node.into(),
        server_reference: member.advertise.as_str().into(),
        takes_sessions: member.takes_sessions,
    };
    others.filter(has_fewer).map(target).collect()
}

fn serves(member: &MemberStatus) -> bool {
    member.state == "member"
}

fn clients_of(member: &MemberStatus) -> Option<u64> {
    member.clients.map(u64::from)
}

/// The connections of this node, and its share of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Those that it has.
    pub own: u64,
    /// Those of a member on average.
    pub share: u64,
    /// Those that it has beyond its share; 0 if that is at most a twentieth of the share.
    pub excess: u64,
}

impl Shares {
    /// By the members that serve clients and tell how many they have; none if they are fewer than two, or this node is
    /// none of them.
    pub fn of(status: &ClusterStatus) -> Option<Self> {
        let own = clients_of(status.own().filter(|own| serves(own))?)?;
        let serving = status.members.iter().filter(|member| serves(member));
        let counts: Vec<u64> = serving.filter_map(clients_of).collect();
        if counts.len() < 2 {
            return None;
        }
        let share = counts.iter().sum::<u64>().div_ceil(counts.len() as u64);
        let excess = own.saturating_sub(share);
        Some(Self { own, share, excess: if excess * 20 > share { excess } else { 0 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(clients: &[Option<u32>]) -> ClusterStatus {
        let member = |(node, &clients): (usize, &Option<u32>)| MemberStatus {
            node: node as u8,
            name: format!("node{node}"),
            incarnation: 1,
            advertise: format!("host{node}:1883"),
            state: "member",
            is_own: node == 0,
            heard_ms: None,
            lease_ms: None,
            clock_ahead_ms: None,
            clients,
            takes_sessions: true,
        };
        let members = clients.iter().enumerate().map(member).collect();
        ClusterStatus { members, ..ClusterStatus::default() }
    }

    #[test]
    fn a_node_gives_away_what_it_has_beyond_its_share_if_that_is_more_than_a_twentieth() {
        let shares = |clients: &[Option<u32>]| Shares::of(&status(clients));
        let of = |own, share, excess| Some(Shares { own, share, excess });
        assert_eq!(shares(&[Some(300), Some(0), Some(0)]), of(300, 100, 200));
        assert_eq!(shares(&[Some(105), Some(95)]), of(105, 100, 0));
        assert_eq!(shares(&[Some(106), Some(94)]), of(106, 100, 6));
        assert_eq!(shares(&[Some(10), Some(94)]), of(10, 52, 0));
        assert_eq!(shares(&[Some(300), None]), None, "nothing is known of others");
    }

    #[test]
    fn clients_of_a_rebalance_go_to_nodes_with_fewer_and_of_a_drain_to_all_that_serve() {
        let mut status = status(&[Some(300), Some(290), Some(0), None]);
        let nodes = |status: &ClusterStatus, purpose| -> Vec<u16> {
            targets(status, purpose).iter().map(|target| target.node).collect()
        };
        assert_eq!(nodes(&status, Purpose::Rebalance { clients: 1 }), [2]);
        assert_eq!(nodes(&status, Purpose::Drain), [1, 2, 3]);
        status.members[1].state = "leaving";
        assert_eq!(nodes(&status, Purpose::Drain), [2, 3]);
    }

    #[test]
    fn a_drain_outside_a_cluster_refuses_clients_and_is_never_empty() {
        let drain = Drainer::new(Stop::new(), None);
        drain.begin(Purpose::Drain, 0).expect("no thread is needed");
        let order = drain.order().expect("an order");
        assert_eq!((order.purpose, order.rate, order.targets.len()), (Purpose::Drain, 1, 0));
        drain.note_answers([DrainProgress::default()]);
        assert!(drain.status().is_draining() && !drain.status().is_empty());
        drain.end();
        assert!(drain.order().is_none() && !drain.status().is_draining());
    }
}
