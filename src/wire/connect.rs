//! CONNECT. Knows no policy on Client Identifiers or credentials.

use super::{PassedOn, Qos, UserProperties, Version};

/// A client's first packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// By Protocol Name and Protocol Version.
    pub version: Version,
    /// Clean Start; Clean Session before 5.0.
    pub clean_start: bool,
    /// Seconds; 0 turns Keep Alive off.
    pub keep_alive_s: u16,
    /// May be empty, in any version.
    pub client_identifier: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// The Will Message.
    pub will: Option<Will<'a>>,
    /// At their defaults before 5.0.
    pub properties: ConnectProperties<'a>,
}

/// CONNECT properties.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Seconds; absent means 0.
    pub session_expiry_interval: Option<u32>,
    /// QoS 1 and 2 messages that the client takes at once; absent means 65535, never 0.
    pub receive_maximum: Option<u16>,
    /// Bytes of the largest packet that the client takes; never 0.
    pub maximum_packet_size: Option<u32>,
    /// The highest Topic Alias that the client takes; 0 when absent.
    pub topic_alias_maximum: u16,
    /// The client asks for Response Information.
    pub request_response_information: bool,
    /// The client wants Reason Strings and User Properties; true when absent.
    pub request_problem_information: bool,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Asks for enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// What the method exchanges.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        ConnectProperties {
            session_expiry_interval: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::none(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// The message that the server publishes when the connection ends without a DISCONNECT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic: not empty, no wildcards.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
    /// Seconds between the end of the connection and the publication.
    pub delay_interval_s: u32,
    /// Seconds that the message lives once published.
    pub message_expiry_interval: Option<u32>,
    /// 1 when the payload is UTF-8 text.
    pub payload_format_indicator: Option<u8>,
    /// Where to answer.
    pub response_topic: Option<&'a str>,
    /// What the answer is to repeat.
    pub correlation_data: Option<&'a [u8]>,
    /// What the payload is.
    pub content_type: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// The properties above that go to subscribers as they came; the encoder does not look here.
    pub passed_on: PassedOn<'a>,
}

/// The Protocol Level of a CONNECT packet that [`decode`](super::decode) refused, which decides the
/// form of the answer: below 5 that of 3.1.1. None if the packet ends before it.
pub fn connect_level(frame: &[u8]) -> Option<u8> {
    let _ = frame;
    unimplemented!()
}
