//! Ownership of sessions.

#[cfg(feature = "store")]
use crate::support::Broker;
use crate::support::reason::{
    CLIENT_IDENTIFIER_NOT_VALID, NOT_AUTHORIZED, SESSION_TAKEN_OVER, V3_IDENTIFIER_REJECTED,
    V3_NOT_AUTHORIZED,
};
use crate::support::{Ack, Client, Connect, Publish, SILENCE, V5, V311, for_versions};
use crate::{Files, as_user, in_version};

#[test]
fn a_session_belongs_to_its_user_unless_bind_sessions_is_off() {
    let files = Files::new("sessions").with_users(&["alice", "bob"]);
    let broker = files.broker("");
    for_versions(|version| {
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        let name = &format!("shared-{version:?}");
        let kept = |user| as_user(version, user, name).durable();
        let mut alice = Client::connect(&broker, kept("alice"));
        alice.subscribe("t", 1);
        Client::refused(&broker, kept("bob"), no);
        Client::refused(&broker, as_user(version, "bob", name), no);
        alice.expect_alive(); // no take-over happened
        alice.vanish();
        Client::refused(&broker, kept("bob"), no);
        let mut bob = Client::connect(&broker, as_user(version, "bob", "own"));
        bob.publish(Publish::new("t", "for alice").qos(1, 1));
        let mut alice = Client::connect(&broker, kept("alice"));
        assert!(alice.connack.session_present);
        alice.expect_message("for alice");
    });
    broker.await_log("session-of-another-user", 6);
    let broker = files.broker("bind_sessions = false");
    Client::connect(&broker, as_user(V5, "alice", "shared").durable()).vanish();
    let bob = Client::connect(&broker, as_user(V5, "bob", "shared").durable());
    assert!(bob.connack.session_present);
}

#[test]
#[cfg(feature = "store")]
fn ownership_survives_a_crash_and_an_anonymous_session_ends_for_the_first_user() {
    let files = Files::new("owner").with_users(&["alice", "bob"]);
    let data = format!("[storage]\ndata = {:?}\n", files.path("data"));
    let start = |more| Broker::with_config(&format!("{data}{}", files.access(more)));
    let kept = |user, name| as_user(V5, user, name).durable();
    let first = start("anonymous = true");
    Client::connect(&first, kept("alice", "hers")).vanish();
    Client::connect(&first, Connect::v5("nobodys").durable()).vanish();
    drop(first); // SIGKILL
    let second = start("");
    Client::refused(&second, kept("bob", "hers"), NOT_AUTHORIZED);
    assert!(!Client::connect(&second, kept("bob", "nobodys")).connack.session_present);
    drop(second);
    let third = start("");
    assert!(Client::connect(&third, kept("alice", "hers")).connack.session_present);
    Client::refused(&third, kept("alice", "nobodys"), NOT_AUTHORIZED);
    assert!(Client::connect(&third, kept("bob", "nobodys")).connack.session_present);
}

#[test]
fn open_qos_2_exchanges_of_an_anonymous_session_do_not_affect_the_next_owner() {
    let files = Files::new("swallow").with_users(&["alice", "bob"]);
    let broker = files.broker("anonymous = true");
    for_versions(|version| {
        let name = &format!("shared-{version:?}");
        let mut bob = Client::connect(&broker, as_user(version, "bob", "listens"));
        bob.subscribe("t", 2);
        let mut nobody = Client::connect(&broker, Connect::new(version, name).durable());
        nobody.subscribe("t", 1);
        nobody.send(Publish::new("t", "nobody's").qos(2, 7));
        let is_pubrec =
            |packet| matches!(packet, crate::support::Packet::Ack(ack) if ack == Ack::pubrec(7));
        let seen = [nobody.receive(), nobody.receive()];
        assert!(seen.into_iter().any(is_pubrec)); // no PUBREL follows
        bob.expect_message("nobody's");
        nobody.vanish();
        let mut alice = Client::connect(&broker, as_user(version, "alice", name).durable());
        assert!(!alice.connack.session_present);
        alice.publish(Publish::new("t", "alice's").qos(2, 7));
        bob.expect_message("alice's");
        alice.expect_silence(SILENCE); // she owns neither the subscription nor its messages
        alice.vanish();
        // The anonymous owner no longer has it.
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        Client::refused(&broker, Connect::new(version, name), no);
    });
    broker.await_log("belonged to another user, or to none", 2);
}

const BOUND: &str = "\
for users
  allow client %u-*
  allow all #
for user admin
  allow client *
for anonymous
  allow client guest-*
  allow all #
";

#[test]
fn a_rule_binds_a_client_identifier_to_a_user() {
    let files = Files::new("bound").with_users(&["alice", "bob", "admin"]).with_rules(BOUND);
    let broker = files.broker("anonymous = true");
    for_versions(|version| {
        let no = in_version(version, CLIENT_IDENTIFIER_NOT_VALID, V3_IDENTIFIER_REJECTED);
        Client::connect(&broker, as_user(version, "alice", "alice-1")).expect_alive();
        for name in ["bob-1", "alice", "1", "guest-1"] {
            Client::refused(&broker, as_user(version, "alice", name), no);
        }
        Client::refused(&broker, Connect::new(version, "alice-1"), no);
        Client::connect(&broker, Connect::new(version, "guest-1")).expect_alive();
        Client::connect(&broker, as_user(version, "admin", "x")).expect_alive();
    });
    // Assigned Client Identifiers are not chosen by clients.
    Client::connect(&broker, as_user(V5, "alice", "")).expect_alive();
    broker.await_log("client-identifier-not-allowed", 5);
}

