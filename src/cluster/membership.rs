//! Who is a member: a state machine without I/O.

use std::fmt;

/// Why a node cannot join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// What the bucket has cannot be used.
    View(super::view::ViewError),
    /// Another broker that runs has this name or this number.
    Taken(String),
    /// All 64 numbers are in use.
    Full,
    /// The clock of this machine is wrong, or another member's.
    Clock {
        /// The member with which it was compared.
        member: String,
        /// How far this clock is ahead, in milliseconds.
        ahead_ms: i64,
    },
    /// A member speaks no version of lanes that this broker speaks.
    Versions(String),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View(error) => error.fmt(f),
            Self::Taken(what) => f.write_str(what),
            Self::Full => {
                f.write_str("the cluster has 64 nodes, which is the most: remove one first")
            }
            Self::Clock { member, ahead_ms } => write!(
                f,
                "this machine's clock differs from that of member {member} by {ahead_ms} ms: clocks of a cluster may \
                 differ by 2 s at most; set up NTP on both"
            ),
            Self::Versions(member) => write!(
                f,
                "member {member} speaks no version of lanes that this broker speaks: update the older one first to the \
                 version between"
            ),
        }
    }
}

impl std::error::Error for JoinError {}
