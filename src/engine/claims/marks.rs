//! Marks: where, of what a core publishes, the copy that the old node of a moving session gets ceases to count, and the copy
//! of the new node begins to.
//!
//! A core publishes for both nodes from the time when it knows the filters of the new one. Its mark is in its lanes to both,
//! behind the same message. So each message counts at one of them, whatever is late on the way.

use std::collections::HashMap;

use shards::FilterId;

use crate::base::ids::CoreId;
use crate::engine::Engine;
use crate::engine::claims::arrivals::Arrival;
use crate::engine::claims::{Claims, Waiting};
use crate::engine::draft::Draft;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::session_message::SessionStep;
use crate::engine::routing::recipients::Recipient;

/// Where the message that is being delivered was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Source {
    /// A core of this node by its number, one of another node as [`Source::of_node`] says.
    core: u32,
    /// Marks that had come when the message came; all of them for a message that comes now.
    marks: u64,
}

impl Source {
    /// A core of this node.
    pub fn core(core: CoreId) -> Self {
        Self { core: u32::from(core.0), marks: u64::MAX }
    }

    /// A core of another node.
    fn of_node(node: CoreId, core: u16) -> Self {
        Self { core: (u32::from(node.0) + 1) << 16 | u32::from(core), marks: u64::MAX }
    }

    /// Where what comes now from a core, or from another node, was published.
    pub fn behind(mesh: &Mesh, from: CoreId) -> Self {
        match from.0 < mesh.cores() {
            true => Self::core(from),
            false => Self::of_node(from, mesh.core_of_node(from)),
        }
    }

    /// Whether it is this node, or among these.
    fn is_here_or_among(self, nodes: impl IntoIterator<Item = CoreId>) -> bool {
        let node = self.core >> 16;
        node == 0 || nodes.into_iter().any(|of| u32::from(of.0) + 1 == node)
    }

    /// Several sources, before all marks.
    pub fn earlier() -> Self {
        Self { core: u32::MAX, marks: 0 }
    }
}

/// The marks of a session that moves, on either node.
#[derive(Debug)]
pub(super) struct Marks {
    /// Other nodes and cores of which marks are left, and how many, once the first has said it.
    left: Vec<(CoreId, Option<u16>)>,
    /// By core, the number of its mark among all that came here.
    taken: HashMap<u32, u64>,
}

impl Marks {
    /// The marks of these other nodes and cores are awaited, and that of this core.
    pub fn new(of: Vec<CoreId>) -> Self {
        Self { left: of.into_iter().map(|of| (of, None)).collect(), taken: HashMap::new() }
    }

    /// A mark has come, one of `cores` of a node.
    pub fn take(&mut self, from: CoreId, cores: u16, source: Source, number: u64) {
        self.taken.entry(source.core).or_insert(number);
        self.left.retain_mut(|(of, left)| {
            if *of != from {
                return true;
            }
            let left = left.get_or_insert(cores);
            *left = left.saturating_sub(1);
            *left > 0
        });
    }

    /// A node has left: no mark of it is coming.
    pub fn forget(&mut self, node: CoreId) {
        self.left.retain(|(of, _)| *of != node);
    }

    /// Whether all other nodes and cores have sent theirs.
    pub fn are_complete(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether a message was published after the mark of its core.
    fn are_before(&self, source: Source) -> bool {
        self.taken.get(&source.core).is_some_and(|&number| source.marks >= number)
    }

    /// Whether the mark of the message's core is still awaited, or came after the message.
    fn are_after(&self, source: Source) -> bool {
        match self.taken.get(&source.core) {
            Some(&number) => source.marks < number,
            None => source.is_here_or_among(self.left.iter().map(|(of, _)| *of)),
        }
    }
}

impl Claims {
    /// Where the message that is being delivered was published, to be remembered with it.
    pub(in crate::engine) fn source(&self) -> Source {
        let Source { core, marks } = self.source;
        Source { core, marks: marks.min(self.marks) }
    }

    /// What is delivered next was published there; returns where what was delivered before was.
    pub(in crate::engine) fn set_source(&mut self, source: Source) -> Source {
        std::mem::replace(&mut self.source, source)
    }

    /// Counts a mark that has come.
    pub(super) fn count_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }
}

impl Arrival {
    /// Whether a message that has come for the session counts at its old node. Messages of a node that has joined since its
    /// filters were announced count here, as it may not have sent them to the old one.
    fn counts_elsewhere(&self, source: Source) -> bool {
        match &self.marks {
            Some(marks) => marks.are_after(source),
            None if self.announced.is_empty() => true,
            None => source.is_here_or_among(self.announced.iter().map(|(of, _)| *of)),
        }
    }
}

