//! The writer thread. It takes the batches that the cores have handed over, writes them as one frame,
//! synchronises once (group commit), and publishes to each core which of its batches are stored.
//! Meanwhile the cores collect the next batches.
//!
//! When a write fails, the thread logs an error, keeps the batches and tries again. Nothing is
//! acknowledged meanwhile, and the cores limit what they collect. After a failed write or synchronisation
//! the content of the segment is unknown, so the next attempt truncates the segment and begins a new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::Release};
use std::time::{Duration, Instant};

use crate::base::atomic::AtomicU64;
use crate::base::notifier::{Notifier, Signal};
use crate::config::{Storage, Sync};
use crate::storage::log::client::{Handover, Inbox, Status, StoreClient};
use crate::storage::log::day::{self, TimeOfDay};
use crate::storage::log::extent::Extent;
use crate::storage::log::format::{self, Frame};
use crate::storage::log::replica::{Collected, Replicated, Replication};
use crate::storage::log::scan::Scan;
use crate::storage::log::{StoreError, private, sync_folder};

/// Bytes of batches in one frame, after which further batches wait for the next frame.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Size from which a segment is closed.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Pause between attempts to write.
const RETRY: Duration = Duration::from_millis(500);
/// Least interval between checkpoints of a store at its size limit, and between checks of its size.
const FULL_INTERVAL: Duration = Duration::from_secs(1);
/// The interval in multiples of the duration of the last checkpoint.
const FULL_INTERVAL_FACTOR: u32 = 10;
/// Capacity of the channel from the cores.
const INBOX: usize = 1_024;

/// The segment being written.
struct Open {
    file: File,
    path: PathBuf,
    /// Bytes of complete frames.
    bytes: u64,
    /// The first frame.
    first_frame: u64,
}

/// A segment that is complete.
struct Closed {
    number: u64,
    bytes: u64,
    /// The first frame, or, in a segment without frames, the next one.
    first_frame: u64,
}

pub struct Writer {
    folder: PathBuf,
    settings: Storage,
    inbox: flume::Receiver<Inbox>,
    status: Arc<Status>,
    notifiers: Arc<[Notifier]>,
    day: TimeOfDay,
    /// The time of day was set: a checkpoint is due that logs all times again.
    is_time_new: bool,
    open: Option<Open>,
    /// Complete segments, oldest first.
    closed: Vec<Closed>,
    next_segment: u64,
    /// The last frame written, and the last frame on disk.
    frame: u64,
    synced: u64,
    synced_at: Instant,
    /// The frame being collected: room for its head, then the body.
    body: Vec<u8>,
    collected: Collected,
    /// By core, the last checkpoint that is stored completely.
    checkpoints: Vec<u64>,
    /// For the checkpoint in progress, the last segment that it makes obsolete.
    checkpoint: Option<u64>,
    /// Size of the store after the last checkpoint.
    base_bytes: u64,
    /// When the last checkpoint began, and its duration.
    checkpoint_at: Option<Instant>,
    checkpoint_took: Duration,
    failing_since: Option<Instant>,
    replica: Option<Replicated>,
}

