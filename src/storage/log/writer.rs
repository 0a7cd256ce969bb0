//! The thread that writes. It takes what the cores have handed over, writes all of it as one frame,
//! synchronises once, and tells each core up to where it is kept. While it does, the cores collect.
//!
//! When it cannot write, it says so, keeps what it has in hand and tries again: nothing is
//! acknowledged meanwhile, and cores bound what they collect. A write or a synchronisation that failed
//! leaves nobody knows what in the segment, so the next attempt cuts that off and goes to a new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::{Duration, Instant};

use crate::base::atomic::AtomicU64;
use crate::base::notifier::{Notifier, Signal};
use crate::config::{Storage, Sync};
use crate::storage::commit::{RecordBatch, StoreState};
use crate::storage::log::day::{self, TimeOfDay};
use crate::storage::log::extent::Extent;
use crate::storage::log::format::{self, Frame};
use crate::storage::log::scan::Scan;
use crate::storage::log::{StoreError, private, sync_folder};

/// Bytes taken into one frame, after which the cores' further batches wait for the next.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A segment is closed once it has so many bytes.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// How long it waits before it tries again to write.
const RETRY: Duration = Duration::from_millis(500);
/// How long it waits, at least, before everything is told anew once more because the store is at its
/// bound; longer where that takes long.
const FULL_REST: Duration = Duration::from_secs(1);
/// So many times as long as it took.
const FULL_REST_FACTOR: u32 = 10;
/// Handovers under way from all cores.
const INBOX: usize = 1_024;

/// What all cores read of the thread.
#[derive(Debug)]
struct Board {
    /// By core, the last batch that is kept.
    up_to: Vec<AtomicU64>,
    is_full: AtomicBool,
    is_failing: AtomicBool,
    checkpoint: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    /// The time of day at the start, as it is known by now.
    started_us: AtomicU64,
    /// Changes with everything but `up_to`, so that cores look.
    version: AtomicU64,
}

struct Handover {
    core: usize,
    records: RecordBatch,
}

/// A core's end: it hands over, and reads how far the store is.
#[derive(Debug)]
pub struct Desk {
    core: usize,
    board: Arc<Board>,
    outbox: flume::Sender<Handover>,
    /// What was read last.
    seen: (u64, u64),
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batch {} of core {}", self.records.number, self.core)
    }
}

impl Desk {
    /// Hands records over. The channel has more room than all cores together may have under way.
    pub fn hand_over(&self, records: RecordBatch) {
        // The thread ends after all desks: should it have failed, nothing is acknowledged any more.
        let _ = self.outbox.send(Handover { core: self.core, records });
    }

    /// How far the store is, if it has gone on.
    pub fn news(&mut self) -> Option<StoreState> {
        // Acquire: what was written before a batch counts as kept has happened.
        let board = &self.board;
        let now = (board.up_to[self.core].load(Acquire), board.version.load(Acquire));
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(StoreState {
            up_to: now.0,
            is_full: board.is_full.load(Relaxed),
            is_failing: board.is_failing.load(Relaxed),
            checkpoint: board.checkpoint.load(Relaxed),
            bytes: board.bytes.load(Relaxed),
            syncs: board.syncs.load(Relaxed),
            wall_at_zero_us: board.started_us.load(Relaxed),
        })
    }
}

/// The open segment.
struct Open {
    file: File,
    path: PathBuf,
    /// Bytes of it that are whole frames.
    bytes: u64,
    /// Its first frame.
    first_frame: u64,
}

/// A segment that is closed.
struct Closed {
    number: u64,
    bytes: u64,
    /// Its first frame, or the one that follows where it has none.
    first_frame: u64,
}

pub struct Writer {
    folder: PathBuf,
    settings: Storage,
    inbox: flume::Receiver<Handover>,
    board: Arc<Board>,
    notifiers: Arc<[Notifier]>,
    day: TimeOfDay,
    /// The time of day was set: everything is to be told anew by it.
    is_day_new: bool,
    open: Option<Open>,
    /// Segments that are closed, oldest first.
    closed: Vec<Closed>,
    next_segment: u64,
    /// The last frame written, and the last one that is on disk.
    frame: u64,
    synced: u64,
    synced_at: Instant,
    /// The body that is being written, behind room for its head.
    body: Vec<u8>,
    /// By core, the last batch in it, and the checkpoint it tells of.
    in_hand: Vec<(u64, u64)>,
    /// By core, the last checkpoint that is kept whole.
    told: Vec<u64>,
    /// The checkpoint under way, with the last segment that it makes superfluous.
    checkpoint: Option<u64>,
    /// Bytes there were after the last checkpoint.
    base_bytes: u64,
    /// When the last checkpoint began, and how long it took.
    checkpoint_at: Option<Instant>,
    checkpoint_took: Duration,
    failing_since: Option<Instant>,
}

