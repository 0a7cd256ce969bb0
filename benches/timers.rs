//! The timer wheel: `cargo bench --bench timers`; `RINGMQ_BENCH_SHORT=1` for a run of seconds.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringmq::base::clock::{Deadline, Now};
use ringmq::base::timer_wheel::Wheel;

fn main() {
    if std::env::var_os("RINGMQ_BENCH_SHORT").is_some() {
        divan::Divan::from_args().sample_count(3).sample_size(1).main();
    } else {
        divan::main();
    }
}

/// The interval between two turns of a busy core.
const TURN_US: u64 = 1_000;

/// No timer is due: the cost in every turn.
#[divan::bench(args = [0, 1_000_000], sample_size = 1_000)]
fn a_turn_without_timers_due(bencher: Bencher<'_, '_>, armed: u64) {
    let mut wheel = Wheel::new(Now(0));
    (0..armed).for_each(|key| wheel.arm(Deadline::at_us((1 << 40) + key), key));
    let (mut now, mut fired) = (0, Vec::new());
    bencher.bench_local(|| {
        now += TURN_US;
        wheel.advance(Now(now), &mut fired);
        black_box(wheel.next())
    });
}

/// Keep Alive of this many connections, each armed again when it fires; cost per connection.
#[divan::bench(args = [1_000, 100_000, 1_000_000])]
fn keep_alive_round(bencher: Bencher<'_, '_>, connections: u64) {
    const KEEP_ALIVE_US: u64 = 60_000_000;
    let mut wheel = Wheel::new(Now(0));
    let apart_us = KEEP_ALIVE_US / connections;
    (0..connections).for_each(|key| wheel.arm(Deadline::at_us(key * apart_us), key));
    let (mut now, mut fired) = (0, Vec::new());
    // One sixtieth of a rotation.
    bencher.counter(ItemsCount::new(connections / 60)).bench_local(|| {
        for _ in 0..1_000 {
            now += TURN_US;
            wheel.advance(Now(now), &mut fired);
            for key in fired.drain(..) {
                wheel.arm(Deadline::at_us(now + KEEP_ALIVE_US), key);
            }
        }
    });
}
