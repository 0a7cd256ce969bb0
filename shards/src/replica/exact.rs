//! Fingerprints of filters without wildcards, with the cores that announced them.

use hashbrown::HashTable;

use super::Fingerprint;

/// Number of parts of the table: the growth of a single table with a million entries would stall
/// the core.
const PARTS: usize = 256;

/// Bits of an entry for the core, below those of the fingerprint.
const CORE_BITS: u32 = 10;

/// A multiset of fingerprints with their cores: two filters of one core with equal fingerprints are
/// two entries, so that the removal of one does not hide the other.
#[derive(Debug, Default)]
pub(super) struct Exact {
    /// Empty, or [`PARTS`] tables by the highest bits of the fingerprint.
    parts: Vec<HashTable<u64>>,
    len: usize,
    /// Bytes of memory of all parts.
    bytes: usize,
}

impl Exact {
    pub(super) fn insert(&mut self, core: u16, filter: Fingerprint) {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, HashTable::new);
            self.bytes = self.parts.capacity() * size_of::<HashTable<u64>>();
        }
        let part = &mut self.parts[part(filter.0)];
        if part.len() == part.capacity() {
            let before = part.allocation_size();
            part.reserve(1, |&entry| spread(entry));
            self.bytes += part.allocation_size();
            self.bytes -= before;
        }
        part.insert_unique(spread(filter.0), entry(core, filter), |&entry| spread(entry));
        self.len += 1;
    }

    /// Removes one entry; false if there was none.
    pub(super) fn remove(&mut self, core: u16, filter: Fingerprint) -> bool {
        let gone = entry(core, filter);
        let Some(part) = self.parts.get_mut(part(filter.0)) else { return false };
        let Ok(found) = part.find_entry(spread(filter.0), |&entry| entry == gone) else {
            return false;
        };
        found.remove();
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if part.num_buckets() > 16 * part.len().max(4) {
            let before = part.allocation_size();
            part.shrink_to(2 * part.len(), |&entry| spread(entry));
            self.bytes += part.allocation_size();
            self.bytes -= before;
        }
        true
    }

    pub(super) fn cores(&self, filter: Fingerprint) -> impl Iterator<Item = u16> {
        let core_mask = (1 << CORE_BITS) - 1;
        let part = self.parts.get(part(filter.0));
        let found = part.into_iter().flat_map(move |part| part.iter_hash(spread(filter.0)));
        let is_it = move |&&entry: &&u64| entry & !core_mask == filter.0 & !core_mask;
        found.filter(is_it).map(move |entry| (entry & core_mask) as u16)
    }

    /// Bytes of allocated memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of fingerprints, each counted once per announcement.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn entry(core: u16, filter: Fingerprint) -> u64 {
    assert!(core < 1 << CORE_BITS, "there are at most 1,024 cores");
    filter.0 >> CORE_BITS << CORE_BITS | u64::from(core)
}

/// Hash of the bits that an entry and its fingerprint share. The table derives the bucket from the
/// low bits of a hash and a tag from the high ones; the highest bits select the part.
fn spread(hash: u64) -> u64 {
    (hash >> CORE_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn part(hash: u64) -> usize {
    (hash >> 56) as usize % PARTS
}
