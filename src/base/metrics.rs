//! Counters of one core: plain numbers, written by that core alone, told when somebody asks.

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Drop {
    /// QoS 0 to a client whose outbox is at its bound.
    OutboxFull,
    /// The session's queue is at its bound.
    QueueFull,
    /// A newer message of the same topic took its place (`keep-latest`).
    Superseded,
    /// Its Message Expiry Interval passed.
    Expired,
    /// It exceeds the client's Maximum Packet Size.
    PacketTooLarge,
    /// The broker's memory bound is reached.
    MemoryFull,
    /// The session ended with messages waiting.
    SessionEnded,
    /// QoS 0 waiting for a client that went away.
    Offline,
    /// The publisher may not publish there.
    NotAuthorized,
    /// The retained store is at its bound.
    RetainedFull,
    /// The queues of the client's user are at their bound.
    UserQueueFull,
    /// The publisher's user has retained as much as one may.
    UserRetainedFull,
}

/// All causes with the names under which they are shown.
pub const DROPS: [(Drop, &str); 12] = [
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
];

/// Dropped messages by cause.
#[derive(Clone, Debug, Default)]
pub struct Drops([u64; DROPS.len()]);

impl Drops {
    /// Counts `messages` more.
    pub fn add(&mut self, cause: Drop, messages: u64) {
        self.0[cause as usize] += messages;
    }

    /// Messages dropped for `cause`.
    pub fn of(&self, cause: Drop) -> u64 {
        self.0[cause as usize]
    }

    /// Messages dropped for whatever cause.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The causes that occurred, as `cause=count` pairs for a log line.
    pub fn summary(&self) -> String {
        let counts = DROPS.iter().filter(|(cause, _)| self.of(*cause) > 0);
        counts
            .map(|(cause, name)| format!("{name}={}", self.of(*cause)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident $topic:literal $of:ident $nature:ident;)+) => {
        /// Counters since start, and gauges, of one core; or of all, added up.
        #[derive(Clone, Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Messages dropped, by cause.
            pub drops: Drops,
            /// PUBLISH packets received from clients, by QoS.
            pub received_by_qos: [u64; 3],
            /// Messages of other cores' clients taken from there, by QoS.
            pub forwarded_by_qos: [u64; 3],
        }

        impl Metrics {
            /// Every counter with its `$SYS/broker/` topic, but those of the cores.
            pub fn topics(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($topic, self.$name, Of::$of),)+]
                    .into_iter()
                    .filter(|(_, _, of)| *of != Of::Core)
                    .map(|(topic, value, _)| (topic, value))
            }

