//! Brokers that serve as one: clients at different nodes.

mod claims;
#[cfg(feature = "admin")]
mod drain;

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::support::{Broker, Client, Connect, Packet, Publish, Will};
use crate::witness::Witness;
use crate::{PATIENCE, alone};

/// Executors and numbers of cores of the nodes.
const SETUPS: [&str; 3] =
    ["mode = \"auto\"\ncores = 2", "mode = \"poll\"\ncores = 1", "mode = \"auto\"\ncores = 3"];

/// Three brokers on three engine servers, which all know each other.
pub struct Nodes {
    pub brokers: Vec<Broker>,
    pub engine: Engine,
}

impl Nodes {
    /// None, with a notice, if there is no engine here.
    fn start(name: &str) -> Option<Self> {
        Self::start_with(name, |_| String::new())
    }

    /// With more tables in each configuration, by number.
    fn start_with(name: &str, more: impl Fn(usize) -> String) -> Option<Self> {
        let memory = |_: &Engine, number| format!("[storage]\ndata = \"none\"\n{}", more(number));
        Self::start_each(name, memory)
    }

    /// With more tables in each configuration, and the address of each node for clients; emptied before they stop.
    #[cfg(feature = "admin")]
    fn start_advertised(
        name: &str,
        more: impl Fn(usize) -> String,
        addresses: &[String],
    ) -> Option<Self> {
        Self::start_each(name, |engine, number| {
            let (folder, more) = (engine.folder.path(&format!("store{number}")), more(number));
            let address = &addresses[number];
            let own = format!("advertise = \"{address}\"\ndrain_on_stop_s = 60");
            format!("[storage]\ndata = {folder:?}\n{more}\n[cluster]\n{own}")
        })
    }

    /// With a store each, in the folder of the engine.
    pub fn start_stored(name: &str) -> Option<Self> {
        Self::start_each(name, |engine, number| {
            let folder = engine.folder.path(&format!("store{number}"));
            format!("[storage]\ndata = {folder:?}\n")
        })
    }

    fn start_each(name: &str, more: impl Fn(&Engine, usize) -> String) -> Option<Self> {
        let engine = Engine::start(name)?;
        let brokers = SETUPS.iter().enumerate();
        let brokers: Vec<Broker> = brokers
            .map(|(number, setup)| {
                let name = format!("node{number}");
                let section = engine.settings(&name);
                let more = more(&engine, number);
                let table = if more.contains("[cluster]") { "" } else { "[cluster]" };
                Broker::with_config(&format!("{setup}\n{more}\n{table}\n{section}"))
            })
            .collect();
        for broker in &brokers {
            broker.await_log("cluster: a node has joined", 2);
        }
        Some(Self { brokers, engine })
    }

    /// A subscriber at a node. From SUBACK on, it gets what is published at any node.
    fn witness(&self, node: usize, filter: &str) -> Witness {
        let connect = Connect::v5(&format!("witness of {filter} at {node}"));
        Witness::of(&self.brokers[node], connect, filter)
    }

    fn client(&self, node: usize, name: &str) -> Client {
        Client::connect(&self.brokers[node], Connect::v5(name))
    }
}

/// Publishes numbers from `range` on, at all qualities of service in turn.
fn publish_all(client: &mut Client, topic: &str, range: std::ops::Range<u16>) {
    for number in range {
        let publish = Publish::new(topic, number.to_string());
        client.publish(match number % 3 {
            0 => publish,
            qos => publish.qos(qos as u8, number),
        });
    }
}

/// The payloads by quality of service: order holds among those of one.
fn by_qos(messages: &[Publish]) -> [Vec<u16>; 3] {
    let mut all: [Vec<u16>; 3] = Default::default();
    for message in messages {
        let number = message.text().parse().expect("a number");
        all[usize::from(number % 3)].push(number);
    }
    all
}

fn expected(range: std::ops::Range<u16>) -> [Vec<u16>; 3] {
    [0, 1, 2].map(|qos| range.clone().filter(|number| number % 3 == qos).collect())
}

