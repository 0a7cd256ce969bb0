//! The executor on Linux's io_uring: one ring per core, entered once per turn.
//!
//! Each turn queues its submissions and hands them over with a single io_uring_enter, which also waits for
//! completions. Connections are direct descriptors: they are in the ring's table instead of the process's.
//! They receive with multishot operations into the ring's [`buffers`], so an idle connection holds no
//! buffer. A send that the kernel takes immediately posts no completion: a send that has not failed when
//! io_uring_enter returns has succeeded.
//!
//! A socket is closed, or moved to another core, only when its last pending operation has completed.

mod accept;
mod actions;
mod adopt;
pub mod buffers;
mod close;
mod kernel_tls;
mod operation;
mod progress;
pub mod ring;
mod rings;
mod send;
mod sending;
mod socket;
mod unexpected;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use io_uring::squeue::{self, Flags};
use io_uring::{cqueue, opcode, types};

use self::accept::Accepts;
use self::adopt::Adoptions;
use self::close::{Leaving, Lingering};
use self::operation::Operation;
use self::ring::{Completion, Ring, Shape};
use self::rings::{Directory, NO_WAIT, Rings, Wait};
use self::socket::{Phase, Socket, Sockets};
use crate::base::ids::{ConnectionId, Peer};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::waker::Waker;
use crate::executor::kernel_tls::KernelTlsSockets;
use crate::executor::kernel_tls::kernel::CloseNotify;
use crate::executor::linger::Deadlines;
use crate::executor::sockets::Sockets as _;
use crate::executor::{ACCEPT_REST, Core, FLUSH_AT_STOP, Parts, is_peers_fault};

/// Sockets that receive at least this many bytes in a turn give way when others find no free buffer.
const HEAVY_RECEIVER_BYTES: u32 = 8 * 1024;

/// State of a core before its thread has created a ring.
pub struct Bootstrap {
    /// The eventfd by which threads without a ring wake the core.
    event: Arc<OwnedFd>,
    /// The rings of all cores.
    rings: Arc<[Directory]>,
}

/// One core's executor.
pub struct Executor {
    // The rings are dropped first: the kernel uses the memory of the fields below until then.
    rings: Rings,
    accepts: Accepts,
    close_notify: CloseNotify,
    adoptions: Adoptions,
    sockets: Sockets,
    /// The sockets that use kernel TLS.
    kernel_tls: KernelTlsSockets,
    /// State of sockets that the engine has closed and that linger.
    lingering: HashMap<u32, Lingering>,
    deadlines: Deadlines<u32>,
    /// Sockets on their way to another core.
    leaving: HashMap<u32, Leaving>,
    /// Sends that complete only on failure, with the number of bytes submitted.
    sent: Vec<(u32, usize)>,
    /// Results of zero-copy sends whose memory the kernel still uses.
    copying: HashMap<u32, i32>,
    /// Sockets whose receive ended because no buffer was free.
    starved: Vec<u32>,
    /// Receives of this turn: the socket and the number of bytes.
    received_bytes: Vec<(u32, u32)>,
    /// Sockets whose receive has ended, to be re-armed after the starved ones.
    rested: Vec<u32>,
    /// Accept operations suspended because no descriptor was free, and when to retry.
    resting: Vec<u32>,
    accept_again: Option<Instant>,
    completions: Vec<Completion>,
    zero_copy_bytes_min: usize,
    bootstrap: Bootstrap,
    core: Core<u32>,
}

impl crate::executor::Executor for Executor {
    /// A direct descriptor of the receiving core's ring.
    type Socket = u32;
    type Bootstrap = Bootstrap;

    fn bootstraps(cores: u16) -> io::Result<Vec<(Bootstrap, Waker)>> {
        let directory = |_| std::array::from_fn(|_| OnceLock::new());
        let rings: Arc<[Directory]> = (0..cores).map(directory).collect();
        let bootstrap = |_| {
            let flags =
                rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
            let event = Arc::new(rustix::event::eventfd(0, flags)?);
            let waker = Waker::Event(Arc::clone(&event));
            Ok((Bootstrap { event, rings: Arc::clone(&rings) }, waker))
        };
        (0..cores).map(bootstrap).collect()
    }

