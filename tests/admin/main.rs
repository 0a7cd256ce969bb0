//! The admin interface as its users see it: over Unix sockets and TCP, on every executor.
#![cfg(unix)]

mod access;
mod clients;
mod ctl;
#[path = "../support/folder.rs"]
mod folder;
mod life;
mod limits;
mod listeners;
mod log;
mod metrics;
mod mqtt;
#[cfg(feature = "otlp")]
mod otlp;
#[path = "../support/packets.rs"]
mod packets;
mod reload;
#[cfg(feature = "webhooks")]
#[path = "../support/http.rs"]
mod request;
mod routes;
mod schema;
mod support;
mod tls;
mod trace;
#[path = "../support/uninterrupted.rs"]
mod uninterrupted;
mod users;
#[cfg(feature = "webhooks")]
mod webhooks;
