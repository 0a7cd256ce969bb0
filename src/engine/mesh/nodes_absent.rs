//! Stands in for `nodes` in a build without clusters: there is no other node.

use shards::{FilterId, Subscribed, Subscription, TopicFilter};

use crate::base::ids::{CoreId, SessionId};
use crate::engine::Engine;
use crate::engine::draft::{Draft, Origin};
use crate::engine::mesh::Mesh;
use crate::engine::retained::Stored;
use crate::engine::routing::recipients::Recipients;
use crate::message::Content;
use crate::resources::gauges::{Ledger, Place};

/// No node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nodes;

impl Nodes {
    pub(super) fn new(_place: &Place) -> Self {
        Self
    }
}

impl Mesh {
    /// Where this core announces its subscriptions: the other cores.
    #[inline]
    pub(super) fn listeners(&self) -> impl Iterator<Item = CoreId> + use<> {
        self.others()
    }

    #[inline]
    pub(super) fn members(&self) -> impl Iterator<Item = CoreId> + use<> {
        let Nodes = self.nodes;
        std::iter::empty()
    }

    #[inline]
    pub(in crate::engine) fn note_subscribed(
        &mut self,
        _filter: &TopicFilter<'_>,
        _subscription: &Subscription,
        _subscribed: &Subscribed,
        _ledger: &Ledger,
    ) {
    }

    #[inline]
    pub(in crate::engine) fn note_unsubscribed(
        &mut self,
        _filter: (FilterId, &str),
        _subscription: &Subscription,
        _is_last: bool,
        _ledger: &Ledger,
    ) {
    }

    #[inline]
    pub(in crate::engine) fn has_joins(&self) -> bool {
        false
    }
}

impl Engine {
    /// The other nodes have no subscriber.
    #[inline]
    pub(super) fn forward_to_nodes(
        &mut self,
        _recipients: &Recipients,
        _draft: &mut Draft<'_>,
        _origin: &Origin,
        _stored: Option<&Stored>,
    ) -> bool {
        false
    }

    #[inline]
    pub(in crate::engine) fn mark_kept(
        &self,
        _session: SessionId,
        subscription: Subscription,
    ) -> Subscription {
        subscription
    }

    #[inline]
    pub(in crate::engine) fn continue_joins(&mut self) -> bool {
        false
    }

    #[inline]
    pub(super) fn log_retained_of_node(
        &mut self,
        _from: CoreId,
        _content: &Content<'_>,
        _stamp: u64,
    ) {
    }
}
