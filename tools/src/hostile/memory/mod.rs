//! What clients can make a broker hold: one kind of state after the other, against the bound that it has
//! for all of them together.

mod credentials;
mod report;
mod state;
mod unfinished;
mod unread;

pub use report::{Row, table};

use super::field::{Attack, Setup};

/// `memory_bytes_max` of ringmq, and `memory_limit` of Mosquitto.
pub const BOUND_BYTES: u64 = 64 << 20;
/// Address space that a broker has (`ulimit -v`): one that does not stop by itself is stopped.
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;
/// What resident memory may come to: a quarter more than the bound, as an allocator does not fill its
/// pages, and what a broker has beside what clients make it hold: its code, its buffers, its threads.
pub const ALLOWED_BYTES: u64 = BOUND_BYTES / 4 * 5 + CONSTANT_BYTES;
/// The part of it that does not depend on the bound.
pub const CONSTANT_BYTES: u64 = 32 << 20;
/// What may be written to the log in one trial.
pub const LOG_BYTES_MAX: u64 = 1 << 20;
/// What an attack sends at most, all its connections together.
const SENT_BYTES_MAX: usize = 1_500 << 20;

/// All kinds.
pub fn all() -> Vec<Attack> {
    [unfinished::KINDS, unread::KINDS, credentials::KINDS, state::KINDS].concat()
}

/// A broker with the bound, and these lines more in ringmq's table of limits.
fn bounded_with(limits: &str) -> Setup {
    Setup {
        ringmq: format!("[limits]\nmemory_bytes_max = {BOUND_BYTES}\n{limits}\n"),
        mosquitto: format!("memory_limit {BOUND_BYTES}\n"),
        address_space_bytes: Some(ADDRESS_SPACE_BYTES),
        ..Setup::default()
    }
}

/// A broker with the bound.
fn bounded(_: &super::field::Field) -> Setup {
    bounded_with("")
}
