//! Listeners with a mount point, over sockets: on every executor, with one core and several, and over a restart.
#![cfg(feature = "store")]

#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "conformance/support/mod.rs"]
mod support;

#[path = "support/folder.rs"]
mod folder;

use std::net::SocketAddr;

use folder::Folder;
use support::reason;
use support::{Broker, Client, Connect, Packet, Publish, SILENCE, Unsubscribe, Version, Will};

/// Executors and numbers of cores.
const SETUPS: &[(&str, u16)] = &[
    ("mode = \"auto\"", 1),
    ("mode = \"auto\"", 3),
    ("mode = \"poll\"", 1),
    ("mode = \"poll\"", 3),
];

/// A broker with a listener without a mount point, and two with one.
struct Mounted {
    broker: Broker,
    site7: SocketAddr,
    site8: SocketAddr,
}

impl Mounted {
    fn start((mode, cores): (&str, u16), more: &str) -> Self {
        let listener = |mount_point: &str| {
            format!("[[listeners]]\nbind = \"127.0.0.1:0\"\nmount_point = \"{mount_point}\"\n")
        };
        let text = format!(
            "{mode}\ncores = {cores}\n{more}\n{}{}",
            listener("site7/"),
            listener("site8/")
        );
        let broker = Broker::with_config(&text);
        broker.await_log("\"listening\"", 3);
        let log = broker.log();
        let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let addresses: Vec<SocketAddr> = events
            .filter(|event: &serde_json::Value| event["message"] == "listening")
            .filter_map(|event| event["address"].as_str()?.parse().ok())
            .collect();
        assert_eq!(addresses.len(), 3, "{log}");
        Self { broker, site7: addresses[1], site8: addresses[2] }
    }

    fn full(&self, connect: Connect) -> Client {
        Client::connect(&self.broker, connect)
    }

    fn at(&self, address: SocketAddr, connect: Connect) -> Client {
        let mut client = Client::open_at(&self.broker, address, connect.version);
        client.send(&connect);
        client.connack = client.expect_connack();
        assert_eq!(client.connack.reason, 0, "{:?}", client.connack);
        client
    }

    fn site7(&self, connect: Connect) -> Client {
        self.at(self.site7, connect)
    }
}

/// Client Identifiers whose home is on one core or another.
fn names(of: &str) -> Vec<String> {
    (0..6).map(|number| format!("{of}-{number}")).collect()
}

fn expect(client: &mut Client, topic: &str, payload: &str) {
    let message = client.expect_message(payload);
    assert_eq!(message.topic, topic);
    client.acknowledge(&message);
}

#[test]
fn clients_of_a_mount_point_are_among_themselves_on_every_executor() {
    for &setup in SETUPS {
        let broker = Mounted::start(setup, "[storage]\ndata = \"none\"");
        for version in [Version::V311, Version::V5] {
            let connect = |name: &str| Connect::new(version, name);
            let mut full = broker.full(connect("full"));
            full.subscribe("#", 1);
            let mut others = broker.at(broker.site8, connect("others"));
            others.subscribe("#", 1);
            let mut subscribers: Vec<Client> =
                names("subscriber").iter().map(|name| broker.site7(connect(name))).collect();
            subscribers.iter_mut().for_each(|subscriber| subscriber.subscribe("t/+", 1));
            for (qos, name) in (0..=2).zip(names("publisher")) {
                let payload = format!("{name} {qos}");
                let mut publisher = broker.site7(connect(&name));
                let message = Publish::new("t/1", &payload);
                publisher.publish(if qos > 0 { message.qos(qos, 7) } else { message });
                expect(&mut full, "site7/t/1", &payload);
                for subscriber in &mut subscribers {
                    expect(subscriber, "t/1", &payload);
                }
                publisher.disconnect();
            }
            full.publish(Publish::new("site8/end", "end").qos(1, 9));
            expect(&mut others, "end", "end");
            subscribers[0].send(Unsubscribe::new(5, "t/+"));
            let _unsuback = subscribers[0].receive();
            full.publish(Publish::new("site7/t/2", "later").qos(1, 9));
            expect(&mut subscribers[1], "t/2", "later");
            subscribers[0].expect_alive();
        }
    }
}

