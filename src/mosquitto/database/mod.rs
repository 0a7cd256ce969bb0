//! The database of Mosquitto: `mosquitto.db` of formats 3 to 6, as versions 1.4 to 2.1 write it, taken into a store.
//!
//! [`Reader`] turns bytes into [chunks](chunk::Chunk), [`Collector`] turns chunks into sessions and messages and adds
//! them to an image of the store; neither knows a file. [`import`] does both with a file and the folder of a store.

pub mod chunk;
mod collect;
mod deliveries;
pub mod import;
mod reader;
mod report;
#[cfg(feature = "mosquitto-sqlite")]
mod sqlite;
#[cfg(test)]
mod tests;

pub use collect::{Collector, Options};
pub use reader::{Damage, ReadError, Reader};
pub use report::{Kind, Reason, Report};
