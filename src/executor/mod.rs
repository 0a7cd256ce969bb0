//! Executors wait for sockets, read, write and close them, and call the engine. They know no protocol.
//!
//! An executor is the only part that differs between platforms. [`poll`] runs everywhere, `uring`
//! where Linux has io_uring. What is the same under all of them, the engine, the mesh and the
//! clock, is in [`Core`]; [`threads`] puts one executor on each core's thread.

mod core;
pub mod kernel_tls;
mod linger;
mod lingering;
pub mod mesh;
mod moderation;
pub mod placement;
pub mod poll;
pub mod probe;
mod progress;
#[cfg(all(
    any(feature = "monoio", feature = "glommio"),
    target_os = "linux",
    target_pointer_width = "64"
))]
pub mod runtime;
mod sockets;
#[cfg(feature = "store")]
mod storage;
pub mod threads;
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
pub mod uring;

use std::io;
use std::time::Duration;

use crate::base::limits;
use crate::platform;

pub use self::core::{Core, Parts};
use crate::base::waker::Waker;
pub use crate::control::listener::{Listener, ListenerSocket};

/// Connections accepted in a turn at most, so that a burst leaves time for the established connections.
const ACCEPTS_PER_TURN: usize = 256;
/// How long accepting pauses when no descriptor is free.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long clients may take to read their last bytes when the broker stops.
const FLUSH_AT_STOP: Duration = Duration::from_secs(5);

/// Number of sockets that a core has to be able to hold: all connections, those being refused, and those
/// that linger. `connections_max` is 0 if it is not known yet.
pub fn sockets_max(connections_max: u32) -> u32 {
    let others = (limits::REFUSED_CONNECTIONS_MAX + linger::LINGERING_MAX) as u32;
    match connections_max {
        0 => u32::MAX,
        connections => connections.saturating_add(others),
    }
}

/// Direct descriptors of one ring, for a core that may have to hold so many sockets: no kernel takes
/// a larger table than the process may have descriptors.
pub fn table_max(sockets_max: u32) -> u32 {
    u64::from(sockets_max).min(platform::descriptors_max().unwrap_or(TABLE_UNBOUNDED)) as u32
}

/// Direct descriptors of a ring where nothing bounds descriptors.
const TABLE_UNBOUNDED: u64 = 1 << 20;

/// The event loop of a core's thread.
pub trait Executor: Sized + 'static {
    /// A socket as it is passed on to another core.
    type Socket: Send;
    /// What is made for a core before its thread starts.
    type Bootstrap: Send;

    /// The bootstrap of each core, and the core's waker.
    fn bootstraps(cores: u16) -> io::Result<Vec<(Self::Bootstrap, Waker)>>;

    /// Builds the executor, on the thread that will run it.
    fn open(parts: Parts<Self>) -> io::Result<Self>;

    /// Serves until a stop is requested, then ends all connections and flushes.
    fn run(self) -> io::Result<()>;
}

/// A core's listeners; none when another core accepts its connections.
pub type Listeners = Vec<Listener>;

/// Errors of `accept` that concern the connection, not this process: accept(2) passes on what the
/// network reported about it.
fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::Interrupted
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::TimedOut
    )
}
