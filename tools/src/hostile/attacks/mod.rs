//! The attacks, by what they make the broker work on. Each is bounded in what it sends and for how long.

mod filters;
mod floods;
mod queues;
mod sessions;
mod wildcards;

use super::{
    field::Attack,
    packets::Publish,
    peer::{Heard, Peer},
};

/// All of them, in the order in which they are tried.
pub fn all() -> Vec<Attack> {
    [filters::ATTACKS, wildcards::ATTACKS, queues::ATTACKS, sessions::ATTACKS, floods::ATTACKS]
        .concat()
}

/// Retained messages on topics of their own, and all of them taken by the broker.
fn retain(peer: &mut Peer, topics: impl Iterator<Item = String>) -> Heard<()> {
    let mut bytes = Vec::new();
    for topic in topics {
        Publish { topic: &topic, retain: true, payload: b"x", ..Publish::default() }
            .append(&mut bytes);
        if bytes.len() > 1 << 18 {
            peer.send(&bytes)?;
            bytes.clear();
        }
    }
    peer.send(&bytes)?;
    peer.settle()
}

/// So many messages of QoS 1 to a topic, and all of them acknowledged.
fn publish_many(peer: &mut Peer, message: &Publish<'_>, count: usize) -> Heard<()> {
    const WINDOW: usize = 1_000;
    for begin in (0..count).step_by(WINDOW) {
        let some = WINDOW.min(count - begin);
        let mut bytes = Vec::new();
        for number in 1..=some {
            Publish { qos: 1, identifier: number as u16, ..*message }.append(&mut bytes);
        }
        peer.send(&bytes)?;
        for _ in 0..some {
            peer.await_packet(0x40)?;
        }
    }
    Ok(())
}
