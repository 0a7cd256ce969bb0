//! Bounds that are not configurable. Relations between them are asserted at compile time.

/// Maximum number of io_uring instances per core; a core opens more as its connections increase.
pub const RINGS_MAX: usize = 64;

/// Minimum number of plain subscribers for which a message is encoded once and shared.
pub const FAN_OUT_BATCH_RECIPIENTS_MIN: usize = 4;

/// A fan-out batch is delivered once its encoding reaches this size.
pub const FAN_OUT_BATCH_BYTES_MAX: usize = 64 * 1024;

/// Fan-out batches and payloads of this size and above are placed into outboxes by reference.
/// Smaller ones are copied, because a short copy costs less than another `iovec`.
pub const SHARED_BYTES_MIN: usize = 2 * 1024;

/// Payloads up to this size are copied into the outbox if the message has a single online
/// subscriber: there is one copy either way, and a shared value costs more. The outbox does not
/// grow beyond the size that is pooled.
pub const COPIED_ALONE_BYTES_MAX: usize = POOLED_OUTBOX_BYTES_MAX / 2;

/// Number of queued messages from which an online consumer is congested.
pub const CONGESTED_MESSAGES: usize = 8_000;

/// Number of queued bytes from which an online consumer is congested.
pub const CONGESTED_QUEUE_BYTES: u64 = 4 * 1024 * 1024;

/// An outbox that holds more than this fraction (1/n) of its bound makes its consumer congested.
pub const CONGESTED_OUTBOX_SHARE: usize = 8;

/// Interval between progress checks of a congested consumer. Where the kernel does not report
/// acknowledged bytes, a consumer without progress for this long no longer delays publishers.
pub const STUCK_LOOK_MS: u64 = 1_000;

/// Where the kernel reports acknowledged bytes, a consumer that has acknowledged nothing for this
/// long no longer delays publishers. A peer with a full receive buffer sends a window update once a
/// whole segment fits, 64 KiB on loopback, and a sixteenth of the buffer is free: at 10 KB/s that
/// happens every 6 to 12 s.
pub const STUCK_MS: u64 = 15_000;

/// A half-closed connection without progress for [`STUCK_MS`] is closed. If its consumers, its own
/// rate limit or the store delay it, it is closed after this many times that period.
pub const ENDING_LOOKS_MAX: u8 = 20;

/// A core that handles timers this late was stopped or overloaded.
pub const LATE_MS: u64 = 1_000;

/// Time limits of peers are extended by the time the core was late, but at most by this: peers may
/// have to retransmit what they sent meanwhile.
pub const PATIENCE_MS: u64 = 15_000;

/// Maximum number of connections closed per turn because a time limit passed.
pub const ENDED_PER_TURN_MAX: usize = 256;

/// Maximum distance of a timer; one that fires early is armed again.
pub const TIMER_AHEAD_S: u64 = 60;

/// Connections above `connections_max` that stay open until CONNECT, so that CONNACK can state the
/// reason.
pub const REFUSED_CONNECTIONS_MAX: usize = 64;

/// Approximate memory of a session, without its Client Identifier.
pub const SESSION_BYTES: usize = 512;

/// Approximate memory of a subscription in its session; the index is accounted separately.
pub const SUBSCRIPTION_BYTES: usize = 16;

/// How long a publisher is paused when the broker's memory bound is reached.
pub const MEMORY_PAUSE_MS: u64 = 100;

/// Amount of buffered input from which a socket is no longer read.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;

/// The Property Length is checked only in packets of at least this size.
pub const PROPERTIES_LOOK_BYTES: usize = 4 * 1024;

/// Amount of unsent acknowledgements and messages, beyond the buffer being written, from which a
/// client's socket is no longer read.
pub const UNSENT_ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// Replaces [`UNSENT_ANSWERS_BYTES_MAX`] while the memory bound is reached.
pub const UNSENT_ANSWERS_BYTES_MIN: usize = 4 * 1024;

/// Number of queue entries scanned per step of a core's budget.
pub const QUEUE_ENTRIES_PER_STEP: usize = 32;

/// Maximum number of messages of shared subscriptions that move from one member to others before
/// other work gets a turn.
pub const HANDED_ON_AT_ONCE: usize = 256;

/// Maximum number of messages of an ended session that are dropped before other work gets a turn.
pub const QUEUE_DROPPED_AT_ONCE: usize = 512;

