//! Hand-over: a connection moves to the home core of its Client Identifier.
//!
//! All connections of a client, also in take-over and resumption, are handled on one core. Any core may
//! accept a connection; CONNECT shows the home core, and the socket moves there with the bytes that were
//! read.

use crate::base::clock::Now;
use crate::base::identity::CertificateIdentity;
use crate::base::ids::{ConnectionId, CoreId, Peer};
use crate::engine::connections::connection::{Deferred, Hold, Phase};
use crate::engine::inspect::Traffic;
use crate::engine::mesh::Mesh;
use crate::engine::{Action, Engine};
use crate::transport::Transport;

/// A connection without its socket: everything that another core needs to continue it.
#[derive(Debug)]
pub struct HandedOver {
    pub(super) peer: Peer,
    /// When CONNECT was received.
    pub(super) received: Now,
    /// CONNECT, and the bytes read after it.
    pub(super) bytes: Vec<u8>,
    /// The layers between the socket and MQTT, and bytes read for them meanwhile.
    pub(super) transport: Option<Box<Transport>>,
    pub(super) wrapped: Vec<u8>,
    /// Bytes received and sent so far.
    pub(super) traffic: Traffic,
    /// Whether the peer has ended its stream.
    pub(super) is_ended: bool,
    /// The identity in the client's certificate, if a proxy has passed it on.
    pub(super) certificate: Option<Box<CertificateIdentity>>,
}

impl HandedOver {
    /// Adds bytes that were read meanwhile.
    pub fn append(&mut self, bytes: &[u8]) {
        match self.transport {
            None => {
                self.traffic.note_received(bytes.len());
                self.bytes.extend_from_slice(bytes);
            }
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
        bytes.extend_from_slice(connection.input());
        self.metrics.connections_handed_over += 1;
        let peer = Peer { address: connection.address(), listener: connection.listener };
        let (transport, is_ended) = (connection.transport, connection.holds.has(Hold::Ended));
        let certificate = connection.extra.and_then(|extra| extra.certificate);
        let handed_over = Box::new(HandedOver {
            peer,
            received,
            bytes,
            transport,
            wrapped: Vec::new(),
            traffic: connection.traffic,
            is_ended,
            certificate,
        });
        Some(Action::HandOver { connection: id, to: home, handed_over })
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
