//! Filters without wildcards: words in open-addressed tables, which one thread writes while others read them.
//!
//! A word never moves within its table, so that a reader that walks from a word's first place to the next empty one misses
//! nothing. A table that is full, or nearly empty, is replaced as a whole.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::epochs::Epochs;
use super::{CLASS_BITS, Class, NODE_BITS};
use crate::replica::Fingerprint;
use crate::sync::{AtomicPtr, AtomicU64};

/// Number of tables, by the highest bits of the fingerprint: replacing a single table with a million words would take
/// milliseconds.
pub(super) const PARTS: usize = if cfg!(loom) { 1 } else { 4096 };

/// The fewest places of a table.
const PLACES_MIN: usize = if cfg!(loom) { 4 } else { 8 };

/// A place that was never used. Words have a class in their lowest bits.
const EMPTY: u64 = 0;

/// A place whose word has been removed.
const REMOVED: u64 = 1 << CLASS_BITS;

#[derive(Debug)]
struct Table {
    places: Box<[AtomicU64]>,
}

impl Table {
    fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| AtomicU64::new(EMPTY)).collect() }
    }

    /// The places where a word of this hash may be, from the first one on.
    fn walk(&self, hash: u64) -> impl Iterator<Item = &AtomicU64> {
        let mask = self.places.len() - 1;
        (0..self.places.len())
            .map(move |step| &self.places[(hash as usize).wrapping_add(step) & mask])
    }

    /// Puts a word where there is room. Returns whether the place had not been used before.
    fn insert(&self, word: u64) -> bool {
        let is_free = |place: &&AtomicU64| matches!(place.load(Relaxed), EMPTY | REMOVED);
        let place = self.walk(spread(word)).find(is_free).expect("a table is never full");
        let is_unused = place.load(Relaxed) == EMPTY;
        place.store(word, Release);
        is_unused
    }
}

/// The tables.
#[derive(Debug)]
pub(super) struct Exact {
    parts: Box<[AtomicPtr<Table>]>,
}

impl Exact {
    pub fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| AtomicPtr::new(ptr::null_mut())).collect() }
    }

    /// Calls `found` for each word of a fingerprint. The caller is pinned, or is the writer.
    pub fn find(&self, filter: Fingerprint, mut found: impl FnMut(u16, Class)) {
        let table = self.parts[part(filter.0)].load(Acquire);
        // SAFETY: the pointer is null or that of a table of `Box::into_raw`, which the writer frees only once no reader
        // can have it any more. A table changes only by its atomic words.
        let Some(table) = (unsafe { table.as_ref() }) else { return };
        for place in table.walk(spread(filter.0)) {
            let word = place.load(Acquire);
            if word == EMPTY {
                return;
            }
            if key(word) == key(filter.0) && word != REMOVED {
                let node = word >> CLASS_BITS & ((1 << NODE_BITS) - 1);
                let class = Class::ALL[(word & ((1 << CLASS_BITS) - 1)) as usize - 1];
                found(node as u16, class);
            }
        }
    }
}

impl Drop for Exact {
    fn drop(&mut self) {
        for part in &self.parts {
            let table = part.load(Relaxed);
            if !table.is_null() {
                // SAFETY: a table of `Box::into_raw`, which neither writer nor reader can reach any more.
                drop(unsafe { Box::from_raw(table) });
            }
        }
    }
}

/// How full a table is.
#[derive(Debug, Default, Clone, Copy)]
struct Fill {
    words: u32,
    /// Places that are not empty.
    used: u32,
    places: u32,
}

/// A table that was replaced in an epoch.
#[derive(Debug)]
struct Retired(usize, Box<Table>);

/// What the one thread that writes knows of the tables.
#[derive(Debug)]
pub(super) struct ExactWriter {
    fills: Box<[Fill]>,
    retired: VecDeque<Retired>,
    len: usize,
    /// Places of all tables, those that wait to be freed among them.
    places: usize,
}

impl ExactWriter {
    pub fn new() -> Self {
        let fills = vec![Fill::default(); PARTS].into();
        Self { fills, retired: VecDeque::new(), len: 0, places: 0 }
    }

    pub fn insert(&mut self, exact: &Exact, epochs: &Epochs, word: u64) {
        let number = part(word);
        let fill = self.fills[number];
        if fill.used + 1 > fill.places / 4 * 3 {
            self.replace(exact, epochs, number, (fill.words as usize + 1) * 2);
        }
        // SAFETY: the current table of this part, which only this thread replaces; it is not null after `replace`.
        let table = unsafe { &*exact.parts[number].load(Relaxed) };
        let fill = &mut self.fills[number];
        fill.used += u32::from(table.insert(word));
        fill.words += 1;
        self.len += 1;
    }

