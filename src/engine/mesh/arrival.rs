//! A connection arrives at its home core, see `handover`.

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::engine::connections::connection::{Connection, Phase};
use crate::engine::connections::input_buffer::InputBuffer;
use crate::engine::mesh::handover::HandedOver;
use crate::engine::{Engine, Refused};

impl Engine {
    /// A connection has arrived at its home core. The executor polls its socket under the returned handle.
    pub fn handle_handed_over(
        &mut self,
        now: Now,
        handed_over: HandedOver,
    ) -> Result<ConnectionId, Refused> {
        self.set_now(now);
        let HandedOver {
            peer,
            received,
            bytes,
            transport,
            wrapped,
            traffic,
            is_ended,
            certificate,
        } = handed_over;
        let generation = self.connections.next_generation();
        let mut connection = Connection::new(generation, peer.address, peer.listener, received);
        connection.phase = Phase::Connecting { elsewhere: true, awaits_address: false };
        connection.put_back_input(now, Box::new(InputBuffer::from_bytes(bytes, now)));
        connection.transport = transport;
        connection.traffic = traffic;
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
