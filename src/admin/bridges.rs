//! Bridges to other brokers: whether they are connected, and what they have carried.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::routes::{Route, get};
use crate::admin::{Answer, Shared};
use crate::config::Role;
use crate::control::bridge::BridgeStatus;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![get("/api/v1/bridges", Role::Read, "Each bridge", bridges).answers::<BridgeList>()]
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
    /// Identifier is), or conflict (another client uses the Client Identifier).
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
    /// Connections that a far broker has accepted.
    connects: u64,
    /// Sessions that a far broker has lost.
    sessions_lost: u64,
}

impl From<BridgeStatus> for Bridge {
    fn from(status: BridgeStatus) -> Self {
        Self {
            name: status.name,
            state: status.state.name(),
            since_s: status.since_s,
            server: status.server,
            servers: status.servers,
            session_present: status.session_present,
            why: status.why,
            sent: status.sent,
            received: status.received,
            dropped_unmapped: status.unmapped,
            dropped_too_large: status.too_large,
            dropped_refused: status.refused,
            refused_by_reason: status.refused_by_reason.into_iter().collect(),
            dropped_loops: status.loops,
            connects: status.connects,
            sessions_lost: status.sessions_lost,
        }
    }
}

async fn bridges(State(admin): State<Shared>) -> Answer<BridgeList> {
    let bridges = admin.broker.bridges.status().into_iter().map(Bridge::from).collect();
    Ok(Json(BridgeList { bridges }))
}
