//! `GET /api/v1/trace`: packets of a client, a topic or an address, as they come.
//!
//! Cores leave events in a ring of their own ([`crate::control::trace`]). A task takes them, in the order of their time,
//! and gives them to the connection of the reader. While the reader does not read, up to 1 MiB waits for it; then events
//! stay in the rings, where those without room are dropped and counted, and a reader that takes nothing for 5 s is cut.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flume::Sender;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shards::TopicFilter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::admin::broker::PATIENCE;
use crate::admin::clients::network;
use crate::admin::routes::{Route, get};
use crate::admin::tasks;
use crate::admin::topics::Payload;
use crate::admin::{Problem, Shared};
use crate::base::clock::Now;
use crate::base::limits;
use crate::base::metrics::DROPS;
use crate::config::Role;
use crate::control::question::Question;
use crate::control::trace::{TraceEvent, TraceFilter, TraceSource, Traced, TracedPacket};
use crate::control::{Command, EngineCommand, replies};
use crate::wire::PacketType;

/// Bytes of a payload that are shown at most.
const PAYLOAD_BYTES_MAX: usize = 65_536;
/// The longest trace.
const SECONDS_MAX: u64 = 3_600;
/// Events are sent together for so long, so that a busy trace takes few system calls.
const GATHERING: Duration = Duration::from_millis(20);
/// Bytes that are given to the connection at once, and how often that may wait for the reader.
const PART_BYTES: usize = 64 << 10;
const PARTS_MAX: usize = 16;
/// How long a reader may take nothing while 1 MiB waits for it.
const READER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often is checked whether the reader has gone or the broker stops.
const CHECK: Duration = Duration::from_millis(200);

const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let summary = "Packets of a client, a topic or an address as they come: a line in JSON for each, or \
                   server-sent events by Accept";
    vec![
        get("/api/v1/trace", Role::Operate, summary, trace)
            .query::<TraceQuery>()
            .answers_in_parts::<Line>(LINES)
            .answers_in_parts::<Line>(EVENTS)
            .audited(),
    ]
}

/// The traces that run.
#[derive(Debug)]
pub struct Traces(Arc<Semaphore>);

impl Default for Traces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::TRACES_MAX)))
    }
}

/// Which packets are shown: those to which everything that is given applies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TraceQuery {
    /// A Client Identifier. The client need not be connected.
    client: Option<String>,
    /// A Topic Filter: only messages on topics that match.
    topic: Option<String>,
    /// An address, or a network such as 10.0.0.0/8.
    address: Option<String>,
    /// How many bytes of each payload are shown: 0 to 65,536, by default 0.
    payload: Option<usize>,
    /// Seconds until the trace ends: 1 to 3,600, by default 60.
    seconds: Option<u64>,
}

impl TraceQuery {
    fn filter(self) -> Result<TraceFilter, Problem> {
        let wrong = |what: String| Err(Problem::bad_request(what));
        if let Some(topic) = &self.topic
            && !TopicFilter::parse(topic, usize::MAX).is_ok_and(|of| of.share_name().is_none())
        {
            return wrong(format!("topic: {topic:?} is no Topic Filter"));
        }
        let network = self.address.as_deref().map(network).transpose()?;
        let payload_bytes_max = self.payload.unwrap_or(0);
        if payload_bytes_max > PAYLOAD_BYTES_MAX {
            return wrong(format!("payload: expected 0 to {PAYLOAD_BYTES_MAX}"));
        }
        Ok(TraceFilter {
            client_identifier: self.client.map(Into::into),
            topic_filter: self.topic.map(Into::into),
            network,
            payload_bytes_max,
        })
    }
}

