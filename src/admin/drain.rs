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
use crate::control::drain::{DrainStatus, Drainer, Purpose, RATE, RATE_MAX};
use crate::control::{Command, EngineCommand};

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/drain", Role::Read, "How far a drain has come", show).answers::<Drain>(),
        post("/api/v1/drain", Role::Operate, "Refuse new clients, and empty a node", begin)
            .query::<DrainQuery>()
            .answers_nothing(),
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
    let rate = rate.unwrap_or(RATE);
    if !(1..=RATE_MAX).contains(&rate) {
        let what = format!("rate is {rate}; it must be between 1 and {RATE_MAX}");
        return Err(Problem::bad_request(what));
    }
    // Before the cores refuse clients: whoever asks for health sends no more of them here.
    let begun = admin.broker.drain.begin(Purpose::Drain, rate);
    begun.map_err(|error| Problem::unavailable(format!("cannot begin a drain: {error}")))?;
    tell(&admin).await
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
