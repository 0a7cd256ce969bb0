//! Cost of sending messages from one core to another and back: `cargo bench -p shards --bench
//! mesh`. Compares our lane with other queues, with single messages and with 64 at a time.
//!
//! Two pinned threads exchange messages without sleeping. A message has 32 bytes and is counted in
//! each direction. `as one item` is how the mesh uses a lane: all messages of a turn for another
//! core form one item.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan, black_box};

type Message = [u64; 4];

/// Capacity in messages per direction.
const CAPACITY: usize = 1024;

static IS_SHORT: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("RINGMQ_BENCH_SHORT").is_some_and(|value| value == "1"));

/// The processors available before any thread is pinned.
static CORES: LazyLock<Vec<core_affinity::CoreId>> =
    LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());

fn main() {
    LazyLock::force(&CORES);
    let divan = Divan::from_args();
    match *IS_SHORT {
        true => divan.sample_count(5).sample_size(10).max_time(Duration::from_millis(50)),
        false => divan.sample_count(300).sample_size(300).max_time(Duration::from_secs(5)),
    }
    .main();
}

/// One endpoint: sends to the other thread and receives from it.
trait End: Send + Sized + 'static {
    fn pair() -> (Self, Self);
    /// Sends as many messages from the front as there is room for.
    fn send(&mut self, messages: &mut Vec<Message>);
    /// Receives the messages that have arrived.
    fn receive(&mut self, messages: &mut Vec<Message>);
}

struct Lane(shards::mesh::Sender<Message>, shards::mesh::Receiver<Message>);

impl End for Lane {
    fn pair() -> (Self, Self) {
        let ((there, out), (back, home)) =
            (shards::mesh::ring(CAPACITY), shards::mesh::ring(CAPACITY));
        (Self(there, home), Self(back, out))
    }

    fn send(&mut self, messages: &mut Vec<Message>) {
        messages.drain(..).for_each(|message| self.0.push(message).expect("there is room"));
    }

    fn receive(&mut self, messages: &mut Vec<Message>) {
        messages.extend(std::iter::from_fn(|| self.1.pop()));
    }
}

/// The messages of a turn as one item.
struct Batches(shards::mesh::Sender<Vec<Message>>, shards::mesh::Receiver<Vec<Message>>);

impl End for Batches {
    fn pair() -> (Self, Self) {
        let ((there, out), (back, home)) = (shards::mesh::ring(16), shards::mesh::ring(16));
        (Self(there, home), Self(back, out))
    }

    fn send(&mut self, messages: &mut Vec<Message>) {
        self.0.push(std::mem::take(messages)).expect("there is room");
    }

    fn receive(&mut self, messages: &mut Vec<Message>) {
        while let Some(batch) = self.1.pop() {
            match messages.is_empty() {
                true => *messages = batch,
                false => messages.extend(batch),
            }
        }
    }
}

struct Rtrb(rtrb::Producer<Message>, rtrb::Consumer<Message>);

impl End for Rtrb {
    fn pair() -> (Self, Self) {
        let ((there, out), (back, home)) =
            (rtrb::RingBuffer::new(CAPACITY), rtrb::RingBuffer::new(CAPACITY));
        (Self(there, home), Self(back, out))
    }

    fn send(&mut self, messages: &mut Vec<Message>) {
        let chunk = self.0.write_chunk_uninit(messages.len()).expect("there is room");
        chunk.fill_from_iter(messages.drain(..));
    }

    fn receive(&mut self, messages: &mut Vec<Message>) {
        let count = self.1.slots();
        if count > 0 {
            messages.extend(self.1.read_chunk(count).expect("counted"));
        }
    }
}

struct Flume(flume::Sender<Message>, flume::Receiver<Message>);

impl End for Flume {
    fn pair() -> (Self, Self) {
        let ((there, out), (back, home)) = (flume::bounded(CAPACITY), flume::bounded(CAPACITY));
        (Self(there, home), Self(back, out))
    }

