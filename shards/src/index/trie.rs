//! The trie of the Topic Filters that hold a wildcard: a node for each level, a walk down it for
//! each Topic Name. Knows which filters end at a node, not who subscribed to them.

use super::filter::Filter;
use super::shared::SharedFilter;
use crate::hash::Hashing;
use crate::id_table::IdTable;
use crate::levels::{LevelId, Levels};
use crate::slab::{Id, Slab};

pub(crate) type NodeId = Id<Node>;

/// One level of one or more filters. Its path from the root spells the filter.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// None of the root only.
    parent: Option<NodeId>,
    /// The level's text; none of the root and of wildcards, which their parent names.
    level: Option<LevelId>,
    /// The child `+`.
    plus: Option<NodeId>,
    /// The child `#`, which has no children.
    hash: Option<NodeId>,
    /// The children that have a text.
    literals: Literals,
    /// The filter that ends here.
    pub(crate) filter: Option<Id<Filter>>,
    /// The first of the shared filters whose filter ends here.
    pub(crate) shared: Option<Id<SharedFilter>>,
}

/// Most nodes have no child with a text, or one, which needs no entry in a table.
#[derive(Debug, Default, Clone, Copy)]
enum Literals {
    #[default]
    None,
    One(NodeId),
    /// How many. They are found by `Trie::literals`.
    Many(u32),
}

const _: () = assert!(size_of::<Node>() <= 32);

impl Node {
    fn is_leaf(&self) -> bool {
        self.plus.is_none() && self.hash.is_none() && matches!(self.literals, Literals::None)
    }
}

/// The children of all nodes with several are in one table, under their parent and level: a node
/// with a million is searched as fast as one with two, and none has a table of its own.
#[derive(Debug)]
pub(crate) struct Trie {
    hashing: Hashing,
    levels: Levels,
    nodes: Slab<Node>,
    literals: IdTable,
    root: NodeId,
}

/// What a walk needs besides the trie. Kept between walks, so that they allocate nothing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Walk {
    /// The levels of the topic as far as the walk has come; none where no filter holds the text.
    levels: Vec<Option<LevelId>>,
    /// Nodes to go on from, and how many levels of the topic lead to them. At most one for each
    /// level of the topic, since of a node's two ways the walk goes one at once.
    pending: Vec<(NodeId, u32)>,
}

impl Trie {
    pub(crate) fn new(hashing: Hashing) -> Self {
        let (nodes, root) = rooted();
        let levels = Levels::new(hashing.clone());
        Self { hashing, levels, nodes, literals: IdTable::default(), root }
    }

    /// Call `found` with each node whose path matches `topic`.
    pub(crate) fn matches(&self, topic: &str, walk: &mut Walk, mut found: impl FnMut(&Node)) {
        if self.is_empty() {
            return;
        }
        // [MQTT-4.7.2-1]: no wildcard stands for a first level that starts with `$`.
        let reserved = topic.starts_with('$');
        let mut rest = topic.split('/');
        walk.levels.clear();
        walk.pending.clear();
        walk.pending.push((self.root, 0));
        while let Some((mut at, mut depth)) = walk.pending.pop() {
            loop {
                let node = &self.nodes[at];
                let wildcards = depth > 0 || !reserved;
                // `#` also stands for no level at all: `a/#` matches `a`.
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
                let Some(next) = literal.or(plus) else { break };
                if let Some(plus) = plus.filter(|_| literal.is_some()) {
                    walk.pending.push((plus, depth));
                }
                at = next;
            }
        }
    }

    /// The topic's level at `depth`, interned, or none past the topic's end. Each level is hashed
    /// once a walk, however many branches come to it, and none below the deepest branch.
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

    /// The child of `id`, which is `node`, with the text `level`.
    fn literal(&self, id: NodeId, node: &Node, level: LevelId) -> Option<NodeId> {
        match node.literals {
            Literals::None => None,
            Literals::One(only) => Some(only).filter(|only| self.nodes[*only].level == Some(level)),
            Literals::Many(_) => {
                let is = |number| {
                    let child = Id::from_number(number).map(|child: NodeId| &self.nodes[child]);
                    child
                        .is_some_and(|child| child.parent == Some(id) && child.level == Some(level))
                };
                self.literals.find(self.edge(id, level), is).and_then(Id::from_number)
            }
        }
    }

    /// The hash under which the child of `parent` with the text `level` is found.
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

    /// The node at the end of `filter`, if there is one.
    pub(crate) fn find(&self, filter: &str) -> Option<NodeId> {
        filter.split('/').try_fold(self.root, |node, level| self.child(node, level))
    }

