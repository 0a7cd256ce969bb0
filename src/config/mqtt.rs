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
    /// How assigned Client Identifiers begin.
    pub assigned_identifier_prefix: String,
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
            assigned_identifier_prefix: "auto-".to_owned(),
            client_identifier_prefix: String::new(),
            payload_format_validate: false,
            response_information: String::new(),
            server_reference: String::new(),
            redirect: Redirect::None,
            sys_interval_s: 10,
        }
    }
}

/// Bytes of the prefix of assigned Client Identifiers at most.
const ASSIGNED_PREFIX_BYTES_MAX: usize = 64;

/// Checks a prefix of assigned Client Identifiers.
pub(super) fn check_assigned_prefix(prefix: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("assigned_identifier_prefix {prefix:?}: {what}"));
    if prefix.is_empty() || prefix.len() > ASSIGNED_PREFIX_BYTES_MAX {
        return wrong("needs 1 to 64 bytes");
    }
    let is_special = |of: char| matches!(of, '+' | '#' | '/') || of.is_control();
    match prefix.contains(is_special) {
        true => {
            wrong("has a control character, or one of + # /, which rules do not match; remove it")
        }
        false => Ok(()),
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
