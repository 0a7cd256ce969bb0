//! Arbitrary bytes, read as a database of Mosquitto: they are refused, or an image results that is the same after it was
//! written as records. A second import of it takes nothing.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use ringmq::mosquitto::database::{Collector, Options, ReadError, Reader};
use ringmq::storage::image::{Image, Whole};

/// Reads chunks up to the end or the damage.
fn collect(input: &[u8], owners: bool) -> Option<Collector> {
    let mut reader = Reader::new(Cursor::new(input), input.len() as u64).ok()?;
    let options = Options { owners, salvage: true };
    let mut collector = Collector::new(String::new(), options, 1 << 50);
    loop {
        match reader.next_chunk() {
            Ok(Some(chunk)) => collector.take(&chunk),
            Ok(None) | Err(ReadError::Damaged(_)) => return Some(collector),
            Err(error) => panic!("{error}"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(collector) = collect(input, true) else { return };
    let mut image = Image::default();
    collector.add_to(&mut image).to_string();
    let mut again = Image::default();
    again.apply(&image.write(|_| {}), &Whole).expect("records");
    assert_eq!((&again.sessions, &again.retained), (&image.sessions, &image.retained));
    let report = collect(input, true).expect("as before").add_to(&mut image);
    assert!(report.is_empty(), "{report}");
});
