//! A replica of the log beside the disk: what the writer thread writes also goes there, and cores learn that a batch is stored
//! once both have it. Knows not what the replica is.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::atomic::AtomicU64;
use crate::storage::log::client::Inbox;

/// Takes the frames of a log. Neither function waits.
pub trait Replica: Send + Sync {
    /// Takes the next frame, head and body.
    fn ship(&self, frame: ReplicaFrame);
    /// The frames before this one, which begins a segment, are obsolete.
    fn forget_before(&self, frame: u64);
}

/// A frame of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFrame {
    /// Its number.
    pub number: u64,
    /// Whether it is the first one of a segment.
    pub begins_segment: bool,
    /// Its head and its body.
    pub bytes: Vec<u8>,
}

/// How the replica does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ReplicaState {
    /// It takes frames.
    #[default]
    Following = 0,
    /// It has taken none for so long that the store counts as failing.
    Stalled = 1,
    /// It has taken none for a while, and the disk alone counts.
    DiskAlone = 2,
}

/// How far the replica has come: written by the replica, read by the writer thread.
#[derive(Debug, Default)]
pub struct ReplicaProgress {
    up_to: AtomicU64,
    state: AtomicU8,
    writer: Mutex<Option<flume::WeakSender<Inbox>>>,
}

impl ReplicaProgress {
    /// The replica has all frames up to this one.
    pub fn set_up_to(&self, frame: u64) {
        if self.up_to.swap(frame, Release) != frame {
            self.wake();
        }
    }

    /// The replica does otherwise than before.
    pub fn set_state(&self, state: ReplicaState) {
        if self.state.swap(state as u8, Release) != state as u8 {
            self.wake();
        }
    }

    /// Wakes the writer. If its inbox is full, it has something to do, and looks by itself.
    fn wake(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.as_ref().and_then(flume::WeakSender::upgrade) {
            let _ = writer.try_send(Inbox::Progress);
        }
    }

    fn state(&self) -> ReplicaState {
        match self.state.load(Acquire) {
            1 => ReplicaState::Stalled,
            2 => ReplicaState::DiskAlone,
            _ => ReplicaState::Following,
        }
    }
}

/// A replica and its progress.
#[derive(Clone)]
pub struct Replication {
    /// The replica.
    pub replica: Arc<dyn Replica>,
    /// What it says of itself.
    pub progress: Arc<ReplicaProgress>,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.progress.fmt(f)
    }
}

/// By core, the last batch in a frame, and the last checkpoint completed with it; 0 where there is none.
pub(super) type Collected = Vec<(u64, u64)>;

/// What the writer thread knows of the replica.
pub(super) struct Replicated {
    of: Replication,
    /// The last frame that was handed over.
    shipped: u64,
    /// Batches that are on disk, with the frame that the replica has to have.
    waiting: VecDeque<(u64, Collected)>,
}

impl Replicated {
    /// A log with frames up to `frame`, all of which the replica has or has been given.
    pub fn new(of: Replication, frame: u64, inbox: &flume::Sender<Inbox>) -> Self {
        let mut writer = of.progress.writer.lock().unwrap_or_else(PoisonError::into_inner);
        *writer = Some(inbox.downgrade());
        drop(writer);
        Self { of, shipped: frame, waiting: VecDeque::new() }
    }

    /// Hands a frame over, unless it was written before and its synchronisation failed.
    pub fn ship(&mut self, number: u64, begins_segment: bool, bytes: &[u8]) {
        if number > self.shipped {
            self.shipped = number;
            self.of.replica.ship(ReplicaFrame { number, begins_segment, bytes: bytes.to_vec() });
        }
    }

    /// These batches are on disk, the last of them with a frame.
    pub fn wait(&mut self, frame: u64, collected: Collected) {
        self.waiting.push_back((frame, collected));
    }

    /// The next batches that count as stored.
    pub fn next_stored(&mut self) -> Option<Collected> {
        let up_to = match self.of.progress.state() {
            ReplicaState::DiskAlone => u64::MAX,
            _ => self.of.progress.up_to.load(Acquire),
        };
        self.waiting.pop_front_if(|(frame, _)| *frame <= up_to).map(|(_, collected)| collected)
    }

    /// Whether the store counts as failing because of the replica.
    pub fn is_stalled(&self) -> bool {
        self.of.progress.state() == ReplicaState::Stalled
    }

    /// The frames before this one were removed.
    pub fn forget_before(&self, frame: u64) {
        self.of.replica.forget_before(frame);
    }
}
