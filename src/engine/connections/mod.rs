//! Network Connections.

pub mod connection;
pub mod input_buffer;
