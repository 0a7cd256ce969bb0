//! Drain: new clients are refused. A node of a cluster is also emptied: its clients are disconnected at a bounded rate, and
//! sessions without a client move to other nodes.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::routes::{Route, delete, get, post};
use crate::admin::{Answer, Problem, Shared};
use crate::config::Role;
use crate::control::drain::{DrainStatus, Drainer, Purpose, RATE, RATE_MAX, Shares};
use crate::control::{Command, EngineCommand};

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/drain", Role::Read, "How far a drain has come", show).answers::<Drain>(),
        post("/api/v1/drain", Role::Operate, "Refuse new clients, and empty a node", begin)
            .query::<DrainQuery>()
            .answers_nothing(),
        post(
            "/api/v1/rebalance",
            Role::Operate,
            "Send clients to nodes that have fewer",
            rebalance,
        )
        .query::<RebalanceQuery>()
        .answers::<Rebalance>(),
        delete("/api/v1/drain", Role::Operate, "Accept new clients again", end).answers_nothing(),
    ]
}

/// How a node is emptied.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DrainQuery {
    /// Clients a second that each core disconnects, 1 to 100,000; 100 if this is left out. Outside a cluster none are.
    rate: Option<u32>,
}

/// How far a drain or a rebalance has come.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Drain {
    /// Whether new clients are refused.
    draining: bool,
    /// Whether a drain empties the broker: it is a node of a cluster.
    empties: bool,
    /// Whether some clients are sent to other nodes, because this one has more than its share.
    rebalancing: bool,
    /// Whether no client and no session is left that goes to another node.
    empty: bool,
    /// Clients a second that each core disconnects; null while nothing is done.
    rate: Option<u32>,
    /// Connected clients that are left; null before all cores have answered, as the next ones.
    clients: Option<u64>,
    /// Sessions without a client that are left.
    sessions: Option<u64>,
    /// Those of them that are offered to other nodes, or on their way.
    under_way: Option<u64>,
    /// Clients that have been disconnected.
    disconnected: Option<u64>,
    /// Sessions that have moved to other nodes since the start of the broker.
    moved: Option<u64>,
}

impl From<DrainStatus> for Drain {
    fn from(status: DrainStatus) -> Self {
        let progress = status.progress;
        Self {
            draining: status.is_draining(),
            empties: status.is_node,
            rebalancing: matches!(status.purpose, Some(Purpose::Rebalance { .. })),
            empty: status.is_empty(),
            rate: status.purpose.map(|_| status.rate),
            clients: progress.map(|of| of.clients),
            sessions: progress.map(|of| of.sessions),
            under_way: progress.map(|of| of.under_way),
            disconnected: progress.map(|of| of.disconnected),
            moved: progress.map(|of| of.moved),
        }
    }
}

async fn show(State(admin): State<Shared>) -> Answer<Drain> {
    Ok(Json(admin.broker.drain.status().into()))
}

async fn begin(
    State(admin): State<Shared>,
    Query(DrainQuery { rate }): Query<DrainQuery>,
) -> Result<StatusCode, Problem> {
    let rate = checked(rate)?;
    // Before the cores refuse clients: whoever asks for health sends no more of them here.
    let begun = admin.broker.drain.begin(Purpose::Drain, rate);
    begun.map_err(|error| Problem::unavailable(format!("cannot begin a drain: {error}")))?;
    tell(&admin).await
}

fn checked(rate: Option<u32>) -> Result<u32, Problem> {
    match rate.unwrap_or(RATE) {
        rate @ 1..=RATE_MAX => Ok(rate),
        rate => {
            let what = format!("rate is {rate}; it must be between 1 and {RATE_MAX}");
            Err(Problem::bad_request(what))
        }
    }
}

/// How clients are sent to nodes that have fewer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RebalanceQuery {
    /// Clients a second that each core disconnects, 1 to 100,000; 100 if this is left out.
    rate: Option<u32>,
    /// Only says what would be done.
    #[serde(default)]
    dry_run: bool,
}

/// What a rebalance does.
#[derive(Debug, Serialize, JsonSchema)]
struct Rebalance {
    /// Connections of this node.
    clients: u64,
    /// Connections of a node that takes part, on average.
    share: u64,
    /// Clients that are sent elsewhere: 0 if this node has at most 5% more than its share.
    excess: u64,
}

async fn rebalance(
    State(admin): State<Shared>,
    Query(RebalanceQuery { rate, dry_run }): Query<RebalanceQuery>,
) -> Answer<Rebalance> {
    let (rate, drain) = (checked(rate)?, &admin.broker.drain);
    if drain.status().is_draining() {
        let what = "this node is drained: all of its clients go";
        return Err(Problem::new(StatusCode::CONFLICT, what));
    }
    let board = admin.broker.cluster.as_ref().ok_or_else(|| {
        Problem::not_found(
            "this broker is no node of a cluster: its configuration has no [cluster]",
        )
    })?;
    let Some(Shares { own, share, excess }) = Shares::of(&board.status()) else {
        let what = "fewer than two members serve clients and tell how many they have";
        return Err(Problem::unavailable(what.to_owned()).retry_after(5));
    };
    if excess > 0 && !dry_run {
        let clients = excess.div_ceil(admin.broker.cores.count() as u64);
        let begun = drain.begin(Purpose::Rebalance { clients }, rate);
        begun.map_err(|error| Problem::unavailable(format!("cannot begin: {error}")))?;
    }
    Ok(Json(Rebalance { clients: own, share, excess }))
}

async fn end(State(admin): State<Shared>) -> Result<StatusCode, Problem> {
    admin.broker.drain.end();
    tell(&admin).await
}

/// Gives the cores the order of the moment, and waits until all have it.
async fn tell(admin: &Shared) -> Result<StatusCode, Problem> {
    let drain: &Drainer = &admin.broker.drain;
    let order = drain.order();
    let command = |reply| Command::Engine(EngineCommand::Drain { order: order.clone(), reply });
    let answers = admin.broker.ask(command).await;
    if answers.iter().any(Option::is_none) {
        let what = "not all cores have taken the order; repeat the request";
        return Err(Problem::unavailable(what.to_owned()).retry_after(1));
    }
    drain.note_answers(answers.into_iter().flatten());
    Ok(StatusCode::NO_CONTENT)
}
