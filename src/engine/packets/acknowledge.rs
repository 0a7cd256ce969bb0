//! PUBACK, PUBREC and PUBCOMP: a client acknowledges a message.

use crate::base::ids::{ConnectionId, SessionId};
use crate::engine::Engine;
use crate::engine::connections::pending_acks::{Answer, Promise};
use crate::session::outbound::{Ack, Acknowledged};
use crate::storage::commit::RecordRef;
use crate::wire::{self, PacketIdentifier, ReasonCode};

impl Engine {
    /// Handles PUBACK, PUBREC or PUBCOMP.
    pub(in crate::engine) fn handle_ack(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        identifier: PacketIdentifier,
        ack: Ack,
    ) {
        let outbound = self.sessions[session].outbound.as_mut();
        let acknowledged =
            outbound.map_or(Acknowledged::Unknown, |o| o.acknowledge(identifier, ack));
        match acknowledged {
            Acknowledged::Ended => {
                self.durability.append_done(&mut self.sessions, session);
                if let Some(congestion) = self.connections[id].congestion_mut() {
                    congestion.taken += 1;
                }
                self.after_progress(id);
            }
            Acknowledged::Release(record) => self.release(id, session, identifier, record),
            Acknowledged::Unknown if matches!(ack, Ack::Pubrec { refused: false }) => {
                // The client waits for a PUBREL, which tells it the reason.
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.connections.send_pubrel(id, identifier, reason);
            }
            Acknowledged::Unknown => {}
        }
    }

    /// Sends PUBREL once the receipt of PUBREC is durable: the client forgets the message with PUBREL.
    fn release(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        identifier: PacketIdentifier,
        record: RecordRef,
    ) {
        let mark = self.durability.mark();
        self.durability.append_released(&self.sessions, session, record, identifier);
        let Some(batch) = self.durability.batch_since(mark) else {
            return self.connections.send_pubrel(id, identifier, ReasonCode::Success);
        };
        let pubrel = Answer::Pubrel(wire::Ack::new(identifier, ReasonCode::Success));
        let promise = Promise::stored(batch);
        self.answer(id, pubrel, promise, |_, _, _| false);
    }
}
