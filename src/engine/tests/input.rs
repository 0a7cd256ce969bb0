//! Bounds on input that has been received and is not processed yet.

use super::*;

/// The beginning of a CONNECT with the given length.
fn connect_of(total: usize, version: Version) -> Vec<u8> {
    let remaining = total - 4; // a byte of type and flags, three of length
    let length = [remaining as u8 | 0x80, (remaining >> 7) as u8 | 0x80, (remaining >> 14) as u8];
    let level = if version == Version::V5 { 5 } else { 4 };
    [&[0x10][..], &length, b"\x00\x04MQTT", &[level]].concat()
}

fn connect_bytes_max(world: &World) -> usize {
    world.engine.config.limits.connect_bytes_max as usize
}

#[test]
fn a_connect_that_is_too_large_is_refused_at_its_first_bytes_and_not_buffered() {
    let mut world = World::new();
    let most = connect_bytes_max(&world);
    for version in [Version::V311, Version::V5] {
        let before = world.engine.metrics().memory_bytes;
        let fits = world.accept();
        world.engine.handle_received(world.now, fits, &connect_of(most, version));
        world.settle();
        assert!(!world.closed.contains(&fits) && world.engine.metrics().memory_bytes > before);
        world.cut(fits);
        let violations = world.engine.metrics().violations;
        for pieces in [1, 2] {
            let large = world.accept();
            let bytes = connect_of(most + 1, version);
            // If the first byte arrives alone, the version arrives with the next ones.
            let (first, second) = bytes.split_at(pieces - 1);
            world.engine.handle_received(world.now, large, first);
            world.engine.handle_received(world.now, large, second);
            world.settle();
            assert!(world.closed.contains(&large), "{version:?}");
            let answers = world.packets(large, version);
            match version {
                Version::V5 => assert!(answers[0].contains("PacketTooLarge"), "{answers:?}"),
                _ => assert!(answers.is_empty(), "{answers:?}"),
            }
        }
        assert_eq!(world.engine.metrics().violations, violations + 2);
        assert_eq!(world.engine.metrics().memory_bytes, before);
    }
}

#[test]
fn a_connect_with_the_largest_will_is_accepted_and_larger_packets_may_follow() {
    let mut world = World::new();
    let most = connect_bytes_max(&world);
    let payload = vec![b'x'; 65_535];
    let mut client = Client::v5("c");
    client.will = Some(wire::Will { topic: "t", payload: &payload, ..wire::Will::default() });
    let id = world.connect(&client);
    world.subscribe(id, "t", Qos::AtMostOnce);
    world.packets(id, Version::V5);
    world.publish(id, "t", &vec![b'z'; most * 2], Qos::AtMostOnce, 0);
    assert_eq!(world.publishes(id).len(), 1);
}

/// Answers every CONNECT and AUTH with a request for another AUTH.
struct Asks;

impl Access for Asks {
    fn authenticate(&mut self, _: Now, _: u64, _: &Credentials<'_>) -> Authentication {
        Authentication::Continue(Vec::new())
    }
}

#[test]
fn before_connack_no_packet_may_be_larger_than_the_largest_connect() {
    let mut world = World::with(|_| {}, Box::new(Asks));
    let id = world.accept();
    let mut client = Client::v5("c");
    client.properties.authentication_method = Some("m");
    world.send_connect(id, &client);
    assert!(world.packets(id, Version::V5)[0].starts_with("Auth"));
    let mut auth = connect_of(connect_bytes_max(&world) + 1, Version::V5);
    auth[0] = 0xF0;
    world.engine.handle_received(world.now, id, &auth);
    world.settle();
    assert!(world.closed.contains(&id));
}

/// The first `come` bytes of a PUBLISH at QoS 0 with a payload of the given length.
fn begun(payload: usize, come: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = vec![b'p'; payload];
    Packet::Publish(publish("t", &payload, Qos::AtMostOnce, 0)).encode(Version::V5, &mut bytes);
    bytes.truncate(come);
    bytes
}

#[test]
fn a_client_whose_partial_packet_exceeds_the_memory_left_is_disconnected_and_complete_packets_are_served()
 {
    const MEMORY: u64 = 8 << 20;
    let mut world = World::with(|of| of.limits.memory_bytes_max = MEMORY, Box::new(AllowAll));
    let reader = world.connect(&Client::v5("reader"));
    world.subscribe(reader, "t", Qos::AtMostOnce);
    let honest = world.connect(&Client::v5("honest"));
    let bytes = begun(1_000_000, 500_000);
    let mut ended = Vec::new();
    for n in 0..20 {
        let id = world.connect(&Client::v5(&format!("half {n}")));
        for piece in bytes.chunks(60_000) {
            world.engine.handle_received(world.now, id, piece);
            world.settle();
            assert!(world.engine.metrics().input_bytes <= MEMORY / 4);
        }
        if world.closed.contains(&id) {
            ended.extend(world.packets(id, Version::V5));
        }
    }
    assert!(ended.len() >= 16 && ended.iter().all(|packet| packet.contains("QuotaExceeded")));
    assert_eq!(world.engine.metrics().input_refused, ended.len() as u64);
    world.packets(reader, Version::V5);
    // In one piece, and cut in two.
    for cut in [2_000, 700, 1_300] {
        let whole = begun(2_000, usize::MAX);
        let (first, second) = whole.split_at(cut.min(whole.len()));
        world.engine.handle_received(world.now, honest, first);
        world.engine.handle_received(world.now, honest, second);
        world.settle();
    }
    assert_eq!(world.publishes(reader).len(), 3);
}

