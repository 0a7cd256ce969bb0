//! The hash of texts and of pairs of ids, seeded. Knows no table.

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use std::fmt;
use std::hash::Hasher;

/// Hashes under a secret seed: a peer that does not know it cannot choose topics that collide.
#[derive(Clone)]
pub(crate) struct Hashing {
    seed: u64,
    shared: SharedSeed,
}

impl Hashing {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, shared: SharedSeed::from_u64(seed) }
    }

    pub(crate) fn text(&self, text: &str) -> u32 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write(text.as_bytes());
        hasher.finish() as u32
    }

    pub(crate) fn number(&self, number: u64) -> u32 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write_u64(number);
        hasher.finish() as u32
    }

    pub(crate) fn pair(&self, first: u32, second: u32) -> u32 {
        self.number(u64::from(first) << 32 | u64::from(second))
    }
}

impl fmt::Debug for Hashing {
    /// The seed is secret: it does not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashing")
    }
}
