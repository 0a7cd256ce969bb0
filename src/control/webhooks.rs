//! Events for webhooks, and the queue of each webhook from the cores to the thread that sends them. A core never
//! waits: an event for which the queue has no room is dropped and counted.

use std::mem::size_of;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crate::base::atomic::AtomicU64;
use crate::base::clock::Now;
use crate::base::ids::CoreId;
use crate::config::{Webhook, WebhookEvent};
use crate::wire::Qos;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The core on which it happened.
    pub core: CoreId,
    /// Number of the event among those of this core for this webhook, those that were dropped included.
    pub sequence: u64,
    /// When it happened.
    pub at: Now,
    /// The client; none for a message of the broker's operator.
    pub client: Option<Box<str>>,
    /// The user as whom the client authenticated.
    pub user: Option<Box<str>>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A client was admitted.
    Connect {
        /// Its address, if the transport has one.
        address: Option<SocketAddr>,
        /// The listener.
        listener: Box<str>,
        /// Version of MQTT.
        version: &'static str,
        /// Keep Alive.
        keep_alive_s: u16,
        /// Clean Start.
        clean_start: bool,
        /// Session Present.
        session_present: bool,
    },
    /// The connection of a client ended.
    Disconnect {
        /// Its address, if the transport has one.
        address: Option<SocketAddr>,
        /// The listener.
        listener: Box<str>,
        /// Why, as in the log.
        cause: &'static str,
        /// How long the connection was open.
        seconds: u64,
    },
    /// A client subscribed.
    Subscribe {
        /// Topic Filter.
        filter: Box<str>,
        /// Granted QoS.
        qos: Qos,
    },
    /// A subscription ended before its session.
    Unsubscribe {
        /// Topic Filter.
        filter: Box<str>,
    },
    /// A message was published.
    Publish {
        /// Topic Name.
        topic: Box<str>,
        /// QoS.
        qos: Qos,
        /// RETAIN.
        retain: bool,
        /// The beginning of the payload.
        payload: Box<[u8]>,
        /// Bytes of the whole payload.
        payload_bytes: usize,
    },
}

impl Event {
    /// Memory that the event takes.
    pub fn bytes(&self) -> usize {
        let texts = match &self.what {
            What::Connect { listener, .. } | What::Disconnect { listener, .. } => listener.len(),
            What::Subscribe { filter, .. } | What::Unsubscribe { filter } => filter.len(),
            What::Publish { topic, payload, .. } => topic.len() + payload.len(),
        };
        let names = [&self.client, &self.user].into_iter().flatten().map(|name| name.len());
        size_of::<Self>() + texts + names.sum::<usize>()
    }
}

/// A set of kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// These kinds.
    pub fn of(events: &[WebhookEvent]) -> Self {
        Self(events.iter().fold(0, |kinds, &event| kinds | 1 << event as u8))
    }

    /// Whether a kind is among them.
    #[inline]
    pub fn has(self, event: WebhookEvent) -> bool {
        self.0 & 1 << event as u8 != 0
    }

    /// These kinds and others.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a webhook wants, and the bounds of its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    kinds: Kinds,
    filters: Box<[String]>,
    payload_bytes_max: usize,
    events_max: usize,
    bytes_max: usize,
    batch_events: usize,
}

impl From<&Webhook> for Rules {
    fn from(webhook: &Webhook) -> Self {
        Self {
            kinds: Kinds::of(&webhook.events),
            filters: webhook.filters.as_slice().into(),
            payload_bytes_max: webhook.payload_bytes_max as usize,
            events_max: webhook.queue_events as usize,
            bytes_max: webhook.queue_bytes as usize,
            batch_events: webhook.batch_events as usize,
        }
    }
}

/// A core's end of a webhook.
#[derive(Clone, Debug)]
pub struct Tap {
    rules: Arc<Rules>,
    queue: Arc<Queue>,
}

impl Tap {
    /// The end of the webhook with this queue.
    pub fn new(rules: Rules, queue: &Arc<Queue>) -> Self {
        Self { rules: Arc::new(rules), queue: Arc::clone(queue) }
    }

    /// The events that the webhook wants.
    pub fn kinds(&self) -> Kinds {
        self.rules.kinds
    }

    /// The filters of messages.
    pub fn filters(&self) -> &[String] {
        &self.rules.filters
    }

    /// Bytes of a payload that the webhook wants at most.
    pub fn payload_bytes_max(&self) -> usize {
        self.rules.payload_bytes_max
    }

    /// Whether this is an end of the same queue.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }

    /// Adds an event to the queue, or drops and counts it.
    pub fn offer(&self, event: Event) {
        let (Rules { events_max, bytes_max, batch_events, .. }, queue) =
            (&*self.rules, &*self.queue);
        let bytes = event.bytes();
        let waiting = queue.events.fetch_add(1, AcqRel);
        let waiting_bytes = queue.bytes.fetch_add(bytes, AcqRel);
        let has_room = waiting < *events_max && waiting_bytes.saturating_add(bytes) <= *bytes_max;
        if !has_room || queue.give.send(event).is_err() {
            queue.release(1, bytes);
            queue.dropped.fetch_add(1, Relaxed);
            return;
        }
        // The thread sleeps while nothing waits, and until a batch is complete.
        if (waiting == 0 || waiting + 1 == *batch_events)
            && let Some(thread) = queue.thread.get()
        {
            thread.unpark();
        }
    }
}

