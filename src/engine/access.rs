//! Authentication and authorization as the engine asks for them. Knows no mechanism: those implement [`Access`].

mod control;

use std::net::SocketAddr;
use std::time::Duration;

use shards::Text;

use crate::base::clock::Now;
use crate::base::identity::CertificateIdentity;
use crate::base::ids::Peer;
use crate::base::metrics::AccessCounts;
use crate::message::Content;
use crate::wire::{Qos, ReasonCode};

pub(super) use control::{AccessControl, Recheck};

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
    /// The connection that this one would take over: it has the same Client Identifier.
    pub replaces: Option<u64>,
}

/// What a client is let in with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Completes an enhanced authentication.
    pub data: Vec<u8>,
    /// Who it is; none for a client without a name. The session is bound to it.
    pub user: Option<Box<str>>,
    /// How long it may stay; for ever where there is none.
    pub valid_for: Option<Duration>,
}

/// What a client's right to its Client Identifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentifierClaim {
    /// No rule is about it: it may use it, as others may.
    Open,
    /// A rule lets it: a session that somebody else has left under it may be ended.
    Allowed,
    /// It is this user's: a session of somebody else under it may be ended.
    Own,
    /// It may not use it.
    Denied,
}

/// An answer to a request to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Let in.
    Granted(Grant),
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
    /// A connection was accepted: whether it may stay. One that may not is closed without a word,
    /// before anything is read from it.
    fn may_stay(&mut self, now: Now, peer: &Peer) -> bool {
        let _ = (now, peer);
        true
    }

    /// A connection that might stay is gone; `was_open` when its client had been let in.
    fn gone(&mut self, now: Now, peer: &Peer, exchange: u64, was_open: bool) {
        let _ = (now, peer, exchange, was_open);
    }

    /// A CONNECT came, or a re-authentication begins. `exchange` names the connection.
    fn authenticate(&mut self, now: Now, exchange: u64, who: &Credentials<'_>) -> Authentication;

    /// The client's next AUTH of the exchange.
    fn proceed(&mut self, now: Now, exchange: u64, data: &[u8]) -> Authentication {
        let _ = (now, exchange, data);
        Authentication::Refused(ReasonCode::NotAuthorized)
    }

    /// The next answer to what was [`Authentication::Pending`], with its exchange.
    fn poll_answer(&mut self, now: Now) -> Option<(u64, Authentication)> {
        let _ = now;
        None
    }

    /// The client is not let in, or its connection is gone.
    fn forget(&mut self, exchange: u64) {
        let _ = exchange;
    }

    /// May this client use its Client Identifier? It is not asked about one that the broker assigned.
    fn claims_identifier(&mut self, who: &Identity<'_>) -> IdentifierClaim {
        let _ = who;
        IdentifierClaim::Open
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

    /// May what waited for this client be sent to it, though rules have changed meanwhile? `shared` is
    /// the shared subscription that it was drawn for.
    fn may_receive(
        &mut self,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        shared: Option<&str>,
    ) -> bool {
        let share = shared.and_then(|filter| filter.strip_prefix("$share/")?.split_once('/'));
        match share {
            None => self.may_subscribe(who, topic, qos).is_some(),
            Some((name, _)) => {
                self.may_subscribe(who, &format!("$share/{name}/{topic}"), qos).is_some()
            }
        }
    }

    /// May a client that is gone, and was known by this name, still publish its Will?
    fn may_publish_will(
        &mut self,
        user: Option<&str>,
        client_identifier: &Text,
        will: &Content<'_>,
        retain: bool,
    ) -> bool {
        let _ = (user, client_identifier, will, retain);
        true
    }

    /// Why a client that was let in may not stay, as it is not known any more; none where it may.
    fn withdrawn(&mut self, exchange: u64) -> Option<ReasonCode> {
        let _ = exchange;
        None
    }

    /// Changes whenever an answer to the questions above about identifiers, topics and filters may have
    /// changed; 0 where they never do.
    fn revision(&mut self) -> u64 {
        0
    }

    /// Steps of a core's budget ([`Work`](crate::engine::work::Work)) that the decisions took since this
    /// was asked last: rules that were looked at.
    fn take_steps(&mut self) -> usize {
        0
    }

    /// What all cores together count.
    fn counts(&self) -> AccessCounts {
        AccessCounts::default()
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
    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        match who.method {
            // [MQTT-4.12.0-1]
            Some(_) => Authentication::Refused(ReasonCode::BadAuthenticationMethod),
            None => Authentication::Granted(Grant::default()),
        }
    }
}
