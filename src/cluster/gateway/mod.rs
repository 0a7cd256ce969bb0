//! The gateway between the cores of a process and the other nodes of its cluster: one more core of the mesh, without
//! clients. Knows no engine that carries frames, and no list of members: it is told which nodes are there.
//!
//! **Interest.** The cores announce their subscriptions to the gateway, which announces a filter to all nodes when the
//! first core does, and withdraws it a while after the last one has: clients that reconnect change nothing. Each filter has
//! the highest class of its subscriptions. What a node announces, the gateway writes into the one table that all cores of
//! the process read; members of shared subscriptions it announces to the cores in the lane of that node, as if the node
//! were a core.
//!
//! **Receipts.** A batch of a core for a node is receipted once the node has receipted the frame with the last of its
//! items, and a frame of a node once all cores that got something of it have receipted that: so a receipt means the same
//! between nodes as between cores. A batch with announcements is receipted once all nodes know them.
//!
//! **Nodes that leave.** Everything that waits for a node is receipted, its subscriptions are withdrawn, and the
//! publishers that it had paused go on.

mod elsewhere;
mod identity;
mod interest;
mod link;
mod node;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use shards::NODES_MAX;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::CoreId;
use crate::cluster::gateway::elsewhere::Elsewhere;
use crate::cluster::gateway::interest::Interest;
use crate::cluster::gateway::node::{Heard, Node, Process};
use crate::cluster::lane::FrameError;
use crate::cluster::limits::window_of;
use crate::cluster::view::NodeNumber;
use crate::engine::Batch;
use crate::engine::for_gateway::{Lanes, MeshMessage};
use crate::resources::gauges::Place;

/// Another node, by its number in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The number as members have it.
    pub fn number(self) -> Option<NodeNumber> {
        NodeNumber::new(self.0.try_into().ok()?)
    }
}

/// What a node that joins is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its number.
    pub node: NodeId,
    /// Which of its starts this is.
    pub incarnation: u64,
    /// The version of lanes that both nodes speak.
    pub version: u8,
}

/// What the gateway has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Application messages sent to other nodes, each once for each of them.
    pub messages_sent: u64,
    /// Application messages taken from other nodes.
    pub messages_taken: u64,
    /// Items of other nodes that could not be understood, after which the node was left.
    pub errors: u64,
}

/// The announcements of the cores up to one of them, and the frames that tell them to the nodes.
#[derive(Debug)]
struct Announced {
    number: u64,
    frames: Vec<(NodeId, u64)>,
}

/// The gateway of a process.
#[derive(Debug)]
pub struct Gateway {
    place: Place,
    /// This node's number and incarnation, as long as it is a member.
    own: NodeId,
    incarnation: u64,
    now: Now,
    interest: Interest,
    elsewhere: Elsewhere,
    /// As the gateway, to each core.
    lanes: Lanes,
    /// By number; those that have been members at some time.
    nodes: Vec<Option<Box<Node>>>,
    /// By core, a clock that all its later stamps exceed.
    clocks: Vec<u64>,
    /// Announcements that not all nodes have receipted, and the number of the last one.
    announced: VecDeque<Announced>,
    announcements: u64,
    counters: Counters,
    /// Bytes charged on the ledger.
    charged: usize,
}

impl Gateway {
    /// The gateway at `place`, of which there is one. `seed` is unknown to clients.
    pub fn new(place: Place, seed: u64) -> Self {
        let cores = usize::from(place.cores());
        let writer = place.take_interest_writer().expect("a process has one gateway");
        Self {
            own: NodeId(0),
            incarnation: 0,
            now: Now(0),
            interest: Interest::new(place.cores(), seed),
            elsewhere: Elsewhere::new(writer),
            lanes: Lanes::of_gateway(&place),
            nodes: (0..NODES_MAX).map(|_| None).collect(),
            clocks: vec![0; cores],
            announced: VecDeque::new(),
            announcements: 0,
            counters: Counters::default(),
            charged: 0,
            place,
        }
    }

    /// This process is a member of the cluster now, as this incarnation of a node. No other node is linked.
    pub fn begin(&mut self, own: NodeId, incarnation: u64) {
        (self.own, self.incarnation) = (own, incarnation);
    }

