//! A core that was stopped, or busy, and clients whose packets lay in their sockets meanwhile.

use super::*;
use crate::base::limits::LATE_MS;

const PING: [u8; 2] = [0xC0, 0];

/// A client with a Will and a Keep Alive of two seconds.
fn connect(world: &mut World, name: &str) -> ConnectionId {
    let mut client = Client::v5(name);
    client.will =
        Some(wire::Will { topic: "gone", payload: name.as_bytes(), ..wire::Will::default() });
    let id = world.accept();
    world.send_connect_with_keep_alive(id, &client, 2);
    assert!(world.packets(id, Version::V5)[0].starts_with("Connack"));
    id
}

#[test]
fn who_has_pinged_while_the_core_was_stopped_stays_and_who_was_silent_leaves_within_its_time() {
    let mut world = World::new();
    let watcher = world.connect(&Client::v5("watcher"));
    world.subscribe(watcher, "gone", Qos::AtMostOnce);
    let (speaks, silent) = (connect(&mut world, "speaks"), connect(&mut world, "silent"));
    world.packets(watcher, Version::V5);
    world.jump_ms(30_000);
    assert!(world.closed.is_empty(), "their sockets have not been read yet");
    assert!(world.engine.poll_timeout().is_some_and(|at| at.is_due(world.now)), "nobody sleeps");
    world.engine.handle_received(world.now, speaks, &PING);
    world.settle();
    assert!(world.closed.is_empty(), "what was sent meanwhile may come later");
    assert_eq!(world.engine.metrics().turns_late, 1);
    for _ in 0..4 {
        world.advance_ms(800);
        world.send(speaks, Version::V5, &Packet::Pingreq);
    }
    assert!(world.closed.contains(&silent) && !world.closed.contains(&speaks));
    assert_eq!(world.payloads(watcher), ["silent"]);
    assert_eq!(world.engine.metrics().timeouts, 1);
}

#[test]
fn nobody_is_judged_before_a_turn_in_which_all_was_read() {
    let mut world = World::new();
    let id = connect(&mut world, "c");
    // Each of these turns was too short for what had come.
    for _ in 0..20 {
        world.now = Now(world.now.0 + 500_000);
        world.engine.handle_timeout(world.now);
        world.turn();
    }
    assert!(world.closed.is_empty());
    assert_eq!(world.engine.overdue().collect::<Vec<_>>(), [id]);
    world.engine.handle_all_read(world.now);
    world.turn();
    assert!(world.closed.contains(&id));
}

#[test]
fn who_was_not_read_because_of_a_slow_consumer_has_its_keep_alive_from_then_on() {
    let mut world = World::new();
    let id = connect(&mut world, "c");
    world.engine.connections.pause_reading(id);
    world.turn();
    world.advance_ms(2_900);
    world.advance_ms(2_900);
    world.engine.connections.resume_reading(id, world.now);
    world.turn();
    // Its timer was set anew when it fell due, which is a moment from now.
    world.advance_ms(200);
    world.advance_ms(2_500);
    assert!(world.closed.is_empty());
    world.advance_ms(500);
    assert!(world.closed.contains(&id));
}

#[test]
fn a_connect_that_lay_in_its_socket_is_taken_and_who_trickles_has_its_time_once_more_at_most() {
    let mut world =
        World::with(|settings| settings.limits.connect_timeout_s = 10, Box::new(AllowAll));
    let (whole, trickles, silent) = (world.accept(), world.accept(), world.accept());
    let mut first = Vec::new();
    let client = Client::v5("c");
    world.jump_ms(20_000);
    assert!(world.closed.is_empty());
    world.send_connect(whole, &client);
    assert!(world.packets(whole, Version::V5)[0].starts_with("Connack"));
    Packet::Pingreq.encode(Version::V5, &mut first);
    world.engine.handle_received(world.now, trickles, &[0x10]);
    world.settle();
    world.advance_ms(10_100);
    assert!(world.closed.contains(&silent) && !world.closed.contains(&trickles));
    for byte in [0xFF, 0x01, 0] {
        world.engine.handle_received(world.now, trickles, &[byte]);
        world.settle();
        world.advance_ms(5_000);
    }
    assert!(world.closed.contains(&trickles) && !world.closed.contains(&whole));
}

#[test]
fn the_rest_of_a_packet_that_lay_in_its_socket_is_taken() {
    let mut world =
        World::with(|settings| settings.protection.packet_timeout_s = 5, Box::new(AllowAll));
    let (late, slow) = (world.connect(&Client::v5("late")), world.connect(&Client::v5("slow")));
    let mut packet = Vec::new();
    let message = publish("t", &[b'.'; 100], Qos::AtLeastOnce, 7);
    Packet::Publish(message).encode(Version::V5, &mut packet);
    for id in [late, slow] {
        world.engine.handle_received(world.now, id, &packet[..50]);
        world.settle();
    }
    world.jump_ms(30_000);
    world.engine.handle_received(world.now, late, &packet[50..]);
    world.settle();
    assert!(world.packets(late, Version::V5)[0].starts_with("Puback"));
    for at in 50..53 {
        world.engine.handle_received(world.now, slow, &packet[at..=at]);
        world.settle();
        world.advance_ms(5_100);
    }
    assert!(world.closed.contains(&slow) && !world.closed.contains(&late));
}

#[test]
fn a_crowd_whose_time_is_up_at_once_is_ended_over_several_turns() {
    let many = limits::ENDED_PER_TURN_MAX + 1;
    let mut world = World::with(|of| of.limits.connections_max = 1_000, Box::new(AllowAll));
    for _ in 0..many {
        world.accept();
    }
    world.now = Now(world.now.0 + 3_600_000_000);
    world.engine.handle_timeout(world.now);
    world.engine.connections.come_in_time();
    world.engine.handle_all_read(world.now);
    world.turn();
    assert!((1..=limits::ENDED_PER_TURN_MAX).contains(&world.closed.len()));
    world.settle();
    assert_eq!(world.closed.len(), many);
}

#[test]
fn a_core_is_late_from_a_second_on() {
    let mut world = World::new();
    connect(&mut world, "c");
    for (ms, late) in [(3_000 + LATE_MS - 100, 0), (10_000 + LATE_MS, 1)] {
        world.now = Now(ms * 1_000);
        world.engine.handle_timeout(world.now);
        assert_eq!(world.engine.metrics().turns_late, late);
        world.engine.handle_all_read(world.now);
    }
}
