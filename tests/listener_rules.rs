//! Listeners with access rules of their own, over sockets: on every executor, with one core and several, over reloads and
//! restarts.

#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "conformance/support/mod.rs"]
mod support;

#[path = "support/folder.rs"]
mod folder;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use folder::Folder;
use support::reason;
use support::{Broker, Client, Connect, Publish, Will};

/// Executors and numbers of cores.
const SETUPS: &[(&str, u16)] = &[
    ("mode = \"auto\"", 1),
    ("mode = \"auto\"", 3),
    ("mode = \"poll\"", 1),
    ("mode = \"poll\"", 3),
];

/// The line that says that access rules have been read again.
const RELOADED: &str = "\"reloaded\",\"what\":\"access\"";

const OPEN: &str = "topic readwrite open/#\n";

/// What all configurations have.
const ACCESS: &str = "[access]\nanonymous = true\nacl_format = \"mosquitto\"\n";

/// A listener with these rules, or without rules of its own.
fn listener(address: &str, rules: Option<&str>) -> String {
    let rules = rules.map_or(String::new(), |file| format!("acl_file = {file:?}\n"));
    format!("[[listeners]]\nbind = \"{address}:0\"\n{rules}")
}

/// A broker with a listener without rules of its own, and others, in the order of their configuration.
struct Several {
    broker: Broker,
    addresses: Vec<SocketAddr>,
    /// Configuration before the listeners.
    start: String,
}

impl Several {
    fn start((mode, cores): (&str, u16), more: &str, listeners: &[String]) -> Self {
        let start = format!("{mode}\ncores = {cores}\n{more}\n{ACCESS}");
        let broker = Broker::with_config(&format!("{start}{}", listeners.concat()));
        broker.await_log("\"listening\"", 1 + listeners.len());
        let log = broker.log();
        let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let addresses = events
            .filter(|event: &serde_json::Value| event["message"] == "listening")
            .filter_map(|event| event["address"].as_str()?.parse().ok());
        let addresses = addresses.collect();
        Self { broker, addresses, start }
    }

    /// Connects through a listener; 0 is the one without rules of its own.
    fn connect(&self, listener: usize, connect: Connect) -> Client {
        let mut client = Client::open_at(&self.broker, self.addresses[listener], connect.version);
        client.send(&connect);
        client.connack = client.expect_connack();
        assert_eq!(client.connack.reason, 0, "{:?}", client.connack);
        client
    }

    /// Has files and configuration read again, with these listeners.
    fn reload(&self, listeners: &[String]) {
        let before = self.broker.log().matches(RELOADED).count();
        self.broker.reconfigure(&format!("{}{}", self.start, listeners.concat()));
        self.broker.await_log(RELOADED, before + 1);
    }

    fn stop(mut self) {
        self.broker.stop();
        self.broker.await_end();
    }
}

/// Client Identifiers whose home is on one core or another.
fn names(of: &str) -> Vec<String> {
    (0..6).map(|number| format!("{of}-{number}")).collect()
}

fn expect(client: &mut Client, topic: &str) {
    let message = client.expect_publish();
    assert_eq!(message.topic, topic);
    client.acknowledge(&message);
}

/// Publishes at QoS 1; whether the client was allowed to.
#[track_caller]
fn may_publish(client: &mut Client, topic: &str) -> bool {
    client.send(Publish::new(topic, topic).qos(1, 1));
    match client.expect_ack().reason {
        reason::NOT_AUTHORIZED => false,
        reason if reason < 0x80 => true,
        other => panic!("{topic}: {other:#x}"),
    }
}

/// Repeats something until it is so: a check of all clients follows a reload.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < give_up, "it never is");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a subscriber to everything receives what other rules than [`OPEN`] may allow.
fn receives_other(publisher: &mut Client, subscriber: &mut Client) -> bool {
    assert!(may_publish(publisher, "other/probe") && may_publish(publisher, "open/probe"));
    let first = subscriber.expect_publish();
    subscriber.acknowledge(&first);
    let receives = first.topic == "other/probe";
    if receives {
        expect(subscriber, "open/probe");
    }
    receives
}

