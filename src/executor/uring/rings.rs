//! The rings of one core. One is enough until its table of direct descriptors fills up: no table is
//! larger than the process's descriptor limit, but every ring has its own. So another ring is opened
//! in time, and how many connections a core holds is bounded by memory.
//!
//! A *file* is a socket by its place in all tables, one after the other. The core waits on the first
//! ring; the others tell it, by an eventfd that it polls there, that something has completed.
//!
//! Where the kernel does not close what is taken out of a table, sockets are in none: then a file is a
//! descriptor of the process, and one ring is enough.
#![expect(unsafe_code, reason = "submission entries hold addresses that the kernel follows")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::{opcode, squeue, types};

use super::buffers::Buffers;
use super::operation::Operation;
use super::ring::{Completion, Ring, Shape};
use super::send::Headers;
use crate::base::limits::RINGS_MAX;
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::Uring;

/// The descriptors of a core's rings, for other cores; each there as soon as the ring is.
pub type Directory = [OnceLock<RawFd>; RINGS_MAX];

/// One ring, and what belongs to it.
pub struct Part {
    pub ring: Ring,
    pub buffers: Buffers,
    pub headers: Headers,
    /// Sockets are in its table.
    is_direct: bool,
    /// Descriptors of its table in use.
    held: u32,
    /// Rung when something completes; the first ring needs none, as it is waited on.
    bell: Option<OwnedFd>,
    has_rung: bool,
}

/// What the kernel is entered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A completion, for so long at most.
    For(Option<Duration>),
    /// All that has come.
    TakeAll,
}

/// What is queued is handed over, and nothing is waited for.
pub const NOT_AT_ALL: Wait = Wait::For(Some(Duration::ZERO));

/// All rings of a core.
pub struct Rings {
    parts: Vec<Part>,
    uring: Uring,
    /// Descriptors of each table.
    files: u32,
    /// Descriptors left free where accepting goes on in another ring, for those under way.
    spare: u32,
    /// Rings it may come to.
    most: usize,
    /// Whether the kernel was entered last to take all that had come.
    takes_all: bool,
}

impl Part {
    fn new(shape: Shape, uring: &Uring) -> io::Result<Self> {
        let ring = Ring::new(shape)?;
        let bytes = uring.buffer_bytes as usize;
        let buffers = Buffers::new(&ring, uring.buffers, bytes, uring.incremental)?;
        let headers = Headers::default();
        let is_direct = uring.direct_descriptors;
        Ok(Self { ring, buffers, headers, is_direct, held: 0, bell: None, has_rung: false })
    }

    /// An operation that was made for a direct descriptor, about the descriptor of that number. What flags
    /// it is to have follow.
    pub fn meant(&self, entry: squeue::Entry) -> squeue::Entry {
        if self.is_direct { entry } else { entry.clear_flags() }
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        match wait {
            Wait::For(wait) => self.ring.enter(wait)?,
            Wait::TakeAll => self.ring.enter_for_all()?,
        }
        self.headers.note_entered(self.ring.has_queued());
        Ok(())
    }
}

impl Rings {
    /// The first ring, with a table for so many sockets as far as the kernel allows; further ones
    /// follow when they are needed. `accepts` operations may accept at a time.
    pub fn new(uring: &Uring, sockets_max: u32, accepts: u32) -> io::Result<Self> {
        let files = match uring.direct_descriptors {
            true => crate::executor::table_max(sockets_max),
            false => u32::MAX,
        };
        let most = (sockets_max.div_ceil(files) as usize).min(RINGS_MAX);
        // What another core hands over comes without asking.
        let spare = (files / 16).max(2 * accepts).min(files / 2);
        let (parts, uring) = (Vec::new(), uring.clone());
        let mut rings = Self { parts, uring, files, spare, most, takes_all: false };
        rings.parts.push(Part::new(rings.shape(), &rings.uring)?);
        Ok(rings)
    }

