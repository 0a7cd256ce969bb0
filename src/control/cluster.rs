//! What is known of the cluster, for operators: who is a member, and what has crossed between nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use flume::{Receiver, Sender};

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number, 0 to 63.
    pub node: u8,
    /// Its name.
    pub name: String,
    /// Which of its starts this is.
    pub incarnation: u64,
    /// The address for clients; empty if none is configured.
    pub advertise: String,
    /// What it does: `joining`, `member` or `leaving`.
    pub state: &'static str,
    /// Whether it is this node.
    pub is_own: bool,
    /// Milliseconds since something of it came; none if nothing has, or it is this node.
    pub heard_ms: Option<u64>,
    /// Milliseconds since it renewed its lease, as far as this node saw.
    pub lease_ms: Option<u64>,
    /// How far its clock is ahead of this node's, in milliseconds; none if that is not known yet.
    pub clock_ahead_ms: Option<i64>,
    /// Its connections; none if it does not tell.
    pub clients: Option<u32>,
    /// Whether its program and this one can move sessions without a client between them.
    pub takes_sessions: bool,
}

/// The membership as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The name of the cluster.
    pub cluster: String,
    /// The engine server that this node uses, as `HOST:PORT`; none while there is no connection.
    pub server: Option<String>,
    /// Connections to engine servers so far, after the first.
    pub reconnects: u64,
    /// Whether the engine has had no quorum for ten seconds, as far as this node reaches it.
    pub is_isolated: bool,
    /// The revision of the list of members in the engine's bucket.
    pub revision: u64,
    /// Frames that were dropped because the connection was down or behind. Lanes send them again.
    pub frames_dropped: u64,
    /// The members, by number.
    pub members: Vec<MemberStatus>,
}

impl ClusterStatus {
    /// This node, while it is a member.
    pub fn own(&self) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.is_own)
    }

    /// Why load balancers should not send clients to this node; none if they should.
    pub fn unready(&self) -> Option<&'static str> {
        match self.own() {
            None => Some("this node is no member of the cluster"),
            Some(_) if self.is_isolated => Some("the engine of the cluster has no quorum"),
            Some(own) => match own.state {
                "member" => None,
                "joining" => Some("this node does not know yet what the others subscribe to"),
                _ => Some("this node is leaving the cluster"),
            },
        }
    }
}

/// What has crossed between this node and the others since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterTraffic {
    /// Application messages sent to other nodes, each once for each of them.
    pub sent: u64,
    /// Application messages received from other nodes.
    pub received: u64,
    /// Nodes that were left because what they said could not be understood.
    pub errors: u64,
    /// Topic Filters and shared subscriptions that this node has announced.
    pub filters: u64,
}

/// The replica of this node's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationStatus {
    /// The stream that has the log; empty before it is open.
    pub stream: String,
    /// What it does.
    pub state: ReplicationState,
    /// Pages that the stream has confirmed since the start, and their bytes.
    pub pages: u64,
    /// Bytes of these pages.
    pub bytes: u64,
    /// Pages sent and not confirmed.
    pub under_way: u64,
    /// Frames of the log that the stream does not have.
    pub lag_frames: u64,
    /// Bytes of their pages.
    pub lag_bytes: u64,
    /// Pages that were refused or not confirmed in time; they were sent again.
    pub failures: u64,
    /// Milliseconds in which the disk alone counted (`degrade = "disk"`).
    pub degraded_ms: u64,
}

/// What the replica of a log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicationState {
    /// It has what the log has, or follows it.
    #[default]
    Following,
    /// It has confirmed nothing for ten seconds: acknowledgements wait.
    Stalled,
    /// It has confirmed nothing for a while, and the disk alone counts.
    Degraded,
    /// It is sealed, or another process writes it: the broker ends.
    Ended,
}

impl ReplicationState {
    /// The name in answers to operators.
    pub fn name(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Stalled => "stalled",
            Self::Degraded => "degraded",
            Self::Ended => "ended",
        }
    }
}

/// The latest of all, written by the threads of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterBoard(Arc<Latest>);

#[derive(Debug, Default)]
struct Latest {
    status: ArcSwap<ClusterStatus>,
    traffic: ArcSwap<ClusterTraffic>,
    is_emptied: AtomicBool,
    /// None with one replica.
    replication: ArcSwapOption<ReplicationStatus>,
    forgotten: Mutex<Option<Forget>>,
}

/// A node that is gone for good, by name, and the way back for what came of it.
type Forget = (String, Sender<Result<(), String>>);

