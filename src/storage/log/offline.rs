//! Offline operations on a store, for `broker store`: inspect, verify, compact, export, import and repair.
//! Knows no engine; the broker must not run meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::storage::image::{
    HeldWill, Image, OwnedContent, Retained, Session, SharedContent, Whole,
};
use crate::storage::log::extent::Extent;
use crate::storage::log::format::{self, Frame};
use crate::storage::log::scan::{self, Progress, Scan};
use crate::storage::log::{Damage, Reader, StoreError, lock, make_folder, private, sync_folder};
use crate::storage::record::SessionNumber;

/// Sizes from which a batch and a segment are closed when a log is rewritten.
const BATCH_BYTES: usize = 1 << 20;
const SEGMENT_BYTES: usize = 64 << 20;

/// A summary of the content of a store.
#[derive(Debug, Serialize)]
pub struct Inspection {
    folder: PathBuf,
    format: u32,
    segments: usize,
    bytes: u64,
    frames: u64,
    records: u64,
    torn_bytes: u64,
    damaged_places: usize,
    written_last_us: u64,
    sessions: usize,
    sessions_away: usize,
    subscriptions: usize,
    messages_queued: usize,
    messages_in_flight: usize,
    wills: usize,
    retained_messages: usize,
}

impl std::fmt::Display for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_value(self).map_err(|_| std::fmt::Error)?;
        for (name, value) in json.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(f, "{:<20} {value}", name.replace('_', " "))?;
        }
        Ok(())
    }
}

/// Reads everything that can be read, past damaged places.
fn read(folder: &Path) -> Result<(Image, Scan), StoreError> {
    if !folder.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        return Err(StoreError::Io(folder.to_owned(), "open the store in", error));
    }
    let mut image = Image::default();
    let mut unknown = 0;
    let scan = Scan::each(folder, |body| {
        // After an unknown record the rest of a batch cannot be read.
        let batches = format::batches(body).unwrap_or_default();
        let applied = batches.into_iter().map(|batch| image.apply(batch, &Whole));
        unknown += applied.filter(Result::is_err).count();
    })?;
    if unknown > 0 {
        tracing::warn!(
            batches = unknown,
            "some batches contain records that this version does not know"
        );
    }
    Ok((image, scan))
}

/// Summarizes the content of a store.
pub fn inspect(folder: &Path) -> Result<Inspection, StoreError> {
    let (image, scan) = read(folder)?;
    let sessions = || image.sessions.values();
    Ok(Inspection {
        folder: folder.to_owned(),
        format: scan.format,
        segments: scan.segments.len(),
        bytes: scan.bytes(),
        frames: scan.frames,
        records: image.records,
        torn_bytes: scan.torn_bytes,
        damaged_places: scan.damages.len(),
        written_last_us: scan.time_us,
        sessions: image.sessions.len(),
        sessions_away: sessions().filter(|session| session.away_since_us.is_some()).count(),
        subscriptions: sessions().map(|session| session.subscriptions.len()).sum(),
        messages_queued: sessions().map(|session| session.queue.len()).sum(),
        messages_in_flight: sessions().map(|session| session.inflight.len()).sum(),
        wills: image.wills.len() + sessions().filter(|session| session.will.is_some()).count(),
        retained_messages: image.retained.values().filter(|r| r.content.is_some()).count(),
    })
}

/// The result of [`verify`].
#[derive(Debug)]
pub struct Verdict {
    /// The number of good frames.
    pub frames: u64,
    /// Bytes of the torn end that a crash left, which do no harm.
    pub torn_bytes: u64,
    /// Damaged places.
    pub damages: Vec<Damage>,
}

/// Verifies every byte of a store.
pub fn verify(folder: &Path) -> Result<Verdict, StoreError> {
    let (_, scan) = read(folder)?;
    let Scan { frames, torn_bytes, damages, .. } = scan;
    Ok(Verdict { frames, torn_bytes, damages })
}

/// Rewrites a store without obsolete records; its size before and after.
pub fn compact(folder: &Path) -> Result<(u64, u64), StoreError> {
    change(folder, |_| true).map(Option::unwrap_or_default)
}

