//! Data structures that report their own memory, accounted on the ledger of their core: they can be
//! changed only through a guard that updates the account.

use std::ops::{Deref, DerefMut};

use crate::resources::gauges::Ledger;

pub use shards::heap;

/// Memory that belongs to the broker and is not charged: an almost empty index also holds some.
pub const OWN_BYTES: usize = 64 * 1024;

/// A data structure that knows its memory in constant time.
pub trait HeapBytes {
    /// Bytes of allocated memory.
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

/// A data structure with its charge on a ledger.
#[derive(Debug)]
pub struct Accounted<T> {
    inner: T,
    /// Bytes on the ledger.
    charged: usize,
    ledger: Ledger,
}

impl<T: HeapBytes> Accounted<T> {
    /// Takes ownership of `inner` and charges its current memory.
    pub fn new(inner: T, ledger: Ledger) -> Self {
        let mut accounted = Self { inner, charged: 0, ledger };
        accounted.update_charge();
        accounted
    }

    /// A guard for changes; the memory is charged when it is dropped.
    pub fn edit(&mut self) -> Edit<'_, T> {
        Edit(self)
    }

    /// Access for changes that neither allocate nor free memory.
    pub fn touch(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Bytes on the ledger.
    pub fn charged(&self) -> usize {
        self.charged
    }

    fn update_charge(&mut self) {
        let bytes = self.inner.heap_bytes().saturating_sub(OWN_BYTES);
        match bytes.checked_sub(self.charged) {
            Some(0) => {}
            Some(more) => self.ledger.charge(more),
            None => self.ledger.release(self.charged - bytes),
        }
        self.charged = bytes;
    }
}

impl<T> Deref for Accounted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

/// Guard that updates the account when dropped.
#[derive(Debug)]
pub struct Edit<'a, T: HeapBytes>(&'a mut Accounted<T>);

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
        self.0.update_charge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_follows_the_memory_up_and_down() {
        let ledger = Ledger::default();
        let mut index = Accounted::new(shards::RetainedIndex::new(1), ledger.clone());
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