/// A line of a trace.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Line {
    /// `packet`; `drop`: messages were dropped; `missed`: events are not shown because the reader is too slow; `end`:
    /// the last line.
    event: &'static str,
    /// Time in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<f64>,
    /// The core.
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<usize>,
    /// `received` from the client, or `sent` to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    /// The Client Identifier, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<Box<str>>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Box<str>>,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    /// The type of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<&'static str>,
    /// The topic, also if the packet has a Topic Alias instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<Box<str>>,
    /// The first 16 filters of SUBSCRIBE and UNSUBSCRIBE.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<Box<str>>,
    /// QoS of PUBLISH, or the one that the first filter asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    /// Packet Identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet_id: Option<u16>,
    /// RETAIN flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    retain: Option<bool>,
    /// DUP flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    dup: Option<bool>,
    /// Bytes of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Bytes of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<u64>,
    /// Reason Code.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<u8>,
    /// The name of the Reason Code.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The first 16 Reason Codes of SUBACK and UNSUBACK.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reason_codes: Vec<u8>,
    /// The payload, or its beginning, if it was asked for.
    #[serde(flatten)]
    payload: Option<Payload>,
    /// Why messages were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// How many messages were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    /// How many events were not shown, or were shown in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    /// Why the trace ends: `time` or `stopping`.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

impl Line {
    fn of(event: TraceEvent, core: usize, at_us: u64) -> Self {
        let TraceEvent { client_identifier, user, address, topic, what, .. } = event;
        let line = match what {
            Traced::Received(packet) => Self::of_packet("received", *packet),
            Traced::Sent(packet) => Self::of_packet("sent", *packet),
            Traced::Dropped { cause, messages } => {
                let name = DROPS.iter().find(|(of, _)| *of == cause).map(|(_, name)| *name);
                Self { event: "drop", cause: name, messages: Some(messages), ..Self::default() }
            }
        };
        Self {
            at: Some(at_us as f64 / 1e6),
            core: Some(core),
            client_id: client_identifier,
            user,
            address,
            topic,
            ..line
        }
    }

    fn of_packet(direction: &'static str, packet: TracedPacket) -> Self {
        Self {
            event: "packet",
            direction: Some(direction),
            packet: packet.packet_type.map(PacketType::name),
            filters: packet.filters,
            qos: packet.qos,
            packet_id: packet.packet_identifier,
            retain: packet.retain,
            dup: packet.dup,
            bytes: Some(packet.bytes),
            payload_bytes: packet.payload_bytes,
            reason_code: packet.reason.map(|reason| reason as u8),
            reason: packet.reason.map(|reason| reason.name()),
            reason_codes: packet.reasons,
            payload: packet.payload.map(|payload| Payload::new(payload.into())),
            ..Self::default()
        }
    }
}

async fn trace(
    State(admin): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<TraceQuery>,
) -> Result<Response, Problem> {
    let seconds = query.seconds.unwrap_or(60);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        return Err(Problem::bad_request(format!("seconds: expected 1 to {SECONDS_MAX}")));
    }
    let filter = query.filter()?;
    let place = Arc::clone(&admin.traces.0).try_acquire_owned().map_err(|_| {
        let what = format!("{} traces run already; end one of them", limits::TRACES_MAX);
        Problem::unavailable(what).retry_after(1)
    })?;
    let (source, zero_us) = begin(&admin, filter).await?;
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let is_events = accepted.is_some_and(|accepted| accepted.contains(EVENTS));
    let (to, parts) = flume::bounded(PARTS_MAX);
    let reader = Reader { to, is_events, text: Vec::new(), shown: 0 };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    tasks::spawn(pump(admin, place, source, zero_us, reader, deadline));
    let media_type = if is_events { EVENTS } else { LINES };
    let body = Body::from_stream(parts.into_stream());
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, media_type)], body).into_response())
}

