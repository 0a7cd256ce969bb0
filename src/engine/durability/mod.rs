//! What outlives the process: records for the store, restoring from them, and Wills.

pub(in crate::engine) mod in_transit;
pub(in crate::engine) mod journal;
pub(in crate::engine) mod record_writer;
pub(in crate::engine) mod restore;
pub(in crate::engine) mod wills;
