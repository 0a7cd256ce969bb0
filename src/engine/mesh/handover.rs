//! Connections on their way to the home core of their Client Identifier.
//!
//! Everything about one client, take-over and resumption above all, is a matter of one thread.
//! Which core that is shows in CONNECT, and any core may accept the connection: so the socket
//! goes home with the bytes that were read already.

use crate::base::clock::Now;
use crate::base::identity::CertificateIdentity;
use crate::base::ids::{ConnectionId, CoreId, Peer};
use crate::engine::connections::connection::{Connection, Deferred, Hold, Phase};
use crate::engine::connections::input_buffer::Input;
use crate::engine::mesh::Mesh;
use crate::engine::{Action, Engine, Refused};
use crate::transport::Transport;

/// A connection without its socket: all that another core needs to go on with it.
#[derive(Debug)]
pub struct HandedOver {
    peer: Peer,
    /// When CONNECT came.
    received: Now,
    /// CONNECT, and what else was read.
    bytes: Vec<u8>,
    /// What lies between the socket and MQTT, and what was read for it meanwhile.
    transport: Option<Box<Transport>>,
    wrapped: Vec<u8>,
    /// Its peer sends no more.
    is_ended: bool,
    /// Whom the client's certificate names, where a proxy has seen it.
    certificate: Option<Box<CertificateIdentity>>,
}

impl HandedOver {
    /// Adds what was read meanwhile.
    pub fn append(&mut self, bytes: &[u8]) {
        match self.transport {
            None => self.bytes.extend_from_slice(bytes),
            Some(_) => self.wrapped.extend_from_slice(bytes),
        }
    }
}

impl Engine {
    /// Sends a connection home with its CONNECT, at the end of the turn.
    pub(in crate::engine) fn send_home(&mut self, id: ConnectionId, home: CoreId, connect: &[u8]) {
        let received = self.now;
        let deferred = Deferred { connect: connect.into(), received, granted: None };
        let left = self.connections.edit(id, |connection| {
            connection.phase = Phase::Leaving(Box::new(deferred));
            connection.holds.set(Hold::Decision);
        });
        if left.is_none() {
            return;
        }
        // It is processed at home, and counted there.
        self.metrics.packets_received -= 1;
        self.mesh.departures.ready.push((id, home));
    }

    /// Takes a connection out that is to go home.
    pub(in crate::engine) fn hand_over(
        &mut self,
        id: ConnectionId,
        home: CoreId,
    ) -> Option<Action> {
        let connection = self.connections.get_mut(id)?;
        let Phase::Leaving(deferred) = &connection.phase else { return None };
        if connection.is_sending {
            // What a TLS handshake ends with, to a client that does not take it.
            // More than what has come already is not read here.
            self.mesh.departures.sending.push((id, home));
            return Some(Action::Pause { connection: id });
        }
        let (received, mut bytes) = (deferred.received, deferred.connect.to_vec());
        let (connection, _) = self.connections.remove(id);
        self.connections.free(id);
        bytes.extend_from_slice(connection.stash());
        self.metrics.connections_handed_over += 1;
        let peer = Peer { address: connection.address, listener: connection.listener };
        let (transport, is_ended) = (connection.transport, connection.holds.has(Hold::Ended));
        let certificate = connection.extra.and_then(|extra| extra.certificate);
        let wrapped = Vec::new();
        let handed_over =
            HandedOver { peer, received, bytes, transport, wrapped, is_ended, certificate };
        Some(Action::HandOver { connection: id, to: home, handed_over })
    }

    /// A connection came home. The executor watches its socket under the handle returned.
    pub fn handle_handed_over(
        &mut self,
        now: Now,
        handed_over: HandedOver,
    ) -> Result<ConnectionId, Refused> {
        self.set_now(now);
        let HandedOver { peer, received, bytes, transport, wrapped, is_ended, certificate } =
            handed_over;
        let generation = self.connections.next_generation();
        let mut connection = Connection::new(generation, peer.address, peer.listener, received);
        connection.phase = Phase::Connecting { elsewhere: true, awaits_address: false };
        connection.put_back_stash(now, Box::new(Input::from_bytes(bytes, now)));
        connection.transport = transport;
        if certificate.is_some() {
            connection.extra.get_or_insert_default().certificate = certificate;
        }
        let limits = &self.config.limits;
        let id = self.connections.add(connection, limits, &mut self.timers, self.now);
        self.connections.mark_dirty(id);
        self.connections.mark_ready(id);
        if !wrapped.is_empty() {
            self.handle_received(now, id, &wrapped);
        }
        if is_ended {
            self.end_of_input(id);
        }
        Ok(id)
    }
}

/// Connections that move to their home cores.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Connections that leave at the end of the turn.
    ready: Vec<(ConnectionId, CoreId)>,
    /// Connections that leave once their output is sent: the socket is the executor's until then.
    sending: Vec<(ConnectionId, CoreId)>,
}

impl Mesh {
    /// The next connection to hand over in this turn, with its home core.
    #[inline]
    pub(in crate::engine) fn next_departure(&mut self) -> Option<(ConnectionId, CoreId)> {
        self.departures.ready.pop()
    }

    /// The output of a connection is sent: a departure that waited for that goes ahead.
    #[inline]
    pub(in crate::engine) fn depart_sent(&mut self, id: ConnectionId) {
        if !self.departures.sending.is_empty() {
            self.departures.depart(id);
        }
    }

    /// A connection that was leaving has ended.
    pub(in crate::engine) fn cancel_departure(&mut self, id: ConnectionId) {
        self.departures.sending.retain(|&(leaving, _)| leaving != id);
    }
}

impl Departures {
    fn depart(&mut self, id: ConnectionId) {
        let place = self.sending.iter().position(|&(leaving, _)| leaving == id);
        self.ready.extend(place.map(|place| self.sending.swap_remove(place)));
    }
}
