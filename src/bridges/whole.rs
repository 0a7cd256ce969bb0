//! What is known of a bridge with all its connections: shown by the admin interface, and published below `$SYS`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::board::Board;
use crate::base::atomic::AtomicU64;
use crate::config::bridge::Bridge;
use crate::control::bridge::{BridgeState, BridgeStatus, ConnectionStatus};
use crate::transport::bridge::{Counters, Refusal};

/// How the topics of the states begin.
const TOPICS: &str = "$SYS/broker/bridges/";

/// A bridge with its connections.
#[derive(Debug)]
pub(super) struct Whole {
    name: String,
    servers: Mutex<Vec<String>>,
    /// Of all connections.
    pub counters: Arc<Counters>,
    /// Those that are ending are among them until they have ended.
    boards: Mutex<Vec<Arc<Board>>>,
}

impl Whole {
    /// A bridge without connections.
    pub fn new(bridge: &Bridge) -> Self {
        Self {
            name: bridge.name.clone(),
            servers: Mutex::new(names_of(bridge)),
            counters: Arc::default(),
            boards: Mutex::default(),
        }
    }

    /// The configured servers are others from now on.
    pub fn set_servers(&self, bridge: &Bridge) {
        *self.servers() = names_of(bridge);
    }

    fn servers(&self) -> MutexGuard<'_, Vec<String>> {
        // No code that can panic runs with the lock held.
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Arc<Board>>> {
        // As for the servers.
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bridge has one more connection.
    pub fn add(&self, board: &Arc<Board>) {
        self.locked().push(Arc::clone(board));
    }

    /// A connection has ended for good.
    pub fn remove(&self, board: &Arc<Board>) {
        self.locked().retain(|of| !Arc::ptr_eq(of, board));
    }

    /// The connections.
    pub fn boards(&self) -> Vec<Arc<Board>> {
        self.locked().clone()
    }

    /// Publishes the state, on its topic with its payload as JSON: the last one that is published is that of the last
    /// change, whichever connection has changed. Of a bridge that has no connections any more, the topic has no state.
    pub fn publish(&self, publish: impl FnOnce(String, String)) {
        let boards = self.locked();
        let topic = format!("{TOPICS}{}/state", self.name);
        if boards.is_empty() {
            return publish(topic, String::new());
        }
        let summary = Summary::of(boards.iter().map(|board| board.status()).collect());
        publish(topic, summary.payload());
    }

    /// All that is known.
    pub fn status(&self) -> BridgeStatus {
        let boards = self.boards();
        let summary = Summary::of(boards.iter().map(|board| board.status()).collect());
        let errors = boards.iter().filter_map(|board| board.error());
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let refused = |by: Refusal| of(&counters.refused[by as usize]);
        BridgeStatus {
            name: self.name.clone(),
            servers: self.servers().clone(),
            state: summary.state,
            server: summary.server,
            session_present: summary.session_present,
            why: summary.why,
            last_error: errors.max_by_key(|(_, at)| *at),
            since_s: summary.since_s,
            connections: summary.connections,
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
            round_trip_us: Some(of(&counters.round_trip_us)).filter(|&us| us > 0),
        }
    }
}

/// The connections of a bridge taken together.
#[derive(Debug, Default)]
struct Summary {
    state: BridgeState,
    server: Option<String>,
    session_present: Option<bool>,
    why: Option<String>,
    since_s: u64,
    connections: Vec<ConnectionStatus>,
}

impl Summary {
    /// A bridge is up if all of its connections are, apart from those for which no messages wait; degraded if some are;
    /// otherwise its state is that of the connection that is in the worst one.
    fn of(connections: Vec<ConnectionStatus>) -> Self {
        let connected = || connections.iter().filter(|of| of.state.is_connected());
        let worst = connections
            .iter()
            .max_by_key(|of| rank(of.state))
            .map_or(BridgeState::Starting, |of| of.state);
        let state = match worst {
            BridgeState::Idle if connected().next().is_some() => BridgeState::Up,
            worst if worst.is_connected() || connected().next().is_none() => worst,
            _ => BridgeState::Degraded,
        };
        let wrong = connections.iter().filter_map(|of| {
            let why = of.why.as_deref();
            let why = why.or_else(|| (!of.state.is_connected()).then(|| of.state.name()));
            match (of.part, why) {
                (Some(part), Some(why)) if of.why.is_some() || state == BridgeState::Degraded => {
                    Some(format!("connection {}: {why}", part.text()))
                }
                _ => of.why.clone(),
            }
        });
        let wrong: Vec<String> = wrong.collect();
        Self {
            state,
            server: connected().find_map(|of| of.server.clone()),
            session_present: connected()
                .filter_map(|of| of.session_present)
                .reduce(|one, other| one && other),
            why: (!wrong.is_empty()).then(|| wrong.join("; ")),
            since_s: connections.iter().map(|of| of.since_s).max().unwrap_or_default(),
            connections,
        }
    }

