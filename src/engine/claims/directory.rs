//! Which node has the session of a Client Identifier: claims by fingerprint, each with a stamp. The later stamp counts,
//! and of equal ones that of the node with the higher number.

use std::collections::HashMap;

use crate::base::clock::{Deadline, Now};

/// Estimated memory of an entry with its part of the room of the table.
const ENTRY_BYTES: usize = 32;

/// A claim: its stamp, and the number of the node that has made it.
pub(super) type Claim = (u64, u16);

/// The claims of all nodes to the sessions that are at home on a core.
#[derive(Debug)]
pub(super) struct Directory {
    /// The number of this node, and its claims.
    own: u16,
    of_own: HashMap<u64, u64>,
    /// The claims of each other node that has any: those of a node that leaves go at once. A look-up costs as many as there
    /// are such nodes.
    of_others: Vec<(u16, HashMap<u64, u64>)>,
    /// Those of nodes that have left, until then: their stored sessions come back with them.
    of_absent: Vec<(u16, Deadline, HashMap<u64, u64>)>,
    /// A stamp that no claim exceeds that this core has made or heard of.
    latest: u64,
}

impl Directory {
    pub fn new() -> Self {
        Self {
            own: 0,
            of_own: HashMap::new(),
            of_others: Vec::new(),
            of_absent: Vec::new(),
            latest: 0,
        }
    }

    /// This node has another number now.
    pub fn set_own(&mut self, own: u16) {
        self.own = own;
    }

    /// The number of this node.
    pub fn own(&self) -> u16 {
        self.own
    }

    /// A stamp for a claim that is made at this time, in microseconds since 1970, after another claim. No other node gives
    /// the same one: answers and marks are for the claim with their stamp.
    pub fn next_stamp(&mut self, now_us: u64, after: u64) -> u64 {
        self.latest = stamp_of(self.own, now_us.max(self.latest + 1).max(after + 1));
        self.latest
    }

    /// A claim has been made with this stamp. Later ones of this node exceed it, whatever its clock says, so that all nodes
    /// take them for later, also those that hear of that claim after them.
    pub fn note_stamp(&mut self, stamp: u64) {
        self.latest = self.latest.max(stamp);
    }

    /// The stamp of this node's claim.
    pub fn own_stamp(&self, client: u64) -> Option<u64> {
        self.of_own.get(&client).copied()
    }

    /// The claim of another node.
    pub fn elsewhere(&self, client: u64) -> Option<Claim> {
        let claims = self.of_others.iter();
        claims.filter_map(|(node, of)| Some((*of.get(&client)?, *node))).max()
    }

    /// This node has the session: a claim of another node does not count any more.
    pub fn set_own_claim(&mut self, client: u64, stamp: u64) {
        self.remove_elsewhere(client);
        self.of_own.insert(client, stamp);
    }

    /// Another node has the session: no earlier claim counts any more.
    pub fn set_claim(&mut self, client: u64, (stamp, node): Claim) {
        self.remove_own(client);
        self.remove_elsewhere(client);
        let place = self.of_others.iter().position(|(of, _)| *of == node);
        let place = place.unwrap_or_else(|| {
            self.of_others.push((node, HashMap::new()));
            self.of_others.len() - 1
        });
        self.of_others[place].1.insert(client, stamp);
    }

    /// Whether a node that has left had the session, and is not given up.
    pub fn is_absent(&self, client: u64, now: Now) -> bool {
        self.of_absent.iter().any(|(_, until, of)| !until.is_due(now) && of.contains_key(&client))
    }

    fn remove_elsewhere(&mut self, client: u64) {
        let others = self.of_others.iter_mut().map(|(_, of)| of);
        for of in others.chain(self.of_absent.iter_mut().map(|(_, _, of)| of)) {
            if of.remove(&client).is_some() {
                give_back(of);
            }
        }
    }

    /// This node has the session no more; the stamp of its claim.
    pub fn remove_own(&mut self, client: u64) -> Option<u64> {
        let stamp = self.of_own.remove(&client);
        give_back(&mut self.of_own);
        stamp
    }

    /// Another node has the session no more.
    pub fn remove(&mut self, client: u64, (stamp, node): Claim) {
        let Some((_, of)) = self.of_others.iter_mut().find(|(of, _)| *of == node) else { return };
        if of.get(&client).is_some_and(|&claimed| claimed <= stamp) {
            of.remove(&client);
            give_back(of);
        }
    }

    /// A node has joined, or is gone for good: what it had claimed before is forgotten.
    pub fn forget(&mut self, node: u16) {
        self.of_others.retain(|(of, _)| *of != node);
        self.of_absent.retain(|(of, ..)| *of != node);
    }

    /// A node has left: its claims do not count any more, but are known until then.
    pub fn set_absent(&mut self, node: u16, until: Deadline) {
        let place = self.of_others.iter().position(|(of, _)| *of == node);
        if let Some((_, claims)) = place.map(|place| self.of_others.swap_remove(place)) {
            self.of_absent.push((node, until, claims));
        }
    }

    /// Gives up the nodes that have not come back in time.
    pub fn give_up_absent(&mut self, now: Now) {
        self.of_absent.retain(|(_, until, _)| !until.is_due(now));
    }

