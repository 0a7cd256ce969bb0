//! Violations of the protocol by a peer, one row per clause. Knows no connection: the engine
//! decides what is sent in answer.

use std::fmt;

use crate::wire::ReasonCode;

/// Generates the `Violation` enum and its methods from one table, so that no clause is stated
/// twice.
macro_rules! violations {
    ($($name:ident $clause:literal $reason:ident $what:literal;)*) => {
        /// A violation of the protocol by the peer; the Network Connection is closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(#[doc = concat!($what, " [", $clause, "]")] $name,)*
        }

        impl Violation {
            /// Every row of the table.
            pub const ALL: &'static [Violation] = &[$(Violation::$name,)*];

            /// The violated clause: a numbered statement of the 5.0 specification (`MQTT-3.3.1-4`),
            /// one of 3.1.1 where 5.0 has none (`3.1.1 MQTT-3.1.2-22`), or a section of the 5.0
            /// specification whose text has no number (`section 3.8.3.1`).
            pub const fn clause(self) -> &'static str {
                match self {
                    $(Violation::$name => $clause,)*
                }
            }

            /// The Reason Code sent to a 5.0 peer.
            pub const fn reason(self) -> ReasonCode {
                match self {
                    $(Violation::$name => ReasonCode::$reason,)*
                }
            }

            /// The Reason String: what the peer did wrong, as a clause of a sentence.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Violation::$name => $what,)*
                }
            }
        }
    };
}

