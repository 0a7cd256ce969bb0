//! Tests of the writer thread: the clock, and a replica beside the disk.

use std::sync::Mutex;

use super::*;
use crate::storage::commit::{RecordBatch, StoreState};
use crate::storage::log::replica::{Replica, ReplicaFrame, ReplicaProgress, ReplicaState};

#[test]
fn a_clock_that_is_set_forward_reaches_the_cores_with_a_checkpoint() {
    let folder = std::env::temp_dir().join(format!("ringmq-clock-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let scan = Scan::of(&folder).expect("it is empty");
    let poll = mio::Poll::new().expect("a poll");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
    let notifiers = Arc::from([Notifier::new(crate::base::waker::Waker::Poll(waker))]);
    let (mut writer, mut clients) =
        Writer::new(&folder, &Storage::default(), &scan, notifiers, None).expect("it is new");
    writer.day = TimeOfDay::of_1970();
    writer.check_clock();
    writer.check_size();
    let state = clients[0].changed_state().expect("there is news");
    assert_eq!(state.wall_at_zero_us, writer.started_us());
    assert!(state.wall_at_zero_us > 1_700_000_000_000_000, "{}", state.wall_at_zero_us);
    assert_eq!(state.checkpoint, 1);
    std::fs::remove_dir_all(&folder).expect("it exists");
}

/// A replica that notes what it is given.
#[derive(Default)]
struct Noted {
    frames: Mutex<Vec<ReplicaFrame>>,
    forgotten: Mutex<Vec<u64>>,
}

impl Replica for Noted {
    fn ship(&self, frame: ReplicaFrame) {
        self.frames.lock().expect("no panic").push(frame);
    }

    fn forget_before(&self, frame: u64) {
        self.forgotten.lock().expect("no panic").push(frame);
    }
}

/// A writer of one core, which the test drives turn by turn.
struct Driven {
    folder: PathBuf,
    writer: Writer,
    client: StoreClient,
    replica: Arc<Noted>,
    progress: Arc<ReplicaProgress>,
    number: u64,
}

impl Driven {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let scan = Scan::of(&folder).expect("it is empty");
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let notifiers = Arc::from([Notifier::new(crate::base::waker::Waker::Poll(waker))]);
        let (replica, progress) = (Arc::<Noted>::default(), Arc::<ReplicaProgress>::default());
        let replication =
            Replication { replica: Arc::clone(&replica) as _, progress: Arc::clone(&progress) };
        let (writer, mut clients) =
            Writer::new(&folder, &Storage::default(), &scan, notifiers, Some(replication))
                .expect("it is new");
        let client = clients.remove(0);
        Self { folder, writer, client, replica, progress, number: 0 }
    }

    fn hand_over(&mut self, bytes: &[u8], checkpoint: u64) {
        self.number += 1;
        let records = RecordBatch { number: self.number, bytes: bytes.to_vec(), checkpoint };
        self.client.hand_over(records);
    }

    /// One turn of the thread, in which something has come; the state of the store.
    fn turn(&mut self) -> StoreState {
        assert!(!self.writer.inbox.is_empty(), "the writer would sleep");
        while let Ok(told) = self.writer.inbox.try_recv() {
            if let Inbox::Batch(handover) = told {
                self.writer.collect(handover);
            }
        }
        self.writer.write_with_retries();
        self.writer.check_replica();
        self.writer.end_checkpoint();
        self.client.seen = (u64::MAX, u64::MAX);
        self.client.changed_state().expect("there is a state")
    }

    fn shipped(&self) -> Vec<u64> {
        self.replica.frames.lock().expect("no panic").iter().map(|frame| frame.number).collect()
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_batch_is_stored_once_the_disk_and_the_replica_have_it_and_the_writer_continues_meanwhile() {
    let mut driven = Driven::new("replicated");
    for number in 1..=3 {
        driven.hand_over(b"records", 0);
        assert_eq!(driven.turn().up_to, 0);
        assert_eq!(driven.shipped().len(), number);
    }
    assert_eq!(driven.shipped(), [1, 2, 3]);
    driven.progress.set_up_to(2);
    assert_eq!(driven.turn().up_to, 2);
    driven.progress.set_up_to(3);
    assert_eq!(driven.turn().up_to, 3);
    let frames = driven.replica.frames.lock().expect("no panic");
    assert!(frames[0].begins_segment && !frames[1].begins_segment);
    for frame in frames.iter() {
        let head = Frame::read(&frame.bytes).expect("a frame");
        assert!(head.number == frame.number && head.is_whole(&frame.bytes));
    }
}

#[test]
fn while_the_disk_counts_alone_batches_are_stored_without_the_replica() {
    let mut driven = Driven::new("degraded");
    driven.hand_over(b"records", 0);
    assert_eq!(driven.turn().up_to, 0);
    driven.progress.set_state(ReplicaState::DiskAlone);
    assert_eq!(driven.turn().up_to, 1);
    driven.hand_over(b"records", 0);
    assert_eq!(driven.turn().up_to, 2);
    driven.progress.set_state(ReplicaState::Following);
    driven.hand_over(b"records", 0);
    assert_eq!(driven.turn().up_to, 2);
    driven.progress.set_up_to(3);
    assert_eq!(driven.turn().up_to, 3);
}

#[test]
fn a_store_whose_replica_stalls_counts_as_failing_until_it_does_not() {
    let mut driven = Driven::new("stalled");
    driven.progress.set_state(ReplicaState::Stalled);
    assert!(driven.turn().is_failing);
    driven.progress.set_state(ReplicaState::Following);
    assert!(!driven.turn().is_failing);
}

#[test]
fn a_checkpoint_removes_segments_once_the_replica_has_it_and_the_replica_is_told_what_is_obsolete()
{
    let mut driven = Driven::new("obsolete");
    driven.hand_over(b"records", 0);
    driven.turn();
    driven.writer.begin_checkpoint();
    driven.hand_over(b"all records", 1);
    driven.turn();
    driven.progress.set_up_to(1);
    driven.turn();
    assert_eq!(driven.writer.closed.len(), 1);
    assert!(driven.replica.forgotten.lock().expect("no panic").is_empty());
    driven.progress.set_up_to(2);
    driven.turn();
    assert!(driven.writer.closed.is_empty());
    assert_eq!(*driven.replica.forgotten.lock().expect("no panic"), [2]);
    assert!(driven.replica.frames.lock().expect("no panic")[1].begins_segment);
}
