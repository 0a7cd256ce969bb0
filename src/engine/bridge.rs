//! Bridges, as the engine serves them: clients whose far end is another broker
//! ([`Link`](crate::transport::bridge::Link)). What differs from other clients is here.

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Peer, SessionId, exchange};
use crate::base::metrics::Drop as DropCause;
use crate::config::bridge::BridgeQueue;
use crate::control::bridge::{BridgeDue, BridgeEnd, BridgeQueues, BridgeTick, QueueSize};
use crate::engine::cause::Cause;
use crate::engine::connections::connection::{Connection, Phase};
use crate::engine::connections::ending::Ending;
use crate::engine::listeners::NO_LISTENER;
use crate::engine::{Authentication, Engine, Refused};
use crate::transport::Transport;
use crate::transport::bridge::{FarEnd, Link};
use crate::wire::ReasonCode;

impl Engine {
    /// A bridge has opened a connection to another broker. `bytes` are packets of the bridge's session, as if they had
    /// been received. The executor reads the socket under the returned handle.
    pub fn handle_dialed(
        &mut self,
        now: Now,
        transport: Box<Transport>,
        bytes: Vec<u8>,
    ) -> Result<ConnectionId, Refused> {
        self.set_now(now);
        let generation = self.connections.next_generation();
        let peer = Peer { address: None, listener: NO_LISTENER };
        let mut connection = Connection::new(generation, peer.address, peer.listener, now);
        // It counts for no address.
        connection.phase = Phase::Connecting { elsewhere: false, awaits_address: true };
        connection.transport = Some(transport);
        let limits = &self.config.limits;
        let id = self.connections.add(connection, limits, &mut self.timers, now);
        self.connections.mark_dirty(id);
        if !bytes.is_empty() {
            self.handle_mqtt(id, &bytes);
        }
        Ok(id)
    }

    /// Decides about CONNECT of a bridge: its configuration admits it. None for other clients.
    pub(in crate::engine) fn authenticate_bridge(
        &mut self,
        id: ConnectionId,
        client_identifier: &str,
    ) -> Option<Authentication> {
        let link = link_of(&self.connections[id])?;
        let user = link.terms().user.clone();
        Some(self.access.admit_bridge(exchange(id), client_identifier, user))
    }

    /// The session of a bridge is open: ends subscriptions that the configuration does not name any more, and QoS 2
    /// exchanges that the far broker has forgotten.
    pub(in crate::engine) fn begin_bridge(&mut self, id: ConnectionId, session: SessionId) {
        let Some(link) = link_of(&self.connections[id]) else { return };
        let terms = link.terms().clone();
        if link.is_far_session_new() {
            self.forget_received(session);
        }
        let held = self.sessions[session].subscriptions.clone();
        let mut groups_left = Vec::new();
        for filter in held {
            let text = self.router.index().text(filter);
            if !terms.out.local_filters().any(|(wanted, _)| wanted == text) {
                self.unsubscribe_from(session, &text, &mut groups_left);
            }
        }
    }

    /// The far broker has no session from before: it uses Packet Identifiers anew that are between PUBREC and PUBREL
    /// here.
    fn forget_received(&mut self, session: SessionId) {
        let Some(inbound) = &self.sessions[session].inbound else { return };
        for identifier in inbound.identifiers() {
            let Some(inbound) = &mut self.sessions[session].inbound else { return };
            if inbound.release(identifier) {
                self.durability.append_completed(&self.sessions, session, identifier);
            }
        }
    }

    /// Does what is due on the connection of a bridge, if its session is at home on this core.
    pub(in crate::engine) fn tick_bridge(&mut self, tick: BridgeTick) {
        let BridgeTick { session, due, reply } = tick;
        if let BridgeDue::Queue(bounds) = due {
            let found = self.sessions.find(&session);
            reply.send(found.is_some_and(|id| self.sessions[id].connection.is_some()));
            return found.map_or((), |session| self.bound_queue(session, bounds));
        }
        let id = self.sessions.connection_of(&session);
        reply.send(id.is_some());
        let Some(id) = id else { return };
        let ticked = self.connections.with_transport(id, |transport, _| {
            let Some(far_end) = transport.bridge_mut() else { return Ok(()) };
            match due {
                BridgeDue::SignOfLife => far_end.link_mut().tick(),
                BridgeDue::Subscriptions => {
                    far_end.link_mut().subscribe_again();
                    Ok(())
                }
                BridgeDue::Queue(_) => Ok(()),
            }
        });
        match ticked {
            Some(Err(fault)) => self.end_for_fault(id, fault),
            _ => {
                self.connections.mark_dirty(id);
                self.connections.mark_ready(id);
            }
        }
    }

    /// Ends the connection of a bridge, if its session is at home on this core.
    pub(in crate::engine) fn end_bridge(&mut self, end: BridgeEnd) {
        let id = self.sessions.connection_of(&end.session);
        if let Some(id) = id {
            let (reason, cause) = (ReasonCode::AdministrativeAction, Cause::ByOperator);
            self.end_connection(id, Ending::Server(reason, cause));
        }
        end.reply.send(id.is_some());
    }

    /// Counts what waits in those sessions of bridges that are at home on this core.
    pub(in crate::engine) fn count_bridge_queues(&mut self, queues: BridgeQueues) {
        self.work.spend(queues.sessions.len());
        let of = |client_identifier: &str| {
            let session = self.sessions.find(client_identifier)?;
            let Some(outbound) = &self.sessions[session].outbound else {
                return Some(QueueSize::default());
            };
            let (messages, bytes) = (outbound.queued() as u64, outbound.queued_bytes());
            Some(QueueSize { messages, bytes, inflight: outbound.inflight() as u64 })
        };
        let found = queues.sessions.iter().map(|session| of(session)).collect();
        queues.reply.send(found);
    }
}

impl Engine {
    /// Sets the bounds of a queue, and drops what is too old for them.
    fn bound_queue(&mut self, session: SessionId, bounds: BridgeQueue) {
        self.sessions[session].set_own_bounds(bounds);
        let Some(outbound) = &mut self.sessions[session].outbound else { return };
        outbound.expire_old(self.now);
        let expired = outbound.take_swept().expired;
        self.count_drops(session, DropCause::Expired, expired);
        self.durability.append_done(&mut self.sessions, session);
    }
}

fn link_of(connection: &Connection) -> Option<&Link> {
    connection.transport.as_ref()?.bridge().map(FarEnd::link)
}
