//! QoS 0 messages for sessions without a connection.

use super::*;
use crate::config::QueuePolicy;

fn world(queue_qos0: bool, change: impl FnOnce(&mut Settings)) -> World {
    let change = |settings: &mut Settings| {
        settings.limits.queue_qos0 = queue_qos0;
        change(settings);
    };
    World::with(change, Box::new(AllowAll))
}

/// Clients with persistent sessions that are subscribed to `t` and away.
fn away(world: &mut World, names: &[&str], qos: Qos) {
    for name in names {
        let id = world.connect(&Client::persistent(name));
        world.subscribe(id, "t", qos);
        world.cut(id);
    }
}

fn received(world: &mut World, name: &str) -> Vec<String> {
    let id = world.accept();
    world.send_connect(id, &Client::persistent(name));
    world.payloads(id)
}

#[test]
fn qos_0_messages_wait_for_clients_that_are_away_where_the_settings_say_so() {
    // One by one, and in a batch for many subscribers.
    for names in [&["a"][..], &["a", "b", "c", "d", "e", "f"]] {
        for queue_qos0 in [false, true] {
            let mut world = world(queue_qos0, |_| {});
            let publisher = world.connect(&Client::v5("publisher"));
            away(&mut world, names, Qos::AtMostOnce);
            for payload in [b"1", b"2", b"3"] {
                world.publish(publisher, "t", payload, Qos::AtMostOnce, 1);
            }
            let queued = world.engine.metrics().messages_queued;
            let (all, expected): (_, &[&str]) = match queue_qos0 {
                true => (3 * names.len() as u64, &["1", "2", "3"]),
                false => (0, &[]),
            };
            assert_eq!(queued, all, "{names:?}");
            for name in names {
                assert_eq!(received(&mut world, name), expected, "{name}");
            }
            assert_eq!(world.engine.metrics().messages_queued, 0);
        }
    }
}

#[test]
fn queued_qos_0_messages_keep_their_place_among_those_of_other_qos() {
    let mut world = world(true, |_| {});
    let publisher = world.connect(&Client::v5("publisher"));
    away(&mut world, &["a"], Qos::AtLeastOnce);
    for (payload, qos) in
        [(b"1", Qos::AtMostOnce), (b"2", Qos::AtLeastOnce), (b"3", Qos::AtMostOnce)]
    {
        world.publish(publisher, "t", payload, qos, 7);
    }
    assert_eq!(received(&mut world, "a"), ["1", "2", "3"]);
}

#[test]
fn queued_qos_0_messages_are_within_the_limits_of_the_queue() {
    let mut world = world(true, |settings| settings.limits.queue_messages_max = 2);
    let publisher = world.connect(&Client::v5("publisher"));
    away(&mut world, &["a"], Qos::AtMostOnce);
    for payload in [b"1", b"2", b"3"] {
        world.publish(publisher, "t", payload, Qos::AtMostOnce, 1);
    }
    let drops = world.engine.metrics().drops.clone();
    assert_eq!(drops.of(crate::base::metrics::Drop::QueueFull), 1);
    assert_eq!(received(&mut world, "a"), ["1", "2"]);
}

#[test]
fn qos_0_messages_that_wait_when_a_client_leaves_stay_for_a_persistent_session_only() {
    for (is_persistent, kept) in [(true, 3), (false, 0)] {
        let mut world = world(true, |settings| {
            settings.limits.queue_policy = QueuePolicy::DropOldest;
        });
        let client =
            if is_persistent { Client::persistent("reader") } else { Client::v5("reader") };
        let [reader, publisher] = [client, Client::v5("p")].map(|client| world.connect(&client));
        world.subscribe(reader, "t", Qos::AtMostOnce);
        // Most consumers keep up, so that the publisher is not paused.
        for name in ["x", "y"] {
            let id = world.connect(&Client::v5(name));
            world.subscribe(id, "t", Qos::AtMostOnce);
        }
        world.stuck.insert(reader);
        // The first one fills the output of the client, the others wait.
        let large = vec![b'x'; 500_000];
        for _ in 0..4 {
            world.publish(publisher, "t", &large, Qos::AtMostOnce, 1);
        }
        assert_eq!(world.engine.metrics().messages_queued, 3);
        world.cut(reader);
        assert_eq!(world.engine.metrics().messages_queued, kept, "{is_persistent}");
    }
}