    fn shape(&self) -> Shape {
        Shape::of(&self.uring, if self.is_direct() { self.files } else { 0 })
    }

    /// Whether sockets are in tables of the rings.
    pub fn is_direct(&self) -> bool {
        self.uring.direct_descriptors
    }

    /// Opens another ring if the newest one fills up; says so in `directory`.
    pub fn grow(&mut self, directory: &Directory) {
        let newest = &self.parts[self.parts.len() - 1];
        if newest.held < (self.files - self.spare) / 4 * 3 || self.parts.len() >= self.most {
            return;
        }
        match self.open(directory) {
            Ok(()) => tracing::debug!(rings = self.parts.len(), "opened another ring"),
            Err(error) => {
                // It would be asked for again with every connection.
                self.most = self.parts.len();
                rated!(warn, log_rate::now(), %error, "cannot open another ring; connections may be refused");
            }
        }
    }

    fn open(&mut self, directory: &Directory) -> io::Result<()> {
        let mut part = Part::new(self.shape(), &self.uring)?;
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let bell = rustix::event::eventfd(0, flags)?;
        part.ring.submitter().register_eventfd(bell.as_raw_fd())?;
        part.bell = Some(bell);
        let number = self.parts.len();
        directory[number].set(part.ring.descriptor()).expect("each is opened once");
        self.parts.push(part);
        self.listen(number as u32)
    }

    /// Lets the first ring hear the bell of another.
    pub fn listen(&mut self, number: u32) -> io::Result<()> {
        let Some(bell) = &self.parts[number as usize].bell else { return Ok(()) };
        // Its count is never read: each ring of the bell is a completion of its own.
        let entry = opcode::PollAdd::new(types::Fd(bell.as_raw_fd()), libc::POLLIN as u32);
        let operation = Operation::Rung(number);
        let entry = entry.multi(true).build().user_data(operation.user_data());
        // SAFETY: it points to no memory.
        unsafe { self.parts[0].ring.push(&entry) }
    }

    /// The first ring, which is there from the beginning.
    pub fn first(&mut self) -> &mut Ring {
        &mut self.parts[0].ring
    }

    /// All of them.
    pub fn each(&mut self) -> impl Iterator<Item = &mut Ring> {
        self.parts.iter_mut().map(|part| &mut part.ring)
    }

    /// The ring that has a socket, and by what descriptor.
    pub fn of(&mut self, file: u32) -> (&mut Part, types::Fixed) {
        let part = &mut self.parts[(file / self.files) as usize];
        (part, types::Fixed(file % self.files))
    }

    /// A descriptor in the table of ring `number` as a file.
    pub fn file(&self, number: usize, descriptor: u32) -> u32 {
        number as u32 * self.files + descriptor
    }

    /// Which ring is to accept: the first that surely has room.
    pub fn accepting(&mut self) -> (usize, &mut Ring) {
        let is_roomy = |part: &Part| part.held < self.files - self.spare;
        let number = self.parts.iter().position(is_roomy).unwrap_or(self.parts.len() - 1);
        (number, &mut self.parts[number].ring)
    }

    /// A socket came.
    pub fn note_held(&mut self, file: u32) {
        self.of(file).0.held += 1;
    }

    /// It is gone.
    pub fn note_closed(&mut self, file: u32) {
        self.of(file).0.held -= 1;
    }

    /// Queues an operation about a socket that points to no memory; see [`Part::meant`].
    pub fn push(
        &mut self,
        file: u32,
        entry: impl FnOnce(types::Fixed) -> squeue::Entry,
        flags: Flags,
        operation: Operation,
    ) -> io::Result<()> {
        let (part, descriptor) = self.of(file);
        let entry = part.meant(entry(descriptor)).flags(flags);
        let entry = entry.user_data(operation.user_data());
        // SAFETY: it points to no memory.
        unsafe { part.ring.push(&entry) }
    }

    /// Whether the kernel has not been handed everything yet.
    pub fn has_queued(&mut self) -> bool {
        self.parts.iter_mut().any(|part| part.ring.has_queued())
    }

