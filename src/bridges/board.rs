//! What is known of a bridge: shown by the admin interface, and published below `$SYS`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::orders::Orders;
use crate::base::atomic::AtomicU64;
use crate::config::bridge::Bridge;
use crate::control::bridge::{BridgeState, BridgeStatus};
use crate::transport::bridge::{Counters, Refusal};

/// How the topics of the states begin.
const TOPICS: &str = "$SYS/broker/bridges/";

/// What is known of one bridge. Its thread writes, others read.
#[derive(Debug)]
pub(super) struct Board {
    name: String,
    servers: Mutex<Vec<String>>,
    /// Counted by the core of the bridge.
    pub counters: Arc<Counters>,
    standing: Mutex<Standing>,
    /// The last reason of a state, and when it was noted, in seconds since 1970.
    last_error: Mutex<Option<(String, u64)>>,
    /// Commands of operators, and changes by reloads.
    pub orders: Orders,
}

/// The state of a bridge.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub state: BridgeState,
    /// The server that it is connected to.
    pub server: Option<String>,
    /// Whether that server had kept a session.
    pub session_present: Option<bool>,
    /// Why it is not connected, or what is wrong although it is.
    pub why: Option<String>,
    /// When it began, in seconds since 1970; the board knows.
    pub since_s: u64,
}

impl Board {
    pub fn new(bridge: &Bridge) -> Self {
        Self {
            name: bridge.name.clone(),
            servers: Mutex::new(names_of(bridge)),
            counters: Arc::default(),
            standing: Mutex::new(Standing { since_s: seconds(), ..Standing::default() }),
            last_error: Mutex::default(),
            orders: Orders::default(),
        }
    }

    /// The name of the bridge.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configured servers are others from now on.
    pub fn set_servers(&self, bridge: &Bridge) {
        *self.servers() = names_of(bridge);
    }

    fn servers(&self) -> MutexGuard<'_, Vec<String>> {
        // As for the state.
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // No code that can panic runs with the lock held.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a state. Its beginning stays if only the reason changes.
    pub fn set(&self, standing: Standing) {
        let mut now = self.standing();
        let since_s = if now.state == standing.state { now.since_s } else { seconds() };
        if let Some(why) = &standing.why {
            self.note_error(why);
        }
        *now = Standing { since_s, ..standing };
    }

    /// Notes what is wrong although the bridge is connected; none if nothing is any more.
    pub fn degrade(&self, why: Option<String>) {
        let mut standing = self.standing();
        if standing.state.is_connected() {
            let state = if why.is_some() { BridgeState::Degraded } else { BridgeState::Up };
            if state != standing.state {
                (standing.state, standing.since_s) = (state, seconds());
            }
            if let Some(why) = &why {
                self.note_error(why);
            }
            standing.why = why;
        }
    }

    /// Whether the far broker has accepted the connection.
    pub fn is_connected(&self) -> bool {
        self.standing().server.is_some()
    }

    fn last_error(&self) -> MutexGuard<'_, Option<(String, u64)>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_error(&self, why: &str) {
        *self.last_error() = Some((why.to_owned(), seconds()));
    }

    /// The topic of the state.
    pub fn topic(&self) -> String {
        format!("{TOPICS}{}/state", self.name)
    }

    /// The topic of the state, and its payload as JSON.
    pub fn publication(&self) -> (String, String) {
        let Standing { state, server, session_present, why, since_s } = self.standing().clone();
        let payload = serde_json::json!({
            "state": state.name(),
            "since": since_s,
            "server": server,
            "session_present": session_present,
            "why": why,
        });
        (self.topic(), payload.to_string())
    }

    /// All that is known.
    pub fn status(&self) -> BridgeStatus {
        let Standing { state, server, session_present, why, since_s } = self.standing().clone();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let refused = |by: Refusal| of(&counters.refused[by as usize]);
        BridgeStatus {
            name: self.name.clone(),
            servers: self.servers().clone(),
            state,
            server,
            session_present,
            why,
            last_error: self.last_error().clone(),
            since_s,
            sent: of(&counters.sent),
            received: of(&counters.received),
            unmapped: of(&counters.unmapped),
            too_large: of(&counters.too_large),
            refused: Refusal::ALL.into_iter().filter(|of| of.drops()).map(refused).sum(),
            refused_by_reason: Refusal::ALL.map(|of| (of.name(), refused(of))).to_vec(),
            loops: of(&counters.loops),
            by_operator: of(&counters.by_operator),
            connects: of(&counters.connects),
            sessions_lost: of(&counters.sessions_lost),
        }
    }
}

fn names_of(bridge: &Bridge) -> Vec<String> {
    bridge.servers.iter().map(ToString::to_string).collect()
}

/// Seconds since 1970.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
