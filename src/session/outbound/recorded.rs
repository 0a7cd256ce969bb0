//! Logging the messages at a checkpoint, and restoring them from the store.

use super::{Delivery, Inflight, Outbound, Stage};
use crate::base::limits;
use crate::config::QueuePolicy;
use crate::storage::commit::RecordRef;
use crate::wire::PacketIdentifier;
#[cfg(feature = "cluster")]
use crate::wire::Qos;

impl Outbound {
    /// Logs stored messages again: those that wait, from the last to the first, then those in flight, in order. So a
    /// message that is sent meanwhile is not passed over: messages leave the queue at its head. Continues after
    /// `up_to`, as long as `log` returns true; whether that was all.
    pub fn log_to_checkpoint(
        &mut self,
        up_to: &mut LoggedUpTo,
        mut log: impl FnMut(Logged<'_>) -> bool,
    ) -> bool {
        if let LoggedUpTo::Waiting(left) = up_to {
            *left = (*left).min(self.queue.messages.len());
            while *left > 0 {
                *left -= 1;
                let delivery = &mut self.queue.messages[*left];
                let is_stored = delivery.record.number != 0;
                if !log(if is_stored { Logged::Delivery(delivery, 0) } else { Logged::Nothing }) {
                    return false;
                }
            }
            *up_to = LoggedUpTo::InFlight(None);
        }
        let LoggedUpTo::InFlight(last) = up_to else { return true };
        // If the last one has left, all before it have.
        let from = last.and_then(|last| self.find(last)).map_or(0, |place| place + 1);
        for Inflight { identifier, stage } in self.inflight.range_mut(from..) {
            *last = Some(*identifier);
            let logged = match stage {
                Stage::Sent(delivery) | Stage::Unsent(delivery) | Stage::Held(delivery, _)
                    if delivery.record.number != 0 =>
                {
                    Logged::Delivery(delivery, *identifier)
                }
                Stage::Released { record, .. } if record.number != 0 => {
                    Logged::Released(*record, *identifier)
                }
                _ => Logged::Nothing,
            };
            if !log(logged) {
                return false;
            }
        }
        true
    }

    /// Restores a message that was in flight in an earlier process, after the others that were: sent, or,
    /// given its record alone, with only PUBREL left.
    pub fn restore_inflight(
        &mut self,
        identifier: PacketIdentifier,
        of: Result<Delivery, RecordRef>,
    ) {
        // Acknowledged messages in between leave a place, so that identifiers count up.
        while !self.inflight.is_empty()
            && self.inflight.len() < limits::IDENTIFIER_SPAN_MAX
            && self.last_identifier.checked_add(1).unwrap_or(1) != identifier.get()
        {
            let identifier = self.next_identifier().get();
            self.inflight.push_back(Inflight { identifier, stage: Stage::Done });
        }
        self.last_identifier = identifier.get();
        self.to_resend += 1;
        let stage = match of {
            Ok(delivery) => Stage::Unsent(delivery),
            Err(record) => Stage::Released { resend: true, record },
        };
        self.inflight.push_back(Inflight { identifier: identifier.get(), stage });
    }

    /// Restores a message that waited in an earlier process.
    pub fn restore_queued(&mut self, delivery: Delivery) {
        self.queue.push_back(delivery);
    }

    /// Logs all messages of a session that is new to the store, in order: those in flight with their Packet Identifiers,
    /// of some of which only PUBREL is left, then those that wait. QoS 0 is not logged.
    #[cfg(feature = "cluster")]
    pub fn log_anew(&mut self, mut log: impl FnMut(Option<&Delivery>, u16) -> RecordRef) {
        for Inflight { identifier, stage } in &mut self.inflight {
            match stage {
                Stage::Sent(delivery) | Stage::Unsent(delivery) | Stage::Held(delivery, _) => {
                    delivery.record = log(Some(delivery), *identifier);
                }
                Stage::Released { record, .. } => *record = log(None, *identifier),
                Stage::Done => {}
            }
        }
        let is_logged = |of: &&mut Delivery| of.qos != Qos::AtMostOnce && !of.message.is_hollow();
        for delivery in self.queue.messages.iter_mut().filter(is_logged) {
            delivery.record = log(Some(delivery), 0);
        }
    }

    /// Ends restoring. Under `keep-latest` queued messages are found by topic again.
    pub fn end_restore(&mut self, policy: QueuePolicy) {
        if policy == QueuePolicy::KeepLatest {
            self.queue.renumber();
        }
        self.settle();
    }
}

/// Items that [`crate::session::outbound::Outbound::log_to_checkpoint`] logs.
pub enum Logged<'a> {
    /// A message that waits, or is in flight under a Packet Identifier.
    Delivery(&'a mut Delivery, u16),
    /// A message of which only PUBREL is left.
    Released(RecordRef, u16),
    /// A place without a stored message.
    Nothing,
}

/// How far [`Outbound::log_to_checkpoint`] has come.
#[derive(Clone, Copy, Debug)]
pub enum LoggedUpTo {
    /// So many messages at the head of the queue are left, and those in flight.
    Waiting(usize),
    /// The messages in flight after this Packet Identifier are left.
    InFlight(Option<u16>),
}

impl Default for LoggedUpTo {
    fn default() -> Self {
        Self::Waiting(usize::MAX)
    }
}
