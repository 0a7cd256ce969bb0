//! Counters of one core: plain numbers, written by the engine alone, read when somebody asks.

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
}

/// All causes with the names under which they are shown.
pub const DROPS: [(Drop, &str); 10] = [
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
    ($($(#[doc = $doc:literal])+ $name:ident $topic:literal;)+) => {
        /// Counters since start, and gauges.
        #[derive(Clone, Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Messages dropped, by cause.
            pub drops: Drops,
        }

        impl Metrics {
            /// Every counter with its `$SYS/broker/` topic.
            pub fn topics(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($topic, self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Network Connections accepted.
    connections_accepted "connections/accepted";
    /// Connections refused: too many, too fast, or no memory.
    connections_refused "connections/refused";
    /// Connections open now, CONNECT received or not.
    connections_open "connections/open";
    /// Clients connected now.
    clients_connected "clients/connected";
    /// Sessions without a connection.
    clients_disconnected "clients/disconnected";
    /// Most clients connected at a time.
    clients_maximum "clients/maximum";
    /// Sessions that expired.
    sessions_expired "clients/expired";
    /// Connections taken over by a later one of the same Client Identifier.
    takeovers "clients/takeovers";
    /// Connections ended for a protocol violation.
    violations "connections/violations";
    /// Connections ended because Keep Alive or the CONNECT time limit passed.
    timeouts "connections/timeouts";
    /// MQTT Control Packets received.
    packets_received "messages/received";
    /// MQTT Control Packets sent.
    packets_sent "messages/sent";
    /// PUBLISH packets received.
    publishes_received "publish/messages/received";
    /// PUBLISH packets sent.
    publishes_sent "publish/messages/sent";
    /// Bytes received.
    bytes_received "bytes/received";
    /// Bytes handed to the network.
    bytes_sent "bytes/sent";
    /// Subscriptions.
    subscriptions "subscriptions/count";
    /// Subscriptions refused: beyond a bound, or of a kind that is switched off or not allowed.
    subscriptions_refused "subscriptions/refused";
    /// Retained messages.
    retained_messages "retained messages/count";
    /// Bytes of retained messages.
    retained_bytes "retained messages/bytes";
    /// Times a publisher's socket was left unread because its consumers were behind.
    publishers_paused "publishers/paused";
    /// Consumers that took nothing for so long that nobody waits for them any more.
    consumers_stuck "consumers/stuck";
    /// Bytes that messages, queues and outboxes hold; what `memory_bytes_max` bounds.
    memory_bytes "memory/bytes";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_every_sys_topic_shows() {
        let readme = include_str!("../README.md");
        for (topic, _) in Metrics::default().topics() {
            assert!(readme.contains(&format!("| `{topic}` |")), "README.md lacks {topic}");
        }
        for (_, cause) in DROPS {
            assert!(readme.contains(&format!("`{cause}`")), "README.md lacks {cause}");
        }
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
