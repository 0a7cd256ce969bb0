//! The subscriptions of other nodes of the cluster: once a process, see [`shards::interest`].
//!
//! Filters with wildcards are matched when the recipients of a topic are found, and cached with them, as cores are. Filters
//! without wildcards are looked up for each message: they change far more often, and would empty the caches.

use shards::interest::{Class, InterestReader, NodeMatches};

use crate::engine::routing::Router;
use crate::engine::routing::recipients::Recipients;
use crate::resources::gauges::Place;

/// The bit of a node among the cores of [`Recipients`] that has subscribers of QoS 0 alone.
const AT_MOST_ONCE: u16 = 1 << 15;

/// A core's view of what the other nodes hold.
#[derive(Debug)]
pub(super) struct Elsewhere {
    reader: Option<InterestReader>,
    /// Number of cores of this process: a node is addressed by the numbers after them.
    cores: u16,
    matches: NodeMatches,
}

/// The nodes that a message is for, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Interested {
    /// Those with any subscriber.
    pub all: u64,
    /// Those with a subscriber of QoS 1 or 2.
    pub acknowledged: u64,
}

impl Elsewhere {
    pub fn new(place: &Place) -> Self {
        let (reader, cores) = (place.take_interest_reader(), place.cores());
        Self { reader, cores, matches: NodeMatches::default() }
    }

    /// Whether there may be other nodes.
    pub fn is_there(&self) -> bool {
        self.reader.is_some()
    }

    /// Adds the nodes with matching filters with wildcards to `cores`; the steps that it took.
    pub fn add_nodes(&mut self, topic: &str, cores: &mut Vec<u16>) -> usize {
        let Some(reader) = &mut self.reader else { return 0 };
        self.matches.clear();
        reader.read().wildcards(topic, &mut self.matches);
        let all = self.matches.nodes(Class::AtMostOnce);
        let acknowledged = self.matches.nodes(Class::Acknowledged);
        for node in (0..shards::NODES_MAX).filter(|node| all & 1 << node != 0) {
            let mark = if acknowledged & 1 << node == 0 { AT_MOST_ONCE } else { 0 };
            cores.push((self.cores + node) | mark);
        }
        self.matches.steps()
    }

    /// The nodes among the recipients of a topic, and those with a filter that is the topic.
    pub fn interested(&mut self, topic: &str, recipients: &Recipients) -> Interested {
        self.matches.clear();
        for of in recipients.cores.iter().filter(|&&core| core >= self.cores) {
            let class = match of & AT_MOST_ONCE {
                0 => Class::Acknowledged,
                _ => Class::AtMostOnce,
            };
            self.matches.add((of & !AT_MOST_ONCE) - self.cores, class);
        }
        if let Some(reader) = self.reader.as_mut().filter(|reader| !reader.has_no_exact()) {
            reader.read().exact(topic, &mut self.matches);
        }
        Interested {
            all: self.matches.nodes(Class::AtMostOnce),
            acknowledged: self.matches.nodes(Class::Acknowledged),
        }
    }

    pub fn heap_bytes(&self) -> usize {
        self.matches.heap_bytes()
    }
}

impl Router {
    /// The other nodes that have subscribers to a topic with these recipients.
    pub(in crate::engine) fn interested_nodes(
        &mut self,
        topic: &str,
        recipients: &Recipients,
    ) -> Interested {
        self.cache.elsewhere.interested(topic, recipients)
    }

    /// Other nodes have other filters with wildcards: recipients are found again.
    pub(in crate::engine) fn match_again(&mut self) {
        self.cache.clear();
    }
}
