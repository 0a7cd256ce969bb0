//! What says itself how much memory it holds, kept on the ledger of its core: it can be changed only
//! through a guard that settles the account.

use std::ops::{Deref, DerefMut};

use crate::resources::gauges::Ledger;

pub use shards::heap;

/// What is the broker's own, and not charged: an index that is as good as empty holds something too.
pub const OWN_BYTES: usize = 64 * 1024;

/// Something that knows what it holds, at once.
pub trait HeapBytes {
    /// Bytes of memory that it holds.
    fn heap_bytes(&self) -> usize;
}

impl HeapBytes for shards::SubscriptionIndex {
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
}

impl HeapBytes for shards::Replica {
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
}

impl<T> HeapBytes for shards::RetainedIndex<T> {
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Weighed<T> {
    inner: T,
    /// What of it is on the ledger.
    charged: usize,
    ledger: Ledger,
}

impl<T: HeapBytes> Weighed<T> {
    /// Charges what it holds already.
    pub fn new(inner: T, ledger: Ledger) -> Self {
        let mut weighed = Self { inner, charged: 0, ledger };
        weighed.settle();
        weighed
    }

    /// To change it: what it holds then is charged when the guard is dropped.
    pub fn edit(&mut self) -> Edit<'_, T> {
        Edit(self)
    }

    /// For a change that takes no memory and gives none back.
    pub fn touch(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Bytes of it that are on the ledger.
    pub fn charged(&self) -> usize {
        self.charged
    }

    fn settle(&mut self) {
        let bytes = self.inner.heap_bytes().saturating_sub(OWN_BYTES);
        match bytes.checked_sub(self.charged) {
            Some(0) => {}
            Some(more) => self.ledger.charge(more),
            None => self.ledger.release(self.charged - bytes),
        }
        self.charged = bytes;
    }
}

impl<T> Deref for Weighed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

/// Settles the account when it is dropped.
#[derive(Debug)]
pub struct Edit<'a, T: HeapBytes>(&'a mut Weighed<T>);

impl<T: HeapBytes> Deref for Edit<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.inner
    }
}

impl<T: HeapBytes> DerefMut for Edit<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.inner
    }
}

impl<T: HeapBytes> Drop for Edit<'_, T> {
    fn drop(&mut self) {
        self.0.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_follows_what_is_held_up_and_down() {
        let ledger = Ledger::default();
        let mut index = Weighed::new(shards::RetainedIndex::new(1), ledger.clone());
        assert_eq!(ledger.bytes(), 0);
        for n in 0..5_000 {
            index.edit().insert(&format!("topic/{n}"), n);
        }
        assert_eq!(ledger.bytes(), (index.heap_bytes() - OWN_BYTES) as u64);
        assert!(ledger.bytes() > 100_000);
        for n in 0..5_000 {
            index.edit().remove(&format!("topic/{n}"));
        }
        assert_eq!(ledger.bytes(), 0);
    }
}
