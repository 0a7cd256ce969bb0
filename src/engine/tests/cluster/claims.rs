//! One session a Client Identifier in the whole cluster, and sessions that move.

use super::*;
use crate::storage::commit::{JournalConfig, StoreState};
use crate::storage::image::{Image, Whole};

mod absent;

impl Cluster {
    /// A Client Identifier at home on the core.
    pub(super) fn name(&mut self, core: usize) -> String {
        let engine = &self.world(0, core).engine;
        let is_home =
            |name: &String| usize::from(engine.mesh.home(name, engine.router.replica()).0) == core;
        (0..).map(|number| format!("client{number}")).find(is_home).expect("one of them")
    }

    /// Sends CONNECT at a node.
    pub(super) fn begin(
        &mut self,
        (node, core): (usize, usize),
        client: &Client<'_>,
    ) -> ConnectionId {
        let id = self.world(node, core).accept();
        self.world(node, core).send_connect(id, client);
        id
    }

    /// Connects a client at a node; whether its session was present.
    pub(super) fn enter(
        &mut self,
        (node, core): (usize, usize),
        client: &Client<'_>,
    ) -> (ConnectionId, bool) {
        let id = self.begin((node, core), client);
        self.settle();
        let packets = self.world(node, core).packets(id, client.version);
        let connack = packets.iter().find(|packet| packet.starts_with("Connack")).expect("CONNACK");
        assert!(connack.contains("reason: Success"), "{connack}");
        let is_present = connack.contains("session_present: true");
        (id, is_present)
    }

    pub(super) fn said(&mut self, (node, core, id): (usize, usize, ConnectionId)) -> String {
        self.world(node, core).packets(id, Version::V5).join("\n")
    }

    pub(super) fn sessions(&mut self, client: &str) -> usize {
        let worlds = self.nodes.iter().flat_map(|node| &node.cores);
        worlds.filter(|world| world.engine.sessions.find(client).is_some()).count()
    }

    pub(super) fn publish(
        &mut self,
        (node, core): (usize, usize),
        topic: &str,
        payload: &str,
        qos: Qos,
    ) {
        let id = self.connect(node, core);
        self.world(node, core).publish(id, topic, payload.as_bytes(), qos, 1);
        self.settle_soon();
        self.world(node, core).cut(id);
    }
}

#[test]
fn a_client_that_connects_to_another_node_is_disconnected_from_the_first() {
    for cores in [1, 2] {
        let mut cluster = Cluster::new(3, cores);
        let core = usize::from(cores) - 1;
        let name = cluster.name(core);
        let (first, _) = cluster.enter((0, core), &Client::v5(&name));
        let (second, is_present) = cluster.enter((1, core), &Client::v5(&name));
        assert!(!is_present);
        assert!(cluster.said((0, core, first)).contains("SessionTakenOver"));
        assert!(cluster.world(0, core).closed.contains(&first));
        assert!(!cluster.world(1, core).closed.contains(&second));
        assert_eq!(cluster.sessions(&name), 1);
    }
}

#[test]
fn clean_start_at_another_node_ends_the_session_with_its_subscriptions() {
    let mut cluster = Cluster::new(3, 1);
    let (first, _) = cluster.enter((0, 0), &Client::persistent("c"));
    cluster.world(0, 0).subscribe(first, "t", Qos::AtLeastOnce);
    cluster.settle();
    let mut clean = Client::persistent("c");
    clean.clean_start = true;
    let (second, is_present) = cluster.enter((2, 0), &clean);
    assert!(!is_present);
    assert!(cluster.said((0, 0, first)).contains("SessionTakenOver"));
    assert_eq!(cluster.sessions("c"), 1);
    cluster.publish((1, 0), "t", "1", Qos::AtLeastOnce);
    assert_eq!(cluster.payloads((2, 0, second)), [""; 0]);
    assert_eq!(cluster.world(0, 0).engine.router.index().len(), 0);
}

#[test]
fn connack_of_a_kept_session_waits_until_all_nodes_have_answered_and_that_of_another_does_not() {
    let mut cluster = Cluster::new(3, 1);
    cluster.loses = Box::new(|from, to| from == 2 || to == 2);
    let kept = cluster.begin((0, 0), &Client::persistent("kept"));
    let other = cluster.begin((0, 0), &Client::v5("other"));
    cluster.settle();
    assert_eq!(cluster.said((0, 0, kept)), "");
    assert!(cluster.said((0, 0, other)).contains("Connack"));
    // A node that has left is not waited for.
    cluster.leave(0, 2);
    cluster.settle();
    assert!(cluster.said((0, 0, kept)).contains("Connack"));
}

