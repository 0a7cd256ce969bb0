//! Stands in for `claims` in a build without clusters: each client has its session on this node.

use shards::FilterId;

use crate::base::ids::{ConnectionId, SessionId};
use crate::control::drain::DrainProgress;
use crate::engine::access::Grant;
use crate::engine::cause::Rejection;
use crate::engine::draft::Draft;
use crate::engine::routing::recipients::Recipient;
use crate::engine::{Engine, Mesh, Metrics};
use crate::resources::gauges::Place;
use crate::wire::Connect;

pub(in crate::engine) mod marks {
    /// This node.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::engine) struct Source;

    impl Source {
        pub fn earlier() -> Self {
            Self
        }
    }
}

/// No claims.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Claims;

impl Claims {
    pub fn new(_place: &Place) -> Self {
        Self
    }

    #[inline]
    pub fn has_joins(&self, _mesh: &Mesh) -> bool {
        false
    }

    #[inline]
    pub fn source(&self) -> marks::Source {
        marks::Source
    }

    #[inline]
    pub fn set_source(&mut self, source: marks::Source) -> marks::Source {
        source
    }

    #[inline]
    pub fn is_quiet(&self) -> bool {
        true
    }

    /// Fills in the numbers of this core.
    #[inline]
    pub fn report(&self, _metrics: &mut Metrics) {}
}

impl Engine {
    /// Whether this node has the session of the client.
    #[inline]
    pub(in crate::engine) fn has_claim(
        &mut self,
        _id: ConnectionId,
        _connect: &Connect<'_>,
        _grant: &Grant,
    ) -> Result<bool, Rejection> {
        let Claims = self.claims;
        Ok(true)
    }

    #[inline]
    pub(in crate::engine) fn note_claim(&mut self, _session: SessionId) {}

    #[inline]
    pub(in crate::engine) fn withdraw_claim(&mut self, _session: SessionId) {}

    #[inline]
    pub(in crate::engine) fn enqueue_in_move(
        &mut self,
        recipient: &Recipient,
        draft: &mut Draft<'_>,
        shared: Option<FilterId>,
    ) -> bool {
        self.enqueue(recipient, draft, shared)
    }

    /// Clients are refused, and nothing else.
    pub(in crate::engine) fn continue_draining(&mut self) {}

    /// How many clients and sessions this core has.
    pub(in crate::engine) fn drain_progress(&self) -> DrainProgress {
        DrainProgress {
            clients: self.metrics.clients_connected,
            sessions: self.metrics.clients_disconnected,
            ..DrainProgress::default()
        }
    }

    #[inline]
    pub(in crate::engine) fn continue_moves(&mut self) {}

    #[inline]
    pub(in crate::engine) fn sweep_answered(&mut self) {}

    #[inline]
    pub(in crate::engine) fn continue_telling_claims(&mut self) -> bool {
        false
    }
}
