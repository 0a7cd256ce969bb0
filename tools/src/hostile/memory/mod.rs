//! Memory that clients can make a broker use: one kind of state after the other, against the
//! broker's bound for all of them together.

mod credentials;
mod report;
mod state;
mod unfinished;
mod unread;

pub use report::{Row, table};

use super::attack::{Attack, Setup};

/// `memory_bytes_max` of ringmq, and `memory_limit` of Mosquitto.
pub const BOUND_BYTES: u64 = 64 << 20;
/// Limit of the broker's address space (`ulimit -v`), which stops a broker without a limit of its
/// own.
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;
/// Allowed resident memory: a quarter more than the bound, for allocator overhead, and the memory
/// for code, buffers and threads.
pub const ALLOWED_BYTES: u64 = BOUND_BYTES / 4 * 5 + CONSTANT_BYTES;
/// The part of it that does not depend on the bound.
pub const CONSTANT_BYTES: u64 = 32 << 20;
/// Allowed size of the log of one trial.
pub const LOG_BYTES_MAX: u64 = 1 << 20;
/// Maximum amount of data that an attack sends over all its connections.
const SENT_BYTES_MAX: usize = 1_500 << 20;

/// All kinds of state.
pub fn all() -> Vec<Attack> {
    [unfinished::KINDS, unread::KINDS, credentials::KINDS, state::KINDS].concat()
}

/// A broker with the bound, and these additional lines in ringmq's table of limits.
fn bounded_with(limits: &str) -> Setup {
    Setup {
        ringmq: format!("[limits]\nmemory_bytes_max = {BOUND_BYTES}\n{limits}\n"),
        mosquitto: format!("memory_limit {BOUND_BYTES}\n"),
        address_space_bytes: Some(ADDRESS_SPACE_BYTES),
        ..Setup::default()
    }
}

/// A broker with the bound.
fn bounded(_: &super::attack::Target) -> Setup {
    bounded_with("")
}