#[test]
fn a_client_that_returns_to_its_node_asks_nobody() {
    let mut cluster = Cluster::new(2, 1);
    let (first, _) = cluster.enter((0, 0), &Client::persistent("c"));
    cluster.world(0, 0).cut(first);
    cluster.loses = Box::new(|_, _| true);
    let (_, is_present) = cluster.enter((0, 0), &Client::persistent("c"));
    assert!(is_present);
}

#[test]
fn of_two_connections_at_once_one_is_left() {
    for kept in [false, true] {
        for loss in 0..20 {
            let mut cluster = Cluster::new(3, 1);
            let mut client = Client::v5("c");
            if kept {
                client = Client::persistent("c");
            }
            let mut count = loss;
            cluster.loses = Box::new(move |_, _| {
                count = (count * 7 + 3) % 61;
                count % 3 == 0
            });
            let ids: Vec<ConnectionId> =
                (0..3).map(|node| cluster.begin((node, 0), &client)).collect();
            cluster.settle();
            cluster.loses = Box::new(|_, _| false);
            cluster.settle();
            let open = (0..3).filter(|&node| !cluster.world(node, 0).closed.contains(&ids[node]));
            let open: Vec<usize> = open.collect();
            assert_eq!((open.len(), cluster.sessions("c")), (1, 1), "{kept} {loss} {open:?}");
            assert!(cluster.said((open[0], 0, ids[open[0]])).contains("Connack"));
        }
    }
}

#[test]
fn a_session_that_ends_is_nobodys_and_a_node_that_leaves_has_none() {
    let mut cluster = Cluster::new(3, 1);
    let (first, _) = cluster.enter((0, 0), &Client::v5("c"));
    let known =
        |cluster: &mut Cluster, node| cluster.world(node, 0).engine.metrics().cluster_claims;
    assert_eq!((known(&mut cluster, 1), known(&mut cluster, 0)), (1, 0));
    cluster.world(0, 0).cut(first);
    cluster.settle();
    assert_eq!(known(&mut cluster, 1), 0);
    cluster.enter((0, 0), &Client::v5("d"));
    assert_eq!(known(&mut cluster, 1), 1);
    cluster.leave(1, 0);
    cluster.settle();
    assert_eq!(known(&mut cluster, 1), 0);
}

#[test]
fn a_node_that_joins_learns_of_the_sessions_and_of_two_one_is_left() {
    let mut cluster = Cluster::apart(2, 1);
    for number in 0..70 {
        cluster.enter((0, 0), &Client::v5(&format!("c{number}")));
    }
    let (older, _) = cluster.enter((0, 0), &Client::persistent("both"));
    cluster.advance_ms(10);
    let (later, _) = cluster.enter((1, 0), &Client::persistent("both"));
    cluster.join(0, 1, 1);
    cluster.join(1, 0, 1);
    cluster.settle();
    assert_eq!(cluster.world(1, 0).engine.metrics().cluster_claims, 70);
    assert!(cluster.world(0, 0).closed.contains(&older));
    assert!(!cluster.world(1, 0).closed.contains(&later));
    assert_eq!(cluster.sessions("both"), 1);
}

