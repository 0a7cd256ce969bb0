//! Sessions of nodes that are away.

use super::*;

/// Node 0 of three has a kept session with a message, and has left.
fn with_absent_session() -> Cluster {
    let mut cluster = Cluster::new(3, 1);
    let (id, _) = cluster.enter((0, 0), &Client::persistent("c"));
    cluster.world(0, 0).subscribe(id, "t", Qos::AtLeastOnce);
    cluster.settle();
    cluster.world(0, 0).cut(id);
    cluster.publish((1, 0), "t", "waits", Qos::AtLeastOnce);
    (1..3).for_each(|node| cluster.leave(node, 0));
    (1..3).for_each(|node| cluster.leave(0, node));
    cluster.settle();
    cluster
}

/// What a client with this identifier is told at a node.
fn connack(cluster: &mut Cluster, node: usize, client: &Client<'_>) -> (ConnectionId, String) {
    let id = cluster.begin((node, 0), client);
    cluster.settle();
    (id, cluster.said((node, 0, id)))
}

fn come_back(cluster: &mut Cluster, node: usize, incarnation: u64) {
    for other in (0..3).filter(|&other| other != node) {
        cluster.join(other, node, incarnation);
        cluster.join(node, other, 1);
    }
    cluster.settle();
}

#[test]
fn a_client_whose_session_is_at_a_node_that_is_away_tries_again_and_finds_it_when_the_node_is_back()
{
    let mut cluster = with_absent_session();
    let (id, said) = connack(&mut cluster, 1, &Client::persistent("c"));
    assert!(said.contains("reason: ServerUnavailable"), "{said}");
    assert!(cluster.world(1, 0).closed.contains(&id));
    assert_eq!(cluster.world(1, 0).engine.metrics().cluster_absent, 1);
    assert_eq!(cluster.sessions("c"), 1);
    come_back(&mut cluster, 0, 1);
    let id = cluster.begin((1, 0), &Client::persistent("c"));
    cluster.settle();
    assert_eq!(cluster.payloads((1, 0, id)), ["waits"]);
    assert_eq!(cluster.sessions("c"), 1);
}

#[test]
fn clean_start_does_not_wait_for_a_node_that_is_away_and_other_clients_do_not_either() {
    let mut cluster = with_absent_session();
    let other = Client::persistent("other");
    assert!(connack(&mut cluster, 1, &other).1.contains("reason: Success"));
    let mut clean = Client::persistent("c");
    clean.clean_start = true;
    let (id, said) = connack(&mut cluster, 2, &clean);
    assert!(said.contains("reason: Success"), "{said}");
    // The session elsewhere is the client's from now on.
    cluster.world(2, 0).cut(id);
    let (_, said) = connack(&mut cluster, 1, &Client::persistent("c"));
    assert!(said.contains("session_present: true"), "{said}");
    come_back(&mut cluster, 0, 1);
    assert_eq!(cluster.sessions("c"), 1);
}

#[test]
fn a_node_that_has_been_away_for_too_long_is_given_up() {
    let mut cluster = with_absent_session();
    let bytes = |cluster: &mut Cluster| cluster.world(1, 0).engine.memory.ledger().bytes();
    let before = bytes(&mut cluster);
    cluster.advance_ms(31_000);
    cluster.settle();
    assert!(bytes(&mut cluster) < before, "the memory of its claims is given back");
    let (_, said) = connack(&mut cluster, 1, &Client::persistent("c"));
    assert!(said.contains("reason: Success") && said.contains("session_present: false"), "{said}");
}

#[test]
fn a_node_that_has_joined_meanwhile_learns_from_others_that_the_session_is_away() {
    let mut cluster = with_absent_session();
    // Node 2 starts again, and knows of nothing.
    (0..2).for_each(|node| cluster.leave(node, 2));
    cluster.nodes[2] = Cluster::node(2, 1);
    cluster.join(1, 2, 2);
    cluster.nodes[2].gateway.begin(NodeId(2), 2);
    cluster.join(2, 1, 1);
    cluster.settle();
    let (_, said) = connack(&mut cluster, 2, &Client::persistent("c"));
    assert!(said.contains("reason: ServerUnavailable"), "{said}");
    assert_eq!(cluster.world(1, 0).engine.metrics().cluster_claims, 0, "its claim is withdrawn");
    let (_, said) = connack(&mut cluster, 1, &Client::persistent("c"));
    assert!(said.contains("reason: ServerUnavailable"), "{said}");
}
