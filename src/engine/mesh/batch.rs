//! Batches: everything that one core sends to another in one turn.
//!
//! A [`Batch`] costs one push into the lane, one wake-up at most, and no allocation once the buffers have
//! grown, as the receiver uses them again. Small application messages are copied into [`NodeBlock`]s, which
//! all cores of a NUMA node read; large ones, and those that every core retains, are sent by reference.

use std::sync::Arc;

#[cfg(feature = "cluster")]
use shards::interest::Class;
use shards::{Fingerprint, TopicFilter};

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::metrics::Metrics;
use crate::engine::durability::in_transit::EndOnArrival;
use crate::engine::durability::qos2_dedup::Qos2Exchange;
use crate::engine::mesh::node_block::{NodeBlock, Placed, Span};
#[cfg(feature = "cluster")]
use crate::engine::mesh::session_message::SessionMessage;
use crate::message::{Content, Message};
use crate::storage::record::Exchange;

/// Items that one core sends to another in one turn, in order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The number of the batch in this direction, from 1.
    pub(crate) number: u64,
    /// Acknowledges all batches of the other direction up to this one: the sessions, replicas and the
    /// store of the sender have everything in them.
    pub(crate) receipt: u64,
    /// Whether the sender waits for a receipt.
    pub(crate) wants_receipt: bool,
    /// The sender's clock for retained messages: all of its later stamps exceed it.
    pub(crate) clock: u64,
    /// Time of sending: no deadline in the batch was set later.
    pub(crate) sent: Now,
    pub(crate) messages: Vec<MeshMessage>,
    /// Topic Filters.
    texts: String,
    /// The blocks with its application messages, and whether some are in the node's open block, which
    /// is added when it is closed.
    blocks: Vec<Arc<NodeBlock>>,
    reads_open: bool,
    /// Bytes of its application messages, in blocks and by reference.
    message_bytes: usize,
    exchanges: Vec<Qos2Exchange>,
    ends_on_arrival: Vec<EndOnArrival>,
}

/// A message from core to core.
#[derive(Debug)]
pub(crate) enum MeshMessage {
    /// The sender has the first subscription to a filter without wildcards.
    AnnounceExact(Fingerprint),
    /// The sender has no subscription to the filter any more.
    WithdrawExact(Fingerprint),
    /// The sender has the first subscription to a filter with wildcards.
    AnnounceFilter(Span),
    /// The sender has no subscription to the filter any more.
    WithdrawFilter(Span),
    /// The numbers of connected members and of all members that a shared subscription has on the sender.
    Group { filter: Span, online: u32, members: u32 },
    /// An application message for subscribers of the receiver.
    Publish(Forwarded),
    /// A consumer of the sender is behind: the receiver must not read this publisher.
    Pause(ConnectionId),
    /// The consumer has caught up: the publisher may be read.
    Resume(ConnectionId),
    /// A publisher of the sender knows that its QoS 2 message from before a crash was received.
    ExchangeOver(Exchange),
    /// The sender, a node, has joined the cluster, as the lane to it with this number, or has left it. `own` is the number of
    /// this node.
    #[cfg(feature = "cluster")]
    Member { is_member: bool, link: u64, own: u16 },
    /// The sender knows that the receiver, a node, has joined as this lane: what it sent before was for an earlier start of
    /// the node. To nodes alone.
    #[cfg(feature = "cluster")]
    MemberKnown { link: u64 },
    /// The highest class of the sender's subscriptions to a filter, if it has any, and what it was before. To the gateway
    /// alone.
    #[cfg(feature = "cluster")]
    Held { filter: Span, before: Option<Class>, class: Option<Class> },
    /// What other nodes hold with wildcards has changed: matches are to be found again. From a node alone.
    #[cfg(feature = "cluster")]
    InterestChanged,
    /// What follows was published on this core of the sender. From other nodes alone.
    #[cfg(feature = "cluster")]
    Source(u16),
    /// Which node has the session of a Client Identifier, or a part of a session. Marks come from cores too.
    #[cfg(feature = "cluster")]
    Session(SessionMessage),
    /// Request for the receiver's metrics.
    AskMetrics,
    /// The sender's metrics.
    Metrics(Box<Metrics>),
}

/// An application message on its way to another core.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub body: Body,
    /// RETAIN flag of the PUBLISH packet.
    pub retain: bool,
    /// The publisher, which may have to be paused.
    pub publisher: Option<ConnectionId>,
    /// The place of its QoS 2 exchange in the batch.
    pub exchange: Option<std::num::NonZero<u32>>,
    pub to: Destination,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// In a block, by its place in the batch.
    InBlock(u32, Placed),
    /// By reference.
    Shared(Message),
}

