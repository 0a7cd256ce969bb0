//! Spans of sampled messages, for telemetry.
//!
//! A message is looked at when its PUBLISH has been received, if anything is sampled at all, and its span is completed at
//! the next packet or output: then the message has been routed. The span ends when the answer has left, and the copies
//! for the first subscribers of this core.

use crate::base::clock::{Deadline, Now};
use crate::base::ids::ConnectionId;
use crate::base::metrics::Metrics;
use crate::config::Sampling;
use crate::control::span::{
    MessageSpan, SPAN_BYTES_MAX, SPANS_MAX, SpanSink, Traceparent, cut_name,
};
use crate::engine::packet_view::PacketView;
use crate::engine::watch::SeenPacket;
use crate::resources::gauges::{Charge, Ledger};
use crate::wire::{PacketType, Qos, ReasonCode, UserProperties};

/// Spans of a core that are open at the same time; further messages are not sampled.
const OPEN_MAX: usize = 256;

/// Seconds after which a span ends although copies wait in queues.
const OPEN_S: u64 = 5;

/// The User Property with the publisher's span.
const TRACEPARENT: &str = "traceparent";

/// The sampling of a core.
#[derive(Debug, Default)]
pub(in crate::engine) struct Spans {
    sampling: Sampling,
    sink: Option<SpanSink>,
    /// Messages without a parent that have been looked at.
    looked_at: u64,
    /// Messages that have been received and are not routed yet.
    begun: Vec<Begun>,
    open: Vec<Open>,
    /// When the core looks for spans that have been open for too long.
    next_look: Option<Deadline>,
    recorded: u64,
    dropped: u64,
    /// The memory that open spans, and this core's share of the queue to the exporter, take at most.
    #[expect(dead_code, reason = "it is on the ledger for as long as it lives")]
    charge: Charge,
}

/// A message that has been received and is not routed yet.
#[derive(Debug)]
pub(in crate::engine) struct Begun {
    /// The connection that it came from.
    pub publisher: ConnectionId,
    /// The span of the publisher.
    pub parent: Option<Traceparent>,
    /// When it came.
    pub at: Now,
    /// The Topic Name; empty if an alias replaces it.
    pub topic: Box<str>,
    /// Topic Alias.
    pub topic_alias: Option<u16>,
    /// QoS.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Bytes of the packet.
    pub bytes: usize,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// Packet Identifier.
    pub packet_identifier: Option<u16>,
    /// Whether it has waited for a decision of the access control.
    pub has_waited: bool,
    /// Why it was refused.
    pub refused: Option<ReasonCode>,
}

#[derive(Debug)]
struct Open {
    span: MessageSpan,
    publisher: ConnectionId,
    /// The Packet Identifier of the answer that has not left yet.
    answer: Option<u16>,
    /// The connections that have not been sent their copy yet, with their number among the deliveries.
    awaited: Vec<(ConnectionId, usize)>,
}

impl Spans {
    /// Whether messages are sampled.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether output is looked at.
    #[inline]
    pub fn watches_output(&self) -> bool {
        !self.begun.is_empty() || !self.open.is_empty()
    }

    /// Samples messages from now on, or none. `cores` share the queue to the exporter.
    pub fn configure(
        &mut self,
        sampling: Sampling,
        sink: Option<SpanSink>,
        cores: u16,
        ledger: &Ledger,
    ) {
        let sink = sink.filter(|_| sampling != Sampling::Off);
        let spans = OPEN_MAX + SPANS_MAX / usize::from(cores.max(1));
        let charge = match sink {
            Some(_) => Charge::of(ledger, spans * SPAN_BYTES_MAX),
            None => Charge::default(),
        };
        let (recorded, unfinished) = (self.recorded, self.begun.len() + self.open.len());
        let dropped = self.dropped + unfinished as u64;
        *self = Self { recorded, dropped, sampling, sink, charge, ..Self::default() };
    }

    /// Whether a message with this parent is sampled.
    fn samples(&mut self, parent: Option<&Traceparent>) -> bool {
        if let Some(parent) = parent {
            return parent.is_sampled;
        }
        let Sampling::Share(share) = self.sampling else { return false };
        self.looked_at += 1;
        // A hash chooses, and not every n-th message: clients publish in turns.
        ((mix(self.looked_at) >> 11) as f64) < share * (1_u64 << 53) as f64
    }

