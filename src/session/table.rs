//! The sessions of one core, by handle and by Client Identifier, with what they have on the ledger.

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use shards::{Hashing, Text};
use slab::Slab;

use crate::base::ids::{ConnectionId, SessionId, SessionRef};
use crate::base::limits;
use crate::config::Protection;
use crate::resources::gauges::{Ledger, Place};
use crate::resources::users::{Membership, QuotaExceeded};
use crate::session::client_identifiers::{AssignedIdentifiers, Keys};
use crate::session::ended::Leftovers;
use crate::session::state::Session;

/// The sessions of one core.
#[derive(Debug)]
pub struct SessionTable {
    sessions: Slab<Session>,
    by_client_identifier: HashTable<SessionId>,
    /// Places that were ever taken: a walk over all sessions ends there.
    places: usize,
    hashing: Hashing,
    assigned: AssignedIdentifiers,
    /// Remaining work for sessions that have ended or whose clients are disconnected.
    leftovers: Leftovers,
    place: Place,
}

impl SessionTable {
    /// The length of a session's queue.
    pub fn queued(&self, id: SessionId) -> usize {
        self[id].outbound.as_ref().map_or(0, |outbound| outbound.queued())
    }

    /// Whether queued or retained messages wait for the client of a session.
    #[inline]
    pub fn has_waiting_messages(&self, id: SessionId) -> bool {
        let session = &self[id];
        !session.replays.is_empty() || session.outbound.as_ref().is_some_and(|o| o.has_waiting())
    }

    /// An empty table for the core at `place`. `keys` are the same for all cores.
    pub fn new(hashing: Hashing, keys: Keys, place: Place) -> Self {
        Self {
            sessions: Slab::new(),
            by_client_identifier: HashTable::new(),
            places: 0,
            hashing,
            assigned: AssignedIdentifiers::new(keys, place.core()),
            leftovers: Leftovers::new(),
            place,
        }
    }

    /// A Client Identifier that no session has, for a client without one. It begins with `prefix`. `is_home` says whether this core
    /// is its home, so that its connection need not move.
    pub fn assign_identifier(&mut self, prefix: &str, is_home: impl Fn(&str) -> bool) -> String {
        loop {
            let identifier = self.assigned.draw(prefix);
            if is_home(&identifier) && self.find(&identifier).is_none() {
                return identifier;
            }
        }
    }

    /// Sessions with remaining work.
    #[inline]
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Sessions with remaining work, to add one or to continue with one.
    pub fn leftovers_mut(&mut self) -> &mut Leftovers {
        &mut self.leftovers
    }

    /// Sessions here, those included that have ended and whose place is still taken.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Sessions of all cores.
    pub fn everywhere(&self) -> usize {
        self.sessions.len() + self.place.sessions_elsewhere()
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, sessions: usize) {
        self.sessions.reserve(sessions);
    }

    /// The session of a Client Identifier.
    pub fn find(&self, client_identifier: &str) -> Option<SessionId> {
        let hash = self.hashing.long(client_identifier);
        let is_it = |&id: &SessionId| self[id].client_identifier == *client_identifier;
        self.by_client_identifier.find(hash, is_it).copied()
    }

    /// A new session of a Client Identifier that has none.
    pub fn create(&mut self, client_identifier: &str, generation: u32) -> SessionId {
        debug_assert!(self.find(client_identifier).is_none());
        let session = Session::new(Text::new(client_identifier), generation);
        let id = SessionId::new(self.sessions.insert(session));
        self.places = self.places.max(id.place() + 1);
        self.place.set_sessions(self.sessions.len());
        self.ledger().charge(limits::SESSION_BYTES + client_identifier.len());
        let (sessions, hashing) = (&self.sessions, &self.hashing);
        let hash =
            |&other: &SessionId| hashing.long(sessions[other.place()].client_identifier.as_bytes());
        self.by_client_identifier.insert_unique(hash(&id), id, hash);
        id
    }

    /// A session has ended: its Client Identifier is free from here on, its place is not.
    pub fn release_identifier(&mut self, id: SessionId) {
        let hash = self.hashing.long(self[id].client_identifier.as_bytes());
        if let Ok(entry) = self.by_client_identifier.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self[id].extra.get_or_insert_default().is_over = true;
    }

    /// The subscription index knows nothing of an ended session any more: its place is free.
    pub fn remove(&mut self, id: SessionId) {
        let session = self.sessions.remove(id.place());
        self.place.set_sessions(self.sessions.len());
        let names =
            session.client_identifier.as_bytes().len() + session.owner().map_or(0, str::len);
        self.ledger().release(limits::SESSION_BYTES + names);
    }

    /// The session belongs to this user from now on.
    pub fn set_owner(&mut self, id: SessionId, user: &str) {
        let extra = self[id].extra.get_or_insert_default();
        let bytes_before = extra.owner.replace(user.into()).map_or(0, |before| before.len());
        self.ledger().charge(user.len());
        self.ledger().release(bytes_before);
    }

