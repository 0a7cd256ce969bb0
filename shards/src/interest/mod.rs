//! Interest: which other nodes of a cluster hold a subscription that matches a topic, once for all cores of a process.
//! One thread writes what the nodes announce; the cores read without locks and without waiting. Shared subscriptions are
//! not here: a message takes a turn among their members, and each core counts turns of its own.
//!
//! Filters without wildcards, the great majority, are words of a hash table (`exact`): a fingerprint, the node and its
//! [`Class`]. A collision of fingerprints costs a needless forward, never a message. Filters with wildcards are in two copies
//! of a [`Replica`](crate::Replica), of which the cores read one while the other changes (`wildcards`; *left-right*, Ramalhete
//! and Correia, 2015). A core says when it begins to read and when it ends; until then what it may have seen is not freed and
//! not changed (`epochs`).

mod epochs;
mod exact;
#[cfg(test)]
mod tests;
mod wildcards;

use epochs::{Epochs, Pin};
use exact::{Exact, ExactWriter};
use wildcards::{Change, Wildcards, WildcardsWriter};

use std::sync::atomic::Ordering::{Acquire, Release};

use crate::hash::Hashing;
use crate::replica::{CoreMatches, Fingerprint};
use crate::sync::{Arc, AtomicUsize};

/// Number of nodes: a set of nodes is a word of 64 bits.
pub const NODES_MAX: u16 = 64;

/// Number of parts of the filters without wildcards, for [`InterestWriter::forget_exact`].
pub const EXACT_PARTS: usize = exact::PARTS;

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

impl TryFrom<u8> for Class {
    type Error = u8;

    fn try_from(class: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(class)).copied().ok_or(class)
    }
}

/// The nodes with a matching subscription. Reused between calls, so that matching allocates nothing once the buffers have
/// grown.
#[derive(Debug, Default)]
pub struct NodeMatches {
    /// For each class, a bit for each node with a subscription of that class.
    nodes: [u64; 3],
    scratch: CoreMatches,
}

impl NodeMatches {
    /// A bit for each node with a subscription of this class, or of a higher one.
    pub fn nodes(&self, lowest: Class) -> u64 {
        self.nodes[lowest as usize..].iter().fold(0, |all, of| all | of)
    }

    /// Forgets the nodes, and keeps the buffers.
    pub fn clear(&mut self) {
        self.nodes = [0; 3];
    }

    /// Adds a node with a subscription of this class.
    pub fn add(&mut self, node: u16, class: Class) {
        self.nodes[class as usize] |= 1 << node;
    }

    /// Cost of the last match of filters with wildcards: nodes of the index visited, and matches found.
    pub fn steps(&self) -> usize {
        1 + self.scratch.steps()
    }

    /// Bytes of memory allocated by the buffers.
    pub fn heap_bytes(&self) -> usize {
        self.scratch.heap_bytes()
    }
}

/// What all cores of the process share.
#[derive(Debug)]
struct Shared {
    hashing: Hashing,
    epochs: Epochs,
    exact: Exact,
    /// Number of filters in it: cores do not look into an empty table.
    exact_len: AtomicUsize,
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
        exact_len: AtomicUsize::new(0),
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
        self.show_exact_len();
    }

    /// A node has no more subscribers of this class to a filter without wildcards. Returns whether it had.
    pub fn withdraw_exact(&mut self, node: u16, filter: Fingerprint, class: Class) -> bool {
        let Shared { exact, epochs, .. } = &*self.shared;
        let had = self.exact.remove(exact, epochs, entry(node, filter, class));
        self.show_exact_len();
        had
    }

    /// A node has no more subscribers to filters without wildcards, of a part of all such filters, below [`EXACT_PARTS`]: all
    /// at once would take too long. The number of filters that are withdrawn.
    pub fn forget_exact(&mut self, node: u16, part: usize) -> usize {
        let Shared { exact, epochs, .. } = &*self.shared;
        let forgotten = self.exact.forget(exact, epochs, node, part);
        self.show_exact_len();
        forgotten
    }

    fn show_exact_len(&self) {
        // Release: who sees that there is something finds it.
        self.shared.exact_len.store(self.exact.len(), Release);
    }

    /// A node has subscribers to a filter with wildcards, of this class at most. Readers see it after [`Self::publish`].
    pub fn announce_wildcard(&mut self, node: u16, filter: &str, class: Class) {
        self.wildcards.add(Change::Announce { node, filter: filter.into(), class });
    }

    /// A node has no more subscribers to a filter with wildcards. Readers see it after [`Self::publish`].
    pub fn withdraw_wildcard(&mut self, node: u16, filter: &str) {
        self.wildcards.add(Change::Withdraw { node, filter: filter.into() });
    }

    /// Shows the changes of wildcards to the readers, and frees what none of them can see any more. Returns false if a reader
    /// is still in a turn that began before the last call: then the changes follow with a later call.
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
    /// Whether no node has a filter without wildcards.
    #[inline]
    pub fn has_no_exact(&self) -> bool {
        // Acquire: who sees that there is something finds it.
        self.shared.exact_len.load(Acquire) == 0
    }

    /// Begins to read. What is read stays as it is until the value is dropped, at the end of the core's turn at the latest.
    pub fn read(&mut self) -> Reading<'_> {
        Reading { shared: &self.shared, pin: self.shared.epochs.pin(self.number) }
    }
}

impl Reading<'_> {
    /// Adds the nodes with subscribers to a filter without wildcards that is `topic`.
    pub fn exact(&self, topic: &str, out: &mut NodeMatches) {
        let fingerprint = Fingerprint(self.shared.hashing.long(topic));
        self.shared.exact.find(fingerprint, |node, class| out.add(node, class));
    }

    /// Adds the nodes with subscribers to filters with wildcards that match `topic`.
    pub fn wildcards(&self, topic: &str, out: &mut NodeMatches) {
        let NodeMatches { nodes, scratch } = out;
        self.shared.wildcards.read(&self.pin, |replica| {
            replica.matches_by_class(topic, scratch, |node, class| {
                nodes[usize::from(class)] |= 1 << node;
            });
        });
    }
}

/// Bits of a word for the class, from 1, and for the node.
const CLASS_BITS: u32 = 2;
const NODE_BITS: u32 = 6;

fn entry(node: u16, filter: Fingerprint, class: Class) -> u64 {
    assert!(node < NODES_MAX, "there are at most {NODES_MAX} nodes");
    let below = NODE_BITS + CLASS_BITS;
    filter.0 >> below << below | u64::from(node) << CLASS_BITS | (class as u64 + 1)
}
