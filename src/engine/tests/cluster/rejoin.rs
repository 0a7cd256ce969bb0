//! Nodes that leave and come back: what was under way belongs to the start of a node that it was meant for.

use super::*;

impl Cluster {
    /// Gives the only core of a node what its gateway has for it.
    fn give_to_core(&mut self, node: usize) {
        let Node { cores, gateway, .. } = &mut self.nodes[node];
        while let Some((from, batch)) = gateway.poll_batch(CoreId(0)) {
            let world = &mut cores[0];
            world.engine.handle_batch(world.now, from, batch);
            world.settle();
        }
    }

    /// A node has started again: the other one and its own gateway learn of each other.
    fn come_back(&mut self, node: usize, other: usize) {
        self.nodes[node].gateway.begin(NodeId(node as u16), 2);
        self.join(other, node, 2);
        self.join(node, other, 1);
    }

    fn claims(&mut self, node: usize) -> u64 {
        self.world(node, 0).engine.metrics().cluster_claims
    }
}

#[test]
fn a_claim_for_a_node_that_has_left_does_not_reach_its_next_start() {
    let mut cluster = Cluster::new(2, 1);
    let id = cluster.world(0, 0).connect(&Client::v5("c"));
    // The claim is in the open batch of the core when the node leaves, and the session ends before the node is back.
    cluster.leave(0, 1);
    cluster.leave(1, 0);
    cluster.give_to_core(0);
    cluster.world(0, 0).cut(id);
    cluster.come_back(1, 0);
    cluster.settle();
    assert_eq!(cluster.claims(1), 0);
    assert!(cluster.nodes.iter().all(|node| node.gateway.is_settled()));
    // What is claimed from then on arrives.
    cluster.world(0, 0).connect(&Client::v5("d"));
    cluster.settle();
    assert_eq!(cluster.claims(1), 1);
}

#[test]
fn a_claim_of_a_node_that_has_left_is_forgotten_although_it_comes_after_its_next_start() {
    let mut cluster = Cluster::new(2, 1);
    cluster.world(0, 0).connect(&Client::v5("c"));
    cluster.turn();
    // The gateway of the other node has it for the core when the node leaves and comes back.
    let now = cluster.now;
    cluster.nodes[1].gateway.handle_turn(now);
    cluster.leave(1, 0);
    cluster.nodes[0] = Cluster::node(0, 1);
    cluster.come_back(0, 1);
    cluster.settle();
    assert_eq!(cluster.claims(1), 0);
}

#[test]
fn a_core_that_hears_late_of_two_starts_of_a_node_sends_to_the_last() {
    let mut cluster = Cluster::new(2, 1);
    let publisher = cluster.connect(0, 0);
    cluster.settle();
    // The core has not answered for the second start when the third comes.
    cluster.leave(1, 0);
    cluster.leave(0, 1);
    cluster.join(0, 1, 2);
    cluster.give_to_core(0);
    cluster.leave(0, 1);
    cluster.nodes[1] = Cluster::node(1, 1);
    cluster.nodes[1].gateway.begin(NodeId(1), 3);
    cluster.join(0, 1, 3);
    cluster.join(1, 0, 1);
    cluster.settle();
    let subscriber = cluster.subscriber(1, 0, "a", Qos::AtLeastOnce);
    cluster.world(0, 0).publish(publisher, "a", b"1", Qos::AtLeastOnce, 1);
    cluster.settle();
    assert_eq!(cluster.payloads((1, 0, subscriber)), ["1"]);
}
