//! Traces: the packets of some clients, on their way from the cores to the thread that shows them.
//!
//! Each core has a ring of its own for each trace. A core adds what it has seen in a turn at the end of the turn, under a
//! lock that the reader holds only to swap a pointer. Events for which the ring has no room are dropped and counted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flume::{Receiver, Sender};
use ipnet::IpNet;
use shards::TopicFilter;

use crate::base::clock::Now;
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::wire::{PacketType, ReasonCode};

/// Selects packets; a packet is shown if everything that is set applies.
#[derive(Clone, Debug, Default)]
pub struct TraceFilter {
    /// The Client Identifier.
    pub client_identifier: Option<Box<str>>,
    /// A Topic Filter that the topic of a message has to match. Other packets than PUBLISH have no topic.
    pub topic_filter: Option<Box<str>>,
    /// The network of the client's address.
    pub network: Option<IpNet>,
    /// How many bytes of each payload are shown at most.
    pub payload_bytes_max: usize,
}

impl TraceFilter {
    /// Whether packets of this client may be shown.
    pub fn selects_client(&self, client: Option<&str>, address: Option<SocketAddr>) -> bool {
        let is_client = self.client_identifier.as_deref().is_none_or(|of| client == Some(of));
        let is_near = |network: &IpNet| {
            address.is_some_and(|address| network.contains(&address.ip().to_canonical()))
        };
        is_client && self.network.as_ref().is_none_or(is_near)
    }

    /// Whether a packet with this topic, or without one, may be shown.
    pub fn selects_topic(&self, topic: Option<&str>) -> bool {
        let Some(filter) = &self.topic_filter else { return true };
        let filter = TopicFilter::parse(filter, usize::MAX);
        topic.is_some_and(|topic| filter.is_ok_and(|filter| filter.matches(topic)))
    }
}

/// What a trace shows.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceEvent {
    /// When it happened, in the time of the core.
    pub at: Now,
    /// The Client Identifier, where it is known.
    pub client_identifier: Option<Box<str>>,
    /// The user.
    pub user: Option<Box<str>>,
    /// The client's address.
    pub address: Option<SocketAddr>,
    /// The topic, of a message.
    pub topic: Option<Box<str>>,
    /// What happened.
    pub what: Traced,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Traced {
    /// The client has sent a packet.
    Received(Box<TracedPacket>),
    /// The client is sent a packet.
    Sent(Box<TracedPacket>),
    /// Messages to the client, or one from it, were dropped.
    Dropped {
        /// Why.
        cause: DropCause,
        /// How many.
        messages: u64,
    },
}

/// A packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TracedPacket {
    /// The type; none for bytes that are no packet.
    pub packet_type: Option<PacketType>,
    /// Bytes of the packet.
    pub bytes: u64,
    /// Packet Identifier.
    pub packet_identifier: Option<u16>,
    /// QoS of a PUBLISH, or the one that the first filter of a SUBSCRIBE asks for.
    pub qos: Option<u8>,
    /// RETAIN flag.
    pub retain: Option<bool>,
    /// DUP flag.
    pub dup: Option<bool>,
    /// The first filters of a SUBSCRIBE or UNSUBSCRIBE packet.
    pub filters: Vec<Box<str>>,
    /// Reason Code.
    pub reason: Option<ReasonCode>,
    /// The first Reason Codes of a SUBACK or UNSUBACK packet.
    pub reasons: Vec<u8>,
    /// Bytes of the payload, of a PUBLISH.
    pub payload_bytes: Option<u64>,
    /// The beginning of the payload, if it was asked for.
    pub payload: Option<Box<[u8]>>,
}

impl TraceEvent {
    /// Approximate bytes of memory.
    fn bytes(&self) -> usize {
        let texts = [&self.client_identifier, &self.user, &self.topic];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let packet = match &self.what {
            Traced::Received(packet) | Traced::Sent(packet) => {
                let filters: usize = packet.filters.iter().map(|text| text.len() + 16).sum();
                let payload = packet.payload.as_ref().map_or(0, |payload| payload.len());
                size_of::<TracedPacket>() + filters + packet.reasons.len() + payload
            }
            Traced::Dropped { .. } => 0,
        };
        size_of::<Self>() + texts + packet
    }
}

/// What all ends of a trace share.
#[derive(Debug)]
struct Shared {
    rings: Box<[Mutex<Ring>]>,
    /// Nobody reads any more.
    is_closed: AtomicBool,
    changed: Sender<()>,
}

impl Shared {
    fn ring(&self, core: usize) -> MutexGuard<'_, Ring> {
        // No code that can panic runs with the lock held.
        self.rings[core].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of one core that wait for the reader.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<TraceEvent>,
    bytes: usize,
    missed: u64,
}

/// Events of one core that the reader has taken.
#[derive(Debug)]
pub struct TakenEvents {
    /// The core.
    pub core: usize,
    /// The events, in the order in which they happened.
    pub events: VecDeque<TraceEvent>,
    /// How many further events were dropped since events were taken last.
    pub missed: u64,
}

/// The reader's end of a trace. Dropping it ends the trace.
#[derive(Debug)]
pub struct TraceSource {
    shared: Arc<Shared>,
    changed: Receiver<()>,
}

