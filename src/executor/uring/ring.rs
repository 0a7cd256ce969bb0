//! One io_uring instance: set up with the best flags that the kernel supports, entered once per turn.
//! Independent of connections.
#![expect(unsafe_code, reason = "submission entries hold addresses that the kernel follows")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

/// Flags of io_uring_enter(2) that the crate does not name.
const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;

/// The most completions collected in a turn when all pending ones are wanted.
const ALL: usize = 1_024;

/// The last of the sets of setup flags, which are tried from the newest kernel's to the oldest's.
const LAST_FLAG_SET: u32 = 2;

/// The longest time that cancelling all operations may take.
const CANCEL_WITHIN: Duration = Duration::from_secs(1);

/// Parameters of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Size of the submission queue.
    pub entries: u32,
    /// Size of the completion queue; further completions overflow into kernel memory.
    pub completions: u32,
    /// Size of the table of direct descriptors.
    pub files: u32,
    /// Whether to defer task work until this thread enters the kernel (`IORING_SETUP_DEFER_TASKRUN`).
    pub defer_taskrun: bool,
}

/// One io_uring, used by a single thread.
pub struct Ring {
    ring: IoUring,
    defers_taskrun: bool,
    /// Completions taken early, to make room for further ones.
    taken_early: Vec<Completion>,
    /// Whether the last entry was [`Ring::enter_for_all`] and left no work pending.
    completed_all: bool,
    /// Entries into the kernel and completion queue overflows since the last `take_*`.
    entered: u64,
    overflowed: u64,
}

