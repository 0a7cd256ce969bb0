//! What a peer can do that its protocol forbids, one row per clause. Knows no connection: what is
//! sent in answer is the engine's business.

use std::fmt;

use crate::wire::ReasonCode;

/// Makes the `Violation` enum and its facts out of one table, so that no clause is stated twice.
macro_rules! violations {
    ($($name:ident $clause:literal $reason:ident $what:literal;)*) => {
        /// The peer broke the protocol; the Network Connection ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(#[doc = concat!($what, " [", $clause, "]")] $name,)*
        }

        impl Violation {
            /// Every row of the table.
            pub const ALL: &'static [Violation] = &[$(Violation::$name,)*];

            /// The broken clause: a numbered statement of the 5.0 document (`MQTT-3.3.1-4`), one
            /// of 3.1.1's where 5.0 has none (`3.1.1 MQTT-3.1.2-22`), or a section of the 5.0
            /// document whose text has no number (`section 3.8.3.1`).
            pub const fn clause(self) -> &'static str {
                match self {
                    $(Violation::$name => $clause,)*
                }
            }

            /// The Reason Code that tells a 5.0 peer.
            pub const fn reason(self) -> ReasonCode {
                match self {
                    $(Violation::$name => ReasonCode::$reason,)*
                }
            }

            /// What the peer did, as a clause of a sentence.
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
        "a Variable Byte Integer goes on after its fourth byte";
    VariableByteIntegerNotMinimal "MQTT-1.5.5-1" MalformedPacket
        "a Variable Byte Integer uses more bytes than it needs";
    PacketTooLarge "MQTT-3.2.2-15" PacketTooLarge
        "the packet is larger than the Maximum Packet Size";
    PacketTypeReserved "section 2.1.2" MalformedPacket
        "the packet type is reserved";
    FixedHeaderFlagsInvalid "MQTT-2.1.3-1" MalformedPacket
        "a reserved flag of the fixed header has the wrong value";
    PacketTooShort "section 2.1.4" MalformedPacket
        "a field goes beyond the end of the packet or of its properties";
    TrailingBytes "section 2.1.4" MalformedPacket
        "bytes follow the last field of the packet";

    // Data representation.
    StringNotUtf8 "MQTT-1.5.4-1" MalformedPacket
        "a string is not well-formed UTF-8";
    StringHasNull "MQTT-1.5.4-2" MalformedPacket
        "a string holds U+0000";
    PacketIdentifierZero "MQTT-2.2.1-3" ProtocolError
        "the Packet Identifier is 0";

    // Properties.
    PropertyUnknown "section 2.2.2.2" MalformedPacket
        "a property has an undefined identifier";
    PropertyNotAllowed "section 2.2.2.2" MalformedPacket
        "a property is not defined for this packet";
    PropertyRepeated "section 2.2.2.2" ProtocolError
        "a property that may occur once occurs again";
    PropertyNotBoolean "section 3.1.2.11.6" ProtocolError
        "a property that is 0 or 1 has another value";
    ReceiveMaximumZero "section 3.1.2.11.3" ProtocolError
        "the Receive Maximum is 0";
    MaximumPacketSizeZero "section 3.1.2.11.4" ProtocolError
        "the Maximum Packet Size is 0";
    TopicAliasZero "MQTT-3.3.2-8" TopicAliasInvalid
        "the Topic Alias is 0";
    SubscriptionIdentifierZero "section 3.8.2.1.2" ProtocolError
        "the Subscription Identifier is 0";
    ResponseTopicHasWildcard "MQTT-3.3.2-14" ProtocolError
        "the Response Topic holds a wildcard";
    ResponseTopicEmpty "MQTT-4.7.3-1" ProtocolError
        "the Response Topic is empty";
    AuthenticationMethodMissing "section 3.15.2.2.2" ProtocolError
        "the AUTH packet names no Authentication Method";
    AuthenticationDataWithoutMethod "section 3.1.2.11.10" ProtocolError
        "there is Authentication Data but no Authentication Method";

    // CONNECT.
    PropertiesTooLarge "section 4.13" QuotaExceeded
        "the properties of the packet are larger than this server takes";
    TopicAliasesTooLarge "section 4.13" QuotaExceeded
        "this server has no memory left for the topic of a Topic Alias";
    ConnectTooLarge "section 3.2.2.2" PacketTooLarge
        "the CONNECT packet is larger than this server takes";
    UnsupportedProtocolName "MQTT-3.1.2-1" UnsupportedProtocolVersion
        "the Protocol Name is unknown";
    UnsupportedProtocolVersion "MQTT-3.1.2-2" UnsupportedProtocolVersion
        "the Protocol Version is unknown";
    ConnectBeforeVersionTooShort "section 3.1.2.2" MalformedPacket
        "the CONNECT packet ends before its Protocol Version";
    ConnectFlagReserved "MQTT-3.1.2-3" MalformedPacket
        "the reserved Connect Flag is set";
    WillQosWithoutWill "MQTT-3.1.2-11" MalformedPacket
        "there is a Will QoS but no Will";
    WillQosInvalid "MQTT-3.1.2-12" MalformedPacket
        "the Will QoS is 3";
    WillRetainWithoutWill "MQTT-3.1.2-13" MalformedPacket
        "Will Retain is set but there is no Will";
    PasswordWithoutUserName "3.1.1 MQTT-3.1.2-22" MalformedPacket
        "there is a Password but no User Name";
    WillTopicEmpty "MQTT-4.7.3-1" TopicNameInvalid
        "the Will Topic is empty";
    WillTopicHasWildcard "MQTT-4.7.0-1" TopicNameInvalid
        "the Will Topic holds a wildcard";

    // CONNACK.
    ConnackFlagsReserved "MQTT-3.2.2-1" MalformedPacket
        "a reserved flag of the CONNACK packet is set";
    SessionPresentWithRefusal "MQTT-3.2.2-6" ProtocolError
        "Session Present is set in a refusal";
    ConnackReasonCodeInvalid "MQTT-3.2.2-8" ProtocolError
        "the Reason Code is none of CONNACK's";

    // PUBLISH.
    PublishQosInvalid "MQTT-3.3.1-4" MalformedPacket
        "the QoS is 3";
    DupWithQos0 "MQTT-3.3.1-2" MalformedPacket
        "DUP is set in a QoS 0 message";
    TopicNameHasWildcard "MQTT-3.3.2-2" TopicNameInvalid
        "the Topic Name holds a wildcard";
    TopicNameEmpty "MQTT-4.7.3-1" ProtocolError
        "the Topic Name is empty and there is no Topic Alias";
    SubscriptionIdentifierFromClient "MQTT-3.3.4-6" ProtocolError
        "a client's PUBLISH packet holds a Subscription Identifier";

    // Acknowledgements.
    PubackReasonCodeInvalid "MQTT-3.4.2-1" ProtocolError
        "the Reason Code is none of PUBACK's";
    PubrecReasonCodeInvalid "MQTT-3.5.2-1" ProtocolError
        "the Reason Code is none of PUBREC's";
    PubrelReasonCodeInvalid "MQTT-3.6.2-1" ProtocolError
        "the Reason Code is none of PUBREL's";
    PubcompReasonCodeInvalid "MQTT-3.7.2-1" ProtocolError
        "the Reason Code is none of PUBCOMP's";

    // SUBSCRIBE and UNSUBSCRIBE with their answers.
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
        "the answer to so many Topic Filters is larger than the client's own Maximum Packet Size";
    SubackEmpty "section 3.9.3" ProtocolError
        "the SUBACK packet has no Reason Code";
    SubackReasonCodeInvalid "MQTT-3.9.3-2" ProtocolError
        "a Reason Code is none of SUBACK's";
    UnsubscribeEmpty "MQTT-3.10.3-2" ProtocolError
        "the UNSUBSCRIBE packet has no Topic Filter";
    UnsubackEmpty "section 3.11.3" ProtocolError
        "the UNSUBACK packet has no Reason Code";
    UnsubackReasonCodeInvalid "MQTT-3.11.3-2" ProtocolError
        "a Reason Code is none of UNSUBACK's";

    // DISCONNECT and AUTH.
    DisconnectReasonCodeInvalid "MQTT-3.14.2-1" ProtocolError
        "the Reason Code is none of DISCONNECT's";
    AuthReasonCodeInvalid "MQTT-3.15.2-1" ProtocolError
        "the Reason Code is none of AUTH's";

    // What takes more than one packet to see.
    FirstPacketNotConnect "MQTT-3.1.0-1" ProtocolError
        "the first packet is not CONNECT";
    SecondConnect "MQTT-3.1.0-2" ProtocolError
        "a CONNECT packet comes on an open connection";
    UnexpectedPacket "section 4.13.1" ProtocolError
        "the packet has no place here: a server's own, or one out of turn";
    QosNotSupported "MQTT-3.2.2-11" QosNotSupported
        "the QoS is above the Maximum QoS";
    RetainNotSupported "MQTT-3.2.2-14" RetainNotSupported
        "a message is to be retained where none is";
    TopicTooDeep "section 4.7.3" TopicNameInvalid
        "the Topic Name has more levels than this server takes";
    TopicTooLong "section 4.7.3" TopicNameInvalid
        "the Topic Name is longer than this server takes";
    TopicAliasTooHigh "MQTT-3.3.2-9" TopicAliasInvalid
        "the Topic Alias is above the Topic Alias Maximum";
    TopicAliasUnknown "MQTT-3.3.2-7" ProtocolError
        "the Topic Alias was never set on this connection";
    ReceiveMaximumExceeded "MQTT-3.3.4-7" ReceiveMaximumExceeded
        "more QoS 2 messages are unfinished than the Receive Maximum allows";
    PayloadFormatInvalid "section 3.3.2.3.2" PayloadFormatInvalid
        "the payload is not the UTF-8 it is said to be";
    TopicFilterInvalid "MQTT-4.7.1-1" MalformedPacket
        "a wildcard stands where none may in a Topic Filter";
    ShareNameInvalid "MQTT-4.8.2-1" MalformedPacket
        "the Topic Filter of a Shared Subscription has no proper ShareName or no filter";
    SessionExpiryIntervalSetAtDisconnect "section 3.14.2.2.2" ProtocolError
        "DISCONNECT sets a Session Expiry Interval that CONNECT had left at 0";
    AuthenticationMethodChanged "MQTT-4.12.0-5" ProtocolError
        "the AUTH packet does not go on with the exchange begun";
    AuthWithoutMethod "MQTT-4.12.0-7" ProtocolError
        "an AUTH packet comes though CONNECT named no Authentication Method";
}

impl Violation {
    /// Whether `wire::decode` found it in a CONNECT packet before it knew the version that the
    /// client speaks, so that the form of an answer is in doubt.
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
    fn every_row_can_be_told_to_the_peer() {
        for violation in Violation::ALL {
            let reason = violation.reason();
            let is_sendable =
                reason.allowed_in(PacketType::Connack) || reason.allowed_in(PacketType::Disconnect);
            assert!(is_sendable && reason.is_error(), "{violation:?}");
        }
    }

    #[test]
    fn every_row_cites_a_clause_and_says_something() {
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
    fn it_reads_as_a_sentence_with_its_clause() {
        let text = Violation::PublishQosInvalid.to_string();
        assert_eq!(text, "the QoS is 3 [MQTT-3.3.1-4]");
    }
}
