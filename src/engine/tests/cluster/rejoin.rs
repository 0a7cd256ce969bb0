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

#[test]
fn the_claim_of_a_connect_whose_connection_has_ended_is_withdrawn() {
    for turns in 0..12 {
        let mut cluster = Cluster::new(2, 1);
        let id = cluster.begin((0, 0), &Client::persistent("c"));
        for _ in 0..turns {
            cluster.turn();
        }
        let is_kept = cluster.sessions("c") == 1;
        cluster.world(0, 0).cut(id);
        cluster.settle();
        let known = (cluster.claims(1), cluster.sessions("c"));
        assert_eq!(known, if is_kept { (1, 1) } else { (0, 0) }, "after {turns} turns");
        assert!(cluster.world(0, 0).engine.claims.is_quiet());
    }
}

#[test]
fn connack_of_a_session_that_was_not_kept_and_is_to_be_kept_waits_for_all_nodes() {
    let mut cluster = Cluster::new(3, 1);
    let (first, _) = cluster.enter((0, 0), &Client::v5("c"));
    cluster.loses = Box::new(|from, to| from == 2 || to == 2);
    let second = cluster.begin((0, 0), &Client::persistent("c"));
    cluster.settle();
    assert_eq!(cluster.said((0, 0, second)), "");
    assert!(!cluster.world(0, 0).closed.contains(&first));
    cluster.loses = Box::new(|_, _| false);
    cluster.settle();
    assert!(cluster.said((0, 0, second)).contains("Connack"));
    assert!(cluster.world(0, 0).closed.contains(&first));
    // It is kept now, and asks nobody any more.
    cluster.loses = Box::new(|_, _| true);
    assert!(cluster.enter((0, 0), &Client::persistent("c")).1);
}

#[test]
fn a_kept_session_elsewhere_takes_the_place_of_one_that_is_not_kept_with_its_connection() {
    let mut cluster = Cluster::apart(2, 1);
    let (first, _) = cluster.enter((0, 0), &Client::v5("c"));
    cluster.advance_ms(10);
    let (kept, _) = cluster.enter((1, 0), &Client::persistent("c"));
    cluster.world(1, 0).cut(kept);
    // The nodes know each other, and neither knows yet what sessions the other has.
    cluster.join(0, 1, 1);
    cluster.join(1, 0, 1);
    cluster.give_to_core(0);
    let (_, is_present) = cluster.enter((0, 0), &Client::persistent("c"));
    assert!(is_present);
    assert!(cluster.world(0, 0).closed.contains(&first));
    assert_eq!((cluster.sessions("c"), cluster.claims(1)), (1, 1));
}
