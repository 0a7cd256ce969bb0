//! Identities that mean the same on another node: publishers, and QoS 2 exchanges.

use crate::base::ids::{ConnectionId, CoreId};
use crate::engine::for_gateway::Qos2Exchange;
use crate::storage::record::{Exchange, SessionNumber};

/// Bits of a slot for the connection, when the core is in the same number.
const SLOT_BITS: u32 = 22;
const CORE_BITS: u32 = 32 - SLOT_BITS;

/// The bits of a session number that name the node, plus one; zero for a session of the node itself.
const NODE_SHIFT: u32 = 56;

/// A connection of a core of another node, as an engine names it that knows connections only. None for more than four
/// million connections on a core: such a publisher is slowed by the window of the lane alone.
pub(super) fn remote_connection(core: CoreId, connection: ConnectionId) -> Option<ConnectionId> {
    let fits = connection.slot < 1 << SLOT_BITS && u32::from(core.0) < 1 << CORE_BITS;
    fits.then(|| ConnectionId {
        slot: u32::from(core.0) << SLOT_BITS | connection.slot,
        generation: connection.generation,
    })
}

/// The core and the connection of [`remote_connection`].
pub(super) fn core_and_connection(remote: ConnectionId) -> (CoreId, ConnectionId) {
    let ConnectionId { slot, generation } = remote;
    let connection = ConnectionId { slot: slot & ((1 << SLOT_BITS) - 1), generation };
    (CoreId((slot >> SLOT_BITS) as u16), connection)
}

/// A connection as the codec writes it.
pub(super) fn connection_number(connection: ConnectionId) -> u64 {
    crate::base::ids::exchange(connection)
}

/// A connection as the codec has written it.
pub(super) fn connection(number: u64) -> ConnectionId {
    ConnectionId { slot: number as u32, generation: (number >> 32) as u32 }
}

/// Size of [`exchange_name`].
pub(super) const EXCHANGE_NAME_BYTES: usize = 11;

/// A QoS 2 exchange as all nodes name it; `node` is the sender, whose sessions have no node in their numbers.
pub(super) fn exchange_name(exchange: Exchange, dup: bool, node: u16) -> [u8; EXCHANGE_NAME_BYTES] {
    let SessionNumber(mut publisher) = exchange.publisher;
    if publisher >> NODE_SHIFT == 0 {
        publisher |= u64::from(node + 1) << NODE_SHIFT;
    }
    let mut name = [0; EXCHANGE_NAME_BYTES];
    name[..8].copy_from_slice(&publisher.to_le_bytes());
    name[8..10].copy_from_slice(&exchange.packet_identifier.to_le_bytes());
    name[10] = u8::from(dup);
    name
}

/// The exchange with this name, on node `own`; none if the name has another form.
pub(super) fn exchange(name: &[u8], own: u16) -> Option<Qos2Exchange> {
    let name: &[u8; EXCHANGE_NAME_BYTES] = name.try_into().ok()?;
    let mut publisher = u64::from_le_bytes(name[..8].try_into().ok()?);
    if publisher >> NODE_SHIFT == u64::from(own + 1) {
        publisher &= (1 << NODE_SHIFT) - 1;
    }
    let packet_identifier = u16::from_le_bytes(name[8..10].try_into().ok()?);
    let exchange = Exchange { publisher: SessionNumber(publisher), packet_identifier };
    Some(Qos2Exchange { exchange, dup: name[10] != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_of_another_node_is_found_again_there() {
        let connection = ConnectionId { slot: (1 << 22) - 1, generation: 7 };
        for core in [0, 1, 1_023].map(CoreId) {
            let remote = remote_connection(core, connection).expect("it fits");
            assert_eq!(core_and_connection(remote), (core, connection));
        }
        let too_many = ConnectionId { slot: 1 << 22, generation: 7 };
        assert_eq!(remote_connection(CoreId(0), too_many), None);
        assert_eq!(remote_connection(CoreId(1_024), connection), None);
    }

    #[test]
    fn an_exchange_has_one_name_on_all_nodes_and_its_own_number_at_home() {
        let home = Exchange { publisher: SessionNumber::new(3, 5, 9), packet_identifier: 77 };
        let name = exchange_name(home, true, 4);
        let here = exchange(&name, 4).expect("a name");
        assert_eq!((here.exchange, here.dup), (home, true));
        let there = exchange(&name, 5).expect("a name").exchange;
        assert_ne!(there, home);
        assert_eq!(exchange_name(there, true, 5), name, "passed on, it keeps its name");
        assert_eq!(exchange(&name[1..], 4).map(|of| of.dup), None);
    }
}