#[test]
fn a_kept_session_moves_with_its_subscriptions_its_queue_and_its_exchanges() {
    for cores in [1, 2] {
        let mut cluster = Cluster::new(3, cores);
        let core = usize::from(cores) - 1;
        let name = cluster.name(core);
        let client = Client::persistent(&name);
        let (first, _) = cluster.enter((0, core), &client);
        cluster.world(0, core).subscribe(first, "t/+", Qos::ExactlyOnce);
        cluster.settle();
        // One in flight that is not acknowledged, one of which PUBREL is left, and one of the client without PUBREL.
        cluster.publish((1, 0), "t/1", "in flight", Qos::AtLeastOnce);
        cluster.publish((2, 0), "t/2", "released", Qos::ExactlyOnce);
        let got = cluster.world(0, core).publishes(first);
        assert_eq!(got.len(), 2, "{got:?}");
        let released = got[1].3.expect("an identifier");
        cluster.world(0, core).send(first, Version::V5, &Packet::Pubrec(ack(released)));
        cluster.world(0, core).publish(first, "u", b"exactly once", Qos::ExactlyOnce, 77);
        cluster.settle();
        cluster.world(0, core).cut(first);
        let payloads: Vec<String> = (0..500).map(|number| format!("{number}{:500}", "")).collect();
        for (number, payload) in payloads.iter().enumerate() {
            cluster.publish((number % 3, 0), "t/3", payload, Qos::AtLeastOnce);
        }
        let id = cluster.begin((1, core), &client);
        cluster.settle();
        let mut said = Vec::new();
        let mut got = Vec::new();
        cluster.world(1, core).each_packet(id, Version::V5, |packet| match packet {
            Packet::Publish(publish) => got.push((
                String::from_utf8_lossy(publish.payload).into_owned(),
                publish.dup,
                publish.packet_identifier.map(PacketIdentifier::get),
            )),
            other => said.push(format!("{other:?}")),
        });
        assert!(said[0].contains("session_present: true"), "{said:?}");
        assert!(said.iter().any(|packet| packet.starts_with("Pubrel")), "{said:?}");
        assert_eq!((got[0].0.as_str(), got[0].1), ("in flight", true));
        let queued: Vec<&String> = got[1..].iter().map(|(payload, ..)| payload).collect();
        assert_eq!(queued.len(), payloads.len());
        assert!(queued.into_iter().eq(&payloads), "in order");
        assert_eq!(cluster.sessions(&name), 1);
        // The subscription is here now, and the message of the client is known.
        cluster.publish((0, 0), "t/4", "after", Qos::AtLeastOnce);
        assert_eq!(cluster.payloads((1, core, id)), ["after"]);
        let mut watcher = cluster.subscriber(2, 0, "u", Qos::ExactlyOnce);
        let mut again = publish("u", b"exactly once", Qos::ExactlyOnce, 77);
        again.dup = true;
        cluster.world(1, core).send(id, Version::V5, &Packet::Publish(again));
        cluster.settle();
        assert!(cluster.said((1, core, id)).contains("Pubrec"));
        assert_eq!(cluster.payloads((2, 0, std::mem::replace(&mut watcher, id))), [""; 0]);
        let moved = |cluster: &mut Cluster, node| {
            let metrics = cluster.world(node, core).engine.metrics();
            (metrics.sessions_moved_in, metrics.sessions_moved_out)
        };
        assert_eq!((moved(&mut cluster, 0), moved(&mut cluster, 1)), ((0, 1), (1, 0)));
        assert_eq!(cluster.world(0, core).engine.router.index().len(), 0);
    }
}

#[test]
fn a_session_that_moves_back_and_forth_under_load_gets_each_message_once_and_in_order() {
    let mut cluster = Cluster::new(3, 1);
    let client = Client::persistent("c");
    let (mut id, _) = cluster.enter((0, 0), &client);
    cluster.world(0, 0).subscribe(id, "t", Qos::AtLeastOnce);
    cluster.settle();
    let publisher = cluster.connect(2, 0);
    let (mut number, mut got) = (0_u16, Vec::new());
    let mut node = 0;
    for round in 0..12 {
        node = (node + 1) % 3;
        id = cluster.begin((node, 0), &client);
        for _ in 0..60 {
            if number < 900 && round < 11 {
                number += 1;
                let payload = number.to_string();
                let identifier = number;
                cluster.world(2, 0).publish(
                    publisher,
                    "t",
                    payload.as_bytes(),
                    Qos::AtLeastOnce,
                    identifier,
                );
            }
            cluster.turn();
            cluster.advance_ms(1);
        }
        cluster.settle();
        let payloads = cluster.world(node, 0).publishes(id);
        for (_, payload, _, identifier) in payloads {
            got.push(payload.parse::<u16>().expect("a number"));
            let identifier = identifier.expect("QoS 1");
            cluster.world(node, 0).send(id, Version::V5, &Packet::Puback(ack(identifier)));
        }
    }
    cluster.settle();
    got.extend(cluster.world(node, 0).payloads(id).iter().map(|of| of.parse::<u16>().expect("it")));
    assert_eq!(got, (1..=number).collect::<Vec<u16>>(), "all, once, in order");
}

