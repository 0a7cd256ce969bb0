//! An MQTT broker as a library.
#![doc = ""]
pub mod clock;
#[allow(missing_docs)]
pub mod config;
pub mod engine;
pub mod executor;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod send_buffer;
pub mod session;
pub mod violation;
pub mod wire;
