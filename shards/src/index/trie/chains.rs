//! Chains: runs of levels without an ending filter or a branch.

use super::{Literals, Node, NodeId, Trie, Walk, Way};
use crate::levels::LevelId;
use crate::slab::{self, Id};
use crate::topic;

/// The shortest run that becomes a chain.
pub(super) const LEVELS_MIN: usize = 4;

/// Number of levels compared at a time.
pub(super) const AT_ONCE: usize = 16;

/// The path from a node to the next one where a filter ends or that has several children. Every run
/// of at least [`LEVELS_MIN`] levels is a single chain, independent of the history of the trie.
#[derive(Debug)]
pub(crate) struct Chain {
    /// `None` means `+`.
    pub(super) levels: Box<[Option<LevelId>]>,
    pub(super) end: NodeId,
}

impl Chain {
    /// Cost of the comparison, in nodes.
    pub(super) fn steps(&self) -> u32 {
        (self.levels.len() / AT_ONCE) as u32
    }
}

/// The leading levels of `text` that can become a chain, and the rest.
pub(super) fn row(text: &str) -> Option<(&str, Option<&str>)> {
    let (row, after) = match text.strip_suffix("/#") {
        Some(row) => (row, Some("#")),
        None => (text, None),
    };
    (topic::levels(row) >= LEVELS_MIN).then_some((row, after))
}

/// Whether `levels` match `patterns`, which have the same length.
fn all_match(patterns: &[Option<LevelId>], levels: &[Option<LevelId>]) -> bool {
    // Compared as numbers, which the compiler vectorizes.
    let number = |level: &Option<LevelId>| level.map_or(0, Id::number);
    patterns.chunks(AT_ONCE).zip(levels.chunks(AT_ONCE)).all(|(patterns, levels)| {
        let pairs = patterns.iter().map(number).zip(levels.iter().map(number));
        !pairs
            .fold(false, |differs, (pattern, level)| differs | (pattern != 0) & (pattern != level))
    })
}

impl Trie {
    pub(super) fn chain_of(&self, id: NodeId) -> Option<&Chain> {
        match self.nodes[id].literals.way() {
            Way::Chain(chain) => Some(&self.chains[chain]),
            _ => None,
        }
    }

