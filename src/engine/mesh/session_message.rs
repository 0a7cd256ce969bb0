//! What the nodes of a cluster tell each other of the session of a Client Identifier.

use shards::NODES_MAX;

use crate::base::ids::CoreId;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::batch::{Batch, MeshMessage};
use crate::engine::mesh::node_block::Span;

/// Something about the session of a Client Identifier, to or from its home core on another node.
#[derive(Debug)]
pub(crate) struct SessionMessage {
    /// The Client Identifier.
    pub client: Span,
    /// The stamp of the claim that this is about.
    pub stamp: u64,
    /// What there is to say.
    pub step: SessionStep,
}

/// What there is to say of a session.
#[derive(Debug)]
pub(crate) enum SessionStep {
    /// The sender has the session from now on, unless there is a later claim. With `asks` the receiver answers, with the
    /// session if it has one; with `ends` such a session ends; with `refuses` the sender has the session, and its user is
    /// not who asked for it; with `is_offered` its client is away, and the sender was asked to take it.
    Claim { asks: bool, ends: bool, refuses: bool, is_offered: bool, user: Option<Span> },
    /// The sender's session has ended.
    Withdraw,
    /// The answer to a claim that asks: whether the session follows, and the stamp under which the sender had claimed it;
    /// or whether a node that has left has it, as the sender knows.
    Answer { has_session: bool, is_absent: bool, claimed: u64 },
    /// The owner and the subscriptions of the session, or a part of them.
    Filters { is_last: bool, records: Box<[u8]> },
    /// These nodes, a bit for each, know the filters of the session that moves to the sender, which wants the rest; or, with
    /// false, has it all, or has the session from elsewhere.
    Ask { wants: bool, nodes: u64 },
    /// The messages and QoS 2 exchanges of the session, or a part of them.
    State { is_last: bool, records: Box<[u8]> },
    /// Each core of the receiver sends its mark to the sender and to the node with this number, to which the session moves.
    Flush { to: u16 },
    /// The mark for the old node, of one of so many cores.
    Flushed { cores: u16 },
    /// The mark for the new node, of one of so many cores.
    Mark { cores: u16 },
    /// The sender has a session without a client, of this user, that the receiver can claim under this stamp.
    Offer { user: Option<Span> },
    /// The receiver's offer is not taken.
    Decline,
}

impl Mesh {
    /// The other nodes, a bit for each.
    pub(in crate::engine) fn member_bits(&self) -> u64 {
        self.nodes.members
    }

    /// The nodes of a set.
    #[inline]
    pub(in crate::engine) fn nodes_of(
        &self,
        mut left: u64,
    ) -> impl Iterator<Item = CoreId> + use<> {
        let cores = self.cores;
        std::iter::from_fn(move || {
            let node = left.trailing_zeros() as u16;
            left &= left.wrapping_sub(1);
            (node < NODES_MAX).then(|| CoreId(cores + node))
        })
    }

    /// The bit of a node.
    pub(in crate::engine) fn member_bit(&self, node: CoreId) -> u64 {
        1 << self.node_number(node)
    }

    /// The number of a node in the cluster.
    pub(in crate::engine) fn node_number(&self, node: CoreId) -> u16 {
        node.0 - self.cores
    }

    /// Whether this is another node, and a member.
    pub(in crate::engine) fn is_member(&self, node: CoreId) -> bool {
        node.0 >= self.cores
            && node.0 < self.cores + NODES_MAX
            && self.nodes.members & self.member_bit(node) != 0
    }

    /// The core of a node that has published what comes next from it.
    pub(in crate::engine) fn core_of_node(&self, node: CoreId) -> u16 {
        let number = usize::from(self.node_number(node));
        self.nodes.sources.get(number).copied().unwrap_or(0)
    }

    /// Tells a node, or another core, something of the session of a client. All that a core says of sessions to a node is in one lane, in order.
    pub(in crate::engine) fn send_session(
        &mut self,
        node: CoreId,
        client: &str,
        stamp: u64,
        step: impl FnOnce(&mut Batch) -> SessionStep,
    ) {
        let lane = self.lanes.to(node);
        let client = lane.open().push_text(client);
        let step = step(lane.open());
        lane.push(MeshMessage::Session(SessionMessage { client, stamp, step }));
    }

    /// Tells all nodes something of the session of a client.
    pub(in crate::engine) fn send_session_to_all(
        &mut self,
        client: &str,
        stamp: u64,
        step: impl Fn(&mut Batch) -> SessionStep,
    ) {
        for node in self.members() {
            self.send_session(node, client, stamp, &step);
        }
    }
}
