//! Shows packets and drops to the log at level trace, to the traces of operators, and to telemetry.
//!
//! The engine looks once a turn whether anybody wants to see packets. Received packets are shown when they have been
//! found, sent packets when their connection's output leaves.

use std::net::SocketAddr;
#[cfg(feature = "admin")]
use std::sync::Arc;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId};
use crate::base::metrics::{Drop as DropCause, Metrics};
use crate::base::send_buffer::SendBuffer;
#[cfg(feature = "admin")]
use crate::config::Sampling;
#[cfg(feature = "admin")]
use crate::control::span::SpanSink;
#[cfg(feature = "admin")]
use crate::control::trace::{TraceFilter, TraceSink};
use crate::engine::connections::connection::{Connection, Phase};
use crate::engine::inspect::{Spans, Traces};
use crate::engine::observers::Observers;
use crate::engine::packet_view::{PacketView, each_packet};
use crate::engine::{Engine, packet_log};
#[cfg(feature = "admin")]
use crate::resources::gauges::Ledger;
use crate::session::table::SessionTable;
use crate::session::topic_alias::OutgoingAliases;
use crate::wire::{self, PacketType, Version};

/// Whose packet it is.
#[derive(Clone, Copy, Default)]
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only traces read all of it"))]
pub(in crate::engine) struct Whose<'a> {
    /// The connection.
    pub id: Option<ConnectionId>,
    /// The Client Identifier; none before CONNECT is accepted.
    pub client: Option<&'a str>,
    /// The user.
    pub user: Option<&'a str>,
    /// The client's address.
    pub address: Option<SocketAddr>,
}

/// A packet that a client has sent or is sent.
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only traces read all of it"))]
pub(in crate::engine) struct SeenPacket<'a> {
    /// Whether the client is sent the packet.
    pub is_sent: bool,
    /// Its type.
    pub packet_type: Option<PacketType>,
    /// Its size.
    pub bytes: usize,
    /// How many of these bytes are in the view.
    pub seen_bytes: usize,
    /// The topic of a message, also if an alias replaces it.
    pub topic: Option<&'a str>,
    /// Everything else.
    pub view: PacketView<'a>,
}

/// Who looks at packets besides their handlers: the log, the traces of operators, telemetry, rate limits. That is
/// looked up once a turn, so that packets nobody looks at cost one check each.
#[derive(Debug)]
pub(in crate::engine) struct Watch {
    traces: Traces,
    spans: Spans,
    /// There may be a trace or sampling.
    is_asked: bool,
    /// Packets are shown to the log, a trace or the spans that are open.
    shows_packets: bool,
    /// Received packets are shown, sampled, or counted for a rate limit.
    watches_packets: bool,
}

impl Watch {
    /// `bounds_rates`: packets are counted for a rate limit.
    pub fn new(bounds_rates: bool) -> Self {
        let (traces, spans) = (Traces::default(), Spans::default());
        let (is_asked, shows_packets) = (false, false);
        Self { traces, spans, is_asked, shows_packets, watches_packets: bounds_rates }
    }

    /// Looks who wants to see packets in this turn.
    pub fn begin_turn(&mut self, bounds_rates: bool) {
        self.shows_packets = packet_log::is_on();
        self.watches_packets = bounds_rates || self.shows_packets;
        if self.is_asked {
            self.look();
        }
    }

    /// Looks at traces and sampling.
    #[cold]
    fn look(&mut self) {
        self.shows_packets |= !self.traces.is_empty() || self.spans.watches_output();
        self.watches_packets |= self.shows_packets || self.spans.is_on();
        self.is_asked = !self.traces.is_empty() || self.spans.is_on();
    }

    /// Whether packets are shown to the log or a trace.
    #[inline]
    pub fn shows_packets(&self) -> bool {
        self.shows_packets
    }

    /// Whether received packets are shown, or counted for a rate limit.
    #[inline]
    pub fn watches_packets(&self) -> bool {
        self.watches_packets
    }

    /// Begins a trace.
    #[cfg(feature = "admin")]
    pub fn begin_trace(&mut self, filter: Arc<TraceFilter>, sink: TraceSink, ledger: &Ledger) {
        self.traces.begin(filter, sink, ledger);
        (self.is_asked, self.shows_packets, self.watches_packets) = (true, true, true);
    }

