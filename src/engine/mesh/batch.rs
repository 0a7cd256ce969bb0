//! What one core tells another in one turn.
//!
//! All that a turn has for another core travels as one [`Batch`]: one push into the lane, one
//! wake-up at most, and no allocation once the buffers have grown, as they are used again by
//! whoever emptied them. Small messages lie side by side in [`Bundle`]s, which the cores of a node
//! read together; large ones, and those that every core keeps, come by reference.

use std::sync::Arc;

use shards::{Fingerprint, TopicFilter};

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::metrics::Metrics;
use crate::engine::durability::in_transit::EndOnArrival;
use crate::engine::durability::qos2_dedup::Qos2Exchange;
use crate::engine::mesh::bundle::{Bundle, Placed, Span};
use crate::message::{Content, Message};
use crate::storage::record::Exchange;

/// All that one core has to say to another, in the order in which it came up.
#[derive(Debug, Default)]
pub struct Batch {
    /// Counts the batches of this direction, from 1.
    pub(in crate::engine) number: u64,
    /// The last batch of the other direction that was taken: everything in it is known to the
    /// sessions, replicas and stores of the core that says so.
    pub(in crate::engine) receipt: u64,
    /// The sender waits for a receipt.
    pub(in crate::engine) wants_receipt: bool,
    /// All retained messages that the sender will ever stamp from here on are younger.
    pub(in crate::engine) clock: u64,
    /// When it was sent: no deadline in it was set later.
    pub(in crate::engine) sent: Now,
    pub(in crate::engine) parcels: Vec<Parcel>,
    /// Topic Filters.
    texts: String,
    /// Where its messages lie, and whether some lie in the node's bundle that is still open, which
    /// will be the next of these.
    bundles: Vec<Arc<Bundle>>,
    reads_open: bool,
    /// Bytes of its messages, in bundles and by reference.
    message_bytes: usize,
    exchanges: Vec<Qos2Exchange>,
    ends_on_arrival: Vec<EndOnArrival>,
}

/// One thing to say.
#[derive(Debug)]
pub(in crate::engine) enum Parcel {
    /// Somebody subscribed to a filter without wildcards, the first here.
    AnnounceExact(Fingerprint),
    /// The last one left it.
    WithdrawExact(Fingerprint),
    /// The same for a filter with wildcards.
    AnnounceWildcard(Span),
    WithdrawWildcard(Span),
    /// How many members of a shared subscription are here, and how many of them connected.
    Group {
        filter: Span,
        online: u32,
        members: u32,
    },
    /// A message for subscribers here.
    Publish(Forwarded),
    /// One of our consumers is behind: leave this publisher's socket unread.
    Pause(ConnectionId),
    /// It has caught up.
    Resume(ConnectionId),
    /// A client of ours knows that a QoS 2 message from before a crash was received.
    ExchangeOver(Exchange),
    /// Tell your metrics.
    AskMetrics,
    /// They are these.
    Metrics(Box<Metrics>),
}

/// A message on its way to another core.
#[derive(Debug)]
pub(in crate::engine) struct Forwarded {
    pub body: Body,
    /// RETAIN flag it was published with.
    pub retain: bool,
    /// Who published it, to be slowed.
    pub publisher: Option<ConnectionId>,
    /// The exchange it is of, by its place in the batch.
    pub once: Option<std::num::NonZero<u32>>,
    pub to: Whom,
}

