//! Kernel TLS: per-socket bookkeeping, and the system calls that enable it. The engine chooses the sockets and
//! provides the keys.

#[cfg(not(all(feature = "tls", target_os = "linux", target_pointer_width = "64")))]
#[path = "absent.rs"]
pub mod kernel;
#[cfg(all(feature = "tls", target_os = "linux", target_pointer_width = "64"))]
#[path = "linux.rs"]
pub mod kernel;

use hashbrown::HashMap;

/// The most 16-byte blocks that one key may encrypt. RFC 8446, 5.5, allows 2^24.5 full-size records with
/// AES-GCM, which are 2^34.5 blocks.
const BLOCKS_MAX: u64 = 1 << 34;

/// Upper bound of the blocks that a record uses in addition to its data.
const BLOCKS_PER_RECORD: u64 = 4;

/// Maximum data bytes in a record.
const RECORD_BYTES: u64 = 16 * 1024;

/// Sockets that use kernel TLS, by the executor's number, with the number of blocks that their keys may still
/// encrypt. Other sockets only cost a lookup in a table that is mostly empty.
#[derive(Debug, Default)]
pub struct KernelTlsSockets(HashMap<u32, u64>);

impl KernelTlsSockets {
    /// Adds a socket whose keys are now in the kernel.
    pub fn add(&mut self, socket: u32) {
        self.0.insert(socket, BLOCKS_MAX);
    }

    /// Whether the socket uses kernel TLS.
    pub fn has(&self, socket: u32) -> bool {
        self.0.contains_key(&socket)
    }

    /// Removes a socket; returns whether it was present.
    pub fn remove(&mut self, socket: u32) -> bool {
        self.0.remove(&socket).is_some()
    }

    /// Records that `bytes` are about to be sent. Returns true once, when the keys reach their limit.
    pub fn spend(&mut self, socket: u32, bytes: usize) -> bool {
        let Some(left) = self.0.get_mut(&socket) else { return false };
        let bytes = bytes as u64;
        let blocks = bytes / 16 + (bytes / RECORD_BYTES + 1) * BLOCKS_PER_RECORD;
        match left.checked_sub(blocks) {
            Some(less) => *left = less,
            // The connection ends; data sent until then is within the safety margin.
            None => *left = u64::MAX,
        }
        *left == u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_limit_is_reported_once() {
        let mut sockets = KernelTlsSockets::default();
        assert!(!sockets.spend(7, usize::MAX), "the socket has no kernel TLS");
        sockets.add(7);
        let gib = 1 << 30;
        // 256 GiB minus the overhead of 65,536 records in each GiB.
        let spent = (0..300).position(|_| sockets.spend(7, gib));
        assert_eq!(spent, Some(255));
        assert!(sockets.remove(7) && !sockets.has(7));
    }

    #[test]
    fn small_records_count_more_than_their_bytes() {
        let mut sockets = KernelTlsSockets::default();
        sockets.add(1);
        sockets.spend(1, 64);
        assert_eq!(sockets.0[&1], BLOCKS_MAX - 8);
    }
}
