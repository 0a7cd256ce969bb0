//! One io_uring: set up with as much as the kernel offers, entered once a turn. Knows no connection.
#![expect(unsafe_code, reason = "submission entries hold addresses that the kernel follows")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

/// Flags of io_uring_enter(2) that the crate does not name.
const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;

/// Completions after which no more are asked for when all are to be taken that there are: the bound
/// of a turn.
const ALL: usize = 1_024;

/// The last of the sets of set-up flags, which are tried from the newest kernel's down.
const LOWEST_RUNG: u32 = 2;

/// How long ending all operations may take.
const CANCEL_WITHIN: Duration = Duration::from_secs(1);

/// What the ring is to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Submissions that fit before they must go to the kernel.
    pub entries: u32,
    /// Completions that fit before the kernel keeps them aside.
    pub completions: u32,
    /// Direct descriptors.
    pub files: u32,
    /// Whether the kernel's work for this thread waits until the thread asks for it.
    pub defer_taskrun: bool,
}

/// One io_uring, and the thread's alone.
pub struct Ring {
    ring: IoUring,
    defers_taskrun: bool,
    /// Completions taken early, to make room for submissions.
    aside: Vec<Completion>,
    /// The kernel was entered last to complete all that had come, and has.
    completed_all: bool,
    /// How often the kernel was entered, and kept completions aside, since somebody asked.
    entered: u64,
    overflowed: u64,
}