/// The recipients of a forwarded message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination {
    /// All subscribers of the receiver.
    Subscribers,
    /// All subscribers, and the retained messages, with this stamp.
    SubscribersAndStore(u64),
    /// The retained messages alone, with this stamp: for a node that has just joined.
    #[cfg(feature = "cluster")]
    Store(u64),
    /// A member of a shared subscription. `hops` counts the cores that the message went to.
    Group {
        filter: Span,
        hops: u16,
        /// The place in the batch of the logged deliveries that end when the message arrives.
        on_arrival: Option<std::num::NonZero<u32>>,
    },
}

impl Batch {
    pub(crate) fn numbered(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// The batch, sent at this time.
    #[cfg(feature = "cluster")]
    pub(crate) fn sent_at(mut self, now: Now) -> Self {
        self.sent = now;
        self
    }

    /// Its approximate size, for the window of the lane.
    pub(crate) fn cost(&self) -> usize {
        let messages = self.messages.len() * size_of::<MeshMessage>();
        messages + self.texts.len() + self.message_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Removes the content, and keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.texts.clear();
        self.blocks.clear();
        self.message_bytes = 0;
        self.exchanges.clear();
        self.ends_on_arrival.clear();
        self.wants_receipt = false;
    }

    /// Size of the buffers.
    pub(crate) fn capacity(&self) -> usize {
        self.messages.capacity() * size_of::<MeshMessage>() + self.texts.capacity()
    }

    /// Adds records of a session, which count for the size of the batch.
    #[cfg(feature = "cluster")]
    pub(crate) fn push_records(&mut self, records: Vec<u8>) -> Box<[u8]> {
        self.message_bytes += records.len();
        records.into()
    }

    pub(crate) fn push_text(&mut self, text: &str) -> Span {
        let start = self.texts.len();
        self.texts.push_str(text);
        Span::since(start, self.texts.len())
    }

    /// Adds an application message that was placed in the node's open block.
    pub(crate) fn push_placed(&mut self, placed: Placed) -> Body {
        self.reads_open = true;
        self.message_bytes += placed.bytes();
        Body::InBlock(self.blocks.len() as u32, placed)
    }

    /// The node's open block was closed.
    pub(crate) fn note_closed(&mut self, block: &Arc<NodeBlock>) {
        if std::mem::take(&mut self.reads_open) {
            self.blocks.push(Arc::clone(block));
        }
    }

    /// Adds an application message by reference.
    pub(crate) fn push_message(&mut self, message: &Message) -> Body {
        self.message_bytes += message.content().bytes();
        Body::Shared(message.clone())
    }

    /// Adds an exchange; its place, from 1.
    pub(crate) fn push_exchange(
        &mut self,
        exchange: Qos2Exchange,
    ) -> Option<std::num::NonZero<u32>> {
        self.exchanges.push(exchange);
        std::num::NonZero::new(self.exchanges.len() as u32)
    }

    /// The exchange at a place.
    pub(crate) fn exchange(&self, place: std::num::NonZero<u32>) -> Qos2Exchange {
        self.exchanges[place.get() as usize - 1]
    }

    /// Adds the logged deliveries that end when a message arrives; their place, from 1.
    pub(crate) fn push_on_arrival(
        &mut self,
        ended: EndOnArrival,
    ) -> Option<std::num::NonZero<u32>> {
        self.ends_on_arrival.push(ended);
        std::num::NonZero::new(self.ends_on_arrival.len() as u32)
    }

    /// The logged deliveries at a place.
    pub(crate) fn on_arrival(&self, place: std::num::NonZero<u32>) -> &EndOnArrival {
        &self.ends_on_arrival[place.get() as usize - 1]
    }

    pub(crate) fn text(&self, span: Span) -> &str {
        &self.texts[span.range()]
    }

    /// A Topic Filter, which the sender has checked.
    pub(crate) fn filter(&self, span: Span) -> TopicFilter<'_> {
        TopicFilter::parse(self.text(span), usize::MAX).expect("the sender has parsed it")
    }

    pub(crate) fn content<'a>(&'a self, body: &'a Body) -> Content<'a> {
        match body {
            Body::InBlock(block, placed) => self.blocks[*block as usize].content(placed),
            Body::Shared(message) => message.content(),
        }
    }
}

impl Body {
    /// The message, if it was sent by reference.
    pub(crate) fn message(&self) -> Option<&Message> {
        match self {
            Self::InBlock(..) => None,
            Self::Shared(message) => Some(message),
        }
    }
}
