//! Stands in for `claims` in a build without clusters: each client has its session on this node.

use crate::base::ids::{ConnectionId, SessionId};
use crate::engine::access::Grant;
use crate::engine::{Engine, Mesh, Metrics};
use crate::resources::gauges::Place;
use crate::wire::Connect;

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
    pub(in crate::engine) fn continue_moves(&mut self) {}

    #[inline]
    pub(in crate::engine) fn continue_telling_claims(&mut self) -> bool {
        false
    }
}
