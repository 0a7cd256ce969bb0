//! Bridges to other brokers: whether they are connected, what they have carried, and commands to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::broker::Broker;
use crate::admin::clients::ReasonQuery;
use crate::admin::routes::{Route, get, post};
use crate::admin::{Answer, Problem, Shared};
use crate::config::Role;
use crate::control::bridge::{
    BridgeCommand, BridgeQueues, BridgeStatus, ConnectionStatus, QueueSize,
};
use crate::control::question::Question;
use crate::control::{Command, EngineCommand, Refused};

/// How long a bridge may take to carry out a command: it may be about to resolve a name or to connect.
const PATIENCE: Duration = Duration::from_secs(20);

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let (read, operate) = (Role::Read, Role::Operate);
    vec![
        get("/api/v1/bridges", read, "Each bridge", bridges).answers::<BridgeList>(),
        get("/api/v1/bridges/{name}", read, "One bridge", bridge).answers::<Bridge>(),
        post("/api/v1/bridges/{name}/start", operate, "Connect a bridge that is stopped", start)
            .query::<ReasonQuery>()
            .answers_nothing(),
        post(
            "/api/v1/bridges/{name}/stop",
            operate,
            "Disconnect a bridge until it is started, or the broker is",
            stop,
        )
        .query::<ReasonQuery>()
        .answers_nothing(),
        post(
            "/api/v1/bridges/{name}/reconnect",
            operate,
            "Make a new connection of a bridge at once",
            reconnect,
        )
        .query::<ReasonQuery>()
        .answers_nothing(),
        post(
            "/api/v1/bridges/{name}/reset-session",
            Role::Admin,
            "End the session of a bridge at the far broker, and begin a new one",
            reset_session,
        )
        .query::<ReasonQuery>()
        .answers_nothing(),
        post(
            "/api/v1/bridges/{name}/drop-queue",
            Role::Admin,
            "Drop the messages that wait for a bridge",
            drop_queue,
        )
        .query::<ReasonQuery>()
        .answers::<Dropped>(),
    ]
}

/// All bridges.
#[derive(Debug, Serialize, JsonSchema)]
struct BridgeList {
    /// The bridges, in the order of the configuration.
    bridges: Vec<Bridge>,
}

/// One bridge. Counters are since the start of the broker.
#[derive(Debug, Serialize, JsonSchema)]
struct Bridge {
    /// Name.
    name: String,
    /// State: starting, up, degraded (a subscription is refused), down, refused (the name, the password or the Client
    /// Identifier is), tls (TLS has failed), conflict (another client uses the Client Identifier), stopped, or idle (few messages wait).
    state: &'static str,
    /// When the state began, in seconds since 1970.
    since_s: u64,
    /// The server that it is connected to; null while it is not connected.
    server: Option<String>,
    /// The configured servers.
    servers: Vec<String>,
    /// Whether the server had kept a session; null while the bridge is not connected.
    session_present: Option<bool>,
    /// Why it is not connected, or what is wrong although it is.
    why: Option<String>,
    /// The last such reason since the start of the broker.
    last_error: Option<String>,
    /// When it was noted, in seconds since 1970.
    last_error_s: Option<u64>,
    /// Messages that wait for the bridge; null if it has no session yet, or its core has not answered.
    queued: Option<u64>,
    /// Their bytes.
    queue_bytes: Option<u64>,
    /// For how many seconds the oldest of those that wait has waited.
    oldest_s: Option<u64>,
    /// Messages in flight to the far broker.
    inflight: Option<u64>,
    /// The last round trip to the far broker in microseconds: from a message or PINGREQ to its answer; null before the
    /// first one.
    round_trip_us: Option<u64>,
    /// Messages sent to the far broker, repetitions included.
    sent: u64,
    /// Messages received from the far broker.
    received: u64,
    /// Messages dropped because no rule maps them.
    dropped_unmapped: u64,
    /// Messages dropped because they are larger than the far broker accepts.
    dropped_too_large: u64,
    /// Messages dropped because the far broker has refused them.
    dropped_refused: u64,
    /// Messages that the far broker has refused, by reason; those refused with quota-exceeded are not dropped.
    refused_by_reason: BTreeMap<&'static str, u64>,
    /// Messages dropped because they came back by a loop of bridges.
    dropped_loops: u64,
    /// Messages dropped by an operator.
    dropped_by_operator: u64,
    /// Connections that a far broker has accepted since the start.
    connects: u64,
    /// Sessions that a far broker has lost.
    sessions_lost: u64,
    /// Each connection, and those that end once their queues are sent.
    connections: Vec<Connection>,
}

