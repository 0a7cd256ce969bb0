//! The rings of one core. A table of direct descriptors cannot be larger than the process's descriptor limit,
//! but every ring has its own table. So another ring is opened before the table fills up, and only memory
//! limits the number of connections of a core.
//!
//! A *file* is the index of a socket in the concatenation of all tables. The core waits on the first ring;
//! each other ring signals its completions through an eventfd that the first ring polls.
//!
//! On kernels that do not promptly close sockets removed from a table, direct descriptors are not used: a
//! file is then a descriptor of the process, and one ring is enough.
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

/// The descriptors of a core's rings, for use by other cores; each is set when its ring is opened.
pub type Directory = [OnceLock<RawFd>; RINGS_MAX];

/// One ring with its receive buffers and message headers.
pub struct Part {
    pub ring: Ring,
    pub buffers: Buffers,
    pub headers: Headers,
    /// Whether sockets are direct descriptors in the ring's table.
    is_direct: bool,
    /// Number of descriptors in use in the ring's table.
    held: u32,
    /// The eventfd signalled on each completion; `None` for the first ring, which is waited on directly.
    notifier: Option<OwnedFd>,
    has_completed: bool,
}

/// Whether an entry into the kernel waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait for a completion, for at most this long.
    For(Option<Duration>),
    /// Wait for this long, or until there are many completions.
    Gather(Duration),
    /// Collect everything that is pending, without waiting.
    TakeAll,
}

/// Completions that end [`Wait::Gather`].
const GATHERED: u32 = 256;

/// Submits the queue without waiting.
pub const NO_WAIT: Wait = Wait::For(Some(Duration::ZERO));

/// All rings of a core.
pub struct Rings {
    parts: Vec<Part>,
    uring: Uring,
    /// Size of each table of direct descriptors.
    files: u32,
    /// Descriptors left free in each table when accepting moves to the next ring, for sockets in flight.
    spare: u32,
    /// Maximum number of rings.
    most: usize,
    /// Whether the last entry was with [`Wait::TakeAll`].
    takes_all: bool,
}

impl Part {
    fn new(shape: Shape, uring: &Uring) -> io::Result<Self> {
        let ring = Ring::new(shape)?;
        let bytes = uring.buffer_bytes as usize;
        let buffers = Buffers::new(&ring, uring.buffers, bytes, uring.incremental)?;
        let headers = Headers::default();
        let is_direct = uring.direct_descriptors;
        Ok(Self {
            ring,
            buffers,
            headers,
            is_direct,
            held: 0,
            notifier: None,
            has_completed: false,
        })
    }

    /// Adapts an entry built for a direct descriptor: without direct descriptors it clears the fixed-file
    /// flag. Callers must set further flags afterwards.
    pub fn for_target(&self, entry: squeue::Entry) -> squeue::Entry {
        if self.is_direct { entry } else { entry.clear_flags() }
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        match wait {
            Wait::For(wait) => self.ring.enter(wait)?,
            Wait::Gather(wait) => {
                // So that receives find a buffer.
                let room = self.buffers.receives_max().map_or(GATHERED, |most| most / 2);
                self.ring.enter_for(room.clamp(1, GATHERED), Some(wait))?;
            }
            Wait::TakeAll => self.ring.enter_for_all()?,
        }
        self.headers.note_entered(self.ring.has_queued());
        Ok(())
    }
}

impl Rings {
    /// Opens the first ring, with a table for `sockets_max` sockets or as many as the kernel allows; further
    /// rings are opened on demand. Up to `accepts` accept operations are pending at a time.
    pub fn new(uring: &Uring, sockets_max: u32, accepts: u32) -> io::Result<Self> {
        let files = match uring.direct_descriptors {
            true => crate::executor::table_max(sockets_max),
            false => u32::MAX,
        };
        let most = (sockets_max.div_ceil(files) as usize).min(RINGS_MAX);
        // Sockets moved from other cores arrive without reservation.
        let spare = (files / 16).max(2 * accepts).min(files / 2);
        let (parts, uring) = (Vec::new(), uring.clone());
        let mut rings = Self { parts, uring, files, spare, most, takes_all: false };
        rings.parts.push(Part::new(rings.shape(), &rings.uring)?);
        Ok(rings)
    }