#[test]
fn a_session_whose_new_node_dies_on_the_way_stays_at_the_old_one() {
    let client = Client::persistent("c");
    // Frames to the new node that still arrive.
    for frames in 0..12 {
        let mut cluster = Cluster::new(3, 1);
        let (first, _) = cluster.enter((0, 0), &client);
        cluster.world(0, 0).subscribe(first, "t", Qos::AtLeastOnce);
        cluster.world(0, 0).subscribe(first, "$share/g/s", Qos::AtLeastOnce);
        cluster.settle();
        cluster.world(0, 0).cut(first);
        cluster.publish((2, 0), "t", "waits", Qos::AtLeastOnce);
        let mut left = frames;
        cluster.loses = Box::new(move |from, to| {
            left -= i32::from(to == 1);
            from == 1 && left <= 0 || to == 1 && left < 0
        });
        cluster.begin((1, 0), &client);
        for _ in 0..50 {
            cluster.turn();
            cluster.advance_ms(5);
        }
        for other in [0, 2] {
            cluster.leave(other, 1);
        }
        cluster.loses = Box::new(|from, to| from == 1 || to == 1);
        cluster.settle();
        let has_moved = cluster.world(0, 0).engine.metrics().sessions_moved_out == 1;
        let id = cluster.begin((2, 0), &client);
        cluster.settle();
        let connack = cluster.said((2, 0, id));
        let expected = match has_moved {
            true => "reason: ServerUnavailable",
            false => "session_present: true",
        };
        assert!(connack.contains(expected), "after {frames} frames: {connack}");
        if !has_moved {
            cluster.publish((0, 0), "s", "shared", Qos::AtLeastOnce);
            assert_eq!(cluster.payloads((2, 0, id)), ["shared"], "after {frames} frames");
        }
    }
}

#[test]
fn a_session_of_another_user_is_not_given_away() {
    let mut cluster = Cluster::new(2, 1);
    let (first, _) = cluster.enter((0, 0), &Client::persistent("c"));
    let engine = &mut cluster.world(0, 0).engine;
    engine.config.bind_sessions = true;
    let session = engine.sessions.find("c").expect("a session");
    engine.sessions.make_owner(session, Some("somebody"));
    let second = cluster.begin((1, 0), &Client::persistent("c"));
    cluster.settle();
    assert!(cluster.said((1, 0, second)).contains("NotAuthorized"));
    assert!(!cluster.world(0, 0).closed.contains(&first));
    assert_eq!(cluster.sessions("c"), 1);
}

/// A receipt may overtake messages; what was published before the new node was known comes before the session moves.
#[test]
fn messages_that_are_slow_on_their_way_to_the_old_node_are_not_lost_in_a_move() {
    for cores in [1, 2] {
        for slow in 1..6 {
            let mut cluster = Cluster::new(3, cores);
            let name = cluster.name(0);
            let client = Client::persistent(&name);
            let (first, _) = cluster.enter((0, 0), &client);
            cluster.world(0, 0).subscribe(first, "t", Qos::AtLeastOnce);
            cluster.settle();
            let publisher = cluster.connect(2, 0);
            // Some frames of the publisher's node to the old one is lost, and sent again later.
            let mut count = 0;
            cluster.loses = Box::new(move |from, to| {
                count += usize::from((from, to) == (2, 0));
                (from, to) == (2, 0) && count % 8 < slow
            });
            for number in 1..=20_u16 {
                let payload = number.to_string();
                cluster.world(2, 0).publish(
                    publisher,
                    "t",
                    payload.as_bytes(),
                    Qos::AtLeastOnce,
                    number,
                );
                cluster.turn();
            }
            let id = cluster.begin((1, 0), &client);
            for _ in 0..20 {
                cluster.settle();
            }
            let expected: Vec<String> = (1..=20).map(|number| number.to_string()).collect();
            assert_eq!(cluster.payloads((1, 0, id)), expected, "{slow} of 8");
        }
    }
}

/// A journal for whose batches nothing waits.
pub(super) fn journal() -> JournalConfig {
    JournalConfig { wall_at_zero_us: 1 << 50, waits: false }
}

/// What the store of a world has.
pub(super) fn stored(world: &mut World) -> Image {
    let mut image = Image::default();
    while let Some(batch) = world.engine.poll_records().or_else(|| world.engine.drain_records()) {
        image.apply(&batch.bytes, &Whole).expect("records");
        let state = StoreState { up_to: batch.number, ..StoreState::default() };
        world.engine.handle_stored(world.now, state);
    }
    image
}

