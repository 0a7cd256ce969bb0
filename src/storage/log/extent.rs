//! The file `extent`, which records where the log begins and ends: without it, a missing first or last
//! segment would not show, as it leaves no gap between frames.
//!
//! ```text
//! DIR/extent  magic 8 · version 4 · first segment 8 · first frame 8 · last segment 8 · last frame 8 · checksum 4
//! ```
//!
//! The file is replaced as a whole. It may lag behind the frames on disk, and is never ahead: every frame
//! in the extent must exist. After a clean stop the extent covers all frames.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::storage::log::format::{self, u32_at, u64_at};
use crate::storage::log::{private, sync_folder};

const MAGIC: [u8; 8] = *b"ringmq\0E";
const BYTES: usize = 48;

/// The first and the last segment and frame of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first segment.
    pub first_segment: u64,
    /// Its first frame, or, while it has none, the number of the frame that comes next.
    pub first_frame: u64,
    /// The last segment; lower than the first while there is no segment.
    pub last_segment: u64,
    /// The last frame known to be on disk.
    pub last_frame: u64,
}

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The file does not exist.
    Missing,
    /// The checksum or the size is wrong.
    Bad,
    /// A valid extent.
    Good(Extent),
}

/// The path of the file.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("extent")
}

/// Reads the file.
pub fn read(folder: &Path) -> io::Result<Found> {
    let bytes = match fs::read(path(folder)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(error),
    };
    let Ok(bytes) = <[u8; BYTES]>::try_from(bytes) else { return Ok(Found::Bad) };
    if bytes[..8] != MAGIC || u32_at(&bytes, 44) != crc32fast::hash(&bytes[..44]) {
        return Ok(Found::Bad);
    }
    Ok(Found::Good(Extent {
        first_segment: u64_at(&bytes, 12),
        first_frame: u64_at(&bytes, 20),
        last_segment: u64_at(&bytes, 28),
        last_frame: u64_at(&bytes, 36),
    }))
}

impl Extent {
    /// Replaces the file, and synchronises it.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&format::VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first_segment.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first_frame.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.last_segment.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.last_frame.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..44]);
        bytes[44..].copy_from_slice(&sum.to_le_bytes());
        let new = folder.join("extent.new");
        let mut file: File = private().create(true).truncate(true).write(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, path(folder))?;
        sync_folder(folder)
    }
}
