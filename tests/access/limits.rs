//! The limits of `[limits]` that refuse clients, with the response in each protocol version.

use crate::support::reason::{
    QUOTA_EXCEEDED, SERVER_BUSY, TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID, V3_SERVER_UNAVAILABLE,
};
use crate::support::{Broker, Client, Connect, Publish, Subscribe, V5, Version, for_all_versions};
use crate::{await_metric, in_version};

const CONNECTION_RATE_EXCEEDED: u8 = 0x9F;

fn limited(limit: &str) -> Broker {
    Broker::with_config(&format!("[limits]\n{limit}\n[mqtt]\nsys_interval_s = 1\n"))
}

fn named(version: Version, name: &str) -> Connect {
    Connect::new(version, name)
}

#[test]
fn a_connection_beyond_the_limit_is_refused_until_another_has_ended() {
    for_all_versions(|version| {
        let no = in_version(version, QUOTA_EXCEEDED, V3_SERVER_UNAVAILABLE);
        let broker = limited("connections_max = 2");
        let first = Client::connect(&broker, named(version, "1"));
        let mut second = Client::connect(&broker, named(version, "2"));
        Client::refused(&broker, named(version, "3"), no);
        second.expect_alive();
        first.disconnect();
        await_metric(&broker, named(V5, "m"), "connections/refused", 1);
        Client::connect(&broker, named(version, "3")).expect_alive();
    });
}

#[test]
fn connections_beyond_the_rate_limit_are_refused() {
    for_all_versions(|version| {
        let no = in_version(version, CONNECTION_RATE_EXCEEDED, V3_SERVER_UNAVAILABLE);
        let broker = limited("connections_per_second_max = 1");
        // A second may end between any two of them, but not between all.
        let mut clients: Vec<Client> = (0..6).map(|_| Client::open(&broker, version)).collect();
        let mut refused = 0;
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(named(version, &format!("c-{number}")));
            let connack = client.expect_connack();
            assert!([0, no].contains(&connack.reason), "{connack:?}");
            refused += u32::from(connack.reason == no);
        }
        assert!(refused >= 3, "{refused} of 6");
    });
}

#[test]
fn a_session_beyond_the_limit_is_refused_and_existing_ones_are_unaffected() {
    for_all_versions(|version| {
        let no = in_version(version, QUOTA_EXCEEDED, V3_SERVER_UNAVAILABLE);
        let broker = limited("sessions_max = 2");
        Client::connect(&broker, named(version, "away").durable()).vanish();
        let _here = Client::connect(&broker, named(version, "here"));
        Client::refused(&broker, named(version, "new"), no);
        let back = Client::connect(&broker, named(version, "away").durable());
        assert!(back.connack.session_present || version == Version::V31);
        await_metric(&broker, named(V5, "away"), "connections/refused", 1);
    });
}

#[test]
fn a_subscription_beyond_the_limit_is_refused_until_another_is_removed() {
    for_all_versions(|version| {
        let no = in_version(version, QUOTA_EXCEEDED, 0x80);
        let broker = limited("subscriptions_per_client_max = 2");
        let mut client = Client::connect(&broker, named(version, "c"));
        client.send(Subscribe::new(1, "1", 0).and("2", 0).and("3", 0).and("1", 1));
        assert_eq!(
            client.expect_suback().reasons,
            [0, 0, no, 1],
            "a repeated subscription is not counted again"
        );
        client.send(crate::support::Unsubscribe::new(2, "1"));
        client.receive();
        client.subscribe("3", 0);
        await_metric(&broker, named(V5, "m"), "subscriptions/refused", 1);
    });
}

