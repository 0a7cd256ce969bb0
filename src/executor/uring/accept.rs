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

/// A listener, and the accept operations pending on it.
struct Place {
    /// None once accepting has stopped.
    listener: Option<Listener>,
    /// Never moved while the ring exists: the kernel holds pointers into this memory.
    addresses: Box<[Address]>,
    /// Operations that the kernel has not completed. Without any, the place can be used by another listener.
    pending: usize,
}

impl Place {
    fn new(listener: Listener) -> Self {
        let address = |_| Address { storage: SockAddrStorage::zeroed(), len: 0, ring: 0 };
        Self { listener: Some(listener), addresses: (0..DEPTH).map(address).collect(), pending: 0 }
    }
}

/// The listeners of a core.
pub struct Accepts(Vec<Place>);

impl Accepts {
    /// Creates the state for these listeners; no operation is submitted yet.
    pub fn new(listeners: Listeners) -> Self {
        Self(listeners.into_iter().map(Place::new).collect())
    }

    /// The numbers of all accept operations.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        0..(self.0.len() * DEPTH) as u32
    }

    /// Adds a listener; the numbers of its operations, of which none is submitted yet.
    pub fn add(&mut self, listener: Listener) -> std::ops::Range<u32> {
        let is_free = |place: &Place| place.listener.is_none() && place.pending == 0;
        let place = match self.0.iter().position(is_free) {
            Some(place) => {
                self.0[place].listener = Some(listener);
                place
            }
            None => {
                self.0.push(Place::new(listener));
                self.0.len() - 1
            }
        };
        let first = (place * DEPTH) as u32;
        first..first + DEPTH as u32
    }

    /// The number of the listener of an operation; `None` once accepting has stopped.
    pub fn listener(&self, number: u32) -> Option<u16> {
        self.0[number as usize / DEPTH].listener.as_ref().map(|listener| listener.number)
    }

    fn address(&self, number: u32) -> &Address {
        &self.0[number as usize / DEPTH].addresses[number as usize % DEPTH]
    }

    /// Submits accept operation `number`.
    pub fn submit(&mut self, rings: &mut Rings, number: u32) -> io::Result<()> {
        let place = &mut self.0[number as usize / DEPTH];
        let Some(listener) = &place.listener else { return Ok(()) };
        let listener = types::Fd(listener.socket.as_raw_fd());
        let address = &mut place.addresses[number as usize % DEPTH];
        address.len = size_of::<SockAddrStorage>() as libc::socklen_t;
        let storage = (&raw mut address.storage).cast();
        let table = rings.is_direct().then(types::DestinationSlot::auto_target);
        // Direct descriptors are never inherited by child processes.
        let flags = if rings.is_direct() { 0 } else { libc::SOCK_CLOEXEC };
        let (at, ring) = rings.accepting();
        address.ring = at;
        let entry = opcode::Accept::new(listener, storage, &raw mut address.len)
            .file_index(table)
            .flags(flags)
            .build()
            .user_data(Operation::Accept(number).user_data());
        // SAFETY: the address buffer is not moved until the rings are dropped, and it is not read
        // before the operation has completed.
        unsafe { ring.push(&entry) }?;
        place.pending += 1;
        Ok(())
    }

    /// An accept operation has completed.
    pub fn completed(&mut self, number: u32) {
        self.0[number as usize / DEPTH].pending -= 1;
    }

    /// The ring whose table holds the connection accepted by operation `number`.
    pub fn ring(&self, number: u32) -> usize {
        self.address(number).ring
    }

    /// The address of the peer accepted by operation `number`.
    pub fn peer(&self, number: u32) -> Option<SocketAddr> {
        let Address { storage, len, .. } = self.address(number);
        // SAFETY: the operation has completed, so the kernel has written an address of this length. The
        // storage is plain bytes and is copied.
        unsafe { SockAddr::new(std::ptr::read(storage), *len) }.as_socket()
    }

    /// Leaks the memory, because the kernel may still write to it.
    pub fn abandon(&mut self) {
        std::mem::forget(std::mem::take(&mut self.0));
    }

    /// Stops accepting and closes the listeners: the one with a number, or all.
    pub fn stop(&mut self, rings: &mut Rings, number: Option<u16>) -> io::Result<()> {
        for place in &mut self.0 {
            let is_it = |of: &mut Listener| number.is_none_or(|number| of.number == number);
            let Some(listener) = place.listener.take_if(is_it) else { continue };
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
