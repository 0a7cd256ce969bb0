//! What the other nodes hold, as the cores of this process read it: one table for all of them.

use std::collections::BTreeMap;

use shards::heap;
use shards::interest::{Class, EXACT_PARTS, InterestWriter};

/// Estimated memory of an entry of a map, without its text.
const ENTRY_BYTES: usize = 32;

/// Parts of the table that are searched in a turn for filters of a node that has left. With two million filters there are
/// 500 words in each.
const PARTS_PER_TURN: usize = 16;

/// Writes what the other nodes hold.
#[derive(Debug)]
pub(super) struct Elsewhere {
    writer: InterestWriter,
    /// Filters with wildcards have changed that the cores do not see yet.
    is_hidden: bool,
}

/// What one node has announced, or had before it left.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Number of filters without wildcards: they are in the table alone.
    exact: usize,
    /// Those with wildcards, with their class.
    wildcards: BTreeMap<Box<str>, Class>,
    /// The part of the table that is searched next, once the node has left.
    part: usize,
    bytes: usize,
    /// Filters with wildcards have changed, and the cores have not been told to match again.
    has_changed: bool,
}

impl Elsewhere {
    pub(super) fn new(writer: InterestWriter) -> Self {
        Self { writer, is_hidden: false }
    }

    /// A node has a filter, with this class too.
    pub(super) fn announce(&mut self, node: u16, of: &mut Holdings, filter: &str, class: Class) {
        if !shards::has_wildcard(filter) {
            let fingerprint = self.writer.fingerprint(filter);
            self.writer.announce_exact(node, fingerprint, class);
            of.exact += 1;
            return;
        }
        self.writer.announce_wildcard(node, filter, class);
        if of.wildcards.insert(filter.into(), class).is_none() {
            of.bytes += heap(filter.len()) + ENTRY_BYTES;
        }
        self.note_changed(of);
    }

    /// A node has a filter no more with this class.
    pub(super) fn withdraw(&mut self, node: u16, of: &mut Holdings, filter: &str, class: Class) {
        if !shards::has_wildcard(filter) {
            let fingerprint = self.writer.fingerprint(filter);
            of.exact -= usize::from(self.writer.withdraw_exact(node, fingerprint, class));
        } else if of.wildcards.get(filter) == Some(&class) {
            // With another class, that one was announced before: it has taken the place of this one.
            of.wildcards.remove(filter);
            of.bytes -= heap(filter.len()) + ENTRY_BYTES;
            self.writer.withdraw_wildcard(node, filter);
            self.note_changed(of);
        }
    }

    /// Withdraws some of what a node had that has left; false when nothing is left of it.
    pub(super) fn forget(&mut self, node: u16, of: &mut Holdings, count: usize) -> bool {
        for _ in 0..PARTS_PER_TURN {
            if of.exact == 0 || of.part == EXACT_PARTS {
                (of.exact, of.part) = (0, 0);
                break;
            }
            of.exact -= self.writer.forget_exact(node, of.part).min(of.exact);
            of.part += 1;
        }
        for _ in 0..count {
            let Some((filter, _)) = of.wildcards.pop_first() else { break };
            of.bytes -= heap(filter.len()) + ENTRY_BYTES;
            self.writer.withdraw_wildcard(node, &filter);
            self.note_changed(of);
        }
        of.exact > 0 || !of.wildcards.is_empty()
    }

    fn note_changed(&mut self, of: &mut Holdings) {
        (self.is_hidden, of.has_changed) = (true, true);
    }

    /// Shows the cores the changes so far. False if a core reads what it would change: then another call follows.
    pub(super) fn show(&mut self) -> bool {
        if self.writer.publish() {
            self.is_hidden = false;
        }
        !self.is_hidden
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.writer.heap_bytes()
    }
}

impl Holdings {
    /// Whether the cores must match again, as filters with wildcards have changed since the last call.
    pub(super) fn take_has_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// Whether filters with wildcards have changed since then.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
