//! The log lines about clients: who was refused and why, who connected, whose connection ended and why, who was
//! denied a topic. One line each, rated by kind and address, so that no client can flood the log or keep the lines
//! about others out of it.
//!
//! A line names what the server knows (address, listener, cause) before anything that the client has chosen, so that
//! a program that reads the line from its beginning cannot be deceived by a name.

use std::net::{IpAddr, SocketAddr};

use shards::Hashing;
use tracing::field::DisplayValue;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Peer, SessionId};
use crate::base::log_rate::{Name, Rate, Suppressed, detail, name, rated, rated_by};
use crate::engine::Engine;
use crate::engine::cause::{Cause, Rejection};
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::connections::ending::Ending;
use crate::engine::listeners::Listeners;
use crate::engine::observers::Observers;
use crate::session::state::Session;
use crate::transport::{Fault, Layer};
use crate::wire::violation::Violation;
use crate::wire::{self, Connect, Packet, PacketType, Version};

/// Lines of one kind about one address in a second, on one core.
const LINES_PER_ADDRESS_MAX: u8 = 10;

/// Lines of one kind in a second, on all cores.
const LINES_MAX: u32 = 50;

/// Addresses that are told apart; others share a place, and the lines of that place.
const ADDRESSES: usize = 1_024;

/// Client Identifiers whose take-overs are counted; others share a place.
const IDENTIFIERS: usize = 256;

/// So many take-overs of one Client Identifier within [`LOOP_S`] seconds are a loop.
const LOOP_TAKEOVERS: u32 = 3;

/// Seconds in which take-overs are counted, and between two warnings about one Client Identifier.
const LOOP_S: u64 = 60;

const SECOND_US: u64 = 1_000_000;

/// Kinds of lines, each with a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Refused,
    Connected,
    Disconnected,
    Denied,
}

const KINDS: usize = 4;

/// Limits of all cores together, by kind.
static TOTALS: [Rate; KINDS] = [const { Rate::with_max(LINES_MAX) }; KINDS];

/// The log lines about the clients of one core.
#[derive(Debug)]
pub(in crate::engine) struct ClientLog {
    hashing: Hashing,
    /// Empty before the first line.
    addresses: Box<[AddressLines]>,
    /// Empty before the first take-over.
    takeovers: Box<[Takeovers]>,
    /// Whether clients that come, and clients that leave by themselves, are logged.
    has_connections: bool,
}

/// Lines of one second about the addresses of one place.
#[derive(Clone, Copy, Debug, Default)]
struct AddressLines {
    second: u32,
    lines: [u8; KINDS],
}

/// Take-overs of one Client Identifier.
#[derive(Clone, Copy, Debug, Default)]
struct Takeovers {
    identifier: u64,
    began: Now,
    count: u32,
    is_named: bool,
}

/// Names that a client claims: of CONNECT, or of its session.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Claimed<'a> {
    pub client: Option<&'a str>,
    pub user: Option<&'a str>,
}

impl<'a> Claimed<'a> {
    /// The names in a CONNECT.
    pub fn by(connect: &Connect<'a>) -> Self {
        let client = Some(connect.client_identifier).filter(|client| !client.is_empty());
        Self { client, user: connect.username }
    }

    /// The names in a CONNECT that was decoded before.
    pub fn in_frame(frame: &'a [u8]) -> Self {
        match wire::decode(frame, Version::V5) {
            Ok(Packet::Connect(connect)) => Self::by(&connect),
            _ => Self::default(),
        }
    }
}

/// Why, in all that a line says of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Why<'a> {
    cause: Cause,
    violation: Option<(Violation, Option<PacketType>)>,
    detail: Option<&'a str>,
    user: Option<&'a str>,
    by: Option<SocketAddr>,
}

impl From<Cause> for Why<'_> {
    fn from(cause: Cause) -> Self {
        Self { cause, violation: None, detail: None, user: None, by: None }
    }
}

impl<'a> From<&'a Rejection> for Why<'a> {
    fn from(rejection: &'a Rejection) -> Self {
        let (detail, user) = (rejection.detail.as_deref(), rejection.user.as_deref());
        Self { detail, user, ..rejection.cause.into() }
    }
}

