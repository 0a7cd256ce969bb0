//! Counters of one core: plain numbers, written by that core alone and read on request.

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Drop {
    /// QoS 0 for a client whose outbox is full.
    OutboxFull,
    /// The session's queue is full.
    QueueFull,
    /// Replaced by a newer message with the same topic (`keep-latest`).
    Superseded,
    /// The Message Expiry Interval passed.
    Expired,
    /// The message exceeds the client's Maximum Packet Size.
    PacketTooLarge,
    /// The broker's memory bound is reached.
    MemoryFull,
    /// The session ended with queued messages.
    SessionEnded,
    /// QoS 0, or a message to a bridge that queues none meanwhile, for a client that is offline.
    Offline,
    /// The publisher is not authorized to publish to the topic.
    NotAuthorized,
    /// The retained message store is full.
    RetainedFull,
    /// The queues of the client's user are full.
    UserQueueFull,
    /// The publisher's user has reached its quota of retained messages.
    UserRetainedFull,
    /// The payload exceeds the limit of the broker.
    PayloadTooLarge,
    /// The topic, behind the mount point of the publisher's listener, is longer or deeper than the limits.
    TopicTooLong,
    /// The topic does not begin with the mount point of the client's listener.
    OutsideMountPoint,
    /// An operator has dropped what waited.
    ByOperator,
}

/// All causes with their display names.
pub const DROPS: [(Drop, &str); 16] = [
    (Drop::OutboxFull, "outbox-full"),
    (Drop::QueueFull, "queue-full"),
    (Drop::Superseded, "superseded"),
    (Drop::Expired, "expired"),
    (Drop::PacketTooLarge, "packet-too-large"),
    (Drop::MemoryFull, "memory-full"),
    (Drop::SessionEnded, "session-ended"),
    (Drop::Offline, "offline"),
    (Drop::NotAuthorized, "not-authorized"),
    (Drop::RetainedFull, "retained-full"),
    (Drop::UserQueueFull, "user-queue-full"),
    (Drop::UserRetainedFull, "user-retained-full"),
    (Drop::PayloadTooLarge, "payload-too-large"),
    (Drop::TopicTooLong, "topic-too-long"),
    (Drop::OutsideMountPoint, "outside-mount-point"),
    (Drop::ByOperator, "by-operator"),
];

/// Dropped messages by cause.
#[derive(Clone, Debug, Default)]
pub struct Drops([u64; DROPS.len()]);

impl Drops {
    /// Adds `messages` dropped messages.
    pub fn add(&mut self, cause: Drop, messages: u64) {
        self.0[cause as usize] += messages;
    }

    /// Number of messages dropped for `cause`.
    pub fn of(&self, cause: Drop) -> u64 {
        self.0[cause as usize]
    }

    /// Number of dropped messages of all causes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The causes with a nonzero count, as `cause=count` pairs for a log line.
    pub fn summary(&self) -> String {
        let counts = DROPS.iter().filter(|(cause, _)| self.of(*cause) > 0);
        counts
            .map(|(cause, name)| format!("{name}={}", self.of(*cause)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident $topic:literal $of:ident $nature:ident
        $(as $series:literal $($label:ident $label_value:literal)?)?;)+) => {
        /// Counters since the start, and gauges, of one core or summed over all.
        #[derive(Clone, Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Messages dropped, by cause.
            pub drops: Drops,
            /// PUBLISH packets received from clients, by QoS.
            pub received_by_qos: [u64; 3],
            /// Messages published by clients of other cores, by QoS.
            pub forwarded_by_qos: [u64; 3],
        }

        impl Metrics {
            /// Every broker-wide counter with its `$SYS/broker/` topic.
            pub fn topics(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($topic, self.$name, Scope::$of),)+]
                    .into_iter()
                    .filter(|(_, _, of)| *of != Scope::Core)
                    .map(|(topic, value, _)| (topic, value))
            }

