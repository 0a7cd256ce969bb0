//! Pages: the parts of a frame of the log, as messages of the node's stream.
//!
//! ```text
//! page  magic 4 · kind 1 · 0 3 · store 8 · run 8 · frame 8 · part 4 · parts 4 · checksum 4 · bytes of the frame
//! seal  magic 4 · kind 1 · 0 3 · node 8 · incarnation 8 · revision of the view 8 · 0 8 · checksum 4
//! ```
//!
//! All numbers are little-endian; the checksum is the CRC-32 of everything else. A reader takes the messages of a stream in
//! order ([`Frames`]). What follows a seal does not count: pages that were under way when the seal came are accepted
//! by the engine.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a message at most. Larger ones save little, and a server of NATS takes 1 MiB by default.
pub const PAGE_BYTES_MAX: usize = 128 * 1024;

/// Bytes before the content.
const HEADER_BYTES: usize = 44;

/// Bytes of a frame in a page.
const CONTENT_BYTES: usize = PAGE_BYTES_MAX - HEADER_BYTES;

/// Parts of a frame at most: a frame of the log has less than 2 GiB.
const PARTS_MAX: u32 = 16_384;

/// The last byte is the version of the format.
const MAGIC: [u8; 4] = *b"rqP1";

const KIND_PAGE: u8 = 1;
const KIND_SEAL: u8 = 2;

/// Which page a message is, and who wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageId {
    /// The number of the store, which says which node's log it is ([`crate::cluster::identity::store_number`]).
    pub store: u64,
    /// A random number of the process that wrote it.
    pub run: u64,
    /// The number of the frame.
    pub frame: u64,
    /// Which part of the frame, from 0.
    pub part: u32,
    /// How many parts the frame has.
    pub parts: u32,
}

/// Who has sealed a stream: the sessions in it are taken over, and its node must acknowledge nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The node that sealed it.
    pub node: u8,
    /// Its incarnation.
    pub incarnation: u64,
    /// The revision of the view by which it did.
    pub revision: u64,
}

/// What a message of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A part of a frame.
    Page(PageId),
    /// The end of what counts.
    Seal(Seal),
}

/// Why a message cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageError {
    /// It does not begin as a page, or has a later format than this program.
    Format,
    /// Its checksum is wrong.
    Checksum,
    /// It is a later part of a frame whose beginning is missing.
    Incomplete,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "it is no page of a log, or one of a later version of this program",
            Self::Checksum => "its checksum is wrong",
            Self::Incomplete => "pages before it are missing",
        })
    }
}

impl std::error::Error for PageError {}

/// Splits a frame into pages.
pub fn pages(store: u64, run: u64, frame: u64, bytes: &[u8]) -> Vec<(PageId, Bytes)> {
    let parts = bytes.len().div_ceil(CONTENT_BYTES) as u32;
    let of = |(part, content): (usize, &[u8])| {
        let id = PageId { store, run, frame, part: part as u32, parts };
        let message = message(KIND_PAGE, [store, run, frame], (id.part, parts), content);
        (id, message)
    };
    bytes.chunks(CONTENT_BYTES).enumerate().map(of).collect()
}

impl Seal {
    /// The message.
    pub fn write(&self) -> Bytes {
        message(KIND_SEAL, [self.node.into(), self.incarnation, self.revision], (0, 0), &[])
    }
}

fn message(kind: u8, numbers: [u64; 3], (part, parts): (u32, u32), content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(HEADER_BYTES + content.len());
    message.put_slice(&MAGIC);
    message.put_slice(&[kind, 0, 0, 0]);
    numbers.iter().for_each(|&number| message.put_u64_le(number));
    message.put_u32_le(part);
    message.put_u32_le(parts);
    let sum = sum(&message, content);
    message.put_u32_le(sum);
    message.put_slice(content);
    message.freeze()
}

fn sum(header: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(content);
    hasher.finalize()
}

/// Reads a message: what it is, and its part of the frame.
pub fn read(message: &[u8]) -> Result<(Header, &[u8]), PageError> {
    let (header, content) = message.split_at_checked(HEADER_BYTES).ok_or(PageError::Format)?;
    if header[..4] != MAGIC {
        return Err(PageError::Format);
    }
    let (summed, written) = header.split_at(HEADER_BYTES - 4);
    if sum(summed, content).to_le_bytes() != written {
        return Err(PageError::Checksum);
    }
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let short = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    match header[4] {
        KIND_PAGE => {
            let (store, run, frame) = (long(8), long(16), long(24));
            let id = PageId { store, run, frame, part: short(32), parts: short(36) };
            let is_right = id.part < id.parts && id.parts <= PARTS_MAX;
            is_right.then_some((Header::Page(id), content)).ok_or(PageError::Format)
        }
        KIND_SEAL => {
            let node = long(8).try_into().map_err(|_| PageError::Format)?;
            let seal = Seal { node, incarnation: long(16), revision: long(24) };
            Ok((Header::Seal(seal), content))
        }
        _ => Err(PageError::Format),
    }
}