/// Ends the session of a client, and removes its Will; false when there is neither. Its queued messages of
/// shared subscriptions go to other members when the broker starts.
pub fn end_session(folder: &Path, client_identifier: &str) -> Result<bool, StoreError> {
    change(folder, |image| remove_session(image, client_identifier)).map(|sizes| sizes.is_some())
}

/// Removes the session and the Will of a client. Messages of shared subscriptions become in-transit
/// forwards.
fn remove_session(image: &mut Image, client_identifier: &str) -> bool {
    let wills_before = image.wills.len();
    image.wills.retain(|_, will| *will.client_identifier != *client_identifier);
    let of_client = |session: &Session| *session.client_identifier == *client_identifier;
    let sessions = image.sessions.iter().filter(|(_, session)| of_client(session));
    let numbers: Vec<SessionNumber> = sessions.map(|(&number, _)| number).collect();
    for number in &numbers {
        let Some(ended) = image.sessions.remove(number) else { continue };
        let mut queue = VecDeque::from(ended.inflight);
        queue.extend(ended.queue);
        queue.retain(|delivery| delivery.shared.is_some() && delivery.content.is_some());
        queue.iter_mut().for_each(|delivery| delivery.packet_identifier = 0);
        if !queue.is_empty() {
            image.sessions.insert(*number, Session { queue, ..Session::default() });
        }
    }
    !numbers.is_empty() || image.wills.len() < wills_before
}

/// Rewrites a store, which may be empty, after `to` has changed its image, unless that returns false; its size before
/// and after.
pub fn change(
    folder: &Path,
    to: impl FnOnce(&mut Image) -> bool,
) -> Result<Option<(u64, u64)>, StoreError> {
    let _lock = lock(folder)?;
    let mut scan = Scan::of(folder)?;
    if !scan.damages.is_empty() {
        return Err(StoreError::Damaged(scan.damages));
    }
    scan.cut_torn(folder)?;
    let mut image = Image::default();
    let reader = Reader { segments: scan.segments.clone() };
    let mut progress = Progress::new(reader.bytes(), true);
    reader.read(&mut progress, |batch| image.apply(batch, &Whole))?;
    if !to(&mut image) {
        return Ok(None);
    }
    let sizes = (scan.bytes(), rewrite(folder, &scan, &image)?);
    for segment in &scan.segments {
        remove(&segment.path)?;
    }
    Ok(Some(sizes))
}

/// Whether a folder has no store yet.
pub fn is_empty(folder: &Path) -> Result<bool, StoreError> {
    Ok(!folder.exists() || scan::files(folder)?.is_empty())
}

/// Rewrites a damaged store with its intact records, and moves the original files into a subfolder: its
/// path, and the number of damaged places. None when nothing was damaged.
pub fn repair(folder: &Path) -> Result<Option<(PathBuf, usize)>, StoreError> {
    let _lock = lock(folder)?;
    let (image, mut scan) = read(folder)?;
    if scan.damages.is_empty() {
        scan.cut_torn(folder)?;
        return Ok(None);
    }
    let aside = folder.join(format!("damaged-{}", scan.frame));
    let error = |path: &Path, what| {
        let path = path.to_owned();
        move |error| StoreError::Io(path, what, error)
    };
    make_folder(&aside).map_err(error(&aside, "create the folder"))?;
    rewrite(folder, &scan, &image)?;
    for segment in &scan.segments {
        let name = segment.path.file_name().unwrap_or_default();
        fs::rename(&segment.path, aside.join(name)).map_err(error(&segment.path, "move aside"))?;
    }
    sync_folder(folder).map_err(error(folder, "synchronise"))?;
    Ok(Some((aside, scan.damages.len())))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    fs::remove_file(path).map_err(|error| StoreError::Io(path.to_owned(), "remove", error))
}

