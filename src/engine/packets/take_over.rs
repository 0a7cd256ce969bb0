//! A CONNECT that takes over a session whose earlier connection is still being served.

use crate::base::ids::ConnectionId;
use crate::engine::Engine;
use crate::engine::connections::connection::Hold;
use crate::engine::work::BYTES_PER_STEP;
use crate::wire::{self, Frame};

/// The order of a CONNECT and the connection that its client already has.
pub(in crate::engine) enum Comes {
    /// The CONNECT is later and takes the session over.
    After,
    /// The peer of the CONNECT sends no more, and its client is back on a later connection, which it
    /// keeps although this CONNECT took longer to decide on.
    Before,
    /// The other connection is still being served to its end: the CONNECT has to wait.
    TooSoon,
}

impl Engine {
    /// Before a client is admitted, input that waits on a connection of the same Client Identifier whose
    /// peer sends no more is served.
    pub(in crate::engine) fn comes_after(
        &mut self,
        id: ConnectionId,
        client_identifier: &str,
    ) -> Comes {
        let Some(other) = self.sessions.connection_of(client_identifier) else {
            return Comes::After;
        };
        let is_later = (other.generation.wrapping_sub(id.generation) as i32) > 0;
        if is_later
            && self.connections.get_mut(id).is_some_and(|connection| connection.holds.is_ending())
        {
            return Comes::Before;
        }
        match self.serve_out(other) {
            true => Comes::After,
            false => Comes::TooSoon,
        }
    }

    /// Serves what waits on a connection whose peer sends no more, whatever it waits for, as far as the
    /// budget goes; whether that was all. There may be a DISCONNECT in it, after which no Will is
    /// published.
    fn serve_out(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let is_to_be = connection.holds.is_ending() && !connection.holds.has(Hold::Left);
        if !is_to_be || connection.session().is_none() {
            return true;
        }
        if connection.holds.has(Hold::Job) {
            return false;
        }
        let packet_bytes_max = connection.packet_bytes_max(&self.config);
        let Some(mut input) = self.connections.take_input(id) else { return true };
        let mut used = 0;
        while let Ok(Frame::Complete { header, total }) =
            wire::frame(&input.bytes()[used..], packet_bytes_max)
        {
            let Some(connection) = self.connections.get_mut(id) else { return true };
            if connection.holds.has(Hold::Left) {
                return true;
            }
            let (session, version) = (connection.session(), connection.version);
            if connection.holds.has(Hold::Job) || self.work.is_spent() {
                input.advance(used);
                let Self { connections, config, timers, now, .. } = self;
                connections.put_back(id, input, &config.protection, timers, *now);
                return false;
            }
            self.work.spend(1 + total / BYTES_PER_STEP);
            let frame = &input.bytes()[used..used + total];
            let Some(session) = session else { return true };
            match connection.mount() {
                None => self.handle_packet(id, session, frame, header, version),
                Some(_) => self.handle_mounted_packet(id, session, frame),
            }
            used += total;
        }
        true
    }
}
