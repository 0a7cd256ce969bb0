//! A node whose log is also in a stream of three servers: what it has acknowledged outlasts its disk, a killed server only
//! delays, and nothing is acknowledged past a seal.

use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, Context};
use ringmq::cluster::ship::page::{Frames, Seal, Taken};

use crate::engine::Engine;
use crate::support::{Ack, Broker, Client, Connect, Packet, Publish};
use crate::witness::Witness;
use crate::{PATIENCE, alone};

/// The stream of the node's first log.
const STREAM: &str = "RQ_test_LOG_NODE_keeper_1";
const SUBJECT: &str = "rq.test.log.keeper.1";

/// Exit code of a broker whose sessions were taken over.
const TAKEN_OVER: i32 = 6;

/// A node, and its engine.
struct Node {
    engine: Engine,
    broker: Broker,
    more: &'static str,
}

impl Node {
    /// None, with a notice, if there is no engine here.
    fn start(name: &str, more: &'static str) -> Option<Self> {
        let engine = Engine::start(name)?;
        let broker = boot(&engine, more);
        Some(Self { engine, broker, more })
    }

    fn kill(&mut self) {
        self.broker.signal("-KILL");
        self.broker.await_end();
    }

    fn boot(&mut self) {
        self.broker = boot(&self.engine, self.more);
    }

    fn publisher(&self) -> Client {
        Client::connect(&self.broker, Connect::v5("publisher"))
    }

    /// Subscribes with a session that is kept, and leaves.
    fn leave_session(&self) {
        let mut keeper = Client::connect(&self.broker, keeper());
        keeper.subscribe("t", 2);
        keeper.disconnect();
    }

    /// What waits in that session.
    fn messages(&self, count: usize) -> Vec<String> {
        let mut witness = Witness::of(&self.broker, keeper().resume(), "other");
        (0..count).map(|_| witness.next().text().to_owned()).collect()
    }