    /// A node has become a member: it is told what the cores hold, and the cores are told of it.
    pub fn add_node(&mut self, now: Now, joined: Joined) {
        self.now = self.now.max(now);
        if self.has_node(joined.node) {
            return;
        }
        let place = &self.place;
        let slot = &mut self.nodes[usize::from(joined.node.0)];
        let node = slot.get_or_insert_with(|| Box::new(Node::new(place, joined.node)));
        let told = self.interest.nothing_told();
        node.link(self.now, (self.own, self.incarnation), joined, told);
        self.share_windows();
    }

    /// The lanes to all nodes share a bound.
    fn share_windows(&mut self) {
        let others = self.nodes.iter().flatten().filter(|node| node.is_linked()).count();
        let window = window_of(others);
        self.nodes.iter_mut().flatten().for_each(|node| node.set_window(window));
    }

    /// A node is no member any more.
    pub fn remove_node(&mut self, now: Now, node: NodeId) {
        self.now = self.now.max(now);
        let Some(of) = &mut self.nodes[usize::from(node.0)] else { return };
        if of.unlink() {
            self.share_windows();
            self.forget_announcements_to(node);
            self.end_announcements();
        }
    }

    /// Whether the node is linked: frames go to it.
    pub fn has_node(&self, node: NodeId) -> bool {
        self.nodes[usize::from(node.0)].as_ref().is_some_and(|node| node.is_linked())
    }

    /// Whether all linked nodes have announced what they hold, and know what is held here.
    pub fn is_settled(&self) -> bool {
        self.nodes.iter().flatten().all(|node| node.is_settled())
    }

    /// Takes a batch that a core sent to `to`: a node, or the gateway itself. The batches of a core arrive completely and
    /// in order.
    pub fn handle_batch(&mut self, now: Now, from: CoreId, to: CoreId, batch: Batch) {
        self.now = self.now.max(now).max(batch.sent);
        self.clocks[usize::from(from.0)] = batch.clock;
        if Some(to) == self.place.gateway() {
            return self.take_announcements(from, batch);
        }
        let number = NodeId(to.0 - self.place.cores());
        let place = &self.place;
        let slot = &mut self.nodes[usize::from(number.0)];
        let node = slot.get_or_insert_with(|| Box::new(Node::new(place, number)));
        let clock = self.clocks.iter().copied().min().unwrap_or(0);
        self.counters.messages_sent += node.take_batch(self.now, from, batch, clock);
    }

    /// Takes what a core tells all nodes.
    fn take_announcements(&mut self, from: CoreId, mut batch: Batch) {
        self.lanes.to(from).note_receipt(batch.receipt);
        let messages = std::mem::take(&mut batch.messages);
        let tells = !messages.is_empty();
        let own = self.own.0;
        for message in &messages {
            let nodes = self.nodes.iter_mut().flatten();
            match message {
                &MeshMessage::Held { filter, before, class } => {
                    let filter = batch.text(filter);
                    self.interest.set_class(from, filter, (before, class), self.now, nodes);
                }
                &MeshMessage::Group { filter, online, members } => {
                    let at = shards::GroupAt { core: from.0, online, members };
                    self.interest.set_group(batch.text(filter), at, self.now, nodes);
                }
                MeshMessage::ExchangeOver(exchange) => {
                    let name = identity::exchange_name(*exchange, false, own);
                    nodes.for_each(|node| node.tell_exchange_over(self.now, &name));
                }
                other => debug_assert!(false, "not for all nodes: {other:?}"),
            }
        }
        batch.messages = messages;
        if tells {
            self.announcements += 1;
            let nodes = self.nodes.iter().flatten();
            let frames = nodes.filter_map(|node| node.last_frame()).collect();
            self.announced.push_back(Announced { number: self.announcements, frames });
        }
        self.lanes.to(from).note_taken(&batch, tells.then_some(self.announcements));
        self.lanes.recycle(batch);
        self.end_announcements();
    }

    /// Nobody waits for a node that has left. Its next lane has other numbers, and begins with all that the cores hold.
    fn forget_announcements_to(&mut self, node: NodeId) {
        for announced in &mut self.announced {
            announced.frames.retain(|&(of, _)| of != node);
        }
    }

