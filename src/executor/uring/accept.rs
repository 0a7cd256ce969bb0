//! Accepts connections: a fixed number of accept operations is pending on each listener, each with its own
//! buffer for the peer's address.
//!
//! A multishot accept would need only one operation, but it reports no addresses, and the peer of a direct
//! descriptor cannot be queried before Linux 6.19. Each accept costs one submission, batched with the other
//! submissions of the turn.
#![expect(unsafe_code, reason = "the kernel writes addresses into this memory")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};
use socket2::{SockAddr, SockAddrStorage};

use super::operation::Operation;
use super::rings::Rings;
use crate::executor::{Listener, Listeners};

/// Pending accept operations per listener: the most connections accepted in a turn.
const DEPTH: usize = 64;

/// Buffer into which the kernel writes one peer's address.
struct Address {
    storage: SockAddrStorage,
    len: libc::socklen_t,
    /// The ring that the operation is pending on.
    ring: usize,
}

/// The listeners of a core, and the accept operations pending on them.
pub struct Accepts {
    listeners: Listeners,
    /// Never moved while the ring exists: the kernel holds pointers into this memory.
    addresses: Box<[Address]>,
}

impl Accepts {
    /// Creates the state for these listeners; no operation is submitted yet.
    pub fn new(listeners: Listeners) -> Self {
        let count = listeners.len() * DEPTH;
        let address = || Address { storage: SockAddrStorage::zeroed(), len: 0, ring: 0 };
        Self { listeners, addresses: (0..count).map(|_| address()).collect() }
    }

    /// The numbers of all accept operations.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        0..self.addresses.len() as u32
    }

    /// The listener of operation `number`; `None` once accepting has stopped.
    pub fn listener(&self, number: u32) -> Option<&Listener> {
        self.listeners.get(number as usize / DEPTH)
    }

    /// Submits accept operation `number`.
    pub fn submit(&mut self, rings: &mut Rings, number: u32) -> io::Result<()> {
        let Some(listener) = self.listener(number) else { return Ok(()) };
        let listener = types::Fd(listener.socket.as_raw_fd());
        let address = &mut self.addresses[number as usize];
        address.len = size_of::<SockAddrStorage>() as libc::socklen_t;
        let storage = (&raw mut address.storage).cast();
        let table = rings.is_direct().then(types::DestinationSlot::auto_target);
        // Direct descriptors are never inherited by child processes.
        let flags = if rings.is_direct() { 0 } else { libc::SOCK_CLOEXEC };
        let (place, ring) = rings.accepting();
        address.ring = place;
        let entry = opcode::Accept::new(listener, storage, &raw mut address.len)
            .file_index(table)
            .flags(flags)
            .build()
            .user_data(Operation::Accept(number).user_data());
        // SAFETY: the address buffer is not moved until the rings are dropped, and it is not read
        // before the operation has completed.
        unsafe { ring.push(&entry) }
    }

    /// The ring whose table holds the connection accepted by operation `number`.
    pub fn ring(&self, number: u32) -> usize {
        self.addresses[number as usize].ring
    }

    /// The address of the peer accepted by operation `number`.
    pub fn peer(&self, number: u32) -> Option<SocketAddr> {
        let Address { storage, len, .. } = &self.addresses[number as usize];
        // SAFETY: the operation has completed, so the kernel has written an address of this length. The
        // storage is plain bytes and is copied.
        unsafe { SockAddr::new(std::ptr::read(storage), *len) }.as_socket()
    }

    /// Leaks the memory, because the kernel may still write to it.
    pub fn abandon(&mut self) {
        std::mem::forget(std::mem::take(&mut self.addresses));
    }

    /// Stops accepting and closes the listeners.
    pub fn stop(&mut self, rings: &mut Rings) -> io::Result<()> {
        for listener in self.listeners.drain(..) {
            listener.shut();
            let all = types::CancelBuilder::fd(types::Fd(listener.socket.as_raw_fd())).all();
            let entry =
                opcode::AsyncCancel2::new(all).build().user_data(Operation::Cancel(0).user_data());
            for ring in rings.each() {
                // SAFETY: the entry points to no memory.
                unsafe { ring.push(&entry) }?;
                // The kernel must look the descriptor up before it is closed.
                ring.enter(Some(std::time::Duration::ZERO))?;
            }
        }
        Ok(())
    }
}