#[test]
fn a_wildcard_or_shared_subscription_beyond_the_limit_is_refused_until_another_is_removed() {
    for (limits, filters) in [
        ("wildcard_subscriptions_per_client_max = 2", ["a/+", "b/#", "$share/g/c/+"]),
        ("shared_subscriptions_per_client_max = 2", ["$share/g/a", "$share/g/+", "$share/h/a"]),
        ("wildcard_subscriptions_max = 2", ["a/+", "$share/g/c/+", "#"]),
        ("shared_subscriptions_max = 2", ["$share/g/a", "$share/g/+", "$share/h/a"]),
    ] {
        for_all_versions(|version| {
            let no = in_version(version, QUOTA_EXCEEDED, 0x80);
            let broker = limited(limits);
            let mut client = Client::connect(&broker, named(version, "c"));
            let [first, second, third] = filters;
            client.send(Subscribe::new(1, first, 0).and(second, 0).and(third, 0).and(first, 1));
            assert_eq!(client.expect_suback().reasons, [0, 0, no, 1], "{limits}");
            client.subscribe("exact", 0);
            client.send(crate::support::Unsubscribe::new(2, second));
            client.receive();
            client.subscribe(third, 0);
            await_metric(&broker, named(V5, "m"), "subscriptions/refused", 1);
        });
    }
}

#[test]
fn total_limits_apply_over_all_clients_and_cores() {
    let limits = "wildcard_subscriptions_max = 4\nshared_subscriptions_max = 4\n";
    // The flags name the executor and the number of cores, if any.
    let cores = match std::env::var_os("RINGMQ_TEST_FLAGS") {
        None => "mode = \"poll\"\ncores = 2\n",
        Some(_) => "",
    };
    let broker = Broker::with_config(&format!("{cores}[limits]\n{limits}"));
    let mut clients: Vec<Client> =
        (0..8).map(|n| Client::connect(&broker, named(V5, &format!("c{n}")))).collect();
    let mut granted = [0, 0];
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(Subscribe::new(1, format!("{n}/+"), 0).and(format!("$share/{n}/a"), 0));
        let reasons = client.expect_suback().reasons;
        granted = [0, 1].map(|of| granted[of] + u32::from(reasons[of] == 0));
    }
    assert_eq!(granted, [4, 4]);
    // A client that joins an existing group is not counted again.
    clients[7].send(Subscribe::new(2, "$share/0/a", 0).and("exact", 0));
    assert_eq!(clients[7].expect_suback().reasons[1], 0);
}

#[test]
fn the_number_of_levels_of_topics_and_filters_is_limited() {
    for_all_versions(|version| {
        let no = in_version(version, TOPIC_FILTER_INVALID, 0x80);
        let broker = limited("topic_levels_max = 3");
        let mut client = Client::connect(&broker, named(version, "c"));
        client.send(Subscribe::new(1, "a/b/+", 0).and("a/b/+/d", 0).and("a/b/#", 0));
        assert_eq!(client.expect_suback().reasons, [0, no, 0]);
        client.publish(Publish::new("a/b/c", "fits"));
        client.expect_message("fits");
        client.send(Publish::new("a/b/c/d", "does not"));
        client.expect_violation(TOPIC_NAME_INVALID);
    });
}

#[test]
fn a_connection_without_connect_is_closed_after_a_timeout_without_a_packet() {
    let broker = limited("connect_timeout_s = 1");
    let mut silent = Client::open(&broker, V5);
    let mut halfway = Client::open(&broker, V5);
    halfway.raw(b"\x10\x20\x00\x04MQTT");
    let mut inside = Client::connect(&broker, named(V5, "c"));
    silent.expect_closed();
    halfway.expect_closed();
    inside.expect_alive();
    await_metric(&broker, named(V5, "m"), "connections/timeouts", 2);
}

#[test]
fn when_memory_is_full_new_clients_are_refused_with_server_busy() {
    for_all_versions(|version| {
        let broker = limited("memory_bytes_max = 1000000");
        let mut keeper = Client::connect(&broker, named(V5, "keeper"));
        let large = "x".repeat(200_000);
        for number in 0..6 {
            let topic = format!("kept/{number}");
            keeper.send(Publish::new(&topic, &large).retain());
            // Connected one at a time: with little memory in use, input of all at once would not
            // fit either.
            keeper.expect_alive();
        }
        crate::support::settle();
        let no = in_version(version, SERVER_BUSY, V3_SERVER_UNAVAILABLE);
        Client::refused(&broker, named(version, "c"), no);
        keeper.expect_alive();
    });
}
