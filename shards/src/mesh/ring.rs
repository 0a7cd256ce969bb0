//! A bounded single-producer, single-consumer queue without locks: a ring of slots in which the
//! sender advances the tail and the receiver the head (Lamport, 1983). Each side caches the other's
//! index and reads the real one only if the cached value blocks it, so that in a busy ring an
//! operation touches no cache line of the other side except the slot's.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{Aligned, Arc, AtomicUsize, Cell};

#[derive(Debug)]
struct Shared<T> {
    /// Number of items received. Written by the receiver alone.
    head: Aligned<AtomicUsize>,
    /// Number of items sent. Written by the sender alone.
    tail: Aligned<AtomicUsize>,
    /// The slots, whose number is a power of two; an item's slot is its number modulo that. The
    /// slots from `head` to `tail` contain an item.
    slots: Box<[Cell<MaybeUninit<T>>]>,
}

impl<T> Shared<T> {
    fn slot(&self, number: usize) -> &Cell<MaybeUninit<T>> {
        &self.slots[number & (self.slots.len() - 1)]
    }

    fn len(&self) -> usize {
        // The head is read first: it only grows towards the tail, so the difference is never
        // negative.
        let head = self.head.0.load(Acquire);
        self.tail.0.load(Acquire).wrapping_sub(head)
    }
}

// SAFETY: items move between threads, hence `T: Send`; a reference to a ring gives no access to
// items, as only the one sender and the one receiver access slots, through `&mut self`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; dropping a ring drops its items, on whichever thread.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.0.load(Relaxed), self.tail.0.load(Relaxed));
        let mut number = head;
        while number != tail {
            // SAFETY: between head and tail every slot contains an item, and there are no other
            // owners.
            self.slot(number).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            number = number.wrapping_add(1);
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The cached head.
    head_seen: usize,
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The cached tail.
    tail_seen: usize,
}

/// A ring for `capacity` items, rounded up to a power of two, at least one.
pub fn ring<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let shared = Arc::new(Shared {
        head: Aligned(AtomicUsize::new(0)),
        tail: Aligned(AtomicUsize::new(0)),
        slots: (0..capacity).map(|_| Cell::new(MaybeUninit::uninit())).collect(),
    });
    let sender = Sender { shared: Arc::clone(&shared), tail: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, tail_seen: 0 })
}

impl<T> Sender<T> {
    /// Sends an item; returns it if there is no room.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the slot is outside head..tail, so the receiver does not access it, and its
            // previous item has been received: `is_full` saw the head past it, with Acquire.
            unsafe { (*slot).write(item) };
        });
        self.tail = self.tail.wrapping_add(1);
        // Release: a thread that sees this tail sees the item in its slot.
        self.shared.tail.0.store(self.tail, Release);
        Ok(())
    }

    /// Whether there is no room.
    pub fn is_full(&mut self) -> bool {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) < capacity {
            return false;
        }
        // Acquire: the receiver moved the item out before it advanced the head.
        self.head_seen = self.shared.head.0.load(Acquire);
        self.tail.wrapping_sub(self.head_seen) == capacity
    }

    /// Number of items in the ring.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether the ring is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Receiver<T> {
    /// Receives the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        if !self.has_item() {
            return None;
        }
        let item = self.shared.slot(self.head).with_mut(|slot| {
            // SAFETY: the slot is within head..tail: it contains an item, which `has_item` saw with
            // Acquire, and the sender does not access it until the head has advanced.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        // Release: a thread that sees this head may write to the slot, after this read.
        self.shared.head.0.store(self.head, Release);
        Some(item)
    }

    /// Whether there is an item to receive.
    pub fn has_item(&mut self) -> bool {
        if self.head == self.tail_seen {
            // Acquire: makes the items before this tail visible.
            self.tail_seen = self.shared.tail.0.load(Acquire);
        }
        self.head != self.tail_seen
    }

    /// Whether the ring is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room for the sender.
    pub fn is_full(&self) -> bool {
        self.len() == self.shared.slots.len()
    }

    /// Number of items in the ring.
    pub fn len(&self) -> usize {
        self.shared.len()
    }
}
