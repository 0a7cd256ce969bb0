//! Reading a log: what is whole, what is torn, what is damaged.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::storage::log::extent::{self, Extent, Found};
use crate::storage::log::format::{self, Frame, Header};
use crate::storage::log::{StoreError, sync_folder};
use crate::storage::record::NoRecord;

/// Missing segments that are named.
const MISSING_MAX: usize = 64;

/// How often a long read says where it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// A file that holds a part of the log.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// Bytes up to the end of its last good frame.
    pub bytes: u64,
    /// Its first good frame; 0 when it has none.
    pub first_frame: u64,
}

/// A place that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The first byte of what cannot be read.
    pub offset: u64,
    /// The first byte that can be read again; none where nothing after it can.
    pub until: Option<u64>,
    /// What is wrong.
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

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The latest format of any of them.
    pub format: u32,
    /// In order.
    pub segments: Vec<Segment>,
    /// The last good frame.
    pub frame: u64,
    /// Good frames.
    pub frames: u64,
    /// When the last one was written, in microseconds since 1970.
    pub time_us: u64,
    /// Bytes at the end that a crash left unfinished.
    pub torn_bytes: u64,
    /// Places that are damaged.
    pub damages: Vec<Damage>,
    /// What the log says of where it begins and ends; none where an earlier version wrote it.
    pub extent: Option<Extent>,
    /// Where the good part ends, when something torn follows: file and byte.
    cut: Option<(usize, u64)>,
}

/// A stretch that cannot be read.
struct Gap {
    segment: usize,
    damage: Damage,
    /// The frame that should have been there.
    missing: u64,
}

impl Scan {
    /// Looks at all segments in a folder.
    pub fn of(folder: &Path) -> Result<Self, StoreError> {
        Self::each(folder, |_| {})
    }

    /// The same, and shows each good body.
    pub fn each(folder: &Path, mut show: impl FnMut(&[u8])) -> Result<Self, StoreError> {
        let error = |path: &Path, what| {
            let path = path.to_owned();
            move |error| StoreError::Io(path, what, error)
        };
        let mut scan = Self::default();
        let mut gaps: Vec<Gap> = Vec::new();
        // The last frame that some good one vouches for.
        let mut synced = 0;
        for (at, (number, path)) in files(folder)?.into_iter().enumerate() {
            let bytes = fs::read(&path).map_err(error(&path, "read"))?;
            let (mut good_end, mut first_frame) = (0, 0);
            let mut offset = match format::read_header(&bytes, number) {
                Header::Good(format) => {
                    scan.format = scan.format.max(format);
                    good_end = format::HEADER_BYTES;
                    format::HEADER_BYTES
                }
                Header::Later(version) => return Err(StoreError::Version(path, version)),
                Header::Bad => {
                    let damage = damage(&path, 0, "this is no beginning of a segment");
                    gaps.push(Gap { segment: at, damage, missing: scan.frame + 1 });
                    format::HEADER_BYTES.min(bytes.len())
                }
            };
            while offset < bytes.len() {
                let rest = &bytes[offset..];
                let frame = Frame::read(rest).filter(|frame| frame.is_whole(rest));
                let is_next = |frame: &Frame| scan.frame == 0 || frame.number == scan.frame + 1;
                let is_after_gap = gaps.last().is_some_and(|gap| gap.damage.until.is_none());
                match frame {
                    Some(frame) if is_next(&frame) || is_after_gap && frame.number > scan.frame => {
                        if let Some(gap) = gaps.last_mut() {
                            gap.damage.until.get_or_insert(offset as u64);
                            // Its header had been on disk before any frame was written.
                            if gap.damage.offset == 0 {
                                gap.missing = 0;
                            }
                        }
                        show(&rest[format::FRAME_BYTES..frame.bytes()]);
                        (scan.frame, scan.time_us) = (frame.number, frame.time_us);
                        scan.frames += 1;
                        if first_frame == 0 {
                            first_frame = frame.number;
                        }
                        synced = synced.max(frame.synced);
                        offset += frame.bytes();
                        good_end = offset;
                    }
                    _ => {
                        if !is_after_gap {
                            let what = match &frame {
                                Some(_) => "frames are missing before this one",
                                None => "the checksum, or the beginning of a frame, is wrong",
                            };
                            let damage = damage(&path, offset as u64, what);
                            gaps.push(Gap { segment: at, damage, missing: scan.frame + 1 });
                        }
                        offset += if frame.is_some() { 1 } else { skip(rest) };
                    }
                }
            }
            let bytes = good_end as u64;
            scan.segments.push(Segment { path, number, bytes, first_frame });
        }
        let found = extent::read(folder).map_err(error(&extent::path(folder), "read"))?;
        let missing = match found {
            Found::Good(extent) => {
                scan.extent = Some(extent);
                synced = synced.max(extent.last_frame);
                scan.missing_of(&extent, folder, &gaps)
            }
            Found::Bad => vec![damage(&extent::path(folder), 0, "it is not as it was written")],
            Found::Missing if scan.format >= format::EXTENT_VERSION => {
                let what = "the file is missing that says where the log begins and ends";
                vec![damage(&extent::path(folder), 0, what)]
            }
            Found::Missing => Vec::new(),
        };
        scan.judge(gaps, synced);
        scan.damages.extend(missing);
        Ok(scan)
    }

