//! SUBACK and UNSUBACK, which share one form. Knows no subscription.

use super::{PacketIdentifier, UserProperties};

/// The answer to SUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Suback<'a> {
    /// Of the SUBSCRIBE packet.
    pub packet_identifier: PacketIdentifier,
    /// One Reason Code for each Topic Filter, in order.
    pub reasons: &'a [u8],
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// The answer to UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsuback<'a> {
    /// Of the UNSUBSCRIBE packet.
    pub packet_identifier: PacketIdentifier,
    /// One Reason Code for each Topic Filter, in order; empty before 5.0.
    pub reasons: &'a [u8],
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}
