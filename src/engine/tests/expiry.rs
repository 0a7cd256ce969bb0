//! Expiry of messages: retained messages are removed without any other event, a bounded number in a
//! turn, and leave nothing behind.

use super::cores::Cores;
use super::*;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;

impl World {
    fn retain(&mut self, id: ConnectionId, topic: &str, payload: &[u8], expiry_s: Option<u32>) {
        let mut publish = publish(topic, payload, Qos::AtLeastOnce, 1);
        publish.retain = true;
        publish.properties.message_expiry_interval = expiry_s;
        self.send(id, Version::V5, &Packet::Publish(publish));
    }

    fn retained(&mut self) -> (u64, u64, u64) {
        let metrics = self.engine.metrics();
        (metrics.retained_messages, metrics.retained_bytes, metrics.retained_expired)
    }
}

#[test]
fn an_expired_retained_message_is_removed_without_any_subscriber() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    world.retain(id, "stays", b"1", None);
    let bytes_before = world.engine.memory.ledger().bytes();
    for n in 0..100 {
        world.retain(id, &format!("t/{n}"), b"1", Some(1 + n % 3));
    }
    world.retain(id, "far", b"1", Some(200_000));
    world.advance_ms(999);
    assert_eq!(world.retained().0, 102);
    world.advance_ms(30);
    assert_eq!(world.retained().0, 102 - 34);
    world.advance_ms(2_000);
    assert_eq!((world.retained().0, world.retained().2), (2, 100));
    for _ in 0..200 {
        world.advance_ms(1_000_000);
    }
    assert_eq!((world.retained().0, world.retained().2), (1, 101));
    assert_eq!(world.engine.memory.ledger().bytes(), bytes_before);
}

#[test]
fn expired_messages_leave_room_for_new_ones() {
    let change = |settings: &mut Settings| settings.limits.retained_messages_max = 1_000;
    let mut world = World::with(change, Box::new(AllowAll));
    let id = world.connect(&Client::v5("c"));
    for n in 0..1_000 {
        world.retain(id, &format!("t/{n}"), b"1", Some(1));
    }
    world.retain(id, "late", b"1", None);
    assert!(world.packets(id, Version::V5).pop().expect("PUBACK").contains("QuotaExceeded"));
    // The messages have expired, and no timer has fired yet.
    world.now = Now(world.now.0 + 1_000_001);
    world.retain(id, "late", b"1", None);
    assert!(world.packets(id, Version::V5).pop().expect("PUBACK").contains("NoMatching"));
}

#[test]
fn a_turn_removes_a_bounded_number_of_expired_messages() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    for n in 0..5_000 {
        world.retain(id, &format!("t/{n}"), b"1", Some(1));
    }
    world.now = Now(world.now.0 + 2_000_000);
    let mut turns = 0;
    while world.engine.poll_timeout().is_some_and(|deadline| deadline.is_due(world.now)) {
        let before = world.retained().0;
        world.engine.handle_timeout(world.now);
        world.turn();
        assert!(before - world.retained().0 <= 512, "{} in one turn", before - world.retained().0);
        turns += 1;
    }
    assert_eq!(world.retained(), (0, 0, 5_000));
    assert!((10..30).contains(&turns), "{turns} turns");
}

#[test]
fn a_replaced_message_leaves_no_expiry_entry_behind() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    let bytes_before = world.engine.memory.ledger().bytes();
    let timers_before = world.engine.timers.len();
    for n in 0..10_000u32 {
        world.retain(id, "t", b"1", Some(20_000 - n));
    }
    world.retain(id, "t", b"", None);
    assert_eq!(world.retained(), (0, 0, 0));
    assert_eq!(world.engine.memory.ledger().bytes(), bytes_before);
    assert!(world.engine.timers.len() <= timers_before + 1);
    for n in (1..=100u32).rev() {
        world.retain(id, "t", b"1", Some(n));
    }
    assert!(world.engine.timers.len() <= timers_before + limits::TIMER_AHEAD_S as usize + 1);
}

