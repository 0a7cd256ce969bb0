//! Ends sockets: by closing immediately, by lingering ([`crate::executor::linger`]), or by moving them to
//! another core.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::Executor;
use super::operation::Operation;
use super::send::Way;
use super::socket::Phase;
use crate::base::ids::CoreId;
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::send_buffer::SendBuffer;
use crate::engine::HandedOver;
use crate::executor::linger::{LINGERING_MAX, LingerTime};

/// `IORING_MSG_RING_CQE_SKIP` of io_uring_enter(2): no completion is posted on the target ring.
const SKIP_TARGET_CQE: u32 = 1;

/// Last bytes that a socket takes at once in most cases, so that the peer's progress is not asked for.
const SENT_AT_ONCE_BYTES: usize = 4 * 1024;

/// A socket that the engine has closed and that is still flushing or waiting for the peer to close.
pub struct Lingering {
    /// Buffers to send after the one being sent.
    rest: VecDeque<SendBuffer>,
    pub linger_time: LingerTime,
    is_shut: bool,
    /// A send was submitted again as the peer did not seem to read.
    has_sent_again: bool,
    /// The kernel has the connection's TLS, and close_notify has not been sent yet.
    has_kernel_tls: bool,
}

/// A socket on its way to another core.
pub struct Leaving {
    to: CoreId,
    /// The target core's ring that the socket is sent to.
    ring: usize,
    pub handed_over: Box<HandedOver>,
}

impl Executor {
    /// The newest ring of another core, which most likely has room.
    fn newest_ring(&self, core: CoreId) -> usize {
        let rings = &self.bootstrap.rings[usize::from(core.0)];
        rings.iter().take_while(|ring| ring.get().is_some()).count().saturating_sub(1)
    }

    /// Handles end of stream: the peer has shut down its sending side and may still read.
    pub(super) fn read_out(&mut self, file: u32) {
        let Some(socket) = self.sockets.get(file) else { return };
        socket.is_read_out = true;
        let (id, now) = (socket.id, self.core.now);
        if std::mem::take(&mut socket.is_offloading) {
            self.core.engine.handle_offload_refused(now, id);
        }
        self.core.engine.handle_ended(now, id);
    }

    /// Handles a failed send: nothing can be sent any more. Receiving continues, because input may still be
    /// in the socket buffer.
    pub(super) fn lose(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        if socket.is_read_out {
            return self.end(file);
        }
        socket.pending = None;
        let id = socket.id;
        self.core.engine.handle_deaf(self.core.now, id);
        Ok(())
    }

    /// Handles a connection that the network ended.
    pub(super) fn end(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        self.core.engine.handle_closed(self.core.now, socket.id);
        self.begin_closing(file)
    }

    /// Closes a socket as soon as no operation on it is pending.
    pub(super) fn begin_closing(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        if socket.phase == Phase::Closing {
            return Ok(());
        }
        socket.phase = Phase::Closing;
        let is_shutting = self.lingering.remove(&file).is_some_and(|lingering| lingering.is_shut);
        // A shutdown completes by itself, as do sends that do not wait.
        let may_wait = socket.is_sending && !socket.is_sent_unless_failed && !is_shutting;
        if socket.is_receiving {
            self.cancel(file, Operation::Receive)?;
        }
        if may_wait {
            self.cancel_sends(file)?;
        }
        self.try_close(file)
    }

    /// Cancels an operation of a socket. The kernel finds the operation by its number in constant time; by its
    /// descriptor, it would search the operations of all sockets, which stalls the core when thousands of
    /// clients disconnect together.
    pub(super) fn cancel(
        &mut self,
        file: u32,
        operation: impl Fn(u32) -> Operation,
    ) -> io::Result<()> {
        let number = operation(file).user_data();
        let cancel = |_| opcode::AsyncCancel::new(number).build();
        self.rings.push(file, cancel, Flags::SKIP_SUCCESS, Operation::Cancel(file))
    }

    /// Cancels the sends of a socket that may wait for room in its buffer.
    fn cancel_sends(&mut self, file: u32) -> io::Result<()> {
        self.cancel(file, Operation::Send)?;
        if self.zero_copy_bytes_min < usize::MAX {
            self.cancel(file, Operation::SendZeroCopy)?;
        }
        if self.kernel_tls.has(file) {
            self.cancel(file, Operation::CloseNotify)?;
        }
        Ok(())
    }

