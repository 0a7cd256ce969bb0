//! The summary that an operator asks for by a signal: a line of the log.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::stats::SharedStatistics;

/// How long the cores have time to reply.
const PATIENCE: Duration = Duration::from_secs(2);

/// Logs a summary of a broker; clones are of the same broker.
#[derive(Clone, Debug, Default)]
pub struct Summary(Arc<OnceLock<SharedStatistics>>);

impl Summary {
    /// The cores run from now on.
    pub(super) fn begin(&self, statistics: Option<&SharedStatistics>) {
        if let Some(statistics) = statistics {
            // A broker starts its cores once.
            let _ = self.0.set(statistics.clone());
        }
    }

    /// Logs the numbers of clients, subscriptions and retained messages, if there are readers of statistics.
    pub fn log(&self) {
        let Some(statistics) = self.0.get() else {
            tracing::info!("no summary: it needs the admin interface or statistics");
            return;
        };
        let snapshot = statistics.snapshot(PATIENCE);
        let retained = snapshot.cores.iter().flatten().map(|of| of.retained_messages).max();
        tracing::info!(
            clients_connected = snapshot.all.clients_connected,
            clients_disconnected = snapshot.all.clients_disconnected,
            subscriptions = snapshot.all.subscriptions,
            subscriptions_wildcard = snapshot.all.subscriptions_wildcard,
            subscriptions_shared = snapshot.all.subscriptions_shared,
            retained_messages = retained.unwrap_or_default(),
            "summary"
        );
    }
}
