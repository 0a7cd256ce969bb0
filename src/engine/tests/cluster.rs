//! Several nodes: engines and gateways, with a carrier that loses what the test says.

mod claims;
mod classes;
mod drain;
mod rejoin;

use super::*;
use crate::cluster::codec::VERSION;
use crate::cluster::gateway::{Gateway, Joined, NodeId};
use bytes::Bytes;

/// A process: its cores and its gateway.
struct Node {
    cores: Vec<World>,
    gateway: Gateway,
    /// That of the gateway.
    place: Place,
}

/// Nodes that exchange frames when the test says so.
struct Cluster {
    nodes: Vec<Node>,
    now: Now,
    /// Whether a frame from one node to another is lost.
    loses: Box<dyn FnMut(usize, usize) -> bool>,
    /// Frames on their way: from, to.
    frames: Vec<(usize, usize, Bytes)>,
}

impl Cluster {
    /// Nodes with so many cores each, which all know each other.
    fn new(nodes: u16, cores: u16) -> Self {
        let mut cluster = Self::apart(nodes, cores);
        for node in 0..usize::from(nodes) {
            for other in (0..usize::from(nodes)).filter(|&other| other != node) {
                cluster.join(node, other, 1);
            }
        }
        cluster.settle();
        assert!(cluster.nodes.iter().all(|node| node.gateway.is_settled()));
        cluster
    }

    /// Nodes that do not know each other.
    fn apart(nodes: u16, cores: u16) -> Self {
        let nodes = (0..nodes).map(|number| Self::node(number, cores)).collect();
        let loses = Box::new(|_, _| false);
        Self { nodes, now: Now(0), loses, frames: Vec::new() }
    }

    fn node(number: u16, cores: u16) -> Node {
        let began_us = 1_000_000_000_000_000;
        let (places, own) = Place::in_cluster(vec![0; usize::from(cores)], began_us, 7);
        // Nodes assign other identifiers.
        let keys = Keys { identifiers: [7, u64::from(number)], ..Keys::fixed(7) };
        let at = |place| World::with_keys(place, |_| {}, Box::new(AllowAll), keys);
        let cores = places.into_iter().map(at).collect();
        let mut gateway = Gateway::new(own.clone(), 7);
        gateway.begin(NodeId(number), 1);
        Node { cores, gateway, place: own }
    }

    /// A node learns that another one is a member.
    fn join(&mut self, node: usize, other: usize, incarnation: u64) {
        let joined = Joined { node: NodeId(other as u16), incarnation, version: VERSION };
        self.nodes[node].gateway.add_node(self.now, joined);
    }

    /// A node learns that another one is no member any more.
    fn leave(&mut self, node: usize, other: usize) {
        self.nodes[node].gateway.remove_node(self.now, NodeId(other as u16));
    }

    /// A turn of each core and gateway; whether anything moved.
    fn turn(&mut self) -> bool {
        let mut has_moved = false;
        let now = self.now;
        for (number, Node { cores, gateway, .. }) in self.nodes.iter_mut().enumerate() {
            for from in 0..cores.len() {
                for to in (0..cores.len()).filter(|&to| to != from) {
                    while let Some(batch) = cores[from].engine.poll_batch(CoreId(to as u16)) {
                        let world = &mut cores[to];
                        world.engine.handle_batch(world.now, CoreId(from as u16), batch);
                        world.settle();
                        has_moved = true;
                    }
                }
                while let Some((to, batch)) = cores[from].engine.poll_node_batch() {
                    gateway.handle_batch(now, CoreId(from as u16), to, batch);
                    has_moved = true;
                }
            }
            has_moved |= gateway.handle_turn(now);
            for (core, world) in cores.iter_mut().enumerate() {
                while let Some((from, batch)) = gateway.poll_batch(CoreId(core as u16)) {
                    world.engine.handle_batch(world.now, from, batch);
                    world.settle();
                    has_moved = true;
                }
            }
            while let Some((to, frame)) = gateway.poll_frame() {
                self.frames.push((number, usize::from(to.0), frame));
                has_moved = true;
            }
        }
        for (from, to, frame) in std::mem::take(&mut self.frames) {
            if !(self.loses)(from, to) {
                let gateway = &mut self.nodes[to].gateway;
                gateway.handle_frame(now, NodeId(from as u16), frame).expect("a frame");
            }
        }
        has_moved
    }

    /// Turns until nothing moves, with time for what is lost and for reports that wait.
    fn settle(&mut self) {
        for _ in 0..40 {
            let mut turns = 0;
            while self.turn() {
                turns += 1;
                assert!(turns < 10_000, "it never ends");
            }
            self.advance_ms(100);
        }
    }