#[test]
fn each_listener_has_its_own_rules_and_the_others_have_those_of_the_broker() {
    let folder = Folder::new("own");
    let (open, other) =
        (folder.write("open", OPEN), folder.write("other", "topic readwrite other/#\n"));
    let (all, none) = (folder.write("all", "topic readwrite #\n"), folder.write("none", ""));
    for &setup in SETUPS {
        let listeners = [listener("127.0.0.2", Some(&open)), listener("127.0.0.3", Some(&other))];
        let general = [listener("127.0.0.2", Some(&open)), listener("127.0.0.3", Some(&none))];
        let broker = Several::start(setup, "[storage]\ndata = \"none\"", &listeners);
        let mut subscribers: Vec<(usize, Client)> = Vec::new();
        for of in 0..3 {
            for name in names(&format!("subscriber-{of}")) {
                let mut client = broker.connect(of, Connect::v5(&name));
                client.subscribe("#", 1);
                subscribers.push((of, client));
            }
        }
        let topics = ["open/a", "other/a", "third/a"];
        for of in 0..3 {
            let mut publisher = broker.connect(of, Connect::v5("publisher"));
            for (number, topic) in topics.iter().enumerate() {
                let is_allowed = of == 0 || of == number + 1;
                assert_eq!(may_publish(&mut publisher, topic), is_allowed, "{of}: {topic}");
                for (by, subscriber) in &mut subscribers {
                    if is_allowed && (*by == 0 || *by == number + 1) {
                        expect(subscriber, topic);
                    }
                }
            }
        }
        subscribers.iter_mut().for_each(|(_, subscriber)| subscriber.expect_alive());
        drop(broker);
        // Rules of the broker do not add to those of a listener.
        let more = format!("[storage]\ndata = \"none\"\n{ACCESS}acl_file = {all:?}");
        let start = format!("{}\ncores = {}\n{more}\n", setup.0, setup.1);
        let own = Broker::with_config(&format!("{start}{}", general.concat()));
        let mut client = Client::connect(&own, Connect::v5("general"));
        assert!(may_publish(&mut client, "third/a"));
    }
}

#[test]
fn what_waits_for_a_client_that_is_away_is_filtered_by_the_rules_of_its_listener() {
    let folder = Folder::new("away");
    let open = folder.write("open", OPEN);
    for &setup in SETUPS {
        let listeners = [listener("127.0.0.2", Some(&open))];
        let broker = Several::start(setup, "[storage]\ndata = \"none\"", &listeners);
        let kept = |name: &str| Connect::v5(name).resume().expiry(3_600);
        for of in 0..2 {
            for name in names(&format!("kept-{of}")) {
                let mut client = broker.connect(of, kept(&name));
                client.subscribe("#", 1);
                client.disconnect();
            }
        }
        let mut publisher = broker.connect(0, Connect::v5("publisher"));
        for topic in ["open/1", "other/1", "open/2", "other/2"] {
            assert!(may_publish(&mut publisher, topic));
        }
        for of in 0..2 {
            for name in names(&format!("kept-{of}")) {
                let mut client = broker.connect(of, kept(&name));
                assert!(client.connack.session_present);
                for topic in ["open/1", "other/1", "open/2", "other/2"] {
                    if of == 0 || topic.starts_with("open") {
                        expect(&mut client, topic);
                    }
                }
                client.expect_alive();
            }
        }
        // The rules of the listener that a client comes through count, also for what was queued before, and after it.
        let mut moved = broker.connect(0, kept("moved"));
        moved.subscribe("#", 1);
        moved.disconnect();
        for topic in ["other/3", "open/3"] {
            assert!(may_publish(&mut publisher, topic));
        }
        let mut moved = broker.connect(1, kept("moved"));
        expect(&mut moved, "open/3");
        for topic in ["other/4", "open/4"] {
            assert!(may_publish(&mut publisher, topic));
        }
        expect(&mut moved, "open/4");
        moved.disconnect();
        for topic in ["other/5", "open/5"] {
            assert!(may_publish(&mut publisher, topic));
        }
        let mut moved = broker.connect(0, kept("moved"));
        expect(&mut moved, "open/5");
        for topic in ["other/6", "open/6"] {
            assert!(may_publish(&mut publisher, topic));
        }
        expect(&mut moved, "other/6");
        expect(&mut moved, "open/6");
    }
}

