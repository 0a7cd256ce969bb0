//! Subscriptions that access rules cover in part: they are granted, and filtered by topic.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::*;
use crate::base::metrics::Drop as DropCause;

/// What users may read: the topics below their name and below `open`. Once the rules have changed, only the latter.
#[derive(Clone, Debug, Default)]
struct Rules {
    /// The name of the next client.
    login: Arc<Mutex<Option<Box<str>>>>,
    /// The names of clients, by connection.
    users: Arc<Mutex<HashMap<u64, Option<Box<str>>>>>,
    have_changed: Arc<AtomicBool>,
    decided: Arc<AtomicUsize>,
}

impl Rules {
    fn connect(&self, world: &mut World, user: &str, client: &Client<'_>) -> ConnectionId {
        self.login(user);
        world.connect(client)
    }

    /// The name of the next client; empty for none.
    fn login(&self, user: &str) {
        *self.login.lock().expect("whole") = Some(user.into()).filter(|_| !user.is_empty());
    }

    fn change(&self, world: &mut World, have_changed: bool) {
        self.have_changed.store(have_changed, Relaxed);
        world.engine.handle_answers(world.now);
        world.settle();
    }

    fn may_read(&self, user: Option<&str>, topic: &str) -> bool {
        let first = topic.split('/').next();
        let is_own = first == user && !self.have_changed.load(Relaxed);
        first == Some("open") || is_own
    }

    fn decided(&self) -> usize {
        self.decided.swap(0, Relaxed)
    }
}

impl Access for Rules {
    fn authenticate(&mut self, _: Now, exchange: u64, _: &Credentials<'_>) -> Authentication {
        let user = self.login.lock().expect("whole").clone();
        self.users.lock().expect("whole").insert(exchange, user.clone());
        Authentication::Granted(Grant { user, ..Grant::default() })
    }

    fn may_publish(&mut self, _: Now, _: &Identity<'_>, topic: &str, _: Qos, _: bool) -> Decision {
        Decision::of(!topic.starts_with("never/"))
    }

    fn may_publish_will(
        &mut self,
        _: &WillOwner<'_>,
        will: &crate::message::Content<'_>,
        _: bool,
        _: bool,
    ) -> bool {
        !will.topic.starts_with("never/")
    }

    fn coverage(&mut self, who: &Identity<'_>, filter: &str) -> Coverage {
        let user = self.users.lock().expect("whole").get(&who.exchange).cloned().flatten();
        let filter = filter.strip_prefix("$share/g/").unwrap_or(filter);
        match filter.split('/').next() {
            Some("#" | "+") => Coverage::Part,
            _ if self.may_read(user.as_deref(), filter) => Coverage::Whole,
            _ => Coverage::Nothing,
        }
    }

    fn may_receive(
        &mut self,
        _: Now,
        who: &Identity<'_>,
        topic: &str,
        _: Qos,
        _: Option<&str>,
    ) -> bool {
        self.coverage(who, topic) != Coverage::Nothing
    }

    fn read_rules(&mut self) -> Option<Arc<dyn ReadRules>> {
        Some(Arc::new(self.clone()))
    }

    fn revision(&mut self) -> u64 {
        1 + u64::from(self.have_changed.load(Relaxed))
    }
}

impl ReadRules for Rules {
    fn decide<'a>(&'a self, topic: &'a str) -> Box<dyn ReadDecisions + 'a> {
        Box::new(OfTopic { rules: self, topic, steps: 0 })
    }
}

struct OfTopic<'a> {
    rules: &'a Rules,
    topic: &'a str,
    steps: usize,
}

impl ReadDecisions for OfTopic<'_> {
    fn may_read(&mut self, reader: &Reader<'_>) -> bool {
        self.steps += 1;
        self.rules.decided.fetch_add(1, Relaxed);
        self.rules.may_read(reader.user, self.topic)
    }

    fn steps(&self) -> usize {
        self.steps
    }
}

fn world() -> (World, Rules) {
    let rules = Rules::default();
    let world =
        World::with(|settings| settings.access.bind_sessions = false, Box::new(rules.clone()));
    (world, rules)
}

fn topics(world: &mut World, id: ConnectionId) -> Vec<String> {
    world.publishes(id).into_iter().map(|(topic, ..)| topic).collect()
}

fn suback(world: &mut World, id: ConnectionId, filter: &str) -> String {
    world.subscribe(id, filter, Qos::AtLeastOnce);
    world.packets(id, Version::V5).remove(0)
}

const TOPICS: [&str; 4] = ["alice/t", "bob/t", "open/t", "other/t"];

fn publish_each(world: &mut World, publisher: ConnectionId, qos: Qos) {
    for (number, topic) in (1..).zip(TOPICS) {
        world.publish(publisher, topic, b"m", qos, number);
    }
}

#[test]
fn a_subscription_covered_in_part_receives_what_is_allowed_and_each_topic_is_decided_once() {
    let (mut world, rules) = world();
    let publisher = rules.connect(&mut world, "", &Client::v5("publisher"));
    let readers = ["alice", "bob", ""].map(|user| {
        let name = format!("of-{user}");
        let reader = rules.connect(&mut world, user, &Client::v5(&name));
        assert!(suback(&mut world, reader, "#").contains("[1]"), "granted");
        (user, reader)
    });
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::AtMostOnce] {
        publish_each(&mut world, publisher, qos);
    }
    for (user, reader) in readers {
        let received = topics(&mut world, reader);
        let expected: Vec<&str> =
            TOPICS.into_iter().filter(|topic| rules.may_read(Some(user), topic)).collect();
        assert_eq!(received, expected.repeat(3), "{user}");
    }
    assert_eq!(
        rules.decided(),
        TOPICS.len() * readers.len(),
        "once for a topic, not for a message"
    );
}

