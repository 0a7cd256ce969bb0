//! The other nodes of the cluster: which of them are there, and the retained messages that a node is sent when it joins.
//!
//! Each core sends those that were published on it, whatever node that was: all cores together send all. A core has a
//! message that was published on it before it learns of the node; later ones it forwards to the node.

use std::collections::VecDeque;

use shards::{Cursor, NODES_MAX, ScanState, ScanStep};

use crate::base::ids::CoreId;
use crate::engine::Engine;
use crate::engine::draft::{Draft, Origin};
use crate::engine::mesh::Mesh;
use crate::engine::mesh::batch::{Batch, Destination, MeshMessage};
use crate::engine::mesh::held::Held;
use crate::engine::retained::{Stored, core_of};
use crate::engine::routing::elsewhere::Interested;
use crate::engine::routing::recipients::Recipients;
use crate::engine::sys_topics;
use crate::message::Content;
use crate::resources::gauges::Place;
use crate::wire::Qos;

/// Retained messages that are read at a time.
const MESSAGES_MAX: usize = 64;

/// The nodes of the cluster.
#[derive(Debug)]
pub(super) struct Nodes {
    /// What announces this core's subscriptions to the other nodes.
    pub(super) gateway: Option<CoreId>,
    /// The other nodes, a bit for each.
    pub(super) members: u64,
    /// Those that have been members at some time: their lanes may have something left to say.
    known: u64,
    /// Those that are being sent the retained messages.
    joins: VecDeque<Join>,
    /// What the gateway has been told of this core's subscriptions.
    pub(super) held: Held,
    /// By node, its core that published what comes next.
    pub(super) sources: Vec<u16>,
}

#[derive(Debug)]
struct Join {
    node: CoreId,
    cursor: Cursor,
}

impl Nodes {
    pub(super) fn new(place: &Place) -> Self {
        let sources = match place.gateway() {
            Some(_) => vec![0; usize::from(NODES_MAX)],
            None => Vec::new(),
        };
        Self {
            gateway: place.gateway(),
            members: 0,
            known: 0,
            joins: VecDeque::new(),
            held: Held::default(),
            sources,
        }
    }
}

impl Mesh {
    /// Where this core announces its subscriptions: the other cores, and the gateway to the other nodes.
    #[inline]
    pub(super) fn listeners(&self) -> impl Iterator<Item = CoreId> + use<> {
        self.others().chain(self.nodes.gateway)
    }

    /// The other nodes of the cluster.
    #[inline]
    pub(in crate::engine) fn members(&self) -> impl Iterator<Item = CoreId> + use<> {
        self.nodes_of(self.nodes.members)
    }

    /// What comes next from a node was published on this core of it.
    pub(super) fn note_source(&mut self, node: CoreId, core: u16) {
        let number = usize::from(self.node_number(node));
        if let Some(source) = self.nodes.sources.get_mut(number) {
            *source = core;
        }
    }

    /// A node has joined the cluster, or has left it. A retained message goes to all nodes.
    fn set_member(&mut self, node: CoreId, is_member: bool) {
        let bit = 1 << (node.0 - self.cores);
        let members = &mut self.nodes.members;
        *members = if is_member { *members | bit } else { *members & !bit };
        self.nodes.known |= bit;
        self.nodes.joins.retain(|join| join.node != node);
        self.note_source(node, 0);
        match is_member {
            true => self.nodes.joins.push_back(Join { node, cursor: Cursor::default() }),
            // It cannot be told any more; its gateway lets the publishers go on.
            false => self.paused_elsewhere.retain(|publisher| publisher.core != node),
        }
    }

    /// Whether a node can be sent more retained messages now.
    pub(in crate::engine) fn has_joins(&self) -> bool {
        self.nodes.joins.iter().any(|join| !self.lanes.is_loaded(join.node))
    }
}

impl Engine {
    /// The next batch for the gateway or for another node, if there is one. Like [`Self::poll_batch`].
    pub fn poll_node_batch(&mut self) -> Option<(CoreId, Batch)> {
        let nodes = self.mesh.nodes_of(self.mesh.nodes.known);
        let mut addresses = self.mesh.nodes.gateway.into_iter().chain(nodes);
        addresses.find_map(|to| Some((to, self.poll_batch(to)?)))
    }

    /// Whether [`Self::poll_node_batch`] has something.
    pub fn has_node_batch(&mut self) -> bool {
        let nodes = self.mesh.nodes_of(self.mesh.nodes.known);
        let mut addresses = self.mesh.nodes.gateway.into_iter().chain(nodes);
        addresses.any(|to| self.has_batch(to))
    }

