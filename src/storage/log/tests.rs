//! Tests of the log: writing, reading, torn ends and damage.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::extent::{self, Extent, Found};
use super::offline;
use super::*;
use crate::config::Data;
use crate::storage::commit::RecordBatch;
use crate::storage::record::{Record, SessionNumber};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringmq-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// The only segment that has frames.
    fn segment(&self) -> PathBuf {
        let scan = Scan::of(&self.0).expect("readable");
        let with_frames = scan.segments.iter().rfind(|of| of.bytes > 28);
        with_frames.expect("there is one").path.clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings() -> Storage {
    Storage { data: Data::None, ..Storage::default() }
}

fn record(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let client_identifier = &format!("client {number}");
    let session = SessionNumber(1 << 42 | number);
    Record::Session { session, client_identifier, expiry_interval_s: 9 }.encode(&mut bytes);
    bytes
}

/// A store with one core, into which batches are written one after the other.
struct Written {
    store: Store,
    clients: Vec<StoreClient>,
    number: u64,
}

impl Written {
    fn open(folder: &Path, settings: Storage) -> Self {
        let mut store = Store::open(folder, settings).expect("it opens");
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let notifier = crate::base::notifier::Notifier::new(crate::base::waker::Waker::Poll(waker));
        let notifiers = Arc::from([notifier]);
        let clients = store.start(&notifiers).expect("it starts");
        Self { store, clients, number: 0 }
    }

    /// Writes a batch; the checkpoint that the store asks for by then.
    fn write(&mut self, bytes: Vec<u8>, checkpoint: u64) -> u64 {
        self.number += 1;
        self.clients[0].hand_over(RecordBatch { number: self.number, bytes, checkpoint });
        let number = self.number;
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if let Some(state) = self.clients[0].changed_state()
                && state.up_to >= number
            {
                return state.checkpoint;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        panic!("the store does not respond");
    }

    fn close(mut self) {
        self.clients.clear();
        self.store.finish();
    }
}

fn batches(folder: &Path) -> Vec<Vec<u8>> {
    let store = Store::open(folder, settings()).expect("it opens");
    let mut read = Vec::new();
    let mut progress = Progress::new(0, false);
    let each = |batch: &[u8]| {
        read.push(batch.to_vec());
        Ok(())
    };
    store.reader().read(&mut progress, each).expect("it reads");
    read
}

fn written(folder: &Path, count: u64) {
    let mut written = Written::open(folder, settings());
    for number in 1..=count {
        written.write(record(number), 0);
    }
    written.close();
}

#[test]
fn batches_are_read_in_the_order_of_writing_across_several_starts() {
    let folder = Folder::new("order");
    for start in 0..3 {
        let mut log = Written::open(&folder.0, settings());
        for number in 1..=5 {
            log.write(record(start * 5 + number), 0);
        }
        log.close();
    }
    let expected: Vec<Vec<u8>> = (1..=15).map(record).collect();
    assert_eq!(batches(&folder.0), expected);
}

#[test]
fn a_store_belongs_to_one_process_at_a_time() {
    let folder = Folder::new("lock");
    let _store = Store::open(&folder.0, settings()).expect("it opens");
    assert!(matches!(Store::open(&folder.0, settings()), Err(StoreError::InUse(_))));
}

/// Makes the recorded extent lag behind, as after a crash.
fn is_behind(folder: &Path, last_frame: u64) {
    let Found::Good(extent) = extent::read(folder).expect("readable") else { panic!("is there") };
    Extent { last_frame, ..extent }.write(folder).expect("written");
}

/// The reported damages of a store that does not open.
fn refused(folder: &Path) -> Vec<String> {
    let verified = offline::verify(folder).expect("readable").damages;
    let Err(StoreError::Damaged(places)) = Store::open(folder, settings()) else {
        panic!("it starts, and verify says {verified:?}")
    };
    assert_eq!(places, verified);
    places.iter().map(ToString::to_string).collect()
}

#[test]
fn missing_parts_at_either_end_are_reported_after_a_clean_stop() {
    let folder = Folder::new("ends");
    for start in 0..3 {
        let mut log = Written::open(&folder.0, settings());
        log.write(record(start), 0);
        log.write(record(10 + start), 0);
        log.close();
    }
    let segments = Scan::of(&folder.0).expect("readable").segments;
    let [first, .., last] = &segments[..] else { panic!("{segments:?}") };
    let frame = super::format::FRAME_BYTES as u64;
    for (segment, what) in
        [(first, "the first segment of the log"), (last, "the last segment of the log")]
    {
        let aside = folder.0.join("aside");
        fs::rename(&segment.path, &aside).expect("moved");
        let said = refused(&folder.0);
        let name = segment.path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(said[0].contains(name) && said[0].contains(what), "{said:?}");
        fs::rename(&aside, &segment.path).expect("moved back");
        assert!(Store::open(&folder.0, settings()).is_ok());
    }
    // Truncated at every length, also between frames.
    let whole = fs::read(&last.path).expect("readable");
    for bytes in (0..last.bytes).rev() {
        fs::write(&last.path, &whole[..bytes as usize]).expect("written");
        let said = refused(&folder.0);
        assert!(said.len() == 1, "{bytes} bytes left: {said:?}");
    }
    fs::write(&last.path, &whole[..(last.bytes - frame) as usize]).expect("written");
    assert!(refused(&folder.0)[0].contains("the last frames of the log are missing"));
    fs::write(&last.path, &whole).expect("written");
    // The first segment without its frames.
    let whole = fs::read(&first.path).expect("readable");
    fs::write(&first.path, &whole[..super::format::HEADER_BYTES]).expect("written");
    assert!(refused(&folder.0)[0].contains("the first frames of the log are missing"));
    fs::write(&first.path, &whole).expect("written");
    // The file `extent`.
    let path = extent::path(&folder.0);
    let whole = fs::read(&path).expect("readable");
    fs::remove_file(&path).expect("removed");
    assert!(refused(&folder.0)[0].contains("records where the log begins and ends"));
    fs::write(&path, &whole[..47]).expect("written");
    assert!(refused(&folder.0)[0].contains("extent, byte 0: the size or the checksum is wrong"));
    fs::write(&path, &whole).expect("written");
    assert_eq!(batches(&folder.0).len(), 6);
}

#[test]
fn a_log_without_its_ends_is_repaired() {
    let folder = Folder::new("repair-ends");
    for start in 0..3 {
        let mut log = Written::open(&folder.0, settings());
        log.write(record(start), 0);
        log.close();
    }
    let segments = Scan::of(&folder.0).expect("readable").segments;
    fs::remove_file(&segments[0].path).expect("removed");
    fs::remove_file(&segments[2].path).expect("removed");
    assert_eq!(refused(&folder.0).len(), 2);
    offline::repair(&folder.0).expect("it can").expect("there is damage");
    assert!(offline::verify(&folder.0).expect("readable").damages.is_empty());
    let mut log = Written::open(&folder.0, settings());
    log.write(record(7), 0);
    log.close();
    let image = offline::inspect(&folder.0).expect("readable").to_string();
    assert!(image.lines().any(|line| line.starts_with("sessions ") && line.ends_with(" 2")));
    fs::remove_file(extent::path(&folder.0)).expect("removed");
    offline::repair(&folder.0).expect("it can").expect("there is damage");
    assert!(offline::repair(&folder.0).expect("it can").is_none());
    offline::compact(&folder.0).expect("it can");
    assert!(Store::open(&folder.0, settings()).is_ok());
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_access_folders_and_files() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new("private");
    let inner = folder.0.join("made/as/well");
    let modes = |folder: &Path| {
        let mut modes: Vec<(String, u32)> = fs::read_dir(folder)
            .expect("readable")
            .map(|entry| entry.expect("readable"))
            .map(|entry| (entry.file_name(), entry.metadata().expect("readable").mode()))
            .map(|(name, mode)| (name.to_string_lossy().into_owned(), mode & 0o777))
            .collect();
        modes.sort();
        modes
    };
    let are_private = |folder: &Path| {
        assert_eq!(fs::metadata(folder).expect("there").mode() & 0o777, 0o700);
        let modes = modes(folder);
        let is_private = |(_, mode): &(String, u32)| [0o600, 0o700].contains(mode);
        assert!(modes.len() >= 3 && modes.iter().all(is_private), "{modes:?}");
    };
    written(&inner, 2);
    are_private(&inner);
    offline::compact(&inner).expect("it can");
    are_private(&inner);
    fs::remove_file(extent::path(&inner)).expect("removed");
    offline::repair(&inner).expect("it can").expect("there is damage");
    are_private(&inner);
    let mut lines = Vec::new();
    offline::export(&inner, &mut lines).expect("it can");
    let other = folder.0.join("other");
    offline::import(&other, &lines[..]).expect("it can");
    are_private(&other);
}

#[test]
fn a_torn_end_is_cut_off_at_every_length() {
    let folder = Folder::new("torn");
    written(&folder.0, 4);
    let path = folder.segment();
    let whole = fs::read(&path).expect("readable");
    is_behind(&folder.0, 3);
    // The fifth frame is that of a clean stop; a crash leaves none.
    let frame = super::format::FRAME_BYTES;
    let whole = &whole[..whole.len() - frame];
    for cut in 1..=frame + 4 + record(4).len() {
        fs::write(&path, &whole[..whole.len() - cut]).expect("written");
        assert_eq!(batches(&folder.0), [record(1), record(2), record(3)], "{cut} bytes less");
        let after = Scan::of(&folder.0).expect("readable");
        assert_eq!((after.torn_bytes, after.damages.len()), (0, 0), "it was cut");
    }
    // As if a page had not reached the disk.
    let mut zeroed = whole.to_vec();
    let from = zeroed.len() - 8;
    zeroed[from..].fill(0);
    fs::write(&path, &zeroed).expect("written");
    assert_eq!(batches(&folder.0).len(), 3);
}

#[test]
fn a_segment_that_a_crash_left_without_a_header_is_removed() {
    let folder = Folder::new("headless");
    written(&folder.0, 2);
    for bytes in [0, 5, 27] {
        let path = super::format::path(&folder.0, 99);
        fs::write(&path, vec![0; bytes]).expect("written");
        assert_eq!(batches(&folder.0).len(), 2);
        assert!(!path.exists());
    }
}

#[test]
fn damage_of_any_byte_before_the_end_is_refused_with_its_place() {
    let folder = Folder::new("damage");
    written(&folder.0, 6);
    let path = folder.segment();
    let whole = fs::read(&path).expect("readable");
    let frame = super::format::FRAME_BYTES;
    // All but the last frame, which is empty and confirms the one before.
    for at in 0..whole.len() - frame {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, &bytes).expect("written");
        let error = Store::open(&folder.0, settings()).expect_err("it is damaged");
        let StoreError::Damaged(places) = &error else { panic!("byte {at}: {error}") };
        let [damage] = &places[..] else { panic!("byte {at}: {places:?}") };
        assert!(damage.offset <= at as u64, "byte {at}: {damage}");
        assert!(damage.until.is_some_and(|until| until > at as u64), "byte {at}: {damage}");
        let text = error.to_string();
        assert!(
            text.contains("broker store repair")
                && text.contains(&format!("byte {}", damage.offset))
        );
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let folder = Folder::new("missing");
    for start in 0..3 {
        let mut log = Written::open(&folder.0, settings());
        log.write(record(start), 0);
        log.close();
    }
    let second = Scan::of(&folder.0).expect("readable").segments[1].path.clone();
    fs::remove_file(second).expect("removed");
    assert!(matches!(Store::open(&folder.0, settings()), Err(StoreError::Damaged(_))));
}

#[test]
fn repair_keeps_intact_records_and_moves_the_files_aside() {
    let folder = Folder::new("repair");
    written(&folder.0, 6);
    let path = folder.segment();
    let mut bytes = fs::read(&path).expect("readable");
    let at = bytes.iter().position(|&byte| byte == b'3').expect("client 3");
    bytes[at] = b'9';
    fs::write(&path, &bytes).expect("written");
    assert_eq!(offline::verify(&folder.0).expect("readable").damages.len(), 1);
    let (aside, places) = offline::repair(&folder.0).expect("it can").expect("there is damage");
    assert_eq!(places, 1);
    assert!(aside.join(path.file_name().expect("a name")).exists());
    let inspection = offline::inspect(&folder.0).expect("readable").to_string();
    assert!(inspection.lines().any(|line| line.starts_with("sessions ") && line.ends_with(" 5")));
    assert!(Store::open(&folder.0, settings()).is_ok());
    assert!(offline::repair(&folder.0).expect("it can").is_none());
}

#[test]
fn a_later_format_is_refused_by_name() {
    let folder = Folder::new("version");
    written(&folder.0, 1);
    let path = folder.segment();
    let mut bytes = fs::read(&path).expect("readable");
    let later = format::VERSION + 1;
    bytes[8..12].copy_from_slice(&later.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).expect("written");
    let error = Store::open(&folder.0, settings()).expect_err("it is of a later version");
    assert!(matches!(error, StoreError::Version(_, version) if version == later), "{error}");
}

#[test]
fn a_complete_checkpoint_removes_the_records_before_it() {
    let folder = Folder::new("compact");
    let storage = Storage { compact_bytes_min: 1 << 20, ..settings() };
    let mut log = Written::open(&folder.0, storage);
    let mut asked = 0;
    while asked == 0 {
        asked = log.write(vec![0; 100_000], 0);
    }
    let before: u64 = Scan::of(&folder.0).expect("readable").bytes();
    log.write(record(7), asked);
    log.write(record(8), asked);
    log.close();
    let after = Scan::of(&folder.0).expect("readable").bytes();
    assert!(before > 1 << 20 && after < 200_000, "{before} bytes before, {after} after");
    assert!(batches(&folder.0).ends_with(&[record(7), record(8)]));
}

#[test]
fn an_import_of_an_export_gives_the_same_export() {
    let (from, to) = (Folder::new("export"), Folder::new("import"));
    written(&from.0, 3);
    let mut lines = Vec::new();
    offline::export(&from.0, &mut lines).expect("it can");
    let counts = offline::import(&to.0, &lines[..]).expect("it can");
    assert_eq!(counts, (3, 0));
    let mut again = Vec::new();
    offline::export(&to.0, &mut again).expect("it can");
    assert_eq!(String::from_utf8(again), String::from_utf8(lines.clone()));
    let error = offline::import(&to.0, &lines[..]).expect_err("it is not empty");
    assert!(matches!(error, offline::CarryError::NotEmpty(_)));
}

const HEAD: &str = "{\"ringmq\":{\"format\":7}}\n";

/// The Will of a client that was connected, as a line of an export.
fn will(number: u32, topic: &str) -> String {
    format!(
        r#"{{"will":{{"number":{number},"will":{{"client_identifier":"c","delay_interval_s":5,"content":{{"topic":"{topic}","payload":"64","passed_on":"","expires_us":null,"qos":1}},"retain":true,"message_expiry_interval_s":60}}}}}}"#
    )
}

#[test]
fn the_will_of_a_connected_client_is_exported_and_imported() {
    let (to, from) = (Folder::new("will"), format!("{HEAD}{}\n", will(7, "t")));
    offline::import(&to.0, from.as_bytes()).expect("it can");
    offline::compact(&to.0).expect("it can");
    let mut again = Vec::new();
    offline::export(&to.0, &mut again).expect("it can");
    assert_eq!(String::from_utf8(again).expect("text"), from);
}

#[test]
fn an_invalid_line_is_refused_with_its_number() {
    let (folder, head) = (Folder::new("lines"), HEAD);
    let filter = r##"{"session":{"number":5,"session":{"client_identifier":"a","subscriptions":{"a/#/b":{"qos":1,"no_local":false,"retain_as_published":false,"identifier":0}}}}}"##;
    for (text, line) in [
        (format!("{head}nonsense\n"), "line 2"),
        (format!("{head}{filter}\n"), "line 2: a/#/b"),
        ("{\"ringmq\":{\"format\":9}}\n".to_owned(), "line 1: this version cannot read format 9"),
        (format!("{head}{head}"), "line 2"),
        (format!("{head}{}\n", will(5, "t/#")), "line 2: t/#"),
        (format!("{head}{}\n{0}\n", will(5, "t")), "line 3"),
        (format!("{}\n", head.replace("ringmq", "session")), "line 1"),
    ] {
        let error = offline::import(&folder.0, text.as_bytes()).expect_err("it is wrong");
        assert!(error.to_string().contains(line), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// With any content of the files, opening succeeds or fails with the damaged places, and the batches read
    /// are those written, in order.
    #[test]
    fn damaged_files_cause_an_error_with_places_or_a_prefix_of_the_records(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>(), 0usize..40), 1..6),
    ) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = Folder::new(&format!("any-{number}"));
        thread_local!(static WHOLE: std::cell::RefCell<HashMap<u8, Vec<u8>>> = Default::default());
        let whole = WHOLE.with_borrow_mut(|kept| {
            kept.entry(0)
                .or_insert_with(|| {
                    written(&folder.0, 8);
                    let bytes = fs::read(folder.segment()).expect("readable");
                    fs::remove_dir_all(&folder.0).expect("removed");
                    bytes
                })
                .clone()
        });
        let mut bytes = whole;
        for (at, how, byte, len) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            let end = (at + len).min(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at..end].fill(byte),
                2 => drop(bytes.drain(at..end)),
                _ => {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        fs::create_dir_all(&folder.0).expect("made");
        fs::write(super::format::path(&folder.0, 1), &bytes).expect("written");
        let expected: Vec<Vec<u8>> = (1..=8).map(record).collect();
        match Store::open(&folder.0, settings()) {
            Ok(store) => {
                drop(store);
                let read = batches(&folder.0);
                prop_assert_eq!(&read[..], &expected[..read.len()]);
            }
            Err(StoreError::Damaged(places)) => prop_assert!(!places.is_empty()),
            Err(other) => prop_assert!(matches!(other, StoreError::Version(..)), "{other}"),
        }
        offline::repair(&folder.0).expect("whatever is left is kept");
        prop_assert!(Store::open(&folder.0, settings()).is_ok());
    }
}
