//! The gateway of one node, and the ways between it and the cores of its process.

use std::collections::VecDeque;

use ringmq::base::clock::Now;
use ringmq::base::ids::CoreId;
use ringmq::cluster::codec;
use ringmq::cluster::gateway::{Gateway, Joined, NodeId};
use ringmq::engine::{Batch, Engine};
use ringmq::resources::gauges::Place;

use super::carrier::{Carrier, InTransit};
use crate::random::Random;
use crate::world::WALL_AT_ZERO_US;

/// Microseconds by which the clock of each node is ahead of the clock of the node before.
const AHEAD_US: u64 = 300_000;

/// Size from which a frame has content: the header of a lane's frame.
const FRAME_WITH_CONTENT_BYTES: usize = 57;

/// A batch between a core and its gateway, with the node that it is for or from.
pub struct Parcel {
    pub peer: CoreId,
    pub batch: Batch,
    /// By core of all nodes, the last turn of which the content may be.
    pub seen: Vec<u64>,
}

pub struct Process {
    node: usize,
    incarnation: u64,
    gateway: Gateway,
    /// By core: batches for the gateway, with the turn in which they were sent, and batches of the gateway.
    to_gateway: Vec<VecDeque<(CoreId, Batch, u64)>>,
    to_core: Vec<VecDeque<Parcel>>,
    capacity: usize,
    /// By core of all nodes, the last turn whose batches have come here, or later.
    seen: Vec<u64>,
    /// By node, the incarnation that is linked.
    linked: Vec<Option<u64>>,
    is_ready: bool,
    pub is_stopped: bool,
}

impl Process {
    /// A node that has just joined, and the places of its cores.
    pub fn new(
        node: usize,
        incarnation: u64,
        cores: usize,
        nodes: usize,
        capacity: usize,
    ) -> (Self, Vec<Place>) {
        let began_us = WALL_AT_ZERO_US + AHEAD_US * node as u64;
        let (places, own) = Place::in_cluster(vec![0; cores], began_us, 7);
        let mut gateway = Gateway::new(own, 7);
        gateway.begin(NodeId(node as u16), incarnation);
        let process = Self {
            node,
            incarnation,
            gateway,
            to_gateway: (0..cores).map(|_| VecDeque::new()).collect(),
            to_core: (0..cores).map(|_| VecDeque::new()).collect(),
            capacity,
            seen: vec![0; cores * nodes],
            linked: vec![None; nodes],
            is_ready: false,
            is_stopped: false,
        };
        (process, places)
    }

    /// Whether clients may connect: the node knows what the others hold, and they know what it holds.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub fn deliver(
        &mut self,
        core: usize,
        count: impl FnOnce(usize) -> usize,
        take: impl FnMut(Parcel),
    ) -> bool {
        let waiting = &mut self.to_core[core];
        let count = count(waiting.len());
        waiting.drain(..count).for_each(take);
        count > 0
    }

    pub fn collect(&mut self, core: usize, engine: &mut Engine, turn: u64) -> bool {
        let mut moved = false;
        while self.to_gateway[core].len() < self.capacity {
            let Some((to, batch)) = engine.poll_node_batch() else { break };
            self.to_gateway[core].push_back((to, batch, turn));
            moved = true;
        }
        moved
    }

    /// Links the members of the view, and no others. A node that was evicted joins again.
    pub fn follow(&mut self, now: Now, view: &mut [Option<u64>], incarnations: &mut u64) -> bool {
        let mut moved = false;
        if view[self.node] != Some(self.incarnation) {
            (0..view.len()).for_each(|other| self.unlink(now, other));
            *incarnations += 1;
            self.incarnation = *incarnations;
            view[self.node] = Some(self.incarnation);
            self.gateway.begin(NodeId(self.node as u16), self.incarnation);
            self.is_ready = false;
            moved = true;
        }
        for (other, &member) in view.iter().enumerate() {
            if other == self.node || self.linked[other] == member {
                continue;
            }
            self.unlink(now, other);
            moved = true;
            if let Some(incarnation) = member {
                self.linked[other] = member;
                let node = NodeId(other as u16);
                let joined = Joined { node, incarnation, version: codec::VERSION };
                self.gateway.add_node(now, joined);
            }
        }
        let has_all =
            (0..view.len()).all(|other| other == self.node || view[other] == self.linked[other]);
        self.is_ready |= has_all && self.gateway.is_settled();
        moved
    }

    fn unlink(&mut self, now: Now, other: usize) {
        if self.linked[other].take().is_some() {
            self.gateway.remove_node(now, NodeId(other as u16));
        }
    }

    pub fn turn(
        &mut self,
        now: Now,
        random: &mut Random,
        all: bool,
        carrier: &mut Carrier,
    ) -> Result<bool, String> {
        let mut moved = self.receive(now, random, all, carrier)?;
        let first = self.node * self.to_gateway.len();
        for (core, waiting) in self.to_gateway.iter_mut().enumerate() {
            let count = if all { waiting.len() } else { random.below(waiting.len() + 1) };
            for (to, batch, turn) in waiting.drain(..count) {
                self.seen[first + core] = turn;
                self.gateway.handle_batch(now, CoreId(core as u16), to, batch);
                moved = true;
            }
        }
        moved |= self.gateway.handle_turn(now);
        if self.gateway.counters().errors > 0 {
            return Err(format!("node {} cannot understand another node", self.node));
        }
        for (core, waiting) in self.to_core.iter_mut().enumerate() {
            while waiting.len() < self.capacity
                && let Some((peer, batch)) = self.gateway.poll_batch(CoreId(core as u16))
            {
                waiting.push_back(Parcel { peer, batch, seen: self.seen.clone() });
                moved = true;
            }
        }
        Ok(moved | self.send(carrier))
    }

    fn receive(
        &mut self,
        now: Now,
        random: &mut Random,
        all: bool,
        carrier: &mut Carrier,
    ) -> Result<bool, String> {
        let (mut moved, cores) = (false, self.to_gateway.len());
        for from in (0..self.linked.len()).filter(|&from| from != self.node) {
            let count = |most: usize| if all { most } else { random.below(most + 1) };
            for InTransit { frame, seen } in carrier.receive(from, self.node, count) {
                moved |= frame.len() >= FRAME_WITH_CONTENT_BYTES;
                let known = &mut self.seen[from * cores..(from + 1) * cores];
                known.iter_mut().zip(seen).for_each(|(known, turn)| *known = turn.max(*known));
                let taken = self.gateway.handle_frame(now, NodeId(from as u16), frame);
                taken.map_err(|error| format!("node {} of node {from}: {error}", self.node))?;
            }
        }
        Ok(moved)
    }

    /// Sends frames; whether one of them had content.
    fn send(&mut self, carrier: &mut Carrier) -> bool {
        let cores = self.to_gateway.len();
        let own = self.node * cores..(self.node + 1) * cores;
        let mut moved = false;
        while let Some((to, frame)) = self.gateway.poll_frame() {
            moved |= frame.len() >= FRAME_WITH_CONTENT_BYTES;
            let seen = self.seen[own.clone()].to_vec();
            carrier.send(self.node, usize::from(to.0), InTransit { frame, seen });
        }
        moved
    }
}
