//! "No allocation for a PUBLISH that is only passed on", counted.

use std::io::IoSlice;

use ringmq::clock::Now;
use ringmq::config::Settings;
use ringmq::engine::{Action, AllowAll, ConnectionId, CoreId, Engine, Peer};
use ringmq::wire::{
    Connect, ConnectProperties, Packet, PacketIdentifier, Publish, PublishProperties, Qos,
    Subscribe, SubscribeFilters, SubscribeOptions, UserProperties, Version,
};

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
        let engine = Engine::new(CoreId(0), settings, Box::new(AllowAll), 1, Now(0));
        Self { engine, bytes_sent: 0 }
    }

    fn client(&mut self, name: &str, version: Version, filter: &str) -> ConnectionId {
        let peer = Peer { address: None, listener: 0 };
        let id = self.engine.handle_accepted(Now(0), peer).expect("accepted");
        let connect = Connect {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_identifier: name,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
        };
        self.receive(id, &encoded(&Packet::Connect(connect), version));
        let options = SubscribeOptions {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        };
        let filters = [(filter, options)];
        let subscribe = Subscribe {
            packet_identifier: PacketIdentifier::new(1).expect("not zero"),
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: SubscribeFilters::list(&filters),
        };
        self.receive(id, &encoded(&Packet::Subscribe(subscribe), version));
        id
    }

    /// One turn of an executor whose sockets take everything.
    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.engine.handle_received(Now(0), id, bytes);
        while let Some(action) = self.engine.poll_action() {
            let Action::Send { connection, mut buffer } = action else {
                panic!("nothing else is to do")
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

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

fn message(topic: &str, version: Version) -> Vec<u8> {
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic,
        packet_identifier: None,
        properties: PublishProperties::default(),
        payload: &[b'x'; 64],
    };
    encoded(&Packet::Publish(publish), version)
}

/// Allocations in 1,000 turns of one PUBLISH each, after some to warm up.
fn allocations(version: Version, subscribers: usize, filter: &str) -> u64 {
    let mut world = World::new();
    let publisher = world.client("publisher", version, "elsewhere");
    for number in 0..subscribers {
        world.client(&format!("subscriber {number}"), version, filter);
    }
    let bytes = message("a/topic/of/its/own", version);
    for _ in 0..10 {
        world.receive(publisher, &bytes);
    }
    world.bytes_sent = 0;
    let info = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            world.receive(publisher, &bytes);
        }
    });
    assert_eq!(world.bytes_sent, 1_000 * subscribers * bytes.len(), "all were passed on");
    info.count_total
}

#[test]
fn a_publish_that_is_only_passed_on_allocates_nothing() {
    for version in [Version::V311, Version::V5] {
        assert_eq!(allocations(version, 1, "a/topic/of/its/own"), 0, "exact filter");
        assert_eq!(allocations(version, 1, "a/+/of/#"), 0, "wildcard filter");
        assert_eq!(allocations(version, 20, "a/#"), 0, "a run for many subscribers");
    }
}
