//! What a broker needs in the place of Mosquitto: its configuration and its database. Knows their
//! formats, and translates them into those of this broker.

pub mod configuration;
#[cfg(feature = "store")]
pub mod database;
