//! The request to stop.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::control::Cores;

/// Asks a broker to stop; clones ask the same one. There is one before the cores run, so that a signal during the
/// start counts too.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    requests: AtomicU32,
    cores: OnceLock<Cores>,
}

impl Stop {
    /// A broker that has not been asked to stop.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the broker to stop, and wakes its cores. Returns the number of requests so far, including this one.
    pub fn request(&self) -> u32 {
        // Release: a core that sees the request also sees what was written before.
        let requests = self.0.requests.fetch_add(1, Ordering::Release) + 1;
        if let Some(cores) = self.cores() {
            cores.wake_all();
        }
        requests
    }

    /// Whether the broker has been asked to stop.
    pub fn is_requested(&self) -> bool {
        self.0.requests.load(Ordering::Acquire) > 0
    }

    /// The cores, once they run.
    pub fn cores(&self) -> Option<&Cores> {
        self.0.cores.get()
    }

    /// Wakes these cores from now on when a stop is requested.
    pub fn attach(&self, cores: Cores) -> io::Result<()> {
        let attached = self.0.cores.set(cores);
        attached.map_err(|_| io::Error::other("this Stop belongs to another running broker"))
    }
}
