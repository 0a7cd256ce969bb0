//! Durable storage: [`record`]s of changes, the [`image`] that they add up to, and the [`log`] that has
//! them on disk.
//!
//! The engine appends records and restores its state from an image; it knows no file.

pub mod commit;
pub mod image;
#[cfg(feature = "store")]
pub mod log;
pub mod record;