/// The result of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Identifies the operation: see `operation.rs`.
    pub user_data: u64,
    /// A number of bytes, a descriptor, or a negated errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Ring {
    /// Sets a ring up for the calling thread, with the flags of the newest kernel that takes them:
    /// io_uring_setup(2).
    pub fn new(shape: Shape) -> io::Result<Self> {
        let mut flag_set = if shape.defer_taskrun { 0 } else { LAST_FLAG_SET };
        let ring = loop {
            match Self::build(shape, flag_set) {
                // This kernel does not know one of the flags.
                Err(error)
                    if error.raw_os_error() == Some(libc::EINVAL) && flag_set < LAST_FLAG_SET =>
                {
                    flag_set += 1;
                }
                outcome => break outcome?,
            }
        };
        if shape.files > 0 {
            ring.submitter().register_files_sparse(shape.files)?;
        }
        // Saves the kernel a descriptor lookup at each entry, where supported (5.18).
        let _ = ring.submitter().register_ring_fd();
        Ok(Self {
            ring,
            defers_taskrun: flag_set < LAST_FLAG_SET,
            taken_early: Vec::new(),
            completed_all: false,
            entered: 0,
            overflowed: 0,
        })
    }

    /// Builds the ring with one set of flags: 0 needs Linux 6.6, 1 needs 6.1, 2 needs 6.0.
    fn build(shape: Shape, flag_set: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(shape.completions).setup_submit_all().setup_single_issuer();
        match flag_set {
            0 => builder.setup_defer_taskrun().setup_no_sqarray(),
            1 => builder.setup_defer_taskrun(),
            _ => builder.setup_coop_taskrun(),
        };
        builder.build(shape.entries)
    }

    /// Whether task work is deferred until this thread enters the kernel.
    pub fn defers_taskrun(&self) -> bool {
        self.defers_taskrun
    }

    /// The ring's descriptor, by which other rings send messages to it.
    pub fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// The submitter, used to register resources with the kernel.
    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues an operation; if the submission queue is full, submits it first.
    ///
    /// # Safety
    ///
    /// All memory that the entry points to must stay valid until the operation has completed or, for data
    /// that the kernel copies at submission, until the next call of [`Self::enter`] or of this function.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: guaranteed by the caller.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(Some(Duration::ZERO))?;
            // The kernel accepts no submissions while the completion queue is full.
            self.take_from_queue();
        }
        Ok(())
    }

    fn take_from_queue(&mut self) {
        self.taken_early.extend(self.ring.completion().map(|entry: cqueue::Entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Whether the submission queue still has entries that the kernel has not taken.
    pub fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether there are completions that have not been taken yet.
    pub fn has_completed(&mut self) -> bool {
        !self.taken_early.is_empty() || !self.ring.completion().is_empty()
    }

    /// Submits the queue and enters the kernel until all deferred task work has run. Since Linux 6.13 one
    /// entry runs only about twenty items, so later ones could otherwise wait for several turns.
    pub fn enter_for_all(&mut self) -> io::Result<()> {
        loop {
            let before = self.ring.completion().len();
            let is_whole = self.enter_once_or_more(1, Some(Duration::ZERO))?;
            let completed = self.ring.completion().len();
            if completed == before || completed >= ALL {
                self.completed_all = is_whole && completed < ALL;
                return Ok(());
            }
        }
    }

    /// Whether the last entry was [`Self::enter_for_all`] and left no work pending.
    pub fn has_completed_all(&self) -> bool {
        self.completed_all
    }

    /// Submits the queue and waits for a completion, for at most `wait`; `None` waits without limit.
    pub fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.enter_for(1, wait)
    }

    /// Submits the queue and waits for so many completions, for at most `wait`; `None` waits without limit.
    pub fn enter_for(&mut self, completions: u32, wait: Option<Duration>) -> io::Result<()> {
        self.completed_all = false;
        self.enter_once_or_more(completions, wait).map(drop)
    }

    /// Like [`Self::enter`]; returns whether the kernel was neither interrupted nor out of completion space.
    fn enter_once_or_more(&mut self, completions: u32, wait: Option<Duration>) -> io::Result<bool> {
        let mut is_whole = true;
        loop {
            self.entered += 1;
            let queued = self.ring.submission().len();
            let taken = match self.enter_once(queued as u32, completions, wait) {
                Ok(taken) => taken,
                Err(error) => match error.raw_os_error() {
                    // The wait timed out.
                    Some(libc::ETIME) => 0,
                    // A signal arrived, or the process was stopped.
                    Some(libc::EINTR) => {
                        is_whole = false;
                        0
                    }
                    // The completion queue has overflowed: completions must be taken first.
                    Some(libc::EBUSY) => return Ok(false),
                    // The kernel has no memory for a request now; the entries stay queued.
                    Some(libc::EAGAIN | libc::ENOMEM) => {
                        std::thread::yield_now();
                        0
                    }
                    _ => return Err(error),
                },
            };
            if taken >= queued || self.ring.submission().is_empty() {
                return Ok(is_whole);
            }
        }
    }

    fn enter_once(
        &self,
        queued: u32,
        completions: u32,
        wait: Option<Duration>,
    ) -> io::Result<usize> {
        let submitter = self.ring.submitter();
        // GETEVENTS even without waiting, because it runs deferred task work.
        let Some(wait) = wait.filter(|wait| !wait.is_zero()) else {
            let completions = if wait.is_none() { completions } else { 0 };
            let no_mask: Option<&libc::sigset_t> = None;
            // SAFETY: io_uring_enter(2) reads no argument with these flags.
            return unsafe { submitter.enter(queued, completions, ENTER_GETEVENTS, no_mask) };
        };
        let wait = Timespec::from(wait);
        let arguments = SubmitArgs::new().timespec(&wait);
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
        // SAFETY: the arguments are those that io_uring_enter(2) documents for these flags, and they live
        // until the call returns.
        unsafe { submitter.enter(queued, completions, flags, Some(&arguments)) }
    }

    /// Cancels all operations and waits for them to end; returns whether they have. Closing a ring alone
    /// lets operations end later and use their memory until then (before Linux 6.15, without deferred task
    /// work).
    pub fn cancel_all(&self) -> bool {
        let within = Timespec::from(CANCEL_WITHIN);
        let all = CancelBuilder::any().all();
        match self.ring.submitter().register_sync_cancel(Some(within), all) {
            Ok(()) => true,
            // No operation was pending.
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        }
    }

    /// Returns the number of entries into the kernel since the last call.
    pub fn take_entered(&mut self) -> u64 {
        std::mem::take(&mut self.entered)
    }

    /// Returns the number of completion queue overflows since the last call.
    pub fn take_overflowed(&mut self) -> u64 {
        std::mem::take(&mut self.overflowed)
    }

    /// Takes all available completions.
    pub fn take_completions(&mut self, into: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            self.take_from_queue();
            into.append(&mut self.taken_early);
            if !self.ring.submission().cq_overflow() {
                return Ok(());
            }
            self.overflowed += 1;
            // The completion queue overflowed: entering flushes the rest into the freed space.
            self.enter(Some(Duration::ZERO))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use io_uring::{opcode, types};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    /// More events than the kernel handles in one entry.
    const EVENTS: usize = 500;

    #[test]
    fn all_pending_completions_are_taken_in_one_call() {
        let shape = Shape { entries: 64, completions: 2_048, files: 1, defer_taskrun: true };
        // Nothing to test where io_uring is forbidden.
        let Ok(mut ring) = Ring::new(shape) else { return };
        let events: Vec<OwnedFd> = (0..EVENTS)
            .map(|_| eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor"))
            .collect();
        for event in &events {
            let entry = opcode::PollAdd::new(types::Fd(event.as_raw_fd()), libc::POLLIN as u32);
            // SAFETY: the entry points to no memory.
            unsafe { ring.push(&entry.build()) }.expect("there is room");
        }
        ring.enter(Some(Duration::ZERO)).expect("submitted");
        for event in &events {
            rustix::io::write(event, &1u64.to_ne_bytes()).expect("written");
        }
        let mut completions = Vec::new();
        ring.enter_for_all().expect("entered");
        ring.take_completions(&mut completions).expect("taken");
        assert_eq!(completions.len(), EVENTS);
    }
}
