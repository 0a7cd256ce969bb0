//! What the admin interface knows of the broker, and questions to its cores.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::access::Gate;
use crate::admin::collections::Collections;
use crate::bridges::Bridges;
use crate::config::{ExecutorKind, Settings};
use crate::control::cluster::ClusterBoard;
use crate::control::drain::Drainer;
use crate::control::listener::ListenerTable;
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::control::{Command, Cores, Reply};
use crate::stats::{self, SharedStatistics, Snapshot};
use crate::webhooks::Webhooks;

/// How long a core may take to answer a question.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The same while the broker stops, when cores only flush.
const PATIENCE_AT_STOP: Duration = Duration::from_millis(200);

/// What the server hands over.
pub struct Parts {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The executor of the cores.
    pub executor: ExecutorKind,
    /// The addresses that clients connect to.
    pub listeners: ListenerTable,
    /// Limit of concurrent connections of clients.
    pub connections_max: u32,
    /// Limit of the memory that messages, queues and outboxes take.
    pub memory_bytes_max: u64,
    /// The folder of the store; none when nothing is stored.
    pub folder: Option<PathBuf>,
    /// What the cores record and count.
    pub statistics: SharedStatistics,
    /// The cores.
    pub cores: Cores,
    /// The request to stop.
    pub stop: Stop,
    /// What is reloaded on request.
    pub reload: Reload,
    /// Authentication and authorization.
    pub access: Arc<Gate>,
    /// Webhooks.
    pub webhooks: Webhooks,
    /// Bridges to other brokers.
    pub bridges: Bridges,
    /// Sends clients to other nodes.
    pub drain: Drainer,
    /// The cluster; none if the broker is no node of one.
    pub cluster: Option<ClusterBoard>,
}

/// The broker that the admin interface belongs to.
pub struct Broker {
    parts: Parts,
    started: (Instant, SystemTime),
    collections: Collections,
}

impl std::ops::Deref for Broker {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Broker {
    pub(super) fn new(parts: Parts) -> Self {
        let started = (Instant::now(), SystemTime::now());
        let collections = Collections::new(parts.statistics.clone());
        Self { parts, started, collections }
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.0.elapsed()
    }

    /// Time of the start.
    pub fn started(&self) -> SystemTime {
        self.started.1
    }

    /// By TLS listener, when the first of its certificates expires, in seconds since 1970.
    pub fn certificates_expire_s(&self) -> Vec<(String, i64)> {
        let listeners = self.listeners.now();
        let expire = listeners.iter().filter(|listener| listener.is_open).filter_map(|listener| {
            let tls_config = listener.policy.tls_config()?;
            Some((listener.bind.to_string(), tls_config.certificates_expire_s()?))
        });
        expire.collect()
    }

    /// Whether the broker stops.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    fn patience(&self) -> Duration {
        if self.is_stopping() { PATIENCE_AT_STOP } else { PATIENCE }
    }

    /// Sends a command to every core, and waits for the answers: none for a core that has not answered in time, has
    /// too many commands waiting, or has stopped.
    pub async fn ask<T: 'static>(&self, command: impl Fn(Reply<T>) -> Command) -> Vec<Option<T>> {
        let patience = tokio::time::sleep(self.patience());
        let answers = self.cores.ask_all(command).gather(self.cores.count(), patience).await;
        answers.into_iter().map(|answer| answer?.ok()).collect()
    }

    /// What all cores have counted, taken now. Requests at the same time share one question.
    pub async fn pulse(&self) -> Arc<Snapshot> {
        self.collections.snapshot(self.patience()).await
    }

    /// The same for those who ask once a second: a core that hangs delays them less.
    pub async fn sample(&self) -> Arc<Snapshot> {
        self.collections.snapshot(self.patience().min(stats::PATIENCE)).await
    }
}
