//! Sockets whose TLS goes on in the kernel. What that takes has no operation of its own, or none on
//! kernels that have the rest: so the ring lends the process the socket, as a descriptor of its own
//! for as long as it takes (`FixedFdInstall`, Linux 6.8).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::Flags;

use crate::executor::kernel_tls::kernel;
use crate::executor::uring::Executor;
use crate::executor::uring::operation::Operation;
use crate::executor::uring::socket::Phase;

/// Bytes read of a record that is no application data: more than any that is expected has.
const RECORD_BYTES: usize = 64;

impl Executor {
    /// Lets the kernel go on with a connection's TLS, as soon as nothing is received any more.
    pub(super) fn begin_offload(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.is_offloading = true;
        if socket.is_receiving { self.stop_receiving(file) } else { self.lend(file) }
    }

    /// Asks for a descriptor of a socket that nothing is received from.
    pub(super) fn lend(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        // In place of a receive: the socket stays until it has completed.
        socket.is_receiving = true;
        if !self.rings.is_direct() {
            return self.lent(file, another(file));
        }
        let lend = |descriptor| opcode::FixedFdInstall::new(descriptor, 0).build();
        self.rings.push(file, lend, Flags::empty(), Operation::Lend(file))
    }

    /// The descriptor is there, or could not be had.
    pub(super) fn lent(&mut self, file: u32, lent: io::Result<OwnedFd>) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return self.stray(file, "loan") };
        socket.is_receiving = false;
        let (id, was_offloading) = (socket.id, std::mem::take(&mut socket.is_offloading));
        match (socket.phase, lent) {
            (Phase::Closing, _) => return self.try_close(file),
            (Phase::Lingering, _) => {}
            (Phase::Leaving, _) => return self.move_over(file),
            (Phase::Open, Ok(lent)) if was_offloading => {
                if !self.seal(file, &lent) {
                    return self.end(file);
                }
            }
            (Phase::Open, Err(_)) if was_offloading => {
                self.core.engine.handle_offload_refused(self.core.now, id);
            }
            (Phase::Open, lent) => {
                let mut record = [0; RECORD_BYTES];
                let read = lent.and_then(|lent| kernel::read_record(&lent, &mut record));
                // What cannot be read any more is the end.
                let Ok((content_type, bytes)) = read else { return self.end(file) };
                let record = &record[..bytes];
                if !self.core.engine.handle_record(self.core.now, id, content_type, record) {
                    return Ok(());
                }
            }
        }
        self.start_receiving(file)
    }

    /// Gives the kernel the keys of a connection; whether it goes on, there or here.
    fn seal(&mut self, file: u32, lent: &OwnedFd) -> bool {
        let Some(socket) = self.sockets.get(file) else { return false };
        let (id, now) = (socket.id, self.core.now);
        if kernel::begin(lent).is_err() {
            self.core.engine.handle_offload_refused(now, id);
            return true;
        }
        let Some(keys) = self.core.engine.take_keys(now, id) else { return true };
        let outcome = kernel::give_keys(lent, &keys);
        self.core.engine.handle_offloaded(&outcome);
        if outcome.is_ok() {
            self.sealed.add(file);
        }
        outcome.is_ok()
    }

    /// Says that nothing follows.
    #[expect(unsafe_code, reason = "the kernel reads the message")]
    pub(super) fn say_farewell(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.is_sending = true;
        let (part, descriptor) = self.rings.of(file);
        let entry = opcode::SendMsg::new(descriptor, self.farewell.message()).build();
        let entry = part.meant(entry).user_data(Operation::Farewell(file).user_data());
        // SAFETY: what it points to is the executor's, and stays as it is until the rings are gone.
        unsafe { part.ring.push(&entry) }
    }

    /// It is said, or cannot be.
    pub(super) fn said_farewell(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return self.stray(file, "farewell") };
        socket.has_sent();
        if socket.phase == Phase::Closing {
            return self.try_close(file);
        }
        self.start_receiving(file)?;
        self.go_on_lingering(file)
    }
}

/// Another descriptor of a socket that is one of the process already.
#[expect(unsafe_code, reason = "the socket is known by the number of its descriptor")]
fn another(file: u32) -> io::Result<OwnedFd> {
    // SAFETY: the executor closes it no earlier than nothing is under way with it.
    unsafe { BorrowedFd::borrow_raw(file as RawFd) }.try_clone_to_owned()
}

/// The descriptor that was lent, which is closed when it is dropped.
#[expect(unsafe_code, reason = "the kernel says the number of a descriptor that is ours")]
pub(super) fn lent(result: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the operation has opened it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}
