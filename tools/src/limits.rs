//! All bounds of the generator: a run ends in time, fits into memory and stays within the
//! descriptors of one process.

use std::time::Duration;

/// Maximum number of clients per run; the descriptor limit is checked separately.
pub const CLIENTS_MAX: u32 = 200_000;
/// Maximum number of publisher and subscriber pairs whose order is tracked, 16 bytes each.
pub const STREAMS_MAX: u64 = 4_000_000;
/// Connections per source address. The kernel searches for ports in steps of two, and slowly once
/// half of the default 28,232 are in use.
pub const CLIENTS_PER_SOURCE: u32 = 12_000;
/// Ports in TIME_WAIT, where clients connect and disconnect: the kernel keeps each port for a
/// minute, at up to 50,000 connections per second.
pub const PORTS_RESTING: u32 = 60 * 50_000;
/// Source addresses per run: 127.1.0.1 to 127.1.255.255.
pub const SOURCES_MAX: u32 = 65_535;
/// Maximum number of generator processes per run.
pub const PROCESSES_MAX: u32 = 64;
/// Maximum number of topics of a fan-out, and thus of Topic Filters per SUBSCRIBE; retained
/// messages per set.
pub const TOPICS_MAX: u32 = 100_000;
/// Maximum length of the measured span.
pub const SPAN_S_MAX: f64 = 3_600.0;
/// Maximum payload size.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Maximum number of messages in flight per publisher, in both kinds of loop. Packet Identifiers
/// are assigned in turn, so this must be below their number.
pub const WINDOW_MAX: u32 = 60_000;
/// Connections being opened at a time: below the listen backlog of 100 that some brokers use.
pub const CONNECTING_MAX: usize = 64;
/// Maximum size of one read.
pub const READ_BYTES: usize = 256 * 1024;
/// Maximum amount of encoded bytes for one socket; above it, a publisher stops encoding.
pub const OUTGOING_BYTES_MAX: usize = 256 * 1024;
/// Maximum size of a packet from the broker.
pub const PACKET_BYTES_MAX: usize = 2 << 20;
/// Gaps remembered per stream; messages that arrive in further gaps count as duplicates. Members of
/// a group with round-robin delivery leave many gaps.
pub const GAPS_MAX: usize = 16_384;
/// Maximum number of generator processes that connect at a time.
pub const HOLDERS_CONNECTING_MAX: usize = 2;
/// Time without a new connection after which no more are expected.
pub const HOLD_STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for all clients to connect and subscribe.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// A run without a delivery for this long ends, and missing messages count as lost.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for all processes of a run to become ready, and to report.
pub const PROCESS_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for a broker to close the connection after DISCONNECT before the client does.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// Time for a broker to listen after its start, and to exit after SIGTERM.
pub const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Descriptors reserved for everything except clients.
pub const DESCRIPTORS_SPARE: u64 = 64;

const _: () = assert!(WINDOW_MAX < u16::MAX as u32);
const _: () = assert!(PACKET_BYTES_MAX > PAYLOAD_BYTES_MAX as usize);