/// One connection of a bridge.
#[derive(Debug, Serialize, JsonSchema)]
struct Connection {
    /// Client Identifier of its session at this broker.
    session: Box<str>,
    /// State, as of the bridge.
    state: &'static str,
    /// When the state began, in seconds since 1970.
    since_s: u64,
    /// The server that it is connected to; null while it is not connected.
    server: Option<String>,
    /// Whether the server had kept a session; null while it is not connected.
    session_present: Option<bool>,
    /// Why it is not connected, or what is wrong although it is.
    why: Option<String>,
    /// Messages that wait for it; null if it has no session yet, or its core has not answered.
    queued: Option<u64>,
    /// Their bytes.
    queue_bytes: Option<u64>,
    /// For how many seconds the oldest of those that wait has waited.
    oldest_s: Option<u64>,
    /// Messages in flight to the far broker.
    inflight: Option<u64>,
}

impl Connection {
    fn new(status: ConnectionStatus, queue: Option<QueueSize>) -> Self {
        Self {
            session: status.session,
            state: status.state.name(),
            since_s: status.since_s,
            server: status.server,
            session_present: status.session_present,
            why: status.why,
            queued: queue.map(|queue| queue.messages),
            queue_bytes: queue.map(|queue| queue.bytes),
            oldest_s: queue.map(|queue| queue.oldest_s),
            inflight: queue.map(|queue| queue.inflight),
        }
    }
}

impl Bridge {
    /// `queues` are those of its connections.
    fn new(status: BridgeStatus, queues: Vec<Option<QueueSize>>) -> Self {
        let queue = sum(&queues);
        let connections = status.connections.into_iter().zip(queues);
        let connections = connections.map(|(of, queue)| Connection::new(of, queue)).collect();
        let (last_error, last_error_s) = status.last_error.unzip();
        Self {
            name: status.name,
            connections,
            state: status.state.name(),
            since_s: status.since_s,
            server: status.server,
            servers: status.servers,
            session_present: status.session_present,
            why: status.why,
            last_error,
            last_error_s,
            queued: queue.map(|queue| queue.messages),
            queue_bytes: queue.map(|queue| queue.bytes),
            oldest_s: queue.map(|queue| queue.oldest_s),
            inflight: queue.map(|queue| queue.inflight),
            round_trip_us: status.round_trip_us,
            sent: status.sent,
            received: status.received,
            dropped_unmapped: status.unmapped,
            dropped_too_large: status.too_large,
            dropped_refused: status.refused,
            refused_by_reason: status.refused_by_reason.into_iter().collect(),
            dropped_loops: status.loops,
            dropped_by_operator: status.by_operator,
            connects: status.connects,
            sessions_lost: status.sessions_lost,
        }
    }
}

/// The queues of all connections of bridges, in the order of the bridges.
async fn queues(broker: &Broker, status: &[BridgeStatus]) -> Vec<Option<QueueSize>> {
    let connections = || status.iter().flat_map(|bridge| &bridge.connections);
    let sessions: Arc<[Box<str>]> = connections().map(|of| of.session.clone()).collect();
    if sessions.is_empty() {
        return Vec::new();
    }
    let ask = |reply| {
        let sessions = sessions.clone();
        Command::Engine(EngineCommand::BridgeQueues(BridgeQueues { sessions, reply }))
    };
    let answers = broker.ask(ask).await;
    let queue_of = |place: usize| {
        let mut cores = answers.iter().flatten();
        cores.find_map(|queues| queues.get(place).copied().flatten())
    };
    (0..sessions.len()).map(queue_of).collect()
}

/// What waits in all of these queues; none if nothing is known of any.
fn sum(queues: &[Option<QueueSize>]) -> Option<QueueSize> {
    queues.iter().flatten().copied().reduce(|one, other| QueueSize {
        messages: one.messages + other.messages,
        bytes: one.bytes + other.bytes,
        inflight: one.inflight + other.inflight,
        oldest_s: one.oldest_s.max(other.oldest_s),
    })
}

/// All bridges, each with its queues.
async fn with_queues(broker: &Broker) -> Vec<(BridgeStatus, Vec<Option<QueueSize>>)> {
    let status = broker.bridges.status();
    let mut queues = queues(broker, &status).await.into_iter();
    let mut with = |of: BridgeStatus| {
        let own = queues.by_ref().take(of.connections.len()).collect();
        (of, own)
    };
    status.into_iter().map(&mut with).collect()
}

/// All bridges, each with what waits for it; none if nothing is known of that.
pub(super) async fn with_sizes(broker: &Broker) -> Vec<(BridgeStatus, Option<QueueSize>)> {
    let all = with_queues(broker).await.into_iter();
    all.map(|(status, queues)| (status, sum(&queues))).collect()
}

/// All bridges.
async fn all(admin: &Shared) -> Vec<Bridge> {
    let all = with_queues(&admin.broker).await.into_iter();
    all.map(|(status, queues)| Bridge::new(status, queues)).collect()
}

fn unknown(admin: &Shared, name: &str) -> Problem {
    let bridges = admin.broker.bridges.status();
    let names: Vec<&str> = bridges.iter().map(|bridge| &*bridge.name).collect();
    Problem::not_found(match names[..] {
        [] => format!("no bridge {name:?}: none is configured"),
        _ => format!("no bridge {name:?}; the bridges are {}", names.join(", ")),
    })
}

