//! Questions and commands of an operator to the engine of one core, and their answers.
//!
//! A listing is asked for in pages. A page names the place where the next one begins, see [`ListingPlace`]; the
//! thread that asks goes from one core to the next. A client's core is not known outside of the engine, so that
//! a question about one client goes to all cores, and all but one answer that they do not know the client.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::base::clock::Now;
use crate::config::Sampling;
use crate::control::answer::{
    Cleared, ClientDetail, ClientSummary, InflightPage, NotPublished, Page, Published, QueuePage,
    RecipientsOfTopic, RetainedMessage, RetainedPage, SubscriptionEntry, TopClients,
};
use crate::control::span::SpanSink;
use crate::control::trace::{TraceFilter, TraceSink};
use crate::control::{Refused, Reply};
use crate::wire::{Qos, Version};

/// A question or a command of an operator.
#[derive(Debug)]
pub enum Question {
    /// A page of the clients that a filter selects.
    Clients {
        /// The clients that are shown.
        filter: Box<ClientFilter>,
        /// The page.
        page: PageRequest,
        /// The way back.
        reply: Reply<Page<ClientSummary>>,
    },
    /// The clients with the highest values.
    TopClients {
        /// The value.
        by: TopBy,
        /// How many clients are shown at most.
        count: usize,
        /// The way back.
        reply: Reply<TopClients>,
    },
    /// Everything about one client; none if this core does not know the client.
    Client {
        /// The Client Identifier.
        client_identifier: Box<str>,
        /// The way back.
        reply: Reply<Option<Box<ClientDetail>>>,
    },
    /// A page of subscriptions, of all clients or of one; none if this core does not know the client.
    Subscriptions {
        /// The Client Identifier, for those of one client.
        client_identifier: Option<Box<str>>,
        /// The page.
        page: PageRequest,
        /// The way back.
        reply: Reply<Option<Page<SubscriptionEntry>>>,
    },
    /// Messages in the queue of a client; none if this core does not know the client.
    Queue {
        /// The Client Identifier.
        client_identifier: Box<str>,
        /// The number of the message with which the page begins, counted from the first message ever queued.
        from: u64,
        /// How many messages are shown at most.
        limit: usize,
        /// How many bytes of each payload are shown at most.
        payload_bytes_max: usize,
        /// The way back.
        reply: Reply<Option<QueuePage>>,
    },
    /// Messages in flight to a client; none if this core does not know the client.
    Inflight {
        /// The Client Identifier.
        client_identifier: Box<str>,
        /// How many messages are shown at most.
        limit: usize,
        /// The way back.
        reply: Reply<Option<InflightPage>>,
    },
    /// The clients of this core that a message to a topic would reach, and by which filters.
    Recipients {
        /// The Topic Name.
        topic: Box<str>,
        /// How many subscriptions are shown at most.
        limit: usize,
        /// The way back.
        reply: Reply<RecipientsOfTopic>,
    },
    /// How many clients of this core a message to a topic reaches, without shared subscriptions.
    CountRecipients {
        /// The Topic Name.
        topic: Box<str>,
        /// The way back.
        reply: Reply<u64>,
    },
    /// A page of the retained messages that match a filter.
    Retained {
        /// The Topic Filter.
        filter: Box<str>,
        /// The topic with which the page begins.
        from: Option<Box<str>>,
        /// How many messages are shown at most.
        limit: usize,
        /// The way back.
        reply: Reply<RetainedPage>,
    },
    /// The retained message of a topic, with its payload.
    RetainedMessage {
        /// The Topic Name.
        topic: Box<str>,
        /// The way back.
        reply: Reply<Option<Box<RetainedMessage>>>,
    },
    /// Removes the retained messages that match a filter, as a client does with an empty payload.
    ClearRetained {
        /// The Topic Filter.
        filter: Box<str>,
        /// How many messages are removed at most.
        messages_max: u64,
        /// The way back.
        reply: Reply<Cleared>,
    },
    /// Publishes a message. The answer follows when all cores with subscribers and the store have the message.
    Publish {
        /// The message.
        message: Box<NewMessage>,
        /// The way back.
        reply: Reply<Result<Published, NotPublished>>,
    },
    /// Disconnects a client; the answer is whether the client was connected to this core.
    Disconnect {
        /// The Client Identifier.
        client_identifier: Box<str>,
        /// The way back.
        reply: Reply<bool>,
    },
    /// Ends the session of a client, and its connection; the answer is whether this core had the session.
    EndSession {
        /// The Client Identifier.
        client_identifier: Box<str>,
        /// The way back.
        reply: Reply<bool>,
    },
    /// Drops the messages that wait for a client; what is in flight stays. The answer is their number; none if this core
    /// does not know the client.
    DropQueue {
        /// The Client Identifier.
        client_identifier: Box<str>,
        /// The way back.
        reply: Reply<Option<u64>>,
    },
    /// Ends one subscription of a client; the answer is whether this core had it.
    EndSubscription {
        /// The Client Identifier.
        client_identifier: Box<str>,
        /// The Topic Filter as the client subscribed to it.
        filter: Box<str>,
        /// The way back.
        reply: Reply<bool>,
    },
    /// From now on, packets that a filter selects are shown; the answer is the time of the core.
    Trace {
        /// The packets.
        filter: Arc<TraceFilter>,
        /// Where they go.
        sink: TraceSink,
        /// The way back.
        reply: Reply<Now>,
    },
    /// From now on, these messages are sampled; the answer is the time of the core.
    Sample {
        /// Which messages.
        sampling: Sampling,
        /// Where their spans go.
        sink: Option<SpanSink>,
        /// The way back.
        reply: Reply<Now>,
    },
    /// Ends the connections of listeners that are closed; the answer is their number.
    EndConnections {
        /// The numbers of the listeners.
        listeners: Box<[u16]>,
        /// The way back.
        reply: Reply<u64>,
    },
    /// Replaces the bans. The answer follows when the connections of banned clients have been ended: their number.
    SetBans {
        /// All bans.
        bans: Arc<BanList>,
        /// The way back.
        reply: Reply<u64>,
    },
}

