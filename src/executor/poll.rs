//! The portable executor: readiness from epoll, kqueue or Windows' AFD, through `mio`. One thread per core.
//!
//! A connection costs only a socket and a few flags: the receive buffer is shared by the whole core, and a send
//! buffer is kept only until the kernel takes it. Reads and writes are attempted immediately; readiness is
//! waited for only after the kernel returned "would block".

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::base::ids::{ConnectionId, CoreId, Peer};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::send_buffer::SendBuffer;
use crate::base::waker::Waker;
use crate::control::bridge::Dialed;
use crate::engine::HandedOver;
use crate::executor::kernel_tls::{KernelTlsSockets, kernel};
use crate::executor::lingering::Lingerers;
use crate::executor::mesh::Moving;
use crate::executor::sockets::Sockets;
use crate::executor::{
    ACCEPT_REST, ACCEPTS_PER_TURN, Core, FLUSH_AT_STOP, Listener, ListenerSocket, Parts,
    is_peers_fault, progress,
};

/// Size of the core's receive buffer: the most that one connection can read at a time.
const RECEIVE_BYTES: usize = 64 * 1024;
/// The most events taken from the kernel at a time.
const EVENTS: usize = 1_024;
/// The most slices of a send buffer written by one system call.
const IO_SLICES: usize = 64;
const WAKE: Token = Token(0);
/// Tokens from 1 are listeners, from `CONNECTIONS` connections, from [`LINGERERS`] lingering connections.
const CONNECTIONS: usize = 1 << 10;
const LINGERERS: usize = 1 << 30;

struct Socket {
    stream: TcpStream,
    id: ConnectionId,
    /// Whether the socket may have input: it has not returned "would block" since the last readable event.
    is_readable: bool,
    /// Whether the peer has ended the stream or the connection failed. No further event follows, so the
    /// socket is read until a read reports the end.
    is_ended: bool,
    /// Whether a read has reported the end of the stream: the socket is only written to from then on.
    is_read_out: bool,
    /// Whether the engine has paused input.
    is_paused: bool,
    /// Whether the socket is in the list of sockets to read.
    is_listed: bool,
    /// Bytes that the kernel has not taken yet.
    pending: Option<SendBuffer>,
}

/// A listener, and its number among the broker's listeners.
struct Accepting {
    number: u16,
    socket: AcceptingSocket,
}

enum AcceptingSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(mio::net::UnixListener),
}

impl Accepting {
    fn register(listener: Listener, registry: &Registry, token: Token) -> io::Result<Self> {
        let socket = match listener.socket {
            ListenerSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                let mut socket = TcpListener::from_std(socket);
                registry.register(&mut socket, token, Interest::READABLE)?;
                AcceptingSocket::Tcp(socket)
            }
            #[cfg(unix)]
            ListenerSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let mut socket = mio::net::UnixListener::from_std(socket);
                registry.register(&mut socket, token, Interest::READABLE)?;
                AcceptingSocket::Unix(socket)
            }
        };
        Ok(Self { number: listener.number, socket })
    }

    fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        match &self.socket {
            AcceptingSocket::Tcp(listener) => {
                listener.accept().map(|(stream, address)| (stream, Some(address)))
            }
            #[cfg(unix)]
            AcceptingSocket::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                // Reading, writing and shutting down work alike for Unix and TCP streams.
                let stream: std::net::TcpStream = std::os::fd::OwnedFd::from(stream).into();
                Ok((TcpStream::from_std(stream), None))
            }
        }
    }
}

/// One core's executor.
pub struct Executor {
    poll: Poll,
    core: Core<std::net::TcpStream>,
    /// By place; a place is free after its listener is gone.
    listeners: Vec<Option<Accepting>>,
    sockets: Vec<Option<Socket>>,
    lingerers: Lingerers,
    /// The sockets that use kernel TLS.
    kernel_tls: KernelTlsSockets,
    /// Sockets to read in this turn or the next.
    to_read: VecDeque<u32>,
    /// Listeners that may have pending connections.
    to_accept: Vec<usize>,
    /// When to retry accepting after no descriptor was free.
    accept_again: Option<Instant>,
}