#[test]
fn a_subscription_covered_whole_has_no_mark_and_one_that_is_excluded_is_granted_and_not_there() {
    let (mut world, rules) = world();
    let publisher = rules.connect(&mut world, "", &Client::v5("publisher"));
    let reader = rules.connect(&mut world, "alice", &Client::v5("reader"));
    for filter in ["alice/#", "bob/#", "$share/g/open/t", "$share/g/bob/t"] {
        assert!(suback(&mut world, reader, filter).contains("[1]"), "{filter}");
    }
    assert_eq!(world.engine.metrics().subscriptions, 2);
    publish_each(&mut world, publisher, Qos::AtMostOnce);
    assert_eq!(topics(&mut world, reader), ["alice/t", "open/t"]);
    assert_eq!(rules.decided(), 0);
    // The member of a group that a message goes to would depend on what it may receive.
    assert!(suback(&mut world, reader, "$share/g/#").contains("[135]"), "not authorized");
}

#[test]
fn after_a_reload_every_topic_is_decided_by_the_new_rules_for_old_subscriptions_too() {
    let (mut world, rules) = world();
    let publisher = rules.connect(&mut world, "", &Client::v5("publisher"));
    let readers = ["#", "alice/#"].map(|filter| {
        let reader =
            rules.connect(&mut world, "alice", &Client::v5(&format!("reader of {filter}")));
        suback(&mut world, reader, filter);
        reader
    });
    for (have_changed, expected) in [
        (false, [&["alice/t", "open/t"][..], &["alice/t"]]),
        (true, [&["open/t"][..], &[]]),
        (false, [&["alice/t", "open/t"][..], &["alice/t"]]),
    ] {
        rules.change(&mut world, have_changed);
        for _ in 0..2 {
            publish_each(&mut world, publisher, Qos::AtMostOnce);
            for (reader, expected) in readers.into_iter().zip(expected) {
                assert_eq!(topics(&mut world, reader), expected, "{have_changed}");
            }
        }
    }
    assert_eq!(world.engine.metrics().subscriptions, 2, "no subscription has ended");
}

#[test]
fn retained_messages_of_a_new_subscription_are_filtered_and_cost_one_decision_each() {
    let (mut world, rules) = world();
    let publisher = rules.connect(&mut world, "", &Client::v5("publisher"));
    for topic in TOPICS {
        let mut message = publish(topic, b"m", Qos::AtMostOnce, 0);
        message.retain = true;
        world.send(publisher, Version::V5, &Packet::Publish(message));
    }
    let reader = rules.connect(&mut world, "alice", &Client::v5("reader"));
    world.subscribe(reader, "#", Qos::AtMostOnce);
    let mut received = topics(&mut world, reader);
    received.sort_unstable();
    assert_eq!(received, ["alice/t", "open/t"]);
    assert_eq!(rules.decided(), TOPICS.len());
}

#[test]
fn messages_for_a_client_that_is_away_are_filtered_by_its_user() {
    let (mut world, rules) = world();
    let publisher = rules.connect(&mut world, "", &Client::v5("publisher"));
    let reader = rules.connect(&mut world, "alice", &Client::persistent("reader"));
    suback(&mut world, reader, "#");
    world.cut(reader);
    publish_each(&mut world, publisher, Qos::AtLeastOnce);
    assert_eq!(world.engine.metrics().messages_queued, 2);
    let reader = world.accept();
    world.send_connect(reader, &Client::persistent("reader"));
    assert_eq!(topics(&mut world, reader), ["alice/t", "open/t"]);
}

#[test]
fn a_session_that_passes_to_another_user_is_filtered_for_that_one() {
    let (mut world, rules) = world();
    let publisher = rules.connect(&mut world, "", &Client::v5("publisher"));
    let first = rules.connect(&mut world, "alice", &Client::persistent("reader"));
    suback(&mut world, first, "#");
    world.cut(first);
    for (user, expected) in [
        ("bob", &["bob/t", "open/t"][..]),
        ("", &["open/t"]),
        ("bob", &["bob/t", "open/t"]),
        ("alice", &["alice/t", "open/t"]),
    ] {
        rules.login(user);
        let reader = world.accept();
        world.send_connect(reader, &Client::persistent("reader"));
        topics(&mut world, reader);
        publish_each(&mut world, publisher, Qos::AtMostOnce);
        assert_eq!(topics(&mut world, reader), expected, "{user}");
        world.cut(reader);
    }
}

#[test]
fn a_will_that_is_not_allowed_is_accepted_and_dropped_when_it_is_due() {
    let (mut world, rules) = world();
    let reader = rules.connect(&mut world, "", &Client::v5("reader"));
    suback(&mut world, reader, "#");
    for topic in ["never/will", "open/will"] {
        let mut client = Client::v5(topic);
        client.will = Some(wire::Will { topic, payload: b"gone", ..wire::Will::default() });
        let id = world.connect(&client);
        world.cut(id);
    }
    assert_eq!(topics(&mut world, reader), ["open/will"]);
    assert_eq!(world.engine.metrics().drops.of(DropCause::NotAuthorized), 1);
}
