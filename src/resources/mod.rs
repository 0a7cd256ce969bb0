//! What cores and users hold: bytes, connections, sessions, messages, and the bounds of it.

pub mod gauges;
pub mod users;
pub mod weighed;
