//! Accepting: so many operations wait on each listener, each with room for the peer's address.
//!
//! A multishot accept would be one operation for all, but has no place for addresses, and a direct
//! descriptor cannot be asked for its peer before Linux 6.19. Each of these costs one submission
//! that rides with the turn's other ones.
#![expect(unsafe_code, reason = "the kernel writes addresses into this memory")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};
use socket2::{SockAddr, SockAddrStorage};

use super::operation::Operation;
use super::rings::Rings;
use crate::executor::{Listener, Listeners};

/// Operations that wait on each listener: connections accepted at most in a turn.
const DEPTH: usize = 64;

/// Where the kernel leaves one peer's address.
struct Address {
    storage: SockAddrStorage,
    len: libc::socklen_t,
    /// The ring that the operation waits in.
    ring: usize,
}

/// The listeners of a core, and what waits on them.
pub struct Accepts {
    listeners: Listeners,
    /// In place as long as the ring is there: the kernel has their addresses.
    addresses: Box<[Address]>,
}

impl Accepts {
    /// For these listeners; nothing waits yet.
    pub fn new(listeners: Listeners) -> Self {
        let count = listeners.len() * DEPTH;
        let address = || Address { storage: SockAddrStorage::zeroed(), len: 0, ring: 0 };
        Self { listeners, addresses: (0..count).map(|_| address()).collect() }
    }

    /// The numbers of all operations.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        0..self.addresses.len() as u32
    }

    /// The listener that operation `number` waits on; none once accepting has stopped.
    pub fn listener(&self, number: u32) -> Option<&Listener> {
        self.listeners.get(number as usize / DEPTH)
    }

    /// Lets operation `number` wait for a connection.
    pub fn submit(&mut self, rings: &mut Rings, number: u32) -> io::Result<()> {
        let Some(listener) = self.listener(number) else { return Ok(()) };
        let listener = types::Fd(listener.socket.as_raw_fd());
        let address = &mut self.addresses[number as usize];
        address.len = size_of::<SockAddrStorage>() as libc::socklen_t;
        let storage = (&raw mut address.storage).cast();
        let table = rings.is_direct().then(types::DestinationSlot::auto_target);
        // Those in the table of a ring are no other program's anyway.
        let flags = if rings.is_direct() { 0 } else { libc::SOCK_CLOEXEC };
        let (place, ring) = rings.accepting();
        address.ring = place;
        let entry = opcode::Accept::new(listener, storage, &raw mut address.len)
            .file_index(table)
            .flags(flags)
            .build()
            .user_data(Operation::Accept(number).user_data());
        // SAFETY: the address stays where it is until the rings are gone, and nobody looks at it
        // before the operation has completed.
        unsafe { ring.push(&entry) }
    }

    /// The ring whose table the connection that operation `number` accepted is in.
    pub fn ring(&self, number: u32) -> usize {
        self.addresses[number as usize].ring
    }

    /// Whom operation `number` accepted.
    pub fn peer(&self, number: u32) -> Option<SocketAddr> {
        let Address { storage, len, .. } = &self.addresses[number as usize];
        // SAFETY: the operation has completed: the kernel wrote an address of this length. It is
        // plain bytes, of which a copy is taken.
        unsafe { SockAddr::new(std::ptr::read(storage), *len) }.as_socket()
    }

    /// Leaves the memory to the kernel for good.
    pub fn abandon(&mut self) {
        std::mem::forget(std::mem::take(&mut self.addresses));
    }

    /// Accepts no more, and lets the ports go.
    pub fn stop(&mut self, rings: &mut Rings) -> io::Result<()> {
        for listener in self.listeners.drain(..) {
            listener.shut();
            let all = types::CancelBuilder::fd(types::Fd(listener.socket.as_raw_fd())).all();
            let entry =
                opcode::AsyncCancel2::new(all).build().user_data(Operation::Cancel(0).user_data());
            for ring in rings.each() {
                // SAFETY: it points to nothing.
                unsafe { ring.push(&entry) }?;
                // Before the descriptor is closed the kernel must have looked it up.
                ring.enter(Some(std::time::Duration::ZERO))?;
            }
        }
        Ok(())
    }
}
