//! Databases of Mosquitto, imported: a broker that starts afterwards has their sessions, queues and retained messages.
#![cfg(feature = "store")]

#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "conformance/support/mod.rs"]
mod support;

#[path = "support/folder.rs"]
mod folder;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use folder::Folder;
use support::{Ack, Broker, Client, Connect, Packet, Property, Publish, SILENCE};

const FORMER: [&str; 4] = ["v1.4.15", "v1.5.5", "v1.5.11", "v1.6.9"];
const LATER: [&str; 4] = ["v2.0.11", "v2.0.22-i386", "v2.0.22-mips-big-endian", "v2.1.2"];

/// Times of day of the fixtures, in seconds since 1970: when they were written, and up to a few days later.
const WRITTEN_S: std::ops::Range<u64> = 1_795_000_000..1_797_000_000;
/// No fixture was written later.
const WRITTEN_LAST_S: u64 = 1_795_891_000;

impl Folder {
    /// A fixture as if it had just been written: all times are later by as much.
    fn database(&self, name: &str) -> PathBuf {
        let mut bytes = std::fs::read(fixture(&format!("{name}.db"))).expect("a fixture");
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let later_s = now_s - WRITTEN_LAST_S;
        let mut at = 0;
        while at + 8 <= bytes.len() {
            let field: &mut [u8; 8] = (&mut bytes[at..at + 8]).try_into().expect("eight bytes");
            let (little, big) = (u64::from_le_bytes(*field), u64::from_be_bytes(*field));
            at += if WRITTEN_S.contains(&little) {
                *field = (little + later_s).to_le_bytes();
                8
            } else if WRITTEN_S.contains(&big) {
                *field = (big + later_s).to_be_bytes();
                8
            } else {
                1
            };
        }
        let path = self.0.join(format!("{name}.db"));
        std::fs::write(&path, bytes).expect("written");
        path
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn import(&self, file: &Path, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["store", "--data"]).arg(self.data());
        command.args(["import", "mosquitto"]).arg(file).args(flags);
        command.output().expect("the command runs")
    }

    fn broker(&self, cores: u16) -> Broker {
        Broker::with_config(&format!("cores = {cores}\n[storage]\ndata = {:?}\n", self.data()))
    }

    /// Imports a fixture, and starts a broker with it.
    fn broker_with(&self, name: &str, cores: u16) -> Broker {
        let import = self.import(&self.database(name), &[]);
        assert!(import.status.success(), "{name}: {}", said(&import));
        self.broker(cores)
    }