/// Writes an image into new segments after the existing ones; the number of bytes written.
fn rewrite(folder: &Path, scan: &Scan, image: &Image) -> Result<u64, StoreError> {
    // In a log without an extent no missing part can be noticed; this one gets an extent first.
    if scan.extent.is_none() && scan.format < format::EXTENT_VERSION {
        let error = |error| StoreError::Io(folder.to_owned(), "write to", error);
        scan.extent_now().write(folder).map_err(error)?;
    }
    let first_segment = scan.segments.last().map_or(1, |last| last.number + 1);
    let first_segment = first_segment.max(scan.extent.map_or(1, |of| of.last_segment + 1));
    let frame = scan.frame.max(scan.extent.map_or(0, |of| of.last_frame));
    let mut rewriter = Rewriter {
        folder,
        segment: first_segment,
        first: (first_segment, frame + 1),
        frame,
        time_us: scan.time_us,
        file: None,
        segment_bytes: 0,
        bytes: 0,
        outcome: Ok(()),
    };
    let mut rest = image.write(|batch| {
        if batch.len() >= BATCH_BYTES {
            rewriter.write(batch);
        }
    });
    rewriter.write(&mut rest);
    // An empty frame that confirms the others.
    rewriter.write(&mut Vec::new());
    rewriter.end()
}

/// Writes segments of a log.
struct Rewriter<'a> {
    folder: &'a Path,
    segment: u64,
    /// The first segment and frame.
    first: (u64, u64),
    frame: u64,
    time_us: u64,
    file: Option<File>,
    segment_bytes: usize,
    bytes: u64,
    outcome: io::Result<()>,
}

impl Rewriter<'_> {
    fn write(&mut self, batch: &mut Vec<u8>) {
        if self.outcome.is_ok() {
            self.outcome = self.try_write(batch);
        }
        batch.clear();
    }

    fn try_write(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.file.is_none() || self.segment_bytes >= SEGMENT_BYTES {
            self.end_segment()?;
            let path = format::path(self.folder, self.segment);
            let mut file = private().create(true).truncate(true).write(true).open(path)?;
            file.write_all(&format::header(self.segment))?;
            self.segment += 1;
            self.segment_bytes = format::HEADER_BYTES;
            self.bytes += format::HEADER_BYTES as u64;
            self.file = Some(file);
        }
        let mut frame = vec![0; format::FRAME_BYTES];
        if !batch.is_empty() {
            format::push_batch(&mut frame, batch);
        }
        Frame::finish(&mut frame, self.frame + 1, self.frame, self.time_us);
        self.file.as_mut().expect("just made").write_all(&frame)?;
        self.frame += 1;
        self.segment_bytes += frame.len();
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// The extent of the new segments.
    fn extent(&self) -> Extent {
        let (first_segment, first_frame) = self.first;
        let (last_segment, last_frame) = (self.segment - 1, self.frame);
        Extent { first_segment, first_frame, last_segment, last_frame }
    }

    fn end_segment(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }

    fn end(mut self) -> Result<u64, StoreError> {
        let ended = std::mem::replace(&mut self.outcome, Ok(()))
            .and_then(|()| self.end_segment())
            .and_then(|()| sync_folder(self.folder))
            .and_then(|()| self.extent().write(self.folder));
        match ended {
            Ok(()) => Ok(self.bytes),
            Err(error) => Err(StoreError::Io(self.folder.to_owned(), "write to", error)),
        }
    }
}

/// A line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// The first.
    Ringmq { format: u32 },
    /// A session with its whole state.
    Session { number: SessionNumber, session: Session },
    /// The Will of a client that was connected, with the number of the session.
    Will { number: SessionNumber, will: HeldWill },
    /// A retained message.
    Retained { stamp: u64, content: OwnedContent },
}

/// Why an export or an import failed.
#[derive(Debug)]
pub enum CarryError {
    /// The store failed.
    Store(StoreError),
    /// Standard input or output failed.
    Stream(io::Error),
    /// A line, counted from 1, is wrong, with the reason.
    Line(usize, String),
    /// The store is not empty.
    NotEmpty(PathBuf),
}