impl Waiting {
    /// The marks that are awaited for the session that comes.
    pub(super) fn marks(&mut self) -> Option<&mut Marks> {
        self.arrival.as_mut()?.marks.as_mut()
    }
}

impl Engine {
    /// Queues a message for a session on its way to or from this node, if it counts here. Returns whether its publisher waits
    /// for room in the queue.
    #[cold]
    pub(in crate::engine) fn enqueue_in_move(
        &mut self,
        recipient: &Recipient,
        draft: &mut Draft<'_>,
        shared: Option<FilterId>,
    ) -> bool {
        let source = self.claims.source;
        let client = self.sessions[recipient.session].client_identifier.as_str();
        // A message of a shared subscription has come to this node alone.
        let claims = &mut self.claims;
        let arriving = claims.waiting.get(client).filter(|_| shared.is_none());
        let arrival = arriving.and_then(|waiting| waiting.arrival.as_ref());
        if arrival.is_some_and(|arrival| arrival.counts_elsewhere(source)) {
            return false;
        }
        let departing = claims.moves.get(client).filter(|_| shared.is_none());
        let counts_elsewhere = departing
            .and_then(|of| of.marks.as_ref())
            .is_some_and(|marks| marks.are_before(source));
        let end = |engine: &Self| {
            let outbound = engine.sessions[recipient.session].outbound.as_ref();
            outbound.map_or(0, |outbound| outbound.queue_end())
        };
        let before = end(self);
        let holds = self.enqueue(recipient, draft, shared);
        let number = end(self);
        if counts_elsewhere && number > before {
            let client = self.sessions[recipient.session].client_identifier.as_str();
            if let Some(of) = self.claims.moves.get_mut(client) {
                of.counts_elsewhere.push(number - 1);
            }
        }
        holds
    }

    /// Sends the marks of this core for a session that moves from `from`, a core of this node or another node, to the node
    /// with the number `to`.
    pub(super) fn take_flush(&mut self, from: CoreId, client: &str, stamp: u64, to: u16) {
        let cores = self.mesh.cores();
        if to == self.claims.directory.own() {
            let home = self.mesh.home(client, self.router.replica());
            if home == self.mesh.core() {
                return self.take_flush_at_home(from, client, stamp);
            }
            self.mesh.send_session(home, client, stamp, |_| SessionStep::Mark { cores: 1 });
        } else {
            let node = CoreId(cores + to);
            if self.mesh.is_member(node) {
                self.mesh.send_session(node, client, stamp, |_| SessionStep::Mark { cores });
            }
        }
        let cores = if from.0 < cores { 1 } else { cores };
        self.mesh.send_session(from, client, stamp, |_| SessionStep::Flushed { cores });
    }

    /// The home core of a session that comes sends its own mark when it has all others: the old node sends the state then.
    fn take_flush_at_home(&mut self, from: CoreId, client: &str, stamp: u64) {
        if let Some(arrival) = self.arrival(from, client, stamp) {
            arrival.is_flush_asked = true;
        }
        self.flush_arrival(client);
    }

    /// A core's mark has come for a session that comes here.
    pub(super) fn take_mark(&mut self, from: CoreId, client: &str, stamp: u64, cores: u16) {
        let (source, number) = (Source::behind(&self.mesh, from), self.claims.count_mark());
        let waiting = self.claims.waiting.get_mut(client).filter(|of| of.stamp == stamp);
        if let Some(marks) = waiting.and_then(Waiting::marks) {
            marks.take(from, cores, source, number);
        }
        self.flush_arrival(client);
    }

    /// Sends this core's mark for a session that comes here, if all others have come.
    pub(super) fn flush_arrival(&mut self, client: &str) {
        let (own, number) = (self.mesh.core(), self.claims.marks + 1);
        let Some(waiting) = self.claims.waiting.get_mut(client) else { return };
        let (stamp, Some(arrival)) = (waiting.stamp, &mut waiting.arrival) else { return };
        let Some(marks) = arrival.marks.as_mut().filter(|marks| marks.are_complete()) else {
            return;
        };
        if !std::mem::take(&mut arrival.is_flush_asked) {
            return;
        }
        marks.take(own, 1, Source::core(own), number);
        let from = arrival.from();
        self.claims.count_mark();
        let cores = self.mesh.cores();
        self.mesh.send_session(from, client, stamp, |_| SessionStep::Flushed { cores });
    }
}
