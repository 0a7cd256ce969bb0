//! Files of access rules: what clients of Mosquitto may publish and what is delivered to them, and what clients of
//! `broker` may and get with the same file.
//!
//! `RINGMQ_TEST_ACL_FILES=1000` compares so many generated files instead of a few. `RINGMQ_TEST_ACL_SEED` chooses others.

use std::collections::BTreeSet;
use std::path::Path;

use crate::broker::{Broker, Random, number_of};
use crate::client::Client;
use crate::{Folder, mosquitto_is_there};

/// Files that are compared unless the environment names another number.
const FILES: usize = 12;

/// Topics and clients of each file: with both accesses 200 decisions.
const TOPICS: usize = 20;
const CLIENTS: [(&str, &str); 5] =
    [("alice", "c1"), ("bob", "c2"), ("", "c3"), ("eve", "alice"), ("al%ce", "x y")];

/// The client that publishes everything and subscribes to nothing.
const ROOT: &str = "root";

const LEVELS: [&str; 8] = ["a", "b", "alice", "c1", "", "%", "x y", "$a"];

fn topic(random: &mut Random) -> String {
    loop {
        let levels: Vec<&str> = (0..1 + random.below(3)).map(|_| random.of(&LEVELS)).collect();
        let topic = levels.join("/");
        // Blanks at the ends belong to the line, and a topic has a character.
        if !topic.is_empty() && !topic.starts_with("$share") && topic.trim() == topic {
            return topic;
        }
    }
}

fn filter(random: &mut Random, is_pattern: bool) -> String {
    loop {
        let levels: Vec<String> = (0..1 + random.below(3))
            .map(|_| match random.below(10) {
                0 | 1 => "+".to_owned(),
                2 if is_pattern => random.of(&["%u", "%c", "pre%upost", "%%u", "%c-%u"]).to_owned(),
                _ => random.of(&LEVELS).to_owned(),
            })
            .collect();
        let mut filter = levels.join("/");
        match random.below(6) {
            0 => filter = "#".to_owned(),
            1 | 2 => filter.push_str("/#"),
            _ => {}
        }
        if !filter.is_empty() && filter.trim() == filter {
            return filter;
        }
    }
}

/// A file of rules in which one user may do everything that topics of clients have.
fn file(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(12) {
        let line = match random.below(8) {
            0 => "# a comment".to_owned(),
            1 | 2 => format!("user {}", random.of(&["alice", "bob", "al%ce", "nobody"])),
            kind => {
                let word = if kind < 6 { "topic" } else { "pattern" };
                let access = random.of(&["read ", "write ", "readwrite ", "deny ", ""]);
                let filter = filter(random, word == "pattern");
                // Without an access, a blank in a topic would make one of its first word.
                let access =
                    if access.is_empty() && filter.contains(' ') { "readwrite " } else { access };
                format!("{word} {access}{filter}")
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(&format!("user {ROOT}\ntopic write #\ntopic write $a/#\n"));
    text
}

fn of_mosquitto(folder: &Path, rules: &Path) -> Broker {
    Broker::mosquitto(folder, &format!("allow_anonymous true\nacl_file {}\n", rules.display()))
}

fn of_ringmq(folder: &Path, rules: &Path) -> Broker {
    let table = format!(
        "anonymous = true\nunverified_names = true\nacl_file = {rules:?}\nacl_format = \"mosquitto\"\n"
    );
    Broker::ringmq(folder, &table)
}

/// The decisions about all clients and topics, as text: what is allowed, and delivered to subscriptions to these
/// filters, which come before or after the messages.
fn decisions(
    broker: &Broker,
    topics: &[String],
    filters: &[String],
    retain: bool,
) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    let mut root = Client::connect(broker.address, ROOT, ROOT);
    for (user, client_identifier) in CLIENTS {
        let mut client = Client::connect(broker.address, user, client_identifier);
        let mut allow = |access: &str, topic: &str| {
            allowed.insert(format!("{user:?} {client_identifier:?} {access} {topic:?}"));
        };
        for topic in topics {
            if client.publish(topic, false) < 0x80 {
                allow("write", topic);
            }
        }
        let mut publish_all = || {
            topics.iter().for_each(|topic| assert!(root.publish(topic, retain) < 0x80));
        };
        if retain {
            publish_all();
        }
        let mut delivered = Vec::new();
        for filter in filters {
            // Retained messages follow the answer, or come before.
            assert!(client.subscribe(filter, &mut delivered) < 0x80, "{filter} is granted");
        }
        if !retain {
            publish_all();
        }
        delivered.extend(client.delivered());
        delivered.iter().for_each(|topic| allow("read", topic));
    }
    allowed
}

#[test]
fn every_decision_of_a_generated_file_of_rules_is_that_of_mosquitto() {
    if !mosquitto_is_there() {
        return;
    }
    let folder = Folder::new("rules");
    let rules = folder.path("acl");
    let (files, seed) =
        (number_of("RINGMQ_TEST_ACL_FILES", FILES), number_of("RINGMQ_TEST_ACL_SEED", 1));
    let mut allowed = 0;
    for number in 0..files {
        let mut random = Random((seed as u64) << 32 | number as u64);
        let text = file(&mut random);
        let mut topics = BTreeSet::new();
        while topics.len() < TOPICS {
            topics.insert(topic(&mut random));
        }
        let topics: Vec<String> = topics.into_iter().collect();
        let filters: Vec<String> = match random.below(2) {
            0 => ["#", "$a/#"].map(str::to_owned).into(),
            _ => (0..6).map(|_| self::filter(&mut random, false)).collect(),
        };
        let retain = random.below(2) == 0;
        std::fs::write(&rules, &text).expect("written");
        let expected = decisions(&of_mosquitto(&folder.0, &rules), &topics, &filters, retain);
        let decided = decisions(&of_ringmq(&folder.0, &rules), &topics, &filters, retain);
        let differences: Vec<&String> = expected.symmetric_difference(&decided).collect();
        assert!(
            differences.is_empty(),
            "file {number} of seed {seed}:\n{text}\nfilters {filters:?}, retained: {retain}\nMosquitto and the broker \
             differ in what they allow: {differences:#?}"
        );
        allowed += expected.len();
    }
    let all = files * TOPICS * CLIENTS.len() * 2;
    println!("{files} files, {all} decisions, {allowed} of them to allow");
    assert!(allowed > all / 20 && allowed < all / 2, "{allowed} of {all} are allowed");
}
