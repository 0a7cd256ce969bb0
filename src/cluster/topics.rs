//! What is published of the cluster below `$SYS/broker/cluster/`: the state when it changes, and counters at intervals.

use std::time::Duration;

use crate::base::clock::{Deadline, Now};
use crate::control::cluster::{ClusterBoard, ClusterTraffic};

/// How the topics begin.
const TOPICS: &str = "$SYS/broker/cluster/";

/// What has been published.
#[derive(Debug)]
pub struct Topics {
    state: String,
    traffic: Option<ClusterTraffic>,
    /// When counters are published again.
    next: Deadline,
    interval: Duration,
}

impl Topics {
    /// Counters are published at this interval; zero for never.
    pub fn new(interval: Duration) -> Self {
        Self { state: String::new(), traffic: None, next: Now(0).after(Duration::ZERO), interval }
    }

    /// Calls `publish` with the topic and the payload of each retained message that is due.
    pub fn publish(
        &mut self,
        now: Now,
        board: &ClusterBoard,
        mut publish: impl FnMut(String, String),
    ) {
        let (state, traffic) = (payload(board), board.traffic());
        if state != self.state {
            publish(format!("{TOPICS}state"), state.clone());
            self.state = state;
        }
        if self.interval.is_zero() || !self.next.is_due(now) {
            return;
        }
        self.next = now.after(self.interval);
        if self.traffic.replace(traffic) != Some(traffic) {
            let ClusterTraffic { sent, received, errors, filters } = traffic;
            let counters = [
                ("messages/sent", sent),
                ("messages/received", received),
                ("errors", errors),
                ("filters", filters),
            ];
            for (name, count) in counters {
                publish(format!("{TOPICS}{name}"), count.to_string());
            }
        }
    }
}

/// The state as JSON, without what changes by itself.
fn payload(board: &ClusterBoard) -> String {
    let status = board.status();
    let members: Vec<_> = status
        .members
        .iter()
        .map(|of| serde_json::json!({ "node": of.node, "name": of.name, "state": of.state }))
        .collect();
    let why = board.unready();
    let state = serde_json::json!({
        "cluster": status.cluster,
        "node": status.own().map(|own| own.node),
        "ready": why.is_none(),
        "why": why,
        "server": status.server,
        "log": board.replication().map(|of| of.state.name()),
        "members": members,
    });
    state.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::cluster::ClusterStatus;

    #[test]
    fn the_state_is_published_when_it_changes_and_counters_at_intervals_if_they_have_changed() {
        let mut topics = Topics::new(Duration::from_secs(10));
        let mut status = ClusterStatus { cluster: "lab".to_owned(), ..ClusterStatus::default() };
        let mut at = |second: u64, status: &ClusterStatus, sent| {
            let (mut published, board) = (Vec::new(), ClusterBoard::default());
            board.set_status(status.clone());
            board.set_traffic(ClusterTraffic { sent, ..Default::default() });
            topics.publish(Now(second * 1_000_000), &board, |topic, payload| {
                published.push((topic, payload));
            });
            published
        };
        let first = at(1, &status, 5);
        assert_eq!(first.len(), 5);
        assert!(first[0].0 == "$SYS/broker/cluster/state" && first[0].1.contains("\"lab\""));
        assert!(first.contains(&("$SYS/broker/cluster/messages/sent".to_owned(), "5".to_owned())));
        assert_eq!(at(2, &status, 6), []);
        status.server = Some("a:4222".to_owned());
        assert_eq!(at(3, &status, 6).len(), 1);
        assert_eq!(at(11, &status, 6).len(), 4);
        assert_eq!(at(21, &status, 6), []);
    }

    #[test]
    fn without_an_interval_only_the_state_is_published() {
        let mut topics = Topics::new(Duration::ZERO);
        let mut count = 0;
        topics.publish(Now(1), &ClusterBoard::default(), |_, _| count += 1);
        assert_eq!(count, 1);
    }
}
