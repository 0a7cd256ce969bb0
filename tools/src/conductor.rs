//! What the processes of a run have to agree on: when the load begins, and how many messages each
//! publisher sent, which those who hear it have to know at the end.

use crate::{clock, error::Result};

/// Leads a process through a run.
pub trait Conductor {
    /// This process is ready; when the load begins, once all are.
    fn await_start(&mut self) -> Result<u64>;

    /// This process has sent all it will: how many messages by each of its publishers.
    fn tell_sent(&mut self, own: Vec<u64>) -> Result<()>;

    /// How many messages each publisher of the run sent, once all processes have told.
    fn everyones_sent(&mut self) -> Result<Option<Vec<u64>>>;
}

/// For a run of one process.
#[derive(Debug, Default)]
pub struct Alone {
    sent: Option<Vec<u64>>,
}

impl Conductor for Alone {
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
