//! The end of a peer's stream: packets received before it are served and answered first.

use super::durability::kept_pair;
use super::*;
use crate::engine::work::TURN_STEPS;
use crate::wire::{Disconnect, Will};

/// Decides on CONNECT when the test says so.
struct Ponders;

impl Access for Ponders {
    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        match who.client_identifier {
            "slow" => Authentication::Pending,
            _ => Authentication::Granted(Grant::default()),
        }
    }
}

fn connect(name: &str, has_will: bool) -> Packet<'_> {
    let will = Will { topic: "t", payload: b"will", ..Will::default() };
    Packet::Connect(Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        client_identifier: name,
        username: None,
        password: None,
        will: has_will.then_some(will),
        properties: ConnectProperties::default(),
    })
}

fn message(payload: &[u8], qos: Qos) -> Packet<'_> {
    Packet::Publish(publish("t", payload, qos, 1))
}

fn disconnect() -> Packet<'static> {
    Packet::Disconnect(Disconnect::default())
}

/// A world with a client that receives all published messages.
fn watched(change: impl FnOnce(&mut Settings)) -> (World, ConnectionId) {
    let mut world = World::with(change, Box::new(Ponders));
    let watcher = world.connect(&Client::v5("watcher"));
    world.subscribe(watcher, "t", Qos::AtMostOnce);
    world.packets(watcher, Version::V5);
    (world, watcher)
}

/// Limits clients to two messages a second.
fn throttled(settings: &mut Settings) {
    settings.protection.messages_per_second_max = 2;
}

/// Five messages of a client that may send two a second, and DISCONNECT.
fn floods(world: &mut World, name: &str, says_so: bool) -> ConnectionId {
    let id = world.accept();
    let mut packets = vec![connect(name, true)];
    packets.extend([b"1", b"2", b"3", b"4", b"5"].map(|text| message(text, Qos::AtMostOnce)));
    packets.extend(says_so.then(disconnect));
    world.send_all(id, &packets);
    id
}

#[test]
fn packets_after_a_connect_are_served_once_it_is_decided_even_if_the_peer_has_closed_its_side() {
    let (mut world, watcher) = watched(|_| {});
    let id = world.accept();
    let packets = [connect("slow", true), message(b"said", Qos::AtLeastOnce), disconnect()];
    world.send_all(id, &packets);
    world.end(id);
    assert!(!world.closed.contains(&id) && world.payloads(watcher).is_empty());
    let granted = Authentication::Granted(Grant::default());
    world.engine.handle_authenticated(world.now, id, granted);
    world.settle();
    assert_eq!(world.payloads(watcher), ["said"]);
    assert_eq!(world.packets(id, Version::V5).len(), 2, "CONNACK and PUBACK");
    assert!(world.closed.contains(&id));
}

#[test]
fn a_reconnected_client_is_not_taken_over_by_its_earlier_connect() {
    let (mut world, watcher) = watched(|_| {});
    let (earlier, later) = (world.accept(), world.accept());
    for id in [earlier, later] {
        world.send_all(id, &[connect("slow", true)]);
    }
    world.end(earlier);
    for id in [later, earlier] {
        let granted = Authentication::Granted(Grant::default());
        world.engine.handle_authenticated(world.now, id, granted);
        world.settle();
    }
    assert!(world.closed.contains(&earlier) && !world.closed.contains(&later));
    assert_eq!(world.engine.metrics().takeovers, 0);
    assert!(world.payloads(watcher).is_empty(), "no Will");
}

#[test]
fn a_throttled_client_is_served_to_its_end_at_its_pace() {
    for says_so in [true, false] {
        let (mut world, watcher) = watched(throttled);
        let id = floods(&mut world, "c", says_so);
        world.end(id);
        assert!(!world.closed.contains(&id));
        for _ in 0..4 {
            world.advance_ms(1_000);
        }
        let mut expected = vec!["1", "2", "3", "4", "5"];
        expected.extend((!says_so).then_some("will"));
        assert_eq!(world.payloads(watcher), expected);
        assert!(world.closed.contains(&id));
    }
}

#[test]
fn a_client_that_comes_back_before_it_was_served_loses_nothing_and_its_disconnect_counts() {
    for says_so in [true, false] {
        let (mut world, watcher) = watched(throttled);
        let id = floods(&mut world, "c", says_so);
        world.end(id);
        let again = world.accept();
        world.send_all(again, &[connect("c", false)]);
        let mut expected = vec!["1", "2", "3", "4", "5"];
        expected.extend((!says_so).then_some("will"));
        assert_eq!(world.payloads(watcher), expected);
        assert!(world.closed.contains(&id) && !world.closed.contains(&again));
    }
}

#[test]
fn a_reset_while_input_waits_drops_only_the_answers() {
    let (mut world, watcher) = watched(throttled);
    let id = floods(&mut world, "c", true);
    world.engine.handle_deaf(world.now, id);
    world.settle();
    world.cut(id);
    for _ in 0..4 {
        world.advance_ms(1_000);
    }
    assert_eq!(world.payloads(watcher), ["1", "2", "3", "4", "5"]);
    assert_eq!(world.engine.metrics().connections_open, 1);
    assert_eq!(world.engine.metrics().input_bytes, 0);
}