impl Writer {
    pub fn new(
        folder: &Path,
        settings: &Storage,
        scan: &Scan,
        notifiers: Arc<[Notifier]>,
        replication: Option<Replication>,
    ) -> Result<(Self, Vec<StoreClient>), StoreError> {
        let cores = notifiers.len();
        let day = TimeOfDay::after(scan.time_us);
        let (outbox, inbox) = flume::bounded(INBOX.max(16 * cores));
        let status = Arc::new(Status {
            up_to: (0..cores).map(|_| AtomicU64::new(0)).collect(),
            is_full: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            checkpoint: AtomicU64::new(0),
            bytes: AtomicU64::new(scan.bytes()),
            syncs: AtomicU64::new(0),
            started_us: AtomicU64::new(day.at_zero_us()),
            version: AtomicU64::new(1),
        });
        let client = |core| StoreClient::new(core, Arc::clone(&status), outbox.clone());
        let clients = (0..cores).map(client).collect();
        let replica = replication.map(|of| Replicated::new(of, scan.frame, &outbox));
        let mut writer = Self {
            folder: folder.to_owned(),
            settings: settings.clone(),
            inbox,
            status,
            notifiers,
            day,
            is_time_new: false,
            open: None,
            closed: closed(scan),
            next_segment: scan.segments.last().map_or(1, |last| last.number + 1),
            frame: scan.frame,
            synced: scan.frame,
            synced_at: Instant::now(),
            body: vec![0; format::FRAME_BYTES],
            collected: vec![(0, 0); cores],
            checkpoints: vec![0; cores],
            checkpoint: None,
            base_bytes: 0,
            checkpoint_at: None,
            checkpoint_took: Duration::ZERO,
            failing_since: None,
            replica,
        };
        // The last frames may not be on disk yet: a broker that was killed did not synchronise them.
        if let Some(last) = scan.segments.last() {
            let synced = File::options().write(true).open(&last.path).and_then(|f| f.sync_all());
            synced.map_err(|e| StoreError::Io(last.path.clone(), "synchronise", e))?;
        }
        // Before anything is added: in a log without an extent, no missing part can be noticed.
        writer.extent().write(folder).map_err(|error| {
            StoreError::Io(folder.to_owned(), "write the file `extent` to", error)
        })?;
        // A store that cannot be written is noticed now, and not when the first client connects.
        writer.open_segment().map_err(|error| {
            StoreError::Io(folder.to_owned(), "write the first segment to", error)
        })?;
        Ok((writer, clients))
    }

    /// The time of day at the start.
    pub fn started_us(&self) -> u64 {
        self.day.at_zero_us()
    }

    /// Writes until all clients are dropped.
    pub fn run(mut self) {
        loop {
            match self.next_handover() {
                Ok(Some(handover)) => self.collect(handover),
                Ok(None) => {}
                Err(flume::RecvError::Disconnected) => break,
            }
            while self.body.len() < FRAME_BYTES_MAX
                && let Ok(told) = self.inbox.try_recv()
            {
                if let Inbox::Batch(handover) = told {
                    self.collect(handover);
                }
            }
            self.write_with_retries();
            self.check_replica();
            self.end_checkpoint();
            self.check_clock();
            self.check_size();
        }
        self.close();
    }

    /// Waits for the next batch, for progress of the replica, or until it is time to synchronise, or to check the clock.
    fn next_handover(&self) -> Result<Option<Handover>, flume::RecvError> {
        let until_sync = match self.settings.sync {
            Sync::Interval if self.synced < self.frame => {
                let due = Duration::from_millis(self.settings.sync_interval_ms.into());
                due.saturating_sub(self.synced_at.elapsed())
            }
            _ if self.status.is_full.load(Relaxed) => FULL_INTERVAL,
            _ => day::CHECK_INTERVAL,
        };
        match self.inbox.recv_timeout(until_sync) {
            Ok(Inbox::Batch(handover)) => Ok(Some(handover)),
            Ok(Inbox::Progress) | Err(flume::RecvTimeoutError::Timeout) => Ok(None),
            Err(flume::RecvTimeoutError::Disconnected) => Err(flume::RecvError::Disconnected),
        }
    }

    fn collect(&mut self, Handover { core, records }: Handover) {
        if !records.bytes.is_empty() {
            format::push_batch(&mut self.body, &records.bytes);
        }
        self.collected[core] = (records.number, records.checkpoint);
    }

