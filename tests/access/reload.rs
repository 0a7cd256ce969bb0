//! Effects of a reload on connected clients.

use crate::support::reason::{ADMINISTRATIVE_ACTION, BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED};
use crate::support::{Client, Connect, Publish, SILENCE, V5, V311, Will, for_versions};
use crate::{Files, as_user, await_metric};

const SYS: &str = "[mqtt]\nsys_interval_s = 1\n";

#[test]
fn a_user_removed_from_the_password_file_is_disconnected_on_reload_and_counted() {
    for_versions(|version| {
        let files = Files::new("removed").with_users(&["alice", "bob"]);
        let broker = files.broker(&format!("anonymous = true\n{SYS}"));
        let will = Will::new("wills/bob", "gone");
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b").will(will));
        let mut again = Client::connect(&broker, as_user(version, "bob", "again"));
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a"));
        let mut anybody = Client::connect(&broker, Connect::new(version, "anybody"));
        alice.subscribe("wills/#", 0);

        // A file with the same content disconnects nobody.
        files.reload(&broker);
        bob.expect_alive();

        assert!(files.passwd(&["remove", "bob"], "").status.success());
        files.reload(&broker);
        bob.expect_violation(NOT_AUTHORIZED);
        again.expect_violation(NOT_AUTHORIZED);
        alice.expect_message("gone"); // the Will, as there was no DISCONNECT
        alice.expect_alive();
        anybody.expect_alive();
        await_metric(&broker, Connect::v5("m"), "clients/withdrawn-credentials", 2);
        let no = if version == V5 { BAD_USER_NAME_OR_PASSWORD } else { 4 };
        Client::refused(&broker, as_user(version, "bob", "b"), no);
    });
}

#[test]
fn a_user_with_a_new_password_is_disconnected_on_reload_and_can_reconnect() {
    for_versions(|version| {
        let files = Files::new("changed").with_users(&["alice", "bob"]);
        let broker = files.broker("");
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b").durable());
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a"));
        bob.subscribe("t", 1);
        assert!(files.passwd(&["add", "bob"], "another\n").status.success());
        files.reload(&broker);
        bob.expect_violation(ADMINISTRATIVE_ACTION);
        alice.expect_alive();
        alice.publish(Publish::new("t", "meanwhile").qos(1, 1));
        let back = Connect::new(version, "b").username("bob").password("another").durable();
        let mut bob = Client::connect(&broker, back);
        assert!(bob.connack.session_present);
        bob.expect_message("meanwhile");
        // A second change is compared with the first one, not with the original file.
        files.reload(&broker);
        bob.expect_alive();
        assert!(files.passwd(&["remove", "bob"], "").status.success());
        files.reload(&broker);
        bob.expect_violation(NOT_AUTHORIZED);
    });
}

#[test]
fn a_user_whose_password_is_only_rehashed_stays_connected() {
    for_versions(|version| {
        let files = Files::new("rehashed").with_users(&["alice", "bob"]);
        let broker = files.broker("");
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b"));
        // With other parameters, and with the same ones again.
        for costs in [2, 2, 1] {
            let hashing = "[access.hashing]\nmemory_kib = 8\niterations = ";
            files.write("cheap.toml", &format!("{hashing}{costs}\n"));
            assert!(files.passwd(&["add", "bob"], "bobbob\n").status.success());
            files.reload(&broker);
            bob.expect_alive();
            Client::connect(&broker, as_user(version, "bob", "another")).expect_alive();
        }
        // The next change is a different password with the same parameters.
        assert!(files.passwd(&["add", "bob"], "another\n").status.success());
        files.reload(&broker);
        bob.expect_violation(ADMINISTRATIVE_ACTION);
    });
}

#[test]
fn an_invalid_password_file_on_reload_disconnects_nobody() {
    let files = Files::new("broken").with_users(&["alice"]);
    let broker = files.broker(SYS);
    let mut alice = Client::connect(&broker, as_user(V5, "alice", "a"));
    files.write("passwords", "alice\n");
    broker.signal("-HUP");
    broker.await_log("a colon and a hash are expected", 1);
    alice.expect_alive();
    await_metric(&broker, as_user(V5, "alice", "m"), "access/reloads-failed", 1);
}

