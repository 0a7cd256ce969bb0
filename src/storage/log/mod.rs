//! The log on disk: segments of frames. Each frame has a checksum, and is written and synchronised as one.
//!
//! ```text
//! DIR/lock                          locked while a broker, or a command that writes, runs
//! DIR/extent                        first and last segment and frame, see `extent`
//! DIR/0000000000000007.log          header · frame · frame · …
//!
//! header  magic 8 · version 4 · reserved 4 · segment 8 · checksum 4
//! frame   magic 4 · bytes of the body 4 · number 8 · synchronised 8 · time 8 · checksum 4 · body
//! body    (bytes of a batch 4 · batch)…
//! ```
//!
//! All numbers are little-endian; a checksum is the CRC-32 of the header or frame without the checksum.
//! Frames are numbered without gaps across all segments. `synchronised` is the last frame that was known to
//! be on disk when this one was written, and decides what a bad frame means. If a later good frame states
//! that the bad one was on disk, the bad frame was *damaged* since, and the log is not used until it is
//! repaired. Otherwise the bad frame is the *torn* end of a write that a crash interrupted: nothing in it
//! was acknowledged, and the frame is cut off. Damage to the very last frame before a crash cannot be
//! distinguished from a torn frame; a clean stop therefore appends an empty frame, which confirms the one
//! before.

mod client;
mod day;
mod extent;
mod format;
mod frames;
pub mod offline;
pub mod replica;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use crate::base::notifier::Notifier;
use crate::config::{Storage, Sync};
use crate::storage::record::NoRecord;

pub use client::StoreClient;
use replica::Replication;
pub use scan::{Damage, Progress, Scan, Segment};
use writer::Writer;

/// Why a store cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// An operation on a file or folder failed.
    Io(PathBuf, &'static str, io::Error),
    /// Another process uses the folder.
    InUse(PathBuf),
    /// A segment has the format of a later version.
    Version(PathBuf, u32),
    /// These places are damaged.
    Damaged(Vec<Damage>),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, what, error) => write!(
                f,
                "cannot {what} {}: {error}; choose another folder with --data DIR, or store nothing \
                 with --data none",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "{} is in use by another process; stop it, or choose another folder with --data DIR",
                path.display()
            ),
            Self::Version(path, version) => write!(
                f,
                "{} has format {version} of a later version of this program; this version reads \
                 formats up to {}",
                path.display(),
                format::VERSION
            ),
            Self::Damaged(places) => {
                writeln!(f, "the store is damaged and cannot be used:")?;
                for damage in places.iter().take(8) {
                    writeln!(f, "  {damage}")?;
                }
                if places.len() > 8 {
                    writeln!(f, "  and {} more places", places.len() - 8)?;
                }
                write!(
                    f,
                    "`broker store verify` lists all damage; `broker store repair` keeps intact records \
                     and moves the original files aside"
                )
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// A folder with segments, locked against other processes.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    settings: Storage,
    /// Locked as long as the file is open.
    _lock: File,
    /// The segments and frames found.
    scan: Scan,
    /// The time of day when the thread was started, in microseconds since 1970.
    started_us: u64,
    thread: Option<std::thread::JoinHandle<()>>,
    replication: Option<Replication>,
}

impl Store {
    /// Opens the folder, creates it if necessary, verifies every byte in it, and cuts off a torn end.
    pub fn open(folder: &Path, settings: Storage) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        let mut scan = Scan::of(folder)?;
        if !scan.damages.is_empty() {
            return Err(StoreError::Damaged(scan.damages));
        }
        scan.cut_torn(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            settings,
            _lock: lock,
            scan,
            started_us: 0,
            thread: None,
            replication: None,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The segments and frames found.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// What is written from the next start of the thread on also goes to a replica, which has all frames by now or has been
    /// given them.
    pub fn replicate(&mut self, replication: Replication) {
        self.replication = Some(replication);
    }

    /// Whether acknowledgements wait for the disk.
    pub fn waits(&self) -> bool {
        self.settings.sync == Sync::Always
    }

    /// The time of day of the last start, in microseconds since 1970: never before the last record,
    /// whatever the system's clock shows.
    pub fn started_us(&self) -> u64 {
        self.started_us
    }

    /// A reader for the segments found.
    pub fn reader(&self) -> Reader {
        Reader { segments: self.scan.segments.clone() }
    }

    /// Reads the folder again, after frames were added or set aside.
    fn rescan(&mut self) -> Result<(), StoreError> {
        self.scan = Scan::of(&self.folder)?;
        match self.scan.damages.is_empty() {
            true => Ok(()),
            false => Err(StoreError::Damaged(std::mem::take(&mut self.scan.damages))),
        }
    }

    /// Starts the writer thread, and returns a client for each core, which is notified of progress. The
    /// thread ends when all clients are dropped.
    pub fn start(&mut self, notifiers: &Arc<[Notifier]>) -> Result<Vec<StoreClient>, StoreError> {
        self.finish();
        let (writer, clients) = {
            let (notifiers, replication) = (Arc::clone(notifiers), self.replication.clone());
            Writer::new(&self.folder, &self.settings, &self.scan, notifiers, replication)?
        };
        self.started_us = writer.started_us();
        let thread = std::thread::Builder::new().name("store".to_owned());
        let thread = thread.spawn(move || writer.run());
        let thread = thread.map_err(|error| {
            StoreError::Io(self.folder.clone(), "start a thread to write to", error)
        })?;
        self.thread = Some(thread);
        Ok(clients)
    }

    /// Waits until all records that were handed over are on disk. To be called after all clients are
    /// dropped.
    pub fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            if let Ok(scan) = Scan::of(&self.folder) {
                self.scan = scan;
            }
        }
    }
}

/// Reads the segments that existed when the store was opened.
#[derive(Debug)]
pub struct Reader {
    segments: Vec<Segment>,
}

impl Reader {
    /// Bytes to read.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Reads all batches of records, oldest first.
    pub fn read(
        &self,
        progress: &mut Progress,
        mut each: impl FnMut(&[u8]) -> Result<(), NoRecord>,
    ) -> Result<(), StoreError> {
        for segment in &self.segments {
            scan::read_batches(segment, progress, &mut each)?;
        }
        Ok(())
    }
}

/// Locks a folder for this process, and creates it if necessary.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let error = |what| move |error| StoreError::Io(folder.to_owned(), what, error);
    make_folder(folder).map_err(error("create the folder"))?;
    let path = folder.join("lock");
    let lock = private().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(error("write to the folder"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(error("lock the folder")(e)),
    }
}

/// Creates a folder if necessary, with access for its owner alone: it contains messages and sessions.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Options for files that only their owner may read.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Synchronises the entries of a folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // On other systems a folder cannot be opened, and need not be synchronised.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
