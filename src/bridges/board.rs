//! What is known of one connection of a bridge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::orders::Orders;
use super::session;
use crate::base::part::Part;
use crate::config::bridge::Bridge;
use crate::control::bridge::{BridgeState, ConnectionStatus};
use crate::transport::bridge::Counters;

/// What is known of one connection. Its thread writes, others read.
#[derive(Debug)]
pub(super) struct Board {
    part: Option<Part>,
    session: Box<str>,
    /// Those of the bridge, counted by the cores of its connections.
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
    /// Of the connection with this table, which takes `part` of all topics.
    pub fn new(bridge: &Bridge, part: Option<Part>, counters: &Arc<Counters>) -> Self {
        Self {
            part,
            session: session(&bridge.name).into(),
            counters: Arc::clone(counters),
            standing: Mutex::new(Standing { since_s: seconds(), ..Standing::default() }),
            last_error: Mutex::default(),
            orders: Orders::default(),
        }
    }

    /// The part of all topics that the connection takes.
    pub fn part(&self) -> Option<Part> {
        self.part
    }

    /// Client Identifier of the session here.
    pub fn session(&self) -> &str {
        &self.session
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

    /// The last reason of a state, and when it was noted, in seconds since 1970.
    pub fn error(&self) -> Option<(String, u64)> {
        self.last_error().clone()
    }

    fn last_error(&self) -> MutexGuard<'_, Option<(String, u64)>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_error(&self, why: &str) {
        *self.last_error() = Some((why.to_owned(), seconds()));
    }

    /// All that is known.
    pub fn status(&self) -> ConnectionStatus {
        let Standing { state, server, session_present, why, since_s } = self.standing().clone();
        let (part, session) = (self.part, self.session.clone());
        ConnectionStatus { part, session, state, server, session_present, why, since_s }
    }
}

/// Seconds since 1970.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