    fn open(parts: Parts<Self>) -> io::Result<Self> {
        let Parts { core, bootstrap, listeners, sockets_max, uring } = parts;
        let accepts = Accepts::new(listeners);
        let mut rings = Rings::new(&uring, sockets_max, accepts.numbers().len() as u32)?;
        let own = &bootstrap.rings[usize::from(core.engine.core().0)];
        own[0].set(rings.first().descriptor()).expect("a core is opened once");
        let mut executor = Self {
            rings,
            accepts,
            close_notify: CloseNotify::default(),
            adoptions: Adoptions::default(),
            sockets: Sockets::default(),
            kernel_tls: KernelTlsSockets::default(),
            lingering: HashMap::new(),
            deadlines: Deadlines::default(),
            leaving: HashMap::new(),
            sent: Vec::new(),
            copying: HashMap::new(),
            starved: Vec::new(),
            received_bytes: Vec::new(),
            rested: Vec::new(),
            resting: Vec::new(),
            accept_again: None,
            completions: Vec::new(),
            zero_copy_bytes_min: match uring.zero_copy_bytes_min {
                0 => usize::MAX,
                bytes => bytes as usize,
            },
            bootstrap,
            core,
        };
        executor.watch_event()?;
        for number in executor.accepts.numbers() {
            executor.accepts.submit(&mut executor.rings, number)?;
        }
        Ok(executor)
    }

    fn run(mut self) -> io::Result<()> {
        while !self.core.is_stopping() {
            self.turn()?;
        }
        self.shut_down()?;
        self.accepts.stop(&mut self.rings, None)?;
        let until = Instant::now() + FLUSH_AT_STOP;
        while self.has_unwritten() && Instant::now() < until {
            self.turn()?;
        }
        self.core.finish();
        Ok(())
    }
}

impl Shape {
    /// The configured shape, for `sockets_max` sockets.
    pub fn of(uring: &crate::config::Uring, sockets_max: u32) -> Self {
        Self {
            entries: uring.entries,
            completions: uring.completions,
            files: sockets_max,
            defer_taskrun: uring.defer_taskrun,
        }
    }
}

impl Executor {
    fn turn(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        let may_wait = !self.awaits_sent();
        let gathers = if may_wait { self.core.moderated_wait(timeout) } else { None };
        let sleeps = may_wait && gathers.is_none() && self.may_sleep(timeout);
        let wait = match gathers {
            Some(time) => Wait::Gather(time),
            None if sleeps => Wait::For(timeout),
            // New input is served before deferred work continues.
            None if self.core.engine.has_put_off() => Wait::TakeAll,
            None => NO_WAIT,
        };
        let entered = self.rings.enter(wait);
        if sleeps {
            self.core.wake_up();
        }
        entered?;
        let has_taken_all = self.rings.has_taken_all();
        let mut completions = std::mem::take(&mut self.completions);
        self.rings.take_completions(&mut completions)?;
        self.core.begin_turn();
        // Before input is handled, so that clients that have taken everything do not look slow.
        self.reap_sends(&completions)?;
        self.receive()?;
        for completion in completions.drain(..) {
            self.dispatch(completion)?;
        }
        self.completions = completions;
        self.rings.publish_buffers();
        self.core.note_read(has_taken_all && self.starved.is_empty() && self.rested.is_empty());
        self.share_buffers()?;
        self.accept_again()?;
        self.expire_lingering()?;
        self.act()?;
        for ring in self.rings.each() {
            self.core.noted.kernel_entries += ring.take_entered();
            self.core.noted.completions_overflowed += ring.take_overflowed();
        }
        let Self { core, rings, bootstrap, .. } = self;
        core.end_turn(|core| wake(rings.first(), bootstrap, core));
        Ok(())
    }

    /// The longest that the turn may wait for completions.
    fn timeout(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let other = [self.accept_again, self.deadlines.next()].into_iter().flatten().min();
        let other = other.map(|at| at.saturating_duration_since(now));
        [self.core.timer(), other].into_iter().flatten().min()
    }

    fn dispatch(&mut self, completion: Completion) -> io::Result<()> {
        match Operation::of(completion.user_data) {
            Operation::Accept(number) => self.accepted(number, completion.result),
            Operation::Receive(file) => self.received(file, completion),
            // Handled by `reap_sends` at the beginning of the turn.
            Operation::SendNow(_) => Ok(()),
            Operation::Send(file) => self.sent_some(file, completion.result),
            Operation::SendZeroCopy(file) => self.copied(file, completion),
            // These complete only on failure, such as a cancel that found no operation.
            Operation::Cancel(_) | Operation::Close(_) => Ok(()),
            Operation::Shutdown(file) => self.shut(file),
            Operation::HandOver(file) => self.handed_over(file, completion.result),
            Operation::Wake(core) => {
                self.core.wake_by_waker(core as usize);
                Ok(())
            }
            Operation::Woken => Ok(()),
            Operation::Event => self.watch_event(),
            // The rings have handled it; the multishot poll must be re-armed if it has ended.
            Operation::RingCompleted(_) if cqueue::more(completion.flags) => Ok(()),
            Operation::RingCompleted(ring) => self.rings.listen(ring),
            Operation::InstallDescriptor(file) => {
                self.descriptor_installed(file, kernel_tls::installed(completion.result))
            }
            Operation::CloseNotify(file) => self.close_notify_sent(file),
            Operation::Progress(file) => self.progressed(file, completion.result),
            Operation::ProgressDescriptor(file) => {
                let installed = kernel_tls::installed(completion.result);
                self.progress_descriptor_installed(file, installed)
            }
            Operation::Adopt(number) => self.adopted(number, completion.result),
        }
    }

