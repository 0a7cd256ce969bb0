//! Authentication and authorization, as the engine uses them: the trait [`Access`].

mod control;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shards::Text;

use crate::base::clock::Now;
use crate::base::identity::CertificateIdentity;
use crate::base::ids::Peer;
use crate::base::metrics::AccessCounts;
use crate::engine::cause::{Cause, Rejection};
use crate::message::Content;
use crate::wire::{Qos, ReasonCode};

pub(super) use control::{AccessControl, Message, Recheck};

/// Credentials of a client that connects.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Client Identifier; empty if the server assigns one.
    pub client_identifier: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password: binary data, not necessarily text.
    pub password: Option<&'a [u8]>,
    /// Authentication Method and Data of an enhanced authentication [MQTT-4.12].
    pub method: Option<(&'a str, &'a [u8])>,
    /// Address of the client.
    pub address: Option<SocketAddr>,
    /// Number of the listener.
    pub listener: u16,
    /// Identity from the client certificate; none without a certificate.
    pub certificate: Option<&'a CertificateIdentity>,
    /// The connection with the same Client Identifier, which this one would take over.
    pub replaces: Option<u64>,
}

/// Result of a successful authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Completes an enhanced authentication.
    pub data: Vec<u8>,
    /// User name, to which the session is bound; none for an anonymous client.
    pub user: Option<Box<str>>,
    /// Time after which the client is disconnected; unlimited if none.
    pub valid_for: Option<Duration>,
}

/// A client's right to its Client Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentifierClaim {
    /// No rule is about Client Identifiers: any client may use it.
    Open,
    /// A rule allows it: the session of a disconnected client of another user may be ended.
    Allowed,
    /// The identifier belongs to this user: the session of another user may be ended.
    Own,
    /// The client may not use it.
    Denied,
}

/// Outcome of an authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// The client is authenticated.
    Granted(Grant),
    /// Send AUTH 0x18 with this data, and wait for the answer of the client.
    Continue(Vec<u8>),
    /// Authentication failed.
    Refused(Rejection),
    /// The outcome comes later, by [`Access::poll_answer`].
    Pending,
}

/// Decision about a request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<T = ()> {
    /// The client may do it.
    Allowed(T),
    /// The client may not do it.
    Denied,
    /// The decision comes later: ask again once [`Access::poll_decided`] has named the connection.
    Pending,
}

impl Decision {
    /// A decision that is there.
    pub fn of(is_allowed: bool) -> Self {
        if is_allowed { Self::Allowed(()) } else { Self::Denied }
    }
}

/// What a topic is for that begins with `$`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlTopic {
    /// Messages to it are commands to the broker.
    Commands,
    /// Only the broker publishes to it.
    Reserved,
    /// A topic as any other.
    No,
}

/// How much of what a Topic Filter matches a client may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Everything.
    Whole,
    /// A part: the subscription is filtered.
    Part,
    /// Nothing.
    Nothing,
}

/// A client that may receive a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// User name; none for an anonymous client.
    pub user: Option<&'a str>,
    /// Client Identifier.
    pub client_identifier: &'a str,
    /// Number of the listener that it has come through last.
    pub listener: u16,
}

/// A client whose Will is due. Its connection may have ended long ago.
#[derive(Clone, Copy, Debug)]
pub struct WillOwner<'a> {
    /// User name; none for an anonymous client.
    pub user: Option<&'a str>,
    /// Client Identifier.
    pub client_identifier: &'a Text,
    /// Number of the listener that it came through.
    pub listener: u16,
}

/// Rules that filter subscriptions. They never change: others take their place.
pub trait ReadRules: fmt::Debug + Send + Sync {
    /// Begins to decide who may receive messages of a topic.
    fn decide<'a>(&'a self, topic: &'a str) -> Box<dyn ReadDecisions + 'a>;
}

/// Decisions about one topic.
pub trait ReadDecisions {
    /// Whether a client may receive messages of the topic.
    fn may_read(&mut self, reader: &Reader<'_>) -> bool;

    /// Steps of a core's budget for the decisions so far.
    fn steps(&self) -> usize;
}

/// Access control of a core.
///
/// Called on the thread of the core, so every method answers from memory; for slow work (a password hash, a request
/// over the network) [`Self::authenticate`] returns [`Authentication::Pending`], and [`Self::may_publish`] and
/// [`Self::may_subscribe`] return [`Decision::Pending`].
pub trait Access: Send {
    /// Whether to keep a connection that was accepted. Otherwise it is closed before anything is read.
    fn may_stay(&mut self, now: Now, peer: &Peer) -> Result<(), Cause> {
        let _ = (now, peer);
        Ok(())
    }

    /// A connection has closed; `was_open` if its client was authenticated.
    fn gone(&mut self, now: Now, peer: &Peer, exchange: u64, was_open: bool) {
        let _ = (now, peer, exchange, was_open);
    }

