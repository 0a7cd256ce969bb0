//! Identifiers of cores, connections and publishers.

use std::net::SocketAddr;

use shards::SubscriberId;

/// Number of a core: one thread with its connections and sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// Handle of a Network Connection, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Dense index, reused after the connection has ended.
    pub slot: u32,
    /// Distinguishes successive connections in the same slot.
    pub generation: u32,
}

/// The publisher of a message: a connection on some core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publisher {
    /// The core of the connection.
    pub core: CoreId,
    /// The connection on that core.
    pub connection: ConnectionId,
}

/// The origin of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Remote address, if the transport has one.
    pub address: Option<SocketAddr>,
    /// Number of the listener that accepted the connection.
    pub listener: u16,
}

/// Identifies the connection to the access control.
pub fn exchange(id: ConnectionId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.slot)
}

/// Handle of a session on its core. The slot is not reused while the subscription index still
/// refers to it; anything that lives longer uses a [`SessionRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u32);

impl SessionId {
    /// The session in a slot of the table.
    #[inline]
    pub fn new(place: usize) -> Self {
        Self(place as u32)
    }

    /// The slot in the table.
    #[inline]
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// The [`SubscriberId`] of the session, which is its slot number.
impl From<SubscriberId> for SessionId {
    #[inline]
    fn from(SubscriberId(place): SubscriberId) -> Self {
        Self(place)
    }
}

impl From<SessionId> for SubscriberId {
    #[inline]
    fn from(SessionId(place): SessionId) -> Self {
        Self(place)
    }
}

/// Handle of a session that may have ended in the meantime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// The slot of the session.
    pub session: SessionId,
    /// Distinguishes successive sessions in the same slot.
    pub generation: u32,
}
