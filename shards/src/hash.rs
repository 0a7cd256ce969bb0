//! Seeded hashes of texts and of pairs of ids. Knows no table.

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use std::fmt;
use std::hash::Hasher;

/// Hash functions with a secret seed: a peer that does not know the seed cannot choose colliding
/// texts. Hashes must not be sent to a peer: the function is fast, and protects its seed only while
/// its hashes are unknown.
#[derive(Clone)]
pub struct Hashing {
    seed: u64,
    shared: SharedSeed,
}

/// A seed that makes nearly all hashes equal in tests, to find code that relies on hashes alone.
pub(crate) const COLLIDING_SEED: u64 = u64::MAX;

impl Hashing {
    /// Hash functions with a seed that must not influence anything visible to a peer.
    pub fn new(seed: u64) -> Self {
        Self { seed, shared: SharedSeed::from_u64(seed) }
    }

    pub(crate) fn text(&self, text: impl AsRef<[u8]>) -> u32 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write(text.as_ref());
        self.cut(hasher.finish())
    }

    /// The 64-bit hash of a text.
    #[inline]
    pub fn long(&self, text: impl AsRef<[u8]>) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write(text.as_ref());
        let hash = hasher.finish();
        let collide = cfg!(test) && self.seed == COLLIDING_SEED;
        if collide { hash & 1 } else { hash }
    }

    pub(crate) fn number(&self, number: u64) -> u32 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write_u64(number);
        self.cut(hasher.finish())
    }

    fn cut(&self, hash: u64) -> u32 {
        let collide = cfg!(test) && self.seed == COLLIDING_SEED;
        if collide { hash as u32 & 1 } else { hash as u32 }
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
