//! Why a client is refused or its connection ends, as the log says it. The client itself is sent only the
//! Reason Code.

use crate::wire::ReasonCode;

/// Generates the causes with their names in the log from one table.
macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $cause:ident $name:literal;)*) => {
        /// Why a client is refused, or why its connection ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause {
            $($(#[doc = $doc])+ $cause,)*
        }

        impl Cause {
            /// Every cause.
            pub const ALL: &'static [Cause] = &[$(Cause::$cause,)*];

            /// Name in the log, which programs may rely on.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Cause::$cause => $name,)*
                }
            }
        }
    };
}

causes! {
    // Authentication.
    /// The password is wrong.
    WrongPassword "wrong-password";
    /// No user has this name.
    UnknownUser "unknown-user";
    /// The client has no name, and the listener admits no anonymous clients.
    Anonymous "anonymous-not-allowed";
    /// No method implements the Authentication Method of CONNECT.
    AuthenticationMethod "authentication-method";
    /// A message of an enhanced authentication is malformed, or out of sequence.
    AuthenticationData "authentication-data";
    /// The token has expired.
    TokenExpired "token-expired";
    /// The token is not valid yet.
    TokenNotYetValid "token-not-yet-valid";
    /// The key set has no key with the `kid` or the algorithm of the token.
    TokenKeyUnknown "token-key-unknown";
    /// The signature of the token is wrong.
    TokenSignature "token-signature";
    /// The token is for another audience or from another issuer, or lacks a claim.
    TokenClaims "token-claims";
    /// The token cannot be read.
    TokenMalformed "token-malformed";
    /// The HTTP server denies the client.
    DeniedByServer "denied-by-server";
    /// The authentication could not be decided: the HTTP server failed, or memory is short.
    AuthenticationUnavailable "authentication-unavailable";
    /// Too many authentications wait.
    AuthenticationBusy "authentication-busy";
    /// The client is banned.
    Banned "banned";
    /// The user has as many connections as it may have.
    ConnectionsOfUser "connections-of-user";
    /// The user has as many sessions as it may have.
    SessionsOfUser "sessions-of-user";
    /// Dynamic security has disabled the client, or binds it to another Client Identifier.
    DynamicSecurity "denied-by-dynamic-security";
    /// A re-authentication names another user.
    UserChanged "user-changed";
    /// A reload has withdrawn the credentials.
    CredentialsWithdrawn "credentials-withdrawn";
    /// The credentials, or the client certificate, have expired.
    CredentialsExpired "credentials-expired";

    // What CONNECT asks for.
    /// The rules do not allow the Client Identifier.
    ClientIdentifierNotAllowed "client-identifier-not-allowed";
    /// The session of the Client Identifier belongs to another user.
    SessionOfAnotherUser "session-of-another-user";
    /// The session of the Client Identifier is at a node of the cluster that is away.
    SessionAbsent "session-absent";
    /// The Client Identifier is empty where it must not be.
    ClientIdentifierEmpty "client-identifier-empty";
    /// The listener does not accept the protocol version.
    VersionNotAccepted "version-not-accepted";
    /// The rules do not allow the Will.
    WillNotAllowed "will-not-allowed";
    /// The Will asks for something that the server does not support.
    WillInvalid "will-invalid";
    /// The server sends its clients elsewhere.
    Redirected "redirected";

    /// An operator lets the server take no new clients.
    Draining "draining";
    /// Another node of the cluster has fewer clients.
    Rebalanced "rebalanced";

    // Limits.
    /// The server has as many connections as it may have.
    ServerFull "server-full";
    /// The listener has as many connections as it may have.
    ListenerFull "listener-full";
    /// Too many connections were opened within a second.
    ConnectionRate "connection-rate";
    /// The address has as many connections as it may have.
    ConnectionsOfAddress "connections-of-address";
    /// The address has opened too many connections within a second.
    ConnectionRateOfAddress "connection-rate-of-address";
    /// The server has as many sessions as it may have.
    SessionsFull "sessions-full";
    /// Memory is full.
    MemoryFull "memory-full";
    /// The store does not keep up.
    StoreBehind "store-behind";
    /// Unfinished packets take as much memory as they may take.
    InputFull "input-full";
    /// Too many TLS handshakes wait.
    HandshakesWaiting "handshakes-waiting";
    /// The client's queue or output is full, and `queue_policy` is `disconnect`.
    QueueFull "queue-full";

    // The protocol and the layers below it.
    /// The client violated the protocol.
    Violation "protocol-violation";
    /// The CONNACK exceeds the client's Maximum Packet Size.
    ConnackTooLarge "connack-too-large";
    /// TLS failed.
    Tls "tls";
    /// The client certificate was refused.
    ClientCertificate "client-certificate";
    /// The WebSocket request was refused, or a frame is invalid.
    WebSocket "websocket";
    /// A bridge cannot work with the other broker.
    Bridge "bridge";
    /// The PROXY header is invalid.
    Proxy "proxy-header";
    /// The TLS keys have encrypted as much as they may.
    TlsKeysSpent "tls-keys-spent";

    // Time.
    /// No CONNECT was complete and decided in time.
    ConnectTimeout "connect-timeout";
    /// The client was silent for one and a half times its Keep Alive.
    KeepAliveTimeout "keep-alive-timeout";
    /// A packet was not complete in time.
    PacketTimeout "packet-timeout";

    // Ends.
    /// The client sent DISCONNECT.
    Left "client-disconnected";
    /// The connection was closed without DISCONNECT.
    Closed "connection-closed";
    /// A later connection has the same Client Identifier.
    TakenOver "taken-over";
    /// An operator has disconnected the client.
    ByOperator "disconnected-by-operator";
    /// An operator has removed the listener together with its clients.
    ListenerClosed "listener-closed";
    /// The broker stops.
    Shutdown "shutdown";
    /// Nothing can be sent to the client any more.
    CannotSend "cannot-send";
}

/// A refusal: the Reason Code that the client is sent, and what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For the client.
    pub reason: ReasonCode,
    /// For the log.
    pub cause: Cause,
    /// What else the log says: the unknown key, the other user.
    pub detail: Option<Box<str>>,
    /// The user name, where it is not the User Name of CONNECT.
    pub user: Option<Box<str>>,
}

impl Rejection {
    /// A refusal without details.
    pub const fn new(reason: ReasonCode, cause: Cause) -> Self {
        Self { reason, cause, detail: None, user: None }
    }

    /// No method implements the Authentication Method of CONNECT [MQTT-4.12.0-1].
    pub fn unknown_method(method: &str) -> Self {
        Self::new(ReasonCode::BadAuthenticationMethod, Cause::AuthenticationMethod)
            .with_detail(method)
    }

    /// Adds a detail for the log.
    pub fn with_detail(self, detail: impl Into<Box<str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Adds the user name that the client has shown otherwise than by User Name.
    pub fn of_user(self, user: Option<Box<str>>) -> Self {
        Self { user: user.or(self.user), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_of_causes_are_distinct_words_that_need_no_quotes() {
        let names: HashSet<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        let is_plain =
            |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(names.iter().all(is_plain));
    }
}
