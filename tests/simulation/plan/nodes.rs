//! The steps of a run with several nodes.

use super::{CLIENTS, NodeStep, Plan, Step};
use crate::random::Random;

/// Runs with several nodes, in percent.
const WITH_NODES: usize = 50;
/// Runs in which clients change the node, in percent of those.
const ROAMING: usize = 60;

impl Plan {
    /// Some plans become those of several nodes with few cores. Their stores are on no disk: a node that is killed has
    /// lost its sessions.
    pub(super) fn with_nodes(self, random: &mut Random) -> Self {
        if !random.percent(WITH_NODES) {
            return self;
        }
        let (nodes, cores) = (2 + random.below(2), 1 + random.below(2) as u16);
        let (kills, evicts) = (random.percent(30), random.percent(20));
        let roams = random.percent(ROAMING);
        let mut steps = Vec::new();
        for (_, step) in self.steps {
            match step {
                Step::Crash { .. } | Step::Checkpoint | Step::List | Step::Bridge(_) => continue,
                // Nobody publishes the Wills of a node that was killed; those of two connections at two nodes have no order.
                Step::Connect { client, clean, expiry_s, pipelined, has_will } => {
                    let has_will = has_will && !kills && !roams;
                    steps.push(Step::Connect { client, clean, expiry_s, pipelined, has_will });
                }
                Step::Turns(turns) => steps.push(Step::Turns(turns * 3)),
                other => steps.push(other),
            }
            if random.percent(20) {
                steps.push(Step::Nodes(node_step(random, nodes)));
            }
            if roams && random.percent(20) {
                steps.push(come_back(random));
            }
            if (kills || evicts) && random.percent(3) {
                steps.push(Step::Settle);
            }
            if kills && random.percent(4) {
                steps.push(Step::Nodes(NodeStep::Kill { node: random.below(nodes) }));
            }
            if evicts && random.percent(4) {
                steps.push(Step::Nodes(NodeStep::Evict { node: random.below(nodes) }));
            }
        }
        let steps = (1..).zip(steps).collect();
        let (is_durable, has_bridge) = (false, false);
        Self { nodes: nodes as u16, roams, cores, is_durable, has_bridge, steps, ..self }
    }
}

/// A client with a kept session connects to some node, whether it is connected or not.
fn come_back(random: &mut Random) -> Step {
    let client = random.below(CLIENTS);
    Step::Connect { client, clean: false, expiry_s: 3_600, pipelined: None, has_will: false }
}

fn node_step(random: &mut Random, nodes: usize) -> NodeStep {
    let node = random.below(nodes);
    let (from, to) = (node, (node + 1 + random.below(nodes - 1)) % nodes);
    match random.below(100) {
        0..30 => NodeStep::Stall { from, to, is_stalled: random.percent(60) },
        30..50 => NodeStep::Cut { from, to, is_cut: random.percent(50) },
        50..65 => NodeStep::Disconnect { node },
        65..85 => NodeStep::Connect { node },
        _ => NodeStep::Stop { node, is_stopped: random.percent(50) },
    }
}
