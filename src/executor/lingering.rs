//! Connections the engine is done with, until the peer has read the last bytes.
//!
//! Closing a socket with unread input makes the kernel reset the connection, and the peer may never
//! see the CONNACK or DISCONNECT that says why. So the last bytes are written, our side is shut,
//! and input is discarded until the peer closes too, within bounds (RFC 1122, 4.2.2.13).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::base::send_buffer::SendBuffer;
use crate::executor::kernel_tls::kernel;
use crate::executor::poll::write_some;
use crate::executor::{LINGER, LINGERING_MAX, LINGERS_MAX};

/// Input discarded at most.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

struct Lingering {
    stream: TcpStream,
    rest: VecDeque<SendBuffer>,
    until: Instant,
    /// It has taken something since it was looked at, and how often it was.
    has_taken: bool,
    looks: u8,
    discarded: usize,
    is_shut: bool,
    /// Its TLS is the kernel's, which has not been told yet that nothing follows.
    is_sealed: bool,
}

/// All that linger.
#[derive(Default)]
pub(super) struct Lingerers {
    slots: Slab<Lingering>,
    /// Deadlines in the order they come.
    deadlines: VecDeque<(Instant, usize)>,
}

impl Lingerers {
    /// Takes over a connection with what is still to be written to it, by the kernel's TLS if
    /// `is_sealed`. `token` numbers its events.
    pub fn add(
        &mut self,
        registry: &Registry,
        mut stream: TcpStream,
        rest: VecDeque<SendBuffer>,
        is_sealed: bool,
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
        let (index, until) = (entry.key(), Instant::now() + LINGER);
        entry.insert(Lingering {
            stream,
            rest,
            until,
            has_taken: false,
            looks: 0,
            discarded: 0,
            is_shut: false,
            is_sealed,
        });
        self.deadlines.push_back((until, index));
        self.go_on(index);
    }

    /// Writes and discards what it can; forgets the connection when it is through.
    pub fn go_on(&mut self, index: usize) {
        let is_done = self.slots.get_mut(index).is_some_and(|lingering| lingering.step());
        if is_done {
            self.slots.remove(index);
        }
    }

    /// Drops those whose time is up; returns when the next one's is.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some(&(until, index)) = self.deadlines.front() {
            if until > now {
                return Some(until);
            }
            self.deadlines.pop_front();
            let is_its = |lingering: &&mut Lingering| lingering.until == until;
            let Some(lingering) = self.slots.get_mut(index).filter(is_its) else { continue };
            match lingering.is_to_stay() {
                true => {
                    lingering.until = now + LINGER;
                    self.deadlines.push_back((lingering.until, index));
                }
                false => drop(self.slots.remove(index)),
            }
        }
        None
    }

    /// Whether some still have bytes to write.
    pub fn has_unwritten(&self) -> bool {
        self.slots.iter().any(|(_, lingering)| !lingering.is_shut)
    }
}

impl Lingering {
    /// Whether it has more time: it still has bytes to take, and takes some.
    fn is_to_stay(&mut self) -> bool {
        self.looks += 1;
        std::mem::take(&mut self.has_taken) && !self.is_shut && self.looks < LINGERS_MAX
    }

    /// True when there is nothing left to do.
    fn step(&mut self) -> bool {
        while let Some(buffer) = self.rest.front_mut() {
            match write_some(&mut self.stream, buffer) {
                Ok(_) if buffer.is_empty() => drop(self.rest.pop_front()),
                Ok(bytes) => {
                    self.has_taken |= bytes > 0;
                    return false;
                }
                Err(_) => return true,
            }
        }
        if self.is_sealed {
            match kernel::say_end(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                _ => self.is_sealed = false,
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
        while self.discarded < DISCARDED_BYTES_MAX {
            match self.stream.read(&mut scrap) {
                Ok(0) => return true,
                Ok(bytes) => self.discarded += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The peer is to read our last word all the same, and may not if the socket is closed
                // with bytes unread: it stays for its time.
                Err(error) if kernel::is_unreadable(&error) => return false,
                Err(_) => return true,
            }
        }
        true
    }
}
