//! The attacks, by the part of the broker that they load. Each is bounded in data and duration.

mod filters;
mod floods;
mod queues;
mod sessions;
mod wildcards;

use super::{
    attack::Attack,
    packets::Publish,
    peer::{Exchange, Peer},
};

/// All attacks, in order of execution.
pub fn all() -> Vec<Attack> {
    [filters::ATTACKS, wildcards::ATTACKS, queues::ATTACKS, sessions::ATTACKS, floods::ATTACKS]
        .concat()
}

/// Publishes retained messages on topics of their own, and waits for all acknowledgements.
fn retain(peer: &mut Peer, topics: impl Iterator<Item = String>) -> Exchange<()> {
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

/// Publishes this many QoS 1 messages to a topic, and waits for all acknowledgements.
fn publish_many(peer: &mut Peer, message: &Publish<'_>, count: usize) -> Exchange<()> {
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