    /// Authenticates the client of a CONNECT, or of an AUTH that starts a re-authentication. `exchange` identifies
    /// the connection.
    fn authenticate(&mut self, now: Now, exchange: u64, who: &Credentials<'_>) -> Authentication;

    /// Admits a bridge, whose configuration says by which user's rules it is judged; none: no rule applies to it.
    fn admit_bridge(
        &mut self,
        exchange: u64,
        client_identifier: &str,
        user: Option<Box<str>>,
    ) -> Authentication {
        let _ = (exchange, client_identifier);
        Authentication::Granted(Grant { user, ..Grant::default() })
    }

    /// Processes the next AUTH packet of an enhanced authentication.
    fn proceed(&mut self, now: Now, exchange: u64, data: &[u8]) -> Authentication {
        let _ = (now, exchange, data);
        Authentication::Refused(Rejection::new(
            ReasonCode::NotAuthorized,
            Cause::AuthenticationData,
        ))
    }

    /// The next outcome of an authentication that was [`Authentication::Pending`], with its exchange.
    fn poll_answer(&mut self, now: Now) -> Option<(u64, Authentication)> {
        let _ = now;
        None
    }

    /// The client was refused, or its connection has closed.
    fn forget(&mut self, exchange: u64) {
        let _ = exchange;
    }

    /// Whether a client may use its Client Identifier. Not called for assigned identifiers.
    fn claims_identifier(&mut self, who: &Identity<'_>) -> IdentifierClaim {
        let _ = who;
        IdentifierClaim::Open
    }

    /// Whether a client may publish to a topic.
    fn may_publish(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        retain: bool,
    ) -> Decision {
        let _ = (now, who, topic, qos, retain);
        Decision::Allowed(())
    }

    /// Whether access rules apply to the client of a connection: without them it may publish to all topics but those
    /// below `$SYS`.
    fn has_topic_rules(&mut self, exchange: u64) -> bool {
        let _ = exchange;
        false
    }

    /// The same for clients of a listener of this number.
    fn has_topic_rules_of(&mut self, listener: u16) -> bool {
        let _ = listener;
        false
    }

    /// Highest QoS with which a client may subscribe to a Topic Filter.
    fn may_subscribe(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
    ) -> Decision<Qos> {
        let _ = (now, who, filter);
        Decision::Allowed(qos)
    }

    /// Rules that filter subscriptions by topic; none if subscriptions are allowed or refused whole.
    fn read_rules(&mut self) -> Option<Arc<dyn ReadRules>> {
        None
    }

    /// How much of what a Topic Filter matches a client may receive, whose subscription is allowed.
    fn coverage(&mut self, who: &Identity<'_>, filter: &str) -> Coverage {
        let _ = (who, filter);
        Coverage::Whole
    }

    /// Whether a client may keep a subscription that it was allowed earlier. Never asks anybody.
    fn may_keep(&mut self, now: Now, who: &Identity<'_>, filter: &str, qos: Qos) -> bool {
        !matches!(self.may_subscribe(now, who, filter, qos), Decision::Denied)
    }

    /// Whether a client may end a subscription.
    fn may_unsubscribe(&mut self, who: &Identity<'_>, filter: &str) -> bool {
        let _ = (who, filter);
        true
    }

    /// What a topic is for that begins with `$`.
    fn control_topic(&mut self, topic: &str) -> ControlTopic {
        let _ = topic;
        ControlTopic::No
    }

    /// Takes a message to a topic of commands, which its client may publish. False if there is no room for it.
    fn command(&mut self, who: &Identity<'_>, payload: &[u8]) -> bool {
        let _ = (who, payload);
        false
    }

    /// The next message that the broker publishes itself, such as an answer to commands: its topic and its payload.
    fn poll_publication(&mut self) -> Option<(&'static str, Vec<u8>)> {
        None
    }

    /// The next connection for which a decision is there that was [`Decision::Pending`].
    fn poll_decided(&mut self, now: Now) -> Option<u64> {
        let _ = now;
        None
    }

    /// Whether a message that was queued under older rules may be sent to a client. `shared` is the shared
    /// subscription for which the client was chosen.
    fn may_receive(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        shared: Option<&str>,
    ) -> bool {
        let share = shared.and_then(|filter| filter.strip_prefix("$share/")?.split_once('/'));
        match share {
            None => self.may_keep(now, who, topic, qos),
            Some((name, _)) => self.may_keep(now, who, &format!("$share/{name}/{topic}"), qos),
        }
    }

    /// Whether the Will of a disconnected client may be published. `is_granted`: no rule has allowed it at CONNECT, but
    /// something that ended with the connection, such as a token.
    fn may_publish_will(
        &mut self,
        of: &WillOwner<'_>,
        will: &Content<'_>,
        retain: bool,
        is_granted: bool,
    ) -> bool {
        let _ = (of, will, retain, is_granted);
        true
    }

    /// Reason to disconnect an authenticated client whose credentials were withdrawn; none if they are valid.
    fn withdrawn(&mut self, exchange: u64) -> Option<ReasonCode> {
        let _ = exchange;
        None
    }

    /// Number that changes whenever decisions about credentials, identifiers, topics and filters may have changed; 0
    /// if they never change.
    fn revision(&mut self) -> u64 {
        0
    }

    /// Access control that takes the place of this one from now on, with the clients that are connected; none if this
    /// one stays.
    fn replacement(&mut self) -> Option<Box<dyn Access>> {
        None
    }

    /// Steps of a core's budget ([`Work`](crate::engine::work::Work)) for the rules evaluated since the last
    /// call.
    fn take_steps(&mut self) -> usize {
        0
    }

    /// Memory that clients make the access control of this core hold.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Counters of all cores together.
    fn counts(&self) -> AccessCounts {
        AccessCounts::default()
    }
}

/// An authenticated client.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Identifies the connection, as in [`Access::authenticate`].
    pub exchange: u64,
    /// Client Identifier, in the stored form: converting it to a string costs, and most decisions do not need
    /// it.
    pub client_identifier: &'a Text,
}

/// Admits every client and allows everything. Enhanced authentication is refused, as there is no method.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Access for AllowAll {
    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        match who.method {
            // [MQTT-4.12.0-1]
            Some((method, _)) => Authentication::Refused(Rejection::unknown_method(method)),
            None => Authentication::Granted(Grant::default()),
        }
    }
}
