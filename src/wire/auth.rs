//! AUTH, of 5.0 only. Knows no authentication method.

use super::{ReasonCode, UserProperties};

/// One step of an enhanced authentication exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// Always there but in the short form, which says Success and nothing else.
    pub authentication_method: Option<&'a str>,
    /// What the method exchanges.
    pub authentication_data: Option<&'a [u8]>,
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}
