//! Bounds that are no configuration key: what holds between them is asserted at compile time.

/// Rings of io_uring that a core opens at most, one after the other as its connections become more.
pub const RINGS_MAX: usize = 64;

/// Publishing one message to at least this many plain subscribers is worth a shared encoding.
pub const RUN_SUBSCRIBERS_MIN: usize = 4;

/// A run of equal-target messages is handed out once its encoding reaches this size.
pub const RUN_BYTES_MAX: usize = 64 * 1024;

/// From this size a run, or a payload, goes into outboxes by reference; below it is copied,
/// because a short copy costs less than another `iovec`.
pub const SHARED_BYTES_MIN: usize = 2 * 1024;

/// Up to this size the payload of a message that one subscriber alone gets at once is copied into
/// its outbox: it costs one copy either way, and a value that can be shared more than that. Outboxes
/// grow no larger by it than those that are kept for reuse.
pub const COPIED_ALONE_BYTES_MAX: usize = POOLED_OUTBOX_BYTES_MAX / 2;

/// Queued messages from which an online consumer counts as behind.
pub const CONGESTED_MESSAGES: usize = 8_000;

/// Queued bytes from which an online consumer counts as behind.
pub const CONGESTED_QUEUE_BYTES: u64 = 4 * 1024 * 1024;

/// A consumer is behind when its outbox holds more than this share of its bound.
pub const CONGESTED_OUTBOX_SHARE: usize = 8;

/// How often it is looked whether a consumer that is behind takes anything. Where the kernel does not
/// count what the peer has acknowledged, one that took nothing for this long holds up nobody any more.
pub const STUCK_LOOK_MS: u64 = 1_000;

/// Where the kernel does, a consumer that has acknowledged nothing for this long holds up nobody any
/// more. A peer with a full receive buffer announces room when it has room for a whole segment, of 64 KiB
/// through loopback, and for a sixteenth of the buffer: one that reads 10 KB/s does so every 6 to 12 s.
pub const STUCK_MS: u64 = 15_000;

/// A connection whose peer sends no more, and of which nothing was done for [`STUCK_MS`], ends. Where its
/// consumers, its own rate or the store hold it up, that takes so many times as long.
pub const ENDING_LOOKS_MAX: u8 = 20;

/// A core that comes so late to what is due has been away: stopped, or busy.
pub const LATE_MS: u64 = 1_000;

/// Nobody is judged for as long as a core was away, but for no longer than this: what peers sent
/// meanwhile may have to be sent again.
pub const PATIENCE_MS: u64 = 15_000;

/// Connections ended in a turn at most because their time is up.
pub const ENDED_PER_TURN_MAX: usize = 256;

/// Timers are set no further ahead than this; one that fires early is set again.
pub const TIMER_AHEAD_S: u64 = 60;

/// Connections above `connections_max` that are kept until their CONNECT, to tell them why not.
pub const REFUSED_CONNECTIONS_MAX: usize = 64;

/// What a session takes in memory besides its Client Identifier, roughly.
pub const SESSION_BYTES: usize = 512;

/// What a subscription takes in its session, roughly: the index counts for itself.
pub const SUBSCRIPTION_BYTES: usize = 16;

/// How long a publisher rests when the broker's memory bound is reached.
pub const MEMORY_PAUSE_MS: u64 = 100;

/// Input that is kept for later turns before its socket is left unread.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;

/// No smaller packet is asked how large its properties are.
pub const PROPERTIES_LOOK_BYTES: usize = 4 * 1024;

/// Answers and messages that wait for a client, behind what is being written to it, before it is not
/// read any more.
pub const UNSENT_ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// The same while the memory bound is reached.
pub const UNSENT_ANSWERS_BYTES_MIN: usize = 4 * 1024;

/// Entries of a queue that are looked at, one after the other, for a step of a core's budget.
pub const QUEUE_ENTRIES_PER_STEP: usize = 32;

/// Messages of shared subscriptions that go from a member to others before somebody else has a turn.
pub const HANDED_ON_AT_ONCE: usize = 256;

/// Messages of a session that has ended which are let go of at a time.
pub const QUEUE_DROPPED_AT_ONCE: usize = 512;

/// Messages in a queue that have expired and are left out before somebody else has a turn.
pub const EXPIRED_AT_ONCE: u64 = 1_024;

/// Messages in a full queue that are looked at for each newcomer, to find what has expired.
pub const SWEPT_AT_ONCE: usize = 4_096;

/// How many of them are a step of a core's budget: their memory was out of the processor's caches.
pub const SWEPT_PER_STEP: usize = 4;

/// Timers that fire in a turn, if so many are due, whatever else there was in it.
pub const TIMERS_PER_TURN_MIN: usize = 64;

/// Sessions whose subscriptions are looked at in a turn when the rules have changed.
pub const SESSIONS_CHECKED_PER_TURN: usize = 256;

/// Retained topics walked for one connection before others get their turn.
pub const RETAINED_STEPS_MAX: usize = 512;

/// What taking retained messages away may cost in a turn, in steps of about 8 bytes of a topic: about
/// 400 that have short topics.
pub const RETAINED_TAKEN_STEPS: usize = 4_096;

/// What it takes in memory to know when a retained message expires, roughly.
pub const EXPIRY_BYTES: usize = 48;

/// Cached answers of "who gets this topic".
pub const TOPIC_CACHE_ENTRIES_MAX: usize = 65_536;