#[test]
fn every_core_expires_a_message_and_no_older_one_replaces_it() {
    let mut cores = Cores::new(2);
    let ids = [cores.connect(0), cores.connect(1)];
    cores.settle();
    // The older message is still in transit when the younger one has expired.
    cores.0[1].retain(ids[1], "t", b"older", None);
    cores.0[0].advance_ms(1);
    cores.0[0].retain(ids[0], "t", b"younger", Some(1));
    cores.0[0].retain(ids[0], "u", b"other", Some(1));
    cores.carry(0, 1);
    for _ in 0..4 {
        cores.0.iter_mut().for_each(|world| world.advance_ms(500));
    }
    cores.settle();
    for world in &mut cores.0 {
        assert_eq!(world.retained().0, 0);
        assert_eq!(world.retained().2, 2, "both messages have expired on this core");
    }
    for _ in 0..4 {
        cores.0.iter_mut().for_each(|world| world.advance_ms(1_000));
        cores.settle();
    }
    for world in &mut cores.0 {
        assert!(world.engine.retained.is_empty(), "tombstones are removed too");
    }
}

/// A disconnected client with a full queue of twenty messages; those for which `lives` returns true
/// do not expire.
fn full_queue(policy: QueuePolicy, lives: impl Fn(u16) -> bool) -> (World, ConnectionId) {
    let change = |settings: &mut Settings| {
        settings.limits.queue_messages_max = 20;
        settings.limits.queue_policy = policy;
    };
    let mut world = World::with(change, Box::new(AllowAll));
    let reader = world.connect(&Client::persistent("reader"));
    world.subscribe(reader, "t/#", Qos::AtLeastOnce);
    world.cut(reader);
    let writer = world.connect(&Client::v5("writer"));
    for number in 1..=20 {
        let expiry_s = (!lives(number)).then_some(1);
        world.publish_expiring(writer, &format!("t/{number}"), number, expiry_s);
    }
    (world, writer)
}

impl World {
    fn publish_expiring(
        &mut self,
        id: ConnectionId,
        topic: &str,
        number: u16,
        expiry_s: Option<u32>,
    ) {
        let payload = number.to_string();
        let mut publish = publish(topic, payload.as_bytes(), Qos::AtLeastOnce, number);
        publish.properties.message_expiry_interval = expiry_s;
        self.send(id, Version::V5, &Packet::Publish(publish));
    }

    fn payloads_on_return_of_any(&mut self) -> usize {
        let reader = self.accept();
        self.send_connect(reader, &Client::persistent("reader"));
        self.payloads(reader).len()
    }

    /// The messages that the reader receives when it reconnects.
    fn payloads_on_return(&mut self) -> Vec<u16> {
        let reader = self.accept();
        self.send_connect(reader, &Client::persistent("reader"));
        let payloads = self.payloads(reader);
        payloads.iter().map(|payload| payload.parse().expect("a number")).collect()
    }
}

#[test]
fn expired_messages_in_a_full_queue_make_room_before_any_message_is_dropped() {
    use QueuePolicy::*;
    for policy in [DropNewest, DropOldest, Disconnect, KeepLatest] {
        // All messages expire, those at the head, those at the tail, every third.
        let lives: [fn(u16) -> bool; 4] = [|_| false, |n| n > 10, |n| n <= 10, |n| n % 3 > 0];
        for lives in lives {
            let (mut world, writer) = full_queue(policy, lives);
            world.advance_ms(2_000);
            let alive: Vec<u16> = (1..=20).filter(|&number| lives(number)).collect();
            let fresh = 21..=40 - alive.len() as u16;
            for number in fresh.clone() {
                world.publish_expiring(writer, &format!("t/{number}"), number, None);
            }
            let metrics = world.engine.metrics();
            assert_eq!(metrics.drops.of(DropCause::QueueFull), 0, "{policy:?}");
            assert_eq!(metrics.drops.of(DropCause::Expired), 20 - alive.len() as u64);
            assert_eq!(metrics.messages_queued, 20);
            // The next message finds the queue full again.
            world.publish_expiring(writer, "t/last", 50, None);
            assert_eq!(world.engine.metrics().drops.of(DropCause::QueueFull), 1);
            let seen = world.payloads_on_return();
            let mut expected: Vec<u16> = alive.into_iter().chain(fresh).collect();
            if matches!(policy, DropOldest | KeepLatest) {
                expected.remove(0);
                expected.push(50);
            }
            assert_eq!(seen, expected, "{policy:?}");
            assert_eq!(world.engine.metrics().messages_queued, 0);
        }
    }
}