impl std::fmt::Display for CarryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Stream(error) => write!(f, "cannot read or write the lines: {error}"),
            Self::Line(number, what) => write!(f, "line {number}: {what}"),
            Self::NotEmpty(folder) => write!(
                f,
                "{} contains a store; import needs an empty folder, named with --data DIR",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for CarryError {}

impl From<StoreError> for CarryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Writes the state as JSON Lines, ordered by name.
pub fn export(folder: &Path, out: &mut impl Write) -> Result<(), CarryError> {
    let (image, scan) = read(folder)?;
    if !scan.damages.is_empty() {
        return Err(StoreError::Damaged(scan.damages).into());
    }
    let mut put = |line: &Line| {
        serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
        out.write_all(b"\n")
    };
    put(&Line::Ringmq { format: format::VERSION }).map_err(CarryError::Stream)?;
    let mut sessions: Vec<_> = image.sessions.into_iter().collect();
    sessions.sort_by(|(_, a), (_, b)| a.client_identifier.cmp(&b.client_identifier));
    for (number, session) in sessions {
        put(&Line::Session { number, session }).map_err(CarryError::Stream)?;
    }
    let mut wills: Vec<_> = image.wills.into_iter().collect();
    wills.sort_by(|(_, a), (_, b)| a.client_identifier.cmp(&b.client_identifier));
    for (number, will) in wills {
        put(&Line::Will { number, will }).map_err(CarryError::Stream)?;
    }
    let mut retained: Vec<_> = image.retained.into_iter().collect();
    retained.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, retained) in retained {
        if let Some(content) = retained.content {
            let stamp = retained.stamp;
            put(&Line::Retained { stamp, content }).map_err(CarryError::Stream)?;
        }
    }
    out.flush().map_err(CarryError::Stream)
}

/// Reads the output of [`export`] into an empty store; the numbers of sessions and retained messages.
pub fn import(folder: &Path, lines: impl BufRead) -> Result<(usize, usize), CarryError> {
    let _lock = lock(folder)?;
    if !scan::files(folder)?.is_empty() {
        return Err(CarryError::NotEmpty(folder.to_owned()));
    }
    let mut image = Image::default();
    let mut names = BTreeSet::new();
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line.map_err(CarryError::Stream)?;
        let wrong = |what: String| CarryError::Line(number, what);
        match serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))? {
            Line::Ringmq { format: 1..=format::VERSION } if number == 1 => {}
            Line::Ringmq { format } => {
                return Err(wrong(format!("this version cannot read format {format}")));
            }
            _ if number == 1 => {
                return Err(wrong("the first line of an export must be its format".to_owned()));
            }
            Line::Session { number, session } => {
                check(&session).map_err(wrong)?;
                // Sessions without a client contain in-transit forwards; there can be several.
                let has_client = !session.client_identifier.is_empty();
                if has_client && !names.insert(session.client_identifier.clone())
                    || image.sessions.insert(number, session).is_some()
                {
                    return Err(wrong("duplicate session".to_owned()));
                }
            }
            Line::Will { number, will } => {
                check_topic(&will.content).map_err(wrong)?;
                if image.wills.insert(number, will).is_some() {
                    return Err(wrong("duplicate Will of a session".to_owned()));
                }
            }
            Line::Retained { stamp, content } => {
                check_topic(&content).map_err(wrong)?;
                let topic = content.topic.clone();
                image.retained.insert(topic, Retained { stamp, content: Some(content) });
            }
        }
    }
    let counts = (image.sessions.len(), image.retained.len());
    rewrite(folder, &Scan::default(), &image)?;
    Ok(counts)
}

/// Checks what the engine assumes about the sessions in its store.
fn check(session: &Session) -> Result<(), String> {
    for filter in session.subscriptions.keys() {
        shards::TopicFilter::parse(filter, usize::MAX)
            .map_err(|error| format!("{filter}: {error:?}"))?;
    }
    let contents =
        session.inflight.iter().chain(&session.queue).filter_map(|of| of.content.as_ref());
    let wills = session.will.iter().map(|will| &will.content);
    contents.filter_map(SharedContent::get).chain(wills).try_for_each(check_topic)
}

fn check_topic(content: &OwnedContent) -> Result<(), String> {
    shards::check_topic_name(&content.topic, usize::MAX)
        .map_err(|error| format!("{}: {error:?}", content.topic))
}
