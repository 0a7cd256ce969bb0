//! What a link tells the thread of its bridge, and what it counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flume::Sender;

use crate::base::atomic::AtomicU64;
use crate::wire::ReasonCode;

/// What has happened on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session exists and has the subscriptions of the configuration.
    Registered {
        /// Whether it existed before.
        session_present: bool,
    },
    /// The far broker has accepted the connection.
    Connected {
        /// Whether it had kept a session.
        session_present: bool,
    },
    /// The far broker has ended a session from before; the connection ends.
    Discarded,
    /// The far broker has refused the connection.
    Refused {
        /// Reason Code of 5.0, or return code before.
        code: u8,
        /// The reason in words.
        what: String,
    },
    /// This broker has refused the session or one of its subscriptions.
    SessionRefused {
        /// The Topic Filter of the subscription; none for the session.
        filter: Option<String>,
        /// The reason in words.
        what: String,
    },
    /// The far broker has answered SUBSCRIBE, and refuses filters, or did before.
    Subscribed {
        /// The Topic Filters that it refuses, with the Reason Codes.
        refused: Vec<(String, u8)>,
    },
    /// TLS has failed; the connection ends.
    TlsFailed,
    /// The far broker grants subscriptions only without No Local.
    NoLocalRefused,
    /// The far broker has ended the connection instead of answering SUBSCRIBE with No Local.
    NoLocalDoubted,
    /// The far broker has no subscriptions to these filters any more.
    Unsubscribed(Vec<Box<str>>),
    /// The far broker has been asked to end its session, and has nothing left of the bridge.
    GivenUp,
    /// The far broker has refused a message: the first one of the connection for this reason.
    MessageRefused {
        /// The reason.
        refusal: Refusal,
        /// Its topic there, if it is known; the beginning of a long one.
        topic: Option<String>,
    },
    /// Another client has taken the session at the far broker over; the connection ends.
    TakenOver,
    /// A message came back that had passed this broker, or had passed too many.
    Loop {
        /// Its topic where it came from.
        topic: String,
        /// The brokers that it has passed.
        path: String,
    },
    /// The connection has ended.
    Ended {
        /// The reason, where the link knows it; none if the network or the engine has ended the connection.
        why: Option<String>,
    },
}

/// Counters of one bridge since the start of the broker. Written by its core, read by others: each is exact by itself.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages sent to the far broker, repetitions included.
    pub sent: AtomicU64,
    /// Messages received from the far broker.
    pub received: AtomicU64,
    /// Messages that no rule maps.
    pub unmapped: AtomicU64,
    /// Messages larger than the far broker accepts.
    pub too_large: AtomicU64,
    /// Messages that the far broker has refused, by the number of the [`Refusal`].
    pub refused: [AtomicU64; Refusal::ALL.len()],
    /// Messages that had passed this broker, or too many brokers.
    pub loops: AtomicU64,
    /// Messages that an operator has dropped.
    pub by_operator: AtomicU64,
    /// Connections that the far broker has accepted.
    pub connects: AtomicU64,
    /// Connections after which the far broker had no session any more.
    pub sessions_lost: AtomicU64,
    /// The last round trip to the far broker, in microseconds: from a message or PINGREQ to its answer; 0 before the
    /// first one.
    pub round_trip_us: AtomicU64,
}

/// Why a far broker refuses a message: the Reason Codes of PUBACK and PUBREC that are errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unspecified error, or a Reason Code that is none of PUBACK and PUBREC.
    Unspecified,
    /// Implementation specific error.
    ImplementationSpecific,
    /// Not authorized.
    NotAuthorized,
    /// Topic Name invalid.
    TopicNameInvalid,
    /// Packet Identifier in use.
    PacketIdentifierInUse,
    /// Quota exceeded.
    QuotaExceeded,
    /// Payload format invalid.
    PayloadFormatInvalid,
}

impl Refusal {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::ImplementationSpecific,
        Self::NotAuthorized,
        Self::TopicNameInvalid,
        Self::PacketIdentifierInUse,
        Self::QuotaExceeded,
        Self::PayloadFormatInvalid,
    ];

    /// The refusal of a Reason Code that is an error.
    pub fn of(reason: ReasonCode) -> Self {
        match reason {
            ReasonCode::ImplementationSpecificError => Self::ImplementationSpecific,
            ReasonCode::NotAuthorized => Self::NotAuthorized,
            ReasonCode::TopicNameInvalid => Self::TopicNameInvalid,
            ReasonCode::PacketIdentifierInUse => Self::PacketIdentifierInUse,
            ReasonCode::QuotaExceeded => Self::QuotaExceeded,
            ReasonCode::PayloadFormatInvalid => Self::PayloadFormatInvalid,
            _ => Self::Unspecified,
        }
    }

    /// Name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified-error",
            Self::ImplementationSpecific => "implementation-specific-error",
            Self::NotAuthorized => "not-authorized",
            Self::TopicNameInvalid => "topic-name-invalid",
            Self::PacketIdentifierInUse => "packet-identifier-in-use",
            Self::QuotaExceeded => "quota-exceeded",
            Self::PayloadFormatInvalid => "payload-format-invalid",
        }
    }

    /// Whether the message is dropped: sent again, it would be refused again, and hold what is behind it. A quota is
    /// free again at some time.
    pub fn drops(self) -> bool {
        self != Self::QuotaExceeded
    }
}

impl Counters {
    /// Counts one.
    pub fn note(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    /// Notes how long the far broker has taken to answer.
    pub fn note_round_trip(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        // As above.
        self.round_trip_us.store(us, Ordering::Relaxed);
    }

    /// Counts several.
    pub fn add(counter: &AtomicU64, count: u64) {
        // Relaxed: a count that orders no other access.
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// The way from a link to the thread of its bridge. Dropping it reports the end of the connection.
#[derive(Debug)]
pub struct Report {
    events: Sender<Event>,
    /// The counters of the bridge.
    pub counters: Arc<Counters>,
    why: Option<String>,
}

impl Report {
    /// Reports to the receiver of `events`.
    pub fn new(events: Sender<Event>, counters: Arc<Counters>) -> Self {
        Self { events, counters, why: None }
    }

    /// Reports an event.
    pub fn tell(&self, event: Event) {
        // Of too many events the last ones are lost; the end of the connection shows by the end of the channel.
        let _ = self.events.try_send(event);
    }

    /// A message has come back by a loop of bridges, or has passed too many brokers.
    pub fn note_loop(&self, topic: &str, path: &str) {
        Counters::note(&self.counters.loops);
        self.tell(Event::Loop { topic: topic.to_owned(), path: path.to_owned() });
    }

    /// The reason why the connection is about to end; the first one counts.
    pub fn end(&mut self, why: impl Into<String>) {
        self.why.get_or_insert_with(|| why.into());
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let why = self.why.take();
        self.tell(Event::Ended { why });
    }
}
