//! Draining: new clients are refused, those that are connected stay.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;

use crate::admin::questions::ask_all;
use crate::admin::routes::{Route, delete, post};
use crate::admin::{Problem, Shared};
use crate::config::Role;
use crate::control::question::Question;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/drain", Role::Operate, "Refuse new clients", begin).answers_nothing(),
        delete("/api/v1/drain", Role::Operate, "Accept new clients again", end).answers_nothing(),
    ]
}

async fn begin(State(admin): State<Shared>) -> Result<StatusCode, Problem> {
    set(&admin, true).await
}

async fn end(State(admin): State<Shared>) -> Result<StatusCode, Problem> {
    set(&admin, false).await
}

async fn set(admin: &Shared, is_draining: bool) -> Result<StatusCode, Problem> {
    // Before the cores refuse clients: whoever asks for health sends no more of them here.
    admin.broker.is_draining.store(is_draining, Ordering::Relaxed);
    ask_all(admin, |reply| Question::Drain { is_draining, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}