            /// The counters shown per core, under `$SYS/broker/cores/N/`.
            pub fn core_topics(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($topic, self.$name, Scope::$of),)+]
                    .into_iter()
                    .filter(|(_, _, of)| matches!(of, Scope::Core | Scope::BrokerAndCore))
                    .map(|(topic, value, _)| (topic, value))
            }

            /// All counters and gauges by name.
            pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64, NumberKind)> {
                [$((stringify!($name), self.$name, NumberKind::$nature),)+].into_iter()
            }

            /// All counters and gauges as monitoring systems name them.
            pub fn series(&self) -> impl Iterator<Item = Series> {
                [$(Series {
                    #[allow(unused_mut, unused_assignments, reason = "not every row has a name of its own")]
                    name: {
                        let mut name = stringify!($name);
                        $(name = $series;)?
                        name
                    },
                    #[allow(unused_mut, unused_assignments, reason = "not every row has a label")]
                    label: {
                        let mut label: Option<(&'static str, &'static str)> = None;
                        $($(label = Some((stringify!($label), $label_value));)?)?
                        label
                    },
                    help: concat!($($doc),+),
                    scope: Scope::$of,
                    kind: NumberKind::$nature,
                    is_in_microseconds: stringify!($name).ends_with("_us"),
                    value: self.$name,
                },)+]
                .into_iter()
            }

            /// Adds the counters of another core. Values that are the same on every core are not
            /// added.
            pub fn add(&mut self, other: &Self) {
                $(if Scope::$of != Scope::EachAlike {
                    self.$name += other.$name;
                })+
                for (drop, _) in DROPS {
                    self.drops.add(drop, other.drops.of(drop));
                }
                add_each(&mut self.received_by_qos, &other.received_by_qos);
                add_each(&mut self.forwarded_by_qos, &other.forwarded_by_qos);
            }

            /// The difference to earlier counters of the same core. Gauges keep their current
            /// value.
            pub fn since(&self, earlier: &Self) -> Self {
                let mut since = self.clone();
                $(if NumberKind::$nature == NumberKind::Counter {
                    since.$name -= earlier.$name;
                })+
                for (of, before) in since.drops.0.iter_mut().zip(earlier.drops.0) {
                    *of -= before;
                }
                since.received_by_qos = subtract_each(since.received_by_qos, earlier.received_by_qos);
                since.forwarded_by_qos =
                    subtract_each(since.forwarded_by_qos, earlier.forwarded_by_qos);
                since
            }
        }
    };
}

/// A row of the table below as monitoring systems name it.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// The name, without the prefix of the program and the suffix of counters. Rows with the same name differ in
    /// their labels; one without a label is then the total of the others and of what has no row.
    pub name: &'static str,
    /// Name and value of the label, if the row has one.
    pub label: Option<(&'static str, &'static str)>,
    /// Documentation of the row.
    pub help: &'static str,
    /// The scope.
    pub scope: Scope,
    /// The kind.
    pub kind: NumberKind,
    /// Whether the value is a number of microseconds.
    pub is_in_microseconds: bool,
    /// The value.
    pub value: u64,
}

/// Documentation of the series that several rows share.
pub const SHARED_SERIES: [(&str, &str); 7] = [
    ("clients_refused", "Clients that the access control refused, by reason."),
    (
        "cluster_sessions_moved",
        "Sessions that have moved from and to other nodes of the cluster, by direction.",
    ),
    ("connections", "Network Connections by state: open ones, before and after CONNECT."),
    ("connections_closed", "Connections that the broker closed, by reason."),
    ("kernel_tls_skipped", "Connections not moved to kernel TLS, by reason."),
    ("messages_received", "PUBLISH packets received."),
    ("sessions", "Sessions by state: with a connection, or without."),
];

/// The scope of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The broker: the sum over its cores.
    Broker,
    /// The broker, and each core separately.
    BrokerAndCore,
    /// Each core separately.
    Core,
    /// The broker; every core has the same value.
    EachAlike,
}