violations! {
    // Framing.
    VariableByteIntegerTooLong "section 1.5.5" MalformedPacket
        "a Variable Byte Integer is longer than four bytes";
    VariableByteIntegerNotMinimal "MQTT-1.5.5-1" MalformedPacket
        "a Variable Byte Integer is not encoded in the fewest bytes";
    PacketTooLarge "MQTT-3.2.2-15" PacketTooLarge
        "the packet is larger than the Maximum Packet Size";
    PacketTypeReserved "section 2.1.2" MalformedPacket
        "the packet type is reserved";
    FixedHeaderFlagsInvalid "MQTT-2.1.3-1" MalformedPacket
        "a reserved flag of the fixed header has the wrong value";
    PacketTooShort "section 2.1.4" MalformedPacket
        "a field extends beyond the end of the packet or of its properties";
    TrailingBytes "section 2.1.4" MalformedPacket
        "bytes follow the last field of the packet";

    // Data representation.
    StringNotUtf8 "MQTT-1.5.4-1" MalformedPacket
        "a string is not well-formed UTF-8";
    StringHasNull "MQTT-1.5.4-2" MalformedPacket
        "a string contains U+0000";
    PacketIdentifierZero "MQTT-2.2.1-3" ProtocolError
        "the Packet Identifier is 0";

    // Properties.
    PropertyUnknown "section 2.2.2.2" MalformedPacket
        "a property identifier is not defined";
    PropertyNotAllowed "section 2.2.2.2" MalformedPacket
        "a property is not allowed in this packet";
    PropertyRepeated "section 2.2.2.2" ProtocolError
        "a property that may occur only once is repeated";
    PropertyNotBoolean "section 3.1.2.11.6" ProtocolError
        "a property that must be 0 or 1 has another value";
    ReceiveMaximumZero "section 3.1.2.11.3" ProtocolError
        "the Receive Maximum is 0";
    MaximumPacketSizeZero "section 3.1.2.11.4" ProtocolError
        "the Maximum Packet Size is 0";
    TopicAliasZero "MQTT-3.3.2-8" TopicAliasInvalid
        "the Topic Alias is 0";
    SubscriptionIdentifierZero "section 3.8.2.1.2" ProtocolError
        "the Subscription Identifier is 0";
    ResponseTopicHasWildcard "MQTT-3.3.2-14" ProtocolError
        "the Response Topic contains a wildcard character";
    ResponseTopicEmpty "MQTT-4.7.3-1" ProtocolError
        "the Response Topic is empty";
    AuthenticationMethodMissing "section 3.15.2.2.2" ProtocolError
        "the AUTH packet has no Authentication Method";
    AuthenticationDataWithoutMethod "section 3.1.2.11.10" ProtocolError
        "Authentication Data is present without an Authentication Method";

    // CONNECT.
    PropertiesTooLarge "section 4.13" QuotaExceeded
        "the properties of the packet are larger than this server accepts";
    TopicAliasesTooLarge "section 4.13" QuotaExceeded
        "the server's memory limit is reached, so the topic of a Topic Alias cannot be stored";
    ConnectTooLarge "section 3.2.2.2" PacketTooLarge
        "the CONNECT packet is larger than this server accepts";
    UnsupportedProtocolName "MQTT-3.1.2-1" UnsupportedProtocolVersion
        "the Protocol Name is not supported";
    UnsupportedProtocolVersion "MQTT-3.1.2-2" UnsupportedProtocolVersion
        "the Protocol Version is not supported";
    ConnectBeforeVersionTooShort "section 3.1.2.2" MalformedPacket
        "the CONNECT packet ends before its Protocol Version";
    ConnectFlagReserved "MQTT-3.1.2-3" MalformedPacket
        "the reserved Connect Flag is set";
    WillQosWithoutWill "MQTT-3.1.2-11" MalformedPacket
        "Will QoS is set but the Will Flag is not";
    WillQosInvalid "MQTT-3.1.2-12" MalformedPacket
        "the Will QoS is 3";
    WillRetainWithoutWill "MQTT-3.1.2-13" MalformedPacket
        "Will Retain is set but the Will Flag is not";
    PasswordWithoutUserName "3.1.1 MQTT-3.1.2-22" MalformedPacket
        "a Password is present without a User Name";
    WillTopicEmpty "MQTT-4.7.3-1" TopicNameInvalid
        "the Will Topic is empty";
    WillTopicHasWildcard "MQTT-4.7.0-1" TopicNameInvalid
        "the Will Topic contains a wildcard character";

    // CONNACK.
    ConnackFlagsReserved "MQTT-3.2.2-1" MalformedPacket
        "a reserved flag of the CONNACK packet is set";
    SessionPresentWithRefusal "MQTT-3.2.2-6" ProtocolError
        "Session Present is set although the connection is refused";
    ConnackReasonCodeInvalid "MQTT-3.2.2-8" ProtocolError
        "the Reason Code is not allowed in CONNACK";

    // PUBLISH.
    PublishQosInvalid "MQTT-3.3.1-4" MalformedPacket
        "the QoS is 3";
    DupWithQos0 "MQTT-3.3.1-2" MalformedPacket
        "DUP is set in a QoS 0 message";
    TopicNameHasWildcard "MQTT-3.3.2-2" TopicNameInvalid
        "the Topic Name contains a wildcard character";
    TopicNameEmpty "MQTT-4.7.3-1" ProtocolError
        "the Topic Name is empty and there is no Topic Alias";
    SubscriptionIdentifierFromClient "MQTT-3.3.4-6" ProtocolError
        "a PUBLISH packet from a client contains a Subscription Identifier";

    // Acknowledgements.
    PubackReasonCodeInvalid "MQTT-3.4.2-1" ProtocolError
        "the Reason Code is not allowed in PUBACK";
    PubrecReasonCodeInvalid "MQTT-3.5.2-1" ProtocolError
        "the Reason Code is not allowed in PUBREC";
    PubrelReasonCodeInvalid "MQTT-3.6.2-1" ProtocolError
        "the Reason Code is not allowed in PUBREL";
    PubcompReasonCodeInvalid "MQTT-3.7.2-1" ProtocolError
        "the Reason Code is not allowed in PUBCOMP";

    // SUBSCRIBE and UNSUBSCRIBE and their acknowledgements.
    SubscribeEmpty "MQTT-3.8.3-2" ProtocolError
        "the SUBSCRIBE packet has no Topic Filter";
    SubscribeOptionsReserved "MQTT-3.8.3-5" MalformedPacket
        "a reserved bit of the Subscription Options is set";
    SubscribeQosInvalid "section 3.8.3.1" ProtocolError
        "the Maximum QoS of a subscription is 3";
    RetainHandlingInvalid "section 3.8.3.1" ProtocolError
        "the Retain Handling is 3";
    NoLocalOnSharedSubscription "MQTT-3.8.3-4" ProtocolError
        "No Local is set on a Shared Subscription";
    TopicFilterEmpty "MQTT-4.7.3-1" MalformedPacket
        "a Topic Filter is empty";
    AnswerTooLarge "MQTT-3.1.2-24" PacketTooLarge
        "the acknowledgement of this many Topic Filters exceeds the client's Maximum Packet Size";
    SubackEmpty "section 3.9.3" ProtocolError
        "the SUBACK packet has no Reason Code";
    SubackReasonCodeInvalid "MQTT-3.9.3-2" ProtocolError
        "a Reason Code is not allowed in SUBACK";
    UnsubscribeEmpty "MQTT-3.10.3-2" ProtocolError
        "the UNSUBSCRIBE packet has no Topic Filter";
    UnsubackEmpty "section 3.11.3" ProtocolError
        "the UNSUBACK packet has no Reason Code";
    UnsubackReasonCodeInvalid "MQTT-3.11.3-2" ProtocolError
        "a Reason Code is not allowed in UNSUBACK";

    // DISCONNECT and AUTH.
    DisconnectReasonCodeInvalid "MQTT-3.14.2-1" ProtocolError
        "the Reason Code is not allowed in DISCONNECT";
    AuthReasonCodeInvalid "MQTT-3.15.2-1" ProtocolError
        "the Reason Code is not allowed in AUTH";

    // Violations that a single packet does not show.
    FirstPacketNotConnect "MQTT-3.1.0-1" ProtocolError
        "the first packet is not CONNECT";
    SecondConnect "MQTT-3.1.0-2" ProtocolError
        "a second CONNECT packet is sent on the same connection";
    UnexpectedPacket "section 4.13.1" ProtocolError
        "this packet type is not allowed here: only a server may send it, or it is out of sequence";
    QosNotSupported "MQTT-3.2.2-11" QosNotSupported
        "the QoS is above the Maximum QoS";
    RetainNotSupported "MQTT-3.2.2-14" RetainNotSupported
        "RETAIN is set, but this server does not support retained messages";
    TopicTooDeep "section 4.7.3" TopicNameInvalid
        "the Topic Name has more levels than this server accepts";
    TopicTooLong "section 4.7.3" TopicNameInvalid
        "the Topic Name is longer than this server accepts";
    TopicAliasTooHigh "MQTT-3.3.2-9" TopicAliasInvalid
        "the Topic Alias is above the Topic Alias Maximum";
    TopicAliasUnknown "MQTT-3.3.2-7" ProtocolError
        "the Topic Alias is not set on this connection";
    ReceiveMaximumExceeded "MQTT-3.3.4-7" ReceiveMaximumExceeded
        "more QoS 2 messages are in flight than the Receive Maximum allows";
    PayloadFormatInvalid "section 3.3.2.3.2" PayloadFormatInvalid
        "the Payload Format Indicator is 1, but the payload is not valid UTF-8";
    TopicFilterInvalid "MQTT-4.7.1-1" MalformedPacket
        "a Topic Filter has a wildcard in an invalid position";
    ShareNameInvalid "MQTT-4.8.2-1" MalformedPacket
        "the Topic Filter of a Shared Subscription has no valid ShareName or no filter";
    SessionExpiryIntervalSetAtDisconnect "section 3.14.2.2.2" ProtocolError
        "DISCONNECT sets a Session Expiry Interval, but it was 0 in CONNECT";
    AuthenticationMethodChanged "MQTT-4.12.0-5" ProtocolError
        "the AUTH packet does not continue the authentication exchange, or changes its Authentication Method";
    AuthWithoutMethod "MQTT-4.12.0-7" ProtocolError
        "an AUTH packet is sent, but CONNECT had no Authentication Method";
}