impl<'a> From<&'a Fault> for Why<'a> {
    fn from(fault: &'a Fault) -> Self {
        let cause = match fault.layer {
            Layer::Proxy => Cause::Proxy,
            Layer::Tls => Cause::Tls,
            Layer::ClientCertificate => Cause::ClientCertificate,
            Layer::WebSocket => Cause::WebSocket,
            Layer::Bridge => Cause::Bridge,
        };
        Self { detail: Some(&fault.what), ..cause.into() }
    }
}

impl Why<'_> {
    /// A violation of the protocol, in a packet of this type where it has one.
    pub fn violation(violation: Violation, packet: Option<PacketType>) -> Self {
        let detail = Some(violation.what());
        Self { violation: Some((violation, packet)), detail, ..Cause::Violation.into() }
    }

    /// The cause.
    #[cfg(feature = "webhooks")]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    fn clause(&self) -> Option<&'static str> {
        self.violation.map(|(violation, _)| violation.clause())
    }

    fn packet(&self) -> Option<&'static str> {
        self.violation.and_then(|(_, packet)| packet).map(PacketType::name)
    }
}

/// Why a connection ended.
pub(in crate::engine) fn why_ended(connection: &Connection, ending: Ending) -> Why<'_> {
    let fault = connection.extra.as_ref().and_then(|extra| extra.fault.as_deref());
    match ending {
        Ending::PeerClosed if connection.holds.has(Hold::Left) => Cause::Left.into(),
        Ending::PeerClosed => fault.map_or(Cause::Closed.into(), Why::from),
        Ending::Client { .. } => Cause::Left.into(),
        Ending::Server(_, cause) => cause.into(),
        Ending::Violation(violation, packet) => Why::violation(violation, packet),
        Ending::TakenOver { by, .. } => Why { by, ..Cause::TakenOver.into() },
        Ending::Shutdown => Cause::Shutdown.into(),
        Ending::Drained => Cause::Draining.into(),
        Ending::Silent => Cause::CannotSend.into(),
    }
}

/// What a client agreed with the server when it connected.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Agreement {
    pub session_present: bool,
    pub clean_start: bool,
}