#[test]
fn what_is_published_at_one_node_reaches_subscribers_at_all_once_and_in_order() {
    let _alone = alone();
    let Some(nodes) = Nodes::start("passing") else { return };
    let mut witnesses: Vec<Witness> = ["t", "t/#", "+"]
        .iter()
        .enumerate()
        .map(|(node, filter)| nodes.witness(node, filter))
        .collect();
    for node in 0..3 {
        let mut publisher = nodes.client(node, "publisher");
        publish_all(&mut publisher, "t", 1..301);
        for witness in &mut witnesses {
            let got: Vec<Publish> = (1..301).map(|_| witness.next()).collect();
            assert_eq!(by_qos(&got), expected(1..301), "published at node {node}");
        }
    }
}

#[test]
fn members_of_a_shared_subscription_at_several_nodes_share_the_messages() {
    let _alone = alone();
    let Some(nodes) = Nodes::start("sharing") else { return };
    let mut members: Vec<Witness> =
        (0..3).map(|node| nodes.witness(node, "$share/workers/t")).collect();
    let mut publisher = nodes.client(0, "publisher");
    publish_all(&mut publisher, "t", 1..301);
    let mut all = Vec::new();
    let until = Instant::now() + PATIENCE;
    let mut counts = [0; 3];
    while all.len() < 300 && Instant::now() < until {
        for (count, member) in counts.iter_mut().zip(&mut members) {
            while let Some(message) = member.within(Duration::from_millis(20)) {
                *count += 1;
                all.push(message.text().parse::<u16>().expect("a number"));
            }
        }
    }
    all.sort_unstable();
    assert_eq!(all, (1..301).collect::<Vec<u16>>());
    assert!(counts.iter().all(|&count| count > 50), "by members: {counts:?}");
}

#[test]
fn retained_messages_and_wills_of_a_node_are_there_on_all() {
    let _alone = alone();
    let Some(nodes) = Nodes::start("retained") else { return };
    let mut publisher = nodes.client(0, "publisher");
    publisher.publish(Publish::new("kept", "here").retain().qos(1, 1));
    // The acknowledgement says that all nodes have it.
    assert_eq!(nodes.witness(2, "kept").next().text(), "here");
    publisher.publish(Publish::new("kept", "").retain().qos(1, 2));
    let mut late = nodes.witness(1, "kept");
    assert!(late.within(Duration::from_millis(200)).is_none());
    let mut witness = nodes.witness(2, "wills");
    let dying = Connect::v5("dying").will(Will::new("wills", "gone").qos(1));
    Client::connect(&nodes.brokers[1], dying).vanish();
    assert_eq!(witness.next().text(), "gone");
}

#[test]
fn an_engine_server_that_is_killed_loses_no_message() {
    let _alone = alone();
    let Some(mut nodes) = Nodes::start("server") else { return };
    let mut witness = nodes.witness(2, "t");
    let mut publisher = nodes.client(0, "publisher");
    let mut begin = 1;
    for server in [0, 1, 2, 0] {
        publish_all(&mut publisher, "t", begin..begin + 99);
        nodes.engine.kill(server);
        publish_all(&mut publisher, "t", begin + 99..begin + 198);
        nodes.engine.boot(server);
        begin += 198;
    }
    let got: Vec<Publish> = (1..begin).map(|_| witness.next()).collect();
    assert_eq!(by_qos(&got), expected(1..begin));
}

#[test]
fn publishers_go_on_when_a_node_with_subscribers_dies() {
    let _alone = alone();
    let Some(mut nodes) = Nodes::start("death") else { return };
    let _dying = nodes.witness(2, "t");
    let mut living = nodes.witness(1, "t");
    let dead = nodes.brokers.pop().expect("three");
    dead.signal("-KILL");
    let mut publisher = nodes.client(0, "publisher");
    publisher.send(Publish::new("t", "1").qos(1, 1));
    assert_eq!(living.next().text(), "1");
    // The acknowledgement waits until the others have taken the node out.
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "the dead node is waited for");
        match publisher.receive_within(Duration::from_secs(1)) {
            Some(Packet::Ack(ack)) => break assert_eq!((ack.kind, ack.packet_identifier), (4, 1)),
            Some(other) => panic!("unexpected {other:?}"),
            None => {}
        }
    }
    publisher.publish(Publish::new("t", "2").qos(1, 2));
    assert_eq!(living.next().text(), "2");
}

