//! What a turn has for the cores of one NUMA node: each message lies there once, however many of
//! those cores want it, and crosses to the node's caches once. Knows no lane.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::base::clock::Deadline;
use crate::base::ids::CoreId;
use crate::base::limits;
use crate::message::Content;
use crate::wire::Qos;

/// Small messages side by side. It is written by one core, and then read by those of a node.
#[derive(Debug, Default)]
pub(in crate::engine) struct Bundle {
    /// Topic Names.
    texts: String,
    /// Properties that are passed on, and payloads.
    bytes: Vec<u8>,
}

/// A place in a text or in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// What lies from `start` to the end.
    pub(in crate::engine) fn since(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(in crate::engine) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Where a message lies in a bundle, and what it is besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Placed {
    topic: Span,
    passed_on: Span,
    payload: Span,
    expires: Option<Deadline>,
    qos: Qos,
}

impl Placed {
    /// Bytes it takes in the bundle.
    pub(in crate::engine) fn bytes(&self) -> usize {
        [self.topic, self.passed_on, self.payload].map(|span| span.range().len()).iter().sum()
    }
}

impl Bundle {
    fn is_empty(&self) -> bool {
        // A Topic Name has a character at least.
        self.texts.is_empty()
    }

    fn clear(&mut self) {
        self.texts.clear();
        self.bytes.clear();
    }

    fn capacity(&self) -> usize {
        self.texts.capacity() + self.bytes.capacity()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::since(start, self.bytes.len())
    }

    fn push(&mut self, content: &Content<'_>) -> Placed {
        let start = self.texts.len();
        self.texts.push_str(content.topic);
        Placed {
            topic: Span::since(start, self.texts.len()),
            passed_on: self.push_bytes(content.passed_on),
            payload: self.push_bytes(content.payload),
            expires: content.expires,
            qos: content.qos,
        }
    }

    /// A message that lies here.
    pub(in crate::engine) fn content(&self, placed: &Placed) -> Content<'_> {
        let Placed { topic, passed_on, payload, expires, qos } = *placed;
        Content {
            topic: &self.texts[topic.range()],
            passed_on: &self.bytes[passed_on.range()],
            payload: &self.bytes[payload.range()],
            expires,
            qos,
        }
    }
}

/// A message's places in the open bundles, by node.
pub(in crate::engine) type Places = smallvec::SmallVec<[(u16, Placed); 2]>;

/// The bundles a core writes, one a node.
#[derive(Debug)]
pub(in crate::engine) struct Bundles {
    /// By core, the node it is on, counted from zero.
    nodes: Vec<u16>,
    /// By node.
    open: Vec<Bundle>,
    /// Those that others read or have read, to be used again.
    given: VecDeque<Arc<Bundle>>,
}

impl Bundles {
    /// For cores on these nodes, whatever their numbers.
    pub(in crate::engine) fn new(nodes: &[u16]) -> Self {
        let mut known: Vec<u16> = Vec::new();
        let number = |node: &u16| match known.iter().position(|other| other == node) {
            Some(place) => place as u16,
            None => {
                known.push(*node);
                (known.len() - 1) as u16
            }
        };
        let nodes: Vec<u16> = nodes.iter().map(number).collect();
        let open = known.iter().map(|_| Bundle::default()).collect();
        Self { nodes, open, given: VecDeque::new() }
    }

    /// The node of a core.
    pub(in crate::engine) fn node(&self, core: CoreId) -> u16 {
        self.nodes[usize::from(core.0)]
    }

    /// The cores of a node.
    pub(in crate::engine) fn cores(&self, node: u16) -> impl Iterator<Item = usize> + '_ {
        self.nodes.iter().enumerate().filter(move |&(_, &of)| of == node).map(|(core, _)| core)
    }

    /// Places a message where `core` finds it, unless it lies there already.
    pub(in crate::engine) fn place(
        &mut self,
        core: CoreId,
        content: &Content<'_>,
        places: &mut Places,
    ) -> Placed {
        let node = self.node(core);
        if let Some((_, placed)) = places.iter().find(|(of, _)| *of == node) {
            return *placed;
        }
        let placed = self.open[usize::from(node)].push(content);
        places.push((node, placed));
        placed
    }

    /// Gives the open bundle of a node away and opens another; none when nothing lies in it.
    pub(in crate::engine) fn close(&mut self, node: u16) -> Option<Arc<Bundle>> {
        if self.open[usize::from(node)].is_empty() {
            return None;
        }
        let fresh = self.fresh();
        let closed = Arc::new(std::mem::replace(&mut self.open[usize::from(node)], fresh));
        if closed.capacity() <= limits::POOLED_BATCH_BYTES_MAX
            && self.given.len() < self.nodes.len()
        {
            self.given.push_back(Arc::clone(&closed));
        }
        Some(closed)
    }

    /// An empty one, with the memory of one that everybody has read if the oldest is such.
    fn fresh(&mut self) -> Bundle {
        let Some(oldest) = self.given.pop_front() else { return Bundle::default() };
        match Arc::try_unwrap(oldest) {
            Ok(mut bundle) => {
                bundle.clear();
                bundle
            }
            Err(oldest) => {
                self.given.push_front(oldest);
                Bundle::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(topic: &'static str, payload: &'static [u8]) -> Content<'static> {
        Content { topic, passed_on: b"", payload, expires: None, qos: Qos::AtMostOnce }
    }

    #[test]
    fn a_message_lies_once_on_each_node() {
        let mut bundles = Bundles::new(&[3, 3, 7, 3, 7]);
        let mut places = Places::new();
        let message = content("a", b"12345");
        let placed = [1, 3, 2, 4].map(|core| bundles.place(CoreId(core), &message, &mut places));
        assert_eq!((bundles.node(CoreId(0)), bundles.node(CoreId(4))), (0, 1));
        for node in [0, 1] {
            let bundle = bundles.close(node).expect("something lies in it");
            assert_eq!(bundle.bytes.len(), 5);
            assert_eq!(bundle.content(&placed[usize::from(node) * 2]).payload, b"12345");
        }
        assert!(bundles.close(0).is_none(), "nothing came meanwhile");
    }

    #[test]
    fn the_memory_of_a_bundle_is_used_again_once_it_was_read() {
        let mut bundles = Bundles::new(&[0, 0]);
        let mut turn = |payload| {
            bundles.place(CoreId(1), &content("a", payload), &mut Places::new());
            bundles.close(0).expect("something lies in it")
        };
        let first = turn(b"first");
        let memory = first.bytes.as_ptr();
        let second = turn(b"second");
        assert_ne!(second.bytes.as_ptr(), memory, "the first is being read");
        assert_eq!(first.bytes, b"first");
        drop(first);
        drop(turn(b"third"));
        assert_eq!(turn(b"fourth").bytes.as_ptr(), memory);
    }
}
