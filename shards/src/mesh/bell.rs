//! Waking only who sleeps. A core that is about to sleep says so and then looks at its lanes once
//! more; a core that has put something into a lane then looks whether the other one sleeps. Either
//! the sleeper sees the item, or the other sees the sleeper: each writes before it reads, with a
//! sequentially consistent fence in between (Dekker's argument).

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::sync::{AtomicBool, fence};

/// Whether a core sleeps.
#[derive(Debug)]
pub struct Bell {
    sleeps: AtomicBool,
}

impl Default for Bell {
    fn default() -> Self {
        Self { sleeps: AtomicBool::new(false) }
    }
}

impl Bell {
    /// The owner is about to sleep, unless its last look, after this, finds something.
    pub fn doze(&self) {
        self.sleeps.store(true, Relaxed);
        // Between this store and the loads of the last look; see the module's documentation.
        fence(SeqCst);
    }

    /// The owner is awake.
    pub fn wake_up(&self) {
        self.sleeps.store(false, Relaxed);
    }

    /// Called after something was put where the owner looks: true when it sleeps and the caller is
    /// the one to wake it. Nobody else is told so until it has slept again.
    pub fn must_ring(&self) -> bool {
        // Between the store of what was put there and this load.
        fence(SeqCst);
        self.sleeps.load(Relaxed) && self.sleeps.swap(false, Relaxed)
    }
}
