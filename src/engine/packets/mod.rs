//! What each packet from a client does.

pub(in crate::engine) mod authenticate;
pub(in crate::engine) mod connect;
pub(in crate::engine) mod disconnect;
pub(in crate::engine) mod job;
pub(in crate::engine) mod publish;
pub(in crate::engine) mod receive;
pub(in crate::engine) mod subscribe;
