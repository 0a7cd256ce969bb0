//! The retained index: from a Topic Filter to the Topic Names that something is retained under,
//! without looking at those that do not match. Knows not what is retained.
//!
//! Topics are kept as a tree of their levels. The levels are interned, so that a topic costs little
//! more than the part of it that no other topic has; the whole is put together again when it is
//! visited. Children are found by hash, and are also kept in order, so that a walk can stop, forget
//! all but the topic where it stopped, and go on there later in whatever the tree has become.

mod children;
mod scan;

#[cfg(test)]
mod tests;

use crate::hash::Hashing;
use crate::id_table::IdTable;
use crate::levels::{LevelId, Levels};
use crate::slab::{Id, Slab};
use crate::topic::has_wildcard;
use children::{Children, Place};
use scan::Scan;

pub(crate) type NodeId<T> = Id<Node<T>>;

/// A level of one or more topics.
#[derive(Debug)]
pub(crate) struct Node<T> {
    /// None of the root only.
    parent: Option<NodeId<T>>,
    /// None of the root only.
    level: Option<LevelId>,
    /// What is retained under the topic that ends here.
    value: Option<T>,
    /// In the order of their levels' bytes.
    children: Children<NodeId<T>>,
}

const _: () = assert!(size_of::<Node<Box<u8>>>() <= 32);

/// A `T` for each of many Topic Names.
#[derive(Debug)]
pub struct RetainedIndex<T> {
    hashing: Hashing,
    levels: Levels,
    nodes: Slab<Node<T>>,
    /// The nodes that have, or had, siblings, by their parent and level.
    by_level: IdTable,
    root: NodeId<T>,
    /// Of the lists of children.
    child_bytes: usize,
    /// Values.
    len: usize,
}

/// Where a [`RetainedIndex::scan`] goes on. The default is at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor(Position);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Start,
    /// At the first levels in order that are these or come after them.
    At(Box<str>),
    End,
}

/// What the visitor of a scan says to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanStep {
    /// It has been taken; go on.
    Next,
    /// It has not been taken; stop, and begin with it next time.
    StopBefore,
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanState {
    /// It stopped before the end.
    More,
    /// There is no further match.
    Done,
}

impl Cursor {
    /// Whether there is nothing after it.
    pub fn is_at_end(&self) -> bool {
        self.0 == Position::End
    }
}

impl<T> RetainedIndex<T> {
    /// An empty index. Its tables are hashed under `seed`, which no peer may know.
    pub fn new(seed: u64) -> Self {
        let hashing = Hashing::new(seed);
        let (nodes, root) = rooted();
        Self {
            levels: Levels::new(hashing.clone()),
            hashing,
            nodes,
            by_level: IdTable::default(),
            root,
            child_bytes: 0,
            len: 0,
        }
    }

    /// Retain `value` under `topic`, a Topic Name, and give back what was.
    pub fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        let mut at = self.root;
        for level in topic.split('/') {
            at = self.child_of(at, level).unwrap_or_else(|| self.make_child(at, level));
        }
        let replaced = self.nodes[at].value.replace(value);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Retain nothing under `topic`, and give back what was.
    pub fn remove(&mut self, topic: &str) -> Option<T> {
        let node = self.find(topic)?;
        let removed = self.nodes[node].value.take()?;
        self.len -= 1;
        self.prune(node);
        Some(removed)
    }

    /// What is retained under `topic`.
    pub fn get(&self, topic: &str) -> Option<&T> {
        self.nodes[self.find(topic)?].value.as_ref()
    }

    /// How many topics something is retained under.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that it holds, as an allocator counts them; those of what its values point at
    /// aside.
    pub fn heap_bytes(&self) -> usize {
        self.levels.heap_bytes() + self.nodes.bytes() + self.by_level.bytes() + self.child_bytes
    }

    /// Whether nothing is retained.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Visit the entries that `filter` (without any `$share/NAME/`) matches, from where `cursor`
    /// stands, in a stable order; `cursor` is left where a later call for the same filter goes on.
    /// `visit` says whether to go on.
    ///
    /// At most `steps_max` nodes are walked a call, but at least one. Entries inserted or removed
    /// between calls never make an entry that was there all along be skipped or visited twice.
    pub fn scan(
        &self,
        filter: &str,
        cursor: &mut Cursor,
        steps_max: usize,
        visit: &mut dyn FnMut(&str, &T) -> ScanStep,
    ) -> ScanState {
        if cursor.0 == Position::End {
            return ScanState::Done;
        }
        let position = if has_wildcard(filter) {
            self.walk(filter, &cursor.0, steps_max.max(1), visit)
        } else {
            self.look_up(filter, visit)
        };
        cursor.0 = position;
        if cursor.0 == Position::End { ScanState::Done } else { ScanState::More }
    }

    /// The same for all entries, those under `$` topics too, which no wildcard matches.
    pub fn scan_all(
        &self,
        cursor: &mut Cursor,
        steps_max: usize,
        visit: &mut dyn FnMut(&str, &T) -> ScanStep,
    ) -> ScanState {
        if cursor.0 == Position::End {
            return ScanState::Done;
        }
        cursor.0 = self.walk_with(Scan::of_all(self), &cursor.0, steps_max.max(1), visit);
        if cursor.0 == Position::End { ScanState::Done } else { ScanState::More }
    }

