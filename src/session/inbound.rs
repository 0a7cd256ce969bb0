//! QoS 2 from the client: which Packet Identifiers were received and not yet released. Knows no message.

use std::collections::{HashMap, VecDeque};

use crate::resources::gauges::{Charge, Ledger};
use crate::wire::PacketIdentifier;

/// Packet Identifiers of QoS 2 messages between PUBREC and PUBREL, kept for as long as the
/// session, so that a message sent again after a reconnect is not delivered again [MQTT-4.3.3-10].
#[derive(Debug, Default)]
pub struct Inbound {
    /// Ascending in the usual case (clients count up), so both ends are cheap.
    identifiers: VecDeque<u16>,
    /// How many of the identifiers, at most, came on an earlier connection.
    carried: usize,
    /// Identifiers that are not logged yet, as other cores may not have stored the message, with the last
    /// checkpoint that had begun when they came.
    unlogged: HashMap<u16, u64>,
    charge: Charge,
}

impl Inbound {
    /// Begins a new connection: unfinished exchanges are no part of its quota (4.9).
    pub fn resume(&mut self) {
        self.carried = self.identifiers.len();
    }

    /// Charges the memory after a change.
    pub fn settle(&mut self, ledger: &Ledger) {
        let unlogged = self.unlogged.capacity() * (size_of::<(u16, u64)>() + 1);
        let bytes = size_of::<Self>() + self.identifiers.capacity() * 2 + unlogged;
        self.charge.set(ledger, bytes);
    }

    /// Notes an identifier; returns false when it was there already: the message is a duplicate.
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

    /// Defers logging an identifier.
    pub fn withhold(&mut self, identifier: PacketIdentifier, checkpoint: u64) {
        self.unlogged.insert(identifier.get(), checkpoint);
    }

    /// The identifier is logged.
    pub fn note_logged(&mut self, identifier: PacketIdentifier) {
        self.unlogged.remove(&identifier.get());
    }

    /// The identifiers between PUBREC and PUBREL.
    #[cfg(any(feature = "bridge", feature = "cluster"))]
    pub fn identifiers(&self) -> Vec<PacketIdentifier> {
        self.identifiers
            .iter()
            .filter_map(|&identifier| PacketIdentifier::new(identifier))
            .collect()
    }

    /// Handles PUBREL; returns false when the identifier is unknown.
    pub fn release(&mut self, identifier: PacketIdentifier) -> bool {
        self.note_logged(identifier);
        let Ok(place) = self.identifiers.binary_search(&identifier.get()) else { return false };
        self.identifiers.remove(place);
        self.carried = self.carried.min(self.identifiers.len());
        true
    }

    /// How much of the server's Receive Maximum the client uses: messages between PUBREC and PUBREL that came on
    /// this connection, never too many when some of an earlier one are left.
    pub fn used(&self) -> usize {
        self.identifiers.len() - self.carried
    }

    /// Identifiers between PUBREC and PUBREL after `last`, ascending, and whether a checkpoint logs them: those that
    /// came before it, as the other cores have stored the messages that came earlier.
    pub fn log_to_checkpoint(
        &mut self,
        checkpoint: u64,
        last: u16,
    ) -> impl Iterator<Item = (u16, bool)> {
        if last == 0 {
            self.unlogged.retain(|_, since| *since >= checkpoint);
        }
        let from = self.identifiers.partition_point(|&identifier| identifier <= last);
        let is_logged = |identifier| !self.unlogged.contains_key(identifier);
        self.identifiers.range(from..).map(move |identifier| (*identifier, is_logged(identifier)))
    }

    /// Whether no message is between PUBREC and PUBREL.
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
        assert_eq!(inbound.used(), 5);
    }

    #[test]
    fn what_came_on_an_earlier_connection_is_no_part_of_the_quota() {
        let mut inbound = Inbound::default();
        assert!(inbound.receive(id(1)) && inbound.receive(id(2)));
        inbound.resume();
        assert_eq!(inbound.used(), 0);
        assert!(!inbound.receive(id(1)) && inbound.receive(id(3)));
        assert_eq!(inbound.used(), 1);
        for value in [1, 2, 3] {
            assert!(inbound.release(id(value)));
        }
        assert!(inbound.receive(id(4)));
        assert_eq!(inbound.used(), 1);
    }
}
