//! The log on disk: segments of frames, each written and synchronised as one, each with a checksum.
//!
//! ```text
//! DIR/lock                          held while a broker, or a tool that writes, is at work
//! DIR/extent                        where the log begins and ends, see `extent`
//! DIR/0000000000000007.log          header · frame · frame · …
//!
//! header  magic 8 · version 4 · reserved 4 · segment 8 · checksum 4
//! frame   magic 4 · bytes of the body 4 · number 8 · synchronised 8 · time 8 · checksum 4 · body
//! body    (bytes of a batch 4 · batch)…
//! ```
//!
//! All numbers are little-endian; checksums are CRC-32 of everything in the header or frame but
//! themselves. Frames are numbered without a gap through all segments. `synchronised` is the last
//! frame that was known to be on disk when this one was written, and decides what a bad frame means:
//! when a good one after it says that it was on disk, it has been *damaged* since, and the log is not
//! used until somebody says so; otherwise it is the *torn* end of what a crash interrupted, of which
//! nothing had been acknowledged, and is cut off. What was the very last frame before a crash cannot
//! be told from a torn one when it is damaged; a clean stop writes one more, empty, that vouches for
//! it.

mod day;
mod extent;
mod format;
mod scan;
#[cfg(test)]
mod tests;
pub mod tools;
mod writer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use crate::base::notifier::Notifier;
use crate::config::{Storage, Sync};
use crate::storage::record::NoRecord;

pub use scan::{Damage, Progress, Scan, Segment};
pub use writer::Desk;
use writer::Writer;

/// Why a store cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// Something about a file or folder, with what was being done.
    Io(PathBuf, &'static str, io::Error),
    /// Another process has it.
    InUse(PathBuf),
    /// A segment was written by a later version.
    Version(PathBuf, u32),
    /// It is damaged in these places.
    Damaged(Vec<Damage>),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, what, error) => write!(
                f,
                "cannot {what} {}: {error}; choose another folder with --data DIR, or keep nothing \
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
                "{} has format {version}, of a later version of this program; this one reads format \
                 {}",
                path.display(),
                format::VERSION
            ),
            Self::Damaged(places) => {
                writeln!(f, "the store is damaged, and not used as it is:")?;
                for damage in places.iter().take(8) {
                    writeln!(f, "  {damage}")?;
                }
                if places.len() > 8 {
                    writeln!(f, "  and {} places more", places.len() - 8)?;
                }
                write!(
                    f,
                    "`broker store verify` says more; `broker store repair` keeps what is whole and \
                     moves the rest aside"
                )
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// A folder with segments, held against other processes.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    settings: Storage,
    /// Held as long as this lives.
    _lock: File,
    /// What the next segment and frame are numbered, and what there is.
    scan: Scan,
    /// The time of day when the thread was started, in microseconds since 1970.
    started_us: u64,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    /// Opens the folder, makes it when it is not there, looks at every byte in it, and cuts off what
    /// a crash left unfinished.
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
        })
    }

    /// What was found.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Whether acknowledgements wait for the disk.
    pub fn waits(&self) -> bool {
        self.settings.sync == Sync::Always
    }

    /// The time of day when it was started last, in microseconds since 1970: never before what was kept by
    /// then, whatever the system's clock says.
    pub fn started_us(&self) -> u64 {
        self.started_us
    }

    /// For reading what there is now.
    pub fn reader(&self) -> Reader {
        Reader { segments: self.scan.segments.clone() }
    }

    /// Starts the thread that writes; a desk for each core, which is notified of the store's progress. The
    /// thread ends when all desks are gone.
    pub fn start(&mut self, notifiers: &Arc<[Notifier]>) -> Result<Vec<Desk>, StoreError> {
        self.finish();
        let (writer, desks) =
            Writer::new(&self.folder, &self.settings, &self.scan, Arc::clone(notifiers))?;
        self.started_us = writer.started_us();
        let thread = std::thread::Builder::new().name("store".to_owned());
        let thread = thread.spawn(move || writer.run());
        let thread = thread.map_err(|error| {
            StoreError::Io(self.folder.clone(), "start a thread to write to", error)
        })?;
        self.thread = Some(thread);
        Ok(desks)
    }

    /// Waits until everything that was handed over is on disk. To be called once no desk is left.
    pub fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            if let Ok(scan) = Scan::of(&self.folder) {
                self.scan = scan;
            }
        }
    }
}

/// Reads what was there when the store was opened.
#[derive(Debug)]
pub struct Reader {
    segments: Vec<Segment>,
}

impl Reader {
    /// Bytes to read.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Reads every batch of records there is, oldest first.
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

/// Takes a folder for this process, and makes it where it is not there.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let error = |what| move |error| StoreError::Io(folder.to_owned(), what, error);
    make_folder(folder).map_err(error("make the folder"))?;
    let path = folder.join("lock");
    let lock = private().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(error("write to the folder"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(error("lock the folder")(e)),
    }
}

/// Makes a folder where it is not there, for its owner alone: messages and sessions are in it.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// For files that their owner alone may read.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// What was written of folders is on disk as well.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened, and need not be.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
