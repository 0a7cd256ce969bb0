//! Every bound of the generator in one place: a load run ends in time, fits in memory and stays
//! within the descriptors of one process.

use std::time::Duration;

/// Clients of one run; the descriptor limit is checked apart.
pub const CLIENTS_MAX: u32 = 200_000;
/// Publisher and subscriber pairs whose order is followed, 16 bytes each.
pub const STREAMS_MAX: u64 = 4_000_000;
/// Connections from one source address. The kernel looks for ports in steps of two, and slowly once
/// half of the 28,232 that it has by default are taken.
pub const CLIENTS_PER_SOURCE: u32 = 12_000;
/// Ports that stay taken by connections that are closed, where clients come and go: the kernel keeps
/// each for a minute (TIME_WAIT), in which 50,000 a second may follow it.
pub const PORTS_RESTING: u32 = 60 * 50_000;
/// Source addresses of one run: 127.1.0.1 to 127.1.255.255.
pub const SOURCES_MAX: u32 = 65_535;
/// Generator processes of one run.
pub const PROCESSES_MAX: u32 = 64;
/// Topics of one fan-out, and Topic Filters of one SUBSCRIBE with it; retained messages of a set.
pub const TOPICS_MAX: u32 = 100_000;
/// Longest measured span.
pub const SPAN_S_MAX: f64 = 3_600.0;
/// Largest payload offered.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Messages a publisher may have under way, window and in-flight alike. Packet Identifiers are
/// given out in turn, so it has to stay below their number.
pub const WINDOW_MAX: u32 = 60_000;
/// Connections being opened at a time: below the listen backlog of 100 that some brokers use.
pub const CONNECTING_MAX: usize = 64;
/// Bytes read from a socket at a time.
pub const READ_BYTES: usize = 256 * 1024;
/// Encoded bytes waiting for one socket; a publisher stops encoding above it.
pub const OUTGOING_BYTES_MAX: usize = 256 * 1024;
/// Largest packet accepted from the broker.
pub const PACKET_BYTES_MAX: usize = 2 << 20;
/// Gaps remembered for each stream; arrivals in gaps beyond these count as duplicates. Members of
/// a group that are served in turn leave many between them.
pub const GAPS_MAX: usize = 16_384;
/// Generator processes that connect at a time, when there are several.
pub const HOLDERS_CONNECTING_MAX: usize = 2;
/// Time without another connection after which there will be none.
pub const HOLD_STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for all clients to connect and subscribe.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// A run without a delivery for so long is over, and what is missing counts as lost.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for all processes of a run to be ready, and to say what they found.
pub const PROCESS_TIMEOUT: Duration = Duration::from_secs(120);
/// Time a broker gets to close after DISCONNECT before the client does.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// Time a broker gets to listen after its start, and to end after SIGTERM.
pub const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Descriptors kept for everything but clients.
pub const DESCRIPTORS_SPARE: u64 = 64;

const _: () = assert!(WINDOW_MAX < u16::MAX as u32);
const _: () = assert!(PACKET_BYTES_MAX > PAYLOAD_BYTES_MAX as usize);
