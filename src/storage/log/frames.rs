//! Whole frames of a log, as they are: read for a replica, added from one, or set aside. The broker does not write meanwhile.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::storage::log::extent::{self, Extent};
use crate::storage::log::format::{self, Frame};
use crate::storage::log::scan;
use crate::storage::log::{Store, StoreError, make_folder, private, sync_folder};

/// Size from which a segment is closed.
const SEGMENT_BYTES: usize = 64 << 20;

impl Store {
    /// Whether two frames have the same records. Their heads may differ: a frame whose synchronisation failed is written again.
    pub fn are_same(one: &[u8], other: &[u8]) -> bool {
        one.get(format::FRAME_BYTES..) == other.get(format::FRAME_BYTES..)
    }

    /// The first frame of the log; none if it has none.
    pub fn first_frame(&self) -> Option<u64> {
        self.scan.segments.iter().map(|segment| segment.first_frame).find(|&frame| frame > 0)
    }

    /// The last frame of the log; 0 if it has none.
    pub fn last_frame(&self) -> u64 {
        self.scan.frame
    }

    /// Calls `each` with the number and the bytes of each frame from `first` on, and whether it begins a segment, until
    /// that returns false.
    ///
    /// # Errors
    ///
    /// A segment cannot be read.
    pub fn read_frames(
        &self,
        first: u64,
        mut each: impl FnMut(u64, &[u8], bool) -> bool,
    ) -> Result<(), StoreError> {
        let segments = &self.scan.segments;
        for (at, segment) in segments.iter().enumerate() {
            let mut later = segments[at + 1..].iter().map(|of| of.first_frame);
            if segment.first_frame == 0 || later.any(|next| next > 0 && next <= first) {
                continue;
            }
            let bytes = fs::read(&segment.path)
                .map_err(|error| StoreError::Io(segment.path.clone(), "read", error))?;
            let end = bytes.len().min(segment.bytes as usize);
            let mut rest = bytes.get(format::HEADER_BYTES..end).unwrap_or_default();
            while let Some(frame) = Frame::read(rest).filter(|frame| frame.is_whole(rest)) {
                let (bytes, after) = rest.split_at(frame.bytes());
                let begins_segment = frame.number == segment.first_frame;
                if frame.number >= first && !each(frame.number, bytes, begins_segment) {
                    return Ok(());
                }
                rest = after;
            }
        }
        Ok(())
    }

    /// The bytes of a frame of the log; none if it is not there.
    ///
    /// # Errors
    ///
    /// A segment cannot be read.
    pub fn frame(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.read_frames(number, |at, bytes, _| {
            found = (at == number).then(|| bytes.to_vec());
            false
        })?;
        Ok(found)
    }

    /// Whether frame `number` of the log has the same records as `bytes`; false if it is not there.
    ///
    /// # Errors
    ///
    /// A segment cannot be read.
    pub fn has_same(&self, number: u64, bytes: &[u8]) -> Result<bool, StoreError> {
        Ok(self.frame(number)?.is_some_and(|own| Self::are_same(&own, bytes)))
    }

    /// Begins to add frames at the end of the log.
    pub fn add_frames(&mut self) -> Adding<'_> {
        let next_segment = self.scan.segments.last().map_or(1, |last| last.number + 1);
        Adding { last: self.scan.frame, open: None, next_segment, store: self }
    }

    /// Moves the log into a folder of its own below the store's, which it returns; the store is empty from then on. Without
    /// a log, nothing is moved.
    ///
    /// # Errors
    ///
    /// A file cannot be moved.
    pub fn set_aside(&mut self, name: &str) -> Result<Option<PathBuf>, StoreError> {
        let files = scan::files(&self.folder)?;
        if files.is_empty() {
            return Ok(None);
        }
        let folder = self.folder.join(name);
        let moved = make_folder(&folder).and_then(|()| self.move_log(files, &folder));
        moved.map_err(|error| StoreError::Io(folder.clone(), "move the log to", error))?;
        self.rescan()?;
        Ok(Some(folder))
    }

    /// Moves the newest segments first: what is left if this process ends on the way is the beginning of a log, and an extent that
    /// demands none of it.
    fn move_log(&self, files: Vec<(u64, PathBuf)>, to: &Path) -> io::Result<()> {
        let last_segment = files.last().map_or(0, |(number, _)| *number);
        let extent = Extent {
            first_segment: last_segment + 1,
            first_frame: self.scan.frame + 1,
            last_segment,
            last_frame: 0,
        };
        extent.write(&self.folder)?;
        for from in files.into_iter().rev().map(|(_, path)| path) {
            fs::rename(&from, to.join(from.file_name().unwrap_or_default()))?;
        }
        self.scan.extent_now().write(to)?;
        fs::remove_file(extent::path(&self.folder))?;
        sync_folder(&self.folder).and_then(|()| sync_folder(to))
    }
}

/// Frames that are added; [`Adding::finish`] ends it.
pub struct Adding<'a> {
    store: &'a mut Store,
    last: u64,
    /// The segment, its file, and its bytes.
    open: Option<(PathBuf, File, usize)>,
    next_segment: u64,
}

impl Adding<'_> {
    /// Adds a frame. One that the log has is left out; the first one of an empty log may have any number.
    ///
    /// # Errors
    ///
    /// The bytes are no frame, frames before it are missing, or the file cannot be written.
    pub fn add(&mut self, number: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if number <= self.last {
            return Ok(());
        }
        let folder = self.store.folder.clone();
        let wrong = |what: &str| {
            let error = io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
            StoreError::Io(folder.clone(), "add a frame to the log in", error)
        };
        let frame = Frame::read(bytes).filter(|of| of.bytes() == bytes.len() && of.is_whole(bytes));
        if frame.is_none_or(|of| of.number != number) {
            return Err(wrong("it is damaged"));
        }
        if self.last > 0 && number != self.last + 1 {
            return Err(wrong("frames before it are missing"));
        }
        let begun = if self.last == 0 { self.begin_at(number) } else { Ok(()) };
        begun
            .and_then(|()| self.write(bytes))
            .map_err(|error| StoreError::Io(folder, "add a frame to the log in", error))?;
        self.last = number;
        Ok(())
    }

    /// The extent first: if this process ends on the way, no frames before the first one are missed.
    fn begin_at(&self, first_frame: u64) -> io::Result<()> {
        let first = self.store.scan.segments.first().map(|of| of.number);
        let (first_segment, last_segment) =
            (first.unwrap_or(self.next_segment), self.next_segment - 1);
        let extent = Extent { first_segment, first_frame, last_segment, last_frame: 0 };
        extent.write(&self.store.folder)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(_, _, written)| *written >= SEGMENT_BYTES) {
            self.close()?;
            let path = format::path(&self.store.folder, self.next_segment);
            let mut file = private().create(true).truncate(true).write(true).open(&path)?;
            file.write_all(&format::header(self.next_segment))?;
            self.next_segment += 1;
            self.open = Some((path, file, 0));
        }
        let (_, file, written) = self.open.as_mut().expect("just opened");
        file.write_all(bytes)?;
        *written += bytes.len();
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((_, file, _)) => file.sync_all(),
            None => Ok(()),
        }
    }

    /// Synchronises what was added.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or what was added cannot be read.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let folder = self.store.folder.clone();
        let error = |error| StoreError::Io(folder.clone(), "synchronise the log in", error);
        self.close().and_then(|()| sync_folder(&folder)).map_err(error)?;
        self.store.rescan()?;
        self.store.scan.extent_now().write(&folder).map_err(error)
    }
}

#[cfg(test)]
mod tests;
