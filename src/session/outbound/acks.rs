//! Acknowledgements from clients, and messages that end without.

use super::{Inflight, Outbound, Stage};
use crate::storage::commit::RecordRef;
use crate::wire::{PacketIdentifier, Qos};

/// The effect of an acknowledgement.
#[derive(Debug)]
pub enum Acknowledged {
    /// The message is complete.
    Ended,
    /// PUBREC: send PUBREL.
    Release(RecordRef),
    /// No message awaits it.
    Unknown,
}

/// An acknowledgement from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// PUBACK, whatever its reason: the message is ended.
    Puback,
    /// PUBREC; with a reason of 0x80 or more it ends the message [MQTT-4.3.3-4].
    Pubrec {
        /// The reason is an error.
        refused: bool,
    },
    /// PUBCOMP.
    Pubcomp,
}

impl Outbound {
    /// Ends a message that cannot be sent to this client, as if it had been acknowledged
    /// [MQTT-3.1.2-25].
    pub fn abandon(&mut self, identifier: PacketIdentifier) {
        if let Some(place) = self.find(identifier.get()) {
            let bytes = self.bytes_sent_at(place);
            let stage = std::mem::replace(&mut self.inflight[place].stage, Stage::Done);
            if let Stage::Sent(delivery) = stage {
                self.gone.note(delivery.record);
            }
            self.note_bytes_answered(bytes);
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
            self.forget_done();
        }
    }

    pub(super) fn forget_done(&mut self) {
        while matches!(self.inflight.front(), Some(Inflight { stage: Stage::Done, .. })) {
            self.inflight.pop_front();
            self.resend_from = self.resend_from.saturating_sub(1);
        }
    }

    /// PUBACK, or PUBREC with an error, or PUBCOMP as `ends` has it.
    pub fn acknowledge(&mut self, identifier: PacketIdentifier, with: Ack) -> Acknowledged {
        let Some(place) = self.find(identifier.get()) else { return Acknowledged::Unknown };
        let bytes = self.bytes_sent_at(place);
        let stage = &mut self.inflight[place].stage;
        let record = match (&*stage, with) {
            (Stage::Sent(delivery), Ack::Puback) if delivery.qos == Qos::AtLeastOnce => {
                delivery.record
            }
            (Stage::Sent(delivery), Ack::Pubrec { refused: false })
                if delivery.qos == Qos::ExactlyOnce =>
            {
                let mut record = delivery.record;
                record.settle();
                *stage = Stage::Released { resend: false, record };
                self.note_bytes_answered(bytes);
                return Acknowledged::Release(record);
            }
            (Stage::Sent(delivery), Ack::Pubrec { refused: true })
                if delivery.qos == Qos::ExactlyOnce =>
            {
                delivery.record
            }
            // PUBREC again for what is released already: the PUBREL is due again.
            (Stage::Released { resend: false, record }, Ack::Pubrec { refused: false }) => {
                return Acknowledged::Release(*record);
            }
            (Stage::Released { resend: false, record }, Ack::Pubcomp) => *record,
            _ => return Acknowledged::Unknown,
        };
        *stage = Stage::Done;
        self.gone.note(record);
        self.note_bytes_answered(bytes);
        self.unacknowledged -= 1;
        self.forget_done();
        Acknowledged::Ended
    }

    /// Identifiers in `inflight` count up from the front, with 65,535 followed by 1.
    pub(super) fn find(&self, identifier: u16) -> Option<usize> {
        let front = self.inflight.front()?.identifier;
        let mut distance = usize::from(identifier.wrapping_sub(front));
        if identifier < front {
            distance = distance.checked_sub(1)?;
        }
        (self.inflight.get(distance)?.identifier == identifier).then_some(distance)
    }
}
