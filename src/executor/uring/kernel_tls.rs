//! Kernel TLS on io_uring. setsockopt(2) cannot reach direct descriptors, and io_uring has no operation for
//! it on all supported kernels. The ring therefore installs a temporary file descriptor in the process for
//! the few system calls (`FixedFdInstall`, Linux 6.8).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::Flags;

use crate::executor::kernel_tls::kernel;
use crate::executor::uring::Executor;
use crate::executor::uring::operation::Operation;
use crate::executor::uring::socket::Phase;

/// Buffer size for a record other than application data: larger than any expected record.
const RECORD_BYTES: usize = 64;

impl Executor {
    /// Moves a connection's TLS to the kernel, as soon as its receive operation has ended.
    pub(super) fn begin_offload(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.is_offloading = true;
        if socket.is_receiving { self.stop_receiving(file) } else { self.install_descriptor(file) }
    }

    /// Requests a temporary file descriptor for a socket that has no receive operation pending.
    pub(super) fn install_descriptor(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        // Counts as a receive, so that the socket is not closed before the operation has completed.
        socket.is_receiving = true;
        if !self.rings.is_direct() {
            return self.descriptor_installed(file, duplicate(file));
        }
        let install = |descriptor| opcode::FixedFdInstall::new(descriptor, 0).build();
        self.rings.push(file, install, Flags::empty(), Operation::InstallDescriptor(file))
    }

    /// Continues with the temporary file descriptor, or handles the error if it could not be installed.
    pub(super) fn descriptor_installed(
        &mut self,
        file: u32,
        installed: io::Result<OwnedFd>,
    ) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else {
            return self.handle_unexpected(file, "descriptor install");
        };
        socket.is_receiving = false;
        let (id, was_offloading) = (socket.id, std::mem::take(&mut socket.is_offloading));
        match (socket.phase, installed) {
            (Phase::Closing, _) => return self.try_close(file),
            (Phase::Lingering, _) => {}
            (Phase::Leaving, _) => return self.move_over(file),
            (Phase::Open, Ok(installed)) if was_offloading => {
                if !self.seal(file, &installed) {
                    return self.end(file);
                }
            }
            (Phase::Open, Err(_)) if was_offloading => {
                self.core.engine.handle_offload_refused(self.core.now, id);
            }
            (Phase::Open, installed) => {
                let mut record = [0; RECORD_BYTES];
                let read =
                    installed.and_then(|installed| kernel::read_record(&installed, &mut record));
                // An unreadable record ends the connection.
                let Ok((content_type, bytes)) = read else { return self.end(file) };
                let record = &record[..bytes];
                if !self.core.engine.handle_record(self.core.now, id, content_type, record) {
                    return Ok(());
                }
            }
        }
        self.start_receiving(file)
    }

    /// Installs a connection's keys in the kernel; returns whether the connection can continue, with TLS in
    /// the kernel or in this process.
    fn seal(&mut self, file: u32, installed: &OwnedFd) -> bool {
        let Some(socket) = self.sockets.get(file) else { return false };
        let (id, now) = (socket.id, self.core.now);
        if kernel::begin(installed).is_err() {
            self.core.engine.handle_offload_refused(now, id);
            return true;
        }
        let Some(keys) = self.core.engine.take_keys(now, id) else { return true };
        let outcome = kernel::give_keys(installed, &keys);
        self.core.engine.handle_offloaded(&outcome);
        if outcome.is_ok() {
            self.kernel_tls.add(file);
        }
        outcome.is_ok()
    }

    /// Sends the TLS close_notify alert.
    #[expect(unsafe_code, reason = "the kernel reads the message")]
    pub(super) fn send_close_notify(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.is_sending = true;
        let (part, descriptor) = self.rings.of(file);
        let entry = opcode::SendMsg::new(descriptor, self.close_notify.message()).build();
        let entry = part.for_target(entry).user_data(Operation::CloseNotify(file).user_data());
        // SAFETY: the message belongs to the executor and stays valid and unchanged until the rings are
        // dropped.
        unsafe { part.ring.push(&entry) }
    }

    /// Handles the completion of the close_notify alert, sent or failed.
    pub(super) fn close_notify_sent(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else {
            return self.handle_unexpected(file, "close_notify");
        };
        socket.has_sent();
        if socket.phase == Phase::Closing {
            return self.try_close(file);
        }
        self.start_receiving(file)?;
        self.continue_lingering(file)
    }
}

/// Duplicates the descriptor of a socket that is a file descriptor of the process.
#[expect(unsafe_code, reason = "the socket is identified by its descriptor number")]
fn duplicate(file: u32) -> io::Result<OwnedFd> {
    // SAFETY: the executor closes the descriptor only when no operation on it is pending.
    unsafe { BorrowedFd::borrow_raw(file as RawFd) }.try_clone_to_owned()
}

/// The result of a `FixedFdInstall`: a file descriptor that is closed on drop.
#[expect(unsafe_code, reason = "the kernel returns the number of a descriptor that is now ours")]
pub(super) fn installed(result: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the operation opened this descriptor, and no one else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}
