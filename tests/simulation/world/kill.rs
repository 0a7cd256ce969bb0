//! Nodes that begin, and nodes that end without notice.

use std::collections::BTreeMap;

use super::{At, Core, Lane, World};
use crate::random::Random;

/// Maximum number of rounds until nodes that have just started know each other.
const ROUNDS_MAX: usize = 200;

impl World {
    /// Runs until all nodes accept clients.
    pub(super) fn introduce(&mut self) {
        let mut random = Random::new(0);
        for _ in 0..ROUNDS_MAX {
            if self.nodes.are_ready() {
                return;
            }
            self.settle_once(&mut random);
            self.now.0 += 10_000;
        }
        panic!("the nodes do not get to know each other");
    }

    /// The process of a node is killed, and another one starts in its place. Nothing of it is left.
    pub fn kill(&mut self, node: usize) {
        let places = self.nodes.start_node(node);
        let group = node * places.len()..(node + 1) * places.len();
        for from in group.clone() {
            for to in group.clone() {
                let lane = std::mem::take(&mut self.lanes[from][to]);
                let moving = lane.in_transit.into_iter().flat_map(|of| of.sockets);
                for (link, _) in moving.chain(lane.leaving) {
                    self.links[link].at = At::Closed;
                }
                self.lanes[from][to] = Lane { arrived: lane.arrived, ..Lane::default() };
            }
        }
        for link in &mut self.links {
            if matches!(link.at, At::Core(core, _) if group.contains(&core)) {
                (link.at, link.held, link.is_paused) = (At::Closed, None, false);
            }
        }
        for (core, place) in group.zip(places) {
            self.cores[core] = Core { engine: self.new_engine(place), links: BTreeMap::new() };
        }
    }
}