#[test]
fn a_session_that_moves_is_in_the_store_of_its_new_node_alone_and_its_filters_are_announced_after_a_restart()
 {
    let mut cluster = Cluster::new(2, 1);
    (0..2).for_each(|node| cluster.world(node, 0).engine.open_journal(journal()));
    let client = Client::persistent("c");
    let (first, _) = cluster.enter((0, 0), &client);
    cluster.world(0, 0).subscribe(first, "t", Qos::ExactlyOnce);
    cluster.world(0, 0).publish(first, "u", b"x", Qos::ExactlyOnce, 9);
    cluster.settle();
    cluster.publish((1, 0), "t", "released", Qos::ExactlyOnce);
    let identifier = cluster.world(0, 0).publishes(first)[0].3.expect("an identifier");
    cluster.world(0, 0).send(first, Version::V5, &Packet::Pubrec(ack(identifier)));
    cluster.publish((1, 0), "t", "in flight", Qos::AtLeastOnce);
    cluster.world(0, 0).cut(first);
    cluster.publish((1, 0), "t", "1", Qos::AtLeastOnce);
    cluster.publish((0, 0), "t", "2", Qos::AtLeastOnce);
    // The client is gone when the session comes.
    let id = cluster.begin((1, 0), &client);
    cluster.turn();
    cluster.world(1, 0).cut(id);
    cluster.settle();
    assert_eq!(stored(cluster.world(0, 0)).sessions.len(), 0);
    let image = stored(cluster.world(1, 0));
    let session = image.sessions.values().next().expect("a session");
    assert_eq!(&*session.client_identifier, "c");
    assert_eq!((session.expiry_interval_s, session.away_since_us.is_some()), (3_600, true));
    assert_eq!(session.received.iter().copied().collect::<Vec<u16>>(), [9]);
    assert!(session.subscriptions.contains_key("t"));
    let inflight: Vec<bool> = session.inflight.iter().map(|of| of.content.is_some()).collect();
    assert_eq!(inflight, [false, true]);
    assert_eq!(session.queue.len(), 2);
    let mut again = Cluster::apart(2, 1);
    again.world(0, 0).engine.open_journal(journal());
    again.world(0, 0).engine.restore(image);
    again.world(0, 0).engine.end_restore();
    again.join(0, 1, 1);
    again.join(1, 0, 1);
    again.settle();
    again.publish((1, 0), "t", "3", Qos::AtLeastOnce);
    let id = again.begin((1, 0), &client);
    again.settle();
    again.publish((0, 0), "t", "4", Qos::AtLeastOnce);
    assert_eq!(again.payloads((1, 0, id)), ["in flight", "1", "2", "3", "4"]);
    assert_eq!(again.sessions("c"), 1);
}

/// A generator of numbers that depend on its seed alone.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A client with a kept session on its way through the nodes, and what it has got.
pub(super) struct Roaming {
    pub(super) name: String,
    pub(super) at: Option<(usize, ConnectionId)>,
    /// By publisher, the numbers in the order in which they came, without what was sent again as not acknowledged.
    pub(super) got: Vec<Vec<u16>>,
    /// Connections that ended before CONNACK, or were given up, may leave a client anywhere.
    pub(super) connects: u32,
}

impl Roaming {
    /// Connects a client at home on core 0 at node 0, where it subscribes to `t`.
    pub(super) fn begin(cluster: &mut Cluster, name: String) -> Self {
        let (id, _) = cluster.enter((0, 0), &Client::persistent(&name));
        cluster.world(0, 0).subscribe(id, "t", Qos::AtLeastOnce);
        cluster.settle();
        cluster.world(0, 0).packets(id, Version::V5);
        Self { name, at: Some((0, id)), got: vec![Vec::new(); 3], connects: 0 }
    }