impl Writer {
    pub fn new(
        folder: &Path,
        settings: &Storage,
        scan: &Scan,
        notifiers: Arc<[Notifier]>,
    ) -> Result<(Self, Vec<Desk>), StoreError> {
        let cores = notifiers.len();
        let day = TimeOfDay::after(scan.time_us);
        let (outbox, inbox) = flume::bounded(INBOX.max(16 * cores));
        let board = Arc::new(Board {
            up_to: (0..cores).map(|_| AtomicU64::new(0)).collect(),
            is_full: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            checkpoint: AtomicU64::new(0),
            bytes: AtomicU64::new(scan.bytes()),
            syncs: AtomicU64::new(0),
            started_us: AtomicU64::new(day.at_zero_us()),
            version: AtomicU64::new(1),
        });
        let desk =
            |core| Desk { core, board: Arc::clone(&board), outbox: outbox.clone(), seen: (0, 0) };
        let desks = (0..cores).map(desk).collect();
        let mut writer = Self {
            folder: folder.to_owned(),
            settings: settings.clone(),
            inbox,
            board,
            notifiers,
            day,
            is_day_new: false,
            open: None,
            closed: closed(scan),
            next_segment: scan.segments.last().map_or(1, |last| last.number + 1),
            frame: scan.frame,
            synced: scan.frame,
            synced_at: Instant::now(),
            body: vec![0; format::FRAME_BYTES],
            in_hand: vec![(0, 0); cores],
            told: vec![0; cores],
            checkpoint: None,
            base_bytes: 0,
            checkpoint_at: None,
            checkpoint_took: Duration::ZERO,
            failing_since: None,
        };
        // What was found may be in memory alone: a broker that was killed had not synchronised it.
        if let Some(last) = scan.segments.last() {
            let synced = File::options().write(true).open(&last.path).and_then(|f| f.sync_all());
            synced.map_err(|e| StoreError::Io(last.path.clone(), "synchronise", e))?;
        }
        // What there is, before anything is added: a log whose extent is not known has none to lack.
        writer.extent().write(folder).map_err(|error| {
            StoreError::Io(folder.to_owned(), "write where the log begins and ends to", error)
        })?;
        // Whether it can write at all shows now, and not when the first client is there.
        writer.open_segment().map_err(|error| {
            StoreError::Io(folder.to_owned(), "write a first segment to", error)
        })?;
        Ok((writer, desks))
    }

    /// The time of day at the start.
    pub fn started_us(&self) -> u64 {
        self.day.at_zero_us()
    }

    /// Writes until all desks are gone.
    pub fn run(mut self) {
        loop {
            match self.next_handover() {
                Ok(Some(handover)) => self.collect(handover),
                Ok(None) => {}
                Err(flume::RecvError::Disconnected) => break,
            }
            while self.body.len() < FRAME_BYTES_MAX
                && let Ok(handover) = self.inbox.try_recv()
            {
                self.collect(handover);
            }
            self.write_patiently();
            self.end_checkpoint();
            self.look_at_clock();
            self.look_at_size();
        }
        self.close();
    }

    /// Waits for the next one, or until it is time to synchronise, or to look at the clock.
    fn next_handover(&self) -> Result<Option<Handover>, flume::RecvError> {
        let until_sync = match self.settings.sync {
            Sync::Interval if self.synced < self.frame => {
                let due = Duration::from_millis(self.settings.sync_interval_ms.into());
                due.saturating_sub(self.synced_at.elapsed())
            }
            _ if self.board.is_full.load(Relaxed) => FULL_REST,
            _ => day::LOOK,
        };
        match self.inbox.recv_timeout(until_sync) {
            Ok(handover) => Ok(Some(handover)),
            Err(flume::RecvTimeoutError::Timeout) => Ok(None),
            Err(flume::RecvTimeoutError::Disconnected) => Err(flume::RecvError::Disconnected),
        }
    }

    fn collect(&mut self, Handover { core, records }: Handover) {
        if !records.bytes.is_empty() {
            format::push_batch(&mut self.body, &records.bytes);
        }
        self.in_hand[core] = (records.number, records.checkpoint);
    }

    /// Writes what is in hand, however long it takes; gives up only when nobody is there any more.
    fn write_patiently(&mut self) {
        while let Err(error) = self.write() {
            if self.failing_since.is_none() {
                self.failing_since = Some(Instant::now());
                self.board.is_failing.store(true, Relaxed);
                self.tell_all();
                tracing::error!(
                    %error,
                    folder = %self.folder.display(),
                    "cannot write to the store: nothing that has to be kept is acknowledged until \
                     it can be; make room, or see to the disk"
                );
            }
            if self.inbox.is_disconnected() {
                tracing::error!("the broker stops with records that could not be written");
                return;
            }
            std::thread::sleep(RETRY);
        }
        if let Some(since) = self.failing_since.take() {
            self.board.is_failing.store(false, Relaxed);
            let seconds = since.elapsed().as_secs();
            tracing::warn!(seconds, "the store can be written again; what waited is acknowledged");
            self.tell_all();
        }
        self.publish();
    }

