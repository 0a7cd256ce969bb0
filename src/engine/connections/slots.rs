//! Connections by their handles. The slot of a connection that has ended is not used again before the
//! executor has been asked to close the socket: until then the executor takes the slot to mean that
//! connection.

use std::ops::{Index, IndexMut};

use slab::Slab;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::engine::connections::connection::Connection;

/// Connections by their handles.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Connections that have ended and are not closed yet have generation [`ENDED`].
    slots: Slab<Connection>,
    ended: usize,
}

/// The generation of a slot that is still taken by a connection that has ended; no handle has it.
pub(super) const ENDED: u32 = 0;

impl Slots {
    /// Gives a connection a slot.
    pub fn insert(&mut self, connection: Connection) -> ConnectionId {
        let generation = connection.generation;
        debug_assert_ne!(generation, ENDED);
        ConnectionId { slot: self.slots.insert(connection) as u32, generation }
    }

    /// Takes a connection out; its slot stays taken until it is [freed](Self::free).
    pub fn remove(&mut self, id: ConnectionId) -> Connection {
        self.ended += 1;
        let ended = Connection::new(ENDED, None, 0, Now(0));
        std::mem::replace(&mut self[id], ended)
    }

    /// Frees the slot of a connection that was taken out.
    pub fn free(&mut self, id: ConnectionId) {
        self.ended -= 1;
        let ended = self.slots.remove(id.slot as usize);
        debug_assert_eq!(ended.generation, ENDED, "the connection has ended");
    }

    /// The connection, unless it has ended.
    #[inline]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let connection = self.slots.get(id.slot as usize);
        connection.filter(|connection| connection.generation == id.generation)
    }

    /// The connection, unless it has ended, to change it.
    #[inline]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(id.slot as usize);
        connection.filter(|connection| connection.generation == id.generation)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.ended
    }

    /// The handles of all connections.
    pub fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        let live = self.slots.iter().filter(|(_, connection)| connection.generation != ENDED);
        live.map(|(slot, connection)| ConnectionId {
            slot: slot as u32,
            generation: connection.generation,
        })
    }
}

impl Index<ConnectionId> for Slots {
    type Output = Connection;

    #[inline]
    fn index(&self, id: ConnectionId) -> &Connection {
        let connection = &self.slots[id.slot as usize];
        debug_assert_eq!(connection.generation, id.generation, "the connection has not ended");
        connection
    }
}

impl IndexMut<ConnectionId> for Slots {
    #[inline]
    fn index_mut(&mut self, id: ConnectionId) -> &mut Connection {
        let connection = &mut self.slots[id.slot as usize];
        debug_assert_eq!(connection.generation, id.generation, "the connection has not ended");
        connection
    }
}
