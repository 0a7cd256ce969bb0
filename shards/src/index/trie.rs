//! The trie of the Topic Filters with a wildcard: one node per level, one walk per Topic Name.
//! Knows which filters end at a node, but not their subscribers.
//!
//! A run of levels without an ending filter or a branch is a single chain (path compression). A
//! walk therefore visits at most twice as many nodes as there are ends and branches, and compares
//! the levels between them in bulk.

mod chains;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use super::filter::Filter;
use super::shared::SharedFilter;
use crate::hash::Hashing;
use crate::id_table::IdTable;
use crate::levels::{LevelId, Levels};
use crate::slab::{Id, Slab};
use chains::Chain;

pub(crate) type NodeId = Id<Node>;

/// One level of one or more filters. The path from the root spells the filter.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// `None` only for the root.
    parent: Option<NodeId>,
    /// The level's text; `None` for the root, for wildcards, which their parent identifies, and at
    /// the end of a chain.
    level: Option<LevelId>,
    /// The child `+`.
    plus: Option<NodeId>,
    /// The child `#`, which has no children.
    hash: Option<NodeId>,
    /// The children with a text, or the chain that is the only child.
    literals: Literals,
    /// The filter that ends here.
    pub(crate) filter: Option<Id<Filter>>,
    /// The first of the shared filters that end here.
    pub(crate) shared: Option<Id<SharedFilter>>,
}

/// Most nodes have at most one child with a text, which needs no table entry. Eight bytes with a
/// niche, which the slab uses to mark a vacant node.
#[derive(Debug, Clone, Copy)]
struct Literals {
    /// Number of children plus one; or [`Self::CHAIN`].
    count: NonZeroU32,
    /// The number of the single child; with several children, the XOR of their numbers, so that the
    /// remaining one of two is known when the other is removed; or the number of the chain.
    link: u32,
}

/// Decoded [`Literals`].
enum Way {
    None,
    One(NodeId),
    /// Several children, found by `Trie::literals`.
    Many(u32),
    Chain(Id<Chain>),
}

impl Default for Literals {
    fn default() -> Self {
        Self::NONE
    }
}

impl Literals {
    const NONE: Self = Self { count: NonZeroU32::MIN, link: 0 };
    const CHAIN: NonZeroU32 = NonZeroU32::MAX;

    fn one(child: NodeId) -> Self {
        Self { count: NonZeroU32::MIN.saturating_add(1), link: child.number() }
    }

    fn many(count: u32, link: u32) -> Self {
        Self { count: NonZeroU32::MIN.saturating_add(count), link }
    }

    fn chain(id: Id<Chain>) -> Self {
        Self { count: Self::CHAIN, link: id.number() }
    }

    fn way(self) -> Way {
        match (self.count.get(), Id::from_number(self.link), Id::from_number(self.link)) {
            (2, Some(only), _) => Way::One(only),
            (count, _, Some(chain)) if count == Self::CHAIN.get() => Way::Chain(chain),
            (1, ..) => Way::None,
            (count, ..) => Way::Many(count - 1),
        }
    }

    fn is_none(self) -> bool {
        self.count == NonZeroU32::MIN
    }
}

const _: () = assert!(size_of::<Node>() <= 32);

impl Node {
    fn is_leaf(&self) -> bool {
        self.plus.is_none() && self.hash.is_none() && self.literals.is_none()
    }
}

/// The children of all nodes with several are in one table, by parent and level: a node with a
/// million children is searched as fast as one with two, and no node has a table of its own.
#[derive(Debug)]
pub(crate) struct Trie {
    hashing: Hashing,
    levels: Levels,
    nodes: Slab<Node>,
    literals: IdTable,
    chains: Slab<Chain>,
    /// Bytes of the levels of all chains.
    chain_bytes: usize,
    root: NodeId,
}

