//! Reason Codes of 5.0 (table 2-6) and return codes of 3.1.1. Knows no packet's fields.

use crate::wire::violation::Violation;

use super::PacketType;
use super::reader::Reader;

/// Generates the `ReasonCode` enum and its methods from table 2-6.
macro_rules! reason_codes {
    ($($value:literal $code:ident $name:literal [$($packet:ident)+];)*) => {
        /// A Reason Code. Normal disconnection and Granted QoS 0 are [`ReasonCode::Success`].
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonCode {
            $(#[doc = concat!($name, ".")] $code = $value,)*
        }

        impl ReasonCode {
            /// Every row of the table.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$code,)*];

            /// The Reason Code with this value, if the table has one.
            pub const fn from_u8(value: u8) -> Option<ReasonCode> {
                match value {
                    $($value => Some(ReasonCode::$code),)*
                    _ => None,
                }
            }

            /// The name in the specification.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ReasonCode::$code => $name,)*
                }
            }

            const fn packets(self) -> u16 {
                match self {
                    $(ReasonCode::$code => 0 $(| PacketType::$packet.bit())+,)*
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success" [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth];
    0x01 GrantedQos1 "Granted QoS 1" [Suback];
    0x02 GrantedQos2 "Granted QoS 2" [Suback];
    0x04 DisconnectWithWillMessage "Disconnect with Will Message" [Disconnect];
    0x10 NoMatchingSubscribers "No matching subscribers" [Puback Pubrec];
    0x11 NoSubscriptionExisted "No subscription existed" [Unsuback];
    0x18 ContinueAuthentication "Continue authentication" [Auth];
    0x19 Reauthenticate "Re-authenticate" [Auth];
    0x80 UnspecifiedError "Unspecified error" [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x81 MalformedPacket "Malformed Packet" [Connack Disconnect];
    0x82 ProtocolError "Protocol Error" [Connack Disconnect];
    0x83 ImplementationSpecificError "Implementation specific error"
        [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version" [Connack];
    0x85 ClientIdentifierNotValid "Client Identifier not valid" [Connack];
    0x86 BadUserNameOrPassword "Bad User Name or Password" [Connack];
    0x87 NotAuthorized "Not authorized" [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x88 ServerUnavailable "Server unavailable" [Connack];
    0x89 ServerBusy "Server busy" [Connack Disconnect];
    0x8A Banned "Banned" [Connack];
    0x8B ServerShuttingDown "Server shutting down" [Disconnect];
    0x8C BadAuthenticationMethod "Bad authentication method" [Connack Disconnect];
    0x8D KeepAliveTimeout "Keep Alive timeout" [Disconnect];
    0x8E SessionTakenOver "Session taken over" [Disconnect];
    0x8F TopicFilterInvalid "Topic Filter invalid" [Suback Unsuback Disconnect];
    0x90 TopicNameInvalid "Topic Name invalid" [Connack Puback Pubrec Disconnect];
    0x91 PacketIdentifierInUse "Packet Identifier in use" [Puback Pubrec Suback Unsuback];
    0x92 PacketIdentifierNotFound "Packet Identifier not found" [Pubrel Pubcomp];
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded" [Disconnect];
    0x94 TopicAliasInvalid "Topic Alias invalid" [Disconnect];
    0x95 PacketTooLarge "Packet too large" [Connack Disconnect];
    0x96 MessageRateTooHigh "Message rate too high" [Disconnect];
    0x97 QuotaExceeded "Quota exceeded" [Connack Puback Pubrec Suback Disconnect];
    0x98 AdministrativeAction "Administrative action" [Disconnect];
    0x99 PayloadFormatInvalid "Payload format invalid" [Connack Puback Pubrec Disconnect];
    0x9A RetainNotSupported "Retain not supported" [Connack Disconnect];
    0x9B QosNotSupported "QoS not supported" [Connack Disconnect];
    0x9C UseAnotherServer "Use another server" [Connack Disconnect];
    0x9D ServerMoved "Server moved" [Connack Disconnect];
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported" [Suback Disconnect];
    0x9F ConnectionRateExceeded "Connection rate exceeded" [Connack Disconnect];
    0xA0 MaximumConnectTime "Maximum connect time" [Disconnect];
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported"
        [Suback Disconnect];
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported"
        [Suback Disconnect];
}

impl Default for ReasonCode {
    /// The meaning of a packet without a Reason Code.
    fn default() -> Self {
        ReasonCode::Success
    }
}

impl ReasonCode {
    /// Whether table 2-6 allows the code in this packet.
    pub const fn allowed_in(self, packet: PacketType) -> bool {
        self.packets() & packet.bit() != 0
    }

    /// Whether the code is an error: 0x80 and above.
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The equivalent or nearest CONNACK return code of 3.1 and 3.1.1; `None` if the Network
    /// Connection has to be closed without a CONNACK packet [3.1.1 MQTT-3.2.2-6].
    pub const fn return_code(self) -> Option<u8> {
        match self {
            ReasonCode::Success => Some(0),
            ReasonCode::UnsupportedProtocolVersion => Some(1),
            ReasonCode::ClientIdentifierNotValid => Some(2),
            ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::QuotaExceeded
            | ReasonCode::ConnectionRateExceeded
            | ReasonCode::UseAnotherServer
            | ReasonCode::ServerMoved => Some(3),
            ReasonCode::BadUserNameOrPassword => Some(4),
            ReasonCode::NotAuthorized | ReasonCode::Banned => Some(5),
            _ => None,
        }
    }

    /// The Reason Code that corresponds to a CONNACK return code of 3.1 and 3.1.1.
    pub const fn from_return_code(value: u8) -> Option<ReasonCode> {
        match value {
            0 => Some(ReasonCode::Success),
            1 => Some(ReasonCode::UnsupportedProtocolVersion),
            2 => Some(ReasonCode::ClientIdentifierNotValid),
            3 => Some(ReasonCode::ServerUnavailable),
            4 => Some(ReasonCode::BadUserNameOrPassword),
            5 => Some(ReasonCode::NotAuthorized),
            _ => None,
        }
    }

    /// Reads the next byte, which has to be a code that is allowed in the packet. Any other value
    /// is a Protocol Error, not a Malformed Packet. (section 1.2)
    pub(super) fn read(
        reader: &mut Reader<'_>,
        packet: PacketType,
    ) -> Result<ReasonCode, Violation> {
        ReasonCode::checked(reader.byte()?, packet).ok_or(violation_of(packet))
    }

    /// The Reason Code with this value, if table 2-6 allows it in this packet.
    pub(super) fn checked(value: u8, packet: PacketType) -> Option<ReasonCode> {
        ReasonCode::from_u8(value).filter(|code| code.allowed_in(packet))
    }
}

/// The violation for a code that is not allowed in the packet.
const fn violation_of(packet: PacketType) -> Violation {
    match packet {
        PacketType::Puback => Violation::PubackReasonCodeInvalid,
        PacketType::Pubrec => Violation::PubrecReasonCodeInvalid,
        PacketType::Pubrel => Violation::PubrelReasonCodeInvalid,
        PacketType::Pubcomp => Violation::PubcompReasonCodeInvalid,
        PacketType::Suback => Violation::SubackReasonCodeInvalid,
        PacketType::Unsuback => Violation::UnsubackReasonCodeInvalid,
        PacketType::Disconnect => Violation::DisconnectReasonCodeInvalid,
        PacketType::Auth => Violation::AuthReasonCodeInvalid,
        _ => Violation::ConnackReasonCodeInvalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_codes_stand_for_each_other() {
        for &code in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_u8(code as u8), Some(code));
        }
        let known = (0..=255).filter(|&value| ReasonCode::from_u8(value).is_some()).count();
        assert_eq!(known, 43);
        assert_eq!(ReasonCode::ALL.len(), 43);
        assert!(ReasonCode::ALL.is_sorted());
    }

    /// The lists in the packets' own sections, which have to agree with table 2-6.
    #[test]
    fn each_packet_has_the_codes_of_its_section() {
        let sections: &[(PacketType, &[u8])] = &[
            (
                PacketType::Connack,
                &[
                    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C,
                    0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
                ],
            ),
            (PacketType::Puback, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
            (PacketType::Pubrec, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
            (PacketType::Pubrel, &[0x00, 0x92]),
            (PacketType::Pubcomp, &[0x00, 0x92]),
            (
                PacketType::Suback,
                &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
            ),
            (PacketType::Unsuback, &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]),
            (
                PacketType::Disconnect,
                &[
                    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F,
                    0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E,
                    0x9F, 0xA0, 0xA1, 0xA2,
                ],
            ),
            (PacketType::Auth, &[0x00, 0x18, 0x19]),
            (PacketType::Publish, &[]),
            (PacketType::Subscribe, &[]),
        ];
        for &(packet, expected) in sections {
            let allowed: Vec<u8> =
                (0..=255).filter(|&value| ReasonCode::checked(value, packet).is_some()).collect();
            assert_eq!(allowed, expected, "{packet:?}");
        }
    }

    #[test]
    fn return_codes_stand_for_reason_codes() {
        for value in 0..=5 {
            let code = ReasonCode::from_return_code(value).expect("3.1.1 has six of them");
            assert_eq!(code.return_code(), Some(value));
        }
        assert_eq!(ReasonCode::from_return_code(6), None);
        assert_eq!(ReasonCode::MalformedPacket.return_code(), None);
        assert_eq!(ReasonCode::ServerBusy.return_code(), Some(3));
    }

    #[test]
    fn names_are_the_specifications() {
        assert_eq!(ReasonCode::QosNotSupported.name(), "QoS not supported");
        assert!(ReasonCode::UnspecifiedError.is_error());
        assert!(!ReasonCode::Reauthenticate.is_error());
    }
}