/// The queue of a webhook: what waits, and what is being sent.
#[derive(Debug)]
pub struct Queue {
    give: Sender<Event>,
    events: AtomicUsize,
    bytes: AtomicUsize,
    dropped: AtomicU64,
    thread: OnceLock<Thread>,
}

impl Queue {
    /// An empty queue, and its other end. Memory that is not used yet is not allocated.
    pub fn new() -> (Arc<Self>, Receiver<Event>) {
        let (give, take) = channel();
        let queue = Self {
            give,
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            thread: OnceLock::new(),
        };
        (Arc::new(queue), take)
    }

    /// The thread that takes events, which is woken.
    pub fn taken_by(&self, thread: Thread) {
        // Called once.
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        self.thread.get().into_iter().for_each(Thread::unpark);
    }

    /// Makes room: events have been sent, or given up.
    pub fn release(&self, events: usize, bytes: usize) {
        self.bytes.fetch_sub(bytes, AcqRel);
        self.events.fetch_sub(events, AcqRel);
    }

    /// Events that wait or are being sent, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        (self.events.load(Acquire), self.bytes.load(Acquire))
    }

    /// Events that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// What a webhook has done since its start, and what waits.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Name.
    pub name: String,
    /// URL without secrets.
    pub url: String,
    /// Names of the events that are reported.
    pub events: Vec<&'static str>,
    /// Topic Filters of the messages that are reported.
    pub filters: Vec<String>,
    /// Whether the last request failed.
    pub is_failing: bool,
    /// The last failure: seconds since 1970, and what failed.
    pub last_error: Option<(u64, String)>,
    /// Events that wait or are being sent.
    pub queued_events: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Limit of these events.
    pub queue_events_max: u64,
    /// Events that the server has.
    pub sent: u64,
    /// Requests that the server accepted.
    pub requests: u64,
    /// Repetitions of requests.
    pub retried: u64,
    /// Events that were dropped, by cause.
    pub dropped: Dropped,
}

/// Events that were dropped, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The queue was full.
    pub full: u64,
    /// The server refused them.
    pub refused: u64,
    /// The requests failed as often as they may.
    pub failed: u64,
    /// They waited when the broker stopped, or when the webhook was removed.
    pub stopped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, payload: usize) -> Event {
        let payload = vec![0; payload].into_boxed_slice();
        let (topic, payload_bytes) = ("t".into(), payload.len());
        let what =
            What::Publish { topic, qos: Qos::AtMostOnce, retain: false, payload, payload_bytes };
        Event { core: CoreId(0), sequence, at: Now(0), client: None, user: None, what }
    }

    fn tap(events_max: usize, bytes_max: usize) -> (Tap, Arc<Queue>, Receiver<Event>) {
        let (queue, take) = Queue::new();
        let rules = Rules {
            kinds: Kinds::of(&[WebhookEvent::Publish]),
            filters: Box::default(),
            payload_bytes_max: 10,
            events_max,
            bytes_max,
            batch_events: 100,
        };
        (Tap::new(rules, &queue), queue, take)
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_takes_events_again_when_there_is_room() {
        let (tap, queue, take) = tap(3, usize::MAX);
        (0..5).for_each(|sequence| tap.offer(event(sequence, 0)));
        assert_eq!((queue.waiting().0, queue.dropped()), (3, 2));
        let first = take.try_recv().expect("it waits");
        tap.offer(event(5, 0));
        assert_eq!(queue.dropped(), 3, "what is being sent has its place until it has been sent");
        queue.release(1, first.bytes());
        tap.offer(event(6, 0));
        assert_eq!(take.try_iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 6]);
    }

    #[test]
    fn the_bytes_of_a_queue_are_bounded() {
        let bytes = event(0, 1_000).bytes();
        let (tap, queue, _take) = tap(usize::MAX, 2 * bytes);
        (0..3).for_each(|sequence| tap.offer(event(sequence, 1_000)));
        assert_eq!((queue.waiting(), queue.dropped()), ((2, 2 * bytes), 1));
        queue.release(2, 2 * bytes);
        assert_eq!(queue.waiting(), (0, 0));
    }

    #[test]
    fn a_kind_is_among_those_that_were_named_and_no_other() {
        use WebhookEvent::{Connect, Disconnect, Publish, Subscribe};
        let kinds = Kinds::of(&[Connect, Publish]);
        assert!(kinds.has(Connect) && kinds.has(Publish) && !kinds.has(Subscribe));
        let both = kinds.or(Kinds::of(&[Disconnect]));
        assert!(both.has(Disconnect) && both.has(Connect) && !both.has(Subscribe));
    }
}
