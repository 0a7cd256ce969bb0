//! Answers to clients: sent at once, or after the store and the other cores have what they promise.

use crate::base::ids::{ConnectionId, CoreId};
use crate::engine::Engine;
use crate::engine::connections::pending_acks::{Answer, Answers, Promise, suback, unsuback};
use crate::engine::mesh::Mesh;
use crate::engine::mesh::lanes::Awaited;
use crate::wire::{Packet, PacketIdentifier};

impl Engine {
    /// Sends an answer once a receipt has come for each lane that `awaits` names, and the store has what
    /// the answer promises.
    pub(in crate::engine) fn answer(
        &mut self,
        id: ConnectionId,
        answer: Answer,
        promise: Promise,
        mut awaits: impl FnMut(&mut Mesh, CoreId, Awaited) -> bool,
    ) {
        let (number, is_first) = self.connections.next_answer(id);
        let awaited = Awaited { connection: id, answer: number };
        let mut receipts = 0;
        if !self.mesh.is_alone() {
            for core in self.mesh.peers() {
                receipts += u32::from(awaits(&mut self.mesh, core, awaited));
            }
        }
        if promise.fans_out && !self.router.fan_outs().is_empty() {
            self.router.await_last_fan_out(awaited);
            receipts += 1;
        }
        let mut promise = promise;
        if receipts == 0
            && let Some(identifier) = promise.receives.take()
        {
            // Together with its deliveries: no other core has any that it may not have stored.
            promise.batch = self.log_received(id, identifier).or(promise.batch);
        }
        if let Some(batch) = promise.batch.filter(|&batch| !self.durability.is_stored(batch)) {
            self.durability.await_stored(batch, awaited);
            receipts += 1;
        }
        let Promise { receives, .. } = promise;
        if receipts == 0 && is_first {
            return self.send_answer(id, answer);
        }
        self.connections.line_up(id, answer, receipts, receives);
    }

    /// Logs that a QoS 2 message was received; the batch that must be stored, if there is one.
    fn log_received(&mut self, id: ConnectionId, identifier: PacketIdentifier) -> Option<u64> {
        let session = &mut self.sessions[self.connections.get(id)?.session()?];
        self.durability.append_received(session, identifier, &mut self.mesh)
    }

    fn send_answer(&mut self, id: ConnectionId, answer: Answer) {
        let version = self.connections[id].version;
        let is_suback = matches!(answer, Answer::Suback { .. });
        self.connections.send(id, |out| match &answer {
            Answer::Puback(ack) => Packet::Puback(ack.clone()).encode(version, out),
            Answer::Pubrec(ack) => Packet::Pubrec(ack.clone()).encode(version, out),
            Answer::Pubrel(ack) => Packet::Pubrel(ack.clone()).encode(version, out),
            Answer::Pubcomp(ack) => Packet::Pubcomp(ack.clone()).encode(version, out),
            Answer::Unsuback { packet_identifier, reasons } => {
                Packet::Unsuback(unsuback(*packet_identifier, reasons)).encode(version, out);
            }
            Answer::Suback { packet_identifier, reasons } => {
                Packet::Suback(suback(*packet_identifier, reasons)).encode(version, out);
            }
        });
        if is_suback {
            // Retained messages follow it.
            self.pump(id);
        }
    }

    /// A receipt came for which an answer waited.
    pub(in crate::engine) fn note_awaited(&mut self, awaited: Awaited) {
        let id = awaited.connection;
        let Some(answers) = self.connections.answers_of(id) else { return };
        if let Some(identifier) = answers.note_receipt(awaited.answer) {
            // Not before: what is sent again after a crash must reach the others.
            if let Some(batch) = self.log_received(id, identifier) {
                return self.durability.await_stored(batch, awaited);
            }
            if let Some(answers) = self.connections.answers_of(id) {
                answers.note_receipt(awaited.answer);
            }
        }
        while let Some(answer) = self.connections.answers_of(id).and_then(Answers::pop_ready) {
            self.send_answer(id, answer);
        }
        self.connections.note_answers_left(id, self.now);
    }
}
