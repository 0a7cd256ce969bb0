//! Nodes that are emptied.

use std::sync::Arc;

use super::claims::{Publishers, Random, Roaming, journal, stored};
use super::*;
use crate::control::drain::{DrainOrder, DrainProgress, Purpose, Target};
use crate::control::{EngineCommand, replies};
use crate::engine::connections::ending::Ending;

impl Cluster {
    /// Gives the cores of a node this order, or none; how far they are.
    fn order(&mut self, node: usize, order: Option<(Purpose, u32, &[usize])>) -> DrainProgress {
        let target = |&node: &usize| Target {
            node: node as u16,
            server_reference: format!("host{node}:1883").into(),
            takes_sessions: true,
        };
        let order = order.map(|(purpose, rate, to)| {
            let targets = to.iter().map(target).collect();
            Arc::new(DrainOrder { number: 1, purpose, rate, targets })
        });
        let mut progress = DrainProgress { is_counted: true, ..DrainProgress::default() };
        for world in &mut self.nodes[node].cores {
            let (to, replies) = replies();
            let command = EngineCommand::Drain { order: order.clone(), reply: to.core(0) };
            world.engine.handle_command(world.now, command);
            world.settle();
            let (_, answer) = replies.try_next().expect("an answer");
            let of: DrainProgress = answer.expect("it takes orders");
            progress.clients += of.clients;
            progress.sessions += of.sessions;
            progress.under_way += of.under_way;
            progress.is_counted &= of.is_counted;
        }
        progress
    }

    fn drain(&mut self, node: usize, to: &[usize]) -> DrainProgress {
        self.order(node, Some((Purpose::Drain, 1_000, to)))
    }

    /// A client with a stored session that is away, and for which so many messages wait.
    fn absent(&mut self, node: usize, client: &Client<'_>, messages: usize) {
        let (id, _) = self.enter((node, 0), client);
        self.world(node, 0).subscribe(id, client.name, Qos::ExactlyOnce);
        self.settle();
        self.world(node, 0).cut(id);
        for number in 0..messages {
            self.publish((number % 3, 0), client.name, &number.to_string(), Qos::AtLeastOnce);
        }
    }

    fn queued(&mut self, node: usize, name: &str) -> Vec<String> {
        let (id, is_present) = self.enter_and_keep((node, 0), &Client::persistent(name));
        assert!(is_present, "{name}");
        self.payloads((node, 0, id))
    }

    /// As `enter`, and what follows CONNACK is not read yet.
    fn enter_and_keep(
        &mut self,
        (node, core): (usize, usize),
        client: &Client<'_>,
    ) -> (ConnectionId, bool) {
        let id = self.begin((node, core), client);
        self.settle();
        let world = self.world(node, core);
        let bytes = world.received[&id].clone();
        let connack = world.packets(id, client.version).remove(0);
        world.received.insert(id, bytes);
        (id, connack.contains("session_present: true"))
    }
}

fn will(topic: &str, delay_interval_s: u32) -> Option<wire::Will<'_>> {
    let (payload, qos) = (&b"gone"[..], Qos::AtLeastOnce);
    Some(wire::Will { topic, payload, qos, delay_interval_s, ..wire::Will::default() })
}

#[test]
fn clients_of_a_node_that_is_emptied_are_sent_to_the_others_evenly_at_the_rate() {
    let mut cluster = Cluster::new(3, 1);
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    let ids: Vec<ConnectionId> =
        names.iter().map(|name| cluster.enter((0, 0), &Client::v5(name)).0).collect();
    let old = Client { version: Version::V311, ..Client::v5("old") };
    let old = cluster.begin((0, 0), &old);
    cluster.settle();
    cluster.order(0, Some((Purpose::Drain, 10, &[1, 2])));
    let closed = |cluster: &mut Cluster| cluster.world(0, 0).closed.len();
    for _ in 0..10 {
        cluster.advance_ms(100);
        cluster.turn();
    }
    let after_a_second = closed(&mut cluster);
    assert!((5..=11).contains(&after_a_second), "{after_a_second}");
    for _ in 0..20 {
        cluster.advance_ms(100);
        cluster.turn();
    }
    assert_eq!(closed(&mut cluster), 21);
    assert!(cluster.world(0, 0).closed.contains(&old));
    let mut of = [0, 0];
    for id in ids {
        let said = cluster.said((0, 0, id));
        assert!(said.contains("UseAnotherServer"), "{said}");
        for (place, host) in ["host1:1883", "host2:1883"].into_iter().enumerate() {
            of[place] += usize::from(said.contains(host));
        }
    }
    assert!(of[0] + of[1] == 20 && of[0].abs_diff(of[1]) <= 1, "{of:?}");
    let refused = cluster.begin((0, 0), &Client::v5("late"));
    cluster.settle();
    let said = cluster.said((0, 0, refused));
    assert!(said.contains("UseAnotherServer") && said.contains("host"), "{said}");
    assert!(cluster.drain(0, &[1, 2]).is_empty());
    cluster.order(0, None);
    cluster.enter((0, 0), &Client::v5("late"));
}