/// Buffers of a walk, reused so that a walk allocates nothing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Walk {
    /// The topic's levels reached so far; `None` if no filter contains the text.
    levels: Vec<Option<LevelId>>,
    /// Nodes to continue from, with the number of topic levels that lead to them. At most one per
    /// level of the topic, since one of a node's two branches is followed at once.
    pending: Vec<(NodeId, u32)>,
    /// Nodes and parts of chains visited by the last walk.
    pub(super) steps: u32,
}

impl Walk {
    /// Bytes of allocated memory.
    pub(super) fn heap_bytes(&self) -> usize {
        self.levels.capacity() * size_of::<Option<LevelId>>()
            + self.pending.capacity() * size_of::<(NodeId, u32)>()
    }
}

impl Trie {
    pub(crate) fn new(hashing: Hashing) -> Self {
        let (nodes, root) = rooted();
        let levels = Levels::new(hashing.clone());
        let (literals, chains) = (IdTable::default(), Slab::default());
        Self { hashing, levels, nodes, literals, chains, chain_bytes: 0, root }
    }

    /// Calls `found` with each node whose path matches `topic`.
    pub(crate) fn matches(&self, topic: &str, walk: &mut Walk, mut found: impl FnMut(&Node)) {
        walk.steps = 0;
        if self.is_empty() {
            return;
        }
        let mut steps = 0;
        // [MQTT-4.7.2-1]: no wildcard matches a first level that starts with `$`.
        let reserved = topic.starts_with('$');
        let mut rest = topic.split('/');
        walk.levels.clear();
        walk.pending.clear();
        walk.pending.push((self.root, 0));
        while let Some((mut at, mut depth)) = walk.pending.pop() {
            loop {
                let node = &self.nodes[at];
                steps += 1;
                let wildcards = depth > 0 || !reserved;
                // `#` also matches the parent level: `a/#` matches `a`.
                if let Some(hash) = node.hash.filter(|_| wildcards) {
                    found(&self.nodes[hash]);
                }
                let Some(level) = self.level_at(depth as usize, &mut rest, walk) else {
                    found(node);
                    break;
                };
                depth += 1;
                let literal = level.and_then(|level| self.literal(at, node, level));
                let plus = node.plus.filter(|_| wildcards);
                let Some(next) = literal.or(plus) else {
                    let Way::Chain(chain) = node.literals.way() else { break };
                    let chain = &self.chains[chain];
                    steps += chain.steps();
                    if !self.follows(chain, depth as usize - 1, wildcards, &mut rest, walk) {
                        break;
                    }
                    depth += chain.levels.len() as u32 - 1;
                    at = chain.end;
                    continue;
                };
                if let Some(plus) = plus.filter(|_| literal.is_some()) {
                    walk.pending.push((plus, depth));
                }
                at = next;
            }
        }
        walk.steps = steps;
    }

