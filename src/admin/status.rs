//! The broker as a whole: status, cores, listeners, store.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::routes::{Route, get};
use crate::admin::{Answer, Shared};
use crate::base::metrics::Metrics;
use crate::config::{Role, Sync};

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/status", Role::Read, "The broker at a glance", status)
            .answers::<Status>()
            .while_stopping(),
        get("/api/v1/cores", Role::Read, "Each core", cores).answers::<CoreList>(),
        get("/api/v1/listeners", Role::Read, "Addresses that clients connect to", listeners)
            .answers::<ListenerList>(),
        get("/api/v1/store", Role::Read, "The store on disk", store).answers::<Store>(),
    ]
}

/// The broker at a glance.
#[derive(Debug, Serialize, JsonSchema)]
struct Status {
    /// Version of the broker.
    version: &'static str,
    /// Time of the start, in seconds since 1970.
    started_s: u64,
    /// Seconds since the start.
    uptime_s: u64,
    /// Whether the broker stops.
    stopping: bool,
    /// Executor of the cores.
    executor: &'static str,
    /// Number of cores.
    cores: usize,
    /// Cores that have not answered in time; their numbers are missing below.
    cores_missing: Vec<usize>,
    /// Open connections.
    connections: u64,
    /// Limit of open connections.
    connections_max: u32,
    /// Connected clients.
    clients_connected: u64,
    /// Sessions without a connection.
    clients_disconnected: u64,
    /// Subscriptions.
    subscriptions: u64,
    /// Retained messages.
    retained_messages: u64,
    /// Messages in the queues of sessions.
    messages_queued: u64,
    /// Messages dropped since the start.
    messages_dropped: u64,
    /// PUBLISH packets received since the start.
    publishes_received: u64,
    /// PUBLISH packets sent since the start.
    publishes_sent: u64,
    /// Bytes held by messages, queues and outboxes.
    memory_bytes: u64,
    /// Limit of these bytes.
    memory_bytes_max: u64,
}

async fn status(State(admin): State<Shared>) -> Answer<Status> {
    let broker = &admin.broker;
    let pulse = broker.pulse().await;
    let sum = &pulse.all;
    let started = broker.started().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        started_s: started.as_secs(),
        uptime_s: broker.uptime().as_secs(),
        stopping: broker.is_stopping(),
        executor: broker.executor.name(),
        cores: broker.cores.count(),
        cores_missing: pulse.missing(),
        connections: sum.connections_open,
        connections_max: broker.connections_max,
        clients_connected: sum.clients_connected,
        clients_disconnected: sum.clients_disconnected,
        subscriptions: sum.subscriptions,
        retained_messages: sum.retained_messages,
        messages_queued: sum.messages_queued,
        messages_dropped: sum.drops.total(),
        publishes_received: sum.publishes_received,
        publishes_sent: sum.publishes_sent,
        memory_bytes: sum.memory_bytes,
        memory_bytes_max: broker.memory_bytes_max,
    }))
}

/// All cores.
#[derive(Debug, Serialize, JsonSchema)]
struct CoreList {
    /// The cores, in the order of their numbers.
    cores: Vec<Core>,
}

/// One core.
#[derive(Debug, Serialize, JsonSchema)]
struct Core {
    /// Number of the core.
    core: usize,
    /// Whether the core has answered in time; if not, its numbers are zero.
    responsive: bool,
    /// Open connections.
    connections: u64,
    /// Connected clients.
    clients_connected: u64,
    /// PUBLISH packets received since the start.
    publishes_received: u64,
    /// PUBLISH packets sent since the start.
    publishes_sent: u64,
    /// Bytes held by messages, queues and outboxes.
    memory_bytes: u64,
    /// Turns of the event loop since the start.
    turns: u64,
    /// Steps of work since the start.
    work_steps: u64,
    /// Steps of the turn with the most work.
    work_steps_turn_max: u64,
}

async fn cores(State(admin): State<Shared>) -> Answer<CoreList> {
    let pulse = admin.broker.pulse().await;
    let none = Metrics::default();
    let core = |(core, counters): (usize, &Option<Metrics>)| {
        let of = counters.as_ref().unwrap_or(&none);
        Core {
            core,
            responsive: counters.is_some(),
            connections: of.connections_open,
            clients_connected: of.clients_connected,
            publishes_received: of.publishes_received,
            publishes_sent: of.publishes_sent,
            memory_bytes: of.memory_bytes,
            turns: of.turns,
            work_steps: of.work_steps,
            work_steps_turn_max: of.work_steps_turn_max,
        }
    };
    Ok(Json(CoreList { cores: pulse.cores.iter().enumerate().map(core).collect() }))
}

/// All addresses that clients connect to.
#[derive(Debug, Serialize, JsonSchema)]
struct ListenerList {
    /// The listeners, in the order of their numbers.
    listeners: Vec<Listener>,
}

/// One address that clients connect to.
#[derive(Debug, Serialize, JsonSchema)]
struct Listener {
    /// Number of the listener.
    listener: usize,
    /// Address or path, with the port that the system chose.
    address: String,
    /// Transport: tcp, tls, ws, wss or unix.
    transport: &'static str,
    /// Whether connections are accepted. A listener that a reload has removed is shown while it has connections.
    open: bool,
    /// Current connections.
    connections: u32,
}

async fn listeners(State(admin): State<Shared>) -> Answer<ListenerList> {
    let listeners = admin.broker.listeners.now();
    let listeners = listeners.iter().map(|of| Listener {
        listener: of.number.into(),
        address: of.bind.to_string(),
        transport: of.transport.name(),
        open: of.is_open,
        connections: of.policy.connections(),
    });
    let listeners = listeners.filter(|of| of.open || of.connections > 0).collect();
    Ok(Json(ListenerList { listeners }))
}

/// The store on disk.
#[derive(Debug, Serialize, JsonSchema)]
struct Store {
    /// The folder; null when nothing is stored.
    folder: Option<String>,
    /// When data is synchronised with the disk: always, interval or none.
    sync: &'static str,
    /// Bytes of the store.
    bytes: u64,
    /// Limit of these bytes; 0: the size of the disk.
    bytes_max: u64,
    /// Synchronisations since the start.
    syncs: u64,
    /// Whether the store cannot write, so that acknowledgements wait.
    failing: bool,
    /// Whether the store is full, so that publishers wait.
    full: bool,
}

async fn store(State(admin): State<Shared>) -> Answer<Store> {
    let (broker, pulse) = (&admin.broker, admin.broker.pulse().await);
    let sum = &pulse.all;
    let settings = &broker.settings.storage;
    Ok(Json(Store {
        folder: broker.folder.as_ref().map(|folder| folder.display().to_string()),
        sync: match settings.sync {
            Sync::Always => "always",
            Sync::Interval => "interval",
            Sync::None => "none",
        },
        bytes: sum.store_bytes,
        bytes_max: settings.bytes_max,
        syncs: sum.store_syncs,
        failing: sum.store_failing > 0,
        full: sum.store_full > 0,
    }))
}