    /// Polls the eventfd that threads without a ring write to.
    fn watch_event(&mut self) -> io::Result<()> {
        // Reset the counter first, or the poll would complete at once again. The counter is usually zero.
        let _ = rustix::io::read(&self.bootstrap.event, &mut [0; 8]);
        if self.core.is_stopping() {
            return Ok(());
        }
        let event = types::Fd(self.bootstrap.event.as_raw_fd());
        let entry = opcode::PollAdd::new(event, libc::POLLIN as u32).build();
        push(self.rings.first(), entry, Operation::Event)
    }

    fn accepted(&mut self, number: u32, result: i32) -> io::Result<()> {
        self.accepts.completed(number);
        let error = match u32::try_from(result) {
            Ok(descriptor) => {
                let file = self.rings.file(self.accepts.ring(number), descriptor);
                let Some(listener) = self.accepts.listener(number) else {
                    self.hold(file);
                    return self.close_file(file);
                };
                let peer = Peer { address: self.accepts.peer(number), listener };
                self.accepts.submit(&mut self.rings, number)?;
                return self.admit(file, peer);
            }
            Err(_) if self.accepts.listener(number).is_none() => return Ok(()),
            Err(_) => io::Error::from_raw_os_error(-result),
        };
        if is_peers_fault(&error) {
            return self.accepts.submit(&mut self.rings, number);
        }
        if error.raw_os_error() != Some(libc::ECANCELED) {
            // Most likely no descriptor is free. Existing connections are still served.
            if self.accept_again.is_none() {
                rated!(warn, log_rate::now(), %error, "cannot accept connections; retrying shortly");
                self.core.noted.accepts_rested += 1;
                self.accept_again = Some(Instant::now() + ACCEPT_REST);
            }
            self.resting.push(number);
        }
        Ok(())
    }

    fn accept_again(&mut self) -> io::Result<()> {
        if self.accept_again.is_some_and(|at| Instant::now() >= at) {
            self.accept_again = None;
            for number in std::mem::take(&mut self.resting) {
                self.accepts.submit(&mut self.rings, number)?;
            }
        }
        Ok(())
    }

    fn admit(&mut self, file: u32, peer: Peer) -> io::Result<()> {
        self.hold(file);
        match self.core.engine.handle_accepted(self.core.now, peer) {
            Ok(id) => self.watch(file, id),
            Err(_) => self.close_file(file),
        }
    }

    /// Counts a socket in its table, and opens another ring if the table fills up.
    fn hold(&mut self, file: u32) {
        self.rings.note_held(file);
        let own = &self.bootstrap.rings[usize::from(self.core.engine.core().0)];
        self.rings.grow(own);
    }

    fn watch(&mut self, file: u32, id: ConnectionId) -> io::Result<()> {
        self.sockets.insert(file, Socket::new(id));
        self.start_receiving(file)
    }