    fn payload(&self) -> String {
        let mut payload = serde_json::json!({
            "state": self.state.name(),
            "since": self.since_s,
            "server": self.server,
            "session_present": self.session_present,
            "why": self.why,
        });
        if self.connections.iter().any(|of| of.part.is_some()) {
            let connected = self.connections.iter().filter(|of| of.state.is_connected()).count();
            payload["connections"] = self.connections.len().into();
            payload["connected"] = connected.into();
        }
        payload.to_string()
    }
}

/// How much a state of a connection is worth knowing.
fn rank(state: BridgeState) -> u8 {
    match state {
        BridgeState::Up => 0,
        BridgeState::Idle => 1,
        BridgeState::Degraded => 2,
        BridgeState::Stopped => 3,
        BridgeState::Starting => 4,
        BridgeState::Down => 5,
        BridgeState::Tls => 6,
        BridgeState::Refused => 7,
        BridgeState::Conflict => 8,
    }
}

fn names_of(bridge: &Bridge) -> Vec<String> {
    bridge.servers.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::part::Part;

    fn summary(states: &[BridgeState]) -> Summary {
        let of = states.len() as u16;
        let connections = states.iter().zip(0..).map(|(&state, number)| ConnectionStatus {
            part: Part::new(number, of),
            state,
            server: state.is_connected().then(|| "mqtt://h".to_owned()),
            session_present: state.is_connected().then_some(number == 0),
            why: (state == BridgeState::Down).then(|| "no route".to_owned()),
            ..ConnectionStatus::default()
        });
        Summary::of(connections.collect())
    }

    #[test]
    fn a_bridge_is_up_if_all_connections_are_and_degraded_if_some_are() {
        use BridgeState::{Conflict, Degraded, Down, Idle, Refused, Starting, Stopped, Up};
        for (states, expected) in [
            (&[Up][..], Up),
            (&[Down], Down),
            (&[Up, Up], Up),
            (&[Up, Idle], Up),
            (&[Up, Degraded], Degraded),
            (&[Up, Down], Degraded),
            (&[Up, Starting], Degraded),
            (&[Up, Stopped], Degraded),
            (&[Down, Conflict], Conflict),
            (&[Down, Refused], Refused),
            (&[Idle, Idle], Idle),
            (&[Idle, Down], Down),
            (&[Stopped, Stopped], Stopped),
            (&[], Starting),
        ] {
            assert_eq!(summary(states).state, expected, "{states:?}");
        }
    }

    #[test]
    fn what_is_wrong_names_the_connection_and_the_payload_counts_them() {
        let of =
            summary(&[BridgeState::Up, BridgeState::Down, BridgeState::Up, BridgeState::Starting]);
        assert_eq!(of.why.as_deref(), Some("connection 1/4: no route; connection 3/4: starting"));
        assert_eq!((of.session_present, of.server.as_deref()), (Some(false), Some("mqtt://h")));
        let payload: serde_json::Value = serde_json::from_str(&of.payload()).expect("JSON");
        assert_eq!((&payload["connections"], &payload["connected"]), (&4.into(), &2.into()));
        let one = summary(&[BridgeState::Down]);
        assert_eq!(one.why.as_deref(), Some("no route"));
        assert!(!one.payload().contains("connections"), "{}", one.payload());
    }
}