    /// The topic's level at `depth`, interned, or `None` past the topic's end. Each level is hashed
    /// once per walk, however many branches reach it, and none below the deepest branch.
    #[inline(always)]
    fn level_at<'t>(
        &self,
        depth: usize,
        rest: &mut impl Iterator<Item = &'t str>,
        walk: &mut Walk,
    ) -> Option<Option<LevelId>> {
        if depth == walk.levels.len() {
            walk.levels.push(self.levels.find(rest.next()?));
        }
        Some(walk.levels[depth])
    }

    /// The child of `id` (whose node is `node`) with the text `level`.
    fn literal(&self, id: NodeId, node: &Node, level: LevelId) -> Option<NodeId> {
        match node.literals.way() {
            Way::None | Way::Chain(_) => None,
            Way::One(only) => Some(only).filter(|only| self.nodes[*only].level == Some(level)),
            Way::Many(_) => {
                let is = |number| {
                    let child = Id::from_number(number).map(|child: NodeId| &self.nodes[child]);
                    child
                        .is_some_and(|child| child.parent == Some(id) && child.level == Some(level))
                };
                self.literals.find(self.edge(id, level), is).and_then(Id::from_number)
            }
        }
    }

    /// The hash under which the child of `parent` with the text `level` is stored.
    fn edge(&self, parent: NodeId, level: LevelId) -> u32 {
        self.hashing.pair(parent.number(), level.number())
    }

    fn child(&self, id: NodeId, level: &str) -> Option<NodeId> {
        let node = &self.nodes[id];
        match level {
            "+" => node.plus,
            "#" => node.hash,
            _ => self.literal(id, node, self.levels.find(level)?),
        }
    }

    /// The node at the end of `filter`, if it exists.
    pub(crate) fn find(&self, filter: &str) -> Option<NodeId> {
        let (mut at, mut rest) = (self.root, Some(filter));
        while let Some(text) = rest {
            (at, rest) = match self.chain_of(at) {
                Some(chain) => {
                    let (same, after) = self.common(chain, text);
                    (Some(chain.end).filter(|_| same == chain.levels.len())?, after)
                }
                None => {
                    let (level, after) = cut(text);
                    (self.child(at, level)?, after)
                }
            };
        }
        Some(at)
    }

    /// The node at the end of `filter`, created if necessary. If nothing is attached to it, the
    /// caller must [`prune`](Self::prune) it.
    pub(crate) fn make(&mut self, filter: &str) -> NodeId {
        let (mut at, mut rest) = (self.root, Some(filter));
        while let Some(text) = rest {
            if let Some(chain) = self.chain_of(at) {
                let (same, after) = self.common(chain, text);
                if same == chain.levels.len() {
                    (at, rest) = (chain.end, after);
                } else if same == 0 {
                    self.split(at, 1);
                } else {
                    (at, rest) = (self.split(at, same), after);
                }
                continue;
            }
            let (level, after) = cut(text);
            let Some(child) = self.child(at, level) else { return self.grow(at, text) };
            (at, rest) = (child, after);
        }
        at
    }

    /// Creates the nodes that spell `text` below `at`, which has no child for its first level.
    fn grow(&mut self, mut at: NodeId, text: &str) -> NodeId {
        let mut rest = Some(text);
        while let Some(text) = rest {
            if self.nodes[at].is_leaf()
                && let Some((row, after)) = chains::row(text)
            {
                let levels = row.split('/').map(|level| self.pattern(level)).collect();
                let end = self.nodes.insert(Node::default());
                self.lay(at, levels, end);
                (at, rest) = (end, after);
                continue;
            }
            let (level, after) = cut(text);
            (at, rest) = (self.make_child(at, level), after);
        }
        at
    }

    fn make_child(&mut self, parent: NodeId, level: &str) -> NodeId {
        let child = self.nodes.insert(Node { parent: Some(parent), ..Node::default() });
        match level {
            "+" => self.nodes[parent].plus = Some(child),
            "#" => self.nodes[parent].hash = Some(child),
            _ => {
                self.nodes[child].level = Some(self.levels.hold(level));
                self.link(parent, child);
            }
        }
        child
    }

    /// Links `child`, which has a text, to `parent`.
    fn link(&mut self, parent: NodeId, child: NodeId) {
        let literals = self.nodes[parent].literals;
        self.nodes[parent].literals = match literals.way() {
            Way::None => Literals::one(child),
            Way::One(first) => {
                self.enter(first);
                self.enter(child);
                Literals::many(2, first.number() ^ child.number())
            }
            Way::Many(count) => {
                self.enter(child);
                Literals::many(count + 1, literals.link ^ child.number())
            }
            Way::Chain(_) => unreachable!("a chain is split before another way is made"),
        };
    }

    /// Reverts [`link`](Self::link).
    fn unlink(&mut self, parent: NodeId, child: NodeId) {
        let literals = self.nodes[parent].literals;
        self.nodes[parent].literals = match literals.way() {
            Way::None | Way::Chain(_) => unreachable!("a parent knows of its child"),
            Way::One(_) => Literals::NONE,
            Way::Many(count) => {
                self.leave(child);
                let link = literals.link ^ child.number();
                match Id::from_number(link) {
                    Some(last) if count == 2 => {
                        self.leave(last);
                        Literals::one(last)
                    }
                    _ => Literals::many(count - 1, link),
                }
            }
        };
    }

    fn enter(&mut self, child: NodeId) {
        if let (Some(parent), Some(level)) = (self.nodes[child].parent, self.nodes[child].level) {
            self.literals.insert(self.edge(parent, level), child.number());
        }
    }

    fn leave(&mut self, child: NodeId) {
        if let (Some(parent), Some(level)) = (self.nodes[child].parent, self.nodes[child].level) {
            self.literals.remove(self.edge(parent, level), child.number());
        }
    }

    /// Removes `id` and its ancestors that no longer lead to a filter.
    pub(crate) fn prune(&mut self, id: NodeId) {
        let mut at = id;
        loop {
            let node = &self.nodes[at];
            let used = node.filter.is_some() || node.shared.is_some() || !node.is_leaf();
            let Some(parent) = node.parent.filter(|_| !used) else { break };
            self.remove(parent, at);
            at = parent;
        }
        if self.is_empty() {
            (self.nodes, self.root) = rooted();
        } else {
            self.join(at);
        }
    }

    fn remove(&mut self, parent: NodeId, child: NodeId) {
        if let Some(level) = self.nodes[child].level {
            self.unlink(parent, child);
            self.levels.release(level);
        } else if self.nodes[parent].plus == Some(child) {
            self.nodes[parent].plus = None;
        } else if self.nodes[parent].hash == Some(child) {
            self.nodes[parent].hash = None;
        } else {
            let (levels, _) = self.take_chain(parent);
            levels.iter().flatten().for_each(|level| self.levels.release(*level));
        }
        self.nodes.remove(child);
    }

    /// Appends the filter that ends at `id` to `out`.
    pub(crate) fn write_text(&self, id: NodeId, out: &mut String) {
        let mut path = Vec::new();
        let mut at = id;
        while let Some(parent) = self.nodes[at].parent {
            match self.chain_of(parent) {
                Some(chain) => path.extend(self.texts(chain).rev()),
                None => path.push(self.level_text(parent, at)),
            }
            at = parent;
        }
        for (depth, level) in path.iter().rev().enumerate() {
            if depth > 0 {
                out.push('/');
            }
            out.push_str(level);
        }
    }

    /// Whether the filter that ends at `id` is `filter`.
    pub(crate) fn is_text(&self, id: NodeId, filter: &str) -> bool {
        let mut levels = filter.rsplit('/');
        let mut at = id;
        while let Some(parent) = self.nodes[at].parent {
            let is_same = match self.chain_of(parent) {
                Some(chain) => self.texts(chain).rev().all(|text| levels.next() == Some(text)),
                None => levels.next() == Some(self.level_text(parent, at)),
            };
            if !is_same {
                return false;
            }
            at = parent;
        }
        levels.next().is_none()
    }

    fn level_text(&self, parent: NodeId, child: NodeId) -> &str {
        match self.nodes[child].level {
            Some(level) => self.levels.text(level),
            None if self.nodes[parent].plus == Some(child) => "+",
            None => "#",
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id]
    }

    /// Bytes of allocated memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.nodes.bytes()
            + self.literals.bytes()
            + self.levels.heap_bytes()
            + self.chains.bytes()
            + self.chain_bytes
    }

    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Number of nodes, without the root, and of levels, which tests check for leaks.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        assert!(self.literals.len() < self.nodes.len());
        assert!(self.nodes.len() > 1 || self.chain_bytes == 0 && self.chains.len() == 0);
        (self.nodes.len() - 1, self.levels.len())
    }
}

/// A slab that contains a root.
fn rooted() -> (Slab<Node>, NodeId) {
    let mut nodes = Slab::default();
    let root = nodes.insert(Node::default());
    (nodes, root)
}

/// Splits a filter into its first level and the rest. Levels are short: a loop over their bytes is
/// faster than a search for a character.
fn cut(text: &str) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == b'/') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}
