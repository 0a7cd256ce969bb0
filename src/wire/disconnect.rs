//! DISCONNECT. Knows no Will.

use super::{ReasonCode, UserProperties};

/// The last packet of a connection; before 5.0 only clients send it, with no fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disconnect<'a> {
    /// Success is Normal disconnection.
    pub reason: ReasonCode,
    /// Seconds, instead of what CONNECT said; from clients only.
    pub session_expiry_interval: Option<u32>,
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Other servers to use.
    pub server_reference: Option<&'a str>,
}
