//! A hash table from a key to a 32-bit id that does not store the key: the caller compares it with
//! the record of the id. Knows no record.

use hashbrown::HashTable;

/// Number of entries from which a table is split. A table moves all its entries when it grows; with
/// a million entries, that would stall the core for tens of milliseconds.
const WHOLE_MAX: usize = 1 << 14;

/// Number of parts of a split table.
const PARTS: usize = 64;

/// Eight bytes per entry. The hash is stored beside the id, so that growing touches no record, and
/// a search compares only records with an equal hash.
#[derive(Debug, Default)]
pub(crate) struct IdTable {
    /// All entries, until the table is split.
    whole: HashTable<Entry>,
    /// Empty, or [`PARTS`] tables selected by some bits of the hash.
    parts: Vec<HashTable<Entry>>,
    len: usize,
    /// Bytes of memory of all tables.
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    id: u32,
}

impl IdTable {
    /// The id under `hash` for which `is` returns true.
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let part = self.parts.get(part(hash)).unwrap_or(&self.whole);
        let found = part.find(spread(hash), |entry| entry.hash == hash && is(entry.id));
        found.map(|entry| entry.id)
    }

    /// Adds an entry whose key is not in the table.
    pub(crate) fn insert(&mut self, hash: u32, id: u32) {
        if self.len == WHOLE_MAX && self.parts.is_empty() {
            self.cut();
        }
        let entry = Entry { hash, id };
        let part = self.parts.get_mut(part(hash)).unwrap_or(&mut self.whole);
        if part.len() == part.capacity() {
            let before = part.allocation_size();
            part.reserve(1, |entry| spread(entry.hash));
            self.bytes += part.allocation_size();
            self.bytes -= before;
        }
        part.insert_unique(spread(hash), entry, |entry| spread(entry.hash));
        self.len += 1;
    }

    /// Replaces the id `from`, which is in the table under `hash`, by `to`.
    pub(crate) fn replace(&mut self, hash: u32, from: u32, to: u32) {
        let entry = self.part_mut(hash).find_mut(spread(hash), |entry| entry.id == from);
        entry.expect("an entry to replace is in the table").id = to;
    }

    /// Removes `id`, which is in the table under `hash`.
    pub(crate) fn remove(&mut self, hash: u32, id: u32) {
        let part = self.parts.get_mut(part(hash)).unwrap_or(&mut self.whole);
        let entry = part.find_entry(spread(hash), |entry| entry.id == id);
        entry.expect("an entry to remove is in the table").remove();
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if part.num_buckets() > 16 * part.len().max(4) {
            let before = part.allocation_size();
            part.shrink_to(2 * part.len(), |entry| spread(entry.hash));
            self.bytes += part.allocation_size();
            self.bytes -= before;
        }
    }

    /// Bytes of allocated memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn part_mut(&mut self, hash: u32) -> &mut HashTable<Entry> {
        self.parts.get_mut(part(hash)).unwrap_or(&mut self.whole)
    }

    fn cut(&mut self) {
        self.parts.resize_with(PARTS, HashTable::new);
        self.bytes = self.parts.capacity() * size_of::<HashTable<Entry>>();
        for entry in std::mem::take(&mut self.whole) {
            let part = &mut self.parts[part(entry.hash)];
            part.insert_unique(spread(entry.hash), entry, |entry| spread(entry.hash));
        }
        self.bytes += self.parts.iter().map(HashTable::allocation_size).sum::<usize>();
    }
}

/// The table derives the bucket from the low bits of a hash and a seven-bit tag from the high ones,
/// so all 32 bits are placed at both ends.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Bits below the seven of the tag, so that neither tags nor buckets within a part are all equal.
fn part(hash: u32) -> usize {
    (hash >> 19) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hashes_are_distinguished_by_their_records() {
        let records = ["a", "b", "c"];
        let mut table = IdTable::default();
        for id in 0..3 {
            table.insert(7, id);
        }
        for (id, text) in records.iter().enumerate() {
            assert_eq!(table.find(7, |id| records[id as usize] == *text), Some(id as u32));
        }
        table.remove(7, 1);
        assert_eq!(table.find(7, |id| records[id as usize] == "b"), None);
        table.replace(7, 2, 9);
        assert_eq!(table.find(7, |id| id == 9), Some(9));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn growing_loses_no_entry_and_removal_frees_memory() {
        let mut table = IdTable::default();
        let hash = |id: u32| id.wrapping_mul(0x9E37_79B9);
        let ids = 0..3 * WHOLE_MAX as u32;
        ids.clone().for_each(|id| table.insert(hash(id), id));
        assert_eq!(table.parts.len(), PARTS);
        assert!(table.parts.iter().all(|part| part.len() > WHOLE_MAX / PARTS));
        assert!(ids.clone().all(|id| table.find(hash(id), |other| other == id) == Some(id)));
        let held = |table: &IdTable| {
            let parts: usize = table.parts.iter().map(HashTable::allocation_size).sum();
            parts + table.whole.allocation_size() + table.parts.capacity() * 32
        };
        let full = table.bytes();
        assert_eq!(full, held(&table));
        let (gone, kept) = (0..47 * WHOLE_MAX as u32 / 16, 47 * WHOLE_MAX as u32 / 16..ids.end);
        gone.for_each(|id| table.remove(hash(id), id));
        assert_eq!(table.bytes(), held(&table));
        assert!(table.bytes() < full / 4, "few are left, and they take {} bytes", table.bytes());
        let ids = kept;
        assert!(ids.clone().all(|id| table.find(hash(id), |other| other == id) == Some(id)));
        ids.for_each(|id| table.remove(hash(id), id));
        assert!(table.is_empty() && table.whole.capacity() == 0 && table.parts.capacity() == 0);
    }
}