#[cfg(feature = "admin")]
pub mod operators {
    use std::path::PathBuf;
    use std::process::Command;

    use serde_json::Value;

    use super::*;

    pub fn socket(node: usize) -> PathBuf {
        std::env::temp_dir().join(format!("ringmq-cluster-{}-{node}.sock", std::process::id()))
    }

    /// What a command of `broker` prints of a node, if it succeeds.
    pub fn told(node: usize, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(arguments).args(["--at", &format!("unix:{}", socket(node).display())]);
        let output = command.output().expect("it runs");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
    }

    pub fn status(node: usize) -> Option<Value> {
        serde_json::from_str(&told(node, &["cluster", "status", "--json"])?).ok()
    }

    pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[test]
    fn operators_see_the_members_whether_a_node_is_ready_and_what_crosses() {
        let _alone = alone();
        let admin = |node| format!("[admin]\nlisten = [\"unix:{}\"]", socket(node).display());
        let Some(nodes) = Nodes::start_with("operators", admin) else { return };
        for node in 0..3 {
            let is_ready = || status(node).is_some_and(|status| status["ready"] == true);
            wait_until("all nodes are ready", is_ready);
        }
        let shown = status(1).expect("an answer");
        let members = shown["members"].as_array().expect("a list");
        let mut names: Vec<&str> = members.iter().filter_map(|of| of["name"].as_str()).collect();
        // By number, in the order in which they have joined.
        names.sort_unstable();
        assert_eq!(names, ["node0", "node1", "node2"]);
        let own: Vec<bool> = members.iter().map(|of| of["own"] == true).collect();
        assert_eq!(own.iter().filter(|own| **own).count(), 1, "{shown}");
        assert!(
            told(1, &["cluster", "status", "--members"]).is_some_and(|of| of.contains("node2"))
        );
        assert!(told(1, &["ctl", "health"]).is_some(), "load balancers may send clients");
        let mut witness = nodes.witness(1, "t");
        nodes.client(0, "publisher").publish(Publish::new("t", "x").qos(1, 1));
        assert_eq!(witness.next().text(), "x");
        let has_crossed = |node: usize, key: &str| {
            status(node).is_some_and(|of| of[key].as_u64().is_some_and(|count| count > 0))
        };
        wait_until("the message is counted where it was published", || has_crossed(0, "sent"));
        wait_until("the message is counted where it arrived", || has_crossed(1, "received"));
        let metrics = told(0, &["ctl", "api", "GET", "/metrics"]).expect("an answer");
        for line in
            ["ringmq_cluster_members 3", "ringmq_cluster_ready 1", "silent_seconds{node=\"node"]
        {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
        let mut topics = nodes.witness(2, "$SYS/broker/cluster/state");
        let state: Value = serde_json::from_str(topics.next().text()).expect("JSON");
        assert_eq!(state["cluster"], shown["cluster"]);
        drop(nodes);
        (0..3).for_each(|node| drop(std::fs::remove_file(socket(node))));
    }

    #[test]
    fn a_broker_without_a_cluster_says_so() {
        let path = socket(9);
        let _broker = Broker::with_config(&format!(
            "[storage]\ndata = \"none\"\n[admin]\nlisten = [\"unix:{}\"]\n",
            path.display()
        ));
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["cluster", "status", "--at", &format!("unix:{}", path.display())]);
        let output = command.output().expect("it runs");
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("no node of a cluster"), "{error}");
        drop(std::fs::remove_file(path));
    }
}
