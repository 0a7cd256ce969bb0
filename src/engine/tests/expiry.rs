//! Retained messages that expire: they go by themselves, a bounded number in a turn, and leave
//! nothing behind.

use super::cores::Cores;
use super::*;

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
fn a_retained_message_goes_when_it_expires_though_nobody_subscribes() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    world.retain(id, "stays", b"1", None);
    let bytes_before = world.engine.links.ledger.bytes();
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
    assert_eq!(world.engine.links.ledger.bytes(), bytes_before);
}

#[test]
fn messages_that_have_expired_keep_nothing_out() {
    let change = |settings: &mut Settings| settings.limits.retained_messages_max = 1_000;
    let mut world = World::with(change, Box::new(AllowAll));
    let id = world.connect(&Client::v5("c"));
    for n in 0..1_000 {
        world.retain(id, &format!("t/{n}"), b"1", Some(1));
    }
    world.retain(id, "late", b"1", None);
    assert!(world.packets(id, Version::V5).pop().expect("PUBACK").contains("QuotaExceeded"));
    // Their time has passed, and no timer has fired yet.
    world.now = Now(world.now.0 + 1_000_001);
    world.retain(id, "late", b"1", None);
    assert!(world.packets(id, Version::V5).pop().expect("PUBACK").contains("NoMatching"));
}

#[test]
fn a_turn_takes_a_bounded_number_of_expired_messages_away() {
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
fn a_message_that_is_replaced_leaves_no_expiry_behind() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    let bytes_before = world.engine.links.ledger.bytes();
    let timers_before = world.engine.timers.len();
    for n in 0..10_000u32 {
        world.retain(id, "t", b"1", Some(20_000 - n));
    }
    world.retain(id, "t", b"", None);
    assert_eq!(world.retained(), (0, 0, 0));
    assert_eq!(world.engine.links.ledger.bytes(), bytes_before);
    assert!(world.engine.timers.len() <= timers_before + 1);
    for n in (1..=100u32).rev() {
        world.retain(id, "t", b"1", Some(n));
    }
    assert!(world.engine.timers.len() <= timers_before + limits::TIMER_AHEAD_S as usize + 1);
}

#[test]
fn every_core_finds_out_what_expires_and_no_older_message_comes_back() {
    let mut cores = Cores::new(2);
    let ids = [cores.connect(0), cores.connect(1)];
    cores.settle();
    // The older one is still on its way when the younger one has expired.
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
        assert_eq!(world.retained().2, 2, "both expired here");
    }
    for _ in 0..4 {
        cores.0.iter_mut().for_each(|world| world.advance_ms(1_000));
        cores.settle();
    }
    for world in &mut cores.0 {
        assert!(world.engine.retained.is_empty(), "what is remembered of them goes too");
    }
}
