//! The connections of one core by slot. A slot whose connection has ended is not given away before the
//! executor has been told to close the socket: until then it takes the slot to mean that connection.

use std::ops::{Index, IndexMut};

use slab::Slab;

use crate::base::clock::Now;
use crate::engine::connections::connection::Connection;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Slots {
    /// Those that have ended and are not closed yet are of generation [`ENDED`], which no other is of.
    slots: Slab<Connection>,
    ended: usize,
}

/// Stands in a slot that is still taken by a connection that is gone.
pub const ENDED: u32 = 0;

impl Slots {
    /// Gives a connection a slot.
    pub fn insert(&mut self, connection: Connection) -> usize {
        debug_assert_ne!(connection.generation, ENDED);
        self.slots.insert(connection)
    }

    /// Takes a connection out; its slot stays taken until it is [freed](Self::free).
    pub fn remove(&mut self, slot: usize) -> Connection {
        self.ended += 1;
        let ended = Connection::new(ENDED, None, 0, Now(0));
        std::mem::replace(&mut self.slots[slot], ended)
    }

    /// Lets a slot be given away again.
    pub fn free(&mut self, slot: usize) {
        self.ended -= 1;
        let ended = self.slots.remove(slot);
        debug_assert_eq!(ended.generation, ENDED, "its connection has ended");
    }

    /// The connection in a slot; one that has ended is of a generation that no handle has.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)
    }

    /// Whether a slot has a connection.
    pub fn contains(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|connection| connection.generation != ENDED)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.ended
    }

    /// The slots that have one.
    pub fn taken(&self) -> impl Iterator<Item = u32> {
        let live = self.slots.iter().filter(|(_, connection)| connection.generation != ENDED);
        live.map(|(slot, _)| slot as u32)
    }
}

impl Index<usize> for Slots {
    type Output = Connection;

    fn index(&self, slot: usize) -> &Connection {
        &self.slots[slot]
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, slot: usize) -> &mut Connection {
        &mut self.slots[slot]
    }
}
