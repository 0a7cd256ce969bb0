//! Input that has come and is not served yet: how much of it there may be.

use super::*;

/// The beginning of a CONNECT that says it is so long in all.
fn connect_of(total: usize, version: Version) -> Vec<u8> {
    let remaining = total - 4; // a byte of type and flags, three of length
    let length = [remaining as u8 | 0x80, (remaining >> 7) as u8 | 0x80, (remaining >> 14) as u8];
    let level = if version == Version::V5 { 5 } else { 4 };
    [&[0x10][..], &length, b"\x00\x04MQTT", &[level]].concat()
}

fn connect_bytes_max(world: &World) -> usize {
    world.engine.settings.limits.connect_bytes_max as usize
}

#[test]
fn a_connect_that_is_too_large_is_refused_at_its_first_bytes_and_nothing_of_it_is_kept() {
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
            // Where its first byte comes alone, the version comes with the next ones.
            let (first, second) = bytes.split_at(pieces - 1);
            world.engine.handle_received(world.now, large, first);
            world.engine.handle_received(world.now, large, second);
            world.settle();
            assert!(world.closed.contains(&large), "{version:?}");
            let told = world.packets(large, version);
            match version {
                Version::V5 => assert!(told[0].contains("PacketTooLarge"), "{told:?}"),
                _ => assert!(told.is_empty(), "{told:?}"),
            }
        }
        assert_eq!(world.engine.metrics().violations, violations + 2);
        assert_eq!(world.engine.metrics().memory_bytes, before);
    }
}

#[test]
fn a_connect_with_the_largest_will_is_taken_and_larger_packets_may_follow_it() {
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

/// Wants one AUTH more, whatever it says.
struct Asks;

impl Access for Asks {
    fn authenticate(&mut self, _: Now, _: u64, _: &Credentials<'_>) -> Authentication {
        Authentication::Continue(Vec::new())
    }
}

#[test]
fn until_a_client_is_let_in_no_packet_is_larger_than_a_connect_may_be() {
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