    pub(super) fn note_member(&mut self, node: CoreId, is_member: bool, link: u64) {
        self.mesh.set_member(node, is_member);
        if is_member {
            self.mesh.lanes.to(node).push(MeshMessage::MemberKnown { link });
        }
        self.retained.set_member(node, is_member);
    }

    /// Sends some retained messages to a node that has joined; false when there is none, or no budget.
    pub(in crate::engine) fn continue_joins(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let place =
            self.mesh.nodes.joins.iter().position(|join| !self.mesh.lanes.is_loaded(join.node));
        let Some(mut join) = place.and_then(|place| self.mesh.nodes.joins.remove(place)) else {
            return false;
        };
        let (own, cores) = (u64::from(self.mesh.core().0), u64::from(self.mesh.cores()));
        let mut found: Vec<(Box<str>, Stored)> = Vec::new();
        let (state, steps) = self.retained.scan_stored(&mut join.cursor, &mut |topic, stored| {
            if core_of(stored.stamp) % cores != own || sys_topics::is_ours(topic) {
                return ScanStep::Next;
            }
            if found.len() == MESSAGES_MAX {
                return ScanStep::StopBefore;
            }
            found.push((topic.into(), stored.clone()));
            ScanStep::Next
        });
        self.work.spend(steps + found.len());
        for (topic, stored) in &found {
            self.send_stored(join.node, topic, stored);
        }
        if state == ScanState::More {
            self.mesh.nodes.joins.push_back(join);
        }
        true
    }

    fn send_stored(&mut self, node: CoreId, topic: &str, stored: &Stored) {
        let whom = |_: &mut _| Destination::Store(stored.stamp);
        let ledger = self.memory.ledger();
        if let Some(message) = &stored.message {
            let mut draft = Draft::of(message, message.content(), true);
            self.mesh.send_message(node, &mut draft, None, ledger, whom);
        } else {
            let (payload, passed_on) = (&[][..], &[][..]);
            let removed =
                Content { topic, payload, passed_on, expires: None, qos: Qos::AtMostOnce };
            self.mesh.send_message(node, &mut Draft::new(removed, true), None, ledger, whom);
        }
    }

    /// Forwards a message to the other nodes that have subscribers for it, or, when it is retained, to all of them. Returns
    /// whether there are subscribers. Nobody waits until those have it that have subscribers of QoS 0 alone.
    #[inline]
    pub(super) fn forward_to_nodes(
        &mut self,
        recipients: &Recipients,
        draft: &mut Draft<'_>,
        origin: &Origin,
        stored: Option<&Stored>,
    ) -> bool {
        self.mesh.nodes.gateway.is_some()
            && self.forward_in_cluster(recipients, draft, origin, stored)
    }

    #[inline(never)]
    fn forward_in_cluster(
        &mut self,
        recipients: &Recipients,
        draft: &mut Draft<'_>,
        origin: &Origin,
        stored: Option<&Stored>,
    ) -> bool {
        // Each node has `$SYS` topics of its own.
        if sys_topics::is_ours(draft.content.topic) {
            return false;
        }
        let Interested { all, acknowledged } =
            self.router.interested_nodes(draft.content.topic, recipients);
        if let Some(stored) = stored {
            for node in self.mesh.members() {
                let whom = Destination::SubscribersAndStore(stored.stamp);
                self.forward_to(node, draft, origin, |_| whom);
            }
            return all != 0;
        }
        for node in self.mesh.nodes_of(acknowledged) {
            self.forward_to(node, draft, origin, |_| Destination::Subscribers);
        }
        let reached = self.mesh.reached.len();
        for node in self.mesh.nodes_of(all & !acknowledged) {
            self.forward_to(node, draft, origin, |_| Destination::Subscribers);
        }
        self.mesh.reached.truncate(reached);
        all != 0
    }

    /// Logs a retained message of another node, once on this node: its own store has all, whatever other nodes lose.
    pub(super) fn log_retained_of_node(&mut self, from: CoreId, content: &Content<'_>, stamp: u64) {
        let is_newer = || self.retained.stamp(content.topic).is_none_or(|before| before < stamp);
        if from.0 >= self.mesh.cores()
            && self.mesh.home(content.topic, self.router.replica()) == self.mesh.core()
            && is_newer()
        {
            self.durability.append_retained(content, stamp);
        }
    }
}