#[test]
fn a_long_queue_is_scanned_in_parts_and_only_when_a_message_may_have_expired() {
    const MESSAGES: usize = 20_000;
    let change = |settings: &mut Settings| {
        settings.limits.queue_messages_max = MESSAGES as u32;
    };
    let mut world = World::with(change, Box::new(AllowAll));
    let reader = world.connect(&Client::persistent("reader"));
    world.subscribe(reader, "t", Qos::AtLeastOnce);
    world.cut(reader);
    let writer = world.connect(&Client::v5("writer"));
    for number in 0..MESSAGES {
        let expires = number >= MESSAGES / 2;
        world.publish_expiring(writer, "t", 1, expires.then_some(10 + number as u32 % 10));
    }
    let steps_of = |world: &mut World| {
        world.engine.work.take_turn_max();
        world.publish_expiring(writer, "t", 2, None);
        world.engine.work.take_turn_max()
    };
    let first = steps_of(&mut world);
    assert!(first > 500 && first < 2_000, "{first}");
    for _ in 0..10 {
        steps_of(&mut world);
    }
    let known = steps_of(&mut world);
    assert!(known < 20, "nothing has expired yet: {known}");
    let full = |world: &mut World| world.engine.metrics().drops.of(DropCause::QueueFull);
    assert_eq!(full(&mut world), 12);
    world.advance_ms(11_000);
    let mut dropped = 0;
    while full(&mut world) > 12 + dropped {
        dropped += 1;
        assert!(steps_of(&mut world) < 2_000);
    }
    for _ in 0..10 {
        assert!(steps_of(&mut world) < 2_000);
    }
    assert!(full(&mut world) <= 12 + 5, "{}", full(&mut world));
    let alive = world.payloads_on_return().len();
    assert!(alive > 0);
}

#[test]
fn expired_messages_free_memory_for_new_ones_when_memory_is_full() {
    let change = |settings: &mut Settings| settings.limits.memory_bytes_max = 4 << 20;
    let mut world = World::with(change, Box::new(AllowAll));
    let reader = world.connect(&Client::persistent("reader"));
    world.subscribe(reader, "t", Qos::AtLeastOnce);
    world.cut(reader);
    let writer = world.connect(&Client::v5("writer"));
    let large = vec![0; 100_000];
    let send = |world: &mut World, expiry_s| {
        let mut publish = publish("t", &large, Qos::AtLeastOnce, 1);
        publish.properties.message_expiry_interval = expiry_s;
        world.send(writer, Version::V5, &Packet::Publish(publish));
        world.advance_ms(200); // a publisher rests where memory is full
    };
    for _ in 0..60 {
        send(&mut world, Some(60));
    }
    let full = |world: &mut World| world.engine.metrics().drops.of(DropCause::MemoryFull);
    let before = full(&mut world);
    assert!(before > 0);
    world.advance_ms(60_000);
    for _ in 0..20 {
        send(&mut world, None);
    }
    assert_eq!(full(&mut world), before);
    assert_eq!(world.payloads_on_return_of_any(), 20);
}

#[test]
fn expired_retained_messages_free_their_places_while_others_are_live() {
    let change = |settings: &mut Settings| settings.limits.retained_messages_max = 1_000;
    let mut world = World::with(change, Box::new(AllowAll));
    let id = world.connect(&Client::v5("c"));
    for n in 0..1_000 {
        world.retain(id, &format!("t/{n}"), b"1", (n % 10 > 0).then_some(1));
    }
    world.advance_ms(2_000);
    assert_eq!(world.retained().0, 100);
    world.packets(id, Version::V5);
    for n in 0..900 {
        world.retain(id, &format!("late/{n}"), b"1", None);
    }
    assert!(!world.packets(id, Version::V5).iter().any(|of| of.contains("QuotaExceeded")));
    world.retain(id, "late/last", b"1", None);
    assert!(world.packets(id, Version::V5).pop().expect("PUBACK").contains("QuotaExceeded"));
}