    /// Makes a user the owner of a session; whether it had another owner, or none, before.
    pub fn make_owner(&mut self, id: SessionId, user: Option<&str>) -> bool {
        if self[id].user() == user {
            return false;
        }
        // Where sessions are not bound to users, a session may pass to another user, or to a client without one.
        self[id].extra.get_or_insert_default().is_without_user = user.is_none();
        let Some(user) = user else { return false };
        self.set_owner(id, user);
        true
    }

    /// Counts a session for its user, where that is bounded. The user's own session keeps its place.
    pub fn enter_user(
        &self,
        client_identifier: &str,
        user: Option<&str>,
        protection: &Protection,
    ) -> Result<Option<Membership>, QuotaExceeded> {
        let Some(user) = user.filter(|_| protection.bounds_holdings()) else { return Ok(None) };
        let session = self.find(client_identifier);
        let is_its_own = session.is_some_and(|session| self[session].owner() == Some(user));
        let (users, ledger) = (self.place.users(), self.place.ledger());
        users.add_session(user, protection.sessions_per_user_max, is_its_own, ledger).map(Some)
    }

    /// Counts a restored session for its user. It stays even if the user has more than the bound by now.
    pub fn count_restored(&mut self, id: SessionId, protection: &Protection) {
        let Self { sessions, place, .. } = self;
        let session = &mut sessions[id.place()];
        if protection.bounds_holdings()
            && let Some(owner) = session.owner()
            && let Ok(membership) = place.users().add_session(owner, 0, false, place.ledger())
        {
            session.assign_to_user(membership);
        }
    }

    /// The connection of the client with a Client Identifier.
    pub fn connection_of(&self, client_identifier: &str) -> Option<ConnectionId> {
        self[self.find(client_identifier)?].connection
    }

    /// A handle that says later whether the session is still there.
    pub fn reference(&self, id: SessionId) -> SessionRef {
        SessionRef { session: id, generation: self[id].generation }
    }

    /// The session of such a handle, unless it has ended.
    pub fn resolve(&self, SessionRef { session, generation }: SessionRef) -> Option<&Session> {
        let found = self.sessions.get(session.place())?;
        (found.generation == generation && !found.is_over()).then_some(found)
    }

    /// The session of such a handle, to change it, unless it has ended.
    pub fn resolve_mut(&mut self, session: SessionRef) -> Option<&mut Session> {
        self.resolve(session)?;
        self.get_mut(session.session)
    }

    /// The session at a place, if that is taken.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.place())
    }

    /// The session at a place, to change it, if the place is taken.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.place())
    }

    /// The end of a walk over all places: one more than the highest place that was ever taken.
    pub fn end(&self) -> usize {
        self.places
    }

    /// All sessions, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(place, session)| (SessionId::new(place), session))
    }

    fn ledger(&self) -> &Ledger {
        self.place.ledger()
    }
}

impl Index<SessionId> for SessionTable {
    type Output = Session;

    #[inline]
    fn index(&self, id: SessionId) -> &Session {
        &self.sessions[id.place()]
    }
}

impl IndexMut<SessionId> for SessionTable {
    #[inline]
    fn index_mut(&mut self, id: SessionId) -> &mut Session {
        &mut self.sessions[id.place()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (SessionTable, Ledger) {
        let place = Place::alone();
        let ledger = place.ledger().clone();
        (SessionTable::new(Hashing::new(1), Keys::fixed(1), place), ledger)
    }

    #[test]
    fn a_reference_finds_its_session_until_that_has_ended_and_no_later_one_in_its_place() {
        let (mut sessions, _) = table();
        let first = sessions.create("c", 1);
        let reference = sessions.reference(first);
        assert!(sessions.resolve(reference).is_some());
        sessions.release_identifier(first);
        assert!(sessions.resolve(reference).is_none() && sessions.find("c").is_none());
        sessions.remove(first);
        let second = sessions.create("c", 2);
        assert_eq!((first, sessions.find("c")), (second, Some(second)));
        assert!(sessions.resolve_mut(reference).is_none());
    }

    #[test]
    fn a_session_and_its_names_are_on_the_ledger_until_its_place_is_free() {
        let (mut sessions, ledger) = table();
        let id = sessions.create("client", 1);
        sessions.set_owner(id, "somebody");
        sessions.set_owner(id, "else");
        assert_eq!(ledger.bytes(), (limits::SESSION_BYTES + "client".len() + "else".len()) as u64);
        sessions.release_identifier(id);
        assert!(ledger.bytes() > 0 && sessions.everywhere() == 1);
        sessions.remove(id);
        assert_eq!((ledger.bytes(), sessions.everywhere()), (0, 0));
    }
}