    /// Receipts announcements that all nodes know.
    fn end_announcements(&mut self) {
        let nodes = &self.nodes;
        let is_known = |&(node, frame): &(NodeId, u64)| {
            let node = nodes[usize::from(node.0)].as_ref();
            node.is_none_or(|node| node.has_receipted(frame))
        };
        let mut up_to = None;
        while let Some(known) =
            self.announced.pop_front_if(|announced| announced.frames.iter().all(is_known))
        {
            up_to = Some(known.number);
        }
        if let Some(up_to) = up_to {
            for core in 0..self.place.cores() {
                self.lanes.to(CoreId(core)).note_stored(up_to);
            }
        }
    }

    /// Takes a frame that the carrier brought from a node. Frames of nodes that are not members are ignored: then it
    /// returns false.
    pub fn handle_frame(
        &mut self,
        now: Now,
        from: NodeId,
        frame: Bytes,
    ) -> Result<bool, FrameError> {
        self.now = self.now.max(now);
        let Some(node) = &mut self.nodes[usize::from(from.0)] else { return Ok(false) };
        let heard = node.handle_frame(self.now, frame)?;
        if heard == Heard::Restart {
            self.forget_announcements_to(from);
        }
        self.end_announcements();
        Ok(heard == Heard::Frame)
    }

    /// Does what is due, and gives the cores what came from other nodes, up to a budget. Called once a turn, before the
    /// batches and frames of the turn are taken. Returns whether more is left that could be done at once. A node whose
    /// items cannot be understood is left, as the lane cannot go on.
    pub fn handle_turn(&mut self, now: Now) -> bool {
        self.now = self.now.max(now);
        self.interest.withdraw_due(self.now, &mut self.nodes);
        let (mut goes_on, mut broken) = (false, Vec::new());
        let mut process = Process {
            place: &self.place,
            interest: &mut self.interest,
            elsewhere: &mut self.elsewhere,
            counters: &mut self.counters,
        };
        for node in self.nodes.iter_mut().flatten() {
            match node.handle_turn(self.now, &mut process) {
                Ok(has_more) => goes_on |= has_more,
                Err(error) => broken.push((node.number(), error)),
            }
        }
        for (node, error) in broken {
            tracing::error!(node = node.0, %error, "cannot understand another node: left it");
            self.counters.errors += 1;
            self.remove_node(now, node);
        }
        match self.elsewhere.show() {
            true => self.nodes.iter_mut().flatten().for_each(|node| node.note_shown()),
            // A core reads for less than a microsecond.
            false => goes_on = true,
        }
        self.charge();
        goes_on
    }

    fn charge(&mut self) {
        let nodes: usize = self.nodes.iter().flatten().map(|node| node.heap_bytes()).sum();
        let bytes = nodes + self.interest.heap_bytes() + self.elsewhere.heap_bytes();
        self.place.ledger().change(self.charged, bytes);
        self.charged = bytes;
    }

    /// A batch for a core, from the gateway or from a node, if there is one to send.
    pub fn poll_batch(&mut self, core: CoreId) -> Option<(CoreId, Batch)> {
        if let Some(batch) = self.lanes.seal(core, u64::MAX) {
            return Some((self.place.gateway()?, batch.sent_at(self.now)));
        }
        let (cores, now) = (self.place.cores(), self.now);
        self.nodes.iter_mut().flatten().find_map(|node| {
            let batch = node.poll_batch(core)?;
            Some((CoreId(cores + node.number().0), batch.sent_at(now)))
        })
    }

    /// A frame for a node, if there is one to send.
    pub fn poll_frame(&mut self) -> Option<(NodeId, Bytes)> {
        let now = self.now;
        self.nodes
            .iter_mut()
            .flatten()
            .find_map(|node| Some((node.number(), node.poll_frame(now)?)))
    }

    /// When [`Self::handle_turn`] has something to do at the latest.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let nodes = self.nodes.iter().flatten().filter_map(|node| node.poll_timeout());
        nodes.chain(self.interest.next_withdrawal()).min()
    }

    /// For how long nothing was heard of a node, in microseconds; none if it is not linked.
    pub fn silent_us(&self, node: NodeId) -> Option<u64> {
        let of = self.nodes[usize::from(node.0)].as_ref()?;
        Some(self.now.since_us(of.last_heard()?))
    }

    /// What the gateway has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For tests: the class that a filter of the cores is announced with.
    #[cfg(test)]
    pub fn announced_class(&self, filter: &str) -> Option<shards::interest::Class> {
        self.interest.announced_class(filter)
    }

    /// Number of filters and shared subscriptions that the cores hold.
    pub fn filters(&self) -> usize {
        self.interest.len()
    }
}
