//! What another node sends: arbitrary bytes as items and as a hello, and frames with the right checksum and anything else
//! arbitrary, on a lane that also sends.
//!
//! Nothing panics; an item that is read and written again is the same; the lane's memory is bounded by what came in, and
//! its reports stay in order.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringmq::base::clock::Now;
use ringmq::cluster::codec::{Item, Items};
use ringmq::cluster::lane::{Lane, Taken};

#[derive(Arbitrary, Debug)]
enum Step {
    Frame { flags: u8, sender: u8, receiver: u8, number: u8, taken: u8, receipt: u8, age_us: u64, body: Vec<u8> },
    /// The next frame, so that content is taken.
    Next { body: Vec<u8> },
    Fragment { total: u32, part: Vec<u8> },
    Bytes(Vec<u8>),
    Push { items: u8 },
    Receipt(u8),
    Pass { ms: u16 },
    Restart(u8),
}

/// A frame as `src/cluster/lane/header.rs` writes it: version, flags, checksum, and six numbers.
fn frame(flags: u8, numbers: [u64; 6], body: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, flags, 0, 0, 0, 0, 0, 0];
    frame.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    frame.extend_from_slice(body);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    frame[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    frame
}

/// Reads items, and writes what was read: it means the same.
fn check_items(items: Items<'_>) {
    let read: Vec<Item<'_>> = items.map_while(Result::ok).collect();
    let mut again = Vec::new();
    for item in &read {
        item.encode(&mut again);
    }
    assert!(Items::new(&again).map_while(Result::ok).eq(read));
}

struct Fuzzed {
    lane: Lane,
    now: Now,
    /// The last frame of the other node that was taken, and its incarnation.
    taken: u64,
    fed: usize,
}

impl Fuzzed {
    fn feed(&mut self, bytes: Vec<u8>) {
        self.fed += bytes.len();
        let Ok(Taken { content, restarted }) = self.lane.handle_frame(self.now, bytes.into()) else { return };
        if let Some(left) = restarted {
            left.for_each(|content| check_items(content.items()));
        }
        if let Some(content) = content {
            self.taken = content.number;
            check_items(content.items());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Frame { flags, sender, receiver, number, taken, receipt, age_us, body } => {
                let numbers = [sender, receiver, number, taken, receipt].map(|number| u64::from(number % 16));
                let [sender, receiver, number, taken, receipt] = numbers;
                self.feed(frame(flags, [sender, receiver, number, taken, receipt, age_us], &body));
            }
            Step::Next { body } => {
                let numbers = [self.lane.peer_incarnation(), 3, self.taken + 1, 0, 0, 0];
                self.feed(frame(0, numbers, &body));
            }
            Step::Fragment { total, part } => {
                let body = [&total.to_le_bytes()[..], &part].concat();
                self.feed(frame(1, [self.lane.peer_incarnation(), 3, self.taken + 1, 0, 0, 0], &body));
            }
            Step::Bytes(bytes) => {
                check_items(Items::new(&bytes));
                self.feed(bytes);
            }
            Step::Push { items } => {
                for number in 0..items {
                    self.lane.push(self.now, &Item::Clock(number.into()));
                }
                self.lane.flush();
            }
            Step::Receipt(number) => self.lane.set_receipt(number.into()),
            Step::Pass { ms } => {
                self.now.0 += u64::from(ms) * 1_000;
                self.lane.handle_timeout(self.now);
            }
            Step::Restart(incarnation) => drop(self.lane.restart(u64::from(incarnation % 16), self.now)),
        }
        while let Some(frame) = self.lane.poll_transmit(self.now) {
            assert!(frame.len() <= 256 * 1024);
        }
        assert!(self.lane.receipted() <= self.lane.taken_by_peer());
        assert!(self.lane.taken_by_peer() <= self.lane.last_number());
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let now = Now(1_000_000);
    let mut fuzzed = Fuzzed { lane: Lane::new(3, 3, now), now, taken: 0, fed: 0 };
    let pushes = steps.iter().filter(|step| matches!(step, Step::Push { .. })).count();
    for step in steps {
        fuzzed.step(step);
    }
    // What came in, what was pushed with its bookkeeping, and buffers for reuse.
    assert!(fuzzed.lane.heap_bytes() <= 2 * fuzzed.fed + pushes * 8 * 1024 + 64 * 1024);
});
