//! Clients with a Will that connect and are then cut off by a kill of the broker: their Wills are
//! published after the restart.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::link::Link;

/// Prefix of their topics.
pub const TOPICS: &str = "w/";

/// Successive clients, each with a name and a topic of its own.
#[derive(Default)]
pub struct ClientsWithWills {
    count: u64,
    /// Topics of the clients that received CONNACK.
    pub accepted: BTreeSet<String>,
}

impl ClientsWithWills {
    /// Connects the next client, which stays until the broker is killed.
    pub fn serve(&mut self, address: SocketAddr) {
        self.count += 1;
        let (name, topic) =
            (format!("with-will {}", self.count), format!("{TOPICS}{}", self.count));
        let Ok(mut link) = Link::open_with_will(address, &name, &topic, self.count) else { return };
        self.accepted.insert(topic);
        while let Ok(packet) = link.next() {
            assert!(packet.is_none(), "{name} has not subscribed to anything");
        }
    }
}