async fn bridges(State(admin): State<Shared>) -> Answer<BridgeList> {
    Ok(Json(BridgeList { bridges: all(&admin).await }))
}

async fn bridge(State(admin): State<Shared>, Path(name): Path<String>) -> Answer<Bridge> {
    let found = all(&admin).await.into_iter().find(|bridge| bridge.name == name);
    found.map(Json).ok_or_else(|| unknown(&admin, &name))
}

/// Sends a command to a bridge, and waits until each of its connections has carried it out.
async fn tell(admin: &Shared, name: &str, command: BridgeCommand) -> Result<StatusCode, Problem> {
    let replies = admin.broker.bridges.command(name, command);
    let replies = replies.ok_or_else(|| unknown(admin, name))?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let (mut is_done, mut is_stopped, mut refused) = (false, false, None);
    loop {
        match tokio::time::timeout_at(deadline, replies.next()).await {
            Ok(Some((_, Ok(Ok(()))))) => is_done = true,
            Ok(Some((_, Ok(Err(_))))) => is_stopped = true,
            Ok(Some((_, Err(why)))) => refused = Some(why),
            Ok(None) => break,
            Err(_) => return Err(late(name)),
        }
    }
    match refused {
        Some(Refused::Busy) => {
            let detail = format!("bridge {name:?} has several commands to carry out already");
            Err(Problem::unavailable(detail).retry_after(5))
        }
        None if is_done => Ok(StatusCode::NO_CONTENT),
        None if is_stopped => Err(Problem::new(
            StatusCode::CONFLICT,
            format!("bridge {name:?} is stopped; start it first"),
        )),
        _ => Err(Problem::unavailable("the broker stops")),
    }
}

fn late(name: &str) -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        format!(
            "bridge {name:?} has not carried out the command within {} s, and does so when its attempt to connect \
             ends",
            PATIENCE.as_secs()
        ),
    )
}

async fn start(
    State(admin): State<Shared>,
    Path(name): Path<String>,
    Query(_): Query<ReasonQuery>,
) -> Result<StatusCode, Problem> {
    tell(&admin, &name, BridgeCommand::Start).await
}

async fn stop(
    State(admin): State<Shared>,
    Path(name): Path<String>,
    Query(_): Query<ReasonQuery>,
) -> Result<StatusCode, Problem> {
    tell(&admin, &name, BridgeCommand::Stop).await
}

async fn reconnect(
    State(admin): State<Shared>,
    Path(name): Path<String>,
    Query(_): Query<ReasonQuery>,
) -> Result<StatusCode, Problem> {
    tell(&admin, &name, BridgeCommand::Reconnect).await
}

async fn reset_session(
    State(admin): State<Shared>,
    Path(name): Path<String>,
    Query(_): Query<ReasonQuery>,
) -> Result<StatusCode, Problem> {
    tell(&admin, &name, BridgeCommand::ResetSession).await
}

/// What was dropped.
#[derive(Debug, Serialize, JsonSchema)]
struct Dropped {
    /// Messages.
    dropped: u64,
}

async fn drop_queue(
    State(admin): State<Shared>,
    Path(name): Path<String>,
    Query(_): Query<ReasonQuery>,
) -> Answer<Dropped> {
    let bridges = &admin.broker.bridges;
    let sessions = bridges.sessions(&name).ok_or_else(|| unknown(&admin, &name))?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut dropped: Option<u64> = None;
    for session in sessions {
        if let Some(messages) = drop_of(&admin, session, deadline).await? {
            bridges.note_dropped(&name, messages);
            dropped = Some(dropped.unwrap_or_default() + messages);
        }
    }
    let none =
        || Problem::unavailable(format!("bridge {name:?} has no session yet")).retry_after(1);
    dropped.map(|dropped| Json(Dropped { dropped })).ok_or_else(none)
}

/// Drops what waits in one session of a bridge, and says how much it was; none if there is no such session yet.
async fn drop_of(
    admin: &Shared,
    session: Box<str>,
    deadline: tokio::time::Instant,
) -> Result<Option<u64>, Problem> {
    let replies = admin.broker.cores.ask_all(|reply| {
        let client_identifier = session.clone();
        Command::Engine(EngineCommand::Ask(Question::DropQueue { client_identifier, reply }))
    });
    let mut refused = None;
    loop {
        match tokio::time::timeout_at(deadline, replies.next()).await {
            Ok(Some((_, Ok(Some(dropped))))) => return Ok(Some(dropped)),
            Ok(Some((_, Ok(None)))) => {}
            Ok(Some((_, Err(why)))) => refused = Some(why),
            Ok(None) => {
                return refused.map_or(Ok(None), |why| {
                    Err(Problem::unavailable(why.to_string()).retry_after(1))
                });
            }
            Err(_) => {
                let detail = format!("not all is dropped after {} s", PATIENCE.as_secs());
                return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail));
            }
        }
    }
}
