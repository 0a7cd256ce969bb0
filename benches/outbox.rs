//! The buffers from the engine that encodes packets to the executor that writes them: `cargo bench
//! --bench outbox`; `RINGMQ_BENCH_SHORT=1` for a run of seconds.

mod world;

use std::io::IoSlice;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use ringmq::base::send_buffer::SendBuffer;
use ringmq::wire::Qos;

use world::World;

fn main() {
    if std::env::var_os("RINGMQ_BENCH_SHORT").is_some() {
        divan::Divan::from_args().sample_count(3).sample_size(1).main();
    } else {
        divan::main();
    }
}

/// Frames per turn and buffer.
const FRAMES: usize = 100;

/// What an executor does with a buffer, without the system call.
fn write(buffer: &mut SendBuffer) {
    while !buffer.is_empty() {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = black_box(&*buffer).io_slices(&mut slices);
        let bytes = slices[..count].iter().map(|slice| slice.len()).sum();
        buffer.advance(bytes);
    }
    buffer.clear();
}

/// Consecutive frames of this size; cost per frame.
#[divan::bench(args = [4, 80, 512, 1_024, 2_048, 4_096])]
fn frames_copied(bencher: Bencher<'_, '_>, bytes: usize) {
    let frame = vec![0x55; bytes];
    let mut buffer = SendBuffer::default();
    bencher.counter(ItemsCount::new(FRAMES)).counter(BytesCount::new(FRAMES * bytes)).bench_local(
        || {
            for _ in 0..FRAMES {
                buffer.append(|out| out.extend_from_slice(black_box(&frame)));
            }
            write(&mut buffer);
        },
    );
}

/// A copied header and a payload by reference, whose size does not matter.
#[divan::bench]
fn frames_by_reference(bencher: Bencher<'_, '_>) {
    let payload = Bytes::from(vec![0x55; 4_096]);
    let mut buffer = SendBuffer::default();
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        for _ in 0..FRAMES {
            buffer.append(|out| out.extend_from_slice(black_box(&[0x30; 16])));
            buffer.append_shared(black_box(&payload).clone());
        }
        write(&mut buffer);
    });
}

/// One packet for each of a thousand connections: outboxes are taken, filled, sent and returned.
#[divan::bench]
fn outboxes_of_a_turn(bencher: Bencher<'_, '_>) {
    let mut world = World::new(1, false);
    let clients: Vec<_> = (0..1_000).map(|_| world.client(0, "a/topic", Qos::AtMostOnce)).collect();
    bencher.counter(ItemsCount::new(clients.len())).bench_local(|| world.ping(&clients));
}