/// What a message adds to those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A part of a frame that is not complete yet, or one that was there already.
    Nothing,
    /// The last part of a frame.
    Frame {
        /// Its number.
        number: u64,
        /// The frame, as the log has it.
        bytes: Vec<u8>,
    },
    /// The stream is sealed: nothing counts from here on.
    Sealed(Seal),
}

/// Puts frames together from the messages of a stream, in order. Of a frame whose writer ended on the way, the beginning
/// does not count, and a frame that comes again is left out.
#[derive(Debug, Default)]
pub struct Frames {
    /// The part that came last of the frame under way, and the bytes so far.
    partial: Option<(PageId, Vec<u8>)>,
    /// The last complete frame.
    last: u64,
    seal: Option<Seal>,
}

impl Frames {
    /// Takes the next message.
    ///
    /// # Errors
    ///
    /// The message is damaged or of another kind; nothing after it can be used.
    pub fn take(&mut self, message: &[u8]) -> Result<Taken, PageError> {
        if let Some(seal) = self.seal {
            return Ok(Taken::Sealed(seal));
        }
        let (id, content) = match read(message)? {
            (Header::Page(id), content) => (id, content),
            (Header::Seal(seal), _) => {
                self.seal = Some(seal);
                return Ok(Taken::Sealed(seal));
            }
        };
        if id.frame <= self.last {
            return Ok(Taken::Nothing);
        }
        let mut bytes = match self.partial.take() {
            _ if id.part == 0 => Vec::new(),
            Some((before, bytes)) if before == (PageId { part: id.part - 1, ..id }) => bytes,
            _ => return Err(PageError::Incomplete),
        };
        bytes.extend_from_slice(content);
        if id.part + 1 < id.parts {
            self.partial = Some((id, bytes));
            return Ok(Taken::Nothing);
        }
        self.last = id.frame;
        Ok(Taken::Frame { number: id.frame, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 % 251) as u8).collect()
    }

    #[test]
    fn a_frame_comes_back_from_its_pages_and_none_is_larger_than_the_bound() {
        let mut frames = Frames::default();
        for (number, length) in
            [1, CONTENT_BYTES, CONTENT_BYTES + 1, 3 * CONTENT_BYTES + 5].into_iter().enumerate()
        {
            let (number, frame) = (number as u64 + 1, frame(length));
            let pages = pages(1, 2, number, &frame);
            assert_eq!(pages.len(), length.div_ceil(CONTENT_BYTES));
            let mut taken = Taken::Nothing;
            for (id, page) in &pages {
                assert!(page.len() <= PAGE_BYTES_MAX);
                assert_eq!(read(page).expect("a page").0, Header::Page(*id));
                taken = frames.take(page).expect("a page");
            }
            assert_eq!(taken, Taken::Frame { number, bytes: frame });
        }
    }

    #[test]
    fn what_follows_a_seal_does_not_count() {
        let seal = Seal { node: 3, incarnation: 9, revision: 77 };
        let mut frames = Frames::default();
        assert_eq!(frames.take(&seal.write()), Ok(Taken::Sealed(seal)));
        let (_, page) = &pages(1, 2, 1, b"frame")[0];
        assert_eq!(frames.take(page), Ok(Taken::Sealed(seal)));
    }

    #[test]
    fn a_frame_whose_writer_ended_on_the_way_does_not_count_and_a_repeated_frame_counts_once() {
        let frame = frame(2 * CONTENT_BYTES);
        let (first, again) = (pages(1, 2, 5, &frame), pages(1, 3, 5, &frame));
        let mut frames = Frames::default();
        assert_eq!(frames.take(&first[0].1), Ok(Taken::Nothing));
        assert_eq!(frames.take(&again[0].1), Ok(Taken::Nothing));
        assert_eq!(frames.take(&again[1].1), Ok(Taken::Frame { number: 5, bytes: frame }));
        assert_eq!(frames.take(&first[0].1), Ok(Taken::Nothing));
        let later = pages(1, 3, 6, &self::frame(2 * CONTENT_BYTES));
        assert_eq!(frames.take(&later[1].1), Err(PageError::Incomplete));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let (_, page) = &pages(1, 2, 1, b"a frame")[0];
        for bit in 0..page.len() * 8 {
            let mut damaged = page.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
        assert_eq!(read(&page[..20]), Err(PageError::Format));
    }
}
