//! Other cores: what is forwarded to them, and connections that move to their home core.

pub(in crate::engine) mod batch;
pub(in crate::engine) mod bundle;
pub(in crate::engine) mod forward;
pub(in crate::engine) mod handover;
pub(in crate::engine) mod lanes;
