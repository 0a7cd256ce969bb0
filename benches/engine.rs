//! Turns of the engine without I/O: the cost of a delivery without the kernel.
//!
//! `cargo bench --bench engine`; `RINGMQ_BENCH_SHORT=1` for a run of seconds.

mod world;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use ringmq::base::clock::Now;
use ringmq::wire::Qos;

use world::{World, messages};

fn main() {
    if std::env::var_os("RINGMQ_BENCH_SHORT").is_some() {
        // Read by divan itself.
        divan::Divan::from_args().sample_count(3).sample_size(1).main();
    } else {
        divan::main();
    }
}

/// PUBLISH packets in one receive buffer, as many as fit into 64 KiB.
const BATCH: u16 = 600;

fn fan_out(bencher: Bencher<'_, '_>, cores: u16, qos: Qos, subscribers: usize) {
    let (mut world, publisher) = World::fan_out(cores, qos, subscribers);
    let bytes = messages("a/topic", qos, BATCH, 64);
    bencher
        .counter(ItemsCount::new(usize::from(BATCH) * subscribers))
        .bench_local(|| world.receive(publisher, &bytes));
}

#[divan::bench(args = [1, 10, 500])]
fn deliveries_at_qos_0(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, 1, Qos::AtMostOnce, subscribers);
}

/// Includes acknowledgements, and the time in which the benchmark creates them.
#[divan::bench(args = [1, 10, 500])]
fn deliveries_at_qos_1(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, 1, Qos::AtLeastOnce, subscribers);
}

/// From one core to the subscribers of another, in batches.
#[divan::bench(args = [1, 10, 500])]
fn deliveries_across_cores(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, 2, Qos::AtMostOnce, subscribers);
}

/// One subscriber on each core except the publisher's: the cost of a message to all cores, on both
/// sides of the lanes.
#[divan::bench(args = [2, 4, 16])]
fn deliveries_to_all_other_cores(bencher: Bencher<'_, '_>, cores: u16) {
    let mut world = World::new(cores, false);
    for core in 1..usize::from(cores) {
        world.client(core, "a/topic", Qos::AtMostOnce);
    }
    let publisher = world.client(0, "elsewhere", Qos::AtMostOnce);
    let bytes = messages("a/topic", Qos::AtMostOnce, BATCH, 64);
    bencher
        .counter(ItemsCount::new(usize::from(BATCH) * usize::from(cores - 1)))
        .bench_local(|| world.receive(publisher, &bytes));
}

/// One message of this size: from 2 KiB on a payload is held by reference.
#[divan::bench(args = [64, 1_024, 2_047, 2_048, 4_096, 16_384, 65_536, 1_048_576],
    consts = [1, 10, 500])]
fn payloads<const SUBSCRIBERS: usize>(bencher: Bencher<'_, '_>, payload_bytes: usize) {
    let (mut world, publisher) = World::fan_out(1, Qos::AtMostOnce, SUBSCRIBERS);
    let bytes = messages("a/topic", Qos::AtMostOnce, 1, payload_bytes);
    bencher
        .counter(ItemsCount::new(SUBSCRIBERS))
        .counter(BytesCount::new(SUBSCRIBERS * payload_bytes))
        .bench_local(|| world.receive(publisher, &bytes));
}

/// Without a subscriber: only decoding and matching.
#[divan::bench]
fn publishes_nobody_wants(bencher: Bencher<'_, '_>) {
    let (mut world, publisher) = World::fan_out(1, Qos::AtMostOnce, 0);
    let bytes = messages("a/topic", Qos::AtMostOnce, BATCH, 64);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| world.receive(publisher, &bytes));
}

/// CONNECT, SUBSCRIBE and disconnection of a client among 1,000 others.
#[divan::bench]
fn clients_connect_and_disconnect(bencher: Bencher<'_, '_>) {
    let mut world = World::new(1, false);
    for number in 0..1_000 {
        world.client(0, &format!("topic/{number}"), Qos::AtMostOnce);
    }
    bencher.bench_local(|| {
        let (core, id) = world.client(0, "topic/of/its/own", Qos::AtMostOnce);
        world.engines[core].handle_closed(Now(0), id);
    });
}

/// QoS 1 to a shared subscription whose members are all disconnected: one of them has to be
/// selected.
#[divan::bench(args = [20, 20_000], sample_count = 50)]
fn publishes_to_a_disconnected_group(bencher: Bencher<'_, '_>, members: usize) {
    let mut world = World::new(1, false);
    let publisher = world.client(0, "elsewhere", Qos::AtMostOnce);
    for number in 0..members {
        world.member_away(&format!("member {number}"), "$share/g/a/topic");
    }
    let bytes = messages("a/topic", Qos::AtLeastOnce, BATCH, 64);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| world.receive(publisher, &bytes));
}