    fn has_log(&self) -> bool {
        let Ok(mut files) = std::fs::read_dir(self.data()) else { return false };
        files.any(|file| {
            file.is_ok_and(|file| file.path().extension().is_some_and(|of| of == "log"))
        })
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mosquitto-db").join(name)
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

fn resumed(broker: &Broker, connect: Connect) -> Client {
    let client = Client::connect(broker, connect.resume());
    assert!(client.connack.session_present);
    client
}

/// The next messages, ordered by payload: QoS 1 may overtake QoS 2, which is sent after it is stored.
fn received(client: &mut Client, count: usize) -> Vec<Publish> {
    let next = |_| {
        let publish = client.expect_publish();
        client.acknowledge(&publish);
        publish
    };
    let mut messages: Vec<_> = (0..count).map(next).collect();
    messages.sort_by(|a, b| a.payload.cmp(&b.payload));
    messages
}

fn retained(broker: &Broker, filter: &str) -> Vec<(String, String)> {
    let mut client = Client::connect(broker, Connect::v5("newcomer"));
    client.subscribe(filter, 0);
    let mut messages = Vec::new();
    while let Some(Packet::Publish(publish)) = client.receive_within(SILENCE) {
        assert!(publish.retain, "{publish:?}");
        messages.push((publish.topic.clone(), publish.text().to_owned()));
    }
    messages.sort();
    messages
}

fn of(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|&(topic, payload)| (topic.to_owned(), payload.to_owned())).collect()
}

#[test]
fn clients_of_mosquitto_1_find_their_sessions_and_messages() {
    for (name, cores) in FORMER.into_iter().zip([1, 2, 1, 3]) {
        let folder = Folder::new(name);
        let broker = folder.broker_with(name, cores);
        let mut away = resumed(&broker, Connect::v311("away"));
        // The last one was before PUBREL in Mosquitto, which would deliver it then.
        let messages = received(&mut away, 4);
        let payloads: Vec<_> = messages.iter().map(Publish::text).collect();
        assert_eq!(payloads, ["", "21.5", "held", "open"], "{name}");
        let mut publisher = resumed(&broker, Connect::v311("qos2-in"));
        publisher.send(Ack::pubrel(77));
        assert_eq!(publisher.expect_ack(), Ack::pubcomp(77), "{name}");
        let mut other = Client::connect(&broker, Connect::v5("other"));
        for topic in ["house/new", "plain", "elsewhere"] {
            other.publish(Publish::new(topic, topic).qos(1, 1));
        }
        away.expect_message("house/new");
        away.expect_message("plain");
        away.expect_silence(SILENCE);
        let expected = of(&[("house/door", "open"), ("house/t", "21.5")]);
        assert_eq!(retained(&broker, "#"), expected, "{name}");
    }
}

#[test]
fn clients_of_mosquitto_2_find_their_sessions_and_messages() {
    for (name, cores) in LATER.into_iter().zip([1, 2, 3, 1]) {
        let folder = Folder::new(name);
        let broker = folder.broker_with(name, cores);
        check_away(&broker);
        check_inflight(&broker);
        let mut third = resumed(&broker, Connect::v311("v3-away"));
        third.expect_message("21.5");
        let mut never = resumed(&broker, Connect::v5("v5-never").expiry(u32::MAX));
        never.expect_message("n");
        let mut publisher = resumed(&broker, Connect::v311("v3-qos2-in"));
        publisher.send(Ack::pubrel(77));
        assert_eq!(publisher.expect_ack(), Ack::pubcomp(77), "{name}");
        for mut quiet in [third, never, publisher] {
            quiet.expect_silence(SILENCE);
        }
        let mut expected = of(&[("house/door", "open"), ("house/kitchen/temp", "21.5")]);
        if name == "v2.1.2" {
            expected.insert(0, ("007".to_owned(), "x".to_owned()));
        }
        assert_eq!(retained(&broker, "#"), expected, "{name}");
    }
}

fn check_away(broker: &Broker) {
    let mut away = resumed(broker, Connect::v5("v5-away").expiry(86_400));
    let messages = received(&mut away, 6);
    let [empty, binary, first, held, job, open] = &messages[..] else { panic!("six") };
    assert_eq!((&*first.topic, first.qos, first.retain), ("house/kitchen/temp", 1, true));
    assert_eq!(first.text(), "21.5");
    for (publish, expected) in
        [(empty, "house/empty"), (open, "house/door"), (held, "house/qos2in")]
    {
        assert_eq!((&*publish.topic, publish.qos), (expected, 2), "{publish:?}");
    }
    assert_eq!((&*binary.topic, binary.payload.first()), ("house/bin", Some(&0)));
    // Of a shared subscription.
    assert_eq!((job.text(), &*job.topic, job.properties.len()), ("job", "jobs/1", 0));
    let expected = [
        Property::PayloadFormatIndicator(1),
        Property::ContentType("text/plain".into()),
        Property::ResponseTopic("r/t".into()),
        Property::CorrelationData(vec![0, 1]),
        Property::user("a", "b"),
        Property::user("a", "c"),
        Property::SubscriptionIdentifier(300),
    ];
    for property in expected {
        assert!(first.properties.contains(&property), "{property:?} in {first:?}");
    }
    let is_expiry = |of: &Property| matches!(of, Property::MessageExpiryInterval(1..=86_400));
    assert!(first.properties.iter().any(is_expiry), "{first:?}");
    // No Local, which the subscription has.
    away.send(Publish::new("house/own", "own"));
    away.expect_silence(SILENCE);
}

/// PUBACK of the first message and PUBCOMP of the second were awaited; two further ones waited.
fn check_inflight(broker: &Broker) {
    let mut client = resumed(broker, Connect::v5("v5-inflight").expiry(3_600));
    let publish = client.expect_publish();
    assert_eq!((publish.text(), publish.id(), publish.dup), ("f0", 1, true));
    assert_eq!(client.expect_ack(), Ack::pubrel(2));
    for (expected, identifier) in [("f2", 3), ("f3", 4)] {
        let publish = client.expect_publish();
        assert_eq!((publish.text(), publish.id(), publish.dup), (expected, identifier, false));
    }
    client.send(Ack::puback(1));
    client.send(Ack::pubcomp(2));
    client.expect_silence(SILENCE);
}

#[test]
fn a_second_import_of_a_file_changes_nothing_even_after_its_sessions_have_ended() {
    let folder = Folder::new("again");
    let file = folder.database("v2.0.11");
    let first = folder.import(&file, &[]);
    let report = said(&first);
    for line in [
        "sessions                             5           0",
        "queued messages                      9           1",
        "retained messages                    2           0",
        "1 queued messages: of QoS 0",
    ] {
        assert!(report.contains(line), "{line:?} in\n{report}");
    }
    let again = folder.import(&file, &[]);
    assert!(again.status.success() && said(&again).contains("imported before"), "{}", said(&again));
    let mut broker = folder.broker(1);
    // Clean Start ends the session.
    Client::connect(&broker, Connect::v5("v5-never").expiry(0)).disconnect();
    broker.stop();
    broker.await_end();
    assert!(said(&folder.import(&file, &[])).contains("imported before"));
    let broker = folder.broker(1);
    let client = Client::connect(&broker, Connect::v5("v5-never").resume().expiry(10));
    assert!(!client.connack.session_present, "the import has brought an ended session back");
}

#[test]
fn what_a_store_has_stays_and_other_sessions_are_added() {
    let folder = Folder::new("added");
    let mut broker = folder.broker(2);
    let mut own = Client::connect(&broker, Connect::v5("v5-never").resume().expiry(3_600));
    own.subscribe("own", 1);
    own.publish(Publish::new("house/door", "shut").qos(1, 1).retain());
    own.vanish();
    broker.stop();
    broker.await_end();
    let import = folder.import(&folder.database("v2.0.22-i386"), &[]);
    let report = said(&import);
    assert!(report.contains("1 sessions: the store has its own"), "{report}");
    assert!(report.contains("1 retained messages: the store has its own"), "{report}");
    let broker = folder.broker(1);
    let mut own = resumed(&broker, Connect::v5("v5-never").expiry(3_600));
    own.expect_silence(SILENCE);
    let expected = of(&[("house/door", "shut"), ("house/kitchen/temp", "21.5")]);
    assert_eq!(retained(&broker, "#"), expected);
    check_inflight(&broker);
}

#[test]
fn owners_are_taken_on_request() {
    for (flags, expected) in [(&[][..], 0), (&["--owners"][..], 3)] {
        let folder = Folder::new("owners");
        let import = folder.import(&folder.database("v2.0.11"), flags);
        assert!(import.status.success(), "{}", said(&import));
        let mut export = Command::new(env!("CARGO_BIN_EXE_broker"));
        export.args(["store", "--data"]).arg(folder.data()).arg("export");
        let lines = export.output().expect("it runs").stdout;
        let lines = String::from_utf8(lines).expect("text");
        let owned =
            ["alice", "bob"].map(|name| lines.matches(&format!("\"owner\":\"{name}\"")).count());
        assert_eq!(owned.iter().sum::<usize>(), expected, "{flags:?}: {lines}");
    }
}

#[test]
fn a_damaged_database_is_refused_with_the_place_and_salvage_takes_the_part_before() {
    let folder = Folder::new("damaged");
    let whole = std::fs::read(folder.database("v2.0.22-mips-big-endian")).expect("readable");
    let cut = folder.0.join("cut.db");
    // In the middle of the subscriptions: sessions and queues come before.
    std::fs::write(&cut, &whole[..whole.len() - 100]).expect("written");
    let refused = folder.import(&cut, &[]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("damaged at byte 1"), "{}", said(&refused));
    assert!(said(&refused).contains("--salvage"), "{}", said(&refused));
    assert!(!folder.has_log(), "the store has changed");
    let salvaged = folder.import(&cut, &["--salvage"]);
    assert!(salvaged.status.success(), "{}", said(&salvaged));
    assert!(said(&salvaged).contains("only the part before the damage"), "{}", said(&salvaged));
    let broker = folder.broker(1);
    let mut third = resumed(&broker, Connect::v311("v3-away"));
    third.expect_message("21.5");
}

#[test]
fn an_empty_or_zero_file_is_said_to_be_that() {
    let folder = Folder::new("empty");
    for (bytes, expected) in [(vec![], "is empty"), (vec![0; 8192], "consists of zeros")] {
        let file = folder.0.join("mosquitto.db");
        std::fs::write(&file, bytes).expect("written");
        let refused = folder.import(&file, &[]);
        assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
        assert!(said(&refused).contains(expected), "{}", said(&refused));
        let salvaged = folder.import(&file, &["--salvage"]);
        assert!(
            salvaged.status.success() && said(&salvaged).contains(expected),
            "{}",
            said(&salvaged)
        );
        assert!(!folder.has_log(), "there is nothing to store");
    }
    let missing = folder.import(&folder.0.join("missing.db"), &[]);
    assert_eq!(missing.status.code(), Some(5));
    assert!(said(&missing).contains("missing.db"), "{}", said(&missing));
}

#[cfg(feature = "mosquitto-sqlite")]
#[test]
fn an_sqlite_database_is_imported_with_a_warning_for_topics_like_numbers() {
    let folder = Folder::new("sqlite");
    let file = folder.0.join("mosquitto.sqlite3");
    std::fs::copy(fixture("v2.1.2.sqlite3"), &file).expect("copied");
    let import = folder.import(&file, &[]);
    assert!(import.status.success(), "{}", said(&import));
    assert_eq!(said(&import).matches("looks like a number").count(), 2, "{}", said(&import));
    assert!(said(&folder.import(&file, &[])).contains("imported before"));
    let broker = folder.broker(2);
    assert_eq!(retained(&broker, "#"), of(&[("1000", "y"), ("12/3", "z"), ("7", "x")]));
    let names: Vec<_> = std::fs::read_dir(&folder.0).expect("readable").flatten().collect();
    assert_eq!(names.len(), 2, "no files beside the database: {names:?}");
}
