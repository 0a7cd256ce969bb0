//! Authorization by access rules.

use crate::support::reason::{NOT_AUTHORIZED, V3_NOT_AUTHORIZED};
use crate::support::{
    Ack, Client, Connect, Publish, SILENCE, Subscribe, V5, V311, Will, for_versions,
};
use crate::{Files, as_user, broker, in_version, run, text};

const RULES: &str = "\
group admins: alice
for group admins
  allow all #
for user bob
  deny publish retain=yes #
  allow publish qos<=1 bob/%c/#
  deny subscribe shared=yes #
  allow subscribe qos<=1 bob/#
for anonymous
  allow subscribe public/#
";

#[test]
fn a_denied_publish_is_answered_by_version_and_not_delivered() {
    let files = Files::new("publish").with_users(&["alice", "bob"]).with_rules(RULES);
    let broker = files.broker("");
    for_versions(|version| {
        let mut admin = Client::connect(&broker, as_user(version, "alice", "admin"));
        admin.subscribe("#", 2);
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b"));
        let denied = in_version(version, NOT_AUTHORIZED, 0);
        bob.send(Publish::new("other", "x"));
        bob.send(Publish::new("bob/b/1", "x").retain());
        bob.send(Publish::new("bob/c/1", "x").qos(1, 1));
        assert_eq!(bob.expect_ack().reason, denied, "PUBACK");
        bob.send(Publish::new("bob/b/1", "x").qos(2, 2));
        assert_eq!(bob.expect_ack().reason, denied, "PUBREC");
        if version == V311 {
            bob.send(Ack::pubrel(2));
            bob.expect(Ack::pubcomp(2));
        }
        bob.publish(Publish::new("bob/b/1", "allowed").qos(1, 3));
        admin.expect_message("allowed");
        admin.expect_silence(SILENCE);
        bob.expect_alive();
    });
}

#[test]
fn a_denied_subscription_fails_in_suback_and_a_limited_one_is_granted_a_lower_qos() {
    let files = Files::new("subscribe").with_users(&["alice", "bob"]).with_rules(RULES);
    let broker = files.broker("anonymous = true");
    for_versions(|version| {
        let no = in_version(version, NOT_AUTHORIZED, 0x80);
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b"));
        bob.send(
            Subscribe::new(1, "bob/#", 2).and("#", 0).and("bob/x", 0).and("$share/g/bob/#", 0),
        );
        assert_eq!(bob.expect_suback().reasons, [1, no, 0, no]);
        let mut anybody = Client::connect(&broker, Connect::new(version, "a"));
        anybody.send(Subscribe::new(1, "public/+", 1).and("bob/#", 0).and("$SYS/#", 0));
        assert_eq!(anybody.expect_suback().reasons, [1, no, no]);
        let mut admin = Client::connect(&broker, as_user(version, "alice", "admin"));
        admin.publish(Publish::new("secret", "x").qos(1, 1));
        admin.publish(Publish::new("bob/y", "seen").qos(1, 2));
        bob.expect_message("seen");
        bob.expect_silence(SILENCE);
    });
}

#[test]
fn a_rule_allows_states_of_other_connections_and_the_state_of_the_own_one_needs_none() {
    let rules = "for user bob\n allow publish $SYS/broker/connection/site/#\n allow publish #\n";
    let files = Files::new("states").with_users(&["bob"]).with_rules(rules);
    let broker = files.broker("");
    for_versions(|version| {
        let denied = in_version(version, NOT_AUTHORIZED, 0);
        let state = |name| format!("$SYS/broker/connection/{name}/state");
        let with_will = as_user(version, "bob", "b").will(Will::new(&state("site"), "0"));
        let mut bob = Client::connect(&broker, with_will);
        for (name, reason) in [("site", 0), ("b", 0), ("other", denied)] {
            bob.send(Publish::new(&state(name), "1").qos(1, 1));
            let answer = bob.expect_ack().reason;
            // No subscriber: 0x10 in 5.0.
            assert_eq!(if answer == 0x10 { 0 } else { answer }, reason, "{name}");
        }
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        let will = Will::new(&state("other"), "0");
        Client::refused(&broker, as_user(version, "bob", "b").will(will), no);
    });
}

#[test]
fn a_connect_with_a_forbidden_will_is_refused() {
    let files = Files::new("will").with_users(&["bob"]).with_rules(RULES);
    let broker = files.broker("");
    for_versions(|version| {
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        let with = |topic| as_user(version, "bob", "b").will(Will::new(topic, "gone"));
        Client::refused(&broker, with("other"), no);
        Client::connect(&broker, with("bob/b/gone")).expect_alive();
    });
}

