//! PUBACK, PUBREC, PUBREL and PUBCOMP, which share one form. Knows no message they acknowledge.

use super::{PacketIdentifier, ReasonCode, UserProperties};

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    /// Of the PUBLISH packet.
    pub packet_identifier: PacketIdentifier,
    /// Success before 5.0, and whenever the packet leaves it out.
    pub reason: ReasonCode,
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl Ack<'_> {
    /// An acknowledgement without properties.
    pub fn new(packet_identifier: PacketIdentifier, reason: ReasonCode) -> Ack<'static> {
        Ack {
            packet_identifier,
            reason,
            reason_string: None,
            user_properties: UserProperties::none(),
        }
    }
}
