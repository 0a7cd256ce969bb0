//! Replacement of bridges in a build without them: there are none.

use crate::control::Replies;
use crate::control::bridge::{BridgeCommand, BridgeIsStopped, BridgeStatus};

/// The bridges of a broker: none.
#[derive(Clone, Debug, Default)]
pub struct Bridges;

impl Bridges {
    /// None.
    pub fn new() -> Self {
        Self
    }

    /// None.
    pub fn status(&self) -> Vec<BridgeStatus> {
        Vec::new()
    }

    /// No bridge has a name.
    pub fn sessions(&self, _name: &str) -> Option<Vec<Box<str>>> {
        None
    }

    /// As for [`Self::sessions`].
    pub fn command(
        &self,
        _name: &str,
        _command: BridgeCommand,
    ) -> Option<Replies<Result<(), BridgeIsStopped>>> {
        None
    }

    /// There are no messages.
    pub fn note_dropped(&self, _name: &str, _messages: u64) {}
}