/// The kind of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberKind {
    /// A counter since the start.
    Counter,
    /// A current value.
    Gauge,
    /// A value computed from others when `$SYS` is updated.
    Derived,
}

/// Adds counters by QoS.
fn add_each(to: &mut [u64; 3], from: &[u64; 3]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// The difference of counters by QoS.
pub fn subtract_each(now: [u64; 3], earlier: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|qos| now[qos] - earlier[qos])
}

counters! {
    /// Network Connections accepted.
    connections_accepted "connections/accepted" Broker Counter;
    /// Connections refused: too many, rate too high, or no memory.
    connections_refused "connections/refused" Broker Counter;
    /// Open connections, before and after CONNECT.
    connections_open "connections/open" BrokerAndCore Gauge as "connections" state "open";
    /// CONNECT packets received.
    connects_received "connects/received" Broker Counter;
    /// Connected clients.
    clients_connected "clients/connected" BrokerAndCore Gauge as "sessions" state "connected";
    /// Sessions without a connection.
    clients_disconnected "clients/disconnected" Broker Gauge as "sessions" state "disconnected";
    /// Wills of clients that were connected when the broker stopped and have not returned.
    wills_left "wills/left" Broker Gauge;
    /// Maximum number of concurrently connected clients.
    clients_maximum "clients/maximum" Broker Derived;
    /// Sessions that expired.
    sessions_expired "clients/expired" Broker Counter;
    /// Connections taken over by a newer one with the same Client Identifier.
    takeovers "clients/takeovers" Broker Counter as "session_takeovers";
    /// Sessions that other nodes of the cluster are known to have.
    cluster_claims "cluster/claims" Broker Gauge;
    /// CONNECTs that have waited for the answers of other nodes.
    cluster_asked "cluster/connects/waited" Broker Counter as "cluster_connects_waited";
    /// CONNECTs refused because the node that has the session is away.
    cluster_absent "cluster/connects/refused-absent" Broker Counter as "cluster_connects_refused_absent";
    /// Sessions that have come from another node.
    sessions_moved_in "cluster/sessions/moved-in" Broker Counter as "cluster_sessions_moved" direction "in";
    /// Sessions that have gone to another node.
    sessions_moved_out "cluster/sessions/moved-out" Broker Counter as "cluster_sessions_moved" direction "out";
    /// Clients that were disconnected to connect to another node, as this one is emptied or has more than its share.
    clients_sent_elsewhere "cluster/clients/sent-elsewhere" Broker Counter as "cluster_clients_sent_elsewhere";
    /// Connections closed because of a protocol violation.
    violations "connections/violations" Broker Counter as "connections_closed" reason "protocol-violation";
    /// Connections closed because Keep Alive or the CONNECT timeout passed.
    timeouts "connections/timeouts" Broker Counter as "connections_closed" reason "timeout";
    /// Connections closed because of an invalid PROXY header, TLS or WebSocket input.
    transport_faults "connections/transport-faults" Broker Counter as "connections_closed" reason "transport-fault";
    /// Connections closed because an unfinished packet exceeded the input memory.
    input_refused "connections/input-refused" Broker Counter as "connections_closed" reason "input-memory";
    /// Completed TLS handshakes.
    tls_handshakes "tls/handshakes" BrokerAndCore Counter;
    /// TLS handshakes that resumed a session by its ticket.
    tls_resumed "tls/resumed" Broker Counter;
    /// Steps of TLS handshakes that were deferred to a later turn.
    tls_waited "tls/waited" BrokerAndCore Counter as "tls_handshakes_deferred";
    /// Connections moved to kernel TLS.
    kernel_tls_taken "tls/kernel/taken" Broker Counter as "kernel_tls_connections";
    /// Connections not moved to kernel TLS because the kernel does not support their cipher.
    kernel_tls_left_cipher "tls/kernel/left/cipher" Broker Counter as "kernel_tls_skipped" reason "cipher";
    /// Connections not moved to kernel TLS because no check found them between two records.
    kernel_tls_left_busy "tls/kernel/left/busy" Broker Counter as "kernel_tls_skipped" reason "busy";
    /// Connections not moved to kernel TLS because their sockets could not be prepared.
    kernel_tls_left_refused "tls/kernel/left/refused" Broker Counter as "kernel_tls_skipped" reason "refused";
    /// Connections closed because the kernel did not accept their keys.
    kernel_tls_failed "tls/kernel/ended/failed" Broker Counter as "connections_closed" reason "kernel-tls-failed";
    /// Connections closed because of a TLS KeyUpdate, which the kernel does not support.
    kernel_tls_key_updates "tls/kernel/ended/key-update" Broker Counter as "connections_closed" reason "kernel-tls-key-update";
    /// Connections closed because their keys reached the confidentiality limit.
    kernel_tls_spent "tls/kernel/ended/spent" Broker Counter as "connections_closed" reason "kernel-tls-spent";
    /// Clients that the access control refused.
    clients_refused "clients/refused" Broker Counter;
    /// Clients refused because the session belongs to another user.
    sessions_guarded "clients/refused/session-of-another" Broker Counter as "clients_refused" reason "session-of-another";
    /// Clients refused because the rules do not allow their Client Identifier.
    identifiers_denied "clients/refused/identifier" Broker Counter as "clients_refused" reason "identifier";
    /// Clients refused because they, their user or their network are banned by an operator.
    clients_banned "clients/refused/banned" Broker Counter as "clients_refused" reason "banned";
    /// Questions and commands of operators.
    questions "admin/questions" Broker Counter;
    /// Questions of operators that were refused because too many were in progress.
    questions_refused "admin/questions-refused" Broker Counter;
    /// Traces that this core records events for.
    traces_running "admin/traces" EachAlike Gauge;
    /// Events that traces have selected.
    trace_events "admin/trace-events" Broker Counter;
    /// Events that traces have selected and not shown, because their readers were too slow.
    trace_events_missed "admin/trace-events-missed" Broker Counter;
    /// Sampled messages whose spans went to the exporter of telemetry.
    spans_recorded "telemetry/spans" Broker Counter as "telemetry_spans";
    /// Sampled messages whose spans were dropped, because too many were open or waited for the exporter.
    spans_dropped "telemetry/spans-dropped" Broker Counter as "telemetry_spans_dropped";
    /// Sessions ended because another user owns the Client Identifier.
    foreign_sessions_ended "clients/foreign-sessions-ended" Broker Counter;
    /// Clients refused because their user has reached its quota of sessions.
    sessions_over_user "clients/refused/sessions-of-user" Broker Counter as "clients_refused" reason "sessions-of-user";
    /// Connections closed because their credentials expired.
    stays_ended "clients/expired-credentials" Broker Counter as "connections_closed" reason "credentials-expired";
    /// Connections closed because a reload withdrew their credentials.
    credentials_withdrawn "clients/withdrawn-credentials" Broker Counter as "connections_closed" reason "credentials-withdrawn";
    /// Successful reloads of the access control's files.
    access_reloads "access/reloads" EachAlike Counter;
    /// Failed reloads; the previous files stay in force.
    access_reloads_failed "access/reloads-failed" EachAlike Counter;
    /// Users in the user database.
    database_users "access/database/users" EachAlike Gauge as "access_database_users";
    /// Rules in the user database.
    database_rules "access/database/rules" EachAlike Gauge as "access_database_rules";
    /// Questions to the server that authorizes clients.
    authorization_asked "access/authorization/asked" EachAlike Counter as "authorization_requests";
    /// Of these, questions without an answer.
    authorization_failed "access/authorization/failed" EachAlike Counter as "authorization_requests_failed";
    /// Cached answers of that server.
    authorization_cached "access/authorization/cached" EachAlike Gauge as "authorization_answers_cached";
    /// Commands of dynamic security.
    dynamic_security_commands "access/dynamic-security/commands" EachAlike Counter;
    /// Of these, commands answered with an error.
    dynamic_security_errors "access/dynamic-security/errors" EachAlike Counter as "dynamic_security_commands_failed";
    /// Messages with commands of dynamic security for which there was no room.
    dynamic_security_refused "access/dynamic-security/refused" EachAlike Counter as "dynamic_security_messages_refused";
    /// Seconds since the keys for tokens were fetched.
    key_set_age_s "access/key-set/age" EachAlike Gauge as "access_key_set_age_seconds";
    /// Failed attempts to fetch the keys for tokens.
    key_set_failures "access/key-set/failures" EachAlike Counter as "access_key_set_failures";
    /// Pending authentications and other answers of the access control.
    access_unfinished "access/unfinished" EachAlike Gauge as "access_decisions_pending";
    /// Connections closed right after accept because of their address.
    connections_turned_away "connections/turned-away" EachAlike Counter;
    /// Bans of addresses and of clients.
    bans "access/bans" EachAlike Counter;
    /// MQTT Control Packets received.
    packets_received "messages/received" Broker Counter;
    /// MQTT Control Packets sent.
    packets_sent "messages/sent" Broker Counter;
    /// PUBLISH packets received.
    publishes_received "publish/messages/received" BrokerAndCore Counter as "messages_received";
    /// PUBLISH packets sent.
    publishes_sent "publish/messages/sent" BrokerAndCore Counter as "messages_sent";
    /// Bytes of payloads in PUBLISH packets received.
    publish_bytes_received "publish/bytes/received" Broker Counter as "received_payload_bytes";
    /// Bytes of payloads in PUBLISH packets sent.
    publish_bytes_sent "publish/bytes/sent" Broker Counter as "sent_payload_bytes";
    /// Bytes received.
    bytes_received "bytes/received" Broker Counter as "received_bytes";
    /// Bytes handed to the network.
    bytes_sent "bytes/sent" Broker Counter as "sent_bytes";
    /// Subscriptions.
    subscriptions "subscriptions/count" Broker Gauge;
    /// Subscriptions whose filter has a wildcard.
    subscriptions_wildcard "subscriptions/wildcard" Broker Gauge;
    /// Groups of shared subscriptions.
    subscriptions_shared "subscriptions/shared" Broker Gauge;
    /// Shared subscriptions: each member of each group.
    shared_members "shared_subscriptions/count" Broker Gauge as "shared_subscriptions";
    /// Subscriptions refused: beyond a bound, or of a kind that is switched off or not allowed.
    subscriptions_refused "subscriptions/refused" Broker Counter;
    /// Subscriptions ended because the rules do not allow them any more.
    subscriptions_revoked "subscriptions/revoked" Broker Counter;
    /// Retained messages.
    retained_messages "retained messages/count" EachAlike Gauge;
    /// Bytes of retained messages.
    retained_bytes "retained messages/bytes" EachAlike Gauge;
    /// Retained messages removed because their Message Expiry Interval passed.
    retained_expired "retained messages/expired" EachAlike Counter;
    /// Times a client's socket was not read because the client exceeded its rate limit.
    clients_throttled "clients/throttled" Broker Counter as "client_rate_pauses";
    /// Times a client's socket was not read because the client did not read its acknowledgements.
    clients_unread "clients/unread" Broker Counter as "client_unread_pauses";
    /// Times a publisher's socket was not read because consumers were congested.
    publishers_paused "publishers/paused" Broker Counter as "publisher_pauses";
    /// Consumers without progress for so long that publishers no longer wait for them.
    consumers_stuck "consumers/stuck" Broker Counter;
    /// Messages in the queues of sessions.
    messages_queued "messages/queued" Broker Gauge;
    /// Bytes of the messages in the queues of sessions.
    queue_bytes "messages/queued/bytes" Broker Gauge;
    /// Bytes held by messages, queues and outboxes, which `memory_bytes_max` bounds.
    memory_bytes "memory/bytes" Broker Gauge;
    /// Bytes that wait to be taken by clients.
    output_bytes "packet/out/bytes" Broker Gauge;
    /// Bytes of buffered input: unfinished packets, requests and handshakes.
    input_bytes "memory/input/bytes" Broker Gauge;
    /// Bytes held by subscriptions.
    subscription_bytes "memory/subscriptions/bytes" BrokerAndCore Gauge;
    /// Bytes held by the topics of retained messages.
    retained_topic_bytes "memory/retained-topics/bytes" BrokerAndCore Gauge;
    /// Bytes held by the topic cache.
    topic_cache_bytes "memory/topic-cache/bytes" BrokerAndCore Gauge;
    /// Connections accepted on this core and handed over to their client's home core.
    connections_handed_over "connections/handed-over" BrokerAndCore Counter;
    /// Bytes of the store.
    store_bytes "store/bytes" EachAlike Gauge;
    /// Syncs of the store to disk.
    store_syncs "store/syncs" EachAlike Counter;
    /// 1 while the store cannot write: acknowledgements wait.
    store_failing "store/failing" EachAlike Gauge;
    /// 1 while the store is full: publishers wait.
    store_full "store/full" EachAlike Gauge;
    /// Log lines suppressed by the rate limit.
    log_lines_left_out "log/left-out" EachAlike Counter as "log_lines_suppressed";
    /// Log lines that could not be written: disk full, reader gone or stalled.
    log_lines_lost "log/lost" EachAlike Counter;
    /// Batches sent to other cores.
    batches_sent "batches/sent" Core Counter;
    /// Batches received from other cores.
    batches_received "batches/received" Core Counter;
    /// Bytes in transit to other cores.
    lanes_bytes "lanes/bytes" Core Gauge;
    /// Times this core woke up another core.
    wakeups_sent "wakeups/sent" Core Counter;
    /// Turns of this core's event loop.
    turns "turns" Core Counter;
    /// Steps of work of this core in all turns.
    work_steps "work/steps" Core Counter;
    /// Maximum number of steps in one turn.
    work_steps_turn_max "work/steps/turn-maximum" Core Gauge;
    /// Times input of a client was deferred because the turn's budget was spent.
    inputs_deferred "work/inputs-deferred" Core Counter;
    /// SUBSCRIBE and UNSUBSCRIBE packets, and checks of a client's rights, that took several turns.
    packets_divided "work/divided" Core Counter;
    /// Sessions whose end took several turns.
    sessions_divided "work/sessions-divided" Core Counter;
    /// Messages and fan-out batches whose delivery took several turns.
    fan_outs_divided "work/fan-outs-divided" Core Counter;
    /// Time for which this core was busy.
    busy_us "busy/us" Core Counter as "busy_seconds";
    /// Times the core handled timers a second late or more: it was stopped or overloaded.
    turns_late "busy/late" Core Counter as "late_turns";
    /// Busy time since the last report, in percent.
    busy_percent "busy/percent" Core Derived;
    /// Turns before which this core waited for more input, as it was busy.
    turns_moderated "moderation/turns" Core Counter as "moderated_turns";
    /// Time that this core waited for more input.
    moderated_us "moderation/us" Core Counter as "moderated_seconds";
    /// System calls to submit or wait.
    kernel_entries "kernel/entries" Core Counter;
    /// Sends that waited until the peer accepted more.
    sends_waited "kernel/sends-waited" Core Counter;
    /// Receives that found no free buffer and were restarted.
    receives_starved "kernel/receives-starved" Core Counter;
    /// Times the completion queue overflowed.
    completions_overflowed "kernel/completions-overflowed" Core Counter;
    /// Completions of unknown operations; each closed its connection.
    completions_stray "kernel/completions-stray" Core Counter;
    /// Times accept was paused because no file descriptor was free.
    accepts_rested "kernel/accepts-rested" Core Counter;
}

