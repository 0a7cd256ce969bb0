//! Executors: they wait, read, write and close, and call the engine. They know no protocol.
//!
//! There is one, [`poll`], which runs everywhere; an executor is the only part that differs between
//! platforms.

mod lingering;
pub mod mesh;
pub mod placement;
pub mod poll;

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Asks a running broker to stop; clones ask the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    asked: AtomicU32,
    wakers: OnceLock<Arc<[mio::Waker]>>,
}

impl Stop {
    /// Not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks once more; returns how often it has been asked, this time included.
    pub fn ask(&self) -> u32 {
        // Release: whoever sees the count also sees what was written before asking.
        let asked = self.0.asked.fetch_add(1, Ordering::Release) + 1;
        for waker in self.0.wakers.get().into_iter().flat_map(|wakers| wakers.iter()) {
            // A waker that fails leaves its core to its next timer.
            let _ = waker.wake();
        }
        asked
    }

    fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire) > 0
    }

    /// Wakes these when it is asked.
    pub(crate) fn attach(&self, wakers: Arc<[mio::Waker]>) -> io::Result<()> {
        let attached = self.0.wakers.set(wakers);
        attached.map_err(|_| io::Error::other("this Stop belongs to another running broker"))
    }
}
