//! Connections of the `poll` executor that linger: see [`crate::executor::linger`].

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::base::send_buffer::SendBuffer;
use crate::executor::kernel_tls::kernel;
use crate::executor::linger::{Deadlines, LINGERING_MAX, LingerTime};
use crate::executor::poll::write_some;
use crate::executor::progress;

struct Lingering {
    stream: TcpStream,
    rest: VecDeque<SendBuffer>,
    linger_time: LingerTime,
    is_shut: bool,
    /// The kernel has the connection's TLS, and close_notify has not been sent yet.
    has_kernel_tls: bool,
}

/// All connections that linger.
#[derive(Default)]
pub(super) struct Lingerers {
    slots: Slab<Lingering>,
    deadlines: Deadlines<usize>,
}

impl Lingerers {
    /// Adds a connection with its last bytes, which the kernel encrypts if `has_kernel_tls`. `token` numbers the
    /// connection's events.
    pub fn add(
        &mut self,
        registry: &Registry,
        mut stream: TcpStream,
        rest: VecDeque<SendBuffer>,
        has_kernel_tls: bool,
        token: impl FnOnce(usize) -> Token,
    ) {
        if self.slots.len() >= LINGERING_MAX {
            return;
        }
        let entry = self.slots.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.reregister(&mut stream, token(entry.key()), interest).is_err() {
            return;
        }
        let (index, linger_time) = (entry.key(), LingerTime::new(Instant::now()));
        self.deadlines.add(&linger_time, index);
        entry.insert(Lingering { stream, rest, linger_time, is_shut: false, has_kernel_tls });
        self.resume(index);
        if let Some(lingering) = self.slots.get_mut(index) {
            lingering.note_unacknowledged();
        }
    }

    /// Writes and discards what is possible now; drops the connection when nothing is left to do.
    pub fn resume(&mut self, index: usize) {
        let is_done = self.slots.get_mut(index).is_some_and(|lingering| lingering.step());
        if is_done {
            self.slots.remove(index);
        }
    }

    /// Drops connections whose time is up; returns the next deadline.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((until, index)) = self.deadlines.take_passed(now) {
            let is_its = |lingering: &&mut Lingering| lingering.linger_time.until() == until;
            let Some(lingering) = self.slots.get_mut(index).filter(is_its) else { continue };
            lingering.note_unacknowledged();
            match lingering.linger_time.extend(now, !lingering.is_shut) {
                true => self.deadlines.add(&lingering.linger_time, index),
                false => drop(self.slots.remove(index)),
            }
        }
        self.deadlines.next()
    }

    /// Whether some still have bytes to write.
    pub fn has_unwritten(&self) -> bool {
        self.slots.iter().any(|(_, lingering)| !lingering.is_shut)
    }
}

impl Lingering {
    fn note_unacknowledged(&mut self) {
        if !self.is_shut {
            self.linger_time.note_unacknowledged(progress::unacknowledged(&self.stream));
        }
    }

    /// Whether nothing is left to do.
    fn step(&mut self) -> bool {
        while let Some(buffer) = self.rest.front_mut() {
            match write_some(&mut self.stream, buffer) {
                Ok(_) if buffer.is_empty() => drop(self.rest.pop_front()),
                Ok(bytes) => {
                    self.linger_time.note_written(bytes);
                    return false;
                }
                Err(_) => return true,
            }
        }
        if self.has_kernel_tls {
            match kernel::send_close_notify(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                _ => self.has_kernel_tls = false,
            }
        }
        if !self.is_shut {
            let _ = self.stream.flush();
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return true;
            }
            self.is_shut = true;
        }
        let mut scrap = [0; 4_096];
        loop {
            match self.stream.read(&mut scrap) {
                Ok(0) => return true,
                Ok(bytes) if self.linger_time.discard(bytes) => {}
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The peer can still read the last bytes, unless the socket is closed with input unread.
                Err(error) if kernel::is_unreadable(&error) => return false,
                Err(_) => return true,
            }
        }
    }
}
