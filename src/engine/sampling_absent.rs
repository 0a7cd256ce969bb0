//! Replacement of sampling in a build without telemetry: no message is sampled.

use crate::base::ids::ConnectionId;
use crate::engine::Engine;
use crate::wire::ReasonCode;

impl Engine {
    pub(in crate::engine) fn sample_received(&mut self, _id: ConnectionId, _packet: &[u8]) {}

    pub(in crate::engine) fn complete_spans(&mut self) {}

    pub(in crate::engine) fn note_refused(&mut self, _id: ConnectionId, _reason: ReasonCode) {}

    /// The turn ends.
    pub(in crate::engine) fn end_turn_of_watching(&mut self) {
        self.observers.watch.end_turn();
    }
}