    /// Number of claims of other nodes.
    pub fn others(&self) -> usize {
        self.of_others.iter().map(|(_, of)| of.len()).sum()
    }

    /// Estimated memory.
    pub fn bytes(&self) -> usize {
        let others: usize = self.of_others.iter().map(|(_, of)| of.capacity()).sum();
        let absent: usize = self.of_absent.iter().map(|(_, _, of)| of.capacity()).sum();
        (self.of_own.capacity() + others + absent) * ENTRY_BYTES
    }
}

/// The first stamp from this one on that a node gives: its last six bits are the number of the node.
pub(super) fn stamp_of(node: u16, from: u64) -> u64 {
    const NODES: u64 = shards::NODES_MAX as u64;
    from + (u64::from(node).wrapping_sub(from) & (NODES - 1))
}

/// Gives back the memory that a table had room for, once little of it is used.
fn give_back(of: &mut HashMap<u64, u64>) {
    if of.len() * 4 < of.capacity() {
        of.shrink_to(of.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_back_the_memory_of_claims_that_are_withdrawn() {
        let mut directory = Directory::new();
        for client in 0..1_000 {
            directory.set_own_claim(client, 1);
            directory.set_claim(client + 1_000, (1, 3));
        }
        assert!(directory.bytes() >= 2_000 * ENTRY_BYTES);
        for client in 0..1_000 {
            directory.remove_own(client);
            directory.remove(client + 1_000, (1, 3));
        }
        assert_eq!(directory.bytes(), 0);
    }

    #[test]
    fn the_latest_claim_counts_and_one_node_has_a_session() {
        let mut directory = Directory::new();
        directory.set_own_claim(7, 10);
        directory.set_claim(7, (11, 3));
        assert_eq!((directory.own_stamp(7), directory.elsewhere(7)), (None, Some((11, 3))));
        directory.set_claim(7, (12, 5));
        assert_eq!((directory.elsewhere(7), directory.others()), (Some((12, 5)), 1));
        directory.set_own_claim(7, 13);
        assert_eq!((directory.own_stamp(7), directory.elsewhere(7)), (Some(13), None));
    }

    #[test]
    fn a_claim_is_withdrawn_by_its_node_alone_and_not_by_what_was_said_before_it() {
        let mut directory = Directory::new();
        directory.set_claim(7, (11, 3));
        directory.remove(7, (11, 4));
        directory.remove(7, (10, 3));
        assert_eq!(directory.elsewhere(7), Some((11, 3)));
        directory.remove(7, (11, 3));
        assert_eq!(directory.elsewhere(7), None);
    }

    #[test]
    fn the_claims_of_a_node_that_leaves_are_forgotten() {
        let mut directory = Directory::new();
        (0..100).for_each(|client| directory.set_claim(client, (1, 3)));
        directory.set_claim(100, (1, 4));
        directory.forget(3);
        assert_eq!((directory.others(), directory.elsewhere(5)), (1, None));
        assert_eq!(directory.of_others.len(), 1, "a look-up costs one for each node with claims");
    }

    #[test]
    fn the_claims_of_a_node_that_is_away_are_known_until_it_returns_is_given_up_or_others_have_the_session()
     {
        let (mut directory, now, until) = (Directory::new(), Now(0), Now(0).after_s(30));
        (0..100).for_each(|client| directory.set_claim(client, (1, 3)));
        directory.set_absent(3, until);
        assert_eq!((directory.elsewhere(5), directory.is_absent(5, now)), (None, true));
        directory.set_own_claim(5, 2);
        directory.set_claim(6, (2, 4));
        assert!(!directory.is_absent(5, now) && !directory.is_absent(6, now));
        assert!(
            directory.is_absent(7, Now(29_000_000)) && !directory.is_absent(7, Now(31_000_000))
        );
        directory.give_up_absent(Now(31_000_000));
        assert!(directory.of_absent.is_empty());
        directory.set_claim(7, (1, 3));
        directory.set_absent(3, until);
        directory.forget(3);
        assert!(!directory.is_absent(7, now));
    }

    #[test]
    fn stamps_count_up_whatever_the_clock_says_and_exceed_the_claim_before() {
        let mut directory = Directory::new();
        assert_eq!(directory.next_stamp(128, 0), 128);
        assert_eq!(directory.next_stamp(90, 0), 192);
        assert_eq!(directory.next_stamp(90, 512), 576);
        directory.note_stamp(700);
        assert_eq!(directory.next_stamp(90, 0), 704);
    }

    #[test]
    fn no_two_nodes_give_the_same_stamp() {
        let mut directories: Vec<Directory> = (0..64).map(|_| Directory::new()).collect();
        let mut stamps = std::collections::HashSet::new();
        for (node, directory) in directories.iter_mut().enumerate() {
            directory.set_own(node as u16);
            for after in [0, 999, 1_000, 1_063] {
                let stamp = directory.next_stamp(1_000, after);
                assert!(stamp >= 1_000 && stamp > after && stamps.insert(stamp), "{node}");
            }
        }
    }
}
