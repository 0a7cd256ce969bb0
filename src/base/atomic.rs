//! 64-bit counters, also on processors without 64-bit atomics.

#[cfg(target_has_atomic = "64")]
pub use std::sync::atomic::AtomicU64;

#[cfg(not(target_has_atomic = "64"))] // 32-bit MIPS
pub use portable_atomic::AtomicU64;
