//! An MQTT broker as a library.

pub mod violation;
pub mod wire;
