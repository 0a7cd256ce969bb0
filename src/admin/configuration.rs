//! The configuration in force, and its reload.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::problem::Problem;
use crate::admin::questions::ask_all;
use crate::admin::routes::{Route, get, post};
use crate::admin::tasks;
use crate::admin::{Answer, Shared};
use crate::config::bridge::changes::BridgeChange;
use crate::config::{Entry, Origin, Role};
use crate::control::question::Question;
use crate::control::reload;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/config", Role::Read, "Every setting with its value and its origin", config)
            .answers::<Config>(),
        post("/api/v1/reload", Role::Operate, "Reads the configuration again", reload)
            .query::<Options>()
            .answers::<Outcome>(),
    ]
}

/// The configuration in force.
#[derive(Debug, Serialize, JsonSchema)]
struct Config {
    /// All settings by key.
    settings: Vec<Setting>,
}

/// A setting.
#[derive(Debug, Serialize, JsonSchema)]
struct Setting {
    /// The key, such as `limits.sessions_max`.
    key: String,
    /// The value in force; secrets are `***`.
    value: Value,
    /// Where the value comes from.
    origin: Source,
    /// Whether a reload changes the key; otherwise a restart does.
    live: bool,
}

/// Where a value comes from.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Source {
    /// The default.
    Default,
    /// A file.
    File {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u32,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag of the command line.
    Flag {
        /// Its name.
        flag: &'static str,
    },
}

impl From<Origin> for Source {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Default | Origin::DefaultOf(_) => Self::Default,
            Origin::File { file, line } => Self::File { file: file.display().to_string(), line },
            Origin::Environment(variable) => Self::Environment { variable },
            Origin::Flag(flag) => Self::Flag { flag },
        }
    }
}

async fn config(State(admin): State<Shared>) -> Answer<Config> {
    let entries = in_thread(&admin, reload::Reload::entries).await?;
    let setting = |Entry { key, value, origin, is_live }: Entry| Setting {
        key,
        value: json(&value),
        origin: origin.into(),
        live: is_live,
    };
    Ok(Json(Config { settings: entries.into_iter().map(setting).collect() }))
}

/// How to reload.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Whether to say only what would change.
    #[serde(default)]
    dry_run: bool,
    /// Whether clients of listeners that are removed are disconnected; otherwise they stay.
    #[serde(default)]
    close: bool,
    /// Whether bridges that are gone from the configuration drop the messages that wait for their far brokers; otherwise
    /// these are kept.
    #[serde(default)]
    drop_queues: bool,
}

/// What has changed, or would change. With an error nothing has.
#[derive(Debug, Serialize, JsonSchema)]
struct Outcome {
    /// Settings that are in force now.
    applied: Vec<Difference>,
    /// Settings that change with the next start.
    needs_restart: Vec<Difference>,
    /// What becomes of each bridge.
    bridges: Vec<Bridge>,
    /// Errors of the configuration, and of files that it names.
    errors: Vec<Mistake>,
    /// Clients that were disconnected because their listener was removed.
    clients_disconnected: u64,
}

/// A setting that differs.
#[derive(Debug, Serialize, JsonSchema)]
struct Difference {
    /// The key.
    key: String,
    /// The value before; null for a key that had none.
    running: Option<Value>,
    /// The value in the files, the environment or the flags.
    wanted: Option<Value>,
}

/// What becomes of a bridge.
#[derive(Debug, Serialize, JsonSchema)]
struct Bridge {
    /// Its name.
    name: String,
    /// What it does: unchanged, started, ended, adapts (other values hold, the connection stays), resubscribes (so do
    /// other subscriptions), reconnects, or deferred (reconnects when the connection has ended by itself).
    effect: &'static str,
    /// Filters that it subscribes to at the other broker.
    subscribes_there: Vec<String>,
    /// Filters that it unsubscribes from at the other broker.
    unsubscribes_there: Vec<String>,
    /// Filters that it subscribes to at this broker.
    subscribes_here: Vec<String>,
    /// Filters that it unsubscribes from at this broker.
    unsubscribes_here: Vec<String>,
}

impl From<BridgeChange> for Bridge {
    fn from(of: BridgeChange) -> Self {
        Self {
            name: of.name,
            effect: of.effect.name(),
            subscribes_there: of.subscribes_there,
            unsubscribes_there: of.unsubscribes_there,
            subscribes_here: of.subscribes_here,
            unsubscribes_here: of.unsubscribes_here,
        }
    }
}

/// An error of the configuration.
#[derive(Debug, Serialize, JsonSchema)]
struct Mistake {
    /// The file.
    file: Option<String>,
    /// The line in the file.
    line: Option<u32>,
    /// The key.
    key: Option<String>,
    /// What is wrong.
    what: String,
}

async fn reload(
    State(admin): State<Shared>,
    Query(Options { dry_run, close, drop_queues }): Query<Options>,
) -> Answer<Outcome> {
    let before = admin.broker.listeners.open();
    let run = move |reload: &reload::Reload| match dry_run {
        true => reload.dry_run(),
        false => reload.run_with(drop_queues),
    };
    let reload::Outcome { applied, needs_restart, bridges, errors } =
        in_thread(&admin, run).await?;
    let clients_disconnected = match close && !dry_run {
        true => close_removed(&admin, before).await?,
        false => 0,
    };
    let difference = |reload::Difference { key, running, wanted }: reload::Difference| Difference {
        key,
        running: running.as_ref().map(json),
        wanted: wanted.as_ref().map(json),
    };
    let mistake = |reload::Problem { file, line, key, what }: reload::Problem| Mistake {
        file,
        line,
        key,
        what,
    };
    Ok(Json(Outcome {
        applied: applied.into_iter().map(difference).collect(),
        needs_restart: needs_restart.into_iter().map(difference).collect(),
        bridges: bridges.into_iter().map(Bridge::from).collect(),
        errors: errors.into_iter().map(mistake).collect(),
        clients_disconnected,
    }))
}

/// Disconnects the clients of listeners that were open before; their number.
async fn close_removed(admin: &Shared, before: Vec<u16>) -> Result<u64, Problem> {
    let open = admin.broker.listeners.open();
    let removed: Box<[u16]> = before.into_iter().filter(|of| !open.contains(of)).collect();
    if removed.is_empty() {
        return Ok(0);
    }
    let question = |reply| Question::EndConnections { listeners: removed.clone(), reply };
    Ok(ask_all(admin, question).await?.into_iter().sum())
}

/// Runs blocking work beside the interface's thread: files are read, and cores are waited for.
async fn in_thread<T: Send + 'static>(
    admin: &Shared,
    work: impl FnOnce(&reload::Reload) -> T + Send + 'static,
) -> Result<T, Problem> {
    let admin = Arc::clone(admin);
    let done = tasks::beside(move || work(&admin.broker.reload)).await;
    done.map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the reload failed; the log has the reason")
    })
}

fn json(value: &toml::Value) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