/// What a client may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Denied<'a> {
    Publish(&'a str),
    Subscribe(&'a str),
}

impl ClientLog {
    /// `has_connections`: see [`crate::config::Log::connections`].
    pub fn new(hashing: Hashing, has_connections: bool) -> Self {
        Self { hashing, addresses: Box::default(), takeovers: Box::default(), has_connections }
    }

    /// From now on clients that come, and clients that leave by themselves, are logged or not.
    pub fn set_connections(&mut self, are_logged: bool) {
        self.has_connections = are_logged;
    }

    /// A connection was refused, or ended before its client was admitted.
    pub fn refused<'a>(
        &mut self,
        now: Now,
        listeners: &Listeners,
        peer: &Peer,
        claimed: Claimed<'_>,
        why: impl Into<Why<'a>>,
    ) {
        let why = why.into();
        // A device that its own former session locks out stays locked out until somebody acts.
        let is_locked_out = why.cause == Cause::SessionOfAnotherUser;
        rated_by!(
            info or warn if is_locked_out,
            left_out = self.admit(Kind::Refused, peer.address, now),
            address = peer.address.map(shown),
            listener = display(listeners.name(peer.listener)),
            cause = display(why.cause.name()),
            clause = why.clause().map(display),
            packet = why.packet().map(display),
            left_out,
            client = claimed.client.map(name),
            user = why.user.or(claimed.user).map(user_name),
            detail = why.detail.map(detail),
            "refused"
        );
    }

    /// A client was admitted.
    pub fn connected(
        &mut self,
        now: Now,
        listeners: &Listeners,
        connection: &Connection,
        session: &Session,
        agreed: Agreement,
    ) {
        if !self.has_connections {
            return;
        }
        rated_by!(
            info,
            left_out = self.admit(Kind::Connected, connection.address(), now),
            address = connection.address().map(shown),
            listener = display(listeners.name(connection.listener)),
            version = display(connection.version.name()),
            keep_alive_s = connection.keep_alive_s,
            clean_start = agreed.clean_start,
            session_present = agreed.session_present,
            left_out,
            client = name(session.client_identifier.as_str()),
            user = session.owner().map(user_name),
            "connected"
        );
    }

    /// The connection of an admitted client has ended.
    pub fn disconnected(
        &mut self,
        now: Now,
        listeners: &Listeners,
        connection: &Connection,
        session: &Session,
        ending: Ending,
    ) {
        let why = why_ended(connection, ending);
        let is_usual = matches!(why.cause, Cause::Left | Cause::Closed | Cause::Shutdown);
        if is_usual && !self.has_connections {
            return;
        }
        rated_by!(
            info,
            left_out = self.admit(Kind::Disconnected, connection.address(), now),
            address = connection.address().map(shown),
            listener = display(listeners.name(connection.listener)),
            cause = display(why.cause.name()),
            clause = why.clause().map(display),
            packet = why.packet().map(display),
            by = why.by.map(shown),
            seconds = connection.seconds_open(now),
            left_out,
            client = name(session.client_identifier.as_str()),
            user = session.owner().map(user_name),
            detail = why.detail.map(detail),
            "disconnected"
        );
    }

    /// A client asked for something that the rules do not allow.
    pub fn denied(
        &mut self,
        now: Now,
        listeners: &Listeners,
        connection: &Connection,
        session: &Session,
        what: Denied<'_>,
    ) {
        let (action, topic, filter) = match what {
            Denied::Publish(topic) => ("publish", Some(topic), None),
            Denied::Subscribe(filter) => ("subscribe", None, Some(filter)),
        };
        rated_by!(
            info,
            left_out = self.admit(Kind::Denied, connection.address(), now),
            address = connection.address().map(shown),
            listener = display(listeners.name(connection.listener)),
            action = display(action),
            left_out,
            client = name(session.client_identifier.as_str()),
            user = session.owner().map(user_name),
            topic = topic.map(name),
            filter = filter.map(name),
            "not authorized"
        );
    }

    /// A connection takes over the session of an earlier one. Two devices with one Client Identifier take it over
    /// from each other again and again, which is named once in a while.
    pub fn taken_over(
        &mut self,
        now: Now,
        session: &Session,
        address: Option<SocketAddr>,
        other_address: Option<SocketAddr>,
    ) {
        let client = session.client_identifier.as_str();
        let Some(takeovers) = self.count_takeover(client, now) else { return };
        rated!(
            warn,
            now,
            address = address.map(shown),
            other_address = other_address.map(shown),
            takeovers,
            seconds = LOOP_S,
            client = name(client),
            user = session.owner().map(user_name),
            "two connections take over the session of one Client Identifier again and again: give each device a \
             Client Identifier of its own"
        );
    }

    /// Counts a take-over; the number of them, if it is a loop that has not been named recently.
    fn count_takeover(&mut self, client: &str, now: Now) -> Option<u32> {
        if self.takeovers.is_empty() {
            self.takeovers = vec![Takeovers::default(); IDENTIFIERS].into();
        }
        let identifier = self.hashing.long(client);
        let of = &mut self.takeovers[identifier as usize % IDENTIFIERS];
        if of.identifier != identifier || now.since_us(of.began) >= LOOP_S * SECOND_US {
            *of = Takeovers { identifier, began: now, count: 0, is_named: false };
        }
        of.count = of.count.saturating_add(1);
        let is_due = of.count >= LOOP_TAKEOVERS && !of.is_named;
        of.is_named |= is_due;
        is_due.then_some(of.count)
    }

    /// Whether one more line of this kind may be written about this address; if so, the number of lines of the
    /// kind that were left out before it. At level debug and below nothing is left out.
    fn admit(
        &mut self,
        kind: Kind,
        address: Option<SocketAddr>,
        now: Now,
    ) -> Result<Option<u64>, Suppressed> {
        if tracing::enabled!(tracing::Level::DEBUG) {
            return Ok(None);
        }
        match self.admit_address(kind, address, now) {
            true => TOTALS[kind as usize].admit(now),
            false => Err(TOTALS[kind as usize].suppress()),
        }
    }

    fn admit_address(&mut self, kind: Kind, address: Option<SocketAddr>, now: Now) -> bool {
        if self.addresses.is_empty() {
            self.addresses = vec![AddressLines::default(); ADDRESSES].into();
        }
        let place = address.map_or(0, |address| self.hashing.long(place_of(address.ip())));
        let of = &mut self.addresses[place as usize % ADDRESSES];
        let second = now.seconds();
        if of.second != second {
            *of = AddressLines { second, lines: [0; KINDS] };
        }
        let lines = &mut of.lines[kind as usize];
        let has_room = *lines < LINES_PER_ADDRESS_MAX;
        *lines += u8::from(has_room);
        has_room
    }
}

