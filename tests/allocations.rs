//! Verifies that forwarding a PUBLISH allocates no memory.

use std::io::IoSlice;

use ringmq::base::clock::Now;
use ringmq::base::ids::{ConnectionId, Peer};
use ringmq::config::Settings;
use ringmq::engine::{Action, AllowAll, Config, Engine, Keys};
use ringmq::resources::gauges::Place;
use ringmq::wire::{Qos, Version};

#[path = "support/packets.rs"]
mod packets;

struct World {
    engine: Engine,
    bytes_sent: usize,
}

impl World {
    fn new() -> Self {
        let mut settings = Settings::default();
        settings.limits.connections_max = 1_000;
        settings.limits.memory_bytes_max = 1 << 30;
        settings.mqtt.sys_interval_s = 0;
        let engine = Engine::new(
            Place::alone(),
            Config::from(&settings),
            Box::new(AllowAll),
            Keys::fixed(1),
            Now(0),
        );
        Self { engine, bytes_sent: 0 }
    }

    fn client(&mut self, name: &str, version: Version, filter: &str) -> ConnectionId {
        let peer = Peer { address: None, listener: 0 };
        let id = self.engine.handle_accepted(Now(0), peer).expect("accepted");
        self.receive(id, &packets::connect(name, version));
        self.receive(id, &packets::subscribe(filter, Qos::AtMostOnce, version));
        id
    }

    /// One turn of an executor whose sockets accept everything.
    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.engine.handle_received(Now(0), id, bytes);
        while let Some(action) = self.engine.poll_action() {
            let Action::Send { connection, mut buffer } = action else {
                panic!("no other action is expected")
            };
            let mut slices = [IoSlice::new(&[]); 64];
            let count = buffer.io_slices(&mut slices);
            let bytes = slices[..count].iter().map(|slice| slice.len()).sum();
            self.bytes_sent += bytes;
            buffer.advance(bytes);
            self.engine.handle_sent(Now(0), connection, bytes, Some(buffer));
        }
    }
}

/// Allocations in 1,000 turns with one PUBLISH each, after a warm-up.
fn allocations(version: Version, subscribers: usize, filter: &str) -> u64 {
    allocations_of(version, subscribers, filter, 64)
}

/// Allocations for payloads of this size.
fn allocations_of(version: Version, subscribers: usize, filter: &str, bytes: usize) -> u64 {
    let mut world = World::new();
    let publisher = world.client("publisher", version, "elsewhere");
    for number in 0..subscribers {
        world.client(&format!("subscriber {number}"), version, filter);
    }
    let payload = vec![b'x'; bytes];
    let topic = "a/topic/of/its/own";
    let bytes = packets::publish_bytes(topic, Qos::AtMostOnce, 0, version, &payload);
    for _ in 0..10 {
        world.receive(publisher, &bytes);
    }
    world.bytes_sent = 0;
    let info = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            world.receive(publisher, &bytes);
        }
    });
    assert_eq!(world.bytes_sent, 1_000 * subscribers * bytes.len(), "all messages were forwarded");
    info.count_total
}

#[test]
fn forwarding_a_publish_allocates_nothing() {
    for version in [Version::V311, Version::V5] {
        assert_eq!(allocations(version, 1, "a/topic/of/its/own"), 0, "exact filter");
        assert_eq!(allocations(version, 1, "a/+/of/#"), 0, "wildcard filter");
        assert_eq!(allocations(version, 20, "a/#"), 0, "a fan-out batch for many subscribers");
    }
}

#[test]
fn a_payload_for_a_single_subscriber_is_copied_once_without_allocation() {
    let bytes = ringmq::base::limits::COPIED_ALONE_BYTES_MAX;
    assert_eq!(allocations_of(Version::V311, 1, "a/#", bytes), 0);
    assert!(allocations_of(Version::V311, 1, "a/#", bytes + 1) > 0, "by reference");
}