/// Counters of the access control, for all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessCounts {
    /// Successful reloads.
    pub reloads: u64,
    /// Failed reloads; the previous files stay in force.
    pub reloads_failed: u64,
    /// Users in the user database.
    pub database_users: u64,
    /// Rules in the user database.
    pub database_rules: u64,
    /// Questions to the server that authorizes clients.
    pub authorization_asked: u64,
    /// Of these, questions without an answer.
    pub authorization_failed: u64,
    /// Cached answers of that server.
    pub authorization_cached: u64,
    /// Commands of dynamic security.
    pub dynamic_security_commands: u64,
    /// Of these, commands that were answered with an error.
    pub dynamic_security_errors: u64,
    /// Messages with commands for which there was no room.
    pub dynamic_security_refused: u64,
    /// Seconds since the keys for tokens were fetched.
    pub key_set_age_s: u64,
    /// Failed attempts to fetch the keys for tokens.
    pub key_set_failures: u64,
    /// Jobs that run in the pool or wait for it.
    pub unfinished: u64,
    /// Connections closed right after accept because of their address.
    pub turned_away: u64,
    /// Bans of addresses and clients since the start.
    pub bans: u64,
}

/// Counters of an executor for one turn of its event loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Microseconds from the end of waiting to the end of the turn.
    pub busy_us: u64,
    /// Microseconds for which the core waited for more input before the turn.
    pub moderated_us: u64,
    /// Cores woken up.
    pub wakeups: u64,
    /// See [`Metrics::kernel_entries`].
    pub kernel_entries: u64,
    /// See [`Metrics::sends_waited`].
    pub sends_waited: u64,
    /// See [`Metrics::receives_starved`].
    pub receives_starved: u64,
    /// See [`Metrics::completions_overflowed`].
    pub completions_overflowed: u64,
    /// See [`Metrics::completions_stray`].
    pub completions_stray: u64,
    /// See [`Metrics::accepts_rested`].
    pub accepts_rested: u64,
}