            /// What is shown for each core, under `$SYS/broker/cores/N/`.
            pub fn core_topics(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($topic, self.$name, Of::$of),)+]
                    .into_iter()
                    .filter(|(_, _, of)| matches!(of, Of::Core | Of::BrokerAndCore))
                    .map(|(topic, value, _)| (topic, value))
            }

            /// Everything that was counted or measured, by name.
            pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64, Nature)> {
                [$((stringify!($name), self.$name, Nature::$nature),)+].into_iter()
            }

            /// Adds what another core counted. What every core holds alike is not added.
            pub fn add(&mut self, other: &Self) {
                $(if Of::$of != Of::EachAlike {
                    self.$name += other.$name;
                })+
                for (drop, _) in DROPS {
                    self.drops.add(drop, other.drops.of(drop));
                }
                add_each(&mut self.received_by_qos, &other.received_by_qos);
                add_each(&mut self.forwarded_by_qos, &other.forwarded_by_qos);
            }

            /// What was counted since these, the same core's at an earlier time, were taken.
            /// Gauges stay as they are.
            pub fn since(&self, earlier: &Self) -> Self {
                let mut since = self.clone();
                $(if Nature::$nature == Nature::Counter {
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

/// What a counter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// The broker: the sum over its cores.
    Broker,
    /// The broker, and each core by itself.
    BrokerAndCore,
    /// Each core by itself.
    Core,
    /// The broker, whose cores each have the same.
    EachAlike,
}

/// How a number comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It is counted up from the start.
    Counter,
    /// It stands as it is now.
    Gauge,
    /// It is made of others when `$SYS` is updated.
    Derived,
}

/// Adds numbers by QoS.
fn add_each(to: &mut [u64; 3], from: &[u64; 3]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// What came on top of earlier numbers by QoS.
pub fn subtract_each(now: [u64; 3], earlier: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|qos| now[qos] - earlier[qos])
}

counters! {
    /// Network Connections accepted.
    connections_accepted "connections/accepted" Broker Counter;
    /// Connections refused: too many, too fast, or no memory.
    connections_refused "connections/refused" Broker Counter;
    /// Connections open now, CONNECT received or not.
    connections_open "connections/open" BrokerAndCore Gauge;
    /// Clients connected now.
    clients_connected "clients/connected" BrokerAndCore Gauge;
    /// Sessions without a connection.
    clients_disconnected "clients/disconnected" Broker Gauge;
    /// Wills of clients that were connected when the broker went down, and are not back yet.
    wills_left "wills/left" Broker Gauge;
    /// Most clients connected at a time.
    clients_maximum "clients/maximum" Broker Derived;
    /// Sessions that expired.
    sessions_expired "clients/expired" Broker Counter;
    /// Connections taken over by a later one of the same Client Identifier.
    takeovers "clients/takeovers" Broker Counter;
    /// Connections ended for a protocol violation.
    violations "connections/violations" Broker Counter;
    /// Connections ended because Keep Alive or the CONNECT time limit passed.
    timeouts "connections/timeouts" Broker Counter;
    /// Connections ended because their PROXY header, TLS or WebSocket was of no use.
    transport_faults "connections/transport-faults" Broker Counter;
    /// Connections ended because they would have held more of an unfinished packet than there was room for.
    input_refused "connections/input-refused" Broker Counter;
    /// TLS handshakes that went through.
    tls_handshakes "tls/handshakes" BrokerAndCore Counter;
    /// Those of them that resumed an earlier session by its ticket.
    tls_resumed "tls/resumed" Broker Counter;
    /// Steps of TLS handshakes that waited for a later turn.
    tls_waited "tls/waited" BrokerAndCore Counter;
    /// Connections whose TLS the kernel went on with.
    kernel_tls_taken "tls/kernel/taken" Broker Counter;
    /// Those that it did not, as it has not their cipher.
    kernel_tls_left_cipher "tls/kernel/left/cipher" Broker Counter;
    /// Those that it did not, as they never were between two records when they were looked at.
    kernel_tls_left_busy "tls/kernel/left/busy" Broker Counter;
    /// Those that it did not, as their sockets could not be readied.
    kernel_tls_left_refused "tls/kernel/left/refused" Broker Counter;
    /// Connections ended because the kernel did not take their keys.
    kernel_tls_failed "tls/kernel/ended/failed" Broker Counter;
    /// Connections ended because their client changed its keys, which the kernel cannot follow.
    kernel_tls_key_updates "tls/kernel/ended/key-update" Broker Counter;
    /// Connections ended because their keys had sealed as much as they may.
    kernel_tls_spent "tls/kernel/ended/spent" Broker Counter;
    /// Clients that the access control did not let in.
    clients_refused "clients/refused" Broker Counter;
    /// Those of them that asked for the session of another user.
    sessions_guarded "clients/refused/session-of-another" Broker Counter;
    /// Those of them whose Client Identifier the rules do not let them use.
    identifiers_denied "clients/refused/identifier" Broker Counter;
    /// Sessions of others that were ended for the user whose Client Identifier theirs was.
    foreign_sessions_ended "clients/foreign-sessions-ended" Broker Counter;
    /// Those of them whose user has as many sessions as one may.
    sessions_over_user "clients/refused/sessions-of-user" Broker Counter;
    /// Connections ended because the time for which their client was let in was over.
    stays_ended "clients/expired-credentials" Broker Counter;
    /// Connections ended because a reload withdrew what their client was let in by.
    credentials_withdrawn "clients/withdrawn-credentials" Broker Counter;
    /// Times the files of the access control were read anew and put in force.
    access_reloads "access/reloads" EachAlike Counter;
    /// Times they could not be, and the old ones stayed in force.
    access_reloads_failed "access/reloads-failed" EachAlike Counter;
    /// Answers of the access control that are being worked out, or wait for that.
    access_unfinished "access/unfinished" EachAlike Gauge;
    /// Connections closed as soon as they were accepted, because of their address.
    connections_turned_away "connections/turned-away" EachAlike Counter;
    /// Bans of addresses and of clients.
    bans "access/bans" EachAlike Counter;
    /// MQTT Control Packets received.
    packets_received "messages/received" Broker Counter;
    /// MQTT Control Packets sent.
    packets_sent "messages/sent" Broker Counter;
    /// PUBLISH packets received.
    publishes_received "publish/messages/received" BrokerAndCore Counter;
    /// PUBLISH packets sent.
    publishes_sent "publish/messages/sent" BrokerAndCore Counter;
    /// Bytes received.
    bytes_received "bytes/received" Broker Counter;
    /// Bytes handed to the network.
    bytes_sent "bytes/sent" Broker Counter;
    /// Subscriptions.
    subscriptions "subscriptions/count" Broker Gauge;
    /// Those of them whose filter has a wildcard.
    subscriptions_wildcard "subscriptions/wildcard" Broker Gauge;
    /// Groups of shared subscriptions.
    subscriptions_shared "subscriptions/shared" Broker Gauge;
    /// Subscriptions refused: beyond a bound, or of a kind that is switched off or not allowed.
    subscriptions_refused "subscriptions/refused" Broker Counter;
    /// Subscriptions ended because the rules do not allow them any more.
    subscriptions_revoked "subscriptions/revoked" Broker Counter;
    /// Retained messages.
    retained_messages "retained messages/count" EachAlike Gauge;
    /// Bytes of retained messages.
    retained_bytes "retained messages/bytes" EachAlike Gauge;
    /// Retained messages taken away because their Message Expiry Interval passed.
    retained_expired "retained messages/expired" EachAlike Counter;
    /// Times a client's socket was left unread because it had sent more than it may in a while.
    clients_throttled "clients/throttled" Broker Counter;
    /// Times a client's socket was left unread because it did not take its answers.
    clients_unread "clients/unread" Broker Counter;
    /// Times a publisher's socket was left unread because its consumers were behind.
    publishers_paused "publishers/paused" Broker Counter;
    /// Consumers that took nothing for so long that nobody waits for them any more.
    consumers_stuck "consumers/stuck" Broker Counter;
    /// Messages that wait in the queues of sessions.
    messages_queued "messages/queued" Broker Gauge;
    /// Bytes that messages, queues and outboxes hold; what `memory_bytes_max` bounds.
    memory_bytes "memory/bytes" Broker Gauge;
    /// Those of them that are input which waits: unfinished packets, requests and handshakes.
    input_bytes "memory/input/bytes" Broker Gauge;
    /// Bytes of them that subscriptions take.
    subscription_bytes "memory/subscriptions/bytes" BrokerAndCore Gauge;
    /// Bytes of them that the topics of retained messages take.
    retained_topic_bytes "memory/retained-topics/bytes" BrokerAndCore Gauge;
    /// Bytes of them that cached answers of who gets a topic take.
    topic_cache_bytes "memory/topic-cache/bytes" BrokerAndCore Gauge;
    /// Connections accepted on this core and handed over to the home core of their client.
    connections_handed_over "connections/handed-over" BrokerAndCore Counter;
    /// Bytes of the store.
    store_bytes "store/bytes" EachAlike Gauge;
    /// Times the store was synchronised with the disk.
    store_syncs "store/syncs" EachAlike Counter;
    /// 1 while the store cannot write: acknowledgements wait.
    store_failing "store/failing" EachAlike Gauge;
    /// 1 while the store is at its bound: publishers wait.
    store_full "store/full" EachAlike Gauge;
    /// Log lines left out because there were too many of their kind.
    log_lines_left_out "log/left-out" EachAlike Counter;
    /// Log lines that could not be written: no room, no reader, or one that stands still.
    log_lines_lost "log/lost" EachAlike Counter;
    /// Batches sent to other cores.
    batches_sent "batches/sent" Core Counter;
    /// Batches taken from other cores.
    batches_received "batches/received" Core Counter;
    /// Bytes under way to other cores.
    lanes_bytes "lanes/bytes" Core Gauge;
    /// Times this core woke another one that slept.
    wakeups_sent "wakeups/sent" Core Counter;
    /// Turns of this core's loop.
    turns "turns" Core Counter;
    /// Steps of work that this core did in all turns.
    work_steps "work/steps" Core Counter;
    /// The most steps that it did in one turn.
    work_steps_turn_max "work/steps/turn-maximum" Core Gauge;
    /// Times input of a client was put off as the turn's budget was spent.
    inputs_deferred "work/inputs-deferred" Core Counter;
    /// SUBSCRIBE and UNSUBSCRIBE packets, and looks at a client's rights, that took several turns.
    packets_divided "work/divided" Core Counter;
    /// Sessions that ended over several turns.
    sessions_divided "work/sessions-divided" Core Counter;
    /// Messages, and runs of them, that some of their subscribers got in a later turn.
    fan_outs_divided "work/fan-outs-divided" Core Counter;
    /// Microseconds this core was busy.
    busy_us "busy/us" Core Counter;
    /// Times that the core came to what was due a second late or more: it was stopped, or busy.
    turns_late "busy/late" Core Counter;
    /// The share of time it was busy since the last report, in percent.
    busy_percent "busy/percent" Core Derived;
    /// Times the kernel was entered to submit or to wait.
    kernel_entries "kernel/entries" Core Counter;
    /// Sends that had to wait for the peer to take more.
    sends_waited "kernel/sends-waited" Core Counter;
    /// Receives that found no free buffer and were begun again.
    receives_starved "kernel/receives-starved" Core Counter;
    /// Times there were more completions than fit, and the kernel kept them aside.
    completions_overflowed "kernel/completions-overflowed" Core Counter;
    /// Operations that completed without being under way: each ended its connection.
    completions_stray "kernel/completions-stray" Core Counter;
    /// Times accepting rested because no descriptor was free.
    accepts_rested "kernel/accepts-rested" Core Counter;
}

/// What an access control counts, for all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessCounts {
    /// Times the files were read anew and put in force.
    pub reloads: u64,
    /// Times they could not be, and the old ones stayed in force.
    pub reloads_failed: u64,
    /// Answers being worked out in the pool, or waiting for it.
    pub unfinished: u64,
    /// Connections closed as soon as they were accepted, because of their address.
    pub turned_away: u64,
    /// Bans since the start, of addresses and of clients.
    pub bans: u64,
}

