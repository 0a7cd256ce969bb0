//! Bridges: the layer that makes a session of the engine the client of another broker.
//!
//! ```text
//! far broker ─► TLS ─► WebSocket ─► Link ─► a client's packets to the engine      receive
//! far broker ◄─ TLS ◄─ WebSocket ◄─ Link ◄─ the engine's packets to that client   wrap
//! ```
//!
//! The engine serves a bridge like any client of MQTT 5.0 with a kept session. What leaves over the bridge is what this
//! client has subscribed to; what arrives is what this client publishes. Packet Identifiers are the same on both sides,
//! so that queue, window, order, acknowledgements and QoS 2 are those of the session, and outlast restarts like it does.
//! The link exchanges CONNECT, SUBSCRIBE and PINGREQ with the far broker, maps topics and converts to its version.

mod acknowledgements;
mod echoes;
mod far_end;
mod link;
pub mod mapping;
pub mod notification;
mod path;
mod report;
mod sent_topics;
mod session;
mod subscriptions;
mod supervision;
#[cfg(test)]
mod tests;
#[cfg(feature = "websocket")]
mod websocket;
#[cfg(not(feature = "websocket"))]
#[path = "websocket_absent.rs"]
mod websocket;

pub use self::echoes::Echoes;
pub use self::far_end::FarEnd;
pub use self::link::{Attempt, Link, Start, Terms};
pub use self::report::{Counters, Event, Refusal, Report};

use crate::base::part::Part;

/// How the Client Identifiers of the bridges' sessions begin. Other clients may not use them.
pub const SESSION_PREFIX: &str = "$bridge/";

/// The part of all topics that the session with a Client Identifier takes, if it is one of several of a bridge. The
/// names of bridges have no `/`.
pub fn part_of(client_identifier: &str) -> Option<Part> {
    let (_, part) = client_identifier.strip_prefix(SESSION_PREFIX)?.split_once('/')?;
    Part::parse(part)
}