impl ClusterBoard {
    /// The membership.
    pub fn status(&self) -> Arc<ClusterStatus> {
        self.0.status.load_full()
    }

    /// What has crossed.
    pub fn traffic(&self) -> ClusterTraffic {
        **self.0.traffic.load()
    }

    /// Asks for a node that is gone for good to be forgotten; the answer follows. None while another one is.
    pub fn forget(&self, name: String) -> Option<Receiver<Result<(), String>>> {
        let (reply, answer) = flume::bounded(1);
        let mut forgotten = self.forgotten();
        // A request whose answer nobody waits for gives way.
        if forgotten.as_ref().is_some_and(|(_, reply)| !reply.is_disconnected()) {
            return None;
        }
        *forgotten = Some((name, reply));
        Some(answer)
    }

    /// The node that is to be forgotten.
    pub fn take_forgotten(&self) -> Option<Forget> {
        self.forgotten().take()
    }

    fn forgotten(&self) -> MutexGuard<'_, Option<Forget>> {
        // No code that can panic runs with the lock held.
        self.0.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node is emptied, and tells the others that it leaves.
    pub fn is_emptied(&self) -> bool {
        self.0.is_emptied.load(Ordering::Relaxed)
    }

    /// This node is emptied from now on, or is not any more.
    pub fn set_emptied(&self, is_emptied: bool) {
        self.0.is_emptied.store(is_emptied, Ordering::Relaxed);
    }

    /// The replica of this node's log; none if the log is on this node's disk alone.
    pub fn replication(&self) -> Option<Arc<ReplicationStatus>> {
        self.0.replication.load_full()
    }

    /// Why load balancers should not send clients to this node; none if they should.
    pub fn unready(&self) -> Option<&'static str> {
        let state = self.replication().map(|of| of.state);
        let of_replica = match state {
            Some(ReplicationState::Stalled) => {
                Some("the replicated stream of this node's log confirms nothing")
            }
            Some(ReplicationState::Ended) => {
                Some("other nodes have taken over the sessions of this node")
            }
            Some(ReplicationState::Following | ReplicationState::Degraded) | None => None,
        };
        self.status().unready().or(of_replica)
    }

    /// The replica has made progress, or some time has passed.
    pub fn set_replication(&self, replication: ReplicationStatus) {
        self.0.replication.store(Some(Arc::new(replication)));
    }

    /// The membership has changed, or some time has passed.
    pub fn set_status(&self, status: ClusterStatus) {
        self.0.status.store(Arc::new(status));
    }

    /// Something has crossed.
    pub fn set_traffic(&self, traffic: ClusterTraffic) {
        if self.traffic() != traffic {
            self.0.traffic.store(Arc::new(traffic));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: &'static str) -> MemberStatus {
        MemberStatus {
            node: 0,
            name: "a".to_owned(),
            incarnation: 1,
            advertise: String::new(),
            state,
            is_own: true,
            heard_ms: None,
            lease_ms: None,
            clock_ahead_ms: None,
            clients: Some(1),
            takes_sessions: true,
        }
    }

    #[test]
    fn a_node_is_ready_once_it_knows_what_the_others_subscribe_to_and_while_the_engine_decides() {
        let mut status = ClusterStatus::default();
        assert!(status.unready().is_some_and(|why| why.contains("no member")));
        status.members.push(member("joining"));
        assert!(status.unready().is_some_and(|why| why.contains("subscribe")));
        status.members[0] = member("member");
        assert_eq!(status.unready(), None);
        status.is_isolated = true;
        assert!(status.unready().is_some_and(|why| why.contains("quorum")));
        (status.is_isolated, status.members[0]) = (false, member("leaving"));
        assert!(status.unready().is_some_and(|why| why.contains("leaving")));
    }

    #[test]
    fn a_node_whose_log_is_not_replicated_is_not_ready_unless_its_disk_alone_counts() {
        let board = ClusterBoard::default();
        let members = vec![member("member")];
        board.set_status(ClusterStatus { members, ..ClusterStatus::default() });
        for (state, is_ready) in [
            (ReplicationState::Following, true),
            (ReplicationState::Stalled, false),
            (ReplicationState::Degraded, true),
            (ReplicationState::Ended, false),
        ] {
            board.set_replication(ReplicationStatus { state, ..ReplicationStatus::default() });
            assert_eq!(board.unready().is_none(), is_ready, "{}", state.name());
        }
    }
}