#[test]
fn a_rule_lets_clean_start_end_a_disconnected_session_of_another_user() {
    let files = Files::new("left").with_users(&["alice", "bob"]);
    let files = files.with_rules("for everyone\n allow all #\n");
    let broker = files.broker("anonymous = true");
    for version in [V311, V5] {
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        let name = &format!("device-{version:?}");
        let mut bob = Client::connect(&broker, as_user(version, "bob", name).durable());
        bob.subscribe("t", 1);
        bob.vanish();
        // Without such a rule nobody may take over the session: neither a new account nor an
        // anonymous client.
        Client::refused(&broker, as_user(version, "alice", name), no);
        Client::refused(&broker, Connect::new(version, name), no);
    }
    broker.await_log("or by `broker store end-session`", 4);
    files.write("acl", "for everyone\n allow client device-*\n allow all #\n");
    files.reload(&broker);
    for version in [V311, V5] {
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        let name = &format!("device-{version:?}");
        // Messages queued for bob are not delivered to others, and a connected client is not
        // disconnected.
        Client::refused(&broker, as_user(version, "alice", name).durable(), no);
        let mut bob = Client::connect(&broker, as_user(version, "bob", name).durable());
        Client::refused(&broker, as_user(version, "alice", name), no);
        bob.expect_alive();
        bob.vanish();
        let alice = Client::connect(&broker, as_user(version, "alice", name));
        assert!(!alice.connack.session_present);
        alice.disconnect();
        let mut alice = Client::connect(&broker, as_user(version, "alice", name).durable());
        alice.subscribe("t", 1);
        alice.vanish();
        // Authentication is disabled, and the rule applies to anonymous clients as well.
        let nobody = Client::connect(&broker, Connect::new(version, name));
        assert!(!nobody.connack.session_present);
        nobody.disconnect();
    }
}

#[test]
#[cfg(feature = "store")]
fn broker_store_end_session_ends_a_session_and_keeps_other_messages() {
    let files = Files::new("end-session").with_users(&["alice", "bob"]);
    let data = files.path("data");
    let storage = format!("[storage]\ndata = {data:?}\n");
    let start = |access: &str| Broker::with_config(&format!("{storage}{access}"));
    let end = |client: &str| {
        let mut command = crate::broker(&["--data"]);
        command.arg(&data).args(["store", "end-session", "--client", client]);
        let out = crate::run(&mut command, "");
        (out.status.code(), crate::text(&out.stdout) + &crate::text(&out.stderr))
    };
    let first = start(&files.access(""));
    for name in ["device", "other"] {
        let mut client = Client::connect(&first, as_user(V311, "bob", name).durable());
        client.subscribe("t", 1);
        client.subscribe("$share/g/s", 1);
        client.vanish();
    }
    let mut alice = Client::connect(&first, as_user(V5, "alice", "alice"));
    for number in 1..=4 {
        alice.publish(Publish::new("s", number.to_string()).qos(1, number));
    }
    let (code, said) = end("device");
    assert!(code == Some(5) && said.contains("in use by another process"), "{code:?} {said}");
    drop(first);
    // Authentication is disabled again.
    let second = start("");
    Client::refused(&second, Connect::new(V311, "device").durable(), V3_NOT_AUTHORIZED);
    drop(second);
    let (code, said) = end("device");
    assert!(code == Some(0) && said.contains("the session of \"device\" has ended"), "{said}");
    let (code, said) = end("device");
    assert!(code == Some(1) && said.contains("there is no session of \"device\""), "{said}");
    let third = start("");
    let mut device = Client::connect(&third, Connect::new(V311, "device").durable());
    assert!(!device.connack.session_present);
    Client::refused(&third, Connect::new(V311, "other").durable(), V3_NOT_AUTHORIZED);
    device.expect_silence(SILENCE);
    drop(third);
    // Messages queued for the shared subscription move to its other member.
    let fourth = start(&files.access(""));
    let mut other = Client::connect(&fourth, as_user(V311, "bob", "other").durable());
    assert!(other.connack.session_present);
    let mut seen: Vec<String> = (0..4)
        .map(|_| {
            let publish = other.expect_publish();
            other.acknowledge(&publish);
            publish.text().to_owned()
        })
        .collect();
    seen.sort();
    assert_eq!(seen, ["1", "2", "3", "4"]);
}

#[test]
fn the_owner_of_an_identifier_may_end_another_users_session_with_clean_start() {
    let files = Files::new("ended").with_users(&["alice", "bob", "carol"]);
    let files = files.with_rules("for everyone\n allow client *\n allow all #\n");
    let broker = files.broker("");
    for_versions(|version| {
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        let name = &format!("alice-{version:?}");
        let mut bob = Client::connect(&broker, as_user(version, "bob", name).durable());
        bob.subscribe("t", 1);
        // A rule that allows every identifier to everybody does not allow anybody to disconnect
        // others.
        Client::refused(&broker, as_user(version, "alice", name), no);
        bob.vanish();
    });
    broker.await_log("session-of-another-user", 2);
    files.write(
        "acl",
        "for users\n allow client %u-*\n allow all #\nfor everyone\n allow client *\n",
    );
    files.reload(&broker);
    broker.await_log("\"reloaded\"", 1);
    for_versions(|version| {
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        let name = &format!("alice-{version:?}");
        let mut bob = Client::connect(&broker, as_user(version, "bob", name).durable());
        assert!(bob.connack.session_present);
        Client::refused(&broker, as_user(version, "alice", name).durable(), no);
        Client::refused(&broker, as_user(version, "carol", name), no);
        let alice = Client::connect(&broker, as_user(version, "alice", name));
        assert!(!alice.connack.session_present);
        bob.expect_violation(SESSION_TAKEN_OVER);
        alice.disconnect();
    });
}