    /// Removes a word; false if there was none.
    pub fn remove(&mut self, exact: &Exact, epochs: &Epochs, word: u64) -> bool {
        let number = part(word);
        // SAFETY: null, or the current table of this part, which only this thread replaces.
        let Some(table) = (unsafe { exact.parts[number].load(Relaxed).as_ref() }) else {
            return false;
        };
        let mut walk = table.walk(spread(word));
        let found =
            walk.find(|place| matches!(place.load(Relaxed), EMPTY) || place.load(Relaxed) == word);
        let Some(place) = found.filter(|place| place.load(Relaxed) == word) else { return false };
        place.store(REMOVED, Release);
        self.len -= 1;
        self.fills[number].words -= 1;
        self.give_back(exact, epochs, number);
        true
    }

    /// Removes the words of a node in a part; how many there were.
    pub fn forget(&mut self, exact: &Exact, epochs: &Epochs, node: u16, number: usize) -> usize {
        // SAFETY: null, or the current table of this part, which only this thread replaces.
        let Some(table) = (unsafe { exact.parts[number].load(Relaxed).as_ref() }) else { return 0 };
        let is_of = |word: u64| {
            !matches!(word, EMPTY | REMOVED)
                && word >> CLASS_BITS & ((1 << NODE_BITS) - 1) == u64::from(node)
        };
        let mut forgotten = 0;
        for place in table.places.iter().filter(|place| is_of(place.load(Relaxed))) {
            place.store(REMOVED, Release);
            forgotten += 1;
        }
        self.len -= forgotten;
        self.fills[number].words -= forgotten as u32;
        match self.fills[number].words {
            0 => self.drop_table(exact, epochs, number),
            _ => self.give_back(exact, epochs, number),
        }
        forgotten
    }

    /// Replaces a table of which little is used.
    fn give_back(&mut self, exact: &Exact, epochs: &Epochs, number: usize) {
        let fill = self.fills[number];
        if fill.places as usize > PLACES_MIN && fill.places > 8 * fill.words {
            self.replace(exact, epochs, number, fill.words as usize * 2);
        }
    }

    /// A part has no table any more.
    fn drop_table(&mut self, exact: &Exact, epochs: &Epochs, number: usize) {
        let old = exact.parts[number].load(Relaxed);
        exact.parts[number].store(ptr::null_mut(), Release);
        self.fills[number] = Fill::default();
        self.retire(epochs, old);
        self.free(epochs);
    }

    /// Keeps a table that nobody gets any more until no reader has it.
    fn retire(&mut self, epochs: &Epochs, old: *mut Table) {
        if !old.is_null() {
            // SAFETY: from `Box::into_raw`; nobody gets the pointer from now on, and it is freed only once no reader has
            // it.
            self.retired.push_back(Retired(epochs.end(), unsafe { Box::from_raw(old) }));
        }
    }

    /// Replaces the table of a part by one with room for so many words, and at least half of it free.
    fn replace(&mut self, exact: &Exact, epochs: &Epochs, number: usize, room: usize) {
        let next = Table::new(room.next_power_of_two().max(PLACES_MIN));
        let old = exact.parts[number].load(Relaxed);
        // SAFETY: null, or the current table of this part, which only this thread replaces.
        if let Some(old) = unsafe { old.as_ref() } {
            let words = old.places.iter().map(|place| place.load(Relaxed));
            words.filter(|&word| word != EMPTY && word != REMOVED).for_each(|word| {
                next.insert(word);
            });
        }
        let fill = &mut self.fills[number];
        (fill.used, fill.places) = (fill.words, next.places.len() as u32);
        self.places += next.places.len();
        // Release: whoever has the pointer sees the words.
        exact.parts[number].store(Box::into_raw(Box::new(next)), Release);
        self.retire(epochs, old);
        self.free(epochs);
    }

    /// Frees replaced tables that no reader can see any more.
    pub fn free(&mut self, epochs: &Epochs) {
        while let Some(Retired(_, table)) =
            self.retired.pop_front_if(|Retired(epoch, _)| epochs.is_over(*epoch))
        {
            self.places -= table.places.len();
        }
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub fn heap_bytes(&self) -> usize {
        self.places * size_of::<u64>() + PARTS * (size_of::<Fill>() + size_of::<*const Table>())
    }
}

/// The bits that a word and its fingerprint share.
fn key(word: u64) -> u64 {
    word >> (NODE_BITS + CLASS_BITS)
}

/// Hash of these bits, whose low bits choose the first place.
fn spread(word: u64) -> u64 {
    key(word).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
}

fn part(word: u64) -> usize {
    (word >> 52) as usize % PARTS
}
