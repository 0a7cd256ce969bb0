//! The buffers a ring receives into: the kernel picks one when bytes have come, so that an idle
//! connection holds none. io_uring_register_buf_ring(3).
//!
//! Where the kernel can (6.12), it fills a buffer from several receptions side by side and keeps it
//! until it is full; before, a reception takes a whole buffer, however short.
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

/// The number by which receptions name this group of buffers.
pub const GROUP: u16 = 0;

/// Memory the kernel asks to begin on a page.
const PAGE_BYTES: usize = 4_096;

/// The buffers of one ring.
pub struct Buffers {
    /// Entries of the ring that tells the kernel of free buffers.
    entries: NonNull<BufRingEntry>,
    /// The buffers, side by side.
    memory: NonNull<u8>,
    count: u16,
    bytes: usize,
    /// Where the kernel goes on in each buffer.
    filled: Box<[usize]>,
    /// Buffers given to the kernel so far, in the ring's own arithmetic.
    tail: u16,
    is_incremental: bool,
    is_abandoned: bool,
}

impl Buffers {
    /// `count` buffers, a power of two, of `bytes` each, registered with `ring`.
    pub fn new(ring: &Ring, count: u16, bytes: usize, incremental: bool) -> io::Result<Self> {
        assert!(count.is_power_of_two() && bytes > 0, "the configuration says so");
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
        // SAFETY: the entries live as long as `self`, whose owners drop it after the ring.
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

    /// Whether several receptions share a buffer.
    pub fn is_incremental(&self) -> bool {
        self.is_incremental
    }

    fn entries_layout(count: u16) -> Layout {
        Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(PAGE_BYTES))
            .expect("a small size")
    }

    fn memory_layout(count: u16, bytes: usize) -> Layout {
        Layout::from_size_align(usize::from(count) * bytes, PAGE_BYTES).expect("a bounded size")
    }

    /// The bytes a reception brought.
    pub fn received(&self, completion: &Completion) -> &[u8] {
        let Some(buffer) = cqueue::buffer_select(completion.flags) else { return &[] };
        let at = usize::from(buffer) * self.bytes + self.filled[usize::from(buffer)];
        let len = completion.result.max(0) as usize;
        assert!(at + len <= usize::from(self.count) * self.bytes, "the kernel keeps to the buffer");
        // SAFETY: within the memory, which was zeroed at first; the kernel writes no more to these
        // bytes once it has told of them, until the buffer is put back.
        unsafe { slice::from_raw_parts(self.memory.as_ptr().add(at), len) }
    }

    /// The bytes of a reception are used: its buffer goes back to the kernel when it is through
    /// with it. [`Self::publish`] says so.
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
        // SAFETY: an entry within the ring that is ours until the tail passes it; the ring's tail
        // lies over the first entry's spare bytes, which `set_*` leave alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.memory.as_ptr().add(usize::from(buffer) * self.bytes) as u64);
            entry.set_len(self.bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Leaves the memory to the kernel for good: a reception that nobody could end may write to it.
    pub fn abandon(&mut self) {
        self.is_abandoned = true;
    }

    /// Lets the kernel have the buffers that were put back.
    pub fn publish(&mut self) {
        // SAFETY: the ring's tail is a 16-bit number within the first entry, which the kernel
        // reads meanwhile: hence atomic. Release: it sees the entries before the tail.
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
        // SAFETY: allocated with these layouts; the ring that used them is gone.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.bytes));
        }
    }
}

/// Memory of zeroes, there from the beginning and near to the calling thread: it is touched.
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no size here is zero.
    let memory = NonNull::new(unsafe { alloc(layout) });
    let memory = memory.unwrap_or_else(|| handle_alloc_error(layout));
    // SAFETY: it was just allocated with this size.
    unsafe { memory.as_ptr().write_bytes(0, layout.size()) };
    memory
}
