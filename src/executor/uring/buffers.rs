//! Provided receive buffers of a ring: the kernel picks one when data arrives, so idle connections hold no
//! buffer. See io_uring_register_buf_ring(3).
//!
//! Since Linux 6.12 the kernel can consume a buffer incrementally: several receives share it until it is
//! full. On older kernels each receive takes a whole buffer, however short the data.
#![expect(unsafe_code, reason = "the kernel writes into this memory")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::cqueue;
use io_uring::types::BufRingEntry;

use super::ring::{Completion, Ring};

/// `IOU_PBUF_RING_INC` of io_uring_register_buf_ring(3).
const INCREMENTAL: u16 = 2;

/// The buffer group ID that receive operations use.
pub const GROUP: u16 = 0;

/// Alignment the kernel requires for the buffer ring.
const PAGE_BYTES: usize = 4_096;

/// The buffers of one ring.
pub struct Buffers {
    /// Entries of the buffer ring, which lists the free buffers for the kernel.
    entries: NonNull<BufRingEntry>,
    /// The buffers, contiguous.
    memory: NonNull<u8>,
    count: u16,
    bytes: usize,
    /// Bytes of each buffer that the kernel has already filled.
    filled: Box<[usize]>,
    /// The tail of the buffer ring: buffers given to the kernel so far, modulo 2^16.
    tail: u16,
    is_incremental: bool,
    is_abandoned: bool,
}

impl Buffers {
    /// Registers `count` buffers, a power of two, of `bytes` each with `ring`.
    pub fn new(ring: &Ring, count: u16, bytes: usize, incremental: bool) -> io::Result<Self> {
        assert!(count.is_power_of_two() && bytes > 0, "the configuration ensures this");
        let mut buffers = Self {
            entries: allocate(Self::entries_layout(count)).cast(),
            memory: allocate(Self::memory_layout(count, bytes)),
            count,
            bytes,
            filled: vec![0; usize::from(count)].into(),
            tail: 0,
            is_incremental: incremental,
            is_abandoned: false,
        };
        buffers.register(ring)?;
        (0..count).for_each(|buffer| buffers.put(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn register(&mut self, ring: &Ring) -> io::Result<()> {
        let (address, submitter) = (self.entries.as_ptr() as u64, ring.submitter());
        // SAFETY: the entries live as long as `self`, which its owner drops after the ring.
        let register = |flags| unsafe {
            submitter.register_buf_ring_with_flags(address, self.count, GROUP, flags)
        };
        if self.is_incremental {
            match register(INCREMENTAL) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                outcome => return outcome,
            }
            self.is_incremental = false;
        }
        register(0)
    }

    /// Whether several receives share a buffer.
    pub fn is_incremental(&self) -> bool {
        self.is_incremental
    }

    /// Short receives for which there is room together, where it is known.
    pub fn receives_max(&self) -> Option<u32> {
        (!self.is_incremental).then_some(self.count.into())
    }

    fn entries_layout(count: u16) -> Layout {
        Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(PAGE_BYTES))
            .expect("a small size")
    }

    fn memory_layout(count: u16, bytes: usize) -> Layout {
        Layout::from_size_align(usize::from(count) * bytes, PAGE_BYTES).expect("a bounded size")
    }

    /// The bytes that a receive completion refers to.
    pub fn received(&self, completion: &Completion) -> &[u8] {
        let Some(buffer) = cqueue::buffer_select(completion.flags) else { return &[] };
        let at = usize::from(buffer) * self.bytes + self.filled[usize::from(buffer)];
        let len = completion.result.max(0) as usize;
        assert!(
            at + len <= usize::from(self.count) * self.bytes,
            "the kernel stays within the buffer"
        );
        // SAFETY: the range lies within the memory, which was zeroed when allocated; the kernel does not
        // write to completed bytes until the buffer is put back.
        unsafe { slice::from_raw_parts(self.memory.as_ptr().add(at), len) }
    }

    /// Releases the bytes of a receive completion. The buffer is returned once the kernel has finished
    /// filling it; [`Self::publish`] makes that visible to the kernel.
    pub fn used(&mut self, completion: &Completion) {
        let Some(buffer) = cqueue::buffer_select(completion.flags) else { return };
        if self.is_incremental && cqueue::buffer_more(completion.flags) {
            self.filled[usize::from(buffer)] += completion.result.max(0) as usize;
        } else {
            self.filled[usize::from(buffer)] = 0;
            self.put(buffer);
        }
    }

    fn put(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: the entry lies within the ring and belongs to this thread until the tail passes it. The
        // ring's tail overlaps the reserved bytes of the first entry, which `set_*` do not touch.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.memory.as_ptr().add(usize::from(buffer) * self.bytes) as u64);
            entry.set_len(self.bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Leaks the memory on drop, because a receive that could not be cancelled may still write to it.
    pub fn abandon(&mut self) {
        self.is_abandoned = true;
    }

    /// Makes the returned buffers visible to the kernel.
    pub fn publish(&mut self) {
        // SAFETY: the ring's tail is a 16-bit number within the first entry. The kernel reads it
        // concurrently, so the store is atomic; Release orders the entries before the tail.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr());
            (*tail.cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.is_abandoned {
            return;
        }
        // SAFETY: allocated with these layouts; the ring that used them has been dropped.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.bytes));
        }
    }
}

/// Allocates zeroed memory. Writing it faults the pages in now, on the NUMA node of the calling thread.
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout used here has size zero.
    let memory = NonNull::new(unsafe { alloc(layout) });
    let memory = memory.unwrap_or_else(|| handle_alloc_error(layout));
    // SAFETY: the memory was just allocated with this size.
    unsafe { memory.as_ptr().write_bytes(0, layout.size()) };
    memory
}
