//! The cluster as this node sees it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::drain::Drain;
use crate::admin::routes::{Route, delete, get};
use crate::admin::{Answer, Problem, Shared};
use crate::config::Role;
use crate::control::cluster::{ClusterBoard, MemberStatus};

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/cluster", Role::Read, "The cluster as this node sees it", cluster)
            .answers::<Cluster>(),
        delete(
            "/api/v1/cluster/nodes/{name}",
            Role::Admin,
            "Free the number of a node that is gone for good",
            forget,
        )
        .answers_nothing(),
    ]
}

/// The cluster as this node sees it. Counters are since the start of this broker.
#[derive(Debug, Serialize, JsonSchema)]
struct Cluster {
    /// Name of the cluster.
    cluster: String,
    /// Whether this node is ready for clients.
    ready: bool,
    /// Why it is not; null if it is.
    why: Option<&'static str>,
    /// The engine server that this node is connected to, as HOST:PORT; null without a connection.
    server: Option<String>,
    /// Whether the engine has had no quorum for ten seconds, as far as this node reaches it.
    isolated: bool,
    /// Connections to engine servers after the first.
    reconnects: u64,
    /// Frames that were dropped because the connection was down or behind; they are sent again.
    frames_dropped: u64,
    /// Application messages sent to other nodes, each once for each of them.
    sent: u64,
    /// Application messages received from other nodes.
    received: u64,
    /// Nodes that were left because what they sent could not be understood.
    errors: u64,
    /// Topic Filters and shared subscriptions that this node has announced to the others.
    filters: u64,
    /// The drain of this node.
    drain: Option<Drain>,
    /// Copies of this node's log: 1, on its disk, or 3, also in a replicated stream of the engine.
    replicas: u8,
    /// That stream; null with one copy, as is what follows.
    log_stream: Option<String>,
    /// State of the stream: following, stalled (it confirms nothing, and acknowledgements wait), degraded (the disk counts
    /// alone) or ended.
    log_state: Option<&'static str>,
    /// Frames of the log that the stream lacks.
    log_lag_frames: Option<u64>,
    /// Bytes of pages that the stream lacks.
    log_lag_bytes: Option<u64>,
    /// Pages that the stream has confirmed.
    log_pages: Option<u64>,
    /// Pages that were refused or not confirmed in time; they are sent again.
    log_failures: Option<u64>,
    /// The members, by number.
    members: Vec<Member>,
}

/// A member.
#[derive(Debug, Serialize, JsonSchema)]
struct Member {
    /// Number, 0 to 63.
    node: u8,
    /// Name.
    name: String,
    /// State: joining, member or leaving.
    state: &'static str,
    /// Whether it is the node that answers.
    own: bool,
    /// Address for clients, if one is configured.
    advertise: Option<String>,
    /// Which of its starts this is.
    incarnation: u64,
    /// Milliseconds since something of it came; null for the node that answers, or if nothing has.
    heard_ms: Option<u64>,
    /// Milliseconds since it renewed its lease, as far as is known.
    lease_ms: Option<u64>,
    /// How far its clock is ahead of that of the node that answers, in milliseconds; null if that is not known yet.
    clock_ahead_ms: Option<i64>,
    /// Its connections, some seconds ago; null if it does not tell.
    clients: Option<u32>,
}

impl From<&MemberStatus> for Member {
    fn from(of: &MemberStatus) -> Self {
        Self {
            node: of.node,
            name: of.name.clone(),
            state: of.state,
            own: of.is_own,
            advertise: Some(of.advertise.clone()).filter(|address| !address.is_empty()),
            incarnation: of.incarnation,
            heard_ms: of.heard_ms.filter(|_| !of.is_own),
            lease_ms: of.lease_ms,
            clock_ahead_ms: of.clock_ahead_ms,
            clients: of.clients,
        }
    }
}

impl From<&ClusterBoard> for Cluster {
    fn from(board: &ClusterBoard) -> Self {
        let (status, traffic) = (board.status(), board.traffic());
        let (why, log) = (board.unready(), board.replication());
        Self {
            cluster: status.cluster.clone(),
            ready: why.is_none(),
            why,
            server: status.server.clone(),
            isolated: status.is_isolated,
            reconnects: status.reconnects,
            frames_dropped: status.frames_dropped,
            sent: traffic.sent,
            received: traffic.received,
            errors: traffic.errors,
            filters: traffic.filters,
            drain: None,
            replicas: if log.is_some() { 3 } else { 1 },
            log_stream: log.as_ref().map(|of| of.stream.clone()),
            log_state: log.as_ref().map(|of| of.state.name()),
            log_lag_frames: log.as_ref().map(|of| of.lag_frames),
            log_lag_bytes: log.as_ref().map(|of| of.lag_bytes),
            log_pages: log.as_ref().map(|of| of.pages),
            log_failures: log.as_ref().map(|of| of.failures),
            members: status.members.iter().map(Member::from).collect(),
        }
    }
}

async fn cluster(State(admin): State<Shared>) -> Answer<Cluster> {
    let drain = Some(admin.broker.drain.status().into());
    let shown = |board| Json(Cluster { drain, ..Cluster::from(board) });
    admin.broker.cluster.as_ref().map(shown).ok_or_else(none)
}

/// How long the thread of the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

async fn forget(
    State(admin): State<Shared>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let board = admin.broker.cluster.as_ref().ok_or_else(none)?;
    let late = || Problem::unavailable("the cluster does not answer; try again").retry_after(1);
    let answer = board.forget(name).ok_or_else(late)?;
    match tokio::time::timeout(PATIENCE, answer.recv_async()).await {
        Ok(Ok(Ok(()))) => Ok(StatusCode::NO_CONTENT),
        Ok(Ok(Err(why))) => Err(Problem::new(StatusCode::CONFLICT, why)),
        _ => Err(late()),
    }
}

fn none() -> Problem {
    Problem::not_found("this broker is no node of a cluster: its configuration has no [cluster]")
}
