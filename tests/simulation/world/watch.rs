//! What a core shows to a new client.

use ringmq::wire;

use super::World;
use crate::packets;
use crate::random::Random;

impl World {
    /// The retained messages that one core sends to a new client.
    pub fn watch(
        &mut self,
        core: usize,
        filter: &str,
        chance: &mut dyn FnMut() -> u64,
    ) -> Result<Vec<(String, Vec<u8>)>, String> {
        let link = self.connect(core);
        // Without a Client Identifier, the home is the accepting core.
        let sent = [
            packets::connect("", wire::Version::V5),
            packets::subscribe(filter, wire::Qos::AtMostOnce, wire::Version::V5),
        ];
        self.links[link].sent = sent.concat();
        let mut random = Random::new(chance());
        let mut quiet = 0;
        while quiet < 3 {
            quiet = if self.settle_once(&mut random) { 0 } else { quiet + 1 };
        }
        if self.core_of(link) != Some(core) {
            return Err("a client without an identifier was handed over".to_owned());
        }
        let mut shown = Vec::new();
        for packet in std::mem::take(&mut self.links[link].inbox) {
            if let Ok(wire::Packet::Publish(p)) = wire::decode(&packet, wire::Version::V5) {
                shown.push((p.topic.to_owned(), p.payload.to_vec()));
            }
        }
        self.cut(link);
        Ok(shown)
    }
}