#[test]
fn retained_messages_are_filtered_by_the_rules_of_the_listener() {
    let folder = Folder::new("retained");
    let open = folder.write("open", OPEN);
    for &setup in SETUPS {
        let listeners = [listener("127.0.0.2", Some(&open))];
        let broker = Several::start(setup, "[storage]\ndata = \"none\"", &listeners);
        let mut publisher = broker.connect(0, Connect::v5("publisher"));
        for topic in ["open/1", "other/1"] {
            publisher.publish(Publish::new(topic, topic).qos(1, 1).retain());
        }
        for name in names("reader") {
            let mut reader = broker.connect(1, Connect::v5(&name));
            reader.subscribe("+/1", 1);
            expect(&mut reader, "open/1");
            reader.expect_alive();
        }
        let mut reader = broker.connect(0, Connect::v5("general"));
        reader.subscribe("+/1", 1);
        let mut seen = [reader.expect_publish().topic, reader.expect_publish().topic];
        seen.sort_unstable();
        assert_eq!(seen, ["open/1", "other/1"]);
    }
}

#[test]
fn the_rules_of_its_listener_decide_about_a_will_at_once_later_and_after_a_restart() {
    let folder = Folder::new("wills");
    let open = folder.write("open", OPEN);
    for &setup in SETUPS {
        let data = Folder::new("wills-store");
        let storage = format!("[storage]\nwill_grace_s = 1\ndata = {:?}", data.0);
        let listeners = [listener("127.0.0.2", Some(&open))];
        let broker = Several::start(setup, &storage, &listeners);
        let mut watcher = broker.connect(0, Connect::v5("watcher"));
        watcher.subscribe("#", 1);
        let with_will = |topic: &str, will: Will| {
            broker.connect(1, Connect::v5(topic).expiry(3_600).will(will))
        };
        for (delay_s, name) in [(0, "now"), (1, "later")] {
            for part in ["other", "open"] {
                let topic = format!("{part}/{name}");
                let will = Will::new(&topic, "gone").qos(1);
                let will = if delay_s > 0 { will.delay(delay_s) } else { will };
                with_will(&topic, will).vanish();
            }
            expect(&mut watcher, &format!("open/{name}"));
        }
        // One that waits for its delay over the restart, and one of a client that is connected.
        for part in ["other", "open"] {
            let topic = format!("{part}/delayed");
            with_will(&topic, Will::new(&topic, "gone").qos(1).delay(2)).vanish();
        }
        let left: Vec<Client> = ["other/left", "open/left"]
            .map(|topic| with_will(topic, Will::new(topic, "gone").qos(1).retain()))
            .into();
        drop(watcher);
        broker.stop();
        drop(left);
        // The listener has another number.
        let listeners = [listener("127.0.0.3", None), listener("127.0.0.2", Some(&open))];
        let broker = Several::start(setup, &storage, &listeners);
        let mut watcher = broker.connect(0, Connect::v5("watcher").resume());
        watcher.subscribe("+/left", 1);
        expect(&mut watcher, "open/left");
        watcher.expect_alive();
        drop(watcher);
        broker.stop();
    }
}

#[test]
fn a_will_of_a_listener_that_is_not_there_after_a_restart_is_up_to_the_rules_of_the_broker() {
    let folder = Folder::new("gone");
    let open = folder.write("open", OPEN);
    for &setup in SETUPS {
        let data = Folder::new("gone-store");
        let storage = format!("[storage]\nwill_grace_s = 1\ndata = {:?}", data.0);
        let broker = Several::start(setup, &storage, &[listener("127.0.0.2", Some(&open))]);
        let will = Will::new("other/left", "gone").qos(1).retain();
        let left = broker.connect(1, Connect::v5("left").will(will));
        broker.stop();
        drop(left);
        let broker = Several::start(setup, &storage, &[]);
        let mut watcher = broker.connect(0, Connect::v5("watcher"));
        watcher.subscribe("+/left", 1);
        expect(&mut watcher, "other/left");
    }
}

