//! What stands in for NATS: frames arrive in order for each pair of nodes, late, or not at all.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::random::Random;

/// A frame on its way.
pub struct InTransit {
    pub frame: Bytes,
    /// By core of the sender's node, the last turn whose batches the sender's gateway had.
    pub seen: Vec<u64>,
}

/// The way from one node to another.
#[derive(Default)]
struct Way {
    in_transit: VecDeque<InTransit>,
    /// Nothing arrives for now.
    is_stalled: bool,
    /// What is sent is lost.
    is_cut: bool,
}

pub struct Carrier {
    /// By sender and receiver.
    ways: Vec<Vec<Way>>,
    connected: Vec<bool>,
}

impl Carrier {
    pub fn new(nodes: usize) -> Self {
        let ways = (0..nodes).map(|_| (0..nodes).map(|_| Way::default()).collect()).collect();
        Self { ways, connected: vec![true; nodes] }
    }

    pub fn is_connected(&self, node: usize) -> bool {
        self.connected[node]
    }

    pub fn stall(&mut self, from: usize, to: usize, is_stalled: bool) {
        self.ways[from][to].is_stalled = is_stalled;
    }

    /// Cuts the way between two nodes in one direction, or mends it; both stay connected.
    pub fn cut(&mut self, from: usize, to: usize, is_cut: bool) {
        self.ways[from][to].is_cut = is_cut;
        if is_cut {
            self.ways[from][to].in_transit.clear();
        }
    }

    /// A node loses its connection until it connects again.
    pub fn disconnect(&mut self, node: usize, random: &mut Random) {
        self.connected[node] = false;
        self.disconnect_once(node, random);
    }

    /// A node loses its connection, and has another one at once: what was for it is lost, and the end of what it has sent.
    pub fn disconnect_once(&mut self, node: usize, random: &mut Random) {
        for other in 0..self.ways.len() {
            self.ways[other][node].in_transit.clear();
            let sent = &mut self.ways[node][other].in_transit;
            sent.truncate(random.below(sent.len() + 1));
        }
    }

    pub fn connect(&mut self, node: usize) {
        self.connected[node] = true;
    }

    pub fn heal(&mut self) {
        self.connected.fill(true);
        for way in self.ways.iter_mut().flatten() {
            (way.is_stalled, way.is_cut) = (false, false);
        }
    }

    pub fn send(&mut self, from: usize, to: usize, in_transit: InTransit) {
        let way = &mut self.ways[from][to];
        if self.connected[from] && self.connected[to] && !way.is_cut {
            way.in_transit.push_back(in_transit);
        }
    }

    /// The frames that a node receives now from another one.
    pub fn receive(
        &mut self,
        from: usize,
        to: usize,
        count: impl FnOnce(usize) -> usize,
    ) -> Vec<InTransit> {
        let way = &mut self.ways[from][to];
        if way.is_stalled || !self.connected[to] {
            return Vec::new();
        }
        let count = count(way.in_transit.len());
        way.in_transit.drain(..count).collect()
    }
}
