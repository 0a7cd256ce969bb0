//! A bounded queue from one thread to one other, without a lock: a ring of slots, of which the
//! sender fills the tail and the receiver empties the head (Lamport, 1983). Each side keeps a copy
//! of the other's index and looks at the real one only when the copy says that nothing can be
//! done, so that in a busy ring an operation touches no cache line of the other side but the
//! slot's own.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::sync::{Arc, AtomicUsize, Cell};

/// On a cache line of its own, and on a pair of them where the hardware fetches pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Aligned<T>(pub(super) T);

#[derive(Debug)]
struct Shared<T> {
    /// Items taken so far. Written by the receiver alone.
    head: Aligned<AtomicUsize>,
    /// Items put in so far. Written by the sender alone.
    tail: Aligned<AtomicUsize>,
    /// As many as a power of two; an item's slot is its number modulo that. Those from `head` to
    /// `tail` hold an item.
    slots: Box<[Cell<MaybeUninit<T>>]>,
}

impl<T> Shared<T> {
    fn slot(&self, number: usize) -> &Cell<MaybeUninit<T>> {
        &self.slots[number & (self.slots.len() - 1)]
    }

    fn len(&self) -> usize {
        // The head first: it only grows towards the tail, so the difference is never negative.
        let head = self.head.0.load(Acquire);
        self.tail.0.load(Acquire).wrapping_sub(head)
    }
}

// SAFETY: items go from one thread to another, hence `T: Send`; a reference to a ring gives access
// to no item, as only the one sender and the one receiver reach into slots, by `&mut self`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; dropping a ring drops its items, on whichever thread.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.0.load(Relaxed), self.tail.0.load(Relaxed));
        let mut number = head;
        while number != tail {
            // SAFETY: between head and tail every slot holds an item, and nobody else is left.
            self.slot(number).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            number = number.wrapping_add(1);
        }
    }
}

/// The end that puts items in.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The head when last looked at.
    head_seen: usize,
}

/// The end that takes items out.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The tail when last looked at.
    tail_seen: usize,
}

/// A ring for `capacity` items, rounded up to a power of two, and at least one.
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
    /// Puts an item in; gives it back when there is no room.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the slot is outside head..tail, so the receiver does not touch it, and what
            // was in it has been taken: `is_full` saw the head past it, with Acquire.
            unsafe { (*slot).write(item) };
        });
        self.tail = self.tail.wrapping_add(1);
        // Release: whoever sees this tail sees the item in its slot.
        self.shared.tail.0.store(self.tail, Release);
        Ok(())
    }

    /// Whether there is no room.
    pub fn is_full(&mut self) -> bool {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) < capacity {
            return false;
        }
        // Acquire: the receiver has moved the item out before it moved the head.
        self.head_seen = self.shared.head.0.load(Acquire);
        self.tail.wrapping_sub(self.head_seen) == capacity
    }

    /// Items in the ring.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest item out.
    pub fn pop(&mut self) -> Option<T> {
        if !self.has_item() {
            return None;
        }
        let item = self.shared.slot(self.head).with_mut(|slot| {
            // SAFETY: the slot is within head..tail: it holds an item, which `has_item` saw with
            // Acquire, and the sender leaves it alone until the head has moved on.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        // Release: whoever sees this head may write to the slot, after our read.
        self.shared.head.0.store(self.head, Release);
        Some(item)
    }

    /// Whether there is something to take.
    pub fn has_item(&mut self) -> bool {
        if self.head == self.tail_seen {
            // Acquire: see the items that came with this tail.
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

    /// Items in the ring.
    pub fn len(&self) -> usize {
        self.shared.len()
    }
}