    /// Scan for a filter without a wildcard, which matches the topic that it spells.
    fn look_up(&self, topic: &str, visit: &mut dyn FnMut(&str, &T) -> ScanStep) -> Position {
        match self.get(topic).map(|value| visit(topic, value)) {
            None | Some(ScanStep::Next) => Position::End,
            Some(ScanStep::StopBefore) => Position::At(topic.into()),
        }
    }

    fn walk(
        &self,
        filter: &str,
        from: &Position,
        steps_max: usize,
        visit: &mut dyn FnMut(&str, &T) -> ScanStep,
    ) -> Position {
        self.walk_with(Scan::new(self, filter), from, steps_max, visit)
    }

    fn walk_with(
        &self,
        mut scan: Scan<'_, T>,
        from: &Position,
        steps_max: usize,
        visit: &mut dyn FnMut(&str, &T) -> ScanStep,
    ) -> Position {
        if let Position::At(path) = from {
            scan.seek(path);
        }
        let mut steps = 0;
        while let Some(entered) = scan.next() {
            let value = self.nodes[entered.node].value.as_ref().filter(|_| entered.matches);
            let stop = steps == steps_max
                || value.is_some_and(|value| visit(scan.path(), value) == ScanStep::StopBefore);
            if stop {
                return Position::At(scan.path().into());
            }
            steps += 1;
        }
        Position::End
    }

    fn find(&self, topic: &str) -> Option<NodeId<T>> {
        topic.split('/').try_fold(self.root, |node, level| self.child_of(node, level))
    }

    fn child_of(&self, node: NodeId<T>, level: &str) -> Option<NodeId<T>> {
        self.child(node, self.levels.find(level)?)
    }

    fn child(&self, id: NodeId<T>, level: LevelId) -> Option<NodeId<T>> {
        match self.nodes[id].children {
            Children::None => None,
            Children::One(only) => Some(only).filter(|only| self.nodes[*only].level == Some(level)),
            Children::Many(_) => {
                let is = |number| {
                    let child = Id::from_number(number).map(|child: NodeId<T>| &self.nodes[child]);
                    child
                        .is_some_and(|child| child.parent == Some(id) && child.level == Some(level))
                };
                self.by_level.find(self.edge(id, level), is).and_then(Id::from_number)
            }
        }
    }

    /// The hash under which the child of `parent` with `level` is found.
    fn edge(&self, parent: NodeId<T>, level: LevelId) -> u32 {
        self.hashing.pair(parent.number(), level.number())
    }

    /// Where among the children of `node` the one with `level` is or would be.
    fn search(&self, node: NodeId<T>, level: &str) -> (Place, bool) {
        let bytes = |child| self.nodes[child].level.map_or(&[][..], |id| self.levels.bytes(id));
        self.nodes[node].children.search(|child| bytes(child).cmp(level.as_bytes()))
    }

    fn level_text(&self, node: NodeId<T>) -> &str {
        self.nodes[node].level.map_or("", |level| self.levels.text(level))
    }

    fn make_child(&mut self, parent: NodeId<T>, text: &str) -> NodeId<T> {
        let (place, _) = self.search(parent, text);
        let level = self.levels.hold(text);
        let child = self.nodes.insert(Node {
            parent: Some(parent),
            level: Some(level),
            value: None,
            children: Children::default(),
        });
        match self.nodes[parent].children {
            Children::None => {}
            Children::One(first) => {
                self.enter(parent, first);
                self.enter(parent, child);
            }
            Children::Many(_) => self.enter(parent, child),
        }
        let children = &mut self.nodes[parent].children;
        self.child_bytes -= children.heap_bytes();
        children.insert(place, child);
        self.child_bytes += children.heap_bytes();
        child
    }

    fn enter(&mut self, parent: NodeId<T>, child: NodeId<T>) {
        let level = self.nodes[child].level.expect("a child has a level");
        self.by_level.insert(self.edge(parent, level), child.number());
    }

    /// Take out `child`, which has nothing below it.
    fn remove_child(&mut self, parent: NodeId<T>, child: NodeId<T>, level: LevelId) {
        let (place, _) = self.search(parent, self.levels.text(level));
        // Many stay many until the last one goes: so all of them are in the table.
        if let Children::Many(_) = self.nodes[parent].children {
            self.by_level.remove(self.edge(parent, level), child.number());
        }
        let children = &mut self.nodes[parent].children;
        self.child_bytes -= children.heap_bytes();
        children.remove(place);
        self.child_bytes += children.heap_bytes();
        self.nodes.remove(child);
        self.levels.release(level);
    }

    /// Take out `id` and the nodes above it that lead to no value any more.
    fn prune(&mut self, id: NodeId<T>) {
        let mut at = id;
        loop {
            let node = &self.nodes[at];
            let used = node.value.is_some() || !node.children.is_empty();
            let (Some(parent), Some(level), false) = (node.parent, node.level, used) else { break };
            self.remove_child(parent, at, level);
            at = parent;
        }
        if self.nodes.len() == 1 {
            (self.nodes, self.root) = rooted();
        }
    }
}

/// A slab with a root in it.
fn rooted<T>() -> (Slab<Node<T>>, NodeId<T>) {
    let mut nodes = Slab::default();
    let children = Children::default();
    let root = nodes.insert(Node { parent: None, level: None, value: None, children });
    (nodes, root)
}