/// Longer topics are neither cached nor given a Topic Alias: both tables are bounded in entries.
pub const CACHED_TOPIC_BYTES_MAX: usize = 256;

/// The share of `memory_bytes_max` that these answers may take on all cores together.
pub const TOPIC_CACHE_MEMORY_SHARE: u64 = 16;

/// The share of `memory_bytes_max` that has to be free for answers to be cached at all.
pub const TOPIC_CACHE_FREE_SHARE: u64 = 16;

/// Outboxes kept for reuse.
pub const POOLED_OUTBOXES_MAX: usize = 4_096;

/// An outbox that grew beyond this is not kept for reuse.
pub const POOLED_OUTBOX_BYTES_MAX: usize = 16 * 1024;

/// Packet Identifiers run ahead of the oldest unacknowledged one by at most this much.
pub const IDENTIFIER_SPAN_MAX: usize = 32_768;

/// Bytes under way to one core from all others before publishers wait: with it a consumer that
/// falls behind gets less than its outbox bound allows before its publishers on other cores stop.
pub const LANES_WINDOW_BYTES: usize = 512 * 1024;

/// The least share of that for one lane, which still hides the time a receipt takes.
pub const LANE_WINDOW_BYTES_MIN: usize = 64 * 1024;

/// Batches that wait in one lane between two cores; a turn adds one.
pub const LANE_BATCHES_MAX: usize = 8;

/// Batches taken from one lane in a turn.
pub const LANE_BATCHES_PER_TURN: usize = 4;

/// A batch that grew beyond this is not kept for reuse.
pub const POOLED_BATCH_BYTES_MAX: usize = 256 * 1024;

/// How long a retained message that was taken away is remembered at least, in seconds, where there
/// are several cores.
pub const GRAVES_LOOK_S: u64 = 1;

/// What that takes in memory besides the Topic Name, roughly.
pub const GRAVE_BYTES: usize = 96;

/// Answers a connection may have waiting for other cores before it is not read any more.
pub const ANSWERS_MAX: usize = 4_096;

/// Input that waits, of all connections together, takes no more than this share of `memory_bytes_max`.
pub const INPUT_SHARE: u64 = 4;

/// That is no less than this, however little memory there is: what a few reads bring, or a packet of
/// 256 KiB.
pub const INPUT_BYTES_MIN: u64 = 512 * 1024;

/// This share of that is left for connections that hold no more than [`INPUT_SMALL_BYTES`]: whoever holds
/// much keeps nobody from ending a packet that came in two pieces.
pub const INPUT_SHARE_OF_SMALL: u64 = 4;

/// See [`INPUT_SHARE_OF_SMALL`].
pub const INPUT_SMALL_BYTES: usize = 4 * 1024;

/// The same while the memory bound is reached: publishers are slowed then, and their packets still come.
pub const INPUT_SHARE_OF_SMALL_WHEN_FULL: u64 = 2;

/// When memory is full, newcomers over TLS and WebSocket, which take some before they can be told so, may
/// take this share of it on top.
pub const OVERDRAFT_SHARE: u64 = 8;

/// What the state of a connection's TLS takes in memory, roughly.
pub const TLS_BYTES: usize = 4 * 1024;

/// What the state of a connection's WebSocket takes in memory, roughly.
pub const WEBSOCKET_BYTES: usize = 512;

/// Bytes of a connection that wait for its TLS handshake to go on: what a socket brings at a time, twice.
pub const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;

/// How long after CONNECT it is looked whether a connection's TLS can go on in the kernel, and how
/// often from then on, in milliseconds.
pub const KERNEL_TLS_LOOK_MS: u64 = 20;

/// How often that is done before it stays in the broker: when it always is in the middle of a record
/// or of being sent something.
pub const KERNEL_TLS_LOOKS_MAX: u16 = 1_000;

/// Bytes of records that wait on a core for the store before publishers wait too.
pub const JOURNAL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of records that wait for the store before no client is let in any more.
pub const JOURNAL_BYTES_FAR: usize = 64 * 1024 * 1024;

/// Bytes of records from which a core hands them over though the store has not taken the last ones.
pub const JOURNAL_BATCH_BYTES: usize = 512 * 1024;

/// Seconds that the ends of deliveries wait for other records to be stored with, when nobody waits for
/// either: what a crash forgets of them is delivered again, as QoS 1 may be.
pub const RECORDS_REST_S: u64 = 5;

/// Wills published in a turn, of clients that did not come back after the broker was down.
pub const LEFT_WILLS_PER_TURN: usize = 500;

/// Bytes of records that a core tells anew in a turn when the store begins afresh.
pub const CHECKPOINT_BYTES: usize = 128 * 1024;

const _: () = assert!(JOURNAL_BATCH_BYTES < JOURNAL_BYTES_MAX);
const _: () = assert!(JOURNAL_BYTES_MAX < JOURNAL_BYTES_FAR);
const _: () = assert!(SHARED_BYTES_MIN < RUN_BYTES_MAX);
const _: () = assert!(LANE_WINDOW_BYTES_MIN <= LANES_WINDOW_BYTES);
const _: () = assert!(INPUT_SHARE_OF_SMALL_WHEN_FULL <= INPUT_SHARE_OF_SMALL);
const _: () = assert!(IDENTIFIER_SPAN_MAX < u16::MAX as usize);
