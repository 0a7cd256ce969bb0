//! Clients with a Will that are let in and then killed with the broker: their Wills are published
//! once it runs again.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::link::Link;

/// What their topics begin with.
pub const TOPICS: &str = "w/";

/// One after the other, each with a name and a topic of its own.
#[derive(Default)]
pub struct Mortals {
    count: u64,
    /// Topics of those who were let in.
    pub accepted: BTreeSet<String>,
}

impl Mortals {
    /// The next one stays until the broker is killed.
    pub fn serve(&mut self, address: SocketAddr) {
        self.count += 1;
        let (name, topic) = (format!("mortal {}", self.count), format!("{TOPICS}{}", self.count));
        let Ok(mut link) = Link::open_mortal(address, &name, &topic, self.count) else { return };
        self.accepted.insert(topic);
        while let Ok(packet) = link.next() {
            assert!(packet.is_none(), "{name} has not subscribed to anything");
        }
    }
}