    fn shape(&self) -> Shape {
        Shape::of(&self.uring, if self.is_direct() { self.files } else { 0 })
    }

    /// Whether sockets are direct descriptors.
    pub fn is_direct(&self) -> bool {
        self.uring.direct_descriptors
    }

    /// Opens another ring if the newest one fills up, and records it in `directory`.
    pub fn grow(&mut self, directory: &Directory) {
        let newest = &self.parts[self.parts.len() - 1];
        if newest.held < (self.files - self.spare) / 4 * 3 || self.parts.len() >= self.most {
            return;
        }
        match self.open(directory) {
            Ok(()) => tracing::debug!(rings = self.parts.len(), "opened another ring"),
            Err(error) => {
                // Do not retry with every connection.
                self.most = self.parts.len();
                rated!(warn, log_rate::now(), %error, "cannot open another ring; connections may be refused");
            }
        }
    }

    fn open(&mut self, directory: &Directory) -> io::Result<()> {
        let mut part = Part::new(self.shape(), &self.uring)?;
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let notifier = rustix::event::eventfd(0, flags)?;
        part.ring.submitter().register_eventfd(notifier.as_raw_fd())?;
        part.notifier = Some(notifier);
        let number = self.parts.len();
        directory[number].set(part.ring.descriptor()).expect("each ring is opened once");
        self.parts.push(part);
        self.listen(number as u32)
    }

    /// Polls the eventfd of another ring on the first one.
    pub fn listen(&mut self, number: u32) -> io::Result<()> {
        let Some(notifier) = &self.parts[number as usize].notifier else { return Ok(()) };
        // The counter is never read: each signal is a completion of its own.
        let entry = opcode::PollAdd::new(types::Fd(notifier.as_raw_fd()), libc::POLLIN as u32);
        let operation = Operation::RingCompleted(number);
        let entry = entry.multi(true).build().user_data(operation.user_data());
        // SAFETY: the entry points to no memory.
        unsafe { self.parts[0].ring.push(&entry) }
    }

    /// The first ring, which always exists.
    pub fn first(&mut self) -> &mut Ring {
        &mut self.parts[0].ring
    }

    /// All rings.
    pub fn each(&mut self) -> impl Iterator<Item = &mut Ring> {
        self.parts.iter_mut().map(|part| &mut part.ring)
    }

    /// The ring of a socket, and its descriptor there.
    pub fn of(&mut self, file: u32) -> (&mut Part, types::Fixed) {
        let part = &mut self.parts[(file / self.files) as usize];
        (part, types::Fixed(file % self.files))
    }

    /// Converts a descriptor in the table of ring `number` to a file.
    pub fn file(&self, number: usize, descriptor: u32) -> u32 {
        number as u32 * self.files + descriptor
    }

    /// The ring to accept on: the first with enough room, else the newest.
    pub fn accepting(&mut self) -> (usize, &mut Ring) {
        let is_roomy = |part: &Part| part.held < self.files - self.spare;
        let number = self.parts.iter().position(is_roomy).unwrap_or(self.parts.len() - 1);
        (number, &mut self.parts[number].ring)
    }

    /// Counts a socket that was added to its table.
    pub fn note_held(&mut self, file: u32) {
        self.of(file).0.held += 1;
    }

    /// Counts a socket that is being removed from its table.
    pub fn note_closed(&mut self, file: u32) {
        self.of(file).0.held -= 1;
    }