#[test]
fn sessions_without_a_client_move_to_the_other_nodes_evenly_with_all_that_waits() {
    for cores in [1, 2] {
        let mut cluster = Cluster::new(3, cores);
        let names: Vec<String> = (0..60).map(|number| format!("c{number}")).collect();
        let core = |cluster: &mut Cluster, name: &str| {
            let engine = &cluster.world(0, 0).engine;
            usize::from(engine.mesh.home(name, engine.router.replica()).0)
        };
        for name in &names {
            let core = core(&mut cluster, name);
            let (id, _) = cluster.enter((0, core), &Client::persistent(name));
            cluster.world(0, core).subscribe(id, name, Qos::ExactlyOnce);
            cluster.world(0, core).cut(id);
        }
        cluster.settle();
        for number in 0..9 {
            for name in &names {
                let (node, payload) = (number % 3, number.to_string());
                cluster.publish((node, 0), name, &payload, Qos::AtLeastOnce);
            }
        }
        cluster.drain(0, &[1, 2]);
        cluster.settle();
        let progress = cluster.drain(0, &[1, 2]);
        assert!(progress.is_empty(), "{progress:?}");
        let count = |cluster: &mut Cluster, node: usize| -> usize {
            let worlds = cluster.nodes[node].cores.iter();
            worlds.map(|world| world.engine.sessions.len()).sum()
        };
        let of = [0, 1, 2].map(|node| count(&mut cluster, node));
        assert!(of[1].abs_diff(of[2]) < 30, "{of:?}");
        let has = |cluster: &mut Cluster, node: usize, name: &str| {
            let mut worlds = cluster.nodes[node].cores.iter();
            worlds.any(|world| world.engine.sessions.find(name).is_some())
        };
        for name in &names {
            assert!(!has(&mut cluster, 0, name), "{name}");
            assert_eq!(cluster.sessions(name), 1, "{name}");
        }
        for (number, name) in names.iter().enumerate().step_by(7) {
            let core = core(&mut cluster, name);
            let node = number % 3;
            if node == 0 {
                cluster.order(0, None);
            }
            let (id, is_present) = cluster.enter_and_keep((node, core), &Client::persistent(name));
            assert!(is_present, "{name}");
            let got = cluster.payloads((node, core, id));
            assert_eq!(got, (0..9).map(|of| of.to_string()).collect::<Vec<_>>(), "{name}");
        }
    }
}

#[test]
fn a_session_whose_taker_dies_on_the_way_goes_to_another_node_and_loses_nothing() {
    for frames in 0..14 {
        let mut cluster = Cluster::new(4, 1);
        cluster.absent(0, &Client::persistent("c"), 5);
        let mut left = frames;
        cluster.loses = Box::new(move |from, to| {
            left -= i32::from(to == 1);
            from == 1 && left <= 0 || to == 1 && left < 0
        });
        cluster.drain(0, &[1]);
        for _ in 0..60 {
            cluster.turn();
            cluster.advance_ms(5);
        }
        for other in [0, 2, 3] {
            cluster.leave(other, 1);
        }
        cluster.loses = Box::new(|from, to| from == 1 || to == 1);
        cluster.settle();
        let has_moved = cluster.world(0, 0).engine.metrics().sessions_moved_out == 1;
        for _ in 0..4 {
            cluster.drain(0, &[1, 2, 3]);
            cluster.settle();
        }
        let of = [0, 2, 3].map(|node| cluster.world(node, 0).engine.sessions.find("c").is_some());
        if has_moved {
            assert_eq!(of, [false; 3], "after {frames} frames");
            continue;
        }
        assert!(!of[0] && (of[1] ^ of[2]), "after {frames} frames: {of:?}");
        assert_eq!(cluster.queued(2, "c"), ["0", "1", "2", "3", "4"], "after {frames} frames");
    }
}

#[test]
fn a_client_that_connects_to_any_node_while_its_session_is_offered_has_it_there() {
    for turns in 0..12 {
        for node in 0..3 {
            let mut cluster = Cluster::new(3, 1);
            cluster.absent(0, &Client::persistent("c"), 3);
            cluster.drain(0, &[1]);
            for _ in 0..turns {
                cluster.advance_ms(10);
                cluster.turn();
            }
            if node == 0 {
                cluster.order(0, None);
            }
            assert_eq!(cluster.queued(node, "c"), ["0", "1", "2"], "{node} after {turns}");
            cluster.settle();
            assert_eq!(cluster.sessions("c"), 1, "{node} after {turns}");
            let is_quiet = |node| cluster.nodes[node as usize].cores[0].engine.claims.is_quiet();
            assert!((0..3).all(is_quiet), "{node} after {turns}");
        }
    }
}

#[test]
fn a_node_without_room_or_that_is_emptied_itself_takes_no_session() {
    let mut cluster = Cluster::new(3, 1);
    cluster.absent(0, &Client::persistent("c"), 2);
    cluster.world(1, 0).engine.config.limits.sessions_max = 0;
    cluster.drain(2, &[]);
    cluster.drain(0, &[1, 2]);
    cluster.settle();
    assert!(cluster.world(0, 0).engine.sessions.find("c").is_some());
    cluster.order(2, None);
    cluster.settle();
    assert!(cluster.world(2, 0).engine.sessions.find("c").is_some());
    assert_eq!(cluster.queued(2, "c"), ["0", "1"]);
}

