//! From a message to its recipients: who they are, how it reaches them, and what happens to those that are slow.

pub(in crate::engine) mod backpressure;
pub(in crate::engine) mod deliver;
pub(in crate::engine) mod fan_out;
pub(in crate::engine) mod fan_out_batch;
pub(in crate::engine) mod recipients;
pub(in crate::engine) mod shared_subscriptions;
