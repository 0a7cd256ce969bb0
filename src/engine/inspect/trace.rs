//! Traces of packets and drops, for operators who follow a client, a topic or an address.
//!
//! Nothing here runs while nobody traces: the engine looks at the packets of a connection behind a check that it makes
//! anyway. An event is copied for each trace that selects it, and given to the reader at the end of the turn.

use std::sync::Arc;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::metrics::{Drop as DropCause, Metrics};
use crate::control::trace::{TraceEvent, TraceFilter, TraceSink, Traced, TracedPacket};
use crate::engine::packet_view::PacketView;
use crate::engine::watch::{SeenPacket, Whose};
use crate::resources::gauges::{Charge, Ledger};
use crate::wire::PacketType;

/// The traces that a core records events for.
#[derive(Debug, Default)]
pub(in crate::engine) struct Traces {
    running: Vec<Running>,
    /// The client whose CONNECT came last, and its user: a refusal belongs to a connection without a session.
    connecting: Option<(ConnectionId, Box<str>, Option<Box<str>>)>,
    events: u64,
    missed: u64,
}

#[derive(Debug)]
struct Running {
    filter: Arc<TraceFilter>,
    sink: TraceSink,
    charge: Charge,
}

impl Traces {
    /// Whether nothing is traced.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Begins a trace, which ends when its reader is gone.
    pub fn begin(&mut self, filter: Arc<TraceFilter>, sink: TraceSink, ledger: &Ledger) {
        self.running.retain(|trace| !trace.sink.is_closed());
        self.running.push(Running { filter, sink, charge: Charge::on(ledger) });
    }

    /// A client has sent CONNECT.
    pub fn note_connect(&mut self, id: ConnectionId, client: &str, user: Option<&str>) {
        self.connecting = Some((id, client.into(), user.map(Into::into)));
    }

    /// Whether a trace may show packets of this client.
    pub fn selects(&self, whose: &Whose<'_>) -> bool {
        let (client, _) = self.names(whose);
        let selects = |trace: &Running| trace.filter.selects_client(client, whose.address);
        self.running.iter().any(selects)
    }

    /// The Client Identifier and the user, if they are known.
    fn names<'a>(&'a self, whose: &Whose<'a>) -> (Option<&'a str>, Option<&'a str>) {
        match &self.connecting {
            Some((id, client, user)) if whose.client.is_none() && whose.id == Some(*id) => {
                (Some(client), user.as_deref())
            }
            _ => (whose.client, whose.user),
        }
    }

    /// Shows a packet.
    pub fn show_packet(&mut self, now: Now, whose: &Whose<'_>, seen: &SeenPacket<'_>) {
        let topic = seen.topic;
        self.show(now, whose, topic, |filter| {
            let packet = Box::new(traced(seen, filter.payload_bytes_max));
            if seen.is_sent { Traced::Sent(packet) } else { Traced::Received(packet) }
        });
    }

    /// Shows that messages were dropped.
    pub fn show_drop(
        &mut self,
        now: Now,
        whose: &Whose<'_>,
        topic: Option<&str>,
        (cause, messages): (DropCause, u64),
    ) {
        self.show(now, whose, topic, |_| Traced::Dropped { cause, messages });
    }

    fn show(
        &mut self,
        at: Now,
        whose: &Whose<'_>,
        topic: Option<&str>,
        what: impl Fn(&TraceFilter) -> Traced,
    ) {
        let (client, user) = self.names(whose);
        let (client, user): (Option<Box<str>>, _) = (client.map(Into::into), user.map(Into::into));
        for Running { filter, sink, .. } in &mut self.running {
            if !filter.selects_client(client.as_deref(), whose.address)
                || !filter.selects_topic(topic)
            {
                continue;
            }
            self.events += 1;
            self.missed += sink.push(TraceEvent {
                at,
                client_identifier: client.clone(),
                user: Option::clone(&user),
                address: whose.address,
                topic: topic.map(Into::into),
                what: what(filter),
            });
        }
    }

    /// The turn ends: readers get what it has shown, and traces without a reader end.
    pub fn end_turn(&mut self) {
        for trace in &mut self.running {
            self.missed += trace.sink.flush();
            trace.charge.update(trace.sink.bytes());
        }
        self.running.retain(|trace| !trace.sink.is_closed());
        if self.running.is_empty() {
            (self.running, self.connecting) = (Vec::new(), None);
        }
    }

    /// Adds the counters to the core's.
    pub fn count_into(&self, metrics: &mut Metrics) {
        let running = self.running.iter().filter(|trace| !trace.sink.is_closed());
        metrics.traces_running = running.count() as u64;
        metrics.trace_events = self.events;
        metrics.trace_events_missed = self.missed;
    }
}

fn traced(seen: &SeenPacket<'_>, payload_bytes_max: usize) -> TracedPacket {
    let view: &PacketView<'_> = &seen.view;
    let is_message = seen.packet_type == Some(PacketType::Publish);
    // What is there of a large packet lacks the end of the payload.
    let payload_bytes = view.payload.map(|payload| payload.len() + (seen.bytes - seen.seen_bytes));
    let payload = view.payload.filter(|_| is_message && payload_bytes_max > 0);
    TracedPacket {
        packet_type: seen.packet_type,
        bytes: seen.bytes as u64,
        packet_identifier: view.packet_identifier.map(|identifier| identifier.get()),
        qos: view.qos,
        retain: view.retain,
        dup: view.dup,
        filters: view.filters.iter().map(|&filter| filter.into()).collect(),
        reason: view.reason,
        reasons: view.reasons.to_vec(),
        payload_bytes: payload_bytes.map(|bytes| bytes as u64),
        payload: payload.map(|payload| payload[..payload.len().min(payload_bytes_max)].into()),
    }
}