/// What an executor counted in a turn of its loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Microseconds from what it waited for to the end of the turn.
    pub busy_us: u64,
    /// Cores woken.
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
    /// What the access control counts, for all cores.
    pub fn note_access(&mut self, counts: AccessCounts) {
        self.access_reloads = counts.reloads;
        self.access_reloads_failed = counts.reloads_failed;
        self.access_unfinished = counts.unfinished;
        self.connections_turned_away = counts.turned_away;
        self.bans = counts.bans;
    }

    /// Counts a turn.
    pub fn note_turn(&mut self, turn: Turn) {
        self.turns += 1;
        self.busy_us += turn.busy_us;
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
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_every_sys_topic_shows() {
        let readme = include_str!("../../README.md");
        let metrics = Metrics::default();
        let of_cores = metrics.core_topics().map(|(topic, _)| format!("cores/N/{topic}"));
        let of_broker = metrics.topics().map(|(topic, _)| topic.to_owned());
        for topic in of_broker.chain(of_cores) {
            assert!(readme.contains(&format!("| `{topic}` |")), "README.md lacks {topic}");
        }
        for (_, cause) in DROPS {
            assert!(readme.contains(&format!("`{cause}`")), "README.md lacks {cause}");
        }
    }

    #[test]
    fn what_was_counted_meanwhile_is_the_difference_and_a_gauge_stays_as_it_is() {
        let mut earlier = Metrics { turns: 5, memory_bytes: 100, ..Metrics::default() };
        earlier.drops.add(Drop::Expired, 1);
        let mut now = Metrics { turns: 7, memory_bytes: 60, ..earlier.clone() };
        now.drops.add(Drop::Expired, 3);
        now.received_by_qos[2] += 4;
        let since = now.since(&earlier);
        assert_eq!((since.turns, since.memory_bytes, since.drops.total()), (2, 60, 3));
        assert_eq!(since.received_by_qos, [0, 0, 4]);
        let names: Vec<&str> = now.rows().map(|(name, ..)| name).collect();
        assert!(names.contains(&"turns") && names.contains(&"memory_bytes"));
    }

    #[test]
    fn drops_are_summed_and_named_by_cause() {
        let mut drops = Drops::default();
        drops.add(Drop::QueueFull, 2);
        drops.add(Drop::Expired, 1);
        assert_eq!((drops.total(), drops.of(Drop::QueueFull)), (3, 2));
        assert_eq!(drops.summary(), "queue-full=2 expired=1");
    }
}
