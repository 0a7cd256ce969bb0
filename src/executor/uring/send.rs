//! Submits sends, and keeps their message headers valid until the kernel has read them.
#![expect(unsafe_code, reason = "the kernel reads buffers and message headers")]

use std::io::{self, IoSlice};

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::operation::Operation;
use super::rings::Part;
use crate::base::send_buffer::SendBuffer;

/// The most slices of a send buffer written by one operation.
const SLICES: usize = 64;

/// The most headers in use before the kernel is entered, which copies them.
const HEADERS_MAX: usize = 256;

/// How a buffer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Non-blocking, all or nothing. Completes only on failure: without a completion by the time the kernel
    /// has been entered, everything is sent.
    Now,
    /// Waits until the socket buffer has room.
    Waiting,
    /// For kernel TLS, which does not support `MSG_WAITALL`: sends what fits or waits for room, and always
    /// completes with the number of bytes.
    Reported,
    /// Zero-copy: the kernel uses the buffer until the second completion.
    ZeroCopy,
}

/// The arguments of sendmsg(2) besides the data.
struct Header {
    message: libc::msghdr,
    slices: [libc::iovec; SLICES],
}

/// Headers of sends that the kernel has not taken yet.
#[derive(Default)]
pub struct Headers {
    #[expect(clippy::vec_box, reason = "headers must not move while the list grows")]
    headers: Vec<Box<Header>>,
    used: usize,
}

impl Headers {
    /// Frees all headers after the kernel has been entered, unless something `is_queued` still.
    pub fn note_entered(&mut self, is_queued: bool) {
        if !is_queued {
            self.used = 0;
        }
    }

    fn next(&mut self) -> &mut Header {
        if self.used == self.headers.len() {
            // SAFETY: both consist of plain numbers and pointers, for which zero is valid.
            self.headers.push(unsafe { Box::new(std::mem::zeroed()) });
        }
        self.used += 1;
        &mut self.headers[self.used - 1]
    }
}

/// Submits a send of the front of `buffer` to `file`, which is `target` in the table of its ring; returns
/// the number of bytes submitted.
///
/// # Safety
///
/// The contents of `buffer` must not change until the operation has completed; `buffer` itself may move.
pub unsafe fn submit(
    (part, target): (&mut Part, types::Fixed),
    file: u32,
    buffer: &SendBuffer,
    way: Way,
) -> io::Result<usize> {
    let Part { ring, headers, .. } = &mut *part;
    if headers.used >= HEADERS_MAX {
        ring.enter(Some(std::time::Duration::ZERO))?;
        // With a full completion queue the kernel takes nothing: the headers then exceed the limit for a while.
        headers.note_entered(ring.has_queued());
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = buffer.io_slices(&mut slices);
    let slices = &slices[..count];
    let flags = match way {
        // MSG_WAITALL makes a partial send a failure, which posts a completion.
        Way::Now => libc::MSG_DONTWAIT | libc::MSG_WAITALL,
        Way::Waiting | Way::Reported | Way::ZeroCopy => 0,
    };
    let entry = match (slices, way) {
        ([one], Way::ZeroCopy) => {
            opcode::SendZc::new(target, one.as_ptr(), one.len() as u32).flags(flags).build()
        }
        ([one], _) => {
            opcode::Send::new(target, one.as_ptr(), one.len() as u32).flags(flags).build()
        }
        (several, _) => {
            let header = headers.next();
            for (to, from) in header.slices.iter_mut().zip(several) {
                *to =
                    libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
            }
            header.message.msg_iov = header.slices.as_mut_ptr();
            header.message.msg_iovlen = several.len() as _;
            let message: *const libc::msghdr = &raw const header.message;
            match way {
                Way::ZeroCopy => {
                    opcode::SendMsgZc::new(target, message).flags(flags as u32).build()
                }
                _ => opcode::SendMsg::new(target, message).flags(flags as u32).build(),
            }
        }
    };
    let entry = part.for_target(entry);
    let entry = match way {
        Way::Now => {
            entry.flags(Flags::SKIP_SUCCESS).user_data(Operation::SendNow(file).user_data())
        }
        Way::Waiting | Way::Reported => entry.user_data(Operation::Send(file).user_data()),
        Way::ZeroCopy => entry.user_data(Operation::SendZeroCopy(file).user_data()),
    };
    // SAFETY: the caller guarantees the data; the header stays valid until `note_entered` is called with
    // an empty queue.
    unsafe { part.ring.push(&entry) }?;
    Ok(slices.iter().map(|slice| slice.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_reused_only_after_the_kernel_has_taken_everything() {
        let mut headers = Headers::default();
        let first = &raw const *headers.next();
        headers.note_entered(true);
        assert_ne!(&raw const *headers.next(), first, "the kernel has not read it yet");
        headers.note_entered(false);
        assert_eq!(&raw const *headers.next(), first);
    }
}
