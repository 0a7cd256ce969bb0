//! The level of the log.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::Answer;
use crate::admin::problem::Problem;
use crate::admin::routes::{Route, get, put};
use crate::config::{LogLevel, Role};
use crate::control::log::{LogControl, LogState};

/// The longest time for another level.
const SECONDS_MAX: u32 = 86_400;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/log", Role::Read, "The level of the log", level).answers::<Level>(),
        put(
            "/api/v1/log",
            Role::Operate,
            "Change the level of the log, for a while or for good",
            change,
        )
        .body::<Change>()
        .answers::<Level>(),
    ]
}

/// The level of the log.
#[derive(Debug, Serialize, JsonSchema)]
struct Level {
    /// The level that applies: error, warn, info, debug or trace.
    level: &'static str,
    /// The level of the configuration.
    configured: &'static str,
    /// Seconds after which the configured level applies again; null if nothing is to change.
    seconds_left: Option<u64>,
}

impl From<LogState> for Level {
    fn from(LogState { level, configured, remaining }: LogState) -> Self {
        let seconds_left = remaining.map(|left| left.as_secs());
        Self { level: level.name(), configured: configured.name(), seconds_left }
    }
}

/// A change of the level.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    /// The level: error, warn, info, debug or trace.
    level: String,
    /// Seconds after which the configured level applies again, at most a day; without it the level stays until it is
    /// changed again.
    seconds: Option<u32>,
}

fn control() -> Result<&'static LogControl, Problem> {
    LogControl::of_process().ok_or_else(|| Problem::unavailable("the log has not started"))
}

async fn level() -> Answer<Level> {
    Ok(Json(control()?.state().into()))
}

async fn change(Json(change): Json<Change>) -> Answer<Level> {
    let level = LogLevel::ALL.into_iter().find(|level| level.name() == change.level);
    let level = level
        .ok_or_else(|| Problem::bad_request("level: expected error, warn, info, debug or trace"))?;
    if change.seconds.is_some_and(|seconds| !(1..=SECONDS_MAX).contains(&seconds)) {
        return Err(Problem::bad_request("seconds: expected 1 to 86400"));
    }
    let control = control()?;
    let during = change.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    control.set(level, during).map_err(|error| {
        let what = format!("cannot start the thread that changes the level back: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, what)
    })?;
    Ok(Json(control.state().into()))
}
