//! The connections of one core by slot. A slot whose connection has ended is not given away before the
//! executor has been told to close the socket: until then it takes the slot to mean that connection.

use std::ops::{Index, IndexMut};

use slab::Slab;

use crate::session::connection::Connection;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Slots {
    /// None: ended, and not closed yet.
    slots: Slab<Option<Connection>>,
    live: usize,
}

const _: () = assert!(size_of::<Option<Connection>>() == size_of::<Connection>());

impl Slots {
    /// Gives a connection a slot.
    pub fn insert(&mut self, connection: Connection) -> usize {
        self.live += 1;
        self.slots.insert(Some(connection))
    }

    /// Takes a connection out; its slot stays taken until it is [freed](Self::free).
    pub fn remove(&mut self, slot: usize) -> Connection {
        self.live -= 1;
        self.slots[slot].take().expect("it was there")
    }

    /// Lets a slot be given away again.
    pub fn free(&mut self, slot: usize) {
        let ended = self.slots.remove(slot);
        debug_assert!(ended.is_none(), "its connection has ended");
    }

    /// The connection in a slot.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Whether a slot has a connection.
    pub fn contains(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(Option::is_some)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live
    }

    /// The slots that have one.
    pub fn taken(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().filter(|(_, of)| of.is_some()).map(|(slot, _)| slot as u32)
    }
}

impl Index<usize> for Slots {
    type Output = Connection;

    fn index(&self, slot: usize) -> &Connection {
        self.slots[slot].as_ref().expect("it has a connection")
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, slot: usize) -> &mut Connection {
        self.slots[slot].as_mut().expect("it has a connection")
    }
}
