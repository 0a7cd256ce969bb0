//! Sessions that have ended, or whose clients are away, and that leave work for several turns.

use std::collections::VecDeque;

use shards::FilterId;
use smallvec::SmallVec;

use crate::base::ids::{SessionId, SessionRef};
use crate::session::outbound::Outbound;
use crate::storage::record::SessionNumber;

/// Work that remains for one session.
#[derive(Debug)]
pub enum Leftover {
    /// A session has ended.
    Ended(EndedSession),
    /// A client has disconnected: its messages of these shared subscriptions go to other members until it
    /// comes back.
    Absent {
        /// The session.
        session: SessionRef,
        /// The shared subscriptions, with their filters.
        groups: Vec<(FilterId, String)>,
    },
    /// A bridge without a queue for the time without a connection has lost its connection: what waits is dropped until
    /// it is back.
    Offline {
        /// The session.
        session: SessionRef,
        /// The number of the first message that stays.
        end: u64,
    },
}

/// A session that has ended. Its Client Identifier is free, but its place stays taken until the index has
/// none of its subscriptions.
#[derive(Debug)]
pub struct EndedSession {
    /// The place in the session table.
    pub id: SessionId,
    /// The number in the store, until the end of the session is logged.
    pub number: Option<SessionNumber>,
    /// The subscriptions that are still in the index.
    pub subscriptions: SmallVec<[FilterId; 4]>,
    /// Its messages.
    pub outbound: Option<Box<Outbound>>,
    /// Shared subscriptions whose waiting messages other members may receive.
    pub groups: Vec<(FilterId, String)>,
}

/// The sessions with remaining work, in the order in which they get their turns.
pub type Leftovers = VecDeque<Leftover>;