#[test]
fn a_packet_larger_than_the_read_ahead_is_received_even_when_the_budget_of_each_turn_is_spent() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    world.subscribe(id, "t", Qos::AtMostOnce);
    world.packets(id, Version::V5);
    let whole = begun(400_000, usize::MAX);
    for pieces in whole.chunks(180_000) {
        world.engine.work.spend(1_000_000);
        for piece in pieces.chunks(60_000) {
            world.engine.handle_received(world.now, id, piece);
        }
        world.settle();
        assert!(!world.paused.contains(&id), "the client is not paused");
    }
    assert_eq!(world.publishes(id).len(), 1);
}

#[test]
fn a_partial_packet_counts_the_memory_it_takes_until_it_is_processed() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    let before = world.engine.metrics().memory_bytes;
    let whole = begun(300_000, usize::MAX);
    for (n, piece) in whole.chunks(1_000).enumerate() {
        world.engine.handle_received(world.now, id, piece);
        let held = world.engine.metrics().memory_bytes - before;
        let come = (n as u64 + 1) * 1_000;
        if come < whole.len() as u64 {
            assert!((come..=(2 * come).min(whole.len() as u64)).contains(&held), "{come} {held}");
        }
    }
    world.settle();
    assert_eq!(world.engine.metrics().memory_bytes, before);
    assert_eq!(world.engine.metrics().input_bytes, 0);
}

#[test]
fn while_memory_is_full_fewer_partial_packets_may_wait() {
    const MEMORY: u64 = 8 << 20;
    let mut world = World::with(|of| of.limits.memory_bytes_max = MEMORY, Box::new(AllowAll));
    let mut connect = |name: &str| world.connect(&Client::v5(name));
    let (honest, first, second) = (connect("h"), connect("f"), connect("s"));
    world.engine.memory.ledger().charge(MEMORY as usize);
    for _ in 0..3 {
        let bytes = begun(200_000, usize::MAX);
        let (head, tail) = bytes.split_at(70_000);
        world.engine.handle_received(world.now, honest, head);
        world.engine.handle_received(world.now, honest, tail);
        world.settle();
        world.advance_ms(1_000);
    }
    assert!(world.closed.is_empty());
    for id in [first, second] {
        for piece in begun(1_000_000, 900_000).chunks(60_000) {
            world.engine.handle_received(world.now, id, piece);
            world.settle();
        }
    }
    assert!(!world.closed.contains(&first) && world.closed.contains(&second));
    assert!(world.engine.metrics().memory_bytes <= MEMORY + MEMORY / 8);
    world.engine.memory.ledger().release(MEMORY as usize);
}

/// Never decides.
struct Ponders;

impl Access for Ponders {
    fn authenticate(&mut self, _: Now, _: u64, _: &Credentials<'_>) -> Authentication {
        Authentication::Pending
    }
}

#[test]
fn connects_that_wait_for_a_decision_are_bounded_and_further_ones_get_server_busy() {
    let mut world = World::with(|of| of.limits.memory_bytes_max = 4 << 20, Box::new(Ponders));
    let payload = vec![b'x'; 60_000];
    for n in 0..20 {
        let mut client = Client::v5("c");
        client.will = Some(wire::Will { topic: "t", payload: &payload, ..wire::Will::default() });
        let id = world.accept();
        world.send_connect(id, &client);
        // The access control keeps a copy of each CONNECT, which counts as well.
        let is_refused = n >= (4 << 20) / 4 / 120_000;
        assert_eq!(world.closed.contains(&id), is_refused, "{n}");
        let answers = world.packets(id, Version::V5);
        assert_eq!(answers.iter().any(|packet| packet.contains("ServerBusy")), is_refused);
        assert!(world.engine.metrics().input_bytes <= (4 << 20) / 4);
    }
}

#[test]
#[cfg(feature = "websocket")]
fn silent_connections_are_on_the_ledger_and_closed_at_once_when_it_is_overdrawn() {
    use crate::config::{Listener, Transport};
    const MEMORY: u64 = 64 * 1024;
    let mut world = World::with(
        |of| (of.limits.memory_bytes_max, of.limits.connections_max) = (MEMORY, 1_000),
        Box::new(AllowAll),
    );
    let mut listener = Listener::tcp("127.0.0.1:1".parse().expect("an address"));
    (listener.transport, listener.connections_max) = (Transport::Ws, 1_000);
    let policy = crate::transport::ListenerPolicy::new(&listener, None);
    world.engine.set_listeners([policy.into()].into());
    let peer = Peer { address: None, listener: 0 };
    let open = |world: &mut World| -> Vec<ConnectionId> {
        (0..500).filter_map(|_| world.engine.handle_accepted(world.now, peer).ok()).collect()
    };
    let connections = open(&mut world);
    let most = MEMORY + MEMORY / 8;
    assert_eq!(connections.len() as u64, most / limits::WEBSOCKET_BYTES as u64);
    assert_eq!(world.engine.metrics().memory_bytes, most);
    let refused = world.engine.metrics().connections_refused;
    assert_eq!(refused, 500 - connections.len() as u64);
    for id in &connections {
        world.engine.handle_closed(world.now, *id);
    }
    assert_eq!(world.engine.metrics().memory_bytes, 0);
    assert_eq!(open(&mut world).len(), connections.len());
}
