//! Limits on the resources that clients can use.

use serde::{Deserialize, Serialize};

use super::number::between;

/// Limits on the resources that clients can use.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Concurrent connections; 0 for as many as the descriptor limit permits.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_max: u32,
    /// Connections accepted per second; 0 for no limit.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_second_max: u32,
    /// Seconds from accepting a connection to its CONNECT.
    #[serde(deserialize_with = "between::<_, _, 1, 3_600>")]
    pub connect_timeout_s: u32,
    /// TLS handshake steps of a core per turn; further steps wait for a later turn.
    #[serde(deserialize_with = "between::<_, _, 1, 10_000>")]
    pub tls_handshakes_per_turn_max: u32,
    /// TLS handshakes that may wait on a core; further connections are closed.
    #[serde(deserialize_with = "between::<_, _, 1, 10_000_000>")]
    pub tls_handshakes_waiting_max: u32,
    /// Bytes of a CONNECT packet, and of every packet until the client is authenticated.
    #[serde(deserialize_with = "between::<_, _, 128, 268_435_460>")]
    pub connect_bytes_max: u32,
    /// Maximum Packet Size announced and enforced.
    #[serde(deserialize_with = "between::<_, _, 128, 268_435_460>")]
    pub packet_bytes_max: u32,
    /// Bytes of the payload of a message or Will; 0 for no limit but that of the packet.
    #[serde(deserialize_with = "between::<_, _, 0, 268_435_455>")]
    pub payload_bytes_max: u32,
    /// Levels of a Topic Name or Filter.
    #[serde(deserialize_with = "between::<_, _, 1, 65_536>")]
    pub topic_levels_max: u32,
    /// Bytes of a Topic Name or Filter.
    #[serde(deserialize_with = "between::<_, _, 1, 65_535>")]
    pub topic_bytes_max: u16,
    /// Sessions, of connected and of disconnected clients.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000_000>")]
    pub sessions_max: u32,
    /// Subscriptions of one client.
    #[serde(deserialize_with = "between::<_, _, 1, 100_000_000>")]
    pub subscriptions_per_client_max: u32,
    /// Bytes of the properties of one packet other than CONNECT.
    #[serde(deserialize_with = "between::<_, _, 4_096, 268_435_455>")]
    pub properties_bytes_max: u32,
    /// Subscriptions of one client whose filter has a wildcard.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub wildcard_subscriptions_per_client_max: u32,
    /// Shared subscriptions of one client.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub shared_subscriptions_per_client_max: u32,
    /// Subscriptions of all clients whose filter has a wildcard.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub wildcard_subscriptions_max: u32,
    /// Shared subscriptions of all clients, regardless of the number of members.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub shared_subscriptions_max: u32,
    /// Topic Filters of one SUBSCRIBE packet; further filters are refused.
    #[serde(deserialize_with = "between::<_, _, 1, 10_000_000>")]
    pub subscribe_filters_max: u32,
    /// Receive Maximum announced: incomplete QoS 2 messages from one client.
    #[serde(deserialize_with = "between::<_, _, 1, 65_535>")]
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in flight to one client, unless its Receive Maximum is lower.
    #[serde(deserialize_with = "between::<_, _, 1, 30_000>")]
    pub inflight_max: u16,
    /// Bytes of payloads of QoS 1 and 2 in flight to one client, beyond which further messages wait; 0 is no limit.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub inflight_bytes_max: u64,
    /// Topic Alias Maximum announced; 0 for none.
    #[serde(deserialize_with = "between::<_, _, 0, 65_535>")]
    pub topic_alias_maximum: u16,
    /// Topic Aliases the broker sets towards one client, unless its Topic Alias Maximum is lower.
    #[serde(deserialize_with = "between::<_, _, 0, 65_535>")]
    pub topic_alias_outgoing_max: u16,
    /// Encoded bytes waiting for one client.
    #[serde(deserialize_with = "between::<_, _, 4_096, 1_073_741_824>")]
    pub outbox_bytes_max: u32,
    /// Messages queued for one session.
    #[serde(deserialize_with = "between::<_, _, 1, 100_000_000>")]
    pub queue_messages_max: u32,
    /// Bytes of messages queued for one session.
    #[serde(deserialize_with = "between::<_, _, 1_024, 1_099_511_627_776>")]
    pub queue_bytes_max: u64,
    /// Policy of a full queue.
    pub queue_policy: QueuePolicy,
    /// Whether QoS 0 messages are queued for sessions without a connection.
    pub queue_qos0: bool,
    /// Retained messages.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub retained_messages_max: u32,
    /// Bytes of retained messages.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub retained_bytes_max: u64,
    /// Bytes of all sessions, subscriptions, messages, queues and outboxes; 0 for three quarters of the memory.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub memory_bytes_max: u64,
    /// Longest Session Expiry Interval; 4294967295 for "never expires".
    #[serde(deserialize_with = "between::<_, _, 0, 4_294_967_295>")]
    pub session_expiry_max_s: u32,
    /// Longest Keep Alive of MQTT 5.0 clients, assigned by Server Keep Alive; 0: the client decides.
    #[serde(deserialize_with = "between::<_, _, 0, 65_535>")]
    pub keep_alive_max_s: u16,
    /// Longest Keep Alive of MQTT 3.1 and 3.1.1 clients, which have no Server Keep Alive: clients with a
    /// longer one, or none, are disconnected after one and a half times this without a packet. 0: the client decides.
    #[serde(deserialize_with = "between::<_, _, 0, 65_535>")]
    pub keep_alive_v3_max_s: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 0,
            connections_per_second_max: 0,
            connect_timeout_s: 10,
            tls_handshakes_per_turn_max: 1,
            tls_handshakes_waiting_max: 20_000,
            // The largest Will, 64 KiB, and as much again for names, a password or token, and properties.
            connect_bytes_max: 128 * 1024,
            packet_bytes_max: 16 * 1024 * 1024,
            payload_bytes_max: 0,
            topic_levels_max: 128,
            topic_bytes_max: 65_535,
            sessions_max: 2_000_000,
            subscriptions_per_client_max: 10_000,
            properties_bytes_max: 64 * 1024,
            wildcard_subscriptions_per_client_max: 2_000,
            shared_subscriptions_per_client_max: 128,
            wildcard_subscriptions_max: 10_000_000,
            shared_subscriptions_max: 20_000,
            subscribe_filters_max: 10_000,
            receive_maximum: 1_024,
            inflight_max: 1_024,
            inflight_bytes_max: 0,
            topic_alias_maximum: 64,
            topic_alias_outgoing_max: 64,
            outbox_bytes_max: 1024 * 1024,
            queue_messages_max: 100_000,
            queue_bytes_max: 64 * 1024 * 1024,
            queue_policy: QueuePolicy::DropNewest,
            queue_qos0: false,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1024 * 1024 * 1024,
            memory_bytes_max: 0,
            session_expiry_max_s: u32::MAX,
            keep_alive_max_s: 0,
            keep_alive_v3_max_s: 0,
        }
    }
}

/// Policy of a full queue.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum QueuePolicy {
    /// Drop the new message.
    #[default]
    DropNewest,
    /// Drop the oldest queued message.
    DropOldest,
    /// Disconnect a connected client with 0x97 Quota exceeded; for a disconnected client, drop the new message.
    Disconnect,
    /// Queue only the latest message of each topic.
    KeepLatest,
}
