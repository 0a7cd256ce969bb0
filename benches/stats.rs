//! Cost of statistics for the recording core and for the reporting thread.
//!
//! `cargo bench --bench stats`; `RINGMQ_BENCH_SHORT=1` for a run of seconds.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringmq::base::clock::Tick;
use ringmq::stats::{Collector, Kind, Recorder, Recording, collector};

fn main() {
    if std::env::var_os("RINGMQ_BENCH_SHORT").is_some() {
        // Read by divan itself.
        divan::Divan::from_args().sample_count(3).sample_size(1).main();
    } else {
        divan::main();
    }
}

fn recorder() -> (Recorder, Collector) {
    let (mut recorders, collector) = collector(1);
    (recorders.remove(0), collector)
}

/// Consecutive turns: a single one is too short for the clock.
const TURNS: u64 = 1_000;

/// The end of turns with messages of this many QoS levels, on a core without a reader.
#[divan::bench(args = [0, 1, 3], counters = [ItemsCount::new(TURNS)])]
fn turns(bencher: Bencher<'_, '_>, levels: usize) {
    let (mut recorder, _collector) = recorder();
    let mut published = [0; 3];
    let mut ns = 0;
    bencher.bench_local(|| {
        for _ in 0..TURNS {
            published[..levels].iter_mut().for_each(|count| *count += 100);
            ns = (ns + 7_919) % 200_000;
            recorder.note_turn(Tick(0), Tick(black_box(ns)), published, std::iter::empty());
        }
    });
}

/// Adds a core's recording of an interval to the total, which the reporter does twice for each core.
#[divan::bench]
fn add_up(bencher: Bencher<'_, '_>) {
    let mut recording = Recording::default();
    for ns in (0..20_000_000).step_by(1_000) {
        [Kind::PublishQos0, Kind::PublishQos1, Kind::Turn]
            .iter()
            .for_each(|&kind| recording.record(kind, ns, 1));
    }
    let mut all = Recording::default();
    bencher.bench_local(|| all.add(black_box(&recording)));
}
