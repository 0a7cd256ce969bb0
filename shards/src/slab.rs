//! Records under 32-bit ids that stay while the record lives; a vacated id is given out again.
//! Knows nothing of what it holds.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// Records a chunk. A slab grows by whole chunks, so that growing neither moves what is there nor
/// holds half of its memory in reserve.
const CHUNK: usize = 1024;

/// The place of a `T` in its [`Slab`]. Counts from one, so that `Option<Id>` is four bytes too.
pub(crate) struct Id<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> Id<T> {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("a slab holds fewer than 2^32 records"), PhantomData)
    }

    /// The id of a [`number`](Self::number), if that can be one.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(|number| Self(number, PhantomData))
    }

    /// The id as a number, for tables and for the outside. Never zero.
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
    /// All chunks but the last are full.
    chunks: Vec<Vec<Slot<T>>>,
    vacant: Option<Id<T>>,
    len: usize,
}

#[derive(Debug)]
enum Slot<T> {
    Occupied(T),
    /// The next vacant one.
    Vacant(Option<Id<T>>),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), vacant: None, len: 0 }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, record: T) -> Id<T> {
        self.len += 1;
        let Some(id) = self.vacant else { return self.push(record) };
        match std::mem::replace(self.slot_mut(id), Slot::Occupied(record)) {
            Slot::Vacant(next) => self.vacant = next,
            Slot::Occupied(_) => unreachable!("the list of vacant slots holds vacant ones only"),
        }
        id
    }

    fn push(&mut self, record: T) -> Id<T> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows as it fills: a small broker has but a few records.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("one was pushed if there was none");
        chunk.push(Slot::Occupied(record));
        Id::new(full + chunk.len() - 1)
    }

    pub(crate) fn remove(&mut self, id: Id<T>) -> T {
        let vacant = Slot::Vacant(self.vacant);
        let Slot::Occupied(record) = std::mem::replace(self.slot_mut(id), vacant) else {
            panic!("no record under the id {id:?}");
        };
        self.vacant = Some(id);
        self.len -= 1;
        if self.len == 0 && self.chunks.len() > 1 {
            *self = Self::default();
        }
        record
    }

    pub(crate) fn get(&self, id: Id<T>) -> Option<&T> {
        match self.chunks.get(id.index() / CHUNK)?.get(id.index() % CHUNK)? {
            Slot::Occupied(record) => Some(record),
            Slot::Vacant(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        match self.chunks.get_mut(id.index() / CHUNK)?.get_mut(id.index() % CHUNK)? {
            Slot::Occupied(record) => Some(record),
            Slot::Vacant(_) => None,
        }
    }

    fn slot_mut(&mut self, id: Id<T>) -> &mut Slot<T> {
        &mut self.chunks[id.index() / CHUNK][id.index() % CHUNK]
    }

    pub(crate) fn len(&self) -> usize {
        self.len
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
    fn vacated_ids_are_given_out_again() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..5).map(|n| slab.insert(n)).collect();
        assert_eq!((slab.remove(ids[1]), slab.remove(ids[3])), (1, 3));
        assert_eq!(slab.get(ids[1]), None);
        let again = [slab.insert(10), slab.insert(11)];
        assert!(again.contains(&ids[1]) && again.contains(&ids[3]));
        assert_eq!((slab.len(), slab[ids[0]], slab[ids[4]]), (5, 0, 4));
    }

    #[test]
    fn many_chunks_and_back_to_none() {
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
    fn an_id_of_another_time_finds_nothing() {
        let mut slab = Slab::default();
        let id = slab.insert('a');
        slab.remove(id);
        assert_eq!(slab.get(id), None);
        assert_eq!(Id::<char>::from_number(77).and_then(|id| slab.get(id)), None);
        assert_eq!(Id::<char>::from_number(0), None);
    }
}