#[test]
fn rules_are_reloaded_at_runtime_and_an_invalid_file_is_logged_and_ignored() {
    let files = Files::new("reload").with_users(&["alice", "bob"]).with_rules(RULES);
    let broker = files.broker("");
    let mut admin = Client::connect(&broker, as_user(V5, "alice", "admin"));
    let mut bob = Client::connect(&broker, as_user(V5, "bob", "b"));
    bob.subscribe("bob/#", 1);
    bob.publish(Publish::new("bob/b/1", "before").qos(1, 1));
    bob.expect_message("before");

    files.write("acl", "for user bob\n  allow publish new/#\nfor everyone\n  alow all #\n");
    broker.signal("-HUP");
    broker.await_log("acl:4:3: `group`, `for`, `allow` or `deny` is expected", 1);
    bob.publish(Publish::new("bob/b/1", "still").qos(1, 2));
    bob.expect_message("still");

    files.write("acl", "for user bob\n  allow publish new/#\nfor user alice\n  allow all #\n");
    broker.signal("-HUP");
    // The subscription that is no longer allowed ends, and cached decisions are made again.
    broker.await_log("a subscription is not allowed any more", 1);
    admin.publish(Publish::new("bob/b/1", "unheard").qos(1, 1));
    bob.send(Publish::new("bob/b/1", "denied").qos(1, 3));
    assert_eq!(bob.expect_ack().reason, NOT_AUTHORIZED);
    bob.publish(Publish::new("new/1", "allowed").qos(1, 4));
    bob.expect_silence(SILENCE);

    // A user added to the file is accepted without a restart.
    let out = files.passwd(&["add", "carol"], "carolcarol");
    assert!(out.status.success());
    broker.signal("-HUP");
    broker.await_log("\"reloaded\"", 2);
    Client::connect(&broker, as_user(V5, "carol", "c"));
}

#[test]
fn broker_acl_check_explains_a_decision_by_rule_and_line() {
    let files = Files::new("check").with_rules(RULES);
    let check = |arguments: &[&str]| {
        let mut command = broker(&["acl", "check", "--file"]);
        let out = run(command.arg(files.path("acl")).args(arguments), "");
        (out.status.code(), text(&out.stdout) + &text(&out.stderr))
    };
    let (code, said) = check(&["bob", "bob/x/1", "--client", "x", "--publish", "--qos", "1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("acl:6: `allow publish qos<=1 bob/%c/#`"), "{said}");
    let (code, said) = check(&["bob", "bob/x/1", "--publish", "--retain"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("denied") && said.contains("acl:5: `deny publish retain=yes #`"),
        "{said}"
    );
    let (code, said) = check(&["bob", "bob/#", "--subscribe", "--qos", "2"]);
    assert!(code == Some(0) && said.contains("allowed with QoS 1"), "{said}");
    let (code, said) = check(&["-", "public/x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("publish public/x: denied for an anonymous client: no rule"), "{said}");
    assert!(said.contains("subscribe public/x: allowed") && said.contains("acl:10:"), "{said}");
    let (code, said) = check(&["bob", "--client", "x"]);
    assert!(code == Some(0) && said.contains("no rule in") && said.contains("is about"), "{said}");
    files.write("acl", "for users\n  allow client %u-*\n  allow all #\n");
    let (code, said) = check(&["bob", "a", "--client", "bob-1", "--publish"]);
    assert!(code == Some(0) && said.contains("publish a: allowed"), "{said}");
    assert!(said.contains("client bob-1: allowed for \"bob\" by "), "{said}");
    assert!(said.contains("acl:2: `allow client %u-*` (its section begins in line 1)"), "{said}");
    let (code, said) = check(&["bob", "--client", "alice-1"]);
    assert!(code == Some(1) && said.contains("client alice-1: denied for \"bob\": no"), "{said}");
    let (code, said) = check(&["bob", "a"]);
    assert!(code == Some(0) && !said.contains("client"), "{said}");
    let (code, said) = check(&["alice", "x/#", "--publish"]);
    assert!(code == Some(2) && said.contains("wildcards"), "{said}");
}

#[test]
fn an_invalid_rules_file_fails_the_start_and_the_check_with_its_position() {
    let files =
        Files::new("wrong").with_users(&["alice"]).with_rules("for everyone\nallow all a#\n");
    files.write("config.toml", &files.access(""));
    for more in [&["--check-config"][..], &[]] {
        let mut command = broker(&["--listen", "127.0.0.1:0", "--data", "none", "--config"]);
        let out = run(command.arg(files.path("config.toml")).args(more), "");
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains("acl:2:11: "), "{}", text(&out.stderr));
    }
}