    /// A PUBLISH of this size has come.
    pub fn begin(&mut self, publisher: ConnectionId, view: &PacketView<'_>, bytes: usize, at: Now) {
        // Nothing is sampled of a packet that is invalid.
        let (Some(topic), Some(payload)) = (view.topic, view.payload) else { return };
        let properties = view.user_properties.as_ref().into_iter().flat_map(UserProperties::iter);
        let parent = properties.filter(|(name, _)| *name == TRACEPARENT).map(|(_, value)| value);
        let parent = parent.last().and_then(Traceparent::parse);
        if !self.samples(parent.as_ref()) {
            return;
        }
        if self.begun.len() + self.open.len() >= OPEN_MAX {
            self.dropped += 1;
            return;
        }
        self.begun.push(Begun {
            publisher,
            parent,
            at,
            topic: topic.into(),
            topic_alias: view.topic_alias,
            qos: view.qos.and_then(|qos| Qos::try_from(qos).ok()).unwrap_or_default(),
            retain: view.retain.unwrap_or_default(),
            dup: view.dup.unwrap_or_default(),
            bytes,
            payload_bytes: payload.len(),
            packet_identifier: view.packet_identifier.map(|identifier| identifier.get()),
            has_waited: false,
            refused: None,
        });
    }

    /// The message that this connection published last is refused.
    pub fn note_refused(&mut self, publisher: ConnectionId, reason: ReasonCode) {
        if let Some(begun) = self.begun.iter_mut().rfind(|begun| begun.publisher == publisher) {
            begun.refused = Some(reason);
        }
    }

    /// Takes a message that has been routed: not one whose connection `waits` for a decision.
    pub fn take_routed(&mut self, waits: impl Fn(ConnectionId) -> bool) -> Option<Begun> {
        for (place, begun) in self.begun.iter_mut().enumerate() {
            match waits(begun.publisher) {
                true => begun.has_waited = true,
                false => return Some(self.begun.remove(place)),
            }
        }
        None
    }

    /// A message is gone with its connection.
    pub fn note_lost(&mut self) {
        self.dropped += 1;
    }

    /// Keeps a span until the answer with this Packet Identifier has left, and the copies for these connections, with
    /// their numbers among the deliveries.
    pub fn open(
        &mut self,
        span: MessageSpan,
        publisher: ConnectionId,
        answer: Option<u16>,
        awaited: Vec<(ConnectionId, usize)>,
    ) {
        self.open.push(Open { span, publisher, answer, awaited });
    }

    /// A packet is sent to a client.
    pub fn note_sent(&mut self, id: ConnectionId, now: Now, seen: &SeenPacket<'_>) {
        let identifier = seen.view.packet_identifier.map(|identifier| identifier.get());
        for open in &mut self.open {
            match seen.packet_type {
                Some(PacketType::Puback | PacketType::Pubrec)
                    if open.publisher == id
                        && open.answer.is_some()
                        && open.answer == identifier =>
                {
                    (open.answer, open.span.ended) = (None, now);
                }
                Some(PacketType::Publish) if seen.topic.map(cut_name) == Some(&open.span.topic) => {
                    let payload = seen.view.payload.map_or(0, <[u8]>::len);
                    let payload = payload + (seen.bytes - seen.seen_bytes);
                    let mut awaited = open.awaited.iter();
                    if payload as u64 == open.span.payload_bytes
                        && let Some(place) = awaited.position(|(of, _)| *of == id)
                    {
                        let (_, number) = open.awaited.swap_remove(place);
                        open.span.deliveries[number].sent = Some(now);
                        // One packet is one delivery: others of the same form belong to later messages.
                        break;
                    }
                }
                _ => {}
            }
        }
    }

    /// The turn ends: spans of which nothing is awaited any more, or for too long, go to the exporter. Returns when
    /// the core has to look again, if that has changed.
    pub fn end_turn(&mut self, now: Now) -> Option<Deadline> {
        let is_over = |open: &mut Open| {
            let is_done = open.answer.is_none() && open.awaited.is_empty();
            is_done || open.span.began.after_s(OPEN_S).is_due(now)
        };
        for mut open in self.open.extract_if(.., is_over) {
            if open.answer.is_some() {
                open.span.ended = now;
            }
            match self.sink.as_ref().is_some_and(|sink| sink.push(open.span)) {
                true => self.recorded += 1,
                false => self.dropped += 1,
            }
        }
        if self.open.is_empty() || self.next_look.is_some_and(|look| !look.is_due(now)) {
            return None;
        }
        self.next_look = Some(now.after_s(OPEN_S));
        self.next_look
    }

    /// Adds the counters to the core's.
    pub fn count_into(&self, metrics: &mut Metrics) {
        (metrics.spans_recorded, metrics.spans_dropped) = (self.recorded, self.dropped);
    }
}

/// A hash of a number (the finalizer of MurmurHash3).
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let number = (number ^ number >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ number >> 33
}