impl crate::executor::Executor for Executor {
    type Socket = std::net::TcpStream;
    type Bootstrap = Poll;

    fn bootstraps(cores: u16) -> io::Result<Vec<(Poll, Waker)>> {
        let bootstrap = |_| {
            let poll = Poll::new()?;
            let waker = mio::Waker::new(poll.registry(), WAKE)?;
            Ok((poll, Waker::Poll(waker)))
        };
        (0..cores).map(bootstrap).collect()
    }

    fn open(parts: Parts<Self>) -> io::Result<Self> {
        let Parts { core, bootstrap: poll, listeners, .. } = parts;
        assert!(listeners.len() < CONNECTIONS - 1, "the configuration bounds the listeners");
        let mut own = Vec::new();
        for (place, listener) in listeners.into_iter().enumerate() {
            own.push(Some(Accepting::register(listener, poll.registry(), Token(1 + place))?));
        }
        Ok(Self {
            poll,
            core,
            to_accept: (0..own.len()).collect(),
            listeners: own,
            sockets: Vec::new(),
            lingerers: Lingerers::default(),
            kernel_tls: KernelTlsSockets::default(),
            to_read: VecDeque::new(),
            accept_again: None,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut buffer = vec![0; RECEIVE_BYTES].into_boxed_slice();
        while !self.core.is_stopping() {
            self.turn(&mut events, &mut buffer)?;
        }
        self.shut_down()?;
        self.listeners.clear();
        let until = Instant::now() + FLUSH_AT_STOP;
        while self.lingerers.has_unwritten() && Instant::now() < until {
            self.turn(&mut events, &mut buffer)?;
        }
        self.core.finish();
        Ok(())
    }
}

impl Executor {
    fn turn(&mut self, events: &mut Events, buffer: &mut [u8]) -> io::Result<()> {
        let timeout = self.timeout();
        let gathers = self.core.moderated_wait(timeout);
        if let Some(time) = gathers {
            std::thread::sleep(time);
        }
        let sleeps = gathers.is_none() && self.may_sleep(timeout);
        let polled = self.poll.poll(events, if sleeps { timeout } else { Some(Duration::ZERO) });
        if sleeps {
            self.core.wake_up();
        }
        // An interrupted poll returns no events, and a full list may not contain all.
        let mut is_all = match polled {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            Err(_) => false,
            Ok(()) => events.iter().take(EVENTS).count() < EVENTS,
        };
        self.core.begin_turn();
        self.core.noted.kernel_entries += 1;
        self.receive()?;
        for event in events.iter() {
            match event.token() {
                WAKE => {}
                Token(token) if token >= LINGERERS => self.lingerers.resume(token - LINGERERS),
                Token(token) if token >= CONNECTIONS => {
                    let slot = (token - CONNECTIONS) as u32;
                    let is_ended = event.is_read_closed() || event.is_error();
                    if is_ended {
                        self.note_ended(slot);
                    }
                    if event.is_readable() || is_ended {
                        self.note_readable(slot);
                    }
                    if event.is_writable() || event.is_error() {
                        self.write_pending(slot);
                    }
                }
                Token(token) => self.to_accept.push(token - 1),
            }
        }
        self.accept();
        for _ in 0..self.to_read.len() {
            // The remaining sockets come first in the next turn.
            if self.core.engine.has_spent_turn() {
                is_all = false;
                break;
            }
            let Some(slot) = self.to_read.pop_front() else { break };
            self.read(slot, buffer);
        }
        self.core.note_read(is_all);
        self.act()?;
        self.core.end_turn_with_wakers();
        Ok(())
    }

    /// The longest that the turn may wait for events.
    fn timeout(&mut self) -> Option<Duration> {
        if !self.to_read.is_empty() || !self.to_accept.is_empty() {
            return Some(Duration::ZERO);
        }
        let timer = self.core.timer();
        let now = Instant::now();
        let others = [self.lingerers.expire(now), self.accept_again];
        let other = others.into_iter().flatten().min();
        [timer, other.map(|at| at.saturating_duration_since(now))].into_iter().flatten().min()
    }

    fn accept(&mut self) {
        if let Some(again) = self.accept_again {
            if Instant::now() < again {
                return self.to_accept.clear();
            }
            self.accept_again = None;
            self.to_accept = (0..self.listeners.len()).collect();
        }
        for place in std::mem::take(&mut self.to_accept) {
            for accepted in 0.. {
                if accepted == ACCEPTS_PER_TURN {
                    self.to_accept.push(place);
                    break;
                }
                let Some(Some(listener)) = self.listeners.get(place) else { break };
                let number = listener.number;
                match listener.accept() {
                    Ok((stream, address)) => self.admit(stream, address, number),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if is_peers_fault(&error) => {}
                    Err(error) => return self.rest_from_accepting(&error),
                }
            }
        }
    }

    /// Suspends accepting, most likely because no descriptor is free. Existing connections are still served;
    /// new ones wait in the kernel's backlog.
    fn rest_from_accepting(&mut self, error: &io::Error) {
        rated!(warn, log_rate::now(), %error, "cannot accept connections; retrying shortly");
        self.core.noted.accepts_rested += 1;
        self.accept_again = Some(Instant::now() + ACCEPT_REST);
        self.to_accept.clear();
    }

    fn admit(&mut self, stream: TcpStream, address: Option<SocketAddr>, listener: u16) {
        let peer = Peer { address, listener };
        let Ok(id) = self.core.engine.handle_accepted(self.core.now, peer) else { return };
        // Turns already batch frames, so disable Nagle's algorithm. This may fail on a connection that is
        // already closed, which the first read detects, and on sockets other than TCP.
        let _ = stream.set_nodelay(true);
        self.watch(stream, id);
    }

    fn watch(&mut self, mut stream: TcpStream, id: ConnectionId) {
        let slot = id.slot as usize;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(CONNECTIONS + slot), interest)
        {
            rated!(warn, log_rate::now(), %error, "cannot register a new connection; closing it");
            return self.core.engine.handle_closed(self.core.now, id);
        }
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || None);
        }
        self.sockets[slot] = Some(Socket {
            stream,
            id,
            is_readable: false,
            is_ended: false,
            is_read_out: false,
            is_paused: false,
            is_listed: false,
            pending: None,
        });
        // The CONNECT packet has usually arrived already.
        self.note_readable(id.slot);
    }

    fn note_readable(&mut self, slot: u32) {
        let Some(Some(socket)) = self.sockets.get_mut(slot as usize) else { return };
        if socket.is_read_out {
            return;
        }
        socket.is_readable = true;
        if !socket.is_listed && !socket.is_paused {
            socket.is_listed = true;
            self.to_read.push_back(slot);
        }
    }

    fn note_ended(&mut self, slot: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(slot as usize) {
            socket.is_ended = true;
        }
    }

    /// Reads a socket once, and lists it again if there may be more input.
    fn read(&mut self, slot: u32, buffer: &mut [u8]) {
        let Some(Some(socket)) = self.sockets.get_mut(slot as usize) else { return };
        socket.is_listed = false;
        if socket.is_paused || !socket.is_readable {
            return;
        }
        let id = socket.id;
        match socket.stream.read(buffer) {
            Ok(0) => {
                (socket.is_readable, socket.is_read_out) = (false, true);
                self.core.engine.handle_ended(self.core.now, id);
            }
            Ok(bytes) => {
                // epoll(7): with edge-triggered readiness, a short read has emptied the socket except for
                // the end of the stream, which may have come with the same event. On other systems, and
                // with kernel TLS, only "would block" proves that the socket is empty.
                socket.is_readable = bytes == buffer.len()
                    || socket.is_ended
                    || !cfg!(target_os = "linux")
                    || self.kernel_tls.has(slot);
                if socket.is_readable {
                    socket.is_listed = true;
                    self.to_read.push_back(slot);
                }
                self.core.engine.handle_received(self.core.now, id, &buffer[..bytes]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => socket.is_readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.note_readable(slot),
            Err(error) if kernel::is_other_record(&error) && self.kernel_tls.has(slot) => {
                self.read_record(slot, buffer);
            }
            Err(_) => self.end(slot),
        }
    }

    /// Reads a TLS record other than application data; more may follow.
    fn read_record(&mut self, slot: u32, buffer: &mut [u8]) {
        let Some(Some(socket)) = self.sockets.get(slot as usize) else { return };
        let id = socket.id;
        match kernel::read_record(&socket.stream, buffer) {
            Ok((content_type, bytes)) => {
                self.note_readable(slot);
                let record = &buffer[..bytes];
                self.core.engine.handle_record(self.core.now, id, content_type, record);
            }
            Err(_) => self.end(slot),
        }
    }

    /// Handles a connection that the network ended.
    fn end(&mut self, slot: u32) {
        self.kernel_tls.remove(slot);
        if let Some(socket) = self.sockets[slot as usize].take() {
            self.core.engine.handle_closed(self.core.now, socket.id);
        }
    }

    fn socket(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        self.sockets.get_mut(id.slot as usize)?.as_mut().filter(|socket| socket.id == id)
    }

    fn write_pending(&mut self, slot: u32) {
        let Some(Some(socket)) = self.sockets.get_mut(slot as usize) else { return };
        let Some(mut buffer) = socket.pending.take() else { return };
        let id = socket.id;
        match write_some(&mut socket.stream, &mut buffer) {
            Ok(bytes) if buffer.is_empty() => {
                self.core.engine.handle_sent(self.core.now, id, bytes, Some(buffer));
            }
            Ok(bytes) => {
                self.core.noted.sends_waited += 1;
                socket.pending = Some(buffer);
                self.core.engine.handle_sent(self.core.now, id, bytes, None);
            }
            Err(_) => self.lose(slot),
        }
    }

    /// Handles a failed write: nothing can be written any more. Reading continues, because input may still be
    /// in the socket buffer.
    fn lose(&mut self, slot: u32) {
        let Some(Some(socket)) = self.sockets.get_mut(slot as usize) else { return };
        if socket.is_read_out {
            return self.end(slot);
        }
        self.core.engine.handle_deaf(self.core.now, socket.id);
        self.note_readable(slot);
    }
}

impl Sockets for Executor {
    type Socket = std::net::TcpStream;

    fn core(&mut self) -> &mut Core<std::net::TcpStream> {
        &mut self.core
    }

    fn listen(&mut self, listener: Listener) -> io::Result<()> {
        let free = self.listeners.iter().position(Option::is_none);
        let place = free.unwrap_or(self.listeners.len());
        assert!(place < CONNECTIONS - 1, "the configuration bounds the listeners");
        let (number, registry) = (listener.number, self.poll.registry());
        match Accepting::register(listener, registry, Token(1 + place)) {
            Ok(accepting) if place == self.listeners.len() => self.listeners.push(Some(accepting)),
            Ok(accepting) => self.listeners[place] = Some(accepting),
            Err(error) => {
                rated!(error, log_rate::now(), listener = number, %error, "cannot register a listener");
                return Ok(());
            }
        }
        self.to_accept.push(place);
        Ok(())
    }

    fn stop_listening(&mut self, number: u16) -> io::Result<()> {
        let is_it = |of: &Option<Accepting>| of.as_ref().is_some_and(|of| of.number == number);
        if let Some(place) = self.listeners.iter().position(is_it) {
            // The end of the socket ends its registration.
            self.listeners[place] = None;
        }
        Ok(())
    }

    fn adopt(&mut self, moving: Moving<std::net::TcpStream>) -> io::Result<()> {
        let Moving { socket, handed_over } = moving;
        if let Ok(id) = self.core.engine.handle_handed_over(self.core.now, *handed_over) {
            self.watch(TcpStream::from_std(socket), id);
        }
        Ok(())
    }

    fn adopt_dialed(&mut self, dialed: Dialed) -> io::Result<()> {
        let Dialed { socket, transport, bytes } = dialed;
        if let Ok(id) = self.core.engine.handle_dialed(self.core.now, transport, bytes) {
            self.watch(TcpStream::from_std(socket), id);
        }
        Ok(())
    }

    fn send(&mut self, id: ConnectionId, buffer: SendBuffer) -> io::Result<()> {
        if self.kernel_tls.spend(id.slot, buffer.len()) {
            self.core.engine.handle_spent(self.core.now, id);
        }
        if let Some(socket) = self.socket(id) {
            socket.pending = Some(buffer);
            self.write_pending(id.slot);
        }
        Ok(())
    }

    fn pause(&mut self, id: ConnectionId) -> io::Result<()> {
        if let Some(socket) = self.socket(id) {
            socket.is_paused = true;
        }
        Ok(())
    }

    fn resume(&mut self, id: ConnectionId) -> io::Result<()> {
        if let Some(socket) = self.socket(id) {
            socket.is_paused = false;
            if socket.is_readable {
                self.note_readable(id.slot);
            }
        }
        Ok(())
    }

    fn ask_progress(&mut self, id: ConnectionId) -> io::Result<()> {
        if self.socket(id).is_none() {
            return Ok(());
        }
        // There may be room that the kernel has not reported.
        self.write_pending(id.slot);
        if let Some(socket) = self.socket(id) {
            let unacknowledged = progress::unacknowledged(&socket.stream);
            self.core.engine.handle_progress(self.core.now, id, unacknowledged);
        }
        Ok(())
    }

    fn offload_tls(&mut self, id: ConnectionId) -> io::Result<()> {
        // Nothing is in progress between two calls.
        let Some(socket) = self.socket(id) else { return Ok(()) };
        if kernel::begin(&socket.stream).is_err() {
            self.core.engine.handle_offload_refused(self.core.now, id);
            return Ok(());
        }
        let Some(keys) = self.core.engine.take_keys(self.core.now, id) else { return Ok(()) };
        let Some(socket) = self.socket(id) else { return Ok(()) };
        let outcome = kernel::give_keys(&socket.stream, &keys);
        self.core.engine.handle_offloaded(&outcome);
        if outcome.is_err() {
            self.end(id.slot);
            return Ok(());
        }
        self.kernel_tls.add(id.slot);
        // Input that arrived before the keys is read with them.
        self.note_readable(id.slot);
        Ok(())
    }

    fn hand_over(
        &mut self,
        id: ConnectionId,
        to: CoreId,
        handed_over: Box<HandedOver>,
    ) -> io::Result<()> {
        if self.socket(id).is_none() {
            return Ok(());
        }
        let Some(mut socket) = self.sockets[id.slot as usize].take() else { return Ok(()) };
        match self.poll.registry().deregister(&mut socket.stream) {
            Ok(()) => self.core.mesh.move_socket(to, socket.stream.into(), handed_over),
            Err(error) => {
                rated!(warn, log_rate::now(), %error, "cannot move a connection to its home core; closing it");
            }
        }
        Ok(())
    }

    fn close(&mut self, id: ConnectionId, last: Option<SendBuffer>) -> io::Result<()> {
        if self.socket(id).is_none() {
            return Ok(());
        }
        let Some(socket) = self.sockets[id.slot as usize].take() else { return Ok(()) };
        let has_kernel_tls = self.kernel_tls.remove(id.slot);
        let rest: VecDeque<SendBuffer> = socket.pending.into_iter().chain(last).collect();
        if socket.is_read_out && rest.is_empty() && !has_kernel_tls {
            return Ok(()); // both sides have sent everything
        }
        let token = |index| Token(LINGERERS + index);
        self.lingerers.add(self.poll.registry(), socket.stream, rest, has_kernel_tls, token);
        Ok(())
    }
}

/// Writes until the buffer is empty or the kernel takes no more; returns the bytes written.
pub(super) fn write_some(stream: &mut TcpStream, buffer: &mut SendBuffer) -> io::Result<usize> {
    let mut written = 0;
    while !buffer.is_empty() {
        let mut slices = [IoSlice::new(&[]); IO_SLICES];
        let count = buffer.io_slices(&mut slices);
        let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        let result = match &slices[..count] {
            [one] => stream.write(one),
            several => stream.write_vectored(several),
        };
        match result {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                buffer.advance(bytes);
                written += bytes;
                // A short write filled the socket; only Linux promises an event after it.
                if bytes < offered && cfg!(target_os = "linux") {
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
