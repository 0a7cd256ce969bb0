//! Cost of messages on a lane between two nodes: `cargo bench --bench lanes --features cluster`, in time per message. With
//! `RINGMQ_BENCH_SHORT=1` it only verifies that the benchmarks run.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, Divan, black_box};
use ringmq::base::clock::Now;
use ringmq::cluster::codec::{Item, Publish, To};
use ringmq::cluster::lane::Lane;

fn main() {
    let is_short = std::env::var_os("RINGMQ_BENCH_SHORT").is_some_and(|value| value == "1");
    let divan = Divan::from_args();
    let divan = if is_short {
        divan.sample_count(5).sample_size(10).max_time(Duration::from_millis(50))
    } else {
        divan
    };
    divan.main();
}

/// Messages in a turn: some ten frames.
const MESSAGES: usize = 25_000;

const PAYLOAD: [u8; 64] = [0x55; 64];

fn item() -> Item<'static> {
    Item::Publish(Publish {
        topic: "plant/7/line/3/flow0",
        passed_on: &[],
        payload: &PAYLOAD,
        qos: 0,
        retain: false,
        expires_in_ms: None,
        publisher: Some((1, 7)),
        exchange: None,
        to: To::Subscribers,
    })
}

struct Pair {
    from: Lane,
    to: Lane,
    /// Frames under way.
    frames: Vec<Bytes>,
}

impl Pair {
    fn new() -> Self {
        Self { from: Lane::new(1, 1, Now(0)), to: Lane::new(1, 1, Now(0)), frames: Vec::new() }
    }

    fn push(&mut self) {
        for _ in 0..MESSAGES {
            self.from.push(Now(0), black_box(&item()));
        }
        self.from.flush();
        self.frames.extend(std::iter::from_fn(|| self.from.poll_transmit(Now(0))));
    }

    /// Reads every item, and returns how many there are.
    fn take(&mut self) -> usize {
        let mut count = 0;
        for frame in self.frames.drain(..) {
            let taken = self.to.handle_frame(Now(0), frame).expect("a good frame");
            let content = taken.content.expect("the next frame");
            count += content.items().filter(|item| black_box(item).is_ok()).count();
            self.to.set_receipt(content.number);
        }
        count
    }

    fn receipt(&mut self) {
        while let Some(frame) = self.to.poll_transmit(Now(0)) {
            self.from.handle_frame(Now(0), frame).expect("a good frame");
        }
    }
}

/// Messages into frames with checksums; the rest of the way is not measured.
#[divan::bench]
fn push(bencher: Bencher<'_, '_>) {
    let pair = RefCell::new(Pair::new());
    bencher
        .counter(ItemsCount::new(MESSAGES))
        .with_inputs(|| {
            let pair = &mut *pair.borrow_mut();
            pair.take();
            pair.receipt();
        })
        .bench_local_values(|()| pair.borrow_mut().push());
}

/// Frames into messages.
#[divan::bench]
fn take(bencher: Bencher<'_, '_>) {
    let pair = RefCell::new(Pair::new());
    bencher
        .counter(ItemsCount::new(MESSAGES))
        .with_inputs(|| {
            let pair = &mut *pair.borrow_mut();
            pair.receipt();
            pair.push();
        })
        .bench_local_values(|()| pair.borrow_mut().take());
}

/// From messages to messages: into frames, out of frames, receipts.
#[divan::bench]
fn push_take_receipt(bencher: Bencher<'_, '_>) {
    let mut pair = Pair::new();
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        pair.push();
        assert_eq!(pair.take(), MESSAGES);
        pair.receipt();
        assert_eq!(pair.from.load_bytes(), 0);
    });
}
