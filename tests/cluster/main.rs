//! Members of a cluster on a real engine: three servers on loopback, and nodes that are processes of their own, so that each
//! can be killed and stopped. A node here is a carrier without a broker around it: this program, started again.
#![cfg(all(unix, feature = "cluster"))]

mod engine;
#[path = "../support/folder.rs"]
mod folder;
mod members;
mod node;
mod spawned;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time: each has seven processes.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
