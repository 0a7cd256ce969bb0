//! Options that the MQTT specification leaves to the server.

use serde::{Deserialize, Serialize};

use super::number::between;

/// Options that the MQTT specification leaves to the server.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Highest QoS.
    #[serde(deserialize_with = "between::<_, _, 0, 2>")]
    pub maximum_qos: u8,
    /// Whether messages are retained.
    pub retain_available: bool,
    /// Whether Topic Filters may have wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifiers_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscription_available: bool,
    /// Whether clients without a Client Identifier are assigned one.
    pub assigned_client_identifiers: bool,
    /// How every Client Identifier has to begin; empty for any beginning.
    pub client_identifier_prefix: String,
    /// Whether payloads whose Payload Format Indicator says UTF-8 are checked.
    pub payload_format_validate: bool,
    /// Prefix of response topics, sent to clients that ask for it.
    pub response_information: String,
    /// Another server, sent to clients that are redirected.
    pub server_reference: String,
    /// Whether clients are redirected.
    pub redirect: Redirect,
    /// Seconds between updates of `$SYS`; 0 for none.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub sys_interval_s: u32,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            maximum_qos: 2,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
            assigned_client_identifiers: true,
            client_identifier_prefix: String::new(),
            payload_format_validate: false,
            response_information: String::new(),
            server_reference: String::new(),
            redirect: Redirect::None,
            sys_interval_s: 10,
        }
    }
}

/// Whether clients are redirected to `server_reference`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// Clients are served here.
    #[default]
    None,
    /// CONNACK 0x9C Use another server.
    Temporary,
    /// CONNACK 0x9D Server moved.
    Permanent,
}