#[test]
fn a_will_of_a_mount_point_is_published_below_it_on_every_executor() {
    for &setup in SETUPS {
        let broker = Mounted::start(setup, "[storage]\ndata = \"none\"");
        let mut full = broker.full(Connect::v5("full"));
        full.subscribe("#", 1);
        for name in names("with a Will") {
            let connect = Connect::v5(&name).will(Will::new("gone", &name).qos(1));
            broker.site7(connect).vanish();
            expect(&mut full, "site7/gone", &name);
        }
    }
}

#[test]
fn a_shared_subscription_of_a_mount_point_has_members_on_all_cores() {
    for &setup in SETUPS {
        let broker = Mounted::start(setup, "[storage]\ndata = \"none\"");
        let mut members: Vec<Client> =
            names("member").iter().map(|name| broker.site7(Connect::v5(name))).collect();
        members.iter_mut().for_each(|member| member.subscribe("$share/g/t", 1));
        // Of another group, although its name and its filter are the same for its client.
        let mut other = broker.at(broker.site8, Connect::v5("other"));
        other.subscribe("$share/g/t", 1);
        let mut publisher = broker.site7(Connect::v5("publisher"));
        for number in 1..=60 {
            publisher.publish(Publish::new("t", format!("{number}")).qos(1, number));
        }
        let mut seen = Vec::new();
        while seen.len() < 60 {
            for member in &mut members {
                while let Some(packet) = member.receive_within(SILENCE) {
                    let Packet::Publish(message) = packet else { panic!("{packet:?}") };
                    assert_eq!(message.topic, "t");
                    member.acknowledge(&message);
                    seen.push(message.text().to_owned());
                }
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 60, "each message went to one member");
        other.expect_alive();
    }
}

#[test]
fn sessions_retained_messages_and_queues_of_a_mount_point_survive_a_restart() {
    for &setup in SETUPS {
        let folder = Folder::new("mount-points");
        let storage = format!("[storage]\ndata = {:?}", folder.0);
        let mut broker = Mounted::start(setup, &storage);
        let kept = |name: &str| Connect::v5(name).resume().expiry(3_600);
        for name in names("kept") {
            let mut client = broker.site7(kept(&name));
            client.subscribe("t/#", 1);
            client.disconnect();
        }
        let mut publisher = broker.site7(Connect::v5("publisher"));
        publisher.publish(Publish::new("t/1", "queued").qos(1, 1));
        publisher.publish(Publish::new("state", "retained").qos(1, 2).retain());
        broker.broker.stop();
        broker.broker.await_end();
        drop(publisher);
        let broker = Mounted::start(setup, &storage);
        let mut publisher = broker.site7(Connect::v5("publisher"));
        publisher.publish(Publish::new("t/2", "after").qos(1, 1));
        for name in names("kept") {
            let mut client = broker.site7(kept(&name));
            assert!(client.connack.session_present);
            expect(&mut client, "t/1", "queued");
            expect(&mut client, "t/2", "after");
        }
        publisher.subscribe("#", 1);
        expect(&mut publisher, "state", "retained");
        let mut full = broker.full(Connect::v5("full"));
        full.subscribe("site7/state", 1);
        expect(&mut full, "site7/state", "retained");
    }
}

#[test]
fn rules_see_the_full_topics_of_a_mount_point() {
    let folder = Folder::new("mount-point-rules");
    let rules = folder.path("rules");
    std::fs::write(
        &rules,
        "pattern readwrite site7/%c/#\ntopic readwrite site7/open\ntopic readwrite +/all\n",
    )
    .expect("written");
    for &setup in SETUPS {
        let access = format!(
            "[storage]\ndata = \"none\"\n[access]\nanonymous = true\nacl_file = {rules:?}\nacl_format = \"mosquitto\""
        );
        let broker = Mounted::start(setup, &access);
        let mut own = broker.site7(Connect::v5("me"));
        own.subscribe("#", 1);
        let mut publisher = broker.site7(Connect::v5("you"));
        for (topic, is_allowed) in [
            ("me/x", false),
            ("open", true),
            ("site7/open", false),
            ("you/x", true), // but not to be read by the other client
            ("all", true),
        ] {
            publisher.send(Publish::new(topic, topic).qos(1, 1));
            let reason = publisher.expect_ack().reason;
            assert_eq!(reason == reason::NOT_AUTHORIZED, !is_allowed, "{topic}: {reason}");
        }
        for topic in ["open", "all"] {
            expect(&mut own, topic, topic);
        }
        own.expect_alive();
    }
}
