//! Messages whose acknowledgements differ between the session and the far broker, because they are sent with a lower
//! QoS than the session sends them with, or not at all.

use std::collections::HashMap;

use crate::wire::{Ack, Packet, PacketIdentifier, PacketType, Qos, ReasonCode, Version};

/// How a message of the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Sent with QoS 1 instead of 2: its PUBACK becomes PUBREC.
    Lowered,
    /// The far broker has acknowledged it, or it is not sent: the PUBREL of the session is answered here.
    Done,
}

/// The changed messages of one connection, by Packet Identifier. The window of the session bounds their number.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements(HashMap<u16, Change>);

impl Acknowledgements {
    /// A message is sent with `sent` instead of `qos`, or not at all. Appends what the session has to be told now.
    pub fn lower(
        &mut self,
        identifier: PacketIdentifier,
        qos: Qos,
        sent: Option<Qos>,
        reason: ReasonCode,
        to_session: &mut Vec<u8>,
    ) {
        let change = match (qos, sent) {
            (Qos::ExactlyOnce, Some(Qos::AtLeastOnce)) => Change::Lowered,
            _ => {
                let ack = Ack::new(identifier, reason);
                let ack = match qos {
                    Qos::ExactlyOnce => Packet::Pubrec(ack),
                    _ => Packet::Puback(ack),
                };
                ack.encode(Version::V5, to_session);
                if qos != Qos::ExactlyOnce || reason.is_error() {
                    return; // nothing follows
                }
                Change::Done
            }
        };
        self.0.insert(identifier.get(), change);
    }

    /// Whether PUBACK of the far broker belongs to a message that the session sent with QoS 2; if so, appends PUBREC for
    /// the session.
    pub fn take_puback(&mut self, identifier: u16, to_session: &mut Vec<u8>) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Some(change @ Change::Lowered) = self.0.get_mut(&identifier) else { return false };
        *change = Change::Done;
        if let Some(identifier) = PacketIdentifier::new(identifier) {
            let ack = Ack::new(identifier, ReasonCode::Success);
            Packet::Pubrec(ack).encode(Version::V5, to_session);
        }
        true
    }

    /// Whether PUBREL of the session is answered here, as of a message that is done with, which `is_done` says of all;
    /// if so, appends PUBCOMP for the session.
    pub fn take_pubrel(
        &mut self,
        identifier: u16,
        is_done: bool,
        to_session: &mut Vec<u8>,
    ) -> bool {
        if !is_done && (self.0.is_empty() || self.0.get(&identifier) != Some(&Change::Done)) {
            return false;
        }
        self.0.remove(&identifier);
        if let Some(identifier) = PacketIdentifier::new(identifier) {
            let ack = Ack::new(identifier, ReasonCode::Success);
            Packet::Pubcomp(ack).encode(Version::V5, to_session);
        }
        true
    }
}

/// The Packet Identifier of an acknowledgement whose fixed header has `header` bytes.
pub(super) fn identifier_of(frame: &[u8], header: usize) -> Option<u16> {
    let bytes = frame.get(header..header + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Appends an acknowledgement as the receiver's version has it: before 5.0 without Reason Code and properties.
pub(super) fn convert(
    packet_type: PacketType,
    frame: &[u8],
    header: usize,
    version: Version,
    out: &mut Vec<u8>,
) {
    if version == Version::V5 {
        return out.extend_from_slice(frame);
    }
    let Some(identifier) = identifier_of(frame, header).and_then(PacketIdentifier::new) else {
        return;
    };
    let ack = Ack::new(identifier, ReasonCode::Success);
    match packet_type {
        PacketType::Puback => Packet::Puback(ack),
        PacketType::Pubrec => Packet::Pubrec(ack),
        PacketType::Pubrel => Packet::Pubrel(ack),
        _ => Packet::Pubcomp(ack),
    }
    .encode(version, out);
}
