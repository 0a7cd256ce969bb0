//! Whose a session is.

use crate::support::reason::{NOT_AUTHORIZED, V3_NOT_AUTHORIZED};
#[cfg(feature = "store")]
use crate::support::{Broker, Connect};
use crate::support::{Client, Publish, V5, for_versions};
use crate::{Files, as_user, in_version};

#[test]
fn a_session_is_for_the_user_that_made_it_and_for_everybody_where_that_is_switched_off() {
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
        alice.expect_alive(); // it was not taken over
        alice.vanish();
        Client::refused(&broker, kept("bob"), no);
        let mut bob = Client::connect(&broker, as_user(version, "bob", "own"));
        bob.publish(Publish::new("t", "for alice").qos(1, 1));
        let mut alice = Client::connect(&broker, kept("alice"));
        assert!(alice.connack.session_present);
        alice.expect_message("for alice");
    });
    broker.await_log("belongs to another user", 6);
    let broker = files.broker("bind_sessions = false");
    Client::connect(&broker, as_user(V5, "alice", "shared").durable()).vanish();
    let bob = Client::connect(&broker, as_user(V5, "bob", "shared").durable());
    assert!(bob.connack.session_present);
}

#[test]
#[cfg(feature = "store")]
fn a_session_stays_its_users_when_the_broker_is_killed_and_one_of_nobody_is_the_first_users() {
    let files = Files::new("owner").with_users(&["alice", "bob"]);
    let data = format!("[storage]\ndata = {:?}\n", files.path("data"));
    let start = |more| Broker::with_config(&format!("{data}{}", files.access(more)));
    let kept = |user, name| as_user(V5, user, name).durable();
    let first = start("anonymous = true");
    Client::connect(&first, kept("alice", "hers")).vanish();
    Client::connect(&first, Connect::v5("nobodys").durable()).vanish();
    drop(first); // it is killed
    let second = start("");
    Client::refused(&second, kept("bob", "hers"), NOT_AUTHORIZED);
    assert!(Client::connect(&second, kept("bob", "nobodys")).connack.session_present);
    drop(second);
    let third = start("");
    assert!(Client::connect(&third, kept("alice", "hers")).connack.session_present);
    Client::refused(&third, kept("alice", "nobodys"), NOT_AUTHORIZED);
}