    /// The turn ends: readers of traces get what it has shown.
    pub fn end_turn(&mut self) {
        self.traces.end_turn();
    }

    /// Samples messages from now on, or none.
    #[cfg(feature = "admin")]
    pub fn sample(
        &mut self,
        sampling: Sampling,
        sink: Option<SpanSink>,
        cores: u16,
        ledger: &Ledger,
    ) {
        self.spans.configure(sampling, sink, cores, ledger);
        self.is_asked |= self.spans.is_on();
        self.watches_packets |= self.spans.is_on();
    }

    /// Whether received messages are sampled.
    #[inline]
    pub fn samples(&self) -> bool {
        self.spans.is_on()
    }

    /// The spans of sampled messages.
    #[cfg(feature = "admin")]
    pub fn spans(&mut self) -> &mut Spans {
        &mut self.spans
    }

    /// A message has been sampled: output is looked at.
    #[cfg(feature = "admin")]
    pub fn note_sampled(&mut self) {
        self.shows_packets |= self.spans.watches_output();
    }

    /// Adds what traces have shown.
    pub fn count_into(&self, metrics: &mut Metrics) {
        self.traces.count_into(metrics);
        self.spans.count_into(metrics);
    }
}

impl Engine {
    /// Shows a packet that has been received.
    #[cold]
    pub(in crate::engine) fn show_received(&mut self, id: ConnectionId, packet: &[u8]) {
        let Some(connection) = self.connections.get(id) else { return };
        if let Phase::Connecting { elsewhere: true, .. } = connection.phase {
            return; // The core that accepted the connection has shown the CONNECT.
        }
        let version = if connection.is_open() { connection.version } else { Version::V5 };
        if packet_log::is_on() {
            packet_log::line("received", connection, packet, packet.len(), version);
        }
        if self.observers.watch.traces.is_empty() {
            return;
        }
        let view = PacketView::of_bytes(packet, version);
        if let Some(client) = view.client {
            self.observers.watch.traces.note_connect(id, client, view.user);
        }
        let topic = topic_of(connection, view.topic, view.topic_alias);
        let (packet_type, bytes) = (wire::packet_type(packet), packet.len());
        let seen =
            SeenPacket { is_sent: false, packet_type, bytes, seen_bytes: bytes, topic, view };
        let whose = whose(id, connection, &self.sessions);
        self.observers.watch.traces.show_packet(self.now, &whose, &seen);
        self.work.spend(1);
    }

    /// Shows the packets that leave next.
    #[cold]
    pub(in crate::engine) fn show_output(&mut self) {
        if let Some(id) = self.connections.next_to_send() {
            let Self {
                observers: Observers { watch, .. }, connections, sessions, now, work, ..
            } = self;
            let connection = &connections[id];
            if let Some(output) = &connection.outbox {
                work.spend_bytes(output.len());
                show_sent((id, connection), output, sessions, watch, *now);
            }
        }
    }

    /// Shows the last packets of a connection that has been removed.
    #[cold]
    pub(in crate::engine) fn show_last(
        &mut self,
        id: ConnectionId,
        connection: &Connection,
        last: Option<&SendBuffer>,
    ) {
        if let Some(last) = last.filter(|_| !connection.is_deaf()) {
            let Self { observers: Observers { watch, .. }, sessions, now, .. } = self;
            show_sent((id, connection), last, sessions, watch, *now);
        }
    }

    /// Shows that messages to the client of a session, or one from it, were dropped.
    #[cold]
    pub(in crate::engine) fn show_drop(
        &mut self,
        session: Option<SessionId>,
        (cause, messages): (DropCause, u64),
        topic: Option<&str>,
    ) {
        if self.observers.watch.traces.is_empty() {
            return;
        }
        let Self { observers: Observers { watch, .. }, connections, sessions, now, .. } = self;
        let session = session.and_then(|session| sessions.get(session));
        let id = session.and_then(|session| session.connection);
        let whose = Whose {
            id,
            client: session.map(|session| session.client_identifier.as_str()),
            user: session.and_then(|session| session.owner()),
            address: id.and_then(|id| connections.get(id)?.address()),
        };
        watch.traces.show_drop(*now, &whose, topic, (cause, messages));
    }
}

