//! Authentication and authorization as the engine asks for them. Knows no mechanism: those implement [`Access`].

use std::net::SocketAddr;

use shards::Text;

use crate::wire::{Qos, ReasonCode};

/// Who wants to connect.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Client Identifier; empty when the server is to assign one.
    pub client_identifier: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password: binary data, not necessarily text.
    pub password: Option<&'a [u8]>,
    /// Authentication Method and Data of an enhanced authentication [MQTT-4.12].
    pub method: Option<(&'a str, &'a [u8])>,
    /// Where the connection comes from.
    pub address: Option<SocketAddr>,
    /// The listener it came through.
    pub listener: u16,
    /// What the certificate says that it showed, and proved to have the key of; none where it showed
    /// none.
    pub certificate: Option<&'a CertificateIdentity>,
}

/// Whom a client's certificate names. It has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// Common Name of its subject.
    pub common_name: Option<Box<str>>,
    /// Its Subject Alternative Names, in its order.
    pub alternative_names: Vec<AlternativeName>,
    /// The one of them that the listener takes for the client's name, if any.
    pub name: Option<Box<str>>,
}

/// A Subject Alternative Name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// A host name.
    Dns(Box<str>),
    /// An electronic mail address.
    Email(Box<str>),
    /// A URI.
    Uri(Box<str>),
}

/// An answer to a request to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Let in; the data, if any, completes an enhanced authentication.
    Granted(Vec<u8>),
    /// Send AUTH 0x18 with this data, and go on with what the client answers.
    Continue(Vec<u8>),
    /// Not let in, for this reason.
    Refused(ReasonCode),
    /// Being worked out elsewhere: the answer comes through `Engine::handle_authenticated`.
    Pending,
}

/// Decides who may do what.
///
/// It is asked on the core's own thread, so it must answer from memory; whatever takes longer (a
/// password hash, a request over the network) answers [`Authentication::Pending`].
pub trait Access: Send {
    /// A CONNECT came, or a re-authentication begins. `exchange` names the connection.
    fn authenticate(&mut self, exchange: u64, who: &Credentials<'_>) -> Authentication;

    /// The client's next AUTH of the exchange.
    fn proceed(&mut self, exchange: u64, data: &[u8]) -> Authentication {
        let _ = (exchange, data);
        Authentication::Refused(ReasonCode::NotAuthorized)
    }

    /// The connection is gone, or the exchange is over.
    fn forget(&mut self, exchange: u64) {
        let _ = exchange;
    }

    /// May this client publish to this topic?
    fn may_publish(&mut self, who: &Identity<'_>, topic: &str, qos: Qos, retain: bool) -> bool {
        let _ = (who, topic, qos, retain);
        true
    }

    /// May this client subscribe to this Topic Filter, and with which QoS at most?
    fn may_subscribe(&mut self, who: &Identity<'_>, filter: &str, qos: Qos) -> Option<Qos> {
        let _ = (who, filter);
        Some(qos)
    }
}

/// A client that was let in.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Names the connection; the same as the exchange that let it in.
    pub exchange: u64,
    /// Client Identifier. As it is kept: to look at it as a string costs, and most publications are
    /// permitted without.
    pub client_identifier: &'a Text,
}

/// Lets everybody in, to everything. An enhanced authentication is refused: there is no method.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Access for AllowAll {
    fn authenticate(&mut self, _exchange: u64, who: &Credentials<'_>) -> Authentication {
        match who.method {
            // [MQTT-4.12.0-1]
            Some(_) => Authentication::Refused(ReasonCode::BadAuthenticationMethod),
            None => Authentication::Granted(Vec::new()),
        }
    }
}
