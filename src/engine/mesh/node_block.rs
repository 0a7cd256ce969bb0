//! Node blocks: buffers with the application messages of one turn for the cores of one NUMA node. Each
//! message is copied once for all cores of the node, and crosses to the caches of the node once. Knows no
//! lane.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::base::clock::Deadline;
use crate::base::ids::CoreId;
use crate::base::limits;
use crate::message::Content;
use crate::resources::gauges::Place;
use crate::wire::Qos;

/// A buffer of small application messages, written by one core and then read by the cores of a node.
#[derive(Debug, Default)]
pub(crate) struct NodeBlock {
    /// Topic Names.
    texts: String,
    /// Encoded properties that are forwarded unaltered, and payloads.
    bytes: Vec<u8>,
}

/// A range of a text or of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The range from `start` to `end`.
    pub(crate) fn since(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The place of a message in a block, and its fields of fixed size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    topic: Span,
    passed_on: Span,
    payload: Span,
    expires: Option<Deadline>,
    qos: Qos,
}

impl Placed {
    /// Its size in the block.
    pub(crate) fn bytes(&self) -> usize {
        [self.topic, self.passed_on, self.payload].map(|span| span.range().len()).iter().sum()
    }
}

impl NodeBlock {
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

    /// The message at a place.
    pub(crate) fn content(&self, placed: &Placed) -> Content<'_> {
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

/// The places of a message in the open blocks, by node.
pub(crate) type Places = smallvec::SmallVec<[(u16, Placed); 2]>;

/// The number of the node on which all nodes of the cluster are: the gateway reads their blocks.
const CLUSTER: u16 = u16::MAX;

/// The blocks that a core writes, one for each node.
#[derive(Debug)]
pub(crate) struct NodeBlocks {
    /// By core, its node, counted from zero.
    nodes: Vec<u16>,
    /// The open block, by node.
    open: Vec<NodeBlock>,
    /// Blocks that were closed, whose memory is used again after all cores have read them.
    given: VecDeque<Arc<NodeBlock>>,
}

impl NodeBlocks {
    /// For all cores that an engine at `place` addresses. The nodes of a cluster read one block.
    pub(crate) fn new(place: &Place) -> Self {
        let cluster = (place.cores()..place.addresses()).map(|_| CLUSTER);
        Self::on(&place.nodes().iter().copied().chain(cluster).collect::<Vec<u16>>())
    }

    /// For cores on these nodes, which may have any numbers.
    fn on(nodes: &[u16]) -> Self {
        let mut known: Vec<u16> = Vec::new();
        let number = |node: &u16| match known.iter().position(|other| other == node) {
            Some(place) => place as u16,
            None => {
                known.push(*node);
                (known.len() - 1) as u16
            }
        };
        let nodes: Vec<u16> = nodes.iter().map(number).collect();
        let open = known.iter().map(|_| NodeBlock::default()).collect();
        Self { nodes, open, given: VecDeque::new() }
    }

    /// The node of a core.
    pub(crate) fn node(&self, core: CoreId) -> u16 {
        self.nodes[usize::from(core.0)]
    }

    /// The cores of a node.
    pub(crate) fn cores(&self, node: u16) -> impl Iterator<Item = usize> + '_ {
        self.nodes.iter().enumerate().filter(move |&(_, &of)| of == node).map(|(core, _)| core)
    }

    /// Copies a message into the open block of `core`'s node, unless it is there already.
    pub(crate) fn place(
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

    /// Closes the open block of a node and opens another; none when the block is empty.
    pub(crate) fn close(&mut self, node: u16) -> Option<Arc<NodeBlock>> {
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

    /// An empty block, with the memory of the oldest closed one if all cores have read that.
    fn fresh(&mut self) -> NodeBlock {
        let Some(oldest) = self.given.pop_front() else { return NodeBlock::default() };
        match Arc::try_unwrap(oldest) {
            Ok(mut block) => {
                block.clear();
                block
            }
            Err(oldest) => {
                self.given.push_front(oldest);
                NodeBlock::default()
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
    fn a_message_is_copied_once_for_each_node() {
        let mut blocks = NodeBlocks::on(&[3, 3, 7, 3, 7]);
        let mut places = Places::new();
        let message = content("a", b"12345");
        let placed = [1, 3, 2, 4].map(|core| blocks.place(CoreId(core), &message, &mut places));
        assert_eq!((blocks.node(CoreId(0)), blocks.node(CoreId(4))), (0, 1));
        for node in [0, 1] {
            let block = blocks.close(node).expect("it is not empty");
            assert_eq!(block.bytes.len(), 5);
            assert_eq!(block.content(&placed[usize::from(node) * 2]).payload, b"12345");
        }
        assert!(blocks.close(0).is_none(), "nothing was added meanwhile");
    }

    #[test]
    fn the_memory_of_a_block_is_used_again_after_it_was_read() {
        let mut blocks = NodeBlocks::on(&[0, 0]);
        let mut turn = |payload| {
            blocks.place(CoreId(1), &content("a", payload), &mut Places::new());
            blocks.close(0).expect("it is not empty")
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
