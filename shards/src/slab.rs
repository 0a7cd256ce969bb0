//! Records with stable 32-bit ids; the id of a removed record is reused. Does not interpret the
//! records.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// Records per chunk. A slab grows by whole chunks, so that growth neither moves records nor
/// reserves half of the memory.
const CHUNK: usize = 1024;

const _: () = assert!(CHUNK < u16::MAX as usize);

/// The id of a `T` in its [`Slab`]. Counts from one, so that `Option<Id>` also has four bytes.
pub(crate) struct Id<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> Id<T> {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("a slab holds fewer than 2^32 records"), PhantomData)
    }

    /// The id with this [`number`](Self::number), unless it is zero.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(|number| Self(number, PhantomData))
    }

    /// The id as a number, for tables and external use. Never zero.
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Id<T> {}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks with vacant slots.
    open: Vec<u32>,
    /// Number of empty chunks kept for new records.
    spare: usize,
    /// Number of slots in all chunks.
    capacity: usize,
    len: usize,
}

/// Empty chunks are freed, except for one, so that a client that fills a slab and leaves does not
/// keep its memory.
#[derive(Debug)]
struct Chunk<T> {
    slots: Vec<Slot<T>>,
    /// One more than the index of the first vacant slot, or 0.
    vacant: u16,
    used: u16,
}