/// The topic of a received PUBLISH, also if an alias replaces it; none if the alias is not set.
pub(in crate::engine) fn topic_of<'a>(
    connection: &'a Connection,
    topic: Option<&'a str>,
    alias: Option<u16>,
) -> Option<&'a str> {
    match alias.filter(|&alias| alias > 0 && topic == Some("")) {
        Some(alias) => connection.extra.as_ref()?.incoming_aliases.topic(alias),
        None => topic,
    }
}

/// Whose packets these are. The names of a client that is not admitted yet are those of its CONNECT.
fn whose<'a>(
    id: ConnectionId,
    connection: &'a Connection,
    sessions: &'a SessionTable,
) -> Whose<'a> {
    let session = connection.session().and_then(|session| sessions.get(session));
    let (client, user) = match (session, connection.deferred_connect()) {
        (Some(session), _) => (Some(session.client_identifier.as_str()), session.owner()),
        (None, Some(connect)) => {
            let view = PacketView::of_bytes(connect, Version::V5);
            (view.client, view.user)
        }
        (None, None) => (None, None),
    };
    Whose { id: Some(id), client, user, address: connection.address() }
}

/// Shows the packets of an output.
fn show_sent(
    (id, connection): (ConnectionId, &Connection),
    output: &SendBuffer,
    sessions: &SessionTable,
    Watch { traces, spans, .. }: &mut Watch,
    now: Now,
) {
    let version = connection.version;
    if packet_log::is_on() {
        each_packet(output, |packet, bytes| {
            packet_log::line("sent", connection, packet, bytes, version);
        });
    }
    let whose = whose(id, connection, sessions);
    let is_traced = !traces.is_empty() && traces.selects(&whose);
    if !is_traced && !spans.watches_output() {
        return;
    }
    let mut aliases = SentAliases::of(connection, output);
    each_packet(output, |packet, bytes| {
        let view = PacketView::of_bytes(packet, version);
        let known;
        let topic = match (view.topic_alias, view.topic.filter(|topic| !topic.is_empty())) {
            (Some(alias), named) => {
                known = aliases.resolve(alias, named);
                known.as_deref()
            }
            (None, topic) => topic,
        };
        let (packet_type, seen_bytes) = (wire::packet_type(packet), packet.len());
        let seen = SeenPacket { is_sent: true, packet_type, bytes, seen_bytes, topic, view };
        spans.note_sent(id, now, &seen);
        if is_traced {
            traces.show_packet(now, &whose, &seen);
        }
    });
}

/// The Topic Aliases of an output.
struct SentAliases<'a> {
    table: Option<&'a OutgoingAliases>,
    /// Aliases that packets of this output set, with their topics once the packets have passed: before, the table has
    /// another topic than was meant.
    set: Vec<(u16, Option<Box<str>>)>,
}

impl<'a> SentAliases<'a> {
    fn of(connection: &'a Connection, output: &SendBuffer) -> Self {
        let extra = connection.extra.as_ref();
        let table = extra.and_then(|extra| extra.outgoing_aliases.as_ref());
        let mut set = Vec::new();
        if table.is_some() {
            each_packet(output, |packet, _| {
                let view = PacketView::of_bytes(packet, connection.version);
                if let (Some(alias), Some(1..)) = (view.topic_alias, view.topic.map(str::len)) {
                    set.push((alias, None));
                }
            });
        }
        Self { table, set }
    }

    /// The topic of a packet with an alias, which sets the alias if the packet has a topic.
    fn resolve(&mut self, alias: u16, named: Option<&str>) -> Option<Box<str>> {
        let mut of_alias = self.set.iter_mut().filter(|(of, _)| *of == alias);
        match named {
            Some(topic) => {
                of_alias.for_each(|(_, to)| *to = Some(topic.into()));
                Some(topic.into())
            }
            None => match of_alias.next() {
                Some((_, topic)) => topic.clone(),
                None => self.table?.topic(alias).map(Into::into),
            },
        }
    }
}
