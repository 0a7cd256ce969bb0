//! Bans of operators: clients, users and networks that may not connect.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::control::Reply;
use crate::control::question::{BanEnd, BanList, ListingPlace};
use crate::engine::Engine;
use crate::engine::cause::{Cause, Rejection};
use crate::engine::connections::ending::Ending;
use crate::engine::inspect::{Progress, SessionWalk, Slice, Slices, Walked};
use crate::wire::ReasonCode;

/// Networks that are compared for a step of the turn's budget.
const NETWORKS_PER_STEP: usize = 64;

/// The bans, as they were set last.
#[derive(Debug, Default)]
pub(super) struct Bans {
    list: Arc<BanList>,
    /// When they were set: their ends count from there.
    since: Now,
}

impl Bans {
    /// Replaces the bans.
    pub(super) fn set(&mut self, list: Arc<BanList>, now: Now) {
        (self.list, self.since) = (list, now);
    }

    fn holds(&self, end: BanEnd, now: Now) -> bool {
        end.is_none_or(|seconds| !self.since.after_s(seconds).is_due(now))
    }

    fn bans(
        &self,
        client_identifier: &str,
        user: Option<&str>,
        address: Option<SocketAddr>,
        now: Now,
    ) -> bool {
        let list = &*self.list;
        if list.is_empty() {
            return false;
        }
        let client = list.clients.get(client_identifier);
        let user = user.and_then(|user| list.users.get(user));
        let address = address.map(|address| address.ip().to_canonical());
        let networks = list
            .networks
            .iter()
            .filter(|(network, _)| address.is_some_and(|address| network.contains(&address)));
        let mut ends = client.into_iter().chain(user).chain(networks.map(|(_, end)| end));
        ends.any(|&end| self.holds(end, now))
    }
}

impl Engine {
    /// Refuses a client that an operator has banned.
    pub(in crate::engine) fn check_bans(
        &mut self,
        id: ConnectionId,
        client_identifier: &str,
        user: Option<&str>,
    ) -> Result<(), Rejection> {
        let address = self.connections[id].address();
        self.work.spend(self.observers.questions.bans.list.networks.len() / NETWORKS_PER_STEP);
        if self.observers.questions.bans.bans(client_identifier, user, address, self.now) {
            self.metrics.clients_banned += 1;
            return Err(Rejection::new(ReasonCode::Banned, Cause::Banned));
        }
        Ok(())
    }
}

/// Ends the connections of banned clients, after the bans have changed.
#[derive(Debug)]
pub(super) struct Enforcement {
    walk: SessionWalk,
    ended: u64,
    reply: Reply<u64>,
}

impl Enforcement {
    pub(super) fn new(reply: Reply<u64>) -> Self {
        Self { walk: SessionWalk::new(ListingPlace::default()), ended: 0, reply }
    }
}

impl Slices for Enforcement {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        loop {
            let session = match self.walk.next(engine, slice) {
                Walked::Session(session) => session,
                Walked::Later => return Progress::More,
                Walked::End => return Progress::Done,
            };
            let state = &engine.sessions[session];
            let Some(id) = state.connection else { continue };
            let Some(connection) = engine.connections.get(id) else { continue };
            let bans = &engine.observers.questions.bans;
            let (client, user) = (state.client_identifier.as_str(), state.owner());
            slice.spend(bans.list.networks.len() / NETWORKS_PER_STEP);
            if bans.bans(client, user, connection.address(), engine.now) {
                slice.act();
                engine.end_connection(
                    id,
                    Ending::Server(ReasonCode::AdministrativeAction, Cause::Banned),
                );
                self.ended += 1;
            }
            if engine.work.is_spent() {
                return Progress::More;
            }
        }
    }

    fn answer(self: Box<Self>, _is_complete: bool) {
        self.reply.send(self.ended);
    }
}
