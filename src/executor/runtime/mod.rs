//! The executor on third-party async runtimes: one task per connection, which reads into the core's shared
//! buffer when its socket is ready, and one task that ends each turn.
//!
//! This module holds the common part; the differences are behind [`Runtime`]. A connection costs its task and
//! the runtime's state of a socket, but no buffer of its own.

mod actions;
#[cfg(feature = "glommio")]
pub mod glommio;
mod lingering;
#[cfg(feature = "monoio")]
pub mod monoio;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker as TaskWaker};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::base::ids::{ConnectionId, Peer};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::send_buffer::SendBuffer;
use crate::base::waker::Waker;
use crate::executor::runtime::actions::Borrowed;
use crate::executor::sockets::Sockets as _;
use crate::executor::{
    ACCEPT_REST, Core, FLUSH_AT_STOP, Listener, ListenerSocket, Listeners, Parts, is_peers_fault,
};

/// Size of the core's receive buffer: the most that one connection can read at a time.
const RECEIVE_BYTES: usize = 64 * 1024;
/// The most slices of a send buffer written by one system call.
const IO_SLICES: usize = 64;

/// A borrowed view of a socket, which does not close it.
pub type SocketView = ManuallyDrop<Socket>;

/// The interface to a runtime. Everything runs on one thread.
pub trait Runtime: Sized + 'static {
    /// A stream socket registered with the runtime.
    type Stream: 'static;
    /// A listener.
    type Listener: 'static;

    /// Runs a future to completion.
    fn run(self, main: impl Future<Output = io::Result<()>> + 'static) -> io::Result<()>;

    /// Spawns a task, which is first polled after the current one yields.
    fn spawn(task: impl Future<Output = ()> + 'static);

    /// Sleeps for `time`.
    fn sleep(time: Duration) -> impl Future<Output = ()>;

    /// Registers a listener with the runtime.
    fn listen(listener: ListenerSocket) -> io::Result<Self::Listener>;

    /// Waits for a connection.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Registers a socket with the runtime.
    fn adopt(socket: OwnedFd) -> io::Result<Self::Stream>;

    /// The stream's socket.
    fn socket(stream: &Self::Stream) -> SocketView;

    /// Receives when input is available.
    fn poll_receive(
        stream: &mut Self::Stream,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>>;

    /// Sends when the socket buffer has room.
    fn poll_send(
        stream: &mut Self::Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>>;
}

struct Watched<S> {
    stream: S,
    id: ConnectionId,
    is_paused: bool,
    /// Whether the peer has ended the stream: nothing is read any more.
    is_read_out: bool,
    /// Bytes that the kernel has not taken yet; a task waits for room.
    pending: Option<SendBuffer>,
    /// The task that reads the socket, while it waits.
    reader: Option<TaskWaker>,
}

/// A listener on which a task accepts connections.
struct Accepting {
    /// A second handle, by which the task is woken when it ends.
    listener: Listener,
    is_closed: Rc<Cell<bool>>,
}

struct State<R: Runtime> {
    core: Core<TcpStream>,
    listeners: Vec<Accepting>,
    sockets: Vec<Option<Watched<R::Stream>>>,
    buffer: Box<[u8]>,
    /// The task that ends the turn, while it waits.
    main: Option<TaskWaker>,
    /// Whether something happened that the turn must handle.
    is_due: bool,
    /// Number of lingering connections.
    lingering: usize,
    /// Number of lingering connections with bytes to write.
    unwritten: usize,
}

type Shared<R> = Rc<RefCell<State<R>>>;

/// State of a core before its thread has a runtime: the receiving end of its waker.
pub type Bootstrap = UnixStream;

/// Creates the waker of each core.
pub fn bootstraps(cores: u16) -> io::Result<Vec<(Bootstrap, Waker)>> {
    let bootstrap = |_| {
        let (here, there) = UnixStream::pair()?;
        there.set_nonblocking(true)?;
        Ok((here, Waker::Stream(there)))
    };
    (0..cores).map(bootstrap).collect()
}

/// One core's executor, before it runs.
pub struct Tasks<R: Runtime> {
    runtime: R,
    core: Core<TcpStream>,
    listeners: Listeners,
    bootstrap: Bootstrap,
}

impl<R: Runtime> Tasks<R> {
    /// Creates the executor of a core, on its thread.
    pub fn new<E>(runtime: R, parts: Parts<E>) -> Self
    where
        E: crate::executor::Executor<Socket = TcpStream, Bootstrap = Bootstrap>,
    {
        let Parts { core, bootstrap, listeners, .. } = parts;
        Self { runtime, core, listeners, bootstrap }
    }

    /// Serves until asked to stop, then sends DISCONNECT to every client and flushes.
    pub fn run(self) -> io::Result<()> {
        let Self { runtime, core, listeners, bootstrap } = self;
        runtime.run(async move {
            let shared: Shared<R> = Rc::new(RefCell::new(State {
                core,
                listeners: Vec::new(),
                sockets: Vec::new(),
                buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
                main: None,
                is_due: false,
                lingering: 0,
                unwritten: 0,
            }));
            for listener in listeners {
                let accepting = listen(&shared, listener)?;
                shared.borrow_mut().listeners.push(accepting);
            }
            let bootstrap = R::adopt(bootstrap.into())?;
            R::spawn(be_woken(Rc::clone(&shared), bootstrap));
            serve(&shared).await
        })
    }
}

/// Runs turns until asked to stop, then shuts down.
async fn serve<R: Runtime>(shared: &Shared<R>) -> io::Result<()> {
    while !shared.borrow().core.is_stopping() {
        turn(shared).await?;
    }
    shared.borrow().listeners.iter().for_each(|accepting| accepting.listener.shut());
    Borrowed { shared, state: &mut shared.borrow_mut() }.shut_down()?;
    let until = Instant::now() + FLUSH_AT_STOP;
    while shared.borrow().unwritten > 0 && Instant::now() < until {
        R::sleep(Duration::from_millis(1)).await;
    }
    shared.borrow_mut().core.finish();
    Ok(())
}

async fn turn<R: Runtime>(shared: &Shared<R>) -> io::Result<()> {
    let (timeout, sleeps) = {
        let state = &mut *shared.borrow_mut();
        let timeout = state.core.timer();
        let is_due = state.is_due;
        (timeout, !is_due && Borrowed { shared, state }.may_sleep(timeout))
    };
    if sleeps {
        wait(shared, timeout).await;
        shared.borrow_mut().core.wake_up();
    } else {
        yield_now().await;
    }
    let state = &mut *shared.borrow_mut();
    state.is_due = false;
    state.core.begin_turn();
    state.core.noted.kernel_entries += 1;
    let mut sockets = Borrowed { shared, state };
    sockets.receive()?;
    sockets.state.read_overdue();
    sockets.act()?;
    sockets.state.core.end_turn_with_wakers();
    Ok(())
}

/// Waits until something is due, or until `timeout` has passed.
async fn wait<R: Runtime>(shared: &Shared<R>, timeout: Option<Duration>) {
    let due = poll_fn(|context| {
        let state = &mut *shared.borrow_mut();
        if state.is_due {
            return Poll::Ready(());
        }
        state.main = Some(context.waker().clone());
        Poll::Pending
    });
    match timeout {
        None => due.await,
        Some(timeout) => first_of(due, R::sleep(timeout)).await,
    }
}

/// Runs both futures until one has completed.
async fn first_of(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => other.as_mut().poll(context),
    })
    .await;
}

/// Lets the other tasks run.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<R: Runtime> State<R> {
    /// Marks the turn as due; the caller has just read the clock.
    fn make_due(&mut self) {
        self.is_due = true;
        self.core.begin_early();
        if let Some(main) = self.main.take() {
            main.wake();
        }
    }

    fn socket(&mut self, id: ConnectionId) -> Option<&mut Watched<R::Stream>> {
        self.sockets.get_mut(id.slot as usize)?.as_mut().filter(|socket| socket.id == id)
    }

    /// Removes a socket, and wakes its reading task, which then ends.
    fn remove(&mut self, id: ConnectionId) -> Option<Watched<R::Stream>> {
        self.socket(id)?;
        let mut socket = self.sockets[id.slot as usize].take()?;
        if let Some(reader) = socket.reader.take() {
            reader.wake();
        }
        Some(socket)
    }

    /// Reads the connections whose deadline has passed, because the runtime may not have polled their tasks
    /// yet. Those tasks then find no input.
    fn read_overdue(&mut self) {
        let overdue: Vec<ConnectionId> = self.core.engine.overdue().collect();
        for id in overdue {
            let is_read = |socket: &&mut Watched<_>| !socket.is_paused && !socket.is_read_out;
            let Some(socket) = self.socket(id).filter(is_read) else { continue };
            let stream = R::socket(&socket.stream);
            let received = receive_some(&stream, &mut self.buffer);
            match received {
                Ok(0) => self.read_out(id),
                Ok(bytes) => {
                    let now = self.core.now;
                    self.core.engine.handle_received(now, id, &self.buffer[..bytes]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.close(id),
            }
        }
        self.core.note_read(true);
    }

    /// Handles end of stream: the peer has shut down its sending side and may still read.
    fn read_out(&mut self, id: ConnectionId) {
        if let Some(socket) = self.socket(id) {
            socket.is_read_out = true;
            self.core.read_clock();
            self.core.engine.handle_ended(self.core.now, id);
            self.make_due();
        }
    }

    /// Handles a failed write: nothing can be written any more. Reading continues, because input may still be
    /// in the socket buffer.
    fn lose(&mut self, id: ConnectionId) {
        let Some(socket) = self.socket(id) else { return };
        socket.pending = None;
        if socket.is_read_out {
            return self.close(id);
        }
        self.core.read_clock();
        self.core.engine.handle_deaf(self.core.now, id);
        self.make_due();
    }

    /// Handles a connection that the network ended.
    fn close(&mut self, id: ConnectionId) {
        if self.remove(id).is_some() {
            self.core.read_clock();
            self.core.engine.handle_closed(self.core.now, id);
            self.make_due();
        }
    }

    /// Writes what the kernel takes without blocking; returns whether something is left.
    fn write(&mut self, id: ConnectionId) -> bool {
        let Some(socket) = self.socket(id) else { return false };
        let Some(mut buffer) = socket.pending.take() else { return false };
        match write_some(&R::socket(&socket.stream), &mut buffer) {
            Ok(bytes) => {
                let is_left = !buffer.is_empty();
                let drained = if is_left {
                    socket.pending = Some(buffer);
                    self.core.noted.sends_waited += 1;
                    None
                } else {
                    Some(buffer)
                };
                self.core.engine.handle_sent(self.core.now, id, bytes, drained);
                is_left
            }
            Err(_) => {
                self.lose(id);
                false
            }
        }
    }
}

async fn be_woken<R: Runtime>(shared: Shared<R>, mut bootstrap: R::Stream) {
    let mut scrap = [0; 64];
    loop {
        let woken = poll_fn(|context| R::poll_receive(&mut bootstrap, context, &mut scrap)).await;
        {
            let state = &mut *shared.borrow_mut();
            state.core.read_clock();
            state.make_due();
        }
        if !matches!(woken, Ok(1..)) {
            return;
        }
    }
}

/// Starts a task that accepts connections of a listener.
fn listen<R: Runtime>(shared: &Shared<R>, listener: Listener) -> io::Result<Accepting> {
    let copy = listener.try_clone()?;
    let (number, is_closed) = (listener.number, Rc::new(Cell::new(false)));
    let socket = R::listen(listener.socket)?;
    R::spawn(accept(Rc::clone(shared), socket, number, Rc::clone(&is_closed)));
    Ok(Accepting { listener: copy, is_closed })
}

async fn accept<R: Runtime>(
    shared: Shared<R>,
    listener: R::Listener,
    number: u16,
    is_closed: Rc<Cell<bool>>,
) {
    let is_stopping = |shared: &Shared<R>| shared.borrow().core.is_stopping();
    while !is_stopping(&shared) {
        let error = match R::accept(&listener).await {
            _ if is_closed.get() => return,
            Ok(stream) => {
                admit(&shared, stream, number);
                continue;
            }
            Err(error) => error,
        };
        if !is_peers_fault(&error) {
            // Most likely no descriptor is free. Existing connections are still served.
            rated!(warn, log_rate::now(), %error, "cannot accept connections; retrying shortly");
            shared.borrow_mut().core.noted.accepts_rested += 1;
            R::sleep(ACCEPT_REST).await;
        }
    }
}

fn admit<R: Runtime>(shared: &Shared<R>, stream: R::Stream, listener: u16) {
    let address = R::socket(&stream).peer_addr().ok().and_then(|address| address.as_socket());
    // May fail on a connection that is already closed, which the first read detects.
    let _ = R::socket(&stream).set_tcp_nodelay(true);
    let state = &mut *shared.borrow_mut();
    state.core.read_clock();
    let peer = Peer { address, listener };
    let Ok(id) = state.core.engine.handle_accepted(state.core.now, peer) else { return };
    watch(shared, state, stream, id);
}

fn watch<R: Runtime>(
    shared: &Shared<R>,
    state: &mut State<R>,
    stream: R::Stream,
    id: ConnectionId,
) {
    let slot = id.slot as usize;
    if state.sockets.len() <= slot {
        state.sockets.resize_with(slot + 1, || None);
    }
    let socket =
        Watched { stream, id, is_paused: false, is_read_out: false, pending: None, reader: None };
    state.sockets[slot] = Some(socket);
    let shared = Rc::clone(shared);
    R::spawn(async move { while poll_fn(|context| read(&shared, id, context)).await {} });
}

/// Reads a connection once; returns whether there may be more input.
fn read<R: Runtime>(shared: &Shared<R>, id: ConnectionId, context: &mut Context<'_>) -> Poll<bool> {
    let state = &mut *shared.borrow_mut();
    let place = state.sockets.get_mut(id.slot as usize).and_then(Option::as_mut);
    let Some(socket) = place.filter(|socket| socket.id == id) else { return Poll::Ready(false) };
    if socket.is_read_out {
        return Poll::Ready(false);
    }
    let received = match socket.is_paused {
        true => Poll::Pending,
        false => R::poll_receive(&mut socket.stream, context, &mut state.buffer),
    };
    match received {
        Poll::Pending => {
            socket.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(bytes @ 1..)) => {
            state.core.read_clock();
            state.core.begin_early();
            state.core.engine.handle_received(state.core.now, id, &state.buffer[..bytes]);
            state.make_due();
        }
        Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
        Poll::Ready(Ok(0)) => state.read_out(id),
        Poll::Ready(Err(_)) => state.close(id),
    }
    Poll::Ready(true)
}

/// Writes a connection's pending bytes as the socket buffer gets room.
async fn write_on<R: Runtime>(shared: Shared<R>, id: ConnectionId) {
    loop {
        let written = poll_fn(|context| {
            let state = &mut *shared.borrow_mut();
            let Some(socket) = state.socket(id) else { return Poll::Ready(None) };
            let Some(buffer) = &mut socket.pending else { return Poll::Ready(None) };
            poll_write(&mut socket.stream, buffer, context, R::poll_send).map(Some)
        });
        let Some(written) = written.await else { return };
        let state = &mut *shared.borrow_mut();
        state.core.read_clock();
        match written {
            Ok(bytes) => {
                let Some(socket) = state.socket(id) else { return };
                let drained = socket.pending.take_if(|buffer| buffer.is_empty());
                let is_drained = drained.is_some();
                state.core.engine.handle_sent(state.core.now, id, bytes, drained);
                state.make_due();
                if is_drained {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return state.lose(id),
        }
    }
}

/// Writes the first slice of a buffer when the socket buffer has room.
fn poll_write<S>(
    stream: &mut S,
    buffer: &mut SendBuffer,
    context: &mut Context<'_>,
    poll_send: impl Fn(&mut S, &mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); 1];
    buffer.io_slices(&mut slices);
    let sent = std::task::ready!(poll_send(stream, context, &slices[0]));
    Poll::Ready(sent.inspect(|&bytes| buffer.advance(bytes)))
}

/// Borrows the socket behind a runtime's stream, which keeps owning it.
#[expect(unsafe_code, reason = "runtimes expose sockets as raw descriptors")]
pub fn borrow(stream: &impl AsRawFd) -> SocketView {
    // SAFETY: the descriptor is open while the stream exists, and no view is kept longer than that. The view
    // never closes the descriptor.
    ManuallyDrop::new(unsafe { Socket::from_raw_fd(stream.as_raw_fd()) })
}

/// Reads without blocking.
#[expect(unsafe_code, reason = "the socket takes possibly uninitialized memory")]
fn receive_some(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: initialized memory is valid as `MaybeUninit`, and the kernel only writes initialized bytes.
    let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
    socket.recv_with_flags(buffer, libc::MSG_DONTWAIT)
}

/// Writes until the buffer is empty or the kernel takes no more; returns the bytes written.
fn write_some(socket: &Socket, buffer: &mut SendBuffer) -> io::Result<usize> {
    let mut written = 0;
    while !buffer.is_empty() {
        let mut slices = [IoSlice::new(&[]); IO_SLICES];
        let count = buffer.io_slices(&mut slices);
        let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        match socket
            .send_vectored_with_flags(&slices[..count], libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        {
            Ok(bytes) => {
                buffer.advance(bytes);
                written += bytes;
                if bytes < offered {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
