//! Stands in for `claims` in a build without clusters: each client has its session on this node.

use shards::FilterId;

use crate::base::ids::{ConnectionId, SessionId};
use crate::engine::access::Grant;
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
    ) -> bool {
        let Claims = self.claims;
        true
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

    #[inline]
    pub(in crate::engine) fn continue_moves(&mut self) {}

    #[inline]
    pub(in crate::engine) fn sweep_answered(&mut self) {}

    #[inline]
    pub(in crate::engine) fn continue_telling_claims(&mut self) -> bool {
        false
    }
}
