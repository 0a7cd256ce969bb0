//! Time limits after a core was stopped or busy, while packets of clients waited in their sockets.

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
fn after_the_core_was_stopped_clients_that_pinged_stay_and_silent_ones_time_out() {
    let mut world = World::new();
    let watcher = world.connect(&Client::v5("watcher"));
    world.subscribe(watcher, "gone", Qos::AtMostOnce);
    let (speaks, silent) = (connect(&mut world, "speaks"), connect(&mut world, "silent"));
    world.packets(watcher, Version::V5);
    world.jump_ms(30_000);
    assert!(world.closed.is_empty(), "the sockets have not been read yet");
    assert!(
        world.engine.poll_timeout().is_some_and(|at| at.is_due(world.now)),
        "the core does not sleep"
    );
    world.engine.handle_received(world.now, speaks, &PING);
    world.settle();
    assert!(world.closed.is_empty(), "packets sent meanwhile may be read later");
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
fn no_client_times_out_before_a_turn_that_has_read_all_sockets() {
    let mut world = World::new();
    let id = connect(&mut world, "c");
    // Each of these turns was too short for the input that had arrived.
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
fn keep_alive_of_a_publisher_paused_for_a_slow_consumer_starts_when_it_is_read_again() {
    let mut world = World::new();
    let id = connect(&mut world, "c");
    world.engine.connections.pause_reading(id);
    world.turn();
    world.advance_ms(2_900);
    world.advance_ms(2_900);
    world.engine.connections.resume_reading(id, world.now);
    world.turn();
    // The timer was set again when it was due, which is a moment from now.
    world.advance_ms(200);
    world.advance_ms(2_500);
    assert!(world.closed.is_empty());
    world.advance_ms(500);
    assert!(world.closed.contains(&id));
}

#[test]
fn a_connect_that_waited_in_its_socket_is_accepted_and_a_trickling_client_gets_one_more_timeout() {
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
fn the_rest_of_a_packet_that_waited_in_its_socket_is_accepted() {
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
fn many_connections_that_time_out_at_once_are_closed_over_several_turns() {
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
fn a_core_counts_as_late_after_one_second() {
    let mut world = World::new();
    connect(&mut world, "c");
    for (ms, late) in [(3_000 + LATE_MS - 100, 0), (10_000 + LATE_MS, 1)] {
        world.now = Now(ms * 1_000);
        world.engine.handle_timeout(world.now);
        assert_eq!(world.engine.metrics().turns_late, late);
        world.engine.handle_all_read(world.now);
    }
}