/// Maximum number of expired messages that are skipped in a queue before other work gets a turn.
pub const EXPIRED_AT_ONCE: u64 = 1_024;

/// Number of messages in a full queue that are scanned for expired ones per new message.
pub const SWEPT_AT_ONCE: usize = 4_096;

/// Number of scanned messages per step of a core's budget: their memory is not in the processor's
/// caches.
pub const SWEPT_PER_STEP: usize = 4;

/// Minimum number of due timers that fire per turn, whatever else the turn does.
pub const TIMERS_PER_TURN_MIN: usize = 64;

/// Number of sessions per turn whose subscriptions are checked after a change of the access rules.
pub const SESSIONS_CHECKED_PER_TURN: usize = 256;

/// Number of questions of operators that a core works on at a time.
pub const QUESTIONS_MAX: usize = 16;

/// Number of sessions or messages that a core looks at per turn for questions of operators.
pub const LOOKED_AT_PER_TURN: usize = 256;

/// Number of entries of answers to questions of operators that a core collects per turn, and of clients and messages
/// that it ends or removes for them: each takes as long as looking at some 16 sessions.
pub const ANSWER_ENTRIES_PER_TURN: usize = 32;

/// Messages in flight that an answer has at most: it is collected in one turn.
pub const INFLIGHT_SHOWN_MAX: usize = 100;

/// Bytes of answers to questions of operators that a core collects per turn.
pub const ANSWER_BYTES_PER_TURN: usize = 64 * 1024;

/// Events of a trace that wait for its reader, on each core.
pub const TRACE_EVENTS_MAX: usize = 8_192;

/// Bytes of these events.
pub const TRACE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Traces at the same time.
pub const TRACES_MAX: usize = 4;

/// Entries and bytes of one page of an answer. The last entry of a page may exceed the bytes.
pub const PAGE_ENTRIES_MAX: usize = 1_000;

/// See [`PAGE_ENTRIES_MAX`].
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Seconds after which a question is answered with what has been found so far.
pub const QUESTION_S: u64 = 10;

/// Entries of the list of bans.
pub const BANS_MAX: usize = 10_000;

/// Number of retained topics visited for one connection before others get a turn.
pub const RETAINED_STEPS_MAX: usize = 512;

/// Budget per turn for the removal of retained messages, in steps of about 8 bytes of a topic:
/// about 400 messages with short topics.
pub const RETAINED_TAKEN_STEPS: usize = 4_096;

/// Approximate memory of the expiry entry of a retained message.
pub const EXPIRY_BYTES: usize = 48;

/// Maximum number of entries of the topic cache, which maps a topic to its recipients.
pub const TOPIC_CACHE_ENTRIES_MAX: usize = 65_536;

/// Longer topics are neither cached nor given a Topic Alias: both tables are bounded by entries.
pub const CACHED_TOPIC_BYTES_MAX: usize = 256;

/// Fraction (1/n) of `memory_bytes_max` that the topic caches of all cores may use.
pub const TOPIC_CACHE_MEMORY_SHARE: u64 = 16;

/// Fraction (1/n) of `memory_bytes_max` that has to be free for the topic cache to be used.
pub const TOPIC_CACHE_FREE_SHARE: u64 = 16;

/// Maximum number of pooled outboxes.
pub const POOLED_OUTBOXES_MAX: usize = 4_096;

/// Larger outboxes are not returned to the pool.
pub const POOLED_OUTBOX_BYTES_MAX: usize = 16 * 1024;

/// Maximum distance of a new Packet Identifier from the oldest unacknowledged one.
pub const IDENTIFIER_SPAN_MAX: usize = 32_768;

/// Bytes in transit to one core from all others from which publishers wait. A slow consumer thus
/// receives less than its outbox bound before its publishers on other cores stop.
pub const LANES_WINDOW_BYTES: usize = 512 * 1024;

/// Bytes without a receipt from a process to another node of its cluster from which publishers wait: as much as passes
/// in the time of a receipt, which comes after the node's disk has the messages.
pub const NODE_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Minimum share of [`LANES_WINDOW_BYTES`] per lane, which still hides the latency of a receipt.
pub const LANE_WINDOW_BYTES_MIN: usize = 64 * 1024;

/// Maximum number of batches in one lane between two cores; a turn adds one.
pub const LANE_BATCHES_MAX: usize = 8;