    /// Hands what is queued to the kernel, and waits.
    pub fn enter(&mut self, mut wait: Wait) -> io::Result<()> {
        self.takes_all = wait == Wait::TakeAll;
        let (first, others) = self.parts.split_first_mut().expect("there is one");
        for part in others {
            if part.ring.has_queued() {
                part.enter(NOT_AT_ALL)?;
            }
            if part.ring.has_completed() && wait != Wait::TakeAll {
                wait = NOT_AT_ALL;
            }
        }
        first.enter(wait)
    }

    /// Takes all completions there are.
    pub fn take_completions(&mut self, into: &mut Vec<Completion>) -> io::Result<()> {
        self.parts[0].ring.take_completions(into)?;
        if self.parts.len() == 1 {
            return Ok(());
        }
        for completion in into.iter() {
            if let Operation::Rung(number) = Operation::of(completion.user_data) {
                self.parts[number as usize].has_rung = true;
            }
        }
        for part in &mut self.parts[1..] {
            if std::mem::take(&mut part.has_rung) {
                // What completed may be work that the kernel does when it is entered.
                part.enter(if self.takes_all { Wait::TakeAll } else { NOT_AT_ALL })?;
            }
            part.ring.take_completions(into)?;
        }
        Ok(())
    }

    /// Whether the kernel was entered last to take all that had come, and that was all.
    pub fn has_taken_all(&self) -> bool {
        self.takes_all && self.parts[0].ring.has_completed_all()
    }

    /// Ends all operations before their memory goes; whether they have ended. Otherwise the receive
    /// buffers are left to the kernel.
    pub fn cancel_all(&mut self) -> bool {
        // Each of them is asked, whatever another one says.
        let are_idle = self.parts.iter().map(|part| part.ring.cancel_all()).collect::<Vec<_>>();
        let is_idle = are_idle.into_iter().all(|is_idle| is_idle);
        if !is_idle {
            self.parts.iter_mut().for_each(|part| part.buffers.abandon());
        }
        is_idle
    }

    /// Lets the kernel have the receive buffers that were used.
    pub fn publish_buffers(&mut self) {
        self.parts.iter_mut().for_each(|part| part.buffers.publish());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Rings without direct descriptors, and without deferred work, as before Linux 6.1.
    fn rings() -> Option<Rings> {
        let uring = Uring {
            direct_descriptors: false,
            defer_taskrun: false,
            incremental: false,
            ..Uring::default()
        };
        // Where io_uring is forbidden there is nothing to test.
        Rings::new(&uring, 10, 1).ok()
    }

    #[test]
    fn nothing_is_received_into_buffers_any_more_once_all_was_cancelled() {
        let Some(mut rings) = rings() else { return };
        let (mut here, there) = UnixStream::pair().expect("descriptors");
        let file = there.as_raw_fd() as u32;
        rings.note_held(file);
        let receive =
            |descriptor| opcode::RecvMulti::new(descriptor, super::super::buffers::GROUP).build();
        rings
            .push(file, receive, Flags::BUFFER_SELECT, Operation::Receive(file))
            .expect("there is room");
        rings.enter(NOT_AT_ALL).expect("it takes it");
        assert!(rings.cancel_all());
        assert!(rings.cancel_all(), "nothing is left to cancel");
        here.write_all(b"late").expect("it is connected");
        rings.enter(NOT_AT_ALL).expect("it is there");
        let mut completions = Vec::new();
        rings.take_completions(&mut completions).expect("it says so");
        let of_receive: Vec<i32> = completions
            .iter()
            .filter(|of| Operation::of(of.user_data) == Operation::Receive(file))
            .map(|of| of.result)
            .collect();
        assert_eq!(of_receive, [-libc::ECANCELED]);
        let mut unread = [0; 4];
        std::io::Read::read_exact(&mut &there, &mut unread).expect("it is still in the socket");
    }
}