    fn advance_ms(&mut self, ms: u64) {
        self.now = Now(self.now.0 + ms * 1_000);
        for node in &mut self.nodes {
            node.cores.iter_mut().for_each(|world| world.advance_ms(ms));
        }
    }

    fn world(&mut self, node: usize, core: usize) -> &mut World {
        &mut self.nodes[node].cores[core]
    }

    /// Connects a client whose home is the core.
    fn connect(&mut self, node: usize, core: usize) -> ConnectionId {
        self.world(node, core).connect(&Client::v5(""))
    }

    /// A client that subscribes; its SUBACK has come.
    fn subscriber(&mut self, node: usize, core: usize, filter: &str, qos: Qos) -> ConnectionId {
        let id = self.connect(node, core);
        self.world(node, core).subscribe(id, filter, qos);
        self.settle();
        let packets = self.world(node, core).packets(id, Version::V5);
        assert!(packets.iter().any(|packet| packet.starts_with("Suback")), "{packets:?}");
        id
    }

    fn payloads(&mut self, (node, core, id): (usize, usize, ConnectionId)) -> Vec<String> {
        self.world(node, core).payloads(id)
    }
}

/// Subscribers on each core of each node.
fn subscribers(cluster: &mut Cluster, filter: &str) -> Vec<(usize, usize, ConnectionId)> {
    let places = cluster.nodes.iter().enumerate();
    let places: Vec<(usize, usize)> =
        places.flat_map(|(node, of)| (0..of.cores.len()).map(move |core| (node, core))).collect();
    let all = places
        .into_iter()
        .map(|(node, core)| (node, core, cluster.subscriber(node, core, filter, Qos::ExactlyOnce)));
    all.collect()
}

