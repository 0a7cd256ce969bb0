//! Reads a log, and tells intact, torn and damaged parts apart.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::storage::log::extent::{self, Extent, Found};
use crate::storage::log::format::{self, Frame, Header};
use crate::storage::log::{StoreError, sync_folder};
use crate::storage::record::NoRecord;

/// Upper bound of the missing segments that are reported.
const MISSING_MAX: usize = 64;

/// Interval between progress reports of a long read.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// A file with a part of the log.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The file.
    pub path: PathBuf,
    /// Number of the segment.
    pub number: u64,
    /// Bytes up to the end of the last good frame.
    pub bytes: u64,
    /// The first good frame; 0 when there is none.
    pub first_frame: u64,
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The first byte that cannot be read.
    pub offset: u64,
    /// The next byte that can be read; none when there is none.
    pub until: Option<u64>,
    /// Description.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, byte {}", self.path.display(), self.offset)?;
        if let Some(until) = self.until {
            write!(f, " to {until}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// The result of reading a log.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The latest format of any segment.
    pub format: u32,
    /// Segments, in order.
    pub segments: Vec<Segment>,
    /// The last good frame.
    pub frame: u64,
    /// The number of good frames.
    pub frames: u64,
    /// When the last good frame was written, in microseconds since 1970.
    pub time_us: u64,
    /// Bytes of the torn end that a crash left.
    pub torn_bytes: u64,
    /// Damaged places.
    pub damages: Vec<Damage>,
    /// The recorded extent; none when an earlier version wrote the log.
    pub extent: Option<Extent>,
    /// Where the torn end begins, if there is one: place of the segment, and byte.
    cut: Option<(usize, u64)>,
}

/// A part that cannot be read.
struct Gap {
    segment: usize,
    damage: Damage,
    /// The number of the frame that should be there.
    missing: u64,
}

/// A scan in progress.
#[derive(Default)]
struct Reading {
    scan: Scan,
    gaps: Vec<Gap>,
    /// The last frame that a good frame states to be on disk.
    synced: u64,
}

impl Reading {
    fn read_segment(
        &mut self,
        number: u64,
        path: PathBuf,
        show: &mut impl FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        let bytes = fs::read(&path).map_err(|error| StoreError::Io(path.clone(), "read", error))?;
        let (mut good_end, mut first_frame) = (0, 0);
        let mut offset = match format::read_header(&bytes, number) {
            Header::Good(format) => {
                self.scan.format = self.scan.format.max(format);
                good_end = format::HEADER_BYTES;
                format::HEADER_BYTES
            }
            Header::Later(version) => return Err(StoreError::Version(path, version)),
            Header::Bad => {
                self.add_gap(&path, 0, "the header of the segment is wrong");
                format::HEADER_BYTES.min(bytes.len())
            }
        };
        while offset < bytes.len() {
            let rest = &bytes[offset..];
            let frame = Frame::read(rest).filter(|frame| frame.is_whole(rest));
            match frame {
                Some(frame) if self.continues_with(&frame) => {
                    self.add_frame(&frame, offset as u64);
                    show(&rest[format::FRAME_BYTES..frame.bytes()]);
                    if first_frame == 0 {
                        first_frame = frame.number;
                    }
                    offset += frame.bytes();
                    good_end = offset;
                }
                _ => {
                    if !self.is_in_gap() {
                        let what = match &frame {
                            Some(_) => "frames are missing before this one",
                            None => "the checksum or the head of a frame is wrong",
                        };
                        self.add_gap(&path, offset as u64, what);
                    }
                    offset += if frame.is_some() { 1 } else { skip(rest) };
                }
            }
        }
        let bytes = good_end as u64;
        self.scan.segments.push(Segment { path, number, bytes, first_frame });
        Ok(())
    }

    /// Whether a good frame comes next in the log, or after the gap that is being read.
    fn continues_with(&self, frame: &Frame) -> bool {
        let last = self.scan.frame;
        last == 0 || frame.number == last + 1 || self.is_in_gap() && frame.number > last
    }

    /// Whether no good frame has followed the last gap yet.
    fn is_in_gap(&self) -> bool {
        self.gaps.last().is_some_and(|gap| gap.damage.until.is_none())
    }

    /// Begins a gap in the segment that is being read.
    fn add_gap(&mut self, path: &Path, offset: u64, what: &'static str) {
        let (segment, missing) = (self.scan.segments.len(), self.scan.frame + 1);
        self.gaps.push(Gap { segment, damage: damage(path, offset, what), missing });
    }

    fn add_frame(&mut self, frame: &Frame, offset: u64) {
        if let Some(gap) = self.gaps.last_mut() {
            gap.damage.until.get_or_insert(offset);
            // The header was on disk before any frame was written.
            if gap.damage.offset == 0 {
                gap.missing = 0;
            }
        }
        (self.scan.frame, self.scan.time_us) = (frame.number, frame.time_us);
        self.scan.frames += 1;
        self.synced = self.synced.max(frame.synced);
    }
}

impl Scan {
    /// Reads all segments in a folder.
    pub fn of(folder: &Path) -> Result<Self, StoreError> {
        Self::each(folder, |_| {})
    }

    /// Reads all segments in a folder, and passes each good body to `show`.
    pub fn each(folder: &Path, mut show: impl FnMut(&[u8])) -> Result<Self, StoreError> {
        let mut reading = Reading::default();
        for (number, path) in files(folder)? {
            reading.read_segment(number, path, &mut show)?;
        }
        let Reading { mut scan, gaps, mut synced } = reading;
        let path = extent::path(folder);
        let found = extent::read(folder);
        let missing = match found.map_err(|error| StoreError::Io(path.clone(), "read", error))? {
            Found::Good(extent) => {
                scan.extent = Some(extent);
                synced = synced.max(extent.last_frame);
                scan.missing_of(&extent, folder, &gaps)
            }
            Found::Bad => vec![damage(&path, 0, "the size or the checksum is wrong")],
            Found::Missing if scan.format >= format::EXTENT_VERSION => {
                let what = "the file that records where the log begins and ends is missing";
                vec![damage(&path, 0, what)]
            }
            Found::Missing => Vec::new(),
        };
        scan.judge(gaps, synced);
        scan.damages.extend(missing);
        Ok(scan)
    }

    /// Parts of the extent that are missing at either end of the log, where no gap between frames shows
    /// them.
    fn missing_of(&self, extent: &Extent, folder: &Path, gaps: &[Gap]) -> Vec<Damage> {
        let has = |number| self.segments.binary_search_by_key(&number, |of| of.number).is_ok();
        let all = extent.first_segment..=extent.last_segment;
        let segments = all.filter(|&number| !has(number)).take(MISSING_MAX).map(|number| {
            let what = match number {
                _ if number == extent.first_segment => "the first segment of the log is missing",
                _ if number == extent.last_segment => "the last segment of the log is missing",
                _ => "this segment is missing",
            };
            damage(&format::path(folder, number), 0, what)
        });
        let mut missing: Vec<Damage> = segments.collect();
        let of_log = || self.segments.iter().filter(|of| of.number >= extent.first_segment);
        let first_frame = of_log().map(|of| of.first_frame).find(|&frame| frame > 0);
        if let Some(first) = of_log().next().filter(|of| of.number == extent.first_segment)
            && first_frame.is_some_and(|frame| frame > extent.first_frame)
            && !gaps.iter().any(|gap| gap.damage.path == first.path)
        {
            let what = "the first frames of the log are missing";
            missing.push(damage(&first.path, format::HEADER_BYTES as u64, what));
        }
        if let Some(last) = self.segments.last().filter(|of| of.number >= extent.last_segment)
            && self.frame < extent.last_frame
            && !gaps.iter().any(|gap| gap.damage.path == last.path)
        {
            let what = "the last frames of the log are missing";
            missing.push(damage(&last.path, last.bytes, what));
        }
        missing
    }

    /// The extent of the segments and frames found.
    pub fn extent_now(&self) -> Extent {
        let next_frame = self.frame + 1;
        let first = self.segments.first();
        let first_frame = self.segments.iter().map(|of| of.first_frame).find(|&frame| frame > 0);
        Extent {
            first_segment: first.map_or(1, |of| of.number),
            first_frame: first_frame.unwrap_or(next_frame),
            last_segment: self.segments.last().map_or(0, |of| of.number),
            last_frame: self.frame,
        }
    }

    /// Sorts the gaps: a gap whose frame was on disk is damage, and so is every gap before it; the others
    /// are torn.
    fn judge(&mut self, gaps: Vec<Gap>, synced: u64) {
        let first_torn = gaps.iter().position(|gap| gap.missing > synced);
        let torn = first_torn.unwrap_or(gaps.len());
        if let Some(gap) = gaps.get(torn) {
            self.cut = Some((gap.segment, gap.damage.offset));
            let after = |segment: &Segment| fs::metadata(&segment.path).map_or(0, |m| m.len());
            let total: u64 = self.segments[gap.segment..].iter().map(after).sum();
            self.torn_bytes = total.saturating_sub(gap.damage.offset);
        }
        self.damages.extend(gaps.into_iter().take(torn).map(|gap| gap.damage));
    }

    /// Cuts off the torn end.
    pub fn cut_torn(&mut self, folder: &Path) -> Result<(), StoreError> {
        let Some((at, offset)) = self.cut.take() else { return Ok(()) };
        let segment = self.segments[at].clone();
        let error = |error| StoreError::Io(segment.path.clone(), "cut the torn end of", error);
        tracing::warn!(
            file = %segment.path.display(),
            offset,
            bytes = self.torn_bytes,
            "cutting off the torn end of the log that a crash left; nothing in it was acknowledged"
        );
        // The extent is never ahead of the log.
        if let Some(mut extent) = self.extent {
            let last = if offset > 0 { segment.number } else { segment.number.saturating_sub(1) };
            extent.last_segment = extent.last_segment.min(last);
            extent.write(folder).map_err(error)?;
            self.extent = Some(extent);
        }
        for later in &self.segments[at + 1..] {
            fs::remove_file(&later.path).map_err(error)?;
        }
        if offset == 0 {
            fs::remove_file(&segment.path).map_err(error)?;
        } else {
            let file = File::options().write(true).open(&segment.path).map_err(error)?;
            file.set_len(offset).and_then(|()| file.sync_all()).map_err(error)?;
        }
        sync_folder(folder).map_err(error)?;
        self.segments.truncate(at + usize::from(offset > 0));
        Ok(())
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

fn damage(path: &Path, offset: u64, what: &'static str) -> Damage {
    Damage { path: path.to_owned(), offset, until: None, what }
}

/// The distance to the next place where a frame may begin.
fn skip(rest: &[u8]) -> usize {
    let next = rest[1..].windows(4).position(|window| window == b"rqF1");
    next.map_or(rest.len(), |at| at + 1)
}

/// The files of segments, in order.
pub fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let error = |error| StoreError::Io(folder.to_owned(), "list the folder", error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if let Some(number) = format::segment_of(&path) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Reports the progress of a long read.
#[derive(Debug)]
pub struct Progress {
    bytes: u64,
    total: u64,
    reports: bool,
    reported: Instant,
}

impl Progress {
    /// For a read of `total` bytes; of several readers, one reports.
    pub fn new(total: u64, reports: bool) -> Self {
        Self { bytes: 0, total, reports, reported: Instant::now() }
    }

    fn note(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.reports && self.reported.elapsed() > PROGRESS_EVERY {
            self.reported = Instant::now();
            let percent = self.bytes * 100 / self.total.max(1);
            tracing::info!(percent, "restoring sessions and retained messages");
        }
    }
}

/// Reads the batches of a segment that was scanned before.
pub fn read_batches(
    segment: &Segment,
    progress: &mut Progress,
    each: &mut impl FnMut(&[u8]) -> Result<(), NoRecord>,
) -> Result<(), StoreError> {
    let error = |error| StoreError::Io(segment.path.clone(), "read", error);
    let file = File::open(&segment.path).map_err(error)?;
    let mut file = BufReader::with_capacity(1 << 20, file.take(segment.bytes));
    let mut header = [0; format::HEADER_BYTES];
    if let Err(e) = file.read_exact(&mut header) {
        return if e.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error(e)) };
    }
    let mut offset = format::HEADER_BYTES as u64;
    let mut body = Vec::new();
    let bad = |offset, what| StoreError::Damaged(vec![damage(&segment.path, offset, what)]);
    loop {
        let mut head = [0; format::FRAME_BYTES];
        match file.read_exact(&mut head) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            outcome => outcome.map_err(error)?,
        }
        let frame =
            Frame::read(&head).ok_or_else(|| bad(offset, "the file changed while it was read"))?;
        body.resize(frame.body_bytes, 0);
        file.read_exact(&mut body).map_err(error)?;
        let batches = format::batches(&body)
            .ok_or_else(|| bad(offset, "the frame does not consist of batches"))?;
        for batch in batches {
            each(batch).map_err(|NoRecord| bad(offset, "the frame contains an unknown record"))?;
        }
        offset += frame.bytes() as u64;
        progress.note(frame.bytes());
    }
}