#[test]
fn answers_that_wait_for_the_store_are_sent_before_a_disconnect_or_end_of_stream_takes_effect() {
    for says_so in [true, false] {
        let (mut world, keeper, id) = kept_pair(Qos::AtLeastOnce);
        world.send_all(id, &[message(b"said", Qos::AtLeastOnce)]);
        if says_so {
            world.send_all(id, &[disconnect(), message(b"too late", Qos::AtMostOnce)]);
        }
        world.end(id);
        assert!(!world.closed.contains(&id) && world.packets(id, Version::V5).is_empty());
        world.store_all();
        let said = world.packets(id, Version::V5);
        assert!(said.len() == 1 && said[0].starts_with("Puback"), "{said:?}");
        assert!(world.closed.contains(&id));
        assert_eq!(world.payloads(keeper), ["said"]);
    }
}

#[test]
fn a_stalled_store_or_a_peer_that_reads_nothing_does_not_keep_an_ending_connection_open() {
    let (mut world, _, id) = kept_pair(Qos::AtLeastOnce);
    world.send_all(id, &[message(b"said", Qos::AtLeastOnce)]);
    world.end(id);
    let takes_nothing = world.connect(&Client::v5("n"));
    world.stuck.insert(takes_nothing);
    let flood = b"\xC0\x00".repeat(30_000);
    for _ in 0..400 {
        if !world.paused.contains(&takes_nothing) {
            world.engine.handle_received(world.now, takes_nothing, &flood);
        }
        world.turn();
    }
    assert!(world.paused.contains(&takes_nothing));
    world.end(takes_nothing);
    world.advance_ms(limits::STUCK_MS - 1_000);
    assert!(!world.closed.contains(&id) && !world.closed.contains(&takes_nothing));
    world.advance_ms(2_000);
    assert!(world.closed.contains(&id) && world.closed.contains(&takes_nothing));
}

#[test]
fn an_ending_connection_is_closed_within_a_time_limit() {
    let (mut world, watcher) = watched(|of| of.protection.bytes_per_second_max = 1);
    let id = world.accept();
    let packets = [message(&[b'x'; 2_000], Qos::AtMostOnce), message(b"2", Qos::AtMostOnce)];
    world.send_all(id, &[connect("c", false)]);
    world.send_all(id, &packets);
    world.end(id);
    let looks = u64::from(limits::ENDING_LOOKS_MAX);
    for _ in 1..looks {
        world.advance_ms(limits::STUCK_MS + 100);
    }
    assert!(!world.closed.contains(&id));
    world.advance_ms(limits::STUCK_MS + 100);
    assert!(world.closed.contains(&id));
    assert_eq!(world.payloads(watcher).len(), 1);
}

/// A connection of client `c` whose peer has ended its stream, with input for many turns.
fn ends_with_much_input() -> (World, ConnectionId) {
    let mut world =
        World::with(|settings| settings.limits.connections_max = 1_000, Box::new(AllowAll));
    for n in 0..300 {
        let id = world.connect(&Client::v5(&format!("{n}")));
        world.subscribe(id, "t", Qos::AtLeastOnce);
    }
    let id = world.connect(&Client::v5("c"));
    let mut bytes = Vec::new();
    for _ in 0..1_000 {
        message(b"m", Qos::AtLeastOnce).encode(Version::V5, &mut bytes);
    }
    world.engine.work.take_turn_max();
    world.engine.handle_received(world.now, id, &bytes);
    world.engine.handle_ended(world.now, id);
    (world, id)
}

/// Packets that came before the end of a stream may take many turns: the client, which is back already, is
/// admitted once all of them are served.
#[test]
fn a_turn_is_bounded_even_if_a_client_reconnects_before_its_earlier_input_is_served() {
    let (mut world, first) = ends_with_much_input();
    let back = world.accept();
    let mut request = Vec::new();
    connect("c", false).encode(Version::V5, &mut request);
    world.engine.handle_received(world.now, back, &request);
    assert!(!world.closed.contains(&first));
    world.settle();
    let steps = world.engine.work.take_turn_max();
    assert!(steps < TURN_STEPS + 2 * 2_048, "{steps} steps in a turn");
    assert_eq!(world.engine.metrics().publishes_sent, 300 * 1_000);
    let packets = world.packets(back, Version::V5);
    assert!(packets.len() == 1 && packets[0].contains("Success"), "{packets:?}");
    assert!(world.closed.contains(&first) && !world.closed.contains(&back));
    assert_eq!(world.engine.metrics().input_bytes, 0);
}

/// A CONNECT that waits is decoded again in each turn: its size counts each time, so that many large ones
/// take no more of a turn than the budget.
#[test]
fn a_waiting_connect_is_charged_by_its_size_in_each_turn_that_retries_it() {
    const CLIENTS: u64 = 20;
    let steps_with = |payload: &[u8]| {
        let (mut world, first) = ends_with_much_input();
        let mut request = Vec::new();
        let Packet::Connect(mut packet) = connect("c", true) else {
            unreachable!("a CONNECT packet")
        };
        packet.will = packet.will.map(|will| Will { payload, ..will });
        Packet::Connect(packet).encode(Version::V5, &mut request);
        for _ in 0..CLIENTS {
            let id = world.accept();
            world.engine.handle_received(world.now, id, &request);
        }
        assert!(!world.closed.contains(&first));
        world.settle();
        assert!(world.closed.contains(&first));
        assert_eq!(world.engine.metrics().input_bytes, 0);
        let most = world.engine.work.take_turn_max();
        assert!(most < TURN_STEPS + 2 * 2_048, "{most} steps in a turn");
        world.engine.work.total()
    };
    let payload = vec![b'x'; 60_000];
    let more = steps_with(&payload) - steps_with(b"");
    let once = CLIENTS * payload.len() as u64 / 64;
    assert!(more > once * 19 / 10, "{more} steps more for {once} each time");
}
