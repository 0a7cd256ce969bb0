//! Several nodes that serve as one: processes with their cores and a gateway each, and in the place of NATS a
//! [`Carrier`] that delays and loses frames.
//!
//! The cores of all nodes are numbered one after the other, so that clients and the judge treat a core of another node
//! like a core of their own. A client stays at its node. Which nodes are members is decided here, and each node follows
//! some time later.

mod carrier;
mod process;

use std::ops::Range;

use ringmq::base::clock::Now;
use ringmq::engine::Engine;
use ringmq::resources::gauges::Place;

use self::carrier::Carrier;
use self::process::Process;
use crate::plan::{NodeStep, Plan};
use crate::random::Random;
use crate::world::Lane;

/// The nodes of a run; none if the broker is a single process.
pub struct Nodes {
    processes: Vec<Process>,
    carrier: Carrier,
    /// Number of cores of each node.
    cores: usize,
    /// Clients connect to any node.
    roams: bool,
    /// By node, the incarnation that is a member; none if it was evicted.
    view: Vec<Option<u64>>,
    /// The highest incarnation so far.
    incarnations: u64,
    /// Batches that the way between a core and its gateway has room for.
    lane_capacity: usize,
}

impl Nodes {
    pub fn new(plan: &Plan) -> Self {
        let (nodes, cores) = (usize::from(plan.nodes), usize::from(plan.cores));
        Self {
            processes: Vec::new(),
            carrier: Carrier::new(nodes),
            cores,
            roams: plan.roams,
            view: vec![None; nodes],
            incarnations: 0,
            lane_capacity: plan.lane_capacity,
        }
    }

    /// Number of nodes; 0 for a single process without a gateway.
    pub fn count(&self) -> usize {
        self.view.len()
    }

    /// Starts all nodes: the places of their cores. None for a single process.
    pub fn start(&mut self) -> Option<Vec<Place>> {
        let places = (0..self.count()).flat_map(|node| self.start_node(node)).collect();
        (self.count() > 0).then_some(places)
    }

    /// Starts a node, in the place of the one that was killed: the places of its cores.
    pub fn start_node(&mut self, node: usize) -> Vec<Place> {
        self.incarnations += 1;
        self.view[node] = Some(self.incarnations);
        let (process, places) =
            Process::new(node, self.incarnations, self.cores, self.count(), self.lane_capacity);
        if node < self.processes.len() {
            self.processes[node] = process;
        } else {
            self.processes.push(process);
        }
        places
    }

    /// The node of a core; 0 for a single process.
    pub fn node_of(&self, core: usize) -> usize {
        if self.count() == 0 { 0 } else { core / self.cores }
    }

    /// The cores of the process that has `core`; `all` is the number of all cores.
    pub fn group(&self, core: usize, all: usize) -> Range<usize> {
        match self.count() {
            0 => 0..all,
            _ => self.group_of(self.node_of(core)),
        }
    }

    fn group_of(&self, node: usize) -> Range<usize> {
        node * self.cores..(node + 1) * self.cores
    }

    /// The cores that a client may connect to; `all` is the number of all cores. None while its node is not ready.
    pub fn cores_for(
        &self,
        client: usize,
        all: usize,
        random: &mut Random,
    ) -> Option<Range<usize>> {
        match self.count() {
            0 => Some(0..all),
            count => {
                let node = if self.roams { random.below(count) } else { client % count };
                self.processes[node].is_ready().then(|| self.group_of(node))
            }
        }
    }

    /// Whether the process of a core is stopped.
    pub fn is_stopped(&self, core: usize) -> bool {
        self.count() > 0 && self.processes[self.node_of(core)].is_stopped
    }

    /// Whether all nodes are ready for clients.
    pub fn are_ready(&self) -> bool {
        self.processes.iter().all(Process::is_ready)
    }

    /// Something happens to the engine, to its connections or to a node. A kill is a matter of the
    /// [world](crate::world::World::kill).
    pub fn step(&mut self, step: NodeStep, random: &mut Random) {
        match step {
            NodeStep::Stall { from, to, is_stalled } => self.carrier.stall(from, to, is_stalled),
            NodeStep::Cut { from, to, is_cut } => self.carrier.cut(from, to, is_cut),
            NodeStep::Disconnect { node } => self.carrier.disconnect(node, random),
            NodeStep::Connect { node } => self.carrier.connect(node),
            NodeStep::Stop { node, is_stopped } => self.processes[node].is_stopped = is_stopped,
            NodeStep::Evict { node } => self.view[node] = None,
            NodeStep::Kill { node } => self.carrier.disconnect_once(node, random),
        }
    }

    /// The engine and all nodes work again.
    pub fn heal(&mut self) {
        self.carrier.heal();
        self.processes.iter_mut().for_each(|process| process.is_stopped = false);
    }

    /// A core takes batches of its gateway; whether there were any.
    pub fn deliver(
        &mut self,
        (core, engine): (usize, &mut Engine),
        now: Now,
        count: impl FnOnce(usize) -> usize,
        lanes: &mut [Vec<Lane>],
    ) -> bool {
        if self.count() == 0 {
            return false;
        }
        let node = self.node_of(core);
        let own = self.group_of(node);
        self.processes[node].deliver(core - own.start, count, |parcel| {
            engine.handle_batch(now, parcel.peer, parcel.batch);
            for (home, &turn) in parcel.seen.iter().enumerate() {
                if !own.contains(&home) {
                    let arrived = &mut lanes[home][core].arrived;
                    *arrived = turn.max(*arrived);
                }
            }
        })
    }

    /// A core gives batches to its gateway; whether there were any.
    pub fn collect(&mut self, core: usize, engine: &mut Engine, turn: u64) -> bool {
        if self.count() == 0 {
            return false;
        }
        let node = self.node_of(core);
        let first = self.group_of(node).start;
        self.processes[node].collect(core - first, engine, turn)
    }

    /// A turn of a gateway; whether anything moved but reports of the lanes. `all`: everything moves that can.
    ///
    /// # Errors
    ///
    /// A node cannot understand another one.
    pub fn turn(
        &mut self,
        node: usize,
        now: Now,
        random: &mut Random,
        all: bool,
    ) -> Result<bool, String> {
        let Self { processes, carrier, view, incarnations, .. } = self;
        let process = &mut processes[node];
        if process.is_stopped {
            return Ok(false);
        }
        let follows = carrier.is_connected(node) && (all || random.percent(30));
        let mut moved = follows && process.follow(now, view, incarnations);
        moved |= process.turn(now, random, all, carrier)?;
        Ok(moved)
    }
}
