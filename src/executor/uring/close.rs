//! How sockets end: at once, with last words, or by going to another core.
//!
//! Closing a socket with unread input makes the kernel reset the connection, and the peer may never
//! see the CONNACK or DISCONNECT that says why. So the last bytes are written, our side is shut,
//! and input is discarded until the peer closes too, within bounds (RFC 1122, 4.2.2.13).

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::operation::Operation;
use super::send::Way;
use super::socket::Phase;
use super::{Executor, push};
use crate::engine::{CoreId, HandedOver};
use crate::executor::LINGERING_MAX;
use crate::send_buffer::SendBuffer;

/// How long the peer may take to read its last bytes.
const LINGER: Duration = Duration::from_secs(1);
/// Input discarded at most.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// `IORING_MSG_RING_CQE_SKIP` of io_uring_enter(2): nothing completes on the ring it goes to.
const NOT_THERE: u32 = 1;

/// A socket that the engine is done with.
pub struct Lingering {
    /// What is to be written after what is being written.
    rest: VecDeque<SendBuffer>,
    until: Instant,
    discarded: usize,
    is_shut: bool,
}

impl Executor {
    /// The network ended a connection.
    pub(super) fn end(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        self.core.engine.handle_closed(self.core.now, socket.id);
        self.begin_closing(file)
    }

    /// Closes a socket as soon as nothing is under way.
    pub(super) fn begin_closing(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        if socket.phase == Phase::Closing {
            return Ok(());
        }
        socket.phase = Phase::Closing;
        self.lingering.remove(&file);
        if socket.is_receiving || socket.is_sending {
            let all = types::CancelBuilder::fd(types::Fixed(file)).all();
            let entry = opcode::AsyncCancel2::new(all).build();
            self.push(entry.flags(Flags::SKIP_SUCCESS), Operation::Cancel(file))?;
        }
        self.try_close(file)
    }

    /// Closes a socket if nothing is under way.
    pub(super) fn try_close(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        if socket.is_receiving || socket.is_sending {
            return Ok(());
        }
        self.sockets.remove(file);
        self.close_file(file)
    }

    /// Closes a direct descriptor that nobody knows of any more.
    pub(super) fn close_file(&mut self, file: u32) -> io::Result<()> {
        let entry = opcode::Close::new(types::Fixed(file)).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS), Operation::Close(file))
    }

    /// The engine is done with a connection, but for its last words.
    pub(super) fn linger(&mut self, file: u32, last: Option<SendBuffer>) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        let is_silent = socket.pending.is_none() && last.is_none();
        if is_silent || self.lingering.len() >= LINGERING_MAX {
            return self.begin_closing(file);
        }
        socket.phase = Phase::Lingering;
        let until = Instant::now() + LINGER;
        let rest = last.into_iter().collect();
        let lingering = Lingering { rest, until, discarded: 0, is_shut: false };
        self.lingering.insert(file, lingering);
        self.linger_until.push_back((until, file));
        self.receive(file)?;
        self.go_on_lingering(file)
    }

    /// Writes what is left, then shuts our side.
    pub(super) fn go_on_lingering(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        let Some(lingering) = self.lingering.get_mut(&file) else { return Ok(()) };
        if socket.is_sending || lingering.is_shut {
            return Ok(());
        }
        if let Some(buffer) = lingering.rest.pop_front() {
            socket.pending = Some(buffer);
            return self.submit(file, Way::Now);
        }
        lingering.is_shut = true;
        socket.is_sending = true;
        let entry = opcode::Shutdown::new(types::Fixed(file), libc::SHUT_WR).build();
        self.push(entry, Operation::Shutdown(file))
    }

    /// Our side is shut; the peer's is waited for.
    pub(super) fn shut(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.is_sending = false;
        match socket.phase {
            Phase::Closing => self.try_close(file),
            _ => Ok(()),
        }
    }

    /// A peer that lingers said something more.
    pub(super) fn discard(&mut self, file: u32, bytes: usize) -> io::Result<()> {
        let Some(lingering) = self.lingering.get_mut(&file) else { return Ok(()) };
        lingering.discarded += bytes;
        if lingering.discarded > DISCARDED_BYTES_MAX {
            return self.begin_closing(file);
        }
        Ok(())
    }

    /// Closes those whose time is up.
    pub(super) fn expire_lingering(&mut self) -> io::Result<()> {
        while let Some(&(until, file)) = self.linger_until.front() {
            if until > Instant::now() {
                break;
            }
            self.linger_until.pop_front();
            if self.lingering.get(&file).is_some_and(|lingering| lingering.until == until) {
                self.begin_closing(file)?;
            }
        }
        Ok(())
    }

    /// Whether some still have bytes to write.
    pub(super) fn has_unwritten(&self) -> bool {
        self.lingering.values().any(|lingering| !lingering.is_shut)
    }

    /// A connection goes to its home core, as soon as nothing is received here any more.
    pub(super) fn leave(
        &mut self,
        file: u32,
        to: CoreId,
        handed_over: HandedOver,
    ) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        socket.phase = Phase::Leaving;
        let is_receiving = socket.is_receiving;
        self.leaving.insert(file, (to, handed_over));
        if is_receiving { self.stop_receiving(file) } else { self.move_over(file) }
    }

    /// Gives the socket to the other core's ring, which says under what descriptor it has it.
    pub(super) fn move_over(&mut self, file: u32) -> io::Result<()> {
        let Some((to, _)) = self.leaving.get(&file) else { return Ok(()) };
        let ring = self.front.rings[usize::from(to.0)].get();
        let ring = types::Fd(*ring.expect("all rings are there when cores run"));
        let any = types::DestinationSlot::auto_target();
        let entry = opcode::MsgRingSendFd::new(ring, types::Fixed(file), any, 0)
            .opcode_flags(NOT_THERE)
            .build();
        push(&mut self.ring, entry, Operation::HandOver(file))
    }

    /// The other core's ring has the socket, or no room for it.
    pub(super) fn handed_over(&mut self, file: u32, result: i32) -> io::Result<()> {
        let leaving = self.leaving.remove(&file);
        self.sockets.remove(file);
        self.close_file(file)?;
        match (u32::try_from(result), leaving) {
            (Ok(there), Some((to, handed_over))) => {
                self.core.mesh.move_socket(to, there, handed_over);
            }
            _ => {
                let error = io::Error::from_raw_os_error(-result);
                tracing::warn!(%error, "cannot hand a connection over; it is closed");
            }
        }
        Ok(())
    }
}
