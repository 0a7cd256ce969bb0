//! Wakes up only cores that sleep. A core that is about to sleep sets a flag and then checks its
//! lanes once more; a core that has put an item into a lane then checks the flag. Either the
//! sleeper sees the item, or the sender sees the flag: each writes before it reads, with a
//! sequentially consistent fence in between (Dekker's algorithm).

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::sync::{AtomicBool, fence};

/// The sleep flag of a core.
#[derive(Debug)]
pub struct SleepFlag {
    sleeps: AtomicBool,
}

impl Default for SleepFlag {
    fn default() -> Self {
        Self { sleeps: AtomicBool::new(false) }
    }
}

impl SleepFlag {
    /// Sets the flag; the owner sleeps unless the check that follows finds something.
    pub fn prepare_to_sleep(&self) {
        self.sleeps.store(true, Relaxed);
        // Between this store and the loads of the check; see the module's documentation.
        fence(SeqCst);
    }

    /// Clears the flag: the owner is awake.
    pub fn wake_up(&self) {
        self.sleeps.store(false, Relaxed);
    }

    /// Called after an item was put where the owner checks. True if the owner sleeps and the caller
    /// must wake it up; only one caller gets this result per sleep.
    pub fn must_wake(&self) -> bool {
        // Between the store of the item and this load.
        fence(SeqCst);
        self.sleeps.load(Relaxed) && self.sleeps.swap(false, Relaxed)
    }
}
