//! Limits per address, user and client over time.

use crate::support::reason::{
    BAD_USER_NAME_OR_PASSWORD, BANNED, QUOTA_EXCEEDED, TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID,
    V3_NOT_AUTHORIZED,
};
use crate::support::{Broker, Client, Connect, Publish, Subscribe, V5, Will, for_versions};
use crate::{Files, as_user, in_version};

#[test]
fn limits_of_an_address_apply_before_any_input_is_read() {
    let bounds = "[protection]\nexempt = []\nconnections_per_address_max = 2\n";
    let broker = Broker::with_config(bounds);
    let first = Client::connect(&broker, Connect::v5("1"));
    let mut second = Client::connect(&broker, Connect::v5("2"));
    Client::open(&broker, V5).expect_closed();
    first.disconnect();
    Client::connect(&broker, Connect::v5("3")).expect_alive();
    second.expect_alive();
}

#[test]
fn an_address_that_guesses_passwords_is_banned_and_exempt_ones_are_not() {
    let files = Files::new("guesses").with_users(&["alice"]);
    let guess = || Connect::v5("c").username("alice").password("guess");
    let bounds = "[protection]\nrefusals_max = 3\nexempt = []\n";
    let broker = files.broker(bounds);
    (0..3).for_each(|_| drop(Client::refused(&broker, guess(), BAD_USER_NAME_OR_PASSWORD)));
    broker.await_log("address banned: too many failed authentications", 1);
    Client::open(&broker, V5).expect_closed();
    let broker = files.broker("[protection]\nrefusals_max = 3\n");
    (0..4).for_each(|_| drop(Client::refused(&broker, guess(), BAD_USER_NAME_OR_PASSWORD)));
    Client::connect(&broker, as_user(V5, "alice", "c"));
}

#[test]
fn a_client_that_reconnects_repeatedly_is_banned_and_others_are_not() {
    let broker = Broker::with_config("[protection]\nflaps_max = 3\n");
    (0..3).for_each(|_| Client::connect(&broker, Connect::v5("c")).disconnect());
    Client::refused(&broker, Connect::v5("c"), BANNED);
    Client::refused(&broker, Connect::v311("c"), V3_NOT_AUTHORIZED);
    Client::connect(&broker, Connect::v5("d")).expect_alive();
}

#[test]
fn the_connections_of_a_user_are_limited_and_a_take_over_is_allowed() {
    let files = Files::new("quota").with_users(&["alice", "bob"]);
    let broker = files.broker("[protection]\nconnections_per_user_max = 1\n");
    let _old = Client::connect(&broker, as_user(V5, "alice", "1"));
    Client::refused(&broker, as_user(V5, "alice", "2"), QUOTA_EXCEEDED);
    Client::connect(&broker, as_user(V5, "bob", "2")).expect_alive();
    let again = Client::connect(&broker, as_user(V5, "alice", "1"));
    again.disconnect();
    Client::connect(&broker, as_user(V5, "alice", "2")).expect_alive();
}

#[test]
fn the_retained_messages_of_a_user_are_limited_independently_of_other_users() {
    let files = Files::new("holdings").with_users(&["alice", "bob"]);
    let broker = files.broker("[protection]\nretained_messages_per_user_max = 1\n");
    let mut alice = Client::connect(&broker, as_user(V5, "alice", "1"));
    let mut bob = Client::connect(&broker, as_user(V5, "bob", "1-b"));
    let retain = |of: &mut Client, topic, number| {
        of.send(Publish::new(topic, "x").qos(1, number).retain());
        of.expect_ack().reason
    };
    assert_ne!(retain(&mut alice, "a", 1), QUOTA_EXCEEDED);
    assert_eq!(retain(&mut alice, "b", 2), QUOTA_EXCEEDED);
    assert_ne!(retain(&mut bob, "b", 1), QUOTA_EXCEEDED);
    assert_ne!(retain(&mut alice, "a", 3), QUOTA_EXCEEDED);
}

#[test]
fn the_length_of_topics_and_filters_is_limited() {
    let broker = Broker::with_config("[limits]\ntopic_bytes_max = 5\n");
    for_versions(|version| {
        let no = in_version(version, TOPIC_FILTER_INVALID, 0x80);
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.send(Subscribe::new(1, "12345", 0).and("123456", 0).and("$share/g/1", 0));
        assert_eq!(client.expect_suback().reasons, [0, no, no]);
        client.publish(Publish::new("12345", "fits"));
        client.expect_message("fits");
        client.send(Publish::new("123456", "does not"));
        client.expect_violation(TOPIC_NAME_INVALID);
        let will = Connect::new(version, "w").will(Will::new("123456", "gone"));
        let mut client = Client::open(&broker, version);
        client.send(will);
        client.expect_closed_or_refused(TOPIC_NAME_INVALID);
    });
}
