//! Stands in for `nodes` in a build without clusters: there is no other node.

use shards::TopicFilter;

use crate::base::ids::CoreId;
use crate::engine::Engine;
use crate::engine::mesh::Mesh;
use crate::message::Content;
use crate::resources::gauges::Place;

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
    pub(in crate::engine) fn announce_restored(&mut self, _filter: &TopicFilter<'_>) {}

    #[inline]
    pub(in crate::engine) fn has_joins(&self) -> bool {
        false
    }
}

impl Engine {
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
