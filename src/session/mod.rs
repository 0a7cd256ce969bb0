//! One client's state and its rules, without I/O: Network Connection, Session State, flow both ways, Will, Topic Aliases.

pub mod inbound;
pub mod outbound;
pub mod retained_replay;
pub mod state;
pub mod table;
pub mod topic_alias;
