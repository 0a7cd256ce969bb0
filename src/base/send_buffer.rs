//! Outgoing bytes of one connection: an outbox while the engine fills it, a send buffer once an
//! executor has it.
//!
//! Small frames are copied into one contiguous buffer; large payloads and encodings shared by many
//! subscribers are held by reference. The buffer moves by value to the executor (the kernel may own
//! its memory) and returns empty for reuse.

use std::io::IoSlice;

use bytes::Bytes;

/// Bytes that an executor writes to a socket, in order.
#[derive(Debug, Default)]
pub struct SendBuffer(Box<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// All copied bytes, contiguous.
    copied: Vec<u8>,
    /// Shared bytes, each with the offset in `copied` before which it is written.
    shared: Vec<(usize, Bytes)>,
    /// Index of the first piece of `shared` that is not completely written.
    shared_written: usize,
    /// Bytes of `copied` written.
    copied_written: usize,
    /// Bytes of `shared[shared_written]` written.
    offset: usize,
    /// Bytes left.
    left: usize,
}

/// A contiguous part of a buffer.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Bytes owned by the buffer.
    Copied(&'a [u8]),
    /// Bytes held by reference.
    Shared(&'a Bytes),
}

impl SendBuffer {
    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.0.left
    }

    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.0.left == 0
    }

    /// Appends the bytes that `encode` pushes.
    pub fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.0.copied.len();
        encode(&mut self.0.copied);
        self.0.left += self.0.copied.len() - before;
    }

    /// Appends bytes held by reference.
    pub fn append_shared(&mut self, bytes: Bytes) {
        self.0.left += bytes.len();
        self.0.shared.push((self.0.copied.len(), bytes));
    }

    /// Inserts bytes at the front; nothing may have been written yet.
    pub fn prepend(&mut self, bytes: &[u8]) {
        let inner = &mut *self.0;
        debug_assert!(inner.copied_written + inner.shared_written + inner.offset == 0);
        inner.copied.splice(0..0, bytes.iter().copied());
        inner.shared.iter_mut().for_each(|(place, _)| *place += bytes.len());
        inner.left += bytes.len();
    }

    /// Moves at most `most` bytes from the front to `out`.
    pub fn take(&mut self, most: usize, out: &mut Vec<u8>) {
        let before = out.len();
        let mut left = most;
        while left > 0 && !self.is_empty() {
            let begin = out.len();
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.io_slices(&mut slices);
            for slice in &slices[..filled] {
                let taken = slice.len().min(left);
                out.extend_from_slice(&slice[..taken]);
                left -= taken;
            }
            self.advance(out.len() - begin);
        }
        debug_assert!(out.len() - before <= most);
    }

    /// The content, in order; nothing may have been written yet.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let inner = &*self.0;
        debug_assert!(inner.copied_written + inner.shared_written + inner.offset == 0);
        let begins = std::iter::once(0).chain(inner.shared.iter().map(|(place, _)| *place));
        let shared = inner.shared.iter().map(|(place, bytes)| (*place, Some(bytes)));
        let ends = shared.chain(std::iter::once((inner.copied.len(), None)));
        begins.zip(ends).flat_map(|(begin, (end, shared))| {
            let copied = Piece::Copied(&inner.copied[begin..end]);
            std::iter::once(copied).chain(shared.map(Piece::Shared))
        })
    }

    /// Discards the content and keeps the memory for reuse.
    pub fn clear(&mut self) {
        let inner = &mut *self.0;
        inner.copied.clear();
        inner.shared.clear();
        inner.shared_written = 0;
        inner.copied_written = 0;
        inner.offset = 0;
        inner.left = 0;
    }

    /// Bytes of memory allocated by the buffer itself.
    pub(crate) fn capacity(&self) -> usize {
        self.0.copied.capacity() + self.0.shared.capacity() * size_of::<(usize, Bytes)>()
    }

    /// Fills `slices` with the next bytes to write, in order; returns the number of slices filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let inner = &*self.0;
        let mut filled = 0;
        let mut copied_from = inner.copied_written;
        let mut offset = inner.offset;
        let mut push = |bytes: &'a [u8]| {
            if filled < slices.len() && !bytes.is_empty() {
                slices[filled] = IoSlice::new(bytes);
                filled += 1;
            }
            filled < slices.len()
        };
        for (place, bytes) in &inner.shared[inner.shared_written..] {
            if !push(&inner.copied[copied_from..*place]) || !push(&bytes[offset..]) {
                return filled;
            }
            copied_from = *place;
            offset = 0;
        }
        push(&inner.copied[copied_from..]);
        filled
    }

    /// Removes the first `written` bytes, which have been written.
    pub fn advance(&mut self, mut written: usize) {
        let inner = &mut *self.0;
        assert!(written <= inner.left, "a socket takes no more bytes than it was given");
        inner.left -= written;
        while written > 0 {
            let (place, piece) = match inner.shared.get(inner.shared_written) {
                Some((place, bytes)) => (*place, bytes.len() - inner.offset),
                None => (inner.copied.len(), 0),
            };
            let copied = written.min(place - inner.copied_written);
            inner.copied_written += copied;
            written -= copied;
            if written == 0 {
                return;
            }
            let shared = written.min(piece);
            written -= shared;
            inner.offset += shared;
            if shared == piece {
                // Dropped at once: a slow consumer must not hold a shared encoding longer than
                // necessary.
                inner.shared[inner.shared_written].1 = Bytes::new();
                inner.shared_written += 1;
                inner.offset = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(buffer: &mut SendBuffer, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !buffer.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = buffer.io_slices(&mut slices);
            let joined: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
            let taken = step.min(joined.len());
            out.extend_from_slice(&joined[..taken]);
            buffer.advance(taken);
        }
        out
    }

    proptest! {
        #[test]
        fn bytes_are_sent_in_order_however_much_the_socket_accepts(
            pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..9)), 0..12),
            step in 1usize..11,
        ) {
            let mut buffer = SendBuffer::default();
            let mut expected = Vec::new();
            for (shared, bytes) in pieces {
                expected.extend_from_slice(&bytes);
                if shared {
                    buffer.append_shared(Bytes::from(bytes));
                } else {
                    buffer.append(|out| out.extend_from_slice(&bytes));
                }
            }
            prop_assert_eq!(buffer.len(), expected.len());
            prop_assert_eq!(drain(&mut buffer, step), expected);
            buffer.clear();
            buffer.append(|out| out.extend_from_slice(b"again"));
            prop_assert_eq!(drain(&mut buffer, step), b"again");
        }

        #[test]
        fn prepended_bytes_are_sent_first_and_taken_bytes_are_removed(
            pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..9)), 0..40),
            step in 1usize..11,
        ) {
            let mut buffer = SendBuffer::default();
            let mut expected = b"head".to_vec();
            for (shared, bytes) in pieces {
                expected.extend_from_slice(&bytes);
                if shared {
                    buffer.append_shared(Bytes::from(bytes));
                } else {
                    buffer.append(|out| out.extend_from_slice(&bytes));
                }
            }
            buffer.prepend(b"head");
            let mut taken = Vec::new();
            while !buffer.is_empty() {
                let (before, left) = (taken.len(), buffer.len());
                buffer.take(step, &mut taken);
                prop_assert_eq!(taken.len() - before, step.min(left));
            }
            prop_assert_eq!(taken, expected);
        }
    }
}
