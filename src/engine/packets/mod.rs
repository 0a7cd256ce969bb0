//! The packets of clients: decoding, checks, effects and answers, one file for each kind.

mod acknowledge;
mod answer;
pub(in crate::engine) mod authenticate;
mod connack;
pub(in crate::engine) mod connect;
mod deferred;
mod disconnect;
pub(in crate::engine) mod job;
mod mounted;
pub(in crate::engine) mod publish;
pub(in crate::engine) mod receive;
mod stream_end;
pub(in crate::engine) mod subscribe;
mod take_over;