#[derive(Debug)]
enum Slot<T> {
    Occupied(T),
    /// One more than the index of the next vacant slot, or 0.
    Vacant(u16),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), open: Vec::new(), spare: 0, capacity: 0, len: 0 }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, record: T) -> Id<T> {
        self.len += 1;
        let index = match self.open.last() {
            Some(index) => *index as usize,
            None => self.add_chunk(),
        };
        // The first chunk grows gradually: a small broker has only a few records.
        let is_large = self.chunks.len() > 1;
        let chunk = &mut self.chunks[index];
        self.spare -= usize::from(chunk.used == 0 && chunk.slots.capacity() > 0);
        chunk.used += 1;
        if usize::from(chunk.used) == CHUNK {
            self.open.pop();
        }
        let place = match usize::from(chunk.vacant).checked_sub(1) {
            None => {
                let before = chunk.slots.capacity();
                if before == 0 && is_large {
                    chunk.slots.reserve_exact(CHUNK);
                }
                chunk.slots.push(Slot::Occupied(record));
                self.capacity += chunk.slots.capacity() - before;
                chunk.slots.len() - 1
            }
            Some(place) => {
                let slot = std::mem::replace(&mut chunk.slots[place], Slot::Occupied(record));
                let Slot::Vacant(next) = slot else {
                    unreachable!("the list of vacant slots holds vacant ones only")
                };
                chunk.vacant = next;
                place
            }
        };
        Id::new(index * CHUNK + place)
    }

    fn add_chunk(&mut self) -> usize {
        self.chunks.push(Chunk { slots: Vec::new(), vacant: 0, used: 0 });
        self.open.push(self.chunks.len() as u32 - 1);
        self.chunks.len() - 1
    }

    pub(crate) fn remove(&mut self, id: Id<T>) -> T {
        let (index, place) = (id.index() / CHUNK, id.index() % CHUNK);
        let chunk = &mut self.chunks[index];
        let vacant = Slot::Vacant(chunk.vacant);
        let Slot::Occupied(record) = std::mem::replace(&mut chunk.slots[place], vacant) else {
            panic!("no record under the id {id:?}");
        };
        chunk.vacant = place as u16 + 1;
        if usize::from(chunk.used) == CHUNK {
            self.open.push(index as u32);
        }
        chunk.used -= 1;
        if chunk.used == 0 {
            self.note_empty(index);
        }
        self.len -= 1;
        if self.len == 0 && self.chunks.len() > 1 {
            *self = Self::default();
        }
        record
    }

    fn note_empty(&mut self, index: usize) {
        let chunk = &mut self.chunks[index];
        if self.spare == 0 {
            self.spare = 1;
            return;
        }
        self.capacity -= chunk.slots.capacity();
        *chunk = Chunk { slots: Vec::new(), vacant: 0, used: 0 };
    }

    pub(crate) fn get(&self, id: Id<T>) -> Option<&T> {
        match self.chunks.get(id.index() / CHUNK)?.slots.get(id.index() % CHUNK)? {
            Slot::Occupied(record) => Some(record),
            Slot::Vacant(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        match self.chunks.get_mut(id.index() / CHUNK)?.slots.get_mut(id.index() % CHUNK)? {
            Slot::Occupied(record) => Some(record),
            Slot::Vacant(_) => None,
        }
    }

    /// Bytes of allocated memory, without the memory that records refer to.
    pub(crate) fn bytes(&self) -> usize {
        self.capacity * size_of::<Slot<T>>()
            + self.chunks.capacity() * size_of::<Chunk<T>>()
            + self.open.capacity() * size_of::<u32>()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// The size of an allocation of `bytes` in an allocator: plus one word, in units of two words.
pub fn heap(bytes: usize) -> usize {
    const UNIT: usize = 2 * size_of::<usize>();
    match bytes {
        0 => 0,
        _ => (bytes + UNIT / 2).next_multiple_of(UNIT).max(2 * UNIT),
    }
}

impl<T> Index<Id<T>> for Slab<T> {
    type Output = T;

    fn index(&self, id: Id<T>) -> &T {
        self.get(id).expect("the record of an id that is held lives")
    }
}

impl<T> IndexMut<Id<T>> for Slab<T> {
    fn index_mut(&mut self, id: Id<T>) -> &mut T {
        self.get_mut(id).expect("the record of an id that is held lives")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_removed_records_are_reused() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..5).map(|n| slab.insert(n)).collect();
        assert_eq!((slab.remove(ids[1]), slab.remove(ids[3])), (1, 3));
        assert_eq!(slab.get(ids[1]), None);
        let again = [slab.insert(10), slab.insert(11)];
        assert!(again.contains(&ids[1]) && again.contains(&ids[3]));
        assert_eq!((slab.len(), slab[ids[0]], slab[ids[4]]), (5, 0, 4));
    }

    #[test]
    fn removed_records_free_their_chunks() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..3 * CHUNK + 1).map(|n| slab.insert(n)).collect();
        assert!(ids.iter().enumerate().all(|(n, id)| slab[*id] == n));
        assert_eq!(slab.chunks.len(), 4);
        for id in ids {
            slab.remove(id);
        }
        assert_eq!((slab.len(), slab.chunks.capacity()), (0, 0));
        assert_eq!(slab.insert(1).number(), 1);
    }

    #[test]
    fn removal_frees_chunks_and_moves_no_other_record() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..10 * CHUNK).map(|n| slab.insert(n)).collect();
        let full = slab.bytes();
        let (staying, leaving): (Vec<_>, Vec<_>) =
            ids.iter().enumerate().partition(|(n, _)| n / CHUNK % 5 == 3);
        leaving.iter().for_each(|(_, id)| assert!(slab.remove(**id) < 10 * CHUNK));
        assert!(slab.bytes() < full / 3, "{} of {full} bytes are left", slab.bytes());
        assert!(staying.iter().all(|(n, id)| slab.get(**id) == Some(n)));
        assert_eq!(slab.get(*leaving[0].1), None);
        let again: Vec<_> = leaving.iter().map(|(n, _)| slab.insert(*n)).collect();
        assert_eq!((slab.len(), slab.chunks.len()), (ids.len(), 10));
        assert!(leaving.iter().zip(&again).all(|((n, _), id)| slab.get(*id) == Some(n)));
        assert!(slab.bytes() <= full + 10 * size_of::<u32>() * 2);
    }

    #[test]
    fn a_record_at_a_chunk_border_does_not_allocate_a_chunk_each_time() {
        let mut slab = Slab::default();
        assert!((0..CHUNK).all(|n| slab.insert(n).number() == n as u32 + 1));
        let id = slab.insert(0);
        let bytes = slab.bytes();
        slab.remove(id);
        assert_eq!(slab.bytes(), bytes);
        assert_eq!((slab.insert(1), slab.bytes()), (id, bytes));
    }

    #[test]
    fn the_id_of_a_removed_record_finds_nothing() {
        let mut slab = Slab::default();
        let id = slab.insert('a');
        slab.remove(id);
        assert_eq!(slab.get(id), None);
        assert_eq!(Id::<char>::from_number(77).and_then(|id| slab.get(id)), None);
        assert_eq!(Id::<char>::from_number(0), None);
    }
}
