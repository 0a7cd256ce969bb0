//! What `broker cluster status` shows of this node's view of the cluster.

use std::sync::Arc;

use super::view::{Incarnation, MemberState, NodeNumber};

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub node: NodeNumber,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: String,
    /// The address for clients; empty if none is configured.
    pub advertise: String,
    /// What it does.
    pub state: MemberState,
    /// Whether it is this node.
    pub is_own: bool,
    /// Milliseconds since a frame of its lanes came; none if none has come.
    pub heard_ms: Option<u64>,
    /// Milliseconds since it renewed its lease, as far as this node saw.
    pub lease_ms: Option<u64>,
    /// How far its clock is ahead of this node's, in milliseconds; none if not known yet.
    pub clock_ahead_ms: Option<i64>,
}

/// The cluster as this node sees it.
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
    /// Whether this node is a member, and which.
    pub own: Option<(NodeNumber, Incarnation)>,
    /// The revision of the view in the bucket.
    pub revision: u64,
    /// Frames that were dropped because the connection was down or behind. Lanes send them again.
    pub frames_dropped: u64,
    /// The members.
    pub members: Vec<MemberStatus>,
}

/// The last [`ClusterStatus`], for other threads.
pub type SharedStatus = Arc<arc_swap::ArcSwap<ClusterStatus>>;
