//! What the other nodes of a cluster hold, once a process: the ends of [`shards::interest`] until the gateway and the cores
//! take them.

use std::sync::{Mutex, PoisonError};

use shards::interest::{InterestReader, InterestWriter, interest};

use crate::base::ids::CoreId;

/// The ends that are not taken yet.
#[derive(Debug)]
pub(super) struct Interest {
    writer: Mutex<Option<InterestWriter>>,
    /// By core.
    readers: Mutex<Vec<Option<InterestReader>>>,
}

impl Interest {
    /// Ends for so many cores.
    pub fn new(cores: usize, seed: u64) -> Self {
        let (writer, readers) = interest(seed, cores);
        let readers = readers.into_iter().map(Some).collect();
        Self { writer: Mutex::new(Some(writer)), readers: Mutex::new(readers) }
    }

    /// The end of the gateway, once.
    pub fn take_writer(&self) -> Option<InterestWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The end of a core, once.
    pub fn take_reader(&self, core: CoreId) -> Option<InterestReader> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.get_mut(usize::from(core.0))?.take()
    }
}
