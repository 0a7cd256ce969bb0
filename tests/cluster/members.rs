//! What members see of each other when servers and nodes die.

use std::path::Path;

use super::alone;
use super::engine::Engine;
use super::node::{Node, number};

const ALL: &str = "view 0:member 1:member 2:member";

fn start(engine: &Engine, name: &str) -> Node {
    Node::start(&engine.settings(name), Path::new(&engine.folder.path(name)))
}

/// Three nodes with the numbers 0, 1 and 2.
fn three(engine: &Engine) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let node = start(engine, name);
        node.wait(&format!("joined {number} "));
        nodes.push(node);
    }
    nodes.iter().for_each(|node| drop(node.wait(ALL)));
    nodes
}

/// Every one of some nodes hears every other.
fn all_hear(nodes: &[&Node], numbers: &[u8]) {
    for (node, own) in nodes.iter().zip(numbers) {
        for from in numbers.iter().filter(|from| *from != own) {
            node.wait_anew(&format!("frame from {from}"));
        }
    }
}

#[test]
fn nodes_agree_on_the_view_and_hear_each_other_and_a_killed_server_ends_neither() {
    let _alone = alone();
    let Some(mut engine) = Engine::start("servers") else { return };
    let mut nodes = three(&engine);
    all_hear(&[&nodes[0], &nodes[1], &nodes[2]], &[0, 1, 2]);
    let seed =
        |node: &Node| node.wait("joined").split_once("seed").map(|(_, seed)| seed.to_owned());
    assert!(seed(&nodes[0]) == seed(&nodes[2]) && seed(&nodes[0]).is_some(), "one seed for all");

    for _ in 0..2 {
        let line = nodes[0].last("connected");
        let server = (0..3).find(|number| line.contains(&format!("server{number} "))).expect(&line);
        let before = nodes[0].lines();
        engine.kill(server);
        nodes[0].wait_after(before, "another server", |line| line.starts_with("connected"));
        all_hear(&[&nodes[0], &nodes[1], &nodes[2]], &[0, 1, 2]);
        engine.boot(server);
        // The bucket can be written again, for which it needs two of the servers.
        nodes[1].tell("status");
        nodes[1].wait_anew("status");
    }
    assert!(nodes.iter().all(|node| !node.has_said("evicted")), "nobody is taken out for it");
    nodes[2].tell("leave");
    nodes[2].wait("left");
    nodes[0].wait("view 0:member 1:member");
    nodes.iter_mut().for_each(Node::stop);
}

#[test]
fn a_node_that_is_killed_or_stopped_is_evicted_and_joins_as_new() {
    let _alone = alone();
    let Some(engine) = Engine::start("nodes") else { return };
    let mut nodes = three(&engine);
    let before = nodes[0].lines();
    nodes[1].kill();
    let without = |line: &str| line == "view 0:member 2:member";
    nodes[0].wait_after(before, "the view without the node", without);
    nodes[1] = start(&engine, "b");
    let first = nodes[2].wait("joined");
    let second = nodes[1].wait("joined 1 ");
    assert!(number(&second, "incarnation") > number(&first, "incarnation"), "{first} {second}");
    nodes[1].wait(ALL);

    let (before, stopped) = (nodes[1].lines(), nodes[0].lines());
    nodes[0].signal("-STOP");
    nodes[1].wait_after(before, "the view without it", |line| line == "view 1:member 2:member");
    nodes[0].signal("-CONT");
    nodes[0].wait_after(stopped, "its own end", |line| line == "evicted");
    nodes[0].wait_after(stopped, "a new incarnation", |line| line.starts_with("joined 0 "));
    nodes[0].wait_after(stopped, "the view with it", |line| line == ALL);
    all_hear(&[&nodes[0], &nodes[1], &nodes[2]], &[0, 1, 2]);
}

#[test]
fn without_servers_a_node_is_isolated_and_healed_when_they_are_back() {
    let _alone = alone();
    let Some(mut engine) = Engine::start("isolated") else { return };
    let nodes = three(&engine);
    (0..3).for_each(|number| engine.kill(number));
    nodes.iter().for_each(|node| drop(node.wait("isolated")));
    (0..3).for_each(|number| engine.boot(number));
    nodes.iter().for_each(|node| drop(node.wait("healed")));
    all_hear(&[&nodes[0], &nodes[1], &nodes[2]], &[0, 1, 2]);
    assert!(nodes.iter().all(|node| !node.has_said("evicted")));
}
