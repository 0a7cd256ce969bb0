//! Coordination of the processes of a run: when the load starts, and how many messages each
//! publisher sent, which receivers need at the end.

use crate::{clock, error::Result};

/// Coordinates a process with the others.
pub trait Coordinator {
    /// Reports that this process is ready; returns when the load starts, once all are.
    fn await_start(&mut self) -> Result<u64>;

    /// Reports how many messages each publisher of this process sent in total.
    fn tell_sent(&mut self, own: Vec<u64>) -> Result<()>;

    /// The number of messages of each publisher of the run, once all processes have reported.
    fn everyones_sent(&mut self) -> Result<Option<Vec<u64>>>;
}

/// Coordination of a run with a single process.
#[derive(Debug, Default)]
pub struct SingleProcess {
    sent: Option<Vec<u64>>,
}

impl Coordinator for SingleProcess {
    fn await_start(&mut self) -> Result<u64> {
        Ok(clock::now_ns())
    }

    fn tell_sent(&mut self, own: Vec<u64>) -> Result<()> {
        self.sent = Some(own);
        Ok(())
    }

    fn everyones_sent(&mut self) -> Result<Option<Vec<u64>>> {
        Ok(self.sent.take())
    }
}
