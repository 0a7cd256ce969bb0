//! Accounting of what cores and users hold (bytes, connections, sessions, messages), and its
//! limits.

pub mod accounted;
pub mod gauges;
#[cfg(feature = "cluster")]
mod interest;
pub mod users;
