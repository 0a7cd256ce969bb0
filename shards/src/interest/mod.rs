//! Interest: which other nodes of a cluster hold a subscription that matches a topic, once for all cores of a process.
//! One thread writes what the nodes announce; the cores read without locks and without waiting.
//!
//! Filters without wildcards, the great majority, are words of a hash table (`exact`): a fingerprint, the node and its
//! [`Class`]. A collision of fingerprints costs a needless forward, never a message. Filters with wildcards, and the members of
//! shared subscriptions, are in two copies of a [`Replica`], of which the cores read one while the other changes
//! (`wildcards`; *left-right*, Ramalhete and Correia, 2015). A core says when it begins to read and when it ends,
//! once a turn; until then what it may have seen is not freed and not changed (`epochs`).

mod epochs;
mod exact;
#[cfg(test)]
mod tests;
mod wildcards;

use epochs::{Epochs, Pin};
use exact::{Exact, ExactWriter};
use wildcards::{Change, Wildcards, WildcardsWriter};

use crate::hash::Hashing;
use crate::replica::{CoreMatches, Fingerprint, GroupAt, GroupId, Replica};
use crate::sync::Arc;

/// Number of nodes: a set of nodes is a word of 64 bits.
pub const NODES_MAX: u16 = 64;

/// What a node's subscribers to a filter need to be sent, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Messages at QoS 0: no acknowledgement waits for the node.
    AtMostOnce,
    /// Messages at QoS 1 or 2, for connected clients.
    Acknowledged,
    /// Messages at QoS 1 or 2 for a session that is stored.
    Stored,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::AtMostOnce, Self::Acknowledged, Self::Stored];
}

/// The nodes with a matching subscription. Reused between calls, so that matching allocates nothing once the buffers have
/// grown.
#[derive(Debug, Default)]
pub struct NodeMatches {
    /// For each class, a bit for each node with a subscription of that class that is not shared.
    nodes: [u64; 3],
    /// Matching shared subscriptions, each once.
    pub groups: Vec<GroupId>,
    scratch: CoreMatches,
}

impl NodeMatches {
    /// A bit for each node with a subscription of this class, or of a higher one.
    pub fn nodes(&self, lowest: Class) -> u64 {
        self.nodes[lowest as usize..].iter().fold(0, |all, of| all | of)
    }

    /// Cost of the last match: nodes of the index visited, and matches found.
    pub fn steps(&self) -> usize {
        1 + self.scratch.steps()
    }
}

/// What all cores of the process share.
#[derive(Debug)]
struct Shared {
    hashing: Hashing,
    epochs: Epochs,
    exact: Exact,
    wildcards: Wildcards,
}

/// Writes what the other nodes announce. There is one.
#[derive(Debug)]
pub struct InterestWriter {
    shared: Arc<Shared>,
    exact: ExactWriter,
    wildcards: WildcardsWriter,
}

/// One core's view of what the other nodes announce.
#[derive(Debug)]
pub struct InterestReader {
    shared: Arc<Shared>,
    number: usize,
}

/// A turn in which a core reads.
#[derive(Debug)]
pub struct Reading<'a> {
    shared: &'a Shared,
    pin: Pin<'a>,
}

/// Interest with this number of readers. `seed` is the same on all nodes of a cluster, and unknown to clients.
pub fn interest(seed: u64, readers: usize) -> (InterestWriter, Vec<InterestReader>) {
    let shared = Arc::new(Shared {
        hashing: Hashing::new(seed),
        epochs: Epochs::new(readers),
        exact: Exact::new(),
        wildcards: Wildcards::new(seed),
    });
    let reader = |number| InterestReader { shared: Arc::clone(&shared), number };
    let readers = (0..readers).map(reader).collect();
    let writer =
        InterestWriter { shared, exact: ExactWriter::new(), wildcards: WildcardsWriter::default() };
    (writer, readers)
}

impl InterestWriter {
    /// The fingerprint of a filter without wildcards.
    pub fn fingerprint(&self, filter: &str) -> Fingerprint {
        Fingerprint(self.shared.hashing.long(filter))
    }

    /// A node has subscribers to a filter without wildcards. Readers see it at once. Announced again with another class,
    /// the filter has both until one is withdrawn.
    pub fn announce_exact(&mut self, node: u16, filter: Fingerprint, class: Class) {
        let Shared { exact, epochs, .. } = &*self.shared;
        self.exact.insert(exact, epochs, entry(node, filter, class));
    }