#[test]
fn rules_of_a_listener_come_change_and_go_with_reloads() {
    let folder = Folder::new("reload");
    let (first, second) = ("127.0.0.2", "127.0.0.3");
    for &setup in SETUPS {
        let rules = folder.write("rules", OPEN);
        // Nobody has rules at first: there is no access control.
        let none = [listener(first, None), listener(second, None)];
        let broker = Several::start(setup, "[storage]\ndata = \"none\"", &none);
        let kept = |name: &str| Connect::v5(name).resume().expiry(3_600);
        let mut general = broker.connect(0, Connect::v5("general"));
        let mut publisher = broker.connect(2, Connect::v5("publisher"));
        let mut free = broker.connect(1, Connect::v5("free"));
        let mut bound = broker.connect(2, kept("bound"));
        free.subscribe("#", 1);
        bound.subscribe("#", 1);
        assert!(may_publish(&mut publisher, "other/0"));
        expect(&mut free, "other/0");
        expect(&mut bound, "other/0");

        let own = [listener(first, None), listener(second, Some(&rules))];
        broker.reload(&own);
        until(|| {
            let receives = receives_other(&mut general, &mut bound);
            expect(&mut free, "other/probe");
            expect(&mut free, "open/probe");
            !receives
        });
        assert!(!may_publish(&mut publisher, "other/1"));
        assert!(may_publish(&mut general, "other/2"));
        expect(&mut free, "other/2");
        bound.expect_alive();

        // The session of a client that is away stays filtered by what its listener says.
        bound.disconnect();
        assert!(may_publish(&mut general, "other/3") && may_publish(&mut general, "open/3"));
        let mut bound = broker.connect(2, kept("bound"));
        expect(&mut bound, "open/3");
        bound.expect_alive();

        // A file that changes, and one that cannot be used.
        folder.write("rules", "topic readwrite other/#\n");
        broker.reload(&own);
        until(|| may_publish(&mut publisher, "other/4"));
        assert!(!may_publish(&mut publisher, "open/4"));
        folder.write("rules", "topic everything #\n");
        broker.broker.signal("-HUP");
        broker.broker.await_log("rules:1:7: ", 1);
        assert!(!may_publish(&mut publisher, "open/4"), "the rules until now are in force");
        folder.write("rules", OPEN);
        broker.reload(&own);
        until(|| may_publish(&mut publisher, "open/5"));

        // Its clients keep the rules of a listener that is removed.
        broker.reload(&[listener(first, None)]);
        assert!(!may_publish(&mut publisher, "other/6"));
        assert!(may_publish(&mut publisher, "open/6"));
        // One that is there again has what its configuration says.
        broker.reload(&none);
        until(|| may_publish(&mut publisher, "other/7"));
    }
}

#[test]
fn rules_that_cover_whole_subscriptions_may_differ_between_listeners_too() {
    let folder = Folder::new("whole");
    let rules =
        folder.write("rules", "for everyone\n allow subscribe open/#\n allow publish open/#\n");
    for &(mode, cores) in SETUPS {
        let text = format!(
            "{mode}\ncores = {cores}\n[storage]\ndata = \"none\"\n[access]\nanonymous = true\n{}",
            listener("127.0.0.2", Some(&rules))
        );
        let broker = Broker::with_config(&text);
        broker.await_log("\"listening\"", 2);
        let log = broker.log();
        let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let address: Vec<SocketAddr> = events
            .filter(|event: &serde_json::Value| event["message"] == "listening")
            .filter_map(|event| event["address"].as_str()?.parse().ok())
            .collect();
        let mut bound = Client::open_at(&broker, address[1], support::V5);
        bound.send(Connect::v5("bound"));
        assert_eq!(bound.expect_connack().reason, 0);
        for (filter, reason) in [("#", reason::NOT_AUTHORIZED), ("open/#", 1)] {
            bound.send(support::Subscribe::new(1, filter, 1));
            assert_eq!(bound.expect_suback().reasons, [reason], "{filter}");
        }
        let mut free = Client::connect(&broker, Connect::v5("free"));
        free.subscribe("#", 1);
        let mut publisher = Client::open_at(&broker, address[1], support::V5);
        publisher.send(Connect::v5("publisher"));
        assert_eq!(publisher.expect_connack().reason, 0);
        assert!(!may_publish(&mut publisher, "other/1") && may_publish(&mut publisher, "open/1"));
        expect(&mut free, "open/1");
        expect(&mut bound, "open/1");
        // The Will is refused at CONNECT, where no subscription is filtered.
        let will = Will::new("other/gone", "gone");
        let mut refused = Client::open_at(&broker, address[1], support::V5);
        refused.send(Connect::v5("refused").will(will));
        refused.expect_refusal(reason::NOT_AUTHORIZED);
    }
}