#[test]
fn many_clients_of_a_removed_user_are_disconnected_while_others_are_served() {
    // More clients than are checked in a turn, for any number of cores.
    let files = Files::new("crowd").with_users(&["alice", "bob"]);
    let broker = files.broker("");
    let crowd: Vec<_> = (0..600)
        .map(|number| Client::connect(&broker, as_user(V311, "bob", &format!("b-{number}"))))
        .collect();
    let mut alice = Client::connect(&broker, as_user(V5, "alice", "a"));
    assert!(files.passwd(&["remove", "bob"], "").status.success());
    files.reload(&broker);
    alice.expect_alive();
    crowd.into_iter().for_each(|mut client| client.expect_closed());
    alice.expect_alive();
}

#[test]
fn new_rules_apply_to_unrestricted_clients_and_to_cached_decisions() {
    let open = "group admins: alice bob\nfor group admins\n allow all #\n";
    for_versions(|version| {
        let files = Files::new("stricter").with_users(&["alice", "bob"]).with_rules(open);
        let broker = files.broker(SYS);
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a"));
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b"));
        alice.subscribe("t/#", 1);
        bob.publish(Publish::new("t/1", "before").qos(1, 1));
        alice.expect_message("before");
        // Alice is removed from the group.
        files.write(
            "acl",
            "group admins: alice\nfor group admins\n allow all #\n allow subscribe $SYS/#\n",
        );
        files.reload(&broker);
        bob.send(Publish::new("t/1", "denied").qos(1, 2));
        assert_eq!(bob.expect_ack().reason, if version == V5 { NOT_AUTHORIZED } else { 0 });
        alice.expect_silence(SILENCE);
        let asks = || as_user(V5, "alice", "m");
        await_metric(&broker, asks(), "publish/messages/dropped/not-authorized", 1);
        // Messages of the subscription are no longer delivered.
        files.write("acl", "for user alice\n allow publish #\n allow subscribe $SYS/#\n");
        files.reload(&broker);
        await_metric(&broker, asks(), "subscriptions/revoked", 1);
        alice.publish(Publish::new("t/1", "unheard").qos(1, 3));
        alice.expect_silence(SILENCE);
    });
}

#[cfg(feature = "scram")]
#[test]
fn scram_clients_are_disconnected_when_their_password_changes_even_during_the_exchange() {
    use crate::methods::scram::{answer, begin, reply};
    let files = Files::new("scram-removed").with_users(&["alice", "bob"]);
    let broker = files.broker("");
    let (mut inside, challenge) = begin(&broker, "bob");
    reply(&mut inside, &answer("bob", "bobbob", &challenge).0);
    assert_eq!(inside.expect_connack().reason, 0);
    let (mut under_way, challenge) = begin(&broker, "alice");
    for user in ["alice", "bob"] {
        assert!(files.passwd(&["remove", user], "").status.success());
    }
    files.reload(&broker);
    inside.expect_disconnect(NOT_AUTHORIZED);
    reply(&mut under_way, &answer("alice", "alicealice", &challenge).0);
    under_way.expect_refusal(NOT_AUTHORIZED);
}

const TWO_TOPICS: &str = "\
for user alice
 allow subscribe t/#
 allow subscribe u/#
for user bob
 allow publish #
";
const ONE_TOPIC: &str = "\
for user alice
 allow subscribe u/#
for user bob
 allow publish #
";

#[test]
fn a_disconnected_session_receives_no_messages_of_a_topic_it_may_no_longer_read() {
    for_versions(|version| {
        let files = Files::new("away").with_users(&["alice", "bob"]).with_rules(TWO_TOPICS);
        let broker = files.broker("");
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b"));
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a").durable());
        alice.subscribe("t/#", 1);
        alice.subscribe("u/#", 1);
        alice.vanish();
        bob.publish(Publish::new("t/1", "queued before").qos(1, 1));
        files.write("acl", ONE_TOPIC);
        files.reload(&broker);
        bob.publish(Publish::new("t/1", "published after").qos(1, 2));
        bob.publish(Publish::new("u/1", "still hers").qos(1, 3));
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a").durable());
        assert!(alice.connack.session_present);
        alice.expect_message("still hers");
        alice.expect_silence(SILENCE);
    });
}