impl Question {
    /// Answers a question that is not accepted.
    pub fn refuse(self, refused: Refused) {
        match self {
            Self::Clients { reply, .. } => reply.refuse(refused),
            Self::TopClients { reply, .. } => reply.refuse(refused),
            Self::Client { reply, .. } => reply.refuse(refused),
            Self::Subscriptions { reply, .. } => reply.refuse(refused),
            Self::Queue { reply, .. } => reply.refuse(refused),
            Self::Inflight { reply, .. } => reply.refuse(refused),
            Self::Recipients { reply, .. } => reply.refuse(refused),
            Self::CountRecipients { reply, .. } => reply.refuse(refused),
            Self::DropQueue { reply, .. } => reply.refuse(refused),
            Self::Retained { reply, .. } => reply.refuse(refused),
            Self::RetainedMessage { reply, .. } => reply.refuse(refused),
            Self::ClearRetained { reply, .. } => reply.refuse(refused),
            Self::Publish { reply, .. } => reply.refuse(refused),
            Self::Disconnect { reply, .. }
            | Self::EndSession { reply, .. }
            | Self::EndSubscription { reply, .. } => reply.refuse(refused),
            Self::Trace { reply, .. } | Self::Sample { reply, .. } => reply.refuse(refused),
            Self::SetBans { reply, .. } | Self::EndConnections { reply, .. } => {
                reply.refuse(refused);
            }
        }
    }
}

/// Where a page of a listing begins on one core. The places of sessions do not change, so that a session that is
/// there during the whole listing is shown exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingPlace {
    /// The place in the core's table of sessions.
    pub place: u32,
    /// The number of the subscription, in a listing of subscriptions.
    pub within: u32,
    /// The number of the connection or session that was made last when the listing of this core began: sessions
    /// that were made later are left out, so that a client that leaves and comes back is not shown twice. None
    /// where the listing begins.
    pub made_until: Option<u64>,
}

/// A request for a page.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Where the page begins.
    pub from: ListingPlace,
    /// How many entries are shown at most.
    pub limit: usize,
}

/// Selects clients; a client is shown if everything that is set applies.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// Whether the client is connected.
    pub is_connected: Option<bool>,
    /// The user that owns the session.
    pub user: Option<Box<str>>,
    /// The beginning of the Client Identifier.
    pub id_prefix: Option<Box<str>>,
    /// The network of the client's address.
    pub network: Option<IpNet>,
    /// The number of the listener.
    pub listener: Option<u16>,
    /// The protocol version.
    pub version: Option<Version>,
    /// The least number of messages in the queue.
    pub queued_min: u64,
    /// The least number of messages that were dropped.
    pub dropped_min: u64,
}

/// The value that [`Question::TopClients`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopBy {
    /// Messages in the queue.
    Queued,
    /// Messages dropped since the session began.
    Dropped,
    /// Messages in flight.
    Inflight,
    /// Bytes that wait for the client to read them.
    Outbox,
    /// Bytes received on the connection.
    BytesIn,
    /// Bytes sent on the connection.
    BytesOut,
}

impl TopBy {
    /// All values with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Queued, "queued"),
        (Self::Dropped, "dropped"),
        (Self::Inflight, "inflight"),
        (Self::Outbox, "outbox"),
        (Self::BytesIn, "bytes_in"),
        (Self::BytesOut, "bytes_out"),
    ];

    /// The value of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(by, _)| by)
    }
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    /// The Topic Name.
    pub topic: Box<str>,
    /// The payload.
    pub payload: Box<[u8]>,
    /// QoS.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval_s: Option<u32>,
    /// The properties that are forwarded to subscribers, encoded.
    pub properties: Box<[u8]>,
}

/// All bans, with their ends as seconds from the moment at which a core takes the list.
#[derive(Debug, Default)]
pub struct BanList {
    /// Client Identifiers.
    pub clients: HashMap<Box<str>, BanEnd>,
    /// User names.
    pub users: HashMap<Box<str>, BanEnd>,
    /// Networks.
    pub networks: Vec<(IpNet, BanEnd)>,
}

impl BanList {
    /// Whether there are no bans.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.users.is_empty() && self.networks.is_empty()
    }
}

/// Seconds until a ban ends; none if it does not.
pub type BanEnd = Option<u64>;
