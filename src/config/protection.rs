//! Bounds on what one address, one user and one client may do in a time.

use ipnet::IpNet;
use serde::Deserialize;

use super::number::between;
use super::proxy::networks;

/// Bounds on what one address, one user and one client may do in a time. 0 is no bound.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Protection {
    /// PUBLISH packets that one client may send in a second.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub messages_per_second_max: u32,
    /// Bytes of packets that one client may send in a second.
    #[serde(deserialize_with = "between::<_, _, 0, 4_000_000_000>")]
    pub bytes_per_second_max: u32,
    /// Seconds from the first byte of a packet to its last.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub packet_timeout_s: u32,
    /// Connections of one address at a time.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_address_max: u32,
    /// Connections of one address in a second.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_address_per_second_max: u32,
    /// Connections of one user at a time.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_per_user_max: u32,
    /// Sessions of one user, of connected clients and of those that are away.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub sessions_per_user_max: u32,
    /// Retained messages that one user has published.
    #[serde(deserialize_with = "between::<_, _, 0, 1_000_000_000>")]
    pub retained_messages_per_user_max: u32,
    /// Their bytes.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub retained_bytes_per_user_max: u64,
    /// Bytes of messages queued for all sessions of one user.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub queue_bytes_per_user_max: u64,
    /// Refused CONNECTs of one address in `window_s`, from which on it is banned.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub refusals_max: u32,
    /// Ended connections of one client in `window_s`, from which on it is banned.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub flaps_max: u32,
    /// Seconds over which those two count.
    #[serde(deserialize_with = "between::<_, _, 1, 86_400>")]
    pub window_s: u32,
    /// Seconds that a ban lasts.
    #[serde(deserialize_with = "between::<_, _, 1, 31_536_000>")]
    pub ban_s: u32,
    /// Bits of an IPv4 address that make one address here: fewer bound whole networks.
    #[serde(deserialize_with = "between::<_, _, 1, 32>")]
    pub ipv4_prefix: u8,
    /// The same of an IPv6 address: who has one has them all.
    #[serde(deserialize_with = "between::<_, _, 1, 128>")]
    pub ipv6_prefix: u8,
    /// Addresses that are not bounded: this machine's own, and those of proxies.
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
    /// Whether it is bounded what a client may send.
    pub fn bounds_rates(&self) -> bool {
        self.messages_per_second_max > 0 || self.bytes_per_second_max > 0
    }

    /// Whether it is bounded what a user may hold.
    pub fn bounds_holdings(&self) -> bool {
        self.sessions_per_user_max > 0
            || self.queue_bytes_per_user_max > 0
            || self.bounds_retained()
    }

    /// Whether it is bounded what a user may retain.
    pub fn bounds_retained(&self) -> bool {
        self.retained_messages_per_user_max > 0 || self.retained_bytes_per_user_max > 0
    }

    /// Whether anything is bounded that is counted by address, user or client.
    pub fn counts_connections(&self) -> bool {
        self.connections_per_address_max > 0
            || self.connections_per_address_per_second_max > 0
            || self.connections_per_user_max > 0
            || self.flaps_max > 0
    }
}
