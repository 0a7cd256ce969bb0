//! Health: whether the broker lives, and whether it is ready for clients.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::Shared;
use crate::admin::broker::{Broker, PATIENCE};
use crate::admin::routes::{Route, get};
use crate::config::Role;
use crate::control::bridge::BridgeStatus;
use crate::control::cluster::ClusterBoard;
use crate::stats::Snapshot;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let routes = [
        get("/livez", Role::Read, "Whether every core takes turns", live),
        get("/readyz", Role::Read, "Whether the broker is ready for clients", ready),
        get("/healthz", Role::Read, "The same as /readyz", ready),
    ];
    let describe = |route: Route| {
        route.for_health().query::<Wanted>().answers::<Health>().answers_with::<Health>(503)
    };
    routes.into_iter().map(describe).collect()
}

/// What is asked.
#[derive(Debug, Deserialize, JsonSchema)]
struct Wanted {
    /// If present: the answer has every check, and not only those that fail.
    verbose: Option<String>,
    /// If present: of /readyz and /healthz, the bridges are among the checks.
    bridges: Option<String>,
}

/// The health of the broker.
#[derive(Debug, Serialize, JsonSchema)]
struct Health {
    /// Whether all checks hold.
    ok: bool,
    /// The checks that fail, or all of them.
    checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Serialize, JsonSchema)]
struct Check {
    /// What is checked.
    name: &'static str,
    /// Whether the check holds.
    ok: bool,
    /// What was found.
    found: String,
}

async fn live(State(admin): State<Shared>, Query(wanted): Query<Wanted>) -> Response {
    let pulse = admin.broker.pulse().await;
    answer(vec![cores(&admin.broker, &pulse)], &wanted)
}

async fn ready(State(admin): State<Shared>, Query(wanted): Query<Wanted>) -> Response {
    let pulse = admin.broker.pulse().await;
    let mut checks = checks(&admin.broker, &pulse);
    checks.extend(admin.broker.cluster.as_ref().map(cluster));
    if wanted.bridges.is_some() {
        checks.push(bridges(&admin.broker.bridges.status()));
    }
    answer(checks, &wanted)
}

/// Whether each bridge that tries to be connected is.
fn bridges(bridges: &[BridgeStatus]) -> Check {
    let amiss = bridges.iter().filter(|bridge| bridge.is_amiss());
    let names: Vec<&str> = amiss.map(|bridge| &*bridge.name).collect();
    let found = match names.len() {
        0 => format!("none of {} bridges waits for its connection", bridges.len()),
        _ => format!("not connected: {}", names.join(", ")),
    };
    Check { name: "bridges", ok: names.is_empty(), found }
}

/// Whether clients are served like at any other node.
fn cluster(board: &ClusterBoard) -> Check {
    let status = board.status();
    let why = board.unready();
    let found = match why {
        None => {
            format!("one of {} members of the cluster {}", status.members.len(), status.cluster)
        }
        Some(why) => why.to_owned(),
    };
    Check { name: "cluster", ok: why.is_none(), found }
}

fn answer(mut checks: Vec<Check>, wanted: &Wanted) -> Response {
    let ok = checks.iter().all(|check| check.ok);
    if wanted.verbose.is_none() {
        checks.retain(|check| !check.ok);
    }
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { ok, checks })).into_response()
}

fn cores(broker: &Broker, pulse: &Snapshot) -> Check {
    let missing = pulse.missing();
    let found = match &missing[..] {
        // Cores that end their connections take no commands, and a restart would not be faster.
        _ if broker.is_stopping() => {
            let found = "the broker stops".to_owned();
            return Check { name: "cores", ok: true, found };
        }
        [] => format!("all {} take turns", pulse.cores.len()),
        missing => format!("cores {missing:?} took no turn within {} s", PATIENCE.as_secs()),
    };
    Check { name: "cores", ok: missing.is_empty(), found }
}

fn checks(broker: &Broker, pulse: &Snapshot) -> Vec<Check> {
    let check = |name, ok: bool, good: &str, bad: &str| {
        let found = if ok { good } else { bad }.to_owned();
        Check { name, ok, found }
    };
    let sum = &pulse.all;
    let is_draining = broker.drain.status().is_draining();
    let has_store = broker.folder.is_some();
    let open = broker.listeners.open().len();
    let memory = format!("{} of {} bytes", sum.memory_bytes, broker.memory_bytes_max);
    let (writes, room) = match has_store {
        true => ("the store writes", "the store has room"),
        false => ("nothing is stored", "nothing is stored"),
    };
    vec![
        cores(broker, pulse),
        check("listening", open > 0, &format!("{open} listeners are open"), "no listener is open"),
        check("running", !broker.is_stopping(), "the broker accepts clients", "the broker stops"),
        check(
            "clients",
            !is_draining,
            "new clients are accepted",
            "new clients are refused: drained",
        ),
        check("store_writes", sum.store_failing == 0, writes, "the store cannot write"),
        check("store_room", sum.store_full == 0, room, "the store is full"),
        check("memory", sum.memory_bytes < broker.memory_bytes_max, &memory, &memory),
    ]
}