    /// Arms a socket's multishot receive, unless it is armed already or not wanted.
    fn start_receiving(&mut self, file: u32) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        let is_wanted = match socket.phase {
            Phase::Open => !socket.is_paused && !socket.is_offloading,
            Phase::Lingering => true,
            Phase::Leaving | Phase::Closing => false,
        };
        if socket.is_receiving || socket.is_read_out || !is_wanted {
            return Ok(());
        }
        socket.is_receiving = true;
        let receive = |descriptor| opcode::RecvMulti::new(descriptor, buffers::GROUP).build();
        self.rings.push(file, receive, Flags::BUFFER_SELECT, Operation::Receive(file))
    }

    /// Re-arms receives that have ended. If some found no free buffer, the sockets that received most in
    /// this turn are stopped and re-armed last: a multishot receive that stays armed would take the buffers
    /// before the others retry, for as long as its peer floods it.
    fn share_buffers(&mut self) -> io::Result<()> {
        let mut received_bytes = std::mem::take(&mut self.received_bytes);
        let mut starved = std::mem::take(&mut self.starved);
        if !starved.is_empty() {
            received_bytes.sort_unstable();
            for of_one in received_bytes.chunk_by(|a, b| a.0 == b.0) {
                let (file, bytes) = (of_one[0].0, of_one.iter().map(|of| of.1).sum::<u32>());
                let is_open = |socket: &mut Socket| socket.phase == Phase::Open;
                if bytes < HEAVY_RECEIVER_BYTES || !self.sockets.get(file).is_some_and(is_open) {
                    continue;
                }
                // This socket took most buffers and then found none either: re-arm it last.
                match starved.iter().position(|&other| other == file) {
                    Some(place) => self.rested.push(starved.swap_remove(place)),
                    None => self.stop_receiving(file)?,
                }
            }
        }
        received_bytes.clear();
        self.received_bytes = received_bytes;
        for file in starved {
            self.start_receiving(file)?;
        }
        for file in std::mem::take(&mut self.rested) {
            self.start_receiving(file)?;
        }
        Ok(())
    }

    fn received(&mut self, file: u32, completion: Completion) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else {
            self.rings.of(file).0.buffers.used(&completion);
            return self.handle_unexpected(file, "receive");
        };
        socket.is_receiving = cqueue::more(completion.flags);
        if completion.result > 0 {
            self.received_bytes.push((file, completion.result as u32));
        }
        let (phase, is_receiving) = (socket.phase, socket.is_receiving);
        let is_offloading = socket.is_offloading;
        if completion.result > 0 {
            let bytes = self.rings.of(file).0.buffers.received(&completion);
            match phase {
                Phase::Open => {
                    self.core.engine.handle_received(self.core.now, socket.id, bytes);
                }
                Phase::Leaving => match self.leaving.get_mut(&file) {
                    Some(leaving) => leaving.handed_over.append(bytes),
                    None => self.handle_unexpected(file, "receive on a leaving socket")?,
                },
                Phase::Lingering => self.discard(file, completion.result as usize)?,
                Phase::Closing => {}
            }
        }
        self.rings.of(file).0.buffers.used(&completion);
        if is_receiving {
            return Ok(());
        }
        match (phase, -completion.result) {
            (Phase::Open, ..=-1 | libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOBUFS)
                if is_offloading =>
            {
                self.install_descriptor(file)?;
            }
            (Phase::Open, libc::EIO) if self.kernel_tls.has(file) => {
                self.install_descriptor(file)?
            }
            (Phase::Open | Phase::Lingering, libc::ENOBUFS) => {
                self.core.noted.receives_starved += 1;
                self.starved.push(file);
            }
            (Phase::Open, ..=-1 | libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                self.rested.push(file);
            }
            (Phase::Open, 0) => self.read_out(file),
            (Phase::Open, _) => self.end(file)?,
            (Phase::Leaving, _) => self.move_over(file)?,
            // The receive was cancelled before the engine closed the connection.
            (Phase::Lingering, ..=-1 | libc::ECANCELED) => self.start_receiving(file)?,
            // Kernel TLS cannot read any further. Closing a socket with unread input resets it, and the
            // peer might not read the last bytes: so keep it until its deadline.
            (Phase::Lingering, libc::EBADMSG) => {}
            (Phase::Lingering, 0) => self.peer_has_ended(file)?,
            (Phase::Lingering, _) => self.begin_closing(file)?,
            (Phase::Closing, _) => self.try_close(file)?,
        }
        Ok(())
    }

    /// Cancels a socket's receive. Input that arrives until it has ended is handled according to the
    /// socket's phase.
    fn stop_receiving(&mut self, file: u32) -> io::Result<()> {
        if !self.sockets.get(file).is_some_and(|socket| socket.is_receiving) {
            return Ok(());
        }
        self.cancel(file, Operation::Receive)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if self.rings.cancel_all() {
            return;
        }
        // Leak the memory that the kernel may still read or write.
        rated!(
            warn,
            log_rate::now(),
            "pending io_uring operations could not be cancelled at exit; leaking their memory"
        );
        std::mem::forget(std::mem::take(&mut self.sockets));
        std::mem::forget(std::mem::take(&mut self.close_notify));
        std::mem::forget(std::mem::take(&mut self.adoptions));
        self.accepts.abandon();
    }
}

/// Wakes another core with a message to its ring.
fn wake(ring: &mut Ring, bootstrap: &Bootstrap, core: usize) {
    let to = types::Fd(
        *bootstrap.rings[core][0]
            .get()
            .expect("every core has its first ring before any core runs"),
    );
    let entry = opcode::MsgRingData::new(to, 0, Operation::Woken.user_data(), None).build();
    let entry = entry.flags(Flags::SKIP_SUCCESS);
    if let Err(error) = push(ring, entry, Operation::Wake(core as u32)) {
        rated!(warn, log_rate::now(), %error, core, "cannot wake a core");
    }
}

#[expect(unsafe_code, reason = "callers pass only entries that point to no memory")]
fn push(ring: &mut Ring, entry: squeue::Entry, operation: Operation) -> io::Result<()> {
    let entry = entry.user_data(operation.user_data());
    // SAFETY: the entry points to no memory.
    unsafe { ring.push(&entry) }
}
