//! Configuration stub.
use crate::session::outbound::QueuePolicy;
#[derive(Clone, Debug)]
pub struct Settings { pub limits: Limits, pub mqtt: Mqtt }
#[derive(Clone, Debug)]
pub struct Limits { pub connections_max: u32, pub connections_per_second_max: u32, pub connect_timeout_s: u32, pub packet_bytes_max: u32, pub topic_levels_max: u32, pub subscriptions_per_client_max: u32, pub receive_maximum: u16, pub inflight_max: u16, pub topic_alias_maximum: u16, pub topic_alias_outgoing_max: u16, pub outbox_bytes_max: u32, pub queue_messages_max: u32, pub queue_bytes_max: u64, pub queue_policy: QueuePolicy, pub retained_messages_max: u32, pub retained_bytes_max: u64, pub memory_bytes_max: u64, pub session_expiry_max_s: u32, pub keep_alive_max_s: u16 }
#[derive(Clone, Debug)]
pub struct Mqtt { pub maximum_qos: u8, pub retain_available: bool, pub wildcard_subscription_available: bool, pub subscription_identifiers_available: bool, pub shared_subscription_available: bool, pub payload_format_validate: bool, pub response_information: String, pub server_reference: String, pub redirect: Redirect, pub sys_interval_s: u32 }
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Redirect { None, Temporary, Permanent }
impl Default for Settings { fn default() -> Self { Self { limits: Limits { connections_max: 100000, connections_per_second_max: 0, connect_timeout_s: 10, packet_bytes_max: 16777216, topic_levels_max: 128, subscriptions_per_client_max: 10000, receive_maximum: 1024, inflight_max: 128, topic_alias_maximum: 64, topic_alias_outgoing_max: 64, outbox_bytes_max: 1048576, queue_messages_max: 100000, queue_bytes_max: 67108864, queue_policy: QueuePolicy::DropNewest, retained_messages_max: 1000000, retained_bytes_max: 1<<30, memory_bytes_max: 1<<34, session_expiry_max_s: u32::MAX, keep_alive_max_s: 0 }, mqtt: Mqtt { maximum_qos: 2, retain_available: true, wildcard_subscription_available: true, subscription_identifiers_available: true, shared_subscription_available: true, payload_format_validate: false, response_information: String::new(), server_reference: String::new(), redirect: Redirect::None, sys_interval_s: 10 } } } }
