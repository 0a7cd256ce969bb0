//! Limits per address, user and client.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::number::between;
use super::proxy::networks;

/// Limits per address, user and client; 0 is no limit.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Protection {
    /// PUBLISH packets of one client per second.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub messages_per_second_max: u32,
    /// Bytes of packets of one client per second.
    #[serde(deserialize_with = "between::<_, _, 0, 4_000_000_000>")]
    pub bytes_per_second_max: u32,
    /// Seconds from the first byte of a packet to its last.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub packet_timeout_s: u32,
    /// Concurrent connections of one address.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_address_max: u32,
    /// Connections of one address per second.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_address_per_second_max: u32,
    /// Concurrent connections of one user.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_user_max: u32,
    /// Sessions of one user, of connected and of disconnected clients.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub sessions_per_user_max: u32,
    /// Retained messages that one user has published.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub retained_messages_per_user_max: u32,
    /// Bytes of the retained messages that one user has published.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub retained_bytes_per_user_max: u64,
    /// Bytes of messages queued for all sessions of one user.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub queue_bytes_per_user_max: u64,
    /// Failed authentications within `window_s` after which an address is banned.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub refusals_max: u32,
    /// Closed connections of one client within `window_s` after which the client is banned.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub flaps_max: u32,
    /// Seconds over which failures and closed connections are counted.
    #[serde(deserialize_with = "between::<_, _, 1, 86_400>")]
    pub window_s: u32,
    /// Duration of a ban in seconds.
    #[serde(deserialize_with = "between::<_, _, 1, 31_536_000>")]
    pub ban_s: u32,
    /// Bits of an IPv4 address that count as one address: fewer than 32 limit whole networks.
    #[serde(deserialize_with = "between::<_, _, 1, 32>")]
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that count as one address: a client usually has all others of its network.
    #[serde(deserialize_with = "between::<_, _, 1, 128>")]
    pub ipv6_prefix: u8,
    /// Networks without limits, such as this machine's own addresses and those of proxies.
    #[serde(deserialize_with = "networks")]
    pub exempt: Vec<IpNet>,
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            messages_per_second_max: 0,
            bytes_per_second_max: 0,
            packet_timeout_s: 120,
            connections_per_address_max: 0,
            connections_per_address_per_second_max: 0,
            connections_per_user_max: 0,
            sessions_per_user_max: 0,
            retained_messages_per_user_max: 0,
            retained_bytes_per_user_max: 0,
            queue_bytes_per_user_max: 0,
            refusals_max: 0,
            flaps_max: 0,
            window_s: 60,
            ban_s: 60,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            exempt: ["127.0.0.0/8", "::1/128"].map(|text| text.parse().expect("a network")).into(),
        }
    }
}

impl Protection {
    /// Whether the rate of a client is limited.
    pub fn bounds_rates(&self) -> bool {
        self.messages_per_second_max > 0 || self.bytes_per_second_max > 0
    }

    /// Whether the sessions, queues or retained messages of a user are limited.
    pub fn bounds_holdings(&self) -> bool {
        self.sessions_per_user_max > 0
            || self.queue_bytes_per_user_max > 0
            || self.bounds_retained()
    }

    /// Whether the retained messages of a user are limited.
    pub fn bounds_retained(&self) -> bool {
        self.retained_messages_per_user_max > 0 || self.retained_bytes_per_user_max > 0
    }

    /// Whether connections are counted per address, user or client.
    pub fn counts_connections(&self) -> bool {
        self.connections_per_address_max > 0
            || self.connections_per_address_per_second_max > 0
            || self.connections_per_user_max > 0
            || self.flaps_max > 0
    }
}
