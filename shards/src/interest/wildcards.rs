//! Filters with wildcards, and shared subscriptions: two copies, of which the readers have one and the writer the other. Changes are
//! made in the writer's copy, the copies are exchanged, and once no reader is left in the other copy, it is changed in the
//! same way.

#![allow(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Class;
use super::epochs::{Epochs, Pin};
use crate::replica::Replica;
use crate::sync::{AtomicUsize, Cell};
use crate::topic::TopicFilter;

/// A change of both copies.
#[derive(Debug)]
pub(super) enum Change {
    Announce { node: u16, filter: Box<str>, class: Class },
    Withdraw { node: u16, filter: Box<str> },
}

impl Change {
    fn apply(&self, to: &mut Replica) {
        // Announced filters have been checked by the node that announces them; others are left out.
        let parsed = |text| TopicFilter::parse(text, usize::MAX);
        match self {
            Self::Announce { node, filter, class } => {
                if let Ok(filter) = parsed(filter) {
                    to.announce_wildcard_of_class(*node, &filter, *class as u8);
                }
            }
            Self::Withdraw { node, filter } => to.withdraw_wildcard(*node, filter),
        }
    }
}

/// The copies.
#[derive(Debug)]
pub(super) struct Wildcards {
    copies: [Cell<Replica>; 2],
    /// The copy of the readers. Changed by the writer alone.
    current: AtomicUsize,
}

// SAFETY: the current copy is only read, by any thread; the other one is accessed by the writer alone, after all readers have
// left it (`Epochs::is_over`).
unsafe impl Sync for Wildcards where Replica: Sync {}

impl Wildcards {
    pub fn new(seed: u64) -> Self {
        let copies = [(); 2].map(|()| Cell::new(Replica::new(seed)));
        Self { copies, current: AtomicUsize::new(0) }
    }

    /// Reads the copy of the readers.
    pub fn read<R>(&self, _pin: &Pin<'_>, f: impl FnOnce(&Replica) -> R) -> R {
        let current = self.current.load(Acquire);
        // SAFETY: a pinned reader that loads this number keeps the writer from changing the copy.
        self.copies[current].with(|copy| f(unsafe { &*copy }))
    }
}

/// What the one thread that writes knows of the copies.
#[derive(Debug, Default)]
pub(super) struct WildcardsWriter {
    /// Changes that the readers' copy has and the other one has not.
    behind: Vec<Change>,
    /// Changes that neither copy has.
    new: Vec<Change>,
    /// The epoch in which the readers had the copy that is the writer's now.
    left: Option<usize>,
    bytes: usize,
}

impl WildcardsWriter {
    pub fn add(&mut self, change: Change) {
        self.new.push(change);
    }

    /// Shows the changes to the readers; false if readers are still in the other copy.
    pub fn publish(&mut self, wildcards: &Wildcards, epochs: &Epochs) -> bool {
        if self.left.is_some_and(|epoch| !epochs.is_over(epoch)) {
            return self.new.is_empty();
        }
        self.left = None;
        if self.behind.is_empty() && self.new.is_empty() {
            return true;
        }
        let current = wildcards.current.load(Relaxed);
        wildcards.copies[1 - current].with_mut(|copy| {
            // SAFETY: the copy that the readers do not have; those that had it have left it.
            let copy = unsafe { &mut *copy };
            self.behind.iter().chain(&self.new).for_each(|change| change.apply(copy));
            self.bytes = copy.heap_bytes();
        });
        self.behind.clear();
        if !self.new.is_empty() {
            // Release: whoever reads the number sees the changes.
            wildcards.current.store(1 - current, Release);
            self.left = Some(epochs.end());
            std::mem::swap(&mut self.behind, &mut self.new);
        }
        true
    }

    /// Bytes of memory of both copies.
    pub fn heap_bytes(&self) -> usize {
        2 * self.bytes
    }
}