impl Violation {
    /// Whether `wire::decode` found the violation in a CONNECT packet before it knew the client's
    /// protocol version, so that the form of the answer is in doubt.
    pub const fn is_before_version(self) -> bool {
        matches!(
            self,
            Violation::UnsupportedProtocolName
                | Violation::UnsupportedProtocolVersion
                | Violation::ConnectBeforeVersionTooShort
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.what(), self.clause())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PacketType;

    #[test]
    fn every_row_has_an_error_code_that_can_be_sent() {
        for violation in Violation::ALL {
            let reason = violation.reason();
            let is_sendable =
                reason.allowed_in(PacketType::Connack) || reason.allowed_in(PacketType::Disconnect);
            assert!(is_sendable && reason.is_error(), "{violation:?}");
        }
    }

    #[test]
    fn every_row_cites_a_clause() {
        let is_number = |text: &str| {
            !text.is_empty() && text.split(['.', '-']).all(|part| part.parse::<u16>().is_ok())
        };
        for violation in Violation::ALL {
            let clause = violation.clause();
            let clause = clause.strip_prefix("3.1.1 ").unwrap_or(clause);
            let number = clause.strip_prefix("MQTT-").or(clause.strip_prefix("section "));
            assert!(number.is_some_and(is_number), "{violation:?}");
            assert!(!violation.what().ends_with('.'), "{violation:?}");
        }
    }

    #[test]
    fn a_violation_is_displayed_with_its_clause() {
        let text = Violation::PublishQosInvalid.to_string();
        assert_eq!(text, "the QoS is 3 [MQTT-3.3.1-4]");
    }
}