    fn write(&mut self) -> io::Result<()> {
        let has_body = self.body.len() > format::FRAME_BYTES;
        if has_body {
            self.write_frame()?;
        }
        let is_due = match self.settings.sync {
            Sync::Always => true,
            Sync::Interval => {
                let interval = Duration::from_millis(self.settings.sync_interval_ms.into());
                self.synced_at.elapsed() >= interval
            }
            Sync::None => false,
        };
        if self.synced < self.frame && is_due {
            self.sync()?;
        }
        self.body.truncate(format::FRAME_BYTES);
        self.body.shrink_to(1 << 20);
        Ok(())
    }

    fn write_frame(&mut self) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|open| open.bytes >= SEGMENT_BYTES) {
            self.open_segment()?;
        }
        Frame::finish(&mut self.body, self.frame + 1, self.synced, self.day.now_us());
        let open = self.open.as_mut().expect("just opened");
        if let Err(error) = open.file.write_all(&self.body) {
            self.abandon_segment();
            return Err(error);
        }
        open.bytes += self.body.len() as u64;
        self.frame += 1;
        // Written, and not to be written again should the synchronisation alone fail: then it goes
        // with its segment.
        if self.settings.sync != Sync::Always {
            self.body.truncate(format::FRAME_BYTES);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        if let Err(error) = open.file.sync_data() {
            // What the kernel still has of it, nobody knows.
            if self.settings.sync == Sync::Always {
                let frame_bytes = self.body.len() as u64;
                self.frame -= 1;
                if let Some(open) = &mut self.open {
                    open.bytes -= frame_bytes;
                }
            }
            self.abandon_segment();
            return Err(error);
        }
        self.board.syncs.fetch_add(1, Relaxed);
        (self.synced, self.synced_at) = (self.frame, Instant::now());
        Ok(())
    }

    /// A new segment, whose header is on disk before any frame follows.
    fn open_segment(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open
            && self.synced < self.frame
        {
            // A segment that is left is on disk, whatever the policy.
            open.file.sync_data()?;
            self.synced = self.frame;
        }
        let number = self.next_segment;
        let path = format::path(&self.folder, number);
        let mut file = private().create(true).truncate(true).write(true).open(&path)?;
        let begun = file
            .write_all(&format::header(number))
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_folder(&self.folder));
        if let Err(error) = begun {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        if let Some(open) = self.open.take() {
            self.close_segment(&open);
        }
        self.next_segment += 1;
        let (bytes, first_frame) = (format::HEADER_BYTES as u64, self.frame + 1);
        self.open = Some(Open { file, path, bytes, first_frame });
        self.extent().write(&self.folder)
    }

    /// Goes to a new segment, and leaves of this one what is whole.
    fn abandon_segment(&mut self) {
        let Some(open) = self.open.take() else { return };
        // When even this fails, the next start finds it torn: no later frame vouches for it.
        if let Err(error) = open.file.set_len(open.bytes).and_then(|()| open.file.sync_all()) {
            tracing::error!(%error, file = %open.path.display(), "cannot cut off a failed write");
        }
        self.close_segment(&open);
    }

    /// Notes the segment that was opened last as closed.
    fn close_segment(&mut self, open: &Open) {
        let number = self.next_segment - 1;
        let (bytes, first_frame) = (open.bytes, open.first_frame);
        self.closed.push(Closed { number, bytes, first_frame });
    }

    /// Where the log begins, ends, and what of it is on disk.
    fn extent(&self) -> Extent {
        self.extent_from(0)
    }

    /// The same without its first segments.
    fn extent_from(&self, closed: usize) -> Extent {
        let last_segment = self.next_segment - 1;
        let first_of = |of: &Closed| (of.number, of.first_frame);
        let opened = self.open.as_ref().map(|open| (last_segment, open.first_frame));
        let first = self.closed.get(closed).map(first_of).or(opened);
        let (first_segment, first_frame) = first.unwrap_or((self.next_segment, self.frame + 1));
        Extent { first_segment, first_frame, last_segment, last_frame: self.synced }
    }

    /// Tells each core that what it handed over is kept.
    fn publish(&mut self) {
        self.board.bytes.store(self.bytes(), Relaxed);
        for (core, (number, checkpoint)) in self.in_hand.iter_mut().enumerate() {
            if *number == 0 {
                continue;
            }
            self.told[core] = *checkpoint;
            self.board.up_to[core].store(std::mem::take(number), Release);
            self.notifiers[core].notify(Signal::Storage);
        }
    }

    /// Something other than batches has changed: all cores are to look.
    fn tell_all(&self) {
        self.board.version.fetch_add(1, Release);
        self.notifiers.iter().for_each(|core| core.notify(Signal::Storage));
    }

    fn bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|of| of.bytes).sum();
        closed + self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// Where the system's clock was set forward, everything is told anew by the new time: what was kept by
    /// the old one would seem to be older than it is.
    fn look_at_clock(&mut self) {
        let Some(ahead) = self.day.look() else { return };
        let seconds = ahead.as_secs();
        tracing::info!(seconds, "the time of day was set forward; the store follows");
        self.board.started_us.store(self.day.at_zero_us(), Relaxed);
        self.is_day_new = true;
        self.tell_all();
    }

    /// Asks for everything anew when most of what is there is past, or there is too much of it.
    fn look_at_size(&mut self) {
        let bytes = self.bytes();
        let max = self.settings.bytes_max;
        let is_full = max > 0 && bytes > max;
        if is_full != self.board.is_full.swap(is_full, Relaxed) {
            match is_full {
                true => tracing::error!(
                    bytes,
                    bytes_max = max,
                    "the store is at its bound: publishers of what has to be kept are not read \
                     until consumers have taken enough; or raise storage.bytes_max"
                ),
                false => tracing::warn!(bytes, "the store is below its bound again"),
            }
            self.tell_all();
        }
        if self.checkpoint.is_some() {
            return;
        }
        let least = self.settings.compact_bytes_min;
        let is_mostly_past = bytes > least && bytes > 2 * self.base_bytes;
        let rest = FULL_REST.max(self.checkpoint_took * FULL_REST_FACTOR);
        let may_free = is_full && self.checkpoint_at.is_none_or(|at| at.elapsed() >= rest);
        if is_mostly_past || may_free || self.is_day_new {
            self.is_day_new = false;
            self.checkpoint_at = Some(Instant::now());
            self.begin_checkpoint();
        }
    }

    fn begin_checkpoint(&mut self) {
        let last = self.next_segment - 1;
        if let Err(error) = self.open_segment() {
            return tracing::warn!(%error, "cannot begin to compact the store; trying again later");
        }
        self.checkpoint = Some(last);
        self.board.checkpoint.fetch_add(1, Relaxed);
        tracing::debug!(bytes = self.bytes(), "compacting the store");
        self.tell_all();
    }

    /// Once every core has told everything anew, what was told before goes.
    fn end_checkpoint(&mut self) {
        let Some(last) = self.checkpoint else { return };
        let number = self.board.checkpoint.load(Relaxed);
        if self.told.iter().any(|&told| told < number) {
            return;
        }
        if self.synced < self.frame && self.sync().is_err() {
            return; // what replaces it has to be on disk first
        }
        let superfluous = self.closed.iter().position(|of| of.number > last);
        let superfluous = superfluous.unwrap_or(self.closed.len());
        if let Err(error) = self.extent_from(superfluous).write(&self.folder) {
            return tracing::warn!(%error, "cannot compact the store; trying again later");
        }
        self.checkpoint = None;
        self.checkpoint_took = self.checkpoint_at.map_or(Duration::ZERO, |at| at.elapsed());
        let before = self.bytes();
        for Closed { number, .. } in self.closed.drain(..superfluous) {
            if let Err(error) = std::fs::remove_file(format::path(&self.folder, number)) {
                tracing::warn!(%error, number, "cannot remove a segment that is not needed any more");
            }
        }
        if let Err(error) = sync_folder(&self.folder) {
            tracing::warn!(%error, "cannot synchronise the folder of the store");
        }
        self.base_bytes = self.bytes();
        self.board.bytes.store(self.base_bytes, Relaxed);
        tracing::debug!(before, after = self.base_bytes, "compacted the store");
    }

    /// Everything is on disk, and a last frame vouches for it.
    fn close(mut self) {
        if self.failing_since.is_some() {
            return;
        }
        let outcome = match self.frame {
            0 => Ok(()),
            _ => self.sync().and_then(|()| self.write_frame()).and_then(|()| self.sync()),
        };
        let outcome = outcome.and_then(|()| self.extent().write(&self.folder));
        if let Err(error) = outcome {
            tracing::error!(%error, "cannot close the store");
        }
    }
}

/// What was there before.
fn closed(scan: &Scan) -> Vec<Closed> {
    let mut next_frame = scan.frame + 1;
    let mut closed: Vec<Closed> = Vec::with_capacity(scan.segments.len());
    for of in scan.segments.iter().rev() {
        if of.first_frame > 0 {
            next_frame = of.first_frame;
        }
        closed.push(Closed { number: of.number, bytes: of.bytes, first_frame: next_frame });
    }
    closed.reverse();
    closed
}