    /// A node has no more subscribers of this class to a filter without wildcards. Returns whether it had.
    pub fn withdraw_exact(&mut self, node: u16, filter: Fingerprint, class: Class) -> bool {
        let Shared { exact, epochs, .. } = &*self.shared;
        self.exact.remove(exact, epochs, entry(node, filter, class))
    }

    /// A node has subscribers to a filter with wildcards, of this class at most. Readers see it after [`Self::publish`].
    pub fn announce_wildcard(&mut self, node: u16, filter: &str, class: Class) {
        self.wildcards.add(Change::Announce { node, filter: filter.into(), class });
    }

    /// A node has no more subscribers to a filter with wildcards. Readers see it after [`Self::publish`].
    pub fn withdraw_wildcard(&mut self, node: u16, filter: &str) {
        self.wildcards.add(Change::Withdraw { node, filter: filter.into() });
    }

    /// Sets the number of members of a shared subscription on a node (`core` of [`GroupAt`]); zero removes the node.
    /// Readers see it after [`Self::publish`].
    pub fn set_group(&mut self, filter: &str, at: GroupAt) {
        self.wildcards.add(Change::Group { filter: filter.into(), at });
    }

    /// Shows the changes of wildcards and shared subscriptions to the readers, and frees what none of them can see any
    /// more. Returns false if a reader is still in a turn that began before the last call: then the changes follow with a
    /// later call.
    pub fn publish(&mut self) -> bool {
        let Shared { epochs, wildcards, .. } = &*self.shared;
        self.exact.free(epochs);
        self.wildcards.publish(wildcards, epochs)
    }

    /// Bytes of memory as an allocator counts them, without changes that are not shown yet.
    pub fn heap_bytes(&self) -> usize {
        self.exact.heap_bytes() + self.wildcards.heap_bytes()
    }

    /// Number of filters without wildcards, each counted once for each node and class.
    pub fn exact_len(&self) -> usize {
        self.exact.len()
    }
}

impl InterestReader {
    /// Begins to read. What is read stays as it is until the value is dropped, at the end of the core's turn at the latest.
    pub fn read(&mut self) -> Reading<'_> {
        Reading { shared: &self.shared, pin: self.shared.epochs.pin(self.number) }
    }
}

impl Reading<'_> {
    /// The fingerprint of a topic.
    pub fn fingerprint(&self, topic: &str) -> Fingerprint {
        Fingerprint(self.shared.hashing.long(topic))
    }

    /// Writes the nodes and shared subscriptions that match `topic` into `out`, which is cleared first.
    pub fn matches(&self, topic: &str, out: &mut NodeMatches) {
        let NodeMatches { nodes, groups, scratch } = out;
        *nodes = [0; 3];
        groups.clear();
        self.shared.exact.find(self.fingerprint(topic), |node, class| add(nodes, node, class));
        self.replica(|replica| {
            replica.matches_by_class(topic, scratch, |node, class| {
                add(nodes, node, Class::ALL[usize::from(class)]);
            });
        });
        groups.append(&mut scratch.groups);
    }

    /// Looks at the members of a shared subscription on other nodes, in order of node.
    pub fn with_members<R>(&self, group: GroupId, f: impl FnOnce(&[GroupAt]) -> R) -> R {
        self.replica(|replica| f(replica.members(group)))
    }

    /// The shared subscription with this full text, if other nodes have members.
    pub fn group(&self, text: &str) -> Option<GroupId> {
        self.replica(|replica| replica.group(text))
    }

    /// A number that changes whenever a later match of wildcards or shared subscriptions could have another result.
    /// Filters without wildcards do not change it: they are looked up for each message.
    pub fn epoch(&self) -> u64 {
        self.replica(Replica::epoch)
    }

    fn replica<R>(&self, f: impl FnOnce(&Replica) -> R) -> R {
        self.shared.wildcards.read(&self.pin, f)
    }
}

fn add(nodes: &mut [u64; 3], node: u16, class: Class) {
    nodes[class as usize] |= 1 << node;
}

/// Bits of a word for the class, from 1, and for the node.
const CLASS_BITS: u32 = 2;
const NODE_BITS: u32 = 6;

fn entry(node: u16, filter: Fingerprint, class: Class) -> u64 {
    assert!(node < NODES_MAX, "there are at most {NODES_MAX} nodes");
    let below = NODE_BITS + CLASS_BITS;
    filter.0 >> below << below | u64::from(node) << CLASS_BITS | (class as u64 + 1)
}
