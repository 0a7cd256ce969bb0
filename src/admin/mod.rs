//! The admin interface: HTTP/1.1 over Unix sockets and TCP, served by one thread beside the cores.
//!
//! | file | what it does |
//! | --- | --- |
//! | `server` | the thread, its listeners and connections, with their limits |
//! | `broker` | what the interface knows of the broker, and questions to its cores |
//! | `routes` | the table of routes, and the router made from it |
//! | `gate` | what every request passes before its handler: stopping, size, host, role, audit |
//! | `auth` | who sends a request: socket, certificate, token, password, cookie |
//! | `problem` | errors as `application/problem+json` |
//! | `openapi` | the OpenAPI document, which a test holds against the table of routes |
//! | `questions` | questions to the engines of the cores, and cursors |
//! | `collections` | what all cores count and record, collected once for all requests at the same time |
//! | `compression` | answers packed by gzip |
//! | `tasks` | tasks of the thread, and work beside it |
//! | `otlp` | telemetry, exported to a collector |
//! | `health`, `status`, `configuration`, `log`, `metrics`, `login`, `clients`, `topics`, `bans`, `users`, `webhooks`, `bridges`, `cluster`, `drain`, `stream`, `trace`, `dashboard` | handlers |
//!
//! The thread touches no core: handlers send commands ([`crate::control`]) and wait for replies. Nothing here runs
//! while nobody asks.
//!
//! # Adding a route
//!
//! 1. A handler in a module of this folder: `async fn bans(State(admin): State<Shared>) -> Answer<Bans>`. The answer
//!    derives `Serialize` and `JsonSchema`, an error is a [`Problem`], the caller is
//!    `Extension<Caller>`, and questions to cores go through [`Broker::ask`](broker::Broker::ask).
//! 2. `pub fn routes() -> Vec<Route>` in that module:
//!    `vec![get("/api/v1/bans", Role::Read, "All bans", bans).answers::<Bans>()]`.
//! 3. One line for the module in `PARTS` of `routes`.
//! 4. Roles, limits, Host and Origin, and audit follow from the table. `WRITE_OPENAPI=1 cargo test --lib openapi` writes
//!    the OpenAPI document.
//! 5. The tests in `tests/admin` try the route with every role, and hold its answer against the document.
//!
//! An answer without an end is a `Body::from_stream` with `answers_as`; the time limit of a request ends when its
//! answer begins.

pub mod auth;
pub mod bans;
mod bridges;
pub mod broker;
mod clients;
mod cluster;
pub mod collections;
mod compression;
mod configuration;
mod dashboard;
mod drain;
mod gate;
pub mod health;
mod log;
mod login;
pub mod metrics;
pub mod openapi;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "otlp_absent.rs"]
mod otlp;
pub mod problem;
mod questions;
pub mod routes;
mod server;
pub mod status;
mod stream;
pub mod tasks;
#[cfg(test)]
mod tests;
mod topics;
mod trace;
mod users;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use axum::Json;

use crate::transport::tls::TlsConfig;

pub use broker::Broker;
pub use problem::Problem;
pub use server::{Prepared, Running};

/// What handlers share.
pub struct Admin {
    /// The broker.
    pub broker: Broker,
    /// Who may use the interface.
    pub auth: auth::Auth,
    /// TLS of the interface itself.
    pub tls: Option<Arc<TlsConfig>>,
    /// Clients, users and networks that may not connect.
    pub bans: bans::Kept,
    /// Traces that run.
    pub traces: trace::Traces,
    /// What has been exported.
    pub exports: Exports,
}

/// Counters of the exporter of telemetry.
#[derive(Debug, Default)]
pub struct Exports {
    /// Requests with metrics that the collector has taken.
    pub metrics: AtomicU32,
    /// Sampled messages whose spans the collector has taken.
    pub spans: AtomicU32,
    /// Sampled messages whose spans the collector has not taken.
    pub spans_lost: AtomicU32,
    /// Requests that the collector has not taken.
    pub failed: AtomicU32,
}

/// The state of a handler: `State(admin): State<Shared>`.
pub type Shared = Arc<Admin>;

/// The answer of a handler.
pub type Answer<T> = Result<Json<T>, Problem>;