#[test]
fn subscribers_of_all_nodes_get_a_message_once_at_each_quality_of_service() {
    for cores in [1, 2] {
        for filter in ["a/b", "a/+", "#"] {
            let mut cluster = Cluster::new(3, cores);
            let all = subscribers(&mut cluster, filter);
            let publisher = cluster.connect(1, 0);
            for (number, qos) in
                [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].into_iter().enumerate()
            {
                let payload = [b'0' + number as u8];
                cluster.world(1, 0).publish(publisher, "a/b", &payload, qos, 1 + number as u16);
                cluster.settle();
                for &of in &all {
                    assert_eq!(
                        cluster.payloads(of),
                        [number.to_string()],
                        "{filter} {qos:?} {of:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_large_message_reaches_other_nodes_whole() {
    let mut cluster = Cluster::new(2, 2);
    let all = subscribers(&mut cluster, "a");
    let publisher = cluster.connect(0, 0);
    let payload = "0123456789".repeat(100_000);
    cluster.world(0, 0).publish(publisher, "a", payload.as_bytes(), Qos::AtLeastOnce, 1);
    cluster.settle();
    for of in all {
        assert_eq!(cluster.payloads(of), [&payload[..]]);
    }
}

#[test]
fn a_message_is_acknowledged_once_the_nodes_with_subscribers_have_it() {
    let mut cluster = Cluster::new(3, 1);
    let subscriber = cluster.subscriber(1, 0, "a", Qos::AtLeastOnce);
    let publisher = cluster.connect(0, 0);
    cluster.settle();
    let acks = |cluster: &mut Cluster| {
        let packets = cluster.world(0, 0).packets(publisher, Version::V5);
        packets.iter().filter(|packet| packet.starts_with("Puback")).count()
    };
    // A node without subscribers is not waited for.
    cluster.loses = Box::new(|from, to| from == 2 || to == 2);
    cluster.world(0, 0).publish(publisher, "a", b"1", Qos::AtLeastOnce, 1);
    cluster.settle();
    assert_eq!(acks(&mut cluster), 1);
    cluster.loses = Box::new(|from, _| from == 1);
    cluster.world(0, 0).publish(publisher, "a", b"2", Qos::AtLeastOnce, 2);
    cluster.settle();
    assert_eq!(cluster.payloads((1, 0, subscriber)), ["1", "2"]);
    assert_eq!(acks(&mut cluster), 0, "the receipt is lost");
    cluster.loses = Box::new(|_, _| false);
    cluster.settle();
    assert_eq!(acks(&mut cluster), 1);
    assert_eq!(cluster.payloads((1, 0, subscriber)), [""; 0], "and nothing comes twice");
}

#[test]
fn a_suback_waits_until_all_nodes_know_the_filter() {
    let mut cluster = Cluster::new(3, 2);
    let id = cluster.connect(0, 1);
    cluster.loses = Box::new(|from, to| from == 2 || to == 2);
    cluster.world(0, 1).subscribe(id, "a", Qos::AtMostOnce);
    cluster.settle();
    let subacks = |cluster: &mut Cluster| {
        let packets = cluster.world(0, 1).packets(id, Version::V5);
        packets.iter().filter(|packet| packet.starts_with("Suback")).count()
    };
    assert_eq!(subacks(&mut cluster), 0);
    // A node that has left is not waited for.
    cluster.leave(0, 2);
    cluster.settle();
    assert_eq!(subacks(&mut cluster), 1);
}

#[test]
fn a_suback_does_not_wait_for_the_earlier_lane_of_a_node_that_has_come_back() {
    let mut cluster = Cluster::new(3, 1);
    for number in 0..20 {
        // The lanes have many frames.
        cluster.subscriber(0, 0, &number.to_string(), Qos::AtMostOnce);
    }
    let id = cluster.connect(0, 0);
    cluster.loses = Box::new(|_, _| true);
    cluster.world(0, 0).subscribe(id, "a", Qos::AtMostOnce);
    cluster.settle();
    // Node 2 leaves and joins again while node 1 has not answered.
    for other in 0..2 {
        cluster.leave(2, other);
    }
    cluster.nodes[2].gateway.begin(NodeId(2), 2);
    for other in 0..2 {
        cluster.leave(other, 2);
        cluster.join(other, 2, 2);
        cluster.join(2, other, 1);
    }
    cluster.loses = Box::new(|_, _| false);
    cluster.settle();
    let packets = cluster.world(0, 0).packets(id, Version::V5);
    assert!(packets.iter().any(|packet| packet.starts_with("Suback")), "{packets:?}");
}

#[test]
fn frames_that_are_lost_lose_no_message_and_no_order() {
    let mut cluster = Cluster::new(2, 2);
    let subscriber = cluster.subscriber(1, 1, "a", Qos::AtLeastOnce);
    let publisher = cluster.connect(0, 0);
    let mut count = 0_u32;
    cluster.loses = Box::new(move |_, _| {
        count = count.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        count >> 30 == 0
    });
    for number in 1..=200_u16 {
        let payload = number.to_string();
        cluster.world(0, 0).publish(publisher, "a", payload.as_bytes(), Qos::AtMostOnce, 0);
        cluster.turn();
        cluster.advance_ms(7);
    }
    for _ in 0..5 {
        cluster.settle();
    }
    let expected: Vec<String> = (1..=200).map(|number| number.to_string()).collect();
    assert_eq!(cluster.payloads((1, 1, subscriber)), expected);
}

#[test]
fn a_member_of_a_shared_subscription_on_any_node_gets_each_message_once() {
    let mut cluster = Cluster::new(3, 2);
    let members = subscribers(&mut cluster, "$share/g/a");
    let publisher = cluster.connect(0, 0);
    for number in 1..=120_u16 {
        let payload = number.to_string();
        cluster.world(0, 0).publish(publisher, "a", payload.as_bytes(), Qos::AtMostOnce, 0);
        cluster.settle_soon();
    }
    cluster.settle();
    let mut all = Vec::new();
    for &of in &members {
        let got = cluster.payloads(of);
        assert!((15..=25).contains(&got.len()), "by members, evenly: {}", got.len());
        all.extend(got.iter().map(|payload| payload.parse::<u16>().expect("a number")));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=120).collect::<Vec<u16>>());
}

#[test]
fn a_node_that_joins_gets_the_retained_messages_and_what_was_removed() {
    let mut cluster = Cluster::apart(2, 2);
    for node in 0..2 {
        let publisher = cluster.connect(node, 0);
        for number in 0..100_u16 {
            let topic = format!("own/{node}/{number}");
            cluster.retain(node, 0, publisher, &topic, b"here");
        }
        cluster.retain(node, 0, publisher, "both", if node == 0 { b"older" } else { b"newer" });
        cluster.advance_ms(10);
        cluster.retain(node, 0, publisher, "removed", b"here");
    }
    let publisher = cluster.connect(0, 1);
    cluster.retain(0, 1, publisher, "removed", b"");
    cluster.join(0, 1, 1);
    cluster.join(1, 0, 1);
    cluster.settle();
    for node in 0..2 {
        for core in 0..2 {
            let id = cluster.subscriber_with_retained(node, core, "#");
            let got = cluster.world(node, core).publishes(id);
            let both: Vec<&str> =
                got.iter().filter(|of| of.0 == "both").map(|of| &of.1[..]).collect();
            assert_eq!(both, ["newer"], "on core {core} of node {node}");
            assert_eq!(got.len(), 201, "on core {core} of node {node}");
        }
    }
}

#[test]
fn a_retained_message_of_one_node_is_there_on_all() {
    let mut cluster = Cluster::new(2, 2);
    let publisher = cluster.connect(0, 1);
    cluster.retain(0, 1, publisher, "a", b"kept");
    cluster.settle();
    let id = cluster.subscriber_with_retained(1, 0, "a");
    assert_eq!(cluster.payloads((1, 0, id)), ["kept"]);
    cluster.retain(0, 1, publisher, "a", b"");
    cluster.settle();
    let id = cluster.subscriber_with_retained(1, 1, "a");
    assert_eq!(cluster.payloads((1, 1, id)), [""; 0]);
}

#[test]
fn nodes_that_retain_at_the_same_microsecond_keep_the_same_message() {
    for payloads in [[&b"x"[..], b"y"], [b"y", b"x"], [b"", b"x"], [b"x", b""]] {
        let mut cluster = Cluster::new(2, 1);
        let publishers = [0, 1].map(|node| cluster.connect(node, 0));
        cluster.settle();
        for (node, payload) in payloads.into_iter().enumerate() {
            let mut publish = publish("a", payload, Qos::AtMostOnce, 0);
            publish.retain = true;
            let publish = Packet::Publish(publish);
            cluster.world(node, 0).send(publishers[node], Version::V5, &publish);
        }
        cluster.settle();
        let kept = [0, 1].map(|node| {
            let id = cluster.subscriber_with_retained(node, 0, "a");
            cluster.payloads((node, 0, id))
        });
        assert_eq!(kept[0], kept[1], "of {payloads:?}");
    }
}

#[test]
fn nothing_waits_for_a_node_that_has_left_and_its_subscriptions_are_gone() {
    let mut cluster = Cluster::new(2, 1);
    let subscriber = cluster.subscriber(1, 0, "a", Qos::AtLeastOnce);
    let publisher = cluster.connect(0, 0);
    cluster.settle();
    cluster.loses = Box::new(|_, _| true);
    cluster.world(0, 0).publish(publisher, "a", b"1", Qos::AtLeastOnce, 1);
    cluster.settle();
    let acks = |cluster: &mut Cluster| {
        let packets = cluster.world(0, 0).packets(publisher, Version::V5);
        packets.into_iter().filter(|packet| packet.starts_with("Puback")).collect::<Vec<_>>()
    };
    assert_eq!(acks(&mut cluster).len(), 0);
    cluster.leave(0, 1);
    cluster.settle();
    assert_eq!(acks(&mut cluster).len(), 1);
    cluster.world(0, 0).publish(publisher, "a", b"2", Qos::AtLeastOnce, 2);
    cluster.settle();
    let answer = acks(&mut cluster);
    assert!(answer[0].contains("NoMatchingSubscribers"), "{answer:?}");
    // It comes back as it was started anew.
    cluster.leave(1, 0);
    cluster.loses = Box::new(|_, _| false);
    cluster.join(0, 1, 1);
    cluster.join(1, 0, 1);
    cluster.settle();
    cluster.world(0, 0).publish(publisher, "a", b"3", Qos::AtLeastOnce, 3);
    cluster.settle();
    assert_eq!(cluster.payloads((1, 0, subscriber)), ["3"]);
}

#[test]
fn a_filter_stays_announced_for_a_while_after_its_last_subscriber() {
    let mut cluster = Cluster::new(2, 1);
    let id = cluster.subscriber(1, 0, "a", Qos::AtMostOnce);
    let knows = |cluster: &mut Cluster| {
        let publisher = cluster.connect(0, 0);
        cluster.world(0, 0).publish(publisher, "a", b"1", Qos::AtLeastOnce, 1);
        cluster.settle_soon();
        let packets = cluster.world(0, 0).packets(publisher, Version::V5);
        !packets.iter().any(|packet| packet.contains("NoMatchingSubscribers"))
    };
    cluster.world(1, 0).end(id);
    cluster.settle_soon();
    assert!(knows(&mut cluster));
    for _ in 0..3 {
        cluster.settle();
    }
    assert!(!knows(&mut cluster));
}

impl Cluster {
    /// Turns until nothing moves, in little time.
    fn settle_soon(&mut self) {
        for _ in 0..3 {
            while self.turn() {}
            self.advance_ms(10);
        }
    }

    fn retain(&mut self, node: usize, core: usize, id: ConnectionId, topic: &str, payload: &[u8]) {
        let mut publish = publish(topic, payload, Qos::AtMostOnce, 0);
        publish.retain = true;
        self.world(node, core).send(id, Version::V5, &Packet::Publish(publish));
        self.settle_soon();
    }

    /// A client that subscribes; what it got is not read.
    fn subscriber_with_retained(&mut self, node: usize, core: usize, filter: &str) -> ConnectionId {
        let id = self.connect(node, core);
        self.world(node, core).packets(id, Version::V5);
        self.world(node, core).subscribe(id, filter, Qos::AtLeastOnce);
        self.settle();
        id
    }
}
