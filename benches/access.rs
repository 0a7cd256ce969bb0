//! Cost of authorization decisions: cached, by rules, and for a newly connected client.
//!
//! `cargo bench --bench access`; `RINGMQ_BENCH_SHORT=1` for a run of seconds.

mod world;

use std::fmt::Write;

use divan::{Bencher, black_box};
use ringmq::access::acl::{Rules, Subject, Wish};
use ringmq::access::password_file::Passwords;
use ringmq::base::clock::Now;
use ringmq::config::Hashing;
use ringmq::engine::{Access, Authentication, Credentials, Decision, Identity};
use ringmq::wire::Qos;
use shards::Text;

fn main() {
    if std::env::var_os("RINGMQ_BENCH_SHORT").is_some() {
        // Read by divan itself.
        divan::Divan::from_args().sample_count(3).sample_size(1).main();
    } else {
        divan::main();
    }
}

const TOPIC: &str = "plant/7/line/3/temperature";

/// This many rules, the last of which allows.
fn rules(count: usize) -> String {
    let mut text = String::from("for everyone\n");
    for number in 1..count {
        writeln!(text, "  deny publish plant/{}/line/+/%u/#", 1_000 + number).expect("memory");
    }
    text + "  allow publish plant/+/line/#\n"
}

/// Like a core for each PUBLISH; the topic is one of the last sixteen.
#[divan::bench(args = [1, 10, 1_000])]
fn publish_remembered(bencher: Bencher<'_, '_>, count: usize) {
    publish(bencher, count, &[TOPIC.to_owned()]);
}

/// Like a core for each PUBLISH; the topic is not one of the last sixteen.
#[divan::bench(args = [1, 10, 100, 1_000])]
fn publish_by_rules(bencher: Bencher<'_, '_>, count: usize) {
    let topics: Vec<String> = (0..64).map(|number| format!("{TOPIC}/{number}")).collect();
    publish(bencher, count, &topics);
}

fn publish(bencher: Bencher<'_, '_>, count: usize, topics: &[String]) {
    let control = world::control(&rules(count));
    let mut access = control.for_core(std::sync::Arc::new(|| {}));
    let client_identifier = Text::new("meter-0815");
    let credentials = Credentials {
        client_identifier: client_identifier.as_str(),
        username: None,
        password: None,
        method: None,
        address: None,
        listener: 0,
        certificate: None,
        replaces: None,
    };
    let granted = access.authenticate(Now(0), 1, &credentials);
    assert!(matches!(granted, Authentication::Granted(_)));
    let who = Identity { exchange: 1, client_identifier: &client_identifier };
    let mut topics = topics.iter().cycle();
    bencher.bench_local(|| {
        let topic = topics.next().expect("an endless iterator");
        let decision = access.may_publish(Now(0), &who, black_box(topic), Qos::AtMostOnce, false);
        assert_eq!(decision, Decision::Allowed(()));
    });
}

/// Selects the rules for a new client among the sections of this many users.
#[divan::bench(args = [10, 10_000])]
fn sections_of_a_new_client(bencher: Bencher<'_, '_>, users: usize) {
    let mut text = String::from("for everyone\n allow subscribe public/#\n");
    for user in 0..users {
        writeln!(text, "for user u{user}\n allow all users/u{user}/#").expect("memory");
    }
    let rules = Rules::parse(&text, "acl").expect("valid rules");
    let subject = Subject { user: Some("u7"), client_identifier: "c" };
    let wish = Wish::Subscribe { filter: "users/u7/#", qos: Qos::AtMostOnce };
    assert!(rules.decide_once(&subject, &wish).qos.is_some());
    bencher.bench_local(|| rules.sections_of(black_box(&subject)));
}

/// Verifies a password with the default parameters, on a thread of the pool.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn password(bencher: Bencher<'_, '_>) {
    let passwords = Passwords::none(&Hashing::default());
    bencher.bench_local(|| passwords.verify(black_box("alice"), black_box(b"secret")));
}
