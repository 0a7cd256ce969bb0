//! Sockets whose TLS the kernel goes on with: what the executors know of them, and how the kernel is
//! asked. The engine decides which they are, and gives the keys.

#[cfg(not(all(feature = "tls", target_os = "linux", target_pointer_width = "64")))]
#[path = "absent.rs"]
pub mod kernel;
#[cfg(all(feature = "tls", target_os = "linux", target_pointer_width = "64"))]
#[path = "linux.rs"]
pub mod kernel;

use hashbrown::HashMap;

/// Blocks of sixteen bytes that a key may seal. RFC 8446, 5.5, allows AES-GCM 2^24.5 records of full
/// size, which are 2^34.5 blocks.
const BLOCKS_MAX: u64 = 1 << 34;

/// Blocks that a record takes besides its bytes, at most.
const BLOCKS_PER_RECORD: u64 = 4;

/// Bytes of a record at most.
const RECORD_BYTES: u64 = 16 * 1024;

/// Sockets whose TLS is the kernel's, by the executor's number, with how much their keys may still seal.
/// Plain ones do not stand here, and cost a look at a table that is mostly empty.
#[derive(Debug, Default)]
pub struct Sealed(HashMap<u32, u64>);

impl Sealed {
    /// The kernel has the keys of this one.
    pub fn add(&mut self, socket: u32) {
        self.0.insert(socket, BLOCKS_MAX);
    }

    /// Whether this is one of them.
    pub fn has(&self, socket: u32) -> bool {
        self.0.contains_key(&socket)
    }

    /// Forgets one; whether it was there.
    pub fn remove(&mut self, socket: u32) -> bool {
        self.0.remove(&socket).is_some()
    }

    /// So many bytes are about to be sent. True once, when the keys have sealed as much as they may.
    pub fn spend(&mut self, socket: u32, bytes: usize) -> bool {
        let Some(left) = self.0.get_mut(&socket) else { return false };
        let bytes = bytes as u64;
        let blocks = bytes / 16 + (bytes / RECORD_BYTES + 1) * BLOCKS_PER_RECORD;
        match left.checked_sub(blocks) {
            Some(less) => *left = less,
            // The connection ends; what goes out until then is within the margin.
            None => *left = u64::MAX,
        }
        *left == u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spent_once_after_as_much_as_they_may_seal() {
        let mut sealed = Sealed::default();
        assert!(!sealed.spend(7, usize::MAX), "it is plain");
        sealed.add(7);
        let gib = 1 << 30;
        // 256 GiB less what records take besides: 65,536 records in each of them.
        let spent = (0..300).position(|_| sealed.spend(7, gib));
        assert_eq!(spent, Some(255));
        assert!(sealed.remove(7) && !sealed.has(7));
    }

    #[test]
    fn small_records_count_more_than_their_bytes() {
        let mut sealed = Sealed::default();
        sealed.add(1);
        sealed.spend(1, 64);
        assert_eq!(sealed.0[&1], BLOCKS_MAX - 8);
    }
}
