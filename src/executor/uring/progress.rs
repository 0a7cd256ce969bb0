//! How far the peers of slow consumers have come. A direct descriptor is asked by an operation that
//! Linux has since 6.7; before, nobody knows.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::Flags;

use super::Executor;
use super::operation::Operation;
use super::socket::Phase;
use crate::executor::progress;

/// `SOCKET_URING_OP_SIOCOUTQ` of linux/io_uring.h.
const SIOCOUTQ: u32 = 1;

impl Executor {
    /// Asks how many bytes the kernel has that the peer has not acknowledged.
    pub(super) fn request_progress(&mut self, file: u32) -> io::Result<()> {
        if !self.rings.is_direct() {
            return self.tell_progress(file, unacknowledged(file));
        }
        let ask = |descriptor| opcode::UringCmd16::new(descriptor, SIOCOUTQ).build();
        self.rings.push(file, ask, Flags::empty(), Operation::Progress(file))
    }

    /// The kernel says so, or cannot. It answers when it is asked, so before the socket can be closed.
    pub(super) fn progressed(&mut self, file: u32, result: i32) -> io::Result<()> {
        self.tell_progress(file, usize::try_from(result).ok())
    }

    fn tell_progress(&mut self, file: u32, unacknowledged: Option<usize>) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        if socket.phase != Phase::Open {
            return Ok(());
        }
        let (id, waits) = (socket.id, socket.is_sending && !socket.is_sent_unless_told);
        let progresses = self.core.engine.handle_progress(self.core.now, id, unacknowledged);
        if !progresses || !waits {
            return Ok(());
        }
        // There is room, of which the kernel tells a send that waits only once it is much: it is ended,
        // and so begun again.
        let cancel = |_| opcode::AsyncCancel::new(Operation::Send(file).user_data()).build();
        self.rings.push(file, cancel, Flags::SKIP_SUCCESS, Operation::Cancel(file))
    }
}

/// The same of a socket that is one of the process.
#[expect(unsafe_code, reason = "the socket is known by the number of its descriptor")]
fn unacknowledged(file: u32) -> Option<usize> {
    // SAFETY: the executor closes it no earlier than nothing is under way with it.
    progress::unacknowledged(&unsafe { BorrowedFd::borrow_raw(file as RawFd) })
}
