//! The retained index: from a Topic Filter to the Topic Names with a retained message, without
//! visiting those that do not match. Does not interpret the values.
//!
//! Topics form a tree of levels. The levels are interned, so that a topic costs little more than
//! the part that no other topic shares; the full topic is rebuilt when it is visited. Children are
//! found by hash, and are also ordered, so that a scan can stop, remember only the topic where it
//! stopped, and resume there later, however the tree has changed.

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
    /// `None` only for the root.
    parent: Option<NodeId<T>>,
    /// `None` only for the root.
    level: Option<LevelId>,
    /// The value of the topic that ends here.
    value: Option<T>,
    /// In the order of their levels' bytes.
    children: Children<NodeId<T>>,
}

const _: () = assert!(size_of::<Node<Box<u8>>>() <= 32);

/// A map from Topic Names to `T`.
#[derive(Debug)]
pub struct RetainedIndex<T> {
    hashing: Hashing,
    levels: Levels,
    nodes: Slab<Node<T>>,
    /// The nodes that have, or had, siblings, by parent and level.
    by_level: IdTable,
    root: NodeId<T>,
    /// Bytes of the lists of children.
    child_bytes: usize,
    /// Number of values.
    len: usize,
}

/// The position where a [`RetainedIndex::scan`] resumes. The default is the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor(Position);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Start,
    /// At these levels, or at the first ones after them in order.
    At(Box<str>),
    End,
}

/// A visitor's response to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanStep {
    /// The entry has been processed; continue.
    Next,
    /// The entry has not been processed; stop, and start with it next time.
    StopBefore,
}

/// The result of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanState {
    /// The scan stopped before the end.
    More,
    /// There are no further matches.
    Done,
}

impl Cursor {
    /// A scan that begins at a topic, or at the first one after it in order.
    pub fn at(topic: &str) -> Self {
        Self(Position::At(topic.into()))
    }

    /// The topic where the scan resumes; none at the start and at the end.
    pub fn topic(&self) -> Option<&str> {
        match &self.0 {
            Position::At(topic) => Some(topic),
            Position::Start | Position::End => None,
        }
    }

    /// Whether the scan is complete.
    pub fn is_at_end(&self) -> bool {
        self.0 == Position::End
    }
}

impl<T> RetainedIndex<T> {
    /// An empty index. Its tables are hashed with `seed`, which must be unknown to peers.
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

    /// Inserts `value` for the Topic Name `topic`, and returns the previous value.
    pub fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        let mut at = self.root;
        for level in topic.split('/') {
            at = self.child_of(at, level).unwrap_or_else(|| self.make_child(at, level));
        }
        let replaced = self.nodes[at].value.replace(value);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Removes the value of `topic` and returns it.
    pub fn remove(&mut self, topic: &str) -> Option<T> {
        let node = self.find(topic)?;
        let removed = self.nodes[node].value.take()?;
        self.len -= 1;
        self.prune(node);
        Some(removed)
    }

    /// The value of `topic`.
    pub fn get(&self, topic: &str) -> Option<&T> {
        self.nodes[self.find(topic)?].value.as_ref()
    }

    /// Number of topics with a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory as an allocator counts them, without the memory that values refer to.
    pub fn heap_bytes(&self) -> usize {
        self.levels.heap_bytes() + self.nodes.bytes() + self.by_level.bytes() + self.child_bytes
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Visits the entries that match `filter` (without `$share/NAME/`), starting at `cursor`, in a
    /// stable order; `cursor` is advanced to where a later call with the same filter resumes.
    /// `visit` decides whether to continue.
    ///
    /// A call visits at most `steps_max` nodes, but at least one. Insertions and removals between
    /// calls never cause an entry that exists throughout to be skipped or visited twice.
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

    /// Like [`scan`](Self::scan) for all entries, including those under `$` topics, which no
    /// wildcard matches.
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

    /// Scans for a filter without a wildcard, which matches exactly one topic.
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

    /// The hash under which the child of `parent` with `level` is stored.
    fn edge(&self, parent: NodeId<T>, level: LevelId) -> u32 {
        self.hashing.pair(parent.number(), level.number())
    }

    /// The position among the children of `node` where the one with `level` is or would be.
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

    /// Removes `child`, which has no children.
    fn remove_child(&mut self, parent: NodeId<T>, child: NodeId<T>, level: LevelId) {
        let (place, _) = self.search(parent, self.levels.text(level));
        // A `Many` list stays one until it is empty, so all its children are in the table.
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

    /// Removes `id` and its ancestors that no longer lead to a value.
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

/// A slab that contains a root.
fn rooted<T>() -> (Slab<Node<T>>, NodeId<T>) {
    let mut nodes = Slab::default();
    let children = Children::default();
    let root = nodes.insert(Node { parent: None, level: None, value: None, children });
    (nodes, root)
}
