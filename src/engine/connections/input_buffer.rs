//! InputBuffer that could not be processed yet: the start of a packet, or what came while it had to wait.

use crate::base::clock::Now;

/// Bytes that the first allocation has room for.
const BYTES_MIN: usize = 64;

/// Bytes in memory that grows with them: by what has come, and never beyond the packet that they are the
/// start of.
#[derive(Debug)]
pub struct InputBuffer {
    bytes: Vec<u8>,
    /// Where the unprocessed bytes begin.
    begin: usize,
    /// When the first packet began.
    pub began: Now,
    /// Whether the first packet was excused once for being late, as the core was.
    is_excused: bool,
}

impl InputBuffer {
    /// An empty buffer.
    pub fn new(began: Now) -> Self {
        Self { bytes: Vec::new(), begin: 0, began, is_excused: false }
    }

    /// A buffer of these bytes.
    pub fn from_bytes(bytes: Vec<u8>, began: Now) -> Self {
        Self { bytes, begin: 0, began, is_excused: false }
    }

    /// Restarts the time of the first packet once; whether that was still possible.
    pub fn excuse(&mut self, now: Now) -> bool {
        self.began = now;
        !std::mem::replace(&mut self.is_excused, true)
    }

    /// Another packet begins.
    pub fn begin_at(&mut self, now: Now) {
        (self.began, self.is_excused) = (now, false);
    }

    /// The unprocessed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    /// Bytes of memory.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes of memory with `more` bytes added. `need` is the length of the packet that they are part of,
    /// 0 where that is not known.
    pub fn held_with(&self, more: usize, need: usize) -> usize {
        let bytes = self.bytes().len() + more;
        match bytes <= self.held() {
            true => self.held(),
            // In ever larger steps, so that each byte is moved a few times at most.
            false => bytes.max((2 * self.held()).max(BYTES_MIN).min(need)),
        }
    }

    /// Adds what came.
    pub fn extend(&mut self, more: &[u8], need: usize) {
        let held = self.held_with(more.len(), need);
        self.bytes.drain(..std::mem::take(&mut self.begin));
        self.bytes.reserve_exact(held - self.bytes.len());
        self.bytes.extend_from_slice(more);
    }

    /// The first `bytes` have been processed. Memory is given back where little is left of much.
    pub fn advance(&mut self, bytes: usize) {
        self.begin += bytes;
        if self.bytes().len() < self.held() / 4 {
            self.bytes = self.bytes().to_vec();
            self.begin = 0;
        }
    }

    /// All that is still to be processed.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.begin);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_comes_in_pieces_takes_twice_what_has_come_and_no_more_than_it_needs() {
        let mut input = InputBuffer::new(Now(0));
        let packet: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        for piece in packet.chunks(7) {
            let promised = input.held_with(piece.len(), packet.len());
            input.extend(piece, packet.len());
            assert_eq!(input.held(), promised);
            assert!(input.held() <= (2 * input.bytes().len()).max(BYTES_MIN).min(packet.len()));
        }
        assert_eq!(input.bytes(), packet);
    }

    #[test]
    fn what_has_been_processed_makes_room_for_what_comes() {
        let mut input = InputBuffer::from_bytes(vec![1; 1_000], Now(0));
        input.advance(700);
        assert_eq!((input.bytes().len(), input.held()), (300, 1_000));
        input.extend(&[2; 700], 0);
        assert_eq!((input.bytes().len(), input.held()), (1_000, 1_000));
        input.advance(999);
        assert_eq!((input.bytes(), input.held()), (&[2][..], 1));
        assert_eq!(input.into_bytes(), [2]);
    }
}