    /// The node at the end of `filter`, made if there is none. A node that nothing is attached to
    /// must be given back with [`prune`](Self::prune).
    pub(crate) fn make(&mut self, filter: &str) -> NodeId {
        let mut at = self.root;
        for level in filter.split('/') {
            at = self.child(at, level).unwrap_or_else(|| self.make_child(at, level));
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

    /// Make `child`, which has a text, a child of `parent`.
    fn link(&mut self, parent: NodeId, child: NodeId) {
        self.nodes[parent].literals = match self.nodes[parent].literals {
            Literals::None => Literals::One(child),
            Literals::One(first) => {
                self.enter(first);
                self.enter(child);
                Literals::Many(2)
            }
            Literals::Many(count) => {
                self.enter(child);
                Literals::Many(count + 1)
            }
        };
    }

    /// Undo [`link`](Self::link).
    fn unlink(&mut self, parent: NodeId, child: NodeId) {
        self.nodes[parent].literals = match self.nodes[parent].literals {
            Literals::None => unreachable!("a parent knows of its child"),
            Literals::One(_) => Literals::None,
            // Which one is left is not known: it stays in the table, until it goes too.
            Literals::Many(count) => {
                self.leave(child);
                if count == 1 { Literals::None } else { Literals::Many(count - 1) }
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

    /// Take out `id` and the nodes above it that lead to no filter any more.
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
        }
    }

    fn remove(&mut self, parent: NodeId, child: NodeId) {
        if let Some(level) = self.nodes[child].level {
            self.unlink(parent, child);
            self.levels.release(level);
        } else if self.nodes[parent].plus == Some(child) {
            self.nodes[parent].plus = None;
        } else {
            self.nodes[parent].hash = None;
        }
        self.nodes.remove(child);
    }

    /// Append the filter that ends at `id` to `out`.
    pub(crate) fn write_text(&self, id: NodeId, out: &mut String) {
        let mut path = Vec::new();
        let mut at = id;
        while let Some(parent) = self.nodes[at].parent {
            path.push(self.level_text(parent, at));
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
        let mut at = id;
        for level in filter.rsplit('/') {
            let Some(parent) = self.nodes[at].parent else { return false };
            if self.level_text(parent, at) != level {
                return false;
            }
            at = parent;
        }
        at == self.root
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

    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Nodes, without the root, and levels: what tests look at for leaks.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        assert!(self.literals.len() < self.nodes.len());
        (self.nodes.len() - 1, self.levels.len())
    }
}

/// A slab with a root in it.
fn rooted() -> (Slab<Node>, NodeId) {
    let mut nodes = Slab::default();
    let root = nodes.insert(Node::default());
    (nodes, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trie(filters: &[&str]) -> Trie {
        let mut trie = Trie::new(Hashing::new(3));
        for (n, filter) in filters.iter().enumerate() {
            let node = trie.make(filter);
            trie.node_mut(node).filter = Id::from_number(n as u32 + 1);
        }
        trie
    }

    fn found(trie: &Trie, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        trie.matches(topic, &mut Walk::default(), |node| {
            found.extend(node.filter.map(|filter| filter.number()));
        });
        found.sort_unstable();
        found
    }

    #[test]
    fn every_branch_is_walked() {
        let trie = trie(&["+/b/c", "a/+/c", "a/b/+", "a/b/#", "a/b/c/#", "+/+/+", "#", "a/+/d"]);
        assert_eq!(found(&trie, "a/b/c"), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(found(&trie, "a/b"), [4, 7]);
        assert_eq!(found(&trie, "x/b/c"), [1, 6, 7]);
        assert_eq!(found(&trie, "a"), [7]);
    }

    #[test]
    fn a_walk_can_be_used_again() {
        let trie = trie(&["a/+", "b/#"]);
        let mut walk = Walk::default();
        for topic in ["a/x", "b/x/y", "b", "a/x"] {
            let mut count = 0;
            trie.matches(topic, &mut walk, |node| count += u32::from(node.filter.is_some()));
            assert_eq!(count, 1, "{topic}");
        }
    }

    #[test]
    fn the_walk_remembers_no_more_than_a_branch_for_each_level() {
        let filters: Vec<String> = (0..1 << 8)
            .map(|bits| (0..8).map(|n| if bits >> n & 1 == 0 { "+/" } else { "a/" }).collect())
            .map(|path: String| path + "#")
            .collect();
        let trie = trie(&filters.iter().map(String::as_str).collect::<Vec<_>>());
        let mut walk = Walk::default();
        let mut count = 0;
        trie.matches("a/a/a/a/a/a/a/a", &mut walk, |node| {
            count += usize::from(node.filter.is_some());
        });
        assert_eq!(count, filters.len());
        assert!(walk.pending.capacity() <= 16);
    }

    #[test]
    fn texts_are_rebuilt_and_compared_from_the_path() {
        let filters = ["a/+/#", "/+", "#", "+//b", "a/+"];
        let trie = trie(&filters);
        for filter in filters {
            let node = trie.find(filter).expect("was made");
            let mut text = String::new();
            trie.write_text(node, &mut text);
            assert_eq!(text, filter);
            assert!(trie.is_text(node, filter));
            assert!(!trie.is_text(node, "a/#") && !trie.is_text(node, &format!("x/{filter}")));
            assert!(filter.split_once('/').is_none_or(|(_, end)| !trie.is_text(node, end)));
        }
        assert_eq!(trie.find("a/#"), None);
    }

    #[test]
    fn pruning_leaves_what_others_need_and_nothing_else() {
        let mut trie = trie(&["a/b/+", "a/b/+/c/#", "a/+"]);
        let remove = |trie: &mut Trie, filter| {
            let node = trie.find(filter).expect("was made");
            trie.node_mut(node).filter = None;
            trie.prune(node);
        };
        remove(&mut trie, "a/b/+");
        assert_eq!(found(&trie, "a/b/x/c/d"), [2], "a node with children stays");
        remove(&mut trie, "a/b/+/c/#");
        assert_eq!((found(&trie, "a/x"), trie.counts()), (vec![3], (2, 1)));
        remove(&mut trie, "a/+");
        assert_eq!(trie.counts(), (0, 0));
        assert_eq!(found(&trie, "a/x"), []);
    }
}