    fn send(&mut self, messages: &mut Vec<Message>) {
        messages.drain(..).for_each(|message| self.0.try_send(message).expect("there is room"));
    }

    fn receive(&mut self, messages: &mut Vec<Message>) {
        messages.extend(self.1.drain());
    }
}

struct FlumeBatches(flume::Sender<Vec<Message>>, flume::Receiver<Vec<Message>>);

impl End for FlumeBatches {
    fn pair() -> (Self, Self) {
        let ((there, out), (back, home)) = (flume::bounded(16), flume::bounded(16));
        (Self(there, home), Self(back, out))
    }

    fn send(&mut self, messages: &mut Vec<Message>) {
        self.0.try_send(std::mem::take(messages)).expect("there is room");
    }

    fn receive(&mut self, messages: &mut Vec<Message>) {
        if let Ok(batch) = self.1.try_recv() {
            match messages.is_empty() {
                true => *messages = batch,
                false => messages.extend(batch),
            }
        }
    }
}

type Array = Arc<crossbeam_queue::ArrayQueue<Message>>;

struct Crossbeam(Array, Array);

impl End for Crossbeam {
    fn pair() -> (Self, Self) {
        let new = || Arc::new(crossbeam_queue::ArrayQueue::new(CAPACITY));
        let (there, back) = (new(), new());
        (Self(Arc::clone(&there), Arc::clone(&back)), Self(back, there))
    }

    fn send(&mut self, messages: &mut Vec<Message>) {
        messages.drain(..).for_each(|message| self.0.push(message).expect("there is room"));
    }

    fn receive(&mut self, messages: &mut Vec<Message>) {
        messages.extend(std::iter::from_fn(|| self.1.pop()));
    }
}

/// Sends messages to an echoing thread until as many have returned.
fn ping_pong<E: End>(bencher: Bencher, batch: usize) {
    let (mut here, mut there) = E::pair();
    let (first, last) = (CORES.first().copied(), CORES.last().copied());
    let is_over = Arc::new(AtomicBool::new(false));
    let echo = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            last.map(core_affinity::set_for_current);
            let mut messages = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                there.receive(&mut messages);
                if messages.is_empty() {
                    std::hint::spin_loop();
                } else {
                    there.send(&mut messages);
                }
            }
        }
    });
    first.map(core_affinity::set_for_current);
    let (mut out, mut home) = (Vec::new(), Vec::new());
    bencher.counter(ItemsCount::new(2 * batch)).bench_local(|| {
        out.extend((0..batch as u64).map(|n| [n; 4]));
        here.send(&mut out);
        home.clear();
        while home.len() < batch {
            here.receive(&mut home);
            std::hint::spin_loop();
        }
        black_box(&home);
    });
    is_over.store(true, Ordering::Relaxed);
    echo.join().expect("the other thread only echoes");
}

const SIZES: [usize; 2] = [1, 64];

#[divan::bench(args = SIZES)]
fn lane(bencher: Bencher, batch: usize) {
    ping_pong::<Lane>(bencher, batch);
}

#[divan::bench(args = SIZES)]
fn lane_as_one_item(bencher: Bencher, batch: usize) {
    ping_pong::<Batches>(bencher, batch);
}

#[divan::bench(args = SIZES)]
fn rtrb_chunks(bencher: Bencher, batch: usize) {
    ping_pong::<Rtrb>(bencher, batch);
}

#[divan::bench(args = SIZES)]
fn crossbeam_array_queue(bencher: Bencher, batch: usize) {
    ping_pong::<Crossbeam>(bencher, batch);
}

#[divan::bench(args = SIZES)]
fn flume_bounded(bencher: Bencher, batch: usize) {
    ping_pong::<Flume>(bencher, batch);
}

#[divan::bench(args = SIZES)]
fn flume_as_one_item(bencher: Bencher, batch: usize) {
    ping_pong::<FlumeBatches>(bencher, batch);
}
