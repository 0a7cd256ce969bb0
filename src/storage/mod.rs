//! What outlives the process: records of what changed, and what they add up to.
//!
//! The engine writes [`record`]s and reads an [`image`] of all of them; it knows no file. [`log`]
//! keeps them on disk.

pub mod commit;
pub mod image;
#[cfg(feature = "store")]
pub mod log;
pub mod record;
