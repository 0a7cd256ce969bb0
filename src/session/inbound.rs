//! QoS 2 from the client: which Packet Identifiers were received and not yet released. Knows no message.

use std::collections::VecDeque;

use crate::wire::PacketIdentifier;

/// Packet Identifiers of QoS 2 messages between PUBREC and PUBREL, kept for as long as the
/// session, so that a message sent again after a reconnect is not delivered again [MQTT-4.3.3-10].
#[derive(Debug, Default)]
pub struct Inbound {
    /// Ascending in the usual case (clients count up), so both ends are cheap.
    identifiers: VecDeque<u16>,
}

impl Inbound {
    /// Notes the identifier; false when it was there already: the message is a duplicate.
    pub fn receive(&mut self, identifier: PacketIdentifier) -> bool {
        let value = identifier.get();
        match self.identifiers.back() {
            Some(&last) if last >= value => match self.identifiers.binary_search(&value) {
                Ok(_) => false,
                Err(place) => {
                    self.identifiers.insert(place, value);
                    true
                }
            },
            _ => {
                self.identifiers.push_back(value);
                true
            }
        }
    }

    /// Whether the identifier awaits its PUBREL.
    pub fn contains(&self, identifier: PacketIdentifier) -> bool {
        self.identifiers.binary_search(&identifier.get()).is_ok()
    }

    /// PUBREL came; false when the identifier is unknown.
    pub fn release(&mut self, identifier: PacketIdentifier) -> bool {
        let Ok(place) = self.identifiers.binary_search(&identifier.get()) else { return false };
        self.identifiers.remove(place);
        true
    }

    /// Messages between PUBREC and PUBREL; what the client's use of our Receive Maximum counts.
    pub fn len(&self) -> usize {
        self.identifiers.len()
    }

    /// Whether nothing is between PUBREC and PUBREL.
    pub fn is_empty(&self) -> bool {
        self.identifiers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketIdentifier {
        PacketIdentifier::new(value).expect("not zero")
    }

    #[test]
    fn mqtt_4_3_3_10_an_identifier_is_a_duplicate_until_released() {
        let mut inbound = Inbound::default();
        for value in [7, 3, 9, 65_535, 1] {
            assert!(inbound.receive(id(value)));
            assert!(!inbound.receive(id(value)));
        }
        assert!(inbound.release(id(9)) && !inbound.release(id(9)));
        assert!(inbound.receive(id(9)) && inbound.contains(id(9)));
        assert_eq!(inbound.len(), 5);
    }
}
