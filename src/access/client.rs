//! What a core knows of the client of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::access::Snapshot;
use crate::access::acl::Subject;
use crate::access::cache::Decisions;
use crate::access::decide::Open;
use crate::access::grants::Grants;
use crate::access::methods::Exchange;
use crate::access::password_file::User;
use crate::engine::Identity;

/// A connection whose client authenticates or has authenticated.
#[derive(Default)]
pub(super) struct Client {
    pub exchange: u64,
    /// Number of the listener, by whose users the client is known.
    pub listener: u16,
    /// Whether the listener had users of its own when the client came.
    pub has_own_users: bool,
    /// Needed only until the client is authenticated.
    pub asking: Option<Box<Asking>>,
    pub is_authenticated: bool,
    /// No rule applies to the client: it is a bridge whose configuration names no user.
    pub is_exempt: bool,
    pub user: Option<Box<str>>,
    /// Client Identifier under which rules look at a bridge; none: at other clients under their own.
    pub known_as: Option<Box<str>>,
    /// Entry of the user with whose password the client authenticated.
    pub entry: Option<Arc<User>>,
    /// Rules that the client brought along.
    pub grants: Option<Grants>,
    /// The question to a server that a packet of the client waits for, or has waited for.
    pub question: Option<Box<Open>>,
    /// Client Identifier, if connections are counted per client.
    pub client_identifier: Box<str>,
    /// Mark of the client in dynamic security when it was admitted.
    pub stamp: u64,
    /// Revision of the snapshot that the following fields are from; 0 if none.
    pub revision: u64,
    /// Sections of the rules that apply to the client.
    pub sections: Box<[u32]>,
    pub publishes_all: bool,
    pub decisions: Decisions,
}

/// A client that is not authenticated yet.
pub(super) struct Asking {
    pub client_identifier: Box<str>,
    pub address: Option<SocketAddr>,
    /// The connection that this one would take over.
    pub replaces: Option<u64>,
    /// An enhanced authentication that waits for the client.
    pub next: Option<Box<dyn Exchange>>,
}

impl Client {
    /// Whom rules look at.
    pub fn subject<'a>(&'a self, who: &Identity<'a>) -> Subject<'a> {
        subject(self.user.as_deref(), self.known_as.as_deref(), who)
    }

    /// Discards decisions of an older snapshot.
    #[inline]
    pub fn refresh(&mut self, snapshot: &Snapshot, who: &Identity<'_>) {
        if self.revision != snapshot.revision {
            self.renew(snapshot, who);
        }
    }

    fn renew(&mut self, snapshot: &Snapshot, who: &Identity<'_>) {
        self.revision = snapshot.revision;
        let rules = snapshot.rules.of(self.listener).map(|rules| &**rules);
        let subject = self.subject(who);
        self.sections = rules.map_or_else(Box::default, |rules| rules.sections_of(&subject));
        self.publishes_all = match (&snapshot.security, rules) {
            (Some(security), _) => security.publishes_all(self.user.as_deref()),
            (None, Some(rules)) => rules.lets_publish_all(&self.sections),
            (None, None) => self.grants.is_none() && snapshot.authorizer.is_none(),
        };
        self.publishes_all |= self.is_exempt;
        self.decisions = Decisions::default();
    }
}

/// The client of a connection. An anonymous client that was admitted while there were no rules is not known yet.
#[inline]
pub(super) fn known<'a>(
    clients: &'a mut Vec<Option<Box<Client>>>,
    origins: &Origins,
    exchange: u64,
) -> &'a mut Client {
    let slot = exchange as u32 as usize;
    if clients.get(slot).is_none_or(Option::is_none) {
        add_anonymous(clients, origins, exchange);
    }
    clients[slot].as_mut().expect("just added")
}

#[cold]
fn add_anonymous(clients: &mut Vec<Option<Box<Client>>>, origins: &Origins, exchange: u64) {
    let slot = exchange as u32 as usize;
    if clients.len() <= slot {
        clients.resize_with(slot + 1, || None);
    }
    let listener = origins.of(exchange);
    let anonymous = Client { exchange, listener, is_authenticated: true, ..Client::default() };
    clients[slot] = Some(Box::new(anonymous));
}

/// The number of no listener: a bridge came through none.
const NO_LISTENER: u16 = u16::MAX;

/// Which listener each connection came through, by its slot: also of clients of which nothing else is known, until a
/// reload brings rules.
#[derive(Debug, Default)]
pub(super) struct Origins(Vec<u16>);

impl Origins {
    /// A client authenticates.
    pub fn note(&mut self, exchange: u64, listener: u16) {
        let slot = exchange as u32 as usize;
        if self.0.len() <= slot {
            self.0.resize(slot + 1, NO_LISTENER);
        }
        self.0[slot] = listener;
    }

    /// A bridge is admitted.
    pub fn note_bridge(&mut self, exchange: u64) {
        self.note(exchange, NO_LISTENER);
    }

    /// The number of a connection's listener.
    pub fn of(&self, exchange: u64) -> u16 {
        self.0.get(exchange as u32 as usize).copied().unwrap_or(NO_LISTENER)
    }
}

/// Whom rules look at: a client, or a bridge under the name that its configuration says.
pub(super) fn subject<'a>(
    user: Option<&'a str>,
    known_as: Option<&'a str>,
    who: &Identity<'a>,
) -> Subject<'a> {
    Subject { user, client_identifier: known_as.unwrap_or_else(|| who.client_identifier.as_str()) }
}