#[test]
#[cfg(feature = "store")]
fn after_a_restart_with_other_rules_a_session_receives_no_messages_of_a_topic_it_may_not_read() {
    for_versions(|version| {
        let files = Files::new("restarted").with_users(&["alice", "bob"]).with_rules(TWO_TOPICS);
        let data = format!("[storage]\ndata = {:?}\n", files.path("data"));
        let start = || crate::support::Broker::with_config(&format!("{data}{}", files.access("")));
        let broker = start();
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b"));
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a").durable());
        alice.subscribe("t/#", 1);
        alice.subscribe("u/#", 1);
        alice.vanish();
        bob.publish(Publish::new("t/1", "no longer hers").qos(1, 1));
        bob.publish(Publish::new("u/1", "still hers").qos(1, 2));
        drop((bob, broker)); // SIGKILL
        files.write("acl", ONE_TOPIC);
        let broker = start();
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a").durable());
        assert!(alice.connack.session_present);
        alice.expect_message("still hers");
        alice.expect_silence(SILENCE);
    });
}

#[test]
fn a_will_to_a_topic_that_is_no_longer_allowed_is_not_published() {
    let may = |topic: &str| {
        format!(
            "for user bob\n allow publish {topic}\n allow publish wills/last\n\
             for user alice\n allow subscribe #\n allow subscribe $SYS/#\n"
        )
    };
    for_versions(|version| {
        let files = Files::new("will").with_users(&["alice", "bob"]).with_rules(&may("wills/#"));
        let broker = files.broker(SYS);
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a"));
        alice.subscribe("wills/#", 0);
        let will = |topic: &str| Will::new(topic, "gone");
        let ends = Client::connect(&broker, as_user(version, "bob", "b").will(will("wills/bob")));
        let last = Client::connect(&broker, as_user(version, "bob", "l").will(will("wills/last")));
        let delayed = as_user(V5, "bob", "d").durable().will(will("wills/delayed").delay(2));
        Client::connect(&broker, delayed).vanish();
        files.write("acl", &may("elsewhere"));
        files.reload(&broker);
        ends.vanish();
        await_metric(
            &broker,
            as_user(V5, "alice", "m"),
            "publish/messages/dropped/not-authorized",
            2,
        );
        last.vanish();
        // The messages allowed by both rules were delivered, and no others.
        alice.expect_message("gone");
        alice.expect_silence(SILENCE);
    });
}

#[test]
fn messages_queued_for_an_allowed_shared_subscription_survive_a_reload() {
    let rules = |more: &str| {
        format!(
            "for user alice\n allow subscribe shared=yes jobs/#\n{more}for user bob\n allow publish #\n"
        )
    };
    for_versions(|version| {
        let files = Files::new("shared").with_users(&["alice", "bob"]).with_rules(&rules(""));
        let broker = files.broker("");
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a").durable());
        alice.subscribe("$share/g/jobs/#", 1);
        alice.vanish();
        let mut bob = Client::connect(&broker, as_user(version, "bob", "b"));
        bob.publish(Publish::new("jobs/1", "before").qos(1, 1));
        files.write("acl", &rules(" allow subscribe other\n deny subscribe shared=yes jobs/9\n"));
        files.reload(&broker);
        bob.publish(Publish::new("jobs/2", "after").qos(1, 2));
        bob.publish(Publish::new("jobs/9", "last").qos(1, 3));
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a").durable());
        // The first matching rule decides, so the whole filter is still allowed.
        for payload in ["before", "after", "last"] {
            alice.expect_message(payload);
        }
        alice.expect_silence(SILENCE);
    });
}