/// What an operation came to.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Which operation: see `operation.rs`.
    pub user_data: u64,
    /// Bytes, a descriptor, or a negative error number.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Ring {
    /// Sets a ring up for the calling thread, with the flags of the newest kernel that takes them:
    /// io_uring_setup(2).
    pub fn new(shape: Shape) -> io::Result<Self> {
        let mut rung = if shape.defer_taskrun { 0 } else { LOWEST_RUNG };
        let ring = loop {
            match Self::build(shape, rung) {
                // A flag that this kernel does not know.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && rung < LOWEST_RUNG => {
                    rung += 1;
                }
                outcome => break outcome?,
            }
        };
        if shape.files > 0 {
            ring.submitter().register_files_sparse(shape.files)?;
        }
        // It saves the kernel a look-up at each entry, where it can (5.18).
        let _ = ring.submitter().register_ring_fd();
        Ok(Self {
            ring,
            defers_taskrun: rung < LOWEST_RUNG,
            aside: Vec::new(),
            completed_all: false,
            entered: 0,
            overflowed: 0,
        })
    }

    /// Linux 6.6 knows all flags of the first rung, 6.1 those of the second, 6.0 the third.
    fn build(shape: Shape, rung: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(shape.completions).setup_submit_all().setup_single_issuer();
        match rung {
            0 => builder.setup_defer_taskrun().setup_no_sqarray(),
            1 => builder.setup_defer_taskrun(),
            _ => builder.setup_coop_taskrun(),
        };
        builder.build(shape.entries)
    }

    /// Whether the kernel's work for this thread waits until the thread asks for it.
    pub fn defers_taskrun(&self) -> bool {
        self.defers_taskrun
    }

    /// Its descriptor, by which other rings reach it.
    pub fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// To register things with the kernel.
    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues an operation; when there is no room, what is queued goes to the kernel first.
    ///
    /// # Safety
    ///
    /// All memory the entry points to stays valid until the operation has completed, or, for what
    /// the kernel copies at submission, until the next call of [`Self::enter`] or of this.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: by the caller's promise.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(Some(Duration::ZERO))?;
            // A kernel that has no room for completions takes no submissions.
            self.take_from_queue();
        }
        Ok(())
    }

    fn take_from_queue(&mut self) {
        self.aside.extend(self.ring.completion().map(|entry: cqueue::Entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Whether the kernel has not been handed everything yet.
    pub fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether something has completed and is not taken yet.
    pub fn has_completed(&mut self) -> bool {
        !self.aside.is_empty() || !self.ring.completion().is_empty()
    }

    /// Hands what is queued to the kernel, and has it complete all that has come. When it is entered
    /// it does only some twenty pieces of the work that it has deferred (Linux 6.13), and what came
    /// behind them would wait for as many turns as it takes.
    pub fn enter_for_all(&mut self) -> io::Result<()> {
        loop {
            let before = self.ring.completion().len();
            let is_whole = self.enter_once_or_more(Some(Duration::ZERO))?;
            let completed = self.ring.completion().len();
            if completed == before || completed >= ALL {
                self.completed_all = is_whole && completed < ALL;
                return Ok(());
            }
        }
    }

    /// Whether the kernel was entered last to complete all that had come, and has.
    pub fn has_completed_all(&self) -> bool {
        self.completed_all
    }

    /// Hands what is queued to the kernel and waits for a completion, for at most this long.
    pub fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.completed_all = false;
        self.enter_once_or_more(wait).map(drop)
    }

    /// The same; whether nothing kept the kernel from doing all of it.
    fn enter_once_or_more(&mut self, wait: Option<Duration>) -> io::Result<bool> {
        let mut is_whole = true;
        loop {
            self.entered += 1;
            let queued = self.ring.submission().len();
            let taken = match self.enter_once(queued as u32, wait) {
                Ok(taken) => taken,
                Err(error) => match error.raw_os_error() {
                    // The time is up.
                    Some(libc::ETIME) => 0,
                    // A signal came, or the process was stopped.
                    Some(libc::EINTR) => {
                        is_whole = false;
                        0
                    }
                    // Completions are kept aside: they must be taken first.
                    Some(libc::EBUSY) => return Ok(false),
                    // No memory for a request at this moment; what is queued stays queued.
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

    fn enter_once(&self, queued: u32, wait: Option<Duration>) -> io::Result<usize> {
        let submitter = self.ring.submitter();
        // GETEVENTS even when nothing is waited for: it is what runs deferred work.
        let Some(wait) = wait.filter(|wait| !wait.is_zero()) else {
            let completions = u32::from(wait.is_none());
            let no_mask: Option<&libc::sigset_t> = None;
            // SAFETY: io_uring_enter(2) takes no argument with these flags.
            return unsafe { submitter.enter(queued, completions, ENTER_GETEVENTS, no_mask) };
        };
        let wait = Timespec::from(wait);
        let arguments = SubmitArgs::new().timespec(&wait);
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
        // SAFETY: the arguments are those that io_uring_enter(2) documents for these flags, and
        // live until it returns.
        unsafe { submitter.enter(queued, 1, flags, Some(&arguments)) }
    }

    /// Ends all operations, and waits until they have ended; whether they have. Those of a ring that is
    /// merely closed end later, and may use their memory until then (before Linux 6.15, without deferred
    /// work).
    pub fn cancel_all(&self) -> bool {
        let within = Timespec::from(CANCEL_WITHIN);
        let all = CancelBuilder::any().all();
        match self.ring.submitter().register_sync_cancel(Some(within), all) {
            Ok(()) => true,
            // There was none.
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        }
    }

    /// How often the kernel was entered since the last call.
    pub fn take_entered(&mut self) -> u64 {
        std::mem::take(&mut self.entered)
    }

    /// How often it kept completions aside since the last call.
    pub fn take_overflowed(&mut self) -> u64 {
        std::mem::take(&mut self.overflowed)
    }

    /// Takes all completions there are.
    pub fn take_completions(&mut self, into: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            self.take_from_queue();
            into.append(&mut self.aside);
            if !self.ring.submission().cq_overflow() {
                return Ok(());
            }
            self.overflowed += 1;
            // The kernel kept some aside: entering puts them into the room there is now.
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

    /// More than the kernel does at a time by itself.
    const EVENTS: usize = 500;

    #[test]
    fn all_that_has_come_is_taken_at_once_however_much_it_is() {
        let shape = Shape { entries: 64, completions: 2_048, files: 1, defer_taskrun: true };
        // Where io_uring is forbidden there is nothing to test.
        let Ok(mut ring) = Ring::new(shape) else { return };
        let events: Vec<OwnedFd> = (0..EVENTS)
            .map(|_| eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor"))
            .collect();
        for event in &events {
            let entry = opcode::PollAdd::new(types::Fd(event.as_raw_fd()), libc::POLLIN as u32);
            // SAFETY: it points to no memory.
            unsafe { ring.push(&entry.build()) }.expect("there is room");
        }
        ring.enter(Some(Duration::ZERO)).expect("it takes them");
        for event in &events {
            rustix::io::write(event, &1u64.to_ne_bytes()).expect("it counts");
        }
        let mut completions = Vec::new();
        ring.enter_for_all().expect("it has something to say");
        ring.take_completions(&mut completions).expect("it says so");
        assert_eq!(completions.len(), EVENTS);
    }
}
