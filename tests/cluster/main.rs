//! Members of a cluster on a real engine: three servers on loopback, and nodes that are processes of their own, so that each
//! can be killed and stopped. A node here is a carrier without a broker around it: this program, started again.
#![cfg(all(unix, feature = "cluster"))]

mod brokers;
mod documented;
mod engine;
#[path = "../support/folder.rs"]
mod folder;
mod load;
mod members;
#[path = "../support/next_packet.rs"]
mod next_packet;
mod node;
mod partitions;
mod replicated;
#[path = "../support/shell.rs"]
mod shell;
mod shipped;
mod spawned;
#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "../conformance/support/mod.rs"]
mod support;
#[path = "../support/uninterrupted.rs"]
mod uninterrupted;
#[path = "../bridge/witness.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod witness;

use std::time::Duration;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Timeout of every operation.
const PATIENCE: Duration = Duration::from_secs(60);

/// One test at a time: each has seven processes.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
