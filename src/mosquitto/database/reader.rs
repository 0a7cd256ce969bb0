//! Reads the chunks of a database one after the other. A length is compared with the rest of the file before anything
//! is read, so that a damaged one allocates nothing.

use std::fmt;
use std::io::{self, Read};

use super::chunk::{Chunk, Format};

const MAGIC: &[u8; 15] = b"\x00\xB5\x00mosquitto db";
/// Magic, checksum, which is always 0, and format.
const HEADER_BYTES: usize = MAGIC.len() + 8;

/// Reads a database.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    format: Format,
    /// The next byte.
    at: u64,
    /// All bytes of the file.
    bytes: u64,
    body: Vec<u8>,
}

/// A chunk that does not fit, and with it the end of what can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first byte of the chunk.
    pub at: u64,
    /// Description.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.what)
    }
}

/// Why a database cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// Reading the bytes failed.
    Io(io::Error),
    /// The file has no bytes.
    Empty,
    /// All bytes are 0, as after a loss of power.
    Zeros,
    /// The file begins in another way.
    NoDatabase,
    /// The format is an earlier or later one.
    Format(u32),
    /// A chunk does not fit.
    Damaged(Damage),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Empty => write!(f, "the file is empty: Mosquitto has saved nothing in it"),
            Self::Zeros => write!(
                f,
                "the file consists of zeros, as a loss of power can leave it: nothing in it can be recovered"
            ),
            Self::NoDatabase => write!(f, "this is no database of Mosquitto"),
            Self::Format(format) => write!(
                f,
                "the database has format {format}; formats {} to {} can be read, which Mosquitto 1.4 to \
                 2.1 write",
                Format::READABLE.start(),
                Format::READABLE.end()
            ),
            Self::Damaged(damage) => write!(f, "the database is damaged at {damage}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of a database of so many bytes.
    pub fn new(mut input: R, bytes: u64) -> Result<Self, ReadError> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        input.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header)?;
        if header.is_empty() {
            return Err(ReadError::Empty);
        }
        if header.iter().all(|byte| *byte == 0) {
            return Err(if is_zero(input)? { ReadError::Zeros } else { ReadError::NoDatabase });
        }
        let Some((magic, [_, _, _, _, format @ ..])) = header.split_first_chunk() else {
            return Err(ReadError::NoDatabase);
        };
        let Ok(format) = <[u8; 4]>::try_from(format) else { return Err(ReadError::NoDatabase) };
        if magic != MAGIC {
            return Err(ReadError::NoDatabase);
        }
        let format = u32::from_be_bytes(format);
        if !Format::READABLE.contains(&format) {
            return Err(ReadError::Format(format));
        }
        let at = HEADER_BYTES as u64;
        Ok(Self { input, format: Format(format), at, bytes: bytes.max(at), body: Vec::new() })
    }

    /// The format of the database.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of memory for chunks.
    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// The next chunk; none at the end of the file.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk<'_>>, ReadError> {
        let begin = self.at;
        let damaged = |what: String| Err(ReadError::Damaged(Damage { at: begin, what }));
        let head_bytes = self.format.head_bytes();
        match self.read_body(head_bytes)? {
            0 => return Ok(None),
            read if read < head_bytes => {
                return damaged("the file ends within the head of a chunk".into());
            }
            _ => {}
        }
        let (kind, length) = self.body.split_at(head_bytes - 4);
        let kind = kind.iter().fold(0, |kind, byte| kind << 8 | u32::from(*byte));
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if !(1..=6).contains(&kind) {
            return damaged(format!("there are no chunks of kind {kind}"));
        }
        let rest = self.bytes.saturating_sub(self.at);
        if length as u64 > rest || self.read_body(length)? < length {
            return damaged(format!("a chunk of {length} bytes begins, and the file ends before"));
        }
        match Chunk::decode(self.format, kind, &self.body) {
            Some(chunk) => Ok(Some(chunk)),
            None => damaged(format!("the {length} bytes of a chunk of kind {kind} do not fit")),
        }
    }

    /// Reads the next bytes, fewer at the end of the file; how many.
    fn read_body(&mut self, count: usize) -> io::Result<usize> {
        self.body.clear();
        let read = self.input.by_ref().take(count as u64).read_to_end(&mut self.body)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Whether all bytes that follow are 0.
fn is_zero(mut input: impl Read) -> io::Result<bool> {
    let mut block = [0; 4096];
    loop {
        let read = match input.read(&mut block) {
            Ok(0) => return Ok(true),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if block[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
}
