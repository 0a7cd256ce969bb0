//! Arbitrary bytes, decoded as records of the store: they are valid or rejected, and an engine that
//! loads them continues to work.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::base::clock::Now;
use ringmq::config::Settings;
use ringmq::engine::{AllowAll, Config, Engine, Keys};
use ringmq::storage::commit::{JournalConfig, StoreState};
use ringmq::resources::gauges::Place;
use ringmq::storage::image::{Image, Whole};

fuzz_target!(|input: &[u8]| {
    let mut image = Image::default();
    if image.apply(input, &Whole).is_err() {
        return;
    }
    // Records encoded again decode to the same state.
    let mut again = Image::default();
    again.apply(&image.write(|_| {}), &Whole).expect("records");
    assert_eq!((&again.sessions, &again.wills), (&image.sessions, &image.wills));
    let mut settings = Settings::default();
    settings.limits.memory_bytes_max = 1 << 30;
    settings.limits.connections_max = 10;
    let mut engine = Engine::new(Place::alone(), Config::from(&settings), Box::new(AllowAll), Keys::fixed(1), Now(0));
    engine.open_journal(JournalConfig { wall_at_zero_us: 1 << 50, waits: true });
    engine.restore(image);
    let mut up_to = 0;
    for second in 0..100 {
        let now = Now(second * 1_000_000);
        engine.handle_all_read(now);
        engine.handle_timeout(now);
        while engine.poll_action().is_some() {}
        while let Some(records) = engine.poll_records() {
            up_to = records.number;
        }
        let checkpoint = second / 10;
        engine.handle_stored(now, StoreState { up_to, checkpoint, ..StoreState::default() });
    }
});