    /// Queues an operation on a socket whose entry points to no memory; see [`Part::for_target`].
    pub fn push(
        &mut self,
        file: u32,
        entry: impl FnOnce(types::Fixed) -> squeue::Entry,
        flags: Flags,
        operation: Operation,
    ) -> io::Result<()> {
        let (part, descriptor) = self.of(file);
        let entry = part.for_target(entry(descriptor)).flags(flags);
        let entry = entry.user_data(operation.user_data());
        // SAFETY: the entry points to no memory.
        unsafe { part.ring.push(&entry) }
    }

    /// Whether any submission queue still has entries that the kernel has not taken.
    pub fn has_queued(&mut self) -> bool {
        self.parts.iter_mut().any(|part| part.ring.has_queued())
    }

    /// Submits the queues of all rings, and waits on the first ring.
    pub fn enter(&mut self, mut wait: Wait) -> io::Result<()> {
        self.takes_all = wait == Wait::TakeAll;
        let (first, others) = self.parts.split_first_mut().expect("there is one");
        for part in others {
            if part.ring.has_queued() {
                part.enter(NO_WAIT)?;
            }
            if part.ring.has_completed() && wait != Wait::TakeAll {
                wait = NO_WAIT;
            }
        }
        first.enter(wait)
    }

    /// Takes all available completions of all rings.
    pub fn take_completions(&mut self, into: &mut Vec<Completion>) -> io::Result<()> {
        self.parts[0].ring.take_completions(into)?;
        if self.parts.len() == 1 {
            return Ok(());
        }
        for completion in into.iter() {
            if let Operation::RingCompleted(number) = Operation::of(completion.user_data) {
                self.parts[number as usize].has_completed = true;
            }
        }
        for part in &mut self.parts[1..] {
            if std::mem::take(&mut part.has_completed) {
                // The signal may stand for deferred task work, which runs only on entry.
                part.enter(if self.takes_all { Wait::TakeAll } else { NO_WAIT })?;
            }
            part.ring.take_completions(into)?;
        }
        Ok(())
    }

    /// Whether the last entry was with [`Wait::TakeAll`] and left no work pending.
    pub fn has_taken_all(&self) -> bool {
        self.takes_all && self.parts[0].ring.has_completed_all()
    }

    /// Cancels all operations before their memory is freed; returns whether they have ended. If not, the
    /// receive buffers are leaked.
    pub fn cancel_all(&mut self) -> bool {
        // Cancel on every ring, even if it fails on one.
        let are_idle = self.parts.iter().map(|part| part.ring.cancel_all()).collect::<Vec<_>>();
        let is_idle = are_idle.into_iter().all(|is_idle| is_idle);
        if !is_idle {
            self.parts.iter_mut().for_each(|part| part.buffers.abandon());
        }
        is_idle
    }

    /// Makes the released receive buffers visible to the kernel.
    pub fn publish_buffers(&mut self) {
        self.parts.iter_mut().for_each(|part| part.buffers.publish());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Rings without direct descriptors and deferred task work, as before Linux 6.1.
    fn rings() -> Option<Rings> {
        let uring = Uring {
            direct_descriptors: false,
            defer_taskrun: false,
            incremental: false,
            ..Uring::default()
        };
        // Nothing to test where io_uring is forbidden.
        Rings::new(&uring, 10, 1).ok()
    }

    #[test]
    fn no_buffer_receives_data_after_all_operations_were_cancelled() {
        let Some(mut rings) = rings() else { return };
        let (mut here, there) = UnixStream::pair().expect("descriptors");
        let file = there.as_raw_fd() as u32;
        rings.note_held(file);
        let receive =
            |descriptor| opcode::RecvMulti::new(descriptor, super::super::buffers::GROUP).build();
        rings
            .push(file, receive, Flags::BUFFER_SELECT, Operation::Receive(file))
            .expect("there is room");
        rings.enter(NO_WAIT).expect("submitted");
        assert!(rings.cancel_all());
        assert!(rings.cancel_all(), "nothing is left to cancel");
        here.write_all(b"late").expect("it is connected");
        rings.enter(NO_WAIT).expect("entered");
        let mut completions = Vec::new();
        rings.take_completions(&mut completions).expect("taken");
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
