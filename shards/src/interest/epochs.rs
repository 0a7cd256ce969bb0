//! Epochs: when nobody can see any more what was replaced. A reader notes the epoch in which it begins to read. What the writer
//! replaces belongs to the epoch of that moment, after which the next one begins; it is free once each reader is away or
//! has begun in a later epoch (Fraser, *Practical lock-freedom*, 2004, section 5.2.3).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::sync::{Aligned, AtomicUsize, fence};

/// The epoch of a reader that does not read.
const AWAY: usize = 0;

#[derive(Debug)]
pub(super) struct Epochs {
    /// The epoch, from 1. Changed by the writer alone.
    now: AtomicUsize,
    /// For each reader, the epoch in which it began to read.
    readers: Box<[Aligned<AtomicUsize>]>,
}

/// A reader reads until this is dropped.
#[derive(Debug)]
pub(super) struct Pin<'a>(&'a AtomicUsize);

impl Epochs {
    pub fn new(readers: usize) -> Self {
        let away = |_| Aligned(AtomicUsize::new(AWAY));
        Self { now: AtomicUsize::new(1), readers: (0..readers).map(away).collect() }
    }

    /// A reader begins to read. Each has one pin at a time, as the caller has the reader mutably.
    pub fn pin(&self, reader: usize) -> Pin<'_> {
        let began = &self.readers[reader].0;
        // Acquire: what was replaced in earlier epochs is not seen.
        began.store(self.now.load(Acquire), Relaxed);
        // Between this store and the loads of what is read; the counterpart is in `is_over`.
        fence(SeqCst);
        Pin(began)
    }

    /// The writer has replaced something: its epoch, after which the next one begins.
    pub fn end(&self) -> usize {
        let epoch = self.now.load(Relaxed);
        // Release: with the next epoch, a reader sees what has replaced it.
        self.now.store(epoch + 1, Release);
        epoch
    }

    /// Whether no reader can see any more what was replaced in an epoch.
    pub fn is_over(&self, epoch: usize) -> bool {
        // Between the replacement and the loads of the readers' epochs: either the reader sees what has replaced it, or
        // this sees the reader.
        fence(SeqCst);
        self.readers.iter().all(|reader| {
            // Acquire: what the reader has read happened before what is done now.
            let began = reader.0.load(Acquire);
            began == AWAY || began > epoch
        })
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.store(AWAY, Release);
    }
}