/// Maximum number of batches received from one lane per turn.
pub const LANE_BATCHES_PER_TURN: usize = 4;

/// Larger batches are not returned to the pool.
pub const POOLED_BATCH_BYTES_MAX: usize = 256 * 1024;

/// Interval between checks whether tombstones of removed retained messages can be dropped, in seconds,
/// with several cores.
pub const TOMBSTONES_CHECK_S: u64 = 1;

/// Approximate memory of a tombstone, without the Topic Name.
pub const TOMBSTONE_BYTES: usize = 96;

/// Maximum number of acknowledgements per connection that wait for other cores; above it the socket
/// is no longer read.
pub const ANSWERS_MAX: usize = 4_096;

/// Fraction (1/n) of `memory_bytes_max` for the buffered input of all connections.
pub const INPUT_SHARE: u64 = 4;

/// Lower bound of the memory for buffered input, however small `memory_bytes_max`: a few reads, or
/// one packet of 256 KiB.
pub const INPUT_BYTES_MIN: u64 = 512 * 1024;

/// Fraction (1/n) of the input memory that is reserved for connections that hold at most
/// [`INPUT_SMALL_BYTES`], so that connections with large packets cannot keep others from completing
/// small ones.
pub const INPUT_SHARE_OF_SMALL: u64 = 4;

/// See [`INPUT_SHARE_OF_SMALL`].
pub const INPUT_SMALL_BYTES: usize = 4 * 1024;

/// Replaces [`INPUT_SHARE_OF_SMALL`] while the memory bound is reached: publishers are slowed down
/// then, but their packets still arrive.
pub const INPUT_SHARE_OF_SMALL_WHEN_FULL: u64 = 2;

/// Fraction (1/n) of `memory_bytes_max` by which new TLS and WebSocket connections may exceed it:
/// they need memory before CONNACK can refuse them.
pub const OVERDRAFT_SHARE: u64 = 8;

/// Approximate memory of a connection's TLS state.
pub const TLS_BYTES: usize = 4 * 1024;

/// Approximate memory of a connection's WebSocket state.
pub const WEBSOCKET_BYTES: usize = 512;

/// Maximum buffered input of a TLS handshake: twice what one read returns.
pub const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;

/// Interval between attempts to move a connection to kernel TLS, starting at CONNECT, in
/// milliseconds.
pub const KERNEL_TLS_LOOK_MS: u64 = 20;

/// Number of these attempts before the connection stays on TLS in user space. An attempt fails
/// while the connection is in the middle of a record or has unsent data.
pub const KERNEL_TLS_LOOKS_MAX: u16 = 1_000;

/// Bytes of unwritten records on a core from which publishers wait.
pub const JOURNAL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of unwritten records from which new clients wait too.
pub const JOURNAL_BYTES_FAR: usize = 64 * 1024 * 1024;

/// Bytes of records from which a core sends a batch although the store has not written the previous
/// one.
pub const JOURNAL_BATCH_BYTES: usize = 512 * 1024;

/// Seconds that records of completed deliveries may wait for other records, if nothing depends on
/// them: a crash that loses them causes redelivery, which QoS 1 permits.
pub const RECORDS_REST_S: u64 = 5;

/// Maximum number of stored Wills published per turn, for clients that did not return after a
/// restart.
pub const LEFT_WILLS_PER_TURN: usize = 500;

/// Bytes of records that a core writes to a checkpoint per turn.
pub const CHECKPOINT_BYTES: usize = 128 * 1024;

/// Places of sessions, queues and windows that a core looks at for a checkpoint per turn.
pub const CHECKPOINT_PLACES: usize = 16_384;

const _: () = assert!(JOURNAL_BATCH_BYTES < JOURNAL_BYTES_MAX);
const _: () = assert!(JOURNAL_BYTES_MAX < JOURNAL_BYTES_FAR);
const _: () = assert!(SHARED_BYTES_MIN < FAN_OUT_BATCH_BYTES_MAX);
const _: () = assert!(LANE_WINDOW_BYTES_MIN <= LANES_WINDOW_BYTES);
const _: () = assert!(INPUT_SHARE_OF_SMALL_WHEN_FULL <= INPUT_SHARE_OF_SMALL);
const _: () = assert!(IDENTIFIER_SPAN_MAX < u16::MAX as usize);
