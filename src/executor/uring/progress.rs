//! Progress of slow consumers: how many sent bytes their peers have not acknowledged. For direct descriptors, Linux has an
//! operation since 6.7, and only for TCP. For other sockets the ring installs a temporary file descriptor in the process
//! (Linux 6.8). Where neither exists, the progress is unknown.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::Flags;

use super::Executor;
use super::operation::Operation;
use super::socket::Phase;
use crate::executor::progress;

/// `SOCKET_URING_OP_SIOCOUTQ` of linux/io_uring.h.
const SIOCOUTQ: u32 = 1;

impl Executor {
    /// Queries how many bytes in the socket's send queue the peer has not acknowledged.
    pub(super) fn request_progress(&mut self, file: u32) -> io::Result<()> {
        if !self.rings.is_direct() {
            return self.report_progress(file, unacknowledged(file));
        }
        let ask = |descriptor| opcode::UringCmd16::new(descriptor, SIOCOUTQ).build();
        self.rings.push(file, ask, Flags::empty(), Operation::Progress(file))
    }

    /// Handles the kernel's answer. The operation completes at submission, so before the socket can be closed.
    pub(super) fn progressed(&mut self, file: u32, result: i32) -> io::Result<()> {
        match usize::try_from(result) {
            Ok(bytes) => self.report_progress(file, Some(bytes)),
            Err(_) => {
                let install = |descriptor| opcode::FixedFdInstall::new(descriptor, 0).build();
                let operation = Operation::ProgressDescriptor(file);
                self.rings.push(file, install, Flags::empty(), operation)
            }
        }
    }

    /// Asks through a temporary file descriptor, which was installed at submission too.
    pub(super) fn progress_descriptor_installed(
        &mut self,
        file: u32,
        installed: io::Result<OwnedFd>,
    ) -> io::Result<()> {
        let bytes = installed.ok().and_then(|installed| progress::unacknowledged(&installed));
        self.report_progress(file, bytes)
    }

    fn report_progress(&mut self, file: u32, unacknowledged: Option<usize>) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        match socket.phase {
            Phase::Open => {}
            Phase::Lingering => return self.note_lingering_progress(file, unacknowledged),
            _ => return Ok(()),
        }
        let (id, waits) = (socket.id, socket.is_sending && !socket.is_sent_unless_failed);
        let progresses = self.core.engine.handle_progress(self.core.now, id, unacknowledged);
        if !progresses || !waits {
            return Ok(());
        }
        // The socket buffer has room, but the kernel wakes a waiting send only when there is much: cancel the
        // send, so that it is submitted again.
        self.cancel(file, Operation::Send)
    }
}

/// Unacknowledged bytes of a socket that is a file descriptor of the process.
#[expect(unsafe_code, reason = "the socket is identified by its descriptor number")]
fn unacknowledged(file: u32) -> Option<usize> {
    // SAFETY: the executor closes the descriptor only when no operation on it is pending.
    progress::unacknowledged(&unsafe { BorrowedFd::borrow_raw(file as RawFd) })
}
