//! Network Connections: their table, what they have read and have to send, and when they end.

pub mod connection;
pub(in crate::engine) mod input_bounds;
pub mod input_buffer;
pub(in crate::engine) mod pending_acks;
pub(in crate::engine) mod rate_limit;
pub(in crate::engine) mod reading;
pub(in crate::engine) mod slots;
pub(in crate::engine) mod stream_end;
pub(in crate::engine) mod table;
pub(in crate::engine) mod time_limits;