#[test]
fn the_will_of_a_client_with_a_stored_session_waits_for_it_at_its_next_node() {
    for comes_back in [false, true] {
        for is_connected in [false, true] {
            let mut cluster = Cluster::new(3, 1);
            (0..3).for_each(|node| cluster.world(node, 0).engine.open_journal(journal()));
            let watcher = cluster.subscriber(2, 0, "will", Qos::AtLeastOnce);
            cluster.world(0, 0).engine.config.will_grace_s = 30;
            let delay_s = if is_connected { 0 } else { 30 };
            let client = Client { will: will("will", delay_s), ..Client::persistent("c") };
            let (id, _) = cluster.enter((0, 0), &client);
            if !is_connected {
                cluster.world(0, 0).cut(id);
            }
            cluster.drain(0, &[1]);
            cluster.settle();
            assert!(cluster.world(1, 0).engine.sessions.find("c").is_some());
            assert_eq!(stored(cluster.world(0, 0)).sessions.len(), 0);
            assert_eq!(stored(cluster.world(0, 0)).wills.len(), 0);
            assert_eq!(cluster.payloads((2, 0, watcher)), [""; 0]);
            if comes_back {
                cluster.enter((2, 0), &Client::persistent("c"));
            } else {
                let image = stored(cluster.world(1, 0));
                assert!(image.sessions.values().any(|session| session.will.is_some()));
            }
            for _ in 0..40 {
                cluster.advance_ms(1_000);
                cluster.settle_soon();
            }
            let published = usize::from(!comes_back);
            assert_eq!(cluster.payloads((2, 0, watcher)).len(), published, "{is_connected}");
        }
    }
}

#[test]
fn a_rebalance_disconnects_so_many_clients_and_none_whose_will_that_would_publish() {
    let mut cluster = Cluster::new(2, 1);
    let with_will = Client { will: will("will", 0), ..Client::v5("will") };
    let (watched, _) = cluster.enter((0, 0), &with_will);
    for number in 0..10 {
        cluster.enter((0, 0), &Client::v5(&format!("c{number}")));
    }
    let rebalance = |clients| Some((Purpose::Rebalance { clients }, 1_000, &[1][..]));
    cluster.order(0, rebalance(4));
    cluster.settle();
    assert_eq!(cluster.world(0, 0).closed.len(), 4);
    assert_eq!(cluster.order(0, rebalance(4)).clients, 0);
    cluster.order(0, None);
    cluster.order(0, rebalance(20));
    cluster.settle();
    assert_eq!(cluster.order(0, rebalance(20)).clients, 0, "nobody else can go");
    assert_eq!(cluster.world(0, 0).closed.len(), 10);
    assert!(!cluster.world(0, 0).closed.contains(&watched));
}

/// Whatever a client does, whatever frames are lost, and whatever nodes are emptied.
#[test]
fn a_client_that_roams_over_nodes_that_are_emptied_at_random_gets_each_message_once_and_in_order() {
    let runs = std::env::var("RINGMQ_TEST_DRAIN_SEEDS").ok();
    for seed in 0..runs.and_then(|runs| runs.parse().ok()).unwrap_or(30_u64) {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 7);
        let cores = 1 + (seed % 2) as u16;
        let mut cluster = Cluster::new(3, cores);
        let name = cluster.name(0);
        let mut roaming = Roaming::begin(&mut cluster, name);
        let mut publishers = Publishers::connect(&mut cluster, usize::from(cores) - 1);
        let (lost_of_100, mut lossy) = (random.below(30), Random(seed));
        cluster.loses = Box::new(move |_, _| lossy.below(100) < lost_of_100);
        for _ in 0..500 {
            match random.below(24) {
                0 => roaming.connect(&mut cluster, random.below(3) as usize),
                1 => {
                    if let Some((node, id)) = roaming.at.take() {
                        cluster.world(node, 0).cut(id);
                    }
                }
                2 | 3 => {
                    let node = random.below(3) as usize;
                    let others: Vec<usize> = (0..3).filter(|&other| other != node).collect();
                    // The publishers stay.
                    cluster.order(node, Some((Purpose::Drain, 0, &others)));
                }
                13 => {
                    if let Some((node, id)) = roaming.at.take() {
                        let world = cluster.world(node, 0);
                        if world.engine.connections.contains(id) {
                            world.engine.end_connection(id, Ending::Drained);
                            world.settle();
                        }
                    }
                }
                4 => (0..3).for_each(|node| {
                    cluster.order(node, None);
                }),
                5..13 => publishers.publish(&mut cluster, random.below(3) as usize),
                _ => {}
            }
            cluster.turn();
            cluster.advance_ms(random.below(20));
            roaming.read(&mut cluster);
        }
        (0..3).for_each(|node| {
            cluster.order(node, None);
        });
        roaming.verify(&mut cluster, &publishers, seed);
    }
}
