//! Turns of the engine without I/O: what a delivery costs before the kernel has its share.
//!
//! `cargo bench --bench engine`; `RINGMQ_BENCH_SHORT=1` for a run of seconds.

use std::io::IoSlice;

use divan::Bencher;
use divan::counter::ItemsCount;
use ringmq::clock::Now;
use ringmq::config::Settings;
use ringmq::engine::{Action, AllowAll, ConnectionId, CoreId, Engine, Peer, Place};
use ringmq::wire::{self, Ack, Frame, Packet, Qos, ReasonCode, Version};

#[path = "../tests/support/packets.rs"]
mod packets;

fn main() {
    if std::env::var_os("RINGMQ_BENCH_SHORT").is_some() {
        // Read by divan itself.
        divan::Divan::from_args().sample_count(3).sample_size(1).main();
    } else {
        divan::main();
    }
}

/// PUBLISH packets in one receive buffer, as many as 64 KiB hold.
const BATCH: usize = 600;

struct World {
    engine: Engine,
    /// Acknowledgements that clients owe, with who owes them.
    owed: Vec<(ConnectionId, Vec<u8>)>,
    acknowledges: bool,
}

impl World {
    fn new(acknowledges: bool) -> Self {
        Self::at(Place::alone(), acknowledges)
    }

    fn at(place: Place, acknowledges: bool) -> Self {
        let mut settings = Settings::default();
        settings.limits.connections_max = 10_000;
        settings.limits.memory_bytes_max = 1 << 32;
        settings.mqtt.sys_interval_s = 0;
        let engine = Engine::new(place, settings, Box::new(AllowAll), 1, Now(0));
        Self { engine, owed: Vec::new(), acknowledges }
    }

    fn client(&mut self, name: &str, filter: &str, qos: Qos) -> ConnectionId {
        let peer = Peer { address: None, listener: 0 };
        let id = self.engine.handle_accepted(Now(0), peer).expect("accepted");
        self.receive(id, &packets::connect(name, Version::V311));
        self.receive(id, &packets::subscribe(filter, qos, Version::V311));
        id
    }

    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.engine.handle_received(Now(0), id, bytes);
        self.settle();
    }

    /// Sockets that take everything, and clients that acknowledge what they get.
    fn settle(&mut self) {
        loop {
            while let Some(action) = self.engine.poll_action() {
                let Action::Send { connection, mut buffer } = action else { continue };
                if self.acknowledges {
                    self.owe(connection, &buffer);
                }
                let bytes = buffer.len();
                buffer.advance(bytes);
                self.engine.handle_sent(Now(0), connection, bytes, Some(buffer));
            }
            if self.owed.is_empty() {
                return;
            }
            for (id, acks) in std::mem::take(&mut self.owed) {
                self.engine.handle_received(Now(0), id, &acks);
            }
        }
    }

    fn owe(&mut self, id: ConnectionId, buffer: &ringmq::send_buffer::SendBuffer) {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = buffer.io_slices(&mut slices);
        let mut acks = Vec::new();
        for slice in &slices[..count] {
            let mut rest: &[u8] = slice;
            while let Ok(Frame::Complete { total, .. }) = wire::frame(rest, usize::MAX) {
                if let Ok(Packet::Publish(publish)) = wire::decode(&rest[..total], Version::V311)
                    && let Some(identifier) = publish.packet_identifier
                {
                    let ack = Ack::new(identifier, ReasonCode::Success);
                    Packet::Puback(ack).encode(Version::V311, &mut acks);
                }
                rest = &rest[total..];
            }
        }
        if !acks.is_empty() {
            self.owed.push((id, acks));
        }
    }
}

fn messages(topic: &str, qos: Qos) -> Vec<u8> {
    (1..=BATCH as u16)
        .flat_map(|number| packets::publish(topic, qos, number, Version::V311))
        .collect()
}

fn fan_out(bencher: Bencher<'_, '_>, qos: Qos, subscribers: usize) {
    let mut world = World::new(qos != Qos::AtMostOnce);
    let publisher = world.client("publisher", "elsewhere", Qos::AtMostOnce);
    for number in 0..subscribers {
        world.client(&format!("subscriber {number}"), "a/topic", qos);
    }
    let bytes = messages("a/topic", qos);
    bencher
        .counter(ItemsCount::new(BATCH * subscribers))
        .bench_local(|| world.receive(publisher, &bytes));
}

#[divan::bench(args = [1, 10, 500])]
fn deliveries_at_qos_0(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, Qos::AtMostOnce, subscribers);
}

/// Acknowledgements included, and the time it takes the bench to make them.
#[divan::bench(args = [1, 10, 500])]
fn deliveries_at_qos_1(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, Qos::AtLeastOnce, subscribers);
}

/// Nobody subscribed: decoding and looking up alone.
#[divan::bench]
fn publishes_nobody_wants(bencher: Bencher<'_, '_>) {
    let mut world = World::new(false);
    let publisher = world.client("publisher", "elsewhere", Qos::AtMostOnce);
    let bytes = messages("a/topic", Qos::AtMostOnce);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| world.receive(publisher, &bytes));
}

/// CONNECT, SUBSCRIBE and the end of a client among 1,000 others.
#[divan::bench]
fn clients_come_and_go(bencher: Bencher<'_, '_>) {
    let mut world = World::new(false);
    for number in 0..1_000 {
        world.client(&format!("client {number}"), &format!("topic/{number}"), Qos::AtMostOnce);
    }
    bencher.bench_local(|| {
        let id = world.client("visitor", "topic/of/its/own", Qos::AtMostOnce);
        world.engine.handle_closed(Now(0), id);
    });
}

/// Cores whose batches go over at once.
struct Cores(Vec<World>);

impl Cores {
    fn new(cores: u16) -> Self {
        let place = |place| World::at(place, false);
        Self(Place::each(cores).into_iter().map(place).collect())
    }

    /// Carries batches until there are none.
    fn settle(&mut self) {
        let count = self.0.len();
        let mut has_carried = true;
        while std::mem::take(&mut has_carried) {
            for from in 0..count {
                for to in (0..count).filter(|&to| to != from) {
                    let lane = CoreId(to as u16);
                    while let Some(batch) = self.0[from].engine.poll_batch(lane) {
                        let world = &mut self.0[to];
                        world.engine.handle_batch(Now(0), CoreId(from as u16), batch);
                        world.settle();
                        has_carried = true;
                    }
                }
            }
        }
    }
}

/// A subscriber on each core but the publisher's: what a message costs that goes to all of them,
/// on both sides of the lanes.
#[divan::bench(args = [2, 4, 16])]
fn deliveries_to_other_cores(bencher: Bencher<'_, '_>, cores: u16) {
    let mut world = Cores::new(cores);
    for core in 1..cores {
        // A client without a name stays where it is.
        world.0[usize::from(core)].client("", "a/topic", Qos::AtMostOnce);
    }
    let publisher = world.0[0].client("", "elsewhere", Qos::AtMostOnce);
    world.settle();
    let bytes = messages("a/topic", Qos::AtMostOnce);
    bencher.counter(ItemsCount::new(BATCH * usize::from(cores - 1))).bench_local(|| {
        world.0[0].receive(publisher, &bytes);
        world.settle();
    });
}
