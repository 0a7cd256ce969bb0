//! Counters of messages in every way in which they are delivered.

use super::cores::Cores;
use super::*;

/// Publishes a payload of this many bytes to `t` on the first of two cores, with `subscribers` on each.
fn counts(bytes: usize, qos: Qos, subscribers: usize) -> [(u64, u64); 2] {
    let mut cores = Cores::new(2);
    let publisher = cores.connect(0);
    for core in 0..2 {
        for _ in 0..subscribers {
            let id = cores.connect(core);
            cores.0[core].subscribe(id, "t", qos);
            cores.settle();
        }
    }
    cores.0[0].publish(publisher, "t", &vec![b'x'; bytes], qos, 1);
    cores.settle();
    [0, 1].map(|core: usize| {
        let metrics = cores.0[core].engine.metrics();
        assert_eq!(metrics.publishes_received, u64::from(core == 0));
        assert_eq!(metrics.publishes_sent, subscribers as u64);
        (metrics.publish_bytes_received, metrics.publish_bytes_sent)
    })
}

#[test]
fn bytes_of_payloads_are_counted_however_a_message_is_delivered() {
    // Short and by reference; one by one, and in a batch for many subscribers.
    for bytes in [0, 5, 10_000] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for subscribers in [1, 8] {
                let (bytes, sent) = (bytes as u64, (bytes * subscribers) as u64);
                let counts = counts(bytes as usize, qos, subscribers);
                assert_eq!(counts, [(bytes, sent), (0, sent)], "{bytes} {qos:?} {subscribers}");
            }
        }
    }
}

#[test]
fn bytes_of_payloads_are_counted_when_a_client_takes_a_part_of_a_batch() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("publisher"));
    let mut small = Client::v5("small");
    small.properties.maximum_packet_size = Some(50);
    let mut ids = vec![world.connect(&small)];
    ids.extend(["a", "b", "c", "d"].map(|name| world.connect(&Client::v5(name))));
    for &id in &ids {
        world.subscribe(id, "t", Qos::AtMostOnce);
    }
    let large = [b'x'; 100];
    let packets =
        [b"12345".as_slice(), &large].map(|payload| publish("t", payload, Qos::AtMostOnce, 1));
    world.send_all(publisher, &packets.map(Packet::Publish));
    assert_eq!(world.payloads(ids[0]), ["12345"]);
    let metrics = world.engine.metrics();
    assert_eq!((metrics.publishes_sent, metrics.publish_bytes_sent), (9, 5 + 4 * 105));
}

#[test]
fn sent_packets_are_publish_packets_and_all_others() {
    let mut world = World::new();
    let [reader, publisher] = ["r", "p"].map(|name| world.connect(&Client::v5(name)));
    world.subscribe(reader, "t", Qos::AtMostOnce);
    world.publish(publisher, "t", b"x", Qos::AtLeastOnce, 1);
    let metrics = world.engine.metrics();
    // CONNACK twice, SUBACK, PUBACK and PUBLISH.
    assert_eq!((metrics.packets_sent, metrics.publishes_sent), (5, 1));
    assert_eq!(metrics.connects_received, 2);
}

#[test]
fn connects_are_counted_on_the_home_core_only() {
    let mut cores = Cores::new(2);
    for n in 0..8 {
        let id = cores.0[0].accept();
        cores.0[0].send_connect(id, &Client::v5(&format!("client {n}")));
    }
    let left = std::mem::take(&mut cores.0[0].leaving);
    assert!(!left.is_empty() && left.len() < 8, "by chance on two cores");
    let home = &mut cores.0[1];
    for (_, _, handed_over) in left {
        home.engine.handle_handed_over(home.now, *handed_over).expect("there is room");
        while home.engine.poll_action().is_some() {}
    }
    let counts = cores.0.iter_mut().map(|world| world.engine.metrics().connects_received);
    assert_eq!(counts.sum::<u64>(), 8);
}

#[test]
fn output_that_waits_is_counted_until_it_is_taken_or_its_connection_ends() {
    for is_cut in [false, true] {
        let mut world = World::new();
        let [reader, publisher] = ["r", "p"].map(|name| world.connect(&Client::v5(name)));
        world.subscribe(reader, "t", Qos::AtMostOnce);
        let before = world.engine.metrics().clone();
        assert_eq!(before.output_bytes, 0);
        world.stuck.insert(reader);
        for _ in 0..3 {
            world.publish(publisher, "t", &[b'x'; 1_000], Qos::AtMostOnce, 1);
        }
        let waits = world.engine.metrics().clone();
        assert!((3_000..3_100).contains(&waits.output_bytes), "{}", waits.output_bytes);
        assert!(waits.memory_bytes >= before.memory_bytes + 3_000, "it counts for the bound");
        match is_cut {
            false => world.unstick(reader),
            true => world.cut(reader),
        }
        assert_eq!(world.engine.metrics().output_bytes, 0, "{is_cut}");
    }
}

#[test]
fn bytes_of_queued_messages_are_counted_until_they_leave_the_queue() {
    let mut world = World::new();
    let [reader, publisher] = ["r", "p"].map(|name| world.connect(&Client::persistent(name)));
    world.subscribe(reader, "t", Qos::AtLeastOnce);
    world.cut(reader);
    for number in 1..=3 {
        world.publish(publisher, "t", &[b'x'; 1_000], Qos::AtLeastOnce, number);
    }
    let queued = |world: &mut World| {
        let metrics = world.engine.metrics();
        (metrics.messages_queued, metrics.queue_bytes / 1_000)
    };
    assert_eq!(queued(&mut world), (3, 3));
    world.connect(&Client::persistent("r"));
    assert_eq!(queued(&mut world), (0, 0));
}

#[test]
fn shared_subscriptions_are_counted_by_member() {
    let mut world = World::new();
    let ids = ["a", "b", "c"].map(|name| world.connect(&Client::v5(name)));
    for id in ids {
        world.subscribe(id, "$share/g/t", Qos::AtMostOnce);
        world.subscribe(id, "$share/g/t", Qos::AtLeastOnce); // replaces the one before
        world.subscribe(id, "t/+", Qos::AtMostOnce);
    }
    let counts = |world: &mut World| {
        let metrics = world.engine.metrics();
        (metrics.subscriptions, metrics.subscriptions_shared, metrics.shared_members)
    };
    assert_eq!(counts(&mut world), (6, 1, 3));
    world.cut(ids[0]);
    assert_eq!(counts(&mut world), (4, 1, 2));
    world.cut(ids[1]);
    world.cut(ids[2]);
    assert_eq!(counts(&mut world), (0, 0, 0));
}