    pub(super) fn read(&mut self, cluster: &mut Cluster) {
        let Some((node, id)) = self.at else { return };
        let (got, mut identifiers) = (&mut self.got, Vec::new());
        cluster.world(node, 0).each_packet(id, Version::V5, |packet| {
            let Packet::Publish(publish) = packet else { return };
            let payload = String::from_utf8_lossy(publish.payload);
            let (publisher, number) = payload.split_once(' ').expect("both");
            let got = &mut got[publisher.parse::<usize>().expect("a number")];
            let number: u16 = number.parse().expect("a number");
            // Sent again, as its acknowledgement was lost with the connection.
            if !publish.dup || !got.contains(&number) {
                got.push(number);
            }
            identifiers.push(publish.packet_identifier.expect("QoS 1"));
        });
        for identifier in identifiers {
            let puback = Packet::Puback(ack(identifier.get()));
            cluster.world(node, 0).send(id, Version::V5, &puback);
        }
        if cluster.world(node, 0).closed.contains(&id) {
            self.at = None;
        }
    }

    pub(super) fn connect(&mut self, cluster: &mut Cluster, node: usize) {
        self.connects += 1;
        let id = cluster.begin((node, 0), &Client::persistent(&self.name));
        self.at = Some((node, id));
    }

    /// Frames are lost no more: the client has one session, and has got each message once, in order, and nothing waits.
    pub(super) fn verify(&mut self, cluster: &mut Cluster, publishers: &Publishers, seed: u64) {
        cluster.loses = Box::new(|_, _| false);
        cluster.settle();
        self.connect(cluster, 2);
        for _ in 0..3 {
            cluster.settle();
            self.read(cluster);
        }
        let expected = publishers.published.map(|last| (1..=last).collect::<Vec<u16>>());
        assert_eq!(self.got, expected, "seed {seed}, {} connects", self.connects);
        assert_eq!(cluster.sessions(&self.name), 1, "seed {seed}");
        for node in 0..3 {
            let claims = &cluster.world(node, 0).engine.claims;
            assert!(claims.is_quiet(), "seed {seed}: {claims:?}");
        }
    }
}

/// A publisher at each of three nodes.
pub(super) struct Publishers {
    core: usize,
    ids: Vec<ConnectionId>,
    /// What each has published so far.
    published: [u16; 3],
}

impl Publishers {
    pub(super) fn connect(cluster: &mut Cluster, core: usize) -> Self {
        let ids = (0..3).map(|node| cluster.connect(node, core)).collect();
        Self { core, ids, published: [0; 3] }
    }

    /// The next message of a publisher.
    pub(super) fn publish(&mut self, cluster: &mut Cluster, of: usize) {
        self.published[of] += 1;
        let (number, world) = (self.published[of], cluster.world(of, self.core));
        let payload = format!("{of} {number}");
        world.publish(self.ids[of], "t", payload.as_bytes(), Qos::AtLeastOnce, number);
    }
}

/// Whatever a client does, and whatever frames are lost: it has one session, and gets each message once, in order.
#[test]
fn a_client_that_roams_at_random_over_a_carrier_that_loses_frames_gets_each_message_once_and_in_order()
 {
    let runs: Option<u64> =
        std::env::var("RINGMQ_CLAIM_SEEDS").ok().and_then(|runs| runs.parse().ok());
    for seed in 0..runs.unwrap_or(30_u64) {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
        let cores = 1 + (seed % 2) as u16;
        let mut cluster = Cluster::new(3, cores);
        let name = cluster.name(0);
        if seed % 3 == 0 {
            // A message takes several turns until all of these and the client have it.
            for node in 0..3 {
                for _ in 0..3 {
                    let id = cluster.connect(node, 0);
                    cluster.world(node, 0).subscribe(id, "t", Qos::AtMostOnce);
                }
                cluster.world(node, 0).engine.cut_fan_outs(1);
            }
        }
        let mut roaming = Roaming::begin(&mut cluster, name);
        let mut publishers = Publishers::connect(&mut cluster, usize::from(cores) - 1);
        let (lost_of_100, mut lossy) = (random.below(30), Random(seed));
        cluster.loses = Box::new(move |_, _| lossy.below(100) < lost_of_100);
        for _ in 0..400 {
            match random.below(20) {
                0 => roaming.connect(&mut cluster, random.below(3) as usize),
                1 => {
                    if let Some((node, id)) = roaming.at.take() {
                        cluster.world(node, 0).cut(id);
                    }
                }
                2..10 => publishers.publish(&mut cluster, random.below(3) as usize),
                _ => {}
            }
            cluster.turn();
            cluster.advance_ms(random.below(4));
            roaming.read(&mut cluster);
        }
        roaming.verify(&mut cluster, &publishers, seed);
    }
}