#[derive(Clone, Debug)]
pub(in crate::engine) enum Body {
    /// In this one of the batch's bundles.
    Bundled(u32, Placed),
    /// By reference.
    Shared(Message),
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum Whom {
    /// Everybody who subscribed.
    Subscribers,
    /// Everybody who subscribed, and the retained store, under this stamp.
    SubscribersAndStore(u64),
    /// One member of this shared subscription. `hops` counts the cores that had none to take it.
    Group {
        filter: Span,
        hops: u16,
        /// The place in the batch of the logged deliveries that end when the message arrives.
        on_arrival: Option<std::num::NonZero<u32>>,
    },
}

impl Batch {
    pub(in crate::engine) fn numbered(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// What it takes up, near enough for the bound on what is under way.
    pub(in crate::engine) fn cost(&self) -> usize {
        let parcels = self.parcels.len() * size_of::<Parcel>();
        parcels + self.texts.len() + self.message_bytes
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Forgets all it says, and keeps its buffers for the next time.
    pub(in crate::engine) fn clear(&mut self) {
        self.parcels.clear();
        self.texts.clear();
        self.bundles.clear();
        self.message_bytes = 0;
        self.exchanges.clear();
        self.ends_on_arrival.clear();
        self.wants_receipt = false;
    }

    /// Bytes of its buffers.
    pub(in crate::engine) fn capacity(&self) -> usize {
        self.parcels.capacity() * size_of::<Parcel>() + self.texts.capacity()
    }

    pub(in crate::engine) fn push_text(&mut self, text: &str) -> Span {
        let start = self.texts.len();
        self.texts.push_str(text);
        Span::since(start, self.texts.len())
    }

    /// Takes a message in that lies in the node's open bundle.
    pub(in crate::engine) fn push_placed(&mut self, placed: Placed) -> Body {
        self.reads_open = true;
        self.message_bytes += placed.bytes();
        Body::Bundled(self.bundles.len() as u32, placed)
    }

    /// The node's open bundle is closed.
    pub(in crate::engine) fn note_closed(&mut self, bundle: &Arc<Bundle>) {
        if std::mem::take(&mut self.reads_open) {
            self.bundles.push(Arc::clone(bundle));
        }
    }

    /// Takes a message in by reference.
    pub(in crate::engine) fn push_message(&mut self, message: &Message) -> Body {
        self.message_bytes += message.content().bytes();
        Body::Shared(message.clone())
    }

    /// Adds an exchange; its place, from 1.
    pub(in crate::engine) fn push_exchange(
        &mut self,
        exchange: Qos2Exchange,
    ) -> Option<std::num::NonZero<u32>> {
        self.exchanges.push(exchange);
        std::num::NonZero::new(self.exchanges.len() as u32)
    }

    /// The exchange at a place.
    pub(in crate::engine) fn exchange(&self, place: std::num::NonZero<u32>) -> Qos2Exchange {
        self.exchanges[place.get() as usize - 1]
    }

    /// Adds the logged deliveries that end when a message arrives; their place, from 1.
    pub(in crate::engine) fn push_on_arrival(
        &mut self,
        ended: EndOnArrival,
    ) -> Option<std::num::NonZero<u32>> {
        self.ends_on_arrival.push(ended);
        std::num::NonZero::new(self.ends_on_arrival.len() as u32)
    }

    /// The logged deliveries at a place.
    pub(in crate::engine) fn on_arrival(&self, place: std::num::NonZero<u32>) -> &EndOnArrival {
        &self.ends_on_arrival[place.get() as usize - 1]
    }

    pub(in crate::engine) fn text(&self, span: Span) -> &str {
        &self.texts[span.range()]
    }

    /// A filter, which was checked by the core that sent it.
    pub(in crate::engine) fn filter(&self, span: Span) -> TopicFilter<'_> {
        TopicFilter::parse(self.text(span), usize::MAX).expect("it was parsed where it came from")
    }

    pub(in crate::engine) fn content<'a>(&'a self, body: &'a Body) -> Content<'a> {
        match body {
            Body::Bundled(bundle, placed) => self.bundles[*bundle as usize].content(placed),
            Body::Shared(message) => message.content(),
        }
    }
}

impl Body {
    /// The message, where it is one already.
    pub(in crate::engine) fn message(&self) -> Option<&Message> {
        match self {
            Self::Bundled(..) => None,
            Self::Shared(message) => Some(message),
        }
    }
}
