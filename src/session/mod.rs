//! Session State of clients, without I/O: messages in both directions, subscriptions, Will, Topic Aliases.

pub mod client_identifiers;
pub mod ended;
pub mod inbound;
pub mod outbound;
pub mod retained_replay;
pub mod state;
pub mod table;
pub mod topic_alias;
