//! The owners that look at what a core does: the log, traces and samples, webhooks, and questions of operators.

use shards::Hashing;

use crate::engine::client_log::ClientLog;
use crate::engine::config::Config;
use crate::engine::inspect::Questions;
use crate::engine::watch::Watch;
use crate::engine::webhooks::Webhooks;

/// The observers of a core. Each keeps its own state and bounds its own work.
pub(in crate::engine) struct Observers {
    /// Log lines about clients.
    pub log: ClientLog,
    /// Packets in the log, in traces of operators, and in sampled spans.
    pub watch: Watch,
    /// Events for webhooks.
    pub webhooks: Webhooks,
    /// Questions of operators.
    pub questions: Questions,
}

impl Observers {
    /// Observers of a core with this configuration.
    pub fn new(config: &Config, hashing: Hashing) -> Self {
        Self {
            log: ClientLog::new(hashing, config.logs_connections),
            watch: Watch::new(config.bounds_rates),
            webhooks: Webhooks::default(),
            questions: Questions::default(),
        }
    }
}
