//! The encoding of segments and frames; see [`super`].

use std::path::{Path, PathBuf};

/// The format that is written; earlier formats are read. 2: Wills of connected clients. 3: the file
/// `extent`. 4: contents shared by the deliveries of a checkpoint. 5: sessions in parts. 6: what
/// bridges have subscribed to at their far brokers. 7: listeners of Wills.
pub const VERSION: u32 = 7;

/// The first format with the file `extent`.
pub const EXTENT_VERSION: u32 = 3;

const SEGMENT_MAGIC: [u8; 8] = *b"ringmq\0L";
const FRAME_MAGIC: [u8; 4] = *b"rqF1";

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 28;
/// Bytes of a frame before its body.
pub const FRAME_BYTES: usize = 36;
/// Upper bound of a body; the writer collects less.
pub const BODY_BYTES_MAX: usize = 1 << 30;

/// The file of a segment.
pub fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:016}.log"))
}

/// The segment in a file of this name.
pub fn segment_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    name.parse().ok().filter(|_| name.len() == 16)
}

/// A segment's header.
pub fn header(segment: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&segment.to_le_bytes());
    let sum = crc32fast::hash(&header[..24]);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The result of reading a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A header in this format.
    Good(u32),
    /// A header in a format later than this program.
    Later(u32),
    /// Not a header.
    Bad,
}

/// Reads the header of a file that should contain `segment`.
pub fn read_header(bytes: &[u8], segment: u64) -> Header {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Header::Bad };
    let is_whole = u32_at(bytes, 24) == crc32fast::hash(&bytes[..24]);
    if !is_whole || bytes[..8] != SEGMENT_MAGIC || u64_at(bytes, 16) != segment {
        return Header::Bad;
    }
    match u32_at(bytes, 8) {
        0 => Header::Bad,
        version @ 1..=VERSION => Header::Good(version),
        version => Header::Later(version),
    }
}

/// The head of a frame, which precedes the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Number of the frame.
    pub number: u64,
    /// The last frame known to be on disk when this one was written.
    pub synced: u64,
    /// Time of writing, in microseconds since 1970.
    pub time_us: u64,
    sum: u32,
}

impl Frame {
    /// Writes the head into the first bytes of `frame`, which are reserved for it.
    pub fn finish(frame: &mut [u8], number: u64, synced: u64, time_us: u64) {
        let body_bytes = (frame.len() - FRAME_BYTES) as u32;
        frame[..4].copy_from_slice(&FRAME_MAGIC);
        frame[4..8].copy_from_slice(&body_bytes.to_le_bytes());
        frame[8..16].copy_from_slice(&number.to_le_bytes());
        frame[16..24].copy_from_slice(&synced.to_le_bytes());
        frame[24..32].copy_from_slice(&time_us.to_le_bytes());
        let sum = sum(frame);
        frame[32..36].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads the head of a frame; none when the bytes are not one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<FRAME_BYTES>()?;
        let body_bytes = u32_at(head, 4) as usize;
        (head[..4] == FRAME_MAGIC && body_bytes <= BODY_BYTES_MAX).then(|| Self {
            body_bytes,
            number: u64_at(head, 8),
            synced: u64_at(head, 16),
            time_us: u64_at(head, 24),
            sum: u32_at(head, 32),
        })
    }

    /// Bytes of head and body.
    pub fn bytes(&self) -> usize {
        FRAME_BYTES + self.body_bytes
    }

    /// Whether `bytes` begin with the whole frame, and its checksum is right.
    pub fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.bytes()).is_some_and(|frame| sum(frame) == self.sum)
    }
}

fn sum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..32]);
    hasher.update(&frame[FRAME_BYTES..]);
    hasher.finalize()
}

/// The batches of a body; none when the body does not consist of batches.
pub fn batches(mut body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut batches = Vec::new();
    while !body.is_empty() {
        let (bytes, rest) = body.split_at_checked(4)?;
        let (batch, rest) = rest.split_at_checked(u32_at(bytes, 0) as usize)?;
        batches.push(batch);
        body = rest;
    }
    Some(batches)
}

/// Appends a batch to a body.
pub fn push_batch(body: &mut Vec<u8>, batch: &[u8]) {
    body.extend_from_slice(&(batch.len() as u32).to_le_bytes());
    body.extend_from_slice(batch);
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