impl Engine {
    /// Logs why a client is refused that is not admitted yet.
    pub(in crate::engine) fn log_refusal<'a>(
        &mut self,
        id: ConnectionId,
        claimed: Claimed<'_>,
        why: impl Into<Why<'a>>,
    ) {
        let Self {
            observers: Observers { log: client_log, .. }, connections, listeners, now, ..
        } = self;
        if let Some(connection) = connections.get(id) {
            client_log.refused(*now, listeners, &connection.peer(), claimed, why);
        }
    }

    /// Logs that a client was admitted.
    pub(in crate::engine) fn log_connected(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        agreement: Agreement,
    ) {
        let Self {
            observers: Observers { log: client_log, .. },
            connections,
            listeners,
            sessions,
            now,
            ..
        } = self;
        if let Some(connection) = connections.get(id) {
            client_log.connected(*now, listeners, connection, &sessions[session], agreement);
        }
    }

    /// Logs that a client asked for something that the rules do not allow.
    pub(in crate::engine) fn log_denied(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        what: Denied<'_>,
    ) {
        let Self {
            observers: Observers { log: client_log, .. },
            connections,
            listeners,
            sessions,
            now,
            ..
        } = self;
        if let Some(connection) = connections.get(id) {
            client_log.denied(*now, listeners, connection, &sessions[session], what);
        }
    }
}

/// The address by which lines are counted: of IPv6 the network of 64 bits, which one client may have whole.
fn place_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x}", address.to_bits() >> 64),
    }
}

/// An address for the log: IPv4 as such, also where a socket of IPv6 has accepted it.
fn shown(address: SocketAddr) -> DisplayValue<SocketAddr> {
    tracing::field::display(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// A User Name for the log. A token that a client sends as its User Name is a secret.
fn user_name(user: &str) -> DisplayValue<Name<'_>> {
    let is_token = user.starts_with("ey") && user.bytes().filter(|&byte| byte == b'.').count() == 2;
    name(if is_token { "(a token)" } else { user })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> ClientLog {
        ClientLog::new(Hashing::new(7), true)
    }

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn lines_are_limited_by_kind_and_address_and_an_address_is_whatever_port_or_host_of_a_network_it_uses()
     {
        let mut log = log();
        let mut admitted = |kind, address: &str, now| {
            (0..25).filter(|_| log.admit_address(kind, at(address), Now(now))).count()
        };
        assert_eq!(admitted(Kind::Refused, "192.0.2.1:1", 5), 10);
        assert_eq!(admitted(Kind::Refused, "192.0.2.1:2", 900_000), 0);
        assert_eq!(admitted(Kind::Refused, "[::ffff:192.0.2.1]:2", 900_000), 0);
        assert_eq!(admitted(Kind::Disconnected, "192.0.2.1:1", 900_000), 10);
        assert_eq!(admitted(Kind::Refused, "192.0.2.2:1", 900_000), 10);
        assert_eq!(admitted(Kind::Refused, "192.0.2.1:1", 1_000_000), 10);
        assert_eq!(admitted(Kind::Refused, "[2001:db8::1]:1", 5), 10);
        assert_eq!(admitted(Kind::Refused, "[2001:db8::ffff:2]:1", 5), 0);
    }

    #[test]
    fn a_take_over_loop_is_named_once_a_minute_and_single_take_overs_never() {
        let mut log = log();
        let mut named =
            |client: &str, seconds: u64| log.count_takeover(client, Now(seconds * SECOND_US));
        assert_eq!(
            (named("a", 0), named("a", 1), named("a", 2), named("a", 3)),
            (None, None, Some(3), None)
        );
        assert_eq!(
            (named("a", 59), named("a", 60), named("a", 61), named("a", 62)),
            (None, None, None, Some(3))
        );
        for minute in 0..5 {
            assert_eq!(named("b", 100 + minute * 61), None);
            assert_eq!(named("b", 101 + minute * 61), None);
        }
    }

    #[test]
    fn a_token_that_is_sent_as_user_name_is_not_logged() {
        let shown = |user| format!("{:?}", user_name(user));
        assert_eq!(shown("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"), "(a token)");
        assert_eq!(
            (shown("eyre.and.sons.ltd").as_str(), shown("alice").as_str()),
            ("eyre.and.sons.ltd", "alice")
        );
    }
}