impl TraceSource {
    /// A trace of a broker with so many cores.
    pub fn new(cores: usize) -> Self {
        let (changed, receiver) = flume::bounded(1);
        let rings = (0..cores).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared { rings, is_closed: AtomicBool::new(false), changed });
        Self { shared, changed: receiver }
    }

    /// The end of a core.
    pub fn sink(&self, core: usize) -> TraceSink {
        TraceSink { shared: Arc::clone(&self.shared), core, pending: Vec::new(), pending_bytes: 0 }
    }

    /// Waits until there are events that have not been taken.
    pub async fn changed(&self) {
        // The sender is in what this end holds, too.
        let _ = self.changed.recv_async().await;
    }

    /// Takes the events that are there, by core.
    pub fn take(&self) -> Vec<TakenEvents> {
        let take = |core| {
            let Ring { events, missed, .. } = std::mem::take(&mut *self.shared.ring(core));
            TakenEvents { core, events, missed }
        };
        let cores = (0..self.shared.rings.len()).map(take);
        cores.filter(|taken| taken.missed > 0 || !taken.events.is_empty()).collect()
    }
}

impl Drop for TraceSource {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Relaxed);
    }
}

/// A core's end of a trace.
#[derive(Debug)]
pub struct TraceSink {
    shared: Arc<Shared>,
    core: usize,
    /// Events of this turn.
    pending: Vec<TraceEvent>,
    pending_bytes: usize,
}

impl TraceSink {
    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Relaxed)
    }

    /// Adds an event, which the reader gets at the end of the turn. Returns how many events were dropped because
    /// the turn has had too many.
    pub fn push(&mut self, event: TraceEvent) -> u64 {
        self.pending_bytes += event.bytes();
        self.pending.push(event);
        match self.pending.len() >= limits::TRACE_EVENTS_MAX
            || self.pending_bytes >= limits::TRACE_BYTES_MAX
        {
            true => self.flush(),
            false => 0,
        }
    }

    /// Gives the events of this turn to the reader, and wakes it. Returns how many were dropped because the ring
    /// has no room.
    pub fn flush(&mut self) -> u64 {
        if self.pending.is_empty() {
            return 0;
        }
        let mut ring = self.shared.ring(self.core);
        let room = limits::TRACE_EVENTS_MAX - ring.events.len();
        let mut missed = 0;
        for (number, event) in self.pending.drain(..).enumerate() {
            if number < room && ring.bytes < limits::TRACE_BYTES_MAX {
                ring.bytes += event.bytes();
                ring.events.push_back(event);
            } else {
                missed += 1;
            }
        }
        ring.missed += missed;
        drop(ring);
        self.pending_bytes = 0;
        self.pending.shrink_to(limits::TRACE_EVENTS_MAX / 64);
        // A full channel has woken the reader already.
        let _ = self.shared.changed.try_send(());
        missed
    }

    /// Bytes of the events that wait for the reader.
    pub fn bytes(&self) -> usize {
        self.shared.ring(self.core).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(client: &str) -> TraceEvent {
        TraceEvent {
            at: Now(1),
            client_identifier: Some(client.into()),
            user: None,
            address: None,
            topic: None,
            what: Traced::Dropped { cause: DropCause::QueueFull, messages: 1 },
        }
    }

    #[test]
    fn a_ring_drops_and_counts_what_it_has_no_room_for() {
        let source = TraceSource::new(2);
        let mut sink = source.sink(1);
        for _ in 0..limits::TRACE_EVENTS_MAX + 10 {
            sink.push(event("c"));
        }
        assert_eq!(sink.flush(), 10);
        let taken = source.take();
        let [TakenEvents { core: 1, events, missed: 10 }] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!(events.len(), limits::TRACE_EVENTS_MAX);
        assert!(source.take().is_empty());
        // What was taken makes room.
        sink.push(event("c"));
        assert_eq!((sink.flush(), source.take()[0].events.len()), (0, 1));
    }

    #[test]
    fn a_ring_is_bounded_in_bytes_too() {
        let source = TraceSource::new(1);
        let mut sink = source.sink(0);
        let long = "c".repeat(65_535);
        let mut missed = 0;
        for _ in 0..2_000 {
            missed += sink.push(event(&long));
        }
        missed += sink.flush();
        assert!(missed > 1_000 && sink.bytes() < limits::TRACE_BYTES_MAX + 70_000, "{missed}");
        drop(source);
        assert!(sink.is_closed());
    }

    #[test]
    fn a_filter_selects_by_client_topic_and_network_together() {
        let filter = TraceFilter {
            client_identifier: Some("c".into()),
            topic_filter: Some("a/+".into()),
            network: Some("10.0.0.0/8".parse().expect("a network")),
            payload_bytes_max: 0,
        };
        let address = |text: &str| Some(text.parse().expect("an address"));
        assert!(filter.selects_client(Some("c"), address("10.1.2.3:5")));
        assert!(filter.selects_client(Some("c"), address("[::ffff:10.1.2.3]:5")));
        assert!(!filter.selects_client(Some("d"), address("10.1.2.3:5")));
        assert!(!filter.selects_client(Some("c"), address("11.1.2.3:5")));
        assert!(!filter.selects_client(Some("c"), None));
        assert!(filter.selects_topic(Some("a/b")) && !filter.selects_topic(Some("b")));
        assert!(!filter.selects_topic(None) && TraceFilter::default().selects_topic(None));
    }
}
