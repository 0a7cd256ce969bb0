//! The first bytes of a frame.

use super::FrameError;
use crate::cluster::codec::{VERSION, VERSION_OLDEST};
use crate::cluster::limits::FRAME_BYTES_MAX;

/// Version, flags, two reserved bytes, checksum, six numbers.
pub(super) const HEADER_BYTES: usize = 8 + 6 * 8;

/// The content is a part of an item.
pub(super) const FRAGMENT: u8 = 1;
/// The sender has got a later frame than the one after `taken`, which it wants again.
pub(super) const ASK: u8 = 2;

/// What is before the content of a frame, in little-endian order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u8,
    pub flags: u8,
    /// Incarnation of the sender.
    pub sender: u64,
    /// Incarnation of the receiver, as the sender knows it.
    pub receiver: u64,
    /// Counts the frames with content, from 1; zero for a frame without.
    pub number: u64,
    /// The last frame of the other direction that was taken in order.
    pub taken: u64,
    /// The last one whose content is processed; at most `taken`.
    pub receipt: u64,
    /// Microseconds since the oldest content was pushed.
    pub age_us: u64,
}

impl Header {
    /// Writes the header into the first bytes of a frame, which are reserved for it.
    pub fn write(&self, frame: &mut [u8]) {
        frame[0] = self.version;
        frame[1] = self.flags;
        frame[2..8].fill(0);
        let numbers =
            [self.sender, self.receiver, self.number, self.taken, self.receipt, self.age_us];
        for (place, number) in frame[8..HEADER_BYTES].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(frame);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads the header of a frame, and checks that the frame is whole.
    pub fn read(frame: &[u8]) -> Result<Self, FrameError> {
        if frame.len() < HEADER_BYTES {
            return Err(FrameError::Damaged("it is shorter than a header"));
        }
        if frame.len() > FRAME_BYTES_MAX {
            return Err(FrameError::Damaged("it is longer than a frame may be"));
        }
        // The checksum is the same and in the same place in every version: a damaged version is not taken for another one.
        if frame[4..8] != checksum(frame).to_le_bytes() {
            return Err(FrameError::Damaged("its checksum is wrong"));
        }
        if !(VERSION_OLDEST..=VERSION).contains(&frame[0]) {
            return Err(FrameError::Version(frame[0]));
        }
        let mut numbers = [0; 6];
        for (number, place) in numbers.iter_mut().zip(frame[8..HEADER_BYTES].as_chunks().0) {
            *number = u64::from_le_bytes(*place);
        }
        let [sender, receiver, number, taken, receipt, age_us] = numbers;
        Ok(Self {
            version: frame[0],
            flags: frame[1],
            sender,
            receiver,
            number,
            taken,
            receipt,
            age_us,
        })
    }
}

/// Of everything except its own place.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}
