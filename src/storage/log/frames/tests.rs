//! Tests of whole frames: what one log has is added to another one, and set aside.

use super::*;
use crate::config::{Data, Storage};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ringmq-frames-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Store {
        let settings = Storage { data: Data::None, ..Storage::default() };
        Store::open(&self.0, settings).expect("it opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A frame with a number in its body.
fn frame(number: u64) -> Vec<u8> {
    let mut frame = vec![0; format::FRAME_BYTES];
    format::push_batch(&mut frame, &number.to_le_bytes());
    Frame::finish(&mut frame, number, number - 1, 1);
    frame
}

fn add(store: &mut Store, numbers: std::ops::RangeInclusive<u64>) -> Result<(), StoreError> {
    let mut adding = store.add_frames();
    let added = numbers.into_iter().try_for_each(|number| adding.add(number, &frame(number)));
    adding.finish().and(added)
}

/// The frames from one on, with those that begin segments.
fn frames(store: &Store, first: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut all, mut begin) = (Vec::new(), Vec::new());
    let each = |number, bytes: &[u8], begins_segment| {
        assert_eq!(bytes, frame(number));
        all.push(number);
        if begins_segment {
            begin.push(number);
        }
        true
    };
    store.read_frames(first, each).expect("it reads");
    (all, begin)
}

#[test]
fn frames_that_are_added_are_there_after_the_next_start_and_those_that_are_there_are_left_out() {
    let folder = Folder::new("added");
    let mut store = folder.open();
    add(&mut store, 7..=9).expect("an empty log begins anywhere");
    drop(store);
    let mut store = folder.open();
    add(&mut store, 8..=12).expect("they follow");
    drop(store);
    let store = folder.open();
    assert_eq!((store.first_frame(), store.last_frame()), (Some(7), 12));
    assert_eq!(frames(&store, 0), ((7..=12).collect(), vec![7, 10]));
    assert_eq!(frames(&store, 11), (vec![11, 12], Vec::new()));
    assert_eq!(store.frame(13).expect("it reads"), None);
    assert!(store.has_same(9, &frame(9)).expect("it reads"));
    assert!(!store.has_same(9, &frame(8)).expect("it reads"));
}

#[test]
fn frames_after_a_gap_and_damaged_frames_are_refused() {
    let folder = Folder::new("gap");
    let mut store = folder.open();
    add(&mut store, 1..=2).expect("they are added");
    let error = add(&mut store, 4..=4).expect_err("3 is missing").to_string();
    assert!(error.contains("missing"), "{error}");
    let mut damaged = frame(3);
    *damaged.last_mut().expect("a byte") ^= 1;
    let mut adding = store.add_frames();
    assert!(adding.add(3, &damaged).is_err());
    adding.finish().expect("what is there is whole");
    assert_eq!(folder_frames(&mut store), [1, 2]);
}

fn folder_frames(store: &mut Store) -> Vec<u64> {
    store.rescan().expect("it is whole");
    frames(store, 0).0
}

#[test]
fn a_log_that_is_set_aside_is_whole_in_its_folder_and_the_store_is_empty() {
    let folder = Folder::new("aside");
    let mut store = folder.open();
    assert_eq!(store.set_aside("aside").expect("nothing to do"), None);
    add(&mut store, 1..=3).expect("they are added");
    add(&mut store, 4..=5).expect("they are added");
    let aside = store.set_aside("aside").expect("it is moved").expect("there was a log");
    assert_eq!(store.first_frame(), None);
    add(&mut store, 1..=1).expect("it begins again");
    drop(store);
    assert_eq!(folder_frames(&mut folder.open()), [1]);
    let settings = Storage { data: Data::None, ..Storage::default() };
    let mut aside = Store::open(&aside, settings).expect("it opens");
    assert_eq!(folder_frames(&mut aside), [1, 2, 3, 4, 5]);
}

/// A process that ends while it sets a log aside leaves the beginning of it.
#[test]
fn a_log_that_was_set_aside_in_part_is_set_aside_as_a_whole_at_the_next_start() {
    let folder = Folder::new("aside-in-part");
    let mut store = folder.open();
    add(&mut store, 1..=3).expect("they are added");
    add(&mut store, 4..=5).expect("they are added");
    let (last_segment, last_frame) = (2, 0);
    let extent = Extent { first_segment: 3, first_frame: 6, last_segment, last_frame };
    extent.write(&folder.0).expect("it is written");
    let aside = folder.0.join("aside");
    fs::create_dir(&aside).expect("a folder");
    let second = format::path(&folder.0, 2);
    fs::rename(&second, aside.join(second.file_name().expect("a name"))).expect("it is moved");
    drop(store);
    let mut store = folder.open();
    assert_eq!(frames(&store, 0).0, [1, 2, 3]);
    store.set_aside("aside").expect("it is moved");
    assert_eq!(store.first_frame(), None);
    assert_eq!(fs::read_dir(&aside).expect("a folder").count(), 3);
}