/// Begins a trace on all cores. Returns its events, and the microseconds from 1970 until the clock of the cores was
/// zero.
async fn begin(admin: &Shared, filter: TraceFilter) -> Result<(TraceSource, u64), Problem> {
    let cores = &admin.broker.cores;
    let source = TraceSource::new(cores.count());
    let (filter, (to, replies)) = (Arc::new(filter), replies());
    for core in 0..cores.count() {
        let filter = Arc::clone(&filter);
        let question = Question::Trace { filter, sink: source.sink(core), reply: to.core(core) };
        // The refusal is among the replies.
        let _ = cores.send(core, Command::Engine(EngineCommand::Ask(question)));
    }
    drop(to);
    let mut zeros_us = Vec::new();
    let collected = async {
        while let Some((_, Ok(now))) = replies.next().await {
            zeros_us.push(zero_us(now));
        }
    };
    let _ = tokio::time::timeout(PATIENCE, collected).await;
    // All cores have the same clock: the reply that took the shortest tells most.
    match zeros_us.iter().min().filter(|_| zeros_us.len() == cores.count()) {
        Some(&zero_us) => Ok((source, zero_us)),
        None => Err(Problem::unavailable("a core does not answer; try again later")),
    }
}

/// Microseconds from 1970 until a clock was zero that now shows this time.
pub(super) fn zero_us(now: Now) -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.map_or(0, |time| time.as_micros() as u64).saturating_sub(now.0)
}

/// Why no more can be given to a reader: it has gone, or is too slow.
struct Lost;

/// The connection of the one who reads the trace.
struct Reader {
    to: Sender<Result<Bytes, io::Error>>,
    is_events: bool,
    /// Lines that have not been given to the connection.
    text: Vec<u8>,
    shown: u64,
}

impl Reader {
    async fn add(&mut self, line: &Line) -> Result<(), Lost> {
        let text = serde_json::to_string(line).map_err(|_| Lost)?;
        let text = match self.is_events {
            true => format!("event: {}\ndata: {text}\n\n", line.event),
            false => text + "\n",
        };
        self.text.extend_from_slice(text.as_bytes());
        if self.text.len() >= PART_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Lost> {
        if self.text.is_empty() {
            return Ok(());
        }
        let part = Bytes::from(std::mem::take(&mut self.text));
        let sent = tokio::time::timeout(READER_TIMEOUT, self.to.send_async(Ok(part))).await;
        if sent.is_err() {
            tracing::warn!("a trace has ended because its reader is too slow");
        }
        sent.map_err(|_| Lost)?.map_err(|_| Lost)
    }

    /// Shows the events of all cores that are there, in the order of their time.
    async fn take(&mut self, source: &TraceSource, zero_us: u64) -> Result<(), Lost> {
        let mut events = Vec::new();
        for taken in source.take() {
            let core = taken.core;
            events
                .extend(taken.events.into_iter().map(|event| (event.at.0 + zero_us, core, event)));
            if taken.missed > 0 {
                let (core, events) = (Some(core), Some(taken.missed));
                self.add(&Line { event: "missed", core, events, ..Line::default() }).await?;
            }
        }
        events.sort_by_key(|(at_us, ..)| *at_us);
        for (at_us, core, event) in events {
            self.shown += 1;
            self.add(&Line::of(event, core, at_us)).await?;
        }
        self.flush().await
    }
}

/// Gives events to the reader until the trace ends.
async fn pump(
    admin: Shared,
    _place: OwnedSemaphorePermit,
    source: TraceSource,
    zero_us: u64,
    mut reader: Reader,
    deadline: Instant,
) {
    let mut checks = tokio::time::interval(CHECK);
    let why = loop {
        tokio::select! {
            () = source.changed() => tokio::time::sleep(GATHERING).await,
            () = tokio::time::sleep_until(deadline) => break "time",
            _ = checks.tick() => {}
        }
        if reader.to.is_disconnected() || reader.take(&source, zero_us).await.is_err() {
            return;
        }
        if admin.broker.is_stopping() {
            break "stopping";
        }
    };
    let end = async {
        reader.take(&source, zero_us).await?;
        let (events, why) = (Some(reader.shown), Some(why));
        reader.add(&Line { event: "end", events, why, ..Line::default() }).await?;
        reader.flush().await
    };
    // A reader that has gone does not need the end.
    let _ = end.await;
}
