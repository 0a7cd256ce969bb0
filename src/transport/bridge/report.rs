//! What a link tells the thread of its bridge, and what it counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flume::Sender;

use crate::base::atomic::AtomicU64;

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
        /// The reason in words.
        what: String,
    },
    /// The far broker has refused a subscription.
    FilterRefused {
        /// The Topic Filter.
        filter: String,
        /// The Reason Code.
        code: u8,
    },
    /// The far broker has refused a message, which is dropped.
    MessageRefused {
        /// The Reason Code.
        code: u8,
    },
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
    /// Messages that the far broker has refused.
    pub refused: AtomicU64,
    /// Messages that had passed this broker, or too many brokers.
    pub loops: AtomicU64,
    /// Connections that the far broker has accepted.
    pub connects: AtomicU64,
    /// Connections after which the far broker had no session any more.
    pub sessions_lost: AtomicU64,
}

impl Counters {
    /// Counts one.
    pub fn note(counter: &AtomicU64) {
        // Relaxed: a count that orders no other access.
        counter.fetch_add(1, Ordering::Relaxed);
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
