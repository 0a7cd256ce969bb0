//! Accounting of what cores and users hold (bytes, connections, sessions, messages), and its
//! limits.

pub mod gauges;
pub mod users;
pub mod weighed;
