//! Webhooks: what they have sent and dropped, and what waits.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::routes::{Route, get};
use crate::admin::{Answer, Shared};
use crate::config::Role;
use crate::control::webhooks::Status;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![get("/api/v1/webhooks", Role::Read, "Each webhook", webhooks).answers::<WebhookList>()]
}

/// All webhooks.
#[derive(Debug, Serialize, JsonSchema)]
struct WebhookList {
    /// The webhooks, in the order of the configuration.
    webhooks: Vec<Webhook>,
}

/// One webhook.
#[derive(Debug, Serialize, JsonSchema)]
struct Webhook {
    /// Name.
    name: String,
    /// URL of the server, without user name, password and query.
    url: String,
    /// Events that are reported: connect, disconnect, subscribe, unsubscribe, publish.
    events: Vec<&'static str>,
    /// Topic Filters of the messages that are reported.
    filters: Vec<String>,
    /// Whether the last request failed.
    failing: bool,
    /// Time of the last failure, in seconds since 1970; null if no request has failed.
    failed_s: Option<u64>,
    /// What failed.
    error: Option<String>,
    /// Events that wait or are being sent.
    queued: u64,
    /// Bytes of these events.
    queued_bytes: u64,
    /// Limit of these events.
    queued_max: u64,
    /// Events that the server has accepted since the start.
    sent: u64,
    /// Requests that the server has accepted since the start.
    requests: u64,
    /// Repetitions of requests since the start.
    retried: u64,
    /// Events dropped because the queue was full.
    dropped_full: u64,
    /// Events dropped because the server refused them.
    dropped_refused: u64,
    /// Events dropped because their requests failed as often as they may.
    dropped_failed: u64,
}

impl From<Status> for Webhook {
    fn from(status: Status) -> Self {
        let (failed_s, error) = status.last_error.unzip();
        Self {
            name: status.name,
            url: status.url,
            events: status.events,
            filters: status.filters,
            failing: status.is_failing,
            failed_s,
            error,
            queued: status.queued_events,
            queued_bytes: status.queued_bytes,
            queued_max: status.queue_events_max,
            sent: status.sent,
            requests: status.requests,
            retried: status.retried,
            dropped_full: status.dropped.full,
            dropped_refused: status.dropped.refused,
            dropped_failed: status.dropped.failed,
        }
    }
}

async fn webhooks(State(admin): State<Shared>) -> Answer<WebhookList> {
    let webhooks = admin.broker.webhooks.status().into_iter().map(Webhook::from).collect();
    Ok(Json(WebhookList { webhooks }))
}
