//! The packets of clients: decoding, checks, effects and answers, one file for each kind.

pub(in crate::engine) mod authenticate;
mod connack;
pub(in crate::engine) mod connect;
pub(in crate::engine) mod disconnect;
pub(in crate::engine) mod job;
pub(in crate::engine) mod publish;
pub(in crate::engine) mod receive;
pub(in crate::engine) mod subscribe;