    fn wait_for_log(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.broker.log().contains(text) {
            assert!(Instant::now() < end, "{text:?} is not logged: {}", self.broker.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn boot(engine: &Engine, more: &str) -> Broker {
    Broker::with_config(&(config(engine) + more))
}

/// A log that is compacted from 1 MiB on.
fn config(engine: &Engine) -> String {
    let (folder, section) = (engine.folder.path("store"), engine.settings("keeper"));
    format!(
        "cores = 2\n[storage]\ndata = {folder:?}\ncompact_bytes_min = 1048576\n[cluster]\n{section}replicas = 3\n"
    )
}

fn keeper() -> Connect {
    Connect::v5("keeper").durable()
}

/// Publishes numbers at QoS 1 and 2 in turn; each is acknowledged when this returns.
fn publish_all(publisher: &mut Client, numbers: std::ops::RangeInclusive<u16>) {
    for number in numbers {
        let publish = Publish::new("t", number.to_string());
        publisher.publish(publish.qos(1 + (number % 2) as u8, number));
    }
}

/// The same at QoS 1, each message waiting for a stream that may stand.
fn publish_patiently(publisher: &mut Client, numbers: std::ops::RangeInclusive<u16>) {
    for number in numbers {
        publisher.send(Publish::new("t", number.to_string()).qos(1, number));
        match publisher.receive_within(PATIENCE) {
            Some(Packet::Ack(ack)) => assert_eq!(ack.packet_identifier, number),
            other => panic!("{number}: {other:?}"),
        }
    }
}

/// Each once, and in order for each quality of service.
fn assert_all(messages: &[String], numbers: std::ops::RangeInclusive<u16>) {
    let all: Vec<u16> = messages.iter().map(|text| text.parse().expect("a number")).collect();
    for remainder in 0..2 {
        let of = |number: &u16| number % 2 == remainder;
        let expected: Vec<u16> = numbers.clone().filter(of).collect();
        assert_eq!(all.iter().copied().filter(of).collect::<Vec<u16>>(), expected);
    }
}

/// Does something with JetStream.
fn with_jetstream<T>(engine: &Engine, of: impl AsyncFnOnce(Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let servers = engine.ports.map(|port| format!("nats://127.0.0.1:{port}"));
        let options = ConnectOptions::new().user_and_password("u".to_owned(), "p".to_owned());
        let client = options.connect(&servers[..]).await.expect("a connection");
        of(jetstream::new(client)).await
    })
}

/// The first sequence of the stream.
fn first_sequence(engine: &Engine) -> u64 {
    with_jetstream(engine, async |context| {
        let stream = context.get_stream(STREAM).await.expect("the stream");
        stream.cached_info().state.first_sequence
    })
}

/// The server that leads the stream.
fn leader(engine: &Engine) -> usize {
    with_jetstream(engine, async |context| {
        let stream = context.get_stream(STREAM).await.expect("the stream");
        let cluster = stream.cached_info().cluster.clone().expect("a cluster");
        let leader = cluster.leader.expect("a leader");
        leader.strip_prefix("server").and_then(|number| number.parse().ok()).expect("a number")
    })
}

#[test]
fn what_was_acknowledged_outlasts_the_disk_of_its_node() {
    let _alone = alone();
    let Some(mut node) = Node::start("disk-lost", "") else { return };
    node.leave_session();
    let mut publisher = node.publisher();
    publish_all(&mut publisher, 1..=300);
    publisher.publish(Publish::new("kept", "retained").retain().qos(1, 301));
    node.kill();
    std::fs::remove_dir_all(node.engine.folder.path("store")).expect("a folder");
    node.boot();
    node.wait_for_log("the log of this node was restored from its stream");
    assert_eq!(Witness::at(&node.broker, "kept").next().text(), "retained");
    assert_all(&node.messages(300), 1..=300);
    // The log and its stream continue from there, also once the broker starts with both.
    let mut publisher = node.publisher();
    publish_all(&mut publisher, 301..=320);
    node.kill();
    node.boot();
    assert_all(&node.messages(20), 301..=320);
}

#[test]
fn pages_that_a_compaction_has_made_obsolete_are_dropped_and_the_others_restore_the_node() {
    let _alone = alone();
    let Some(mut node) = Node::start("compacted", "") else { return };
    node.leave_session();
    let mut publisher = node.publisher();
    let end = Instant::now() + PATIENCE;
    while first_sequence(&node.engine) == 1 {
        assert!(Instant::now() < end, "no page is dropped");
        for number in 1..=20 {
            publisher.publish(Publish::new("t", format!("{number:060000}")).qos(1, number));
        }
        assert_all(&node.messages(20), 1..=20);
    }
    publish_all(&mut publisher, 1..=10);
    node.kill();
    std::fs::remove_dir_all(node.engine.folder.path("store")).expect("a folder");
    node.boot();
    node.wait_for_log("the log of this node was restored from its stream");
    assert_all(&node.messages(10), 1..=10);
}

#[test]
fn a_killed_leader_of_the_stream_delays_acknowledgements_and_loses_nothing() {
    let _alone = alone();
    let Some(mut node) = Node::start("leader-killed", "") else { return };
    node.leave_session();
    let mut publisher = node.publisher();
    publish_patiently(&mut publisher, 1..=100);
    let leader = leader(&node.engine);
    node.engine.kill(leader);
    publish_patiently(&mut publisher, 101..=200);
    node.engine.boot(leader);
    node.kill();
    std::fs::remove_dir_all(node.engine.folder.path("store")).expect("a folder");
    node.boot();
    assert_all(&node.messages(200), 1..=200);
}

/// The frames that a reader finds before the seal.
async fn before_seal(context: &Context, seal: Seal) -> Vec<u8> {
    let stream = context.get_stream(STREAM).await.expect("the stream");
    let (mut frames, mut all) = (Frames::default(), Vec::new());
    for sequence in 1.. {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        match frames.take(&message.payload).expect("a page") {
            Taken::Frame { bytes, .. } => all.extend(bytes),
            Taken::Nothing => {}
            Taken::Sealed(found) => {
                assert_eq!(found, seal);
                break;
            }
        }
    }
    all
}

#[test]
fn nothing_is_acknowledged_past_a_seal_and_the_broker_ends_and_starts_again_with_an_empty_log() {
    let _alone = alone();
    let Some(mut node) = Node::start("sealed", "") else { return };
    node.leave_session();
    let mut publisher = node.publisher();
    for number in 1..=50 {
        publisher.publish(Publish::new("t", format!("<{number}>")).qos(1, number));
    }
    let seal = Seal { node: 9, incarnation: 8, revision: 7 };
    with_jetstream(&node.engine, async |context| {
        let sent = context.publish(SUBJECT, seal.write()).await.expect("it is sent");
        sent.await.expect("it is stored");
    });
    publisher.send(Publish::new("t", "<51>").qos(1, 51));
    // No PUBACK, but the end.
    let answer = publisher.receive_within(PATIENCE);
    assert!(matches!(answer, Some(Packet::Disconnect(_))), "{answer:?}");
    assert_eq!(node.broker.await_end(), Some(TAKEN_OVER));
    assert!(node.broker.log().contains("node 9 (incarnation 8) has sealed the stream"));
    let counts = with_jetstream(&node.engine, async |context| before_seal(&context, seal).await);
    let has = |number: u16| {
        let text = format!("<{number}>");
        counts.windows(text.len()).any(|bytes| bytes == text.as_bytes())
    };
    assert!((1..=50).all(has) && !has(51));
    node.boot();
    node.wait_for_log("its log is set aside");
    let set_aside = node.engine.folder.path("store/set-aside-1");
    assert!(std::path::Path::new(&set_aside).is_dir());
    let keeper = Client::connect(&node.broker, keeper().resume());
    assert!(!keeper.connack.session_present);
    keeper.disconnect();
    publish_all(&mut node.publisher(), 1..=5);
}

#[test]
fn no_client_is_served_before_the_engine_is_there() {
    let _alone = alone();
    let Some(mut node) = Node::start("awaited", "") else { return };
    node.leave_session();
    publish_all(&mut node.publisher(), 1..=10);
    node.kill();
    (0..3).for_each(|number| node.engine.kill(number));
    let engine = &mut node.engine;
    let config = config(engine);
    let broker = std::thread::scope(|scope| {
        let started = scope.spawn(move || Broker::with_config(&config));
        std::thread::sleep(Duration::from_secs(3));
        assert!(!started.is_finished());
        (0..3).for_each(|number| engine.boot(number));
        started.join().expect("it starts")
    });
    node.broker = broker;
    assert!(node.broker.log().contains("waiting for the stream of this node's log"));
    assert_all(&node.messages(10), 1..=10);
}

#[test]
fn without_a_quorum_acknowledgements_wait_and_with_degrade_the_disk_counts_alone() {
    let _alone = alone();
    let Some(mut node) = Node::start("no-quorum", "") else { return };
    node.leave_session();
    (0..2).for_each(|number| node.engine.kill(number));
    let mut publisher = node.publisher();
    publisher.send(Publish::new("t", "1").qos(1, 1));
    node.wait_for_log("the stream of this node's log confirms nothing");
    assert_eq!(publisher.receive_within(Duration::from_millis(100)), None);
    (0..2).for_each(|number| node.engine.boot(number));
    let answer = publisher.receive_within(PATIENCE);
    assert_eq!(answer, Some(Packet::Ack(Ack::puback(1))));
    publisher.disconnect();
    node.wait_for_log("confirms pages again");
    node.kill();
    node.more = "degrade = \"disk\"\n";
    node.boot();
    (0..2).for_each(|number| node.engine.kill(number));
    let mut publisher = node.publisher();
    publish_patiently(&mut publisher, 2..=20);
    assert!(node.broker.log().contains("on this node's disk alone"));
    (0..2).for_each(|number| node.engine.boot(number));
    node.wait_for_log("confirms pages again");
    assert_all(&node.messages(20), 1..=20);
}
