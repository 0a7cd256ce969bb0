//! Connects clients before the load starts, a bounded number at a time.

use super::crowd::{Actor, Crowd};
use crate::{
    codec::Session,
    error::Result,
    limits::{CONNECT_TIMEOUT, CONNECTING_MAX},
};

/// The Client Identifier for a slot, the same for every connection.
pub fn identifier(crowd: &Crowd, slot: usize) -> String {
    format!("bench-{:08x}-{}-{slot}", crowd.run, crowd.share.number)
}

/// Connects the first `count` slots; `ready` returns how many of them the actor considers ready.
pub fn connect_all<A: Actor>(
    crowd: &mut Crowd,
    actor: &mut A,
    count: usize,
    session: Session,
    ready: impl Fn(&A) -> usize,
) -> Result<()> {
    for slot in 0..count {
        let enough = |actor: &A| slot - ready(actor) < CONNECTING_MAX;
        crowd.turn_until(actor, CONNECT_TIMEOUT, "room for another connection", enough)?;
        let identifier = identifier(crowd, slot);
        crowd.open(slot, identifier, session)?;
    }
    let enough = |actor: &A| ready(actor) == count;
    crowd.turn_until(actor, CONNECT_TIMEOUT, "the last of the connections", enough)
}