    /// Writes the collected batches, and retries until that succeeds or all clients are dropped.
    fn write_with_retries(&mut self) {
        while let Err(error) = self.write() {
            if self.failing_since.is_none() {
                self.failing_since = Some(Instant::now());
                self.status.is_failing.store(true, Relaxed);
                self.notify_all();
                tracing::error!(
                    %error,
                    folder = %self.folder.display(),
                    "cannot write to the store; messages for persistent sessions are not \
                     acknowledged until writes succeed. Free disk space or check the disk"
                );
            }
            if self.inbox.is_disconnected() {
                tracing::error!("the broker stops, and some records could not be written");
                return;
            }
            std::thread::sleep(RETRY);
        }
        if let Some(since) = self.failing_since.take() {
            self.status.is_failing.store(false, Relaxed);
            let seconds = since.elapsed().as_secs();
            tracing::warn!(seconds, "writes to the store succeed again; messages are acknowledged");
            self.notify_all();
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
        let begins_segment = open.bytes == format::HEADER_BYTES as u64;
        open.bytes += self.body.len() as u64;
        self.frame += 1;
        if let Some(replica) = &mut self.replica {
            replica.ship(self.frame, begins_segment, &self.body);
        }
        // The frame is written, and is not written again if only the synchronisation fails.
        if self.settings.sync != Sync::Always {
            self.body.truncate(format::FRAME_BYTES);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        if let Err(error) = open.file.sync_data() {
            // It is unknown which of the written data the kernel still has.
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
        self.status.syncs.fetch_add(1, Relaxed);
        (self.synced, self.synced_at) = (self.frame, Instant::now());
        Ok(())
    }

    /// Begins a new segment, whose header is on disk before any frame.
    fn open_segment(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open
            && self.synced < self.frame
        {
            // A complete segment is on disk, whatever `sync` is set to.
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

    /// Truncates the open segment to its complete frames, and closes it.
    fn abandon_segment(&mut self) {
        let Some(open) = self.open.take() else { return };
        // If this fails too, the next start finds a torn end: no later frame confirms it.
        if let Err(error) = open.file.set_len(open.bytes).and_then(|()| open.file.sync_all()) {
            tracing::error!(%error, file = %open.path.display(), "cannot truncate the segment after a failed write");
        }
        self.close_segment(&open);
    }

    /// Adds the segment that was opened last to the complete ones.
    fn close_segment(&mut self, open: &Open) {
        let number = self.next_segment - 1;
        let (bytes, first_frame) = (open.bytes, open.first_frame);
        self.closed.push(Closed { number, bytes, first_frame });
    }

    /// The extent of the log on disk.
    fn extent(&self) -> Extent {
        self.extent_from(0)
    }

    /// The extent without this number of segments at the beginning.
    fn extent_from(&self, closed: usize) -> Extent {
        let last_segment = self.next_segment - 1;
        let first_of = |of: &Closed| (of.number, of.first_frame);
        let opened = self.open.as_ref().map(|open| (last_segment, open.first_frame));
        let first = self.closed.get(closed).map(first_of).or(opened);
        let (first_segment, first_frame) = first.unwrap_or((self.next_segment, self.frame + 1));
        Extent { first_segment, first_frame, last_segment, last_frame: self.synced }
    }

    /// Publishes to each core that its collected batches are stored: those that the replica has too, if there is one.
    fn publish(&mut self) {
        self.status.bytes.store(self.bytes(), Relaxed);
        let mut collected = std::mem::take(&mut self.collected);
        match &mut self.replica {
            None => self.publish_collected(&mut collected),
            Some(replica) => {
                if collected.iter().any(|(number, _)| *number > 0) {
                    replica.wait(self.frame, collected.clone());
                    collected.fill((0, 0));
                }
                while let Some(mut stored) =
                    self.replica.as_mut().and_then(|replica| replica.next_stored())
                {
                    self.publish_collected(&mut stored);
                }
            }
        }
        self.collected = collected;
    }

    fn publish_collected(&mut self, collected: &mut Collected) {
        for (core, (number, checkpoint)) in collected.iter_mut().enumerate() {
            if *number == 0 {
                continue;
            }
            self.checkpoints[core] = *checkpoint;
            self.status.up_to[core].store(std::mem::take(number), Release);
            self.notifiers[core].notify(Signal::Storage);
        }
    }

    /// While the replica is stalled, the store counts as failing, as while the disk cannot be written.
    fn check_replica(&mut self) {
        let Some(replica) = &self.replica else { return };
        let is_failing = self.failing_since.is_some() || replica.is_stalled();
        if self.status.is_failing.swap(is_failing, Relaxed) != is_failing {
            self.notify_all();
        }
    }

    /// Publishes to all cores that the state of the store has changed.
    fn notify_all(&self) {
        self.status.version.fetch_add(1, Release);
        self.notifiers.iter().for_each(|core| core.notify(Signal::Storage));
    }

    fn bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|of| of.bytes).sum();
        closed + self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// When the system's clock was set forward, a checkpoint logs all times again: by the old records,
    /// sessions and messages would seem older than they are.
    fn check_clock(&mut self) {
        let Some(ahead) = self.day.check() else { return };
        let seconds = ahead.as_secs();
        tracing::info!(seconds, "the system clock was set forward; the store adopts the new time");
        self.status.started_us.store(self.day.at_zero_us(), Relaxed);
        self.is_time_new = true;
        self.notify_all();
    }

    /// Begins a checkpoint when most records are obsolete, or the store has reached its size limit.
    fn check_size(&mut self) {
        let bytes = self.bytes();
        let max = self.settings.bytes_max;
        let is_full = max > 0 && bytes > max;
        if is_full != self.status.is_full.swap(is_full, Relaxed) {
            match is_full {
                true => tracing::error!(
                    bytes,
                    bytes_max = max,
                    "the store is full: publishers of stored messages are paused until consumers \
                     have acknowledged enough; consider a higher storage.bytes_max"
                ),
                false => tracing::warn!(bytes, "the store is no longer full"),
            }
            self.notify_all();
        }
        if self.checkpoint.is_some() {
            return;
        }
        let least = self.settings.compact_bytes_min;
        let is_mostly_obsolete = bytes > least && bytes > 2 * self.base_bytes;
        let interval = FULL_INTERVAL.max(self.checkpoint_took * FULL_INTERVAL_FACTOR);
        let may_free = is_full && self.checkpoint_at.is_none_or(|at| at.elapsed() >= interval);
        if is_mostly_obsolete || may_free || self.is_time_new {
            self.is_time_new = false;
            self.checkpoint_at = Some(Instant::now());
            self.begin_checkpoint();
        }
    }

    fn begin_checkpoint(&mut self) {
        let last = self.next_segment - 1;
        if let Err(error) = self.open_segment() {
            return tracing::warn!(%error, "cannot begin a checkpoint of the store; retrying later");
        }
        self.checkpoint = Some(last);
        self.status.checkpoint.fetch_add(1, Relaxed);
        tracing::debug!(bytes = self.bytes(), "compacting the store");
        self.notify_all();
    }

    /// Removes the obsolete segments once every core has logged the checkpoint completely.
    fn end_checkpoint(&mut self) {
        let Some(last) = self.checkpoint else { return };
        let number = self.status.checkpoint.load(Relaxed);
        // A replica has the records of the checkpoint too, or they would not count as stored.
        if self.checkpoints.iter().any(|&done| done < number) {
            return;
        }
        if self.synced < self.frame && self.sync().is_err() {
            return; // the records of the checkpoint must be on disk first
        }
        let obsolete = self.closed.iter().position(|of| of.number > last);
        let obsolete = obsolete.unwrap_or(self.closed.len());
        let kept = self.extent_from(obsolete);
        if let Err(error) = kept.write(&self.folder) {
            return tracing::warn!(%error, "cannot complete a checkpoint of the store; retrying later");
        }
        if let Some(replica) = &self.replica {
            replica.forget_before(kept.first_frame);
        }
        self.checkpoint = None;
        self.checkpoint_took = self.checkpoint_at.map_or(Duration::ZERO, |at| at.elapsed());
        let before = self.bytes();
        for Closed { number, .. } in self.closed.drain(..obsolete) {
            if let Err(error) = std::fs::remove_file(format::path(&self.folder, number)) {
                tracing::warn!(%error, number, "cannot remove an obsolete segment");
            }
        }
        if let Err(error) = sync_folder(&self.folder) {
            tracing::warn!(%error, "cannot synchronise the folder of the store");
        }
        self.base_bytes = self.bytes();
        self.status.bytes.store(self.base_bytes, Relaxed);
        tracing::debug!(before, after = self.base_bytes, "compacted the store");
    }

    /// Synchronises everything, and appends an empty frame that confirms the last one.
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

/// The segments of earlier processes.
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

#[cfg(test)]
mod tests;
