//! What cores, connections and publishers are called by.

use std::net::SocketAddr;

use shards::SubscriberId;

/// Number of a core: one thread with its connections and sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// Handle of a Network Connection, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Dense index, used again after the connection is gone.
    pub slot: u32,
    /// Tells the users of one slot apart.
    pub generation: u32,
}

/// Who published a message: a connection of some core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publisher {
    /// Its core.
    pub core: CoreId,
    /// The connection there.
    pub connection: ConnectionId,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, where the transport has one.
    pub address: Option<SocketAddr>,
    /// Number of the listener it came through.
    pub listener: u16,
}

/// Names the connection towards the access control.
pub fn exchange(id: ConnectionId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.slot)
}

/// Handle of a session on its core. Its place is given to no other session while the subscription index
/// knows it; whatever outlives that long holds a [`SessionRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u32);

impl SessionId {
    /// The session at a place of the table.
    #[inline]
    pub fn new(place: usize) -> Self {
        Self(place as u32)
    }

    /// Its place in the table.
    #[inline]
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// Sessions subscribe under the number of their place.
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

/// Handle of a session that may have ended meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// Where it was.
    pub session: SessionId,
    /// Tells the users of one place apart.
    pub generation: u32,
}
