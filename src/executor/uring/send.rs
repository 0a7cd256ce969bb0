//! Sends of a turn, and the memory they need until the kernel has it all.
#![expect(unsafe_code, reason = "the kernel reads buffers and message headers")]

use std::io::{self, IoSlice};

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::operation::Operation;
use super::rings::Part;
use crate::base::send_buffer::SendBuffer;

/// Pieces of a send buffer written by one operation.
const SLICES: usize = 64;

/// Headers that wait for the kernel at a time: it copies them when it is entered.
const HEADERS_MAX: usize = 256;

/// How a buffer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the kernel takes at once. It completes only if that is not all: whoever has heard
    /// nothing when the kernel has been entered knows that all is sent.
    Now,
    /// When the peer takes something.
    Waiting,
    /// What the kernel takes at once, then when the peer takes something: its TLS knows no
    /// `MSG_WAITALL`, so that it always has to say how much that was.
    Told,
    /// Without copying: the buffer is the kernel's until a second completion says otherwise.
    ZeroCopy,
}

/// What sendmsg(2) reads besides the bytes.
struct Header {
    message: libc::msghdr,
    slices: [libc::iovec; SLICES],
}

/// Headers of the sends that the kernel has not been told of yet.
#[derive(Default)]
pub struct Headers {
    #[expect(clippy::vec_box, reason = "they stay in place while the list grows")]
    headers: Vec<Box<Header>>,
    used: usize,
}

impl Headers {
    /// The kernel has been entered: it needs none of them any more, unless something `is_queued` still.
    pub fn note_entered(&mut self, is_queued: bool) {
        if !is_queued {
            self.used = 0;
        }
    }

    fn next(&mut self) -> &mut Header {
        if self.used == self.headers.len() {
            // SAFETY: both are plain numbers and pointers, for which zero is a value.
            self.headers.push(unsafe { Box::new(std::mem::zeroed()) });
        }
        self.used += 1;
        &mut self.headers[self.used - 1]
    }
}

/// Sends what is at the front of `buffer` to `file`, which is `target` in the table of its ring;
/// returns how many bytes are offered.
///
/// # Safety
///
/// `buffer` is left alone, though it may move, until the operation has completed.
pub unsafe fn submit(
    (part, target): (&mut Part, types::Fixed),
    file: u32,
    buffer: &SendBuffer,
    way: Way,
) -> io::Result<usize> {
    let Part { ring, headers, .. } = &mut *part;
    if headers.used >= HEADERS_MAX {
        ring.enter(Some(std::time::Duration::ZERO))?;
        // One that has no room for completions takes nothing: then there are more headers, until it does.
        headers.note_entered(ring.has_queued());
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = buffer.io_slices(&mut slices);
    let slices = &slices[..count];
    let flags = match way {
        // All or "not now": MSG_WAITALL makes anything less a failure, which completes.
        Way::Now => libc::MSG_DONTWAIT | libc::MSG_WAITALL,
        Way::Waiting | Way::Told | Way::ZeroCopy => 0,
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
    let entry = part.meant(entry);
    let entry = match way {
        Way::Now => {
            entry.flags(Flags::SKIP_SUCCESS).user_data(Operation::SendNow(file).user_data())
        }
        Way::Waiting | Way::Told => entry.user_data(Operation::Send(file).user_data()),
        Way::ZeroCopy => entry.user_data(Operation::SendZeroCopy(file).user_data()),
    };
    // SAFETY: the bytes stay by the caller's promise; the header stays until
    // `note_entered` hears that the kernel has been handed everything.
    unsafe { part.ring.push(&entry) }?;
    Ok(slices.iter().map(|slice| slice.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_used_again_only_when_the_kernel_has_been_handed_everything() {
        let mut headers = Headers::default();
        let first = &raw const *headers.next();
        headers.note_entered(true);
        assert_ne!(&raw const *headers.next(), first, "the kernel has not read it yet");
        headers.note_entered(false);
        assert_eq!(&raw const *headers.next(), first);
    }
}