    /// What should be there and is not, where no frame after it shows that.
    fn missing_of(&self, extent: &Extent, folder: &Path, gaps: &[Gap]) -> Vec<Damage> {
        let has = |number| self.segments.binary_search_by_key(&number, |of| of.number).is_ok();
        let all = extent.first_segment..=extent.last_segment;
        let segments = all.filter(|&number| !has(number)).take(MISSING_MAX).map(|number| {
            let what = match number {
                _ if number == extent.first_segment => {
                    "this segment is missing, the first of the log"
                }
                _ if number == extent.last_segment => {
                    "this segment is missing, the last of the log"
                }
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
            let what = "the first frames of the log are missing here";
            missing.push(damage(&first.path, format::HEADER_BYTES as u64, what));
        }
        if let Some(last) = self.segments.last().filter(|of| of.number >= extent.last_segment)
            && self.frame < extent.last_frame
            && !gaps.iter().any(|gap| gap.damage.path == last.path)
        {
            let what = "the last frames of the log are missing from here on";
            missing.push(damage(&last.path, last.bytes, what));
        }
        missing
    }

    /// Where the log begins, ends, and what of it is on disk, as it is now.
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

    /// A gap whose frame was on disk once is damage, and so is one before it; the others are torn.
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

    /// Cuts off what is torn.
    pub fn cut_torn(&mut self, folder: &Path) -> Result<(), StoreError> {
        let Some((at, offset)) = self.cut.take() else { return Ok(()) };
        let segment = self.segments[at].clone();
        let error = |error| StoreError::Io(segment.path.clone(), "cut the torn end of", error);
        tracing::warn!(
            file = %segment.path.display(),
            offset,
            bytes = self.torn_bytes,
            "cutting off what a crash left unfinished; none of it had been acknowledged"
        );
        // It is never ahead of what is there.
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

/// Bytes to the next place where a frame may begin.
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

/// Where a long read is, for the log.
#[derive(Debug)]
pub struct Progress {
    bytes: u64,
    total: u64,
    is_told: bool,
    told: Instant,
}

impl Progress {
    /// Of a read of so many bytes; only one of several readers says where it is.
    pub fn new(total: u64, is_told: bool) -> Self {
        Self { bytes: 0, total, is_told, told: Instant::now() }
    }

    fn note(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.is_told && self.told.elapsed() > PROGRESS_EVERY {
            self.told = Instant::now();
            let percent = self.bytes * 100 / self.total.max(1);
            tracing::info!(percent, "restoring sessions and retained messages");
        }
    }
}

/// Reads the batches of a segment that was looked at already.
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
            Frame::read(&head).ok_or_else(|| bad(offset, "it changed while it was read"))?;
        body.resize(frame.body_bytes, 0);
        file.read_exact(&mut body).map_err(error)?;
        let batches =
            format::batches(&body).ok_or_else(|| bad(offset, "this frame holds no batches"))?;
        for batch in batches {
            each(batch).map_err(|NoRecord| bad(offset, "this frame holds something unknown"))?;
        }
        offset += frame.bytes() as u64;
        progress.note(frame.bytes());
    }
}
