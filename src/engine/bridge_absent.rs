//! Replacement of bridges in a build without them: there are none.

use std::collections::BTreeSet;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId};
use crate::control::bridge::{BridgeEnd, BridgeQueues, BridgeTick};
use crate::engine::{Authentication, Engine, Refused};
use crate::transport::Transport;

impl Engine {
    /// Nobody opens such connections.
    #[expect(clippy::boxed_local, reason = "as it is with bridges")]
    pub fn handle_dialed(
        &mut self,
        _now: Now,
        _transport: Box<Transport>,
        _bytes: Vec<u8>,
    ) -> Result<ConnectionId, Refused> {
        Err(Refused)
    }

    pub(in crate::engine) fn authenticate_bridge(
        &mut self,
        _id: ConnectionId,
        _client_identifier: &str,
    ) -> Option<Authentication> {
        None
    }

    pub(in crate::engine) fn begin_bridge(&mut self, _id: ConnectionId, _session: SessionId) {}

    pub(in crate::engine) fn tick_bridge(&mut self, tick: BridgeTick) {
        tick.reply.send(false);
    }

    pub(in crate::engine) fn end_bridge(&mut self, end: BridgeEnd) {
        end.reply.send(false);
    }

    pub(in crate::engine) fn count_bridge_queues(&mut self, queues: BridgeQueues) {
        queues.reply.send(Vec::new());
    }

    pub(in crate::engine) fn note_pumped(
        &mut self,
        _id: ConnectionId,
        _session: SessionId,
        _messages: usize,
    ) {
    }

    pub(in crate::engine) fn restore_bridge(
        &mut self,
        _session: SessionId,
        _far_subscriptions: BTreeSet<Box<str>>,
    ) {
    }
}
