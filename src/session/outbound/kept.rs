//! Logging the messages at a checkpoint, and restoring them from the store.

use super::{Delivery, Inflight, Outbound, Stage};
use crate::base::limits;
use crate::config::QueuePolicy;
use crate::storage::commit::RecordRef;
use crate::wire::PacketIdentifier;

impl Outbound {
    /// Logs all stored messages again, in order: those in flight, then those that wait.
    pub fn log_to_checkpoint(&mut self, mut log: impl FnMut(Logged<'_>)) {
        for Inflight { identifier, stage } in &mut self.inflight {
            match stage {
                Stage::Sent(delivery) | Stage::Unsent(delivery) | Stage::Held(delivery, _) => {
                    if delivery.kept.number != 0 {
                        log(Logged::Delivery(delivery, *identifier));
                    }
                }
                Stage::Released { kept, .. } if kept.number != 0 => {
                    log(Logged::Released(*kept, *identifier));
                }
                Stage::Released { .. } | Stage::Done => {}
            }
        }
        let waiting = self.queue.messages.iter_mut().filter(|delivery| delivery.kept.number != 0);
        waiting.for_each(|delivery| log(Logged::Delivery(delivery, 0)));
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
            Err(kept) => Stage::Released { resend: true, kept },
        };
        self.inflight.push_back(Inflight { identifier: identifier.get(), stage });
    }

    /// Restores a message that waited in an earlier process.
    pub fn restore_queued(&mut self, delivery: Delivery) {
        self.queue.push_back(delivery);
    }

    /// Ends restoring. Under `keep-latest` queued messages are found by topic again.
    pub fn end_restore(&mut self, policy: QueuePolicy) {
        if policy == QueuePolicy::KeepLatest {
            self.queue.number_anew();
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
}