    /// Whether the topic matches a chain that begins at `depth`, whose level is already interned.
    #[inline(never)]
    pub(super) fn follows<'t>(
        &self,
        chain: &Chain,
        depth: usize,
        wildcards: bool,
        rest: &mut impl Iterator<Item = &'t str>,
        walk: &mut Walk,
    ) -> bool {
        if chain.levels[0].is_none() && !wildcards {
            return false;
        }
        let known = &walk.levels[depth..];
        let count = known.len().min(chain.levels.len());
        if !all_match(&chain.levels[..count], &known[..count]) {
            return false;
        }
        (count..chain.levels.len()).all(|n| {
            let level = self.level_at(depth + n, rest, walk);
            level.is_some_and(|level| chain.levels[n].is_none() || chain.levels[n] == level)
        })
    }

    /// The texts of a chain's levels.
    pub(super) fn texts(&self, chain: &Chain) -> impl DoubleEndedIterator<Item = &str> {
        chain.levels.iter().map(|level| level.map_or("+", |level| self.levels.text(level)))
    }

    /// Number of leading levels that a filter shares with a chain, and the rest of the filter.
    pub(super) fn common<'t>(&self, chain: &Chain, filter: &'t str) -> (usize, Option<&'t str>) {
        let (mut same, mut rest) = (0, Some(filter));
        for text in self.texts(chain) {
            let Some((level, after)) = rest.map(super::cut) else { break };
            if level != text {
                break;
            }
            (same, rest) = (same + 1, after);
        }
        (same, rest)
    }

    /// The level of a chain, with its reference count incremented.
    pub(super) fn pattern(&mut self, level: &str) -> Option<LevelId> {
        (level != "+").then(|| self.levels.hold(level))
    }

    /// Links `at`, which has no other child, over `levels` to `end`.
    pub(super) fn lay(&mut self, at: NodeId, levels: Box<[Option<LevelId>]>, end: NodeId) {
        if levels.len() < LEVELS_MIN {
            let (last, before) = levels.split_last().expect("a way has a level");
            let from = before.iter().fold(at, |at, level| {
                let node = self.nodes.insert(Node::default());
                self.attach(at, node, *level);
                node
            });
            return self.attach(from, end, *last);
        }
        self.chain_bytes += slab::heap(size_of_val(&*levels));
        (self.nodes[end].parent, self.nodes[end].level) = (Some(at), None);
        let chain = self.chains.insert(Chain { levels, end });
        self.nodes[at].literals = Literals::chain(chain);
    }

    fn attach(&mut self, parent: NodeId, child: NodeId, level: Option<LevelId>) {
        (self.nodes[child].parent, self.nodes[child].level) = (Some(parent), level);
        match level {
            Some(_) => self.link(parent, child),
            None => self.nodes[parent].plus = Some(child),
        }
    }

    /// Removes the chain that begins at `at`; its levels keep their references.
    pub(super) fn take_chain(&mut self, at: NodeId) -> (Box<[Option<LevelId>]>, NodeId) {
        let literals = std::mem::take(&mut self.nodes[at].literals);
        let Way::Chain(id) = literals.way() else { unreachable!("the caller saw a chain") };
        let Chain { levels, end } = self.chains.remove(id);
        self.chain_bytes -= slab::heap(size_of_val(&*levels));
        (levels, end)
    }

    /// Creates a node within the chain that begins at `at`, after `count` of its levels.
    pub(super) fn split(&mut self, at: NodeId, count: usize) -> NodeId {
        let (levels, end) = self.take_chain(at);
        let middle = self.nodes.insert(Node::default());
        self.lay(at, levels[..count].into(), middle);
        self.lay(middle, levels[count..].into(), end);
        middle
    }

    /// Merges the levels around `at` into one chain if no filter ends there and it has a single
    /// child.
    pub(super) fn join(&mut self, at: NodeId) {
        if self.next(at).is_none() {
            return;
        }
        let mut start = at;
        while let Some(parent) = self.nodes[start].parent
            && self.is_passed(start)
            && self.next(parent).is_some()
        {
            start = parent;
        }
        let Some((mut end, mut count)) = self.next(start) else { return };
        let first = end;
        while let Some((next, more)) = self.next(end).filter(|_| self.is_passed(end)) {
            (end, count) = (next, count + more);
        }
        if end == first || count < LEVELS_MIN {
            return;
        }
        let mut levels = Vec::with_capacity(count);
        let mut at = start;
        while at != end {
            let next = self.take_way(at, &mut levels);
            if at != start {
                self.nodes.remove(at);
            }
            at = next;
        }
        self.lay(start, levels.into(), end);
    }

    /// Whether no filter ends at a node.
    fn is_passed(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        node.filter.is_none() && node.shared.is_none() && node.parent.is_some()
    }

    /// The node that the only child path of `id` leads to, with the number of levels; `None` if
    /// there are several children, or a `#`, or none.
    fn next(&self, id: NodeId) -> Option<(NodeId, usize)> {
        let node = &self.nodes[id];
        if node.hash.is_some() {
            return None;
        }
        match (node.plus, node.literals.way()) {
            (Some(plus), Way::None) => Some((plus, 1)),
            (None, Way::One(only)) => Some((only, 1)),
            (None, Way::Chain(chain)) => {
                let chain = &self.chains[chain];
                Some((chain.end, chain.levels.len()))
            }
            _ => None,
        }
    }

    /// Removes the only child path of `id`, appends its levels, and returns its end.
    fn take_way(&mut self, id: NodeId, levels: &mut Vec<Option<LevelId>>) -> NodeId {
        if self.chain_of(id).is_some() {
            let (more, end) = self.take_chain(id);
            levels.extend_from_slice(&more);
            return end;
        }
        let (next, _) = self.next(id).expect("there is one way on");
        levels.push(self.nodes[next].level);
        (self.nodes[id].plus, self.nodes[id].literals) = (None, Literals::NONE);
        next
    }
}
