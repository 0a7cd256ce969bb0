//! Nodes that are cut off: machines, as network namespaces, whose links go down, and directions that a proxy cuts.

mod machines;
mod proxy;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::machines::{Machines, is_inside};
use self::proxy::{Direction, Proxy};
use crate::engine::Engine;
use crate::support::{Ack, Broker, Client, Connect, Packet, Publish};
use crate::witness::Witness;
use crate::{PATIENCE, alone, engine};

/// The node that is cut off.
const CUT: usize = 2;

/// Waits until something holds, longer than nodes need to agree on a member that has left.
#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + 2 * PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn count(broker: &Broker, text: &str) -> usize {
    broker.log().matches(text).count()
}

/// Publishes at QoS 1 and 2 in turn, and waits for each acknowledgement for as long as a node may be waited for.
fn publish_all(client: &mut Client, topic: &str, range: std::ops::Range<u16>) {
    for number in range {
        let qos = 1 + (number % 2) as u8;
        client.send(Publish::new(topic, number.to_string()).qos(qos, number));
        let mut ends = Instant::now() + 2 * PATIENCE;
        loop {
            assert!(Instant::now() < ends, "{topic} {number} is not acknowledged");
            match client.receive_within(Duration::from_secs(1)) {
                Some(Packet::Ack(ack)) if ack.kind == 5 => client.send(Ack::pubrel(number)),
                Some(Packet::Ack(ack)) if ack.kind == 4 || ack.kind == 7 => break,
                Some(other) => panic!("unexpected {other:?}"),
                None => {}
            }
            ends = ends.max(Instant::now());
        }
    }
}

fn texts(range: std::ops::Range<u16>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// The retained messages of a node.
fn retained(broker: &Broker) -> BTreeMap<String, String> {
    let mut reader = Witness::of(broker, Connect::v5("reader"), "r/#");
    let mut found = BTreeMap::new();
    while let Some(message) = reader.within(Duration::from_millis(500)) {
        found.insert(message.topic.clone(), message.text().to_owned());
    }
    found
}

/// What holds while the last of three nodes is cut off and when it is back.
fn check(brokers: &[Broker], cut: impl Fn(bool)) {
    let mut witness = Witness::of(&brokers[0], Connect::v5("witness"), "all");
    let _at_cut = Witness::of(&brokers[CUT], Connect::v5("witness of the cut node"), "all");
    let mut own = Witness::of(&brokers[CUT], Connect::v5("own witness"), "own");
    let mut publisher = Client::connect(&brokers[1], Connect::v5("publisher"));
    publish_all(&mut publisher, "all", 1..51);
    publisher.publish(Publish::new("r/both", "before").retain().qos(1, 1));
    let (left, out) = (count(&brokers[0], "a node has left"), "taken this one out");
    let taken_out = count(&brokers[CUT], out);

    cut(true);
    // The node that is cut off serves its own clients.
    let mut own_publisher = Client::connect(&brokers[CUT], Connect::v5("own publisher"));
    publish_all(&mut own_publisher, "own", 1..11);
    assert_eq!(own.texts(10), texts(1..11));
    own_publisher.publish(Publish::new("r/cut", "from the cut node").retain());
    own_publisher.publish(Publish::new("r/both", "from the cut node").retain());
    // The others are held until they have taken it out, and go on; nothing is lost or out of order.
    publish_all(&mut publisher, "all", 51..101);
    assert_eq!(witness.texts(100), texts(1..101));
    wait_until("the others take the node out", || count(&brokers[0], "a node has left") > left);
    publisher.publish(Publish::new("r/rest", "from the rest").retain().qos(1, 1));
    publisher.publish(Publish::new("r/both", "from the rest").retain().qos(1, 2));

    let joined = count(&brokers[0], "a node has joined");
    cut(false);
    wait_until("the node notices that it was taken out", || count(&brokers[CUT], out) > taken_out);
    wait_until("it joins again", || count(&brokers[0], "a node has joined") > joined);
    let all =
        [("r/both", "from the rest"), ("r/cut", "from the cut node"), ("r/rest", "from the rest")];
    let all = all.map(|(topic, text)| (topic.to_owned(), text.to_owned())).into();
    for (number, broker) in brokers.iter().enumerate() {
        let mut last = BTreeMap::new();
        let until = Instant::now() + PATIENCE;
        while last != all {
            assert!(Instant::now() < until, "retained at node {number}: {last:?}");
            last = retained(broker);
        }
    }
    // Messages cross again, in both directions.
    let mut back = Witness::of(&brokers[CUT], Connect::v5("witness of the cut node"), "all");
    publish_all(&mut publisher, "all", 101..121);
    assert_eq!(back.texts(20), texts(101..121));
    let mut own_publisher = Client::connect(&brokers[CUT], Connect::v5("own publisher"));
    publish_all(&mut own_publisher, "all", 121..141);
    assert_eq!(witness.texts(40), texts(101..141));
    assert_eq!(back.texts(20), texts(121..141));
}

#[test]
fn a_machine_whose_links_are_cut_serves_its_own_clients_and_joins_again_when_they_are_back() {
    let _alone = alone();
    let Some(program) = engine::program() else { return };
    if !is_inside(
        "partitions::a_machine_whose_links_are_cut_serves_its_own_clients_and_joins_again_when_they_are_back",
    ) {
        return;
    }
    let machines = Machines::start(&program);
    for (number, broker) in machines.brokers.iter().enumerate() {
        wait_until(&format!("machine {number} hears the others"), || {
            count(broker, "cluster: a node has joined") >= 2
        });
    }
    check(&machines.brokers, |is_cut| {
        machines.set_links(CUT, if is_cut { "down" } else { "up" });
    });
}

/// Cuts one direction between a node and its engine server.
fn check_one_way(name: &str, direction: Direction) {
    let _alone = alone();
    let Some(engine) = Engine::start(name) else { return };
    let proxy = Proxy::to(engine.ports[CUT]);
    let start = |number: usize| {
        let port = if number == CUT { proxy.port } else { engine.ports[number] };
        Broker::with_config(&format!(
            "mode = \"auto\"\ncores = 1\n[storage]\ndata = \"none\"\n[cluster]\nname = \"test\"\nnode = {number}\n\
             engine = [\"nats://127.0.0.1:{port}\"]\nuser = \"u\"\npassword = \"p\"\n"
        ))
    };
    let brokers: Vec<Broker> = (0..3).map(start).collect();
    for broker in &brokers {
        wait_until("nodes join", || count(broker, "cluster: a node has joined") >= 2);
    }
    check(&brokers, |is_cut| proxy.set_cut(direction, is_cut));
}

#[test]
fn a_node_that_hears_and_cannot_be_heard_is_taken_out_and_joins_again() {
    check_one_way("unheard", Direction::Out);
}

#[test]
fn a_node_that_is_heard_and_hears_nothing_is_taken_out_and_joins_again() {
    check_one_way("deaf", Direction::In);
}
