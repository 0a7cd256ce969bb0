//! A resumable walk over the Topic Names that match a filter, in the order of their levels. Does
//! not interpret the values.

use super::children::Place;
use super::{NodeId, RetainedIndex};
use crate::levels::LevelId;

/// One level of the filter.
#[derive(Clone, Copy)]
enum Pattern {
    /// The id of a text, if a topic has such a level.
    Literal(Option<LevelId>),
    Plus,
    /// Matches every level below, too.
    Hash,
}

/// A node on the current path.
struct Frame<T> {
    node: NodeId<T>,
    /// The depth of the pattern that its children have to match.
    depth: usize,
    /// Length of its path in bytes.
    path_len: usize,
    next: Next<T>,
}

/// The remaining children.
enum Next<T> {
    /// The only child that can match, by its text.
    Only(Option<NodeId<T>>),
    From(Place),
}

/// The state of a walk: the nodes on the current path. The order is that of the levels' bytes, a
/// node before its children, so the position is defined by a path alone, even if its node no longer
/// exists.
pub(super) struct Scan<'a, T> {
    index: &'a RetainedIndex<T>,
    patterns: Vec<Pattern>,
    frames: Vec<Frame<T>>,
    /// The path of the last visited node.
    path: String,
    /// A leading wildcard matches no topic that begins with `$`.
    hides_dollar: bool,
}

/// A visited node.
pub(super) struct Entered<T> {
    pub(super) node: NodeId<T>,
    /// Whether its path matches the whole filter, not only a prefix of it.
    pub(super) matches: bool,
}

impl<'a, T> Scan<'a, T> {
    pub(super) fn new(index: &'a RetainedIndex<T>, filter: &str) -> Self {
        let pattern = |level| match level {
            "+" => Pattern::Plus,
            "#" => Pattern::Hash,
            text => Pattern::Literal(index.levels.find(text)),
        };
        let patterns: Vec<_> = filter.split('/').map(pattern).collect();
        let (frames, path) = (Vec::new(), String::new());
        let mut scan = Self { index, patterns, frames, path, hides_dollar: true };
        scan.push(index.root, 0);
        scan
    }

    /// A walk over all entries.
    pub(super) fn of_all(index: &'a RetainedIndex<T>) -> Self {
        Self { hides_dollar: false, ..Self::new(index, "#") }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Resumes at `path`, where a walk for the same filter stopped, or at the first node after it.
    pub(super) fn seek(&mut self, path: &str) {
        let mut levels = path.split('/').peekable();
        while let Some(level) = levels.next() {
            // A node on the path has already been visited, except the last one.
            let is_last = levels.peek().is_none();
            let Some(node) = self.seek_level(level, is_last) else { break };
            self.enter(node);
        }
    }

    /// Skips the children of the last frame before `level`, and also the one with that level unless
    /// `keep` is set. Returns that child if the walk has to continue below it.
    fn seek_level(&mut self, level: &str, keep: bool) -> Option<NodeId<T>> {
        let frame = self.frames.last_mut()?;
        match &mut frame.next {
            // The filter has led here before: the child has that level.
            Next::Only(only) => {
                if keep {
                    None
                } else {
                    only.take()
                }
            }
            Next::From(from) => {
                let (place, found) = self.index.search(frame.node, level);
                *from = place;
                let (child, after) =
                    self.index.nodes[frame.node].children.get(place).filter(|_| found && !keep)?;
                *from = after;
                Some(child)
            }
        }
    }

    /// The next node in order.
    pub(super) fn next(&mut self) -> Option<Entered<T>> {
        loop {
            let frame = self.frames.last_mut()?;
            let child = match &mut frame.next {
                Next::Only(only) => only.take(),
                Next::From(place) => {
                    let next = self.index.nodes[frame.node].children.get(*place);
                    next.map(|(child, after)| {
                        *place = after;
                        child
                    })
                }
            };
            match child {
                Some(child) => return Some(self.enter(child)),
                None => self.frames.pop(),
            };
        }
    }

    /// Appends `node`, a child of the last frame, to the path, and prepares the walk over its
    /// children.
    fn enter(&mut self, node: NodeId<T>) -> Entered<T> {
        let frame = self.frames.last().expect("a node that is entered has its parent's frame");
        let (depth, pattern) = (frame.depth, self.patterns[frame.depth]);
        let is_first_level = self.frames.len() == 1;
        self.path.truncate(frame.path_len);
        if !is_first_level {
            self.path.push('/');
        }
        let text = self.index.level_text(node);
        self.path.push_str(text);
        // [MQTT-4.7.2-1]
        let is_wildcard = !matches!(pattern, Pattern::Literal(..));
        if self.hides_dollar && is_first_level && is_wildcard && text.starts_with('$') {
            return Entered { node, matches: false };
        }
        let below = if matches!(pattern, Pattern::Hash) { depth } else { depth + 1 };
        // Past the filter's end, or before `#`, which also matches the parent level.
        let matches = self.patterns.get(below).is_none_or(|next| matches!(next, Pattern::Hash));
        if below < self.patterns.len() {
            self.push(node, below);
        }
        Entered { node, matches }
    }

    fn push(&mut self, node: NodeId<T>, depth: usize) {
        let next = match self.patterns[depth] {
            Pattern::Literal(None) => Next::Only(None),
            Pattern::Literal(Some(level)) => Next::Only(self.index.child(node, level)),
            Pattern::Plus | Pattern::Hash => Next::From(Place::default()),
        };
        self.frames.push(Frame { node, depth, path_len: self.path.len(), next });
    }
}