impl Metrics {
    /// Stores the counters of the access control, for all cores.
    pub fn note_access(&mut self, counts: AccessCounts) {
        self.access_reloads = counts.reloads;
        self.access_reloads_failed = counts.reloads_failed;
        self.database_users = counts.database_users;
        self.database_rules = counts.database_rules;
        self.authorization_asked = counts.authorization_asked;
        self.authorization_failed = counts.authorization_failed;
        self.authorization_cached = counts.authorization_cached;
        self.dynamic_security_commands = counts.dynamic_security_commands;
        self.dynamic_security_errors = counts.dynamic_security_errors;
        self.dynamic_security_refused = counts.dynamic_security_refused;
        self.key_set_age_s = counts.key_set_age_s;
        self.key_set_failures = counts.key_set_failures;
        self.access_unfinished = counts.unfinished;
        self.connections_turned_away = counts.turned_away;
        self.bans = counts.bans;
    }

    /// Adds the counters of a turn.
    pub fn note_turn(&mut self, turn: Turn) {
        self.turns += 1;
        self.busy_us += turn.busy_us;
        self.turns_moderated += u64::from(turn.moderated_us > 0);
        self.moderated_us += turn.moderated_us;
        self.wakeups_sent += turn.wakeups;
        self.kernel_entries += turn.kernel_entries;
        self.sends_waited += turn.sends_waited;
        self.receives_starved += turn.receives_starved;
        self.completions_overflowed += turn.completions_overflowed;
        self.completions_stray += turn.completions_stray;
        self.accepts_rested += turn.accepts_rested;
    }
}

#[cfg(test)]
mod tests;
