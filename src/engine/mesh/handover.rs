//! Hand-over: a connection moves to the home core of its Client Identifier.
//!
//! All connections of a client, also in take-over and resumption, are handled on one core. Any core may
//! accept a connection; CONNECT shows the home core, and the socket moves there with the bytes that were
//! read.

use crate::base::clock::Now;
use crate::base::identity::CertificateIdentity;
use crate::base::ids::{ConnectionId, CoreId, Peer};
use crate::engine::connections::connection::{Connection, Deferred, Hold, Phase};
use crate::engine::connections::input_buffer::Input;
use crate::engine::mesh::Mesh;
use crate::engine::{Action, Engine, Refused};
use crate::transport::Transport;

/// A connection without its socket: everything that another core needs to continue it.
#[derive(Debug)]
pub struct HandedOver {
    peer: Peer,
    /// When CONNECT was received.
    received: Now,
    /// CONNECT, and the bytes read after it.
    bytes: Vec<u8>,
    /// The layers between the socket and MQTT, and bytes read for them meanwhile.
    transport: Option<Box<Transport>>,
    wrapped: Vec<u8>,
    /// Whether the peer has ended its stream.
    is_ended: bool,
    /// The identity in the client's certificate, if a proxy has passed it on.
    certificate: Option<Box<CertificateIdentity>>,
}

impl HandedOver {
    /// Adds bytes that were read meanwhile.
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
        // The home core processes and counts the packet.
        self.metrics.packets_received -= 1;
        self.mesh.departures.ready.push((id, home));
    }

    /// Takes a connection out that moves to its home core.
    pub(in crate::engine) fn hand_over(
        &mut self,
        id: ConnectionId,
        home: CoreId,
    ) -> Option<Action> {
        let connection = self.connections.get_mut(id)?;
        let Phase::Leaving(deferred) = &connection.phase else { return None };
        if connection.is_sending {
            // The end of a TLS handshake has not been sent yet. No further input is read here.
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

    /// A connection has arrived at its home core. The executor polls its socket under the returned handle.
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
