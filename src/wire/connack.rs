//! CONNACK. Knows no reason for a refusal but its code.

use super::{ReasonCode, UserProperties};

/// The answer to CONNECT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connack<'a> {
    /// The server has Session State for the client. Written as 0 beside an error and to 3.1.
    pub session_present: bool,
    /// Written to 3.1 and 3.1.1 as the nearest return code.
    pub reason: ReasonCode,
    /// At their defaults before 5.0.
    pub properties: ConnackProperties<'a>,
}

/// CONNACK properties; what is `None` is not in the packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnackProperties<'a> {
    /// Seconds; the server's choice instead of the client's.
    pub session_expiry_interval: Option<u32>,
    /// QoS 1 and 2 messages that the server takes at once; not 0.
    pub receive_maximum: Option<u16>,
    /// 0 or 1; absent means 2.
    pub maximum_qos: Option<u8>,
    /// Retained messages are supported; absent means so.
    pub retain_available: Option<bool>,
    /// Bytes of the largest packet that the server takes; not 0.
    pub maximum_packet_size: Option<u32>,
    /// For a client that brought none.
    pub assigned_client_identifier: Option<&'a str>,
    /// The highest Topic Alias that the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Wildcards in Topic Filters are supported; absent means so.
    pub wildcard_subscription_available: Option<bool>,
    /// Subscription Identifiers are supported; absent means so.
    pub subscription_identifiers_available: Option<bool>,
    /// Shared Subscriptions are supported; absent means so.
    pub shared_subscription_available: Option<bool>,
    /// Seconds of Keep Alive that the client has to use.
    pub server_keep_alive: Option<u16>,
    /// From which the client makes Response Topics.
    pub response_information: Option<&'a str>,
    /// Other servers to use.
    pub server_reference: Option<&'a str>,
    /// As in CONNECT.
    pub authentication_method: Option<&'a str>,
    /// What the method exchanges.
    pub authentication_data: Option<&'a [u8]>,
}