    /// Closes a socket if no operation on it is pending.
    pub(super) fn try_close(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        if socket.is_receiving || socket.is_sending {
            return Ok(());
        }
        self.sockets.remove(file);
        self.kernel_tls.remove(file);
        self.close_file(file)
    }

    /// Closes a socket that is no longer in any list.
    pub(super) fn close_file(&mut self, file: u32) -> io::Result<()> {
        self.rings.note_closed(file);
        let is_direct = self.rings.is_direct();
        let close = |descriptor: types::Fixed| match is_direct {
            true => opcode::Close::new(descriptor).build(),
            false => opcode::Close::new(types::Fd(file as RawFd)).build(),
        };
        self.rings.push(file, close, Flags::SKIP_SUCCESS, Operation::Close(file))
    }

    /// Handles a connection that the engine has closed: sends what remains, then waits for the peer to close.
    pub(super) fn linger(&mut self, file: u32, last: Option<SendBuffer>) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        let has_kernel_tls = self.kernel_tls.has(file);
        let is_silent = socket.pending.is_none() && last.is_none() && !has_kernel_tls;
        if is_silent || self.lingering.len() >= LINGERING_MAX {
            return self.begin_closing(file);
        }
        socket.phase = Phase::Lingering;
        let linger_time = LingerTime::new(Instant::now());
        self.deadlines.add(&linger_time, file);
        let unsent = [socket.pending.as_ref(), last.as_ref()].into_iter().flatten();
        let is_much = unsent.map(SendBuffer::len).sum::<usize>() > SENT_AT_ONCE_BYTES;
        let rest = last.into_iter().collect();
        let (is_shut, has_sent_again) = (false, false);
        let lingering = Lingering { rest, linger_time, is_shut, has_sent_again, has_kernel_tls };
        self.lingering.insert(file, lingering);
        // After a record that it cannot decrypt, kernel TLS no longer sends either: so send the last bytes
        // before receiving.
        if !has_kernel_tls {
            self.start_receiving(file)?;
        }
        self.continue_lingering(file)?;
        if is_much { self.request_progress(file) } else { Ok(()) }
    }

    /// Handles end of stream on a lingering socket, which closes once everything is written.
    pub(super) fn peer_has_ended(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.is_read_out = true;
        match self.lingering.get(&file).is_none_or(|lingering| lingering.is_shut) {
            true => self.begin_closing(file),
            false => Ok(()),
        }
    }

    /// Sends what remains, then shuts down the sending side.
    pub(super) fn continue_lingering(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        let Some(lingering) = self.lingering.get_mut(&file) else { return Ok(()) };
        if socket.is_sending || lingering.is_shut {
            return Ok(());
        }
        if let Some(buffer) = lingering.rest.pop_front() {
            socket.pending = Some(buffer);
            let way = if self.kernel_tls.has(file) { Way::Reported } else { Way::Now };
            return self.submit(file, way);
        }
        if std::mem::take(&mut lingering.has_kernel_tls) {
            return self.send_close_notify(file);
        }
        lingering.is_shut = true;
        socket.is_sending = true;
        let shut = |descriptor| opcode::Shutdown::new(descriptor, libc::SHUT_WR).build();
        self.rings.push(file, shut, Flags::empty(), Operation::Shutdown(file))
    }

    /// Handles a completed shutdown of the sending side; the socket now waits for the peer to close.
    pub(super) fn shut(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.is_sending = false;
        match socket.phase {
            Phase::Closing => self.try_close(file),
            _ if socket.is_read_out => self.begin_closing(file),
            _ => Ok(()),
        }
    }

    /// Discards input of a lingering socket, up to its limit.
    pub(super) fn discard(&mut self, file: u32, bytes: usize) -> io::Result<()> {
        let Some(lingering) = self.lingering.get_mut(&file) else { return Ok(()) };
        match lingering.linger_time.discard(bytes) {
            true => Ok(()),
            false => self.begin_closing(file),
        }
    }

    /// Closes lingering sockets whose deadline has passed, unless their peers make progress.
    pub(super) fn expire_lingering(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some((until, file)) = self.deadlines.take_passed(now) {
            let lingering = self.lingering.get(&file);
            let Some(lingering) = lingering.filter(|of| of.linger_time.until() == until) else {
                continue;
            };
            match lingering.is_shut {
                true => self.begin_closing(file)?,
                false => self.request_progress(file)?,
            }
        }
        Ok(())
    }

    /// Notes how many bytes the peer of a lingering socket has not acknowledged, and closes the socket if its time
    /// is up.
    pub(super) fn note_lingering_progress(
        &mut self,
        file: u32,
        unacknowledged: Option<usize>,
    ) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        let is_waiting = socket.is_sending && !socket.is_sent_unless_failed;
        let Some(lingering) = self.lingering.get_mut(&file) else { return Ok(()) };
        let (now, linger_time) = (Instant::now(), &mut lingering.linger_time);
        linger_time.note_unacknowledged(unacknowledged);
        if now < linger_time.until() {
            return Ok(());
        }
        // Without the number, a send that is submitted again says whether there is room by now.
        let sends_again = unacknowledged.is_none() && is_waiting;
        let has_time = linger_time.extend(now, !lingering.is_shut);
        if !(has_time || sends_again && !lingering.has_sent_again) {
            return self.begin_closing(file);
        }
        lingering.has_sent_again = !has_time;
        self.deadlines.add(linger_time, file);
        if sends_again { self.cancel(file, Operation::Send) } else { Ok(()) }
    }

    /// Whether any lingering socket still has bytes to send.
    pub(super) fn has_unwritten(&self) -> bool {
        self.lingering.values().any(|lingering| !lingering.is_shut)
    }

    /// Moves a connection to its home core, as soon as its receive operation has ended.
    pub(super) fn leave(
        &mut self,
        file: u32,
        to: CoreId,
        handed_over: Box<HandedOver>,
    ) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.phase = Phase::Leaving;
        let is_receiving = socket.is_receiving;
        let ring = self.newest_ring(to);
        self.leaving.insert(file, Leaving { to, ring, handed_over });
        if is_receiving { self.stop_receiving(file) } else { self.move_over(file) }
    }

    /// Sends the socket to the other core's ring; the completion carries its descriptor there.
    pub(super) fn move_over(&mut self, file: u32) -> io::Result<()> {
        if !self.rings.is_direct() {
            return self.move_of_process(file);
        }
        let Some(Leaving { to, ring, .. }) = self.leaving.get(&file) else { return Ok(()) };
        let ring = self.bootstrap.rings[usize::from(to.0)][*ring].get();
        let ring = types::Fd(*ring.expect("every core has its first ring before any core runs"));
        let any = types::DestinationSlot::auto_target();
        let send = |descriptor| {
            opcode::MsgRingSendFd::new(ring, descriptor, any, 0)
                .opcode_flags(SKIP_TARGET_CQE)
                .build()
        };
        self.rings.push(file, send, Flags::empty(), Operation::HandOver(file))
    }

    /// Moves a descriptor of the process, which has the same number on every core.
    fn move_of_process(&mut self, file: u32) -> io::Result<()> {
        let Some(Leaving { to, handed_over, .. }) = self.leaving.remove(&file) else {
            return Ok(());
        };
        self.sockets.remove(file);
        self.rings.note_closed(file);
        self.core.mesh.move_socket(to, file, handed_over);
        Ok(())
    }

    /// Handles the result of sending a socket to another core's ring, which may have had no room for it.
    pub(super) fn handed_over(&mut self, file: u32, result: i32) -> io::Result<()> {
        if let Some(leaving) = self.leaving.get_mut(&file)
            && result == -libc::ENFILE
            && leaving.ring > 0
        {
            leaving.ring -= 1;
            return self.move_over(file);
        }
        let leaving = self.leaving.remove(&file);
        self.sockets.remove(file);
        self.close_file(file)?;
        match (u32::try_from(result), leaving) {
            (Ok(there), Some(Leaving { to, ring, handed_over })) => {
                let there = self.rings.file(ring, there);
                self.core.mesh.move_socket(to, there, handed_over);
            }
            _ => {
                let error = io::Error::from_raw_os_error(-result);
                rated!(warn, log_rate::now(), %error, "cannot move a connection to its home core; closing it");
            }
        }
        Ok(())
    }
}
