//! Bounds of what a node holds for other nodes. They are not configurable: the nodes of a cluster rely on each other's.

use std::time::Duration;

/// Maximum size of a frame, header included. A message of NATS may have 1 MiB by default; larger frames save nothing, and
/// delay the first message in them.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Maximum encoded size of an item: a packet of MQTT of the maximum size (section 2.1.4 of MQTT 5: 268,435,455 bytes after
/// its fixed header), and what the codec adds to it.
pub const ITEM_BYTES_MAX: usize = 256 * 1024 * 1024 + 4 * 64 * 1024;

/// Load of a lane from which publishers wait, see [`Lane::is_loaded`](super::lane::Lane::is_loaded), and the bytes that are
/// sent before the receiver has taken some of them.
pub const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// Load of all lanes of a node together: a server of NATS disconnects a client that has 64 MiB pending.
pub const WINDOWS_BYTES: usize = 48 * 1024 * 1024;

/// The window of each lane of a node with lanes to so many others, for [`Lane::set_window`](super::lane::Lane::set_window).
pub fn window_of(others: usize) -> usize {
    WINDOWS_BYTES.checked_div(others).unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES)
}

/// What a frame counts for in the load of a lane, beyond its bytes: its entry, and its part of the allocator's overhead.
pub const FRAME_OVERHEAD_BYTES: usize = 128;

/// A frame's buffer starts with this capacity.
pub const FRAME_BYTES_MIN: usize = 4 * 1024;

/// Buffers of frames that a lane keeps for later frames.
pub const POOLED_FRAMES_MAX: usize = 4;

/// A sender whose frames are not taken for this long sends the first of them again.
pub const SILENCE_MIN: Duration = Duration::from_millis(200);

/// The pause before the next repetition doubles up to this.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A receiver that has nothing to send reports what it has taken after this time at the latest.
pub const REPORT_DELAY: Duration = Duration::from_millis(20);

/// A receiver that has taken this much reports it at once.
pub const REPORT_BYTES: usize = WINDOW_BYTES / 4;

/// A lane on which nothing was sent for this long sends an empty frame, from which the other node knows that this one is
/// there, and which repeats a receipt that was lost.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Time for which a filter without subscribers stays announced: clients that reconnect change nothing.
pub const WITHDRAWAL_DELAY: Duration = Duration::from_secs(10);

/// Filters that wait for that time at most: of more, the oldest are withdrawn at once, so that a client that subscribes to
/// new filters all the time costs no more than these.
pub const WITHDRAWALS_MAX: usize = 65_536;

/// Interval at which a node sends itself a message through the engine.
pub const ECHO_INTERVAL: Duration = Duration::from_millis(500);

/// Time without such a message after which the server is left for another one.
pub const ECHO_LIMIT: Duration = Duration::from_secs(2);

const _: () = assert!(WINDOW_BYTES <= WINDOWS_BYTES && FRAME_BYTES_MAX <= REPORT_BYTES);
const _: () = assert!(REPORT_DELAY.as_millis() * 4 < SILENCE_MIN.as_millis());
const _: () = assert!(ITEM_BYTES_MAX < u32::MAX as usize);
